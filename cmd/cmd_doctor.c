/*
 * cmd_doctor.c - refuge doctor: is everything in order, and what to do where it is not
 *
 * One line per check: ok, warn or fail. A check that depends on a failed one is left out. Nothing
 * is mended, except that opening the store for writing recovers its tail as any writer does.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cmd/index_home.h"
#include "cmd/settings.h"

#define SPACE_LOW ((uint64_t)1 << 30) /* bytes free that call for a warning */
#define CHANGES_LOOK 1000             /* oldest and newest changes that are looked at */

enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_FAIL };

struct doctor {
    struct rf_cli *cli;
    bool read_only;      /* the home cannot be written */
    int code;            /* of the first failed check */
    unsigned counts[3];
};

RF_PRINTF(4, 5)
static void tell(struct doctor *doctor, enum verdict verdict, const char *check, const char *format,
                 ...)
{
    static const char *const names[] = {"ok", "warn", "fail"};
    static const char *const colours[] = {"\x1b[32m", "\x1b[33m", "\x1b[31m"};
    struct rf_cli *cli = doctor->cli;
    bool colour = cli->out.colour;
    char words[2048];
    va_list args;

    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    doctor->counts[verdict]++;
    if (verdict == VERDICT_FAIL && doctor->code == RF_EXIT_OK)
        doctor->code = RF_EXIT_FAILED;
    rf_out_printf(cli, "%s%-4s%s  %-8s  ", colour ? colours[verdict] : "", names[verdict],
                  colour ? "\x1b[0m" : "", check);
    rf_out_word(cli, rf_bytes_text(words));
    rf_out_printf(cli, "\n");
    rf_out_begin(&cli->out, "check");
    rf_out_text(&cli->out, "check", check);
    rf_out_text(&cli->out, "verdict", names[verdict]);
    rf_out_text(&cli->out, "message", words);
    rf_out_end(&cli->out);
}

/* ---- home ---- */

static void check_mode(struct doctor *doctor, const char *check, const char *path)
{
    struct stat st;

    if (stat(path, &st))
        tell(doctor, VERDICT_FAIL, check, "cannot look at '%s': %s; 'refuge init' makes what is "
             "missing", path, strerror(errno));
    else if (st.st_uid != geteuid())
        tell(doctor, VERDICT_WARN, check, "'%s' belongs to user %u, not to you (%u)", path,
             (unsigned)st.st_uid, (unsigned)geteuid());
    else if (st.st_mode & 077)
        tell(doctor, VERDICT_WARN, check, "'%s' is open to others (mode %04o); chmod go= '%s'",
             path, (unsigned)st.st_mode & 07777, path);
    else
        tell(doctor, VERDICT_OK, check, "'%s', only its owner may look into it", path);
}

/* A home is a folder with a configuration in it: what rf_home_open asks for. */
static bool check_home(struct doctor *doctor)
{
    struct rf_home *home = &doctor->cli->home;
    const char *path = home->path;
    bool there = access(path, R_OK | X_OK) == 0;

    if (there) {
        path = home->conf_path;
        there = access(path, R_OK) == 0;
    }
    if (!there) {
        bool missing = rf_status_of_errno(errno) == RF_NOT_FOUND;

        doctor->code = missing ? RF_EXIT_NO_HOME : rf_exit_of_errno(errno);
        tell(doctor, VERDICT_FAIL, "home", "cannot use '%s': %s; %s", path, strerror(errno),
             missing ? "'refuge init' makes it" : "see who owns it");
        return false;
    }
    if (access(home->path, W_OK)) {
        doctor->read_only = true;
        tell(doctor, VERDICT_WARN, "home", "'%s' cannot be written: %s; it can be asked, but not "
             "added to", home->path, strerror(errno));
        return true;
    }
    check_mode(doctor, "home", home->path);
    return true;
}

static bool check_conf(struct doctor *doctor)
{
    struct rf_error err = {0};

    if (rf_settings_read(doctor->cli, &err)) {
        tell(doctor, VERDICT_FAIL, "config", "%s", err.message);
        return false;
    }
    tell(doctor, VERDICT_OK, "config", "'%s'", doctor->cli->home.conf_path);
    return true;
}

static void check_space(struct doctor *doctor)
{
    struct statvfs fs;
    char free_text[RF_SIZE_TEXT];
    uint64_t bytes;

    if (statvfs(doctor->cli->home.path, &fs)) {
        tell(doctor, VERDICT_WARN, "space", "cannot ask for free space: %s", strerror(errno));
        return;
    }
    bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    rf_size_format(bytes, free_text);
    if (bytes < SPACE_LOW)
        tell(doctor, VERDICT_WARN, "space", "only %s free; puts fail when nothing is left",
             free_text);
    else
        tell(doctor, VERDICT_OK, "space", "%s free", free_text);
}

