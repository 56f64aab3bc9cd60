/*
 * sqlite_search.c - words in, hits out, over every full-text table of the live lane
 *
 * The line is cut into terms, each term into pieces by the scanner that made the grams (grams.h),
 * and an FTS5 expression is put together from letters and digits only, each piece in double quotes:
 * what FTS5 would take for syntax never reaches it. Pieces of other scripts that follow each other
 * are a phrase; a run of a script with grams is looked for in the column `grams`.
 *
 * Ranks are bm25 within each table, merged as they are.
 */
#include "sinks/sink_sqlite.h"

#include "sinks/grams.h"
#include "sinks/snippet.h"
#include "sinks/terms.h"

#include <stdio.h>
#include <stdlib.h>

#define CACHE_BYTES (16u << 20)
#define TIES_MAX 10000         /* of the last rank, read so that ties come by item */
#define SNIPPET_BYTES 160
#define SNIPPET_TOKENS 24

/* ---- the expression ---- */

/* Whether a piece of another script and a gram run are one word: then each stands for itself. */
static bool is_mixed(const struct rf_grams_piece *pieces, size_t count, size_t i)
{
    return (pieces[i].joined && i > 0 && pieces[i - 1].gram) ||
           (i + 1 < count && pieces[i + 1].joined && pieces[i + 1].gram);
}

static void put_group(struct rf_buf *out, const struct rf_grams_piece *pieces, size_t first,
                      size_t last, bool prefix)
{
    if (pieces[first].gram) {
        rf_buf_put_text(out, "grams : \"");
        rf_grams_put_query(out, pieces[first].text);
        rf_buf_put_text(out, "\"");
        return;
    }
    rf_buf_put_text(out, "\"");
    for (size_t i = first; i <= last; i++) {
        if (i > first)
            rf_buf_put_u8(out, ' ');
        rf_buf_put(out, pieces[i].text.data, pieces[i].text.size);
    }
    rf_buf_put_text(out, prefix ? "\" *" : "\"");
}

/* The term in brackets: groups of pieces joined by AND. */
static enum rf_status put_term(struct rf_buf *out, const struct rf_term *term, bool prefix,
                               struct rf_error *err)
{
    struct rf_grams_piece pieces[RF_TERM_PIECES_MAX];
    size_t count = 0, at = 0;

    while (count < RF_TERM_PIECES_MAX && rf_grams_next(term->text, &at, &pieces[count]))
        count++;
    if (count == RF_TERM_PIECES_MAX)
        return rf_error_set(err, RF_LIMIT, "cannot search for a phrase of more than %d words",
                            RF_TERM_PIECES_MAX - 1);
    rf_buf_put_u8(out, '(');
    for (size_t i = 0, last; i < count; i = last + 1) {
        last = i;
        while (!pieces[i].gram && !is_mixed(pieces, count, i) && last + 1 < count &&
               !pieces[last + 1].gram && !is_mixed(pieces, count, last + 1))
            last++;
        if (i)
            rf_buf_put_text(out, " AND ");
        put_group(out, pieces, i, last, prefix && last + 1 == count);
    }
    rf_buf_put_u8(out, ')');
    return RF_OK;
}

/* open_end: the line's last word matches as a prefix, too. */
static enum rf_status put_expression(struct rf_buf *out, const struct rf_terms *terms,
                                     bool open_end, struct rf_error *err)
{
    enum rf_status status = RF_OK;
    bool first = true;

    rf_buf_clear(out);
    for (int negated = 0; negated < 2; negated++) {
        bool any = false;
        for (size_t i = 0; !status && i < terms->count; i++) {
            const struct rf_term *term = &terms->items[i];
            if (term->negated != (negated == 1))
                continue;
            rf_buf_put_text(out, negated ? (any ? " OR " : ") NOT (") : (first ? "(" : " AND "));
            status = put_term(out, term, term->prefix || (open_end && i + 1 == terms->count), err);
            any = true;
            first = false;
        }
    }
    rf_buf_put_u8(out, ')');
    if (!status && out->failed)
        status = rf_error_set(err, out->failed, "the words to search for are too long");
    return status;
}

