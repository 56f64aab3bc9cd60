/* plan.c - which version of a mapper maps what */
#include "indexer/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/glob.h"
#include "core/json.h"
#include "core/row.h"
#include "core/utf8.h"

#define PLAN_FACT "plan"
#define TEXT_FACT "text:"
#define PLAN_SIZE_MAX ((size_t)4 << 20)

/* ---- policies ---- */

/* Days from 1970-01-01 of a day of the Gregorian calendar. */
static int64_t days_of(int64_t year, int month, int day)
{
    int64_t era, of_era, of_year;

    year -= month <= 2;
    era = (year >= 0 ? year : year - 399) / 400;
    of_era = year - era * 400;
    of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static bool digits(const char **text, int count, int *out)
{
    int value = 0;

    for (int i = 0; i < count; i++, ++*text) {
        if (**text < '0' || **text > '9')
            return false;
        value = 10 * value + (**text - '0');
    }
    *out = value;
    return true;
}

/* "YYYY-MM-DD", "YYYY-MM-DDThh:mm[:ss[.f]]", each with "Z" behind it or not: UTC. */
static bool parse_time(const char *text, int64_t *out)
{
    static const int month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year, month, day, hour = 0, minute = 0, second = 0;
    int64_t micro = 0;

    if (!digits(&text, 4, &year) || *text++ != '-' || !digits(&text, 2, &month) ||
        *text++ != '-' || !digits(&text, 2, &day))
        return false;
    if (*text == 'T' || *text == ' ') {
        text++;
        if (!digits(&text, 2, &hour) || *text++ != ':' || !digits(&text, 2, &minute))
            return false;
        if (*text == ':') {
            text++;
            if (!digits(&text, 2, &second))
                return false;
            if (*text == '.') {
                int64_t unit = 100000;
                for (text++; *text >= '0' && *text <= '9'; text++, unit /= 10)
                    micro += unit * (*text - '0');
            }
        }
    }
    if (*text == 'Z')
        text++;
    if (*text || year < 1 || month < 1 || month > 12 || day < 1 || day > month_days[month - 1] ||
        hour > 23 || minute > 59 || second > 59)
        return false;
    *out = ((days_of(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    *out = *out * 1000000 + micro;
    return true;
}

static bool parse_since(struct rf_policy *out, const char *text)
{
    char *end;

    if (text[strspn(text, "0123456789")] == '\0' && text[0]) {
        out->kind = RF_POLICY_SINCE_SEQ;
        out->seq = strtoull(text, &end, 10);
        return strlen(text) <= 18;
    }
    out->kind = RF_POLICY_SINCE_TIME;
    return parse_time(text, &out->time_us);
}

enum rf_status rf_policy_parse(struct rf_policy *out, const char *text, struct rf_error *err)
{
    struct rf_policy policy = {0};
    char shown[RF_SHORT_SIZE];

    if (strlen(text) < RF_POLICY_TEXT_MAX && rf_utf8_valid(rf_bytes_text(text)) == strlen(text)) {
        if (strcmp(text, "full") == 0) {
            *out = policy;
            return RF_OK;
        }
        if (strcmp(text, "forward") == 0) {
            policy.kind = RF_POLICY_FORWARD;
            *out = policy;
            return RF_OK;
        }
        if (strncmp(text, "since=", 6) == 0 && parse_since(&policy, text + 6)) {
            *out = policy;
            return RF_OK;
        }
        if (strncmp(text, "match=", 6) == 0 && text[6]) {
            policy.kind = strchr(text + 6, '/') ? RF_POLICY_MEDIA : RF_POLICY_NAME;
            policy.pattern = text + 6;
            *out = policy;
            return RF_OK;
        }
    }
    return rf_error_set(err, RF_INVALID,
                        "unknown policy '%s'; write full, forward, since=SEQUENCE, "
                        "since=YYYY-MM-DD[Thh:mm:ss] (UTC), match=NAME or match=MEDIA/TYPE",
                        rf_utf8_short(shown, text));
}

void rf_policy_format(const struct rf_policy *policy, struct rf_buf *out)
{
    char time[RF_TIME_TEXT_SIZE];

    switch (policy->kind) {
    case RF_POLICY_FULL:
        rf_buf_put_text(out, "full");
        break;
    case RF_POLICY_FORWARD:
        rf_buf_put_text(out, "forward");
        break;
    case RF_POLICY_SINCE_SEQ:
        rf_buf_printf(out, "since=%" PRIu64, policy->seq);
        break;
    case RF_POLICY_SINCE_TIME:
        rf_time_format(policy->time_us, time);
        rf_buf_printf(out, "since=%s", time);
        break;
    case RF_POLICY_NAME:
    case RF_POLICY_MEDIA:
        rf_buf_printf(out, "match=%s", policy->pattern);
        break;
    }
}

/* ---- the plan as JSON ---- */

static enum rf_status damaged(struct rf_error *err)
{
    return rf_error_set(err, RF_CORRUPT,
                        "the plan kept in the index is damaged; 'refuge index rebuild --full' "
                        "makes it anew");
}

static bool whole(const struct rf_json *value, uint64_t *out)
{
    int64_t number;

    if (!value || !rf_json_int(value, &number) || number < 0)
        return false;
    *out = (uint64_t)number;
    return true;
}

static bool read_version(const struct rf_json *value, struct rf_plan_version *out)
{
    const char *identity = rf_json_string(rf_json_find(value, "identity"));
    const char *policy = rf_json_string(rf_json_find(value, "policy"));

    if (!identity || strlen(identity) + 1 != sizeof out->identity || !policy ||
        rf_policy_parse(&out->policy, policy, NULL) != RF_OK ||
        !whole(rf_json_find(value, "after"), &out->after) ||
        !whole(rf_json_find(value, "passed"), &out->passed))
        return false;
    memcpy(out->identity, identity, sizeof out->identity);
    return true;
}

static bool read_chain(const struct rf_json *value, struct rf_plan_mapper *out)
{
    const struct rf_json *versions = rf_json_find(value, "versions");
    uint64_t ends;

    out->name = rf_json_string(rf_json_find(value, "name"));
    if (!out->name || !whole(rf_json_find(value, "ends"), &ends) || ends > UINT32_MAX ||
        !versions || versions->type != RF_JSON_ARRAY || versions->count < 1 ||
        versions->count > RF_PLAN_VERSIONS_MAX)
        return false;
    out->ends = (uint32_t)ends;
    for (size_t i = 0; i < versions->count; i++) {
        if (!read_version(&versions->items[i], &out->versions[i]))
            return false;
    }
    out->count = versions->count;
    return true;
}

enum rf_status rf_plan_read(struct rf_sink *sink, struct rf_arena *arena, struct rf_plan *out,
                            struct rf_error *err)
{
    const struct rf_json *plan = NULL, *mappers;
    const char *text = NULL;
    struct rf_error why = {0};
    enum rf_status status = rf_sink_get_fact(sink, arena, PLAN_FACT, &text, &why);

    *out = (struct rf_plan){0};
    if (status == RF_NOT_FOUND)
        return RF_OK;
    if (status != RF_OK)
        return rf_error_set(err, status, "%s", why.message);
    if (rf_json_parse(&plan, arena, rf_bytes_text(text), NULL) != RF_OK)
        return damaged(err);
    mappers = rf_json_find(plan, "mappers");
    if (!mappers || mappers->type != RF_JSON_ARRAY)
        return damaged(err);
    for (size_t i = 0; i < mappers->count; i++) {
        const char *name = rf_json_string(rf_json_find(&mappers->items[i], "name"));
        if (!name || rf_plan_find(out, name) ||
            !read_chain(&mappers->items[i], rf_plan_add(out, arena, name))) {
            *out = (struct rf_plan){0};
            return damaged(err);
        }
    }
    return RF_OK;
}

static void put_chain(struct rf_buf *buf, const struct rf_plan_mapper *chain)
{
    char text[RF_POLICY_TEXT_MAX + 64];

    rf_buf_put_text(buf, "{\"name\":");
    rf_json_put_string(buf, rf_bytes_text(chain->name));
    rf_buf_printf(buf, ",\"ends\":%" PRIu32 ",\"versions\":[", chain->ends);
    for (size_t i = 0; i < chain->count; i++) {
        const struct rf_plan_version *version = &chain->versions[i];
        struct rf_buf policy;

        rf_buf_init(&policy, sizeof text);
        rf_policy_format(&version->policy, &policy);
        rf_buf_printf(buf, "%s{\"identity\":\"%s\",\"policy\":", i ? "," : "", version->identity);
        rf_json_put_string(buf, rf_buf_bytes(&policy));
        rf_buf_printf(buf, ",\"after\":%" PRIu64 ",\"passed\":%" PRIu64 "}", version->after,
                      version->passed);
        rf_buf_release(&policy);
    }
    rf_buf_put_text(buf, "]}");
}

enum rf_status rf_plan_write(struct rf_sink *sink, const struct rf_plan *plan,
                             struct rf_error *err)
{
    struct rf_buf buf;
    enum rf_status status;

    if (plan->count == 0)
        return rf_sink_set_fact(sink, PLAN_FACT, NULL, err);
    rf_buf_init(&buf, PLAN_SIZE_MAX);
    rf_buf_put_text(&buf, "{\"plan\":1,\"mappers\":[");
    for (size_t i = 0; i < plan->count; i++) {
        rf_buf_put_text(&buf, i ? "," : "");
        put_chain(&buf, plan->mappers[i]);
    }
    rf_buf_put_text(&buf, "]}");
    status = buf.failed ? rf_error_set(err, buf.failed, "the plan of the index is too large")
                        : rf_sink_set_fact(sink, PLAN_FACT, rf_buf_text(&buf), err);
    rf_buf_release(&buf);
    return status;
}

/* ---- chains ---- */

struct rf_plan_mapper *rf_plan_find(const struct rf_plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->count; i++) {
        if (strcmp(plan->mappers[i]->name, name) == 0)
            return plan->mappers[i];
    }
    return NULL;
}

struct rf_plan_mapper *rf_plan_add(struct rf_plan *plan, struct rf_arena *arena, const char *name)
{
    struct rf_plan_mapper *chain = rf_plan_find(plan, name), **more;

    if (chain)
        return chain;
    more = rf_arena_alloc(arena, (plan->count + 1) * sizeof(*more));
    if (plan->count)
        memcpy(more, plan->mappers, plan->count * sizeof(*more));
    chain = rf_arena_alloc(arena, sizeof *chain);
    *chain = (struct rf_plan_mapper){.name = rf_arena_copy(arena, name, strlen(name))};
    more[plan->count++] = chain;
    plan->mappers = more;
    return chain;
}

void rf_plan_remove(struct rf_plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->count; i++) {
        if (strcmp(plan->mappers[i]->name, name) != 0)
            continue;
        memmove(plan->mappers + i, plan->mappers + i + 1,
                (plan->count - i - 1) * sizeof *plan->mappers);
        plan->count--;
        return;
    }
}

struct rf_plan_version *rf_plan_passing(struct rf_plan_mapper *chain)
{
    for (size_t i = 0; i < chain->count; i++) {
        if (chain->versions[i].passed < chain->versions[i].after)
            return &chain->versions[i];
    }
    return NULL;
}

bool rf_plan_holds(const struct rf_plan_mapper *chain, const struct rf_sink_lane *lanes,
                   size_t count)
{
    bool ended = chain->ends != 0, live = false;

    for (size_t i = 0; i < count; i++) {
        ended &= lanes[i].id != chain->ends;
        for (size_t m = 0; lanes[i].live && m < lanes[i].mapper_count; m++)
            live |= strcmp(lanes[i].mappers[m].decl->name, chain->name) == 0 &&
                    strcmp(lanes[i].mappers[m].identity, chain->versions[0].identity) == 0;
    }
    return live && !ended;
}

enum rf_status rf_plan_of_live(struct rf_sink *sink, struct rf_arena *arena,
                               const struct rf_sink_lane *lanes, size_t count, struct rf_plan *out,
                               struct rf_error *err)
{
    enum rf_status status = rf_plan_read(sink, arena, out, err);

    for (size_t i = status == RF_OK ? out->count : 0; i-- > 0;) {
        if (!rf_plan_holds(out->mappers[i], lanes, count))
            rf_plan_remove(out, out->mappers[i]->name);
        else
            out->mappers[i]->ends = 0;
    }
    return status;
}

/* ---- texts ---- */

static void text_fact(char *out, size_t size, const char *identity)
{
    snprintf(out, size, TEXT_FACT "%s", identity);
}

enum rf_status rf_plan_keep_text(struct rf_sink *sink, const char *identity,
                                 struct rf_bytes bundle, struct rf_error *err)
{
    char fact[sizeof TEXT_FACT + RF_IDENTITY_SIZE], *text;
    enum rf_status status;

    if (rf_utf8_valid(bundle) != bundle.size || memchr(bundle.data, '\0', bundle.size))
        return rf_error_set(err, RF_INVALID, "its text is not UTF-8");
    text = strndup((const char *)bundle.data, bundle.size);
    if (!text)
        return rf_error_set(err, RF_NOMEM, "no memory for the text of a mapper");
    text_fact(fact, sizeof fact, identity);
    status = rf_sink_set_fact(sink, fact, text, err);
    free(text);
    return status;
}

enum rf_status rf_plan_text(struct rf_sink *sink, struct rf_arena *arena, const char *identity,
                            struct rf_bytes *out, struct rf_error *err)
{
    char fact[sizeof TEXT_FACT + RF_IDENTITY_SIZE];
    struct rf_error why = {0};
    const char *text = NULL;
    enum rf_status status;

    text_fact(fact, sizeof fact, identity);
    status = rf_sink_get_fact(sink, arena, fact, &text, &why);
    if (status == RF_OK)
        *out = rf_bytes_text(text);
    else if (status == RF_NOT_FOUND)
        status = rf_error_set(err, RF_CORRUPT,
                              "the text of mapper version %.12s is not in the index any more; "
                              "'refuge index rebuild --full' maps all with the newest",
                              identity);
    else
        rf_error_set(err, status, "%s", why.message);
    return status;
}

enum rf_status rf_plan_load_texts(struct rf_sink *sink, struct rf_arena *arena,
                                  struct rf_plan *plan, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < plan->count; i++) {
        for (size_t k = 1; k < plan->mappers[i]->count && status == RF_OK; k++) {
            struct rf_plan_version *version = &plan->mappers[i]->versions[k];

            if (!version->bundle.data)
                status = rf_plan_text(sink, arena, version->identity, &version->bundle, err);
        }
    }
    return status;
}

static bool names_text(const struct rf_plan *plan, const char *identity)
{
    for (size_t i = 0; i < plan->count; i++) {
        for (size_t k = 1; k < plan->mappers[i]->count; k++) {
            if (strcmp(plan->mappers[i]->versions[k].identity, identity) == 0)
                return true;
        }
    }
    return false;
}

enum rf_status rf_plan_forget_texts(struct rf_sink *sink, const struct rf_plan *before,
                                    const struct rf_plan *now, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < before->count; i++) {
        for (size_t k = 1; k < before->mappers[i]->count && status == RF_OK; k++) {
            const char *identity = before->mappers[i]->versions[k].identity;
            char fact[sizeof TEXT_FACT + RF_IDENTITY_SIZE];

            if (names_text(now, identity))
                continue;
            text_fact(fact, sizeof fact, identity);
            status = rf_sink_set_fact(sink, fact, NULL, err);
        }
    }
    return status;
}

