/*
 * cmd_config.c - refuge config check and show
 */
#include "cmd/settings.h"

int cmd_config_check(struct rf_cli *cli)
{
    /* The configuration was read before any command runs; a mistake has been told by then. */
    rf_out_printf(cli, "%s: ok\n", cli->home.conf_path);
    rf_summary_text(cli, "path", cli->home.conf_path);
    return RF_EXIT_OK;
}

int cmd_config_show(struct rf_cli *cli)
{
    rf_settings_show(cli, rf_args_flag(&cli->args, "origin"));
    rf_summary_text(cli, "path", cli->home.conf_path);
    return RF_EXIT_OK;
}
