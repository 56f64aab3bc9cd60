/*
 * test_store_damage.c - the store on disk after crashes, lost files and flipped bits
 *
 * What counts: a get never serves wrong bytes, what was acknowledged and is not itself damaged is
 * there, verify names what is damaged, and everything but log and large payloads makes itself
 * again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "blobstore/blobstore.h"
#include "blobstore/segment.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct rf_error err = {0};                                                                 \
        enum rf_status status_ = (call);                                                           \
        if (status_ != RF_OK)                                                                      \
            fail_msg("%s: %s: %s", #call, rf_status_name(status_), err.message);                   \
    } while (0)

static char folder[64], url[96];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int set_up(void **state)
{
    (void)state;
    /* In memory where that is: what a sync means is for tests/fault to try. */
    snprintf(folder, sizeof folder, "%s/test_store_damage.XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(folder));
    snprintf(url, sizeof url, "disk:%s/s", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}

static const char *path_of(const char *name)
{
    static char path[512];

    snprintf(path, sizeof path, "%s/s/%s", folder, name);
    return path;
}

static struct rf_store *open_store(enum rf_store_mode mode)
{
    struct rf_store_options options = {.mode = mode, .segment_bytes = 64u << 10,
                                       .run_bytes = 16u << 10, .lock_timeout_ms = 10000};
    struct rf_store *store = NULL;

    OK(rf_store_open(&store, url, &options, &err));
    return store;
}

static void text_of(int i, char out[64])
{
    snprintf(out, 64, "blob number %d, with some bytes to spare", i);
}

static void put_texts(struct rf_store *store, int from, int to)
{
    char text[64];

    for (int i = from; i < to; i++) {
        text_of(i, text);
        OK(rf_store_put(store, rf_bytes_text(text), NULL, false, NULL, NULL, &err));
    }
}

/* How many of the texts are there; none may be wrong. */
static int count_texts(struct rf_store *store, int from, int to)
{
    int count = 0;

    for (int i = from; i < to; i++) {
        struct rf_error err = {0};
        struct rf_blobref ref;
        struct rf_buf buf;
        char text[64];
        text_of(i, text);
        rf_blobref_of(&ref, rf_bytes_text(text));
        rf_buf_init(&buf, 1000);
        if (rf_store_get(store, &ref, &buf, &err) == RF_OK) {
            assert_true(rf_bytes_equal(rf_buf_bytes(&buf), rf_bytes_text(text)));
            count++;
        }
        rf_buf_release(&buf);
    }
    return count;
}

/* How many changes a feed gives from the start; *damaged: how often it said RF_CORRUPT. */
static int count_changes(struct rf_store *store, int *damaged)
{
    struct rf_feed *feed = NULL;
    int count = 0;

    *damaged = 0;
    OK(rf_feed_open(&feed, store, NULL, &err));
    for (;;) {
        struct rf_error err = {0};
        struct rf_change change;
        struct rf_bytes bytes;
        enum rf_status status = rf_feed_next(feed, &change, 0, &err);
        if (status == RF_TIMEOUT)
            break;
        if (status == RF_CORRUPT) {
            ++*damaged;
            continue;
        }
        assert_int_equal(status, RF_OK);
        count++;
        if (!change.is_delete && change.size <= RF_BLOB_INLINE_MAX &&
            rf_feed_blob(feed, &bytes, NULL) == RF_OK) {
            struct rf_blobref ref;
            rf_blobref_of(&ref, bytes);
            assert_true(rf_blobref_equal(&ref, &change.ref));
        }
    }
    rf_feed_close(feed);
    return count;
}

static enum rf_status verify(struct rf_store *store, struct rf_verify_report *report)
{
    return rf_store_verify(store, report, NULL, NULL, NULL, NULL);
}

static void expect_sound(struct rf_store *store)
{
    struct rf_verify_report report;

    OK(rf_store_verify(store, &report, NULL, NULL, NULL, &err));
    assert_int_equal(report.corrupt + report.missing, 0);
}

/* ---- files ---- */

static uint8_t *read_all(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    uint8_t *data;

    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    data = malloc((size_t)st.st_size + 1);
    assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
    close(fd);
    *size = (size_t)st.st_size;
    return data;
}

static void write_all(const char *path, const uint8_t *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    close(fd);
}

static void patch(const char *path, size_t at, uint8_t mask)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;

    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= mask;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

/* The n-th file of a folder of the store in the order of names; false when there is none. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool file_at(const char *name, int n, char out[512])
{
    struct dirent **entries = NULL;
    int count = scandir(path_of(name), &entries, NULL, by_name), seen = 0;
    bool found = false;

    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.' && seen++ == n) {
            snprintf(out, 512, "%s/%s", path_of(name), entries[i]->d_name);
            found = true;
        }
        free(entries[i]);
    }
    free(entries);
    return found;
}

static int files_in(const char *name)
{
    char path[512];
    int count = 0;

    while (file_at(name, count, path))
        count++;
    return count;
}

static void remove_all(const char *name)
{
    char path[512];

    while (file_at(name, 0, path))
        assert_int_equal(unlink(path), 0);
}

static void copy_folder(const char *from, const char *to)
{
    char command[1200];

    snprintf(command, sizeof command, "rm -rf '%s' && cp -a '%s' '%s'", to, from, to);
    assert_int_equal(system(command), 0);
}

/* As a kill leaves it: nothing closed, no run of the tail, no trim. */
static void run_in_child(void (*work)(void))
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        work();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

#define BEGIN 184 /* bytes of a begin record */
#define SPAN 136  /* of the record of one of the first ten texts: 96 and 39 and 1 of padding */

static void put_eight_and_die(void)
{
    put_texts(open_store(RF_STORE_CREATE), 0, 8);
}

/* ---- crashes ---- */

static void a_killed_writer_loses_nothing(void **state)
{
    struct rf_store *store, *reader;
    int damaged;

    (void)state;
    run_in_child(put_eight_and_die);
    reader = open_store(RF_STORE_READ); /* before any recovery: the head knows */
    assert_int_equal(count_texts(reader, 0, 8), 8);
    store = open_store(RF_STORE_WRITE);
    assert_int_equal(count_texts(store, 0, 8), 8);
    put_texts(store, 8, 12);
    assert_int_equal(count_texts(reader, 0, 12), 12);
    assert_int_equal(count_changes(store, &damaged), 12);
    assert_int_equal(damaged, 0);
    expect_sound(store);
    rf_store_close(store);
    rf_store_close(reader);
}

/* Cut the log after every byte: what is whole stays, what is torn goes, the next put works. */
static void a_torn_tail_is_dropped_at_every_byte(void **state)
{
    char segment[512];
    uint8_t *data;
    size_t size;

    (void)state;
    run_in_child(put_eight_and_die);
    assert_true(file_at("log", 0, segment));
    data = read_all(segment, &size);
    size = BEGIN + 8 * SPAN;
    for (size_t cut = 0; cut <= size; cut++) {
        size_t whole = cut < BEGIN ? 0 : (cut + 1 - BEGIN) / SPAN; /* one byte is padding */
        struct rf_store *store;
        int found, damaged;
        remove_all("log");
        remove_all("run");
        unlink(path_of("head"));
        unlink(path_of("lock"));
        write_all(segment, data, cut);
        store = open_store(RF_STORE_WRITE);
        found = count_texts(store, 0, 8);
        if (found != (int)whole)
            fail_msg("cut at %zu: %d blobs, not %zu", cut, found, whole);
        put_texts(store, 100, 103);
        assert_int_equal(count_texts(store, 100, 103), 3);
        assert_int_equal(count_changes(store, &damaged), found + 3);
        assert_int_equal(damaged, 0);
        rf_store_close(store);
        if (cut % 16 == 0) {
            store = open_store(RF_STORE_WRITE);
            assert_int_equal(count_texts(store, 100, 103), 3);
            expect_sound(store);
            rf_store_close(store);
        }
    }
    free(data);
}

static void one_more_and_die(void)
{
    put_texts(open_store(RF_STORE_WRITE), 3, 9); /* six, of which five are there */
}

/* What a put answers for can be read, also when a copy was there that cannot. */
static void a_put_replaces_a_damaged_copy(void **state)
{
    char segment[512];
    struct rf_store *store;
    struct rf_verify_report report;
    int damaged;

    (void)state;
    run_in_child(put_eight_and_die);
    assert_true(file_at("log", 0, segment));
    patch(segment, BEGIN + 3 * SPAN + 100, 1); /* a payload */
    patch(segment, BEGIN + 5 * SPAN + 100, 1);
    store = open_store(RF_STORE_WRITE);
    assert_int_equal(count_texts(store, 0, 8), 6);
    rf_store_close(store);
    run_in_child(one_more_and_die);
    store = open_store(RF_STORE_WRITE);
    assert_int_equal(count_texts(store, 0, 9), 9);
    assert_int_equal(count_changes(store, &damaged), 8 + 1 + 4); /* two tombstones, two puts */
    assert_int_equal(damaged, 0);
    assert_int_equal(verify(store, &report), RF_OK);
    put_texts(store, 0, 9);
    assert_int_equal(count_changes(store, &damaged), 8 + 1 + 4);
    rf_store_close(store);
}

static void put_and_die(void)
{
    put_texts(open_store(RF_STORE_WRITE), 8, 9);
}

static void a_bad_record_before_a_later_batch_is_kept_and_told(void **state)
{
    char segment[512];
    struct rf_store *store;
    struct rf_verify_report report;
    int damaged;

    (void)state;
    run_in_child(put_eight_and_die);
    remove_all("run");
    unlink(path_of("head"));
    assert_true(file_at("log", 0, segment));
    patch(segment, BEGIN + 3 * SPAN + 40, 1); /* a header */
    patch(segment, BEGIN + 5 * SPAN + 100, 1); /* a payload */
    store = open_store(RF_STORE_WRITE);
    assert_int_equal(count_texts(store, 0, 8), 6);
    assert_int_equal(count_changes(store, &damaged), 6);
    assert_int_equal(damaged, 2);
    assert_int_equal(verify(store, &report), RF_CORRUPT);
    assert_int_equal(report.corrupt, 2);
    put_texts(store, 8, 20);
    rf_store_close(store);
    run_in_child(put_and_die);
    store = open_store(RF_STORE_WRITE);
    assert_int_equal(count_texts(store, 0, 20), 18);
    assert_int_equal(verify(store, &report), RF_CORRUPT);
    assert_int_equal(report.corrupt, 2);
    assert_int_equal(report.changes, 19);
    rf_store_close(store);
}

/* The head knows that the last record was published: its damage is not taken for a torn tail. */
static void a_bad_last_record_that_was_published_is_not_cut_off(void **state)
{
    char segment[512];
    struct rf_store *store;
    struct rf_store_info info;
    int damaged;

    (void)state;
    for (int clean = 0; clean < 2; clean++) {
        run_in_child(put_eight_and_die);
        if (clean)
            rf_store_close(open_store(RF_STORE_WRITE));
        assert_true(file_at("log", 0, segment));
        patch(segment, BEGIN + 7 * SPAN + 8, 1);
        store = open_store(RF_STORE_WRITE);
        OK(rf_store_info(store, &info, &err));
        assert_int_equal(info.next_seq, 9);
        assert_int_equal(info.blobs, 8);
        put_texts(store, 8, 10);
        assert_int_equal(count_texts(store, 0, 10), 9);
        assert_int_equal(count_changes(store, &damaged), 9);
        assert_int_equal(damaged, 1);
        rf_store_close(store);
        store = open_store(RF_STORE_WRITE);
        assert_int_equal(count_texts(store, 0, 10), 9);
        assert_int_equal(count_changes(store, &damaged), 9);
        rf_store_close(store);
        tear_down(NULL);
        set_up(NULL);
    }
}

static void make_eight(void)
{
    struct rf_store *store = open_store(RF_STORE_CREATE);

    put_texts(store, 0, 8);
    rf_store_close(store);
}

/* What a feed gives behind a cursor; the sequence of the first change in *seq. */
static int count_behind(struct rf_store *store, const struct rf_cursor *cursor, uint64_t *seq)
{
    struct rf_feed *feed = NULL;
    struct rf_change change;
    int count = 0;

    OK(rf_feed_open(&feed, store, cursor, &err));
    while (rf_feed_next(feed, &change, 0, NULL) == RF_OK) {
        if (count++ == 0)
            *seq = change.seq;
    }
    rf_feed_close(feed);
    return count;
}

static struct rf_cursor end_of(struct rf_store *store)
{
    struct rf_feed *feed = NULL;
    struct rf_change change;
    struct rf_cursor cursor;

    OK(rf_feed_open(&feed, store, NULL, &err));
    while (rf_feed_next(feed, &change, 0, NULL) == RF_OK)
        continue;
    rf_feed_cursor(feed, &cursor);
    rf_feed_close(feed);
    return cursor;
}

/* Cut off what was published, in a record's header, payload or before it; with and without the
 * head; and open the store some times before the next put. The lost changes keep their numbers,
 * nobody takes the new ones for them, and a cursor behind them holds. */
static void lose_the_end_and_go_on(size_t cut, bool with_head, int opened)
{
    char segment[512];
    struct rf_store *store;
    struct rf_verify_report report;
    struct rf_cursor cursor;
    uint64_t seq = 0;
    int damaged;

    make_eight();
    store = open_store(RF_STORE_READ);
    cursor = end_of(store);
    rf_store_close(store);
    assert_true(file_at("log", 0, segment));
    assert_int_equal(truncate(segment, (off_t)(BEGIN + cut)), 0);
    if (!with_head)
        assert_int_equal(unlink(path_of("head")), 0);
    while (opened-- > 0)
        rf_store_close(open_store(RF_STORE_WRITE));
    for (int i = 8; i < 10; i++) {
        store = open_store(RF_STORE_WRITE);
        put_texts(store, i, i + 1);
        rf_store_close(store);
    }
    store = open_store(RF_STORE_READ);
    assert_int_equal(count_texts(store, 0, 8), cut / SPAN);
    assert_int_equal(count_texts(store, 8, 10), 2);
    assert_int_equal(count_changes(store, &damaged), cut / SPAN + 2);
    assert_int_equal(verify(store, &report), RF_CORRUPT);
    assert_int_equal(report.corrupt, 8 - cut / SPAN);
    cursor.has_chain = with_head;
    assert_int_equal(count_behind(store, &cursor, &seq), 2);
    assert_int_equal(seq, 9);
    rf_store_close(store);
    store = open_store(RF_STORE_WRITE);
    put_texts(store, 0, 10); /* what was lost can be put again */
    assert_int_equal(count_texts(store, 0, 10), 10);
    rf_store_close(store);
    tear_down(NULL);
    set_up(NULL);
}

static void a_log_that_lost_its_end_goes_on_behind_it(void **state)
{
    static const size_t cuts[] = {3 * SPAN, 3 * SPAN + 50, 3 * SPAN + 104, 5 * SPAN + 101};

    (void)state;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
        for (int opened = 0; opened < 3; opened++)
            for (int with_head = 0; with_head < 2; with_head++)
                lose_the_end_and_go_on(cuts[i], with_head, opened);
}

/* Nothing in the only segment holds, and the head knows that it did. */
static void a_segment_damaged_throughout_is_not_taken_for_an_unfinished_one(void **state)
{
    struct rf_verify_report report;
    struct rf_store *store;
    char segment[512];
    uint8_t *zeros = calloc(1, BEGIN + 8 * SPAN);

    (void)state;
    run_in_child(put_eight_and_die);
    assert_true(file_at("log", 0, segment));
    write_all(segment, zeros, BEGIN + 8 * SPAN);
    free(zeros);
    store = open_store(RF_STORE_WRITE);
    put_texts(store, 8, 10);
    assert_int_equal(count_texts(store, 0, 10), 2);
    assert_int_equal(verify(store, &report), RF_CORRUPT);
    assert_int_equal(report.corrupt, 9); /* and the begin record */
    rf_store_close(store);
    store = open_store(RF_STORE_WRITE);
    assert_int_equal(count_texts(store, 0, 10), 2);
    rf_store_close(store);
}

static void a_lost_log_is_not_begun_anew(void **state)
{
    struct rf_store_options options = {.mode = RF_STORE_WRITE};
    struct rf_store *store = open_store(RF_STORE_CREATE);
    uint8_t *large = calloc(1, (1u << 20) + 1);
    char saved[600];

    (void)state;
    OK(rf_store_put(store, rf_bytes(large, (1u << 20) + 1), NULL, false, NULL, NULL, &err));
    rf_store_close(store);
    free(large);
    snprintf(saved, sizeof saved, "%s/saved", folder);
    assert_int_equal(rename(path_of("log"), saved), 0);
    for (int reading = 0; reading < 2; reading++) {
        struct rf_error why = {0};
        options.mode = reading ? RF_STORE_READ : RF_STORE_WRITE;
        assert_int_equal(rf_store_open(&store, url, &options, &why), RF_CORRUPT);
        assert_non_null(strstr(why.message, "is gone"));
    }
    rmdir(path_of("log"));
    assert_int_equal(rename(saved, path_of("log")), 0);
    store = open_store(RF_STORE_READ);
    expect_sound(store); /* the payload, too */
    rf_store_close(store);
}

/* ---- lost files ---- */

#define MANY 1200 /* several segments and runs */

static struct rf_store *fill_many(void)
{
    struct rf_store *store = open_store(RF_STORE_CREATE);
    struct rf_blobref ref;
    char text[64];

    put_texts(store, 0, MANY);
    for (int i = 0; i < 100; i++) {
        text_of(i, text);
        rf_blobref_of(&ref, rf_bytes_text(text));
        OK(rf_store_delete(store, &ref, NULL, &err));
    }
    return store;
}

static void make_many(void)
{
    struct rf_store *store = fill_many();
    uint8_t *large = calloc(1, (1u << 20) + 70000);

    OK(rf_store_put(store, rf_bytes(large, (1u << 20) + 70000), NULL, false, NULL, NULL, &err));
    free(large);
    rf_store_close(store);
}

static void expect_many(struct rf_store *store)
{
    struct rf_store_info info;
    int damaged;

    assert_int_equal(count_texts(store, 0, MANY), MANY - 100);
    assert_int_equal(count_changes(store, &damaged), MANY + 101);
    assert_int_equal(damaged, 0);
    OK(rf_store_info(store, &info, &err));
    assert_int_equal(info.blobs, MANY - 99);
}

/* ---- every file but the log and the payloads can be lost ---- */

enum situation { CLOSED, KILLED, WRITING, SITUATIONS };
static int texts_there; /* MANY and those put since */

static void fill_and_die(void)
{
    fill_many();
}

static void expect_everything(struct rf_store *store)
{
    struct rf_store_info info;
    int damaged;

    assert_int_equal(count_texts(store, 0, texts_there), texts_there - 100);
    assert_int_equal(count_changes(store, &damaged), texts_there + 100);
    assert_int_equal(damaged, 0);
    OK(rf_store_info(store, &info, &err));
    assert_int_equal(info.blobs, texts_there - 100);
    expect_sound(store);
}

static void read_everything(void)
{
    struct rf_store *store = open_store(RF_STORE_READ);

    expect_everything(store);
    rf_store_close(store);
}

static void lose(const char *name)
{
    char file[512];

    if (unlink(path_of(name)) == 0)
        return;
    while (rmdir(path_of(name)) != 0) { /* a writer that is open may be making a run just now */
        assert_int_equal(errno, ENOTEMPTY);
        while (file_at(name, 0, file))
            assert_true(unlink(file) == 0 || errno == ENOENT);
    }
}

/* A reader that was open when its head was lost looks for another one now and then. */
static void await_texts(struct rf_store *reader)
{
    const struct timespec step = {.tv_nsec = 5000000};
    struct rf_store_info info = {0};

    for (int tries = 0; tries < 4000 && info.blobs != (uint64_t)texts_there - 100; tries++) {
        if (tries > 0)
            nanosleep(&step, NULL);
        OK(rf_store_info(reader, &info, &err));
    }
    expect_everything(reader);
}

/* names: what is lost at once. A reader in another process must see everything, and then a writer,
 * whose next put must reach both an old reader and a new one. */
static void lose_and_look(enum situation situation, const char *const *names)
{
    struct rf_store *writer = NULL, *reader = NULL;

    texts_there = MANY;
    if (situation == KILLED)
        run_in_child(fill_and_die);
    else
        writer = fill_many();
    if (situation == CLOSED)
        rf_store_close(writer);
    reader = open_store(RF_STORE_READ);
    for (size_t i = 0; names[i]; i++)
        lose(names[i]);
    expect_everything(reader);
    if (situation != WRITING) {
        run_in_child(read_everything);
        writer = open_store(RF_STORE_WRITE);
    }
    put_texts(writer, texts_there, texts_there + 1);
    texts_there++;
    expect_everything(writer);
    await_texts(reader);
    run_in_child(read_everything);
    put_texts(writer, texts_there, texts_there + 300); /* on through a run and a segment */
    texts_there += 300;
    expect_everything(writer);
    expect_everything(reader);
    run_in_child(read_everything);
    rf_store_close(writer);
    expect_everything(reader);
    rf_store_close(reader);
    run_in_child(read_everything);
}

static void every_other_file_and_folder_can_be_lost(void **state)
{
    static const char *const losses[][6] = {
        {"head"}, {"lock"}, {"store.json"}, {"run"}, {"large"}, {"head", "run"},
        {"head", "lock", "store.json", "run", "large"}};

    (void)state;
    for (int situation = 0; situation < SITUATIONS; situation++) {
        for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
            print_message("%d: %s\n", situation, losses[i][0]);
            lose_and_look(situation, losses[i]);
            tear_down(NULL);
            set_up(NULL);
        }
    }
}

