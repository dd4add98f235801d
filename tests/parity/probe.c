/* What a program sees of itself. Its own name chooses what it does: see main(). */
#include "probe.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static void put(const char *text) {
    for (const unsigned char *at = (const unsigned char *)text; *at; at++)
        if (*at > ' ' && *at < 0x7f && *at != '\\')
            putchar(*at);
        else
            printf("\\x%02x", *at);
}

void fact(const char *row, const char *key, const char *format, ...) {
    static char value[1 << 17];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(value, sizeof value, format, arguments);
    va_end(arguments);
    printf("fact %s ", row);
    put(*key ? key : "-");
    fputs(" =", stdout);
    put(value);
    putchar('\n');
}

const char *outcome(long result) {
    static char number[32];
    const char *name = result < 0 ? strerrorname_np(errno) : "done";

    if (name)
        return name;
    snprintf(number, sizeof number, "errno %d", errno);
    return number;
}

static void argv_and_environment(int argc, char **argv) {
    char key[16];

    for (int i = 0; i < argc; i++) {
        snprintf(key, sizeof key, "%d", i);
        fact("argv", key, "%s", argv[i]);
    }
    for (char **at = environ; *at; at++) {
        char *equals = strchr(*at, '=');
        if (!equals) {
            fact("env", *at, "(no value)");
            continue;
        }
        *equals = 0;
        fact("env", *at, "%s", equals + 1);
        *equals = '=';
    }
}

