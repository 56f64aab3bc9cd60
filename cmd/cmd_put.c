/*
 * cmd_put.c - refuge put: files, folders and standard input into the store
 *
 * A put waits for the disk, so many are kept in flight: the main thread walks and prints, workers
 * store, and the store's committer makes many durable at once. Jobs stand in a ring of fixed size
 * in the order of the walk, and are printed in that order.
 */
#include <errno.h>
#include <fnmatch.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backup/schema.h"
#include "cmd/cli.h"
#include "cmd/folder.h"

#define RING_JOBS 1024
#define WORKERS_MAX 256
#define SPARE_CHUNKS 8 /* of all files under way, at most 4 MiB each */
#define STDIN_BLOCK ((size_t)1 << 20)

enum job_state { JOB_FREE, JOB_WAITS, JOB_RUNS, JOB_DONE };

struct put;

struct job {
    struct put *put;
    enum job_state state;
    char *path;
    uint64_t at; /* bytes of the file that are done, as its worker last said */
    enum rf_status status;
    struct rf_error error;
    struct rf_put_file_result result;
};

/* What a folder holds that is not stored. */
enum skipped { SKIPPED_SYMLINK, SKIPPED_FIFO, SKIPPED_SOCKET, SKIPPED_DEVICE, SKIPPED_HOME };
#define SKIPPED_COUNT (SKIPPED_HOME + 1)

static const struct {
    const char *noun, *key;
} skipped_names[SKIPPED_COUNT] = {
    [SKIPPED_SYMLINK] = {"symlink", "skipped_symlinks"},
    [SKIPPED_FIFO] = {"fifo", "skipped_fifos"},
    [SKIPPED_SOCKET] = {"socket", "skipped_sockets"},
    [SKIPPED_DEVICE] = {"device", "skipped_devices"},
    [SKIPPED_HOME] = {"home", "skipped_homes"},
};

struct put {
    struct rf_cli *cli;
    struct rf_store *store;
    bool dry_run, fatal, scan;
    int code;
    bool matched;    /* a file of the folder being walked */
    bool *unmatched; /* by argument: a folder without a file that matches */
    dev_t home_dev;
    ino_t home_ino;
    struct rf_progress progress; /* of what is printed */
    _Atomic uint64_t moving;     /* bytes of what is not: files under way */
    _Atomic int spare_chunks;    /* see rf_put_file_options */
    uint64_t files, present, bytes, stored, skipped[SKIPPED_COUNT];

    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t workers[WORKERS_MAX];
    unsigned worker_count, worker_max, idle;
    bool ending;
    struct job ring[RING_JOBS];
    size_t first, next, last; /* to print, to take, to fill: each counts up for ever */
};

/* ---- workers ---- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash && slash[1] ? slash + 1 : path;
}

static void note_progress(void *user, uint64_t bytes)
{
    struct job *job = user;

    job->put->moving += bytes - job->at;
    job->at = bytes;
}

static void run_job(struct job *job)
{
    struct rf_put_file_options options = {.dry_run = job->put->dry_run, .progress = note_progress,
                                          .user = job, .spare_chunks = &job->put->spare_chunks};

    job->status = rf_put_file(job->put->store, job->path, base_name(job->path), &options,
                              &job->result, &job->error);
}

static void *work(void *argument)
{
    struct put *put = argument;

    pthread_mutex_lock(&put->lock);
    for (;;) {
        struct job *job;

        while (put->next == put->last && !put->ending) {
            put->idle++;
            pthread_cond_wait(&put->work, &put->lock);
            put->idle--;
        }
        if (put->next == put->last)
            break;
        job = &put->ring[put->next++ % RING_JOBS];
        job->state = JOB_RUNS;
        pthread_mutex_unlock(&put->lock);
        run_job(job);
        pthread_mutex_lock(&put->lock);
        job->state = JOB_DONE;
        pthread_cond_signal(&put->done);
    }
    pthread_mutex_unlock(&put->lock);
    return NULL;
}

/* With the lock held: another worker when all are busy. Signals stay with the main thread. */
static void more_workers(struct put *put)
{
    if (put->idle > 0 || put->worker_count == put->worker_max)
        return;
    if (pthread_create(&put->workers[put->worker_count], NULL, work, put) == 0)
        put->worker_count++;
    else if (put->worker_count == 0)
        abort();
}