/* ---- store ---- */

static void tell_damage(void *user, const char *line)
{
    tell(user, VERDICT_FAIL, "store", "%s; 'refuge store verify' looks for more", line);
}

/* Some changes from one on, as any reader gets them. RF_END at the queue's end. */
static enum rf_status look_at_changes(struct doctor *doctor, struct rf_store *store,
                                      const struct rf_cursor *from, struct rf_error *err)
{
    struct rf_feed *feed = NULL;
    struct rf_change change;
    enum rf_status status = rf_feed_open(&feed, store, from, err);

    for (int i = 0; status == RF_OK && i < CHANGES_LOOK; i++) {
        status = rf_feed_next(feed, &change, 0, err);
        if (status == RF_CORRUPT) {
            tell_damage(doctor, err->message);
            rf_error_clear(err);
            status = RF_OK;
        }
    }
    rf_feed_close(feed);
    if (status == RF_TIMEOUT) {
        rf_error_clear(err);
        return RF_END;
    }
    return status;
}

/* What costs little: the beginnings of the log's files, its oldest and its newest changes. */
static enum rf_status check_log(struct doctor *doctor, struct rf_store *store,
                                const struct rf_store_info *info, struct rf_error *err)
{
    struct rf_cursor newest = {.generation = info->generation};
    uint64_t damaged;
    enum rf_status status = rf_store_check(store, &damaged, tell_damage, doctor, err);

    if (status == RF_OK)
        status = look_at_changes(doctor, store, NULL, err);
    if (status == RF_OK && info->next_seq > info->oldest_seq + 2 * CHANGES_LOOK) {
        newest.seq = info->next_seq - 1 - CHANGES_LOOK;
        status = look_at_changes(doctor, store, &newest, err);
    }
    return status == RF_END ? RF_OK : status;
}

static void check_store(struct doctor *doctor)
{
    struct rf_store_options options = {.mode = doctor->read_only ? RF_STORE_READ : RF_STORE_WRITE};
    struct rf_store_info info;
    struct rf_error err = {0};
    struct rf_store *store = NULL;
    enum rf_status status;
    char size[RF_SIZE_TEXT];
    unsigned failed;

    options.segment_bytes = rf_settings_segment_bytes(doctor->cli->settings);
    status = rf_store_open(&store, doctor->cli->home.store_url, &options, &err);
    if (status == RF_LOCKED) {
        tell(doctor, VERDICT_OK, "lock", "%s", err.message);
        rf_error_clear(&err);
        options.mode = RF_STORE_READ;
        status = rf_store_open(&store, doctor->cli->home.store_url, &options, &err);
    } else if (status == RF_OK && !doctor->read_only) {
        tell(doctor, VERDICT_OK, "lock", "nobody else writes the store");
    }
    if (status == RF_OK)
        status = rf_store_info(store, &info, &err);
    for (unsigned part = 1; status == RF_OK && part <= RF_STORE_LARGE; part <<= 1) {
        char words[512];

        if (!((info.lost | info.mended) & part))
            continue;
        rf_store_part_describe((enum rf_store_part)part, info.mended & part, words, sizeof words);
        tell(doctor, VERDICT_WARN, "store", "%s", words);
    }
    failed = doctor->counts[VERDICT_FAIL];
    if (status == RF_OK)
        status = check_log(doctor, store, &info, &err);
    if (status)
        tell(doctor, VERDICT_FAIL, "store", "%s%s", err.message,
             status == RF_NOT_FOUND ? "; 'refuge init' makes it" : "");
    else if (doctor->counts[VERDICT_FAIL] == failed)
        tell(doctor, VERDICT_OK, "store",
             "%s, %s, %s; 'refuge store verify' reads all of it", RF_COUNT(info.blobs, "blob"),
             rf_size_format(info.bytes, size), RF_COUNT(info.next_seq - 1, "change"));
    rf_store_close(store);
}

/* ---- the jail ---- */

static const char trial_bundle[] =
    "{\"name\":\"doctor\",\"files\":{\"doctor.lua\":\"return { name = 'doctor', on = { 'blob' }, "
    "tables = { doctor = { columns = { 'size int' } } }, "
    "map = function(blob, emit) emit.doctor { size = blob.size } end }\"}}";

/* Map one blob; the trial mapper makes one row of it. */
static enum rf_status map_trial(struct rf_pool *pool, struct rf_error *err)
{
    static const uint8_t content[] = "hello";
    struct rf_item item = {.kind = RF_ITEM_BLOB, .mtime_us = INT64_MIN, .timestamp_us = 0, .seq = 1,
                           .size = sizeof content, .content = content};
    const struct rf_mapper *mappers[1];
    struct rf_mapper *mapper;
    struct rf_result *result = NULL;
    enum rf_status status;