/* ---- choosing ---- */

static bool selects(const struct rf_policy *policy, const struct rf_plan_item *item)
{
    const char *base;

    switch (policy->kind) {
    case RF_POLICY_FULL:
        return true;
    case RF_POLICY_FORWARD:
        return false;
    case RF_POLICY_SINCE_SEQ:
        return item->seq >= policy->seq;
    case RF_POLICY_SINCE_TIME:
        return item->timestamp_us >= policy->time_us;
    case RF_POLICY_NAME:
        base = item->name ? strrchr(item->name, '/') : NULL;
        base = base ? base + 1 : item->name;
        return base && rf_glob_matches(policy->pattern, base);
    case RF_POLICY_MEDIA:
        return item->media && rf_glob_matches(policy->pattern, item->media);
    }
    return false;
}

uint32_t rf_plan_takes(const struct rf_plan_mapper *chain, const struct rf_plan_item *item)
{
    uint32_t takes = 0;

    for (size_t i = 0; i < chain->count; i++) {
        if (item->seq > chain->versions[i].after || selects(&chain->versions[i].policy, item))
            takes |= 1u << i;
    }
    return takes;
}

uint32_t rf_plan_takes_media(const struct rf_plan_mapper *chain, const char *media)
{
    uint32_t takes = 0;

    for (size_t i = 0; i < chain->count; i++) {
        const struct rf_policy *policy = &chain->versions[i].policy;

        if (policy->kind == RF_POLICY_FULL ||
            (policy->kind == RF_POLICY_MEDIA && media && rf_glob_matches(policy->pattern, media)))
            takes |= 1u << i;
    }
    return takes;
}

