/*
 * postgres_search.c - words in, hits out, over every searchable table of the live lane
 *
 * The line is cut into terms (terms.h), each into the pieces that lexemes.h made of texts, and a
 * tsquery is put together from letters and digits only, each lexeme in quotes. The pieces of a term
 * follow each other: a phrase, with the distances that their letters give. A row too long for its
 * positions (RF_LEXEME_LONG) is found by the pieces alone.
 *
 * Ranks are ts_rank with its sign turned, so that lower is better, merged over tables as they are.
 * Snippets are cut here: the server would parse the text again in its own way.
 */
#include "sinks/sink_postgres.h"

#include "core/utf8.h"
#include "sinks/grams.h"
#include "sinks/lexemes.h"
#include "sinks/snippet.h"
#include "sinks/terms.h"

#include <stdio.h>
#include <stdlib.h>

#define GRAM_MAX 3

struct place {
    const struct rf_table *table;
    const char *mapper;
};

struct candidate {
    const struct place *place;
    int64_t row;
    double rank;
    char item[RF_ITEM_KEY_SIZE];
};

struct search {
    struct rf_postgres sink; /* a reader of it: for its lane */
    struct rf_pg_lane *lane;
    struct rf_arena arena;
    struct rf_terms terms;
    bool open;     /* the last word is taken as a beginning */
    struct rf_buf query, snippet;
    struct place *places;
    size_t place_count, wanted; /* wanted: limit + offset */
    struct candidate *found;
    size_t found_count, found_room;
    uint64_t total;
};

/* ---- the query ---- */

/* A lexeme in quotes; letters and digits need none of their own escaped. */
static void put_lexeme(struct rf_buf *out, struct rf_bytes text, bool prefix)
{
    rf_buf_put_u8(out, '\'');
    rf_buf_put(out, text.data, text.size);
    rf_buf_put_text(out, prefix ? "':*" : "'");
}

/* How lexemes are joined: at distances as in the text, or anywhere in the row. */
struct joint {
    bool near;
    bool any;      /* something stands there already */
    unsigned gap;  /* positions since the last lexeme */
};

static void put_joint(struct rf_buf *out, struct joint *joint)
{
    if (joint->any && joint->near)
        rf_buf_printf(out, " <%u> ", joint->gap);
    else if (joint->any)
        rf_buf_put_text(out, " & ");
    joint->any = true;
    joint->gap = 0;
}

/* A run of up to three letters is its gram; a longer one its 3-grams, one position apart. */
static void put_run(struct rf_buf *out, struct rf_bytes run, struct joint *joint)
{
    struct rf_bytes letters[GRAM_MAX], gram;
    uint8_t bytes[GRAM_MAX * 4];
    size_t at = 0, have = 0;
    bool first = true;

    for (;;) {
        while (have < GRAM_MAX && rf_grams_letter(run, &at, &letters[have]))
            have++;
        if (have < GRAM_MAX && !first)
            break;
        gram = rf_bytes(bytes, 0);
        for (size_t i = 0; i < have; i++) {
            memcpy(bytes + gram.size, letters[i].data, letters[i].size);
            gram.size += letters[i].size;
        }
        put_joint(out, joint);
        put_lexeme(out, gram, false);
        joint->gap = 1;
        first = false;
        if (have < GRAM_MAX) {
            joint->gap = (unsigned)have;
            return;
        }
        have--;
        memmove(letters, letters + 1, have * sizeof *letters);
    }
    joint->gap = GRAM_MAX; /* behind the last gram's letters */
}

static void put_pieces(struct rf_buf *out, const struct rf_grams_piece *pieces, size_t count,
                       bool prefix, bool near)
{
    struct joint joint = {.near = near};
    struct rf_buf folded;

    rf_buf_init(&folded, 1 << 20);
    rf_buf_put_u8(out, '(');
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].gram) {
            put_run(out, pieces[i].text, &joint);
            continue;
        }
        rf_buf_clear(&folded);
        rf_lexemes_fold(&folded, pieces[i].text);
        put_joint(out, &joint);
        put_lexeme(out, rf_buf_bytes(&folded), prefix && i + 1 == count);
        joint.gap = 1;
    }
    rf_buf_put_u8(out, ')');
    rf_buf_release(&folded);
}

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
    put_pieces(out, pieces, count, prefix, true);
    if (count > 1 || pieces[0].gram) {
        rf_buf_put_text(out, " | '" RF_LEXEME_LONG "' & ");
        put_pieces(out, pieces, count, prefix, false);
    }
    rf_buf_put_u8(out, ')');
    return RF_OK;
}

