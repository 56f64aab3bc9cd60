/*
 * es_http.c - see es_http.h
 *
 * One multi handle with a fixed number of easy handles; a single call uses the first. Connections
 * are kept by the multi handle and belong to one set of credentials, since there is one a struct.
 *
 * What is not known after an answer was lost is the caller's to find out: acts carry versions, so
 * sending them again changes nothing.
 */
#include "sinks/es_http.h"

#include "core/control.h"
#include "core/json_scan.h"
#include "core/load.h"
#include "core/utf8.h"

#include <assert.h>
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#define CONNECT_MS 10000L
#define ANSWER_MS 120000L   /* of one request */
#define PATIENCE_MS 60000   /* refusals for want of room within one bulk */
#define CALL_PATIENCE_MS 15000 /* and of one other request */
#define PAUSE_FIRST_MS 50
#define PAUSE_MAX_MS 8000
#define POLL_MS 100
#define SECRET_MAX 4096
#define FIRST_SIZE ((size_t)1 << 20)
#define LEAST_SIZE ((size_t)64 << 10)
#define BULK_PATH \
    "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"

/* ---- libraries, loaded at the first use (core/load.h) ---- */

#define CURL_FUNCTIONS(X)                                                                       \
    X(curl_easy_cleanup) X(curl_easy_getinfo) X(curl_easy_init) X(curl_easy_reset)              \
    X(curl_easy_setopt) X(curl_easy_strerror) X(curl_global_init) X(curl_multi_add_handle)      \
    X(curl_multi_cleanup) X(curl_multi_info_read) X(curl_multi_init) X(curl_multi_perform)      \
    X(curl_multi_poll) X(curl_multi_remove_handle) X(curl_multi_setopt) X(curl_slist_append)    \
    X(curl_slist_free_all)
#define ZLIB_FUNCTIONS(X) X(deflate) X(deflateBound) X(deflateEnd) X(deflateInit2_)
#define MEMBER(name) __typeof__(&(name))(name);
#define CURL_SYMBOL(name) {#name, &c.name},
#define ZLIB_SYMBOL(name) {#name, &z.name},

static struct {
    CURL_FUNCTIONS(MEMBER)
} c;
static struct {
    ZLIB_FUNCTIONS(MEMBER)
} z;
static pthread_once_t curl_once = PTHREAD_ONCE_INIT, zlib_once = PTHREAD_ONCE_INIT;
static struct rf_error curl_error, zlib_error;

static void load_curl(void)
{
    static const struct rf_symbol symbols[] = {CURL_FUNCTIONS(CURL_SYMBOL)};

    if (rf_load("libcurl.so.4", "libcurl4", symbols, sizeof symbols / sizeof *symbols,
                &curl_error) == RF_OK &&
        c.curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK)
        rf_error_set(&curl_error, RF_UNSUPPORTED, "libcurl cannot be used");
}

static void load_zlib(void)
{
    static const struct rf_symbol symbols[] = {ZLIB_FUNCTIONS(ZLIB_SYMBOL)};

    (void)!rf_load("libz.so.1", "zlib1g", symbols, sizeof symbols / sizeof *symbols, &zlib_error);
}

/* ---- what is kept ---- */

struct act {
    uint64_t tag;
    size_t end; /* of its lines within the body */
};

struct body { /* acts on their way */
    struct body *next;
    struct rf_buf text, packed;
    struct act *acts;
    size_t count, room;
};

struct transfer {
    CURL *easy;
    struct rf_buf answer;
    char why[CURL_ERROR_SIZE];
    bool busy;
    struct body *body; /* of a bulk */
};

struct bulk {
    bool open;
    rf_es_failed failed;
    void *user;
    struct body *filling;
    struct body *waiting; /* to be sent */
    struct body *again;   /* acts that the server had no room for */
    struct body *spare[RF_ES_FLIGHT_MAX + 2];
    size_t spare_count;
    int64_t refused_since; /* ms; 0: not */
    int pause_ms;
};

struct rf_es {
    char *base, *name, *user, *cafile, *proxy;
    char prefix[RF_ES_PREFIX_MAX + 1];
    char secret[SECRET_MAX]; /* "user:password" or an API key */
    bool key;                /* it is an API key */
    bool packs;              /* bodies are compressed: the server is elsewhere */
    unsigned replicas;
    const volatile int *interrupted;
    CURLM *multi;
    struct curl_slist *json_headers, *bulk_headers, *packed_headers;
    struct transfer transfers[RF_ES_FLIGHT_MAX];
    struct rf_arena arena; /* of the reply at hand */
    struct bulk bulk;
    size_t request_size;   /* adaptive */
    unsigned flight;
};

const char *rf_es_name(const struct rf_es *es)
{
    return es->name;
}

const char *rf_es_prefix(const struct rf_es *es)
{
    return es->prefix;
}

unsigned rf_es_replicas(const struct rf_es *es)
{
    return es->replicas;
}

void rf_es_interruptible(struct rf_es *es, const volatile int *interrupted)
{
    es->interrupted = interrupted;
}

