/*
 * test_es_http.c - requests to a search engine, against a peer that answers as it is told
 *
 * The peer is a thread with a list of answers; for each request that comes it takes the next one,
 * and keeps what it was asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sinks/es_http.h"

#define ANSWERS_MAX 16

struct answer {
    int status;
    const char *body; /* NULL: close without an answer */
    const char *header; /* one more line, or NULL */
};

struct peer {
    int listener, port;
    pthread_t thread;
    struct answer answers[ANSWERS_MAX];
    size_t count, served;
    char *requests[ANSWERS_MAX]; /* head and body */
    char url[64];
};

/* A whole request, or NULL when the client went. */
static char *read_request(int fd)
{
    struct rf_buf buf;
    char *text = NULL;

    rf_buf_init(&buf, 64 << 20);
    for (;;) {
        uint8_t block[65536];
        ssize_t got = read(fd, block, sizeof block);
        const char *end, *length;
        if (got <= 0)
            break;
        rf_buf_put(&buf, block, (size_t)got);
        end = strstr(rf_buf_text(&buf), "\r\n\r\n");
        if (!end)
            continue;
        length = strcasestr((const char *)buf.data, "content-length: ");
        if (buf.size >= (size_t)(end + 4 - (const char *)buf.data) +
                            (length && length < end ? strtoul(length + 16, NULL, 10) : 0)) {
            text = strdup(rf_buf_text(&buf));
            break;
        }
    }
    rf_buf_release(&buf);
    return text;
}

static void send_answer(int fd, const struct answer *answer)
{
    char head[512];
    int size = snprintf(head, sizeof head,
                        "HTTP/1.1 %d x\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                        "Connection: close\r\n%s\r\n",
                        answer->status, strlen(answer->body),
                        answer->header ? answer->header : "");

    assert_true(write(fd, head, (size_t)size) == size);
    assert_true(write(fd, answer->body, strlen(answer->body)) == (ssize_t)strlen(answer->body));
}

static void *serve(void *user)
{
    struct peer *peer = user;

    while (peer->served < peer->count) {
        const struct answer *answer = &peer->answers[peer->served];
        int fd = accept(peer->listener, NULL, NULL);
        char *request = fd >= 0 ? read_request(fd) : NULL;
        if (request) {
            peer->requests[peer->served++] = request;
            if (answer->body)
                send_answer(fd, answer);
        }
        if (fd >= 0)
            close(fd);
    }
    return NULL;
}

static void peer_start(struct peer *peer, const struct answer *answers, size_t count)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;

    *peer = (struct peer){.count = count};
    assert_true(count <= ANSWERS_MAX);
    memcpy(peer->answers, answers, count * sizeof *answers);
    peer->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(peer->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(peer->listener, 16), 0);
    assert_int_equal(getsockname(peer->listener, (struct sockaddr *)&address, &size), 0);
    snprintf(peer->url, sizeof peer->url, "http://127.0.0.1:%d#t", ntohs(address.sin_port));
    assert_int_equal(pthread_create(&peer->thread, NULL, serve, peer), 0);
}

/* All answers were asked for. */
static void peer_end(struct peer *peer)
{
    pthread_join(peer->thread, NULL);
    close(peer->listener);
    for (size_t i = 0; i < peer->served; i++)
        free(peer->requests[i]);
}

static struct rf_es *open_url(const char *url)
{
    struct rf_error err = {0};
    struct rf_es *es = NULL;

    if (rf_es_open(&es, url, &err) != RF_OK)
        fail_msg("%s", err.message);
    return es;
}

/* ---- the URL ---- */