static void end_workers(struct put *put)
{
    pthread_mutex_lock(&put->lock);
    put->ending = true;
    pthread_cond_broadcast(&put->work);
    pthread_mutex_unlock(&put->lock);
    for (unsigned i = 0; i < put->worker_count; i++)
        pthread_join(put->workers[i], NULL);
}

/* ---- results ---- */

static void print_item(struct put *put, const char *path, const struct rf_blobref *ref,
                       uint64_t size, uint64_t stored, bool present)
{
    struct rf_cli *cli = put->cli;
    char text[RF_BLOBREF_SIZE];

    rf_blobref_format(ref, text);
    rf_out_printf(cli, "%s  ", text);
    rf_out_word(cli, rf_bytes_text(path));
    rf_out_printf(cli, put->dry_run && present ? "  (there already)\n" : "\n");
    rf_out_begin(&cli->out, "item");
    rf_out_text(&cli->out, "ref", text);
    rf_out_name(&cli->out, rf_bytes_text(path));
    rf_out_int(&cli->out, "size", (int64_t)size);
    rf_out_int(&cli->out, "stored", (int64_t)stored);
    rf_out_bool(&cli->out, "present", present);
    rf_out_end(&cli->out);
    put->files++;
    put->present += present;
    put->bytes += size;
    put->stored += stored;
    put->progress.done++;
    put->progress.bytes += size;
}

/* The error of one file; one of the store itself ends the command. */
static void tell_failure(struct put *put, const struct rf_error *err)
{
    int code = rf_fail(put->cli, err);

    put->progress.errors++;
    put->code = RF_EXIT_FAILED;
    if (err->status != RF_INVALID && err->status != RF_NOT_FOUND && err->status != RF_DENIED) {
        put->fatal = true;
        put->code = code;
    }
}

static void finish_job(struct put *put, struct job *job)
{
    if (job->status == RF_OK)
        print_item(put, job->path, &job->result.ref, job->result.size, job->result.stored,
                   job->result.present);
    else if (!put->fatal)
        tell_failure(put, &job->error);
    put->moving -= job->at;
    free(job->path);
    memset(job, 0, sizeof *job);
}

static void show_progress(struct put *put)
{
    struct rf_progress shown = put->progress;

    shown.bytes += put->moving;
    rf_progress_show(put->cli, &shown);
}

/* Print what is done at the head of the ring, until it holds at most `most` jobs. */
static void drain(struct put *put, size_t most)
{
    pthread_mutex_lock(&put->lock);
    while (put->first < put->last) {
        struct job *job = &put->ring[put->first % RING_JOBS];
        struct timespec until;

        if (job->state == JOB_DONE) {
            pthread_mutex_unlock(&put->lock);
            finish_job(put, job);
            show_progress(put);
            pthread_mutex_lock(&put->lock);
            put->first++;
            continue;
        }
        if (put->last - put->first <= most)
            break;
        clock_gettime(CLOCK_REALTIME, &until); /* wakes now and then to show progress */
        until.tv_nsec += 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        (void)pthread_cond_timedwait(&put->done, &put->lock, &until);
        pthread_mutex_unlock(&put->lock);
        show_progress(put);
        pthread_mutex_lock(&put->lock);
    }
    pthread_mutex_unlock(&put->lock);
}

static void submit(struct put *put, const char *path)
{
    struct job *job;

    drain(put, RING_JOBS - 1);
    pthread_mutex_lock(&put->lock);
    job = &put->ring[put->last % RING_JOBS];
    job->put = put;
    job->path = strdup(path);
    if (!job->path)
        abort();
    job->state = JOB_WAITS;
    put->last++;
    more_workers(put);
    pthread_cond_signal(&put->work);
    pthread_mutex_unlock(&put->lock);
}

/* ---- walking ---- */

static bool wanted(const struct put *put, const char *name)
{
    const struct rf_args *args = &put->cli->args;

    for (size_t i = 0; i < args->list_count; i++) {
        if (fnmatch(args->lists[i], name, 0) == 0)
            return true;
    }
    return args->list_count == 0;
}

