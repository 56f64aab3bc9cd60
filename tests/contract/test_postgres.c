/*
 * test_postgres.c - what is PostgreSQL's own about that sink: servers that end, people who build on
 * its tables or change them, several writers
 *
 * Most of it runs at REFUGE_TEST_POSTGRESQL; where a server is to be killed, the test starts one of
 * its own (tests/services/postgres).
 */
#include "tests/sink_fixture.h"

#include <sys/stat.h>

#include "sinks/pg.h"

static const char notes_v1[] =
    "{\"name\":\"notes\",\"version\":\"1\",\"on\":[\"blob\"],\"tables\":[{\"name\":\"note\","
    "\"columns\":[{\"name\":\"title\",\"type\":\"text\",\"search\":true},{\"name\":\"words\","
    "\"type\":\"int\"},{\"name\":\"key\",\"type\":\"text\",\"facet\":true}],\"latest\":{\"key\":"
    "[\"key\"],\"by\":\"words\"}}]}";
static const char notes_v2[] =
    "{\"name\":\"notes\",\"version\":\"2\",\"on\":[\"blob\"],\"tables\":[{\"name\":\"note\","
    "\"columns\":[{\"name\":\"title\",\"type\":\"text\",\"search\":true},{\"name\":\"words\","
    "\"type\":\"int\"},{\"name\":\"key\",\"type\":\"text\"}],\"latest\":{\"key\":"
    "[\"key\"],\"by\":\"words\"}}]}";
static const char notes_v3[] =
    "{\"name\":\"notes\",\"version\":\"3\",\"on\":[\"blob\"],\"tables\":[{\"name\":\"note\","
    "\"columns\":[{\"name\":\"words\",\"type\":\"int\"}]}]}";

/* One note; key may be as long as no index takes it. */
static void put_note_of(struct rf_sink *sink, struct rf_arena *arena, const char *blob,
                        uint64_t seq, const char *title, const char *key)
{
    struct rf_value values[3] = {text_value(title), int_value((int64_t)seq), text_value(key)};
    struct rf_sink_item item = blob_item(arena, blob, seq);
    struct rf_sink_call call = {.outcome = RF_SINK_ROWS, .attempts = 1};
    struct rf_buf buf;

    rf_buf_init(&buf, 8 << 20);
    rf_row_begin(&buf, 0, 3);
    for (size_t i = 0; i < 3; i++)
        rf_row_put(&buf, &values[i]);
    call.output = rf_buf_bytes(&buf);
    item.calls = &call;
    item.call_count = 1;
    put(sink, &item);
    rf_buf_release(&buf);
}

static uint32_t begin_one(struct fixture *f, const char *declaration)
{
    struct rf_sink_mapper mapper = mapper_of(&f->arena, declaration);
    uint32_t lane = 0;

    CHECK(rf_sink_lane_begin(f->sink, &mapper, 1, false, &lane, &err));
    return lane;
}

/* SQL as somebody else. */
static void other_does(struct fixture *f, const char *sql)
{
    struct rf_pg *pg = NULL;

    CHECK(rf_pg_open(&pg, f->url, &err));
    CHECK(rf_pg_exec(pg, &err, "%s", sql));
    rf_pg_close(pg);
}

/* A live lane of v1 with one note, and beside it a lane of this version with the same. */
static uint32_t build_beside(struct fixture *f, const char *declaration)
{
    uint32_t live = begin_one(f, notes_v1), lane;

    CHECK(rf_sink_begin(f->sink, live, "", &err));
    put_note_of(f->sink, &f->arena, "a", 1, "old", "k");
    CHECK(rf_sink_commit(f->sink, "1", &err));
    CHECK(rf_sink_lane_ready(f->sink, live, &err));
    lane = begin_one(f, declaration);
    CHECK(rf_sink_begin(f->sink, lane, "", &err));
    CHECK(rf_sink_commit(f->sink, "1", &err));
    return lane;
}

