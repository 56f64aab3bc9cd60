/*
 * sink_elastic.c - an index in an Elasticsearch 8 or OpenSearch 2 cluster: opening, the state
 * document, who writes, facts
 *
 * WHO WRITES. There are no locks. The state document names who writes: the machine, the process and
 * when it started. On the same machine that process is looked for; on another one it counts for
 * LEASE_US after it last wrote the state. This is for people: two that meet are told so. What keeps
 * them apart in truth is the epoch (sink_elastic.h).
 */
#include "sinks/sink_elastic.h"

#include "core/control.h"
#include "core/utf8.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LEASE_US 120000000
#define LOCK_POLL_MS 20
#define STATE_MAX ((size_t)32 << 20)
#define WORDS_MAX 4096

/* ---- small things ---- */

int64_t rf_elastic_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void *rf_elastic_grow(void *items, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return items;
    *room = *room ? 2 * *room : 64;
    items = realloc(items, *room * size);
    if (!items)
        abort();
    return items;
}

void rf_elastic_put_words(struct rf_buf *out, const char *words)
{
    struct rf_bytes text = rf_bytes(words, words ? strnlen(words, WORDS_MAX) : 0);
    struct rf_buf clean;

    if (!words) {
        rf_buf_put_text(out, "null");
        return;
    }
    if (rf_utf8_valid(text) == text.size) {
        rf_json_put_string(out, text);
        return;
    }
    rf_buf_init(&clean, 4 * WORDS_MAX);
    rf_utf8_clean(&clean, text, true, NULL, NULL);
    rf_json_put_string(out, rf_bytes(clean.data ? clean.data : (const uint8_t *)"", clean.size));
    rf_buf_release(&clean);
}

void rf_elastic_put_gens(struct rf_buf *out, const struct rf_el_lane *lane)
{
    rf_buf_put_u8(out, '[');
    for (size_t i = 0; lane && i < lane->mapper_count; i++)
        rf_buf_printf(out, "%s%lld", i ? "," : "", (long long)lane->mappers[i].gen);
    rf_buf_put_u8(out, ']');
}

bool rf_elastic_is_done(const struct rf_elastic *sink, uint64_t number)
{
    const struct rf_el_state *state = &sink->state;

    if (number > state->done)
        return false;
    for (size_t i = state->aborted_count; i-- > 0 && number <= state->aborted[i].last;)
        if (number >= state->aborted[i].first)
            return false;
    return true;
}

void rf_elastic_give_up(struct rf_el_state *state, uint64_t first, uint64_t last)
{
    struct rf_el_range *end = state->aborted_count ? &state->aborted[state->aborted_count - 1]
                                                   : NULL;

    if (end && first <= end->last + 1) {
        end->last = last > end->last ? last : end->last;
        return;
    }
    if (state->aborted_count == RF_EL_ABORTED_MAX) { /* the oldest: their writers are long gone */
        memmove(state->aborted, state->aborted + 1,
                (RF_EL_ABORTED_MAX - 1) * sizeof *state->aborted);
        state->aborted_count--;
    }
    state->aborted[state->aborted_count++] = (struct rf_el_range){first, last};
}

const struct rf_el_mapper *rf_elastic_mapper_of(const struct rf_el_state *state, int64_t gen)
{
    for (size_t i = 0; i < state->lane_count; i++)
        for (size_t k = 0; k < state->lanes[i]->mapper_count; k++)
            if (state->lanes[i]->mappers[k].gen == gen)
                return &state->lanes[i]->mappers[k];
    return NULL;
}

/* ---- this process ---- */

static void first_line(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, out, size - 1) : -1;

    if (fd >= 0)
        close(fd);
    out[got > 0 ? got : 0] = '\0';
}

/* When a process started, in ticks since boot; 0: there is none, or it only waits to be reaped. */
static int64_t start_of(int64_t pid)
{
    char path[64], text[1024], state = 'Z';
    unsigned long long start = 0;
    const char *at;

    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    first_line(path, text, sizeof text);
    at = strrchr(text, ')'); /* behind the name, which may hold anything */
    if (!at || sscanf(at + 1, " %c", &state) != 1 || state == 'Z' || state == 'X')
        return 0;
    if (sscanf(at + 1,
               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &start) != 1)
        return 0;
    return (int64_t)start;
}

/* This boot of this machine. */
static void machine_name(char out[72])
{
    first_line("/proc/sys/kernel/random/boot_id", out, 72);
    out[strcspn(out, "\n")] = '\0';
}

static void describe_self(struct rf_el_owner *self, uint64_t token)
{
    char line[sizeof self->program] = "", host[64] = "";
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, line, 60) : -1;

    if (fd >= 0)
        close(fd);
    for (ssize_t i = 0; i + 1 < got; i++)
        line[i] = line[i] ? line[i] : ' ';
    gethostname(host, sizeof host - 1);
    *self = (struct rf_el_owner){.pid = getpid(), .start = start_of(getpid())};
    /* Two sinks of one process are two writers, though their token be the same. */
    snprintf(self->token, sizeof self->token, "%016llx", (unsigned long long)token);
    snprintf(self->program, sizeof self->program, "%.60s on %.60s", line, host);
    machine_name(self->machine);
}

static bool is_alive(const struct rf_el_owner *owner)
{
    char machine[sizeof owner->machine];
    int64_t now = rf_elastic_now();

    machine_name(machine);
    if (machine[0] && strcmp(machine, owner->machine) == 0) {
        int64_t start = start_of(owner->pid);
        return start && (!owner->start || start == owner->start);
    }
    return now - owner->renewed < LEASE_US && owner->renewed - now < LEASE_US;
}

