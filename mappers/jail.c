/*
 * jail.c - see jail.h
 *
 * Three walls, each enough against a script: the Lua environment has no function that makes a
 * dangerous call; limits and empty namespaces leave such a call nothing to reach; the filter kills
 * whoever makes it. The filter looks at arguments where a number alone would allow too much: the
 * socket calls work on the worker's own socket only, mapped memory is anonymous, and no page is
 * writable and executable at once (LuaJIT writes machine code, then turns the page).
 */
#include "mappers/jail.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/control.h"
#include "mappers/protocol.h"

/* Allowed whatever the arguments. */
static const int allowed[] = {
    SCMP_SYS(futex),      SCMP_SYS(munmap),        SCMP_SYS(mremap),        SCMP_SYS(madvise),
    SCMP_SYS(brk),        SCMP_SYS(exit_group),    SCMP_SYS(exit),          SCMP_SYS(rt_sigreturn),
    SCMP_SYS(clock_gettime), SCMP_SYS(getrandom),  SCMP_SYS(restart_syscall),
#if RF_SANITIZED
    SCMP_SYS(mmap),       SCMP_SYS(mprotect),      SCMP_SYS(write),         SCMP_SYS(sigaltstack),
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(gettid),     SCMP_SYS(getpid),
    SCMP_SYS(sched_yield), SCMP_SYS(nanosleep),    SCMP_SYS(clock_nanosleep), SCMP_SYS(prctl),
    SCMP_SYS(close),      SCMP_SYS(getrlimit),     SCMP_SYS(sysinfo),       SCMP_SYS(mincore),
#endif
};

#if RF_SANITIZED
/* A sanitizer's report looks at /proc; it may ask and is told no. */
static const int refused[] = {SCMP_SYS(openat),     SCMP_SYS(open),       SCMP_SYS(readlink),
                              SCMP_SYS(readlinkat), SCMP_SYS(newfstatat), SCMP_SYS(stat),
                              SCMP_SYS(ioctl),      SCMP_SYS(pipe)};
#endif

/* An argument is this value. */
static struct scmp_arg_cmp equals(unsigned argument, uint64_t value)
{
    return (struct scmp_arg_cmp){.arg = argument, .op = SCMP_CMP_EQ, .datum_a = value};
}

#if !RF_SANITIZED
/* These bits of an argument are as in value. */
static struct scmp_arg_cmp has_bits(unsigned argument, uint64_t bits, uint64_t value)
{
    return (struct scmp_arg_cmp){.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = bits,
                                 .datum_b = value};
}
#endif

static int add_rules(scmp_filter_ctx context)
{
    int failed = 0;

    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, allowed[i], 0);
#if RF_SANITIZED
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        failed |= seccomp_rule_add(context, SCMP_ACT_ERRNO(EACCES), refused[i], 0);
#else
    failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
                               has_bits(2, PROT_EXEC, 0),
                               has_bits(3, MAP_ANONYMOUS, MAP_ANONYMOUS));
    failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                               has_bits(2, PROT_WRITE, 0));
    failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                               has_bits(2, PROT_EXEC, 0));
#endif
    failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(sendto), 2,
                               equals(0, RF_ZYGOTE_FD), equals(4, 0));
    failed |= seccomp_rule_add(context, SCMP_ACT_ALLOW, SCMP_SYS(recvfrom), 1,
                               equals(0, RF_ZYGOTE_FD));
    return failed;
}

/* Compile once, in the zygote, so that a worker only loads. */
static enum rf_status compile(struct rf_jail *jail, struct rf_error *err)
{
    scmp_filter_ctx context = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int fd = memfd_create("filter", MFD_CLOEXEC);
    enum rf_status status = RF_IO;
    off_t size;

    if (!context || fd < 0 || add_rules(context) != 0 || seccomp_export_bpf(context, fd) != 0)
        goto out;
    size = lseek(fd, 0, SEEK_END);
    if (size <= 0 || (size_t)size / sizeof(struct sock_filter) > BPF_MAXINSNS)
        goto out;
    jail->program = malloc((size_t)size);
    if (!jail->program || pread(fd, jail->program, (size_t)size, 0) != size)
        goto out;
    jail->count = (unsigned short)((size_t)size / sizeof(struct sock_filter));
    status = RF_OK;
out:
    if (fd >= 0)
        close(fd);
    seccomp_release(context);
    return status ? rf_error_errno(err, status, errno, "cannot compile the system call filter")
                  : RF_OK;
}

/* Own network with nothing in it; a user namespace gives the right to one to those without it. */
static void leave_network(void)
{
    if (unshare(CLONE_NEWNET | CLONE_NEWIPC) != 0)
        (void)!unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC);
}

static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};

    syscall(SYS_capset, &header, none);
}

#if !RF_SANITIZED
/* A landlock rule set without a rule: no file can be opened or made any more. Rights are those of
 * the first version, which every kernel with landlock knows. */
static void leave_files(void)
{
    struct landlock_ruleset_attr all = {
        .handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1};
    int fd = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);

    if (fd < 0)
        return;
    syscall(SYS_landlock_restrict_self, fd, 0);
    close(fd);
}
#endif

enum rf_status rf_jail_prepare(struct rf_jail *jail, struct rf_error *err)
{
    enum rf_status status = compile(jail, err);

    if (status)
        return status;
    leave_network();
    drop_capabilities();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot give up new privileges");
#if !RF_SANITIZED
    leave_files();
#endif
    return RF_OK;
}

void rf_jail_release(struct rf_jail *jail)
{
    free(jail->program);
    *jail = (struct rf_jail){0};
}

static int limit(int resource, rlim_t value)
{
    struct rlimit both = {.rlim_cur = value, .rlim_max = value}, now;

    if (getrlimit((__rlimit_resource_t)resource, &now) == 0 && now.rlim_max < value)
        both.rlim_cur = both.rlim_max = now.rlim_max; /* the user's own limit is lower */
    return setrlimit((__rlimit_resource_t)resource, &both);
}

static enum rf_status set_limits(uint32_t memory_mb, struct rf_error *err)
{
    int failed = 0;

    failed |= limit(RLIMIT_NOFILE, 0);
    failed |= limit(RLIMIT_NPROC, 0);
    failed |= limit(RLIMIT_FSIZE, 0);
    failed |= limit(RLIMIT_CORE, 0);
    failed |= limit(RLIMIT_MEMLOCK, 0);
    failed |= limit(RLIMIT_MSGQUEUE, 0);
    failed |= limit(RLIMIT_CPU, RF_WORKER_CPU_S);
    if (!RF_SANITIZED)
        failed |= limit(RLIMIT_AS, (rlim_t)memory_mb << 20);
    return failed ? rf_error_errno(err, RF_IO, errno, "cannot set resource limits") : RF_OK;
}

enum rf_status rf_jail_enter(const struct rf_jail *jail, int keep_fd, uint32_t memory_mb,
                             struct rf_error *err)
{
    struct sock_fprog program = {.len = jail->count, .filter = jail->program};
    enum rf_status status;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        close_range((unsigned)keep_fd + 1, ~0u, 0) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot close descriptors");
    if (RF_SAFEGUARD("jail-rlimits")) {
        status = set_limits(memory_mb, err);
        if (status)
            return status;
    }
    if (RF_SAFEGUARD("jail-seccomp") &&
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot install the system call filter");
    return RF_OK;
}