/* open_end: the line's last word matches as a prefix, too. */
static enum rf_status put_query(struct search *search, bool open_end, struct rf_error *err)
{
    struct rf_buf *out = &search->query;
    enum rf_status status = RF_OK;

    rf_buf_clear(out);
    for (size_t i = 0; !status && i < search->terms.count; i++) {
        const struct rf_term *term = &search->terms.items[i];
        rf_buf_put_text(out, i ? " & " : "");
        rf_buf_put_text(out, term->negated ? "!" : "");
        status = put_term(out, term,
                          term->prefix || (open_end && i + 1 == search->terms.count), err);
    }
    if (!status && !rf_buf_text(out))
        status = rf_error_set(err, out->failed, "the words to search for are too long");
    return status;
}

/* The same by the rules of a language, which the server knows: an expression of type tsquery. A
 * word with a '*' goes by its stem. */
static void put_stem_query(struct rf_buf *out, const struct rf_terms *terms, const char *language)
{
    for (size_t i = 0; i < terms->count; i++) {
        const struct rf_term *term = &terms->items[i];
        char *text = strndup((const char *)term->text.data, term->text.size);

        if (!text)
            abort();
        rf_pg_put_sql(out, "%s%splainto_tsquery(%Q::regconfig, %Q)", i ? " && " : "",
                      term->negated ? "!!" : "", language, text);
        free(text);
    }
}

/* ---- candidates ---- */

static enum rf_status find_places(struct search *search, const char *only, struct rf_error *err)
{
    size_t most = 0;

