/*
 * histories.c - random lives of a home, each ending in an index that equals its rebuild
 *
 * A history is drawn from its number and the seed alone: puts, deletes, duplicates, index runs,
 * mapper changes under all policies, retries and rebuilds, over a dozen blobs that need each other,
 * split into parts and parts of parts, or fail. Each act runs in a child process; every third is
 * first broken by SIGKILL at a drawn file operation (fault.c is loaded) and then done again, as a
 * person would. At the end the index is brought up to date; it must hold what this file computes by
 * itself, and rf_index_verify must find no difference to a rebuild.
 *
 * Which version of the mapper `side` maps what is told here by the words of plan.h: the newest that
 * takes the item; of a part, that takes all the blobs which hold it.
 *
 *   histories --seed S --first I --count N --folder F --mapper PROGRAM --lua history.lua [--keep]
 *             [--server URL]
 *
 * The index is a file, or a schema of its own in the server of this URL (without '#SCHEMA'), whose
 * sends are operations, too.
 * Run by histories.py, which sets up fault.c. A history that fails prints its number: the same seed
 * with --first that number --count 1 --keep repeats it and leaves its folder.
 */
#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backup/schema.h"
#include "blobstore/blobstore.h"
#include "indexer/index.h"
#include "sinks/query.h"
#include "sinks/sink.h"

#define ITEMS 12
#define VERSIONS 3
#define CHAIN_MAX 16
#define PATH_SIZE 512

enum item_kind { PLAIN, POISON, NEED, SPLIT, A_FILE };

struct item {
    enum item_kind kind;
    char text[1024];
    size_t size;
    struct rf_blobref ref;
    char content[128];             /* A_FILE: the blob its content is joined from */
    struct rf_blobref content_ref;
    bool content_alive;
    unsigned rows;   /* PLAIN, A_FILE */
    unsigned parts;  /* SPLIT: of one row each */
    bool deep;       /* SPLIT: they are parts of a part */
    unsigned needs;  /* NEED: index of the item it reads */
    bool alive;
    uint64_t seq;    /* of the change that put it */
};

enum policy_kind { FULL, FORWARD, SINCE, JSON_MEDIA, TEXT_MEDIA, A_NAME, POLICY_KINDS };

/* One version of `side` in the plan, as this file keeps it. */
struct link {
    unsigned version;
    enum policy_kind kind;
    uint64_t since, after;
};

struct history {
    uint64_t number, random;
    struct item items[ITEMS];
    unsigned version; /* of the mapper, from 1 */
    unsigned side;    /* of the other one */
    struct link chain[CHAIN_MAX];
    unsigned links;   /* 0: never run */
    uint64_t changes; /* in the store */
    uint64_t position; /* of the index */
    char folder[PATH_SIZE], store_url[PATH_SIZE + 16], sink_url[PATH_SIZE + 16];
    char mapper[PATH_SIZE], side_mapper[PATH_SIZE];
    char act[128];    /* what was done last, for messages */
    char why[1024];   /* set when something is wrong */
};

struct totals {
    uint64_t histories, acts, crashes, failed;
};

static const char *mapper_program, *lua_path, *base_folder, *server_url;
static bool verbose;
static void (*arm)(const char *fault);

/* ---- numbers from the seed ---- */

