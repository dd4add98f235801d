/* docker2nspawn's launcher: starts a machine's program as Docker would, where systemd-nspawn's settings cannot say how.
 *
 *   launch [--uid=N] [--gid=N] [--groups=N,N,...] [--setenv=NAME=VALUE]... [--unsetenv=NAME]... [--escaped]
 *          [--] PROGRAM ARGUMENT...
 *
 * Sets exactly these supplementary groups, then gid, then uid; changes the environment; looks PROGRAM up in the
 * environment's PATH as runc does, and becomes it, with the same PID. With --escaped, what follows it in VALUE, PROGRAM
 * and ARGUMENT has \n, \t, \\ and \xHH (not \x00) for what a settings file cannot hold.
 *
 * Exit status 127: no such program; 126: it cannot be executed; 125: anything else.
 *
 * No libc: it must run in a tree that holds nothing else. All memory is the stack; strings are decoded in place.
 */

typedef unsigned long word;

#if defined(__x86_64__)
enum { NR_write = 1, NR_execve = 59, NR_exit = 60, NR_setuid = 105, NR_setgid = 106, NR_setgroups = 116 };
__asm__(".globl _start\n_start: xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n");
static long call3(long n, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
#elif defined(__i386__)
enum { NR_exit = 1, NR_write = 4, NR_execve = 11, NR_setgroups = 206, NR_setuid = 213, NR_setgid = 214 };
__asm__(".globl _start\n_start: xor %ebp,%ebp\n mov %esp,%eax\n and $-16,%esp\n sub $12,%esp\n push %eax\n call begin\n");
static long call3(long n, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}
#elif defined(__aarch64__)
enum { NR_write = 64, NR_exit = 93, NR_setgid = 144, NR_setuid = 146, NR_setgroups = 159, NR_execve = 221 };
__asm__(".globl _start\n_start: mov x29,#0\n mov x30,#0\n mov x0,sp\n bl begin\n");
static long call3(long n, long a, long b, long c) {
    register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
#elif defined(__arm__)
enum { NR_exit = 1, NR_write = 4, NR_execve = 11, NR_setgroups = 206, NR_setuid = 213, NR_setgid = 214 };
__asm__(".globl _start\n_start: mov r11,#0\n mov r0,sp\n bic sp,sp,#7\n bl begin\n");
static long call3(long n, long a, long b, long c) {
    register long r7 __asm__("r7") = n, r0 __asm__("r0") = a, r1 __asm__("r1") = b, r2 __asm__("r2") = c;
    __asm__ volatile("svc #0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2) : "memory");
    return r0;
}
#elif defined(__riscv)
enum { NR_write = 64, NR_exit = 93, NR_setgid = 144, NR_setuid = 146, NR_setgroups = 159, NR_execve = 221 };
__asm__(".globl _start\n_start: mv a0,sp\n andi sp,sp,-16\n call begin\n");
static long call3(long n, long a, long b, long c) {
    register long a7 __asm__("a7") = n, a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2) : "memory");
    return a0;
}
#elif defined(__powerpc64__)
enum { NR_exit = 1, NR_write = 4, NR_execve = 11, NR_setuid = 23, NR_setgid = 46, NR_setgroups = 81 };
/* begin finds its constants from its own address, which the ABI wants in r12. */
__asm__(".globl _start\n_start: mr 3,1\n clrrdi 1,1,4\n li 0,0\n stdu 0,-128(1)\n bcl 20,31,1f\n1: mflr 12\n"
        " addis 12,12,(begin-1b)@ha\n addi 12,12,(begin-1b)@l\n mtctr 12\n bctrl\n");
static long call3(long n, long a, long b, long c) {
    register long r0 __asm__("r0") = n, r3 __asm__("r3") = a, r4 __asm__("r4") = b, r5 __asm__("r5") = c;
    long failed;
    /* The error is told by the summary overflow bit of cr0, with its number positive. */
    __asm__ volatile("sc\n mfcr %0"
                     : "=&r"(failed), "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5)
                     :
                     : "memory", "cr0", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "ctr", "xer");
    return failed & 0x10000000 ? -r3 : r3;
}
#elif defined(__s390x__)
enum { NR_exit = 1, NR_write = 4, NR_execve = 11, NR_setgroups = 206, NR_setuid = 213, NR_setgid = 214 };
__asm__(".globl _start\n_start: lgr %r2,%r15\n aghi %r15,-160\n brasl %r14,begin\n");
static long call3(long n, long a, long b, long c) {
    register long r1 __asm__("r1") = n, r2 __asm__("r2") = a, r3 __asm__("r3") = b, r4 __asm__("r4") = c;
    __asm__ volatile("svc 0" : "+d"(r2) : "d"(r1), "d"(r3), "d"(r4) : "memory");
    return r2;
}
#else
#error "no system calls for this processor"
#endif

enum { ENOENT = 2, EACCES = 13, ENOTDIR = 20 };

static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static word length(const char *text) {
    word n = 0;
    while (text[n]) n++;
    return n;
}

static void say(const char *text) { call3(NR_write, 2, (long)text, (long)length(text)); }

__attribute__((noreturn)) static void fail(int status, const char *what, const char *name) {
    say("docker2nspawn: ");
    say(what);
    say(name);
    say("\n");
    for (;;) call3(NR_exit, status, 0, 0);
}

/* The rest of `text` after `start`, or null when it begins otherwise. */
static char *after(char *text, const char *start) {
    while (*start)
        if (*text++ != *start++) return 0;
    return text;
}

/* A number up to 2^32-1 that ends at a NUL or a comma; `text` is moved behind it. */
static unsigned number(char **text, const char *whole) {
    unsigned long long value = 0;
    char *at = *text;
    do {
        if (*at < '0' || *at > '9' || value > 0xffffffffu) fail(125, "not a number: ", whole);
        value = value * 10 + (unsigned)(*at++ - '0');
    } while (*at && *at != ',');
    if (value > 0xfffffffeu) fail(125, "not an id: ", whole);
    *text = at;
    return (unsigned)value;
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

static void decode(char *text) {
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (*from != '\\') {
            *to++ = *from;
            continue;
        }
        from++;
        if (*from == 'n') *to++ = '\n';
        else if (*from == 't') *to++ = '\t';
        else if (*from == '\\') *to++ = '\\';
        else {
            int high = *from == 'x' ? hex(from[1]) : -1;
            int low = high >= 0 ? hex(from[2]) : -1;
            if (low < 0 || (high | low) == 0) fail(125, "not an escape in: ", text);
            *to++ = (char)(high << 4 | low);
            from += 2;
        }
    }
    *to = 0;
}

/* Does the assignment `entry` set the variable whose name is the first `n` bytes of `name`? */
static int sets(const char *entry, const char *name, word n) {
    for (word i = 0; i < n; i++)
        if (entry[i] != name[i]) return 0;
    return entry[n] == '=';
}

static word count(char **list) {
    word n = 0;
    while (list[n]) n++;
    return n;
}

static void take_out(char **environment, const char *name, word n) {
    char **to = environment;
    for (char **from = environment; *from; from++)
        if (!sets(*from, name, n)) *to++ = *from;
    *to = 0;
}

static void put_in(char **environment, char *assignment) {
    word n = 0;
    while (assignment[n] && assignment[n] != '=') n++;
    if (assignment[n] != '=') fail(125, "not an assignment: ", assignment);
    for (; *environment; environment++)
        if (sets(*environment, assignment, n)) {
            *environment = assignment;
            return;
        }
    environment[0] = assignment;
    environment[1] = 0;
}

static void set_groups(char *text) {
    unsigned groups[65536]; /* NGROUPS_MAX */
    word n = 0;
    for (char *at = text; *at;) {
        if (n == sizeof groups / sizeof *groups) fail(125, "too many groups: ", text);
        groups[n++] = number(&at, text);
        if (*at == ',') at++;
    }
    if (call3(NR_setgroups, (long)n, (long)groups, 0) < 0) fail(125, "cannot set the groups ", text);
}

/* Tries every directory of PATH, as Go's exec.LookPath; only ever returns an error number. */
static long execute(char **arguments, char **environment) {
    const char *program = arguments[0], *path = default_path;
    long worst = -ENOENT;
    for (const char *c = program; *c; c++)
        if (*c == '/') return call3(NR_execve, (long)program, (long)arguments, (long)environment);
    if (!*program) return worst;
    for (char **e = environment; *e; e++)
        if (sets(*e, "PATH", 4)) path = *e + 5;
    word name = length(program);
    for (;; path++) {
        word n = 0;
        while (path[n] && path[n] != ':') n++;
        if (n + name + 3 < 4096) {
            char candidate[4096], *to = candidate;
            if (!n) *to++ = '.';
            for (word i = 0; i < n; i++) *to++ = path[i];
            *to++ = '/';
            for (word i = 0; i <= name; i++) *to++ = program[i];
            long result = call3(NR_execve, (long)candidate, (long)arguments, (long)environment);
            if (result == -EACCES) worst = result;
            else if (result != -ENOENT && result != -ENOTDIR) return result;
        }
        path += n;
        if (!*path) return worst;
    }
}

__attribute__((noreturn, used)) void begin(word *stack) {
    word argument_count = *stack;
    char **arguments = (char **)(stack + 1), **given = arguments + argument_count + 1;
    char *environment[count(given) + argument_count + 1];
    for (word i = 0; i <= count(given); i++) environment[i] = given[i];

    char *uid = 0, *gid = 0, *groups = 0, *value;
    int escaped = 0;
    char **at = arguments + 1;
    for (; *at && (*at)[0] == '-' && (*at)[1] == '-'; at++) {
        if (!(*at)[2]) {
            at++;
            break;
        }
        if ((value = after(*at, "--uid="))) uid = value;
        else if ((value = after(*at, "--gid="))) gid = value;
        else if ((value = after(*at, "--groups="))) groups = value;
        else if ((value = after(*at, "--unsetenv="))) take_out(environment, value, length(value));
        else if ((value = after(*at, "--setenv="))) {
            if (escaped) decode(value);
            put_in(environment, value);
        } else if ((value = after(*at, "--escaped")) && !*value) escaped = 1;
        else fail(125, "unknown option ", *at);
    }
    if (!*at) fail(125, "no program", "");
    for (char **argument = at; escaped && *argument; argument++) decode(*argument);

    if (groups) set_groups(groups);
    value = gid;
    if (gid && (call3(NR_setgid, number(&value, gid), 0, 0) < 0 || *value)) fail(125, "cannot set the gid ", gid);
    value = uid;
    if (uid && (call3(NR_setuid, number(&value, uid), 0, 0) < 0 || *value)) fail(125, "cannot set the uid ", uid);

    long error = execute(at, environment);
    if (error == -ENOENT) fail(127, "there is no program ", *at);
    fail(126, error == -EACCES ? "no permission to execute " : "cannot execute ", *at);
}
