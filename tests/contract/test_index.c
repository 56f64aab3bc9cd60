/*
 * test_index.c - a store, mappers and an index together, against a model kept here
 *
 * The model is a table of blobs that are there and, for each, the rows its text must give: computed
 * by this file from how the text was made, never read back from what is tested. Random histories
 * print their seed; REFUGE_TEST_SEED replays one. Run over every kind of sink.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <time.h>

#include "backup/schema.h"
#include "tests/index_fixture.h"

static const char notes_v1[] =
    "return { name = 'notes', match = { media = { 'application/json' } },\n"
    "  tables = { notes = { columns = { 'title text search', 'num int' } } },\n"
    "  map = function(blob, emit)\n"
    "    local d = blob:json()\n"
    "    if d.title then emit.notes { title = d.title, num = d.n } end\n"
    "  end }\n";

static const char notes_v2[] =
    "return { name = 'notes', match = { media = { 'application/json' } },\n"
    "  tables = { notes = { columns = { 'title text search', 'num int', 'twice int' } } },\n"
    "  map = function(blob, emit)\n"
    "    local d = blob:json()\n"
    "    if d.title then emit.notes { title = d.title, num = d.n, twice = 2 * d.n } end\n"
    "  end }\n";

static const char picky[] =
    "return { name = 'picky', match = { media = { 'application/json' } },\n"
    "  tables = { picked = { columns = { 'num int' } } },\n"
    "  map = function(blob, emit)\n"
    "    local d = blob:json()\n"
    "    if d.n and d.n % 10 == 3 then error('three is not for me') end\n"
    "    emit.picked { num = d.n }\n"
    "  end }\n";

/* Lines of JSON become parts; the parts are mapped by whoever wants JSON. */
static const char lines[] =
    "return { name = 'lines', splits = true,\n"
    "  match = function(blob) return blob:sub(1, 7) == '#lines\\n' end,\n"
    "  tables = { files = { columns = { 'count int' } } },\n"
    "  map = function(blob, emit)\n"
    "    local text, at, count = blob:content(), 8, 0\n"
    "    while at <= #text do\n"
    "      local stop = text:find('\\n', at, true) or #text + 1\n"
    "      emit.part { offset = at - 1, size = stop - at, media = 'application/json' }\n"
    "      at, count = stop + 1, count + 1\n"
    "    end\n"
    "    emit.files { count = count }\n"
    "  end }\n";

static void rows_follow_puts_and_deletes(void **state)
{
    struct home home;
    struct rf_blobref refs[100];

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "notes", notes_v1);
    run(&home); /* an empty store gives an empty index */
    assert_int_equal(number(&home, "select count(*) from notes"), 0);
    for (int i = 0; i < 100; i++) {
        char text[100];

        snprintf(text, sizeof text, "{\"title\":\"note %d\",\"n\":%d}", i, i);
        put(&home, text, &refs[i]);
    }
    run(&home);
    assert_int_equal(number(&home, "select count(*) from notes"), 100);
    assert_int_equal(number(&home, "select sum(num) from notes"), 4950);
    for (int i = 0; i < 10; i++)
        delete(&home, &refs[i]);
    run(&home);
    assert_int_equal(number(&home, "select sum(num) from notes"), 4950 - 45);
    run(&home); /* nothing new: nothing changes */
    assert_int_equal(number(&home, "select count(*) from notes"), 90);
    put(&home, "{\"title\":\"note 3\",\"n\":3}", &refs[3]); /* deleted, put again */
    run(&home);
    assert_int_equal(number(&home, "select num from notes where title = 'note 3'"), 3);
    verify(&home);
    put(&home, "{\"title\":\"cut \\u0000 here\",\"n\":1}", &refs[0]); /* a value that is cleaned */
    run(&home);
    assert_int_equal(number(&home, "select count(*) from refuge_cuts"), 1);
    verify(&home);
    home_close(&home);
}

