/* Makes every system call, each in a child, with arguments that no call can do anything with; prints what came of it:
 *
 *     call 165 1        native call 165 failed with errno 1; 0: it succeeded
 *     call32 165 1      the same of the 32-bit calls
 *     call 34 blocks    it did not return, and a signal ended it
 *     rule NAME 1       one of the calls below with arguments that a filter looks at
 *
 * Static, for x86-64: it runs in any image. */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST 475 /* some more than there are */
#define VFORK 58
#define VFORK32 190

static inline __attribute__((always_inline)) long native(long number) {
    long result;
    register long a4 __asm__("r10") = -1, a5 __asm__("r8") = -1, a6 __asm__("r9") = -1;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(-1L), "S"(-1L), "d"(-1L), "r"(a4), "r"(a5), "r"(a6)
                     : "rcx", "r11", "memory");
    return result;
}

static inline __attribute__((always_inline)) long compatible(long number) {
    int result;
    __asm__ volatile("push %%rbp; mov $-1, %%ebp; int $0x80; pop %%rbp"
                     : "=a"(result)
                     : "a"((int)number), "b"(-1), "c"(-1), "d"(-1), "S"(-1), "D"(-1)
                     : "r8", "r9", "r10", "r11", "memory");
    return result;
}

static pid_t running;

static void give_up(int unused) {
    (void)unused;
    kill(running, SIGKILL);
}

static void report(const char *kind, const char *name, pid_t child) {
    int status;
    running = child;
    alarm(1);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    alarm(0);
    if (!WIFEXITED(status))
        printf("%s %s blocks\n", kind, name);
    else
        printf("%s %s %d\n", kind, name, WEXITSTATUS(status));
    fflush(stdout);
}

/* For the exit status: errno or 0. */
static int failure(long result) { return result < 0 && result > -200 ? (int)-result : 0; }

static void probe(const char *kind, long number) {
    char name[16];
    snprintf(name, sizeof name, "%ld", number);
    pid_t child = fork();
    if (child == 0) _exit(failure(kind[4] ? compatible(number) : native(number)));
    report(kind, name, child);
}

static int done(long result) { return result < 0 ? errno : 0; }

static int a_socket(long family) { return done(socket((int)family, SOCK_STREAM, 0)); }
static int audit(long protocol) { return done(socket(AF_NETLINK, SOCK_RAW, (int)protocol)); }
static int persona(long value) { return done(syscall(SYS_personality, value)); }
static int separate(long flags) { return done(syscall(SYS_unshare, flags)); }
static int join(long flags) { return done(syscall(SYS_setns, -1, flags)); }

static int start(long flags) {
    long child = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return done(child);
}

static int start3(long flags) {
    struct clone_args arguments = {.flags = (uint64_t)flags, .exit_signal = SIGCHLD};
    long child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child == 0) _exit(0);
    return done(child);
}

static void *nothing(void *argument) { return argument; }

static int thread(long unused) {
    pthread_t one;
    int failed = pthread_create(&one, NULL, nothing, NULL);
    return unused + (failed ? failed : pthread_join(one, NULL));
}

static int no_new_privileges(long unused) { return prctl(PR_GET_NO_NEW_PRIVS, unused, 0, 0, 0); }

static int lock(long pages) {
    static char page[4096];
    return done(mlock(page, (size_t)pages));
}

static const struct {
    const char *name;
    int (*call)(long);
    long argument;
} rules[] = {
    {"socket(AF_UNIX)", a_socket, AF_UNIX},
    {"socket(AF_INET)", a_socket, AF_INET},
    {"socket(AF_INET6)", a_socket, AF_INET6},
    {"socket(AF_ALG)", a_socket, AF_ALG},
    {"socket(AF_NFC)", a_socket, AF_NFC},
    {"socket(AF_VSOCK)", a_socket, AF_VSOCK},
    {"socket(NETLINK_ROUTE)", audit, NETLINK_ROUTE},
    {"socket(NETLINK_AUDIT)", audit, NETLINK_AUDIT},
    {"personality(PER_LINUX)", persona, 0},
    {"personality(PER_LINUX32)", persona, 8},
    {"personality(UNAME26)", persona, 0x20000},
    {"personality(ADDR_NO_RANDOMIZE)", persona, 0x40000},
    {"unshare(CLONE_FILES)", separate, CLONE_FILES},
    {"unshare(CLONE_NEWUSER)", separate, CLONE_NEWUSER},
    {"unshare(CLONE_NEWNS)", separate, CLONE_NEWNS},
    {"unshare(CLONE_NEWNET)", separate, CLONE_NEWNET},
    {"setns(0)", join, 0},
    {"setns(CLONE_NEWUSER)", join, CLONE_NEWUSER},
    {"clone()", start, 0},
    {"clone(CLONE_NEWUSER)", start, CLONE_NEWUSER},
    {"clone(CLONE_NEWUSER|CLONE_NEWNS)", start, CLONE_NEWUSER | CLONE_NEWNS},
    {"clone(CLONE_NEWNS)", start, CLONE_NEWNS},
    {"clone(CLONE_NEWPID)", start, CLONE_NEWPID},
    {"clone3()", start3, 0},
    {"clone3(CLONE_NEWUSER)", start3, CLONE_NEWUSER},
    {"pthread_create", thread, 0},
    {"mlock", lock, 1},
    {"no_new_privs", no_new_privileges, 0},
};

int main(void) {
    struct sigaction action = {.sa_handler = give_up};
    sigaction(SIGALRM, &action, NULL);
    for (long number = 0; number < LAST; number++)
        if (number != VFORK) probe("call", number);
    for (long number = 0; number < LAST; number++)
        if (number != VFORK32) probe("call32", number);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        pid_t child = fork();
        if (child == 0) _exit(rules[i].call(rules[i].argument));
        report("rule", rules[i].name, child);
    }
    printf("probe end\n");
    return 0;
}
