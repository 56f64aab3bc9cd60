/* error.c - statuses and their words. Nothing here allocates, logs or fails. */
#include "core/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const status_names[RF_STATUS_COUNT] = {
    [RF_OK] = "ok",
    [RF_END] = "end",
    [RF_NOT_FOUND] = "not_found",
    [RF_EXISTS] = "exists",
    [RF_INVALID] = "invalid",
    [RF_CORRUPT] = "corrupt",
    [RF_UNSOUND] = "unsound",
    [RF_LIMIT] = "limit",
    [RF_NOMEM] = "no_memory",
    [RF_DENIED] = "denied",
    [RF_LOCKED] = "locked",
    [RF_IO] = "io",
    [RF_UNAVAILABLE] = "unavailable",
    [RF_TIMEOUT] = "timeout",
    [RF_CANCELLED] = "cancelled",
    [RF_UNSUPPORTED] = "unsupported",
    [RF_CURSOR_GENERATION] = "cursor_generation",
    [RF_CURSOR_HISTORY] = "cursor_history",
    [RF_CURSOR_FUTURE] = "cursor_future",
    [RF_CURSOR_OLD] = "cursor_old",
};

const char *rf_status_name(enum rf_status status)
{
    if ((unsigned)status >= RF_STATUS_COUNT || !status_names[status])
        return "unknown";
    return status_names[status];
}

enum rf_status rf_status_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ENOTDIR:
        return RF_NOT_FOUND;
    case EEXIST:
        return RF_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return RF_DENIED;
    default:
        return RF_IO;
    }
}

/* Copy words into out, control bytes as \xNN: a message may quote a file name or a blob. */
static void copy_escaped(char *out, size_t size, const char *words)
{
    size_t used = 0;

    for (; *words && used + 5 < size; words++) {
        unsigned char c = (unsigned char)*words;
        if (c < 0x20 || c == 0x7f)
            used += (size_t)snprintf(out + used, size - used, "\\x%02x", c);
        else
            out[used++] = (char)c;
    }
    out[used] = '\0';
}

RF_PRINTF(3, 0)
static void set_message(struct rf_error *err, enum rf_status status, const char *format,
                        va_list args)
{
    char words[RF_ERROR_SIZE];

    vsnprintf(words, sizeof words, format, args);
    copy_escaped(err->message, sizeof err->message, words);
    err->status = status;
}

enum rf_status (rf_error_set)(struct rf_error *err, enum rf_status status, const char *format, ...)
{
    va_list args;

    if (err && err->status == RF_OK) {
        va_start(args, format);
        set_message(err, status, format, args);
        va_end(args);
    }
    return status;
}

enum rf_status (rf_error_errno)(struct rf_error *err, enum rf_status status, int errnum,
                              const char *format, ...)
{
    va_list args;
    size_t used;

    if (err && err->status == RF_OK) {
        va_start(args, format);
        set_message(err, status, format, args);
        va_end(args);
        used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, ": %s", strerror(errnum));
    }
    return status;
}

enum rf_status rf_error_context(struct rf_error *err, enum rf_status status, const char *format,
                                ...)
{
    va_list args;
    char cause[RF_ERROR_SIZE];
    size_t used;

    if (!err)
        return status;
    memcpy(cause, err->message, sizeof cause);
    if (err->status != RF_OK)
        status = err->status;
    va_start(args, format);
    set_message(err, status, format, args);
    va_end(args);
    used = strlen(err->message);
    if (cause[0]) {
        size_t room = sizeof err->message - used, need = strlen(cause);
        if (room > 3) {
            memcpy(err->message + used, ": ", 2);
            if (need > room - 3)
                need = room - 3;
            memcpy(err->message + used + 2, cause, need);
            err->message[used + 2 + need] = '\0';
        }
    }
    return status;
}

void rf_error_clear(struct rf_error *err)
{
    if (err) {
        err->status = RF_OK;
        err->message[0] = '\0';
    }
}