    rf_blobref_of(&item.ref, rf_bytes(content, sizeof content));
    status = rf_pool_load_bundle(pool, rf_bytes_text(trial_bundle), &mapper, err);
    if (status)
        return status;
    mappers[0] = mapper;
    status = rf_pool_submit(pool, RF_LANE_FAST, &item, mappers, 1, err);
    if (status == RF_OK)
        status = rf_pool_next(pool, &result, 60000, err);
    if (status == RF_OK && (result->call_count != 1 || result->calls[0].rows != 1))
        status = rf_error_set(err, RF_INVALID, "the trial mapper made no row: %s",
                              result->call_count && result->calls[0].message
                                  ? result->calls[0].message : "no reason given");
    rf_result_free(result);
    return status;
}

static void check_jail(struct doctor *doctor)
{
    struct rf_pool_options options = {.program = rf_mapper_program(), .workers = 1};
    struct rf_error err = {0};
    struct rf_pool *pool = NULL;
    struct rf_index_room room = {.count = 0};
    size_t count, broken = 0;
    char **paths = rf_mapper_paths(doctor->cli, &count);

    if (prctl(PR_GET_SECCOMP) < 0)
        tell(doctor, VERDICT_FAIL, "seccomp",
             "this kernel has no seccomp filters: mappers cannot be "
             "jailed");
    else
        tell(doctor, VERDICT_OK, "seccomp", "the kernel filters system calls");
    if (rf_pool_open(&pool, &options, &err) || map_trial(pool, &err)) {
        tell(doctor, VERDICT_FAIL, "jail", "%s; is refuge-mapper installed beside refuge?",
             err.message);
    } else {
        tell(doctor, VERDICT_OK, "jail", "a trial mapper ran in refuge-mapper");
        for (size_t i = 0; i < count; i++) {
            struct rf_mapper *mapper;
            struct rf_error one = {0};

            if (rf_pool_load(pool, paths[i], &mapper, &one) == RF_OK &&
                rf_index_room_take(&room, rf_mapper_decl(mapper), &one) == RF_OK)
                continue;
            broken++;
            tell(doctor, VERDICT_WARN, "mapper", "'%s': %s", paths[i], one.message);
        }
        if (count == 0)
            tell(doctor, VERDICT_WARN, "mapper", "none is in use: only an index with mappers of "
                 "its own can run; 'refuge mapper new NAME' begins one");
        else if (!broken)
            tell(doctor, VERDICT_OK, "mapper", "%s load%s", RF_COUNT(count, "mapper"),
                 count == 1 ? "s" : "");
    }
    rf_pool_close(pool);
    rf_names_free(paths, count);
}

/* ---- indexes ---- */

/* What a verify left, or works on now. there: the index that it was of. */
static void check_verify_files(struct doctor *doctor, const struct rf_index_home *index, bool there)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal", ".lock",
                                           RF_INDEX_VERIFY_HOLD};
    const char *stem = strchr(index->verify_url, ':') + 1;
    struct rf_error err = {0};
    char *path = NULL;
    int hold = -1;

    for (size_t i = 0; !path && i < sizeof suffixes / sizeof *suffixes; i++) {
        path = rf_text_join(stem, suffixes[i], "");
        if (access(path, F_OK) != 0) {
            free(path);
            path = NULL;
        }
    }
    if (!path)
        return;
    if (!doctor->read_only && rf_index_verify_hold(index->verify_url, &hold, &err) == RF_LOCKED)
        tell(doctor, VERDICT_OK, "index", "%s", err.message);
    else if (there)
        tell(doctor, VERDICT_WARN, "index",
             "'%s' is of an 'index verify' that was interrupted; 'refuge index verify %s' or "
             "'refuge index drop %s' removes it",
             path, index->name, index->name);
    else
        tell(doctor, VERDICT_WARN, "index",
             "'%s' is of an 'index verify' that was interrupted, and index '%s' is gone; rm '%s'*",
             path, index->name, stem);
    if (hold >= 0)
        rf_index_verify_release(index->verify_url, hold);
    free(path);
}

static bool is_among(char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0)
            return true;
    }
    return false;
}

/* Verify files of indexes that are there no more: NAME.db.verify and its kin. */
static void check_lonely_verify_files(struct doctor *doctor, char *const *names, size_t count)
{
    static const char mark[] = ".db" RF_INDEX_VERIFY_SUFFIX;
    DIR *dir = opendir(doctor->cli->home.index_dir);
    struct dirent *entry;
    char last[RF_NAME_MAX + 1] = "";
    int code;

    while (dir && (entry = readdir(dir)) != NULL) {
        char *end = strstr(entry->d_name, mark);
        struct rf_index_home index;

        if (!end || end == entry->d_name || end - entry->d_name > RF_NAME_MAX)
            continue;
        *end = '\0';
        if (is_among(names, count, entry->d_name) || strcmp(last, entry->d_name) == 0)
            continue;
        snprintf(last, sizeof last, "%.*s", RF_NAME_MAX, entry->d_name);
        if (rf_index_home_init(&index, doctor->cli, last, false, &code))
            check_verify_files(doctor, &index, false);
        rf_index_home_release(&index);
    }
    if (dir)
        closedir(dir);
}

