/*
 * schema.c - file blobs as bytes: written in one form, and read only in that form
 *
 * The parser takes what it needs and then encodes it again: what does not come out byte for byte
 * was not canonical, held a number written another way, or a member this version does not know.
 */
#include "backup/schema.h"

#include <assert.h>

#include "core/control.h"
#include "core/json.h"
#include "core/utf8.h"

#define START "{\"!refuge\":\""
#define VERSION 1

bool rf_schema_is(struct rf_bytes bytes)
{
    return bytes.size >= sizeof START - 1 && memcmp(bytes.data, START, sizeof START - 1) == 0;
}

/* ---- writing ---- */

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void put_base64(struct rf_buf *buf, struct rf_bytes bytes)
{
    for (size_t i = 0; i < bytes.size; i += 3) {
        size_t left = bytes.size - i;
        uint32_t word = (uint32_t)bytes.data[i] << 16;
        char text[4];
        word |= left > 1 ? (uint32_t)bytes.data[i + 1] << 8 : 0;
        word |= left > 2 ? bytes.data[i + 2] : 0;
        for (size_t j = 0; j < 4; j++)
            text[j] = base64[word >> (18 - 6 * j) & 63];
        if (left < 3)
            text[3] = '=';
        if (left < 2)
            text[2] = '=';
        rf_buf_put(buf, text, 4);
    }
}

static void put_ref(struct rf_buf *buf, const struct rf_blobref *ref)
{
    char text[RF_BLOBREF_SIZE + 1];

    text[0] = '"';
    rf_blobref_format(ref, text + 1);
    text[RF_BLOBREF_SIZE] = '"';
    rf_buf_put(buf, text, sizeof text);
}

/* A number as RFC 8785 writes it, between what stands around it. */
static void put_number(struct rf_buf *buf, const char *before, int64_t value, const char *after)
{
    rf_buf_put_text(buf, before);
    rf_json_put_int(buf, value);
    rf_buf_put_text(buf, after);
}

void rf_file_encode(struct rf_buf *buf, const struct rf_file *file)
{
    uint64_t total = 0;

    for (size_t i = 0; i < file->part_count; i++)
        total += file->parts[i].size;
    assert(total == file->size);
    /* Keys in RFC 8785 order; numbers that may pass 2^53 are decimal strings. */
    put_number(buf, START "file/", VERSION, "\",\"gid\":");
    put_number(buf, "", file->gid, ",\"mode\":");
    put_number(buf, "", file->mode, ",\"mtime_ns\":\"");
    put_number(buf, "", file->mtime_ns, "\",");
    if (rf_utf8_valid(file->name) == file->name.size) {
        rf_buf_put_text(buf, "\"name\":");
        rf_json_put_string(buf, file->name);
    } else {
        rf_buf_put_text(buf, "\"name_b64\":\"");
        put_base64(buf, file->name);
        rf_buf_put_text(buf, "\"");
    }
    rf_buf_put_text(buf, ",\"parts\":[");
    for (size_t i = 0; i < file->part_count; i++) {
        put_number(buf, i ? ",{\"len\":\"" : "{\"len\":\"", (int64_t)file->parts[i].size,
                   "\",\"ref\":");
        put_ref(buf, &file->parts[i].ref);
        rf_buf_put_text(buf, "}");
    }
    rf_buf_put_text(buf, "]");
    if (file->prev.algo) {
        rf_buf_put_text(buf, ",\"prev\":");
        put_ref(buf, &file->prev);
    }
    put_number(buf, ",\"size\":\"", (int64_t)file->size, "\",\"uid\":");
    put_number(buf, "", file->uid, "}");
}

/* ---- reading ---- */

struct reader {
    struct rf_arena *arena;
    struct rf_error *err;
};

static enum rf_status invalid(struct reader *reader, const char *key, const char *rule)
{
    return rf_error_set(reader->err, RF_INVALID, "file blob: '%s' %s", key, rule);
}

static enum rf_status no_room(struct reader *reader)
{
    return rf_error_set(reader->err, RF_LIMIT, "file blob: larger than allowed here");
}