static int64_t clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- the URL ---- */

static enum rf_status bad_url(const char *rest, struct rf_error *err, const char *why)
{
    return rf_error_set(err, RF_INVALID, "cannot use sink '%.*s': %s", (int)strcspn(rest, "?"),
                        rest, why);
}

static char *copy_range(const char *text, size_t size)
{
    char *copy = strndup(text, size);

    if (!copy)
        abort();
    return copy;
}

/* The first line of a file that only its owner can read. */
static enum rf_status read_secret(const char *path, char out[SECRET_MAX], struct rf_error *err)
{
    struct stat st;
    ssize_t got;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return rf_error_errno(err, rf_status_of_errno(errno), errno, "cannot read the secret in "
                                                                     "'%s'", path);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_mode & (S_IRWXG | S_IRWXO)) {
        close(fd);
        return rf_error_set(err, RF_DENIED,
                            "the secret in '%s' is not only yours to read: 'chmod 600' that file",
                            path);
    }
    got = read(fd, out, SECRET_MAX - 1);
    close(fd);
    out[got > 0 ? got : 0] = '\0';
    out[strcspn(out, "\r\n")] = '\0';
    if (!out[0])
        return rf_error_set(err, RF_INVALID, "there is no secret in '%s'", path);
    return RF_OK;
}

static enum rf_status take_passfile(struct rf_es *es, const char *path, struct rf_error *err)
{
    char secret[SECRET_MAX];
    enum rf_status status = read_secret(path, secret, err);

    if (status)
        return status;
    if (strchr(secret, ':') && !es->user) {
        snprintf(es->secret, sizeof es->secret, "%s", secret);
    } else if (es->user) {
        size_t user = strlen(es->user);
        const char *password = secret;
        if (strncmp(secret, es->user, user) == 0 && secret[user] == ':')
            password += user + 1;
        if (snprintf(es->secret, sizeof es->secret, "%s:%s", es->user, password) >=
            (int)sizeof es->secret)
            status = rf_error_set(err, RF_LIMIT, "the secret in '%s' is too long", path);
    } else {
        status = rf_error_set(err, RF_INVALID,
                              "the password in '%s' is whose? write USER:PASSWORD there, or USER@ "
                              "in the URL",
                              path);
    }
    explicit_bzero(secret, sizeof secret);
    return status;
}

static enum rf_status take_parameter(struct rf_es *es, const char *rest, const char *name,
                                     const char *value, struct rf_error *err)
{
    char *end;
    long number;

    if (strlen(name) > 4 && strcmp(name + strlen(name) - 4, "file") == 0 && value[0] != '/')
        return bad_url(rest, err, "name a file by its whole path, beginning with '/'");
    if (strcmp(name, "passfile") == 0)
        return take_passfile(es, value, err);
    if (strcmp(name, "apikeyfile") == 0) {
        es->key = true;
        return read_secret(value, es->secret, err);
    }
    if (strcmp(name, "cafile") == 0) {
        free(es->cafile);
        es->cafile = copy_range(value, strlen(value));
        return RF_OK;
    }
    if (strcmp(name, "proxy") == 0) {
        free(es->proxy);
        es->proxy = copy_range(value, strlen(value));
        return RF_OK;
    }
    if (strcmp(name, "replicas") == 0) {
        number = strtol(value, &end, 10);
        if (*end || end == value || number < 0 || number > 10)
            return bad_url(rest, err, "replicas is a number from 0 to 10");
        es->replicas = (unsigned)number;
        return RF_OK;
    }
    if (strcmp(name, "password") == 0 || strcmp(name, "apikey") == 0)
        return rf_error_set(err, RF_INVALID,
                            "cannot use a URL with a password in it: put it into a file that only "
                            "you can read and name it by '?passfile=PATH' or '?apikeyfile=PATH'");
    return rf_error_set(err, RF_INVALID,
                        "cannot use sink '%.*s': no parameter '%.40s'; there are passfile, "
                        "apikeyfile, cafile, replicas and proxy",
                        (int)strcspn(rest, "?"), rest, name);
}

static enum rf_status take_parameters(struct rf_es *es, const char *rest, const char *query,
                                      size_t size, struct rf_error *err)
{
    char *copy = copy_range(query, size), *save = NULL;
    enum rf_status status = RF_OK;

    for (char *word = strtok_r(copy, "&", &save); word && !status;
         word = strtok_r(NULL, "&", &save)) {
        char *value = strchr(word, '=');
        if (!value) {
            status = bad_url(rest, err, "a parameter is NAME=VALUE");
            break;
        }
        *value++ = '\0';
        status = take_parameter(es, rest, word, value, err);
    }
    free(copy);
    return status;
}

static enum rf_status take_prefix(struct rf_es *es, const char *rest, const char *prefix,
                                  struct rf_error *err)
{
    size_t size = strspn(prefix, "abcdefghijklmnopqrstuvwxyz0123456789_-");
    char shown[RF_SHORT_SIZE];

