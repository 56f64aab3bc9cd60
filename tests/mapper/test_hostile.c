/*
 * test_hostile.c - scripts that want out, run through the real pool
 *
 * hostile/README.md says what an attack looks like. One worker runs them all next to a good mapper,
 * so that whatever one leaves behind would be seen by the next. After each: nothing was read,
 * opened, signalled or emitted that should not be, the call ended within its limits, and the good
 * mapper gives the rows it always gives.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "../unit/pool_harness.h"

#define ATTACKS_MIN 200
#define FAST_MS 60
#define CPU_MS 80

static const char secret[] = "canary-7d1f3c2a9b";

/* Uses what attacks would poison: libraries, metatables, pairs, json, tostring, errors. */
static const char good_body[] =
    "local seen = {} for k, v in pairs({b = 2, a = 1, c = 3}) do seen[#seen + 1] = k .. v end "
    "local ok, why = pcall(error, {code = 7}) "
    "local s = ('%s|%s|%s|%d|%s'):format(table.concat(seen, ','), ('y'):rep(3):upper(), "
    "refuge.json.encode({1, 'two'}), select('#', 1, 2), tostring(1.5)) "
    "if ok or why.code ~= 7 or string.seen or tostring(nil) ~= 'nil' or refuge[1] or "
    "string[1] or table[1] then s = 'bad' end "
    "row{word = s .. '|' .. blob:content(), num = math.floor(2.5) + #blob:sub(1, 2)}";
static const char good_word[] = "a1,b2,c3|YYY|[1,\"two\"]|2|1.5|good";

struct world {
    struct folder folder;
    struct rf_pool *pool;
    const struct rf_mapper *good;
    struct rf_item good_item;
    char canary[400], content[512];
    int listener;
    pid_t victim;
    struct rf_item item;
    unsigned attacks, refused, failed, limits, rows, slow, escapes;
};

