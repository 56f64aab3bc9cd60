/*
 * error.h - what a function answers when it cannot do its work
 *
 * A status is a decision for the caller: wait and retry, set the item aside, or stop and tell. The
 * words for a person go into struct rf_error. The first cause is kept; a layer adds what it newly
 * knows in front of it.
 */
#ifndef RF_CORE_ERROR_H
#define RF_CORE_ERROR_H

#include <stdarg.h>
#include <stddef.h>

#define RF_MUST_USE __attribute__((warn_unused_result))
#define RF_PRINTF(words, first) __attribute__((format(printf, words, first)))

enum rf_status {
    RF_OK = 0,
    RF_END,         /* nothing more: a list is through, a feed reached its stop */
    RF_NOT_FOUND,   /* no such thing; for a blob: never there, or deleted */
    RF_EXISTS,      /* it is there already */
    RF_INVALID,     /* input that breaks a rule: set the item aside */
    RF_CORRUPT,     /* stored bytes that do not match their checksum: set aside, tell */
    RF_UNSOUND,     /* an index in which nothing can go on: only making it anew mends it */
    RF_LIMIT,       /* a stated maximum would be passed */
    RF_NOMEM,       /* no memory for a size that came from outside */
    RF_DENIED,      /* not allowed */
    RF_LOCKED,      /* another process owns it, or wrote it first */
    RF_IO,          /* the operating system refused: stop */
    RF_UNAVAILABLE, /* cannot be reached now: wait and retry */
    RF_TIMEOUT,     /* the time given is over */
    RF_CANCELLED,   /* the caller asked to stop */
    RF_UNSUPPORTED, /* this version or backend cannot do it */
    RF_CURSOR_GENERATION, /* a cursor of another generation of the store */
    RF_CURSOR_HISTORY,    /* a cursor whose chain is not in this log: the store was rolled back */
    RF_CURSOR_FUTURE,     /* a cursor past the newest change */
    RF_CURSOR_OLD,        /* a cursor older than the oldest change kept */
    RF_STATUS_COUNT
};

#define RF_ERROR_SIZE 1024

/* Owned by the caller; {0} is "no error". Every function accepts NULL in its place. */
struct rf_error {
    enum rf_status status;
    char message[RF_ERROR_SIZE]; /* one line, lower case, no full stop; control bytes escaped */
};

/* Set status and words unless err already holds a cause. Returns status, so that
 * `return rf_error_set(err, RF_IO, "cannot ...")` reads well. Bytes below 0x20 and 0x7f in the
 * result are written as \xNN. Any thread, own err. */
enum rf_status rf_error_set(struct rf_error *err, enum rf_status status, const char *format, ...)
    RF_PRINTF(3, 4);

/* The same, with ": <strerror(errnum)>" behind the words. */
enum rf_status rf_error_errno(struct rf_error *err, enum rf_status status, int errnum,
                              const char *format, ...) RF_PRINTF(4, 5);

/* They return the status they are given, which the static analyzer cannot see from here. */
#ifdef __clang_analyzer__
#define rf_error_set(err, status, ...) (rf_error_set(err, status, __VA_ARGS__), (status))
#define rf_error_errno(err, status, errnum, ...)                                                   \
    (rf_error_errno(err, status, errnum, __VA_ARGS__), (status))
#endif

/* What an errno of a file's open, write or rename means: RF_NOT_FOUND, RF_EXISTS, RF_DENIED (no
 * permission, or a file system that cannot be written), else RF_IO. */
enum rf_status rf_status_of_errno(int errnum);

/* Put words in front of the cause already held: "<words>: <cause>". Returns err's status. */
enum rf_status rf_error_context(struct rf_error *err, enum rf_status status, const char *format,
                                ...) RF_PRINTF(3, 4);

/* Forget the cause, so that err can be used again. */
void rf_error_clear(struct rf_error *err);

/* A short fixed name: "ok", "not_found", "cursor_future", ... Never NULL. */
const char *rf_status_name(enum rf_status status);

#endif
