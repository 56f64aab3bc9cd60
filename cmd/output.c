/*
 * output.c - data on stdout, words on stderr
 *
 * With --json stdout carries one object a line and nothing else; text calls are silent then, so a
 * command may simply do both. A reader of stdout that goes away (EPIPE) ends a command quietly; any
 * other failure to write is told once by main.
 */
#include "cmd/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "core/json.h"
#include "core/row.h"
#include "core/utf8.h"

#define PROGRESS_EVERY_US 100000      /* on a terminal */
#define PROGRESS_JSON_EVERY_US 1000000

int64_t rf_clock_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

double rf_seconds_since(int64_t start_us)
{
    int64_t ms = (rf_clock_us() - start_us) / 1000;

    return (double)ms / 1000;
}

int64_t rf_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* ---- JSON ---- */

static void put_key(struct rf_buf *line, const char *key)
{
    if (line->size > 1)
        rf_buf_put_u8(line, ',');
    rf_json_put_string(line, rf_bytes_text(key));
    rf_buf_put_u8(line, ':');
}

static void put_clean(struct rf_buf *line, struct rf_bytes text)
{
    struct rf_buf clean;

    if (rf_utf8_valid(text) == text.size) {
        rf_json_put_string(line, text);
        return;
    }
    rf_buf_init(&clean, SIZE_MAX / 4);
    rf_utf8_clean(&clean, text, false, NULL, NULL);
    rf_json_put_string(line, rf_buf_bytes(&clean));
    rf_buf_release(&clean);
}

void rf_out_begin(struct rf_out *out, const char *type)
{
    if (!out->json)
        return;
    rf_buf_clear(&out->line);
    rf_buf_put_u8(&out->line, '{');
    if (type)
        rf_out_text(out, "type", type);
}

void rf_out_bytes(struct rf_out *out, const char *key, struct rf_bytes text)
{
    if (!out->json)
        return;
    put_key(&out->line, key);
    put_clean(&out->line, text);
}

void rf_out_text(struct rf_out *out, const char *key, const char *text)
{
    if (text)
        rf_out_bytes(out, key, rf_bytes_text(text));
    else
        rf_out_raw(out, key, rf_bytes_text("null"));
}

static void put_base64(struct rf_buf *line, struct rf_bytes bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    rf_buf_put_u8(line, '"');
    for (size_t i = 0; i < bytes.size; i += 3) {
        size_t left = bytes.size - i;
        uint32_t group = (uint32_t)bytes.data[i] << 16;

        if (left > 1)
            group |= (uint32_t)bytes.data[i + 1] << 8;
        if (left > 2)
            group |= bytes.data[i + 2];
        rf_buf_put_u8(line, (uint8_t)digits[group >> 18]);
        rf_buf_put_u8(line, (uint8_t)digits[group >> 12 & 63]);
        rf_buf_put_u8(line, (uint8_t)(left > 1 ? digits[group >> 6 & 63] : '='));
        rf_buf_put_u8(line, (uint8_t)(left > 2 ? digits[group & 63] : '='));
    }
    rf_buf_put_u8(line, '"');
}

void rf_out_name(struct rf_out *out, struct rf_bytes name)
{
    if (!out->json)
        return;
    if (rf_utf8_valid(name) == name.size) {
        rf_out_bytes(out, "name", name);
        return;
    }
    put_key(&out->line, "name_b64");
    put_base64(&out->line, name);
}

void rf_out_raw(struct rf_out *out, const char *key, struct rf_bytes json)
{
    if (!out->json)
        return;
    put_key(&out->line, key);
    rf_buf_put(&out->line, json.data, json.size);
}

void rf_out_int(struct rf_out *out, const char *key, int64_t value)
{
    if (!out->json)
        return;
    put_key(&out->line, key);
    rf_buf_printf(&out->line, "%lld", (long long)value);
}

void rf_out_real(struct rf_out *out, const char *key, double value)
{
    if (!out->json)
        return;
    put_key(&out->line, key);
    rf_json_put_double(&out->line, value);
}

void rf_out_bool(struct rf_out *out, const char *key, bool value)
{
    rf_out_raw(out, key, rf_bytes_text(value ? "true" : "false"));
}

void rf_out_ref(struct rf_out *out, const char *key, const struct rf_blobref *ref)
{
    char text[RF_BLOBREF_SIZE];

    if (!out->json)
        return;
    rf_blobref_format(ref, text);
    rf_out_text(out, key, text);
}

