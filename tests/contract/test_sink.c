/*
 * test_sink.c - what every sink promises (sinks/sink.h)
 *
 * The last test runs random histories against a model in memory: which rows, parts, parks and dead
 * letters there must be follows from which blobs are present, whatever order, crash or lane brought
 * them there. REFUGE_TEST_SEED and REFUGE_TEST_RUNS repeat or lengthen it.
 */
#include "tests/sink_fixture.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>

static const char notes_v1[] =
    "{\"name\":\"notes\",\"version\":\"1\",\"on\":[\"blob\",\"file\"],\"tables\":[{\"name\":"
    "\"note\",\"columns\":[{\"name\":\"title\",\"type\":\"text\",\"search\":true},{\"name\":"
    "\"words\",\"type\":\"int\",\"facet\":true}]}]}";
static const char notes_v2[] =
    "{\"name\":\"notes\",\"version\":\"2\",\"on\":[\"blob\",\"file\"],\"tables\":[{\"name\":"
    "\"note\",\"columns\":[{\"name\":\"title\",\"type\":\"text\",\"search\":true},{\"name\":"
    "\"words\",\"type\":\"int\",\"facet\":true}]},{\"name\":\"tag\",\"columns\":[{\"name\":"
    "\"tag\",\"type\":\"text\",\"search\":true}]}]}";
static const char split_v1[] =
    "{\"name\":\"split\",\"version\":\"1\",\"on\":[\"blob\"],\"splits\":true,\"tables\":[]}";
static const char links_v1[] =
    "{\"name\":\"links\",\"version\":\"1\",\"on\":[\"blob\"],\"tables\":[{\"name\":\"link\","
    "\"columns\":[{\"name\":\"target\",\"type\":\"text\"}]}]}";

/* ---- helpers ---- */

/* Output of `notes`: one row. The buffer is the caller's. */
static struct rf_sink_call note_call(struct rf_buf *buf, uint16_t mapper, const char *title,
                                     int64_t words)
{
    struct rf_value values[2] = {text_value(title), int_value(words)};

    rf_buf_init(buf, 1 << 20);
    rf_row_begin(buf, 0, 2);
    rf_row_put(buf, &values[0]);
    rf_row_put(buf, &values[1]);
    return (struct rf_sink_call){
        .mapper = mapper, .outcome = RF_SINK_ROWS, .output = rf_buf_bytes(buf), .attempts = 1};
}

static void put_note(struct fixture *f, const char *blob, uint64_t seq, const char *title)
{
    struct rf_sink_item item = blob_item(&f->arena, blob, seq);
    struct rf_buf buf;
    struct rf_sink_call call = note_call(&buf, 0, title, 1);

    item.calls = &call;
    item.call_count = 1;
    put(f->sink, &item);
    rf_buf_release(&buf);
}

/* The mappers are lent for the call alone: AddressSanitizer tells of who looks at them later. */
static uint32_t begin_lane(struct fixture *f, const char *const *declarations, size_t count,
                           bool full)
{
    struct rf_sink_mapper mappers[8];
    struct rf_arena lent;
    uint32_t lane = 0;

    rf_arena_init(&lent, 1 << 20);
    for (size_t i = 0; i < count; i++)
        mappers[i] = mapper_of(&lent, declarations[i]);
    CHECK(rf_sink_lane_begin(f->sink, mappers, count, full, &lane, &err));
    rf_arena_release(&lent);
    return lane;
}

static uint32_t begin_one(struct fixture *f, const char *declaration, bool full)
{
    return begin_lane(f, &declaration, 1, full);
}

/* A sink with one live lane of `notes` and `split`. */
static uint32_t begin_notes_and_split(struct fixture *f)
{
    return begin_lane(f, (const char *const[]){notes_v1, split_v1}, 2, true);
}

static void put_parent(struct fixture *f, const char *text, uint64_t seq,
                       const struct rf_sink_item *parts, size_t count)
{
    struct rf_sink_item item = blob_item(&f->arena, text, seq);
    struct rf_sink_part edges[8];
    struct rf_sink_call call = {.mapper = 1, .outcome = RF_SINK_ROWS, .parts = edges,
                                .part_count = count};

    for (size_t i = 0; i < count; i++)
        edges[i] = edge_to(&parts[i], "part");
    item.calls = &call;
    item.call_count = 1;
    put(f->sink, &item);
}

static void put_part_note(struct fixture *f, const struct rf_sink_item *part, const char *title)
{
    struct rf_sink_item item = *part;
    struct rf_buf buf;
    struct rf_sink_call call = note_call(&buf, 0, title, 1);

    item.calls = &call;
    item.call_count = 1;
    put(f->sink, &item);
    rf_buf_release(&buf);
}

/* How many notes have this word in their title, as the index of words says. */
static const char *count_matches(struct fixture *f, const char *word)
{
    char sql[200];

    snprintf(sql, sizeof sql, "SELECT count(*) FROM %s'%s'%s",
             form("note_fts WHERE note_fts MATCH ", "note WHERE search @@ "), word,
             form("", "::tsquery"));
    return ask(f, sql);
}

/* ---- tests ---- */

