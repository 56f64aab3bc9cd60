/*
 * row.c - records of one call: the writer copies, the reader doubts
 *
 * Adding a kind of record: draw it in row.h, write it here, give it a function in `readers`.
 */
#include "core/row.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "core/json_scan.h"
#include "core/utf8.h"

enum { TAG_NULL, TAG_INT, TAG_FLOAT, TAG_FALSE, TAG_TRUE, TAG_TEXT, TAG_JSON, TAG_TIME, TAG_REF };

#define NAME_NONE 65535

enum { PART_RANGE, PART_BYTES, PART_HEADED }; /* forms of a part */

/* ---- writing ---- */

void rf_row_begin(struct rf_buf *buf, uint16_t table, uint16_t column_count)
{
    rf_buf_put_u8(buf, RF_RECORD_ROW);
    rf_buf_put_u16(buf, table);
    rf_buf_put_u16(buf, column_count);
}

static void put_sized(struct rf_buf *buf, uint8_t tag, struct rf_bytes bytes)
{
    uint8_t *to = NULL;

    if (bytes.size <= UINT32_MAX)
        to = rf_buf_reserve(buf, 5 + bytes.size);
    else
        buf->failed = RF_LIMIT;
    if (!to)
        return;
    to[0] = tag;
    rf_put_u32(to + 1, (uint32_t)bytes.size);
    if (bytes.size)
        memcpy(to + 5, bytes.data, bytes.size);
    buf->size += 5 + bytes.size;
}

void rf_row_put(struct rf_buf *buf, const struct rf_value *value)
{
    uint8_t bytes[11];

    switch (value->type) {
    case RF_TYPE_INT:
        bytes[0] = TAG_INT;
        rf_put_u64(bytes + 1, (uint64_t)value->integer);
        rf_buf_put(buf, bytes, 9);
        break;
    case RF_TYPE_FLOAT: {
        uint64_t bits;
        memcpy(&bits, &value->real, sizeof bits);
        bytes[0] = TAG_FLOAT;
        rf_put_u64(bytes + 1, bits);
        rf_buf_put(buf, bytes, 9);
        break;
    }
    case RF_TYPE_BOOL:
        rf_buf_put_u8(buf, value->boolean ? TAG_TRUE : TAG_FALSE);
        break;
    case RF_TYPE_TEXT:
        put_sized(buf, TAG_TEXT, value->text);
        break;
    case RF_TYPE_JSON:
        put_sized(buf, TAG_JSON, value->text);
        break;
    case RF_TYPE_TIME:
        bytes[0] = TAG_TIME;
        rf_put_u64(bytes + 1, (uint64_t)value->integer);
        rf_put_u16(bytes + 9, (uint16_t)value->offset_minutes);
        rf_buf_put(buf, bytes, 11);
        break;
    case RF_TYPE_BLOBREF:
        rf_buf_put_u8(buf, TAG_REF);
        rf_buf_put_u8(buf, value->ref.algo);
        rf_buf_put(buf, value->ref.digest, RF_DIGEST_SIZE);
        break;
    default:
        rf_buf_put_u8(buf, TAG_NULL);
    }
}

static void put_media_and_name(struct rf_buf *buf, struct rf_bytes media, struct rf_bytes name)
{
    assert(media.size <= RF_MEDIA_MAX && name.size <= RF_PART_NAME_MAX);
    rf_buf_put_u8(buf, (uint8_t)media.size);
    rf_buf_put(buf, media.data, media.size);
    rf_buf_put_u16(buf, name.data ? (uint16_t)name.size : NAME_NONE);
    if (name.data)
        rf_buf_put(buf, name.data, name.size);
}

void rf_part_put_range(struct rf_buf *buf, struct rf_bytes head, uint64_t offset, uint64_t size,
                       struct rf_bytes media, struct rf_bytes name)
{
    rf_buf_put_u8(buf, RF_RECORD_PART);
    if (head.data)
        put_sized(buf, PART_HEADED, head);
    else
        rf_buf_put_u8(buf, PART_RANGE);
    rf_buf_put_u64(buf, offset);
    rf_buf_put_u64(buf, size);
    put_media_and_name(buf, media, name);
}

