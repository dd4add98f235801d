/* A small HTTP server on nothing but system calls a scratch image allows: files of one directory, GET and PUT.
 *   server PORT DIRECTORY   serve; SIGTERM ends it with status 0
 *   server check            the health check: does it answer on loopback? */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t ending;

static void on_term(int number)
{
	(void)number;
	ending = 1;
}

static int check(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(8080), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	char answer[64] = "";
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	const char *ask = "GET / HTTP/1.0\r\n\r\n";

	if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) != 0)
		return 1;
	if (write(fd, ask, strlen(ask)) < 0 || read(fd, answer, sizeof answer - 1) <= 0)
		return 1;
	return strstr(answer, " 200 ") == NULL;
}

static void put(int to, const char *name, const char *body, size_t length, long wanted)
{
	char more[4096];
	ssize_t got;
	int file = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0640);

	if (file < 0) {
		dprintf(to, "HTTP/1.0 500 Error\r\n\r\n%m\n");
		return;
	}
	if (write(file, body, length) < 0)
		dprintf(to, "HTTP/1.0 500 Error\r\n\r\n%m\n");
	for (wanted -= (long)length; wanted > 0 && (got = read(to, more, sizeof more)) > 0; wanted -= got)
		if (write(file, more, (size_t)got) < 0)
			break;
	close(file);
	dprintf(to, "HTTP/1.0 201 Created\r\n\r\n");
}

static void get(int to, const char *name)
{
	char block[4096];
	ssize_t got;
	int file;

	if (*name == '\0') {
		dprintf(to, "HTTP/1.0 200 OK\r\n\r\nuid %d gid %d pid %d\n", (int)getuid(), (int)getgid(), (int)getpid());
		return;
	}
	file = open(name, O_RDONLY | O_NOFOLLOW);
	if (file < 0) {
		dprintf(to, "HTTP/1.0 404 Not Found\r\n\r\n%m\n");
		return;
	}
	dprintf(to, "HTTP/1.0 200 OK\r\n\r\n");
	while ((got = read(file, block, sizeof block)) > 0)
		if (write(to, block, (size_t)got) < 0)
			break;
	close(file);
}

static void serve(int client)
{
	char request[8192], method[8], path[256];
	size_t length = 0;
	ssize_t got;
	char *body = NULL, *header;

	while (body == NULL && length < sizeof request - 1) {
		got = read(client, request + length, sizeof request - 1 - length);
		if (got <= 0)
			return;
		length += (size_t)got;
		request[length] = '\0';
		body = strstr(request, "\r\n\r\n");
	}
	if (body == NULL || sscanf(request, "%7s /%255[^ /]", method, path) < 1)
		return;
	if (sscanf(request, "%7s /%255[^ /]", method, path) == 1)
		path[0] = '\0';
	printf("%s /%s\n", method, path);
	body += 4;
	header = strcasestr(request, "\r\ncontent-length:");
	if (strcmp(method, "PUT") == 0)
		put(client, path, body, length - (size_t)(body - request), header ? atol(header + 17) : 0);
	else
		get(client, path);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_term};
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
	int on = 1, listening, client;

	if (argc == 2 && strcmp(argv[1], "check") == 0)
		return check();
	if (argc != 3 || chdir(argv[2]) != 0)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	at.sin_port = htons((unsigned short)atoi(argv[1]));
	listening = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listening, (struct sockaddr *)&at, sizeof at) != 0 || listen(listening, 16) != 0) {
		perror("listen");
		return 1;
	}
	printf("listening on %s\n", argv[1]);
	while (!ending) {
		client = accept(listening, NULL, NULL);
		if (client < 0)
			continue;
		serve(client);
		close(client);
	}
	printf("ended by its stop signal\n");
	return 0;
}