static void views_live_through_a_swap(void **state)
{
    struct fixture f;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = build_beside(&f, notes_v2);
    other_does(&f, "CREATE VIEW mine AS SELECT upper(title) AS loud FROM note; "
                   "CREATE VIEW second AS SELECT loud || '!' AS louder FROM mine; "
                   "CREATE VIEW latest AS SELECT key FROM note_latest; "
                   "COMMENT ON VIEW mine IS 'it''s mine'; GRANT SELECT ON mine TO PUBLIC; "
                   "GRANT SELECT ON note TO PUBLIC");
    CHECK(rf_sink_begin(f.sink, lane, "1", &err));
    CHECK(rf_sink_commit(f.sink, "1", &err));
    CHECK(rf_sink_lane_swap(f.sink, lane, NULL, 0, &err));
    CHECK(rf_sink_begin(f.sink, 1, "1", &err));
    put_note_of(f.sink, &f.arena, "b", 2, "new", "k");
    CHECK(rf_sink_commit(f.sink, "2", &err));
    assert_string_equal(ask(&f, "SELECT louder FROM second"), "NEW!");
    assert_string_equal(ask(&f, "SELECT key FROM latest"), "k");
    assert_string_equal(ask(&f, "SELECT obj_description('mine'::regclass), relacl IS NOT NULL FROM "
                                "pg_class WHERE oid = 'mine'::regclass"),
                        "it's mine|1");
    assert_string_equal(ask(&f, "SELECT relacl::text LIKE '%=r/%' FROM pg_class WHERE oid = "
                                "'note'::regclass"),
                        "1");
    other_does(&f, "DROP VIEW second, mine, latest");
    fixture_release(&f);
}

static void what_cannot_be_made_again_stops_a_swap(void **state)
{
    static const struct {
        const char *make, *undo, *words;
    } cases[] = {
        {"CREATE VIEW mine AS SELECT title FROM note", "DROP VIEW mine", "title"},
        {"CREATE MATERIALIZED VIEW still AS SELECT words FROM note",
         "DROP MATERIALIZED VIEW still", "still"},
        {"CREATE FUNCTION f() RETURNS trigger AS 'BEGIN RETURN new; END' LANGUAGE plpgsql; "
         "CREATE TRIGGER watcher BEFORE INSERT ON note FOR EACH ROW EXECUTE FUNCTION f()",
         "DROP TRIGGER watcher ON note; DROP FUNCTION f", "watcher"},
    };
    struct fixture f;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = build_beside(&f, notes_v3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rf_error why = {0};
        other_does(&f, cases[i].make);
        if (rf_sink_lane_swap(f.sink, lane, NULL, 0, &why) != RF_INVALID ||
            !strstr(why.message, cases[i].words))
            fail_msg("%s: %s", cases[i].make, why.message);
        assert_string_equal(ask(&f, "SELECT title FROM note"), "old");
        other_does(&f, cases[i].undo);
    }
    CHECK(rf_sink_lane_swap(f.sink, lane, NULL, 0, &err));
    fixture_release(&f);
}

/* Text that does not compress. */
static void fill_key(char *key, size_t size)
{
    uint64_t random = 88172645463325252u;

    for (size_t i = 0; i < size - 1; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        key[i] = (char)('!' + random % 90);
    }
    key[size - 1] = '\0';
}

/* A row of a B-tree is bounded to 2,704 bytes: texts are indexed another way, before and behind the
 * making of indexes. */
static void a_text_is_never_too_long_for_an_index(void **state)
{
    char key[60001], blob[16];
    struct fixture f;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1);
    fill_key(key, sizeof key);
    for (unsigned i = 1; i <= 2; i++) {
        snprintf(blob, sizeof blob, "%u", i);
        CHECK(rf_sink_begin(f.sink, lane, i == 1 ? "" : "1", &err));
        put_note_of(f.sink, &f.arena, blob, i, "t", key);
        CHECK(rf_sink_commit(f.sink, blob, &err));
        CHECK(rf_sink_lane_ready(f.sink, lane, &err));
    }
    assert_string_equal(ask(&f, "SELECT count(*), min(length(key)) FROM note"), "2|60000");
    assert_string_equal(ask(&f, "SELECT count(*) FROM refuge_errors"), "0");
    fixture_release(&f);
}

