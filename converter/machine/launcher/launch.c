/* Runs a program in a machine where the settings of systemd-nspawn cannot say what `docker run` would do.
 *
 *     launch [--escaped] [--root=PATH] [--groups=N,N,...] [--gid=N] [--uid=N] [--bounding=HEX] [--no-new-privs]
 *            [--chdir=PATH] [--keep=NAME]... [--clean] [--setenv=NAME=VALUE]... [--unsetenv=NAME]... [--]
 *            PROGRAM ARG...
 *
 * It gives the standard streams to the user, sets the supplementary groups (exactly those; none for an empty list),
 * the gid and the uid, changes the environment, finds PROGRAM as runc does and becomes it: the pid stays, and PROGRAM
 * is argv[0] as written.
 * Inheritable and ambient capabilities are always cleared, as in Docker.
 *
 * --clean takes from the environment what systemd-nspawn puts there and Docker does not (CLEANED, below), but for
 * the names given with --keep before it. Options that change the environment work in their order.
 *
 * --bounding takes every capability away that is not in the mask (as CapBnd in /proc/PID/status), for good. It is
 * for entering a machine from the host with more privileges than the machine has. Until PROGRAM runs, nobody who
 * lacks CAP_SYS_PTRACE may then look at this process (its memory, descriptors and /proc/PID/exe), and it has no
 * descriptors but 0, 1 and 2: a path in the machine cannot lead through one to the host.
 *
 * --root makes the mount point PATH, which has directories /proc, /sys and /dev, the root of this mount namespace:
 * what was mounted on those three comes along, everything else of the old root goes out of sight. That is for a tree
 * in which nothing may be made that is not its own.
 *
 * Bytes are taken as they are. After --escaped, every NAME, VALUE, PATH, PROGRAM and ARG is decoded first: \n, \t,
 * \\ and \xHH, which is any byte but NUL. Any other backslash is an error.
 *
 * PROGRAM with a slash is that file. Without one it is the first executable file of that name in the
 * directories of the machine's own PATH, where an empty entry is the current directory (Go's os/exec LookPath;
 * without PATH, Docker's default). A file that is no program is an error, and no shell is tried.
 *
 * What cannot be done is one line on stderr and an exit status as Docker has it: 125 for bad arguments and
 * ids that cannot be set, 126 for a program that cannot be executed, 127 for one that cannot be found.
 *
 * No C library and no heap: an image FROM scratch can hold it, and arguments may be as many and as long as the
 * kernel lets them be. They are decoded where they lie.
 */

typedef unsigned long word;

/* Each processor: the numbers of its system calls (with 32-bit ids), how to make one (the result is negative
 * errno), and the first instructions, which hand the kernel's stack (argc, argv, 0, env, 0) to launch(). */

#if defined(__x86_64__)
enum { WRITE = 1, EXECVE = 59, SETGROUPS = 116, SETRESUID = 117, SETRESGID = 119, EXIT_GROUP = 231 };
enum { FACCESSAT = 269, STATX = 332 };
enum { PRCTL = 157, CAPGET = 125, CAPSET = 126, CHDIR = 80, CLOSE = 3, FCHOWN = 93 };
enum { MOUNT = 165, UMOUNT2 = 166, PIVOT_ROOT = 155 };

static long call(long number, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

__asm__(".globl _start\n_start:\n xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call launch\n");

#elif defined(__i386__)
enum { WRITE = 4, EXECVE = 11, SETGROUPS = 206, SETRESUID = 208, SETRESGID = 210, EXIT_GROUP = 252 };
enum { FACCESSAT = 307, STATX = 383 };
enum { PRCTL = 172, CAPGET = 184, CAPSET = 185, CHDIR = 12, CLOSE = 6, FCHOWN = 207 };
enum { MOUNT = 21, UMOUNT2 = 52, PIVOT_ROOT = 217 };

static long call(long number, long a, long b, long c, long d, long e)
{
    long result;

    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory");
    return result;
}

__asm__(".globl _start\n_start:\n xor %ebp, %ebp\n mov %esp, %eax\n and $-16, %esp\n sub $12, %esp\n"
        " push %eax\n call launch\n");

#elif defined(__aarch64__)
enum { WRITE = 64, EXECVE = 221, SETGROUPS = 159, SETRESUID = 147, SETRESGID = 149, EXIT_GROUP = 94 };
enum { FACCESSAT = 48, STATX = 291 };
enum { PRCTL = 167, CAPGET = 90, CAPSET = 91, CHDIR = 49, CLOSE = 57, FCHOWN = 55 };
enum { MOUNT = 40, UMOUNT2 = 39, PIVOT_ROOT = 41 };

static long call(long number, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;

    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}

__asm__(".globl _start\n_start:\n mov x29, 0\n mov x30, 0\n mov x0, sp\n bl launch\n");

#elif defined(__arm__)
enum { WRITE = 4, EXECVE = 11, SETGROUPS = 206, SETRESUID = 208, SETRESGID = 210, EXIT_GROUP = 248 };
enum { FACCESSAT = 334, STATX = 397 };
enum { PRCTL = 172, CAPGET = 184, CAPSET = 185, CHDIR = 12, CLOSE = 6, FCHOWN = 207 };
enum { MOUNT = 21, UMOUNT2 = 52, PIVOT_ROOT = 218 };

static long call(long number, long a, long b, long c, long d, long e)
{
    register long r7 __asm__("r7") = number;
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r3 __asm__("r3") = d;
    register long r4 __asm__("r4") = e;

    __asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4) : "memory");
    return r0;
}