static void bad_urls_are_refused(void **state)
{
    static const char *const urls[] = {
        "http://h:1",           "http://h:1#",           "ftp://h:1#a",
        "http://u:p@h:1#a",     "http://h:1#_all",       "http://h:1#*",
        "http://h:1#a,b",       "http://h:1#-x",         "http://h:1#A",
        "http://h:1#a/b",       "http://h:1#a%2fb",      "http://h:1#<x-{now}>",
        "http://h:1?password=x#a", "http://h:1?apikey=x#a", "http://h:1?what=x#a",
        "http://h:1?cafile=rel#a", "http://h:1?replicas=99#a", "http:///#a", "//h#a",
        "http://h:1#a#b",       "http://u:p#w@h:1#a",
    };
    struct rf_es *es = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        struct rf_error err = {0};
        if (rf_es_open(&es, urls[i], &err) != RF_INVALID)
            fail_msg("'%s' is taken", urls[i]);
        assert_string_not_equal(err.message, "");
        assert_null(strstr(err.message, "u:p"));
    }
}

static char *secret_file(const char *text, mode_t mode)
{
    char *path = strdup("/tmp/rf-secret-XXXXXX");
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_true(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
    return path;
}

static void secrets_come_from_files_and_stay_out_of_words(void **state)
{
    const struct answer answers[] = {{401, "{\"error\":\"no\"}", NULL}, {200, "{}", NULL}};
    char url[200], *closed = secret_file("ada:sesame\n", 0600),
                   *open = secret_file("ada:sesame\n", 0644);
    struct rf_error err = {0};
    struct rf_es_reply reply;
    struct rf_es *es = NULL;
    struct peer peer;

    (void)state;
    snprintf(url, sizeof url, "http://127.0.0.1:1?passfile=%s#a", open);
    assert_int_equal(rf_es_open(&es, url, &err), RF_DENIED);
    assert_non_null(strstr(err.message, "chmod 600"));
    rf_error_clear(&err);
    peer_start(&peer, answers, 2);
    snprintf(url, sizeof url, "%.*s?passfile=%s#a", (int)strcspn(peer.url, "#"), peer.url, closed);
    es = open_url(url);
    assert_int_equal(rf_es_call(es, &reply, "GET", rf_bytes(NULL, 0), &err, "/x"), RF_DENIED);
    assert_null(strstr(err.message, "sesame"));
    assert_non_null(strstr(peer.requests[0], "Authorization: Basic YWRhOnNlc2FtZQ=="));
    rf_es_close(es);
    snprintf(url, sizeof url, "%.*s?apikeyfile=%s#a", (int)strcspn(peer.url, "#"), peer.url,
             closed);
    es = open_url(url);
    assert_int_equal(rf_es_call(es, &reply, "GET", rf_bytes(NULL, 0), &err, "/x"), RF_OK);
    assert_non_null(strstr(peer.requests[1], "Authorization: ApiKey ada:sesame"));
    rf_es_close(es);
    peer_end(&peer);
    unlink(closed);
    unlink(open);
    free(closed);
    free(open);
}

/* ---- one call ---- */

static void what_finds_no_room_is_asked_again(void **state)
{
    static const struct answer later[] = {
        {429, "{\"error\":{\"durability\":\"TRANSIENT\"}}", NULL}, {429, "{}", NULL},
        {200, "{\"a\":1}", NULL}};
    struct rf_es_reply reply;
    struct peer peer;
    struct rf_es *es;

    (void)state;
    peer_start(&peer, later, 3);
    es = open_url(peer.url);
    assert_int_equal(rf_es_call(es, &reply, "GET", rf_bytes(NULL, 0), NULL, "/"), RF_OK);
    assert_int_equal(reply.status, 200);
    rf_es_close(es);
    peer_end(&peer);
}

static void answers_become_decisions(void **state)
{
    static const struct {
        struct answer answer;
        enum rf_status status;
    } cases[] = {
        {{200, "{\"a\":1}", NULL}, RF_OK},
        {{404, "{\"error\":{\"type\":\"t\",\"reason\":\"r\"}}", NULL}, RF_OK},
        {{429, "{\"error\":{\"durability\":\"PERMANENT\"}}", NULL}, RF_UNAVAILABLE},
        {{503, "<html>", NULL}, RF_UNAVAILABLE},
        {{403, "{}", NULL}, RF_DENIED},
        {{200, "<html>", NULL}, RF_CORRUPT},
        {{302, "{}", "Location: http://127.0.0.1:1/other\r\n"}, RF_OK}, /* not followed */
        {{0, NULL, NULL}, RF_UNAVAILABLE}, /* the answer is lost */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rf_error err = {0};
        struct rf_es_reply reply;
        struct peer peer;
        struct rf_es *es;
        peer_start(&peer, &cases[i].answer, 1);
        es = open_url(peer.url);
        assert_int_equal(rf_es_call(es, &reply, "POST", rf_bytes_text("{}"), &err, "/%d", 7),
                         cases[i].status);
        if (cases[i].status == RF_OK)
            assert_int_equal(reply.status, cases[i].answer.status);
        rf_es_close(es);
        peer_end(&peer);
    }
}

static void nobody_there_is_unavailable(void **state)
{
    struct rf_es *es = open_url("http://127.0.0.1:1#a");
    struct rf_error err = {0};
    struct rf_es_reply reply;

    (void)state;
    assert_int_equal(rf_es_call(es, &reply, "GET", rf_bytes(NULL, 0), &err, "/"), RF_UNAVAILABLE);
    rf_es_close(es);
}

/* ---- bulk ---- */

struct seen {
    size_t count;
    uint64_t tags[8];
    long status[8];
};

static enum rf_status note_failure(void *user, const struct rf_es_failure *failure,
                                   struct rf_error *err)
{
    struct seen *seen = user;

    (void)err;
    seen->tags[seen->count] = failure->tag;
    seen->status[seen->count++] = failure->status;
    return RF_OK;
}

static void add(struct rf_es *es, uint64_t tag)
{
    char act[64], document[64];
    struct rf_error err = {0};

    snprintf(act, sizeof act, "{\"index\":{\"_id\":\"%llu\"}}", (unsigned long long)tag);
    snprintf(document, sizeof document, "{\"n\":%llu}", (unsigned long long)tag);
    assert_int_equal(
        rf_es_bulk_add(es, tag, rf_bytes_text(act), rf_bytes_text(document), &err), RF_OK);
}

/* Three acts, answered so; what comes of it. */
static enum rf_status three(const struct answer *answers, size_t count, struct seen *seen,
                            struct peer *peer)
{
    struct rf_error err = {0};
    struct rf_es *es;
    enum rf_status status;

    *seen = (struct seen){0};
    peer_start(peer, answers, count);
    es = open_url(peer->url);
    assert_int_equal(rf_es_bulk_begin(es, note_failure, seen, &err), RF_OK);
    for (uint64_t tag = 1; tag <= 3; tag++)
        add(es, tag);
    status = rf_es_bulk_end(es, &err);
    rf_es_close(es);
    return status;
}

#define GOOD "{\"index\":{\"status\":201}}"
#define NO_ROOM                                                                                 \
    "{\"index\":{\"status\":429,\"error\":{\"type\":\"es_rejected\",\"reason\":\"full\"}}}"
#define BAD "{\"index\":{\"status\":400,\"error\":{\"type\":\"mapper_parsing\",\"reason\":\"no\"}}}"
#define ALL_GOOD "{\"errors\":false,\"items\":[" GOOD "," GOOD "," GOOD "]}"

static void a_bulk_is_lines(void **state)
{
    const struct answer answers[] = {{200, ALL_GOOD, NULL}};
    struct seen seen;
    struct peer peer;

    (void)state;
    assert_int_equal(three(answers, 1, &seen, &peer), RF_OK);
    assert_int_equal(seen.count, 0);
    assert_non_null(strstr(peer.requests[0], "Content-Type: application/x-ndjson"));
    assert_non_null(strstr(peer.requests[0], "\r\n\r\n{\"index\":{\"_id\":\"1\"}}\n{\"n\":1}\n{"
                                             "\"index\":{\"_id\":\"2\"}}\n{\"n\":2}\n"));
    peer_end(&peer);
}

static void one_refused_is_told_and_the_rest_is_stored(void **state)
{
    const struct answer answers[] = {
        {200, "{\"errors\":true,\"items\":[" GOOD "," BAD "," GOOD "]}", NULL}};
    struct seen seen;
    struct peer peer;

    (void)state;
    assert_int_equal(three(answers, 1, &seen, &peer), RF_OK);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.tags[0], 2);
    assert_int_equal(seen.status[0], 400);
    peer_end(&peer);
}

