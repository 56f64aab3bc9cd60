/*
 * elastic_search.c - words in, hits out, over every searchable table of the live lane
 *
 * Rows hold their words as refuge cuts them (refuge.words): the pieces of grams.h, folded as
 * lexemes.h does, one token each, and of a run of a script without spaces each letter. So a term of
 * several pieces is a phrase of tokens. Fields of one row are a hundred positions apart, so that no
 * phrase runs from one into the next.
 *
 * Ranks are the server's scores with their sign turned, so that lower is better, merged over tables
 * as they are. Snippets are cut here (snippet.h).
 */
#include "sinks/sink_elastic.h"

#include "core/utf8.h"
#include "sinks/grams.h"
#include "sinks/lexemes.h"
#include "sinks/snippet.h"
#include "sinks/terms.h"

#include <stdio.h>
#include <stdlib.h>

#define EXPANSIONS 1000 /* words that a beginning stands for, behind others */

void rf_elastic_put_tokens(struct rf_buf *out, struct rf_bytes text)
{
    struct rf_grams_piece piece;
    size_t at = 0, before = out->size;

    while (rf_grams_next(text, &at, &piece)) {
        if (piece.gram) {
            struct rf_bytes letter;
            size_t inner = 0;
            while (rf_grams_letter(piece.text, &inner, &letter)) {
                if (out->size > before)
                    rf_buf_put_u8(out, ' ');
                rf_buf_put(out, letter.data, letter.size);
            }
        } else {
            if (out->size > before)
                rf_buf_put_u8(out, ' ');
            rf_lexemes_fold(out, piece.text);
        }
    }
}

struct place {
    const struct rf_el_table *table;
    const char *mapper;
};

struct candidate {
    const struct place *place;
    int64_t n;
    double rank;
    char item[RF_ITEM_KEY_SIZE];
};

struct search {
    struct rf_elastic *sink; /* a reader */
    struct rf_el_lane *lane;
    struct rf_arena arena;
    struct rf_terms terms;
    bool open;     /* the last word is taken as a beginning */
    struct rf_buf query, tokens, snippet;
    struct place *places;
    size_t place_count, wanted; /* wanted: limit + offset */
    struct candidate *found;
    size_t found_count, found_room;
    uint64_t total;
};

/* ---- the query ---- */

static enum rf_status put_term(struct search *search, const struct rf_term *term, bool prefix,
                               struct rf_error *err)
{
    struct rf_buf *out = &search->query, *tokens = &search->tokens;
    size_t pieces = 0, at = 0;
    struct rf_grams_piece piece;

    while (rf_grams_next(term->text, &at, &piece)) {
        if (++pieces == RF_TERM_PIECES_MAX)
            return rf_error_set(err, RF_LIMIT, "cannot search for a phrase of more than %d words",
                                RF_TERM_PIECES_MAX - 1);
        if (piece.gram) /* it is a beginning as it is */
            prefix &= at < term->text.size;
    }
    rf_buf_clear(tokens);
    rf_elastic_put_tokens(tokens, term->text);
    if (prefix && tokens->data && !memchr(tokens->data, ' ', tokens->size)) {
        rf_buf_put_text(out, "{\"prefix\":{\"refuge.words\":{\"value\":");
        rf_json_put_string(out, rf_buf_bytes(tokens));
        rf_buf_put_text(out, ",\"rewrite\":\"top_terms_boost_1000\"}}}");
        return RF_OK;
    }
    rf_buf_printf(out, "{\"%s\":{\"refuge.words\":{\"query\":",
                  prefix ? "match_phrase_prefix" : "match_phrase");
    rf_json_put_string(out, tokens->data ? rf_buf_bytes(tokens) : rf_bytes("", 0));
    if (prefix)
        rf_buf_printf(out, ",\"max_expansions\":%d", EXPANSIONS);
    rf_buf_put_text(out, "}}}");
    return RF_OK;
}