/* Open an index as far as a run would before it maps anything, and count what it holds. */
static enum rf_status open_to_look(struct rf_sink **sink, const struct rf_index_home *index,
                                   struct rf_sink_counts *counts, struct rf_error *err)
{
    struct rf_sink_options options = {.name = index->name};
    struct rf_sink_lane *lanes;
    struct rf_arena arena;
    size_t count;
    enum rf_status status = rf_sink_open(sink, index->url, &options, err);

    if (status)
        return status;
    rf_arena_init(&arena, (size_t)64 << 20);
    *counts = (struct rf_sink_counts){0};
    status = rf_sink_lanes(*sink, &arena, &lanes, &count, err);
    if (status == RF_OK && count > 0)
        status = rf_sink_counts(*sink, lanes[0].id, counts, err);
    rf_arena_release(&arena);
    return status;
}

/* Words about an index in a server name it by its URL alone. */
static void tell_unusable(struct doctor *doctor, const struct rf_index_home *index,
                          const struct rf_error *err)
{
    if (index->path)
        tell(doctor, VERDICT_FAIL, "index", "%s", err->message);
    else if (err->status == RF_UNAVAILABLE)
        tell(doctor, VERDICT_FAIL, "index",
             "'%s': %s; start its server again, or, where that is gone for good, 'refuge index "
             "drop %s --forget' forgets the index",
             index->name, err->message, index->name);
    else
        tell(doctor, VERDICT_FAIL, "index", "'%s': %s", index->name, err->message);
}

static void check_index(struct doctor *doctor, const char *name)
{
    struct rf_index_home index;
    struct rf_error err = {0};
    struct rf_sink *sink = NULL;
    int code;

    if (!rf_index_home_look(&index, doctor->cli, name, &err, &code)) {
        ; /* told */
    } else if (err.status != RF_OK) {
        tell(doctor, VERDICT_FAIL, "index", "%s", err.message);
    } else {
        struct rf_sink_counts counts;

        if (open_to_look(&sink, &index, &counts, &err)) {
            tell_unusable(doctor, &index, &err);
        } else {
            uint64_t aside = counts.dead_letters;
            bool paused = rf_index_paused(&index);

            tell(doctor, aside || paused ? VERDICT_WARN : VERDICT_OK, "index",
                 "'%s' opens%s, %llu set aside%s%s%s", name, paused ? ", is paused" : "",
                 (unsigned long long)aside, aside ? " ('refuge index errors" : "",
                 aside ? index.argument : "", aside ? "' says why)" : "");
        }
        rf_sink_close(sink);
        check_verify_files(doctor, &index, true);
    }
    rf_index_home_release(&index);
}

static void check_indexes(struct doctor *doctor)
{
    size_t count;
    char **names = rf_index_names(doctor->cli, &count);

    for (size_t i = 0; i < count; i++)
        check_index(doctor, names[i]);
    if (count == 0)
        tell(doctor, VERDICT_OK, "index", "none yet; 'refuge index run' makes one");
    check_lonely_verify_files(doctor, names, count);
    rf_names_free(names, count);
}

static bool found_in_path(const char *program)
{
    const char *path = getenv("PATH");

    while (path && *path) {
        size_t size = strcspn(path, ":");
        char file[4096];

        snprintf(file, sizeof file, "%.*s/%s", (int)size, path, program);
        if (access(file, X_OK) == 0)
            return true;
        path += size + (path[size] == ':');
    }
    return false;
}

int cmd_doctor(struct rf_cli *cli)
{
    struct doctor doctor = {.cli = cli};
    int code;

    if (!rf_home_locate(cli, &code))
        return code;
    tell(&doctor, VERDICT_OK, "version", "refuge " REFUGE_VERSION);
    if (check_home(&doctor)) {
        check_space(&doctor);
        if (check_conf(&doctor)) {
            check_store(&doctor);
            check_jail(&doctor);
            check_indexes(&doctor);
        }
    }
    if (!found_in_path("sqlite3"))
        tell(&doctor, VERDICT_WARN, "sqlite3", "not found; 'refuge sql' without a query needs it "
             "(package sqlite3)");
    rf_summary_int(cli, "checks_ok", doctor.counts[VERDICT_OK]);
    rf_summary_int(cli, "checks_warn", doctor.counts[VERDICT_WARN]);
    rf_summary_int(cli, "checks_fail", doctor.counts[VERDICT_FAIL]);
    return doctor.code;
}