    if (size == 0 || size > RF_ES_PREFIX_MAX || prefix[size] || prefix[0] == '_' ||
        prefix[0] == '-')
        return rf_error_set(err, RF_INVALID,
                            "cannot use sink '%.*s': '%s' cannot begin the names of indexes: a "
                            "letter or digit, then letters, digits, '_' or '-', all lower case, at "
                            "most %d",
                            (int)strcspn(rest, "?#"), rest, rf_utf8_short(shown, prefix),
                            RF_ES_PREFIX_MAX);
    memcpy(es->prefix, prefix, size + 1);
    return RF_OK;
}

static bool is_loopback(const char *host, size_t size)
{
    return (size == 9 && strncmp(host, "localhost", 9) == 0) ||
           (size > 4 && strncmp(host, "127.", 4) == 0) ||
           (size == 5 && strncmp(host, "[::1]", 5) == 0);
}

static enum rf_status take_url(struct rf_es *es, const char *rest, struct rf_error *err)
{
    const char *hash = strchr(rest, '#'), *host = strstr(rest, "://"), *at, *query, *end;
    size_t authority;
    enum rf_status status = RF_OK;

    if (hash && strchr(hash + 1, '#')) /* the words do not hold the URL: it may be of a password */
        return rf_error_set(err, RF_INVALID,
                            "cannot use a sink's URL with more than one '#': one stands before "
                            "what its indexes begin with, any other is written %%23");
    if (!host || (strncmp(rest, "http://", 7) != 0 && strncmp(rest, "https://", 8) != 0))
        return bad_url(rest, err, "write elasticsearch+http://HOST:PORT#PREFIX or "
                                  "elasticsearch+https://...");
    host += 3;
    if (!hash || !hash[1])
        return bad_url(rest, err, "name what its indexes begin with: "
                                  "elasticsearch+http://HOST:PORT#PREFIX");
    authority = strcspn(host, "/?#");
    at = memchr(host, '@', authority);
    if (at && memchr(host, ':', (size_t)(at - host)))
        return rf_error_set(err, RF_INVALID,
                            "cannot use a URL with a password in it: put it into a file that only "
                            "you can read and name it by '?passfile=PATH'");
    if (at) {
        es->user = copy_range(host, (size_t)(at - host));
        authority -= (size_t)(at + 1 - host);
        host = at + 1;
    }
    if (authority == 0)
        return bad_url(rest, err, "it names no host");
    query = memchr(rest, '?', (size_t)(hash - rest));
    end = query ? query : hash;
    while (end > host + authority && end[-1] == '/')
        end--;
    if (asprintf(&es->base, "%.*s%.*s", (int)(strstr(rest, "://") + 3 - rest), rest,
                 (int)(end - host), host) < 0 ||
        asprintf(&es->name, "%s#%s", es->base, hash + 1) < 0)
        abort();
    es->packs = !is_loopback(host, authority - (memchr(host, ':', authority) && host[0] != '['
                                                    ? authority - strcspn(host, ":")
                                                    : 0));
    status = take_prefix(es, rest, hash + 1, err);
    if (!status && query)
        status = take_parameters(es, rest, query + 1, (size_t)(hash - query - 1), err);
    return status;
}

/* ---- opening ---- */

static struct curl_slist *headers(const struct rf_es *es, const char *type, bool packed)
{
    struct curl_slist *list = c.curl_slist_append(NULL, type);
    char line[SECRET_MAX + 32];

    list = list ? c.curl_slist_append(list, "Expect:") : NULL;
    list = list && packed ? c.curl_slist_append(list, "Content-Encoding: gzip") : list;
    if (list && es->key) {
        snprintf(line, sizeof line, "Authorization: ApiKey %s", es->secret);
        list = c.curl_slist_append(list, line);
        explicit_bzero(line, sizeof line);
    }
    if (!list)
        abort();
    return list;
}

enum rf_status rf_es_open(struct rf_es **out, const char *rest, struct rf_error *err)
{
    struct rf_es *es;
    enum rf_status status;

    pthread_once(&curl_once, load_curl);
    if (curl_error.status)
        return rf_error_set(err, curl_error.status, "%s", curl_error.message);
    es = calloc(1, sizeof *es);
    if (!es)
        abort();
    rf_arena_init(&es->arena, 4 * RF_ES_ANSWER_MAX);
    es->request_size = FIRST_SIZE;
    es->flight = 2;
    for (size_t i = 0; i < RF_ES_FLIGHT_MAX; i++)
        rf_buf_init(&es->transfers[i].answer, RF_ES_ANSWER_MAX);
    status = take_url(es, rest, err);
    if (!status && es->packs) {
        pthread_once(&zlib_once, load_zlib);
        es->packs = zlib_error.status == RF_OK;
    }
    if (!status) {
        es->json_headers = headers(es, "Content-Type: application/json", false);
        es->bulk_headers = headers(es, "Content-Type: application/x-ndjson", false);
        es->packed_headers = headers(es, "Content-Type: application/x-ndjson", true);
        es->multi = c.curl_multi_init();
        if (!es->multi)
            status = rf_error_set(err, RF_NOMEM, "no memory for a connection to '%s'", es->name);
    }
    if (status) {
        rf_es_close(es);
        return status;
    }
    *out = es;
    return RF_OK;
}