/* {"bool":{"must":[...],"must_not":[...]}}; open_end: the last word matches as a prefix, too. */
static enum rf_status put_query(struct search *search, bool open_end, struct rf_error *err)
{
    struct rf_buf *out = &search->query;
    enum rf_status status = RF_OK;

    rf_buf_clear(out);
    for (int negated = 0; negated < 2; negated++) {
        bool any = false;
        rf_buf_put_text(out, negated ? "],\"must_not\":[" : "{\"bool\":{\"must\":[");
        for (size_t i = 0; !status && i < search->terms.count; i++) {
            const struct rf_term *term = &search->terms.items[i];
            bool last = i + 1 == search->terms.count;
            if (term->negated != (negated == 1))
                continue;
            rf_buf_put_text(out, any ? "," : "");
            any = true;
            status = put_term(search, term, term->prefix || (open_end && last), err);
        }
        if (!any && !negated) /* only exclusions: everything else */
            rf_buf_put_text(out, "{\"match_all\":{}}");
    }
    rf_buf_put_text(out, "]}}");
    if (!status && !rf_buf_text(out))
        status = rf_error_set(err, out->failed, "the words to search for are too long");
    return status;
}

/* ---- candidates ---- */

static enum rf_status find_places(struct search *search, const char *only, struct rf_error *err)
{
    size_t most = 0;

    for (size_t i = 0; i < search->lane->mapper_count; i++)
        most += search->lane->mappers[i].decl->table_count;
    search->places = rf_arena_alloc(&search->arena, (most + 1) * sizeof *search->places);
    for (size_t i = 0; i < search->lane->mapper_count; i++) {
        const struct rf_el_mapper *mapper = &search->lane->mappers[i];
        for (size_t k = 0; !mapper->edges_only && k < mapper->decl->table_count; k++) {
            const struct rf_el_table *table = &mapper->tables[k];
            if (only && strcmp(only, table->decl->name) != 0)
                continue;
            if (table->search_count)
                search->places[search->place_count++] = (struct place){table, mapper->name};
            else if (only)
                return rf_error_set(err, RF_INVALID, "table '%s' has no column to search", only);
        }
    }
    if (only && !search->place_count)
        return rf_error_set(err, RF_NOT_FOUND, "there is no table '%s'", only);
    return RF_OK;
}

static struct candidate *add_candidate(struct search *search)
{
    search->found = rf_elastic_grow(search->found, search->found_count, &search->found_room,
                                    sizeof *search->found);
    return &search->found[search->found_count++];
}

static enum rf_status ask(struct search *search, const char *index, const char *body,
                          const struct rf_json **hits, int64_t *total, struct rf_error *err)
{
    struct rf_es_reply reply;
    const struct rf_json *found;
    enum rf_status status =
        body ? rf_es_call(search->sink->es, &reply, "POST", rf_bytes_text(body), err,
                          "/%s/_search", index)
             : rf_error_set(err, RF_LIMIT, "the words to search for are too long");

    if (status)
        return status;
    found = rf_json_find(reply.json, "hits");
    *hits = rf_json_find(found, "hits");
    if (reply.status >= 300 || !*hits)
        return rf_es_unexpected(search->sink->es, &reply, "search", err);
    (void)!rf_json_int(rf_json_find(rf_json_find(found, "total"), "value"), total);
    return RF_OK;
}

/* The best of one table, ties by item; how many there are in all. By pages: the server gives no
 * more than 10,000 at a time. */
static enum rf_status rank_table(struct search *search, const struct place *place,
                                 struct rf_error *err)
{
    struct rf_buf body, after;
    size_t got = 0, page = 0;
    enum rf_status status = RF_OK;