/* Of many items only the one at fault is set aside. */
static void a_row_that_the_server_refuses_costs_itself(void **state)
{
    char key[6001], blob[16];
    struct fixture f;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1);
    CHECK(rf_sink_lane_ready(f.sink, lane, &err));
    other_does(&f, "ALTER TABLE note ADD CONSTRAINT brief CHECK (length(key) < 5000)");
    fill_key(key, sizeof key);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    for (unsigned i = 1; i <= 100; i++) {
        snprintf(blob, sizeof blob, "%u", i);
        put_note_of(f.sink, &f.arena, blob, i, "t", i % 37 == 0 ? key : "short");
    }
    CHECK(rf_sink_commit(f.sink, "100", &err));
    assert_string_equal(ask(&f, "SELECT count(*) FROM note"), "98");
    assert_string_equal(ask(&f, "SELECT count(*), min(class), max(seq), bool_and(reason LIKE "
                                "'row 0 was refused by table ''note'': new row%') FROM "
                                "refuge_errors e JOIN blobs b USING(item)"),
                        "2|sink|74|1");
    fixture_release(&f);
}

/* Every text that a mapper may emit fits into a tsvector; what does not is not searched. */
static void no_text_is_too_long_to_be_searched(void **state)
{
    static const char *const patterns[] = {"%x ", "w%x-", "%u.%u/", "\xe9\x81\x8b", "same ", "x",
                                           "\xf0\x90\x90\x80%x \xc3\xa9"};
    enum { COUNT = sizeof patterns / sizeof *patterns };
    char *text = malloc(RF_TEXT_MAX + 64), blob[16];
    struct fixture f;
    uint32_t lane;

    (void)state;
    assert_non_null(text);
    fixture_init(&f);
    lane = begin_one(&f, notes_v1);
    CHECK(rf_sink_lane_ready(f.sink, lane, &err));
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    for (unsigned i = 0; i < COUNT; i++) {
        size_t size = (size_t)snprintf(text, 64, "anchor of %u ", i);
        for (unsigned k = 0; size < RF_TEXT_MAX - 64; k++) {
            const char *pattern = patterns[i], *mark = strchr(pattern, '%');
            size_t plain = mark ? (size_t)(mark - pattern) : strlen(pattern);
            memcpy(text + size, pattern, plain);
            size += plain;
            if (mark) /* a word that was not there before */
                size += (size_t)snprintf(text + size, 32, "%x%s", k * 2654435761u, mark + 2);
        }
        snprintf(blob, sizeof blob, "%u", i);
        put_note_of(f.sink, &f.arena, blob, i + 1, text, "k");
    }
    CHECK(rf_sink_commit(f.sink, "1", &err));
    assert_string_equal(ask(&f, "SELECT count(*) FROM refuge_errors"), "0");
    assert_string_equal(ask(&f, "SELECT count(*) FROM note WHERE search @@ 'anchor'"), "7");
    assert_int_equal(COUNT, 7);
    free(text);
    fixture_release(&f);
}

/* What is written again as it is there is left alone; what differs in any way is written. */
static void a_replay_writes_what_differs(void **state)
{
    static const char *const damages[] = {
        "UPDATE note SET title = 'other' WHERE title = 'b'",
        "UPDATE note SET search = NULL WHERE title = 'b'",
        "DELETE FROM note WHERE title = 'b'",
        "INSERT INTO note(blob, n, title, words, key) SELECT blob, n + 1, title, words, key FROM "
        "note WHERE title = 'b'",
        "INSERT INTO refuge_cuts(mapper, blob, n, \"table\", \"column\", kind) SELECT 1, blob, 0, "
        "'note', 'title', 'nul' FROM note WHERE title = 'b'"};
    static const char *const names[] = {"a", "b", "c"};
    static const char all[] = "SELECT title, words, key, n, search FROM note ORDER BY title, n";
    const char *rows, *places;
    struct fixture f;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    for (uint64_t i = 0; i < 3; i++)
        put_note_of(f.sink, &f.arena, names[i], i + 1, names[i], i ? NULL : "k");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    rows = ask(&f, all);
    for (size_t d = 0; d <= sizeof damages / sizeof *damages; d++) {
        places = ask(&f, "SELECT id FROM note WHERE title <> 'b' ORDER BY title");
        if (d)
            other_does(&f, damages[d - 1]);
        CHECK(rf_sink_begin(f.sink, lane, "1", &err));
        for (uint64_t i = 0; i < 3; i++)
            put_note_of(f.sink, &f.arena, names[i], i + 1, names[i], i ? NULL : "k");
        CHECK(rf_sink_commit(f.sink, "1", &err));
        assert_string_equal(ask(&f, all), rows);
        assert_string_equal(ask(&f, "SELECT count(*) FROM refuge_cuts"), "0");
        if (d != 1) /* row "other" was b */
            assert_string_equal(ask(&f, "SELECT id FROM note WHERE title <> 'b' ORDER BY title"),
                                places);
    }
    fixture_release(&f);
}

