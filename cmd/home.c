/*
 * home.c - the folder that holds everything: where it is, what is in it, opening its store
 *
 *   refuge.conf        what a person wrote            store/home/   the blob store
 *   index/NAME.db      one file per index             mappers/      mappers of one's own
 *   conf.d/            what commands wrote: index-NAME.json, where an index is kept
 */
#include "cmd/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/settings.h"
#include "core/control.h"

void rf_folder_sync_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int fd = -1;

    if (folder && RF_SAFEGUARD("home-folder-fsync"))
        fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(folder);
}

bool rf_file_replace(const char *path, struct rf_bytes bytes)
{
    char *temporary = rf_text_join(path, ".new", "");
    bool ok = false;
    int fd;

    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
        ok = write(fd, bytes.data, bytes.size) == (ssize_t)bytes.size && fsync(fd) == 0;
        ok = close(fd) == 0 && ok && rename(temporary, path) == 0;
        if (ok) {
            rf_folder_sync_of(path);
        } else {
            int saved = errno;

            unlink(temporary);
            errno = saved;
        }
    }
    free(temporary);
    return ok;
}

char *rf_path_join(const char *folder, const char *name)
{
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);

    if (!path)
        abort();
    snprintf(path, size, "%s%s%s", folder,
             folder[0] && folder[strlen(folder) - 1] == '/' ? "" : "/", name);
    return path;
}

char *rf_text_join(const char *a, const char *b, const char *c)
{
    size_t size = strlen(a) + strlen(b) + strlen(c) + 1;
    char *text = malloc(size);

    if (!text)
        abort();
    snprintf(text, size, "%s%s%s", a, b, c);
    return text;
}

static char *absolute(const char *path)
{
    char *folder, *whole;

    if (path[0] == '/')
        return strdup(path);
    folder = getcwd(NULL, 0);
    if (!folder)
        return strdup(path);
    whole = rf_path_join(folder, path);
    free(folder);
    return whole;
}

static char *default_path(void)
{
    const char *home = getenv("REFUGE_HOME"), *data = getenv("XDG_DATA_HOME");
    const char *user = getenv("HOME");

    if (home && home[0])
        return absolute(home);
    if (data && data[0] == '/') /* relative ones are to be ignored, says the XDG specification */
        return rf_path_join(data, "refuge");
    return user && user[0] ? rf_path_join(user, ".local/share/refuge") : NULL;
}

bool rf_home_locate(struct rf_cli *cli, int *code)
{
    const char *given = rf_args_text(&cli->args, "home");
    struct rf_home *home = &cli->home;
    char *store;

    if (given && !given[0]) {
        *code = rf_fail_with(cli, RF_EXIT_USAGE, "option '--home' needs a folder, not ''");
        return false;
    }
    home->path = given ? absolute(given) : default_path();
    if (!home->path) {
        *code = rf_fail_with(cli, RF_EXIT_NO_HOME,
                             "cannot tell where the home is: neither --home nor $REFUGE_HOME, "
                             "$XDG_DATA_HOME or $HOME is set");
        return false;
    }
    home->conf_path = rf_path_join(home->path, "refuge.conf");
    home->index_dir = rf_path_join(home->path, "index");
    home->mapper_dir = rf_path_join(home->path, "mappers");
    home->conf_dir = rf_path_join(home->path, "conf.d");
    store = rf_path_join(home->path, "store/home");
    home->store_url = rf_text_join("disk:", store, "");
    free(store);
    return true;
}

/* The exit code for a folder or file that cannot be used. */
static int tell_missing(struct rf_cli *cli, const char *path, int errnum)
{
    if (errnum == ENOENT || errnum == ENOTDIR)
        return rf_fail_with(cli, RF_EXIT_NO_HOME,
                            "cannot open home '%s': %s; 'refuge init' makes one", path,
                            strerror(errnum));
    return rf_fail_with(cli, rf_exit_of_errno(errnum), "cannot open home '%s': %s", path,
                        strerror(errnum));
}

bool rf_home_open(struct rf_cli *cli, int *code)
{
    struct stat st;

    if (!rf_home_locate(cli, code))
        return false;
    if (stat(cli->home.path, &st) || access(cli->home.path, R_OK | X_OK)) {
        *code = tell_missing(cli, cli->home.path, errno);
        return false;
    }
    if (access(cli->home.conf_path, R_OK)) {
        *code = tell_missing(cli, cli->home.conf_path, errno);
        return false;
    }
    return rf_settings_load(cli, code);
}

void rf_home_release(struct rf_cli *cli)
{
    rf_settings_free(cli->settings);
    cli->settings = NULL;
    free(cli->home.path);
    free(cli->home.conf_path);
    free(cli->home.store_url);
    free(cli->home.index_dir);
    free(cli->home.mapper_dir);
    free(cli->home.conf_dir);
    memset(&cli->home, 0, sizeof cli->home);
}

