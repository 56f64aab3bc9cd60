/*
 * mapper_main.c - refuge-mapper: the program that runs mappers, jailed
 *
 * Started by the pool (pool.h), never by a person. It links Lua; the host program does not.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/control.h"
#include "mappers/lua_env.h"
#include "mappers/worker.h"
#include "mappers/zygote.h"

static int by_value(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void no_memory(void *user, size_t bytes)
{
    (void)user;
    (void)bytes;
    _exit(RF_EXIT_MEMORY);
}

static enum rf_status no_module(void *user, const char *name, struct rf_bytes *text)
{
    (void)user;
    (void)name;
    (void)text;
    return RF_NOT_FOUND;
}

/*
 * Touch what asks the system something at its first use, while that is still allowed: the hash
 * reads OpenSSL's configuration, a large qsort asks for the size of memory, a Lua state faults in
 * the interpreter. The chunk is ours; no user's text is ever seen here.
 */
static void warm(void)
{
    static const char chunk[] = "return {name = 'warm', on = 'blob', tables = {warm = {"
                                "{'k', 'text'}}}, map = function() end}";
    struct rf_env_options options = {.out_of_memory = no_memory, .module = no_module};
    struct rf_error err = {.status = RF_OK};
    struct rf_env *env;
    struct rf_blobref ref;
    int numbers[1024];

    for (int i = 0; i < 1024; i++)
        numbers[i] = (i * 7919) % 1024;
    qsort(numbers, 1024, sizeof numbers[0], by_value);
    if (RF_SAFEGUARD("zygote-warm"))
        rf_blobref_of(&ref, rf_bytes_text(chunk));
    if (rf_env_open(&env, "warm.lua", rf_bytes_text(chunk), NULL, &options, &err) == RF_OK)
        rf_env_close(env);
}

int main(void)
{
    int status = rf_zygote_run(warm, rf_worker_run);

    if (status == 2)
        (void)!write(2, "refuge-mapper is started by refuge, not by hand\n", 48);
    return status;
}
