/*
 * bench.h - measuring ours beside its floor in one run
 *
 * A benchmark compares sides: refuge first, then what it is measured against. Each round runs every
 * side once, in turn, each in a forked process of its own (no heap, page or clock of one side leaks
 * into another); the order turns round by round. Printed are medians over the rounds, and the
 * median of the ratios within a round, which noise of the machine moves least. CPU is that of all
 * threads and of every process below, also those still running. Failures end the program.
 */
#ifndef RF_BENCH_BENCH_H
#define RF_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/error.h"

#define BENCH_NOTES_MAX 8

/* A number of a side's own, beside rate and CPU. */
struct bench_note {
    char name[40]; /* with its unit: "feed us/item" */
    double value;
};

/* What one round of one side cost. Filled by bench_start and bench_stop. */
struct bench_cost {
    uint64_t items;
    double wall_s, cpu_s;
    double own_cpu_s;       /* of cpu_s, the process itself with its threads */
    uint64_t peak_kb;       /* resident memory of the process itself, at most */
    uint64_t child_peak_kb; /* of the largest process below it */
    struct bench_note notes[BENCH_NOTES_MAX];
    size_t note_count;
    bool skipped;           /* this side cannot run here; notes[0].name says why */
};

struct bench_side {
    const char *name;  /* what it does, with the settings that matter */
    void (*run)(void *arg, struct bench_cost *cost);
    void *arg;
    double target;     /* ours must be at least so many times this side; 0: none */
};

enum bench_basis {
    BENCH_BY_RATE, /* items per second of wall time */
    BENCH_BY_CPU,  /* items per second of CPU, host and children */
    BENCH_BY_TIME  /* wall time of one item is what is shown, in ms */
};

struct bench {
    const char *name;
    bool quick;      /* tiny counts, one round: only shows that it runs */
    unsigned rounds;
    uint64_t count;  /* items of a round as asked with --count; 0: the program's own choice */
    char dir[512];   /* private, on a real disk, removed at the end */
    FILE *json;      /* or NULL */
    bool table;      /* rows go to stdout for a person */
    unsigned rows;
    uint64_t tmp_serial;
};

/*
 * Options: --quick, --json (to stdout, no table), --json=FILE (and the table), --rounds=N,
 * --count=N, --dir=PATH (where the working folder is made; else $REFUGE_BENCH_DIR, else the
 * build folder). argv is shifted: what is no option of these stays, *argc counts it.
 */
void bench_open(struct bench *bench, const char *name, int *argc, char **argv);
int bench_close(struct bench *bench); /* the exit status */

/* count, or as many as --count says, or `quick` with --quick. */
uint64_t bench_count(const struct bench *bench, uint64_t count, uint64_t quick);

/* Between these the side is measured; what it prepares before and undoes after is not. */
void bench_start(struct bench_cost *cost);
void bench_stop(struct bench_cost *cost, uint64_t items);
void bench_note(struct bench_cost *cost, const char *name, double value);
void bench_skip(struct bench_cost *cost, const char *why);

/* Measure, print and write one row: side 0 is refuge. */
void bench_compare(struct bench *bench, const char *work, enum bench_basis basis,
                   const struct bench_side *sides, size_t count);

/* Run once in a process of its own, as a side is; for data that many rounds read. */
void bench_prepare(void (*run)(void *arg, struct bench_cost *cost), void *arg,
                   struct bench_cost *cost);

/* A path within the working folder; lent until the next but three calls. */
const char *bench_path(const struct bench *bench, const char *format, ...) RF_PRINTF(2, 3);
void bench_remove(const char *path); /* a file, or a folder and all in it */

_Noreturn void bench_die(const char *format, ...) RF_PRINTF(1, 2);
void bench_must(enum rf_status status, const struct rf_error *err, const char *what);

double bench_wall(void);
uint64_t bench_random(uint64_t *state); /* xorshift64; *state must not be 0 */

/* Start a program (argv[0] looked up on PATH), its output into `output` (NULL: thrown away), wait,
 * answer its exit status; -1 when there is no such program. */
int bench_spawn(const char *const *argv, const char *output);

#endif