static void count_gone(void *user, const char *line)
{
    unsigned *count = user;

    *count += strstr(line, "the segment that held them is gone") != NULL;
}

/* No record stands where the first ones were, so only the start of the log tells. */
static void the_oldest_segment_is_missed(void **state)
{
    struct rf_verify_report report;
    struct rf_store *store;
    uint64_t damaged = 0;
    unsigned lines = 0;
    char path[512];

    (void)state;
    texts_there = MANY;
    rf_store_close(fill_many());
    assert_true(file_at("log", 0, path));
    assert_int_equal(unlink(path), 0);
    store = open_store(RF_STORE_READ);
    OK(rf_store_check(store, &damaged, count_gone, &lines, &err));
    assert_int_equal(damaged, 1);
    assert_int_equal(rf_store_verify(store, &report, count_gone, NULL, &lines, NULL), RF_CORRUPT);
    assert_int_equal(lines, 2);
    rf_store_close(store);
}

static void each_lookup_run_can_be_lost(void **state)
{
    struct rf_store *store;
    char path[512], saved[600];
    int count;

    (void)state;
    make_many();
    snprintf(saved, sizeof saved, "%s/saved", folder);
    copy_folder(path_of(""), saved);
    count = files_in("run");
    assert_true(count >= 2 && files_in("log") >= 3);
    for (int n = 0; n < count; n++) {
        assert_true(file_at("run", n, path));
        assert_int_equal(unlink(path), 0);
        store = open_store(RF_STORE_READ); /* a hole */
        expect_many(store);
        expect_sound(store);
        rf_store_close(store);
        store = open_store(RF_STORE_WRITE);
        expect_many(store);
        expect_sound(store);
        rf_store_close(store);
        copy_folder(saved, path_of(""));
    }
}