/* The byte behind the bracket expression that begins at text; NULL: it does not end. */
static const char *bracket_end(const char *text)
{
    const char *at = text + 1;

    at += *at == '!' || *at == '^';
    at += *at == ']';
    while (*at && *at != ']') {
        if (*at == '[' && at[1] && strchr(":.=", at[1])) {
            const char end[] = {at[1], ']', '\0'};

            at = strstr(at + 2, end);
            if (!at)
                return NULL;
            at += 2;
        } else if (*at == '\\') {
            at += at[1] ? 2 : 1;
        } else {
            at++;
        }
    }
    return *at ? at + 1 : NULL;
}

/* fnmatch takes an open bracket as itself, which nobody means. */
static bool valid_glob(const char *glob)
{
    while (glob && *glob) {
        if (*glob == '[')
            glob = bracket_end(glob);
        else if (*glob == '\\')
            glob = glob[1] ? glob + 2 : NULL;
        else
            glob++;
    }
    return glob != NULL;
}

static void take_file(struct put *put, const char *path, uint64_t size)
{
    if (put->scan) {
        put->progress.total++;
        put->progress.bytes_total += size;
        return;
    }
    submit(put, path);
}

static void skip(struct put *put, const char *name, enum skipped kind)
{
    if (!put->scan && (kind == SKIPPED_HOME || wanted(put, name)))
        put->skipped[kind]++;
}

static enum skipped kind_of(mode_t mode)
{
    return S_ISLNK(mode) ? SKIPPED_SYMLINK : S_ISFIFO(mode) ? SKIPPED_FIFO
           : S_ISSOCK(mode) ? SKIPPED_SOCKET : SKIPPED_DEVICE;
}

static void tell_entry(struct put *put, const struct rf_folder_entry *entry)
{
    struct rf_error err = {0};

    if (put->scan)
        return;
    rf_error_errno(&err, entry->errnum == ENOENT ? RF_NOT_FOUND : RF_DENIED, entry->errnum,
                   "cannot read '%s'", entry->path);
    tell_failure(put, &err);
}

static enum rf_folder_way take_entry(void *user, const struct rf_folder_entry *entry)
{
    struct put *put = user;
    const struct stat *st = entry->st;
    enum rf_folder_way way = RF_FOLDER_ON;

    if (!st) {
        tell_entry(put, entry);
    } else if (S_ISDIR(st->st_mode)) { /* a home within the folder is not put into itself */
        if (st->st_dev == put->home_dev && st->st_ino == put->home_ino) {
            skip(put, entry->name, SKIPPED_HOME);
            way = RF_FOLDER_SKIP;
        }
    } else if (!S_ISREG(st->st_mode)) {
        skip(put, entry->name, kind_of(st->st_mode));
    } else if (wanted(put, entry->name)) {
        put->matched = true;
        take_file(put, entry->path, (uint64_t)st->st_size);
    }
    return put->fatal || rf_stop_asked() ? RF_FOLDER_END : way;
}

/* ---- standard input ---- */

/* Wait for input; a signal ends the wait, so that it can be answered. */
static enum rf_status wait_stdin(struct put *put, uint64_t size)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    struct rf_progress progress = put->progress;

    progress.bytes += size;
    do {
        rf_progress_show(put->cli, &progress);
        if (rf_stop_asked())
            return RF_CANCELLED;
    } while (poll(&input, 1, -1) < 0 && errno == EINTR);
    return RF_OK;
}

/* Into an upload, or only into a hasher. */
static enum rf_status copy_stdin(struct put *put, struct rf_upload *upload,
                                 struct rf_hasher *hasher, uint64_t *size, struct rf_error *err)
{
    uint8_t *block = malloc(STDIN_BLOCK);
    enum rf_status status = RF_OK;

    if (!block)
        abort();
    while (status == RF_OK) {
        ssize_t got;

        status = wait_stdin(put, *size);
        if (status)
            break;
        got = read(STDIN_FILENO, block, STDIN_BLOCK);
        if (got == 0)
            break;
        if (got > 0) {
            if (upload)
                status = rf_upload_write(upload, rf_bytes(block, (size_t)got), err);
            else
                rf_hasher_update(hasher, block, (size_t)got);
            *size += (uint64_t)got;
        } else if (errno != EINTR) {
            status = rf_error_errno(err, RF_IO, errno, "cannot read standard input");
        }
    }
    free(block);
    return status;
}

static enum rf_status store_stdin(struct put *put, struct rf_blobref *ref, uint64_t *size,
                                  enum rf_put_outcome *outcome, struct rf_error *err)
{
    struct rf_upload *upload = NULL;
    enum rf_status status = rf_upload_open(&upload, put->store, err);

