/*
 * What the load generator and the floor share: frames of both protocol versions, Unix sockets, and how to end
 * when something is wrong. A header with static functions, so that each tool is one file to compile.
 *
 * v1: u32 big-endian length, then as many bytes of JSON. v2: u32 length (counts the type byte), u8 type, then
 * the payload.
 */
#ifndef WIRE_H
#define WIRE_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    HANDSHAKE_REQUEST = 0x01,
    HANDSHAKE_RESPONSE = 0x02,
    REQUEST_HEADERS = 0x10,
    AGENT_RESPONSE = 0x20,
    FIRST_CONTROL = 0x30, /* what an agent may say of itself, unasked */
    LAST_CONTROL = 0x3f,
};

enum { LENGTH_BYTES = 4, EPOLL_EVENTS = 64 };

/* Says why on stderr and ends with this status. */
__attribute__((noreturn, format(printf, 2, 3))) static void end_with(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(status);
}

static void *room_for(size_t count, size_t size) {
    void *room = calloc(count, size);
    if (!room)
        end_with(1, "no memory for %zu times %zu bytes", count, size);
    return room;
}

static uint32_t read_u32(const uint8_t *from) {
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static void write_u32(uint8_t *to, uint32_t value) {
    to[0] = (uint8_t)(value >> 24);
    to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8);
    to[3] = (uint8_t)value;
}

/* The bytes of a frame whose length field says `length`; `room` is what a reader's buffer takes. */
static size_t frame_size(uint32_t length, size_t room, const char *who) {
    if (length == 0 || length > room - LENGTH_BYTES)
        end_with(1, "%s sent a frame of %u bytes; 1 to %zu are expected", who, length, room - LENGTH_BYTES);
    return LENGTH_BYTES + (size_t)length;
}

static struct sockaddr_un address_of(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        end_with(2, "the socket's path is longer than %zu bytes: %s", sizeof address.sun_path - 1, path);
    strcpy(address.sun_path, path);
    return address;
}

static int stream_socket(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        end_with(1, "no socket: %s", strerror(errno));
    return fd;
}

/* False where the peer is gone. The socket blocks. */
static bool send_all(int fd, const uint8_t *from, size_t length) {
    while (length > 0) {
        ssize_t sent = send(fd, from, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return false;
        from += sent;
        length -= (size_t)sent;
    }
    return true;
}

#endif