static void identity(void) {
    static gid_t groups[70000];
    char cwd[4096];
    uid_t uid[3];
    gid_t gid[3];
    int count = getgroups(70000, groups);

    getresuid(uid, uid + 1, uid + 2);
    getresgid(gid, gid + 1, gid + 2);
    fact("ids", "uid", "%d %d %d", uid[0], uid[1], uid[2]);
    fact("ids", "gid", "%d %d %d", gid[0], gid[1], gid[2]);
    for (int i = 0; i < count; i++) {
        char key[32];
        snprintf(key, sizeof key, "group-%u", groups[i]);
        fact("ids", key, "yes");
    }
    fact("cwd", "cwd", "%s", getcwd(cwd, sizeof cwd) ? cwd : outcome(-1));
    fact("process", "pid", "%s", getpid() == 1 ? "1" : "another");
    fact("process", "ppid", "%d", getppid());
    fact("process", "session-leader", "%d", getsid(0) == getpid());
    fact("process", "group-leader", "%d", getpgrp() == getpid());
    fact("process", "nice", "%d", getpriority(PRIO_PROCESS, 0));
    fact("process", "scheduler", "%d", sched_getscheduler(0));
    fact("process", "processors", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    for (int fd = 0; fd < 3; fd++) {
        static const char *const names[] = {"stdin", "stdout", "stderr"};
        char path[32];
        snprintf(path, sizeof path, "/dev/%s", names[fd]);
        int again = open(path, fd ? O_WRONLY | O_APPEND | O_NOCTTY : O_RDONLY | O_NOCTTY);
        fact("terminal", names[fd], "%s", isatty(fd) ? "terminal" : "no terminal");
        fact("standard-streams", path, "%s", outcome(again)); /* programs that log to /dev/stdout open it */
        close(again);
    }
    mode_t mask = umask(0);
    umask(mask);
    fact("umask", "umask", "%03o", mask);
    int signal_of_parent = 0;
    prctl(PR_GET_PDEATHSIG, &signal_of_parent);
    fact("process", "pdeathsig", "%d", signal_of_parent);
    fact("process", "dumpable", "%d", prctl(PR_GET_DUMPABLE));
    fact("process", "securebits", "%d", prctl(PR_GET_SECUREBITS));
    fact("process", "subreaper", "%s", prctl(PR_GET_CHILD_SUBREAPER, &signal_of_parent) ? "?" : signal_of_parent ? "yes" : "no");
}

static void status_file(void) {
    static const char *const wanted[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
    FILE *file = fopen("/proc/self/status", "r");
    char line[512];

    while (file && fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (!value)
            continue;
        *value++ = 0;
        value += strspn(value, " \t");
        value[strcspn(value, "\n")] = 0;
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
            if (!strcmp(line, wanted[i]))
                fact("capabilities", line, "%s", value);
        if (!strcmp(line, "NoNewPrivs") || !strcmp(line, "Seccomp"))
            fact("privileges", line, "%s", value);
        if (!strcmp(line, "SigBlk") || !strcmp(line, "SigIgn") || !strcmp(line, "SigCgt"))
            fact("signals", line, "%s", value);
        if (!strcmp(line, "Umask"))
            fact("umask", line, "%s", value);
        if (!strcmp(line, "Cpus_allowed_list"))
            fact("process", line, "%s", value);
    }
    if (file)
        fclose(file);
}

static void limits(void) {
    static const char *const names[] = {"CPU",    "FSIZE", "DATA",  "STACK",      "CORE",     "RSS",  "NPROC",  "NOFILE",
                                        "MEMLOCK", "AS",    "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};
    for (int i = 0; i < 16; i++) {
        struct rlimit limit;
        char soft[32] = "infinity", hard[32] = "infinity";
        if (getrlimit(i, &limit))
            continue;
        if (limit.rlim_cur != RLIM_INFINITY)
            snprintf(soft, sizeof soft, "%lu", (unsigned long)limit.rlim_cur);
        if (limit.rlim_max != RLIM_INFINITY)
            snprintf(hard, sizeof hard, "%lu", (unsigned long)limit.rlim_max);
        fact("rlimits", names[i], "%s:%s", soft, hard);
    }
}

static void others(void) {
    DIR *directory = opendir("/proc/self/fd");
    int processes = 0, mine = getpid();

    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (*entry->d_name != '.' && atoi(entry->d_name) > 2 && atoi(entry->d_name) != dirfd(directory)) {
            char path[300], target[256] = "";
            snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
            if (readlink(path, target, sizeof target - 1) < 0)
                continue;
            fact("open-files", entry->d_name, "%s", target);
        }
    if (directory)
        closedir(directory);
    directory = opendir("/proc");
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        processes += atoi(entry->d_name) > 0 && atoi(entry->d_name) != mine;
    if (directory)
        closedir(directory);
    fact("process", "other-processes", "%d", processes);

    /* An orphan's end: does somebody above reap it, or must the program itself (as PID 1)? */
    int gate[2];
    pid_t orphan = 0;
    if (pipe(gate))
        return;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        orphan = fork();
        if (orphan)
            _exit(write(gate[1], &orphan, sizeof orphan) < 0);
        usleep(20000);
        _exit(0);
    }
    waitpid(child, 0, 0);
    if (read(gate[0], &orphan, sizeof orphan) != sizeof orphan)
        orphan = 0;
    close(gate[0]);
    close(gate[1]);
    const char *fate = "never ends";
    for (int i = 0; i < 100; i++, usleep(50000)) {
        if (waitpid(orphan, 0, WNOHANG) == orphan) {
            fate = "is mine to reap";
            break;
        }
        if (kill(orphan, 0) && errno == ESRCH) {
            fate = "reaped by another";
            break;
        }
    }
    fact("process", "orphan", "%s", fate);
    fflush(stdout);
}

static void fork_many(void) {
    pid_t children[64];
    int count = 0;
    int gate[2];

    if (pipe(gate))
        return;
    fflush(stdout);
    for (; count < 64; count++) {
        children[count] = fork();
        if (children[count] < 0)
            break;
        if (!children[count]) {
            char byte;
            close(gate[1]);
            _exit(read(gate[0], &byte, 1) > 0);
        }
    }
    close(gate[1]);
    for (int i = 0; i < count; i++)
        waitpid(children[i], 0, 0);
    fact("limits", "forks", "%d", count);
}

int main(int argc, char **argv) {
    const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    struct utsname system;

    setvbuf(stdout, 0, _IOLBF, 0);
    if (!strcmp(name, "signals") || !strcmp(name, "stubborn"))
        return wait_for_signals(!strcmp(name, "stubborn"));
    if (!strcmp(name, "serve"))
        return serve(8080);
    argv_and_environment(argc, argv);
    identity();
    status_file();
    limits();
    others();
    uname(&system);
    fact("hostname", "hostname", "%s", system.nodename);
    fact("hostname", "domainname", "%s", system.domainname);
    fprintf(stderr, "fact stderr arrives =yes\n");
    look_at_files();
    look_at_network();
    attempt_system_calls();
    attempt_escapes();
    fork_many();
    fact("end", "end", "yes");
    fflush(stdout);
    return getenv("PROBE_EXIT") ? atoi(getenv("PROBE_EXIT")) : 0;
}