void rf_part_put_bytes(struct rf_buf *buf, struct rf_bytes bytes, struct rf_bytes media,
                       struct rf_bytes name)
{
    rf_buf_put_u8(buf, RF_RECORD_PART);
    put_sized(buf, PART_BYTES, bytes);
    put_media_and_name(buf, media, name);
}

void rf_need_put(struct rf_buf *buf, const struct rf_blobref *ref, bool present)
{
    rf_buf_put_u8(buf, RF_RECORD_NEED);
    rf_buf_put_u8(buf, present);
    rf_buf_put_u8(buf, ref->algo);
    rf_buf_put(buf, ref->digest, RF_DIGEST_SIZE);
}

void rf_cut_put(struct rf_buf *buf, uint16_t table, uint16_t column, uint32_t row, enum rf_cut cut)
{
    rf_buf_put_u8(buf, RF_RECORD_CUT);
    rf_buf_put_u16(buf, table);
    rf_buf_put_u16(buf, column);
    rf_buf_put_u32(buf, row);
    rf_buf_put_u8(buf, (uint8_t)cut);
}

/* ---- reading ---- */

/* What is left of the output. Taking past the end sets short_ and gives zeros. */
struct rest {
    const uint8_t *p, *end;
    bool short_;
};

static const uint8_t *take(struct rest *rest, size_t size)
{
    static const uint8_t zeros[RF_DIGEST_SIZE];
    const uint8_t *p = rest->p;

    if ((size_t)(rest->end - p) < size) {
        rest->short_ = true;
        rest->p = rest->end;
        return size <= sizeof zeros ? zeros : NULL;
    }
    rest->p += size;
    return p;
}

static uint8_t take_u8(struct rest *rest)
{
    return *take(rest, 1);
}

static uint16_t take_u16(struct rest *rest)
{
    return rf_get_u16(take(rest, 2));
}

static uint32_t take_u32(struct rest *rest)
{
    return rf_get_u32(take(rest, 4));
}

static uint64_t take_u64(struct rest *rest)
{
    return rf_get_u64(take(rest, 8));
}

static struct rf_bytes take_bytes(struct rest *rest, size_t size)
{
    const uint8_t *p = take(rest, size);

    return rest->short_ ? rf_bytes(NULL, 0) : rf_bytes(p, size);
}

static enum rf_status refuse_short(struct rf_error *err)
{
    return rf_error_set(err, RF_INVALID, "the mapper's output ends within a record");
}

static bool is_text(struct rf_bytes text)
{
    return rf_utf8_valid(text) == text.size && (text.size == 0 || !memchr(text.data, 0, text.size));
}

static enum rf_status take_ref(struct rest *rest, struct rf_blobref *out, struct rf_error *err)
{
    out->algo = take_u8(rest);
    memcpy(out->digest, take(rest, RF_DIGEST_SIZE), RF_DIGEST_SIZE);
    if (!rest->short_ && out->algo != RF_ALGO_SHA256)
        return rf_error_set(err, RF_INVALID, "unknown hash algorithm %u in a blobref", out->algo);
    return RF_OK;
}

/* The type each tag stands for. */
static const uint8_t tag_types[] = {
    [TAG_NULL] = 0,
    [TAG_INT] = RF_TYPE_INT,
    [TAG_FLOAT] = RF_TYPE_FLOAT,
    [TAG_FALSE] = RF_TYPE_BOOL,
    [TAG_TRUE] = RF_TYPE_BOOL,
    [TAG_TEXT] = RF_TYPE_TEXT,
    [TAG_JSON] = RF_TYPE_JSON,
    [TAG_TIME] = RF_TYPE_TIME,
    [TAG_REF] = RF_TYPE_BLOBREF,
};

static enum rf_status take_text(struct rest *rest, struct rf_value *out, struct rf_error *err)
{
    size_t size = take_u32(rest);