static enum rf_status take_number(struct reader *reader, const struct rf_json *root,
                                  const char *key, int64_t max, uint32_t *out)
{
    int64_t number;

    if (!rf_json_int(rf_json_find(root, key), &number) || number < 0 || number > max)
        return rf_error_set(reader->err, RF_INVALID,
                            "file blob: '%s' must be a number from 0 to %lld", key, (long long)max);
    *out = (uint32_t)number;
    return RF_OK;
}

/* Decimal digits of a string, within 64 bits and, when wanted, with a sign. */
static bool parse_decimal(const struct rf_json *value, bool is_signed, int64_t *out)
{
    struct rf_json number = {.type = RF_JSON_NUMBER};

    if (!value || value->type != RF_JSON_STRING || value->text.size == 0)
        return false;
    for (size_t i = 0; i < value->text.size; i++) {
        uint8_t c = value->text.data[i];
        if (!(c >= '0' && c <= '9') && !(is_signed && i == 0 && c == '-'))
            return false;
    }
    number.text = value->text;
    return rf_json_int(&number, out);
}

/* Sizes stay below 2^63, as the kernel's do. */
static enum rf_status take_size(struct reader *reader, const struct rf_json *object,
                                const char *key, uint64_t *out)
{
    int64_t number;

    if (!parse_decimal(rf_json_find(object, key), false, &number))
        return invalid(reader, key, "must be decimal digits in quotes, below 2^63");
    *out = (uint64_t)number;
    return RF_OK;
}

static enum rf_status take_ref(struct reader *reader, const struct rf_json *value, const char *key,
                               struct rf_blobref *out)
{
    struct rf_error why = {0};

    if (!value || value->type != RF_JSON_STRING)
        return invalid(reader, key, "must be a blobref");
    if (rf_blobref_parse(out, (const char *)value->text.data, value->text.size, &why) != RF_OK)
        return rf_error_set(reader->err, RF_INVALID, "file blob: '%s': %s", key, why.message);
    return RF_OK;
}

/* The value of a digit, or -1. */
static int base64_value(uint8_t c)
{
    const char *at = c ? strchr(base64, c) : NULL;

    return at ? (int)(at - base64) : -1;
}

/* Padding and spare bits need no check of their own: the name is encoded again and compared. */
static enum rf_status decode_base64(struct reader *reader, struct rf_bytes text,
                                    struct rf_bytes *out)
{
    uint8_t *to = rf_arena_try(reader->arena, text.size / 4 * 3 + 4);
    uint32_t word = 0;
    size_t size = 0, digits = 0;
    int value;

    if (!to)
        return no_room(reader);
    while (digits < text.size && (value = base64_value(text.data[digits])) >= 0) {
        word = word << 6 | (uint32_t)value;
        digits++;
        if (digits % 4 != 1)
            to[size++] = (uint8_t)(word >> (digits % 4 == 0 ? 0 : digits % 4 == 3 ? 2 : 4));
    }
    to[size] = '\0';
    *out = rf_bytes(to, size);
    return RF_OK;
}

/* One name of a folder, never a way out of it. */
static bool name_is_good(struct rf_bytes name)
{
    return name.size > 0 && name.size <= RF_FILE_NAME_MAX && !memchr(name.data, '/', name.size) &&
           !memchr(name.data, 0, name.size) && !rf_bytes_equal(name, rf_bytes_text(".")) &&
           !rf_bytes_equal(name, rf_bytes_text(".."));
}

static enum rf_status take_name(struct reader *reader, const struct rf_json *root,
                                struct rf_file *out)
{
    const struct rf_json *name = rf_json_find(root, "name"), *b64 = rf_json_find(root, "name_b64");
    enum rf_status status;

    if (!name == !b64 || (name ? name : b64)->type != RF_JSON_STRING)
        return invalid(reader, "name", "or 'name_b64' must be there, one of them, as a string");
    if (name)
        out->name = name->text;
    else if ((status = decode_base64(reader, b64->text, &out->name)) != RF_OK)
        return status;
    out->name_is_text = name != NULL;
    if (!name_is_good(out->name))
        return invalid(reader, "name",
                       "must be 1 to 1024 bytes without '/' and NUL, not '.' or '..'");
    return RF_OK;
}