static void free_body(struct body *body)
{
    if (!body)
        return;
    rf_buf_release(&body->text);
    rf_buf_release(&body->packed);
    free(body->acts);
    free(body);
}

void rf_es_close(struct rf_es *es)
{
    if (!es)
        return;
    rf_es_bulk_abort(es);
    for (size_t i = 0; i < es->bulk.spare_count; i++)
        free_body(es->bulk.spare[i]);
    for (size_t i = 0; i < RF_ES_FLIGHT_MAX; i++) {
        if (es->transfers[i].easy)
            c.curl_easy_cleanup(es->transfers[i].easy);
        rf_buf_release(&es->transfers[i].answer);
    }
    if (es->multi)
        c.curl_multi_cleanup(es->multi);
    c.curl_slist_free_all(es->json_headers);
    c.curl_slist_free_all(es->bulk_headers);
    c.curl_slist_free_all(es->packed_headers);
    rf_arena_release(&es->arena);
    explicit_bzero(es->secret, sizeof es->secret);
    free(es->base);
    free(es->name);
    free(es->user);
    free(es->cafile);
    free(es->proxy);
    free(es);
}

/* ---- one transfer ---- */

static size_t take_bytes(char *data, size_t size, size_t count, void *user)
{
    struct rf_buf *answer = user;

    rf_buf_put(answer, data, size * count);
    return answer->failed ? 0 : size * count;
}

static enum rf_status start(struct rf_es *es, struct transfer *t, const char *method,
                            const char *path, struct rf_bytes body, struct curl_slist *list,
                            struct rf_error *err)
{
    char *url = NULL;

    if (!t->easy)
        t->easy = c.curl_easy_init();
    if (!t->easy)
        return rf_error_set(err, RF_NOMEM, "no memory for a request to '%s'", es->name);
    if (asprintf(&url, "%s%s", es->base, path) < 0)
        abort();
    c.curl_easy_reset(t->easy);
    rf_buf_clear(&t->answer);
    t->why[0] = '\0';
    c.curl_easy_setopt(t->easy, CURLOPT_URL, url);
    free(url);
    c.curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    c.curl_easy_setopt(t->easy, CURLOPT_FOLLOWLOCATION, 0L);
    c.curl_easy_setopt(t->easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    c.curl_easy_setopt(t->easy, CURLOPT_PROXY, es->proxy ? es->proxy : "");
    c.curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
    c.curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    c.curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, ANSWER_MS);
    c.curl_easy_setopt(t->easy, CURLOPT_TCP_KEEPALIVE, 1L);
    c.curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->why);
    c.curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    c.curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, take_bytes);
    c.curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, &t->answer);
    c.curl_easy_setopt(t->easy, CURLOPT_ACCEPT_ENCODING, es->packs ? "gzip" : NULL);
    c.curl_easy_setopt(t->easy, CURLOPT_USERAGENT, "refuge/" REFUGE_VERSION);
    c.curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, list);
    if (es->cafile)
        c.curl_easy_setopt(t->easy, CURLOPT_CAINFO, es->cafile);
    if (es->secret[0] && !es->key) {
        c.curl_easy_setopt(t->easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        c.curl_easy_setopt(t->easy, CURLOPT_USERPWD, es->secret);
    }
    c.curl_easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, method);
    if (body.data) {
        c.curl_easy_setopt(t->easy, CURLOPT_POST, 1L);
        c.curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, body.data);
        c.curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.size);
    }
    if (c.curl_multi_add_handle(es->multi, t->easy) != CURLM_OK)
        return rf_error_set(err, RF_IO, "cannot send a request to '%s'", es->name);
    t->busy = true;
    return RF_OK;
}

static void stop(struct rf_es *es, struct transfer *t)
{
    if (t->busy)
        c.curl_multi_remove_handle(es->multi, t->easy);
    t->busy = false;
}

/* Until one transfer is done; *result is curl's. */
static enum rf_status await(struct rf_es *es, struct transfer **out, CURLcode *result,
                            struct rf_error *err)
{
    for (;;) {
        int running = 0, left = 0;
        CURLMsg *message;

        if (c.curl_multi_perform(es->multi, &running) != CURLM_OK)
            return rf_error_set(err, RF_IO, "cannot talk to '%s'", es->name);
        while ((message = c.curl_multi_info_read(es->multi, &left))) {
            char *user = NULL;
            if (message->msg != CURLMSG_DONE)
                continue;
            *result = message->data.result;
            c.curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &user);
            *out = (struct transfer *)(void *)user;
            stop(es, *out);
            return RF_OK;
        }
        if (es->interrupted && *es->interrupted)
            return rf_error_set(err, RF_CANCELLED, "stopped");
        if (c.curl_multi_poll(es->multi, NULL, 0, POLL_MS, NULL) != CURLM_OK)
            return rf_error_set(err, RF_IO, "cannot talk to '%s'", es->name);
    }
}