    if (size > RF_TEXT_MAX)
        return rf_error_set(err, RF_LIMIT, "%zu bytes, at most %u are allowed", size, RF_TEXT_MAX);
    out->text = take_bytes(rest, size);
    if (rest->short_)
        return RF_OK;
    if (!is_text(out->text))
        return rf_error_set(err, RF_INVALID, "not UTF-8 text without NUL");
    if (out->type == RF_TYPE_JSON)
        return rf_json_check(out->text, err);
    return RF_OK;
}

static enum rf_status take_float(struct rest *rest, struct rf_value *out, struct rf_error *err)
{
    uint64_t bits = take_u64(rest);

    memcpy(&out->real, &bits, sizeof bits);
    if (!isfinite(out->real) || (out->real == 0 && signbit(out->real)))
        return rf_error_set(err, RF_INVALID, "a float must be finite and not -0.0");
    return RF_OK;
}

static enum rf_status take_time(struct rest *rest, struct rf_value *out, struct rf_error *err)
{
    out->integer = (int64_t)take_u64(rest);
    out->offset_minutes = (int16_t)take_u16(rest);
    if (out->integer < RF_TIME_MIN || out->integer > RF_TIME_MAX)
        return rf_error_set(err, RF_INVALID, "a time outside the years 1 to 9999");
    if (out->offset_minutes != RF_OFFSET_UNKNOWN &&
        (out->offset_minutes < -RF_OFFSET_MAX || out->offset_minutes > RF_OFFSET_MAX))
        return rf_error_set(err, RF_INVALID, "a time offset of %d minutes", out->offset_minutes);
    return RF_OK;
}

static enum rf_status take_value(struct rest *rest, enum rf_type type, struct rf_value *out,
                                 struct rf_error *err)
{
    uint8_t tag = take_u8(rest);

    if (tag >= sizeof tag_types)
        return rf_error_set(err, RF_INVALID, "unknown tag %u", tag);
    *out = (struct rf_value){.type = (enum rf_type)tag_types[tag]};
    if (tag == TAG_NULL)
        return RF_OK;
    if (out->type != type)
        return rf_error_set(err, RF_INVALID, "%s where %s is declared", rf_type_name(out->type),
                            rf_type_name(type));
    switch (tag) {
    case TAG_INT:
        out->integer = (int64_t)take_u64(rest);
        return RF_OK;
    case TAG_FLOAT:
        return take_float(rest, out, err);
    case TAG_FALSE:
    case TAG_TRUE:
        out->boolean = tag == TAG_TRUE;
        return RF_OK;
    case TAG_TIME:
        return take_time(rest, out, err);
    case TAG_REF:
        return take_ref(rest, &out->ref, err);
    default:
        return take_text(rest, out, err);
    }
}

static enum rf_status read_row(struct rf_output_reader *reader, struct rest *rest,
                               struct rf_record *out, struct rf_error *err)
{
    const struct rf_table *table;
    enum rf_status status;

    out->table = take_u16(rest);
    out->column_count = take_u16(rest);
    if (rest->short_)
        return refuse_short(err);
    if (out->table >= reader->decl->table_count)
        return rf_error_set(err, RF_INVALID, "a row for table %u of %zu", out->table,
                            reader->decl->table_count);
    table = &reader->decl->tables[out->table];
    if (out->column_count != table->column_count)
        return rf_error_set(err, RF_INVALID, "a row of table '%s' has %u columns, not %zu",
                            table->name, out->column_count, table->column_count);
    if (reader->rows >= reader->decl->limits.rows)
        return rf_error_set(err, RF_LIMIT, "more than %u rows", reader->decl->limits.rows);
    reader->rows++;
    for (size_t i = 0; i < table->column_count; i++) {
        status = take_value(rest, table->columns[i].type, &reader->values[i], err);
        if (status != RF_OK)
            return rf_error_context(err, status, "column '%s' of table '%s', row %u",
                                    table->columns[i].name, table->name, reader->rows - 1);
        if (rest->short_)
            return refuse_short(err);
    }
    out->values = reader->values;
    return RF_OK;
}