/* ---- candidates ---- */

struct place {
    const struct rf_table *table;
    const char *mapper;
    sqlite3_stmt *details;
};

struct candidate {
    const struct place *place;
    int64_t row;
    double rank;
    char item[RF_ITEM_KEY_SIZE];
};

struct search {
    struct rf_db db;
    struct rf_arena arena;
    struct rf_sqlite_live live;
    struct rf_terms terms;
    struct rf_buf expression, snippet;
    struct place *places;
    size_t place_count;
    size_t wanted; /* limit + offset */
    struct candidate *found;
    size_t found_count, found_room;
    uint64_t total;
};

static enum rf_status find_places(struct search *search, const char *only, struct rf_error *err)
{
    size_t most = 0;

    for (size_t i = 0; i < search->live.count; i++)
        most += search->live.mappers[i].decl->table_count;
    search->places = rf_arena_alloc(&search->arena, (most + 1) * sizeof *search->places);
    for (size_t i = 0; i < search->live.count; i++) {
        const struct rf_decl *decl = search->live.mappers[i].decl;
        for (size_t k = 0; k < decl->table_count; k++) {
            const struct rf_table *table = &decl->tables[k];
            if (only && strcmp(only, table->name) != 0)
                continue;
            if (rf_sqlite_search_count(table))
                search->places[search->place_count++] =
                    (struct place){.table = table, .mapper = decl->name};
            else if (only)
                return rf_error_set(err, RF_INVALID, "table '%s' has no column to search", only);
        }
    }
    if (only && !search->place_count)
        return rf_error_set(err, RF_NOT_FOUND, "there is no table '%s'", only);
    return RF_OK;
}

static void add_candidate(struct search *search, const struct place *place, int64_t row,
                          double rank)
{
    if (search->found_count == search->found_room) {
        search->found_room = search->found_room ? search->found_room * 2 : 64;
        search->found = realloc(search->found, search->found_room * sizeof *search->found);
        if (!search->found)
            abort();
    }
    search->found[search->found_count++] =
        (struct candidate){.place = place, .row = row, .rank = rank};
}

/* The best of one table, and all that tie with the last of them. */
static enum rf_status rank_table(struct search *search, const struct place *place,
                                 struct rf_error *err)
{
    const char *name = place->table->name, *expression = rf_buf_text(&search->expression);
    sqlite3_stmt *stmt = NULL;
    int64_t count;
    size_t taken = 0;
    double last = 0;
    enum rf_status status;

    status = rf_db_int(&search->db, &count, 0, err,
                       "SELECT count(*) FROM \"%w_fts\" WHERE \"%w_fts\" MATCH %Q", name, name,
                       expression);
    if (status || count == 0)
        return status;
    search->total += (uint64_t)count;
    status = rf_db_prepare(&search->db, &stmt, err,
                           "SELECT rowid, rank FROM \"%w_fts\" WHERE \"%w_fts\" MATCH ?1 "
                           "ORDER BY rank LIMIT %lld",
                           name, name, (long long)(search->wanted + TIES_MAX));
    if (status)
        return status;
    rf_db_bind(stmt, "t", expression);
    while ((status = rf_db_step(&search->db, stmt, err)) == RF_OK) {
        double rank = sqlite3_column_double(stmt, 1);
        if (taken >= search->wanted && rank > last)
            break;
        add_candidate(search, place, sqlite3_column_int64(stmt, 0), rank);
        last = rank;
        taken++;
    }
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
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
    order = strcmp(x->place->table->name, y->place->table->name);
    return order ? order : (x->row > y->row) - (x->row < y->row);
}

