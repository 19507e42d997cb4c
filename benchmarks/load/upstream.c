// The server behind the proxy: answers every HTTP/1.1 request without a body with the same 200. upstream PORT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 4096, ROOM = 16384 };

static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";
static char unread[MOST][ROOM];
static size_t length[MOST];

static void die(const char *what) {
    perror(what);
    exit(1);
}

// One answer for each header that came whole; false where the connection is to be closed.
static int serve(int fd) {
    ssize_t got = read(fd, unread[fd] + length[fd], ROOM - 1 - length[fd]);
    if (got <= 0)
        return 0;
    length[fd] += (size_t)got;
    unread[fd][length[fd]] = 0;
    char *at = unread[fd];
    for (char *end; (end = strstr(at, "\r\n\r\n")) != NULL; at = end + 4)
        if (write(fd, ANSWER, sizeof ANSWER - 1) != sizeof ANSWER - 1)
            return 0;
    length[fd] -= (size_t)(at - unread[fd]);
    memmove(unread[fd], at, length[fd]);
    return length[fd] < ROOM - 1;
}

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 512))
        die("upstream");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[64];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int many = epoll_wait(poll, ready, 64, -1);
        for (int n = 0; n < many; n++) {
            int fd = ready[n].data.fd;
            if (fd != listener) {
                if (!serve(fd))
                    close(fd);
                continue;
            }
            fd = accept(listener, NULL, NULL);
            if (fd < 0 || fd >= MOST) {
                close(fd);
                continue;
            }
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            length[fd] = 0;
            event.data.fd = fd;
            epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