    rf_buf_init(&body, 1 << 20);
    rf_buf_init(&after, 1 << 12);
    do {
        const struct rf_json *hits = NULL;
        int64_t total = 0;
        page = search->wanted - got < RF_ELASTIC_PAGE ? search->wanted - got : RF_ELASTIC_PAGE;
        rf_buf_clear(&body);
        rf_buf_printf(&body, "{\"size\":%zu,\"track_total_hits\":%s,\"_source\":[\"refuge.item\","
                             "\"refuge.n\"],\"sort\":[\"_score\",\"refuge.item\",\"refuge.n\"],"
                             "\"query\":%s",
                      page, got ? "false" : "true", rf_buf_text(&search->query));
        if (got)
            rf_buf_printf(&body, ",\"search_after\":%s", rf_buf_text(&after));
        rf_buf_put_u8(&body, '}');
        status = ask(search, place->table->index, rf_buf_text(&body), &hits, &total, err);
        if (status)
            break;
        search->total += got ? 0 : (uint64_t)total;
        for (size_t i = 0; i < hits->count; i++) {
            const struct rf_json *hit = &hits->items[i], *sort = rf_json_find(hit, "sort");
            const struct rf_json *refuge = rf_json_find(rf_json_find(hit, "_source"), "refuge");
            const char *item = rf_json_string(rf_json_find(refuge, "item"));
            struct candidate *candidate = add_candidate(search);
            *candidate = (struct candidate){.place = place};
            snprintf(candidate->item, sizeof candidate->item, "%s", item ? item : "");
            (void)!rf_json_int(rf_json_find(refuge, "n"), &candidate->n);
            if (sort && sort->count == 3) {
                (void)!rf_json_double(&sort->items[0], &candidate->rank);
                candidate->rank = -candidate->rank;
                rf_buf_clear(&after);
                rf_json_put_canonical(&after, sort);
            }
        }
        got += hits->count;
        if (hits->count < page)
            break;
    } while (got < search->wanted);
    rf_buf_release(&body);
    rf_buf_release(&after);
    return status;
}

