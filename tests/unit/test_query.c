/*
 * test_query.c - asking an index (sinks/query.h): SQL, search, truth
 *
 * Damage is done with SQLite itself, behind refuge's back.
 */
#include "tests/sink_fixture.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "core/json.h"
#include "sinks/grams.h"
#include "sinks/pg.h"

static const char mail_v1[] =
    "{\"name\":\"mail\",\"version\":\"1\",\"title\":\"Mail\",\"on\":[\"blob\"],\"splits\":true,"
    "\"tables\":[{\"name\":\"mail\",\"title\":\"Mails\",\"columns\":["
    "{\"name\":\"subject\",\"type\":\"text\",\"search\":true,\"title\":\"About\"},"
    "{\"name\":\"body\",\"type\":\"text\",\"search\":true},"
    "{\"name\":\"folder\",\"type\":\"text\",\"facet\":true},"
    "{\"name\":\"sent\",\"type\":\"time\"},{\"name\":\"size\",\"type\":\"int\"}],"
    "\"indexes\":[[\"folder\",\"size\"]],\"latest\":{\"key\":[\"subject\"],\"by\":\"sent\"}}]}";

struct mail {
    const char *blob, *subject, *body;
    int64_t sent;
};

static const struct mail mails[] = {
    {"m1", "Résumé of the harbour", "the quick brown fox walks by the harbour", 100},
    {"m2", "lantern", "a lantern and a quick lantern", 200},
    {"m3", "朝の運用フロー", "今日はiPhone用ケースを買った", 300},
    {"m4", "lantern", "later \"quoted\" text AND more; NEAR(x)", 400},
    {"m5", "กี่โมงแล้ว", "한국어 문서", 500},
};
enum { MAILS = sizeof mails / sizeof *mails };

static struct rf_sink_call mail_call(struct rf_buf *buf, const struct mail *mail)
{
    struct rf_value values[5] = {text_value(mail->subject),
                                 text_value(mail->body),
                                 text_value("inbox"),
                                 {.type = RF_TYPE_TIME, .integer = mail->sent * 1000000,
                                  .offset_minutes = 60},
                                 int_value(mail->sent)};

    rf_buf_init(buf, 1 << 16);
    rf_row_begin(buf, 0, 5);
    for (size_t i = 0; i < 5; i++)
        rf_row_put(buf, &values[i]);
    return (struct rf_sink_call){
        .outcome = RF_SINK_ROWS, .output = rf_buf_bytes(buf), .attempts = 1};
}

/* Mails, a part, a dead letter of each class, a park with its need, a deleted blob. */
static void fill(struct fixture *f, bool with_limit)
{
    struct rf_sink_mapper mapper = mapper_of(&f->arena, mail_v1);
    struct rf_sink_item item, part;
    struct rf_sink_part edge;
    struct rf_sink_need need = {.ref = ref_of("missing")};
    struct rf_sink_call call;
    struct rf_buf buf;
    struct rf_blobref gone = ref_of("doomed");
    uint32_t lane;

    CHECK(rf_sink_lane_begin(f->sink, &mapper, 1, true, &lane, &err));
    CHECK(rf_sink_begin(f->sink, lane, "", &err));
    for (size_t i = 0; i < MAILS; i++) {
        item = blob_item(&f->arena, mails[i].blob, i + 1);
        call = mail_call(&buf, &mails[i]);
        item.calls = &call;
        item.call_count = 1;
        put(f->sink, &item);
        rf_buf_release(&buf);
    }
    part = part_item(&f->arena, "inside", "text/plain");
    edge = edge_to(&part, "note.txt");
    item = blob_item(&f->arena, "whole", 10);
    item.kind = RF_SINK_FILE;
    item.name = "whole.zip";
    call = (struct rf_sink_call){.outcome = RF_SINK_ROWS, .parts = &edge, .part_count = 1};
    item.calls = &call;
    item.call_count = 1;
    put(f->sink, &item);
    call = mail_call(&buf, &(struct mail){"", "attachment", "inside the archive", 600});
    part.calls = &call;
    part.call_count = 1;
    put(f->sink, &part);
    rf_buf_release(&buf);
    item = blob_item(&f->arena, "bad", 11);
    call = (struct rf_sink_call){.outcome = RF_SINK_DEAD, .dead_class = RF_DEAD_MAPPER,
                                 .reason = "mail.lua:3: no", .attempts = 1};
    item.calls = &call;
    item.call_count = 1;
    put(f->sink, &item);
    item = blob_item(&f->arena, "slow", 12);
    call = mail_call(&buf, &(struct mail){"", "slow one", "machine dependent", 700});
    if (with_limit)
        call = (struct rf_sink_call){.outcome = RF_SINK_DEAD, .dead_class = RF_DEAD_LIMIT,
                                     .reason = "5 s of CPU time", .attempts = 2};
    item.calls = &call;
    item.call_count = 1;
    put(f->sink, &item);
    rf_buf_release(&buf);
    item = blob_item(&f->arena, "waits", 13);
    call = (struct rf_sink_call){.outcome = RF_SINK_PARKED_NEED, .reason = "waits",
                                 .needs = &need, .need_count = 1};
    item.calls = &call;
    item.call_count = 1;
    put(f->sink, &item);
    item = blob_item(&f->arena, "doomed", 14);
    call = mail_call(&buf, &(struct mail){"", "doomed", "not for long", 800});
    item.calls = &call;
    item.call_count = 1;
    put(f->sink, &item);
    rf_buf_release(&buf);
    CHECK(rf_sink_remove(f->sink, &gone, 15, 15, &err));
    CHECK(rf_sink_commit(f->sink, "15", &err));
}