__asm__(".globl _start\n_start:\n mov fp, #0\n mov lr, #0\n mov r0, sp\n bic sp, sp, #7\n bl launch\n");

#elif defined(__riscv) && __riscv_xlen == 64
enum { WRITE = 64, EXECVE = 221, SETGROUPS = 159, SETRESUID = 147, SETRESGID = 149, EXIT_GROUP = 94 };
enum { FACCESSAT = 48, STATX = 291 };
enum { PRCTL = 167, CAPGET = 90, CAPSET = 91, CHDIR = 49, CLOSE = 57, FCHOWN = 55 };
enum { MOUNT = 40, UMOUNT2 = 39, PIVOT_ROOT = 41 };

static long call(long number, long a, long b, long c, long d, long e)
{
    register long a7 __asm__("a7") = number;
    register long a0 __asm__("a0") = a;
    register long a1 __asm__("a1") = b;
    register long a2 __asm__("a2") = c;
    register long a3 __asm__("a3") = d;
    register long a4 __asm__("a4") = e;

    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4) : "memory");
    return a0;
}

__asm__(".globl _start\n_start:\n li s0, 0\n li ra, 0\n mv a0, sp\n andi sp, sp, -16\n call launch\n");

#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
enum { WRITE = 4, EXECVE = 11, SETGROUPS = 81, SETRESUID = 164, SETRESGID = 169, EXIT_GROUP = 234 };
enum { FACCESSAT = 298, STATX = 383 };
enum { PRCTL = 171, CAPGET = 183, CAPSET = 184, CHDIR = 12, CLOSE = 6, FCHOWN = 95 };
enum { MOUNT = 21, UMOUNT2 = 52, PIVOT_ROOT = 203 };

static long call(long number, long a, long b, long c, long d, long e)
{
    register long r0 __asm__("r0") = number;
    register long r3 __asm__("r3") = a;
    register long r4 __asm__("r4") = b;
    register long r5 __asm__("r5") = c;
    register long r6 __asm__("r6") = d;
    register long r7 __asm__("r7") = e;

    /* Errors are positive here, told by the summary overflow bit. */
    __asm__ volatile("sc\n bns+ 1f\n neg %1, %1\n1:"
                     : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r7)
                     :
                     : "r8", "r9", "r10", "r11", "r12", "cr0", "ctr", "memory");
    return r3;
}

__asm__(".globl _start\n_start:\n lis 2, .TOC.@ha\n addi 2, 2, .TOC.@l\n mr 3, 1\n clrrdi 1, 1, 4\n li 0, 0\n"
        " stdu 0, -32(1)\n mtlr 0\n bl launch\n nop\n");

#elif defined(__s390x__)
enum { WRITE = 4, EXECVE = 11, SETGROUPS = 206, SETRESUID = 208, SETRESGID = 210, EXIT_GROUP = 248 };
enum { FACCESSAT = 300, STATX = 379 };
enum { PRCTL = 172, CAPGET = 184, CAPSET = 185, CHDIR = 12, CLOSE = 6, FCHOWN = 207 };
enum { MOUNT = 21, UMOUNT2 = 52, PIVOT_ROOT = 217 };