static enum rf_status locked(const struct rf_elastic *sink, struct rf_error *err)
{
    const struct rf_el_owner *owner = &sink->state.owner;

    return rf_error_set(err, RF_LOCKED, "index '%s' is being written by process %lld (%s)",
                        rf_es_name(sink->es), (long long)owner->pid, owner->program);
}

/* ---- the state as JSON ---- */

static void put_text_member(struct rf_buf *out, const char *key, const char *value)
{
    rf_buf_printf(out, "\"%s\":", key);
    rf_elastic_put_words(out, value);
}

static void put_lane(struct rf_buf *out, const struct rf_el_lane *lane)
{
    static const char *const states[] = {[RF_EL_LIVE] = "live", [RF_EL_BUILDING] = "building",
                                         [RF_EL_DROPPING] = "dropping"};

    rf_buf_printf(out, "{\"id\":%u,\"state\":\"%s\",\"full\":%s,\"ready\":%s,\"started\":%lld,",
                  (unsigned)lane->id, states[lane->state], lane->full ? "true" : "false",
                  lane->ready ? "true" : "false", (long long)lane->started);
    put_text_member(out, "position", lane->position);
    rf_buf_put_u8(out, ',');
    put_text_member(out, "writer", lane->writer);
    rf_buf_put_text(out, ",\"lost\":[");
    for (size_t i = 0; i < lane->lost_count; i++)
        rf_buf_printf(out, "%s[%" PRIu64 ",%" PRIu64 "]", i ? "," : "", lane->lost[i].first,
                      lane->lost[i].last);
    rf_buf_put_text(out, "],\"mappers\":[");
    for (size_t i = 0; i < lane->mapper_count; i++)
        rf_buf_printf(out, "%s{\"gen\":%lld,\"identity\":\"%s\",\"edges_only\":%s}", i ? "," : "",
                      (long long)lane->mappers[i].gen, lane->mappers[i].identity,
                      lane->mappers[i].edges_only ? "true" : "false");
    rf_buf_put_text(out, "]}");
}

static void put_owner(struct rf_buf *out, const struct rf_el_owner *owner)
{
    rf_buf_printf(out, "{\"pid\":%lld,\"start\":%lld,\"renewed\":%lld,", (long long)owner->pid,
                  (long long)owner->start, (long long)owner->renewed);
    put_text_member(out, "token", owner->token);
    rf_buf_put_u8(out, ',');
    put_text_member(out, "machine", owner->machine);
    rf_buf_put_u8(out, ',');
    put_text_member(out, "program", owner->program);
    rf_buf_put_u8(out, '}');
}

static void put_state(struct rf_buf *out, const struct rf_el_state *state)
{
    rf_buf_printf(out, "{\"kind\":\"state\",\"body\":{\"format\":%d,\"epoch\":%" PRIu64
                       ",\"done\":%" PRIu64 ",\"next_lane\":%u,\"next_gen\":%lld,\"aliases\":%s,",
                  RF_ELASTIC_FORMAT, state->epoch, state->done, (unsigned)state->next_lane,
                  (long long)state->next_gen, state->aliases ? "true" : "false");
    rf_buf_put_text(out, "\"owner\":");
    if (state->owned)
        put_owner(out, &state->owner);
    else
        rf_buf_put_text(out, "null");
    rf_buf_put_text(out, ",\"aborted\":[");
    for (size_t i = 0; i < state->aborted_count; i++)
        rf_buf_printf(out, "%s[%" PRIu64 ",%" PRIu64 "]", i ? "," : "", state->aborted[i].first,
                      state->aborted[i].last);
    rf_buf_put_text(out, "],\"lanes\":[");
    for (size_t i = 0; i < state->lane_count; i++) {
        rf_buf_put_text(out, i ? "," : "");
        put_lane(out, state->lanes[i]);
    }
    rf_buf_put_text(out, "],\"doomed\":[");
    for (size_t i = 0; i < state->doomed_count; i++) {
        rf_buf_printf(out, "%s{\"gen\":%lld,\"tables\":[", i ? "," : "",
                      (long long)state->doomed[i].gen);
        for (size_t k = 0; k < state->doomed[i].table_count; k++)
            rf_buf_printf(out, "%s\"%s\"", k ? "," : "", state->doomed[i].tables[k]);
        rf_buf_put_text(out, "]}");
    }
    rf_buf_put_text(out, "],\"facts\":[");
    for (size_t i = 0; i < state->fact_count; i++) {
        rf_buf_put_text(out, i ? ",{" : "{");
        put_text_member(out, "name", state->facts[i].name);
        rf_buf_put_text(out, ",\"value\":");
        rf_json_put_string(out, rf_bytes_text(state->facts[i].value));
        rf_buf_put_u8(out, '}');
    }
    rf_buf_put_text(out, "]}}");
}

/* ---- and back ---- */

static int64_t int_of(const struct rf_json *object, const char *key)
{
    int64_t value = 0;

    return rf_json_int(rf_json_find(object, key), &value) ? value : 0;
}

static bool bool_of(const struct rf_json *object, const char *key)
{
    const struct rf_json *value = rf_json_find(object, key);

    return value && value->type == RF_JSON_TRUE;
}

static const char *text_of(const struct rf_json *object, const char *key)
{
    const char *text = rf_json_string(rf_json_find(object, key));

    return text ? text : "";
}