static enum rf_status count_hit(void *user, const struct rf_hit *hit)
{
    (void)hit;
    ++*(unsigned *)user;
    return RF_OK;
}

static unsigned hits(struct fixture *f, const char *words)
{
    unsigned count = 0;
    uint64_t total = 0;

    CHECK(rf_query_search(f->url, words, NULL, count_hit, &count, &total, &err));
    assert_int_equal(count, total);
    return count;
}

/* With a language, other forms of a word are hits, too; whatever is one without stays one. */
static void a_language_stems(void **state)
{
    static const char english[] =
        "{\"name\":\"notes\",\"version\":\"1\",\"language\":\"english\",\"on\":[\"blob\"],"
        "\"tables\":[{\"name\":\"note\",\"columns\":[{\"name\":\"title\",\"type\":\"text\","
        "\"search\":true},{\"name\":\"words\",\"type\":\"int\"},{\"name\":\"key\","
        "\"type\":\"text\",\"search\":true}]}]}";
    static const char klingon[] =
        "{\"name\":\"notes\",\"version\":\"2\",\"language\":\"klingon\",\"on\":[\"blob\"],"
        "\"tables\":[{\"name\":\"note\",\"columns\":[{\"name\":\"title\",\"type\":\"text\","
        "\"search\":true}]}]}";
    char *longest = malloc(RF_TEXT_MAX);
    struct rf_error why = {0};
    struct rf_sink_mapper other;
    struct fixture f;
    uint32_t lane;
    size_t size = 0;

    (void)state;
    assert_non_null(longest);
    for (unsigned i = 0; size < RF_TEXT_MAX - 16; i++) /* many words of few wide letters */
        size += (size_t)snprintf(longest + size, 16, "\xf0\x90\x90%c%x ",
                                 (char)(0x80 + i % 0x28), i * 2654435761u >> 16);
    fixture_init(&f);
    lane = begin_one(&f, english);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note_of(f.sink, &f.arena, "a", 1, "He walked to the harbours", "k");
    put_note_of(f.sink, &f.arena, "b", 2, "a walk", "running");
    put_note_of(f.sink, &f.arena, "c", 3, "the", "zzz");
    put_note_of(f.sink, &f.arena, "d", 4, longest, "long");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    CHECK(rf_sink_lane_ready(f.sink, lane, &err));
    assert_string_equal(ask(&f, "SELECT count(*) FROM refuge_dead_letters"), "0");
    assert_int_equal(hits(&f, "harbour"), 1);
    assert_int_equal(hits(&f, "walking"), 2);
    assert_int_equal(hits(&f, "walked harbours"), 1);
    assert_int_equal(hits(&f, "runs"), 1);
    assert_int_equal(hits(&f, "\"a walk\""), 1);
    assert_int_equal(hits(&f, "walks -harbour"), 1);
    assert_int_equal(hits(&f, "the"), 2); /* left out by the language, found as it is */
    assert_int_equal(hits(&f, "zz*"), 1);
    assert_int_equal(hits(&f, "meadow"), 0);
    other = mapper_of(&f.arena, klingon);
    assert_int_equal(rf_sink_lane_begin(f.sink, &other, 1, false, &lane, &why), RF_INVALID);
    assert_non_null(strstr(why.message, "klingon"));
    assert_non_null(strstr(why.message, "english"));
    fixture_release(&f);
    free(longest);
}

