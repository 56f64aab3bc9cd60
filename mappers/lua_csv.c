/*
 * lua_csv.c - tables of cells in text: RFC 4180, and what programs make of it
 *
 * The delimiter is given or found: of , ; tab | the one whose number of cells agrees over the first
 * lines (and a first line "sep=;" is obeyed). A cell in quotes may hold delimiters, line ends and
 * doubled quotes; text behind a closing quote belongs to the cell. Lines end in \n, \r\n or \r;
 * empty ones are passed over; a byte order mark is no part of the first cell. Bytes of a cell that
 * are no UTF-8 are read as Windows-1252, which most such files are in.
 *
 * Where a quote does not end nobody knows the rows behind it. That is an error, or, for who asks
 * for it, the end of the rows: the last answer is where that row begins. Then a quote that is open
 * QUOTE_MAX bytes after the beginning of its row is one that does not end, too: a row has to fit
 * the heap to be told from its end.
 *
 * Columns are named by the first row: an empty name becomes column_N, a repeated one name_2 (_3 and
 * so on). A cell beyond the header is column_N; a row that ends early has no such cells.
 *
 * A reader is a userdata with an environment table: WINDOW keeps the window, NAMES the list of
 * column names, PLAN the userdata that the json form is written by.
 */
#include "core/json.h"
#include "core/utf8.h"
#include "mappers/lua_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CELLS_MAX 10000
#define SNIFF_SIZE ((size_t)64 * 1024)
#define SNIFF_LINES 20
#define QUOTE_MAX ((size_t)7 << 20)           /* bytes of a row; the default heap can hold them */
#define PIECE_SIZE (1u << 20)                 /* bytes of a piece, about */
#define PIECE_MADE_MAX ((uint64_t)8 << 20)    /* bytes of JSON that a piece makes, about */

enum form { FORM_ROWS, FORM_RECORDS, FORM_JSON };
enum slot { WINDOW = 1, NAMES, PLAN };

struct reader {
    uint32_t tag;
    enum form form;
    uint8_t delimiter;
    uint64_t offset; /* of the next row */
    size_t columns;  /* that have names */
    size_t lines;    /* line ends passed, for words of an error */
    bool broken;     /* a quote that does not end ends the rows */
    bool cut;        /* it did: offset is where its row begins */
};

/* Where a cell's content is. */
struct cell {
    const uint8_t *start;
    size_t size;
    bool plain; /* no quotes inside: start and size are the content */
};

/* ---- scanning ---- */

struct row_end {
    size_t size;  /* bytes of the row, without its line end */
    size_t next;  /* where the next row begins */
    bool whole;   /* the row's end was seen */
    bool quoted;  /* the text ended within quotes */
};

/* Find where the row at the start of text ends. */
static struct row_end find_end(struct rf_bytes text, uint8_t delimiter)
{
    bool quoted = false, fresh = true; /* fresh: a cell begins here */

    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (quoted) {
            if (c == '"') {
                if (i + 1 < text.size && text.data[i + 1] == '"')
                    i++;
                else
                    quoted = false;
            }
            continue;
        }
        if (c == '"' && fresh) {
            quoted = true;
            fresh = false;
        } else if (c == '\n') {
            return (struct row_end){.size = i, .next = i + 1, .whole = true};
        } else if (c == '\r') {
            if (i + 1 == text.size)
                break; /* a \n may follow */
            return (struct row_end){.size = i, .next = i + 1 + (text.data[i + 1] == '\n'),
                                    .whole = true};
        } else {
            fresh = c == delimiter;
        }
    }
    return (struct row_end){.size = text.size, .next = text.size, .quoted = quoted};
}