/* ---- what an answer means ---- */

static enum rf_status not_reached(const struct rf_es *es, const struct transfer *t,
                                  CURLcode result, struct rf_error *err)
{
    const char *words = t->why[0] ? t->why : c.curl_easy_strerror(result);

    switch (result) {
    case CURLE_WRITE_ERROR:
        return rf_error_set(err, RF_LIMIT, "an answer of '%s' has more than %zu MiB", es->name,
                            RF_ES_ANSWER_MAX >> 20);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
        return rf_error_set(err, RF_DENIED,
                            "cannot trust '%s': %s; name the certificate that signed the server's "
                            "by '?cafile=PATH'",
                            es->name, words);
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        return rf_error_set(err, RF_INVALID, "cannot use sink '%s': %s", es->name, words);
    default:
        return rf_error_set(err, RF_UNAVAILABLE, "cannot reach '%s': %s", es->name, words);
    }
}

static const char *text_of(const struct rf_json *object, const char *key)
{
    const char *text = rf_json_string(rf_json_find(object, key));

    return text ? text : "";
}

static void take_reason(struct rf_es_reply *reply)
{
    const struct rf_json *error = rf_json_find(reply->json, "error"), *cause;

    reply->error = reply->reason = "";
    if (!error)
        return;
    if (error->type == RF_JSON_STRING) {
        reply->reason = rf_json_string(error);
        return;
    }
    reply->error = text_of(error, "type");
    reply->reason = text_of(error, "reason");
    cause = rf_json_find(error, "root_cause");
    if (!reply->reason[0] && cause && cause->type == RF_JSON_ARRAY && cause->count)
        reply->reason = text_of(&cause->items[0], "reason");
}

static enum rf_status read_reply(struct rf_es *es, struct transfer *t, struct rf_es_reply *out,
                                 struct rf_error *err)
{
    struct rf_error why = {0};
    enum rf_status status = RF_OK;

    *out = (struct rf_es_reply){.error = "", .reason = ""};
    c.curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &out->status);
    rf_arena_clear(&es->arena);
    if (t->answer.size)
        status = rf_json_parse(&out->json, &es->arena, rf_buf_bytes(&t->answer), &why);
    if (!status)
        take_reason(out);
    switch (out->status) {
    case 429:
    case 502:
    case 503:
    case 504:
        return rf_error_set(err, RF_UNAVAILABLE, "'%s' has no room for a request now: %ld %s",
                            es->name, out->status, out->reason);
    case 401:
    case 403:
        return rf_error_set(err, RF_DENIED,
                            "'%s' does not let us in: %ld %.300s; look at the user in the URL, at "
                            "passfile or apikeyfile, and at what they may do",
                            es->name, out->status, out->reason);
    default:
        break;
    }
    if (status)
        return rf_error_set(err, status == RF_INVALID ? RF_CORRUPT : status,
                            "'%s' is no Elasticsearch: %ld and an answer that is no JSON (%s)",
                            es->name, out->status, why.message);
    return RF_OK;
}

enum rf_status rf_es_unexpected(const struct rf_es *es, const struct rf_es_reply *reply,
                                const char *what, struct rf_error *err)
{
    return rf_error_set(err, reply->status >= 500 ? RF_UNAVAILABLE : RF_IO,
                        "cannot %s at '%s': %ld %s %.400s", what, es->name, reply->status,
                        reply->error, reply->reason);
}

static enum rf_status call_once(struct rf_es *es, struct rf_es_reply *out, const char *method,
                                const char *path, struct rf_bytes body, struct rf_error *err)
{
    struct transfer *t = &es->transfers[0], *done = NULL;
    CURLcode result = CURLE_OK;
    enum rf_status status = start(es, t, method, path, body, es->json_headers, err);

    *out = (struct rf_es_reply){.error = "", .reason = ""};
    if (!status)
        status = await(es, &done, &result, err);
    if (status) {
        stop(es, t);
        return status;
    }
    return result ? not_reached(es, t, result, err) : read_reply(es, t, out, err);
}

/* About so long, so that several who were refused do not come back together. */
static enum rf_status pause_for(struct rf_es *es, int ms, struct rf_error *err)
{
    uint32_t jitter = 0;
    int64_t until;

    if (getrandom(&jitter, sizeof jitter, GRND_NONBLOCK) != sizeof jitter)
        jitter = 0;
    until = clock_ms() + ms / 2 + (int64_t)(jitter % (uint32_t)ms);
    while (clock_ms() < until) {
        struct timespec little = {.tv_nsec = 10 * 1000000};
        if (es->interrupted && *es->interrupted)
            return rf_error_set(err, RF_CANCELLED, "stopped");
        nanosleep(&little, NULL);
    }
    return RF_OK;
}