static long call(long number, long a, long b, long c, long d, long e)
{
    register long r1 __asm__("r1") = number;
    register long r2 __asm__("r2") = a;
    register long r3 __asm__("r3") = b;
    register long r4 __asm__("r4") = c;
    register long r5 __asm__("r5") = d;
    register long r6 __asm__("r6") = e;

    __asm__ volatile("svc 0" : "+r"(r2) : "r"(r1), "r"(r3), "r"(r4), "r"(r5), "r"(r6) : "memory");
    return r2;
}

__asm__(".globl _start\n_start:\n lgr %r2, %r15\n aghi %r15, -160\n brasl %r14, launch\n");

#else
#error "no system calls for this processor"
#endif

enum { BAD_LAUNCH = 125, CANNOT_EXECUTE = 126, NOT_FOUND = 127 };
enum { ENOENT = 2, EISDIR = 21, AT_FDCWD = -100, X_OK = 1, STATX_TYPE = 1, S_IFMT = 0170000, S_IFDIR = 0040000 };
enum { AT_EMPTY_PATH = 0x1000, S_IFIFO = 0010000, S_IFCHR = 0020000, FIRST_PTS = 136, LAST_PTS = 143 };
enum { PATH_MAX = 4096, NGROUPS_MAX = 65536 };
enum { MS_BIND = 4096, MS_REC = 16384, MS_PRIVATE = 1 << 18, MNT_DETACH = 2 };
enum { CLOSE_RANGE = 436 }; /* everywhere, since Linux 5.9 */
enum { PR_SET_DUMPABLE = 4, PR_CAPBSET_READ = 23, PR_CAPBSET_DROP = 24, PR_SET_NO_NEW_PRIVS = 38 };
enum { CAPABILITY_VERSION_3 = 0x20080522, CAPABILITIES = 64, FIRST_OTHER_FD = 3, FD_GUESS = 1024 };

static const char DEFAULT_PATH[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/* --- saying what is wrong --- */

static word append(char *line, word used, word limit, const char *text)
{
    while (*text && used < limit) {
        unsigned char c = (unsigned char)*text++;
        line[used++] = c < ' ' || c == 0x7f ? '?' : (char)c; /* an image's text must not drive the terminal */
    }
    return used;
}

/* `context` may be empty. A long name is cut, and the reason still seen. */
static _Noreturn void fail(int status, const char *name, const char *context, const char *reason)
{
    char line[512];
    word used = append(line, 0, sizeof line, "docker2nspawn: cannot run ");

    used = append(line, used, 300, name);
    used = append(line, used, sizeof line - 1, ": ");
    used = append(line, used, sizeof line - 1, context);
    used = append(line, used, sizeof line - 1, reason);
    line[used++] = '\n';
    call(WRITE, 2, (long)line, (long)used, 0, 0);
    for (;;)
        call(EXIT_GROUP, status, 0, 0, 0, 0);
}

static const char *reason(long error)
{
    static const struct {
        long error;
        const char *text;
    } known[] = {
        {1, "operation not permitted"},
        {ENOENT, "no such file or directory"},
        {5, "input/output error"},
        {7, "argument list too long"},
        {8, "exec format error"},
        {11, "resource temporarily unavailable"},
        {12, "cannot allocate memory"},
        {13, "permission denied"},
        {20, "not a directory"},
        {EISDIR, "is a directory"},
        {22, "invalid argument"},
        {26, "text file busy"},
        {36, "file name too long"},
    };
    static char other[] = "error 000";

    for (word i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].error == error)
            return known[i].text;
    for (; error >= 100; error -= 100)
        other[6]++;
    for (; error >= 10; error -= 10)
        other[7]++;
    other[8] = (char)('0' + error);
    return other;
}

/* --- reading the arguments --- */

/* What follows `prefix` in `text`; null when it does not begin with it. */
static char *after(char *text, const char *prefix)
{
    while (*prefix)
        if (*text++ != *prefix++)
            return 0;
    return text;
}

static _Noreturn void refuse(const char *argument)
{
    fail(BAD_LAUNCH, "the command", "bad argument ", argument);
}

/* A user or group id at *text, which moves behind it. -1 is "no change" to the kernel, and no id. */
static unsigned id(const char **text, const char *argument)
{
    const char *at = *text;
    unsigned value = 0;

    if (*at < '0' || *at > '9')
        refuse(argument);
    for (; *at >= '0' && *at <= '9'; at++) {
        unsigned digit = (unsigned)(*at - '0');
        if (value > 429496729 || (value == 429496729 && digit > 4))
            refuse(argument);
        value = value * 10 + digit;
    }
    *text = at;
    return value;
}