uint32_t rf_plan_all(const struct rf_plan_mapper *chain)
{
    return (1u << chain->count) - 1;
}

int rf_plan_choose(uint32_t takes)
{
    return takes ? 31 - __builtin_clz(takes) : -1;
}

/* ---- tables ---- */

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_names(const char *const *a, size_t a_count, const char *const *b, size_t b_count)
{
    if (a_count != b_count)
        return false;
    for (size_t i = 0; i < a_count; i++) {
        if (strcmp(a[i], b[i]) != 0)
            return false;
    }
    return true;
}

static bool same_table(const struct rf_table *a, const struct rf_table *b)
{
    if (strcmp(a->name, b->name) != 0 || a->column_count != b->column_count ||
        a->index_count != b->index_count || !same_text(a->latest.by, b->latest.by) ||
        !same_names(a->latest.key, a->latest.count, b->latest.key, b->latest.count))
        return false;
    for (size_t i = 0; i < a->column_count; i++) {
        const struct rf_column *x = &a->columns[i], *y = &b->columns[i];

        if (strcmp(x->name, y->name) != 0 || x->type != y->type || x->search != y->search ||
            x->facet != y->facet)
            return false;
    }
    for (size_t i = 0; i < a->index_count; i++) {
        if (!same_names(a->indexes[i].columns, a->indexes[i].count, b->indexes[i].columns,
                        b->indexes[i].count))
            return false;
    }
    return true;
}

bool rf_plan_same_tables(const struct rf_decl *a, const struct rf_decl *b, const char **why)
{
    *why = "it cuts parts, and they are items of the other mappers";
    if (a->splits || b->splits)
        return false;
    *why = "its tables are not those of the version before";
    if (a->table_count != b->table_count)
        return false;
    for (size_t i = 0; i < a->table_count; i++) {
        if (!same_table(&a->tables[i], &b->tables[i]))
            return false;
    }
    return true;
}