static enum rf_status name_candidates(struct search *search, struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    const struct place *place = NULL;
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < search->found_count; i++) {
        struct candidate *candidate = &search->found[i];
        if (candidate->place != place) {
            sqlite3_finalize(stmt);
            stmt = NULL;
            place = candidate->place;
            status = rf_db_prepare(&search->db, &stmt, err,
                                   "SELECT b.item FROM \"%w\" t JOIN blobs b ON b.id = t.blob "
                                   "WHERE t.id = ?1",
                                   place->table->name);
            if (status)
                break;
        }
        rf_db_bind(stmt, "i", candidate->row);
        status = rf_db_step(&search->db, stmt, err);
        if (!status)
            snprintf(candidate->item, sizeof candidate->item, "%s", rf_db_text(stmt, 0));
        sqlite3_reset(stmt);
        if (status == RF_END)
            status = RF_OK; /* an entry of the index without a row: the reader of hits leaves it */
    }
    sqlite3_finalize(stmt);
    return status;
}

static enum rf_status find(struct search *search, bool open_end, struct rf_error *err)
{
    enum rf_status status = put_expression(&search->expression, &search->terms, open_end, err);

    search->found_count = 0;
    search->total = 0;
    for (size_t i = 0; !status && i < search->place_count; i++)
        status = rank_table(search, &search->places[i], err);
    return status;
}

/* ---- one hit ---- */

static enum rf_status prepare_details(struct search *search, struct place *place,
                                      struct rf_error *err)
{
    const struct rf_table *table = place->table;
    const char *title = NULL;
    struct rf_buf sql;
    size_t column = 0;
    enum rf_status status;

    for (size_t i = table->column_count; i-- > 0;)
        if (table->columns[i].type == RF_TYPE_TEXT)
            title = table->columns[i].name;
    rf_buf_init(&sql, 1 << 20);
    rf_buf_printf(&sql, "SELECT t.blob, %s%s%s", title ? "substr(t.\"" : "NULL",
                  title ? title : "", title ? "\", 1, 200)" : "");
    for (size_t i = 0; i < table->column_count; i++)
        if (table->columns[i].search)
            rf_buf_printf(&sql, ", snippet(\"%s_fts\", %zu, char(2), char(3), '…', %d)",
                          table->name, column++, SNIPPET_TOKENS);
    rf_buf_printf(&sql,
                  " FROM \"%s_fts\" f JOIN \"%s\" t ON t.id = f.rowid WHERE f.\"%s_fts\" MATCH ?1 "
                  "AND f.rowid = ?2",
                  table->name, table->name, table->name);
    status = rf_db_prepare(&search->db, &place->details, err, "%s", rf_buf_text(&sql));
    rf_buf_release(&sql);
    return status;
}

/* The place of a piece in a text: ASCII letters match in either case. */
static const uint8_t *find_piece(struct rf_bytes text, struct rf_bytes piece)
{
    for (size_t at = 0; piece.size && at + piece.size <= text.size; at++) {
        size_t same = 0;
        while (same < piece.size) {
            uint8_t a = text.data[at + same], b = piece.data[same];
            if (a != b && !((a ^ b) == 0x20 && (a | 0x20) >= 'a' && (a | 0x20) <= 'z'))
                break;
            same++;
        }
        if (same == piece.size)
            return text.data + at;
    }
    return NULL;
}

/* Bytes before or after a hit, cut between characters, with a sign where something is left out. */
static void put_window(struct rf_buf *out, struct rf_bytes text, size_t from, size_t size)
{
    size_t start = from > SNIPPET_BYTES / 2 ? from - SNIPPET_BYTES / 2 : 0;
    size_t end = from + size + SNIPPET_BYTES / 2;

    if (end > text.size)
        end = text.size;
    while (start > 0 && (text.data[start] & 0xc0) == 0x80)
        start--;
    while (end < text.size && (text.data[end] & 0xc0) == 0x80)
        end++;
    if (start > 0)
        rf_buf_put_text(out, "…");
    rf_buf_put(out, text.data + start, from - start);
    if (size) {
        rf_buf_put_u8(out, 2);
        rf_buf_put(out, text.data + from, size);
        rf_buf_put_u8(out, 3);
    }
    rf_buf_put(out, text.data + from + size, end - from - size);
    if (end < text.size)
        rf_buf_put_text(out, "…");
}

