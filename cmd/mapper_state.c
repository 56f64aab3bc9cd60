/*
 * mapper_state.c - how the mapper files of an index stand against what it runs
 *
 *   current   the file is what the index runs       changed   the next run builds its tables anew
 *   building  a lane beside the live one has it     new       the next run makes its tables
 *   broken    it does not load: what runs goes on   removed   the next run drops its tables, if
 *                                                             there is another mapper at all
 *   double    another mapper has its name           unknown   the jail does not start
 *   misfit    it cannot stand beside the others: what runs goes on
 */
#include "cmd/mapper_state.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/settings.h"
#include "core/json.h"
#include "core/utf8.h"
#include "indexer/plan.h"

struct state {
    char name[RF_NAME_MAX + 1];
    const char *state;
    const char *identity; /* of the version that runs, or NULL */
    const struct rf_decl *decl; /* of one that loaded, or NULL */
    char *message;        /* of a broken one, a misfit or one that is removed, or NULL */
};

struct states {
    struct rf_cli *cli;
    const struct rf_index_home *index;
    struct rf_sink *sink;
    const struct rf_sink_lane *lanes;
    size_t lane_count;
    struct rf_arena arena;
    struct rf_plan plan;
    struct state *list;
    size_t count;
};

static const struct rf_sink_mapper *find_in_lane(const struct rf_sink_lane *lane, const char *name)
{
    for (size_t i = 0; i < lane->mapper_count; i++) {
        if (strcmp(lane->mappers[i].decl->name, name) == 0)
            return &lane->mappers[i];
    }
    return NULL;
}

static const struct rf_sink_lane *live_lane(const struct states *states)
{
    return states->lane_count && states->lanes[0].live ? &states->lanes[0] : NULL;
}

/* Whether a lane beside the live one is made of this version. */
static bool is_building(const struct states *states, const char *name, const char *identity)
{
    for (size_t i = 0; i < states->lane_count; i++) {
        const struct rf_sink_mapper *one = find_in_lane(&states->lanes[i], name);

        if (!states->lanes[i].live && one && strcmp(one->identity, identity) == 0)
            return true;
    }
    return false;
}

static struct state *find_state(const struct states *states, const char *name)
{
    for (size_t i = 0; i < states->count; i++) {
        if (strcmp(states->list[i].name, name) == 0)
            return &states->list[i];
    }
    return NULL;
}

/* The newest version that the index runs. */
static const char *running_identity(const struct states *states,
                                    const struct rf_sink_mapper *running)
{
    const struct rf_plan_mapper *chain = rf_plan_find(&states->plan, running->decl->name);

    return chain ? rf_plan_newest(chain)->identity : running->identity;
}

static struct state *add_state(struct states *states, const char *name, const char *state)
{
    const struct rf_sink_lane *live = live_lane(states);
    const struct rf_sink_mapper *running = live ? find_in_lane(live, name) : NULL;
    struct state *out = &states->list[states->count++];

    snprintf(out->name, sizeof out->name, "%s", name);
    out->state = state;
    out->identity = running ? running_identity(states, running) : NULL;
    out->message = NULL;
    out->decl = NULL;
    return out;
}

/* ---- what the files are ---- */

static void add_loaded(struct states *states, const struct rf_mapper *mapper)
{
    const char *name = rf_mapper_decl(mapper)->name, *identity = rf_mapper_identity(mapper);
    struct state *one;

    if (find_state(states, name)) {
        add_state(states, name, "double");
        return;
    }
    one = add_state(states, name, "new");
    one->decl = rf_mapper_decl(mapper);
    if (one->identity && strcmp(one->identity, identity) == 0)
        one->state = "current";
    else if (is_building(states, name, identity))
        one->state = "building";
    else if (one->identity)
        one->state = "changed";
}

/* The index remembers which mapper a file was when it loaded last. */
static void add_broken(struct states *states, const char *path, const struct rf_error *err)
{
    char *fact = rf_text_join("mapper:", path, ""), name[RF_NAME_MAX + 1];
    const char *known;
    struct state *one;

    rf_mapper_path_name(path, name, sizeof name);
    if (rf_sink_get_fact(states->sink, &states->arena, fact, &known, NULL) == RF_OK)
        snprintf(name, sizeof name, "%s", known);
    one = add_state(states, name, "broken");
    one->message = rf_arena_copy(&states->arena, err->message, strlen(err->message));
    free(fact);
}

