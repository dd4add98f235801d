/* System calls with harmless arguments: what is seen is who refuses them, and with which error. */
#include "probe.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

enum { CLONE3_SIZE = 88 };

static long in_child(long (*action)(void)) {
    int channel[2];
    long answer[2] = {-1, ECHILD};

    if (pipe(channel))
        return -1;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        answer[0] = action();
        answer[1] = errno;
        _exit(write(channel[1], answer, sizeof answer) < 0);
    }
    close(channel[1]);
    if (read(channel[0], answer, sizeof answer) != sizeof answer)
        answer[1] = EPIPE; /* killed */
    close(channel[0]);
    if (child > 0)
        waitpid(child, 0, 0);
    errno = (int)answer[1];
    return answer[0];
}

static long unshare_user(void) { return unshare(CLONE_NEWUSER); }
static long unshare_mount(void) { return unshare(CLONE_NEWNS); }
static long unshare_net(void) { return unshare(CLONE_NEWNET); }
static long unshare_pid(void) { return unshare(CLONE_NEWPID); }
static long unshare_cgroup(void) { return unshare(CLONE_NEWCGROUP); }
static long unshare_files(void) { return unshare(CLONE_FILES); }
static long set_namespace(void) { return setns(open("/proc/self/ns/uts", O_RDONLY), 0); }
static long trace_me(void) { return ptrace(PTRACE_TRACEME, 0, 0, 0); }
static long io_level(void) { return syscall(SYS_iopl, 3); }
static long io_port(void) { return syscall(SYS_ioperm, 0x80, 1, 1); }
static long change_root(void) { return chroot("/"); }
static long own_name(void) { return syscall(SYS_sethostname, "", -1); }
static long own_domain(void) { return syscall(SYS_setdomainname, "", -1); }
static long personality_32(void) { return syscall(SYS_personality, PER_LINUX32); }
static long personality_other(void) { return syscall(SYS_personality, PER_SVR4); }
static long personality_fixed(void) { return syscall(SYS_personality, ADDR_NO_RANDOMIZE); }
static long session_keyring(void) { return syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -3, 0); }
static long nice_less(void) { return setpriority(PRIO_PROCESS, 0, -5); }
static long real_time(void) {
    struct sched_param parameters = {.sched_priority = 1};
    return sched_setscheduler(0, SCHED_FIFO, &parameters);
}
static long clone_user(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (!child)
        _exit(0);
    return child;
}
static long clone3_user(void) {
    unsigned long arguments[CLONE3_SIZE / 8] = {CLONE_NEWUSER, [4] = SIGCHLD};
    long child = syscall(SYS_clone3, arguments, CLONE3_SIZE);
    if (!child)
        _exit(0);
    return child;
}
static long clone3_plain(void) {
    unsigned long arguments[CLONE3_SIZE / 8] = {[4] = SIGCHLD};
    long child = syscall(SYS_clone3, arguments, CLONE3_SIZE);
    if (!child)
        _exit(0);
    return child;
}
static long make_device(void) {
    long made = mknod("/.probe-null", S_IFCHR | 0600, 0x103);
    int error = errno;
    unlink("/.probe-null");
    errno = error;
    return made;
}
static long set_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return clock_settime(CLOCK_MONOTONIC, &now);
}

static const struct {
    const char *name;
    long (*action)(void);
} in_children[] = {
    {"unshare-user", unshare_user},
    {"unshare-mount", unshare_mount},
    {"unshare-net", unshare_net},
    {"unshare-pid", unshare_pid},
    {"unshare-cgroup", unshare_cgroup},
    {"unshare-files", unshare_files},
    {"clone-user", clone_user},
    {"clone3-user", clone3_user},
    {"clone3", clone3_plain},
    {"setns", set_namespace},
    {"ptrace-traceme", trace_me},
    {"iopl", io_level},
    {"ioperm", io_port},
    {"chroot", change_root},
    {"mknod", make_device},
    {"sethostname", own_name},
    {"setdomainname", own_domain},
    {"personality-linux32", personality_32},
    {"personality-svr4", personality_other},
    {"personality-no-randomize", personality_fixed},
    {"keyctl", session_keyring},
    {"clock_settime", set_clock},
    {"nice", nice_less},
    {"sched-fifo", real_time},
};

static void sockets(void) {
    static const struct {
        const char *name;
        int family, type, protocol;
    } kinds[] = {
        {"unix", AF_UNIX, SOCK_STREAM, 0},        {"inet-tcp", AF_INET, SOCK_STREAM, 0},
        {"inet-udp", AF_INET, SOCK_DGRAM, 0},     {"inet-ping", AF_INET, SOCK_DGRAM, 1},
        {"inet-raw", AF_INET, SOCK_RAW, 1},       {"inet6-tcp", AF_INET6, SOCK_STREAM, 0},
        {"inet6-raw", AF_INET6, SOCK_RAW, 58},    {"packet-raw", AF_PACKET, SOCK_RAW, 0},
        {"packet-dgram", AF_PACKET, SOCK_DGRAM, 0}, {"netlink-route", AF_NETLINK, SOCK_RAW, 0},
        {"netlink-audit", AF_NETLINK, SOCK_RAW, 9}, {"netlink-uevent", AF_NETLINK, SOCK_RAW, 15},
        {"vsock", AF_VSOCK, SOCK_STREAM, 0},      {"alg", AF_ALG, SOCK_SEQPACKET, 0},
        {"xdp", 44, SOCK_RAW, 0},                 {"key", AF_KEY, SOCK_RAW, 2},
        {"sctp", AF_INET, SOCK_STREAM, 132},      {"mptcp", AF_INET, SOCK_STREAM, 262},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int fd = socket(kinds[i].family, kinds[i].type, kinds[i].protocol);
        fact("sockets", kinds[i].name, "%s", outcome(fd));
        close(fd);
    }
}