/* 429: the server did nothing, since it had no room at that moment. */
static bool is_worth_another(const struct rf_es_reply *reply)
{
    const char *how = text_of(rf_json_find(reply->json, "error"), "durability");

    return reply->status == 429 && strcmp(how, "PERMANENT") != 0 && RF_SAFEGUARD("sink-patience");
}

enum rf_status rf_es_call(struct rf_es *es, struct rf_es_reply *out, const char *method,
                          struct rf_bytes body, struct rf_error *err, const char *path, ...)
{
    int64_t until = clock_ms() + CALL_PATIENCE_MS;
    int pause_ms = PAUSE_FIRST_MS;
    char *text = NULL;
    va_list args;
    enum rf_status status;

    assert(!es->bulk.open);
    va_start(args, path);
    if (vasprintf(&text, path, args) < 0)
        abort();
    va_end(args);
    while ((status = call_once(es, out, method, text, body, err)) == RF_UNAVAILABLE &&
           is_worth_another(out) && clock_ms() + pause_ms < until) {
        rf_error_clear(err);
        status = pause_for(es, pause_ms, err);
        if (status)
            break;
        pause_ms *= 2;
    }
    free(text);
    return status;
}

/* ---- bulk ---- */

static struct body *take_body(struct bulk *bulk)
{
    struct body *body;

    if (bulk->spare_count)
        return bulk->spare[--bulk->spare_count];
    body = calloc(1, sizeof *body);
    if (!body)
        abort();
    rf_buf_init(&body->text, 2 * RF_ES_DOCUMENT_MAX);
    rf_buf_init(&body->packed, 2 * RF_ES_DOCUMENT_MAX);
    return body;
}

/* What one large document needed is not kept. */
static void return_body(struct bulk *bulk, struct body *body)
{
    if (!body)
        return;
    if (body->text.capacity > 2 * RF_ES_REQUEST_MAX ||
        bulk->spare_count == sizeof bulk->spare / sizeof *bulk->spare) {
        free_body(body);
        return;
    }
    rf_buf_clear(&body->text);
    rf_buf_clear(&body->packed);
    body->count = 0;
    bulk->spare[bulk->spare_count++] = body;
}

static void add_act(struct body *body, uint64_t tag)
{
    if (body->count == body->room) {
        body->room = body->room ? 2 * body->room : 256;
        body->acts = realloc(body->acts, body->room * sizeof *body->acts);
        if (!body->acts)
            abort();
    }
    body->acts[body->count++] = (struct act){.tag = tag, .end = body->text.size};
}

static size_t act_begin(const struct body *body, size_t i)
{
    return i ? body->acts[i - 1].end : 0;
}

static void copy_act(struct body *to, const struct body *from, size_t i)
{
    size_t begin = act_begin(from, i);

    rf_buf_put(&to->text, from->text.data + begin, from->acts[i].end - begin);
    add_act(to, from->acts[i].tag);
}

static enum rf_status pack(struct body *body, struct rf_error *err)
{
    z_stream stream = {0};
    size_t bound;
    uint8_t *room;

    if (z.deflateInit2_(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
                        (int)sizeof stream) != Z_OK)
        return rf_error_set(err, RF_NOMEM, "no memory to compress a request");
    bound = z.deflateBound(&stream, body->text.size);
    rf_buf_clear(&body->packed);
    room = rf_buf_reserve(&body->packed, bound);
    if (room) {
        stream.next_in = body->text.data;
        stream.avail_in = (unsigned)body->text.size;
        stream.next_out = room;
        stream.avail_out = (unsigned)bound;
        z.deflate(&stream, Z_FINISH);
        body->packed.size = stream.total_out;
    }
    z.deflateEnd(&stream);
    return room ? RF_OK : rf_error_set(err, body->packed.failed, "no memory to compress a request");
}

static unsigned in_flight(const struct rf_es *es)
{
    unsigned count = 0;

    for (size_t i = 0; i < RF_ES_FLIGHT_MAX; i++)
        count += es->transfers[i].busy;
    return count;
}

static void slow_down(struct rf_es *es)
{
    es->request_size = es->request_size / 2 > LEAST_SIZE ? es->request_size / 2 : LEAST_SIZE;
    es->flight = es->flight > 1 ? es->flight / 2 : 1;
}

static void speed_up(struct rf_es *es)
{
    es->request_size += es->request_size / 4;
    if (es->request_size > RF_ES_REQUEST_MAX)
        es->request_size = RF_ES_REQUEST_MAX;
    if (es->flight < RF_ES_FLIGHT_MAX)
        es->flight++;
}

static enum rf_status send_body(struct rf_es *es, struct body *body, struct rf_error *err)
{
    struct transfer *t = es->transfers;
    struct rf_bytes bytes = rf_buf_bytes(&body->text);
    enum rf_status status = RF_OK;

    while (t->busy)
        t++;
    assert(t < es->transfers + RF_ES_FLIGHT_MAX);
    if (es->packs) {
        status = pack(body, err);
        bytes = rf_buf_bytes(&body->packed);
    }
    if (!status)
        status = start(es, t, "POST", BULK_PATH, bytes,
                       es->packs ? es->packed_headers : es->bulk_headers, err);
    t->body = status ? NULL : body;
    if (status)
        return_body(&es->bulk, body);
    return status;
}