static void a_reader_without_a_head_sees_what_is_sealed(void **state)
{
    struct rf_store *store, *writer;
    struct rf_store_info info;

    (void)state;
    make_many();
    unlink(path_of("head"));
    store = open_store(RF_STORE_READ);
    expect_many(store); /* the last run was made of durable records: it counts as sealed */
    rf_store_close(store);
    writer = open_store(RF_STORE_WRITE); /* while one writes, a reader must not recover */
    unlink(path_of("head"));
    remove_all("run");
    store = open_store(RF_STORE_READ);
    OK(rf_store_info(store, &info, &err));
    assert_true(info.next_seq > 100 && info.next_seq < MANY + 102);
    assert_true(count_texts(store, 0, MANY) > 100);
    rf_store_close(store);
    rf_store_close(writer);
}

static void a_reader_alone_recovers(void **state)
{
    struct rf_store *store;

    (void)state;
    make_many();
    unlink(path_of("head"));
    remove_all("run");
    store = open_store(RF_STORE_READ);
    expect_many(store);
    rf_store_close(store);
    unlink(path_of("lock")); /* no writer said that it closed the store */
    store = open_store(RF_STORE_READ);
    expect_many(store);
    rf_store_close(store);
}

static void files_that_no_record_names_are_removed(void **state)
{
    static const uint8_t junk[4096];
    struct rf_store *store;
    char stray[256], name[RF_SEGMENT_NAME_SIZE + 8];

    (void)state;
    make_many();
    snprintf(stray, sizeof stray, "large/sha256-%064d-1", 7);
    write_all(path_of(stray), junk, sizeof junk);
    write_all(path_of("large/.tmp-0000000000000001"), junk, sizeof junk);
    snprintf(name, sizeof name, "log/.tmp-%016d-0", 1);
    write_all(path_of(name), junk, sizeof junk);
    write_all(path_of("large/notes of a person"), junk, sizeof junk);
    unlink(path_of("lock")); /* as after a crash */
    store = open_store(RF_STORE_WRITE);
    assert_int_equal(access(path_of(stray), F_OK), -1);
    assert_int_equal(access(path_of("large/.tmp-0000000000000001"), F_OK), -1);
    assert_int_equal(access(path_of(name), F_OK), -1);
    assert_int_equal(access(path_of("large/notes of a person"), F_OK), 0);
    expect_many(store);
    write_all(path_of(stray), junk, sizeof junk);
    {
        struct rf_verify_report report;
        assert_int_equal(verify(store, &report), RF_OK);
        assert_int_equal(report.removed, 1);
    }
    rf_store_close(store);
}

