/*
 * cmd_init.c - refuge init: make a home, or what is missing of one
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/settings.h"

struct init {
    struct rf_cli *cli;
    bool dry_run;
    unsigned made;
};

static bool make_folder(struct init *init, const char *path, int *code)
{
    struct stat st;

    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode)) {
            if (!init->dry_run) /* an earlier init may have ended between making and syncing */
                rf_folder_sync_of(path);
            return true;
        }
        *code = rf_fail_with(init->cli, RF_EXIT_FAILED, "cannot make folder '%s': a file is in its "
                             "place", path);
        return false;
    }
    init->made++;
    if (init->dry_run) {
        rf_say(init->cli, "would make '%s'", path);
        return true;
    }
    if (mkdir(path, 0700) == 0) {
        rf_folder_sync_of(path);
        return true;
    }
    *code = rf_fail_with(init->cli, rf_exit_of_errno(errno), "cannot make folder '%s': %s", path,
                         strerror(errno));
    return false;
}

/* The folders above the home; they get the usual mode, the home itself 0700. */
static bool make_parents(struct init *init, const char *path, int *code)
{
    char *copy = strdup(path);
    bool ok = true;

    for (char *at = strchr(copy + 1, '/'); at && ok; at = strchr(at + 1, '/')) {
        *at = '\0';
        if (!init->dry_run && mkdir(copy, 0755) == 0) {
            rf_folder_sync_of(copy);
        } else if (!init->dry_run && errno != EEXIST) {
            *code = rf_fail_with(init->cli, rf_exit_of_errno(errno),
                                 "cannot make folder '%s': %s", copy, strerror(errno));
            ok = false;
        }
        *at = '/';
    }
    free(copy);
    return ok;
}

static bool make_conf(struct init *init, int *code)
{
    const char *path = init->cli->home.conf_path;
    struct rf_buf text;
    bool ok;

    if (access(path, F_OK) == 0)
        return true;
    init->made++;
    if (init->dry_run) {
        rf_say(init->cli, "would write '%s'", path);
        return true;
    }
    rf_buf_init(&text, 1 << 20);
    rf_settings_template(&text);
    ok = rf_file_replace(path, rf_buf_bytes(&text));
    rf_buf_release(&text);
    if (!ok)
        *code = rf_fail_with(init->cli, rf_exit_of_errno(errno), "cannot write '%s': %s", path,
                             strerror(errno));
    return ok;
}

static bool make_store(struct init *init, int *code)
{
    struct rf_store_options options = {.mode = RF_STORE_CREATE};
    struct rf_error err = {0};
    struct rf_store *store;
    enum rf_status status;
    char *folder = rf_path_join(init->cli->home.path, "store");
    bool ok = make_folder(init, folder, code);

    free(folder);
    if (!ok || init->dry_run)
        return ok;
    options.segment_bytes = rf_settings_segment_bytes(init->cli->settings);
    status = rf_store_open(&store, init->cli->home.store_url, &options, &err);
    if (status == RF_EXISTS)
        return true;
    if (status) {
        *code = rf_fail(init->cli, &err);
        return false;
    }
    init->made++;
    rf_store_close(store);
    return true;
}

int cmd_init(struct rf_cli *cli)
{
    struct init init = {.cli = cli, .dry_run = rf_args_flag(&cli->args, "dry-run")};
    const struct rf_home *home = &cli->home;
    int code = RF_EXIT_OK;

    if (!rf_home_locate(cli, &code) || !make_parents(&init, home->path, &code) ||
        !make_folder(&init, home->path, &code) || !make_folder(&init, home->index_dir, &code) ||
        !make_folder(&init, home->mapper_dir, &code) || !make_conf(&init, &code))
        return code;
    if (!init.dry_run && !rf_settings_load(cli, &code))
        return code;
    if (!make_store(&init, &code))
        return code;
    rf_out_printf(cli, "%s\n", home->path);
    rf_summary_text(cli, "home", home->path);
    rf_summary_int(cli, "made", init.made);
    if (init.made == 0)
        rf_say(cli, "the home is complete already; nothing was changed");
    else if (!init.dry_run)
        rf_say(cli, "next: 'refuge put FILE...', then 'refuge index run'");
    return RF_EXIT_OK;
}