/* ---- SQL ---- */

static void sql_only_reads(void **state)
{
    static const char *const refused[] = {
        "DELETE FROM mail",
        "INSERT INTO mail(blob, n) VALUES(1, 9)",
        "UPDATE sqlite_master SET sql = ''",
        "CREATE TABLE x(a)",
        "CREATE TEMP TABLE x(a)",
        "DROP TABLE mail",
        "ATTACH '/tmp/rf-none.db' AS other",
        "VACUUM INTO '/tmp/rf-none.db'",
        "BEGIN",
        "PRAGMA journal_mode=DELETE",
        "PRAGMA query_only=0",
        "SELECT load_extension('x')",
        "SELECT 1; SELECT 2",
        "SELECT * FROM nowhere",
        "INSERT INTO mail_fts(mail_fts) VALUES('rebuild')",
    };
    struct rf_error why = {0};
    struct fixture f;

    (void)state;
    fixture_init(&f);
    fill(&f, false);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        CHECK_STATUS(rf_query_sql(f.url, refused[i], NULL, NULL, NULL, NULL, &err), RF_INVALID);
    CHECK_STATUS(rf_query_sql(f.url, "-- nothing", NULL, NULL, NULL, NULL, &err), RF_END);
    assert_int_equal(rf_query_sql(f.url, "SELECT 1,\n  nothere FROM mail", NULL, NULL, NULL, NULL,
                                  &why),
                     RF_INVALID);
    assert_non_null(strstr(why.message, "no such column: nothere"));
    assert_non_null(strstr(why.message, "line 2, column 3"));
    assert_string_equal(ask(&f, "SELECT 1, NULL, 'a', 0.5; -- and no more\n /* really */ ;"),
                        "1||a|0.5");
    assert_string_equal(ask(&f, "EXPLAIN QUERY PLAN SELECT 1")[0] ? "plan" : "", "plan");
    assert_string_equal(ask(&f, "SELECT name FROM pragma_table_xinfo('mail') WHERE name = 'grams'"),
                        "grams");
    assert_string_equal(ask(&f, "SELECT count(*) FROM mail"), "7");
    fixture_release(&f);
}

static enum rf_status stop_after_two(void *user, uint64_t index, size_t count,
                                     const char *const *names, const struct rf_cell *cells)
{
    (void)names;
    (void)cells;
    assert_int_equal(count, 1);
    *(uint64_t *)user = index;
    return index == 1 ? RF_END : RF_OK;
}

static void keep_names(void *user, size_t count, const char *const *names)
{
    rf_buf_printf(user, "%zu %s %s", count, names[0], names[1]);
}

static void sql_ends_when_told(void **state)
{
    static const char for_ever[] =
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c";
    static const volatile int interrupted = 1;
    struct rf_buf buf;
    struct fixture f;
    uint64_t last = 0;

    (void)state;
    fixture_init(&f);
    CHECK_STATUS(rf_query_sql(f.url,
                              "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
                              "SELECT count(*) FROM c",
                              NULL, take_row, NULL, &interrupted, &err),
                 RF_CANCELLED);
    /* The visitor's own status is not an error of the query. */
    assert_int_equal(rf_query_sql(f.url, for_ever, NULL, stop_after_two, &last, NULL, NULL),
                     RF_END);
    assert_int_equal(last, 1);
    rf_buf_init(&buf, 1024);
    CHECK(rf_query_sql(f.url, "SELECT id AS a, item AS b FROM blobs WHERE 1 = 0", keep_names,
                       take_row, &buf, NULL, &err));
    assert_string_equal(rf_buf_text(&buf), "2 a b");
    rf_buf_release(&buf);
    fixture_release(&f);
}