/* ---- flipped bits ---- */

/* One bit of one file, then everything is asked for. Nothing may be wrong; what is damaged is
 * named, unless the file makes itself again. */
static void flip_and_look(const char *path, size_t at, uint8_t mask, bool precious)
{
    struct rf_store_options options = {.mode = RF_STORE_READ, .segment_bytes = 64u << 10,
                                       .run_bytes = 16u << 10};
    struct rf_verify_report report;
    struct rf_store *store = NULL;
    int found, damaged;

    patch(path, at, mask);
    OK(rf_store_open(&store, url, &options, &err));
    (void)count_texts(store, 0, 30); /* checks that nothing is wrong */
    (void)count_changes(store, &damaged);
    rf_store_close(store);
    options.mode = RF_STORE_WRITE;
    OK(rf_store_open(&store, url, &options, &err));
    found = count_texts(store, 0, 30);
    if (verify(store, &report) == RF_OK && (found != 30 || report.blobs != 31))
        fail_msg("%s at %zu: %d of 30 blobs, and verify is content", path, at, found);
    if (!precious && found != 30)
        fail_msg("%s at %zu: %d of 30 blobs", path, at, found);
    rf_store_close(store);
}

static void no_flipped_bit_serves_wrong_bytes(void **state)
{
    static const char *const folders[] = {"log", "run", "large", "."};
    uint8_t *large = calloc(1, (1u << 20) + 5);
    struct rf_store *store = open_store(RF_STORE_CREATE);
    char path[512], saved[512];
    unsigned flips = 0;

    (void)state;
    put_texts(store, 0, 30);
    OK(rf_store_put(store, rf_bytes(large, (1u << 20) + 5), NULL, false, NULL, NULL, &err));
    rf_store_close(store);
    free(large);
    snprintf(saved, sizeof saved, "%s/saved", folder);
    copy_folder(path_of(""), saved);
    for (size_t f = 0; f < sizeof folders / sizeof *folders; f++) {
        for (int n = 0; file_at(folders[f], n, path); n++) {
            struct stat st;
            size_t step;
            if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0)
                continue;
            step = f == 0 ? 13 : (size_t)st.st_size / 150 + 1;
            for (size_t at = 0; at < (size_t)st.st_size; at += step) {
                uint8_t *data;
                size_t size;
                data = read_all(path, &size);
                flip_and_look(path, at, (uint8_t)(1u << (at % 8)), f == 0 || f == 2);
                free(data);
                copy_folder(saved, path_of(""));
                flips++;
            }
        }
    }
    print_message("%u flips\n", flips);
    assert_true(flips > 500);
}

