/*
 * bench.c - clocks, rounds in processes of their own, and the table
 *
 * CPU of the processes below is read from two places, as neither has all of it: those that were
 * waited for from getrusage, those still running from /proc (schedstat has nanoseconds, stat the
 * time of their own dead children).
 */
#include "bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/json.h"

#define ROUNDS_MAX 64
#define SIDES_MAX 6
#define DEPTH_MAX 8 /* processes below processes */

extern char **environ;

/* ---- failing ---- */

void bench_die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

void bench_must(enum rf_status status, const struct rf_error *err, const char *what)
{
    if (status != RF_OK)
        bench_die("%s: %s (%s)", what, err && err->message[0] ? err->message : "failed",
                  rf_status_name(status));
}

/* ---- clocks ---- */

static double clock_s(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double bench_wall(void)
{
    return clock_s(CLOCK_MONOTONIC);
}

uint64_t bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static double timeval_s(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

/* The start of a small /proc file, with a NUL; false when it is gone. */
static bool read_proc(pid_t pid, const char *name, char *out, size_t size)
{
    char path[128];
    ssize_t got;
    int fd;

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    got = read(fd, out, size - 1);
    close(fd);
    if (got < 0)
        return false;
    out[got] = '\0';
    return true;
}

struct below {
    double cpu_s;
    uint64_t peak_kb;
};

static void add_process(pid_t pid, struct below *below)
{
    char text[4096], *at;
    unsigned long utime = 0, stime = 0;

    if (read_proc(pid, "schedstat", text, sizeof text))
        below->cpu_s += strtod(text, NULL) * 1e-9;
    /* stat: behind the name in brackets, fields 16 and 17 are the dead children's ticks. */
    if (read_proc(pid, "stat", text, sizeof text) && (at = strrchr(text, ')')) != NULL) {
        for (int field = 2; at && field < 16; field++)
            at = strchr(at + 1, ' ');
        if (at) {
            utime = strtoul(at, &at, 10);
            stime = strtoul(at, &at, 10);
        }
        below->cpu_s += (double)(utime + stime) / (double)sysconf(_SC_CLK_TCK);
    }
    if (read_proc(pid, "status", text, sizeof text) && (at = strstr(text, "VmHWM:")) != NULL) {
        uint64_t peak = strtoull(at + 6, NULL, 10);
        if (peak > below->peak_kb)
            below->peak_kb = peak;
    }
}

/* Add the processes below pid, whichever of its threads started them. */
static void add_below(pid_t pid, int depth, struct below *below)
{
    char path[128], text[4096], name[64];
    struct dirent *entry;
    DIR *tasks;

    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    tasks = depth < DEPTH_MAX ? opendir(path) : NULL;
    while (tasks && (entry = readdir(tasks)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "task/%.20s/children", entry->d_name);
        if (!read_proc(pid, name, text, sizeof text))
            continue;
        for (char *at = text, *end; ; at = end) {
            pid_t child = (pid_t)strtol(at, &end, 10);
            if (end == at)
                break;
            add_process(child, below);
            add_below(child, depth + 1, below);
        }
    }
    if (tasks)
        closedir(tasks);
}

/* CPU so far: of the process itself, and of all below it. */
static void read_cpu(double *own, double *all, uint64_t *child_peak_kb)
{
    struct rusage dead;
    struct below below = {0};

    getrusage(RUSAGE_CHILDREN, &dead);
    add_below(getpid(), 0, &below);
    *own = clock_s(CLOCK_PROCESS_CPUTIME_ID);
    *all = *own + timeval_s(dead.ru_utime) + timeval_s(dead.ru_stime) + below.cpu_s;
    *child_peak_kb = (uint64_t)dead.ru_maxrss > below.peak_kb ? (uint64_t)dead.ru_maxrss
                                                              : below.peak_kb;
}

void bench_start(struct bench_cost *cost)
{
    uint64_t peak;

    read_cpu(&cost->own_cpu_s, &cost->cpu_s, &peak);
    cost->wall_s = bench_wall();
}

void bench_stop(struct bench_cost *cost, uint64_t items)
{
    double own, all, wall = bench_wall();
    struct rusage self;

    read_cpu(&own, &all, &cost->child_peak_kb);
    getrusage(RUSAGE_SELF, &self);
    cost->wall_s = wall - cost->wall_s;
    cost->own_cpu_s = own - cost->own_cpu_s;
    cost->cpu_s = all - cost->cpu_s;
    cost->peak_kb = (uint64_t)self.ru_maxrss;
    cost->items = items;
}

void bench_note(struct bench_cost *cost, const char *name, double value)
{
    struct bench_note *note = &cost->notes[cost->note_count];

    if (cost->note_count == BENCH_NOTES_MAX)
        bench_die("more than %d notes", BENCH_NOTES_MAX);
    snprintf(note->name, sizeof note->name, "%s", name);
    note->value = value;
    cost->note_count++;
}

void bench_skip(struct bench_cost *cost, const char *why)
{
    cost->skipped = true;
    cost->note_count = 0;
    bench_note(cost, why, 0);
}

/* ---- processes ---- */

void bench_prepare(void (*run)(void *arg, struct bench_cost *cost), void *arg,
                   struct bench_cost *cost)
{
    struct bench_cost *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    pid_t pid;

    if (shared == MAP_FAILED)
        bench_die("cannot share memory: %s", strerror(errno));
    memset(shared, 0, sizeof *shared);
    fflush(NULL);
    pid = fork();
    if (pid < 0)
        bench_die("cannot fork: %s", strerror(errno));
    if (pid == 0) {
        run(arg, shared);
        fflush(NULL);
        _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        bench_die("a side ended with status %d", status);
    if (cost)
        *cost = *shared;
    munmap(shared, sizeof *shared);
}

int bench_spawn(const char *const *argv, const char *output)
{
    posix_spawn_file_actions_t actions;
    int status = 0, code;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, output ? output : "/dev/null",
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
    code = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (code != 0)
        return -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- files ---- */

const char *bench_path(const struct bench *bench, const char *format, ...)
{
    static char paths[4][1024];
    static unsigned next;
    char *path = paths[next++ % 4];
    va_list args;
    int used;

    used = snprintf(path, sizeof paths[0], "%s/", bench->dir);
    va_start(args, format);
    vsnprintf(path + used, sizeof paths[0] - (size_t)used, format, args);
    va_end(args);
    return path;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info, (void)kind, (void)where;
    return remove(path);
}

void bench_remove(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- options ---- */

static bool option(const char *arg, const char *name, const char **value)
{
    size_t size = strlen(name);

    if (strncmp(arg, name, size) != 0 || arg[size] != '=')
        return false;
    *value = arg + size + 1;
    return true;
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);

    if (end == text || *end != '\0' || value == 0)
        bench_die("'%s' is no number above 0", text);
    return value;
}

void bench_open(struct bench *bench, const char *name, int *argc, char **argv)
{
    const char *value, *base = getenv("REFUGE_BENCH_DIR");
    int kept = 1;

    *bench = (struct bench){.name = name, .rounds = 0, .table = true};
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            bench->quick = true;
        else if (strcmp(argv[i], "--json") == 0)
            bench->json = stdout, bench->table = false;
        else if (option(argv[i], "--json", &value))
            bench->json = fopen(value, "we");
        else if (option(argv[i], "--rounds", &value))
            bench->rounds = (unsigned)number(value);
        else if (option(argv[i], "--count", &value))
            bench->count = number(value);
        else if (option(argv[i], "--dir", &value))
            base = value;
        else
            argv[kept++] = argv[i];
    }
    argv[*argc = kept] = NULL;
    if (bench->rounds == 0)
        bench->rounds = bench->quick ? 1 : 5;
    if (bench->rounds > ROUNDS_MAX)
        bench_die("at most %d rounds", ROUNDS_MAX);
    snprintf(bench->dir, sizeof bench->dir, "%s/bench-%s.XXXXXX", base ? base : RF_BINARY_DIR,
             name);
    if (!mkdtemp(bench->dir))
        bench_die("cannot make '%s': %s", bench->dir, strerror(errno));
    if (bench->json)
        fprintf(bench->json,
                "{\"bench\":\"%s\",\"quick\":%s,\"rounds\":%u,\"cores\":%ld,\"rows\":[",
                name, bench->quick ? "true" : "false", bench->rounds,
                sysconf(_SC_NPROCESSORS_ONLN));
}

int bench_close(struct bench *bench)
{
    bench_remove(bench->dir);
    if (bench->json) {
        fputs("\n]}\n", bench->json);
        if (fflush(bench->json) != 0)
            bench_die("cannot write the numbers: %s", strerror(errno));
    }
    return bench->rows > 0 ? 0 : 1;
}

uint64_t bench_count(const struct bench *bench, uint64_t count, uint64_t quick)
{
    if (bench->count)
        return bench->count;
    return bench->quick ? quick : count;
}

/* ---- comparing ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static double rate(const struct bench_cost *cost)
{
    return cost->wall_s > 0 ? (double)cost->items / cost->wall_s : 0;
}

static double cpu_us(const struct bench_cost *cost)
{
    return cost->items ? cost->cpu_s * 1e6 / (double)cost->items : 0;
}

/* What is printed of one side. */
struct verdict {
    double rate, cpu_us, own_cpu_us, spread; /* spread: (max - min) / median of the rates */
    double rate_ratio, cpu_ratio;            /* ours against this side */
    uint64_t peak_kb, child_peak_kb;
    struct bench_note notes[BENCH_NOTES_MAX];
};

static void judge(struct verdict *out, struct bench_cost costs[][SIDES_MAX], size_t side,
                  size_t rounds)
{
    double rates[ROUNDS_MAX], cpus[ROUNDS_MAX], owns[ROUNDS_MAX], notes[ROUNDS_MAX];
    double by_rate[ROUNDS_MAX], by_cpu[ROUNDS_MAX];

    memset(out, 0, sizeof *out);
    for (size_t r = 0; r < rounds; r++) {
        const struct bench_cost *cost = &costs[r][side], *ours = &costs[r][0];
        rates[r] = rate(cost);
        cpus[r] = cpu_us(cost);
        owns[r] = cost->items ? cost->own_cpu_s * 1e6 / (double)cost->items : 0;
        by_rate[r] = rates[r] > 0 ? rate(ours) / rates[r] : 0;
        by_cpu[r] = cpu_us(ours) > 0 ? cpus[r] / cpu_us(ours) : 0;
        if (cost->peak_kb > out->peak_kb)
            out->peak_kb = cost->peak_kb;
        if (cost->child_peak_kb > out->child_peak_kb)
            out->child_peak_kb = cost->child_peak_kb;
    }
    out->rate = median(rates, rounds);
    out->spread = out->rate > 0 ? (rates[rounds - 1] - rates[0]) / out->rate : 0;
    out->cpu_us = median(cpus, rounds);
    out->own_cpu_us = median(owns, rounds);
    out->rate_ratio = median(by_rate, rounds);
    out->cpu_ratio = median(by_cpu, rounds);
    for (size_t n = 0; n < costs[0][side].note_count; n++) {
        for (size_t r = 0; r < rounds; r++)
            notes[r] = costs[r][side].notes[n].value;
        out->notes[n] = costs[0][side].notes[n];
        out->notes[n].value = median(notes, rounds);
    }
}

static void print_side(const struct bench_side *side, size_t index, enum bench_basis basis,
                       const struct verdict *v, const struct bench_cost *cost)
{
    double ratio = basis == BENCH_BY_CPU ? v->cpu_ratio : v->rate_ratio;

    if (cost->skipped) {
        printf("  %-56s skipped: %s\n", side->name, cost->notes[0].name);
        return;
    }
    if (basis == BENCH_BY_TIME)
        printf("  %-56s %10.3f ms %9.1f us CPU", side->name, v->rate > 0 ? 1e3 / v->rate : 0,
               v->cpu_us);
    else
        printf("  %-56s %10.0f /s %9.2f us CPU", side->name, v->rate, v->cpu_us);
    printf(" %4.0f %% spread", v->spread * 100);
    if (index > 0) {
        printf("  | refuge %.2f x in rate, %.2f x in CPU", v->rate_ratio, v->cpu_ratio);
        if (side->target > 0)
            printf("; wanted %.2f x %s: %s", side->target,
                   basis == BENCH_BY_CPU ? "in CPU" : "in rate",
                   ratio >= side->target ? "met" : "MISSED");
    }
    putchar('\n');
    for (size_t n = 0; n < cost->note_count; n++)
        printf("  %56s %10.2f %s\n", "", v->notes[n].value, v->notes[n].name);
}

static void write_side(struct bench *bench, const char *work, const struct bench_side *side,
                       size_t index, enum bench_basis basis, const struct verdict *v,
                       const struct bench_cost *cost)
{
    static const char *const names[] = {"rate", "cpu", "time"};
    struct rf_buf buf;

    rf_buf_init(&buf, 1 << 16);
    rf_buf_printf(&buf, "%s\n{\"work\":", bench->rows++ ? "," : "");
    rf_json_put_string(&buf, rf_bytes_text(work));
    rf_buf_put_text(&buf, ",\"side\":");
    rf_json_put_string(&buf, rf_bytes_text(side->name));
    rf_buf_printf(&buf, ",\"ours\":%s,\"basis\":\"%s\"", index == 0 ? "true" : "false",
                  names[basis]);
    if (cost->skipped) {
        rf_buf_put_text(&buf, ",\"skipped\":");
        rf_json_put_string(&buf, rf_bytes_text(cost->notes[0].name));
    } else {
        rf_buf_printf(&buf, ",\"items\":%llu,\"per_s\":%.6g,\"cpu_us\":%.6g,\"own_cpu_us\":%.6g,"
                      "\"spread\":%.3g,\"peak_kb\":%llu,\"child_peak_kb\":%llu",
                      (unsigned long long)cost->items, v->rate, v->cpu_us, v->own_cpu_us,
                      v->spread, (unsigned long long)v->peak_kb,
                      (unsigned long long)v->child_peak_kb);
        if (index > 0)
            rf_buf_printf(&buf, ",\"ratio_rate\":%.4g,\"ratio_cpu\":%.4g", v->rate_ratio,
                          v->cpu_ratio);
        if (index > 0 && side->target > 0)
            rf_buf_printf(&buf, ",\"target\":%.4g", side->target);
        rf_buf_put_text(&buf, ",\"notes\":{");
        for (size_t n = 0; n < cost->note_count; n++) {
            rf_buf_put_text(&buf, n ? "," : "");
            rf_json_put_string(&buf, rf_bytes_text(v->notes[n].name));
            rf_buf_printf(&buf, ":%.6g", v->notes[n].value);
        }
        rf_buf_put_text(&buf, "}");
    }
    rf_buf_put_text(&buf, "}");
    if (bench->json)
        fputs(rf_buf_text(&buf), bench->json);
    rf_buf_release(&buf);
}

void bench_compare(struct bench *bench, const char *work, enum bench_basis basis,
                   const struct bench_side *sides, size_t count)
{
    static struct bench_cost costs[ROUNDS_MAX][SIDES_MAX];
    struct verdict verdict;

    if (count > SIDES_MAX)
        bench_die("at most %d sides", SIDES_MAX);
    for (size_t r = 0; r < bench->rounds; r++)
        for (size_t i = 0; i < count; i++) {
            size_t side = (i + r) % count;
            bench_prepare(sides[side].run, sides[side].arg, &costs[r][side]);
        }
    if (bench->table)
        printf("%s: %s\n", bench->name, work);
    for (size_t side = 0; side < count; side++) {
        judge(&verdict, costs, side, bench->rounds);
        if (bench->table)
            print_side(&sides[side], side, basis, &verdict, &costs[0][side]);
        write_side(bench, work, &sides[side], side, basis, &verdict, &costs[0][side]);
    }
    fflush(NULL);
}