static void postgres_sql_only_reads(void **state)
{
    static const char *const refused[] = {
        "DELETE FROM mail",
        "INSERT INTO mail(blob, n) VALUES(1, 9)",
        "WITH x AS (DELETE FROM mail RETURNING 1) SELECT * FROM x",
        "SELECT 1 INTO x",
        "CREATE TABLE x(a int)",
        "CREATE TEMP TABLE x(a int)",
        "EXPLAIN ANALYZE DELETE FROM mail",
        "COPY (SELECT 1) TO PROGRAM 'touch /tmp/rf-none'",
        "COPY (SELECT 1) TO STDOUT",
        "DO $$ BEGIN PERFORM 1; END $$",
        "SELECT nextval('refuge_blob_ids')",
        "SET TRANSACTION READ WRITE",
        "COMMIT",
        "BEGIN",
        "SELECT 1; SELECT 2",
        "SELECT * FROM nowhere",
    };
    struct rf_error why = {0};
    struct fixture f;

    (void)state;
    fixture_init(&f);
    fill(&f, false);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (rf_query_sql(f.url, refused[i], NULL, take_row, NULL, NULL, NULL) != RF_INVALID)
            fail_msg("not refused: %s", refused[i]);
    CHECK_STATUS(rf_query_sql(f.url, "-- nothing", NULL, NULL, NULL, NULL, &err), RF_END);
    assert_int_equal(rf_query_sql(f.url, "SELECT 1,\n  nothere FROM mail", NULL, NULL, NULL, NULL,
                                  &why),
                     RF_INVALID);
    assert_non_null(strstr(why.message, "nothere"));
    assert_non_null(strstr(why.message, "line 2, column 3"));
    assert_string_equal(ask(&f, "/* all */ (SELECT 1, NULL, 'a', 0.5); -- and no more"),
                        "1||a|0.5");
    assert_string_equal(ask(&f, "EXPLAIN SELECT 1")[0] ? "plan" : "", "plan");
    assert_string_equal(ask(&f, "SELECT count(*) FROM mail"), "7");
    assert_string_equal(ask(&f, "SELECT subject FROM mail_latest WHERE subject = 'lantern'"),
                        "lantern");
    fixture_release(&f);
}

/* ---- files ---- */

static void raw(struct fixture *f, const char *sql)
{
    sqlite3 *db = NULL;
    char *words = NULL;
    struct rf_pg *pg = NULL;

    if (on_postgres()) {
        CHECK(rf_pg_open(&pg, f->url, &err));
        CHECK(rf_pg_exec(pg, &err, "%s", sql));
        rf_pg_close(pg);
        return;
    }
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &words) != SQLITE_OK)
        fail_msg("%s: %s", sql, words);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void strange_files_are_refused(void **state)
{
    struct fixture f;
    char path[128], url[160];
    int fd;

    (void)state;
    fixture_init(&f);
    rf_sink_close(f.sink);
    f.sink = NULL;
    assert_int_equal(chmod(f.path, 0666), 0);
    CHECK_STATUS(rf_query_sql(f.url, "SELECT 1", NULL, take_row, NULL, NULL, &err), RF_DENIED);
    assert_int_equal(chmod(f.path, 0600), 0);
    raw(&f, "PRAGMA user_version=2");
    CHECK_STATUS(rf_query_sql(f.url, "SELECT 1", NULL, take_row, NULL, NULL, &err),
                 RF_UNSUPPORTED);
    raw(&f, "PRAGMA user_version=1; PRAGMA application_id=5");
    CHECK_STATUS(rf_query_sql(f.url, "SELECT 1", NULL, take_row, NULL, NULL, &err), RF_UNSOUND);
    snprintf(path, sizeof path, "%s/other", f.folder);
    snprintf(url, sizeof url, "sqlite:%s", path);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "this is certainly not a database at all", 39), 39);
    close(fd);
    CHECK_STATUS(rf_query_sql(url, "SELECT 1", NULL, take_row, NULL, NULL, &err), RF_UNSOUND);
    unlink(path);
    CHECK_STATUS(rf_query_sql(url, "SELECT 1", NULL, take_row, NULL, NULL, &err), RF_NOT_FOUND);
    fixture_release(&f);
}