static void make_listener(struct world *w, unsigned *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;

    w->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(w->listener >= 0);
    assert_int_equal(bind(w->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(w->listener, 8), 0);
    assert_int_equal(getsockname(w->listener, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
}

static int make_world(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    unsigned port;

    folder_make(&w->folder);
    snprintf(w->canary, sizeof w->canary, "%s", folder_write(&w->folder, "canary", secret));
    make_listener(w, &port);
    w->victim = fork();
    if (w->victim == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    snprintf(w->content, sizeof w->content, "%s %u %d", w->canary, port, (int)w->victim);
    w->item = item_text(w->content);
    w->good_item = item_text("good");
    w->pool = pool_open((struct rf_pool_options){.workers = 1, .fast_ms = FAST_MS});
    w->good = mapper_with(w->pool, &w->folder, "good", "", "", good_body);
    *state = w;
    return 0;
}

static int end_world(void **state)
{
    struct world *w = *state;

    rf_pool_close(w->pool);
    if (w->victim > 1) {
        kill(w->victim, SIGKILL);
        waitpid(w->victim, NULL, 0);
    }
    close(w->listener);
    folder_remove(&w->folder);
    free(w);
    return 0;
}

/* ---- what must not have happened ---- */

static void check_call(struct world *w, const char *name, const struct rf_call *call,
                       const struct rf_item *item)
{
    char *word;

    if ((call->output.size &&
         memmem(call->output.data, call->output.size, secret, sizeof secret - 1)) ||
        (call->message && strstr(call->message, secret)) ||
        (call->traceback && strstr(call->traceback, secret)))
        fail_msg("%s: read the canary", name);
    for (unsigned i = 0; i < call->rows; i++) {
        word = word_of(call, item, i);
        if (word && strncmp(word, "escaped", 7) == 0) {
            fprintf(stderr, "%s: %s\n", name, word);
            w->escapes++;
        }
        free(word);
        if (i == 20)
            break;
    }
    for (const char *p = call->message; p && *p; p++)
        if (iscntrl((unsigned char)*p))
            fail_msg("%s: its message has control bytes", name);
}

static void check_world(const char *name, struct world *w)
{
    struct rf_result *result;
    char escaped[420], *word;

    snprintf(escaped, sizeof escaped, "%s.escaped", w->canary);
    if (access(w->canary, R_OK) != 0 || access(escaped, F_OK) == 0)
        fail_msg("%s: changed files", name);
    if (accept(w->listener, NULL, NULL) >= 0)
        fail_msg("%s: opened a connection", name);
    if (waitpid(w->victim, NULL, WNOHANG) != 0)
        fail_msg("%s: ended another process", name);
    result = map_one(w->pool, RF_LANE_FAST, &w->good_item, w->good);
    if (result->calls[0].outcome == RF_CALL_SLOW) { /* the machine was busy, not the mapper */
        rf_result_free(result);
        result = map_one(w->pool, RF_LANE_SLOW, &w->good_item, w->good);
    }
    if (result->calls[0].outcome != RF_CALL_ROWS)
        fail_msg("%s: afterwards the good mapper fails: %s", name, result->calls[0].message);
    word = word_of(&result->calls[0], &w->good_item, 0);
    if (!word || strcmp(word, good_word) != 0)
        fail_msg("%s: afterwards the good mapper says '%s'", name, word ? word : "nothing");
    assert_int_equal(num_of(&result->calls[0], &w->good_item), 4);
    free(word);
    rf_result_free(result);
}

/* ---- running ---- */

static enum rf_call_outcome run_once(const char *name, struct world *w, enum rf_pool_lane lane,
                                     const struct rf_mapper *mapper)
{
    struct rf_result *result = map_one(w->pool, lane, &w->item, mapper);
    enum rf_call_outcome outcome = result->calls[0].outcome;

    check_call(w, name, &result->calls[0], &w->item);
    w->failed += outcome == RF_CALL_FAILED;
    w->limits += outcome == RF_CALL_LIMIT;
    w->rows += outcome == RF_CALL_ROWS;
    w->slow += outcome == RF_CALL_SLOW;
    rf_result_free(result);
    return outcome;
}

static void run_attack(struct world *w, const char *file, const char *name, const char *code)
{
    bool chunk = strncmp(name, "chunk ", 6) == 0;
    struct rf_error err = {.status = RF_OK};
    struct rf_mapper *mapper = NULL;
    char *text = NULL, where[200];
    enum rf_status status;

    snprintf(where, sizeof where, "%s: %s", file, name);
    if (asprintf(&text,
                 "%s\nreturn {name = 'attack', on = 'blob', splits = true, limits = {cpu_ms = %d, "
                 "memory_mb = 8, output_mb = 1, rows = 1000, parts = 1000}, tables = {attack_t = "
                 "{columns = {{'word', 'text'}, {'num', 'int'}}}},\nmap = function(blob, emit)\n"
                 "local row = emit.attack_t\nlocal path, port, pid = blob:content():match('(%%S+) "
                 "(%%S+) (%%S+)')\ndo %s end\nend}\n",
                 chunk ? code : "", CPU_MS, chunk ? "row{word = 'clean'}" : code) < 0)
        fail_msg("no memory");
    status = rf_pool_load(w->pool, folder_write(&w->folder, "attack.lua", text), &mapper, &err);
    free(text);
    w->attacks++;
    if (status == RF_OK) {
        for (int i = 0; i < 2; i++)
            if (run_once(where, w, RF_LANE_FAST, mapper) == RF_CALL_SLOW &&
                run_once(where, w, RF_LANE_SLOW, mapper) == RF_CALL_SLOW)
                fail_msg("%s: slow in the slow lane", where);
    } else if (status == RF_INVALID || status == RF_LIMIT) {
        w->refused++;
        if (!chunk && !strstr(err.message, "attack.lua"))
            fail_msg("%s: refused without saying where: %s", where, err.message);
    } else {
        fail_msg("%s: %s", where, err.message);
    }
    check_world(where, w);
}

static char *read_whole(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);

    assert_non_null(file);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

static void run_file(struct world *w, const char *file)
{
    char path[400], *text, *at, *end;

    snprintf(path, sizeof path, RF_SOURCE_DIR "/tests/mapper/hostile/%s", file);
    text = read_whole(path);
    for (at = strstr(text, "\n--# "); at; at = end) {
        char *name = at + 5, *code = strchr(name, '\n');
        end = strstr(code, "\n--# ");
        *code++ = '\0';
        if (end)
            *end = '\0';
        if (getenv("HOSTILE_TRACE"))
            fprintf(stderr, "%s: %s\n", file, name);
        run_attack(w, file, name, code);
        if (end)
            *end = '\n';
    }
    free(text);
}

static void run_files(struct world *w, const char *const *files)
{
    for (; *files; files++)
        run_file(w, *files);
    printf("%u attacks: %u refused at load; calls: %u failed, %u at a limit, %u with rows, %u cut "
           "in the fast lane\n", w->attacks, w->refused, w->failed, w->limits, w->rows, w->slow);
    assert_int_equal(w->escapes, 0);
}

static unsigned all;

static void test_loops(void **state)
{
    run_files(*state, (const char *const[]){"loops.lua", NULL});
    all += ((struct world *)*state)->attacks;
}

static void test_patterns(void **state)
{
    run_files(*state, (const char *const[]){"patterns.lua", NULL});
    all += ((struct world *)*state)->attacks;
}

static void test_memory(void **state)
{
    run_files(*state, (const char *const[]){"memory.lua", NULL});
    all += ((struct world *)*state)->attacks;
}

static void test_escapes(void **state)
{
    run_files(*state, (const char *const[]){"escape.lua", NULL});
    all += ((struct world *)*state)->attacks;
}

static void test_state(void **state)
{
    run_files(*state, (const char *const[]){"state.lua", NULL});
    all += ((struct world *)*state)->attacks;
}

static void test_output(void **state)
{
    run_files(*state, (const char *const[]){"output.lua", NULL});
    all += ((struct world *)*state)->attacks;
}

static void test_there_are_enough(void **state)
{
    (void)state;
    assert_true(all >= ATTACKS_MIN);
}

#define T(name) cmocka_unit_test_setup_teardown(name, make_world, end_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_loops), T(test_patterns), T(test_memory), T(test_escapes), T(test_state),
        T(test_output), cmocka_unit_test(test_there_are_enough),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
