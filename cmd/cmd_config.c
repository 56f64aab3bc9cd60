/*
 * cmd_config.c - refuge config check and show
 */
#include "cmd/index_home.h"
#include "cmd/settings.h"

/* refuge.conf was read before any command runs, a mistake in it has been told by then; a definition
 * of an index stops only those who need it. */
static int check_definition(struct rf_cli *cli, const char *name)
{
    struct rf_index_home index;
    struct rf_error broken = {0};
    int code = RF_EXIT_OK;

    if (rf_index_home_look(&index, cli, name, &broken, &code)) {
        if (broken.status != RF_OK)
            code = rf_fail(cli, &broken);
        else if (index.defined)
            rf_out_printf(cli, "%s: ok\n", index.definition_path);
    }
    rf_index_home_release(&index);
    return code;
}

int cmd_config_check(struct rf_cli *cli)
{
    size_t count;
    char **names = rf_index_names(cli, &count);
    int code = RF_EXIT_OK;

    rf_out_printf(cli, "%s: ok\n", cli->home.conf_path);
    for (size_t i = 0; i < count; i++) {
        int one = check_definition(cli, names[i]);

        code = code ? code : one;
    }
    rf_names_free(names, count);
    rf_summary_text(cli, "path", cli->home.conf_path);
    return code;
}

int cmd_config_show(struct rf_cli *cli)
{
    rf_settings_show(cli, rf_args_flag(&cli->args, "origin"));
    rf_summary_text(cli, "path", cli->home.conf_path);
    return RF_EXIT_OK;
}