static const struct rf_json *list_of(const struct rf_json *object, const char *key)
{
    static const struct rf_json none = {.type = RF_JSON_ARRAY};
    const struct rf_json *list = rf_json_find(object, key);

    return list && list->type == RF_JSON_ARRAY ? list : &none;
}

static char *keep(struct rf_arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;

    return memcpy(rf_arena_alloc(arena, size), text, size);
}

enum rf_status (rf_elastic_damaged)(const struct rf_elastic *sink, const char *what,
                                    struct rf_error *err)
{
    return rf_error_set(err, RF_UNSOUND,
                        "index '%s' is damaged: %s; remove it by 'refuge index drop' and make it "
                        "again",
                        rf_es_name(sink->es), what);
}

static void read_pairs(const struct rf_json *list, struct rf_el_range *out, size_t max,
                       size_t *count)
{
    *count = 0;
    for (size_t i = 0; i < list->count && *count < max; i++) {
        int64_t first = 0, last = 0;
        if (list->items[i].type == RF_JSON_ARRAY && list->items[i].count == 2 &&
            rf_json_int(&list->items[i].items[0], &first) &&
            rf_json_int(&list->items[i].items[1], &last))
            out[(*count)++] = (struct rf_el_range){(uint64_t)first, (uint64_t)last};
    }
}

static struct rf_el_lane *read_lane(struct rf_el_state *state, const struct rf_json *json)
{
    const struct rf_json *mappers = list_of(json, "mappers"), *lost = list_of(json, "lost");
    const char *name = text_of(json, "state");
    struct rf_el_lane *lane = rf_arena_alloc(&state->arena, sizeof *lane);
    struct rf_el_range *ranges =
        rf_arena_alloc(&state->arena, (lost->count + 1) * sizeof *ranges);

    lane->id = (uint32_t)int_of(json, "id");
    lane->state = strcmp(name, "live") == 0       ? RF_EL_LIVE
                  : strcmp(name, "building") == 0 ? RF_EL_BUILDING
                                                  : RF_EL_DROPPING;
    lane->full = bool_of(json, "full");
    lane->ready = bool_of(json, "ready");
    lane->started = int_of(json, "started");
    snprintf(lane->position, sizeof lane->position, "%s", text_of(json, "position"));
    snprintf(lane->writer, sizeof lane->writer, "%s", text_of(json, "writer"));
    read_pairs(lost, ranges, lost->count, &lane->lost_count);
    lane->lost = rf_arena_alloc(&state->arena, (lane->lost_count + 1) * sizeof *lane->lost);
    for (size_t i = 0; i < lane->lost_count; i++)
        lane->lost[i] = (struct rf_el_lost){ranges[i].first, ranges[i].last};
    lane->mappers = rf_arena_alloc(&state->arena, (mappers->count + 1) * sizeof *lane->mappers);
    for (size_t i = 0; i < mappers->count; i++)
        lane->mappers[lane->mapper_count++] = (struct rf_el_mapper){
            .gen = int_of(&mappers->items[i], "gen"),
            .identity = keep(&state->arena, text_of(&mappers->items[i], "identity")),
            .edges_only = bool_of(&mappers->items[i], "edges_only")};
    return lane;
}

static void read_owner(struct rf_el_state *state, const struct rf_json *json)
{
    struct rf_el_owner *owner = &state->owner;

    state->owned = json && json->type == RF_JSON_OBJECT;
    *owner = (struct rf_el_owner){.pid = int_of(json, "pid"), .start = int_of(json, "start"),
                                  .renewed = int_of(json, "renewed")};
    snprintf(owner->token, sizeof owner->token, "%s", text_of(json, "token"));
    snprintf(owner->machine, sizeof owner->machine, "%s", text_of(json, "machine"));
    snprintf(owner->program, sizeof owner->program, "%s", text_of(json, "program"));
}

static void read_doomed(struct rf_el_state *state, const struct rf_json *list)
{
    state->doomed = rf_arena_alloc(&state->arena, (list->count + 1) * sizeof *state->doomed);
    for (size_t i = 0; i < list->count; i++) {
        const struct rf_json *tables = list_of(&list->items[i], "tables");
        struct rf_el_doomed *doomed = &state->doomed[state->doomed_count++];
        doomed->gen = int_of(&list->items[i], "gen");
        doomed->tables =
            rf_arena_alloc(&state->arena, (tables->count + 1) * sizeof *doomed->tables);
        for (size_t k = 0; k < tables->count; k++)
            if (rf_json_string(&tables->items[k]))
                doomed->tables[doomed->table_count++] =
                    keep(&state->arena, rf_json_string(&tables->items[k]));
    }
}

static void read_facts(struct rf_el_state *state, const struct rf_json *list)
{
    state->facts = rf_arena_alloc(&state->arena, (list->count + 1) * sizeof *state->facts);
    for (size_t i = 0; i < list->count; i++)
        state->facts[state->fact_count++] =
            (struct rf_el_fact){keep(&state->arena, text_of(&list->items[i], "name")),
                                keep(&state->arena, text_of(&list->items[i], "value"))};
}

static enum rf_status read_state(struct rf_elastic *sink, const struct rf_json *doc,
                                 struct rf_error *err)
{
    struct rf_el_state *state = &sink->state;
    const struct rf_json *body = rf_json_find(rf_json_find(doc, "_source"), "body");
    const struct rf_json *lanes = list_of(body, "lanes"), *aborted = list_of(body, "aborted");
    int64_t format = int_of(body, "format");