static void what_others_changed_is_named(void **state)
{
    struct rf_sink_options options = {.write = true, .writer_token = 7};
    struct rf_error why = {0};
    struct rf_sink *sink = NULL;
    struct fixture f;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note_of(f.sink, &f.arena, "a", 1, "t", "k");
    rf_sink_rollback(f.sink);
    other_does(&f, "ALTER TABLE note DROP COLUMN title CASCADE");
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note_of(f.sink, &f.arena, "a", 1, "t", "k");
    assert_int_equal(rf_sink_commit(f.sink, "1", &why), RF_CORRUPT);
    assert_non_null(strstr(why.message, "note"));
    assert_non_null(strstr(why.message, "refuge index rebuild"));
    rf_sink_close(f.sink);
    rf_error_clear(&why);
    assert_int_equal(rf_sink_open(&sink, f.url, &options, &why), RF_CORRUPT);
    assert_non_null(strstr(why.message, "'note'"));
    f.sink = NULL;
    fixture_release(&f);
}

/* The writer's session ends behind its back: the batch is written again on a new one. */
static void a_lost_session_is_made_again(void **state)
{
    struct rf_error why = {0};
    struct fixture f;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note_of(f.sink, &f.arena, "a", 1, "first", "k");
    other_does(&f, "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = "
                   "'advisory' AND pid <> pg_backend_pid() AND objsubid = 1 AND "
                   "((classid::bigint << 32) | objid::bigint) = ('x' || left(md5('refuge ' || "
                   "current_schema()), 16))::bit(64)::bigint");
    assert_int_equal(rf_sink_commit(f.sink, "1", &why), RF_UNAVAILABLE);
    rf_sink_rollback(f.sink);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note_of(f.sink, &f.arena, "a", 1, "again", "k");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    assert_string_equal(ask(&f, "SELECT title FROM note"), "again");
    fixture_release(&f);
}

/* ---- a wire that is cut (tests/services/wire.py) ---- */

struct wire {
    FILE *process;
    char folder[32], socket[64];
};

/* Whether the server is one that has a socket; then url leads through the wire to the same. */
static bool lay_wire(struct wire *wire, struct fixture *f, char url[256])
{
    const char *server = getenv("REFUGE_TEST_POSTGRESQL"), *at = strstr(server, "%2F");
    char target[200] = "", port[8] = "5432", line[500];
    size_t size = 0;

    if (!at)
        return false;
    while (*at && *at != ':' && *at != '/' && size < sizeof target - 1) {
        bool slash = strncmp(at, "%2F", 3) == 0;
        target[size++] = slash ? '/' : *at;
        at += slash ? 3 : 1;
    }
    if (*at == ':')
        snprintf(port, sizeof port, "%.*s", (int)strspn(at + 1, "0123456789"), at + 1);
    snprintf(wire->folder, sizeof wire->folder, "/tmp/rf-wire-XXXXXX");
    assert_non_null(mkdtemp(wire->folder));
    snprintf(wire->socket, sizeof wire->socket, "%s/.s.PGSQL.5432", wire->folder);
    snprintf(line, sizeof line,
             "exec python3 " RF_SOURCE_DIR "/tests/services/wire.py %s %s/.s.PGSQL.%s >/dev/null",
             wire->folder, target, port);
    wire->process = popen(line, "w");
    assert_non_null(wire->process);
    for (int i = 0; access(wire->socket, F_OK) != 0 && i < 1000; i++)
        usleep(10000);
    snprintf(url, 256, "postgresql://postgres@%%2Ftmp%%2F%s/postgres%s", wire->folder + 5,
             strchr(f->url, '#'));
    return true;
}

static void take_up(struct wire *wire)
{
    char path[64];

    pclose(wire->process);
    snprintf(path, sizeof path, "%s/cut", wire->folder);
    unlink(path);
    unlink(wire->socket);
    assert_int_equal(rmdir(wire->folder), 0);
}