/* As a run does it: what runs as it is goes first. */
static void find_misfits(struct states *states)
{
    struct rf_index_room room = {.count = 0};

    for (int changed = 0; changed <= 1; changed++) {
        for (size_t i = 0; i < states->count; i++) {
            struct state *one = &states->list[i];
            struct rf_error why = {0};

            if (!one->decl || (strcmp(one->state, "current") != 0) != (bool)changed ||
                rf_index_room_take(&room, one->decl, &why) == RF_OK)
                continue;
            one->state = "misfit";
            one->message = rf_arena_copy(&states->arena, why.message, strlen(why.message));
        }
    }
}

static void load_files(struct states *states, struct rf_pool *pool, char **paths, size_t count)
{
    for (size_t i = 0; i < count && !rf_stop_asked(); i++) {
        struct rf_mapper *mapper;
        struct rf_error err = {0};

        if (rf_pool_load(pool, paths[i], &mapper, &err) == RF_OK)
            add_loaded(states, mapper);
        else
            add_broken(states, paths[i], &err);
    }
    find_misfits(states);
}

/* Whether the next run has something to run: a file that loads, or the version before of one that
 * does not. */
static bool has_mappers(const struct states *states)
{
    for (size_t i = 0; i < states->count; i++) {
        const struct state *one = &states->list[i];

        if (one->decl ? strcmp(one->state, "misfit") != 0 || one->identity : one->identity != NULL)
            return true;
    }
    return false;
}

static bool is_bundled(const char *name)
{
    for (size_t i = 0; rf_pool_bundled(i); i++) {
        if (strcmp(rf_pool_bundled(i), name) == 0)
            return true;
    }
    return false;
}

/* A mapper that runs and is not among those of the index any more. */
static void add_removed(struct states *states, const char *name, bool others)
{
    const struct rf_settings *settings = states->cli->settings;
    struct state *one = add_state(states, name, "removed");
    const char *why = "its file is gone", *const *disabled;
    size_t count = rf_settings_disabled(settings, &disabled);
    char words[128];
    int size;

    if (states->index->definition.mappers)
        why = "the index does not name it any more";
    else if (is_bundled(name) && !rf_settings_bundled(settings))
        why = "mappers.bundled is false";
    for (size_t i = 0; !states->index->definition.mappers && i < count; i++) {
        if (strcmp(disabled[i], name) == 0)
            why = "mappers.disabled names it";
    }
    size = snprintf(words, sizeof words, "%s: %s", why,
                    others ? "the next run drops its tables"
                           : "no mapper is left, so a run fails and its tables stay");
    one->message = rf_arena_copy(&states->arena, words, (size_t)size);
}

static void find_states(struct states *states)
{
    struct rf_pool_options options = {.program = rf_mapper_program(), .workers = 1};
    const struct rf_sink_lane *live = live_lane(states);
    struct rf_error err = {0};
    struct rf_pool *pool = NULL;
    size_t count;
    char **paths = rf_index_mapper_paths(states->cli, states->index, &count);
    bool known = rf_pool_open(&pool, &options, &err) == RF_OK, others;

    states->list = rf_arena_alloc(&states->arena, (count + (live ? live->mapper_count : 0) + 1) *
                                                      sizeof *states->list);
    if (known)
        load_files(states, pool, paths, count);
    else
        rf_warn(states->cli, "%s", err.message);
    others = has_mappers(states);
    for (size_t i = 0; live && i < live->mapper_count; i++) {
        const char *name = live->mappers[i].decl->name;

        if (!find_state(states, name) && known)
            add_removed(states, name, others);
        else if (!find_state(states, name))
            add_state(states, name, "unknown");
    }
    rf_pool_close(pool);
    rf_names_free(paths, count);
}

/* ---- telling ---- */

static const char *words_of(const struct state *one)
{
    static const struct {
        const char *state, *words;
    } all[] = {
        {"current", ""},
        {"changed", "its file changed: the next run builds it anew"},
        {"building", "its new version is being built"},
        {"new", "the next run builds it"},
        {"removed", ""},
        {"double", "another mapper has this name: left out"},
        {"unknown", "its file was not looked at"},
    };

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i].state, one->state) == 0)
            return all[i].words;
    }
    if (strcmp(one->state, "misfit") == 0)
        return one->identity ? "left out, the version before goes on: " : "left out: ";
    return one->identity ? "its file is broken, the version before goes on: "
                         : "its file is broken and left out: ";
}

