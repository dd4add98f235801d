/* The network: interfaces, names, a way out, and a server for published ports; and waiting for signals. */
#include "probe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

static int has_word(const char *path, const char *word, char *first, size_t size) {
    FILE *file = fopen(path, "r");
    char line[1024];
    int found = 0;

    while (file && !found && fgets(line, sizeof line, file)) {
        char *rest = line, *token = strsep(&rest, " \t\n");
        snprintf(first, size, "%s", token);
        while (!found && (token = strsep(&rest, " \t\n")))
            found = !strcmp(token, word);
    }
    if (file)
        fclose(file);
    return found;
}

/* Ask `server` for the IPv4 address of `name`, as stub resolvers do (RFC 1035). */
static const char *look_up(const char *server, const char *name) {
    static char answer[INET_ADDRSTRLEN];
    unsigned char packet[512] = {0x12, 0x34, 1, 0, 0, 1};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53)};
    struct timeval patience = {.tv_sec = 2};
    size_t size = 12;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    for (const char *at = name; *at; at += *at == '.') {
        size_t length = strcspn(at, ".");
        packet[size++] = (unsigned char)length;
        memcpy(packet + size, at, length);
        size += length;
        at += length;
    }
    packet[size++] = 0;
    memcpy(packet + size, "\0\1\0\1", 4);
    size += 4;
    inet_pton(AF_INET, server, &to.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (sendto(fd, packet, size, 0, (struct sockaddr *)&to, sizeof to) < 0)
        return outcome(-1);
    ssize_t got = recv(fd, packet, sizeof packet, 0);
    close(fd);
    if (got < 0)
        return outcome(-1);
    if (got < 16 || (packet[3] & 15) || !packet[7])
        return "no such name";
    return inet_ntop(AF_INET, packet + got - 4, answer, sizeof answer);
}

static const char *connect_to(const char *address, int port) {
    static char text[128];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), error = 0;
    socklen_t size = sizeof error;
    struct pollfd wait = {.fd = fd, .events = POLLOUT};

    inet_pton(AF_INET, address, &to.sin_addr);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        return outcome(-1);
    if (poll(&wait, 1, 2000) != 1)
        return "no answer";
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if ((errno = error))
        return outcome(-1);
    wait.events = POLLIN;
    ssize_t got = poll(&wait, 1, 2000) == 1 ? read(fd, text, sizeof text - 1) : -1;
    close(fd);
    text[got > 0 ? got : 0] = 0;
    return text;
}

void look_at_network(void) {
    char line[512], first[512] = "", name[256] = "";
    FILE *file = fopen("/proc/net/dev", "r");

    for (int i = 0; file && fgets(line, sizeof line, file); i++)
        if (i > 1) {
            char *colon = strchr(line, ':');
            if (!colon)
                continue;
            *colon = 0;
            fact("interfaces", line + strspn(line, " "), "yes");
        }
    if (file)
        fclose(file);
    file = fopen("/proc/net/route", "r");
    int routes = 0;
    while (file && fgets(line, sizeof line, file))
        routes += strstr(line, "\t00000000\t") != 0 && strtok(line, "\t") && !strcmp(strtok(0, "\t"), "00000000");
    if (file)
        fclose(file);
    fact("network", "default-route", "%s", routes ? "yes" : "no");
    int abstract = 0;
    file = fopen("/proc/net/unix", "r");
    while (file && fgets(line, sizeof line, file))
        abstract += strchr(line, '@') != 0;
    if (file)
        fclose(file);
    fact("network", "foreign-abstract-sockets", "%s", abstract ? "yes" : "no");

    gethostname(name, sizeof name);
    fact("names", "own-name", "%s", has_word("/etc/hosts", name, first, sizeof first) ? "resolves" : "unknown");
    fact("names", "localhost", "%s", has_word("/etc/hosts", "localhost", first, sizeof first) ? first : "unknown");
    fact("names", "extra.test", "%s", has_word("/etc/hosts", "extra.test", first, sizeof first) ? first : "unknown");
    fact("names", "dns", "%s", has_word("/etc/resolv.conf", "10.98.0.2", first, sizeof first) ? "the host's" : "other");
    fact("names", "outside.test", "%s", look_up("10.98.0.2", "outside.test"));
    fact("network", "connection-out", "%s", connect_to("10.98.0.2", 80));
    struct sockaddr_in low = {.sin_family = AF_INET, .sin_port = htons(81)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    fact("network", "bind-port-81", "%s", outcome(bind(fd, (struct sockaddr *)&low, sizeof low)));
    close(fd);
}

static volatile sig_atomic_t arrived;

static void note(int number) { arrived = number; }

/* Print the name of the signal that arrives and end; or ignore what can be ignored, for ever. */
int wait_for_signals(int ignore) {
    for (int number = 1; number < 65; number++)
        if (number != SIGCHLD && number != SIGWINCH) /* nobody stops a program by its terminal's size */
            signal(number, ignore ? SIG_IGN : note);
    printf("is up\n");
    while (!arrived)
        usleep(50000);
    fact("stop", "signal", "%d", (int)arrived);
    return 7;
}

/* Answer each connection with one line, until a signal comes. */
int serve(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sigaction action = {.sa_handler = note};

    sigaction(SIGTERM, &action, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 8))
        return 1;
    printf("is up\n");
    while (!arrived) {
        int client = accept(fd, 0, 0);
        if (client >= 0 && write(client, "served\n", 7) < 0)
            return 1;
        close(client);
    }
    return 0;
}
