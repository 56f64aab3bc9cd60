/*
 * test_worker_jail.c - what a process can still do once it is jailed
 *
 * Each attack runs in a child that has entered the jail, as native code: the filter and the limits
 * have to hold without any help from Lua. An attack reports by its exit status; none of them may
 * get through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mappers/jail.h"
#include "mappers/protocol.h"

#define GOT_THROUGH 77 /* the attack worked */
#define REFUSED 0
#define MEMORY_MB 512

static pid_t victim; /* a process of ours that attacks aim at */

/* Enter the jail as a worker would; descriptor 3 is a socket. */
static void enter(void)
{
    struct rf_jail jail;
    struct rf_error err = {.status = RF_OK};
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0 || dup2(pair[0], RF_ZYGOTE_FD) < 0 ||
        rf_jail_prepare(&jail, &err) != RF_OK ||
        rf_jail_enter(&jail, RF_ZYGOTE_FD, MEMORY_MB, &err) != RF_OK) {
        fprintf(stderr, "%s\n", err.message);
        _exit(99);
    }
}

/* The wait status of an attack made in the jail. */
static int attempt(void (*attack)(void))
{
    pid_t pid = fork();
    int status = 0;

    assert_true(pid >= 0);
    if (pid == 0) {
        enter();
        attack();
        syscall(SYS_exit_group, REFUSED);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* exit_group by number: what a sanitizer does at exit is not the matter here. */
static void judge(long result)
{
    syscall(SYS_exit_group, result >= 0 ? GOT_THROUGH : REFUSED);
}

struct attack {
    const char *name;
    long number; /* of the system call */
    long args[6];
};

#define TEXT(words) (long)(words)
#define FILE_NAME TEXT("/etc/hostname")
#define NO_FILE TEXT("/tmp/refuge-jail-no-such-file")
#define MINE MAP_PRIVATE | MAP_ANONYMOUS
#define SOCK RF_ZYGOTE_FD

/* Attack number i; victim is a process of ours that some aim at. false: there is none. */
static bool find_attack(unsigned i, struct attack *out)
{
    long page = syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MINE, -1, 0);
    const struct attack attacks[] = {
        {"read a file", SYS_openat, {AT_FDCWD, FILE_NAME, O_RDONLY}},
        {"read a file, the old way", SYS_open, {FILE_NAME, O_RDONLY}},
        {"read a file, the new way", SYS_openat2, {AT_FDCWD, FILE_NAME}},
        {"create a file", SYS_creat, {NO_FILE, 0600}},
        {"look at a file", SYS_statx, {AT_FDCWD, FILE_NAME}},
        {"list a folder", SYS_getdents64, {SOCK}},
        {"make a folder", SYS_mkdirat, {AT_FDCWD, NO_FILE, 0700}},
        {"remove a file", SYS_unlinkat, {AT_FDCWD, NO_FILE}},
        {"rename a file", SYS_rename, {NO_FILE, NO_FILE}},
        {"link a file", SYS_linkat, {AT_FDCWD, NO_FILE, AT_FDCWD, NO_FILE}},
        {"change the root", SYS_chroot, {TEXT("/")}},
        {"change the folder", SYS_chdir, {TEXT("/")}},
        {"a TCP socket", SYS_socket, {AF_INET, SOCK_STREAM}},
        {"a UDP socket", SYS_socket, {AF_INET6, SOCK_DGRAM}},
        {"a Unix socket", SYS_socket, {AF_UNIX, SOCK_STREAM}},
        {"a netlink socket", SYS_socket, {AF_NETLINK, SOCK_RAW}},
        {"a pair of sockets", SYS_socketpair, {AF_UNIX, SOCK_STREAM}},
        {"connect its socket", SYS_connect, {SOCK}},
        {"listen on its socket", SYS_listen, {SOCK, 1}},
        {"send a message", SYS_sendmsg, {SOCK}},
        {"receive a descriptor", SYS_recvmsg, {SOCK}},
        {"send to an address", SYS_sendto, {SOCK, TEXT("x"), 1, 0, TEXT("x"), 1}},
        {"send on another descriptor", SYS_sendto, {5, TEXT("x"), 1}},
        {"receive on another descriptor", SYS_recvfrom, {0, page, 1}},
        {"duplicate its socket", SYS_dup, {SOCK}},
        {"control its socket", SYS_fcntl, {SOCK, F_SETFL}},
        {"signal another", SYS_kill, {victim}},
        {"signal a thread of another", SYS_tgkill, {victim, victim}},
        {"signal by pidfd", SYS_pidfd_send_signal, {SOCK}},
        {"a pidfd", SYS_pidfd_open, {victim}},
        {"a descriptor of another", SYS_pidfd_getfd, {SOCK, 0}},
        {"trace another", SYS_ptrace, {PTRACE_SEIZE, victim}},
        {"be traced", SYS_ptrace, {PTRACE_TRACEME}},
        {"read another's memory", SYS_process_vm_readv, {victim}},
        {"write another's memory", SYS_process_vm_writev, {victim}},
        {"compare with another", SYS_kcmp, {victim, victim}},
        {"run a program", SYS_execve, {TEXT("/bin/true")}},
        {"run a descriptor", SYS_execveat, {SOCK, TEXT("")}},
        {"fork", SYS_fork, {0}},
        {"clone", SYS_clone, {SIGCHLD}},
        {"clone, the new way", SYS_clone3, {0}},
        {"mount", SYS_mount, {TEXT("none"), NO_FILE, TEXT("tmpfs")}},
        {"open a tree", SYS_open_tree, {AT_FDCWD, TEXT("/")}},
        {"leave a namespace", SYS_unshare, {CLONE_NEWUSER}},
        {"join a namespace", SYS_setns, {SOCK}},
        {"load a BPF program", SYS_bpf, {0}},
        {"perf events", SYS_perf_event_open, {0}},
        {"io_uring", SYS_io_uring_setup, {1}},
        {"handle page faults", SYS_userfaultfd, {0}},
        {"raise its limits", SYS_prlimit64, {0, RLIMIT_NOFILE}},
        {"become another user", SYS_setuid, {1}},
        {"a memfd", SYS_memfd_create, {TEXT("x")}},
        {"a timer", SYS_timer_create, {CLOCK_MONOTONIC}},
        {"an alarm", SYS_alarm, {1000}},
        {"set the clock", SYS_clock_settime, {CLOCK_REALTIME}},
        {"reboot", SYS_reboot, {0}},
        {"a key", SYS_add_key, {TEXT("user"), TEXT("x"), TEXT("y"), 1, -3}},
        {"System V shared memory", SYS_shmget, {IPC_PRIVATE, 4096, 0600}},
        {"a message queue", SYS_mq_open, {TEXT("x"), O_RDWR}},
        {"ioctl", SYS_ioctl, {SOCK, 0x5412, TEXT("x")}},
        {"a thread area", SYS_modify_ldt, {0}},
        {"change its personality", SYS_personality, {0xffffffff}},
        {"give itself priority", SYS_setpriority, {0, 0, 0}},
        {"swap", SYS_swapon, {NO_FILE}},
        {"load a module", SYS_finit_module, {SOCK}},
        {"load a kernel", SYS_kexec_load, {0}},
#if !RF_SANITIZED
        {"write to a descriptor", SYS_write, {SOCK, TEXT("x"), 1}},
        {"map a file", SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED, SOCK}},
        {"map executable memory", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MINE, -1}},
        {"writable and executable", SYS_mprotect, {page, 4096, PROT_WRITE | PROT_EXEC}},
#endif
    };

    if (i < sizeof attacks / sizeof attacks[0])
        *out = attacks[i];
    return i < sizeof attacks / sizeof attacks[0];
}