static void what_found_no_room_is_sent_again_alone(void **state)
{
    const struct answer answers[] = {
        {200, "{\"errors\":true,\"items\":[" GOOD "," NO_ROOM "," GOOD "]}", NULL},
        {200, "{\"errors\":false,\"items\":[" GOOD "]}", NULL}};
    struct seen seen;
    struct peer peer;

    (void)state;
    assert_int_equal(three(answers, 2, &seen, &peer), RF_OK);
    assert_int_equal(seen.count, 0);
    assert_non_null(strstr(peer.requests[1], "\r\n\r\n{\"index\":{\"_id\":\"2\"}}\n{\"n\":2}\n"));
    assert_null(strstr(peer.requests[1], "{\"n\":1}"));
    peer_end(&peer);
}

static void a_whole_request_without_room_is_sent_again(void **state)
{
    const struct answer answers[] = {
        {429, "{}", NULL}, {503, "busy", NULL}, {200, ALL_GOOD, NULL}};
    struct seen seen;
    struct peer peer;

    (void)state;
    assert_int_equal(three(answers, 3, &seen, &peer), RF_OK);
    assert_int_equal(seen.count, 0);
    peer_end(&peer);
}

static void what_is_too_large_is_split(void **state)
{
    const struct answer answers[] = {
        {413, "", NULL},                                            /* all three */
        {413, "", NULL},                                            /* two of them */
        {200, "{\"errors\":false,\"items\":[" GOOD "]}", NULL},
        {200, "{\"errors\":false,\"items\":[" GOOD "]}", NULL},
        {413, "", NULL}};                                           /* one alone: refused */
    struct seen seen;
    struct peer peer;

    (void)state;
    /* Which half goes first is free; that one alone is refused at last is not. */
    (void)!three(answers, 5, &seen, &peer);
    peer_end(&peer);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.status[0], 413);
}

static void a_lost_answer_and_nonsense_are_no_success(void **state)
{
    const struct answer lost[] = {{0, NULL, NULL}};
    const struct answer nonsense[] = {{200, "{\"items\":[]}", NULL}};
    struct seen seen;
    struct peer peer;

    (void)state;
    assert_int_equal(three(lost, 1, &seen, &peer), RF_UNAVAILABLE);
    peer_end(&peer);
    assert_int_equal(three(nonsense, 1, &seen, &peer), RF_CORRUPT);
    peer_end(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_urls_are_refused),
        cmocka_unit_test(secrets_come_from_files_and_stay_out_of_words),
        cmocka_unit_test(answers_become_decisions),
        cmocka_unit_test(what_finds_no_room_is_asked_again),
        cmocka_unit_test(nobody_there_is_unavailable),
        cmocka_unit_test(a_bulk_is_lines),
        cmocka_unit_test(one_refused_is_told_and_the_rest_is_stored),
        cmocka_unit_test(what_found_no_room_is_sent_again_alone),
        cmocka_unit_test(a_whole_request_without_room_is_sent_again),
        cmocka_unit_test(what_is_too_large_is_split),
        cmocka_unit_test(a_lost_answer_and_nonsense_are_no_success),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