static void set_seen(struct home *home, unsigned version)
{
    char text[400];

    snprintf(text, sizeof text,
             "return { name = 'seen', match = { media = { 'application/json' } },\n"
             "  tables = { seen = { columns = { 'num int', 'v int' } } },\n"
             "  map = function(blob, emit) emit.seen { num = blob:json().n, v = %u } end }\n",
             version);
    set_mapper(home, 1, "seen", text);
}

/* Mapped in any order, the throw-away index is the same. */
static void verify_in_many_orders(struct home *home)
{
    for (uint32_t seed = 1; seed <= 6; seed++) {
        struct rf_index_options options = index_options(home);
        struct rf_compare_report report = {0};

        options.shuffle_seed = seed;
        options.workers = 1;
        OK(rf_index_verify(&options, print_problem, &report, err));
        assert_int_equal(report.differences, 0);
    }
}

/* Under a policy a part is as old as the oldest item that holds it, in whatever order they came. */
static void versions_of_a_mapper_live_side_by_side(void **state)
{
    struct home home;
    struct rf_blobref old, new;
    struct rf_index_options options;

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "lines", lines);
    set_seen(&home, 1);
    put(&home, "#lines\n{\"n\":1}\n{\"n\":2}", &old);
    run(&home);
    put(&home, "#lines\n{\"n\":2}\n{\"n\":3}", &new);
    set_seen(&home, 2);
    options = index_options(&home);
    options.policy = "forward";
    run_with(&home, &options);
    assert_int_equal(number(&home, "select sum(num * v * v) from seen"), 1 + 2 + 3 * 4);
    verify_in_many_orders(&home);
    delete(&home, &old);
    run(&home);
    assert_int_equal(number(&home, "select sum(num * v * v) from seen"), 2 * 4 + 3 * 4);
    verify_in_many_orders(&home);
    put(&home, "#lines\n{\"n\":1}\n{\"n\":2}", &old); /* as a new change */
    run(&home);
    assert_int_equal(number(&home, "select sum(num * v * v) from seen"), 4 + 2 * 4 + 3 * 4);
    verify_in_many_orders(&home);
    options = index_options(&home);
    options.rebuild = true;
    run_with(&home, &options);
    assert_int_equal(number(&home, "select sum(num * v * v) from seen"), 4 + 2 * 4 + 3 * 4);
    home_close(&home);
}

static void a_failing_call_costs_itself_only(void **state)
{
    struct home home;
    struct rf_blobref ref;

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "notes", notes_v1);
    set_mapper(&home, 1, "picky", picky);
    for (int i = 0; i < 50; i++) {
        char text[100];

        snprintf(text, sizeof text, "{\"title\":\"note %d\",\"n\":%d}", i, i);
        put(&home, text, &ref);
    }
    run(&home);
    assert_int_equal(number(&home, "select count(*) from notes"), 50);
    assert_int_equal(number(&home, "select count(*) from picked"), 45);
    assert_int_equal(number(&home, "select count(*) from refuge_errors"), 5);
    verify(&home);
    /* A version that does not load never replaces a running one. */
    set_mapper(&home, 1, "picky", "return {{{");
    run(&home);
    assert_true(home.warned > 0);
    assert_int_equal(number(&home, "select count(*) from picked"), 45);
    /* A version that copes leaves no dead letter behind. */
    set_mapper(&home, 1, "picky",
               "return { name = 'picky', match = { media = { 'application/json' } },\n"
               "  tables = { picked = { columns = { 'num int' } } },\n"
               "  map = function(blob, emit) emit.picked { num = blob:json().n } end }\n");
    run(&home);
    assert_int_equal(number(&home, "select count(*) from picked"), 50);
    assert_int_equal(number(&home, "select count(*) from refuge_errors"), 0);
    verify(&home);
    home_close(&home);
}

