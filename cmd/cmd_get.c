/*
 * cmd_get.c - refuge get: a blob or a file's content, checked on its way out
 *
 * Content streams in blocks whose checksums the store checks; the whole is hashed besides, so that
 * even a blob of any size is known to be the one that was asked for. With --output the file appears
 * only when it is complete; a symlink's target does, and a device or pipe is written through.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/schema.h"
#include "cmd/cli.h"

#define BLOCK ((size_t)1 << 20)

struct get {
    struct rf_cli *cli;
    struct rf_store *store;
    int fd;             /* of --output, else -1 */
    uint8_t *block;
    uint64_t written, total;
};

static enum rf_status write_out(struct get *get, struct rf_bytes bytes, struct rf_error *err)
{
    struct rf_progress progress = {.noun = "blob", .total = 1, .bytes_total = get->total};

    if (get->fd < 0 && !rf_out_write(get->cli, bytes)) {
        int cause = get->cli->out.failed;

        if (cause == EPIPE)
            return RF_END;
        return cause == EINTR && rf_stop_asked()
                   ? RF_CANCELLED
                   : rf_error_errno(err, RF_IO, cause, "cannot write to standard output");
    }
    for (size_t at = 0; get->fd >= 0 && at < bytes.size;) {
        ssize_t put = write(get->fd, bytes.data + at, bytes.size - at);

        if (put < 0 && errno != EINTR)
            return rf_error_errno(err, RF_IO, errno, "cannot write '%s'",
                                  rf_args_text(&get->cli->args, "output"));
        at += put > 0 ? (size_t)put : 0;
    }
    get->written += bytes.size;
    progress.bytes = get->written;
    progress.done = get->written == get->total;
    if (get->fd >= 0)
        rf_progress_show(get->cli, &progress);
    return rf_stop_asked() ? RF_CANCELLED : RF_OK;
}

static enum rf_status copy_blob(struct get *get, const struct rf_blobref *ref, uint64_t size,
                                struct rf_error *err)
{
    struct rf_hasher *hasher = rf_hasher_new();
    enum rf_status status = RF_OK;
    struct rf_blobref is;
    char want[RF_BLOBREF_SIZE], have[RF_BLOBREF_SIZE];

    for (uint64_t at = 0; at < size && status == RF_OK;) {
        size_t got = 0;

        status = rf_store_read(get->store, ref, at, get->block, BLOCK, &got, err);
        if (status == RF_OK && got == 0)
            status = rf_error_set(err, RF_CORRUPT, "a blob ends early");
        if (status)
            break;
        rf_hasher_update(hasher, get->block, got);
        status = write_out(get, rf_bytes(get->block, got), err);
        at += got;
    }
    rf_hasher_finish(hasher, &is);
    rf_hasher_free(hasher);
    if (status == RF_OK && !rf_blobref_equal(&is, ref)) {
        rf_blobref_format(ref, want);
        rf_blobref_format(&is, have);
        status = rf_error_set(err, RF_CORRUPT, "blob %s is corrupt: its content hashes to %s; "
                              "'refuge store verify' looks for more", want, have);
    }
    return status;
}

/* Fill *file when the blob is a file blob. */
static enum rf_status look_at(struct get *get, const struct rf_stat *stat, struct rf_arena *arena,
                              enum rf_schema_kind *kind, struct rf_file *file,
                              struct rf_error *err)
{
    struct rf_buf buf;
    enum rf_status status = RF_OK;

    *kind = RF_SCHEMA_NONE;
    if (stat->size > RF_BLOB_INLINE_MAX || stat->part)
        return RF_OK;
    rf_buf_init(&buf, RF_BLOB_INLINE_MAX);
    status = rf_store_get(get->store, &stat->ref, &buf, err);
    if (status == RF_OK && rf_schema_is(rf_buf_bytes(&buf)))
        status = rf_schema_parse(kind, file, arena, rf_buf_bytes(&buf), err);
    rf_buf_release(&buf);
    if (status == RF_INVALID || status == RF_UNSUPPORTED)
        rf_error_context(err, status, "cannot read this file blob ('--raw' gives its bytes)");
    return status;
}

static enum rf_status copy_file(struct get *get, const struct rf_file *file, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    get->total = file->size;
    for (size_t i = 0; i < file->part_count && status == RF_OK; i++)
        status = copy_blob(get, &file->parts[i].ref, file->parts[i].size, err);
    return status;
}

static enum rf_status copy_ref(struct get *get, const struct rf_blobref *ref, struct rf_error *err)
{
    enum rf_schema_kind kind = RF_SCHEMA_NONE;
    struct rf_file file = {0};
    struct rf_arena arena;
    struct rf_stat stat;
    enum rf_status status = rf_store_stat(get->store, ref, &stat, err);