struct told {
    int lines;
    char first[RF_ERROR_SIZE];
};

static void count_line(void *user, const char *line)
{
    struct told *told = user;

    if (told->lines++ == 0)
        snprintf(told->first, sizeof told->first, "%s", line);
}

/* What a reader finds with one bit of path flipped. */
static void flip_and_verify(const char *path, size_t at, uint8_t mask, bool must_tell, bool log)
{
    struct rf_verify_report report;
    struct told told = {0};
    struct rf_store *store;
    enum rf_status status;
    int found;

    patch(path, at, mask);
    store = open_store(RF_STORE_READ);
    status = rf_store_verify(store, &report, count_line, NULL, &told, NULL);
    found = count_texts(store, 0, 30);
    rf_store_close(store);
    if (must_tell && told.lines == 0)
        fail_msg("%s at %zu, bit %02x: verify says nothing", path, at, mask);
    if (log && found != 28 && (status != RF_CORRUPT || report.corrupt == 0))
        fail_msg("%s at %zu, bit %02x: %d texts, and verify is content", path, at, mask, found);
    if (log && found == 28 && told.lines > 0 && report.corrupt + report.flaws == 0)
        fail_msg("%s at %zu, bit %02x: not counted: %s", path, at, mask, told.first);
    if (!log && (found != 28 || report.corrupt))
        fail_msg("%s at %zu, bit %02x: %d texts, %s", path, at, mask, found, told.first);
    patch(path, at, mask);
}

/* Every byte of every file of a closed store, and every bit of store.json: what verify does not
 * tell of must mean nothing, as doc/format-store.md says: the payload of a blob deleted since, and
 * in the head all but what is published. */
static void every_flipped_bit_is_told_or_means_nothing(void **state)
{
    struct rf_store *store = open_store(RF_STORE_CREATE);
    char path[512], text[64], saved[600];
    struct rf_blobref ref;
    uint8_t *data;
    size_t size;

    (void)state;
    put_texts(store, 0, 30);
    for (int i = 3; i < 5; i++) {
        text_of(i, text);
        rf_blobref_of(&ref, rf_bytes_text(text));
        OK(rf_store_delete(store, &ref, NULL, &err));
    }
    OK(rf_store_put(store, rf_bytes_text("a part"), NULL, true, NULL, NULL, &err));
    OK(rf_store_put(store, rf_bytes_text("a part"), NULL, false, NULL, NULL, &err));
    rf_store_close(store);
    assert_true(file_at("log", 0, path));
    data = read_all(path, &size);
    for (size_t at = 0; at < size; at++) {
        bool dead = false;
        for (int i = 3; i < 5; i++) {
            size_t start = BEGIN + (size_t)i * SPAN + 96;
            text_of(i, text);
            assert_memory_equal(data + start, text, strlen(text));
            dead |= at >= start && at < start + strlen(text);
        }
        flip_and_verify(path, at, (uint8_t)(1u << (at % 8)), !dead, true);
    }
    free(data);
    assert_int_equal(files_in("log"), 1);
    for (int n = 0; file_at("run", n, path); n++) {
        data = read_all(path, &size);
        free(data);
        for (size_t at = 0; at < size; at += at < 200 || at + 200 > size ? 1 : 11)
            flip_and_verify(path, at, (uint8_t)(1u << (at % 8)), true, false);
    }
    snprintf(path, sizeof path, "%s", path_of("store.json"));
    data = read_all(path, &size);
    for (size_t at = 0; at < size; at++) {
        for (int bit = 0; bit < 8; bit++)
            flip_and_verify(path, at, (uint8_t)(1u << bit), true, false);
    }
    free(data);
    snprintf(saved, sizeof saved, "%s/saved", folder);
    copy_folder(path_of(""), saved);
    for (size_t at = 0; at < 4096; at += at < 280 ? 1 : 97) {
        flip_and_verify(path_of("head"), at, (uint8_t)(1u << (at % 8)), false, false);
        copy_folder(saved, path_of(""));
    }
    for (size_t at = 0; at < 7; at++) {
        flip_and_verify(path_of("lock"), at, 1, false, false);
        copy_folder(saved, path_of(""));
    }
}