    rf_arena_clear(&state->arena);
    state->lane_count = state->doomed_count = state->fact_count = 0;
    if (!body || !format)
        return rf_elastic_damaged(sink, "its state document is not what refuge wrote", err);
    if (format > RF_ELASTIC_FORMAT)
        return rf_error_set(err, RF_UNSUPPORTED,
                            "index '%s' is of format %lld, this program knows up to %d: use a "
                            "newer refuge",
                            rf_es_name(sink->es), (long long)format, RF_ELASTIC_FORMAT);
    if (lanes->count > RF_EL_LANES_MAX)
        return rf_elastic_damaged(sink, "its state document has too many lanes", err);
    state->seq_no = int_of(doc, "_seq_no");
    state->primary_term = int_of(doc, "_primary_term");
    state->epoch = (uint64_t)int_of(body, "epoch");
    state->done = (uint64_t)int_of(body, "done");
    state->next_lane = (uint32_t)int_of(body, "next_lane");
    state->next_gen = int_of(body, "next_gen");
    state->aliases = bool_of(body, "aliases");
    read_owner(state, rf_json_find(body, "owner"));
    read_pairs(aborted, state->aborted, RF_EL_ABORTED_MAX, &state->aborted_count);
    for (size_t i = 0; i < lanes->count; i++)
        state->lanes[state->lane_count++] = read_lane(state, &lanes->items[i]);
    read_doomed(state, list_of(body, "doomed"));
    read_facts(state, list_of(body, "facts"));
    return RF_OK;
}

/* ---- the mappers' declarations ---- */

/* What a lane keeps of a mapper's declaration is a copy: the state outlives who told of it. */
enum rf_status rf_elastic_keep_decl(struct rf_elastic *sink, struct rf_el_mapper *mapper,
                                    struct rf_bytes json, struct rf_error *err)
{
    struct rf_arena *arena = &sink->state.arena;
    const char *copy = rf_arena_copy(arena, json.data, json.size);
    struct rf_decl *decl = NULL;
    enum rf_status status =
        copy ? rf_decl_parse(&decl, arena, rf_bytes(copy, json.size), err)
             : rf_error_set(err, RF_LIMIT, "no memory for the declaration of a mapper");

    if (status)
        return rf_error_context(err, status, "the declaration of a mapper is damaged");
    mapper->decl = decl;
    mapper->name = decl->name;
    mapper->tables = rf_arena_alloc(arena, (decl->table_count + 1) * sizeof *mapper->tables);
    for (size_t i = 0; i < decl->table_count; i++) {
        struct rf_el_table *table = &mapper->tables[i];
        char index[RF_ELASTIC_NAME];
        table->decl = &decl->tables[i];
        rf_elastic_table_index(index, sink, table->decl->name, mapper->gen);
        table->index = keep(arena, index);
        table->stale = sink->rows_stale;
        for (size_t k = 0; k < table->decl->column_count; k++)
            table->search_count += table->decl->columns[k].search;
    }
    return RF_OK;
}

static enum rf_status load_decl(struct rf_elastic *sink, struct rf_el_mapper *mapper,
                                const struct rf_json *doc, struct rf_error *err)
{
    const struct rf_json *body = rf_json_find(rf_json_find(doc, "_source"), "body");
    char what[128];

    if (!body) {
        snprintf(what, sizeof what, "the texts of mapper %.64s are gone", mapper->identity);
        return rf_elastic_damaged(sink, what, err);
    }
    return rf_elastic_keep_decl(sink, mapper, rf_bytes_text(text_of(body, "declaration")), err);
}

static enum rf_status load_mappers(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_el_state *state = &sink->state;
    struct rf_es_reply reply;
    const struct rf_json *docs;
    struct rf_buf body;
    size_t count = 0;
    enum rf_status status = RF_OK;

    rf_buf_init(&body, 1 << 20);
    rf_buf_put_text(&body, "{\"docs\":[");
    for (size_t i = 0; i < state->lane_count; i++)
        for (size_t k = 0; k < state->lanes[i]->mapper_count; k++)
            rf_buf_printf(&body, "%s{\"_id\":\"mapper:%s\",\"_source\":[\"body.declaration\"]}",
                          count++ ? "," : "", state->lanes[i]->mappers[k].identity);
    rf_buf_put_text(&body, "]}");
    if (count)
        status = rf_es_call(sink->es, &reply, "POST", rf_buf_bytes(&body), err, "/%s/_mget",
                            sink->own);
    if (count && !status && reply.status >= 300)
        status = rf_es_unexpected(sink->es, &reply, "read mappers", err);
    docs = count && !status ? list_of(reply.json, "docs") : NULL;
    if (count && !status && docs->count != count)
        status = rf_elastic_damaged(sink, "its mappers cannot be read", err);
    count = 0;
    for (size_t i = 0; !status && i < state->lane_count; i++)
        for (size_t k = 0; !status && k < state->lanes[i]->mapper_count; k++)
            status = load_decl(sink, &state->lanes[i]->mappers[k], &docs->items[count++], err);
    rf_buf_release(&body);
    return status;
}

/* ---- reading and writing it ---- */

static enum rf_status load(struct rf_elastic *sink, struct rf_error *err)
{
    static const char body[] = "{\"ids\":[\"state\"]}";
    struct rf_es_reply reply;
    const struct rf_json *docs, *why;
    enum rf_status status;