/* A hit in `grams` alone: FTS5 has no snippet of it. Find a piece of the query in the text itself;
 * without one (Thai marks between the letters) show where the text begins. */
static bool snippet_by_hand(struct search *search, struct rf_bytes text, bool anyhow)
{
    for (size_t i = 0; i < search->terms.count; i++) {
        struct rf_grams_piece piece;
        size_t at = 0;

        while (!search->terms.items[i].negated &&
               rf_grams_next(search->terms.items[i].text, &at, &piece)) {
            const uint8_t *hit = find_piece(text, piece.text);
            if (hit) {
                put_window(&search->snippet, text, (size_t)(hit - text.data), piece.text.size);
                return true;
            }
        }
    }
    if (anyhow && text.size)
        put_window(&search->snippet, text, 0, 0);
    return anyhow && text.size > 0;
}

static enum rf_status snippet_from_text(struct search *search, const struct candidate *candidate,
                                        struct rf_hit *hit, struct rf_error *err)
{
    const struct rf_table *table = candidate->place->table;
    enum rf_status status = RF_OK;

    for (int anyhow = 0; !status && anyhow < 2 && !search->snippet.size; anyhow++) {
        for (size_t i = 0; !status && i < table->column_count && !search->snippet.size; i++) {
            sqlite3_stmt *stmt = NULL;
            if (!table->columns[i].search)
                continue;
            status = rf_db_prepare(&search->db, &stmt, err,
                                   "SELECT \"%w\" FROM \"%w\" WHERE id = %lld",
                                   table->columns[i].name, table->name,
                                   (long long)candidate->row);
            if (!status)
                status = rf_db_step(&search->db, stmt, err);
            if (!status && snippet_by_hand(search, rf_db_bytes(stmt, 0), anyhow == 1))
                hit->column = table->columns[i].name;
            sqlite3_finalize(stmt);
            if (status == RF_END)
                status = RF_OK;
        }
    }
    return status;
}

/* The column whose snippet has the most marks, as the other kinds of index choose it. */
static bool take_snippet(struct search *search, const struct place *place, struct rf_hit *hit)
{
    struct rf_buf words;
    size_t best = 0;
    int column = 2;

    rf_buf_init(&words, 1 << 20);
    for (size_t i = 0; i < place->table->column_count; i++) {
        size_t marks = 0;
        if (!place->table->columns[i].search)
            continue;
        rf_buf_clear(&words);
        rf_snippet_mark_words(&words, rf_bytes_text(rf_db_text(place->details, column++)));
        for (size_t k = 0; k < words.size; k++)
            marks += words.data[k] == 2;
        if (marks <= best)
            continue;
        best = marks;
        hit->column = place->table->columns[i].name;
        rf_buf_clear(&search->snippet);
        rf_buf_put(&search->snippet, words.data, words.size);
    }
    rf_buf_release(&words);
    return best > 0;
}

static enum rf_status climb(struct search *search, int64_t blob, struct rf_hit *hit,
                            struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (int step = 0; !status && step < RF_SEARCH_CLIMB_MAX && blob; step++) {
        sqlite3_stmt *stmt = NULL;
        int64_t above = 0;
        status = rf_db_prepare(&search->db, &stmt, err,
                               "SELECT b.name, b.ts, e.name, e.parent FROM blobs b LEFT JOIN "
                               "refuge_parts e ON e.child = b.id AND e.mapper IN (SELECT id FROM "
                               "refuge_lane_mappers WHERE lane = %u) AND b.kind = 'part' "
                               "WHERE b.id = %lld ORDER BY e.mapper, e.parent, e.n LIMIT 1",
                               (unsigned)search->live.lane, (long long)blob);
        if (!status)
            status = rf_db_step(&search->db, stmt, err);
        for (int column = 0; !status && column <= 2; column += 2) {
            const char *name = (const char *)sqlite3_column_text(stmt, column);
            if (name && !hit->name)
                hit->name = rf_arena_copy(&search->arena, name, strlen(name));
        }
        if (!status && hit->timestamp_us == INT64_MIN)
            hit->timestamp_us = rf_db_time((const char *)sqlite3_column_text(stmt, 1));
        if (!status)
            above = sqlite3_column_int64(stmt, 3);
        sqlite3_finalize(stmt);
        blob = above;
    }
    return status == RF_END ? RF_OK : status;
}