    for (size_t i = 0; i < search->lane->mapper_count; i++)
        most += search->lane->mappers[i].decl->table_count;
    search->places = rf_arena_alloc(&search->arena, (most + 1) * sizeof *search->places);
    for (size_t i = 0; i < search->lane->mapper_count; i++) {
        const struct rf_decl *decl = search->lane->mappers[i].decl;
        for (size_t k = 0; k < decl->table_count; k++) {
            const struct rf_table *table = &decl->tables[k];
            if (only && strcmp(only, table->name) != 0)
                continue;
            if (rf_postgres_search_count(table))
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

static struct candidate *add_candidate(struct search *search)
{
    if (search->found_count == search->found_room) {
        search->found_room = search->found_room ? search->found_room * 2 : 64;
        search->found = realloc(search->found, search->found_room * sizeof *search->found);
        if (!search->found)
            abort();
    }
    return &search->found[search->found_count++];
}

/* The statement that counts a table's hits, or ranks them. */
static void put_condition(struct rf_buf *sql, const struct search *search,
                          const struct rf_table *table, bool rank)
{
    bool stems = rf_postgres_has_stems(table);

    for (size_t i = 0; i < search->terms.count; i++)
        stems &= !search->terms.items[i].phrase; /* a phrase means what it says */
    rf_buf_put_text(sql, "WITH w AS MATERIALIZED (SELECT $1::text::tsquery AS q");
    if (stems) {
        rf_buf_put_text(sql, ", ");
        put_stem_query(sql, &search->terms, table->language);
        rf_buf_put_text(sql, " AS s");
    }
    if (rank)
        rf_pg_put_sql(sql, ") SELECT t.id, (-ts_rank(t.search, w.q)%s)::float8, b.item FROM w, "
                           "\"%w\" t JOIN blobs b ON b.id = t.blob",
                      stems ? " - ts_rank(t.refuge_stems, w.s)" : "", table->name);
    else
        rf_pg_put_sql(sql, ") SELECT count(*) FROM w, \"%w\" t", table->name);
    rf_buf_put_text(sql, " WHERE t.search @@ w.q");
    if (stems)
        rf_buf_put_text(sql, " OR t.refuge_stems @@ w.s");
    if (rank)
        rf_pg_put_sql(sql, " ORDER BY 2, b.item, t.n LIMIT %zu", search->wanted);
}

/* The best of one table, ties by item; how many there are in all. */
static enum rf_status rank_table(struct search *search, const struct place *place,
                                 struct rf_error *err)
{
    struct rf_pg_stream *stream = NULL;
    const struct rf_pg_rows *rows;
    struct rf_buf sql;
    int64_t count;
    size_t row;
    enum rf_status status;

    rf_buf_init(&sql, 1 << 16);
    put_condition(&sql, search, place->table, false);
    status = rf_pg_int(search->sink.pg, &count, 0, err, rf_buf_text(&sql), "b",
                       rf_buf_bytes(&search->query));
    if (status || !count)
        goto out;
    search->total += (uint64_t)count;
    rf_buf_clear(&sql);
    put_condition(&sql, search, place->table, true);
    status = rf_pg_stream_open(search->sink.pg, &stream, err, rf_buf_text(&sql), "b",
                               rf_buf_bytes(&search->query));
    while (!status && (status = rf_pg_stream_next(stream, &rows, &row, err)) == RF_OK) {
        struct candidate *candidate = add_candidate(search);
        candidate->place = place;
        candidate->row = rf_pg_int_at(rows, row, 0);
        candidate->rank = rf_pg_float_at(rows, row, 1);
        snprintf(candidate->item, sizeof candidate->item, "%s", rf_pg_text_at(rows, row, 2));
    }
    rf_pg_stream_close(stream);
    if (status == RF_END)
        status = RF_OK;
out:
    rf_buf_release(&sql);
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
    order = strcmp(x->place->table->name, y->place->table->name);
    return order ? order : (x->row > y->row) - (x->row < y->row);
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

/* Name and time of an item; a part has those of the nearest thing above it that has one. */
static enum rf_status climb(struct search *search, int64_t blob, struct rf_hit *hit,
                            struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (int step = 0; !status && step < RF_SEARCH_CLIMB_MAX && blob; step++) {
        struct rf_pg_rows *rows = NULL;
        int64_t above = 0;
        status = rf_pg_query(search->sink.pg, &rows, err,
                             "SELECT b.name, e.name, b.ts, e.parent FROM blobs b LEFT JOIN "
                             "refuge_parts e ON e.child = b.id AND e.mapper = ANY($2) AND b.kind = "
                             "'part' WHERE b.id = $1 ORDER BY e.mapper, e.parent, e.n LIMIT 1",
                             "iI", blob, search->lane->ids, search->lane->mapper_count);
        for (int column = 0; rf_pg_count(rows) && column < 2; column++) {
            struct rf_bytes name = rf_pg_bytes_at(rows, 0, column);
            if (name.data && !hit->name)
                hit->name = rf_arena_copy(&search->arena, name.data, name.size);
        }
        if (rf_pg_count(rows) && hit->timestamp_us == INT64_MIN)
            hit->timestamp_us = rf_pg_time_at(rows, 0, 2);
        if (rf_pg_count(rows))
            above = rf_pg_int_at(rows, 0, 3);
        rf_pg_rows_free(rows);
        blob = above;
    }
    return status;
}

/* The snippet of the column with the most hits; without any, of the first with a text. */
static void take_snippet(struct search *search, const struct rf_table *table,
                         const struct rf_pg_rows *rows, struct rf_hit *hit)
{
    struct rf_buf scratch;
    size_t best = 0;
    int column = 2;

    rf_buf_init(&scratch, 1 << 20);

    for (size_t i = 0; i < table->column_count; i++) {
        struct rf_bytes text;
        size_t hits;
        if (!table->columns[i].search)
            continue;
        text = rf_pg_bytes_at(rows, 0, column++);
        if (!text.data || !text.size)
            continue;
        hits = rf_snippet_make(&scratch, &search->terms,
                               search->open || rf_postgres_has_stems(table), text);
        if (hit->column && hits <= best)
            continue;
        best = hits;
        hit->column = table->columns[i].name;
        rf_buf_clear(&search->snippet);
        rf_buf_put(&search->snippet, scratch.data, scratch.size);
    }
    rf_buf_release(&scratch);
}

static enum rf_status ask_details(struct search *search, const struct candidate *candidate,
                                  struct rf_pg_rows **rows, struct rf_error *err)
{
    const struct rf_table *table = candidate->place->table;
    const char *title = NULL;
    struct rf_buf sql;
    enum rf_status status;

    for (size_t i = table->column_count; i-- > 0;)
        if (table->columns[i].type == RF_TYPE_TEXT)
            title = table->columns[i].name;
    rf_buf_init(&sql, 1 << 20);
    if (title)
        rf_pg_put_sql(&sql, "SELECT blob, left(\"%w\", 200)", title);
    else
        rf_buf_put_text(&sql, "SELECT blob, NULL");
    for (size_t i = 0; i < table->column_count; i++)
        if (table->columns[i].search)
            rf_pg_put_sql(&sql, ", \"%w\"", table->columns[i].name);
    rf_pg_put_sql(&sql, " FROM \"%w\" WHERE id = $1", table->name);
    status = rf_pg_query(search->sink.pg, rows, err, rf_buf_text(&sql), "i", candidate->row);
    rf_buf_release(&sql);
    return status;
}

static enum rf_status show(struct search *search, const struct candidate *candidate,
                           enum rf_status (*visit)(void *user, const struct rf_hit *hit),
                           void *user, struct rf_error *err)
{
    const struct rf_table *table = candidate->place->table;
    struct rf_hit hit = {.table = table->name,
                         .mapper = candidate->place->mapper,
                         .item = candidate->item,
                         .rank = candidate->rank,
                         .row = candidate->row,
                         .timestamp_us = INT64_MIN};
    struct rf_pg_rows *rows = NULL;
    enum rf_status status = ask_details(search, candidate, &rows, err);

    rf_buf_clear(&search->snippet);
    if (!status && !rf_pg_is_null(rows, 0, 1)) {
        struct rf_bytes title = rf_pg_bytes_at(rows, 0, 1);
        hit.title = rf_arena_copy(&search->arena, title.data,
                                  rf_utf8_cut(title, title.size < RF_SEARCH_TITLE_BYTES
                                                         ? title.size
                                                         : RF_SEARCH_TITLE_BYTES));
    }
    if (!status) {
        take_snippet(search, table, rows, &hit);
        status = climb(search, rf_pg_int_at(rows, 0, 0), &hit, err);
    }
    hit.snippet = rf_buf_text(&search->snippet);
    if (!hit.snippet)
        hit.snippet = "";
    if (!hit.column)
        hit.column = "";
    status = status ? status : visit(user, &hit);
    rf_pg_rows_free(rows);
    return status;
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

/* The live lane; none in an index that was never run: then there is nothing to find. */
static enum rf_status find_lane(struct search *search, struct rf_error *err)
{
    static struct rf_pg_lane none;
    struct rf_error why = {0};
    enum rf_status status = rf_postgres_lane_get(&search->sink, 0, &search->lane, &why);

    if (status == RF_NOT_FOUND) {
        search->lane = &none;
        return RF_OK;
    }
    return status ? rf_error_set(err, status, "%s", why.message) : RF_OK;
}

enum rf_status rf_postgres_search(const char *rest, const char *words,
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
        status = rf_postgres_connect(&search.sink.pg, rest, err);
    if (status)
        return status;
    search.wanted = limit + options->offset;
    rf_arena_init(&search.arena, 64u << 20);
    rf_buf_init(&search.query, 1 << 20);
    rf_buf_init(&search.snippet, 1 << 20);
    status = rf_postgres_check(search.sink.pg, err);
    if (!status) /* one snapshot for all its statements */
        status = rf_pg_exec(search.sink.pg, err, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    if (!status)
        status = find_lane(&search, err);
    if (!status)
        status = run(&search, options, visit, user, err);
    if (!status && total)
        *total = search.total;
    rf_postgres_forget_lanes(&search.sink);
    rf_buf_release(&search.query);
    rf_buf_release(&search.snippet);
    rf_arena_release(&search.arena);
    free(search.found);
    rf_pg_close(search.sink.pg);
    return status;
}