/* The cell at *at of a row; *at goes behind its delimiter. false: it was the row's last. */
static bool next_cell(struct rf_bytes row, size_t *at, uint8_t delimiter, struct cell *cell)
{
    size_t i = *at;
    const uint8_t *found;

    cell->start = row.data + i;
    cell->plain = true;
    if (i < row.size && row.data[i] == '"') {
        for (i++; i < row.size; i++) {
            if (row.data[i] != '"')
                continue;
            if (i + 1 < row.size && row.data[i + 1] == '"') {
                i++;
                cell->plain = false;
                continue;
            }
            break;
        }
        i = i < row.size ? i + 1 : i; /* behind the closing quote */
        if (cell->plain && (i == row.size || row.data[i] == delimiter)) {
            cell->start++;
            cell->size = (size_t)(row.data + i - cell->start) - 1;
        } else {
            cell->plain = false;
            while (i < row.size && row.data[i] != delimiter)
                i++;
            cell->size = (size_t)(row.data + i - cell->start);
        }
    } else {
        found = i < row.size ? memchr(row.data + i, delimiter, row.size - i) : NULL;
        i = found ? (size_t)(found - row.data) : row.size;
        cell->size = i - *at;
    }
    *at = i + 1;
    return i < row.size;
}

/* Append a cell that is not plain: its quotes undone. */
static void put_unquoted(struct rf_buf *buf, const struct cell *cell)
{
    size_t i = 1;

    while (i < cell->size) {
        if (cell->start[i] == '"') {
            i++;
            if (i < cell->size && cell->start[i] == '"') {
                rf_buf_put_u8(buf, '"');
                i++;
                continue;
            }
            break; /* closed: the rest as it is */
        }
        rf_buf_put_u8(buf, cell->start[i++]);
    }
    if (i < cell->size)
        rf_buf_put(buf, cell->start + i, cell->size - i);
}

/* The cell's text in UTF-8, lent from the content or from the scratch. */
static struct rf_bytes cell_text(lua_State *L, const struct cell *cell)
{
    struct rf_bytes text = rf_bytes(cell->start, cell->size);
    struct rf_buf *buf;
    size_t size;

    if (!cell->plain) {
        buf = rf_host_scratch(L);
        put_unquoted(buf, cell);
        text = rf_buf_bytes(buf);
    }
    if (rf_utf8_valid(text) == text.size)
        return text;
    if (cell->plain) {
        buf = rf_host_scratch(L);
        rf_unicode_put_1252(buf, text);
        return rf_buf_bytes(buf);
    }
    buf = &rf_host(L)->scratch; /* the source is in there: append behind it */
    size = buf->size;
    if (rf_buf_reserve(buf, 3 * size)) /* so that the source does not move */
        rf_unicode_put_1252(buf, rf_bytes(buf->data, size));
    return rf_bytes(buf->data + size, buf->size - size);
}

/* ---- finding the delimiter ---- */

/* How well a delimiter fits the first lines: cells of each when they agree, 0 otherwise. A row
 * whose quote does not end tells nothing. */
static size_t agreeing(struct rf_bytes text, uint8_t delimiter, bool whole)
{
    size_t agreed = 0, lines = 0;

    while (text.size > 0 && lines < SNIFF_LINES) {
        struct row_end end = find_end(text, delimiter);
        struct rf_bytes row = rf_bytes(text.data, end.size);
        struct cell cell;
        size_t cells = 1;

        if (lines > 0 ? end.quoted || (!end.whole && !whole) : end.quoted && whole)
            break;
        for (size_t at = 0; next_cell(row, &at, delimiter, &cell);)
            cells++;
        if (row.size > 0) {
            if (lines > 0 && cells != agreed)
                return 0;
            agreed = cells;
            lines++;
        }
        text = rf_bytes(text.data + end.next, text.size - end.next);
    }
    return agreed;
}

/* The delimiter on whose number of cells the lines agree, the most cells winning; else the one that
 * splits the first line into the most. */
