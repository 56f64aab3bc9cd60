/*
 * sink_kind.h - the kind of sink that a test is run over
 *
 * A test program runs its tests over SQLite and over each server that is named: by
 * REFUGE_TEST_POSTGRESQL, REFUGE_TEST_ELASTICSEARCH and REFUGE_TEST_OPENSEARCH. Empty: not wanted
 * here. REFUGE_TEST_SINK leaves all other kinds out. Everything is static.
 */
#ifndef RF_TESTS_SINK_KIND_H
#define RF_TESTS_SINK_KIND_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The one at hand. */
static const char *fixture_kind = "sqlite";

static inline bool on_postgres(void)
{
    return strcmp(fixture_kind, "postgresql") == 0;
}

static inline bool on_elastic(void)
{
    return strcmp(fixture_kind, "elasticsearch") == 0 || strcmp(fixture_kind, "opensearch") == 0;
}

static inline const char *fixture_server(void)
{
    return getenv(on_postgres()                             ? "REFUGE_TEST_POSTGRESQL"
                  : strcmp(fixture_kind, "opensearch") == 0 ? "REFUGE_TEST_OPENSEARCH"
                                                            : "REFUGE_TEST_ELASTICSEARCH");
}

/* What a question is in the SQL of the kind at hand. */
static inline const char *form(const char *sqlite, const char *postgres)
{
    return on_postgres() ? postgres : sqlite;
}

/* A place of its own at the server of the kind at hand. */
static inline void server_url(char *out, size_t size, unsigned number)
{
    if (on_postgres())
        snprintf(out, size, "%s#t%ld_%u", fixture_server(), (long)getpid(), number);
    else
        snprintf(out, size, "%s+%s#t%ld_%u", fixture_kind, fixture_server(), (long)getpid(),
                 number);
}

static inline void needs_a_server(void **state)
{
    (void)state;
    print_message("there is no server for %s\n", fixture_kind);
    skip();
}

struct kind_tests {
    const struct CMUnitTest *tests;
    size_t count;
};
#define KIND_TESTS(array) ((struct kind_tests){array, sizeof(array) / sizeof *(array)})

/* How many of these tests fail, over each kind. */
static inline int run_over_kinds(const char *what, struct kind_tests sqlite,
                                 struct kind_tests postgres, struct kind_tests elastic)
{
    static const char *const kinds[] = {"sqlite", "postgresql", "elasticsearch", "opensearch"};
    const struct CMUnitTest without[] = {cmocka_unit_test(needs_a_server)};
    const struct kind_tests all[] = {sqlite, postgres, elastic, elastic};
    const char *only = getenv("REFUGE_TEST_SINK");
    int failed = 0;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct kind_tests here = all[i];
        char name[60];
        fixture_kind = kinds[i];
        snprintf(name, sizeof name, "%s %s", what, fixture_kind);
        if ((only && strcmp(only, fixture_kind) != 0) ||
            (i > 0 && fixture_server() && !fixture_server()[0]))
            continue;
        if (i > 0 && !fixture_server())
            here = KIND_TESTS(without);
        failed += _cmocka_run_group_tests(name, here.tests, here.count, NULL, NULL);
    }
    return failed;
}

#endif
