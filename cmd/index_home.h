/*
 * index_home.h - the indexes of a home: their files, mappers and settings
 */
#ifndef RF_CMD_INDEX_HOME_H
#define RF_CMD_INDEX_HOME_H

#include "cmd/cli.h"
#include "cmd/definition.h"
#include "indexer/index.h"
#include "sinks/sink.h"

#define RF_INDEX_DEFAULT "main"
#define RF_MAPPER_TEMPLATE "template" /* bundled, but only what `mapper new` starts from */

/* One index of the home, there or not. */
struct rf_index_home {
    const char *name;
    char argument[RF_NAME_MAX + 2]; /* " NAME" for a command to type; "" of the default one */
    char *url;           /* of its sink */
    char *path;          /* of an SQLite database, else NULL */
    const char *place;   /* path or URL, for messages */
    char *verify_url;    /* of the throw-away index of a verify */
    char *metadata_path; /* what Datasette reads beside it */
    char *paused_path;   /* there while the index is paused */
    char *definition_path;
    struct rf_definition definition;
    bool defined;        /* by `index create`; else it is in the home's folder */
    bool exists;         /* or may: only its sink knows when that is no file */
    struct rf_arena arena;
};

/* False: told, *code set; release works all the same. must_exist: an index that is not there fails.
 */
bool rf_index_home_init(struct rf_index_home *out, struct rf_cli *cli, const char *name,
                        bool must_exist, int *code);
/* The same, but a definition that cannot be read is for the caller to tell: broken says what is
 * wrong with it and what to do, and there is no url, path or place. Else its status is RF_OK. */
bool rf_index_home_look(struct rf_index_home *out, struct rf_cli *cli, const char *name,
                        struct rf_error *broken, int *code);
void rf_index_home_release(struct rf_index_home *index);
/* Tell that there is no such index, and what makes it. */
int rf_fail_no_index(struct rf_cli *cli, const struct rf_index_home *index);

/* The names of the indexes there are, sorted; free with rf_names_free. */
char **rf_index_names(struct rf_cli *cli, size_t *count);
void rf_names_free(char **names, size_t count);

/* Paths and "bundled:NAME" of the mappers in use: the bundled ones, those of the configuration,
 * then the home's own in the order of their names; without the disabled ones and modules, whose
 * names begin with '_'. Free with rf_names_free. */
char **rf_mapper_paths(struct rf_cli *cli, size_t *count);
/* "recipes" of "/a/recipes.lua" or "bundled:recipes", in out of RF_NAME_MAX + 1 bytes. */
void rf_mapper_path_name(const char *path, char *out, size_t size);

/* The same, for one index: those of its definition, if it names any. */
char **rf_index_mapper_paths(struct rf_cli *cli, const struct rf_index_home *index, size_t *count);

/* The path of a mapper as a person names it: a file, "bundled:NAME", or the name of one in use.
 * Allocated. */
char *rf_mapper_find(struct rf_cli *cli, const char *word);
/* The mappers that the command's arguments name; without arguments: those in use. */
char **rf_mapper_arguments(struct rf_cli *cli, size_t *count);

/* The program of the jail: $REFUGE_MAPPER, or NULL for the one beside this program. */
const char *rf_mapper_program(void);

/* Open the index's database: to read, or to write waiting as --wait says. NULL: told, *code set. */
struct rf_sink *rf_index_home_sink(struct rf_cli *cli, const struct rf_index_home *index,
                                   bool write, int *code);

/* Whether the index is paused: a file says so, which needs no lock of the index. */
bool rf_index_paused(const struct rf_index_home *index);

/* What the live lane holds; zeroes when it cannot be read. */
void rf_index_home_counts(const struct rf_index_home *index, struct rf_sink_counts *out);

#endif