static enum rf_status take_parts(struct reader *reader, const struct rf_json *root,
                                 struct rf_file *out)
{
    const struct rf_json *list = rf_json_find(root, "parts");
    enum rf_status status;
    uint64_t total = 0;

    if (!list || list->type != RF_JSON_ARRAY || list->count > RF_FILE_PARTS_MAX)
        return invalid(reader, "parts", "must be a list of at most 524288 parts");
    out->parts = rf_arena_try(reader->arena, (list->count + 1) * sizeof *out->parts);
    if (!out->parts)
        return no_room(reader);
    for (size_t i = 0; i < list->count; i++) {
        struct rf_file_part *part = &out->parts[i];
        const struct rf_json *item = &list->items[i];
        if ((status = take_size(reader, item, "len", &part->size)) != RF_OK ||
            (status = take_ref(reader, rf_json_find(item, "ref"), "ref", &part->ref)) != RF_OK)
            return status;
        if (part->size == 0 || part->size > out->size - total)
            return invalid(reader, "parts", "must not be empty and add up to 'size'");
        part->offset = total;
        total += part->size;
    }
    if (total != out->size)
        return invalid(reader, "parts", "must add up to 'size'");
    out->part_count = list->count;
    return RF_OK;
}

/* What was written again must be the same bytes. */
static enum rf_status check_form(struct reader *reader, struct rf_buf *again, const char *what,
                                 struct rf_bytes bytes)
{
    if (again->failed == RF_NOMEM)
        return rf_error_set(reader->err, RF_NOMEM, "no memory to check a schema blob");
    if ((again->failed || !rf_bytes_equal(rf_buf_bytes(again), bytes)) &&
        RF_SAFEGUARD("schema-form"))
        return rf_error_set(reader->err, RF_INVALID,
                            "%s blob: not in RFC 8785 form, or with members this version does not "
                            "know",
                            what);
    return RF_OK;
}

static enum rf_status take_file(struct reader *reader, const struct rf_json *root,
                                struct rf_file *out)
{
    const struct rf_json *prev = rf_json_find(root, "prev");
    enum rf_status status;

    if ((status = take_number(reader, root, "gid", UINT32_MAX, &out->gid)) != RF_OK ||
        (status = take_number(reader, root, "uid", UINT32_MAX, &out->uid)) != RF_OK ||
        (status = take_number(reader, root, "mode", 07777, &out->mode)) != RF_OK ||
        (status = take_size(reader, root, "size", &out->size)) != RF_OK ||
        (status = take_name(reader, root, out)) != RF_OK ||
        (status = take_parts(reader, root, out)) != RF_OK)
        return status;
    if (!parse_decimal(rf_json_find(root, "mtime_ns"), true, &out->mtime_ns))
        return invalid(reader, "mtime_ns", "must be a decimal number in quotes, within 64 bits");
    return prev ? take_ref(reader, prev, "prev", &out->prev) : RF_OK;
}

static enum rf_status parse_file(struct reader *reader, const struct rf_json *root,
                                 struct rf_file *out, struct rf_bytes bytes)
{
    struct rf_file file = {0};
    enum rf_status status = take_file(reader, root, &file);
    struct rf_buf again;

    if (status != RF_OK)
        return status;
    rf_buf_init(&again, bytes.size + 4096);
    rf_file_encode(&again, &file);
    status = check_form(reader, &again, "file", bytes);
    rf_buf_release(&again);
    if (status == RF_OK)
        *out = file;
    return status;
}

static enum rf_status check_canonical(struct reader *reader, const struct rf_json *root,
                                      const char *what, struct rf_bytes bytes)
{
    struct rf_buf again;
    enum rf_status status;

    rf_buf_init(&again, bytes.size + 4096);
    rf_json_put_canonical(&again, root);
    status = check_form(reader, &again, what, bytes);
    rf_buf_release(&again);
    return status;
}

/* The kind and version that stand behind the start ("file/1"); version 0: not so written. */
static enum rf_schema_kind claimed_kind(struct rf_bytes bytes, unsigned *version)
{
    static const char *const names[] = {"file/", "tree/", "ref/"};
    const char *p = (const char *)bytes.data + sizeof START - 1;
    size_t left = bytes.size - (sizeof START - 1), size;