/* Acts that the server had no room for go again, later. */
static void send_again(struct bulk *bulk, const struct body *from, size_t i)
{
    if (!bulk->again)
        bulk->again = take_body(bulk);
    copy_act(bulk->again, from, i);
}

static enum rf_status tell(struct bulk *bulk, const struct rf_es_failure *failure,
                           struct rf_error *err)
{
    return bulk->failed(bulk->user, failure, err);
}

static enum rf_status read_item(struct bulk *bulk, const struct body *body, size_t i,
                                const struct rf_json *item, struct rf_error *err)
{
    const struct rf_json *result = item->type == RF_JSON_OBJECT && item->count ? &item->items[0]
                                                                               : NULL;
    const struct rf_json *error = rf_json_find(result, "error");
    int64_t code = 0;
    struct rf_es_failure failure = {.tag = body->acts[i].tag};

    if (!rf_json_int(rf_json_find(result, "status"), &code))
        return rf_error_set(err, RF_CORRUPT, "an answer to '_bulk' lacks a status");
    if (code < 300 || (code == 404 && !error)) /* a delete of what is not there */
        return RF_OK;
    if (code == 429 || code == 503) {
        send_again(bulk, body, i);
        return RF_OK;
    }
    failure.status = (long)code;
    failure.error = text_of(error, "type");
    failure.reason = text_of(error, "reason");
    return tell(bulk, &failure, err);
}

static enum rf_status read_items(struct rf_es *es, struct body *body,
                                 const struct rf_es_reply *reply, struct rf_error *err)
{
    const struct rf_json *errors = rf_json_find(reply->json, "errors");
    const struct rf_json *items = rf_json_find(reply->json, "items");
    enum rf_status status = RF_OK;

    if (!errors || !items || items->type != RF_JSON_ARRAY || items->count != body->count)
        return rf_error_set(err, RF_CORRUPT, "'%s' answers '_bulk' with something else", es->name);
    if (errors->type == RF_JSON_FALSE)
        return RF_OK;
    for (size_t i = 0; !status && i < body->count; i++)
        status = read_item(&es->bulk, body, i, &items->items[i], err);
    return status;
}

/* Too large for the server: in two halves; one act alone is refused. */
static enum rf_status split(struct rf_es *es, const struct body *body, struct rf_error *err)
{
    struct rf_es_failure failure = {.status = 413, .error = "too_large",
                                    .reason = "the document is larger than the server takes"};
    enum rf_status status = RF_OK;

    if (body->count == 1) {
        failure.tag = body->acts[0].tag;
        return tell(&es->bulk, &failure, err);
    }
    if (es->request_size > body->text.size / 2)
        es->request_size = body->text.size / 2 > LEAST_SIZE ? body->text.size / 2 : LEAST_SIZE;
    for (size_t half = 0; !status && half < 2; half++) {
        struct body *part = take_body(&es->bulk);
        size_t middle = body->count / 2;
        for (size_t i = half ? middle : 0; i < (half ? body->count : middle); i++)
            copy_act(part, body, i);
        part->next = es->bulk.waiting;
        es->bulk.waiting = part;
        status = part->text.failed;
    }
    return status ? rf_error_set(err, status, "no memory for a request") : RF_OK;
}

/* The whole request found no room, or never came: all its acts again. */
static void all_again(struct bulk *bulk, const struct body *body)
{
    for (size_t i = 0; i < body->count; i++)
        send_again(bulk, body, i);
}

static enum rf_status read_bulk(struct rf_es *es, struct transfer *t, CURLcode result,
                                struct rf_error *err)
{
    struct bulk *bulk = &es->bulk;
    struct body *body = t->body;
    struct rf_es_reply reply = {0};
    struct rf_error why = {0};
    enum rf_status status;

    t->body = NULL;
    if (result) {
        status = not_reached(es, t, result, err);
    } else {
        status = read_reply(es, t, &reply, &why);
        if (reply.status == 429 || reply.status == 503) {
            all_again(bulk, body);
            status = RF_OK;
        } else if (reply.status == 413) {
            status = split(es, body, err);
        } else if (status) {
            rf_error_set(err, status, "%s", why.message);
        } else if (reply.status >= 300) {
            status = rf_es_unexpected(es, &reply, "write", err);
        } else {
            size_t before = bulk->again ? bulk->again->count : 0;
            status = read_items(es, body, &reply, err);
            if (!status && (!bulk->again || bulk->again->count == before)) {
                speed_up(es);
                bulk->refused_since = 0;
                bulk->pause_ms = 0;
            }
        }
    }
    return_body(bulk, body);
    return status;
}

/* Wait for one answer. */
static enum rf_status pump(struct rf_es *es, struct rf_error *err)
{
    struct transfer *done = NULL;
    CURLcode result = CURLE_OK;
    enum rf_status status = await(es, &done, &result, err);