static void a_flipped_bit_in_a_large_payload_is_named(void **state)
{
    struct rf_store *store = open_store(RF_STORE_CREATE);
    size_t size = (2u << 20) + 5, got;
    uint8_t *large = calloc(1, size), some[100];
    static const size_t places[] = {0, 70000, (2u << 20) + 4, (2u << 20) + 5 + 3,
                                    (2u << 20) + 5 + 33 * 8 + 10};
    struct rf_verify_report report;
    struct rf_error why = {0};
    struct rf_blobref ref;
    struct rf_buf buf;
    char path[512];

    (void)state;
    OK(rf_store_put(store, rf_bytes(large, size), NULL, false, &ref, NULL, &err));
    assert_true(file_at("large", 0, path));
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        patch(path, places[i], 16);
        assert_int_equal(verify(store, &report), RF_CORRUPT);
        assert_int_equal(report.corrupt, 1);
        rf_buf_init(&buf, size);
        assert_int_equal(rf_store_get(store, &ref, &buf, &why), i < 3 ? RF_CORRUPT : RF_OK);
        rf_buf_release(&buf);
        if (i < 3) {
            rf_error_clear(&why);
            assert_int_equal(rf_store_read(store, &ref, places[i] & ~1ull, some, 1, &got, &why),
                             RF_CORRUPT);
            OK(rf_store_read(store, &ref, 1u << 20, some, 100, &got, &err));
        }
        rf_error_clear(&why);
        patch(path, places[i], 16);
        assert_int_equal(verify(store, &report), RF_OK);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(verify(store, &report), RF_CORRUPT);
    assert_int_equal(report.missing, 1);
    rf_buf_init(&buf, size);
    assert_int_equal(rf_store_get(store, &ref, &buf, &why), RF_CORRUPT);
    rf_buf_release(&buf);
    rf_store_close(store);
    free(large);
}

/* Put it again, as a part or not; what it is counted as then. */
static enum rf_put_outcome put_large(struct rf_store *store, uint8_t *large, size_t size, bool part)
{
    enum rf_put_outcome outcome;
    struct rf_blobref ref;
    struct rf_stat stat;

    OK(rf_store_put(store, rf_bytes(large, size), NULL, part, &ref, &outcome, &err));
    OK(rf_store_stat(store, &ref, &stat, &err));
    assert_false(stat.part); /* it was put as an item of its own first */
    assert_int_equal(files_in("large"), 1);
    expect_sound(store);
    return outcome;
}

static void a_put_replaces_a_large_copy_that_is_damaged_or_lost(void **state)
{
    struct rf_store *store = open_store(RF_STORE_CREATE);
    size_t size = (2u << 20) + 5;
    uint8_t *large = calloc(1, size);
    char path[512];
    int damaged;

    (void)state;
    assert_int_equal(put_large(store, large, size, false), RF_PUT_NEW);
    assert_int_equal(put_large(store, large, size, false), RF_PUT_PRESENT);
    assert_int_equal(count_changes(store, &damaged), 1);
    assert_true(file_at("large", 0, path));
    patch(path, 70000, 1);
    assert_int_equal(put_large(store, large, size, true), RF_PUT_NEW);
    assert_int_equal(count_changes(store, &damaged), 3);
    assert_true(file_at("large", 0, path));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(put_large(store, large, size, false), RF_PUT_NEW);
    assert_int_equal(count_changes(store, &damaged), 5);
    assert_int_equal(put_large(store, large, size, true), RF_PUT_PRESENT);
    assert_int_equal(damaged, 0);
    rf_store_close(store);
    free(large);
}

/* ---- compaction ---- */

static void compaction_gives_bytes_back_and_keeps_the_queue(void **state)
{
    struct rf_store *store = open_store(RF_STORE_CREATE), *reader;
    struct rf_store_info after;
    struct rf_cursor cursor = {0};
    struct rf_feed *feed = NULL, *old = NULL;
    struct rf_change change;
    uint64_t freed = 0;
    int gone = 0, count = 0;

    (void)state;
    for (int i = 0; i < 400; i++) {
        uint8_t data[1500] = {(uint8_t)i, (uint8_t)(i >> 8), 9};
        struct rf_blobref ref;
        OK(rf_store_put(store, rf_bytes(data, sizeof data), NULL, false, &ref, NULL, &err));
        if (i % 4)
            OK(rf_store_delete(store, &ref, NULL, &err));
    }
    put_texts(store, 0, 50);
    reader = open_store(RF_STORE_READ);
    OK(rf_feed_open(&old, reader, NULL, &err));
    OK(rf_feed_next(old, &change, 0, &err)); /* holds a segment that is replaced under it */
    OK(rf_feed_open(&feed, store, NULL, &err));
    for (int i = 0; i < 200; i++)
        OK(rf_feed_next(feed, &change, 0, &err));
    cursor = change.cursor;
    rf_feed_close(feed);
    OK(rf_store_compact(store, &freed, &err));
    OK(rf_store_info(store, &after, &err));
    /* Some or all of it may have happened by itself before. Of 600,000 bytes put, 150,000 live. */
    for (int tries = 0; after.disk_bytes > 520000 && tries < 1000; tries++) {
        usleep(10000); /* runs that were merged are on their way out */
        OK(rf_store_info(store, &after, &err));
    }
    assert_in_range(after.disk_bytes, 150000, 520000);
    expect_sound(store);
    OK(rf_feed_open(&feed, store, &cursor, &err)); /* same sequences, same chain */
    rf_feed_close(feed);
    OK(rf_feed_open(&feed, store, NULL, &err));
    for (uint64_t seq = 1; seq <= 750; seq++) {
        OK(rf_feed_next(feed, &change, 0, &err));
        assert_int_equal(change.seq, seq);
        gone += change.gone;
        if (!change.is_delete && !change.gone)
            count++;
    }
    assert_true(gone > 200);
    assert_int_equal(count + gone, 450);
    rf_feed_close(feed);
    for (uint64_t seq = 2; seq <= 750; seq++) {
        OK(rf_feed_next(old, &change, 0, &err));
        assert_int_equal(change.seq, seq);
    }
    rf_feed_close(old);
    assert_int_equal(count_texts(reader, 0, 50), 50);
    for (int i = 0; i < 400; i += 4) {
        uint8_t data[1500] = {(uint8_t)i, (uint8_t)(i >> 8), 9};
        struct rf_blobref ref;
        struct rf_buf buf;
        rf_blobref_of(&ref, rf_bytes(data, sizeof data));
        for (int which = 0; which < 2; which++) {
            rf_buf_init(&buf, 2000);
            OK(rf_store_get(which ? reader : store, &ref, &buf, &err));
            assert_memory_equal(buf.data, data, sizeof data);
            rf_buf_release(&buf);
        }
    }
    rf_store_close(reader);
    rf_store_close(store);
    store = open_store(RF_STORE_WRITE);
    expect_sound(store);
    rf_store_close(store);
}