static uint8_t sniff(struct rf_bytes text, bool whole)
{
    static const uint8_t candidates[] = {',', ';', '\t', '|'};
    uint8_t best = ',';
    size_t most = 1;

    for (size_t i = 0; i < sizeof candidates; i++) {
        size_t cells = agreeing(text, candidates[i], whole);
        if (cells > most) {
            most = cells;
            best = candidates[i];
        }
    }
    if (most > 1)
        return best;
    for (size_t i = 0; i < sizeof candidates; i++) {
        struct row_end end = find_end(text, candidates[i]);
        struct rf_bytes row = rf_bytes(text.data, end.size);
        struct cell cell;
        size_t cells = 1;

        if (end.quoted && whole)
            continue;
        for (size_t at = 0; next_cell(row, &at, candidates[i], &cell);)
            cells++;
        if (cells > most) {
            most = cells;
            best = candidates[i];
        }
    }
    return best;
}

/* Pass what stands before the first row, and settle the delimiter. */
static void begin(lua_State *L, struct reader *reader, int window, uint8_t given, const char *what)
{
    struct rf_window *w = lua_touserdata(L, window);
    struct rf_bytes text = rf_host_window(L, window, 0, SNIFF_SIZE, what);
    struct row_end end;
    bool whole;

    if (text.size >= 3 && memcmp(text.data, "\xef\xbb\xbf", 3) == 0)
        reader->offset = 3;
    else if (text.size >= 2 && ((text.data[0] == 0xff && text.data[1] == 0xfe) ||
                                (text.data[0] == 0xfe && text.data[1] == 0xff)))
        rf_host_error(L, "%s: the text is UTF-16; refuge.unicode.decode makes UTF-8 of it", what);
    text = rf_bytes(text.data + reader->offset, text.size - (size_t)reader->offset);
    if (text.size >= 5 && memcmp(text.data, "sep=", 4) == 0) {
        end = find_end(text, '\n');
        if (end.size == 5) {
            given = given ? given : text.data[4];
            reader->offset += end.next;
            reader->lines++;
            text = rf_bytes(text.data + end.next, text.size - end.next);
        }
    }
    whole = w->size <= SNIFF_SIZE;
    if (text.size > SNIFF_SIZE)
        text.size = SNIFF_SIZE;
    reader->delimiter = given ? given : sniff(text, whole);
}

/* ---- rows ---- */

/* Whether a row begins whose quote does not end, as far as can be seen. */
static bool is_cut(const struct reader *reader, struct rf_bytes text, const struct row_end *end,
                   bool last)
{
    struct row_end bounded;

    if (end->quoted && last)
        return true;
    if (!reader->broken || text.size <= QUOTE_MAX || end->next <= QUOTE_MAX)
        return false;
    bounded = find_end(rf_bytes(text.data, QUOTE_MAX), reader->delimiter);
    return !bounded.whole && bounded.quoted;
}

/* The next row that is not empty. false: no more. row is lent until the window moves. */
static bool next_row(lua_State *L, struct reader *reader, int window, struct rf_bytes *row,
                     uint64_t *offset, const char *what)
{
    struct rf_window *w = lua_touserdata(L, window);
    struct row_end end;
    struct rf_bytes text;
    size_t want;
    bool last;

    while (!reader->cut) {
        for (want = 1;; want = text.size * 2) {
            if (reader->broken && text.size <= QUOTE_MAX && want > QUOTE_MAX)
                want = QUOTE_MAX + 1;
            text = rf_host_window(L, window, reader->offset, want, what);
            if (text.size == 0)
                return false;
            end = find_end(text, reader->delimiter);
            last = reader->offset + text.size == w->size;
            reader->cut = is_cut(reader, text, &end, last);
            if (end.whole || last || reader->cut)
                break;
        }
        if (reader->cut && reader->broken)
            return false;
        if (reader->cut)
            rf_host_error(L, "%s: the row at line %zu has a quoted cell that does not end", what,
                          reader->lines + 1);
        if (!end.whole && end.size > 0 && text.data[end.size - 1] == '\r')
            end.size--;
        *row = rf_bytes(text.data, end.size);
        *offset = reader->offset;
        reader->offset += end.next;
        reader->lines++;
        for (size_t i = 0; i < end.size; i++)
            reader->lines += text.data[i] == '\n';
        if (row->size > 0)
            return true;
    }
    return false;
}