/* splitmix64 (Steele, Lea, Flood 2014): every state is good, so seed + number is one. */
static uint64_t draw(struct history *history)
{
    uint64_t z = history->random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static unsigned draw_below(struct history *history, unsigned limit)
{
    return (unsigned)(draw(history) % limit);
}

/* ---- blobs ---- */

/* A file blob of one content blob that is a plain item's text. */
static void make_file(struct history *history, unsigned index)
{
    struct item *item = &history->items[index];
    struct rf_file_part part = { .offset = 0 };
    struct rf_file file = { .name_is_text = true, .mode = 0644, .parts = &part, .part_count = 1 };
    struct rf_buf buf;
    char name[32];

    item->rows = draw_below(history, 4);
    file.size = (uint64_t)snprintf(item->content, sizeof item->content,
                                   "{\"kind\":\"plain\",\"id\":\"%" PRIu64 ".%u\",\"rows\":%u}",
                                   history->number, index, item->rows);
    rf_blobref_of(&item->content_ref,
                  (struct rf_bytes){ (const uint8_t *)item->content, (size_t)file.size });
    part.ref = item->content_ref;
    part.size = file.size;
    file.name.size = (size_t)snprintf(name, sizeof name, "%u.json", index);
    file.name.data = (const uint8_t *)name;
    rf_buf_init(&buf, sizeof item->text);
    rf_file_encode(&buf, &file);
    memcpy(item->text, buf.data, buf.size);
    item->size = buf.size;
    rf_buf_release(&buf);
}

static void make_item(struct history *history, unsigned index)
{
    static const enum item_kind kinds[] = { PLAIN, POISON, NEED, SPLIT, SPLIT, SPLIT, A_FILE,
                                            A_FILE, A_FILE };
    struct item *item = &history->items[index];
    char ref[RF_BLOBREF_SIZE], *at = item->text;
    size_t left = sizeof item->text;
    int used;

    item->kind = index < 3 ? PLAIN : kinds[draw_below(history, sizeof kinds / sizeof kinds[0])];
    switch (item->kind) {
    case PLAIN:
        item->rows = draw_below(history, 4);
        used = snprintf(at, left, "{\"kind\":\"plain\",\"id\":\"%" PRIu64 ".%u\",\"rows\":%u}",
                        history->number, index, item->rows);
        break;
    case POISON:
        used = snprintf(at, left, "{\"kind\":\"poison\",\"id\":\"%" PRIu64 ".%u\"}",
                        history->number, index);
        break;
    case NEED:
        item->needs = draw_below(history, index);
        rf_blobref_format(&history->items[item->needs].ref, ref);
        used = snprintf(at, left,
                        "{\"kind\":\"need\",\"id\":\"%" PRIu64 ".%u\",\"ref\":\"%s\"}",
                        history->number, index, ref);
        break;
    case A_FILE:
        make_file(history, index);
        rf_blobref_of(&item->ref, (struct rf_bytes){ (const uint8_t *)item->text, item->size });
        return;
    default:
        item->parts = 1 + draw_below(history, 4);
        item->deep = draw_below(history, 3) == 0;
        used = snprintf(at, left, "{\"kind\":\"split\",\"parts\":[%s",
                        item->deep ? "{\"kind\":\"split\",\"parts\":[" : "");
        for (unsigned i = 0; i < item->parts; i++)
            used += snprintf(at + used, left - (size_t)used,
                             "%s{\"kind\":\"plain\",\"id\":\"%" PRIu64 ".part.%u\",\"rows\":1}",
                             i ? "," : "", history->number, i);
        used += snprintf(at + used, left - (size_t)used, "%s],\"id\":%u}",
                         item->deep ? "]}" : "", index);
        break;
    }
    item->size = (size_t)used;
    rf_blobref_of(&item->ref, (struct rf_bytes){ (const uint8_t *)item->text, item->size });
}

/* A file is parked while its content is not there. */
static bool is_mapped(const struct item *item)
{
    return item->alive && (item->kind != A_FILE || item->content_alive);
}

/* ---- acts; each in a process of its own ---- */

struct act {
    enum { ACT_PUT, ACT_DELETE, ACT_RUN, ACT_RETRY, ACT_REBUILD, ACT_KINDS } kind;
    unsigned items[8], count;
    bool only_content[8];    /* DELETE: what stands under the file, not the file */
    enum policy_kind policy; /* RUN: of `side`, should it change */
    uint64_t since;
    bool forget;             /* REBUILD */
};

static void give_up(const char *what, const struct rf_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->message);
    _exit(1);
}