/* ---- other processes ---- */

#define FOLLOWED 300

/* Follow the queue as a reader of its own, asleep between changes. */
static void follow_and_exit(void)
{
    struct rf_store *store = open_store(RF_STORE_READ);
    struct rf_feed *feed = NULL;

    OK(rf_feed_open(&feed, store, NULL, &err));
    for (uint64_t seq = 1; seq <= FOLLOWED; seq++) {
        struct rf_change change;
        struct rf_bytes bytes;
        OK(rf_feed_next(feed, &change, 60000, &err));
        assert_int_equal(change.seq, seq);
        OK(rf_feed_blob(feed, &bytes, &err));
        assert_int_equal(bytes.size, change.size);
    }
    rf_feed_close(feed);
    assert_int_equal(count_texts(store, 0, FOLLOWED), FOLLOWED);
    rf_store_close(store);
}

/* The followers start before the writer and see it come; segments, runs and epochs change under
 * them. */
static void followers_in_other_processes_miss_nothing(void **state)
{
    struct rf_store *store = open_store(RF_STORE_CREATE);
    pid_t pids[3];

    (void)state;
    rf_store_close(store);
    for (int i = 0; i < 3; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            follow_and_exit();
            _exit(0);
        }
    }
    store = open_store(RF_STORE_WRITE);
    for (int i = 0; i < FOLLOWED; i += 10) {
        put_texts(store, i, i + 10);
        if (i % 100 == 50) { /* the writer goes and comes back */
            rf_store_close(store);
            store = open_store(RF_STORE_WRITE);
        }
    }
    for (int i = 0; i < 3; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    rf_store_close(store);
}

/* ---- who and what ---- */

static void another_process_is_named_by_the_lock(void **state)
{
    struct rf_store *store = open_store(RF_STORE_CREATE), *other = NULL;
    struct rf_store_options options = {.mode = RF_STORE_WRITE, .lock_timeout_ms = 50};
    struct rf_error why = {0};
    char pid[32];

    (void)state;
    assert_int_equal(rf_store_open(&other, url, &options, &why), RF_LOCKED);
    snprintf(pid, sizeof pid, "process %ld (test_store", (long)getpid());
    assert_non_null(strstr(why.message, pid));
    rf_store_close(store);
    OK(rf_store_open(&other, url, &options, &err));
    rf_store_close(other);
}

/* Removing the lock's file must not let a second writer in. */
static void a_lost_lock_file_still_excludes(void **state)
{
    struct rf_store_options options = {.mode = RF_STORE_WRITE};
    struct rf_store *store = open_store(RF_STORE_CREATE), *other = NULL, *reader;

    (void)state;
    put_texts(store, 0, 10);
    assert_int_equal(unlink(path_of("lock")), 0);
    assert_int_equal(rf_store_open(&other, url, &options, NULL), RF_LOCKED);
    reader = open_store(RF_STORE_READ);
    put_texts(store, 10, 20);
    assert_int_equal(count_texts(reader, 0, 20), 20);
    rf_store_close(reader);
    rf_store_close(store);
    OK(rf_store_open(&other, url, &options, &err));
    assert_int_equal(count_texts(other, 0, 20), 20);
    rf_store_close(other);
}

/* Readers come and go all the time; a writer that does not wait must never find itself locked out
 * by one of them. */
static void a_reader_never_stands_in_a_writers_way(void **state)
{
    struct rf_store_options options = {.mode = RF_STORE_WRITE};
    pid_t pids[3];
    int ends[2];

    (void)state;
    rf_store_close(open_store(RF_STORE_CREATE));
    assert_int_equal(pipe(ends), 0);
    for (size_t i = 0; i < sizeof pids / sizeof *pids; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            struct pollfd end = {.fd = ends[0]};
            close(ends[1]);
            while (poll(&end, 1, 0) == 0)
                rf_store_close(open_store(RF_STORE_READ));
            _exit(0);
        }
    }
    for (int i = 0; i < 500; i++) {
        struct rf_store *store = NULL;
        OK(rf_store_open(&store, url, &options, &err));
        rf_store_close(store);
    }
    close(ends[1]);
    close(ends[0]);
    for (size_t i = 0; i < sizeof pids / sizeof *pids; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
}

static void *open_to_read(void *user)
{
    *(struct rf_store **)user = open_store(RF_STORE_READ);
    return NULL;
}

/* While one process looks for what a crash left, the head may know of less: a reader waits. */
static void a_reader_waits_for_one_who_recovers(void **state)
{
    static const char text[] = "1 somebody\n1700000000000000\n";
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char events[4096];
    struct rf_store *reader = NULL;
    struct pollfd looks;
    pthread_t thread;
    int fd;

    (void)state;
    run_in_child(put_eight_and_die);
    unlink(path_of("head")); /* as a power cut may leave it */
    fd = open(path_of("lock"), O_RDWR | O_TRUNC | O_CLOEXEC);
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    looks = (struct pollfd){.fd = inotify_init1(IN_CLOEXEC), .events = POLLIN};
    assert_true(inotify_add_watch(looks.fd, path_of("lock"), IN_ACCESS) >= 0);
    pthread_create(&thread, NULL, open_to_read, &reader);
    for (int i = 0; i < 4; i++) { /* it looks at the lock, and again */
        assert_int_equal(poll(&looks, 1, 60000), 1);
        assert_true(read(looks.fd, events, sizeof events) > 0);
    }
    close(fd); /* and was killed, too */
    pthread_join(thread, NULL);
    assert_int_equal(count_texts(reader, 0, 8), 8);
    rf_store_close(reader);
    close(looks.fd);
}

/* ---- the head, cut off by another program ---- */

static void truncate_head(void)
{
    assert_int_equal(truncate(path_of("head"), 0), 0);
}

static void nobody_faults_when_the_head_is_cut_off(void **state)
{
    struct rf_store *store = open_store(RF_STORE_CREATE), *reader;
    struct rf_feed *feed = NULL;
    struct rf_change change;
    pid_t pid;
    int status;

    (void)state;
    pid = fork();
    if (pid == 0) { /* falls asleep now and then, also while there is no page to sleep on */
        follow_and_exit();
        _exit(0);
    }
    reader = open_store(RF_STORE_READ);
    OK(rf_feed_open(&feed, reader, NULL, &err));
    for (int i = 0; i < FOLLOWED; i += 5) {
        put_texts(store, i, i + 5); /* the writer makes it again */
        for (int j = i; j < i + 5; j++) {
            OK(rf_feed_next(feed, &change, 60000, &err));
            assert_int_equal(change.seq, j + 1);
        }
        truncate_head();
        assert_int_equal(count_texts(reader, 0, i + 5), i + 5); /* what it knew, it keeps */
    }
    rf_feed_close(feed);
    put_texts(store, FOLLOWED, FOLLOWED + 1);
    assert_int_equal(count_texts(reader, FOLLOWED, FOLLOWED + 1), 1);
    truncate_head();
    rf_store_close(store);
    rf_store_close(reader);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    reader = open_store(RF_STORE_READ);
    assert_int_equal(count_texts(reader, 0, FOLLOWED + 1), FOLLOWED + 1);
    expect_sound(reader);
    rf_store_close(reader);
}