/* No header is to be had. */
static void check_header(lua_State *L, const struct reader *reader, const char *what)
{
    if (reader->cut)
        rf_host_error(L, "%s: the header at line %zu has a quoted cell that does not end", what,
                      reader->lines + 1);
}

/* Push offset and size of the rest, and its line; the rows are over then. How many. */
static int push_cut(lua_State *L, struct reader *reader, int window)
{
    const struct rf_window *w = lua_touserdata(L, window);

    lua_pushnumber(L, (lua_Number)reader->offset);
    lua_pushnumber(L, (lua_Number)(w->size - reader->offset));
    lua_pushnumber(L, (lua_Number)(reader->lines + 1));
    reader->offset = w->size;
    reader->cut = false;
    return 3;
}

static void push_cell(lua_State *L, const struct cell *cell)
{
    struct rf_bytes text = cell_text(L, cell);

    lua_pushlstring(L, text.size ? (const char *)text.data : "", text.size);
}

/* Push the list of a row's cells. */
static void push_row(lua_State *L, const struct reader *reader, struct rf_bytes row,
                     const char *what)
{
    struct cell cell;
    size_t at = 0;
    bool more = true;

    lua_createtable(L, (int)reader->columns, 0);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_array);
    lua_setmetatable(L, -2);
    for (int count = 1; more; count++) {
        more = next_cell(row, &at, reader->delimiter, &cell);
        if (count > CELLS_MAX)
            rf_host_error(L, "%s: the row at line %zu has more than %d cells", what,
                          reader->lines, CELLS_MAX);
        push_cell(L, &cell);
        lua_rawseti(L, -2, count);
    }
}

/* ---- names ---- */

/* Append a name to the list names (at that index), different from those there: taken is its set. */
static void add_name(lua_State *L, struct reader *reader, int names, int taken)
{
    int number = (int)++reader->columns;

    if (lua_objlen(L, -1) == 0) {
        lua_pop(L, 1);
        lua_pushfstring(L, "column_%d", number);
    }
    lua_pushvalue(L, -1);
    for (int copy = 2;; copy++) {
        lua_pushvalue(L, -1);
        lua_rawget(L, taken);
        if (lua_isnil(L, -1))
            break;
        lua_pop(L, 2);
        lua_pushvalue(L, -1);
        lua_pushfstring(L, "_%d", copy);
        lua_concat(L, 2);
    }
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    lua_pushboolean(L, 1);
    lua_rawset(L, taken);
    lua_rawseti(L, names, number);
    lua_pop(L, 1);
}

/* The list of names in slot NAMES has its set of names at index 0. */
static void add_names(lua_State *L, struct reader *reader, int names, size_t columns)
{
    lua_rawgeti(L, names, 0);
    while (reader->columns < columns) {
        lua_pushliteral(L, "");
        add_name(L, reader, names, lua_gettop(L) - 1);
    }
    lua_pop(L, 1);
}

/* Read the header row; leaves the list of names on the stack. */
static void push_names(lua_State *L, struct reader *reader, int window, const char *what)
{
    struct rf_bytes row;
    struct cell cell;
    uint64_t offset;
    size_t at = 0;
    bool more;
    int names;

    lua_newtable(L);
    names = lua_gettop(L);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, names, 0);
    more = next_row(L, reader, window, &row, &offset, what);
    check_header(L, reader, what);
    while (more) {
        more = next_cell(row, &at, reader->delimiter, &cell);
        if (reader->columns == CELLS_MAX)
            rf_host_error(L, "%s: the header has more than %d cells", what, CELLS_MAX);
        push_cell(L, &cell);
        add_name(L, reader, names, names + 1);
    }
    lua_settop(L, names);
}

/* ---- records as JSON ---- */

/* Column of the record in the order its keys are written: RFC 8785. */
struct planned {
    uint32_t column;    /* from 0 */
    uint32_t key_size;
    const char *key;    /* lent from the list of names */
};