static void do_store(struct history *history, const struct act *act)
{
    struct rf_store_options options = { .mode = RF_STORE_WRITE, .lock_timeout_ms = 5000 };
    struct rf_error err = { 0 };
    struct rf_store *store;

    if (rf_store_open(&store, history->store_url, &options, &err))
        give_up("open store", &err);
    for (unsigned i = 0; i < act->count; i++) {
        const struct item *item = &history->items[act->items[i]];
        struct rf_bytes bytes = { (const uint8_t *)item->text, item->size };
        struct rf_bytes content = { (const uint8_t *)item->content, strlen(item->content) };
        enum rf_status status = RF_OK;

        if (act->kind == ACT_PUT && item->kind == A_FILE)
            status = rf_store_put(store, content, NULL, true, NULL, NULL, &err);
        if (!status && act->kind == ACT_PUT)
            status = rf_store_put(store, bytes, NULL, false, NULL, NULL, &err);
        if (act->kind == ACT_DELETE && !act->only_content[i])
            status = rf_store_delete(store, &item->ref, NULL, &err);
        if (!status && act->kind == ACT_DELETE && item->kind == A_FILE)
            status = rf_store_delete(store, &item->content_ref, NULL, &err);
        if (status)
            give_up(act->kind == ACT_PUT ? "put" : "delete", &err);
    }
    rf_store_close(store);
}

static void warn(void *user, const char *line)
{
    (void)user;
    fprintf(stderr, "warning: %s\n", line);
}

static struct rf_index_options index_options(struct history *history, const char *const *mappers)
{
    return (struct rf_index_options){
        .name = "history",
        .store_url = history->store_url,
        .sink_url = history->sink_url,
        .mappers = mappers,
        .mapper_count = 2,
        .mapper_program = mapper_program,
        .workers = 1,
        .lock_timeout_ms = 5000,
        .batch_items = 3, /* several transactions in a short life */
        .scratch_dir = history->folder,
        .hooks = { .warn = warn },
    };
}

static void policy_text(const struct act *act, char *out, size_t size)
{
    static const char *const words[] = { [FULL] = "full", [FORWARD] = "forward",
                                         [JSON_MEDIA] = "match=application/*",
                                         [TEXT_MEDIA] = "match=text/plain",
                                         [A_NAME] = "match=*.json" };

    if (act->policy == SINCE)
        snprintf(out, size, "since=%" PRIu64, act->since);
    else
        snprintf(out, size, "%s", words[act->policy]);
}

static void do_index(struct history *history, const struct act *act)
{
    const char *mappers[] = { history->mapper, history->side_mapper };
    struct rf_index_options options = index_options(history, mappers);
    struct rf_error err = { 0 };
    struct rf_index *index;
    char policy[64];

    options.rebuild = act->kind == ACT_REBUILD;
    options.forget = act->forget;
    policy_text(act, policy, sizeof policy);
    options.policy = policy;
    if (rf_index_open(&index, &options, &err))
        give_up("open index", &err);
    if (rf_index_run(index, false, &err))
        give_up("run index", &err);
    rf_index_close(index);
}

static void do_retry(struct history *history)
{
    struct rf_sink_options options = { .write = true, .lock_timeout_ms = 5000,
                                       .writer_token = draw(history) };
    struct rf_error err = { 0 };
    struct rf_sink *sink;
    uint64_t count;
    enum rf_status status = rf_sink_open(&sink, history->sink_url, &options, &err);

    if (status == RF_NOT_FOUND)
        return; /* the index was not made yet */
    if (status)
        give_up("open sink", &err);
    status = rf_sink_retry(sink, NULL, NULL, &count, &err);
    rf_sink_close(sink);
    if (status)
        give_up("retry", &err);
}

/* The child's exit status, or -1 when it was killed. fault is "" or one for fault.c. */
static int in_child(struct history *history, const struct act *act, const char *fault)
{
    pid_t child = fork();
    int status;

    if (child < 0) {
        perror("fork");
        exit(1);
    }
    if (child == 0) {
        if (fault[0])
            arm(fault);
        if (act->kind == ACT_PUT || act->kind == ACT_DELETE)
            do_store(history, act);
        else if (act->kind == ACT_RETRY)
            do_retry(history);
        else
            do_index(history, act);
        _exit(0);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) == SIGKILL ? -1 : 128;
}

static void set_version(struct history *history, unsigned version)
{
    history->version = version;
    snprintf(history->mapper, sizeof history->mapper, "%s/v%u/history.lua", base_folder, version);
}