/* A row that a table will never take costs its (item, mapper) alone. */
static void a_refused_row_becomes_a_dead_letter(void **state)
{
    struct rf_sink_mapper mapper;
    struct rf_sink_item item;
    struct rf_sink_call call;
    struct rf_value values[5];
    struct rf_buf buf;
    struct fixture f;
    uint32_t lane;

    (void)state;
    fixture_init(&f);
    mapper = mapper_of(&f.arena, mail_v1);
    CHECK(rf_sink_lane_begin(f.sink, &mapper, 1, true, &lane, &err));
    raw(&f, form("CREATE TRIGGER picky BEFORE INSERT ON mail WHEN new.size = 13 BEGIN SELECT "
                 "RAISE(ABORT, 'no thirteen here'); END",
                 "CREATE FUNCTION picky() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'no thirteen "
                 "here'; END $$ LANGUAGE plpgsql; CREATE TRIGGER picky BEFORE INSERT ON mail FOR "
                 "EACH ROW WHEN (new.size = 13) EXECUTE FUNCTION picky()"));
    CHECK(rf_sink_begin(f.sink, lane, "", &err));
    rf_buf_init(&buf, 1 << 16);
    for (int64_t n = 11; n < 15; n++) {
        memset(values, 0, sizeof values);
        values[0] = text_value("subject");
        values[4] = int_value(n);
        rf_row_begin(&buf, 0, 5);
        for (size_t i = 0; i < 5; i++)
            rf_row_put(&buf, &values[i]);
    }
    call = (struct rf_sink_call){
        .outcome = RF_SINK_ROWS, .output = rf_buf_bytes(&buf), .attempts = 1};
    item = blob_item(&f.arena, "thirteen", 1);
    item.calls = &call;
    item.call_count = 1;
    put(f.sink, &item);
    rf_buf_release(&buf);
    call = mail_call(&buf, &mails[0]);
    item = blob_item(&f.arena, "good", 2);
    item.calls = &call;
    item.call_count = 1;
    put(f.sink, &item);
    rf_buf_release(&buf);
    call.output = rf_bytes("R\xff", 2); /* output that no check has seen */
    item = blob_item(&f.arena, "broken", 3);
    item.calls = &call;
    item.call_count = 1;
    put(f.sink, &item);
    CHECK(rf_sink_commit(f.sink, "3", &err));
    assert_string_equal(ask(&f, "SELECT count(*) FROM mail"), "1");
    assert_string_equal(ask(&f, "SELECT class FROM refuge_errors"), "sink\nsink");
    assert_non_null(strstr(ask(&f, "SELECT reason FROM refuge_errors"),
                           "row 2 was refused by table 'mail': no thirteen here"));
    assert_string_equal(ask(&f, form("SELECT count(*) FROM mail_fts WHERE mail_fts MATCH "
                                     "'subject'",
                                     "SELECT count(*) FROM mail WHERE search @@ 'subject'")),
                        "0");
    raw(&f, form("DROP TRIGGER picky", "DROP TRIGGER picky ON mail; DROP FUNCTION picky"));
    fixture_release(&f);
}

/* ---- what stock tools see ---- */

static void stock_tools_find_their_way(void **state)
{
    struct rf_buf buf;
    struct rf_arena arena;
    const struct rf_json *json, *table;
    struct fixture f;

    (void)state;
    fixture_init(&f);
    fill(&f, false);
    assert_non_null(strstr(ask(&f, "SELECT sql FROM sqlite_master WHERE name = 'mail_fts'"),
                           "content=\"mail\", content_rowid=\"id\", tokenize=\"unicode61 "
                           "remove_diacritics 2\""));
    assert_string_equal(ask(&f, "SELECT count(*) FROM mail_fts WHERE mail_fts MATCH 'resume'"),
                        "1");
    assert_string_equal(ask(&f, "SELECT body FROM mail_latest WHERE subject = 'lantern'"),
                        mails[3].body);
    assert_string_equal(ask(&f, "SELECT sent, sent_offset FROM mail WHERE size = 100"),
                        "1970-01-01T00:01:40.000000Z|60");
    assert_string_equal(ask(&f, "SELECT group_concat(c.name) FROM sqlite_master i, "
                                "pragma_index_info(i.name) c WHERE i.type = 'index' AND i.tbl_name "
                                "= 'mail' AND i.sql IS NOT NULL"),
                        "folder,sent,folder,size");
    assert_string_equal(ask(&f, "SELECT t.name, m.version FROM refuge_tables t JOIN "
                                "refuge_lane_mappers l ON l.id = t.mapper JOIN refuge_mappers m "
                                "USING(identity)"),
                        "mail|1");
    rf_buf_init(&buf, 1 << 16);
    rf_arena_init(&arena, 1 << 20);
    CHECK(rf_query_metadata(f.url, &buf, &err));
    CHECK(rf_json_parse(&json, &arena, rf_buf_bytes(&buf), &err));
    table = rf_json_find(json, "databases");
    table = rf_json_find(rf_json_find(table, "index"), "tables");
    assert_non_null(rf_json_find(table, "refuge_parts"));
    table = rf_json_find(table, "mail");
    assert_string_equal(rf_json_string(rf_json_find(table, "title")), "Mails");
    assert_string_equal(rf_json_string(rf_json_find(table, "label_column")), "subject");
    assert_int_equal(rf_json_find(table, "facets")->count, 1);
    rf_arena_release(&arena);
    rf_buf_release(&buf);
    fixture_release(&f);
}

/* ---- search ---- */

static enum rf_status take_hit(void *user, const struct rf_hit *hit)
{
    assert_non_null(hit->snippet);
    assert_string_equal(hit->table, "mail");
    rf_buf_printf(user, "%s=%s ", hit->title, hit->snippet);
    return RF_OK;
}

/* The hits as "title=snippet ", marks written as < and >. */
static const char *search(struct fixture *f, const char *words, uint64_t *total)
{
    struct rf_buf buf;
    char *out;

    rf_buf_init(&buf, 1 << 16);
    CHECK(rf_query_search(f->url, words, NULL, take_hit, &buf, total, &err));
    out = rf_arena_copy(&f->arena, rf_buf_text(&buf), buf.size);
    for (char *c = out; *c; c++)
        *c = *c == 2 ? '<' : *c == 3 ? '>' : *c;
    rf_buf_release(&buf);
    return out;
}