static bool media_is_good(struct rf_bytes media)
{
    const uint8_t *slash = media.size ? memchr(media.data, '/', media.size) : NULL;
    size_t before = slash ? (size_t)(slash - media.data) : 0, after = media.size - before;

    if (before == 0 || after < 2 || memchr(slash + 1, '/', after - 1))
        return false;
    for (size_t i = 0; i < media.size; i++)
        if (media.data[i] < ' ' || media.data[i] > '~')
            return false;
    return true;
}

static enum rf_status read_part(struct rf_output_reader *reader, struct rest *rest,
                                struct rf_record *out, struct rf_error *err)
{
    uint8_t form = take_u8(rest);
    uint16_t name_size;

    if (form > PART_HEADED)
        return rf_error_set(err, RF_INVALID, "unknown form %u of a part", form);
    out->inlined = form == PART_BYTES;
    if (form == PART_HEADED)
        out->head = take_bytes(rest, take_u32(rest));
    if (out->inlined) {
        out->bytes = take_bytes(rest, take_u32(rest));
    } else {
        out->offset = take_u64(rest);
        out->size = take_u64(rest);
    }
    out->media = take_bytes(rest, take_u8(rest));
    name_size = take_u16(rest);
    if (name_size != NAME_NONE)
        out->name = take_bytes(rest, name_size);
    if (rest->short_)
        return refuse_short(err);
    if (!reader->decl->splits)
        return rf_error_set(err, RF_INVALID, "a part from a mapper that does not declare 'splits'");
    if (!out->inlined && (out->size > reader->content_size ||
                          out->offset > reader->content_size - out->size))
        return rf_error_set(err, RF_INVALID, "a part of %llu bytes at %llu of content of %llu",
                            (unsigned long long)out->size, (unsigned long long)out->offset,
                            (unsigned long long)reader->content_size);
    if (out->head.size > RF_PART_HEAD_MAX)
        return rf_error_set(err, RF_INVALID, "a part with %zu bytes before its range",
                            out->head.size);
    if (out->media.size > RF_MEDIA_MAX || !media_is_good(out->media))
        return rf_error_set(err, RF_INVALID, "a part's media type is not printable 'type/subtype'");
    if (name_size != NAME_NONE && (name_size > RF_PART_NAME_MAX || !is_text(out->name)))
        return rf_error_set(err, RF_INVALID,
                            "a part's name is too long or no UTF-8 text without NUL");
    if (reader->parts >= reader->decl->limits.parts)
        return rf_error_set(err, RF_LIMIT, "more than %u parts", reader->decl->limits.parts);
    reader->parts++;
    return RF_OK;
}

static enum rf_status read_need(struct rf_output_reader *reader, struct rest *rest,
                                struct rf_record *out, struct rf_error *err)
{
    uint8_t present = take_u8(rest);

    if (present > 1)
        return rf_error_set(err, RF_INVALID, "a need that is neither there nor missing");
    out->present = present;
    if (reader->needs >= RF_NEEDS_MAX)
        return rf_error_set(err, RF_LIMIT, "more than %d needed blobs", RF_NEEDS_MAX);
    reader->needs++;
    return take_ref(rest, &out->ref, err);
}

static enum rf_status read_cut(struct rf_output_reader *reader, struct rest *rest,
                               struct rf_record *out, struct rf_error *err)
{
    uint8_t kind;

    out->table = take_u16(rest);
    out->column = take_u16(rest);
    out->row = take_u32(rest);
    kind = take_u8(rest);
    if (rest->short_)
        return refuse_short(err);
    if (out->table >= reader->decl->table_count ||
        out->column >= reader->decl->tables[out->table].column_count || out->row >= reader->rows)
        return rf_error_set(err, RF_INVALID,
                            "a cut of table %u, column %u, row %u, which is not there",
                            out->table, out->column, out->row);
    if (kind == 0 || kind >= RF_CUT_COUNT)
        return rf_error_set(err, RF_INVALID, "unknown kind %u of cut", kind);
    out->cut = (enum rf_cut)kind;
    return RF_OK;
}