struct plan {
    size_t count;
    struct planned columns[];
};

/* Keys are ordered by their UTF-16: bytes of UTF-8, but for U+E000 to U+FFFF, which come last. */
static int compare_planned(const void *left, const void *right)
{
    const struct planned *a = left, *b = right;
    size_t size = a->key_size < b->key_size ? a->key_size : b->key_size;

    for (size_t i = 0; i < size; i++) {
        unsigned x = (uint8_t)a->key[i], y = (uint8_t)b->key[i];
        if (x == y)
            continue;
        x += x == 0xee || x == 0xef ? 0x10 : 0;
        y += y == 0xee || y == 0xef ? 0x10 : 0;
        return x < y ? -1 : 1;
    }
    return (a->key_size > b->key_size) - (a->key_size < b->key_size);
}

static struct plan *push_plan(lua_State *L, const struct reader *reader, int names)
{
    struct plan *plan = lua_newuserdata(L, sizeof *plan +
                                               reader->columns * sizeof *plan->columns);

    plan->count = reader->columns;
    for (size_t i = 0; i < plan->count; i++) {
        size_t size;
        lua_rawgeti(L, names, (int)i + 1);
        plan->columns[i].key = lua_tolstring(L, -1, &size);
        plan->columns[i].key_size = (uint32_t)size;
        plan->columns[i].column = (uint32_t)i;
        lua_pop(L, 1);
    }
    qsort(plan->columns, plan->count, sizeof *plan->columns, compare_planned);
    return plan;
}

/* Push the row as the text {"header":"cell",...}. environment: of the reader, on the stack. */
static void push_json(lua_State *L, struct reader *reader, struct rf_bytes row, int environment,
                      const char *what)
{
    struct rf_env *env = rf_host(L);
    struct cell few[64], *cells = few;
    struct plan *plan;
    size_t count = 1, at = 0;
    bool first = true;
    int top = lua_gettop(L);

    while (next_cell(row, &at, reader->delimiter, &few[0]))
        count++;
    if (count > CELLS_MAX)
        rf_host_error(L, "%s: the row at line %zu has more than %d cells", what, reader->lines,
                      CELLS_MAX);
    if (count > sizeof few / sizeof few[0])
        cells = lua_newuserdata(L, count * sizeof *cells);
    at = 0;
    for (size_t i = 0; i < count; i++)
        next_cell(row, &at, reader->delimiter, &cells[i]);
    lua_rawgeti(L, environment, PLAN);
    plan = lua_touserdata(L, -1);
    if (!plan || plan->count < count) {
        lua_rawgeti(L, environment, NAMES);
        add_names(L, reader, lua_gettop(L), count);
        plan = push_plan(L, reader, lua_gettop(L));
        lua_rawseti(L, environment, PLAN);
    }
    rf_buf_clear(&env->encoded);
    rf_buf_put_u8(&env->encoded, '{');
    for (size_t i = 0; i < plan->count; i++) {
        const struct planned *p = &plan->columns[i];
        if (p->column >= count)
            continue;
        if (!first)
            rf_buf_put_u8(&env->encoded, ',');
        first = false;
        rf_json_put_string(&env->encoded, rf_bytes(p->key, p->key_size));
        rf_buf_put_u8(&env->encoded, ':');
        rf_json_put_string(&env->encoded, cell_text(L, &cells[p->column]));
    }
    rf_buf_put_u8(&env->encoded, '}');
    lua_settop(L, top);
    if (env->encoded.failed || !rf_host_room(L, env->encoded.size))
        rf_host_error(L, "%s: the row at line %zu does not fit the heap", what, reader->lines);
    lua_pushlstring(L, (const char *)env->encoded.data, env->encoded.size);
}