static void a_changed_mapper_is_swapped_in(void **state)
{
    struct home home;
    struct rf_blobref ref;

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "notes", notes_v1);
    set_mapper(&home, 1, "lines", lines);
    put(&home, "{\"title\":\"one\",\"n\":1}", &ref);
    put(&home, "#lines\n{\"title\":\"a\",\"n\":10}\n{\"title\":\"b\",\"n\":20}\n", &ref);
    run(&home);
    assert_int_equal(number(&home, "select sum(num) from notes"), 31);
    set_mapper(&home, 0, "notes", notes_v2); /* parts reach it through the splitter's edges */
    put(&home, "{\"title\":\"two\",\"n\":2}", &ref);
    run(&home);
    assert_int_equal(number(&home, "select sum(twice) from notes"), 66);
    assert_int_equal(number(&home, "select count(*) from refuge_parts"), 2);
    verify(&home);
    home.mapper_count = 1; /* the splitter leaves: its parts go with it */
    run(&home);
    assert_int_equal(number(&home, "select sum(num) from notes"), 3);
    assert_int_equal(number(&home, form("select count(*) from sqlite_schema where name = 'files'",
                                        "select count(*) from information_schema.tables where "
                                        "table_schema = current_schema() and table_name = "
                                        "'files'")), 0);
    verify(&home);
    home_close(&home);
}

static void a_part_lives_while_something_reaches_it(void **state)
{
    struct home home;
    struct rf_blobref first, second;

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "notes", notes_v1);
    set_mapper(&home, 1, "lines", lines);
    put(&home,
        "#lines\n{\"title\":\"a\",\"n\":1}\n{\"title\":\"b\",\"n\":2}\n"
        "{\"title\":\"a\",\"n\":1}\n",
        &first);
    put(&home, "#lines\n{\"title\":\"b\",\"n\":2}\n{\"title\":\"c\",\"n\":4}\n", &second);
    run(&home);
    assert_int_equal(number(&home, "select count(*) from notes"), 3); /* equal parts once */
    assert_int_equal(number(&home, "select sum(num) from notes"), 7);
    delete(&home, &first);
    run(&home);
    assert_int_equal(number(&home, "select sum(num) from notes"), 6);
    verify(&home);
    delete(&home, &second);
    put(&home, "#lines\n{\"title\":\"c\",\"n\":4}\n", &first); /* goes and comes in one batch */
    run(&home);
    assert_int_equal(number(&home, "select sum(num) from notes"), 4);
    verify(&home);
    home_close(&home);
}

/* Cut into more than fit the pipeline's window at once, each of which is cut again; and parts with
 * a head, of which ranges are parts in turn. */
static void parts_have_parts(void **state)
{
    static const char text[] =
        "return { name = 'nested', splits = true, limits = { parts = 100000 },\n"
        "  tables = { nested = { columns = { 'word text' } } },\n"
        "  map = function(blob, emit)\n"
        "    local from, to = blob:sub(1, 20):match('^many (%d+) (%d+)')\n"
        "    for n = from or 1, to or 0 do\n"
        "      emit.part { bytes = 'one ' .. n, media = 'a/b' }\n"
        "    end\n"
        "    local one = blob:sub(1, 20):match('^one (.*)')\n"
        "    if one then emit.part { bytes = 'word ' .. one, media = 'a/b' } end\n"
        "    if blob:sub(1, 5) == 'large' then\n"
        "      emit.part { head = 'headed ', offset = 5, size = blob.size - 5, media = 'c/d' }\n"
        "    end\n"
        "    if blob:sub(1, 6) == 'headed' then\n"
        "      emit.part { offset = 3, size = 8, media = 'a/b' }\n"
        "      emit.part { offset = 7, size = 4, media = 'a/b' }\n"
        "      emit.part { offset = blob.size - 3, size = 3, media = 'a/b' }\n"
        "      emit.part { head = 'H', offset = 4, size = 400000, media = 'c/d' }\n"
        "    end\n"
        "    emit.nested { word = blob.size < 20 and blob:content()\n"
        "      or blob:sub(1, 12) .. blob.size }\n"
        "  end }\n";
    struct home home;
    struct rf_blobref ref;
    char *large = malloc(500001);

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "nested", text);
    put(&home, "many 1 2500", &ref);
    memset(large, 'x', 500000);
    snprintf(large, 16, "large0123456789");
    large[15] = 'x';
    memcpy(large + 499997, "end", 4);
    put(&home, large, &ref);
    free(large);
    run(&home);
    assert_int_equal(number(&home, "select count(*) from nested where word like 'one %'"), 2500);
    assert_int_equal(number(&home, "select count(*) from nested where word like 'word %'"), 2500);
    assert_int_equal(number(&home, "select count(*) from nested where word in ("
                                   "'large0123456500000', 'headed 01234500002', 'ded 0123', "
                                   "'0123', 'end', 'Hed 01234567400001')"), 6);
    verify(&home);
    home_close(&home);
}