static uint64_t hits(struct fixture *f, const char *words)
{
    uint64_t total = 99;

    search(f, words, &total);
    return total;
}

static void search_finds_words_phrases_and_prefixes(void **state)
{
    struct fixture f;
    uint64_t total;

    (void)state;
    fixture_init(&f);
    fill(&f, false);
    assert_string_equal(search(&f, "harbour", &total),
                        "Résumé of the harbour=Résumé of the <harbour> ");
    assert_int_equal(total, 1);
    assert_int_equal(hits(&f, "RESUME"), 1);
    /* One word, one mark, whatever kind of index it is; what only begins so has none. */
    assert_non_null(strstr(search(&f, "\"quick brown fox\"", &total),
                           "the <quick> <brown> <fox> walks"));
    assert_non_null(strstr(search(&f, "brown quick", &total), "the <quick> <brown> fox walks"));
    assert_non_null(strstr(search(&f, "quick the", &total), "<the> <quick> brown"));
    assert_non_null(strstr(search(&f, "quick wal*", &total), "brown fox <walks> by"));
    assert_non_null(strstr(search(&f, "quick wal", &total), "brown fox <walks> by"));
    assert_int_equal(hits(&f, "quick lantern"), 1);
    assert_int_equal(hits(&f, "\"quick lantern\""), 1);
    assert_int_equal(hits(&f, "\"lantern quick\""), 0);
    assert_int_equal(hits(&f, "lant*"), 2);
    assert_int_equal(hits(&f, "lant"), 2);        /* the last word, when nothing else matches */
    assert_int_equal(hits(&f, "quick lante"), 1);
    assert_int_equal(hits(&f, "\"lante\""), 0);
    assert_int_equal(hits(&f, "lantern -later"), 1);
    assert_int_equal(hits(&f, "lantern -\"and a quick\""), 1);
    assert_int_equal(hits(&f, "archive"), 1);
    assert_int_equal(hits(&f, "doomed"), 0);
    fixture_release(&f);
}

static void search_takes_any_text(void **state)
{
    static const char *const texts[] = {
        "AND",        "a AND",      "NEAR(x y)",     "subject:quick", "\"unfinished", "quick^2",
        "{a b}: c",   "'; DROP --", "qu\xff\xfeick", "^quick",        "a+b",          "(quick",
        "NOT lantern", "-x quick",  "運用\"",        "* quick *",     "quick OR fox", "\x01quick",
    };
    char long_text[4000];
    struct fixture f;

    (void)state;
    fixture_init(&f);
    fill(&f, false);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        hits(&f, texts[i]);
    assert_int_equal(hits(&f, "NEAR(x)"), 1); /* words of a mail like any other */
    assert_int_equal(hits(&f, "more; \"quoted\""), 1);
    CHECK_STATUS(rf_query_search(f.url, "  ** -- \"\" ", NULL, take_hit, NULL, NULL, &err),
                 RF_INVALID);
    CHECK_STATUS(rf_query_search(f.url, "-only", NULL, take_hit, NULL, NULL, &err), RF_INVALID);
    for (size_t i = 0; i + 2 < sizeof long_text; i += 2)
        memcpy(long_text + i, "w ", 3);
    CHECK_STATUS(rf_query_search(f.url, long_text, NULL, take_hit, NULL, NULL, &err), RF_LIMIT);
    CHECK_STATUS(rf_query_search(f.url, "x", &(struct rf_search_options){.table = "nope"},
                                 take_hit, NULL, NULL, &err),
                 RF_NOT_FOUND);
    fixture_release(&f);
}

static void search_finds_inside_scripts_without_spaces(void **state)
{
    static const char *const found[] = {"朝", "運用", "運用フ", "用フロー", "朝の運用フロー", "フロー",
                                        "iPhone", "iphone用", "ケース", "국어", "한국어 문서", "โมง",
                                        "กี่โมง",  "朝 フロー", "\"の運用\""};
    static const char *const absent[] = {"用運", "運フ", "朝フロー", "フロー朝", "夜", "iPhoneケ"};
    struct fixture f;

    (void)state;
    fixture_init(&f);
    fill(&f, false);
    for (size_t i = 0; i < sizeof found / sizeof *found; i++)
        if (hits(&f, found[i]) != 1)
            fail_msg("'%s' is not found", found[i]);
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        if (hits(&f, absent[i]) != 0 && strcmp(absent[i], "iPhoneケ") != 0)
            fail_msg("'%s' is found", absent[i]);
    assert_string_equal(search(&f, "運用", NULL), "朝の運用フロー=朝の<運用>フロー ");
    if (!on_elastic()) /* a stock client finds them, too */
        assert_string_equal(ask(&f, form("SELECT count(*) FROM mail_fts WHERE mail_fts MATCH "
                                         "'運用'",
                                         "SELECT count(*) FROM mail WHERE search @@ "
                                         "to_tsquery('simple', '運用')")),
                            "1");
    fixture_release(&f);
}