static const char *short_title(struct search *search, const char *text)
{
    struct rf_bytes all = rf_bytes_text(text);
    size_t size = all.size > RF_SEARCH_TITLE_BYTES ? RF_SEARCH_TITLE_BYTES : all.size;

    while (size < all.size && size > 0 && (all.data[size] & 0xc0) == 0x80)
        size--;
    return rf_arena_copy(&search->arena, text, size);
}

static enum rf_status show(struct search *search, const struct candidate *candidate,
                           enum rf_status (*visit)(void *user, const struct rf_hit *hit),
                           void *user, struct rf_error *err)
{
    struct place *place = &search->places[candidate->place - search->places];
    struct rf_hit hit = {.table = place->table->name,
                         .mapper = place->mapper,
                         .item = candidate->item,
                         .rank = candidate->rank,
                         .row = candidate->row,
                         .timestamp_us = INT64_MIN};
    int64_t blob = 0;
    enum rf_status status = RF_OK;

    rf_buf_clear(&search->snippet);
    if (!place->details)
        status = prepare_details(search, place, err);
    if (status)
        return status;
    rf_db_bind(place->details, "ti", rf_buf_text(&search->expression), candidate->row);
    status = rf_db_step(&search->db, place->details, err);
    if (status)
        return status == RF_END ? RF_OK : status;
    blob = sqlite3_column_int64(place->details, 0);
    if (sqlite3_column_type(place->details, 1) != SQLITE_NULL)
        hit.title = short_title(search, rf_db_text(place->details, 1));
    if (!take_snippet(search, place, &hit))
        status = snippet_from_text(search, candidate, &hit, err);
    sqlite3_reset(place->details);
    if (!status)
        status = climb(search, blob, &hit, err);
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
    if (!status)
        status = name_candidates(search, err);
    if (status)
        return status;
    if (search->found_count)
        qsort(search->found, search->found_count, sizeof *search->found, by_rank);
    for (size_t i = options->offset;
         !status && i < search->found_count && i < search->wanted; i++)
        status = show(search, &search->found[i], visit, user, err);
    return status;
}

enum rf_status rf_sqlite_search(const char *path, const char *words,
                                const struct rf_search_options *options,
                                enum rf_status (*visit)(void *user, const struct rf_hit *hit),
                                void *user, uint64_t *total, struct rf_error *err)
{
    static const struct rf_search_options defaults = {0};
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
        status = rf_db_open(&search.db, path, RF_DB_READ, CACHE_BYTES, NULL, err);
    if (status)
        return status;
    search.wanted = limit + options->offset;
    rf_arena_init(&search.arena, 64u << 20);
    rf_buf_init(&search.expression, 1 << 20);
    rf_buf_init(&search.snippet, 1 << 20);
    /* One snapshot for all its statements. */
    status = rf_db_exec(&search.db, err, "BEGIN");
    if (!status)
        status = rf_sqlite_live(&search.db, &search.arena, &search.live, err);
    if (!status)
        status = run(&search, options, visit, user, err);
    if (!status && total)
        *total = search.total;
    for (size_t i = 0; i < search.place_count; i++)
        sqlite3_finalize(search.places[i].details);
    rf_buf_release(&search.expression);
    rf_buf_release(&search.snippet);
    rf_arena_release(&search.arena);
    free(search.found);
    rf_db_close(&search.db);
    return status;
}