static void a_newer_format_is_refused_politely(void **state)
{
    static const char newer[] = "{\"refuge_store\":2,\"else\":true}\n";
    struct rf_store_options options = {.mode = RF_STORE_READ};
    struct rf_store *store = NULL;
    struct rf_error err = {0};

    (void)state;
    make_many();
    write_all(path_of("store.json"), (const uint8_t *)newer, sizeof newer - 1);
    assert_int_equal(rf_store_open(&store, url, &options, &err), RF_UNSUPPORTED);
    assert_non_null(strstr(err.message, "format 2"));
    options.mode = RF_STORE_WRITE;
    rf_error_clear(&err);
    assert_int_equal(rf_store_open(&store, url, &options, &err), RF_UNSUPPORTED);
}

/* A copy of an older state goes on differently: cursors of the lost history are told apart. */
static void a_rolled_back_store_refuses_cursors_of_the_lost_history(void **state)
{
    struct rf_store *store = open_store(RF_STORE_CREATE);
    struct rf_cursor cursor = {0};
    struct rf_feed *feed = NULL;
    struct rf_change change;
    struct rf_error why = {0};
    char saved[512];

    (void)state;
    put_texts(store, 0, 5);
    rf_store_close(store);
    snprintf(saved, sizeof saved, "%s/saved", folder);
    copy_folder(path_of(""), saved);
    store = open_store(RF_STORE_WRITE);
    put_texts(store, 5, 10);
    OK(rf_feed_open(&feed, store, NULL, &err));
    for (int i = 0; i < 8; i++)
        OK(rf_feed_next(feed, &change, 0, &err));
    cursor = change.cursor;
    rf_feed_close(feed);
    rf_store_close(store);
    copy_folder(saved, path_of(""));
    store = open_store(RF_STORE_WRITE);
    assert_int_equal(rf_feed_open(&feed, store, &cursor, &why), RF_CURSOR_FUTURE);
    put_texts(store, 20, 30);
    rf_error_clear(&why);
    assert_int_equal(rf_feed_open(&feed, store, &cursor, &why), RF_CURSOR_HISTORY);
    rf_store_close(store);
}

/* Of the day the format was fixed; tests/format reads it by other means. */
static void the_golden_store_opens_and_verifies(void **state)
{
    struct rf_verify_report report;
    struct rf_store_info info;
    struct rf_store *store;
    int damaged;

    (void)state;
    copy_folder(RF_SOURCE_DIR "/tests/format/store-1.golden", path_of(""));
    for (int writing = 0; writing < 2; writing++) {
        store = open_store(writing ? RF_STORE_WRITE : RF_STORE_READ);
        OK(rf_store_info(store, &info, &err));
        assert_int_equal(info.blobs, 4);
        assert_int_equal(info.next_seq, 8);
        assert_int_equal(count_changes(store, &damaged), 7);
        assert_int_equal(verify(store, &report), RF_OK);
        assert_int_equal(report.blobs, 4);
        assert_int_equal(report.removed + report.rebuilt, 0);
        rf_store_close(store);
    }
}

/* A blob that holds a copy of the log must not be taken for the log. */
static void a_log_within_a_blob_stays_a_blob(void **state)
{
    struct rf_store *store = open_store(RF_STORE_CREATE);
    char segment[512];
    uint8_t *data;
    size_t size;
    int damaged;

    (void)state;
    put_texts(store, 0, 8);
    rf_store_close(store);
    assert_true(file_at("log", 0, segment));
    data = read_all(segment, &size);
    store = open_store(RF_STORE_WRITE);
    OK(rf_store_put(store, rf_bytes(data, size), NULL, false, NULL, NULL, &err));
    put_texts(store, 8, 10);
    rf_store_close(store);
    patch(segment, size + 20, 1); /* its header: the search for the next record crosses the copy */
    store = open_store(RF_STORE_WRITE);
    assert_int_equal(count_texts(store, 0, 10), 10);
    assert_int_equal(count_changes(store, &damaged), 10);
    assert_int_equal(damaged, 1);
    rf_store_close(store);
    free(data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_killed_writer_loses_nothing),
        TEST(a_torn_tail_is_dropped_at_every_byte),
        TEST(a_bad_record_before_a_later_batch_is_kept_and_told),
        TEST(a_put_replaces_a_damaged_copy),
        TEST(a_bad_last_record_that_was_published_is_not_cut_off),
        TEST(a_log_that_lost_its_end_goes_on_behind_it),
        TEST(a_segment_damaged_throughout_is_not_taken_for_an_unfinished_one),
        TEST(a_lost_log_is_not_begun_anew),
        TEST(every_other_file_and_folder_can_be_lost),
        TEST(the_oldest_segment_is_missed),
        TEST(each_lookup_run_can_be_lost),
        TEST(a_reader_without_a_head_sees_what_is_sealed),
        TEST(a_reader_alone_recovers),
        TEST(files_that_no_record_names_are_removed),
        TEST(no_flipped_bit_serves_wrong_bytes),
        TEST(every_flipped_bit_is_told_or_means_nothing),
        TEST(a_flipped_bit_in_a_large_payload_is_named),
        TEST(a_put_replaces_a_large_copy_that_is_damaged_or_lost),
        TEST(compaction_gives_bytes_back_and_keeps_the_queue),
        TEST(followers_in_other_processes_miss_nothing),
        TEST(another_process_is_named_by_the_lock),
        TEST(a_lost_lock_file_still_excludes),
        TEST(a_reader_never_stands_in_a_writers_way),
        TEST(a_reader_waits_for_one_who_recovers),
        TEST(nobody_faults_when_the_head_is_cut_off),
        TEST(a_newer_format_is_refused_politely),
        TEST(a_rolled_back_store_refuses_cursors_of_the_lost_history),
        TEST(the_golden_store_opens_and_verifies),
        TEST(a_log_within_a_blob_stays_a_blob),
    };

    if (argc > 1) /* a pattern of names */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