static enum rf_status check_part_hit(void *user, const struct rf_hit *hit)
{
    assert_string_equal(hit->name, "note.txt");
    assert_string_equal(hit->column, "body");
    assert_string_equal(hit->mapper, "mail");
    assert_int_equal(hit->timestamp_us, 1700000010000000);
    assert_non_null(strchr(hit->item, ';'));
    ++*(int *)user;
    return RF_OK;
}

static enum rf_status count_hit(void *user, const struct rf_hit *hit)
{
    struct rf_buf *buf = user;

    rf_buf_printf(buf, "%s\n", hit->item);
    return RF_OK;
}

static void hits_have_names_times_and_pages(void **state)
{
    struct rf_search_options options = {.limit = 1};
    struct rf_buf all, pages;
    struct fixture f;
    uint64_t total = 0;
    int seen = 0;

    (void)state;
    fixture_init(&f);
    fill(&f, false);
    CHECK(rf_query_search(f.url, "archive", NULL, check_part_hit, &seen, NULL, &err));
    assert_int_equal(seen, 1);
    rf_buf_init(&all, 1 << 16);
    rf_buf_init(&pages, 1 << 16);
    CHECK(rf_query_search(f.url, "the", NULL, count_hit, &all, &total, &err));
    assert_int_equal(total, 2);
    for (options.offset = 0; options.offset < total; options.offset++)
        CHECK(rf_query_search(f.url, "the", &options, count_hit, &pages, NULL, &err));
    assert_string_equal(rf_buf_text(&pages), rf_buf_text(&all));
    rf_buf_release(&all);
    rf_buf_release(&pages);
    fixture_release(&f);
}

/* ---- truth ---- */

static void keep_line(void *user, const char *line)
{
    rf_buf_printf(user, "%s\n", line);
}

static struct rf_compare_options into(struct rf_buf *lines)
{
    return (struct rf_compare_options){.problem = keep_line, .user = lines};
}

/* Do damage to one of two equal indexes and look for every word in what compare says of it. */
static void damage(const char *sql, const char *const *words)
{
    struct rf_compare_report report;
    struct fixture f, again;
    struct rf_buf lines;
    struct rf_compare_options how = into(&lines);
    struct rf_digest digest[2];

    fixture_init(&f);
    fixture_init(&again);
    fill(&f, false);
    fill(&again, false);
    rf_buf_init(&lines, 1 << 20);
    CHECK(rf_query_compare(f.url, again.url, &how, &report, &err));
    assert_int_equal(report.rows, 7);
    assert_int_equal(report.tables, 1);
    rf_sink_close(f.sink);
    raw(&f, sql);
    f.sink = open_sink(f.url, false);
    assert_int_equal(rf_query_compare(f.url, again.url, &how, &report, NULL),
                     RF_CORRUPT);
    assert_int_not_equal(report.differences, 0);
    for (; *words; words++)
        if (!strstr(rf_buf_text(&lines), *words))
            fail_msg("%s: nothing about '%s' in:\n%s", sql, *words, rf_buf_text(&lines));
    CHECK(rf_query_digest(again.url, NULL, &digest[1], &err));
    if (rf_query_digest(f.url, NULL, &digest[0], NULL) == RF_OK && !strstr(sql, "_fts") &&
        !strstr(sql, "position") && !strstr(sql, "VIEW ") && !strstr(sql, "INDEX ") &&
        !strstr(sql, "TRIGGER "))
        assert_string_not_equal(digest[0].hex, digest[1].hex);
    rf_buf_release(&lines);
    fixture_release(&f);
    fixture_release(&again);
}

struct until {
    int lines, flag;
};

static void interrupt_at_line(void *user, const char *line)
{
    struct until *until = user;

    (void)line;
    if (--until->lines == 0)
        until->flag = 1;
}

/* Comparing stops when it is asked to, and what it breaks off is no difference. */
static void comparing_can_be_stopped(void **state)
{
    struct rf_compare_report report;
    struct fixture f, again;
    struct until until = {.flag = 1};
    struct rf_compare_options how = {.problem = interrupt_at_line, .user = &until,
                                     .interrupted = &until.flag};

    (void)state;
    fixture_init(&f);
    fixture_init(&again);
    fill(&f, false);
    fill(&again, false);
    CHECK_STATUS(rf_query_compare(f.url, again.url, &how, &report, &err), RF_CANCELLED);
    assert_int_equal(report.differences, 0);
    rf_sink_close(f.sink);
    raw(&f, "DELETE FROM mail; DELETE FROM refuge_parks");
    f.sink = open_sink(f.url, false);
    until = (struct until){.lines = 2};
    CHECK_STATUS(rf_query_compare(f.url, again.url, &how, &report, &err), RF_CANCELLED);
    assert_int_equal(report.differences, 2);
    fixture_release(&f);
    fixture_release(&again);
}