static void set_side(struct history *history, unsigned version)
{
    history->side = version;
    snprintf(history->side_mapper, sizeof history->side_mapper, "%s/v%u/side.lua", base_folder,
             version);
}

/* The plan after an index run: a version that is not the newest comes under the act's policy. */
static void remember_run(struct history *history, const struct act *act)
{
    bool changed = history->links == 0 ||
                   history->chain[history->links - 1].version != history->side;

    if (act->forget || history->links == 0 || (changed && act->policy == FULL)) {
        history->chain[0] = (struct link){ .version = history->side, .kind = FULL };
        history->links = 1;
    } else if (changed) {
        assert(history->links < CHAIN_MAX);
        history->chain[history->links++] =
            (struct link){ .version = history->side, .kind = act->policy, .since = act->since,
                           .after = history->position };
    }
    history->position = history->changes;
}

/* What an act that was done changes in our own record. */
static void remember(struct history *history, const struct act *act)
{
    bool put = act->kind == ACT_PUT;

    for (unsigned i = 0; i < act->count; i++) {
        struct item *item = &history->items[act->items[i]];
        bool content = item->kind == A_FILE && item->content_alive != put;

        item->content_alive = put;
        history->changes += content && put; /* before its file */
        if (item->alive != put && !act->only_content[i]) { /* else it is so already: no change */
            item->alive = put;
            item->seq = ++history->changes;
        }
        history->changes += content && !put;
    }
    if (act->kind == ACT_RUN || act->kind == ACT_REBUILD)
        remember_run(history, act);
}

/* An item that the act changes, most times. */
static unsigned draw_item(struct history *history, bool put)
{
    unsigned index = draw_below(history, ITEMS);

    for (int again = 0; again < 2; again++) {
        const struct item *item = &history->items[index];

        if (put != is_mapped(item))
            break;
        index = draw_below(history, ITEMS);
    }
    return index;
}

static struct act draw_act(struct history *history)
{
    static const unsigned char kinds[] = { ACT_PUT, ACT_PUT, ACT_PUT, ACT_DELETE, ACT_RUN,
                                           ACT_RUN, ACT_RUN, ACT_RETRY, ACT_REBUILD };
    struct act act = { .kind = kinds[draw_below(history, sizeof kinds)] };

    if (act.kind == ACT_PUT || act.kind == ACT_DELETE) {
        act.count = 1 + draw_below(history, act.kind == ACT_PUT ? 8 : 3);
        for (unsigned i = 0; i < act.count; i++)
            act.items[i] = draw_item(history, act.kind == ACT_PUT);
        for (unsigned i = 0; act.kind == ACT_DELETE && i < act.count; i++)
            act.only_content[i] = history->items[act.items[i]].kind == A_FILE &&
                                  draw_below(history, 2) == 0;
    } else if (act.kind == ACT_RUN && draw_below(history, 4) == 0) {
        set_version(history, 1 + draw_below(history, VERSIONS));
    } else if (act.kind == ACT_RUN && draw_below(history, 3) > 0) {
        set_side(history, 1 + draw_below(history, VERSIONS));
        act.policy = (enum policy_kind)draw_below(history, POLICY_KINDS);
        act.since = draw_below(history, (unsigned)history->changes + 3);
    } else if (act.kind == ACT_REBUILD) {
        act.forget = draw_below(history, 3) == 0;
    }
    return act;
}

static bool do_act(struct history *history, const struct act *act, struct totals *totals)
{
    static const char *const names[] = { "put", "delete", "index run", "retry", "rebuild" };
    char fault[64] = "", policy[64];
    int code = 0;

    if (draw_below(history, 3) == 0)
        snprintf(fault, sizeof fault, "%s:%u",
                 draw_below(history, 2) ? "kill-before" : draw_below(history, 2) ? "kill-mid"
                                                                               : "kill-after",
                 1 + draw_below(history, act->kind < ACT_RUN ? 25 : server_url ? 400 : 120));
    policy_text(act, policy, sizeof policy);
    snprintf(history->act, sizeof history->act, "%s with mapper versions %u and %u, %s%s %s",
             names[act->kind], history->version, history->side, policy,
             act->forget ? ", forgetting" : "", fault);
    if (verbose)
        fprintf(stderr, "%s\n", history->act);
    totals->acts++;
    if (fault[0]) {
        code = in_child(history, act, fault);
        totals->crashes += code < 0;
    }
    if (!fault[0] || code < 0)
        code = in_child(history, act, "");
    if (code != 0) {
        snprintf(history->why, sizeof history->why, "%s ends with status %d", history->act, code);
        return false;
    }
    remember(history, act);
    return true;
}