/* Large items that are cut into large parts, and behind their batch more small ones than fit the
 * window: what waits for the batch must not take the room of what the batch waits for. */
static void parts_find_room_beside_the_next_batch(void **state)
{
    static const char text[] =
        "return { name = 'tree', splits = true, limits = { parts = 100000 },\n"
        "  tables = { leaf = { columns = { 'word text' } } },\n"
        "  map = function(blob, emit)\n"
        "    local k = blob:sub(1, 20):match('^tree (%d+)')\n"
        "    for n = 1, k and 30 or 0 do\n"
        "      emit.part { head = ('limb %d %d '):format(k, n), offset = 10,\n"
        "        size = 300000, media = 'a/b' }\n"
        "    end\n"
        "    local limb = blob:sub(1, 20):match('^limb (%d+ %d+)')\n"
        "    for n = 1, limb and 80 or 0 do\n"
        "      emit.part { bytes = ('leaf %s %d'):format(limb, n), media = 'c/d' }\n"
        "    end\n"
        "    if blob.size < 40 then emit.leaf { word = blob:content() } end\n"
        "  end }\n";
    struct home home;
    struct rf_index_options options;
    struct rf_blobref ref;
    char *large = malloc(400001), small[32];

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "tree", text);
    memset(large, 'x', 400000);
    large[400000] = '\0';
    for (int i = 0; i < 6; i++) {
        snprintf(large, 10, "tree %d", i);
        large[strlen(large)] = ' ';
        put(&home, large, &ref);
    }
    free(large);
    for (int i = 0; i < 6000; i++) {
        snprintf(small, sizeof small, "small %d", i);
        put(&home, small, &ref);
    }
    options = index_options(&home);
    options.batch_items = 2600;
    options.shuffle_seed = 7; /* whole blocks of units come into the window at once */
    run_with(&home, &options);
    assert_int_equal(number(&home, "select count(*) from leaf where word like 'leaf %'"),
                     6 * 30 * 80);
    assert_int_equal(number(&home, "select count(*) from leaf where word like 'small %'"), 6000);
    home_close(&home);
}

static void needs_park_and_wake(void **state)
{
    static const char text[] =
        "return { name = 'joined', match = { media = { 'application/json' } },\n"
        "  tables = { joined = { columns = { 'size int' } } },\n"
        "  map = function(blob, emit)\n"
        "    local d = blob:json()\n"
        "    if d.needs then emit.joined { size = blob:need(d.needs).size } end\n"
        "  end }\n";
    struct home home;
    struct rf_blobref ref, needed;
    char needed_text[RF_BLOBREF_SIZE], json[200];

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "joined", text);
    rf_blobref_of(&needed, rf_bytes_text("what is needed"));
    rf_blobref_format(&needed, needed_text);
    snprintf(json, sizeof json, "{\"needs\":\"%s\"}", needed_text);
    put(&home, json, &ref);
    run(&home);
    assert_int_equal(number(&home, "select count(*) from joined"), 0);
    verify(&home);
    put(&home, "what is needed", &needed);
    run(&home);
    assert_int_equal(number(&home, "select size from joined"), 14);
    verify(&home);
    delete(&home, &needed);
    run(&home);
    assert_int_equal(number(&home, "select count(*) from joined"), 0);
    verify(&home);
    put(&home, "what is needed", &needed);
    run(&home);
    assert_int_equal(number(&home, "select count(*) from joined"), 1);
    verify(&home);
    home_close(&home);
}