    if (status == RF_OK)
        status = copy_stdin(put, upload, NULL, size, err);
    if (status == RF_OK)
        status = rf_upload_commit(upload, NULL, false, ref, outcome, err);
    rf_upload_close(upload);
    return status;
}

/* What store_stdin would answer. */
static enum rf_status try_stdin(struct put *put, struct rf_blobref *ref, uint64_t *size,
                                enum rf_put_outcome *outcome, struct rf_error *err)
{
    struct rf_hasher *hasher = rf_hasher_new();
    struct rf_stat stat;
    enum rf_status status = copy_stdin(put, NULL, hasher, size, err);

    rf_hasher_finish(hasher, ref);
    rf_hasher_free(hasher);
    if (status == RF_OK)
        status = rf_store_stat(put->store, ref, &stat, err);
    if (status == RF_OK)
        *outcome = stat.part ? RF_PUT_LIFTED : RF_PUT_PRESENT;
    if (status != RF_NOT_FOUND)
        return status;
    rf_error_clear(err);
    *outcome = RF_PUT_NEW;
    return RF_OK;
}

static void put_stdin(struct put *put)
{
    struct rf_error err = {0};
    struct rf_blobref ref;
    enum rf_put_outcome outcome;
    enum rf_status status;
    uint64_t size = 0;

    if (put->scan)
        return;
    drain(put, 0);
    if (put->dry_run)
        status = try_stdin(put, &ref, &size, &outcome, &err);
    else
        status = store_stdin(put, &ref, &size, &outcome, &err);
    if (status == RF_OK)
        print_item(put, "-", &ref, size, outcome == RF_PUT_NEW ? size : 0,
                   outcome == RF_PUT_PRESENT);
    else if (status != RF_CANCELLED)
        tell_failure(put, &err);
}

static void take_argument(struct put *put, const char *word)
{
    struct rf_error err = {0};
    struct stat st;

    if (strcmp(word, "-") == 0) {
        put_stdin(put);
    } else if (stat(word, &st) == 0) {
        if (S_ISDIR(st.st_mode)) {
            put->matched = put->cli->args.list_count == 0;
            rf_folder_walk(word, take_entry, put);
        } else {
            take_file(put, word, (uint64_t)st.st_size);
        }
    } else if (!put->scan) {
        int cause = errno;

        drain(put, 0);
        rf_error_errno(&err, cause == EACCES ? RF_DENIED : RF_NOT_FOUND, cause,
                       "cannot read '%s'", word);
        tell_failure(put, &err);
    }
}

static void take_arguments(struct put *put)
{
    const struct rf_args *args = &put->cli->args;

    for (int i = 0; i < args->word_count && !put->fatal && !rf_stop_asked(); i++) {
        put->matched = true;
        take_argument(put, args->words[i]);
        put->unmatched[i] = !put->matched && !put->fatal && !rf_stop_asked();
    }
}

/* A folder in which --match found nothing; an error when nothing was put at all. */
static void tell_unmatched(struct put *put)
{
    const struct rf_args *args = &put->cli->args;

    for (int i = 0; i < args->word_count; i++) {
        if (!put->unmatched[i])
            continue;
        if (put->files + put->progress.errors > 0)
            rf_warn(put->cli, "no file of '%s' matches", args->words[i]);
        else
            put->code = rf_fail_with(put->cli, RF_EXIT_FAILED, "no file of '%s' matches",
                                     args->words[i]);
    }
}

/* "2 symlinks, 1 fifo"; how many in all. */
static uint64_t list_skipped(struct put *put, struct rf_buf *out)
{
    uint64_t total = 0;

    for (int i = 0; i < SKIPPED_COUNT; i++) {
        uint64_t count = put->skipped[i];

        rf_summary_int(put->cli, skipped_names[i].key, (int64_t)count);
        if (count)
            rf_buf_printf(out, "%s%s", total ? ", " : "", RF_COUNT(count, skipped_names[i].noun));
        total += count;
    }
    return total;
}