/* ---- the end: what must be there ---- */

struct expected {
    uint64_t rows, letters, parks, parts;
    uint64_t side[VERSIONS + 1]; /* rows of each version of `side` */
};

static bool link_takes(const struct link *link, const struct item *item)
{
    return link->kind == FULL || item->seq > link->after || link->kind == JSON_MEDIA ||
           (link->kind == SINCE && item->seq >= link->since) ||
           (link->kind == A_NAME && item->kind == A_FILE);
}

/* The version that maps a blob, or a part that these hold. */
static unsigned version_for(const struct history *history, const struct item *const *holders,
                            unsigned count)
{
    for (unsigned i = history->links; i-- > 0;) {
        unsigned takes = 0;

        while (takes < count && link_takes(&history->chain[i], holders[takes]))
            takes++;
        if (takes == count)
            return history->chain[i].version;
    }
    return 0;
}

/* Rows of `side`: one for each blob, each part number n, and each list of so many parts. */
static void expect_side(const struct history *history, struct expected *out)
{
    const struct item *holders[ITEMS];

    for (unsigned i = 0; i < ITEMS; i++) {
        holders[0] = &history->items[i];
        if (is_mapped(&history->items[i]))
            out->side[version_for(history, holders, 1)]++;
    }
    for (unsigned n = 0; n < 8; n++) { /* 0-3: the part; 4-7: the list of n - 3 */
        unsigned count = 0;

        for (unsigned i = 0; i < ITEMS; i++) {
            const struct item *item = &history->items[i];

            if (item->alive && item->kind == SPLIT &&
                (n < 4 ? item->parts > n : item->deep && item->parts == n - 3))
                holders[count++] = item;
        }
        if (count)
            out->side[version_for(history, holders, count)]++;
    }
}

/* Each version of the mapper emits one row more per plain blob or part. */
static void expect(const struct history *history, struct expected *out)
{
    unsigned most_parts = 0, deep = 0;

    memset(out, 0, sizeof *out);
    for (unsigned i = 0; i < ITEMS; i++) {
        const struct item *item = &history->items[i];
        if (!item->alive)
            continue;
        if (!is_mapped(item))
            out->parks += 2; /* of either mapper */
        else if (item->kind == PLAIN || item->kind == A_FILE)
            out->rows += item->rows + history->version;
        else if (item->kind == POISON)
            out->letters++;
        else if (item->kind == NEED && history->items[item->needs].alive)
            out->rows++;
        else if (item->kind == NEED)
            out->parks++;
        else if (item->parts > most_parts)
            most_parts = item->parts;
        if (item->kind == SPLIT)
            out->parts += item->deep ? 1 : item->parts;
        if (item->kind == SPLIT && item->deep)
            deep |= 1u << item->parts;
    }
    for (unsigned n = 1; n <= 4; n++) /* equal lists of parts are one part */
        out->parts += deep >> n & 1 ? n : 0;
    expect_side(history, out);
    /* Part i is the same bytes in every blob: mapped once. */
    out->rows += most_parts * (1 + history->version);
}