static int by_rank(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    int order;

    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    order = strcmp(x->item, y->item);
    if (order)
        return order;
    order = strcmp(x->place->table->decl->name, y->place->table->decl->name);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

static enum rf_status find(struct search *search, bool open_end, struct rf_error *err)
{
    enum rf_status status = put_query(search, open_end, err);

    search->open = open_end;
    search->found_count = 0;
    search->total = 0;
    for (size_t i = 0; !status && i < search->place_count; i++)
        status = rank_table(search, &search->places[i], err);
    return status;
}

/* ---- one hit ---- */

static const struct rf_json *first_doc(const struct rf_es_reply *reply)
{
    const struct rf_json *docs = rf_json_find(reply->json, "docs");

    return docs && docs->count ? rf_json_find(&docs->items[0], "_source") : NULL;
}

static enum rf_status get_doc(struct search *search, const char *index, const char *id,
                              const struct rf_json **source, struct rf_error *err)
{
    struct rf_es_reply reply;
    struct rf_buf body;
    enum rf_status status;

    rf_buf_init(&body, 1 << 12);
    rf_buf_put_text(&body, "{\"ids\":[");
    rf_json_put_string(&body, rf_bytes_text(id));
    rf_buf_put_text(&body, "]}");
    status = rf_es_call(search->sink->es, &reply, "POST", rf_buf_bytes(&body), err, "/%s/_mget",
                        index);
    rf_buf_release(&body);
    if (!status && reply.status >= 300)
        status = rf_es_unexpected(search->sink->es, &reply, "read a row", err);
    *source = status ? NULL : first_doc(&reply);
    return status;
}

/* An edge to a part: its name and the parent's key, in the arena. */
static enum rf_status find_parent(struct search *search, const char *key, struct rf_hit *hit,
                                  char above[RF_ITEM_KEY_SIZE], struct rf_error *err)
{
    const struct rf_json *hits = NULL, *source;
    const char *parent, *name;
    int64_t total = 0;
    struct rf_buf body;
    enum rf_status status;

    rf_buf_init(&body, 1 << 14);
    rf_buf_put_text(&body, "{\"size\":1,\"query\":{\"bool\":{\"filter\":[{\"term\":{\"kind\":"
                           "\"edge\"}},{\"terms\":{\"gen\":");
    rf_elastic_put_gens(&body, search->lane);
    rf_buf_put_text(&body, "}},{\"term\":{\"child\":");
    rf_json_put_string(&body, rf_bytes_text(key));
    rf_buf_put_text(&body, "}}]}},\"sort\":[\"gen\",\"item\",\"n\"]}");
    status = ask(search, search->sink->own, rf_buf_text(&body), &hits, &total, err);
    rf_buf_release(&body);
    source = !status && hits->count ? rf_json_find(&hits->items[0], "_source") : NULL;
    parent = rf_json_string(rf_json_find(source, "item"));
    name = rf_json_string(rf_json_find(source, "name"));
    if (name && !hit->name)
        hit->name = rf_arena_copy(&search->arena, name, strlen(name));
    snprintf(above, RF_ITEM_KEY_SIZE, "%s", parent ? parent : "");
    return status;
}

/* Name and time of an item; a part has those of the nearest thing above it that has one. */
static enum rf_status climb(struct search *search, const char *item, struct rf_hit *hit,
                            struct rf_error *err)
{
    char key[RF_ITEM_KEY_SIZE], id[RF_ITEM_KEY_SIZE + 4], above[RF_ITEM_KEY_SIZE] = "";
    enum rf_status status = RF_OK;

    snprintf(key, sizeof key, "%s", item);
    for (int step = 0; !status && step < RF_SEARCH_CLIMB_MAX && key[0]; step++) {
        const struct rf_json *source = NULL;
        struct rf_el_content content = {.absent = true};
        snprintf(id, sizeof id, "i:%s", key);
        status = get_doc(search, search->sink->own, id, &source, err);
        if (!status && source)
            status = rf_elastic_read_content(search->sink, &search->arena, source, &content, err);
        if (status || content.absent)
            break;
        if (content.name && !hit->name)
            hit->name = content.name;
        above[0] = '\0';
        if (content.kind == RF_SINK_PART)
            status = find_parent(search, key, hit, above, err);
        if (hit->timestamp_us == INT64_MIN)
            hit->timestamp_us = content.ts;
        snprintf(key, sizeof key, "%s", above);
    }
    return status;
}

/* The snippet of the column with the most hits; without any, of the first with a text. */
static void take_snippet(struct search *search, const struct rf_table *table,
                         const struct rf_json *source, struct rf_hit *hit)
{
    struct rf_buf scratch;
    size_t best = 0;

    rf_buf_init(&scratch, 1 << 20);
    for (size_t i = 0; i < table->column_count; i++) {
        const struct rf_json *text = rf_json_find(source, table->columns[i].name);
        size_t hits;
        if (!table->columns[i].search || !text || text->type != RF_JSON_STRING ||
            !text->text.size)
            continue;
        hits = rf_snippet_make(&scratch, &search->terms, search->open, text->text);
        if (hit->column && hits <= best)
            continue;
        best = hits;
        hit->column = table->columns[i].name;
        rf_buf_clear(&search->snippet);
        rf_buf_put(&search->snippet, scratch.data, scratch.size);
    }
    rf_buf_release(&scratch);
}

static void take_title(struct search *search, const struct rf_table *table,
                       const struct rf_json *source, struct rf_hit *hit)
{
    for (size_t i = 0; i < table->column_count; i++) {
        const struct rf_json *text = rf_json_find(source, table->columns[i].name);
        size_t size;
        if (table->columns[i].type != RF_TYPE_TEXT)
            continue;
        if (text && text->type == RF_JSON_STRING) {
            size = text->text.size < RF_SEARCH_TITLE_BYTES ? text->text.size
                                                           : RF_SEARCH_TITLE_BYTES;
            hit->title = rf_arena_copy(&search->arena, text->text.data,
                                       rf_utf8_cut(text->text, size));
        }
        return;
    }
}

static enum rf_status show(struct search *search, const struct candidate *candidate,
                           enum rf_status (*visit)(void *user, const struct rf_hit *hit),
                           void *user, struct rf_error *err)
{
    const struct rf_table *table = candidate->place->table->decl;
    struct rf_hit hit = {.table = table->name,
                         .mapper = candidate->place->mapper,
                         .item = candidate->item,
                         .rank = candidate->rank,
                         .row = candidate->n,
                         .timestamp_us = INT64_MIN};
    char id[RF_NAME_MAX + RF_ITEM_KEY_SIZE + 16];
    const struct rf_json *source = NULL;
    enum rf_status status;

    snprintf(id, sizeof id, "%s:%s:%lld", table->name, candidate->item, (long long)candidate->n);
    status = get_doc(search, candidate->place->table->index, id, &source, err);
    rf_buf_clear(&search->snippet);
    if (!status) {
        take_title(search, table, source, &hit);
        take_snippet(search, table, source, &hit);
        status = climb(search, candidate->item, &hit, err);
    }
    hit.snippet = rf_buf_text(&search->snippet);
    if (!hit.snippet)
        hit.snippet = "";
    if (!hit.column)
        hit.column = "";
    return status ? status : visit(user, &hit);
}

/* ---- all of it ---- */

static enum rf_status run(struct search *search, const struct rf_search_options *options,
                          enum rf_status (*visit)(void *user, const struct rf_hit *hit),
                          void *user, struct rf_error *err)
{
    enum rf_status status = find_places(search, options->table, err);

    if (!status)
        status = find(search, false, err);
    if (!status && !search->total && rf_terms_may_open(&search->terms))
        status = find(search, true, err);
    if (status)
        return status;
    if (search->found_count)
        qsort(search->found, search->found_count, sizeof *search->found, by_rank);
    for (size_t i = options->offset; !status && i < search->found_count && i < search->wanted; i++)
        status = show(search, &search->found[i], visit, user, err);
    return status;
}

enum rf_status rf_elastic_search(const char *rest, const char *words,
                                 const struct rf_search_options *options,
                                 enum rf_status (*visit)(void *user, const struct rf_hit *hit),
                                 void *user, uint64_t *total, struct rf_error *err)
{
    static const struct rf_search_options defaults = {0};
    struct rf_el_lane none = {0};
    struct search search = {0};
    size_t limit;
    enum rf_status status;

    if (!options)
        options = &defaults;
    limit = options->limit ? options->limit : RF_SEARCH_LIMIT;
    status = rf_terms_parse(&search.terms, words, err);
    if (!status && (limit > RF_HITS_MAX || options->offset > RF_HITS_MAX - limit))
        status = rf_error_set(err, RF_LIMIT, "cannot show hits beyond the first %d", RF_HITS_MAX);
    if (!status)
        status = rf_elastic_open_reader(&search.sink, rest, err);
    if (status)
        return status;
    search.wanted = limit + options->offset;
    rf_arena_init(&search.arena, 64u << 20);
    rf_buf_init(&search.query, 1 << 20);
    rf_buf_init(&search.tokens, 1 << 20);
    rf_buf_init(&search.snippet, 1 << 20);
    /* None in an index that was never run: then there is nothing to find. */
    if (rf_elastic_lane(search.sink, 0, &search.lane, NULL) != RF_OK)
        search.lane = &none;
    status = run(&search, options, visit, user, err);
    if (!status && total)
        *total = search.total;
    rf_buf_release(&search.query);
    rf_buf_release(&search.tokens);
    rf_buf_release(&search.snippet);
    rf_arena_release(&search.arena);
    free(search.found);
    rf_elastic_close(&search.sink->base);
    return status;
}