    sink->state.known = false;
    status = rf_es_call(sink->es, &reply, "POST", rf_bytes_text(body), err, "/%s/_mget",
                        sink->own);
    if (status)
        return status;
    docs = list_of(reply.json, "docs");
    why = docs->count ? rf_json_find(&docs->items[0], "error") : NULL;
    if (reply.status == 404 || strstr(text_of(why, "type"), "index_not_found"))
        return rf_error_set(err, RF_NOT_FOUND, "there is no index '%s'", rf_es_name(sink->es));
    if (reply.status >= 300 || !docs->count)
        return rf_es_unexpected(sink->es, &reply, "read the state of an index", err);
    if (why)
        return rf_error_set(err, RF_UNAVAILABLE, "index '%s' cannot be read now: %s",
                            rf_es_name(sink->es), text_of(why, "reason"));
    if (!bool_of(&docs->items[0], "found"))
        return rf_error_set(err, RF_NOT_FOUND, "there is no index '%s'", rf_es_name(sink->es));
    status = read_state(sink, &docs->items[0], err);
    if (!status)
        status = load_mappers(sink, err);
    sink->state.known = !status;
    return status;
}

/* The result of the only act of a bulk. */
static const struct rf_json *only_result(const struct rf_es_reply *reply)
{
    const struct rf_json *items = list_of(reply->json, "items");

    return items->count && items->items[0].type == RF_JSON_OBJECT && items->items[0].count
               ? &items->items[0].items[0]
               : NULL;
}

static enum rf_status write_state(struct rf_elastic *sink, bool create, struct rf_error *err)
{
    struct rf_el_state *state = &sink->state;
    struct rf_es_reply reply;
    const struct rf_json *result;
    struct rf_buf body;
    int64_t code;
    enum rf_status status;

    rf_buf_init(&body, STATE_MAX);
    if (create)
        rf_buf_put_text(&body, "{\"create\":{\"_id\":\"state\"}}\n");
    else if (!RF_SAFEGUARD("sink-cas"))
        rf_buf_put_text(&body, "{\"index\":{\"_id\":\"state\"}}\n");
    else
        rf_buf_printf(&body, "{\"index\":{\"_id\":\"state\",\"if_seq_no\":%lld,"
                             "\"if_primary_term\":%lld}}\n",
                      (long long)state->seq_no, (long long)state->primary_term);
    put_state(&body, state);
    rf_buf_put_u8(&body, '\n');
    state->known = false;
    status = body.failed ? rf_error_set(err, body.failed, "no memory for the state of an index")
                         : rf_es_call(sink->es, &reply, "POST", rf_buf_bytes(&body), err,
                                      "/%s/_bulk", sink->own);
    rf_buf_release(&body);
    if (status)
        return status;
    result = only_result(&reply);
    code = int_of(result, "status");
    if (reply.status >= 300 || !code)
        return rf_es_unexpected(sink->es, &reply, "write the state of an index", err);
    if (code == 409)
        return rf_error_set(err, RF_LOCKED, "index '%s' was taken over: another writer came first",
                            rf_es_name(sink->es));
    if (code >= 300)
        return rf_error_set(err, code == 429 || code >= 500 ? RF_UNAVAILABLE : RF_IO,
                            "cannot write the state of index '%s': %lld %s", rf_es_name(sink->es),
                            (long long)code, text_of(rf_json_find(result, "error"), "reason"));
    state->seq_no = int_of(result, "_seq_no");
    state->primary_term = int_of(result, "_primary_term");
    state->known = true;
    return RF_OK;
}

enum rf_status rf_elastic_save(struct rf_elastic *sink, struct rf_error *err)
{
    sink->state.owner.renewed = rf_elastic_now();
    return write_state(sink, false, err);
}

static bool is_self(const struct rf_elastic *sink)
{
    const struct rf_el_owner *owner = &sink->state.owner;

    return sink->state.owned && strcmp(owner->token, sink->self.token) == 0 &&
           owner->pid == sink->self.pid && strcmp(owner->machine, sink->self.machine) == 0;
}

enum rf_status rf_elastic_ready(struct rf_elastic *sink, struct rf_error *err)
{
    enum rf_status status;

    if (sink->base.write && sink->state.known)
        return RF_OK;
    status = load(sink, err);
    if (status || !sink->base.write)
        return status;
    sink->lane = NULL;
    sink->waiting = sink->needing = RF_EL_WAITING_UNKNOWN;
    if (RF_SAFEGUARD("sink-cas") && (!is_self(sink) || sink->state.epoch != sink->counter >> 32)) {
        sink->state.known = false;
        return rf_error_set(err, RF_LOCKED, "index '%s' was taken over: another writer came first",
                            rf_es_name(sink->es));
    }
    return RF_OK;
}

enum rf_status rf_elastic_refresh(struct rf_elastic *sink, bool rows, struct rf_error *err)
{
    struct rf_es_reply reply;
    enum rf_status status = RF_OK;

    if (sink->own_stale)
        status = rf_es_call(sink->es, &reply, "POST", rf_bytes(NULL, 0), err, "/%s/_refresh",
                            sink->own);
    if (!status && sink->own_stale && reply.status >= 300)
        status = rf_es_unexpected(sink->es, &reply, "refresh an index", err);
    if (!status)
        sink->own_stale = false;
    for (size_t i = 0; rows && sink->rows_stale && i < sink->state.lane_count; i++) {
        const struct rf_el_lane *lane = sink->state.lanes[i];
        for (size_t k = 0; !status && k < lane->mapper_count; k++) {
            const struct rf_el_mapper *mapper = &lane->mappers[k];
            for (size_t t = 0; !status && !mapper->edges_only && t < mapper->decl->table_count;
                 t++) {
                if (!mapper->tables[t].stale)
                    continue;
                status = rf_es_call(sink->es, &reply, "POST", rf_bytes(NULL, 0), err,
                                    "/%s/_refresh", mapper->tables[t].index);
                if (!status && reply.status >= 300)
                    status = rf_es_unexpected(sink->es, &reply, "refresh an index", err);
                mapper->tables[t].stale = status != RF_OK;
            }
        }
    }
    if (!status && rows) {
        sink->rows_stale = false;
        sink->refreshed = rf_elastic_now();
    }
    return status;
}

