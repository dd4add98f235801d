/* Files and mounts: below /run, /tmp, /dev, what of /proc and /sys can be read and written. */
#include "probe.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

static const char *kind(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFDIR: return "directory";
    case S_IFREG: return "file";
    case S_IFLNK: return "link";
    case S_IFCHR: return "device";
    case S_IFBLK: return "block device";
    case S_IFIFO: return "pipe";
    default: return "socket";
    }
}

static void describe(const char *row, const char *path) {
    struct stat status;
    char target[512] = "";

    if (lstat(path, &status)) {
        fact(row, path, "%s", outcome(-1));
    } else if (S_ISLNK(status.st_mode)) {
        if (readlink(path, target, sizeof target - 1) < 0)
            snprintf(target, sizeof target, "?");
        fact(row, path, "link to %s", target);
    } else if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) {
        fact(row, path, "%s %u:%u %o %u:%u", kind(status.st_mode), major(status.st_rdev), minor(status.st_rdev),
             status.st_mode & 07777, status.st_uid, status.st_gid);
    } else {
        fact(row, path, "%s %o %u:%u", kind(status.st_mode), status.st_mode & 07777, status.st_uid, status.st_gid);
    }
}

static const char *walked_row;

static int walked(const char *path, const struct stat *status, int type, struct FTW *where) {
    (void)status, (void)type;
    if (where->level > 0 && where->level < 4)
        describe(walked_row, path);
    return 0;
}

static void tree(const char *row, const char *path) {
    walked_row = row;
    describe(row, path);
    nftw(path, walked, 16, FTW_PHYS);
}

static const char *writable_example;

static int write_check(const char *path, const struct stat *status, int type, struct FTW *where) {
    static char example[4096];

    (void)status, (void)where;
    if (type != FTW_F || access(path, W_OK))
        return 0;
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return 0;
    close(fd);
    snprintf(example, sizeof example, "%s", path);
    writable_example = example;
    return 1;
}

/* Can any file below be opened for writing? Nothing is written. */
static void any_writable(const char *path) {
    writable_example = 0;
    nftw(path, write_check, 16, FTW_PHYS);
    fact("writable-api-files", path, "%s", writable_example ? writable_example : "none");
}

static void readable(const char *row, const char *path) {
    char byte[4096];
    struct stat status;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    ssize_t got = -1;

    if (fd < 0) {
        fact(row, path, "%s", outcome(-1));
        return;
    }
    if (!fstat(fd, &status) && S_ISDIR(status.st_mode)) {
        DIR *directory = fdopendir(fd);
        int entries = 0;
        for (struct dirent *entry; directory && (entry = readdir(directory));)
            entries += *entry->d_name != '.';
        fact(row, path, "%s", entries ? "has entries" : "empty");
        if (directory)
            closedir(directory);
        return;
    }
    got = read(fd, byte, sizeof byte);
    fact(row, path, "%s", got < 0 ? outcome(-1) : got ? "has content" : "empty");
    close(fd);
}

static void mounts(void) {
    FILE *file = fopen("/proc/self/mountinfo", "r");
    char line[4096], point[2048], type[64], options[512];

    while (file && fgets(line, sizeof line, file)) {
        struct statvfs system;
        struct stat status;
        char *dash = strstr(line, " - ");
        if (!dash || sscanf(line, "%*d %*d %*s %*s %2047s %511s", point, options) != 2 || sscanf(dash, " - %63s", type) != 1)
            continue;
        int read_only = !statvfs(point, &system) && (system.f_flag & ST_RDONLY);
        fact("mounts", point, "%s %s", read_only ? "ro" : "rw", type);
        if (!stat(point, &status) && !strncmp(point, "/etc/", 5))
            fact("mounted-files", point, "%s %o %u:%u", kind(status.st_mode), status.st_mode & 07777, status.st_uid, status.st_gid);
    }
    if (file)
        fclose(file);
}

