/* test_schema.c - file blobs, chunks, and files through a store and back */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/chunk.h"
#include "backup/schema.h"

#define REF_ABC "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define REF_NIL "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define HEAD                                                                                       \
    "{\"!refuge\":\"file/1\",\"gid\":1000,\"mode\":420,\"mtime_ns\":\"1700000000123456789\","
#define PART "{\"len\":\"3\",\"ref\":\"" REF_ABC "\"}"
#define TAIL "\"size\":\"3\",\"uid\":1000}"

static uint64_t random_next(uint64_t *seed) /* splitmix64 */
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void *random_bytes(size_t size, uint64_t seed)
{
    uint8_t *data = malloc(size + 8);

    assert_non_null(data);
    for (size_t i = 0; i < size; i += 8)
        rf_put_u64(data + i, random_next(&seed));
    return data;
}

/* ---- the blob ---- */

/* The blob of the format page. */
static void bytes_are_those_of_the_format_page(void **state)
{
    const char *golden = RF_SOURCE_DIR "/tests/format/file-1.golden", *mode =
        getenv("REFUGE_GOLDEN");
    struct rf_file_part parts[2] = {{.size = 4294967296}, {.size = 3}};
    struct rf_file file = {.name = rf_bytes_text("caf\xc3\xa9 \"1\".txt"), .size = 4294967299,
                           .mode = 0644,
                           .uid = 1000, .gid = 100, .mtime_ns = -1, .parts = parts, .part_count =
                               2};
    struct rf_buf buf;
    char want[2000];
    int fd;

    (void)state;
    assert_int_equal(rf_blobref_parse(&parts[0].ref, REF_NIL, 71, NULL), RF_OK);
    assert_int_equal(rf_blobref_parse(&parts[1].ref, REF_ABC, 71, NULL), RF_OK);
    file.prev = parts[1].ref;
    rf_buf_init(&buf, 10000);
    rf_file_encode(&buf, &file);
    fd = open(golden, mode ? O_RDWR | O_CREAT | O_TRUNC : O_RDONLY, 0644);
    assert_true(fd >= 0);
    if (mode)
        assert_int_equal(pwrite(fd, buf.data, buf.size, 0), buf.size);
    assert_int_equal(pread(fd, want, sizeof want, 0), buf.size);
    assert_memory_equal(want, buf.data, buf.size);
    close(fd);
    rf_buf_release(&buf);
}

static enum rf_status parse(const char *text, size_t size, enum rf_schema_kind *kind,
                            struct rf_error *err)
{
    struct rf_arena arena;
    struct rf_file file;
    enum rf_status status;
    struct rf_buf buf;

    rf_arena_init(&arena, 16 << 20);
    status = rf_schema_parse(kind, &file, &arena, rf_bytes(text, size), err);
    if (status == RF_OK && *kind == RF_SCHEMA_FILE) { /* what was read writes the same */
        rf_buf_init(&buf, 1 << 20);
        rf_file_encode(&buf, &file);
        assert_int_equal(buf.size, size);
        assert_memory_equal(buf.data, text, size);
        assert_int_equal(file.name.data[file.name.size], 0);
        rf_buf_release(&buf);
    }
    rf_arena_release(&arena);
    return status;
}

static void reads_what_is_right(void **state)
{
    static const char *const good[] = {
        HEAD "\"name\":\"a.txt\",\"parts\":[" PART "]," TAIL,
        HEAD "\"name\":\"a.txt\",\"parts\":[" PART "],\"prev\":\"" REF_NIL "\"," TAIL,
        HEAD "\"name\":\"\\\"\\\\\\n\",\"parts\":[" PART "]," TAIL,
        HEAD "\"name\":\"...\",\"parts\":[],\"size\":\"0\",\"uid\":0}",
        HEAD "\"name_b64\":\"/w==\",\"parts\":[" PART "]," TAIL,
        HEAD "\"name_b64\":\"YWL/\",\"parts\":[" PART "]," TAIL,
        HEAD "\"name_b64\":\"YWJj/2Q=\",\"parts\":[" PART "]," TAIL,
    };
    enum rf_schema_kind kind;
    struct rf_error err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (parse(good[i], strlen(good[i]), &kind, &err) != RF_OK || kind != RF_SCHEMA_FILE)
            fail_msg("%s: %s", good[i], err.message);
    assert_int_equal(parse("{\"!refuge\":\"tree/1\",\"a\":1}", 26, &kind, NULL), RF_OK);
    assert_int_equal(kind, RF_SCHEMA_TREE);
    assert_int_equal(parse("{\"!refuge\":\"ref/1\"}", 19, &kind, NULL), RF_OK);
    assert_int_equal(kind, RF_SCHEMA_REF);
    assert_int_equal(parse("{\"a\":1}", 7, &kind, NULL), RF_OK);
    assert_int_equal(kind, RF_SCHEMA_NONE);
    assert_int_equal(parse("", 0, &kind, NULL), RF_OK);
    assert_int_equal(kind, RF_SCHEMA_NONE);
}