enum rf_status rf_elastic_ask(struct rf_elastic *sink, struct rf_error *err)
{
    enum rf_status status = rf_elastic_ready(sink, err);

    if (!status && sink->base.batch_open)
        status = rf_elastic_group_flush(sink, err);
    else if (!status && sink->base.write && sink->recover && RF_SAFEGUARD("sink-recover-asked"))
        status = rf_elastic_recover(sink, err); /* edges that came to nothing lead nowhere */
    if (!status && !sink->base.write) { /* who only reads may not be allowed to refresh */
        sink->own_stale = true;
        (void)!rf_elastic_refresh(sink, false, NULL);
    } else if (!status) {
        status = rf_elastic_refresh(sink, false, err);
    }
    if (status && sink->base.batch_open)
        rf_elastic_rollback(&sink->base);
    return status;
}

enum rf_status rf_elastic_lane(struct rf_elastic *sink, uint32_t id, struct rf_el_lane **out,
                               struct rf_error *err)
{
    struct rf_el_state *state = &sink->state;

    for (size_t i = 0; i < state->lane_count; i++) {
        struct rf_el_lane *lane = state->lanes[i];
        if (lane->state != RF_EL_DROPPING && (id ? lane->id == id : lane->state == RF_EL_LIVE)) {
            *out = lane;
            return RF_OK;
        }
    }
    if (id)
        return rf_error_set(err, RF_NOT_FOUND, "index '%s' has no lane %u", rf_es_name(sink->es),
                            (unsigned)id);
    return rf_error_set(err, RF_NOT_FOUND, "index '%s' is empty: run 'refuge index run'",
                        rf_es_name(sink->es));
}

enum rf_status rf_elastic_search_own(struct rf_elastic *sink, const char *body,
                                     const struct rf_json **hits, uint64_t *total,
                                     const struct rf_json **aggregations, struct rf_error *err)
{
    struct rf_es_reply reply;
    const struct rf_json *found;
    enum rf_status status =
        body ? rf_es_call(sink->es, &reply, "POST", rf_bytes_text(body), err, "/%s/_search",
                          sink->own)
             : rf_error_set(err, RF_LIMIT, "a question to index '%s' is too long",
                            rf_es_name(sink->es));

    if (status)
        return status;
    found = rf_json_find(reply.json, "hits");
    if (reply.status >= 300 || !found)
        return rf_es_unexpected(sink->es, &reply, "search", err);
    if (int_of(rf_json_find(reply.json, "_shards"), "failed"))
        return rf_error_set(err, RF_UNAVAILABLE, "a shard of index '%s' cannot be read now",
                            rf_es_name(sink->es));
    if (hits)
        *hits = list_of(found, "hits");
    if (total)
        *total = (uint64_t)int_of(rf_json_find(found, "total"), "value");
    if (aggregations)
        *aggregations = rf_json_find(reply.json, "aggregations");
    return RF_OK;
}

/* ---- open and close ---- */

static struct rf_elastic *new_sink(void)
{
    struct rf_elastic *sink = calloc(1, sizeof *sink);

    if (!sink)
        abort();
    sink->base.ops = &rf_sink_elastic_ops;
    rf_arena_init(&sink->state.arena, (size_t)256 << 20);
    rf_arena_init(&sink->arena, SIZE_MAX);
    rf_elastic_group_init(&sink->group);
    rf_buf_init(&sink->scratch, 2 * RF_ES_DOCUMENT_MAX);
    rf_buf_init(&sink->words, 2 * RF_ES_DOCUMENT_MAX);
    rf_buf_init(&sink->act, 1 << 16);
    return sink;
}

static enum rf_status connect_to(struct rf_elastic *sink, const char *rest, struct rf_error *err)
{
    enum rf_status status = rf_es_open(&sink->es, rest, err);

    if (!status)
        snprintf(sink->own, sizeof sink->own, RF_ELASTIC_OWN, rf_es_prefix(sink->es));
    return status;
}

/* It names nobody any more: what was written can be found. */
static void let_go(struct rf_elastic *sink)
{
    if (!sink->base.write || !sink->es || !sink->counter || rf_elastic_ready(sink, NULL) != RF_OK)
        return;
    if (rf_elastic_refresh(sink, true, NULL) != RF_OK)
        return;
    sink->state.owned = false;
    (void)!rf_elastic_save(sink, NULL);
}

void rf_elastic_close(struct rf_sink *base)
{
    struct rf_elastic *sink = rf_elastic_of(base);

    if (base->batch_open)
        rf_elastic_rollback(base);
    let_go(sink);
    rf_elastic_group_release(&sink->group);
    rf_buf_release(&sink->scratch);
    rf_buf_release(&sink->words);
    rf_buf_release(&sink->act);
    rf_arena_release(&sink->state.arena);
    rf_arena_release(&sink->arena);
    free(sink->slots);
    free(sink->put_taken);
    free(sink->put_calls);
    free(sink->calls);
    rf_es_close(sink->es);
    free(sink);
}

static enum rf_status make_index(struct rf_elastic *sink, struct rf_error *err)
{
    enum rf_status status = rf_elastic_check_prefix(sink, err);