static void first_line(const char *row, const char *path) {
    char line[4096] = "";
    FILE *file = fopen(path, "r");

    if (!file || !fgets(line, sizeof line, file)) {
        fact(row, path, "%s", outcome(-1));
    } else {
        line[strcspn(line, "\n")] = 0;
        for (char *at = line; *at; at++)
            if (*at == '\t')
                *at = ' ';
        fact(row, path, "%s", line);
    }
    if (file)
        fclose(file);
}

static void write_check_directory(const char *path) {
    char name[4096];

    snprintf(name, sizeof name, "%s/.probe-written", path);
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    fact("writable-directories", path, "%s", outcome(fd));
    if (fd >= 0) {
        close(fd);
        unlink(name);
    }
}

static void dev(void) {
    DIR *directory = opendir("/dev");
    char path[300];

    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (*entry->d_name == '.')
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        describe("dev", path);
    }
    if (directory)
        closedir(directory);
}

void look_at_files(void) {
    static const char *const masked[] = {
        "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/asound", "/sys/firmware", "/sys/devices/virtual/powercap",
        "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/fs/bpf", "/sys/kernel/security", "/proc/kmsg", "/dev/kmsg",
        "/proc/kallsyms", "/proc/sys/kernel/random/boot_id", "/proc/interrupts", "/proc/key-users", "/proc/modules",
    };
    static const char *const read_only[] = {
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys/kernel", "/proc/sys/vm", "/proc/sys/fs", "/proc/sys/net",
        "/proc/sys/user", "/proc/sys/debug", "/proc/acpi", "/proc/scsi", "/proc/tty", "/proc/driver", "/sys/kernel",
        "/sys/devices", "/sys/module", "/sys/fs", "/sys/power", "/sys/firmware", "/sys/bus", "/sys/block",
    };
    static const char *const settings[] = {
        "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/net/ipv4/ping_group_range",
        "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/core/somaxconn", "/proc/sys/net/ipv4/tcp_keepalive_time",
        "/proc/sys/kernel/msgmax", "/proc/sys/kernel/shmmax", "/proc/sys/kernel/sem", "/proc/sys/fs/mqueue/msg_max",
        "/proc/sys/net/ipv6/conf/all/disable_ipv6", "/proc/sys/net/ipv6/conf/lo/disable_ipv6",
    };
    static const char *const own[] = {
        "/proc/self/oom_score_adj", "/proc/self/cgroup", "/proc/self/timerslack_ns", "/proc/self/setgroups",
        "/proc/self/uid_map", "/proc/self/loginuid",
    };
    static const char *const etc[] = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/etc/localtime",
                                      "/etc/machine-id", "/.dockerenv", "/usr", "/usr/lib", "/var", "/var/log", "/root", "/var/tmp"};
    static const char *const writable[] = {"/", "/etc", "/run", "/tmp", "/var/tmp", "/usr", "/dev", "/dev/shm", "/dev/mqueue",
                                           "/sys/fs/cgroup", "/data", "/proc", "/sys", "/mnt", "/run/lock"};
    struct statvfs shm;

    tree("run", "/run");
    tree("run", "/var/run");
    tree("tmp", "/tmp");
    tree("data", "/data");
    tree("shm", "/dev/shm");
    if (!statvfs("/dev/shm", &shm))
        fact("shm", "size", "%lu KiB", (unsigned long)(shm.f_blocks * shm.f_frsize / 1024));
    dev();
    mounts();
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
        readable("masked", masked[i]);
    for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++)
        any_writable(read_only[i]);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        first_line("sysctls", settings[i]);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        first_line("process-files", own[i]);
    for (size_t i = 0; i < sizeof etc / sizeof *etc; i++)
        describe("etc", etc[i]);
    for (size_t i = 0; i < sizeof writable / sizeof *writable; i++)
        write_check_directory(writable[i]);
}
