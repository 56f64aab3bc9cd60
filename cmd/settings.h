/*
 * settings.h - what refuge.conf says, as the commands use it
 */
#ifndef RF_CMD_SETTINGS_H
#define RF_CMD_SETTINGS_H

#include "cmd/cli.h"

/* Read the home's refuge.conf and the environment into cli->settings. */
RF_MUST_USE enum rf_status rf_settings_read(struct rf_cli *cli, struct rf_error *err);
/* The same; false: told, *code set. */
bool rf_settings_load(struct rf_cli *cli, int *code);
void rf_settings_free(struct rf_settings *settings);

/* The text of a new refuge.conf: every option, its meaning and default, as comments. */
void rf_settings_template(struct rf_buf *out);
/* The options as doc/refuge.conf.5 has them (mdoc). */
void rf_settings_mdoc(FILE *to);
/* Every option with its value; origin: and where that comes from. */
void rf_settings_show(struct rf_cli *cli, bool origin);

/* Values; settings NULL: the defaults. */
uint64_t rf_settings_segment_bytes(const struct rf_settings *settings);
uint64_t rf_settings_cache_bytes(const struct rf_settings *settings);
uint32_t rf_settings_batch_items(const struct rf_settings *settings);
uint32_t rf_settings_batch_ms(const struct rf_settings *settings);
uint64_t rf_settings_parts_max(const struct rf_settings *settings);
uint64_t rf_settings_slow_budget_ms(const struct rf_settings *settings);
const char *rf_settings_policy(const struct rf_settings *settings); /* or NULL: full */
uint32_t rf_settings_workers(const struct rf_settings *settings);
bool rf_settings_bundled(const struct rf_settings *settings); /* whether to use those */
/* Paths of mappers besides those of the home's folder. */
size_t rf_settings_mappers(const struct rf_settings *settings, const char *const **paths);
/* Names of mappers that are not used. */
size_t rf_settings_disabled(const struct rf_settings *settings, const char *const **names);

#endif
