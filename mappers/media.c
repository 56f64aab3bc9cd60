/*
 * media.c - the media type of some bytes: by signature, then by the name's ending
 *
 * Signatures are those of the formats' own specifications. Text has none, so JSON, XML, mail and
 * the like are told by their first words, cautiously: what merely looks like one is plain text. A
 * name decides between kinds of text that look alike, never against a signature. CSV is found by
 * its content only when several lines agree on the number of cells. Of text in UTF-16, which its
 * mark tells, only the name decides.
 *
 * To add a type: a line in magics (fixed bytes), endings (names) or a test in find_text.
 */
#include "core/json_scan.h"
#include "core/utf8.h"
#include "mappers/media.h"

#include <strings.h>

#define LOOK_SIZE RF_MEDIA_LOOK
#define JSON_LOOK 512 /* of JSON, what must be well-formed so far */

static const struct {
    uint16_t offset;
    uint8_t size;
    const char *bytes;
    const char *media;
} magics[] = {
    {0, 8, "\x89PNG\r\n\x1a\n", "image/png"},
    {0, 3, "\xff\xd8\xff", "image/jpeg"},
    {0, 6, "GIF87a", "image/gif"},
    {0, 6, "GIF89a", "image/gif"},
    {0, 4, "II*\0", "image/tiff"},
    {0, 4, "MM\0*", "image/tiff"},
    {8, 4, "WEBP", "image/webp"},
    {8, 4, "WAVE", "audio/x-wav"},
    {8, 4, "AVI ", "video/x-msvideo"},
    {0, 5, "%PDF-", "application/pdf"},
    {0, 4, "PK\3\4", "application/zip"},
    {0, 4, "PK\5\6", "application/zip"},
    {0, 3, "\x1f\x8b\x08", "application/gzip"},
    {0, 4, "\x28\xb5\x2f\xfd", "application/zstd"},
    {0, 6, "\xfd" "7zXZ\0", "application/x-xz"},
    {0, 3, "BZh", "application/x-bzip2"},
    {0, 6, "7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"},
    {257, 5, "ustar", "application/x-tar"},
    {0, 16, "SQLite format 3", "application/vnd.sqlite3"},
    {0, 4, "OggS", "application/ogg"},
    {0, 4, "fLaC", "audio/flac"},
    {0, 3, "ID3", "audio/mpeg"},
    {0, 4, "\x1a\x45\xdf\xa3", "video/x-matroska"},
    {4, 8, "ftypheic", "image/heic"},
    {4, 8, "ftypheix", "image/heic"},
    {4, 8, "ftypmif1", "image/heif"},
    {4, 8, "ftypavif", "image/avif"},
    {4, 8, "ftypqt  ", "video/quicktime"},
    {4, 8, "ftypM4A ", "audio/mp4"},
    {4, 4, "ftyp", "video/mp4"},
    {0, 5, "{\\rtf", "application/rtf"},
    {0, 8, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"},
    {0, 4, "!BDN", "application/vnd.ms-outlook-pst"},
    {0, 4, "\x7f" "ELF", "application/x-executable"},
    {0, 10, "BEGIN:VCAR", "text/vcard"},
    {0, 10, "BEGIN:VCAL", "text/calendar"},
};

/* is_text: believed of text only; others of anything that has no signature. */
static const struct {
    const char *ending;
    const char *media;
    bool is_text;
} endings[] = {
    {"json", "application/json", true},    {"geojson", "application/json", true},
    {"jsonl", "application/x-ndjson", true}, {"ndjson", "application/x-ndjson", true},
    {"csv", "text/csv", true},             {"tsv", "text/tab-separated-values", true},
    {"tab", "text/tab-separated-values", true},
    {"txt", "text/plain", true},           {"text", "text/plain", true},
    {"log", "text/plain", true},           {"md", "text/markdown", true},
    {"markdown", "text/markdown", true},   {"html", "text/html", true},
    {"htm", "text/html", true},            {"xhtml", "application/xhtml+xml", true},
    {"xml", "application/xml", true},      {"gpx", "application/gpx+xml", true},
    {"kml", "application/vnd.google-earth.kml+xml", true},
    {"svg", "image/svg+xml", true},        {"enex", "application/enex+xml", true},
    {"eml", "message/rfc822", true},       {"mbox", "application/mbox", true},
    {"vcf", "text/vcard", true},           {"vcard", "text/vcard", true},
    {"ics", "text/calendar", true},        {"yaml", "application/yaml", true},
    {"yml", "application/yaml", true},     {"toml", "application/toml", true},
    {"css", "text/css", true},             {"js", "text/javascript", true},
    {"lua", "text/x-lua", true},           {"c", "text/x-c", true},
    {"h", "text/x-c", true},               {"py", "text/x-python", true},
    {"sh", "text/x-shellscript", true},    {"tex", "text/x-tex", true},
    {"sql", "application/sql", true},      {"srt", "application/x-subrip", true},
    {"mp3", "audio/mpeg", false},          {"pst", "application/vnd.ms-outlook-pst", false},
};

static const struct {
    const char *ending;
    const char *media;
} zip_endings[] = {
    {"docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
    {"xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
    {"pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"},
    {"odt", "application/vnd.oasis.opendocument.text"},
    {"ods", "application/vnd.oasis.opendocument.spreadsheet"},
    {"epub", "application/epub+zip"},
};

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static const char *ending_of(const char *name)
{
    const char *slash = name ? strrchr(name, '/') : NULL, *base = slash ? slash + 1 : name;
    const char *dot = base ? strrchr(base, '.') : NULL;

    return dot && dot != base ? dot + 1 : "";
}

static const char *find_magic(struct rf_bytes head)
{
    for (size_t i = 0; i < COUNT(magics); i++) {
        size_t end = (size_t)magics[i].offset + magics[i].size;
        if (head.size >= end &&
            memcmp(head.data + magics[i].offset, magics[i].bytes, magics[i].size) == 0)
            return magics[i].media;
    }
    return NULL;
}

static bool begins(struct rf_bytes text, const char *words)
{
    size_t n = strlen(words);

    return text.size >= n && strncasecmp((const char *)text.data, words, n) == 0;
}

/* The first JSON_LOOK bytes are well-formed JSON so far, and begin an array or object. */
static bool looks_json(struct rf_bytes text)
{
    struct rf_json_scan scan;
    bool cut = text.size > JSON_LOOK;

    if (text.size == 0 || (text.data[0] != '{' && text.data[0] != '['))
        return false;
    if (cut)
        text.size = JSON_LOOK;
    rf_json_scan_init(&scan, text);
    if (rf_json_check_next(&scan))
        return true;
    if (scan.status == RF_LIMIT)
        return true; /* nested deep, but JSON so far */
    return cut && scan.p + 16 >= scan.end;
}

/* "Name: value" lines of a mail: two known names among the first lines. */
static bool looks_mail(struct rf_bytes text)
{
    static const char *const names[] = {
        "Received:", "Return-Path:", "Delivered-To:", "From:", "To:", "Subject:", "Date:",
        "Message-ID:", "MIME-Version:", "X-", "DKIM-Signature:", "Content-Type:", "Reply-To:",
        "Cc:", "ARC-",
    };
    size_t known = 0, lines = 0;

    while (text.size > 0 && lines < 12 && text.data[0] != '\n' && text.data[0] != '\r') {
        const uint8_t *end = memchr(text.data, '\n', text.size);
        bool folded = text.data[0] == ' ' || text.data[0] == '\t';
        size_t size = end ? (size_t)(end - text.data) + 1 : text.size;

        if (!folded) {
            const uint8_t *colon = memchr(text.data, ':', size);
            if (!colon || memchr(text.data, ' ', (size_t)(colon - text.data)))
                return false;
            for (size_t i = 0; i < COUNT(names); i++)
                known += begins(text, names[i]);
        } else if (lines == 0) {
            return false;
        }
        text = rf_bytes(text.data + size, text.size - size);
        lines++;
    }
    return known >= 2;
}

/* Cells of each of the first lines, when they agree; quotes are honoured. 0: they do not. */
static size_t agreeing_cells(struct rf_bytes text, uint8_t delimiter, bool whole)
{
    size_t cells = 1, agreed = 0, lines = 0;
    bool quoted = false;

    for (size_t i = 0; i <= text.size; i++) {
        bool last = i == text.size;
        if (last && (!whole || quoted || i == 0 || text.data[i - 1] == '\n'))
            break;
        if (!last && text.data[i] == '"') {
            quoted = !quoted;
        } else if (!last && !quoted && text.data[i] == delimiter) {
            cells++;
        } else if (last || (!quoted && text.data[i] == '\n')) {
            if (lines > 0 && cells != agreed)
                return 0;
            agreed = cells;
            cells = 1;
            if (++lines == 20)
                break;
        }
    }
    return lines >= 3 && agreed >= 2 ? agreed : 0;
}

static const char *find_csv(struct rf_bytes text, bool whole)
{
    if (agreeing_cells(text, '\t', whole) >= 2)
        return "text/tab-separated-values";
    if (agreeing_cells(text, ';', whole) >= 3 || agreeing_cells(text, ',', whole) >= 3)
        return "text/csv";
    return NULL;
}

static const char *find_xml(struct rf_bytes text)
{
    static const struct {
        const char *word;
        const char *media;
    } roots[] = {
        {"<gpx", "application/gpx+xml"},     {"<kml", "application/vnd.google-earth.kml+xml"},
        {"<svg", "image/svg+xml"},           {"<en-export", "application/enex+xml"},
        {"<html", "application/xhtml+xml"},
    };
    size_t look = text.size < 1024 ? text.size : 1024;

    for (size_t at = 0; at + 4 < look; at++) {
        if (text.data[at] != '<')
            continue;
        for (size_t i = 0; i < COUNT(roots); i++)
            if (begins(rf_bytes(text.data + at, look - at), roots[i].word))
                return roots[i].media;
    }
    return "application/xml";
}

static const char *find_html(struct rf_bytes text)
{
    static const char *const words[] = {"<!doctype html", "<html", "<head", "<body"};

    for (size_t i = 0; i < COUNT(words); i++)
        if (begins(text, words[i]))
            return "text/html";
    return NULL;
}

/* text: from its first significant byte. whole: it is all there is. */
static const char *find_text(struct rf_bytes text, const char *ending, bool whole)
{
    const char *found;

    if (looks_json(text))
        return strcasecmp(ending, "jsonl") == 0 || strcasecmp(ending, "ndjson") == 0
                   ? "application/x-ndjson"
                   : "application/json";
    if (begins(text, "<?xml"))
        return find_xml(text);
    found = find_html(text);
    if (found)
        return found;
    for (size_t i = 0; i < COUNT(endings); i++)
        if (strcasecmp(ending, endings[i].ending) == 0)
            return endings[i].media;
    if (begins(text, "From ") && memchr(text.data, '\n', text.size)) {
        const uint8_t *line = memchr(text.data, '\n', text.size);
        size_t rest = text.size - (size_t)(line + 1 - text.data);
        if (looks_mail(rf_bytes(line + 1, rest)))
            return "application/mbox";
    }
    if (looks_mail(text))
        return "message/rfc822";
    found = find_csv(text, whole);
    return found ? found : "text/plain";
}

/* No NUL or other byte that text does not hold, and UTF-8 up to a character cut at the end, or
 * Latin text in another encoding. */
static bool is_text(struct rf_bytes head)
{
    size_t look = head.size < 512 ? head.size : 512;

    for (size_t i = 0; i < look; i++) {
        uint8_t c = head.data[i];
        if (c < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != '\f' && c != 0x1b)
            return false;
    }
    return true;
}

/* A mark of UTF-16, and not of UTF-32. */
static bool is_utf16(struct rf_bytes head)
{
    return begins(head, "\xfe\xff") ||
           (begins(head, "\xff\xfe") &&
            (head.size < 4 || head.data[2] != 0 || head.data[3] != 0));
}

const char *rf_media_find(struct rf_bytes head, const char *name)
{
    const char *ending = ending_of(name), *found;
    struct rf_bytes text;

    if (head.size > LOOK_SIZE)
        head.size = LOOK_SIZE;
    found = find_magic(head);
    if (found && strcmp(found, "application/zip") == 0)
        for (size_t i = 0; i < COUNT(zip_endings); i++)
            if (strcasecmp(ending, zip_endings[i].ending) == 0)
                return zip_endings[i].media;
    if (found)
        return found;
    text = head;
    if (begins(text, "\xef\xbb\xbf"))
        text = rf_bytes(text.data + 3, text.size - 3);
    if (is_text(text)) {
        while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t' ||
                                 text.data[0] == '\n' || text.data[0] == '\r'))
            text = rf_bytes(text.data + 1, text.size - 1);
        if (text.size > 0 || head.size > 0 || *ending)
            return find_text(text, ending, head.size < LOOK_SIZE);
    }
    for (size_t i = 0; i < COUNT(endings); i++)
        if ((!endings[i].is_text || is_utf16(head)) && strcasecmp(ending, endings[i].ending) == 0)
            return endings[i].media;
    return head.size == 0 ? "application/x-empty" : "application/octet-stream";
}