static void try(const char *name, long result) {
    fact("syscalls", name, "%s", outcome(result));
}

void attempt_system_calls(void) {
    char buffer[64] = {0};
    struct timezone *no_zone = 0;

    for (size_t i = 0; i < sizeof in_children / sizeof *in_children; i++)
        try(in_children[i].name, in_child(in_children[i].action));
    try("mount", mount("none", "/", "no-such-type", 0, 0));
    try("umount2", umount2("/proc/self", 0));
    try("pivot_root", syscall(SYS_pivot_root, "/", "/"));
    try("mount_setattr", syscall(SYS_mount_setattr, -1, "", 0, buffer, 8));
    try("move_mount", syscall(SYS_move_mount, -1, "", -1, "", 0));
    try("fsopen", syscall(SYS_fsopen, "no-such-type", 0));
    try("fspick", syscall(SYS_fspick, AT_FDCWD, "/", 0x4000));
    try("fsmount", syscall(SYS_fsmount, -1, 0, 0));
    try("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */));
    try("add_key", syscall(SYS_add_key, "user", "x", "x", 1, 0));
    try("request_key", syscall(SYS_request_key, "user", "x", 0, 0));
    try("bpf", syscall(SYS_bpf, 0, buffer, 0));
    try("perf_event_open", syscall(SYS_perf_event_open, 0, 0, -1, -1, 0));
    try("kexec_load", syscall(SYS_kexec_load, 0, 1000, 0, 0));
    try("kexec_file_load", syscall(SYS_kexec_file_load, -1, -1, 0, 0, 0x1000));
    try("init_module", syscall(SYS_init_module, 0, 0, ""));
    try("finit_module", syscall(SYS_finit_module, -1, "", 0));
    try("delete_module", syscall(SYS_delete_module, "no_such_module", O_NONBLOCK));
    try("reboot", syscall(SYS_reboot, 0, 0, 0, 0));
    try("swapon", syscall(SYS_swapon, "/no/such/file", 0));
    try("swapoff", syscall(SYS_swapoff, "/no/such/file"));
    try("acct", syscall(SYS_acct, "/no/such/file"));
    try("settimeofday", syscall(SYS_settimeofday, 0, no_zone));
    try("adjtimex-query", syscall(SYS_adjtimex, memset(calloc(1, 1024), 0, 1024)));
    try("userfaultfd", syscall(SYS_userfaultfd, 0));
    try("io_uring_setup", syscall(SYS_io_uring_setup, 1, 0));
    try("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, buffer, 0));
    try("name_to_handle_at", syscall(SYS_name_to_handle_at, -1, "x", buffer, buffer, 0));
    try("process_vm_readv", syscall(SYS_process_vm_readv, getpid(), 0, 0, 0, 0, 0));
    try("process_madvise", syscall(SYS_process_madvise, -1, 0, 0, 0, 0));
    try("kcmp", syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0));
    try("pidfd_open", syscall(SYS_pidfd_open, getpid(), 0));
    try("pidfd_getfd", syscall(SYS_pidfd_getfd, -1, 0, 0));
    try("quotactl", syscall(SYS_quotactl, 0x800007 << 8, "/", 0, 0));
    try("nfsservctl", syscall(SYS_nfsservctl, 0, 0, 0));
    try("lookup_dcookie", syscall(SYS_lookup_dcookie, 0, 0, 0));
    try("syslog-size", syscall(SYS_syslog, 10, 0, 0));
    try("vhangup", syscall(SYS_vhangup));
    try("personality-query", syscall(SYS_personality, 0xffffffff));
    try("fanotify_init", syscall(SYS_fanotify_init, 0, 0));
    try("landlock", syscall(SYS_landlock_create_ruleset, 0, 0, 1));
    try("memfd_create", syscall(SYS_memfd_create, "x", 0));
    try("memfd_secret", syscall(SYS_memfd_secret, 0));
    try("get_mempolicy", syscall(SYS_get_mempolicy, 0, 0, 0, 0, 0));
    try("set_mempolicy", syscall(SYS_set_mempolicy, 0, 0, 0));
    try("mbind", syscall(SYS_mbind, 0, 0, 0, 0, 0, 0));
    try("move_pages", syscall(SYS_move_pages, 0, 0, 0, 0, 0, 0));
    try("migrate_pages", syscall(SYS_migrate_pages, getpid(), 0, 0, 0));
    try("seccomp", syscall(SYS_seccomp, 2 /* GET_ACTION_AVAIL */, 0, buffer));
    try("bogus", syscall(9999));
    try("uselib", syscall(SYS_uselib, 0));
    try("ustat", syscall(SYS_ustat, 0, 0));
    try("sysfs", syscall(SYS_sysfs, 3));
    try("modify_ldt", syscall(SYS_modify_ldt, 0, buffer, 0));
    try("mlock2", syscall(SYS_mlock2, 0, 0, 0));
    sockets();
}