static void summarise(struct put *put)
{
    struct rf_cli *cli = put->cli;
    char bytes[RF_SIZE_TEXT], stored[RF_SIZE_TEXT];
    struct rf_buf kinds;
    uint64_t skipped;

    rf_buf_init(&kinds, 4096);
    rf_summary_int(cli, "files", (int64_t)put->files);
    rf_summary_int(cli, "present", (int64_t)put->present);
    rf_summary_int(cli, "bytes", (int64_t)put->bytes);
    rf_summary_int(cli, "stored", (int64_t)put->stored);
    skipped = list_skipped(put, &kinds);
    rf_summary_int(cli, "skipped", (int64_t)skipped);
    rf_summary_int(cli, "errors", (int64_t)put->progress.errors);
    if (put->files + put->progress.errors > 1 || put->dry_run || skipped)
        rf_say(cli, "%s%s, %s; %llu %s there already, %s %s, %llu failed",
               put->dry_run ? "would put " : "", RF_COUNT(put->files, "file"),
               rf_size_format(put->bytes, bytes), (unsigned long long)put->present,
               put->dry_run ? (put->present == 1 ? "is" : "are")
                            : (put->present == 1 ? "was" : "were"),
               rf_size_format(put->stored, stored), put->dry_run ? "to store" : "stored",
               (unsigned long long)put->progress.errors);
    if (put->fatal)
        rf_say(cli, "stopped there: what follows was not tried; put the same again when that is "
                    "mended");
    if (rf_stop_asked())
        rf_say(cli, "stopped: what follows was not tried");
    if (skipped)
        rf_say(cli, "skipped %s: of a folder only regular files are stored", rf_buf_text(&kinds));
    rf_buf_release(&kinds);
}

static int run(struct put *put)
{
    struct rf_cli *cli = put->cli;
    int code = RF_EXIT_OK;

    put->store = rf_home_store(cli, put->dry_run ? RF_STORE_READ : RF_STORE_WRITE, &code);
    if (!put->store)
        return code;
    if (isatty(STDERR_FILENO) &&
        !cli->out.quiet) { /* a total is worth a second walk only to eyes */
        put->scan = true;
        take_arguments(put);
        put->scan = false;
    }
    take_arguments(put);
    drain(put, 0);
    end_workers(put);
    rf_store_close(put->store);
    rf_progress_clear(cli);
    tell_unmatched(put);
    summarise(put);
    return rf_stop_asked() ? RF_EXIT_STOPPED : put->code;
}

int cmd_put(struct rf_cli *cli)
{
    uint64_t jobs = rf_args_number(&cli->args, "jobs");
    struct put *put;
    struct stat st;
    int code, inputs = 0;

    if (jobs < 1 || jobs > WORKERS_MAX)
        return rf_fail_with(cli, RF_EXIT_USAGE, "option '--jobs' takes 1 to %d, not %llu",
                            WORKERS_MAX, (unsigned long long)jobs);
    for (int i = 0; i < cli->args.word_count; i++)
        inputs += strcmp(cli->args.words[i], "-") == 0;
    if (inputs > 1)
        return rf_fail_with(cli, RF_EXIT_USAGE, "'-' stands for standard input, which can be read "
                            "once; give it once");
    for (size_t i = 0; i < cli->args.list_count; i++) {
        if (!valid_glob(cli->args.lists[i]))
            return rf_fail_with(cli, RF_EXIT_USAGE,
                                "option '--match' takes a glob, and '%s' is none: a bracket or a "
                                "backslash has no end; a '\\' before it takes it as itself",
                                cli->args.lists[i]);
    }
    put = calloc(1, sizeof *put);
    if (!put)
        abort();
    put->unmatched = calloc((size_t)cli->args.word_count + 1, sizeof *put->unmatched);
    if (!put->unmatched)
        abort();
    put->cli = cli;
    put->dry_run = rf_args_flag(&cli->args, "dry-run");
    put->worker_max = (unsigned)jobs;
    put->spare_chunks = SPARE_CHUNKS;
    put->progress.noun = "file";
    pthread_mutex_init(&put->lock, NULL);
    pthread_cond_init(&put->work, NULL);
    pthread_cond_init(&put->done, NULL);
    if (stat(cli->home.path, &st) == 0) {
        put->home_dev = st.st_dev;
        put->home_ino = st.st_ino;
    }
    code = run(put);
    pthread_cond_destroy(&put->work);
    pthread_cond_destroy(&put->done);
    pthread_mutex_destroy(&put->lock);
    free(put->unmatched);
    free(put);
    return code;
}
