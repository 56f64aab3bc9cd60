/* index_all.c - one command on every index of the home, each in a process of its own */
#include "cmd/index_all.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

struct child {
    const char *name;
    _Atomic pid_t pid; /* 0: not started, or ended */
    int words;         /* read end of its stderr; -1: none */
    struct rf_buf line;
};

struct children {
    struct rf_cli *cli;
    struct child *list;
    size_t count;
    uint64_t done, set_aside, unreachable; /* how those that ended did, but for other failures */
    uint64_t ended;
    int code;
};

static void stop_children(void *user)
{
    struct children *all = user;

    for (size_t i = 0; i < all->count; i++) {
        pid_t pid = all->list[i].pid;
        if (pid > 0)
            kill(pid, SIGTERM);
    }
}

/* In the child: a group of its own, so that the terminal's Ctrl-C reaches it through us alone. */
static void become(struct rf_cli *cli, const char *name, int words)
{
    char **argv = calloc((size_t)cli->argc + 2, sizeof *argv);

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_DFL);
    if (words >= 0)
        dup2(words, STDERR_FILENO);
    if (argv) {
        memcpy(argv, cli->argv, (size_t)cli->argc * sizeof *argv);
        argv[cli->argc] = strdup(name);
        (void)setenv(RF_ONE_OF_ALL, "1", 1);
        execv("/proc/self/exe", argv);
    }
    _exit(RF_EXIT_FAILED);
}

static bool start(struct children *all, struct child *child, bool piped)
{
    int ends[2] = {-1, -1};
    pid_t pid = -1;

    if (!piped || pipe2(ends, O_CLOEXEC) == 0)
        pid = fork();
    if (pid == 0)
        become(all->cli, child->name, ends[1]);
    if (ends[1] >= 0)
        close(ends[1]);
    child->words = ends[0];
    if (pid < 0) {
        all->code = rf_fail_with(all->cli, RF_EXIT_FAILED, "cannot start a process for index '%s': "
                                 "%s", child->name, strerror(errno));
        return false;
    }
    child->pid = pid;
    if (rf_stop_asked()) /* it came between the look at the list and now */
        kill(pid, SIGTERM);
    return true;
}

static void finish(struct children *all, struct child *child)
{
    int status = 0, code;

    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    child->pid = 0;
    code = WIFEXITED(status) ? WEXITSTATUS(status) : RF_EXIT_FAILED;
    all->ended++;
    all->done += code == RF_EXIT_OK;
    all->set_aside += code == RF_EXIT_SET_ASIDE;
    all->unreachable += code == RF_EXIT_UNREACHABLE;
    if (WIFSIGNALED(status))
        rf_warn(all->cli, "the process of index '%s' was ended by signal %d", child->name,
                WTERMSIG(status));
    if (all->code == RF_EXIT_OK || (all->code == RF_EXIT_SET_ASIDE && code != RF_EXIT_OK))
        all->code = code;
}

/* Hand whole lines on, each behind the index's name. */
static void tell_lines(struct child *child, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != '\n' && child->line.size < LINE_MAX_BYTES)
            rf_buf_put_u8(&child->line, (uint8_t)bytes[i]);
        if (bytes[i] == '\n') {
            fprintf(stderr, "%s: %.*s\n", child->name, (int)child->line.size,
                    child->line.data ? (const char *)child->line.data : "");
            rf_buf_clear(&child->line);
        }
    }
}

/* Read what a child says; false: it has closed its end. */
static bool read_words(struct child *child)
{
    char bytes[4096];
    ssize_t got = read(child->words, bytes, sizeof bytes);

    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    if (got > 0)
        tell_lines(child, bytes, (size_t)got);
    return got > 0;
}

static void listen_to(struct children *all)
{
    struct pollfd *polls = calloc(all->count + 1, sizeof *polls);
    size_t open = 0;

    for (size_t i = 0; i < all->count; i++)
        open += all->list[i].words >= 0;
    while (polls && open) {
        for (size_t i = 0; i < all->count; i++)
            polls[i] = (struct pollfd){.fd = all->list[i].words, .events = POLLIN};
        if (poll(polls, all->count, -1) < 0 && errno != EINTR)
            break;
        for (size_t i = 0; i < all->count; i++) {
            struct child *child = &all->list[i];
            if (child->words < 0 || !polls[i].revents || read_words(child))
                continue;
            close(child->words);
            child->words = -1;
            open--;
            finish(all, child);
        }
    }
    free(polls);
}

int rf_index_all(struct rf_cli *cli, char *const *names, size_t count, bool together)
{
    struct children all = {.cli = cli, .count = count, .code = RF_EXIT_OK};

    all.list = calloc(count + 1, sizeof *all.list);
    if (!all.list)
        abort();
    for (size_t i = 0; i < count; i++) {
        all.list[i].name = names[i];
        all.list[i].words = -1;
        rf_buf_init(&all.list[i].line, LINE_MAX_BYTES + 1);
    }
    fflush(stdout);
    rf_stop_call(stop_children, &all);
    for (size_t i = 0; i < count && !rf_stop_asked(); i++) {
        if (start(&all, &all.list[i], together) && !together)
            finish(&all, &all.list[i]);
    }
    if (together)
        listen_to(&all);
    rf_stop_call(NULL, NULL);
    for (size_t i = 0; i < count; i++)
        rf_buf_release(&all.list[i].line);
    free(all.list);
    rf_summary_int(cli, "indexes", (int64_t)count);
    rf_summary_int(cli, "up_to_date", (int64_t)(all.done + all.set_aside));
    rf_summary_int(cli, "with_set_aside", (int64_t)all.set_aside);
    rf_summary_int(cli, "unreachable", (int64_t)all.unreachable);
    rf_summary_int(cli, "failed",
                   (int64_t)(all.ended - all.done - all.set_aside - all.unreachable));
    return all.code;
}