/* Push the row as a table header -> cell. */
static void push_record(lua_State *L, struct reader *reader, struct rf_bytes row, int environment,
                        const char *what)
{
    struct cell cell;
    size_t at = 0;
    bool more = true;
    int names;

    lua_rawgeti(L, environment, NAMES);
    names = lua_gettop(L);
    lua_createtable(L, 0, (int)reader->columns);
    for (size_t count = 1; more; count++) {
        more = next_cell(row, &at, reader->delimiter, &cell);
        if (count > CELLS_MAX)
            rf_host_error(L, "%s: the row at line %zu has more than %d cells", what,
                          reader->lines, CELLS_MAX);
        if (count > reader->columns)
            add_names(L, reader, names, count);
        lua_rawgeti(L, names, (int)count);
        push_cell(L, &cell);
        lua_rawset(L, names + 1);
    }
}

static const char *const form_names[] = {"csv.rows", "csv.records", "csv.json"};

/* Upvalue: the reader. Answers the row in its form, its offset and its size in bytes. */
static int reader_step(lua_State *L)
{
    struct reader *reader;
    struct rf_bytes row;
    uint64_t offset;
    const char *what;

    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    reader = lua_touserdata(L, 1);
    what = form_names[reader->form];
    lua_getfenv(L, 1);
    lua_rawgeti(L, 2, WINDOW);
    if (!next_row(L, reader, 3, &row, &offset, what)) {
        if (!reader->cut)
            return 0;
        lua_pushboolean(L, 0);
        return 1 + push_cut(L, reader, 3);
    }
    if (reader->form == FORM_JSON)
        push_json(L, reader, row, 2, what);
    else if (reader->form == FORM_RECORDS)
        push_record(L, reader, row, 2, what);
    else
        push_row(L, reader, row, what);
    lua_pushnumber(L, (lua_Number)offset);
    lua_pushnumber(L, (lua_Number)row.size);
    return 3;
}

static uint8_t get_options(lua_State *L, bool *broken, const char *what)
{
    uint8_t delimiter = 0;

    *broken = false;
    if (lua_isnoneornil(L, 2))
        return 0;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, 2)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";

        if (strcmp(name, "broken") == 0) {
            *broken = lua_toboolean(L, -1);
            lua_pop(L, 1);
            continue;
        }
        if (strcmp(name, "delimiter") != 0)
            rf_host_error(L, "%s: the options are 'delimiter' and 'broken'", what);
        if (lua_type(L, -1) != LUA_TSTRING || lua_objlen(L, -1) != 1 ||
            strchr("\"\r\n", *lua_tostring(L, -1)))
            rf_host_error(L, "%s: a delimiter is one byte, no quote and no line end", what);
        delimiter = (uint8_t)*lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    return delimiter;
}

/* Answers the iterator and, of the forms that have one, the header; else the delimiter. */
static int push_reader(lua_State *L, enum form form)
{
    const char *what = form_names[form];
    bool broken;
    uint8_t given = get_options(L, &broken, what);
    struct reader *reader;
    char delimiter;

    lua_settop(L, 1);
    reader = lua_newuserdata(L, sizeof *reader); /* 2 */
    *reader = (struct reader){.tag = RF_TAG_WINDOW, .form = form, .broken = broken};
    lua_createtable(L, 3, 0);                    /* 3: its environment */
    rf_host_push_window(L, 1, what);             /* 4 */
    begin(L, reader, 4, given, what);
    delimiter = (char)reader->delimiter;
    lua_pushvalue(L, 4);
    lua_rawseti(L, 3, WINDOW);
    if (form != FORM_ROWS) {
        push_names(L, reader, 4, what);          /* 5 */
        lua_pushvalue(L, 5);
        lua_rawseti(L, 3, NAMES);
    }
    lua_pushvalue(L, 3);
    lua_setfenv(L, 2);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, reader_step, 1);
    if (form == FORM_ROWS) {
        lua_pushlstring(L, &delimiter, 1);
        return 2;
    }
    lua_createtable(L, (int)reader->columns, 0); /* a copy: scripts may change theirs */
    for (int i = 1; i <= (int)reader->columns; i++) {
        lua_rawgeti(L, 5, i);
        lua_rawseti(L, -2, i);
    }
    return 2;
}