static void file_blobs_are_items_of_their_own(void **state)
{
    static const char text[] =
        "return { name = 'named', on = 'file',\n"
        "  tables = { named = { columns = { 'name text', 'size int', 'head text' } } },\n"
        "  map = function(blob, emit)\n"
        "    emit.named { name = blob.name, size = blob.size, head = blob:sub(1, 5) }\n"
        "  end }\n";
    struct home home;
    struct rf_put_file_result one, two;
    char path[400];
    FILE *file;

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "named", text);
    snprintf(path, sizeof path, "%s/content", home.path);
    file = fopen(path, "w");
    for (int i = 0; i < 300000; i++) /* 6.3 MB: several chunks, read by range */
        fprintf(file, "line %d of the content\n", i % 1000);
    fclose(file);
    OK(rf_put_file(home.store, path, "first.txt", NULL, &one, err));
    OK(rf_put_file(home.store, path, "second.txt", NULL, &two, err));
    run(&home);
    assert_int_equal(number(&home, "select count(*) from named where head = 'line '"), 2);
    assert_int_equal(number(&home, "select count(distinct size) from named"), 1);
    verify(&home);
    delete(&home, &one.ref);
    run(&home);
    assert_int_equal(number(&home, "select count(*) from named where name = 'first.txt'"), 0);
    assert_int_equal(number(&home, "select count(*) from named"), 1);
    verify(&home);
    home_close(&home);
}

static void rebuild_gives_the_same(void **state)
{
    struct home home;
    struct rf_index_options options;
    struct rf_blobref ref;
    struct rf_digest before, after;

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "notes", notes_v1);
    set_mapper(&home, 1, "lines", lines);
    for (int i = 0; i < 30; i++) {
        char text[200];

        snprintf(text, sizeof text,
                 "#lines\n{\"title\":\"t%d\",\"n\":%d}\n{\"title\":\"x\",\"n\":5}", i, i);
        put(&home, text, &ref);
    }
    run(&home);
    OK(rf_query_digest(home.sink_url, NULL, &before, err));
    options = index_options(&home);
    options.rebuild = true;
    run_with(&home, &options);
    OK(rf_query_digest(home.sink_url, NULL, &after, err));
    assert_string_equal(before.hex, after.hex);
    verify(&home);
    home_close(&home);
}

static void one_verify_at_a_time(void **state)
{
    struct rf_compare_report report = {0};
    struct rf_index_options options;
    struct rf_error why = {0};
    struct rf_blobref ref;
    struct home home;
    char url[600];
    int hold;

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "notes", notes_v1);
    put(&home, "{\"title\":\"one\",\"n\":1}", &ref);
    run(&home);
    options = index_options(&home);
    snprintf(url, sizeof url, "%s" RF_INDEX_VERIFY_SUFFIX, home.sink_url);
    OK(rf_index_verify_hold(url, &hold, err));
    assert_int_equal(rf_index_verify(&options, NULL, &report, &why), RF_LOCKED);
    assert_non_null(strstr(why.message, "is being verified by"));
    rf_index_verify_release(url, hold);
    verify(&home);
    home_close(&home);
}

/* ---- random histories ---- */

#define WORDS 40 /* distinct documents a history draws from */

struct model {
    bool there[WORDS];
    struct rf_blobref refs[WORDS];
};