    *version = 0;
    for (int i = 0; i < 3; i++) {
        size = strlen(names[i]);
        if (left <= size || memcmp(p, names[i], size) != 0)
            continue;
        p += size;
        left -= size;
        for (; left > 0 && *p >= '0' && *p <= '9' && *version < 100000; p++, left--)
            *version = *version * 10 + (unsigned)(*p - '0');
        if (left == 0 || *p != '"')
            *version = 0;
        return (enum rf_schema_kind)(RF_SCHEMA_FILE + i);
    }
    return RF_SCHEMA_NONE;
}

enum rf_status rf_schema_parse(enum rf_schema_kind *kind, struct rf_file *out,
                               struct rf_arena *arena, struct rf_bytes bytes,
                               struct rf_error *err)
{
    static const char *const names[] = {"", "file", "tree", "ref"};
    struct reader reader = {.arena = arena, .err = err};
    const struct rf_json *root, *claim;
    enum rf_status status;
    unsigned version;

    *kind = RF_SCHEMA_NONE;
    if (!rf_schema_is(bytes))
        return RF_OK;
    *kind = claimed_kind(bytes, &version);
    if (bytes.size > RF_SCHEMA_SIZE_MAX)
        return rf_error_set(err, RF_INVALID, "schema blob of %zu bytes, at most %u are allowed",
                            bytes.size, RF_SCHEMA_SIZE_MAX);
    status = rf_json_parse(&root, arena, bytes, err);
    if (status != RF_OK)
        return rf_error_context(err, status, "schema blob");
    claim = rf_json_find(root, "!refuge"); /* a string, or it would not have parsed */
    if (*kind == RF_SCHEMA_NONE || version > VERSION)
        return rf_error_set(err, RF_UNSUPPORTED,
                            "schema blob of kind '%.40s': this refuge knows file/1, tree/1 and "
                            "ref/1",
                            rf_json_string(claim));
    if (version == 0)
        return rf_error_set(err, RF_INVALID, "schema blob of kind '%.40s' without a version",
                            rf_json_string(claim));
    if (*kind == RF_SCHEMA_FILE)
        return parse_file(&reader, root, out, bytes);
    return check_canonical(&reader, root, names[*kind], bytes);
}

/* ---- content ---- */

/* Index of the part that holds offset, which is below the file's size. */
static size_t part_at(const struct rf_file *file, uint64_t offset)
{
    size_t low = 0, high = file->part_count - 1;

    while (low < high) {
        size_t middle = low + (high - low + 1) / 2;
        if (file->parts[middle].offset <= offset)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* Exactly size bytes of a part from within on. */
static enum rf_status read_part(struct rf_store *store, const struct rf_file_part *part,
                                uint64_t within, uint8_t *out, size_t size, struct rf_error *err)
{
    char text[RF_BLOBREF_SIZE];
    size_t got = 0;
    enum rf_status status = rf_store_read(store, &part->ref, within, out, size, &got, err);

    if (status != RF_OK || got == size)
        return status;
    rf_blobref_format(&part->ref, text);
    return rf_error_set(err, RF_CORRUPT, "%s is shorter than the %llu bytes the file blob says",
                        text,
                        (unsigned long long)part->size);
}

enum rf_status rf_file_read(struct rf_store *store, const struct rf_file *file, uint64_t offset,
                            void *out, size_t size, size_t *got, struct rf_error *err)
{
    size_t done = 0;
    enum rf_status status;

    if (offset >= file->size)
        size = 0;
    else if (size > file->size - offset)
        size = (size_t)(file->size - offset);
    for (size_t i = size ? part_at(file, offset) : 0; done < size; i++) {
        const struct rf_file_part *part = &file->parts[i];
        uint64_t within = offset + done - part->offset, left = part->size - within;
        size_t want = size - done < left ? size - done : (size_t)left;
        status = read_part(store, part, within, (uint8_t *)out + done, want, err);
        if (status != RF_OK)
            return rf_error_context(err, status, "part %zu of file '%s'", i,
                                    (const char *)file->name.data);
        done += want;
    }
    *got = done;
    return RF_OK;
}
