/* Attempts to get out, or at what is the host's. Each is stopped before it would change anything there. */
#include "probe.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>

/* A file in the root of the host alone. */
#define MARKER "host-marker"

/* "done" or "refused": which error refuses does not matter here. */
static void attempt(const char *name, int succeeded) {
    fact("escape", name, "%s", succeeded ? "done" : "refused");
}

static int opens(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static int in_child(int (*action)(void)) {
    int status = -1;

    fflush(stdout);
    pid_t child = fork();
    if (!child)
        _exit(action() ? 42 : 0);
    if (child > 0)
        waitpid(child, &status, 0);
    return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 42;
}

static int chroot_escape(void) {
    int out = open("/", O_RDONLY | O_DIRECTORY);

    mkdir("/.probe-jail", 0700);
    if (chroot("/.probe-jail") || fchdir(out))
        return 0;
    for (int i = 0; i < 64; i++)
        if (chdir(".."))
            return 0;
    return chroot(".") == 0 && access("/" MARKER, F_OK) == 0;
}

static int user_namespace_mount(void) {
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && mount("none", "/dev/shm", "tmpfs", 0, 0) == 0;
}

static int join_first(void) {
    int fd = open("/proc/1/ns/mnt", O_RDONLY);
    return fd >= 0 && setns(fd, 0) == 0;
}

static int mount_proc(void) { return mount("proc", "/dev/shm", "proc", 0, 0) == 0; }
static int mount_sysfs(void) { return mount("sysfs", "/dev/shm", "sysfs", 0, 0) == 0; }
static int mount_cgroup(void) { return mount("none", "/dev/shm", "cgroup2", 0, 0) == 0; }
static int mount_tmpfs(void) { return mount("none", "/dev/shm", "tmpfs", 0, 0) == 0; }
static int bind_mount(void) { return mount("/", "/dev/shm", 0, MS_BIND, 0) == 0; }
static int remount_proc_sys(void) { return mount(0, "/proc/sys", 0, MS_REMOUNT | MS_BIND, 0) == 0; }
static int remount_sys(void) { return mount(0, "/sys", 0, MS_REMOUNT | MS_BIND, 0) == 0; }
static int remount_cgroup(void) { return mount(0, "/sys/fs/cgroup", 0, MS_REMOUNT | MS_BIND, 0) == 0; }
static int unmask_kcore(void) { return umount2("/proc/kcore", MNT_DETACH) == 0; }
static int unmask_proc_sys(void) { return umount2("/proc/sys", MNT_DETACH) == 0; }

static void devices(void) {
    static const struct {
        const char *name;
        mode_t type;
        unsigned major, minor;
    } list[] = {
        {"mem", S_IFCHR, 1, 1},     {"port", S_IFCHR, 1, 4},   {"kmsg", S_IFCHR, 1, 11},  {"tty0", S_IFCHR, 4, 0},
        {"ttyS0", S_IFCHR, 4, 64},  {"console", S_IFCHR, 5, 1}, {"tun", S_IFCHR, 10, 200}, {"fuse", S_IFCHR, 10, 229},
        {"kvm", S_IFCHR, 10, 232},  {"loop-control", S_IFCHR, 10, 237}, {"loop0", S_IFBLK, 7, 0}, {"sda", S_IFBLK, 8, 0},
        {"vda", S_IFBLK, 254, 0},   {"vda-253", S_IFBLK, 253, 0}, {"rtc", S_IFCHR, 250, 0}, {"hwrng", S_IFCHR, 10, 183},
        {"vsock", S_IFCHR, 10, 121}, {"uinput", S_IFCHR, 10, 223},
    };
    char name[64];

    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        int made = mknod("/.probe-device", list[i].type | 0600, makedev(list[i].major, list[i].minor)) == 0;
        snprintf(name, sizeof name, "open-made-device-%s", list[i].name);
        /* No such driver (ENXIO, ENODEV): it was let through all the same. */
        int fd = made ? open("/.probe-device", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1;
        attempt(name, fd >= 0 || (made && errno != EPERM && errno != EACCES));
        if (fd >= 0)
            close(fd);
        unlink("/.probe-device");
    }
}

static void writes(void) {
    static const char *const paths[] = {
        "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/sysrq", "/proc/sys/vm/panic_on_oom", "/proc/sys/vm/drop_caches", "/proc/sys/fs/file-max",
        "/proc/sys/fs/binfmt_misc/register", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmax", "/proc/irq/default_smp_affinity",
        "/proc/1/oom_score_adj", "/proc/1/mem", "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/mm/ksm/run",
        "/sys/module/kernel/parameters/panic", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/cgroup.subtree_control",
        "/sys/fs/cgroup/cgroup.freeze", "/sys/fs/cgroup/cgroup.max.depth", "/sys/kernel/mm/transparent_hugepage/enabled",
        "/proc/kcore", "/proc/self/attr/current", "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/net/tun", "/dev/fuse", "/dev/console",
    };
    char name[128];

    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        snprintf(name, sizeof name, "write:%s", paths[i]);
        attempt(name, opens(paths[i], O_WRONLY));
    }
}