static unsigned only_id(const char *text, const char *argument)
{
    unsigned value = id(&text, argument);

    if (*text)
        refuse(argument);
    return value;
}

static word read_groups(unsigned *groups, const char *text, const char *argument)
{
    word count = 0;

    if (!*text)
        return 0;
    for (;; text++) {
        if (count == NGROUPS_MAX)
            refuse(argument);
        groups[count++] = id(&text, argument);
        if (!*text)
            return count;
        if (*text != ',')
            refuse(argument);
    }
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A set of capabilities, in the kernel's order of words. */
struct mask {
    unsigned bits[2];
};

static struct mask read_mask(const char *text, const char *argument)
{
    struct mask mask = {{0, 0}};

    if (!*text)
        refuse(argument);
    for (; *text; text++) {
        if (hex(*text) < 0 || mask.bits[1] >> 28)
            refuse(argument);
        mask.bits[1] = mask.bits[1] << 4 | mask.bits[0] >> 28;
        mask.bits[0] = mask.bits[0] << 4 | (unsigned)hex(*text);
    }
    return mask;
}

static char *decode(char *text)
{
    char *to = text;

    for (const char *from = text; *from;) {
        char c = *from++;
        if (c == '\\') {
            c = *from;
            if (c == 'x' && hex(from[1]) >= 0 && hex(from[2]) >= 0 && (hex(from[1]) | hex(from[2]))) {
                c = (char)(hex(from[1]) << 4 | hex(from[2]));
                from += 2;
            } else if (c == 'n') {
                c = '\n';
            } else if (c == 't') {
                c = '\t';
            } else if (c != '\\') {
                refuse(text);
            }
            from++;
        }
        *to++ = c;
    }
    *to = 0;
    return text;
}

/* --- the environment: pointers from `first` up to the returned or given end --- */

static word name_length(const char *assignment)
{
    word length = 0;

    while (assignment[length] && assignment[length] != '=')
        length++;
    return length;
}

static int is_called(const char *assignment, const char *name, word length)
{
    for (word i = 0; i < length; i++)
        if (assignment[i] != name[i])
            return 0;
    return assignment[length] == '=';
}

/* Put `assignment` (null: nothing) in the place of the first variable of that name, else at the end; other
 * ones of that name go. */
static char **change(char **first, char **end, const char *name, word length, char *assignment)
{
    char **keep = first;

    for (char **at = first; at < end; at++) {
        if (!is_called(*at, name, length)) {
            *keep++ = *at;
        } else if (assignment) {
            *keep++ = assignment;
            assignment = 0;
        }
    }
    if (assignment)
        *keep++ = assignment;
    return keep;
}

/* What systemd-nspawn sets and Docker does not (src/nspawn/nspawn.c, 252 to 262); * is any end of a name. */
static const char *const CLEANED[] = {
    "container", "container_uuid", "container_host_*", "NOTIFY_SOCKET", "LISTEN_*", "CREDENTIALS_DIRECTORY",
    "USER",      "LOGNAME",        "LANG",             "TERM",          "COLORTERM", "NO_COLOR",
};

static int is_cleaned(const char *assignment)
{
    for (word i = 0; i < sizeof CLEANED / sizeof *CLEANED; i++) {
        const char *pattern = CLEANED[i], *at = assignment;

        while (*pattern && *pattern == *at)
            pattern++, at++;
        if (*pattern == '*' || (!*pattern && *at == '='))
            return 1;
    }
    return 0;
}

/* The environment without what is to be cleaned; the --keep= options are among `options`, up to `limit`. */
static char **clean(char **first, char **end, char **options, char **limit)
{
    char **left = first;

    for (char **at = first; at < end; at++) {
        int keep = !is_cleaned(*at);

        for (char **option = options; !keep && option < limit; option++) {
            const char *name = after(*option, "--keep=");
            keep = name && is_called(*at, name, name_length(name));
        }
        if (keep)
            *left++ = *at;
    }
    return left;
}

/* --- finding and becoming the program --- */

/* 0, or the errno that says why `path` is no executable file. */
static long check(const char *path)
{
    static unsigned short status[128]; /* struct statx: 256 bytes, stx_mode at 28, on every processor */
    long result = call(STATX, AT_FDCWD, (long)path, 0, STATX_TYPE, (long)status);

    if (result == 0 && (status[14] & S_IFMT) == S_IFDIR)
        return EISDIR;
    return -call(FACCESSAT, AT_FDCWD, (long)path, X_OK, 0, 0);
}

static const char *find(const char *name, char **env)
{
    static char path[PATH_MAX];
    const char *from = DEFAULT_PATH;

    for (; *env && from == DEFAULT_PATH; env++)
        if (is_called(*env, "PATH", 4))
            from = *env + 5;
    for (int more = *from != 0; more; from++) {
        word used = 0;

        for (; *from && *from != ':'; from++)
            if (used < sizeof path)
                path[used++] = *from;
        more = *from == ':';
        if (!used)
            path[used++] = '.';
        if (used < sizeof path)
            path[used++] = '/';
        for (const char *at = name; *at && used < sizeof path; at++)
            path[used++] = *at;
        if (used == sizeof path)
            continue; /* longer than any path can be */
        path[used] = 0;
        if (check(path) == 0)
            return path;
    }
    fail(NOT_FOUND, name, "", "executable file not found in PATH");
}

static _Noreturn void become(char **argv, char **env)
{
    const char *name = *argv, *path = name;
    long error;

    while (*path && *path != '/')
        path++;
    if (*path) {
        path = name;
        error = check(path);
    } else {
        path = find(name, env);
        error = 0;
    }
    if (error == 0)
        error = -call(EXECVE, (long)path, (long)argv, (long)env, 0, 0);
    fail(error == ENOENT ? NOT_FOUND : CANNOT_EXECUTE, name, "", reason(error));
}

static void must(const char *name, const char *what, long result)
{
    if (result < 0)
        fail(BAD_LAUNCH, name, what, reason(-result));
}

/* --- privileges --- */

/* Not even another process of the same user may look at this one. */
static void hide(const char *name)
{
    must(name, "hiding it: ", call(PRCTL, PR_SET_DUMPABLE, 0, 0, 0, 0));
}

static void close_all(void)
{
    if (call(CLOSE_RANGE, FIRST_OTHER_FD, -1, 0, 0, 0) < 0)
        for (long fd = FIRST_OTHER_FD; fd < FD_GUESS; fd++)
            call(CLOSE, fd, 0, 0, 0, 0);
}

static void bound(const char *name, struct mask mask)
{
    for (int i = 0; i < CAPABILITIES; i++)
        if (!(mask.bits[i / 32] >> i % 32 & 1) && call(PRCTL, PR_CAPBSET_READ, i, 0, 0, 0) > 0)
            must(name, "dropping capabilities: ", call(PRCTL, PR_CAPBSET_DROP, i, 0, 0, 0));
}

/* As runc does, so that the user's program can open /dev/stdout and /dev/stderr: what is its own alone, a pipe or
 * a terminal of the machine's. Never another device or file, which may be the host's. Without CAP_CHOWN it stays. */
static void give_streams(unsigned uid)
{
    for (long fd = 0; fd < FIRST_OTHER_FD; fd++) {
        static struct { /* statx, on every processor */
            unsigned before_mode[7];
            unsigned short mode, spare;
            unsigned before_major[24], major, rest[31];
        } status;
        if (call(STATX, fd, (long)"", AT_EMPTY_PATH, STATX_TYPE, (long)&status) < 0)
            continue;
        unsigned type = status.mode & S_IFMT;
        if (type == S_IFIFO || (type == S_IFCHR && status.major >= FIRST_PTS && status.major <= LAST_PTS))
            call(FCHOWN, fd, uid, -1, 0, 0);
    }
}

/* The kernel takes out of the ambient set what is no longer inheritable. */
static void limit_to(const char *name, struct mask mask)
{
    struct {
        unsigned version;
        int pid;
    } header = {CAPABILITY_VERSION_3, 0};
    struct {
        unsigned effective, permitted, inheritable;
    } sets[2];

    must(name, "reading its capabilities: ", call(CAPGET, (long)&header, (long)sets, 0, 0, 0));
    for (int i = 0; i < 2; i++) {
        sets[i].effective &= mask.bits[i];
        sets[i].permitted &= mask.bits[i];
        sets[i].inheritable = 0;
    }
    must(name, "setting its capabilities: ", call(CAPSET, (long)&header, (long)sets, 0, 0, 0));
}

/* As runc does: pivot_root(2) may put the old root upon the new one, from where it is taken away. */
static void enter_root(const char *path)
{
    static const char kept[][6] = {"/proc", "/sys", "/dev"};

    must(path, "mounts of its own: ", call(MOUNT, 0, (long)"/", 0, MS_REC | MS_PRIVATE, 0));
    must(path, "entering it: ", call(CHDIR, (long)path, 0, 0, 0, 0));
    for (word i = 0; i < sizeof kept / sizeof *kept; i++)
        must(path, "taking /proc, /sys and /dev along: ",
             call(MOUNT, (long)kept[i], (long)(kept[i] + 1), 0, MS_BIND | MS_REC, 0));
    must(path, "making it the root: ", call(PIVOT_ROOT, (long)".", (long)".", 0, 0, 0));
    must(path, "leaving the old root: ", call(UMOUNT2, (long)".", MNT_DETACH, 0, 0, 0));
    must(path, "entering the new root: ", call(CHDIR, (long)"/", 0, 0, 0, 0));
}

/* Called by _start with the stack as the kernel made it. */
__attribute__((used)) _Noreturn void launch(word *stack)
{
    static unsigned groups[NGROUPS_MAX];
    char **argv = (char **)(stack + 1), **old = argv + stack[0] + 1, **argument = argv + (stack[0] > 0);
    long uid = -1, gid = -1, group_count = -1;
    int escaped = 0, bounded = 0, no_new_privileges = 0;
    struct mask bounding = {{-1U, -1U}};
    const char *directory = 0, *root = 0;
    word count = 0;

    while (old[count])
        count++;
    /* At most as long as the kernel's own arrays, to which it gives a quarter of the stack. */
    char *env[count + stack[0] + 1], **end = env, **options = argument;
    for (word i = 0; i < count; i++)
        *end++ = old[i];

    for (; *argument && **argument == '-'; argument++) {
        char *option = *argument, *value;

        if ((value = after(option, "--escaped")) && !*value) {
            escaped = 1;
        } else if ((value = after(option, "--root="))) {
            root = escaped ? decode(value) : value;
        } else if ((value = after(option, "--groups="))) {
            group_count = (long)read_groups(groups, value, option);
        } else if ((value = after(option, "--gid="))) {
            gid = (long)only_id(value, option);
        } else if ((value = after(option, "--uid="))) {
            uid = (long)only_id(value, option);
        } else if ((value = after(option, "--bounding="))) {
            bounding = read_mask(value, option);
            bounded = 1;
        } else if ((value = after(option, "--no-new-privs")) && !*value) {
            no_new_privileges = 1;
        } else if ((value = after(option, "--chdir="))) {
            directory = escaped ? decode(value) : value;
        } else if ((value = after(option, "--keep="))) {
            word length = name_length(escaped ? decode(value) : value);
            if (!length || value[length])
                refuse(option);
        } else if ((value = after(option, "--clean")) && !*value) {
            end = clean(env, end, options, argument);
        } else if ((value = after(option, "--setenv="))) {
            word length = name_length(escaped ? decode(value) : value);
            if (!length || !value[length])
                refuse(option);
            end = change(env, end, value, length, value);
        } else if ((value = after(option, "--unsetenv="))) {
            word length = name_length(escaped ? decode(value) : value);
            if (!length || value[length])
                refuse(option);
            end = change(env, end, value, length, 0);
        } else if ((value = after(option, "--")) && !*value) {
            argument++;
            break;
        } else {
            refuse(option);
        }
    }
    *end = 0;
    if (!*argument)
        fail(BAD_LAUNCH, "the command", "", "no program given");
    for (char **at = argument; escaped && *at; at++)
        decode(*at);

    if (root)
        enter_root(root);
    if (bounded) {
        hide(*argument);
        close_all();
        bound(*argument, bounding);
    }
    /* As runc: a directory may be closed to the user it is for, or open to that user alone (NFS). */
    int moved = directory && call(CHDIR, (long)directory, 0, 0, 0, 0) >= 0;
    if (uid != -1 && uid != 0)
        give_streams((unsigned)uid);
    if (group_count >= 0)
        must(*argument, "setting its groups: ", call(SETGROUPS, group_count, (long)groups, 0, 0, 0));
    if (gid != -1)
        must(*argument, "setting its gid: ", call(SETRESGID, gid, gid, gid, 0, 0));
    if (uid != -1)
        must(*argument, "setting its uid: ", call(SETRESUID, uid, uid, uid, 0, 0));
    limit_to(*argument, bounding);
    if (bounded)
        hide(*argument); /* new ids may have undone it (fs.suid_dumpable) */
    if (directory && !moved)
        must(*argument, "entering its directory: ", call(CHDIR, (long)directory, 0, 0, 0, 0));
    if (no_new_privileges)
        must(*argument, "giving up new privileges: ", call(PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    become(argument, env);
}