static void cut_at(const struct wire *wire, const char *order)
{
    char path[64], made[64];
    FILE *file;

    snprintf(path, sizeof path, "%s/cut", wire->folder);
    snprintf(made, sizeof made, "%s/cut.new", wire->folder);
    file = fopen(made, "w");
    assert_non_null(file);
    assert_true(fputs(order, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(made, path), 0);
}

static enum rf_status begin_in_time(struct rf_sink *sink, uint32_t lane, const char *from,
                                    struct rf_error *why)
{
    enum rf_status status = RF_UNAVAILABLE;

    for (int i = 0; status == RF_UNAVAILABLE && i < 400; i++) {
        rf_error_clear(why);
        status = rf_sink_begin(sink, lane, from, why);
        if (status == RF_UNAVAILABLE)
            usleep(50000);
    }
    return status;
}

/* COMMIT is lost, before or after the server did it, and the server is reached at once or not: what
 * the sink says is true, and the same batch written again stores each row once. */
static void the_answer_to_a_commit_may_be_lost(void **state)
{
    static const struct {
        const char *order, *rows; /* rows: right after it */
        enum rf_status says;
    } cases[] = {
        {"answer COMMIT 0", "1", RF_OK},
        {"request COMMIT 0", "0", RF_UNAVAILABLE},
        {"answer COMMIT 0.5", "1", RF_TIMEOUT},
        {"request COMMIT 0.5", "0", RF_TIMEOUT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rf_error why = {0};
        struct wire wire;
        struct fixture f;
        char url[256];
        uint32_t lane;

        fixture_init(&f);
        lane = begin_one(&f, notes_v1);
        rf_sink_close(f.sink);
        if (!lay_wire(&wire, &f, url)) {
            f.sink = open_sink(f.url, false);
            fixture_release(&f);
            skip();
        }
        f.sink = open_sink(url, false);
        CHECK(rf_sink_begin(f.sink, lane, "", &err));
        put_note_of(f.sink, &f.arena, "a", 1, "once", "k");
        cut_at(&wire, cases[i].order);
        assert_int_equal(rf_sink_commit(f.sink, "1", &why), cases[i].says);
        assert_string_equal(ask(&f, "SELECT count(*) FROM note"), cases[i].rows);
        if (cases[i].says != RF_OK) {
            assert_int_equal(begin_in_time(f.sink, lane, "", &why), RF_OK);
            put_note_of(f.sink, &f.arena, "a", 1, "once", "k");
            put_note_of(f.sink, &f.arena, "b", 2, "more", "k");
            CHECK(rf_sink_commit(f.sink, "2", &err));
        } else {
            CHECK(rf_sink_begin(f.sink, lane, "1", &err));
            put_note_of(f.sink, &f.arena, "b", 2, "more", "k");
            CHECK(rf_sink_commit(f.sink, "2", &err));
        }
        assert_string_equal(ask(&f, "SELECT title FROM note ORDER BY title"), "more\nonce");
        assert_string_equal(ask(&f, "SELECT position FROM refuge_lanes"), "2");
        rf_sink_close(f.sink);
        take_up(&wire);
        f.sink = open_sink(f.url, false);
        fixture_release(&f);
    }
}

/* What is not known is not believed to be ours when another writer has come since. */
static void a_lost_commit_is_not_taken_for_anothers(void **state)
{
    struct rf_error why = {0};
    struct wire wire;
    struct fixture f;
    char url[256];
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    lane = begin_one(&f, notes_v1);
    rf_sink_close(f.sink);
    if (!lay_wire(&wire, &f, url)) {
        f.sink = open_sink(f.url, false);
        fixture_release(&f);
        skip();
    }
    f.sink = open_sink(url, false);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    cut_at(&wire, "answer COMMIT 0.5");
    assert_int_equal(rf_sink_commit(f.sink, "1", &why), RF_TIMEOUT);
    other_does(&f, "UPDATE refuge_lanes SET writer = 'another'");
    assert_int_equal(begin_in_time(f.sink, lane, "", &why), RF_LOCKED);
    assert_non_null(strstr(why.message, "another writer"));
    rf_sink_close(f.sink);
    take_up(&wire);
    f.sink = open_sink(f.url, false);
    fixture_release(&f);
}

/* ---- a server of its own ---- */

static void service(const char *command, const char *folder, char *out, size_t size)
{
    char line[400];
    FILE *pipe;

    snprintf(line, sizeof line, RF_SOURCE_DIR "/tests/services/postgres %s %s", command, folder);
    pipe = popen(line, "r");
    assert_non_null(pipe);
    if (out) {
        assert_non_null(fgets(out, (int)size, pipe));
        out[strcspn(out, "\n")] = '\0';
    }
    assert_int_equal(pclose(pipe), 0);
}

/* Killed in the middle of a batch and started again: nothing of the batch, then all of it. */
static void a_server_may_be_killed_in_a_batch(void **state)
{
    char folder[] = "/tmp/rf-pgk-XXXXXX", address[200], line[200];
    struct rf_error why = {0};
    struct fixture f = {0};
    enum rf_status status = RF_OK;
    uint32_t lane;

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chmod(folder, 0755), 0);
    service("install", folder, NULL, 0);
    service("start", folder, address, sizeof address);
    snprintf(f.url, sizeof f.url, "%s#killed", strchr(address, '=') + 1);
    rf_arena_init(&f.arena, 64 << 20);
    f.sink = open_sink(f.url, true);
    lane = begin_one(&f, notes_v1);
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    put_note_of(f.sink, &f.arena, "a", 1, "kept", "k");
    CHECK(rf_sink_commit(f.sink, "1", &err));
    CHECK(rf_sink_begin(f.sink, lane, "1", &err));
    put_note_of(f.sink, &f.arena, "b", 2, "half", "k");
    service("kill", folder, NULL, 0);
    assert_int_equal(rf_sink_commit(f.sink, "2", &why), RF_UNAVAILABLE);
    rf_sink_rollback(f.sink);
    rf_error_clear(&why);
    assert_int_equal(rf_sink_begin(f.sink, lane, "1", &why), RF_UNAVAILABLE);
    assert_non_null(strstr(why.message, "cannot reach index"));
    service("start", folder, address, sizeof address);
    status = rf_sink_begin(f.sink, lane, "1", &why);
    for (int i = 0; status == RF_UNAVAILABLE && i < 100; i++)
        status = rf_sink_begin(f.sink, lane, "1", NULL);
    assert_int_equal(status, RF_OK);
    put_note_of(f.sink, &f.arena, "b", 2, "whole", "k");
    CHECK(rf_sink_commit(f.sink, "2", &err));
    assert_string_equal(ask(&f, "SELECT title FROM note ORDER BY title"), "kept\nwhole");
    rf_sink_close(f.sink);
    rf_arena_release(&f.arena);
    service("stop", folder, NULL, 0);
    snprintf(line, sizeof line, "rm -rf %s", folder);
    assert_int_equal(system(line), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(views_live_through_a_swap),
        cmocka_unit_test(what_cannot_be_made_again_stops_a_swap),
        cmocka_unit_test(a_text_is_never_too_long_for_an_index),
        cmocka_unit_test(a_row_that_the_server_refuses_costs_itself),
        cmocka_unit_test(no_text_is_too_long_to_be_searched),
        cmocka_unit_test(a_replay_writes_what_differs),
        cmocka_unit_test(a_language_stems),
        cmocka_unit_test(what_others_changed_is_named),
        cmocka_unit_test(a_lost_session_is_made_again),
        cmocka_unit_test(the_answer_to_a_commit_may_be_lost),
        cmocka_unit_test(a_lost_commit_is_not_taken_for_anothers),
        cmocka_unit_test(a_server_may_be_killed_in_a_batch),
    };
    const struct CMUnitTest without[] = {cmocka_unit_test(needs_a_server)};
    const char *server = getenv("REFUGE_TEST_POSTGRESQL");

    fixture_kind = "postgresql";
    if (server && server[0])
        return cmocka_run_group_tests_name("postgres", tests, NULL, NULL);
    return cmocka_run_group_tests_name("postgres", without, NULL, NULL);
}