    if (!status)
        status = rf_elastic_make_own(sink, err);
    if (status)
        return status;
    sink->state.next_lane = 1;
    sink->state.next_gen = 1;
    status = write_state(sink, true, err);
    return status == RF_LOCKED ? RF_OK : status; /* somebody made it just now */
}

/* Rows may have been written that no search finds yet. */
static void mark_unseen(struct rf_elastic *sink)
{
    for (size_t i = 0; i < sink->state.lane_count; i++) {
        const struct rf_el_lane *lane = sink->state.lanes[i];
        for (size_t k = 0; k < lane->mapper_count; k++)
            for (size_t t = 0; t < lane->mappers[k].decl->table_count; t++)
                lane->mappers[k].tables[t].stale = true;
    }
    sink->rows_stale = true;
}

/* Wait for who writes, then take the next epoch. */
static enum rf_status take_over(struct rf_elastic *sink, int timeout_ms, struct rf_error *err)
{
    struct rf_el_state *state = &sink->state;
    uint64_t next;
    enum rf_status status;

    for (;;) {
        struct timespec pause = {.tv_nsec = LOCK_POLL_MS * 1000000L};
        if (!state->owned || !is_alive(&state->owner) || !RF_SAFEGUARD("sink-lock"))
            break;
        if (timeout_ms <= 0)
            return locked(sink, err);
        nanosleep(&pause, NULL);
        timeout_ms -= LOCK_POLL_MS;
        status = load(sink, err);
        if (status)
            return status;
    }
    if (state->owned && RF_SAFEGUARD("sink-unseen")) /* who wrote last came to no end (let_go) */
        mark_unseen(sink);
    next = (state->epoch + 1) << 32;
    if (state->done + 1 < next)
        rf_elastic_give_up(state, state->done + 1, next - 1);
    state->epoch++;
    state->owned = true;
    state->owner = sink->self;
    sink->counter = next;
    status = rf_elastic_save(sink, err);
    if (status)
        sink->counter = 0;
    return status;
}

static enum rf_status check_tables(struct rf_elastic *sink, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < sink->state.lane_count; i++) {
        const struct rf_el_lane *lane = sink->state.lanes[i];
        for (size_t k = 0; !status && lane->state != RF_EL_DROPPING && k < lane->mapper_count; k++)
            for (size_t t = 0; !status && !lane->mappers[k].edges_only &&
                               t < lane->mappers[k].decl->table_count;
                 t++)
                status = rf_elastic_check_table(sink, &lane->mappers[k].tables[t], err);
    }
    return status;
}

static enum rf_status open_writer(struct rf_elastic *sink, const struct rf_sink_options *options,
                                  struct rf_error *err)
{
    struct rf_error why = {0};
    enum rf_status status = rf_elastic_check_ours(sink, sink->own, &why);

    if (status == RF_OK || status == RF_NOT_FOUND) {
        rf_error_clear(&why);
        status = load(sink, &why);
    }
    if (status == RF_NOT_FOUND && options->create) {
        status = make_index(sink, err);
        if (!status)
            status = load(sink, err);
    } else if (status) {
        rf_error_set(err, status, "%s", why.message);
    }
    describe_self(&sink->self, options->writer_token);
    if (!status)
        status = take_over(sink, options->lock_timeout_ms, err);
    sink->own_stale = true;
    sink->loose = true;
    sink->recover = true;
    if (!status)
        status = check_tables(sink, err);
    return status ? status : rf_elastic_finish_lanes(sink, err);
}

static enum rf_status elastic_open(struct rf_sink **out, const char *rest,
                                   const struct rf_sink_options *options, struct rf_error *err)
{
    struct rf_elastic *sink = new_sink();
    enum rf_status status;

    sink->base.write = options->write;
    sink->token = options->writer_token;
    if (options->reader)
        status = rf_error_set(err, RF_UNSUPPORTED,
                              "an index in Elasticsearch knows no readers by name: who may read is "
                              "said by the cluster's roles for '<prefix>-*'");
    else
        status = connect_to(sink, rest, err);
    if (!status)
        status = options->write ? open_writer(sink, options, err) : load(sink, err);
    sink->own_stale |= !options->write;
    if (status) {
        rf_elastic_close(&sink->base);
        return status;
    }
    *out = &sink->base;
    return RF_OK;
}

enum rf_status rf_elastic_open_reader(struct rf_elastic **out, const char *rest,
                                      struct rf_error *err)
{
    struct rf_elastic *sink = new_sink();
    enum rf_status status = connect_to(sink, rest, err);

    if (!status)
        status = load(sink, err);
    if (status) {
        rf_elastic_close(&sink->base);
        return status;
    }
    *out = sink;
    return RF_OK;
}

static enum rf_status elastic_writer(struct rf_sink *base, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    enum rf_status status = base->write ? rf_elastic_ready(sink, err) : load(sink, err);

    if (!status && sink->state.owned && is_alive(&sink->state.owner))
        status = locked(sink, err);
    return status;
}

/* Every index that says of itself that it is of this prefix; refuge's own, which says what there
 * is, last. */
