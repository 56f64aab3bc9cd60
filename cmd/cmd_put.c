/*
 * cmd_put.c - refuge put: files, folders and standard input into the store
 *
 * A put waits for the disk, so many are kept in flight: the main thread walks and prints, workers
 * store, and the store's committer makes many durable at once. Jobs stand in a ring of fixed size
 * in the order of the walk, and are printed in that order.
 */
#include <errno.h>
#include <fnmatch.h>
#include <fts.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backup/schema.h"
#include "cmd/cli.h"

#define RING_JOBS 1024
#define WORKERS_MAX 256
#define STDIN_BLOCK ((size_t)1 << 20)

enum job_state { JOB_FREE, JOB_WAITS, JOB_RUNS, JOB_DONE };

struct job {
    enum job_state state;
    char *path;
    enum rf_status status;
    struct rf_error error;
    struct rf_put_file_result result;
};

struct put {
    struct rf_cli *cli;
    struct rf_store *store;
    bool dry_run, fatal, scan;
    int code;
    dev_t home_dev;
    ino_t home_ino;
    struct rf_progress progress;
    uint64_t files, present, bytes, stored, skipped;

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
        job->status = rf_put_file(put->store, job->path, base_name(job->path), &job->result,
                                  &job->error);
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
    rf_out_printf(cli, "\n");
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
    free(job->path);
    memset(job, 0, sizeof *job);
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
            rf_progress_show(put->cli, &put->progress);
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
        rf_progress_show(put->cli, &put->progress);
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

static int compare_names(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void take_file(struct put *put, const char *path, uint64_t size)
{
    if (put->scan) {
        put->progress.total++;
        put->progress.bytes_total += size;
        return;
    }
    if (put->dry_run) {
        rf_out_word(put->cli, rf_bytes_text(path));
        rf_out_printf(put->cli, "\n");
        rf_out_begin(&put->cli->out, "item");
        rf_out_name(&put->cli->out, rf_bytes_text(path));
        rf_out_int(&put->cli->out, "size", (int64_t)size);
        rf_out_end(&put->cli->out);
        put->files++;
        put->bytes += size;
        return;
    }
    submit(put, path);
}

static void tell_entry(struct put *put, const FTSENT *entry)
{
    struct rf_error err = {0};

    if (put->scan)
        return;
    rf_error_errno(&err, entry->fts_errno == ENOENT ? RF_NOT_FOUND : RF_DENIED, entry->fts_errno,
                   "cannot read '%s'", entry->fts_path);
    tell_failure(put, &err);
}

static void walk(struct put *put, const char *path)
{
    char *roots[2] = {(char *)path, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, put->scan ? NULL : compare_names);
    FTSENT *entry;

    if (!tree)
        abort();
    while (!put->fatal && !rf_stop_asked() && (entry = fts_read(tree)) != NULL) {
        switch (entry->fts_info) {
        case FTS_D: /* a home within the folder is not put into itself */
            if (entry->fts_statp->st_dev == put->home_dev &&
                entry->fts_statp->st_ino == put->home_ino)
                fts_set(tree, entry, FTS_SKIP);
            break;
        case FTS_F:
            if (wanted(put, entry->fts_name))
                take_file(put, entry->fts_path, (uint64_t)entry->fts_statp->st_size);
            break;
        case FTS_DNR:
        case FTS_ERR:
        case FTS_NS:
            tell_entry(put, entry);
            break;
        case FTS_SL:
        case FTS_SLNONE:
        case FTS_DEFAULT:
            put->skipped += !put->scan;
            break;
        default:
            break;
        }
    }
    fts_close(tree);
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

static enum rf_status copy_stdin(struct put *put, struct rf_upload *upload, uint64_t *size,
                                 struct rf_error *err)
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
            status = rf_upload_write(upload, rf_bytes(block, (size_t)got), err);
            *size += (uint64_t)got;
        } else if (errno != EINTR) {
            status = rf_error_errno(err, RF_IO, errno, "cannot read standard input");
        }
    }
    free(block);
    return status;
}

static void put_stdin(struct put *put)
{
    struct rf_upload *upload = NULL;
    struct rf_error err = {0};
    struct rf_blobref ref;
    enum rf_put_outcome outcome;
    enum rf_status status;
    uint64_t size = 0;

    if (put->scan)
        return;
    if (put->dry_run) {
        take_file(put, "-", 0);
        return;
    }
    drain(put, 0);
    status = rf_upload_open(&upload, put->store, &err);
    if (status == RF_OK)
        status = copy_stdin(put, upload, &size, &err);
    if (status == RF_OK)
        status = rf_upload_commit(upload, NULL, false, &ref, &outcome, &err);
    rf_upload_close(upload);
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
        if (S_ISDIR(st.st_mode))
            walk(put, word);
        else
            take_file(put, word, (uint64_t)st.st_size);
    } else if (!put->scan) {
        drain(put, 0);
        rf_error_errno(&err, errno == EACCES ? RF_DENIED : RF_NOT_FOUND, errno,
                       "cannot read '%s'", word);
        tell_failure(put, &err);
    }
}

static void take_arguments(struct put *put)
{
    const struct rf_args *args = &put->cli->args;

    for (int i = 0; i < args->word_count && !put->fatal && !rf_stop_asked(); i++)
        take_argument(put, args->words[i]);
}

static void summarise(struct put *put)
{
    struct rf_cli *cli = put->cli;
    char bytes[RF_SIZE_TEXT], stored[RF_SIZE_TEXT];

    rf_summary_int(cli, "files", (int64_t)put->files);
    rf_summary_int(cli, "present", (int64_t)put->present);
    rf_summary_int(cli, "bytes", (int64_t)put->bytes);
    rf_summary_int(cli, "stored", (int64_t)put->stored);
    rf_summary_int(cli, "skipped", (int64_t)put->skipped);
    rf_summary_int(cli, "errors", (int64_t)put->progress.errors);
    if (put->files + put->progress.errors <= 1 && !put->dry_run && !put->skipped)
        return;
    rf_say(cli,
           "%s%llu files, %s; %llu were there already, %s stored, %llu not regular, %llu failed",
           put->dry_run ? "would put " : "", (unsigned long long)put->files,
           rf_size_format(put->bytes, bytes), (unsigned long long)put->present,
           rf_size_format(put->stored, stored), (unsigned long long)put->skipped,
           (unsigned long long)put->progress.errors);
}

static int run(struct put *put)
{
    struct rf_cli *cli = put->cli;
    int code = RF_EXIT_OK;

    if (!put->dry_run) {
        put->store = rf_home_store(cli, RF_STORE_WRITE, &code);
        if (!put->store)
            return code;
    }
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
    summarise(put);
    return rf_stop_asked() ? RF_EXIT_STOPPED : put->code;
}

int cmd_put(struct rf_cli *cli)
{
    uint64_t jobs = rf_args_number(&cli->args, "jobs");
    struct put *put;
    struct stat st;
    int code;

    if (jobs < 1 || jobs > WORKERS_MAX)
        return rf_fail_with(cli, RF_EXIT_USAGE, "option '--jobs' takes 1 to %d, not %llu",
                            WORKERS_MAX, (unsigned long long)jobs);
    put = calloc(1, sizeof *put);
    if (!put)
        abort();
    put->cli = cli;
    put->dry_run = rf_args_flag(&cli->args, "dry-run");
    put->worker_max = (unsigned)jobs;
    put->progress.unit = "files";
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
    free(put);
    return code;
}