static void print_state(struct rf_cli *cli, const struct state *one)
{
    const char *words = words_of(one);

    rf_out_printf(cli, "            %s", one->name);
    if (one->identity)
        rf_out_printf(cli, " %.12s", one->identity);
    rf_out_printf(cli, "%s%s", words[0] || one->message ? ", " : "", words);
    if (one->message)
        rf_out_word(cli, rf_bytes_text(one->message));
    rf_out_printf(cli, "\n");
}

static void put_member(struct rf_buf *buf, const char *key, const char *value)
{
    struct rf_buf clean;

    rf_buf_printf(buf, "%s\"%s\":", buf->data[buf->size - 1] == '{' ? "" : ",", key);
    rf_buf_init(&clean, RF_ERROR_SIZE * 4);
    if (value)
        rf_utf8_clean(&clean, rf_bytes_text(value), false, NULL, NULL);
    if (value)
        rf_json_put_string(buf, rf_buf_bytes(&clean));
    else
        rf_buf_put_text(buf, "null");
    rf_buf_release(&clean);
}

static void print_json(struct states *states)
{
    struct rf_buf buf;

    rf_buf_init(&buf, (size_t)16 << 20);
    rf_buf_put_u8(&buf, '[');
    for (size_t i = 0; i < states->count; i++) {
        const struct state *one = &states->list[i];

        rf_buf_put_text(&buf, i ? ",{" : "{");
        put_member(&buf, "mapper", one->name);
        put_member(&buf, "identity", one->identity);
        put_member(&buf, "state", one->state);
        put_member(&buf, "message", one->message);
        rf_buf_put_u8(&buf, '}');
    }
    rf_buf_put_u8(&buf, ']');
    rf_out_raw(&states->cli->out, "mappers", rf_buf_bytes(&buf));
    rf_buf_release(&buf);
}

void rf_mapper_states_print(struct rf_cli *cli, const struct rf_index_home *index,
                            struct rf_sink *sink, const struct rf_sink_lane *lanes, size_t count)
{
    struct states states = {.cli = cli, .index = index, .sink = sink, .lanes = lanes,
                            .lane_count = count};

    rf_arena_init(&states.arena, (size_t)64 << 20);
    if (rf_plan_of_live(sink, &states.arena, lanes, count, &states.plan, NULL) != RF_OK)
        states.plan.count = 0;
    find_states(&states);
    for (size_t i = 0; i < states.count; i++)
        print_state(cli, &states.list[i]);
    if (states.count == 0)
        rf_out_printf(cli, "            no mapper is in use; 'refuge mapper new NAME' begins "
                           "one\n");
    if (cli->out.json)
        print_json(&states);
    rf_arena_release(&states.arena);
}

enum rf_status rf_mapper_running(struct rf_mapper **out, struct rf_pool *pool,
                                 const struct rf_index_home *index, const char *name,
                                 struct rf_error *err)
{
    const struct rf_sink_mapper *running = NULL;
    struct rf_sink_options options = {0};
    struct rf_sink_lane *lanes = NULL;
    struct rf_sink *sink = NULL;
    struct rf_arena arena;
    struct rf_plan plan = {0};
    struct rf_bytes bundle = {0};
    size_t count = 0;
    enum rf_status status;

    rf_arena_init(&arena, (size_t)256 << 20);
    status = rf_sink_open(&sink, index->url, &options, err);
    if (status == RF_OK)
        status = rf_sink_lanes(sink, &arena, &lanes, &count, err);
    if (status == RF_OK && count && lanes[0].live)
        running = find_in_lane(&lanes[0], name);
    if (status == RF_OK && !running)
        status = rf_error_set(err, RF_NOT_FOUND, "index '%s' runs no mapper '%s'", index->name,
                              name);
    if (status == RF_OK)
        status = rf_plan_of_live(sink, &arena, lanes, count, &plan, err);
    if (status == RF_OK) {
        const struct rf_plan_mapper *chain = rf_plan_find(&plan, name);

        bundle = running->bundle;
        if (chain && chain->count > 1)
            status = rf_plan_text(sink, &arena, rf_plan_newest(chain)->identity, &bundle, err);
    }
    if (status == RF_OK)
        status = rf_pool_load_bundle(pool, bundle, out, err);
    rf_sink_close(sink);
    rf_arena_release(&arena);
    return status;
}