#define MANY_ROWS                                                                                \
    "WITH RECURSIVE c(n) AS (SELECT 100 UNION ALL SELECT n + 1 FROM c WHERE n < 100100) "          \
    "INSERT INTO mail(blob, n, subject) SELECT (SELECT min(blob) FROM mail), n, 'x' FROM c"

struct seen {
    struct rf_compare_progress last;
    unsigned calls;
    bool backwards;
    int stop_at, flag;
};

static void see_progress(void *user, const struct rf_compare_progress *progress)
{
    struct seen *seen = user;

    seen->backwards |= progress->done < seen->last.done;
    seen->last = *progress;
    seen->flag |= ++seen->calls == (unsigned)seen->stop_at;
    assert_non_null(progress->what);
}

/* Progress is told while a database is at work, its count never goes back, and whoever is told may
 * stop it there. */
static void comparing_tells_its_progress(void **state)
{
    struct rf_compare_report report;
    struct fixture f, again;
    struct seen seen = {.stop_at = 0};
    struct rf_compare_options how = {.progress = see_progress, .user = &seen, .rows = 100000,
                                     .others = 1000, .interrupted = &seen.flag};

    (void)state;
    fixture_init(&f);
    fixture_init(&again);
    fill(&f, false);
    fill(&again, false);
    rf_sink_close(f.sink);
    rf_sink_close(again.sink);
    raw(&f, MANY_ROWS);
    raw(&again, MANY_ROWS);
    f.sink = open_sink(f.url, false);
    again.sink = open_sink(again.url, false);
    (void)!rf_query_compare(f.url, again.url, &how, &report, NULL);
    assert_true(seen.calls > 0);
    assert_false(seen.backwards);
    assert_int_equal(seen.last.total, 201000); /* texts are looked at once more */
    seen = (struct seen){.stop_at = 1};
    CHECK_STATUS(rf_query_compare(f.url, again.url, &how, &report, &err), RF_CANCELLED);
    fixture_release(&f);
    fixture_release(&again);
}

#define DAMAGE(sql, ...) damage(sql, (const char *const[]){__VA_ARGS__, NULL})
#define M2 "(SELECT id FROM blobs WHERE seq = 2)"

static void compare_names_every_damage(void **state)
{
    (void)state;
    DAMAGE("INSERT INTO mail_fts(mail_fts, rowid, subject, body) "
           "SELECT 'delete', id, subject, body "
           "FROM mail WHERE blob = " M2 "; DELETE FROM mail WHERE blob = " M2,
           "table 'mail', item 'sha256-", "n 0: is missing");
    DAMAGE("INSERT INTO mail(blob, n, subject) SELECT blob, 7, subject FROM mail WHERE blob = " M2,
           "n 7: should not be there");
    DAMAGE("PRAGMA legacy_alter_table=ON; CREATE TABLE copy AS SELECT * FROM mail; "
           "DROP TABLE mail; ALTER TABLE copy RENAME TO "
           "mail; INSERT INTO mail SELECT id + 100, blob, n, subject, body, folder, sent, "
           "sent_offset, size, grams FROM mail WHERE blob = " M2,
           "n 0: is there twice");
    DAMAGE("UPDATE mail SET folder = 'spam' WHERE blob = " M2,
           "column 'folder': is 'spam', should be 'inbox'");
    DAMAGE("UPDATE mail SET sent_offset = NULL WHERE blob = " M2,
           "column 'sent_offset': is null, should be 60");
    DAMAGE("INSERT INTO mail_fts(mail_fts, rowid, subject, body) "
           "SELECT 'delete', id, subject, body "
           "FROM mail WHERE blob = " M2,
           "table 'mail', item 'sha256-", "full-text entry is not that of its text");
    DAMAGE("INSERT INTO mail_fts(rowid, subject) SELECT id, 'weasel' FROM mail WHERE blob = " M2,
           "full-text entry is not that of its text");
    DAMAGE("INSERT INTO mail_fts(rowid, subject) VALUES(5000, 'weasel')",
           "belongs to row 5000, which is not there");
    DAMAGE("DELETE FROM mail_fts_docsize WHERE id IN (SELECT id FROM mail WHERE blob = " M2 ")",
           "full-text entry is not that of its text");
    DAMAGE("DROP VIEW refuge_errors", "view 'refuge_errors': it is not there as refuge makes it");
    DAMAGE("DROP VIEW refuge_edges; CREATE VIEW refuge_edges AS SELECT 1 AS parent",
           "view 'refuge_edges': it is not there as refuge makes it");
    DAMAGE("DROP INDEX refuge_parts_child", "index 'refuge_parts_child': it is not there");
    DAMAGE("CREATE TRIGGER sly AFTER INSERT ON mail BEGIN DELETE FROM mail; END",
           "trigger 'sly' on 'mail'");
    DAMAGE("DELETE FROM refuge_dead_letters", "dead letters, item 'sha256-", "is missing");
    DAMAGE("INSERT INTO mail(blob, n, subject) SELECT id, 0, 'doomed' FROM blobs WHERE deleted",
           "n 0: should not be there");
    DAMAGE("UPDATE blobs SET deleted = 0 WHERE deleted", "column 'deleted': is 0, should be 1");
    DAMAGE("DELETE FROM refuge_needs", "needs, item 'sha256-", "is missing");
    DAMAGE("DELETE FROM refuge_parks", "parks, item 'sha256-", "is missing");
    DAMAGE("DELETE FROM refuge_parts", "parts, item 'sha256-", "is missing");
    DAMAGE("INSERT INTO mail(blob, n, subject) VALUES(4711, 0, 'nobody')",
           "points at a row of 'blobs' that is not there");
    DAMAGE("UPDATE refuge_lanes SET position = '14'", "column 'position': is '14', should be '15'");
    DAMAGE("DELETE FROM refuge_lanes", "lane, lane 'live': is missing");
    DAMAGE("DROP TABLE mail", "table 'mail': cannot be read: ", "no such table");
    DAMAGE("DROP TABLE mail_fts", "table 'mail': cannot be checked: ");
    DAMAGE("DELETE FROM blobs WHERE seq = 2", "items, item 'sha256-", "is missing");
}

