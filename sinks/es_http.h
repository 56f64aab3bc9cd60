/*
 * es_http.h - Elasticsearch and OpenSearch over HTTP by libcurl
 *
 * The one place that sees curl.h. libcurl is loaded at the first use. A URL, behind the word
 * "elasticsearch+" or "opensearch+":
 *
 *     http://[USER@]HOST[:PORT][/PATH][?PARAMETER=VALUE[&...]]#PREFIX
 *
 * https likewise. Every index of ours begins with PREFIX and '-'. Parameters:
 *
 *   passfile=FILE    its first line is the password of USER, or USER:PASSWORD
 *   apikeyfile=FILE  its first line is an API key, as the server encoded it
 *   cafile=FILE      certificates (PEM) that may sign the server's
 *   replicas=N       of each index: 0; at most 10
 *   proxy=URL        an HTTP proxy; the environment's are not used
 *
 * Files of secrets must be closed to group and others. Redirects are not followed, .netrc is not
 * read, an answer has at most RF_ES_ANSWER_MAX bytes.
 *
 * What a failure means:
 *   RF_UNAVAILABLE  no connection, no answer in time, or 429, 502, 503, 504: try again later
 *   RF_DENIED       401 or 403
 *   RF_CORRUPT      an answer that is no JSON
 * Any other answer is the caller's: its status stands in the reply.
 *
 * One thread per struct rf_es.
 */
#ifndef RF_SINKS_ES_HTTP_H
#define RF_SINKS_ES_HTTP_H

#include "core/arena.h"
#include "core/buf.h"
#include "core/json.h"

#define RF_ES_ANSWER_MAX ((size_t)64 << 20)
#define RF_ES_PREFIX_MAX 100   /* bytes of PREFIX */
#define RF_ES_FLIGHT_MAX 4     /* requests of a bulk under way */
#define RF_ES_REQUEST_MAX ((size_t)4 << 20)   /* bytes of one, unless one document is larger */
#define RF_ES_DOCUMENT_MAX ((size_t)90 << 20) /* http.max_content_length is 100 MB */

struct rf_es;

RF_MUST_USE enum rf_status rf_es_open(struct rf_es **out, const char *rest, struct rf_error *err);
void rf_es_close(struct rf_es *es);

const char *rf_es_name(const struct rf_es *es);   /* for messages: the URL without parameters */
const char *rf_es_prefix(const struct rf_es *es);
unsigned rf_es_replicas(const struct rf_es *es);

/* Polled while waiting for answers; when it turns nonzero a call ends with RF_CANCELLED. */
void rf_es_interruptible(struct rf_es *es, const volatile int *interrupted);

struct rf_es_reply {
    long status;                /* of HTTP */
    const struct rf_json *json; /* the body; NULL when it is empty. Lent until the next call */
    const char *error, *reason; /* type and reason of an error, or "" */
};

/* One request. path begins with '/' and is a format; body.data NULL: none. What is refused for want
 * of room (429) was not done, and is asked again for some 15 s. */
RF_MUST_USE enum rf_status rf_es_call(struct rf_es *es, struct rf_es_reply *out,
                                      const char *method, struct rf_bytes body,
                                      struct rf_error *err, const char *path, ...)
    RF_PRINTF(6, 7);

/* Words for an answer that nobody expected; its status as a decision. */
RF_MUST_USE enum rf_status rf_es_unexpected(const struct rf_es *es,
                                            const struct rf_es_reply *reply, const char *what,
                                            struct rf_error *err);

/* ---- many documents ---- */

/*
 * Acts are collected into requests of `_bulk`, several of them under way at once; their size and
 * number follow what the server takes (429 halves them). What it refuses for want of room is sent
 * again with growing pauses for at most a minute, then the whole bulk is RF_UNAVAILABLE. A request
 * that is too large for the server is split. The order of acts within a bulk is not kept: no
 * document may be in it twice.
 *
 * Memory: (RF_ES_FLIGHT_MAX + 1) * RF_ES_REQUEST_MAX, twice that when compressed, or one document.
 */
struct rf_es_failure {
    uint64_t tag;  /* as the act was added */
    long status;
    const char *error, *reason;
};

/* What it answers other than RF_OK ends the bulk with that status. */
typedef enum rf_status (*rf_es_failed)(void *user, const struct rf_es_failure *failure,
                                       struct rf_error *err);

RF_MUST_USE enum rf_status rf_es_bulk_begin(struct rf_es *es, rf_es_failed failed, void *user,
                                            struct rf_error *err);
/* One act: its line and, for an index act, its document; without their newlines. */
RF_MUST_USE enum rf_status rf_es_bulk_add(struct rf_es *es, uint64_t tag, struct rf_bytes act,
                                          struct rf_bytes document, struct rf_error *err);
/* All are done. Always ends the bulk. */
RF_MUST_USE enum rf_status rf_es_bulk_end(struct rf_es *es, struct rf_error *err);
void rf_es_bulk_abort(struct rf_es *es);

#endif