void rf_out_time(struct rf_out *out, const char *key, int64_t us)
{
    char text[RF_TIME_TEXT_SIZE];

    if (!out->json)
        return;
    if (us < RF_TIME_MIN || us > RF_TIME_MAX) {
        rf_out_text(out, key, NULL);
        return;
    }
    rf_time_format(us, text);
    rf_out_text(out, key, text);
}

/* Past stdio, which would go on with the rest after a signal: a stop ends it wherever it stands. */
static bool write_large(struct rf_out *out, const uint8_t *data, size_t size)
{
    if (fflush(out->file) != 0)
        return false;
    while (size) {
        ssize_t put = write(fileno(out->file), data, size);

        if (put < 0 && errno != EINTR)
            return false;
        if (put > 0) {
            data += put;
            size -= (size_t)put;
        }
        if (size && rf_stop_asked()) {
            errno = EINTR;
            return false;
        }
    }
    return true;
}

static bool write_stdout(struct rf_out *out, const void *data, size_t size)
{
    if (out->closed)
        return false;
    if (size > PIPE_BUF ? write_large(out, data, size)
                        : fwrite(data, 1, size, out->file) == size)
        return true;
    out->closed = true;
    out->failed = errno;
    return false;
}

void rf_out_end(struct rf_out *out)
{
    if (!out->json)
        return;
    rf_buf_put(&out->line, "}\n", 2);
    if (!out->line.failed)
        (void)write_stdout(out, out->line.data, out->line.size);
    if (out->terminal)
        fflush(out->file);
}

static void summary_key(struct rf_cli *cli, const char *key)
{
    struct rf_buf *summary = &cli->out.summary;

    rf_buf_put_u8(summary, ',');
    rf_json_put_string(summary, rf_bytes_text(key));
    rf_buf_put_u8(summary, ':');
}

void rf_summary_int(struct rf_cli *cli, const char *key, int64_t value)
{
    summary_key(cli, key);
    rf_buf_printf(&cli->out.summary, "%lld", (long long)value);
}

void rf_summary_text(struct rf_cli *cli, const char *key, const char *value)
{
    summary_key(cli, key);
    if (value)
        put_clean(&cli->out.summary, rf_bytes_text(value));
    else
        rf_buf_put_text(&cli->out.summary, "null");
}

/* ---- text ---- */

/* A progress line must not stand between the words of the same terminal. */
static void make_way(struct rf_cli *cli)
{
    if (cli->progress_shown && cli->out.terminal)
        rf_progress_clear(cli);
}

void rf_out_printf(struct rf_cli *cli, const char *format, ...)
{
    va_list args;

    if (cli->out.json || cli->out.closed)
        return;
    make_way(cli);
    va_start(args, format);
    if (vfprintf(cli->out.file, format, args) < 0) {
        cli->out.closed = true;
        cli->out.failed = errno;
    }
    va_end(args);
}

/* Bytes at the start of text that a terminal would obey instead of show: C0, DEL, C1. */
static size_t control_size(struct rf_bytes text)
{
    if (text.data[0] < 0x20 || text.data[0] == 0x7f)
        return 1;
    if (text.size > 1 && text.data[0] == 0xc2 && text.data[1] >= 0x80 && text.data[1] < 0xa0)
        return 2;
    if (text.data[0] >= 0x80 && text.data[0] < 0xa0) /* C1 of a terminal that is not UTF-8 */
        return 1;
    return 0;
}

/* Bytes of one well-formed character of text; 1 when it is none. */
static size_t character_size(struct rf_bytes text)
{
    size_t size = text.data[0] < 0x80 ? 1 : text.data[0] < 0xe0 ? 2 : text.data[0] < 0xf0 ? 3 : 4;

    if (size > text.size || rf_utf8_valid(rf_bytes(text.data, size)) != size)
        return 1;
    return size;
}

void rf_out_word(struct rf_cli *cli, struct rf_bytes word)
{
    struct rf_out *out = &cli->out;

    if (out->json)
        return;
    make_way(cli);
    if (!out->terminal) {
        (void)write_stdout(out, word.data, word.size);
        return;
    }
    while (word.size) {
        size_t size = control_size(word);

        if (size) {
            for (size_t i = 0; i < size; i++)
                rf_out_printf(cli, "\\x%02x", word.data[i]);
        } else {
            size = character_size(word);
            (void)write_stdout(out, word.data, size);
        }
        word = rf_bytes(word.data + size, word.size - size);
    }
}