void rf_output_init(struct rf_output_reader *reader, struct rf_bytes output,
                    const struct rf_decl *decl, uint64_t content_size)
{
    *reader = (struct rf_output_reader){
        .output = output, .decl = decl, .content_size = content_size};
}

void rf_output_release(struct rf_output_reader *reader)
{
    free(reader->values);
    reader->values = NULL;
}

/* Before the first record: room for the widest row, and the size as a whole. */
static enum rf_status begin(struct rf_output_reader *reader, struct rf_error *err)
{
    size_t most = 1;

    if (reader->output.size > (size_t)reader->decl->limits.output_mb << 20)
        return rf_error_set(err, RF_LIMIT, "more than %u MB of output",
                            reader->decl->limits.output_mb);
    for (size_t i = 0; i < reader->decl->table_count; i++)
        if (reader->decl->tables[i].column_count > most)
            most = reader->decl->tables[i].column_count;
    reader->values = calloc(most, sizeof *reader->values);
    if (!reader->values)
        return rf_error_set(err, RF_NOMEM, "no memory for a row of %zu columns", most);
    return RF_OK;
}

enum rf_status rf_output_next(struct rf_output_reader *reader, struct rf_record *out,
                              struct rf_error *err)
{
    struct rest rest;
    struct rf_record record = {0};
    enum rf_status status;
    uint8_t kind;

    if (reader->at == reader->output.size)
        return RF_END;
    if (!reader->values && (status = begin(reader, err)) != RF_OK)
        return status;
    rest = (struct rest){.p = reader->output.data + reader->at,
                         .end = reader->output.data + reader->output.size};
    kind = take_u8(&rest);
    record.kind = (enum rf_record_kind)kind;
    switch (kind) {
    case RF_RECORD_ROW:
        status = read_row(reader, &rest, &record, err);
        break;
    case RF_RECORD_PART:
        status = read_part(reader, &rest, &record, err);
        break;
    case RF_RECORD_NEED:
        status = read_need(reader, &rest, &record, err);
        break;
    case RF_RECORD_CUT:
        status = read_cut(reader, &rest, &record, err);
        break;
    default:
        status = rf_error_set(err, RF_INVALID, "unknown kind %u of record", kind);
    }
    if (status == RF_OK && rest.short_)
        status = refuse_short(err);
    if (status != RF_OK)
        return status;
    reader->at = (size_t)(rest.p - reader->output.data);
    *out = record;
    return RF_OK;
}

/* ---- time ---- */

/* Year, month and day of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date
 * algorithms": years begin in March, eras of 400 years have 146,097 days). */
static void date_of(int64_t day, int *year, int *month, int *mday)
{
    int64_t z = day + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;

    *mday = (int)(doy - (153 * mp + 2) / 5 + 1);
    *month = (int)(mp < 10 ? mp + 3 : mp - 9);
    *year = (int)(yoe + era * 400 + (*month <= 2));
}

static char *put_digits(char *to, int value, int count)
{
    for (int i = count - 1; i >= 0; i--) {
        to[i] = (char)('0' + value % 10);
        value /= 10;
    }
    return to + count;
}

void rf_time_format(int64_t us, char out[RF_TIME_TEXT_SIZE])
{
    const int64_t day_us = 86400000000LL;
    int64_t day = us / day_us, rest = us % day_us;
    int year, month, mday, seconds;

    assert(us >= RF_TIME_MIN && us <= RF_TIME_MAX);
    if (rest < 0) {
        rest += day_us;
        day--;
    }
    date_of(day, &year, &month, &mday);
    seconds = (int)(rest / 1000000);
    out = put_digits(out, year, 4);
    *out++ = '-';
    out = put_digits(out, month, 2);
    *out++ = '-';
    out = put_digits(out, mday, 2);
    *out++ = 'T';
    out = put_digits(out, seconds / 3600, 2);
    *out++ = ':';
    out = put_digits(out, seconds / 60 % 60, 2);
    *out++ = ':';
    out = put_digits(out, seconds % 60, 2);
    *out++ = '.';
    out = put_digits(out, (int)(rest % 1000000), 6);
    *out++ = 'Z';
    *out = '\0';
}