static uint64_t count(sqlite3 *database, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    uint64_t value = UINT64_MAX;

    if (sqlite3_prepare_v2(database, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        value = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

static const char *const questions[] = {
    "SELECT count(*) FROM history", "SELECT count(*) FROM refuge_errors",
    "SELECT count(*) FROM refuge_parks", "SELECT count(*) FROM refuge_edges",
    "SELECT count(*) FROM side WHERE v = 0", "SELECT count(*) FROM side WHERE v = 1",
    "SELECT count(*) FROM side WHERE v = 2", "SELECT count(*) FROM side WHERE v = 3"};
enum { QUESTIONS = sizeof questions / sizeof *questions };

static bool count_in_file(struct history *history, uint64_t *counts)
{
    sqlite3 *database = NULL;
    bool opened = sqlite3_open_v2(history->sink_url + strlen("sqlite:"), &database,
                                  SQLITE_OPEN_READONLY, NULL) == SQLITE_OK;

    for (int i = 0; opened && i < QUESTIONS; i++)
        counts[i] = count(database, questions[i]);
    sqlite3_close(database);
    return opened;
}

static enum rf_status take_count(void *user, uint64_t index, size_t columns,
                                 const char *const *names, const struct rf_cell *cells)
{
    uint64_t *out = user;

    (void)index;
    (void)columns;
    (void)names;
    *out = (uint64_t)cells[0].integer;
    return RF_OK;
}

static bool count_in_server(struct history *history, uint64_t *counts)
{
    for (int i = 0; i < QUESTIONS; i++)
        if (rf_query_sql(history->sink_url, questions[i], NULL, take_count, &counts[i], NULL, NULL))
            return false;
    return true;
}

static bool is_expected(struct history *history)
{
    struct expected want;
    uint64_t got[QUESTIONS] = { 0 };

    expect(history, &want);
    if (!(server_url ? count_in_server : count_in_file)(history, got)) {
        snprintf(history->why, sizeof history->why, "cannot open the index");
        return false;
    }
    if (want.rows == got[0] && want.letters == got[1] && want.parks == got[2] &&
        want.parts == got[3] && memcmp(want.side, got + 4, sizeof want.side) == 0)
        return true;
    snprintf(history->why, sizeof history->why,
             "%" PRIu64 " rows, %" PRIu64 " dead letters, %" PRIu64 " parks, %" PRIu64
             " edges; want %" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64 "; rows of each "
             "version of side: %" PRIu64 ", %" PRIu64 ", %" PRIu64 "; want %" PRIu64 ", %" PRIu64
             ", %" PRIu64,
             got[0], got[1], got[2], got[3], want.rows, want.letters, want.parks, want.parts,
             got[5], got[6], got[7], want.side[1], want.side[2], want.side[3]);
    return false;
}

static void problem(void *user, const char *line)
{
    (void)user;
    fprintf(stderr, "verify: %s\n", line);
}

static bool verifies(struct history *history)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        const char *mappers[] = { history->mapper, history->side_mapper };
        struct rf_index_options options = index_options(history, mappers);
        struct rf_compare_report report;
        struct rf_error err = { 0 };
        options.shuffle_seed = (uint32_t)draw(history);
        options.batch_items = 1 + draw_below(history, 16);
        if (rf_index_verify(&options, problem, &report, &err))
            give_up("verify", &err);
        _exit(report.differences != 0);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    snprintf(history->why, sizeof history->why, "verify: not equal to its rebuild");
    return false;
}

/* ---- one history ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *place)
{
    (void)st;
    (void)type;
    (void)place;
    return remove(path);
}

static void remove_folder(const char *path)
{
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_home(struct history *history)
{
    struct rf_store_options options = { .mode = RF_STORE_CREATE };
    struct rf_error err = { 0 };
    struct rf_store *store;

    snprintf(history->folder, sizeof history->folder, "%s/home%" PRIu64, base_folder,
             history->number);
    snprintf(history->store_url, sizeof history->store_url, "disk:%s/store", history->folder);
    if (server_url)
        snprintf(history->sink_url, sizeof history->sink_url, "%s#history_%d_%" PRIu64, server_url,
                 (int)getpid(), history->number);
    else
        snprintf(history->sink_url, sizeof history->sink_url, "sqlite:%s/main.db", history->folder);
    remove_folder(history->folder);
    if (mkdir(history->folder, 0700) != 0) {
        perror(history->folder);
        exit(1);
    }
    if (fork() == 0) { /* this process never runs the store's threads: it forks again */
        if (rf_store_open(&store, history->store_url, &options, &err))
            give_up("make store", &err);
        rf_store_close(store);
        _exit(0);
    }
    (void)wait(NULL);
}