bool rf_out_write(struct rf_cli *cli, struct rf_bytes bytes)
{
    return write_stdout(&cli->out, bytes.data, bytes.size);
}

RF_PRINTF(1, 0)
static void words(const char *format, va_list args)
{
    char text[4096];
    size_t size;

    vsnprintf(text, sizeof text, format, args);
    size = strlen(text);
    for (size_t i = 0; i < size; i++) {
        size_t control = text[i] == '\n' ? 0 : control_size(rf_bytes(text + i, size - i));
        size_t step = control ? control : character_size(rf_bytes(text + i, size - i));

        for (size_t j = 0; j < step; j++)
            fprintf(stderr, control ? "\\x%02x" : "%c", (unsigned char)text[i + j]);
        i += step - 1;
    }
    fputc('\n', stderr);
}

void rf_say(struct rf_cli *cli, const char *format, ...)
{
    va_list args;

    if (cli->out.quiet)
        return;
    rf_progress_clear(cli);
    fflush(cli->out.file);
    va_start(args, format);
    words(format, args);
    va_end(args);
}

void rf_warn(struct rf_cli *cli, const char *format, ...)
{
    va_list args;

    rf_progress_clear(cli);
    fflush(cli->out.file);
    fputs("refuge: ", stderr);
    va_start(args, format);
    words(format, args);
    va_end(args);
}

static int exit_code(enum rf_status status)
{
    switch (status) {
    case RF_OK:
    case RF_END:
        return RF_EXIT_OK;
    case RF_LOCKED:
        return RF_EXIT_LOCKED;
    case RF_DENIED:
        return RF_EXIT_ACCESS;
    case RF_UNAVAILABLE:
    case RF_TIMEOUT:
        return RF_EXIT_UNREACHABLE;
    case RF_CANCELLED:
        return RF_EXIT_STOPPED;
    default:
        return RF_EXIT_FAILED;
    }
}

static void tell_error(struct rf_cli *cli, const char *status, const char *message)
{
    rf_warn(cli, "%s", message);
    rf_out_begin(&cli->out, "error");
    rf_out_text(&cli->out, "status", status);
    rf_out_text(&cli->out, "message", message);
    rf_out_end(&cli->out);
}

int rf_fail(struct rf_cli *cli, const struct rf_error *err)
{
    if (err->status == RF_CANCELLED && rf_stop_asked())
        return RF_EXIT_STOPPED;
    tell_error(cli, rf_status_name(err->status), err->message);
    return exit_code(err->status);
}