static uint64_t next_random(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

/* Document k: even ones are a note; odd ones are lines, some of them equal to notes and to lines
 * of others. */
static void document(int k, char out[400])
{
    if (k % 2 == 0)
        snprintf(out, 400, "{\"title\":\"note %d\",\"n\":%d}", k, k);
    else
        snprintf(out, 400,
                 "#lines\n{\"title\":\"note %d\",\"n\":%d}\n{\"title\":\"part %d\",\"n\":%d}\n",
                 k - 1, k - 1, k / 4, 100 + k / 4);
}

/* What `notes` must hold: items are a bare note, a part equal to it by bytes (its own item), and
 * parts shared by two documents. */
static void expect(const struct model *model, int64_t *rows, int64_t *sum)
{
    bool part_note[WORDS] = {false}, part[WORDS] = {false};

    *rows = *sum = 0;
    for (int k = 0; k < WORDS; k++) {
        if (!model->there[k])
            continue;
        if (k % 2 == 0) {
            *rows += 1;
            *sum += k;
        } else {
            part_note[k - 1] = true;
            part[k / 4] = true;
        }
    }
    for (int k = 0; k < WORDS; k++) {
        *rows += part_note[k] + part[k];
        *sum += part_note[k] * k + part[k] * (100 + k);
    }
}

static void history(uint64_t seed)
{
    struct home home;
    struct model model = {0};
    uint64_t random = seed * 0x9e3779b97f4a7c15u + 1;
    int version = 1;
    int64_t rows, sum;

    home_open(&home);
    set_mapper(&home, 0, "notes", notes_v1);
    set_mapper(&home, 1, "lines", lines);
    for (int step = 0; step < 60; step++) {
        int k = (int)(next_random(&random) % WORDS);
        char text[400];

        document(k, text);
        switch (next_random(&random) % 10) {
        case 0: case 1: case 2: case 3: case 4:
            put(&home, text, &model.refs[k]);
            model.there[k] = true;
            break;
        case 5: case 6: case 7:
            if (model.there[k])
                delete(&home, &model.refs[k]);
            model.there[k] = false;
            break;
        case 8:
            run(&home);
            expect(&model, &rows, &sum);
            assert_int_equal(number(&home, "select count(*) from notes"), rows);
            assert_int_equal(number(&home, "select coalesce(sum(num), 0) from notes"), sum);
            break;
        case 9:
            version = 3 - version;
            set_mapper(&home, 0, "notes", version == 1 ? notes_v1 : notes_v2);
            break;
        }
    }
    run(&home);
    expect(&model, &rows, &sum);
    assert_int_equal(number(&home, "select count(*) from notes"), rows);
    assert_int_equal(number(&home, "select coalesce(sum(num), 0) from notes"), sum);
    verify(&home);
    home_close(&home);
}

static void random_histories_end_equal(void **state)
{
    const char *given = getenv("REFUGE_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);

    (void)state;
    for (int i = 0; i < (given ? 1 : 3); i++) {
        print_message("history of REFUGE_TEST_SEED=%" PRIu64 "\n", seed + (uint64_t)i);
        history(seed + (uint64_t)i);
    }
}

#define EVERY_SINK                                                                              \
    cmocka_unit_test(rows_follow_puts_and_deletes),                                             \
        cmocka_unit_test(versions_of_a_mapper_live_side_by_side),                               \
        cmocka_unit_test(a_failing_call_costs_itself_only),                                     \
        cmocka_unit_test(a_changed_mapper_is_swapped_in),                                       \
        cmocka_unit_test(a_part_lives_while_something_reaches_it),                              \
        cmocka_unit_test(parts_have_parts),                                                     \
        cmocka_unit_test(needs_park_and_wake),                                                  \
        cmocka_unit_test(file_blobs_are_items_of_their_own),                                    \
        cmocka_unit_test(rebuild_gives_the_same),                                               \
        cmocka_unit_test(random_histories_end_equal)

int main(void)
{
    const struct CMUnitTest sqlite[] = {
        EVERY_SINK,
        cmocka_unit_test(parts_find_room_beside_the_next_batch),
        cmocka_unit_test(one_verify_at_a_time),
    };
    const struct CMUnitTest server[] = {EVERY_SINK};

    return run_over_kinds("index", KIND_TESTS(sqlite), KIND_TESTS(server), KIND_TESTS(server));
}