static int csv_rows(lua_State *L)
{
    return push_reader(L, FORM_ROWS);
}

static int csv_records(lua_State *L)
{
    return push_reader(L, FORM_RECORDS);
}

static int csv_json(lua_State *L)
{
    return push_reader(L, FORM_JSON);
}

/* ---- pieces ---- */

/* Upvalues: the reader, size of a piece, bytes of the header. Answers offset and size of the next
 * run of whole rows. It ends early where short rows under a long header would make much JSON. What
 * begins with a row whose quote does not end is no such run: its line is a third answer. */
static int piece_step(lua_State *L)
{
    static const char what[] = "csv.pieces";
    struct reader *reader;
    struct rf_bytes row;
    uint64_t offset, start = 0, made = 0;
    double size = lua_tonumber(L, lua_upvalueindex(2));
    uint64_t header = (uint64_t)lua_tonumber(L, lua_upvalueindex(3));
    bool any = false;

    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    reader = lua_touserdata(L, 1);
    lua_getfenv(L, 1);
    lua_rawgeti(L, 2, WINDOW);
    while ((!any || (reader->offset - start < size && made < PIECE_MADE_MAX)) &&
           next_row(L, reader, 3, &row, &offset, what)) {
        if (!any)
            start = offset;
        any = true;
        made += header + 8 * reader->columns + 2 * row.size;
    }
    if (!any)
        return reader->cut ? push_cut(L, reader, 3) : 0;
    lua_pushnumber(L, (lua_Number)start);
    lua_pushnumber(L, (lua_Number)(reader->offset - start));
    return 2;
}

/* csv.pieces(source, options, size): an iterator over offset and size of runs of whole rows, and
 * the head that makes a text of its own of each: its delimiter and the header. */
static int csv_pieces(lua_State *L)
{
    static const char what[] = "csv.pieces";
    double size = luaL_optnumber(L, 3, PIECE_SIZE);
    struct reader *reader;
    struct rf_bytes row = {0};
    uint64_t offset;
    luaL_Buffer head;
    struct cell cell;
    bool more, broken;
    uint8_t given = get_options(L, &broken, what);
    size_t at = 0;

    lua_settop(L, 1);
    reader = lua_newuserdata(L, sizeof *reader); /* 2 */
    *reader = (struct reader){.tag = RF_TAG_WINDOW, .form = FORM_ROWS, .broken = broken};
    lua_createtable(L, 3, 0);                    /* 3: its environment */
    rf_host_push_window(L, 1, what);             /* 4 */
    begin(L, reader, 4, given, what);
    lua_pushvalue(L, 4);
    lua_rawseti(L, 3, WINDOW);
    lua_pushvalue(L, 3);
    lua_setfenv(L, 2);
    more = next_row(L, reader, 4, &row, &offset, what);
    check_header(L, reader, what);
    luaL_buffinit(L, &head);
    luaL_addlstring(&head, "sep=", 4);
    luaL_addchar(&head, (char)reader->delimiter);
    luaL_addchar(&head, '\n');
    luaL_addlstring(&head, row.size ? (const char *)row.data : "", row.size);
    luaL_addchar(&head, '\n');
    luaL_pushresult(&head);                      /* 5 */
    while (more) {
        more = next_cell(row, &at, reader->delimiter, &cell);
        reader->columns++;
    }
    lua_pushvalue(L, 2);
    lua_pushnumber(L, size);
    lua_pushnumber(L, (lua_Number)row.size);
    lua_pushcclosure(L, piece_step, 3);
    lua_pushvalue(L, 5);
    return 2;
}

void rf_lua_open_csv(lua_State *L)
{
    static const struct rf_host_function functions[] = {
        {"json", csv_json},
        {"pieces", csv_pieces},
        {"records", csv_records},
        {"rows", csv_rows},
    };

    lua_newtable(L);
    rf_host_register(L, functions, sizeof functions / sizeof functions[0]);
}