int rf_fail_with(struct rf_cli *cli, int code, const char *format, ...)
{
    char message[RF_ERROR_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    tell_error(cli, code == RF_EXIT_USAGE ? "usage" : code == RF_EXIT_NO_HOME ? "no_home"
                    : code == RF_EXIT_LOCKED ? "locked" : code == RF_EXIT_ACCESS ? "denied"
                    : "failed", message);
    return code;
}

void rf_say_wait(struct rf_cli *cli, uint64_t waited_s)
{
    rf_say(cli, "'--wait SECONDS' waits %s", waited_s ? "longer" : "for the other process");
}

int rf_fail_argument(struct rf_cli *cli, const struct rf_error *err)
{
    if (err->status == RF_INVALID || err->status == RF_LIMIT)
        return rf_fail_with(cli, RF_EXIT_USAGE, "%s", err->message);
    return rf_fail(cli, err);
}

int rf_exit_of_errno(int errnum)
{
    return rf_status_of_errno(errnum) == RF_DENIED ? RF_EXIT_ACCESS : RF_EXIT_FAILED;
}

/* ---- measures ---- */

const char *rf_count_format(uint64_t count, const char *noun, char out[RF_COUNT_TEXT])
{
    snprintf(out, RF_COUNT_TEXT, "%llu %s%s", (unsigned long long)count, noun,
             count == 1 ? "" : "s");
    return out;
}

const char *rf_size_format(uint64_t bytes, char out[RF_SIZE_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    snprintf(out, RF_SIZE_TEXT, unit && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}

int rf_terminal_width(int fd)
{
    struct winsize size;

    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

/* Columns of one character: 0 for combining marks, 2 for wide ones. Ranges from Unicode 15's
 * EastAsianWidth.txt (W and F) and the combining blocks; enough to line up a table. */
static size_t character_width(struct rf_bytes character)
{
    const uint8_t *p = character.data;
    uint32_t code = character.size == 4 ? (uint32_t)(p[0] & 7) << 18 | (uint32_t)(p[1] & 63) << 12 |
                                              (uint32_t)(p[2] & 63) << 6 | (p[3] & 63)
                    : character.size == 3 ? (uint32_t)(p[0] & 15) << 12 |
                                                (uint32_t)(p[1] & 63) << 6 | (p[2] & 63)
                    : character.size == 2 ? (uint32_t)(p[0] & 31) << 6 | (p[1] & 63)
                                          : p[0];

    if ((code >= 0x300 && code < 0x370) || (code >= 0x200b && code <= 0x200f) || code == 0xfeff ||
        (code >= 0x1ab0 && code < 0x1b00) || (code >= 0x20d0 && code < 0x2100) ||
        (code >= 0xfe00 && code < 0xfe10) || (code >= 0xfe20 && code < 0xfe30))
        return 0;
    if ((code >= 0x1100 && code < 0x1160) || (code >= 0x2e80 && code < 0xa4d0 && code != 0x303f) ||
        (code >= 0xac00 && code < 0xd7a4) || (code >= 0xf900 && code < 0xfb00) ||
        (code >= 0xfe30 && code < 0xfe70) || (code >= 0xff00 && code < 0xff61) ||
        (code >= 0xffe0 && code < 0xffe7) || (code >= 0x1f300 && code < 0x1f650) ||
        (code >= 0x1f900 && code < 0x1fb00) || (code >= 0x20000 && code < 0x3fffe))
        return 2;
    return 1;
}

size_t rf_text_width(struct rf_bytes text)
{
    size_t width = 0;

    while (text.size) {
        size_t control = control_size(text), size = control ? control : character_size(text);

        width += control ? 4 * control : character_width(rf_bytes(text.data, size));
        text = rf_bytes(text.data + size, text.size - size);
    }
    return width;
}

size_t rf_text_fit(struct rf_bytes text, size_t columns)
{
    size_t at = 0, width = 0;

    while (at < text.size) {
        struct rf_bytes rest = rf_bytes(text.data + at, text.size - at);
        size_t control = control_size(rest), size = control ? control : character_size(rest);

        width += control ? 4 * control : character_width(rf_bytes(rest.data, size));
        if (width > columns)
            break;
        at += size;
    }
    return at;
}

/* ---- progress ---- */

#define PROGRESS_NEW 2000u /* things done so early may have been done by this process */

static void format_span(int64_t seconds, char out[24])
{
    if (seconds >= 3600)
        snprintf(out, 24, "%lld:%02d:%02d", (long long)(seconds / 3600),
                 (int)(seconds / 60 % 60), (int)(seconds % 60));
    else
        snprintf(out, 24, "%d:%02d", (int)(seconds / 60), (int)(seconds % 60));
}

/* What was done before does not tell how fast this goes: a run that goes on where another ended,
 * another lane, another phase. */
static void note_phase(struct rf_cli *cli, const struct rf_progress *p)
{
    if (cli->progress_since_us && cli->progress_note == p->note && p->done >= cli->progress_last) {
        cli->progress_last = p->done;
        return;
    }
    /* What a first look finds done was done in no time: unless work began with the process. */
    cli->progress_from = p->bytes || p->done < PROGRESS_NEW ? 0 : p->done;
    cli->progress_since_us = cli->progress_from || cli->progress_since_us ? rf_clock_us()
                                                                           : cli->started_us;
    cli->progress_note = p->note;
    cli->progress_last = p->done;
}

/* [0:05] 35.93%  167.1 MiB/s  835 MiB / 2.27 GiB  92925 / 181272 items  0 errors  ETA 0:08 */
static void progress_line(struct rf_cli *cli, const struct rf_progress *p, struct rf_buf *line)
{
    double seconds = (double)(rf_clock_us() - cli->started_us) / 1e6, share = -1;
    double phase = (double)(rf_clock_us() - cli->progress_since_us) / 1e6;
    uint64_t fresh = p->done > cli->progress_from ? p->done - cli->progress_from : 0;
    char span[24], size[RF_SIZE_TEXT];

    format_span((int64_t)seconds, span);
    rf_buf_printf(line, "[%s]", span);
    if (p->bytes_total)
        share = (double)p->bytes / (double)p->bytes_total;
    else if (p->total)
        share = (double)p->done / (double)p->total;
    if (share > 1)
        share = 1;
    if (share >= 0)
        rf_buf_printf(line, " %.2f%%", share * 100);
    if (p->bytes && seconds > 0)
        rf_buf_printf(line, "  %s/s", rf_size_format((uint64_t)((double)p->bytes / seconds), size));
    else if (phase > 0)
        rf_buf_printf(line, "  %.0f %ss/s", (double)fresh / phase, p->noun);
    if (p->bytes) {
        rf_buf_printf(line, "  %s", rf_size_format(p->bytes, size));
        if (p->bytes_total)
            rf_buf_printf(line, " / %s", rf_size_format(p->bytes_total, size));
    }
    if (p->total)
        rf_buf_printf(line, "  %llu / %s", (unsigned long long)p->done,
                      RF_COUNT(p->total, p->noun));
    else
        rf_buf_printf(line, "  %s", RF_COUNT(p->done, p->noun));
    rf_buf_printf(line, "  %s", RF_COUNT(p->errors, "error"));
    if (share > 0.001 && share < 1 && p->bytes_total) {
        format_span((int64_t)(seconds / share - seconds + 0.5), span);
        rf_buf_printf(line, "  ETA %s", span);
    } else if (share >= 0 && share < 1 && fresh && phase > 0.2) {
        format_span((int64_t)(phase / (double)fresh * (double)(p->total - p->done) + 0.5), span);
        rf_buf_printf(line, "  ETA %s", span);
    }
    if (p->note)
        rf_buf_printf(line, "  %s", p->note);
}

static void progress_json(struct rf_cli *cli, const struct rf_progress *p)
{
    struct rf_out *out = &cli->out;

    rf_out_begin(out, "status");
    rf_out_real(out, "seconds", rf_seconds_since(cli->started_us));
    rf_out_text(out, "unit", p->noun);
    rf_out_int(out, "done", (int64_t)p->done);
    if (p->total)
        rf_out_int(out, "total", (int64_t)p->total);
    rf_out_int(out, "bytes", (int64_t)p->bytes);
    if (p->bytes_total)
        rf_out_int(out, "bytes_total", (int64_t)p->bytes_total);
    rf_out_int(out, "errors", (int64_t)p->errors);
    rf_out_end(out);
    fflush(out->file);
}

/* Microseconds between two lines, 0: none. REFUGE_PROGRESS_FPS asks for them off a terminal too. */
static int64_t progress_every(const struct rf_cli *cli)
{
    const char *fps = getenv("REFUGE_PROGRESS_FPS"), *term = getenv("TERM");

    if (cli->out.quiet)
        return 0;
    if (fps && fps[0]) {
        double rate = strtod(fps, NULL);

        return rate > 0 && rate <= 1000 ? (int64_t)(1e6 / rate) : 0;
    }
    if (cli->out.json)
        return PROGRESS_JSON_EVERY_US;
    if (!isatty(STDERR_FILENO) || (term && strcmp(term, "dumb") == 0))
        return 0;
    return PROGRESS_EVERY_US;
}

void rf_progress_show(struct rf_cli *cli, const struct rf_progress *progress)
{
    int64_t every = progress_every(cli), now = rf_clock_us();
    bool asked = rf_status_asked(), due = every && now - cli->shown_us >= every;
    bool live = isatty(STDERR_FILENO) && !asked;
    struct rf_buf line;

    if (!asked && !due)
        return;
    cli->shown_us = now;
    note_phase(cli, progress);
    if (cli->out.json && !asked) {
        progress_json(cli, progress);
        return;
    }
    rf_buf_init(&line, 4096);
    progress_line(cli, progress, &line);
    if (live) {
        size_t fit = rf_text_fit(rf_buf_bytes(&line), (size_t)rf_terminal_width(STDERR_FILENO) - 1);

        fprintf(stderr, "\r%.*s\x1b[K", (int)fit, (const char *)line.data);
        cli->progress_shown = true;
    } else {
        rf_progress_clear(cli);
        fprintf(stderr, "%.*s\n", (int)line.size, (const char *)line.data);
    }
    fflush(stderr);
    rf_buf_release(&line);
}

void rf_progress_clear(struct rf_cli *cli)
{
    if (!cli->progress_shown)
        return;
    fputs("\r\x1b[K", stderr);
    fflush(stderr);
    cli->progress_shown = false;
}