/* What one machine could not finish and another could is no difference, and is counted. */
static void letters_of_class_limit_may_differ(void **state)
{
    struct rf_compare_report report;
    struct fixture f, again;
    struct rf_buf lines;
    struct rf_compare_options how = into(&lines);

    (void)state;
    fixture_init(&f);
    fixture_init(&again);
    fill(&f, true);
    fill(&again, false);
    rf_buf_init(&lines, 1 << 20);
    CHECK(rf_query_compare(f.url, again.url, &how, &report, &err));
    assert_int_equal(report.limit_letters, 1);
    assert_int_equal(report.differences, 0);
    CHECK(rf_query_compare(again.url, f.url, &how, &report, &err));
    assert_int_equal(report.limit_letters, 1);
    rf_buf_release(&lines);
    fixture_release(&f);
    fixture_release(&again);
}

/* ---- grams ---- */

static void grams_are_one_two_and_three_long(void **state)
{
    static const struct {
        const char *text, *grams;
    } cases[] = {
        {"plain words, Größe, Ελλάδα", ""},
        {"運用フ", "運 用 フ 運用 用フ 運用フ "},
        {"a 運 b", "運 "},
        {"iPhone用x1", "iPhone 用 x1 "},
        {"กี่ม", "ก ม กม "},
        {"𠀀𠀁", "𠀀 𠀁 𠀀𠀁 "},
        {"、。", ""},
    };
    struct rf_buf buf;

    (void)state;
    rf_buf_init(&buf, 4096);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rf_buf_clear(&buf);
        rf_grams_put(&buf, rf_bytes_text(cases[i].text));
        assert_string_equal(rf_buf_text(&buf), cases[i].grams);
    }
    rf_buf_clear(&buf);
    rf_grams_put_query(&buf, rf_bytes_text("朝の運用"));
    assert_string_equal(rf_buf_text(&buf), "朝の運 の運用 ");
    rf_buf_release(&buf);
}

#define EVERY_SINK                                                                              \
    cmocka_unit_test(search_finds_words_phrases_and_prefixes),                                  \
        cmocka_unit_test(search_takes_any_text),                                                \
        cmocka_unit_test(search_finds_inside_scripts_without_spaces),                           \
        cmocka_unit_test(hits_have_names_times_and_pages)

int main(void)
{
    const struct CMUnitTest sqlite[] = {
        EVERY_SINK,
        cmocka_unit_test(sql_only_reads),
        cmocka_unit_test(sql_ends_when_told),
        cmocka_unit_test(strange_files_are_refused),
        cmocka_unit_test(a_refused_row_becomes_a_dead_letter),
        cmocka_unit_test(stock_tools_find_their_way),
        cmocka_unit_test(compare_names_every_damage),
        cmocka_unit_test(comparing_can_be_stopped),
        cmocka_unit_test(comparing_tells_its_progress),
        cmocka_unit_test(letters_of_class_limit_may_differ),
        cmocka_unit_test(grams_are_one_two_and_three_long),
    };
    const struct CMUnitTest postgres[] = {
        EVERY_SINK,
        cmocka_unit_test(postgres_sql_only_reads),
        cmocka_unit_test(sql_ends_when_told),
        cmocka_unit_test(a_refused_row_becomes_a_dead_letter),
    };
    const struct CMUnitTest elastic[] = {EVERY_SINK};

    return run_over_kinds("query", KIND_TESTS(sqlite), KIND_TESTS(postgres), KIND_TESTS(elastic));
}