    rf_arena_init(&arena, (size_t)64 << 20);
    if (status == RF_OK && !rf_args_flag(&get->cli->args, "raw"))
        status = look_at(get, &stat, &arena, &kind, &file, err);
    if (status == RF_OK)
        get->total = stat.size;
    if (status == RF_OK)
        status = kind == RF_SCHEMA_FILE ? copy_file(get, &file, err)
                                        : copy_blob(get, ref, stat.size, err);
    rf_arena_release(&arena);
    return status;
}

/* Beside path, so that the rename stays within one file system. */
static char *temporary_name(const char *path)
{
    char number[32];

    snprintf(number, sizeof number, ".%ld", (long)getpid());
    return rf_text_join(path, number, ".part");
}

static enum rf_status finish_file(struct get *get, const char *temporary, const char *path,
                                  enum rf_status status, struct rf_error *err)
{
    if (status == RF_OK && fsync(get->fd) && errno != EINVAL)
        status = rf_error_errno(err, RF_IO, errno, "cannot write '%s'", path);
    if (close(get->fd) && status == RF_OK)
        status = rf_error_errno(err, RF_IO, errno, "cannot write '%s'", path);
    if (status == RF_OK && rename(temporary, path))
        status = rf_error_errno(err, RF_IO, errno, "cannot make '%s'", path);
    if (status)
        unlink(temporary);
    return status;
}

static enum rf_status get_through(struct get *get, const struct rf_blobref *ref, const char *path,
                                  struct rf_error *err)
{
    enum rf_status status;

    get->fd = open(path, O_WRONLY | O_CLOEXEC);
    if (get->fd < 0)
        return rf_error_errno(err, rf_status_of_errno(errno), errno, "cannot write '%s'", path);
    status = copy_ref(get, ref, err);
    if (close(get->fd) && status == RF_OK)
        status = rf_error_errno(err, RF_IO, errno, "cannot write '%s'", path);
    return status;
}

/* was: of the file that is replaced, or NULL; the new one gets its mode. */
static enum rf_status get_whole(struct get *get, const struct rf_blobref *ref, const char *path,
                                const struct stat *was, struct rf_error *err)
{
    enum rf_status status;
    char *temporary = temporary_name(path);

    get->fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, was ? 0600 : 0666);
    if (get->fd >= 0 && was)
        (void)!fchmod(get->fd, was->st_mode & 07777); /* some file systems know no modes */
    if (get->fd < 0)
        status = rf_error_errno(err, rf_status_of_errno(errno), errno, "cannot make '%s'", path);
    else
        status = finish_file(get, temporary, path, copy_ref(get, ref, err), err);
    free(temporary);
    return status;
}

static enum rf_status get_one(struct get *get, const struct rf_blobref *ref, const char *path,
                              struct rf_error *err)
{
    enum rf_status status;
    struct stat st;
    char *target;

    if (!path)
        return copy_ref(get, ref, err);
    target = realpath(path, NULL);
    if (!target || stat(target, &st) != 0) /* there is nothing yet */
        status = get_whole(get, ref, path, NULL, err);
    else if (S_ISDIR(st.st_mode))
        status = rf_error_set(err, RF_INVALID, "cannot write '%s': it is a folder", path);
    else if (S_ISREG(st.st_mode))
        status = get_whole(get, ref, target, &st, err);
    else
        status = get_through(get, ref, path, err);
    free(target);
    return status;
}

int cmd_get(struct rf_cli *cli)
{
    const char *path = rf_args_text(&cli->args, "output");
    struct get get = {.cli = cli, .fd = -1};
    struct rf_error err = {0};
    struct rf_blobref ref;
    enum rf_status status;
    int code;

    if (path && strcmp(path, "-") == 0)
        path = NULL;
    if (cli->out.json && !path)
        return rf_fail_with(cli, RF_EXIT_USAGE,
                            "'refuge get --json' needs '--output FILE': standard "
                            "output cannot carry both");
    get.store = rf_home_store(cli, RF_STORE_READ, &code);
    if (!get.store)
        return code;
    if (rf_ref_resolve(&ref, get.store, cli->args.words[0], &err)) {
        rf_store_close(get.store);
        return rf_fail_argument(cli, &err);
    }
    get.block = malloc(BLOCK);
    if (!get.block)
        abort();
    status = get_one(&get, &ref, path, &err);
    free(get.block);
    rf_store_close(get.store);
    rf_summary_int(cli, "bytes", (int64_t)get.written);
    if (status == RF_CANCELLED && rf_stop_asked())
        return RF_EXIT_STOPPED;
    return status == RF_OK || status == RF_END ? RF_EXIT_OK : rf_fail(cli, &err);
}