struct rf_store *rf_home_store(struct rf_cli *cli, enum rf_store_mode mode, int *code)
{
    struct rf_store_options options = {.mode = mode};
    struct rf_error err = {0};
    struct rf_store *store = NULL;
    uint64_t wait_s = mode == RF_STORE_READ ? 0 : rf_args_number(&cli->args, "wait");
    enum rf_status status;

    options.segment_bytes = rf_settings_segment_bytes(cli->settings);
    status = rf_store_open(&store, cli->home.store_url, &options, &err);
    if (status == RF_LOCKED && wait_s > 0) {
        rf_say(cli, "%s; waiting up to %llu s", err.message, (unsigned long long)wait_s);
        rf_error_clear(&err);
        options.lock_timeout_ms = wait_s > INT32_MAX / 1000 ? INT32_MAX : (int)wait_s * 1000;
        status = rf_store_open(&store, cli->home.store_url, &options, &err);
    }
    if (status == RF_OK)
        return store;
    *code = rf_fail(cli, &err);
    if (status == RF_LOCKED && mode != RF_STORE_READ)
        rf_say_wait(cli, wait_s);
    if (status == RF_NOT_FOUND) {
        rf_say(cli, "'refuge init' makes the store of a home where it is missing");
        *code = RF_EXIT_NO_HOME;
    }
    return NULL;
}

/* ---- blobrefs as a person types them ---- */

struct search {
    const uint8_t *digest; /* the beginning looked for, then zeroes */
    size_t digits;
    struct rf_blobref found[2];
    size_t count;
};

static bool begins_with(const struct rf_blobref *ref, const uint8_t *digest, size_t digits)
{
    size_t whole = digits / 2;

    if (memcmp(ref->digest, digest, whole) != 0)
        return false;
    return digits % 2 == 0 || (ref->digest[whole] & 0xf0) == (digest[whole] & 0xf0);
}

static enum rf_status visit_candidate(void *user, const struct rf_stat *stat)
{
    struct search *search = user;

    if (!begins_with(&stat->ref, search->digest, search->digits))
        return RF_END;
    search->found[search->count++] = stat->ref;
    return search->count == 2 ? RF_END : RF_OK;
}

bool rf_prefix_parse(const char *text, uint8_t digest[RF_DIGEST_SIZE], size_t *digits)
{
    size_t count = 0;

    memset(digest, 0, RF_DIGEST_SIZE);
    if (strncmp(text, "sha256-", 7) == 0)
        text += 7;
    for (; *text; text++, count++) {
        int value = *text >= '0' && *text <= '9' ? *text - '0'
                    : *text >= 'a' && *text <= 'f' ? *text - 'a' + 10 : -1;

        if (value < 0 || count == 2 * (size_t)RF_DIGEST_SIZE)
            return false;
        digest[count / 2] |= (uint8_t)(count % 2 ? value : value << 4);
    }
    *digits = count;
    return true;
}

bool rf_prefix_before(const uint8_t digest[RF_DIGEST_SIZE], struct rf_blobref *out)
{
    size_t i = RF_DIGEST_SIZE;

    out->algo = RF_ALGO_SHA256;
    memcpy(out->digest, digest, RF_DIGEST_SIZE);
    while (i > 0 && out->digest[i - 1] == 0)
        out->digest[--i] = 0xff;
    if (i == 0)
        return false;
    out->digest[i - 1]--;
    return true;
}

bool rf_prefix_matches(const struct rf_blobref *ref, const uint8_t *digest, size_t digits)
{
    return begins_with(ref, digest, digits);
}

enum rf_status rf_ref_resolve(struct rf_blobref *out, struct rf_store *store, const char *text,
                              struct rf_error *err)
{
    uint8_t digest[RF_DIGEST_SIZE];
    struct search search = {.digest = digest};
    struct rf_blobref after;
    enum rf_status status;

    if (!rf_prefix_parse(text, digest, &search.digits) || search.digits < 6)
        return rf_error_set(err, RF_INVALID, "'%s' is no blobref: 'sha256-' and 64 hex digits, or "
                            "at least 6 of them", text);
    if (search.digits == 2 * (size_t)RF_DIGEST_SIZE) {
        out->algo = RF_ALGO_SHA256;
        memcpy(out->digest, digest, RF_DIGEST_SIZE);
        return RF_OK;
    }
    status = rf_store_list(store, rf_prefix_before(digest, &after) ? &after : NULL,
                           visit_candidate, &search, err);
    if (status != RF_OK && status != RF_END)
        return status;
    if (search.count == 0)
        return rf_error_set(err, RF_NOT_FOUND, "no blob in the store begins with '%s'", text);
    if (search.count == 2)
        return rf_error_set(err, RF_INVALID,
                            "more than one blob begins with '%s'; give more digits", text);
    *out = search.found[0];
    return RF_OK;
}