static void remove_home(struct history *history)
{
    struct rf_error err = { 0 };

    remove_folder(history->folder);
    if (server_url && rf_sink_erase(history->sink_url, &err))
        fprintf(stderr, "%s\n", err.message);
}

static bool live(struct history *history, struct totals *totals)
{
    static const struct act run = { .kind = ACT_RUN };
    unsigned acts = 3 + draw_below(history, 6);

    for (unsigned i = 0; i < ITEMS; i++)
        make_item(history, i);
    make_home(history);
    set_version(history, 1);
    set_side(history, 1);
    for (unsigned i = 0; i < acts; i++) {
        struct act act = draw_act(history);
        if (!do_act(history, &act, totals))
            return false;
    }
    if (in_child(history, &run, "") != 0) {
        snprintf(history->why, sizeof history->why, "the last index run fails");
        return false;
    }
    remember(history, &run);
    return is_expected(history) && verifies(history);
}

/* The versions of a mapper, as files that differ in one number. */
static void write_versions(const char *name)
{
    static char text[1 << 16];
    char path[PATH_SIZE + 64], *number;
    const char *slash = strrchr(lua_path, '/');
    FILE *file;
    size_t size;

    snprintf(path, sizeof path, "%.*s/%s", slash ? (int)(slash - lua_path) : 1,
             slash ? lua_path : ".", name);
    file = fopen(path, "rb");
    size = file ? fread(text, 1, sizeof text - 1, file) : 0;
    text[size] = '\0';
    number = strstr(text, "VERSION = 1");
    if (file)
        fclose(file);
    if (!number) {
        fprintf(stderr, "no 'VERSION = 1' in '%s'\n", path);
        exit(1);
    }
    for (unsigned version = 1; version <= VERSIONS; version++) {
        snprintf(path, sizeof path, "%s/v%u", base_folder, version);
        (void)mkdir(path, 0700);
        snprintf(path, sizeof path, "%s/v%u/%s", base_folder, version, name);
        number[strlen("VERSION = ")] = (char)('0' + version);
        file = fopen(path, "wb");
        if (!file || fwrite(text, 1, size, file) != size || fclose(file) != 0) {
            perror(path);
            exit(1);
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, first = 0, amount = 1;
    struct totals totals = { 0 };
    bool keep = false;

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--keep") == 0) {
            keep = verbose = true;
            continue;
        }
        if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--first") == 0)
            first = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--count") == 0)
            amount = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--folder") == 0)
            base_folder = value;
        else if (strcmp(argv[i], "--mapper") == 0)
            mapper_program = value;
        else if (strcmp(argv[i], "--lua") == 0)
            lua_path = value;
        else if (strcmp(argv[i], "--server") == 0)
            server_url = value;
        else {
            fprintf(stderr, "histories: unknown option '%s'\n", argv[i]);
            return 2;
        }
        i++;
    }
    *(void **)&arm = dlsym(RTLD_DEFAULT, "refuge_fault_arm");
    if (!base_folder || !mapper_program || !lua_path || !arm) {
        fprintf(stderr, "histories: run it through histories.py\n");
        return 2;
    }
    write_versions("history.lua");
    write_versions("side.lua");
    for (uint64_t number = first; number < first + amount; number++) {
        struct history history = { .number = number,
                                   .random = seed * 0x9e3779b97f4a7c15u + number };
        bool good;
        (void)draw(&history);
        good = live(&history, &totals);
        totals.histories++;
        totals.failed += !good;
        if (!good)
            printf("failed %" PRIu64 ": %s (last: %s)\n", number, history.why, history.act);
        if (!keep)
            remove_home(&history);
        else
            printf("kept %s, %s\n", history.folder, history.sink_url);
        fflush(stdout);
    }
    printf("done %" PRIu64 " histories %" PRIu64 " acts %" PRIu64 " crashes %" PRIu64 " failed\n",
           totals.histories, totals.acts, totals.crashes, totals.failed);
    return totals.failed != 0;
}