static void first_lane_is_live_and_comes_back(void **state)
{
    struct fixture f;
    struct rf_sink_lane *lanes = NULL;
    struct stat st;
    const char *value = NULL;
    size_t count = 99;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    CHECK(rf_sink_lanes(f.sink, &f.arena, &lanes, &count, &err));
    assert_int_equal(count, 0);
    lane = begin_notes_and_split(&f);
    CHECK(rf_sink_set_fact(f.sink, "store", "it's \"mine\"", &err));
    reopen(&f);
    CHECK(rf_sink_lanes(f.sink, &f.arena, &lanes, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(lanes[0].id, lane);
    assert_true(lanes[0].live);
    assert_string_equal(lanes[0].position, "");
    assert_int_equal(lanes[0].mapper_count, 2);
    assert_string_equal(lanes[0].mappers[0].decl->name, "notes");
    assert_string_equal(lanes[0].mappers[0].decl->tables[0].columns[1].name, "words");
    assert_memory_equal(lanes[0].mappers[1].bundle.data, "bundle\0text", 11);
    assert_int_equal(strlen(lanes[0].mappers[1].identity), 64);
    CHECK(rf_sink_get_fact(f.sink, &f.arena, "store", &value, &err));
    assert_string_equal(value, "it's \"mine\"");
    CHECK(rf_sink_set_fact(f.sink, "store", NULL, &err));
    CHECK_STATUS(rf_sink_get_fact(f.sink, &f.arena, "store", &value, &err), RF_NOT_FOUND);
    if (strcmp(fixture_kind, "sqlite") == 0) {
        assert_int_equal(stat(f.path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    fixture_release(&f);
}

/* A batch of this item and one call of it. */
static void put_with(struct fixture *f, uint32_t lane, struct rf_sink_item *item,
                     const struct rf_sink_call *call, const char *from, const char *to)
{
    item->calls = call;
    item->call_count = 1;
    CHECK(rf_sink_begin(f->sink, lane, from, &err));
    put(f->sink, item);
    CHECK(rf_sink_commit(f->sink, to, &err));
}

static void every_type_is_stored_as_promised(void **state)
{
    static const char json[] =
        "{\"name\":\"all\",\"version\":\"1\",\"on\":[\"blob\"],\"tables\":[{\"name\":\"everytype\","
        "\"columns\":[{\"name\":\"i\",\"type\":\"int\"},{\"name\":\"f\",\"type\":\"float\"},"
        "{\"name\":\"b\",\"type\":\"bool\"},{\"name\":\"t\",\"type\":\"text\",\"search\":true},"
        "{\"name\":\"j\",\"type\":\"json\"},{\"name\":\"w\",\"type\":\"time\"},"
        "{\"name\":\"r\",\"type\":\"blobref\"}]}]}";
    struct rf_value values[7] = {
        int_value(INT64_MIN),
        {.type = RF_TYPE_FLOAT, .real = 0.1},
        {.type = RF_TYPE_BOOL, .boolean = true},
        text_value(""),
        {.type = RF_TYPE_JSON, .text = rf_bytes_text("[1]")},
        {.type = RF_TYPE_TIME, .integer = -1, .offset_minutes = -90},
        {.type = RF_TYPE_BLOBREF, .ref = ref_of("x")},
    };
    struct rf_value unknown = {.type = RF_TYPE_TIME, .integer = 0,
                               .offset_minutes = RF_OFFSET_UNKNOWN};
    struct rf_value null = {0};
    struct fixture f;
    struct rf_buf buf;
    struct rf_sink_item item;
    struct rf_sink_call call = {.outcome = RF_SINK_ROWS};
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, json, true);
    rf_buf_init(&buf, 1 << 16);
    rf_row_begin(&buf, 0, 7);
    for (size_t i = 0; i < 7; i++)
        rf_row_put(&buf, &values[i]);
    rf_row_begin(&buf, 0, 7);
    for (size_t i = 0; i < 7; i++)
        rf_row_put(&buf, i == 5 ? &unknown : &null);
    rf_cut_put(&buf, 0, 3, 1, RF_CUT_UTF8);
    call.output = rf_buf_bytes(&buf);
    item = blob_item(&f.arena, "a", 1);
    put_with(&f, lane, &item, &call, "", "1");
    rf_buf_release(&buf);
    assert_string_equal(
        ask(&f, "SELECT n, i, f, b, t IS NULL, j, w, w_offset, r FROM everytype ORDER BY n"),
        "0|-9223372036854775808|0.10000000000000001|1|0|[1]|1969-12-31T23:59:59.999999Z|-90|"
        "sha256-2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\n"
        "1||||1||1970-01-01T00:00:00.000000Z||");
    assert_string_equal(ask(&f, "SELECT n, \"table\", \"column\", kind FROM refuge_cuts"),
                        "1|everytype|t|utf8");
    assert_string_equal(ask(&f, "SELECT kind, size, ts, seq, deleted, ref = item FROM blobs"),
                        "blob|1|2023-11-14T22:13:21.000000Z|1|0|1");
    fixture_release(&f);
}

static void position_moves_by_compare_and_swap(void **state)
{
    struct fixture f;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1, true);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    CHECK(rf_sink_commit(f.sink, "5", &err));
    CHECK_STATUS(rf_sink_begin(f.sink, lane, "", &err), RF_LOCKED);
    CHECK_STATUS(rf_sink_begin(f.sink, lane, "6", &err), RF_LOCKED);
    CHECK_STATUS(rf_sink_begin(f.sink, lane + 1, "5", &err), RF_NOT_FOUND);
    CHECK(rf_sink_begin(f.sink, lane, "5", &err));
    CHECK(rf_sink_commit(f.sink, "5", &err));
    fixture_release(&f);
}

static void a_batch_is_all_or_nothing(void **state)
{
    struct fixture f;
    struct rf_sink_item part;
    struct rf_sink_lane *lanes;
    size_t count;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_notes_and_split(&f);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note(&f, "kept", 1, "kept");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    CHECK(rf_sink_begin(f.sink, lane, "1", &err));
    put_note(&f, "lost", 2, "lost");
    part = part_item(&f.arena, "piece", "text/plain");
    put_parent(&f, "whole", 3, &part, 1);
    reopen(&f); /* a crash: the batch was never committed */
    assert_string_equal(ask(&f, "SELECT title FROM note"), "kept");
    assert_string_equal(ask(&f, "SELECT count(*) FROM refuge_parts"), "0");
    assert_string_equal(ask(&f, "SELECT count(*) FROM blobs"), "1");
    CHECK(rf_sink_lanes(f.sink, &f.arena, &lanes, &count, &err));
    assert_string_equal(lanes[0].position, "1");
    CHECK(rf_sink_begin(f.sink, lane, "1", &err));
    put_note(&f, "lost", 2, "lost");
    rf_sink_rollback(f.sink);
    rf_sink_rollback(f.sink);
    assert_string_equal(ask(&f, "SELECT title FROM note"), "kept");
    fixture_release(&f);
}

static void a_lower_sequence_never_overwrites(void **state)
{
    struct fixture f;
    struct rf_blobref ref = ref_of("a");
    struct rf_sink_item item;
    bool stale = false;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1, true);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note(&f, "a", 5, "five");
    item = blob_item(&f.arena, "a", 4);
    CHECK(rf_sink_put(f.sink, &item, &stale, &err));
    assert_true(stale);
    CHECK(rf_sink_remove(f.sink, &ref, 3, 0, &err));
    put_note(&f, "a", 5, "five again");
    CHECK(rf_sink_commit(f.sink, "5", &err));
    assert_string_equal(ask(&f, "SELECT title, seq, deleted FROM note JOIN blobs b ON b.id = blob"),
                        "five again|5|0");
    CHECK(rf_sink_begin(f.sink, lane, "5", &err));
    CHECK(rf_sink_remove(f.sink, &ref, 6, 0, &err));
    item = blob_item(&f.arena, "a", 5);
    CHECK(rf_sink_put(f.sink, &item, &stale, &err));
    assert_true(stale);
    CHECK(rf_sink_commit(f.sink, "6", &err));
    assert_string_equal(ask(&f, "SELECT (SELECT count(*) FROM note), seq, deleted FROM blobs"),
                        "0|6|1");
    CHECK(rf_sink_begin(f.sink, lane, "6", &err));
    put_note(&f, "a", 7, "back");
    CHECK(rf_sink_commit(f.sink, "7", &err));
    assert_string_equal(ask(&f, "SELECT (SELECT title FROM note), seq, deleted FROM blobs"),
                        "back|7|0");
    fixture_release(&f);
}

/* whole1 -> {a, b}, whole2 -> {b}, b -> {c}: what is reached lives, the rest goes. */
static void parts_live_while_something_reaches_them(void **state)
{
    struct fixture f;
    struct rf_sink_item a, b, c, ab[2];
    struct rf_sink_call call;
    struct rf_sink_part edge;
    struct rf_blobref ref;
    struct rf_sink_origin origin;
    bool has, stale = false;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_notes_and_split(&f);
    a = ab[0] = part_item(&f.arena, "a", "text/plain");
    b = ab[1] = part_item(&f.arena, "b", "text/plain");
    c = part_item(&f.arena, "c", "text/x-c");
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    CHECK(rf_sink_put(f.sink, &a, &stale, &err)); /* no edge yet */
    assert_true(stale);
    stale = false;
    put_parent(&f, "whole1", 1, ab, 2);
    CHECK(rf_sink_has_part(f.sink, lane, b.key, &has, &err));
    assert_true(has);
    put_part_note(&f, &a, "A");
    edge = edge_to(&c, NULL);
    call = (struct rf_sink_call){
        .mapper = 1, .outcome = RF_SINK_ROWS, .parts = &edge, .part_count = 1};
    b.calls = &call;
    b.call_count = 1;
    put(f.sink, &b);
    put_part_note(&f, &c, "C");
    put_parent(&f, "whole2", 2, &b, 1);
    CHECK(rf_sink_commit(f.sink, "2", &err));
    assert_string_equal(ask(&f, "SELECT title FROM note ORDER BY title"), "A\nC");
    assert_string_equal(ask(&f, "SELECT count(*) FROM refuge_edges"), "4");
    assert_string_equal(ask(&f, "SELECT media FROM blobs WHERE ref = (SELECT ref FROM blobs WHERE "
                                "media = 'text/x-c')"),
                        "text/x-c");
    CHECK(rf_sink_origin_of(f.sink, lane, b.key, &origin, &err));
    assert_int_equal(origin.parent_kind, RF_SINK_BLOB);
    assert_int_equal(origin.offset, 3);
    CHECK(rf_sink_mapper_splits(f.sink, lane, "split", &has, &err));
    assert_true(has);
    CHECK(rf_sink_mapper_splits(f.sink, lane, "notes", &has, &err));
    assert_false(has);

    ref = ref_of("whole1");
    CHECK(rf_sink_begin(f.sink, lane, "2", &err));
    CHECK(rf_sink_remove(f.sink, &ref, 3, 0, &err));
    CHECK(rf_sink_commit(f.sink, "3", &err));
    assert_string_equal(ask(&f, "SELECT title FROM note"), "C");
    CHECK_STATUS(rf_sink_origin_of(f.sink, lane, a.key, &origin, &err), RF_NOT_FOUND);

    /* The last edge to b goes and comes back within one batch: nothing below it is lost. */
    CHECK(rf_sink_begin(f.sink, lane, "3", &err));
    ref = ref_of("whole2");
    CHECK(rf_sink_remove(f.sink, &ref, 4, 0, &err));
    CHECK(rf_sink_put(f.sink, &b, &stale, &err)); /* nothing reaches it just now */
    assert_true(stale);
    put_parent(&f, "whole3", 5, &b, 1);
    CHECK(rf_sink_commit(f.sink, "5", &err));
    assert_string_equal(ask(&f, "SELECT title FROM note"), "C");

    CHECK(rf_sink_begin(f.sink, lane, "5", &err));
    put_parent(&f, "whole3", 5, NULL, 0); /* mapped again, without parts */
    CHECK(rf_sink_commit(f.sink, "5", &err));
    assert_string_equal(ask(&f, "SELECT count(*) FROM note"), "0");
    assert_string_equal(ask(&f, "SELECT count(*) FROM blobs WHERE kind = 'part'"), "0");
    assert_string_equal(count_matches(&f, "c"), "0");
    fixture_release(&f);
}

struct seen_holders {
    size_t count, most;
    uint64_t seqs; /* their sum */
};

static enum rf_status see_holder(void *user, const struct rf_sink_holder *holder)
{
    struct seen_holders *seen = user;

    seen->seqs += holder->seq;
    assert_int_equal(holder->timestamp_us, 1700000000000000 + (int64_t)holder->seq * 1000000);
    assert_null(holder->name);
    return ++seen->count == seen->most ? RF_END : RF_OK;
}

static struct seen_holders holders_of(struct fixture *f, uint32_t lane, const char *key,
                                      size_t most)
{
    struct seen_holders seen = {.most = most};

    CHECK(rf_sink_holders(f->sink, lane, key, see_holder, &seen, &err));
    return seen;
}

static const char *parks_of(struct fixture *f, struct rf_sink_item *a, struct rf_sink_item *b)
{
    char sql[600];

    snprintf(sql, sizeof sql,
             "SELECT CASE b.item WHEN '%s' THEN 'a' WHEN '%s' THEN 'b' ELSE b.kind END AS what, "
             "m.name, p.kind FROM refuge_parks p JOIN blobs b ON b.id = p.blob JOIN "
             "refuge_lane_mappers m ON m.id = p.mapper ORDER BY 1",
             a->key, b->key);
    return ask(f, sql);
}

/* whole1 -> {a}, whole2 -> {a}, a -> {b}: a lost holder has what is below mapped again. */
static void parts_that_lose_a_holder_are_mapped_again(void **state)
{
    struct fixture f;
    struct rf_sink_item a, b;
    struct rf_sink_call call;
    struct rf_sink_part edge;
    struct rf_blobref ref = ref_of("whole1");
    struct rf_buf buf;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_notes_and_split(&f);
    a = part_item(&f.arena, "a", "text/plain");
    b = part_item(&f.arena, "b", "text/plain");
    edge = edge_to(&b, NULL);
    call = (struct rf_sink_call){
        .mapper = 1, .outcome = RF_SINK_ROWS, .parts = &edge, .part_count = 1};
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_parent(&f, "whole1", 1, &a, 1);
    a.calls = &call;
    a.call_count = 1;
    put(f.sink, &a);
    put_part_note(&f, &b, "B");
    assert_int_equal(holders_of(&f, lane, b.key, 9).count, 1); /* within the batch, too */
    put_parent(&f, "whole2", 2, &a, 1);
    CHECK(rf_sink_commit(f.sink, "2", &err));
    assert_int_equal(holders_of(&f, lane, b.key, 9).count, 2);
    assert_int_equal(holders_of(&f, lane, b.key, 9).seqs, 3);
    assert_int_equal(holders_of(&f, lane, b.key, 1).count, 1);
    assert_int_equal(holders_of(&f, lane, "sha256-none;text/plain", 9).count, 0);

    CHECK(rf_sink_begin(f.sink, lane, "2", &err));
    CHECK(rf_sink_share(f.sink, 1, &err));
    CHECK(rf_sink_remove(f.sink, &ref, 3, 0, &err));
    CHECK(rf_sink_commit(f.sink, "3", &err));
    assert_int_equal(holders_of(&f, lane, b.key, 9).seqs, 2);
    assert_string_equal(parks_of(&f, &a, &b), "a|notes|ready\nb|notes|ready");
    assert_string_equal(ask(&f, "SELECT title FROM note"), "B"); /* until it is mapped again */

    call = note_call(&buf, 0, "B2", 1);
    b.calls = &call;
    b.call_count = 1;
    b.only_calls = true;
    CHECK(rf_sink_begin(f.sink, lane, "3", &err));
    put(f.sink, &b);
    call = (struct rf_sink_call){.mapper = 0, .outcome = RF_SINK_NONE};
    a.calls = &call;
    a.only_calls = true;
    put(f.sink, &a);
    CHECK(rf_sink_commit(f.sink, "3", &err));
    rf_buf_release(&buf);
    assert_string_equal(parks_of(&f, &a, &b), "");
    assert_string_equal(ask(&f, "SELECT title FROM note"), "B2");

    /* Without the wish nothing wakes; with rf_sink_again a whole item does. */
    CHECK(rf_sink_begin(f.sink, lane, "3", &err));
    put_parent(&f, "whole3", 4, &a, 1);
    CHECK(rf_sink_commit(f.sink, "4", &err));
    CHECK(rf_sink_begin(f.sink, lane, "4", &err));
    ref = ref_of("whole3");
    CHECK(rf_sink_remove(f.sink, &ref, 5, 0, &err));
    CHECK(rf_sink_commit(f.sink, "5", &err));
    assert_string_equal(parks_of(&f, &a, &b), "");
    CHECK(rf_sink_begin(f.sink, lane, "5", &err));
    ref = ref_of("whole2");
    {
        char key[RF_BLOBREF_SIZE];
        rf_blobref_format(&ref, key);
        CHECK(rf_sink_again(f.sink, key, "image/*", 1, &err));
        CHECK(rf_sink_again(f.sink, key, "text/_lain", 1, &err));
        CHECK(rf_sink_commit(f.sink, "5", &err));
        assert_string_equal(parks_of(&f, &a, &b), "");
        CHECK(rf_sink_begin(f.sink, lane, "5", &err));
        CHECK(rf_sink_again(f.sink, key, "Text/?la*", 1, &err));
        CHECK(rf_sink_commit(f.sink, "5", &err));
        assert_string_equal(parks_of(&f, &a, &b), "a|notes|ready\nb|notes|ready");
        CHECK(rf_sink_begin(f.sink, lane, "5", &err));
        CHECK(rf_sink_again(f.sink, key, NULL, 1, &err));
        CHECK(rf_sink_again(f.sink, key, NULL, 1, &err)); /* twice is once */
        ref = ref_of("whole1");
        rf_blobref_format(&ref, key);
        CHECK(rf_sink_again(f.sink, key, NULL, 1, &err)); /* is not there any more */
    }
    CHECK(rf_sink_commit(f.sink, "5", &err));
    assert_string_equal(parks_of(&f, &a, &b), "a|notes|ready\nb|notes|ready\nblob|notes|ready");
    CHECK(rf_sink_begin(f.sink, lane, "5", &err));
    ref = ref_of("whole2");
    CHECK(rf_sink_share(f.sink, 1, &err));
    CHECK(rf_sink_remove(f.sink, &ref, 6, 0, &err));
    CHECK(rf_sink_commit(f.sink, "6", &err));
    assert_string_equal(ask(&f, "SELECT count(*) FROM refuge_parks"), "0");
    assert_string_equal(ask(&f, "SELECT count(*) FROM note"), "0");
    fixture_release(&f);
}

static uint64_t ready_of(struct fixture *f, uint32_t lane)
{
    uint64_t counts[RF_PARK_KIND_COUNT] = {0};

    CHECK(rf_sink_park_counts(f->sink, lane, 0, counts, &err));
    return counts[RF_PARK_READY];
}

/* What the slow lane makes of the park that is ready. */
static void map_ready(struct fixture *f, uint32_t lane, const struct rf_sink_item *item)
{
    struct rf_sink_park parks[4];
    int64_t after = 0;
    size_t count = 0;

    CHECK(rf_sink_parks(f->sink, lane, 0, RF_PARK_READY, &after, parks, 4, &count, &err));
    for (size_t i = 0; i < count; i++) {
        bool reached = item->kind != RF_SINK_PART;
        assert_string_equal(parks[i].key, item->key);
        if (!reached)
            CHECK(rf_sink_has_part(f->sink, lane, item->key, &reached, &err));
        assert_true(reached);
        put_part_note(f, item, "old");
    }
}

/* An item is woken and mapped in one batch, which comes to nothing: its rows are as they were, or
 * it waits to be mapped again, though no change comes for it. */
static void what_a_broken_batch_took_comes_back(void **state)
{
    struct fixture f;
    struct rf_sink_item items[2];
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_notes_and_split(&f);
    items[0] = part_item(&f.arena, "p", "text/plain");
    items[1] = blob_item(&f.arena, "b", 2);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_parent(&f, "whole", 1, items, 1);
    for (int i = 0; i < 2; i++) {
        put_part_note(&f, &items[i], "old");
        items[i].only_calls = true;
    }
    CHECK(rf_sink_commit(f.sink, "2", &err));
    for (int turn = 0; turn < 4; turn++) {
        const struct rf_sink_item *item = &items[turn / 2];
        bool before = turn & 1; /* it is woken before the batch that breaks, else in it */
        CHECK(rf_sink_begin(f.sink, lane, "2", &err));
        CHECK(rf_sink_again(f.sink, item->key, NULL, 1, &err));
        if (before) {
            CHECK(rf_sink_commit(f.sink, "2", &err));
            CHECK(rf_sink_begin(f.sink, lane, "2", &err));
        }
        put_part_note(&f, item, "new");
        assert_int_equal(ready_of(&f, lane), 0); /* what was put is written: the question asks */
        rf_sink_rollback(f.sink);
        reopen(&f);
        CHECK(rf_sink_begin(f.sink, lane, "2", &err));
        assert_true(ready_of(&f, lane) == 1 || !before);
        map_ready(&f, lane, item);
        assert_int_equal(ready_of(&f, lane), 0);
        CHECK(rf_sink_commit(f.sink, "2", &err));
        assert_string_equal(ask(&f, "SELECT title FROM note"), "old\nold");
    }
    fixture_release(&f);
}

/* whole1 -> {p}, whole2 -> {p}: what holds p in a batch that breaks does not hold it behind that;
 * the batch with whole1's tombstone breaks, too, and comes again. */
static void a_holder_lost_in_a_broken_batch_is_lost_again(void **state)
{
    struct fixture f;
    struct rf_sink_item part;
    struct rf_blobref ref = ref_of("whole1");
    struct rf_sink_origin origin;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_notes_and_split(&f);
    part = part_item(&f.arena, "p", "text/plain");
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_parent(&f, "whole1", 1, &part, 1);
    (void)ready_of(&f, lane); /* what was put is written: the question asks */
    rf_sink_rollback(f.sink);
    reopen(&f);
    CHECK_STATUS(rf_sink_origin_of(f.sink, lane, part.key, &origin, &err), RF_NOT_FOUND);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_parent(&f, "whole1", 1, &part, 1);
    put_part_note(&f, &part, "P");
    put_parent(&f, "whole2", 2, &part, 1);
    CHECK(rf_sink_commit(f.sink, "2", &err));
    for (int turn = 0; turn < 2; turn++) {
        CHECK(rf_sink_begin(f.sink, lane, "2", &err));
        CHECK(rf_sink_share(f.sink, 1, &err));
        CHECK(rf_sink_remove(f.sink, &ref, 3, 0, &err));
        if (turn) {
            CHECK(rf_sink_commit(f.sink, "3", &err));
            break;
        }
        (void)ready_of(&f, lane);
        rf_sink_rollback(f.sink);
        reopen(&f);
    }
    assert_int_equal(ready_of(&f, lane), 1);
    assert_string_equal(ask(&f, "SELECT title FROM note"), "P");
    fixture_release(&f);
}

/* The same of a lane beside the live one: a part of both is written in it when it comes again, and
 * what nothing of the lane reaches has no rows in it, whatever the live lane has. */
static void a_broken_batch_of_a_lane_costs_that_lane(void **state)
{
    struct fixture f;
    struct rf_sink_item part;
    struct rf_sink_counts counts;
    struct rf_blobref ref = ref_of("whole");
    uint32_t live, lane;

    (void)state;
    fixture_init(&f);
    live = begin_notes_and_split(&f);
    part = part_item(&f.arena, "p", "text/plain");
    CHECK(rf_sink_begin(f.sink, live, "", &err));
    put_parent(&f, "whole", 1, &part, 1);
    put_part_note(&f, &part, "P");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    lane = begin_lane(&f, (const char *const[]){notes_v2, split_v1}, 2, true);
    for (int turn = 0; turn < 2; turn++) {
        bool reached = true;
        CHECK(rf_sink_begin(f.sink, lane, "", &err));
        CHECK(rf_sink_has_part(f.sink, lane, part.key, &reached, &err));
        assert_false(reached);
        put_parent(&f, "whole", 1, &part, 1);
        CHECK(rf_sink_has_part(f.sink, lane, part.key, &reached, &err));
        assert_true(reached);
        put_part_note(&f, &part, "P2");
        if (turn) {
            CHECK(rf_sink_commit(f.sink, "1", &err));
            break;
        }
        (void)ready_of(&f, lane); /* what was put is written: the question asks */
        rf_sink_rollback(f.sink);
        reopen(&f);
    }
    for (int turn = 0; turn < 2; turn++) {
        CHECK(rf_sink_begin(f.sink, lane, "1", &err));
        CHECK(rf_sink_remove(f.sink, &ref, 2, 0, &err));
        if (turn) {
            CHECK(rf_sink_commit(f.sink, "2", &err));
            break;
        }
        (void)ready_of(&f, lane);
        rf_sink_rollback(f.sink);
        reopen(&f);
    }
    CHECK(rf_sink_counts(f.sink, lane, &counts, &err));
    assert_int_equal(counts.rows, 0);
    CHECK(rf_sink_counts(f.sink, live, &counts, &err));
    assert_int_equal(counts.rows, 1);
    CHECK(rf_sink_begin(f.sink, live, "1", &err));
    CHECK(rf_sink_remove(f.sink, &ref, 2, 0, &err));
    CHECK(rf_sink_commit(f.sink, "2", &err));
    CHECK(rf_sink_lane_swap(f.sink, lane, NULL, 0, &err));
    assert_string_equal(ask(&f, "SELECT count(*) FROM note"), "0");
    fixture_release(&f);
}

static void a_ring_of_parts_does_not_loop(void **state)
{
    struct fixture f;
    struct rf_sink_item a, b;
    struct rf_sink_part edge;
    struct rf_sink_call call = {
        .mapper = 1, .outcome = RF_SINK_ROWS, .parts = &edge, .part_count = 1};
    struct rf_blobref ref = ref_of("whole");
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_notes_and_split(&f);
    a = part_item(&f.arena, "a", "text/plain");
    b = part_item(&f.arena, "b", "text/plain");
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_parent(&f, "whole", 1, &a, 1);
    a.calls = b.calls = &call;
    a.call_count = b.call_count = 1;
    edge = edge_to(&b, NULL);
    put(f.sink, &a);
    edge = edge_to(&a, NULL);
    put(f.sink, &b);
    CHECK(rf_sink_remove(f.sink, &ref, 2, 0, &err));
    CHECK(rf_sink_commit(f.sink, "2", &err));
    fixture_release(&f);
}

static void needs_park_wake_and_unmap(void **state)
{
    struct fixture f;
    struct rf_buf buf;
    struct rf_sink_item item;
    struct rf_sink_call call = {.mapper = 0, .outcome = RF_SINK_PARKED_NEED, .reason = "waits"};
    struct rf_sink_need need = {.ref = ref_of("key"), .present = false};
    struct rf_sink_park parks[4];
    struct rf_blobref *refs, key = ref_of("key");
    int64_t after = 0;
    size_t count;
    uint64_t counts[RF_PARK_KIND_COUNT];
    uint32_t lane, attempts = 0;
    bool parked;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1, true);
    item = blob_item(&f.arena, "locked", 1);
    call.needs = &need;
    call.need_count = 1;
    put_with(&f, lane, &item, &call, "", "1");
    CHECK(rf_sink_parks(f.sink, lane, 0, RF_PARK_NEED, &after, parks, 4, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(parks[0].key, item.key);
    assert_int_equal(parks[0].seq, 1);
    assert_true(rf_blobref_equal(&parks[0].ref, &item.ref));
    CHECK(rf_sink_park_needs(f.sink, lane, &parks[0], &f.arena, &refs, &count, &err));
    assert_int_equal(count, 1);
    CHECK(rf_sink_is_parked(f.sink, lane, 0, item.key, &parked, &attempts, &err));
    assert_false(parked); /* what waits for a blob is not for the slow lane */
    assert_true(rf_blobref_equal(&refs[0], &key));
    CHECK(rf_sink_parks(f.sink, lane, 0, RF_PARK_NEED, &after, parks, 4, &count, &err));
    assert_int_equal(count, 0);

    CHECK(rf_sink_begin(f.sink, lane, "1", &err));
    CHECK(rf_sink_arrived(f.sink, &key, &err));
    CHECK(rf_sink_commit(f.sink, "2", &err));
    after = 0;
    CHECK(rf_sink_parks(f.sink, lane, 0, RF_PARK_READY, &after, parks, 4, &count, &err));
    assert_int_equal(count, 1);
    CHECK(rf_sink_park_counts(f.sink, lane, 0, counts, &err));
    assert_int_equal(counts[RF_PARK_READY], 1);
    assert_int_equal(counts[RF_PARK_SLOW] + counts[RF_PARK_NEED], 0);
    CHECK(rf_sink_is_parked(f.sink, lane, 0, item.key, &parked, &attempts, &err));
    assert_true(parked);
    assert_int_equal(attempts, parks[0].attempts);

    call = note_call(&buf, 0, "open", 1);
    need.present = true;
    call.needs = &need;
    call.need_count = 1;
    item.only_calls = true;
    put_with(&f, lane, &item, &call, "2", "2");
    rf_buf_release(&buf);
    assert_string_equal(ask(&f, "SELECT title, (SELECT count(*) FROM refuge_parks) FROM note"),
                        "open|0");

    CHECK(rf_sink_begin(f.sink, lane, "2", &err));
    CHECK(rf_sink_remove(f.sink, &key, 3, 0, &err));
    CHECK(rf_sink_commit(f.sink, "3", &err));
    assert_string_equal(ask(&f, "SELECT kind, (SELECT count(*) FROM note), (SELECT present FROM "
                                "refuge_needs) FROM refuge_parks"),
                        "need|0|0");
    fixture_release(&f);
}

/* A mapper stops at the first blob that is not there: what it would have read behind that is no
 * need any more, in whatever order they go. */
static void of_needs_only_the_first_is_missed(void **state)
{
    struct rf_blobref first = ref_of("first"), second = ref_of("second"), third = ref_of("third");
    struct rf_sink_need needs[] = {{.ref = first, .present = true},
                                   {.ref = second, .present = true},
                                   {.ref = third, .present = true}};
    struct rf_sink_park park;
    struct rf_sink_call call;
    struct rf_sink_item item;
    struct rf_blobref *refs;
    int64_t after = 0;
    struct fixture f;
    struct rf_buf buf;
    uint32_t lane;
    size_t count;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1, true);
    item = blob_item(&f.arena, "locked", 1);
    call = note_call(&buf, 0, "open", 1);
    call.needs = needs;
    call.need_count = 3;
    put_with(&f, lane, &item, &call, "", "1");
    rf_buf_release(&buf);
    for (int turn = 0; turn < 2; turn++) {
        CHECK(rf_sink_begin(f.sink, lane, turn ? "3" : "1", &err));
        CHECK(rf_sink_remove(f.sink, turn ? &first : &third, turn ? 4 : 2, 0, &err));
        if (!turn)
            CHECK(rf_sink_remove(f.sink, &second, 3, 0, &err));
        CHECK(rf_sink_commit(f.sink, turn ? "4" : "3", &err));
        after = 0;
        CHECK(rf_sink_parks(f.sink, lane, 0, RF_PARK_NEED, &after, &park, 1, &count, &err));
        assert_int_equal(count, 1);
        CHECK(rf_sink_park_needs(f.sink, lane, &park, &f.arena, &refs, &count, &err));
        assert_int_equal(count, 1);
        assert_true(rf_blobref_equal(&refs[0], turn ? &first : &second));
    }
    fixture_release(&f);
}

static enum rf_status collect_letter(void *user, const struct rf_dead_letter *letter)
{
    rf_buf_printf(user, "%s/%s/%s/%u ", letter->mapper, letter->dead_class, letter->reason,
                  (unsigned)letter->attempts);
    return RF_OK;
}

static void dead_letters_are_told_and_tried_again(void **state)
{
    struct fixture f;
    struct rf_buf buf;
    struct rf_sink_counts counts;
    struct rf_sink_item item;
    struct rf_sink_call call = {.outcome = RF_SINK_DEAD,
                                .dead_class = RF_DEAD_LIMIT,
                                .reason = "too slow",
                                .attempts = 2};
    uint64_t count = 0;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1, true);
    item = blob_item(&f.arena, "bad", 1);
    item.calls = &call;
    item.call_count = 1;
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note(&f, "bad", 1, "was good"); /* replaced by the letter */
    put(f.sink, &item);
    CHECK(rf_sink_commit(f.sink, "1", &err));
    rf_buf_init(&buf, 4096);
    CHECK(rf_sink_dead_letters(f.sink, collect_letter, &buf, &err));
    assert_string_equal(rf_buf_text(&buf), "notes/limit/too slow/2 ");
    rf_buf_release(&buf);
    CHECK(rf_sink_counts(f.sink, lane, &counts, &err));
    assert_int_equal(counts.dead_letters, 1);
    assert_int_equal(counts.items, 1);
    assert_int_equal(counts.rows, 0);
    CHECK(rf_sink_retry(f.sink, "other", NULL, &count, &err));
    assert_int_equal(count, 0);
    CHECK(rf_sink_retry(f.sink, "notes", item.key, &count, &err));
    assert_int_equal(count, 1);
    CHECK(rf_sink_counts(f.sink, lane, &counts, &err));
    assert_int_equal(counts.dead_letters, 0);
    assert_int_equal(counts.parked_ready, 1);
    fixture_release(&f);
}

static void a_new_version_is_built_beside_and_swapped_in(void **state)
{
    struct fixture f;
    struct rf_sink_lane *lanes;
    struct rf_sink_counts counts;
    size_t count;
    uint32_t live, lane, other;

    (void)state;
    fixture_init(&f);
    live = begin_lane(&f, (const char *const[]){notes_v1, links_v1}, 2, true);
    CHECK(rf_sink_begin(f.sink, live, "", &err));
    put_note(&f, "a", 1, "old");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    lane = begin_one(&f, notes_v2, false);
    CHECK_STATUS(rf_sink_lane_swap(f.sink, lane, NULL, 0, &err), RF_DENIED);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note(&f, "a", 1, "new");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    assert_string_equal(ask(&f, "SELECT title FROM note"), "old");
    reopen(&f);
    CHECK(rf_sink_lane_swap(f.sink, lane, (const char *const[]){"links"}, 1, &err));
    assert_string_equal(ask(&f, "SELECT title FROM note"), "new");
    assert_string_equal(count_matches(&f, "new"), "1");
    assert_string_equal(ask(&f, form("SELECT count(*) FROM sqlite_master WHERE name LIKE '%@2%' "
                                     "AND type = 'table' OR name = 'link'",
                                     "SELECT count(*) FROM pg_class WHERE relnamespace = "
                                     "current_schema()::regnamespace AND (relname LIKE '%@2%' OR "
                                     "relname = 'link')")),
                        "0");
    assert_string_equal(ask(&f, "SELECT count(*) FROM refuge_mappers"), "1");
    CHECK(rf_sink_lanes(f.sink, &f.arena, &lanes, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(lanes[0].id, live);
    assert_int_equal(lanes[0].mapper_count, 1);
    assert_int_equal(lanes[0].mappers[0].decl->table_count, 2);
    CHECK(rf_sink_begin(f.sink, live, "1", &err));
    put_note(&f, "a", 1, "newer"); /* the old entry must leave the full-text index */
    CHECK(rf_sink_commit(f.sink, "2", &err));
    assert_string_equal(count_matches(&f, "new"), "0");

    other = begin_one(&f, notes_v1, false);
    CHECK(rf_sink_begin(f.sink, other, "", &err));
    put_note(&f, "b", 2, "dropped");
    CHECK(rf_sink_commit(f.sink, "2", &err));
    CHECK(rf_sink_lane_drop(f.sink, other, &err));
    CHECK_STATUS(rf_sink_lane_drop(f.sink, other, &err), RF_NOT_FOUND);
    CHECK_STATUS(rf_sink_lane_drop(f.sink, live, &err), RF_NOT_FOUND);
    CHECK(rf_sink_counts(f.sink, live, &counts, &err));
    assert_int_equal(counts.rows, 1);
    assert_string_equal(ask(&f, form("SELECT count(*) FROM sqlite_master WHERE name GLOB "
                                     "'*@[3-9]*'",
                                     "SELECT count(*) FROM pg_class WHERE relnamespace = "
                                     "current_schema()::regnamespace AND relname ~ '@[3-9]'")),
                        "0");
    fixture_release(&f);
}

static void a_full_lane_replaces_all(void **state)
{
    struct fixture f;
    struct rf_sink_item part, other;
    struct rf_sink_lane *lanes;
    size_t count;
    uint32_t live, lane;

    (void)state;
    fixture_init(&f);
    live = begin_notes_and_split(&f);
    part = part_item(&f.arena, "p", "text/plain");
    other = part_item(&f.arena, "q", "text/plain");
    CHECK(rf_sink_begin(f.sink, live, "", &err));
    put_parent(&f, "whole", 1, (struct rf_sink_item[]){part, other}, 2);
    put_part_note(&f, &part, "P");
    put_part_note(&f, &other, "Q");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    lane = begin_lane(&f, (const char *const[]){notes_v2, split_v1}, 2, true);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_parent(&f, "whole", 1, &part, 1);
    put_part_note(&f, &part, "P2");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    CHECK(rf_sink_lane_swap(f.sink, lane, NULL, 0, &err));
    CHECK(rf_sink_lanes(f.sink, &f.arena, &lanes, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(lanes[0].id, live);
    assert_int_equal(lanes[0].mapper_count, 2);
    assert_string_equal(ask(&f, "SELECT title FROM note"), "P2");
    assert_string_equal(ask(&f, "SELECT count(*) FROM blobs"), "2"); /* q is gone */
    fixture_release(&f);
}

/* What the rebuild could not read is gone with what the lane before said of it. */
static void a_full_lane_forgets_what_was_lost(void **state)
{
    struct fixture f;
    struct rf_sink_counts counts;
    uint32_t live, lane;

    (void)state;
    fixture_init(&f);
    live = begin_one(&f, notes_v1, true);
    CHECK(rf_sink_begin(f.sink, live, "", &err));
    put_note(&f, "a", 1, "A");
    put_note(&f, "b", 2, "B");
    put_note(&f, "c", 4, "C");
    CHECK(rf_sink_commit(f.sink, "4", &err));
    lane = begin_one(&f, notes_v2, true);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note(&f, "a", 1, "A2");
    CHECK(rf_sink_lost(f.sink, 2, 3, &err));
    put_note(&f, "c", 4, "C2");
    CHECK(rf_sink_commit(f.sink, "4", &err));
    CHECK(rf_sink_counts(f.sink, live, &counts, &err));
    assert_int_equal(counts.lost, 0);
    CHECK(rf_sink_lane_swap(f.sink, lane, NULL, 0, &err));
    CHECK(rf_sink_counts(f.sink, live, &counts, &err));
    assert_int_equal(counts.lost, 2);
    assert_int_equal(counts.items, 2);
    assert_string_equal(ask(&f, "SELECT seq FROM blobs ORDER BY seq"), "1\n4");
    fixture_release(&f);
}

/* A splitter that runs along brings parts to a lane and leaves nothing there. */
static void a_splitter_may_run_along_for_its_edges(void **state)
{
    struct fixture f;
    struct rf_sink_mapper mappers[2];
    struct rf_sink_item part;
    uint32_t live, lane = 0;

    (void)state;
    fixture_init(&f);
    live = begin_notes_and_split(&f);
    part = part_item(&f.arena, "p", "text/plain");
    CHECK(rf_sink_begin(f.sink, live, "", &err));
    put_parent(&f, "whole", 1, &part, 1);
    put_part_note(&f, &part, "P1");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    mappers[0] = mapper_of(&f.arena, notes_v2);
    mappers[1] = mapper_of(&f.arena, split_v1);
    mappers[1].edges_only = true;
    CHECK(rf_sink_lane_begin(f.sink, mappers, 2, false, &lane, &err));
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_parent(&f, "whole", 1, &part, 1);
    put_part_note(&f, &part, "P2");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    assert_string_equal(ask(&f, "SELECT count(*) FROM refuge_parts"), "2");
    CHECK(rf_sink_lane_swap(f.sink, lane, NULL, 0, &err));
    assert_string_equal(ask(&f, "SELECT title FROM note"), "P2");
    assert_string_equal(ask(&f, "SELECT count(*) FROM refuge_parts"), "1");
    assert_string_equal(ask(&f, "SELECT name FROM refuge_lane_mappers ORDER BY ordinal"),
                        "notes\nsplit");
    fixture_release(&f);
}

/* Its call may fail there and not in the live lane: what it did not bring is not forgotten. */
static void parts_that_a_lane_missed_are_parked(void **state)
{
    struct fixture f;
    struct rf_sink_mapper mappers[2];
    struct rf_sink_item parts[2];
    uint32_t live, lane = 0;

    (void)state;
    fixture_init(&f);
    live = begin_notes_and_split(&f);
    parts[0] = part_item(&f.arena, "p", "text/plain");
    parts[1] = part_item(&f.arena, "q", "text/plain");
    CHECK(rf_sink_begin(f.sink, live, "", &err));
    put_parent(&f, "whole", 1, parts, 2);
    put_part_note(&f, &parts[0], "P1");
    put_part_note(&f, &parts[1], "Q1");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    mappers[0] = mapper_of(&f.arena, notes_v2);
    mappers[1] = mapper_of(&f.arena, split_v1);
    mappers[1].edges_only = true;
    CHECK(rf_sink_lane_begin(f.sink, mappers, 2, false, &lane, &err));
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_parent(&f, "whole", 1, parts, 1);
    put_part_note(&f, &parts[0], "P2");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    CHECK(rf_sink_lane_swap(f.sink, lane, NULL, 0, &err));
    assert_string_equal(ask(&f, "SELECT title FROM note"), "P2");
    assert_string_equal(ask(&f, "SELECT m.name || p.kind FROM refuge_parks p JOIN "
                                "refuge_lane_mappers m ON m.id = p.mapper"),
                        "notesready");
    fixture_release(&f);
}

static void names_must_not_clash(void **state)
{
    static const char thief[] =
        "{\"name\":\"thief\",\"version\":\"1\",\"on\":[\"blob\"],\"tables\":"
        "[{\"name\":\"note\",\"columns\":[{\"name\":\"x\",\"type\":\"int\"}]}]}";
    static const char shadow[] =
        "{\"name\":\"shadow\",\"version\":\"1\",\"on\":[\"blob\"],\"tables\":"
        "[{\"name\":\"note_fts\",\"columns\":[{\"name\":\"x\",\"type\":\"int\"}]}]}";
    struct rf_sink_mapper mapper;
    struct fixture f;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    begin_one(&f, notes_v1, true);
    mapper = mapper_of(&f.arena, thief);
    CHECK_STATUS(rf_sink_lane_begin(f.sink, &mapper, 1, false, &lane, &err), RF_INVALID);
    mapper = mapper_of(&f.arena, shadow);
    CHECK_STATUS(rf_sink_lane_begin(f.sink, &mapper, 1, false, &lane, &err), RF_INVALID);
    fixture_release(&f);
}

static void one_process_writes(void **state)
{
    struct rf_sink_options options = {.write = true};
    struct rf_sink *second = NULL;
    struct rf_error why = {0};
    char pid[32];
    struct fixture f;

    (void)state;
    fixture_init(&f);
    assert_int_equal(rf_sink_open(&second, f.url, &options, &why), RF_LOCKED);
    if (on_postgres())
        snprintf(pid, sizeof pid, "server process ");
    else
        snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_non_null(strstr(why.message, pid));
    options.write = false;
    CHECK(rf_sink_open(&second, f.url, &options, &err)); /* a reader may */
    CHECK_STATUS(rf_sink_set_fact(second, "a", "b", &err), RF_DENIED);
    rf_sink_close(second);
    fixture_release(&f);
    CHECK_STATUS(rf_sink_open(&second, "sqlite:/tmp/rf-none/x.db", &options, &err), RF_NOT_FOUND);
    CHECK_STATUS(rf_sink_open(&second, "oracle:x", &options, &err), RF_UNSUPPORTED);
}

/* A reader is told who writes, and is not in the way of who wants to. */
static void a_reader_sees_the_writer(void **state)
{
    struct rf_sink_options options = {0};
    struct rf_sink *reader = NULL;
    struct rf_error why = {0};
    char pid[32];
    struct fixture f;

    (void)state;
    fixture_init(&f);
    CHECK(rf_sink_open(&reader, f.url, &options, &err));
    assert_int_equal(rf_sink_writer(reader, &why), RF_LOCKED);
    if (on_postgres())
        snprintf(pid, sizeof pid, "server process ");
    else
        snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_non_null(strstr(why.message, pid));
    CHECK_STATUS(rf_sink_writer(f.sink, &err), RF_LOCKED); /* so is the writer */
    rf_sink_close(f.sink);
    while (rf_sink_writer(reader, NULL) == RF_LOCKED) /* until the server noticed */
        continue;
    CHECK(rf_sink_writer(reader, &err));
    f.sink = open_sink(f.url, false);
    CHECK_STATUS(rf_sink_writer(reader, &err), RF_LOCKED);
    rf_sink_close(reader);
    fixture_release(&f);
}

/* 16 MB of rows in one batch through a cache of 2 MiB, in a new index: what SQLite then holds. */
static void the_cache_is_as_large_as_told(void **state)
{
    struct rf_sink_options options = {.create = true, .write = true, .cache_bytes = 2 << 20,
                                      .writer_token = 7};
    static char text[8000];
    sqlite3_int64 before, held;
    struct fixture f;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    rf_sink_close(f.sink);
    CHECK(rf_sink_erase(f.url, &err));
    before = sqlite3_memory_used();
    CHECK(rf_sink_open(&f.sink, f.url, &options, &err));
    lane = begin_one(&f, links_v1, true);
    memset(text, 'x', sizeof text - 1);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    for (uint64_t seq = 1; seq <= 2000; seq++) {
        struct rf_value value = text_value(text);
        struct rf_sink_item item;
        struct rf_sink_call call = {.outcome = RF_SINK_ROWS, .attempts = 1};
        struct rf_buf buf;
        char name[24];
        snprintf(name, sizeof name, "blob %llu", (unsigned long long)seq);
        item = blob_item(&f.arena, name, seq);
        rf_buf_init(&buf, 1 << 16);
        rf_row_begin(&buf, 0, 1);
        rf_row_put(&buf, &value);
        call.output = rf_buf_bytes(&buf);
        item.calls = &call;
        item.call_count = 1;
        put(f.sink, &item);
        rf_buf_release(&buf);
    }
    CHECK(rf_sink_commit(f.sink, "2000", &err));
    held = sqlite3_memory_used() - before;
    if (held > 4 << 20)
        fail_msg("a cache of 2 MiB holds %lld bytes", (long long)held);
    fixture_release(&f);
}

static void a_full_disk_stores_nothing_of_the_batch(void **state)
{
    struct rlimit before, small;
    struct rf_error why = {0};
    enum rf_status status = RF_OK;
    struct fixture f;
    char *body = malloc(200001);
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1, true);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note(&f, "a", 1, "kept");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    assert_non_null(body);
    memset(body, 'x', 200000);
    body[200000] = '\0';
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 600000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    status = rf_sink_begin(f.sink, lane, "1", &why);
    for (uint64_t i = 2; status == RF_OK && i < 60; i++) {
        char blob[16];
        struct rf_buf buf;
        struct rf_sink_item item;
        struct rf_sink_call call = note_call(&buf, 0, body, 1);
        snprintf(blob, sizeof blob, "%u", (unsigned)i);
        item = blob_item(&f.arena, blob, i);
        item.calls = &call;
        item.call_count = 1;
        status = rf_sink_put(f.sink, &item, NULL, &why);
        rf_buf_release(&buf);
    }
    if (status == RF_OK)
        status = rf_sink_commit(f.sink, "60", &why);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    free(body);
    assert_int_equal(status, RF_IO);
    assert_string_not_equal(why.message, "");
    rf_sink_rollback(f.sink);
    assert_string_equal(ask(&f, "SELECT title FROM note"), "kept");
    CHECK(rf_sink_begin(f.sink, lane, "1", &err)); /* and goes on when there is room again */
    put_note(&f, "b", 2, "later");
    CHECK(rf_sink_commit(f.sink, "2", &err));
    assert_string_equal(ask(&f, "SELECT title FROM note ORDER BY title"), "kept\nlater");
    fixture_release(&f);
}

/* ---- random histories ---- */

#define BLOBS 12
#define PARTS 6
#define EVENTS_MAX 400

enum { NOTES, SPLIT, LINKS, MAPPERS };

struct event {
    bool put;
    unsigned blob;
};

struct model {
    struct fixture f;
    uint64_t random;
    struct event events[EVENTS_MAX];
    size_t count;          /* seq of an event is its index + 1 */
    uint64_t present[BLOBS]; /* seq of the put that made it present; 0: not there */
    unsigned live_version, lane_version;
    uint32_t live, lane;   /* lane 0: none is being built */
    size_t live_at, lane_at;
};

static unsigned draw(struct model *m, unsigned below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (unsigned)(m->random >> 33) % below;
}

static const char *content_of(unsigned item, char out[16])
{
    snprintf(out, 16, item < BLOBS ? "blob %u" : "part %u", item < BLOBS ? item : item - BLOBS);
    return out;
}

/* Items are numbered: blobs from 0, parts from BLOBS. What a mapper makes of one is a pure function
 * of its number, the mapper's version and which blobs are present. */
static bool has_edge(unsigned item, unsigned part)
{
    if (item < BLOBS)
        return (item * 7 + part * 5) % 4 == 0;
    return part > item - BLOBS && (item + part) % 3 == 0; /* nested, never upwards */
}

static unsigned note_rows(unsigned item)
{
    return item % 5 == 4 ? 0 : item % 3;
}

static bool note_is_dead(unsigned item)
{
    return item % 5 == 4;
}

/* The blobs that `links` needs of an item, in order; how many. */
static unsigned needs_of(unsigned item, unsigned out[2])
{
    if (item % 2)
        return 0;
    out[0] = (item * 3 + 1) % BLOBS;
    out[1] = (item + 5) % BLOBS;
    return item % 3 ? 2 : 1;
}

static struct rf_sink_item item_of(struct model *m, unsigned item)
{
    char text[16];

    if (item < BLOBS)
        return blob_item(&m->f.arena, content_of(item, text), m->present[item]);
    return part_item(&m->f.arena, content_of(item, text), "text/plain");
}

static struct rf_sink_call call_notes(struct rf_buf *buf, unsigned item, unsigned version)
{
    char title[64];

    rf_buf_init(buf, 1 << 16);
    if (note_is_dead(item))
        return (struct rf_sink_call){.mapper = NOTES,
                                     .outcome = RF_SINK_DEAD,
                                     .dead_class = RF_DEAD_MAPPER,
                                     .reason = "cannot be read",
                                     .attempts = 1};
    for (unsigned n = 0; n < note_rows(item); n++) {
        struct rf_value values[2];
        snprintf(title, sizeof title, "item%u row%u v%u 運用%u", item, n, version, item);
        values[0] = text_value(title);
        values[1] = int_value(item);
        rf_row_begin(buf, 0, 2);
        rf_row_put(buf, &values[0]);
        rf_row_put(buf, &values[1]);
    }
    return (struct rf_sink_call){
        .mapper = NOTES, .outcome = RF_SINK_ROWS, .output = rf_buf_bytes(buf), .attempts = 1};
}

static struct rf_sink_call call_split(struct model *m, unsigned item, struct rf_sink_part *edges)
{
    struct rf_sink_call call = {.mapper = SPLIT, .outcome = RF_SINK_ROWS, .parts = edges};

    for (unsigned part = 0; part < PARTS; part++) {
        if (has_edge(item, part)) {
            struct rf_sink_item child = item_of(m, BLOBS + part);
            edges[call.part_count++] = edge_to(&child, "p");
        }
    }
    return call;
}

/* Missing needs park; a mapper stops at the first. */
static struct rf_sink_call call_links(struct model *m, unsigned item, struct rf_sink_need *needs,
                                      struct rf_buf *buf)
{
    struct rf_sink_call call = {.mapper = LINKS, .outcome = RF_SINK_ROWS, .needs = needs,
                                .reason = "waits"};
    unsigned targets[2], count = needs_of(item, targets);
    char text[16];

    rf_buf_init(buf, 1 << 16);
    for (unsigned i = 0; i < count; i++) {
        struct rf_value value;
        needs[i].ref = ref_of(content_of(targets[i], text));
        needs[i].present = m->present[targets[i]] != 0;
        call.need_count++;
        if (!needs[i].present) {
            call.outcome = RF_SINK_PARKED_NEED;
            return call;
        }
        value = text_value(text);
        rf_row_begin(buf, 0, 1);
        rf_row_put(buf, &value);
    }
    call.output = rf_buf_bytes(buf);
    return call;
}

static void map_item(struct model *m, uint32_t lane, unsigned item, unsigned version, int only);

static void map_new_parts(struct model *m, uint32_t lane, unsigned item, unsigned version,
                          const bool *known)
{
    for (unsigned part = 0; part < PARTS; part++)
        if (has_edge(item, part) && !known[part])
            map_item(m, lane, BLOBS + part, version, -1);
}

/* Map an item as an indexer would: all mappers, or only one whose park was resolved. */
static void map_item(struct model *m, uint32_t lane, unsigned number, unsigned version, int only)
{
    struct rf_sink_item item = item_of(m, number);
    struct rf_buf notes, links;
    struct rf_sink_part edges[PARTS];
    struct rf_sink_need needs[2];
    struct rf_sink_call calls[MAPPERS] = {call_notes(&notes, number, version),
                                          call_split(m, number, edges),
                                          call_links(m, number, needs, &links)};
    bool known[PARTS] = {false};
    size_t later = 0;

    for (unsigned part = 0; part < PARTS; part++) {
        struct rf_sink_item child = item_of(m, BLOBS + part);
        CHECK(rf_sink_has_part(m->f.sink, lane, child.key, &known[part], &err));
    }
    item.calls = only < 0 ? calls : &calls[only];
    item.call_count = only < 0 ? MAPPERS : 1;
    item.only_calls = only >= 0;
    if (only < 0) { /* some edges come behind the call, as those of a large file do */
        later = calls[SPLIT].part_count ? draw(m, (unsigned)calls[SPLIT].part_count + 1) : 0;
        calls[SPLIT].part_count -= later;
    }
    put(m->f.sink, &item);
    CHECK(rf_sink_put_parts(m->f.sink, SPLIT, edges + calls[SPLIT].part_count, later, &err));
    rf_buf_release(&notes);
    rf_buf_release(&links);
    map_new_parts(m, lane, number, version, known);
}

static void apply(struct model *m, uint32_t lane, size_t index, unsigned version)
{
    const struct event *event = &m->events[index];
    uint64_t seq = index + 1;
    char text[16];
    struct rf_blobref ref = ref_of(content_of(event->blob, text));

    if (!event->put) {
        CHECK(rf_sink_remove(m->f.sink, &ref, seq, (int64_t)seq * 1000000, &err));
        return;
    }
    /* A put whose bytes are gone or were put anew comes without payload: it is counted done. */
    if (m->present[event->blob] == seq)
        map_item(m, lane, event->blob, version, -1);
    CHECK(rf_sink_arrived(m->f.sink, &ref, &err));
}

static unsigned number_of(struct model *m, const char *key)
{
    for (unsigned i = 0; i < BLOBS + PARTS; i++) {
        struct rf_sink_item item = item_of(m, i);
        if (strcmp(item.key, key) == 0)
            return i;
    }
    fail_msg("unknown item %s", key);
    return 0;
}

static void position_text(char out[32], size_t at)
{
    out[0] = '\0';
    if (at)
        snprintf(out, 32, "%zu", at);
}

static void run_ready(struct model *m, uint32_t lane, size_t at, unsigned version)
{
    struct rf_sink_park parks[MAPPERS * 64];
    char position[32];
    size_t count = 0;

    for (unsigned mapper = 0; mapper < MAPPERS; mapper++) {
        int64_t after = 0;
        size_t more;

        CHECK(rf_sink_parks(m->f.sink, lane, (uint16_t)mapper, RF_PARK_READY, &after,
                            parks + count, 64, &more, &err));
        count += more;
    }
    if (!count)
        return;
    position_text(position, at);
    CHECK(rf_sink_begin(m->f.sink, lane, position, &err));
    for (size_t i = 0; i < count; i++) {
        unsigned number = number_of(m, parks[i].key);
        /* The queue may say later that this item is gone; until then it cannot be read. */
        if (number < BLOBS && m->present[number] != parks[i].seq)
            continue;
        map_item(m, lane, number, version, parks[i].mapper);
    }
    CHECK(rf_sink_commit(m->f.sink, position, &err));
}

/* Tell of items that may come or not, as an indexer that looks ahead. */
static void expect_some(struct model *m)
{
    const char *keys[BLOBS + PARTS];
    size_t count = 0;

    for (unsigned item = 0; item < BLOBS + PARTS; item++)
        if (draw(m, 2))
            keys[count++] = item_of(m, item).key;
    CHECK(rf_sink_expect(m->f.sink, keys, count, &err));
}

/* One batch of a lane; crash: it is never committed, the sink opened again. */
static void drive(struct model *m, bool live, bool crash)
{
    size_t *at = live ? &m->live_at : &m->lane_at, end;
    uint32_t lane = live ? m->live : m->lane;
    unsigned version = live ? m->live_version : m->lane_version;
    char from[32], to[32];

    end = *at + 1 + draw(m, 12);
    if (end > m->count)
        end = m->count;
    position_text(from, *at);
    position_text(to, end);
    CHECK(rf_sink_begin(m->f.sink, lane, from, &err));
    for (size_t i = *at; i < end; i++) {
        if (draw(m, 4) == 0)
            expect_some(m);
        apply(m, lane, i, version);
    }
    if (crash) {
        reopen(&m->f);
        return;
    }
    CHECK(rf_sink_commit(m->f.sink, to, &err));
    *at = end;
    run_ready(m, lane, end, version);
}

static void note_version(char *out, size_t size, unsigned version)
{
    snprintf(out, size,
             "{\"name\":\"notes\",\"version\":\"%u\",\"on\":[\"blob\"],\"tables\":[{\"name\":"
             "\"note\",\"columns\":[{\"name\":\"title\",\"type\":\"text\",\"search\":true},"
             "{\"name\":\"words\",\"type\":\"int\",\"facet\":true}]}]}",
             version);
}

static uint32_t begin_version(struct model *m, unsigned version)
{
    char json[512];

    note_version(json, sizeof json, version);
    return begin_lane(&m->f, (const char *const[]){json, split_v1, links_v1}, MAPPERS, true);
}

static void change_store(struct model *m)
{
    struct event *event = &m->events[m->count];

    if (m->count == EVENTS_MAX)
        return;
    event->blob = draw(m, BLOBS);
    event->put = m->present[event->blob] == 0;
    m->count++;
    m->present[event->blob] = event->put ? m->count : 0;
}

static void change_lanes(struct model *m)
{
    if (!m->lane) {
        m->lane_version = m->live_version + 1;
        m->lane = begin_version(m, m->lane_version);
        m->lane_at = 0;
    } else if (draw(m, 3) == 0) {
        CHECK(rf_sink_lane_drop(m->f.sink, m->lane, &err));
        m->lane = 0;
    } else {
        while (m->live_at < m->count)
            drive(m, true, false);
        while (m->lane_at < m->count)
            drive(m, false, false);
        if (draw(m, 2))
            CHECK(rf_sink_lane_ready(m->f.sink, m->lane, &err));
        CHECK(rf_sink_lane_swap(m->f.sink, m->lane, NULL, 0, &err));
        m->live_version = m->lane_version;
        m->lane = 0;
    }
}

static bool is_reached(const struct model *m, unsigned part)
{
    for (unsigned item = 0; item < BLOBS; item++)
        if (m->present[item] && has_edge(item, part))
            return true;
    for (unsigned above = 0; above < part; above++)
        if (has_edge(BLOBS + above, part) && is_reached(m, above))
            return true;
    return false;
}

static bool exists(const struct model *m, unsigned item)
{
    return item < BLOBS ? m->present[item] != 0 : is_reached(m, item - BLOBS);
}

/* What the model says, in the form of the queries below. */
static void expect_all(struct model *m, struct rf_buf *rows, struct rf_buf *others)
{
    for (unsigned item = 0; item < BLOBS + PARTS; item++) {
        struct rf_sink_item what = item_of(m, item);
        unsigned targets[2], count = needs_of(item, targets), missing = 0;
        char text[16];
        if (!exists(m, item))
            continue;
        for (unsigned n = 0; n < note_rows(item); n++)
            rf_buf_printf(rows, "%s|%u|item%u row%u v%u 運用%u\n", what.key, n, item, n,
                          m->live_version, item);
        if (note_is_dead(item))
            rf_buf_printf(others, "dead|%s|notes\n", what.key);
        for (unsigned part = 0; part < PARTS; part++) {
            struct rf_sink_item child = item_of(m, BLOBS + part);
            if (has_edge(item, part))
                rf_buf_printf(others, "part|%s|%s\n", what.key, child.key);
        }
        for (unsigned i = 0; i < count; i++)
            missing += !m->present[targets[i]];
        if (missing)
            rf_buf_printf(others, "park|%s|need\n", what.key);
        for (unsigned i = 0; i < count && !missing; i++)
            rf_buf_printf(others, "link|%s|%s\n", what.key, content_of(targets[i], text));
    }
}

static int by_line(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The lines of a text in order, so that two lists can be compared as sets with repeats. */
static const char *sorted(struct rf_arena *arena, const char *text)
{
    char *copy = rf_arena_copy(arena, text, strlen(text)), *lines[2000], *save = NULL;
    struct rf_buf buf;
    const char *out;
    size_t count = 0;

    for (char *line = strtok_r(copy, "\n", &save); line && count < 2000;
         line = strtok_r(NULL, "\n", &save))
        lines[count++] = line;
    if (count)
        qsort(lines, count, sizeof *lines, by_line);
    rf_buf_init(&buf, 1 << 20);
    for (size_t i = 0; i < count; i++)
        rf_buf_printf(&buf, "%s\n", lines[i]);
    out = rf_arena_copy(arena, rf_buf_text(&buf), buf.size);
    rf_buf_release(&buf);
    return out;
}

static void check_against_model(struct model *m)
{
    struct rf_buf rows, others;

    rf_buf_init(&rows, 1 << 20);
    rf_buf_init(&others, 1 << 20);
    expect_all(m, &rows, &others);
    assert_string_equal(
        sorted(&m->f.arena, ask(&m->f, "SELECT b.item, n, title FROM note JOIN blobs b ON b.id = "
                                       "blob")),
        sorted(&m->f.arena, rf_buf_text(&rows)));
    assert_string_equal(
        sorted(&m->f.arena,
               ask(&m->f,
                   "SELECT 'dead', item, mapper FROM refuge_errors UNION ALL "
                   "SELECT 'part', parent, part FROM refuge_edges UNION ALL "
                   "SELECT 'link', b.item, target FROM link JOIN blobs b ON b.id = blob UNION ALL "
                   "SELECT 'park', b.item, p.kind FROM refuge_parks p JOIN blobs b ON b.id = blob "
                   "WHERE mapper IN (SELECT m.id FROM refuge_lane_mappers m JOIN refuge_lanes l "
                   "ON l.id = lane WHERE l.state = 'live')")),
        sorted(&m->f.arena, rf_buf_text(&others)));
    rf_buf_release(&rows);
    rf_buf_release(&others);
}

static void tell_problem(void *user, const char *line)
{
    (void)user;
    print_message("  %s\n", line);
}

/* The whole history once more into a fresh index: nothing may differ. */
static void check_against_rebuild(struct model *m)
{
    struct model again = *m;
    struct rf_compare_report report;
    struct rf_digest digest[2];

    fixture_init(&again.f);
    again.lane = 0;
    again.live_at = 0;
    again.live = begin_version(&again, again.live_version);
    while (again.live_at < again.count)
        drive(&again, true, false);
    if (on_postgres()) {
        check_against_model(&again);
    } else {
        CHECK(rf_query_compare(m->f.url, again.f.url, &(struct rf_compare_options){
                                   .problem = tell_problem}, &report, &err));
        CHECK(rf_query_digest(m->f.url, NULL, &digest[0], &err));
        CHECK(rf_query_digest(again.f.url, NULL, &digest[1], &err));
        assert_string_equal(digest[0].hex, digest[1].hex);
        assert_int_equal(digest[0].rows, digest[1].rows);
    }
    fixture_release(&again.f);
}

static void run_history(uint64_t seed)
{
    struct model m = {.random = seed * 0x9e3779b97f4a7c15u + 1, .live_version = 1};
    uint64_t retried;

    fixture_init(&m.f);
    m.live = begin_version(&m, 1);
    for (unsigned step = 0; step < 60; step++) {
        unsigned what = draw(&m, 20);
        if (what < 10)
            for (unsigned i = 0; i < 4; i++)
                change_store(&m);
        else if (what < 15)
            drive(&m, true, draw(&m, 4) == 0);
        else if (what < 18 && m.lane)
            drive(&m, false, draw(&m, 4) == 0);
        else if (what == 18)
            change_lanes(&m);
        else if (what == 19)
            CHECK(rf_sink_retry(m.f.sink, NULL, NULL, &retried, &err));
    }
    while (m.live_at < m.count)
        drive(&m, true, false);
    CHECK(rf_sink_lane_ready(m.f.sink, m.live, &err));
    run_ready(&m, m.live, m.live_at, m.live_version);
    check_against_model(&m);
    check_against_rebuild(&m);
    fixture_release(&m.f);
}

static void random_histories_end_as_the_model_says(void **state)
{
    const char *seed_text = getenv("REFUGE_TEST_SEED"), *runs_text = getenv("REFUGE_TEST_RUNS");
    uint64_t seed = seed_text ? strtoull(seed_text, NULL, 10) : 1;
    uint64_t runs = runs_text ? strtoull(runs_text, NULL, 10) : on_elastic() ? 2 : 12;

    (void)state;
    for (uint64_t i = 0; i < runs; i++) {
        print_message("REFUGE_TEST_SEED=%llu REFUGE_TEST_RUNS=1\n",
                      (unsigned long long)(seed + i));
        run_history(seed + i);
    }
}

#define EVERY_SINK                                                                              \
    cmocka_unit_test(first_lane_is_live_and_comes_back),                                        \
        cmocka_unit_test(every_type_is_stored_as_promised),                                     \
        cmocka_unit_test(position_moves_by_compare_and_swap),                                   \
        cmocka_unit_test(a_batch_is_all_or_nothing),                                            \
        cmocka_unit_test(a_lower_sequence_never_overwrites),                                    \
        cmocka_unit_test(parts_live_while_something_reaches_them),                              \
        cmocka_unit_test(parts_that_lose_a_holder_are_mapped_again),                            \
        cmocka_unit_test(what_a_broken_batch_took_comes_back),                                  \
        cmocka_unit_test(a_holder_lost_in_a_broken_batch_is_lost_again),                        \
        cmocka_unit_test(a_broken_batch_of_a_lane_costs_that_lane),                             \
        cmocka_unit_test(a_ring_of_parts_does_not_loop),                                        \
        cmocka_unit_test(needs_park_wake_and_unmap),                                            \
        cmocka_unit_test(of_needs_only_the_first_is_missed),                                    \
        cmocka_unit_test(dead_letters_are_told_and_tried_again),                                \
        cmocka_unit_test(a_new_version_is_built_beside_and_swapped_in),                         \
        cmocka_unit_test(a_full_lane_replaces_all),                                             \
        cmocka_unit_test(a_full_lane_forgets_what_was_lost),                                    \
        cmocka_unit_test(a_splitter_may_run_along_for_its_edges),                               \
        cmocka_unit_test(parts_that_a_lane_missed_are_parked),                                  \
        cmocka_unit_test(names_must_not_clash), cmocka_unit_test(one_process_writes),           \
        cmocka_unit_test(a_reader_sees_the_writer),                                             \
        cmocka_unit_test(random_histories_end_as_the_model_says)

int main(void)
{
    const struct CMUnitTest sqlite[] = {
        EVERY_SINK,
        cmocka_unit_test(the_cache_is_as_large_as_told),
        cmocka_unit_test(a_full_disk_stores_nothing_of_the_batch),
    };
    const struct CMUnitTest server[] = {EVERY_SINK};

    return run_over_kinds("sink", KIND_TESTS(sqlite), KIND_TESTS(server), KIND_TESTS(server));
}