static struct attack chosen;

static void make_attack(void)
{
    const long *a = chosen.args;

    judge(syscall(chosen.number, a[0], a[1], a[2], a[3], a[4], a[5]));
}

static int start_victim(void **state)
{
    (void)state;
    victim = fork();
    if (victim == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    return victim < 0;
}

static int end_victim(void **state)
{
    (void)state;
    if (victim > 1) {
        kill(victim, SIGKILL);
        waitpid(victim, NULL, 0);
    }
    return 0;
}

static void test_every_call_that_reaches_out_is_fatal(void **state)
{
    unsigned fatal = 0, count = 0;

    (void)state;
    for (; find_attack(count, &chosen); count++) {
        int status = attempt(make_attack);
        bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
        fatal += killed;
        if (!killed && !(RF_SANITIZED && WIFEXITED(status) && WEXITSTATUS(status) == REFUSED))
            fail_msg("%s: wait status %x", chosen.name, (unsigned)status);
    }
    printf("%u attacks, %u ended by the filter\n", count, fatal);
    assert_true(RF_SANITIZED ? fatal > count / 2 : fatal == count);
    assert_int_equal(waitpid(victim, NULL, WNOHANG), 0); /* alive */
}

/* ---- limits hold without the filter ---- */

static void check_limit(int resource, rlim_t most)
{
    struct rlimit now;

    if (getrlimit((__rlimit_resource_t)resource, &now) != 0 || now.rlim_max > most)
        _exit(GOT_THROUGH);
}

/* In a child: limits as the jail sets them, seen before the filter forbids to look. */
static void test_limits_leave_nothing(void **state)
{
    pid_t pid = fork();
    int status;

    (void)state;
    if (pid == 0) {
        struct rf_jail none = {0}; /* an empty filter: the kernel refuses it, limits are set */
        (void)!rf_jail_enter(&none, 2, MEMORY_MB, NULL);
        check_limit(RLIMIT_NOFILE, 0);
        check_limit(RLIMIT_NPROC, 0);
        check_limit(RLIMIT_FSIZE, 0);
        check_limit(RLIMIT_CORE, 0);
        check_limit(RLIMIT_CPU, RF_WORKER_CPU_S);
        if (!RF_SANITIZED)
            check_limit(RLIMIT_AS, (rlim_t)MEMORY_MB << 20);
        if (open("/dev/null", O_RDONLY) >= 0)
            _exit(GOT_THROUGH);
        syscall(SYS_exit_group, 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- what has to work ---- */

static void live(void)
{
    struct timespec t;
    uint8_t *pages = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                          0);
    void *heap;

    if (pages == MAP_FAILED)
        syscall(SYS_exit_group, 1);
    pages[0] = 0xc3; /* machine code: return */
    if (mprotect(pages, 4096, PROT_READ | PROT_EXEC) != 0)
        syscall(SYS_exit_group, 2);
    ((void (*)(void))(uintptr_t)pages)();
    heap = malloc(8 << 20);
    if (!heap)
        syscall(SYS_exit_group, 3);
    memset(heap, 1, 8 << 20);
    free(heap);
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) != 0)
        syscall(SYS_exit_group, 4);
    if (send(RF_ZYGOTE_FD, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1 && errno != EPIPE &&
        errno != ECONNRESET) /* the other end was closed with everything above it */
        syscall(SYS_exit_group, 5);
}

static void test_a_worker_can_still_work(void **state)
{
    int status = attempt(live);

    (void)state;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("wait status %x", (unsigned)status);
}

static void use_too_much_memory(void)
{
    judge(malloc((size_t)MEMORY_MB << 20) ? 0 : -1);
}

static void test_address_space_is_limited(void **state)
{
    int status;

    (void)state;
    if (RF_SANITIZED)
        skip();
    status = attempt(use_too_much_memory);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), REFUSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_call_that_reaches_out_is_fatal, start_victim,
                                        end_victim),
        cmocka_unit_test(test_limits_leave_nothing),
        cmocka_unit_test(test_a_worker_can_still_work),
        cmocka_unit_test(test_address_space_is_limited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