/* Sockets of the host's services that can be reached through the file system. */
static void foreign_sockets(void) {
    static const char *const directories[] = {"/run", "/run/host", "/run/systemd", "/run/dbus", "/run/systemd/nspawn", "/run/systemd/private"};

    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
        DIR *directory = opendir(directories[i]);
        for (struct dirent *entry; directory && (entry = readdir(directory));) {
            struct sockaddr_un at = {.sun_family = AF_UNIX};
            struct stat status;
            char name[400];
            snprintf(name, sizeof name, "%s/%s", directories[i], entry->d_name);
            snprintf(at.sun_path, sizeof at.sun_path, "%.100s", name);
            if (lstat(name, &status) || !S_ISSOCK(status.st_mode))
                continue;
            int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
            snprintf(name, sizeof name, "reach:%.300s", at.sun_path);
            attempt(name, connect(fd, (struct sockaddr *)&at, sizeof at) == 0 || errno == EPROTOTYPE);
            close(fd);
        }
        if (directory)
            closedir(directory);
    }
}

void attempt_escapes(void) {
    static const struct {
        const char *name;
        int (*action)(void);
    } list[] = {
        {"chroot-escape", chroot_escape},     {"user-namespace-mount", user_namespace_mount},
        {"join-mount-namespace", join_first}, {"mount-proc", mount_proc},
        {"mount-sysfs", mount_sysfs},         {"mount-cgroup", mount_cgroup},
        {"mount-tmpfs", mount_tmpfs},         {"bind-mount", bind_mount},
        {"remount-proc-sys", remount_proc_sys}, {"remount-sys", remount_sys},
        {"remount-cgroup", remount_cgroup},   {"unmask-kcore", unmask_kcore},
        {"unmask-proc-sys", unmask_proc_sys},
    };
    static const char *const roads[] = {
        "/" MARKER, "/../" MARKER, "/proc/1/root/" MARKER, "/proc/1/root/../../" MARKER, "/proc/1/cwd/" MARKER,
        "/run/host/" MARKER, "/run/host/incoming/" MARKER, "/run/systemd/nspawn/" MARKER,
    };
    char name[300];

    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        attempt(list[i].name, in_child(list[i].action));
    for (size_t i = 0; i < sizeof roads / sizeof *roads; i++) {
        snprintf(name, sizeof name, "see-host:%s", roads[i]);
        attempt(name, access(roads[i], F_OK) == 0);
    }
    mkdir("/sys/fs/cgroup/probe", 0755);
    attempt("make-cgroup", access("/sys/fs/cgroup/probe", F_OK) == 0);
    rmdir("/sys/fs/cgroup/probe");
    rmdir("/.probe-jail");
    attempt("trace-parent", getppid() > 0 && ptrace(PTRACE_SEIZE, getppid(), 0, 0) == 0);
    devices();
    writes();
    foreign_sockets();
}