static enum rf_status drop_all(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_es_reply reply;
    char **names = NULL;
    size_t count = 0;
    enum rf_status status = rf_es_call(sink->es, &reply, "GET", rf_bytes(NULL, 0), err,
                                       "/%s-*/_mapping?expand_wildcards=all",
                                       rf_es_prefix(sink->es));

    if (!status && reply.status >= 300)
        status = rf_es_unexpected(sink->es, &reply, "list indexes", err);
    if (!status && reply.json) {
        names = calloc(reply.json->count + 1, sizeof(char *));
        for (size_t i = 0; names && i < reply.json->count; i++) {
            const struct rf_json *index = &reply.json->items[i];
            if (rf_elastic_is_ours(sink, index) &&
                strcmp((const char *)index->key.data, sink->own) != 0)
                names[count++] = strdup((const char *)index->key.data);
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (!status && names[i])
            status = rf_elastic_drop_index(sink, names[i], err);
        free(names[i]);
    }
    free(names);
    return status ? status : rf_elastic_drop_index(sink, sink->own, err);
}

static enum rf_status elastic_erase(const char *rest, struct rf_error *err)
{
    struct rf_elastic *sink = new_sink();
    struct rf_error why = {0};
    enum rf_status status = connect_to(sink, rest, err);

    if (!status) {
        status = load(sink, &why);
        if (status == RF_OK && sink->state.owned && is_alive(&sink->state.owner))
            status = locked(sink, err);
        else if (status == RF_OK || status == RF_UNSOUND || status == RF_NOT_FOUND)
            status = drop_all(sink, err);
        else
            rf_error_set(err, status, "%s", why.message);
    }
    rf_elastic_close(&sink->base);
    return status;
}

/* ---- facts ---- */

static enum rf_status elastic_set_fact(struct rf_sink *base, const char *name, const char *value,
                                       struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_state *state = &sink->state;
    struct rf_el_fact *facts;
    size_t count = 0;
    enum rf_status status = rf_elastic_ready(sink, err);

    if (status)
        return status;
    facts = rf_arena_alloc(&state->arena, (state->fact_count + 2) * sizeof *facts);
    for (size_t i = 0; i < state->fact_count; i++)
        if (strcmp(state->facts[i].name, name) != 0)
            facts[count++] = state->facts[i];
    if (value)
        facts[count++] = (struct rf_el_fact){keep(&state->arena, name),
                                             keep(&state->arena, value)};
    state->facts = facts;
    state->fact_count = count;
    return rf_elastic_save(sink, err);
}

static enum rf_status elastic_get_fact(struct rf_sink *base, struct rf_arena *arena,
                                       const char *name, const char **value, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    enum rf_status status = rf_elastic_ready(sink, err);

    if (status)
        return status;
    for (size_t i = 0; i < sink->state.fact_count; i++) {
        if (strcmp(sink->state.facts[i].name, name) == 0) {
            *value = keep(arena, sink->state.facts[i].value);
            return RF_OK;
        }
    }
    return rf_error_set(err, RF_NOT_FOUND, "index '%s' has no fact '%s'", rf_es_name(sink->es),
                        name);
}

/* ---- queries ---- */

static enum rf_status elastic_sql(const char *rest, const char *sql,
                                  void (*header)(void *user, size_t count,
                                                 const char *const *names),
                                  rf_query_visit visit, void *user,
                                  const volatile int *interrupted, struct rf_error *err)
{
    const char *hash = strrchr(rest, '#');

    (void)sql;
    (void)header;
    (void)visit;
    (void)user;
    (void)interrupted;
    return rf_error_set(err, RF_UNSUPPORTED,
                        "an index in Elasticsearch or OpenSearch answers no SQL of refuge's: use "
                        "'refuge search', or ask the cluster's own interfaces for the indexes "
                        "'%s-<table>'",
                        hash ? hash + 1 : "PREFIX");
}

static enum rf_status elastic_metadata(const char *rest, struct rf_buf *buf, struct rf_error *err)
{
    (void)rest;
    (void)buf;
    return rf_error_set(err, RF_UNSUPPORTED,
                        "Datasette reads no Elasticsearch: this index has no metadata for it");
}

const struct rf_sink_ops rf_sink_elastic_ops = {
    .scheme = "elasticsearch",
    .alias = "opensearch",
    .open = elastic_open,
    .close = rf_elastic_close,
    .writer = elastic_writer,
    .erase = elastic_erase,
    .lanes = rf_elastic_lanes,
    .lane_begin = rf_elastic_lane_begin,
    .lane_ready = rf_elastic_lane_ready,
    .lane_swap = rf_elastic_lane_swap,
    .lane_drop = rf_elastic_lane_drop,
    .begin = rf_elastic_begin,
    .expect = rf_elastic_expect,
    .put = rf_elastic_put,
    .put_parts = rf_elastic_put_parts,
    .remove = rf_elastic_remove,
    .arrived = rf_elastic_arrived,
    .lost = rf_elastic_lost,
    .share = rf_elastic_share,
    .again = rf_elastic_again,
    .commit = rf_elastic_commit,
    .rollback = rf_elastic_rollback,
    .has_part = rf_elastic_has_part,
    .mapper_splits = rf_elastic_mapper_splits,
    .parks = rf_elastic_parks,
    .park_counts = rf_elastic_park_counts,
    .is_parked = rf_elastic_is_parked,
    .park_needs = rf_elastic_park_needs,
    .origin_of = rf_elastic_origin_of,
    .holders = rf_elastic_holders,
    .dead_letters = rf_elastic_dead_letters,
    .retry = rf_elastic_retry,
    .set_fact = elastic_set_fact,
    .get_fact = elastic_get_fact,
    .counts = rf_elastic_counts,
    .query_sql = elastic_sql,
    .query_search = rf_elastic_search,
    .query_items = rf_elastic_query_items,
    .query_item = rf_elastic_query_item,
    .query_canon = rf_elastic_canon,
    .query_metadata = elastic_metadata,
};