    return status ? status : read_bulk(es, done, result, err);
}

/* The server had no room: less of it, later, and not for ever. */
static enum rf_status pause_a_while(struct rf_es *es, struct rf_error *err)
{
    struct bulk *bulk = &es->bulk;

    slow_down(es);
    if (!bulk->refused_since)
        bulk->refused_since = clock_ms();
    if (clock_ms() - bulk->refused_since > PATIENCE_MS)
        return rf_error_set(err, RF_UNAVAILABLE,
                            "'%s' has had no room for documents for a minute (429 or 503)",
                            es->name);
    bulk->pause_ms = bulk->pause_ms ? 2 * bulk->pause_ms : PAUSE_FIRST_MS;
    if (bulk->pause_ms > PAUSE_MAX_MS)
        bulk->pause_ms = PAUSE_MAX_MS;
    return pause_for(es, bulk->pause_ms, err);
}

/* Send what waits; all: until nothing is under way. */
static enum rf_status send_waiting(struct rf_es *es, bool all, struct rf_error *err)
{
    struct bulk *bulk = &es->bulk;
    enum rf_status status = RF_OK;

    while (!status) {
        if (bulk->again) {
            while (!status && in_flight(es))
                status = pump(es, err);
            if (!status)
                status = pause_a_while(es, err);
            bulk->again->next = bulk->waiting;
            bulk->waiting = bulk->again;
            bulk->again = NULL;
        } else if (bulk->waiting && in_flight(es) < es->flight) {
            struct body *body = bulk->waiting;
            bulk->waiting = body->next;
            status = send_body(es, body, err);
        } else if (in_flight(es) && (all || bulk->waiting)) {
            status = pump(es, err);
        } else {
            break;
        }
    }
    return status;
}

enum rf_status rf_es_bulk_begin(struct rf_es *es, rf_es_failed failed, void *user,
                                struct rf_error *err)
{
    struct bulk *bulk = &es->bulk;

    (void)err;
    assert(!bulk->open && !bulk->filling && !bulk->waiting && !bulk->again);
    bulk->open = true;
    bulk->failed = failed;
    bulk->user = user;
    bulk->refused_since = 0;
    bulk->pause_ms = 0;
    return RF_OK;
}

static enum rf_status settle(struct rf_es *es, enum rf_status status)
{
    if (status)
        rf_es_bulk_abort(es);
    return status;
}

/* What is filled goes on its way. */
static enum rf_status close_filling(struct rf_es *es, struct rf_error *err)
{
    struct bulk *bulk = &es->bulk;
    struct body *body = bulk->filling;

    bulk->filling = NULL;
    if (!body)
        return RF_OK;
    if (body->text.failed) {
        enum rf_status status = body->text.failed;
        free_body(body);
        return rf_error_set(err, status, "no memory for documents");
    }
    body->next = bulk->waiting;
    bulk->waiting = body;
    return send_waiting(es, false, err);
}

enum rf_status rf_es_bulk_add(struct rf_es *es, uint64_t tag, struct rf_bytes act,
                              struct rf_bytes document, struct rf_error *err)
{
    struct rf_es_failure failure = {.tag = tag, .status = 413, .error = "too_large",
                                    .reason = "the document has more than 90 MiB"};
    struct bulk *bulk = &es->bulk;
    size_t size = act.size + document.size + 2;
    enum rf_status status = RF_OK;

    assert(bulk->open);
    if (size > RF_ES_DOCUMENT_MAX)
        return settle(es, tell(bulk, &failure, err));
    if (bulk->filling && bulk->filling->text.size + size > es->request_size)
        status = close_filling(es, err);
    if (status)
        return settle(es, status);
    if (!bulk->filling)
        bulk->filling = take_body(bulk);
    rf_buf_put(&bulk->filling->text, act.data, act.size);
    rf_buf_put_u8(&bulk->filling->text, '\n');
    if (document.data) {
        rf_buf_put(&bulk->filling->text, document.data, document.size);
        rf_buf_put_u8(&bulk->filling->text, '\n');
    }
    add_act(bulk->filling, tag);
    return RF_OK;
}

enum rf_status rf_es_bulk_end(struct rf_es *es, struct rf_error *err)
{
    enum rf_status status;

    assert(es->bulk.open);
    status = close_filling(es, err);
    if (!status)
        status = send_waiting(es, true, err);
    rf_es_bulk_abort(es);
    return status;
}

void rf_es_bulk_abort(struct rf_es *es)
{
    struct bulk *bulk = &es->bulk;

    for (size_t i = 0; i < RF_ES_FLIGHT_MAX; i++) {
        struct transfer *t = &es->transfers[i];
        stop(es, t);
        free_body(t->body);
        t->body = NULL;
    }
    free_body(bulk->filling);
    free_body(bulk->again);
    while (bulk->waiting) {
        struct body *body = bulk->waiting;
        bulk->waiting = body->next;
        free_body(body);
    }
    bulk->filling = bulk->again = NULL;
    bulk->open = false;
}