static void refuses_what_is_wrong(void **state)
{
    static const struct {
        const char *text, *words;
        enum rf_status status;
    } bad[] = {
        {"{\"!refuge\":\"file/1\"", "ends here", RF_INVALID},
        {"{\"!refuge\":\"file/1\"}", "'gid' must be a number", RF_INVALID},
        {"{\"!refuge\":\"file/2\"}", "of kind 'file/2'", RF_UNSUPPORTED},
        {"{\"!refuge\":\"cake/1\"}", "of kind 'cake/1'", RF_UNSUPPORTED},
        {"{\"!refuge\":\"file/x\"}", "without a version", RF_INVALID},
        {"{\"!refuge\":\"tree/1\",\"b\":1,\"a\":2}", "not in RFC 8785 form", RF_INVALID},
        {HEAD " \"name\":\"a\",\"parts\":[" PART "]," TAIL, "not in RFC 8785 form", RF_INVALID},
        {HEAD "\"name\":\"\\u0061\",\"parts\":[" PART "]," TAIL, "not in RFC 8785 form",
         RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[" PART "],\"size\":\"3\",\"uid\":1000,\"x\":1}",
         "members this version", RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[" PART "],\"size\":\"3\",\"uid\":1e3}", "'uid' must",
         RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[" PART "],\"size\":\"3\",\"uid\":4294967296}",
         "'uid' must", RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[" PART "],\"size\":\"03\",\"uid\":1000}", "'size' must",
         RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[" PART "],\"size\":3,\"uid\":1000}", "'size' must",
         RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[" PART "],\"size\":\"4\",\"uid\":1000}", "add up",
         RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[" PART "],\"size\":\"2\",\"uid\":1000}", "add up",
         RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[" PART "],\"size\":\"9223372036854775808\",\"uid\":1000}",
         "'size' must", RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[{\"len\":\"0\",\"ref\":\"" REF_ABC "\"}],\"size\":\"0\","
              "\"uid\":1000}",
         "not be empty", RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[{\"len\":\"3\",\"ref\":\"sha256-00\"}]," TAIL, "'ref'",
         RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[1]," TAIL, "'len' must", RF_INVALID},
        {HEAD "\"name\":\"\",\"parts\":[" PART "]," TAIL, "'name' must", RF_INVALID},
        {HEAD "\"name\":\"..\",\"parts\":[" PART "]," TAIL, "'name' must", RF_INVALID},
        {HEAD "\"name\":\"a/b\",\"parts\":[" PART "]," TAIL, "'name' must", RF_INVALID},
        {HEAD "\"name\":\"a\\u0000b\",\"parts\":[" PART "]," TAIL, "'name' must", RF_INVALID},
        {HEAD "\"name_b64\":\"YQ==\",\"parts\":[" PART "]," TAIL, "not in RFC 8785 form",
         RF_INVALID},
        {HEAD "\"name_b64\":\"/x==\",\"parts\":[" PART "]," TAIL, "not in RFC 8785 form",
         RF_INVALID},
        {HEAD "\"name_b64\":\"/w=\",\"parts\":[" PART "]," TAIL, "not in RFC 8785 form",
         RF_INVALID},
        {HEAD "\"name_b64\":\"/w==!\",\"parts\":[" PART "]," TAIL, "not in RFC 8785 form",
         RF_INVALID},
        {HEAD "\"name_b64\":\"Li4v/w==\",\"parts\":[" PART "]," TAIL, "'name' must", RF_INVALID},
        {HEAD "\"name\":\"a\",\"name_b64\":\"/w==\",\"parts\":[" PART "]," TAIL, "one of them",
         RF_INVALID},
        {HEAD "\"parts\":[" PART "]," TAIL, "one of them", RF_INVALID},
        {HEAD "\"name\":\"a\",\"parts\":[" PART "],\"prev\":\"x\"," TAIL, "'prev'", RF_INVALID},
    };
    enum rf_schema_kind kind;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rf_error err = {0};
        enum rf_status status = parse(bad[i].text, strlen(bad[i].text), &kind, &err);
        if (status != bad[i].status || !strstr(err.message, bad[i].words))
            fail_msg("%s\n: %s '%s', not '%s'", bad[i].text, rf_status_name(status), err.message,
                     bad[i].words);
    }
}

/* ---- chunks ---- */

/* The rule of the format page, byte by byte, with another way to keep the hash. */
static size_t reference_cut(const uint8_t *data, size_t size)
{
    struct rf_blobref ref;
    uint64_t gear[256];
    size_t end = size < 4194304 ? size : 4194304;

    for (int i = 0; i < 256; i++) {
        rf_blobref_of(&ref, rf_bytes((uint8_t[]){(uint8_t)i}, 1));
        gear[i] = 0;
        for (int b = 7; b >= 0; b--)
            gear[i] = gear[i] << 8 | ref.digest[b];
    }
    for (size_t i = 262144; i < end; i++) {
        uint64_t hash = 0;
        for (size_t j = i >= 262144 + 63 ? i - 63 : 262144; j <= i; j++)
            hash += gear[data[j]] << (i - j);
        if (hash >> (i < 1048576 ? 42 : 46) == 0)
            return i + 1;
    }
    return end;
}

/* The first chunk's size, of content that is given step bytes more at a time. */
static size_t cut_by(const struct rf_chunker *chunker, const uint8_t *data, size_t size,
                     size_t step)
{
    struct rf_chunk_look look = {0};
    size_t have = 0, cut = 0;

    while (cut == 0 && have < size) {
        have = size - have < step ? size : have + step;
        cut = rf_chunk_find(chunker, &look, rf_bytes(data, have));
    }
    return cut ? cut : size;
}

static void cuts_by_the_rule(void **state)
{
    static const size_t steps[] = {1000, 65536, 262143, 262144, 262145, 1 << 20, 4 << 20};
    size_t size = 12 << 20, at = 0, largest = 0, count = 0;
    uint8_t *data = random_bytes(size, 5);
    struct rf_chunker chunker;

    (void)state;
    rf_chunker_init(&chunker);
    while (at < size) {
        size_t cut = cut_by(&chunker, data + at, size - at, size);
        if (count < 3)
            assert_int_equal(cut, reference_cut(data + at, size - at));
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
            assert_int_equal(cut, cut_by(&chunker, data + at, size - at, steps[i]));
        assert_true(cut <= RF_CHUNK_MAX && (cut > RF_CHUNK_MIN || at + cut == size));
        largest = cut > largest ? cut : largest;
        at += cut;
        count++;
    }
    assert_true(count > 6 && count < 24);
    memset(data, 0, size); /* content without any border */
    assert_int_equal(cut_by(&chunker, data, size, size), reference_cut(data, size));
    assert_int_equal(cut_by(&chunker, data, size, 300000), reference_cut(data, size));
    assert_int_equal(cut_by(&chunker, data, 1000, 10), 1000);
    assert_int_equal(cut_by(&chunker, NULL, 0, 1), 0);
    free(data);
}

/* The vector of the format page, which the reader in Python finds too. */
static void cuts_the_vector_of_the_format_page(void **state)
{
    static const size_t want[] = {1281680, 1512000, 1438185, 879644, 1179947};
    size_t size = 6 << 20, at = 0, cut;
    uint8_t *data = malloc(size), number[8];
    struct rf_chunker chunker;
    struct rf_blobref ref;

    (void)state;
    assert_non_null(data);
    for (size_t i = 0; i < size / 32; i++) {
        rf_put_u64(number, i);
        rf_blobref_of(&ref, rf_bytes(number, 8));
        memcpy(data + i * 32, ref.digest, 32);
    }
    rf_chunker_init(&chunker);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        cut = cut_by(&chunker, data + at, size - at, size);
        assert_int_equal(cut, want[i]);
        at += cut;
    }
    assert_int_equal(at, size);
    free(data);
}

/* ---- files ---- */

struct fixture {
    char path[64], file[80];
    struct rf_store *store;
    _Atomic bool running, stop; /* of the thread that lengthens the file */
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct rf_store_options options = {.mode = RF_STORE_CREATE};

    snprintf(f->path, sizeof f->path, "/tmp/refuge-schema-XXXXXX");
    if (!mkdtemp(f->path))
        return -1;
    snprintf(f->file, sizeof f->file, "%s/f", f->path);
    *state = f;
    return rf_store_open(&f->store, "memory:", &options, NULL);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    rf_store_close(f->store);
    unlink(f->file);
    rmdir(f->path);
    free(f);
    return 0;
}

static void write_file(struct fixture *f, const void *data, size_t size)
{
    int fd = open(f->file, O_WRONLY | O_CREAT | O_TRUNC, 0640);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    assert_int_equal(fchmod(fd, 0640), 0);
    assert_int_equal(futimens(fd, (struct timespec[]){{5, 0}, {1700000000, 123456789}}), 0);
    close(fd);
}

static void expect_content(struct fixture *f, const struct rf_put_file_result *result,
                           const uint8_t *data, size_t size)
{
    uint64_t seed = size;
    struct rf_arena arena;
    struct rf_buf blob;
    struct rf_file file;
    enum rf_schema_kind kind;
    struct rf_error err = {0};
    uint8_t *out = malloc(size + 10);
    size_t got, total = 0;

    assert_non_null(out);
    rf_arena_init(&arena, 16 << 20);
    rf_buf_init(&blob, 1 << 20);
    assert_int_equal(rf_store_get(f->store, &result->ref, &blob, NULL), RF_OK);
    if (rf_schema_parse(&kind, &file, &arena, rf_buf_bytes(&blob), &err) != RF_OK)
        fail_msg("%s", err.message);
    assert_int_equal(kind, RF_SCHEMA_FILE);
    assert_true(rf_bytes_equal(file.name, rf_bytes_text("a name")) && file.name_is_text);
    assert_true(file.mode == 0640 && file.mtime_ns == 1700000000123456789 && file.size == size);
    for (size_t i = 0; i < file.part_count; i++) {
        struct rf_stat st;
        assert_int_equal(rf_store_stat(f->store, &file.parts[i].ref, &st, NULL), RF_OK);
        assert_true(st.part && st.size == file.parts[i].size && file.parts[i].offset == total);
        total += st.size;
    }
    assert_int_equal(rf_file_read(f->store, &file, 0, out, size + 10, &got, NULL), RF_OK);
    assert_int_equal(got, size);
    assert_memory_equal(out, data, size);
    for (int i = 0; i < 100; i++) {
        uint64_t offset = random_next(&seed) % (size + 2), want = random_next(&seed) % 100000;
        assert_int_equal(rf_file_read(f->store, &file, offset, out, want, &got, NULL), RF_OK);
        if (offset + want > size)
            want = offset < size ? size - offset : 0;
        assert_int_equal(got, want);
        assert_memory_equal(out, data + offset, want);
    }
    rf_buf_release(&blob);
    rf_arena_release(&arena);
    free(out);
}

/* What a dry run says is what a put then does. */
static void expect_dry_run(struct fixture *f, uint64_t size, bool present,
                           struct rf_put_file_result *out)
{
    struct rf_put_file_options look = {.dry_run = true};
    struct rf_store_info before, after;
    struct rf_error err = {0};

    assert_int_equal(rf_store_info(f->store, &before, NULL), RF_OK);
    if (rf_put_file(f->store, f->file, "a name", &look, out, &err) != RF_OK)
        fail_msg("%s", err.message);
    assert_int_equal(err.status, RF_OK);
    assert_true(out->size == size && out->present == present);
    assert_true(out->stored == (present ? 0 : size));
    assert_int_equal(rf_store_info(f->store, &after, NULL), RF_OK);
    assert_true(before.next_seq == after.next_seq);
}

static void files_come_back(void **state)
{
    static const size_t sizes[] = {0, 1, 100000, 1 << 20, (1 << 20) + 1, 4 << 20, (4 << 20) + 1,
                                   9 << 20};
    struct fixture *f = *state;
    struct rf_put_file_result result, again, dry;
    struct rf_error err = {0};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *data = random_bytes(sizes[i], i);
        struct rf_blobref content;
        write_file(f, data, sizes[i]);
        expect_dry_run(f, sizes[i], false, &dry);
        if (rf_put_file(f->store, f->file, "a name", NULL, &result, &err) != RF_OK)
            fail_msg("%s", err.message);
        assert_true(result.size == sizes[i] && result.stored == sizes[i] && !result.present);
        rf_blobref_of(&content, rf_bytes(data, sizes[i]));
        if (sizes[i] > 0 && sizes[i] <= RF_CHUNK_FROM)
            assert_true(rf_blobref_equal(&result.content, &content));
        else
            assert_int_equal(result.content.algo, 0);
        assert_true(rf_blobref_equal(&dry.ref, &result.ref));
        assert_true(dry.content.algo == result.content.algo);
        expect_content(f, &result, data, sizes[i]);
        expect_dry_run(f, sizes[i], true, &dry);
        assert_int_equal(rf_put_file(f->store, f->file, "a name", NULL, &again, NULL), RF_OK);
        assert_true(again.present && again.stored == 0 &&
                    rf_blobref_equal(&again.ref, &result.ref));
        free(data);
    }
}

struct steps {
    uint64_t last;
    unsigned count;
};

static void count_step(void *user, uint64_t bytes)
{
    struct steps *steps = user;

    assert_true(bytes > steps->last);
    steps->last = bytes;
    steps->count++;
}

/* A large file is told of while it is read, not only behind it. */
static void progress_moves_within_a_file(void **state)
{
    struct fixture *f = *state;
    size_t size = 24 << 20;
    uint8_t *data = random_bytes(size, 11);
    struct steps steps = {0};
    struct rf_put_file_options options = {.progress = count_step, .user = &steps};
    struct rf_put_file_result result;

    write_file(f, data, size);
    assert_int_equal(rf_put_file(f->store, f->file, "a name", &options, &result, NULL), RF_OK);
    assert_true(steps.last == size && steps.count >= size / RF_CHUNK_MAX);
    free(data);
}

/* Chunks are on their way at the same time, as many as there are to spare: equal ones are stored
 * once, and all stand in the file blob in their order. */
static void chunks_keep_their_order(void **state)
{
    static const int spares[] = {0, 1, 3, 100};
    struct fixture *f = *state;
    size_t size = 29 << 20;
    uint8_t *data = random_bytes(size, 12);
    struct rf_put_file_result result, first = {0};

    memset(data + (4 << 20), 0, 13 << 20); /* some of it without any border */
    write_file(f, data, size);
    for (size_t i = 0; i < sizeof spares / sizeof *spares; i++) {
        _Atomic int spare = spares[i];
        struct rf_put_file_options options = {.spare_chunks = &spare};
        assert_int_equal(rf_put_file(f->store, f->file, "a name", &options, &result, NULL), RF_OK);
        assert_int_equal(spare, spares[i]); /* given back */
        if (i == 0) {
            first = result;
            assert_in_range(result.stored, size - (8 << 20), size - (4 << 20));
        }
        assert_true(rf_blobref_equal(&first.ref, &result.ref));
        assert_true(i == 0 || (result.present && result.stored == 0));
        expect_content(f, &result, data, size);
    }
    free(data);
}

/* Bytes put in near the front move the borders there and no others. */
static void an_edit_stores_little(void **state)
{
    struct fixture *f = *state;
    size_t size = 16 << 20;
    uint8_t *data = random_bytes(size + 100, 9);
    struct rf_put_file_result first, second;

    write_file(f, data, size);
    assert_int_equal(rf_put_file(f->store, f->file, "a name", NULL, &first, NULL), RF_OK);
    memmove(data + 2000100, data + 2000000, size - 2000000);
    write_file(f, data, size + 100);
    assert_int_equal(rf_put_file(f->store, f->file, "a name", NULL, &second, NULL), RF_OK);
    assert_true(second.stored > 0 && second.stored <= 2 * RF_CHUNK_MAX);
    assert_true(first.stored == size);
    expect_content(f, &second, data, size + 100);
    free(data);
}

static void what_is_no_file_is_refused(void **state)
{
    struct fixture *f = *state;
    struct rf_put_file_result result;
    struct rf_error err = {0};
    struct rf_store_info info;

    assert_int_equal(rf_put_file(f->store, f->file, "x", NULL, &result, &err), RF_NOT_FOUND);
    assert_non_null(strstr(err.message, "No such file"));
    rf_error_clear(&err);
    assert_int_equal(rf_put_file(f->store, f->path, "x", NULL, &result, &err), RF_INVALID);
    assert_non_null(strstr(err.message, "is no regular file"));
    assert_int_equal(mkfifo(f->file, 0600), 0);
    assert_int_equal(rf_put_file(f->store, f->file, "x", NULL, &result, NULL), RF_INVALID);
    unlink(f->file);
    write_file(f, "abc", 3);
    assert_int_equal(rf_put_file(f->store, f->file, "a/b", NULL, &result, NULL), RF_INVALID);
    assert_int_equal(rf_put_file(f->store, f->file, "..", NULL, &result, NULL), RF_INVALID);
    assert_int_equal(rf_put_file(f->store, f->file, "", NULL, &result, NULL), RF_INVALID);
    assert_int_equal(rf_store_info(f->store, &info, NULL), RF_OK);
    assert_int_equal(info.blobs, 0);
}

/* Another thread makes the file longer all the time it is read. */
static void *lengthen(void *user)
{
    struct fixture *f = user;
    int fd = open(f->file, O_WRONLY | O_APPEND);

    while (fd >= 0 && !atomic_load(&f->stop) && write(fd, "x", 1) == 1)
        atomic_store(&f->running, true);
    close(fd);
    return NULL;
}

static void a_file_that_changes_is_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t *data = random_bytes(9 << 20, 3);
    struct rf_put_file_result result;
    struct rf_error err = {0};
    enum rf_status status;
    pthread_t thread;

    write_file(f, data, 9 << 20);
    assert_int_equal(pthread_create(&thread, NULL, lengthen, f), 0);
    while (!atomic_load(&f->running))
        sched_yield();
    status = rf_put_file(f->store, f->file, "x", NULL, &result, &err);
    atomic_store(&f->stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(status, RF_INVALID);
    assert_non_null(strstr(err.message, "changed while it was read, 3 times"));
    free(data);
}

static void a_missing_or_short_part_is_told(void **state)
{
    struct fixture *f = *state;
    struct rf_file_part part = {.size = 5};
    struct rf_file file = {.name = rf_bytes_text("n"), .size = 5, .parts = &part, .part_count = 1};
    struct rf_error err = {0};
    uint8_t out[10];
    size_t got;

    rf_blobref_of(&part.ref, rf_bytes_text("abc"));
    assert_int_equal(rf_file_read(f->store, &file, 0, out, 5, &got, &err), RF_NOT_FOUND);
    assert_non_null(strstr(err.message, "part 0 of file 'n'"));
    rf_error_clear(&err);
    assert_int_equal(rf_store_put(f->store, rf_bytes_text("abc"), NULL, true, NULL, NULL, NULL),
                     RF_OK);
    assert_int_equal(rf_file_read(f->store, &file, 0, out, 3, &got, &err), RF_OK);
    assert_int_equal(rf_file_read(f->store, &file, 0, out, 5, &got, &err), RF_CORRUPT);
    assert_non_null(strstr(err.message, "is shorter than the 5 bytes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_the_format_page),
        cmocka_unit_test(reads_what_is_right),
        cmocka_unit_test(refuses_what_is_wrong),
        cmocka_unit_test(cuts_by_the_rule),
        cmocka_unit_test(cuts_the_vector_of_the_format_page),
        cmocka_unit_test_setup_teardown(files_come_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(progress_moves_within_a_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(chunks_keep_their_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_edit_stores_little, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_file_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_changes_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_missing_or_short_part_is_told, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
