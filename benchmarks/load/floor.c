/*
 * The floor: the least that a server can spend on an event over a Unix socket here. It reads frames of v1 and
 * v2 and gives each the same answer of the usual size: no JSON, no guest. On v2 it copies the correlation id,
 * because answers without one belong to nothing.
 *
 *   floor SOCKET
 *
 * Ends by a signal.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <sys/epoll.h>

enum { IN_ROOM = 1 << 18, OUT_ROOM = 2 * IN_ROOM, BACKLOG = 512 };

typedef struct {
    int fd;
    int protocol; /* 0 before the first frame */
    size_t filled;
    uint8_t in[IN_ROOM];
} connection;

static const char ANSWER[] =
    "{\"version\":1,\"decision\":\"allow\",\"request_headers\":[{\"set\":{\"name\":\"X-Wasm-Processed\","
    "\"value\":\"true\"}}],\"response_headers\":[],\"routing_metadata\":{},\"needs_more\":false,"
    "\"request_body_mutation\":null,\"response_body_mutation\":null,\"websocket_decision\":null,\"audit\":"
    "{\"tags\":[\"processed\"],\"rule_ids\":[],\"confidence\":null,\"reason_codes\":[],\"custom\":{";
static const char ID_KEY[] = "\"correlation_id\":\"";
static const char ANSWER_END[] = "}}}";
static const char HANDSHAKE[] =
    "{\"protocol_version\":2,\"success\":true,\"error\":null,\"encoding\":\"json\",\"capabilities\":{"
    "\"agent_id\":\"floor\",\"name\":\"floor\",\"version\":\"0\",\"supported_events\":[1],\"features\":{},"
    "\"limits\":{}}}";

/* An answer is at most so much longer than its event. */
enum { FIXED_TEXT = sizeof ANSWER + sizeof HANDSHAKE };

/* Answers that wait for one send. */
static uint8_t out[OUT_ROOM];
static size_t unsent;

static void put(const void *from, size_t length) {
    memcpy(out + unsent, from, length);
    unsent += length;
}

/* Begins a frame and says where, for `end_frame`. */
static size_t begin_frame(void) {
    unsent += LENGTH_BYTES;
    return unsent;
}

static void end_frame(size_t begun) {
    write_u32(out + begun - LENGTH_BYTES, (uint32_t)(unsent - begun));
}

static void answer_v1(void) {
    size_t begun = begin_frame();
    put(ANSWER, sizeof ANSWER - 1);
    put(ANSWER_END, sizeof ANSWER_END - 1);
    end_frame(begun);
}

static void answer_v2(const uint8_t *frame, size_t length) {
    size_t begun = begin_frame();
    if (frame[0] == HANDSHAKE_REQUEST) {
        out[unsent++] = HANDSHAKE_RESPONSE;
        put(HANDSHAKE, sizeof HANDSHAKE - 1);
    } else {
        const uint8_t *key = memmem(frame, length, ID_KEY, sizeof ID_KEY - 1);
        if (!key)
            end_with(1, "an event without a correlation id");
        const uint8_t *id = key + sizeof ID_KEY - 1;
        const uint8_t *quote = memchr(id, '"', (size_t)(frame + length - id));
        if (!quote)
            end_with(1, "an event whose correlation id does not end");
        out[unsent++] = AGENT_RESPONSE;
        put(ANSWER, sizeof ANSWER - 1);
        put(key, (size_t)(quote + 1 - key));
        put(ANSWER_END, sizeof ANSWER_END - 1);
    }
    end_frame(begun);
}

static bool send_answers(int fd) {
    size_t length = unsent;
    unsent = 0;
    return send_all(fd, out, length);
}

/* Answers all whole frames; false where the peer is gone. */
static bool answer_frames(connection *c) {
    size_t at = 0;
    while (c->filled - at > LENGTH_BYTES) {
        size_t size = frame_size(read_u32(c->in + at), IN_ROOM, "the client");
        if (c->filled - at < size)
            break;
        const uint8_t *frame = c->in + at + LENGTH_BYTES;
        if (c->protocol == 0)
            c->protocol = frame[0] == HANDSHAKE_REQUEST ? 2 : 1;
        if (OUT_ROOM - unsent < size + FIXED_TEXT && !send_answers(c->fd))
            return false;
        if (c->protocol == 1)
            answer_v1();
        else
            answer_v2(frame, size - LENGTH_BYTES);
        at += size;
    }
    memmove(c->in, c->in + at, c->filled - at);
    c->filled -= at;
    return send_answers(c->fd);
}

static void serve(connection *c) {
    ssize_t got = recv(c->fd, c->in + c->filled, IN_ROOM - c->filled, 0);
    if (got > 0) {
        c->filled += (size_t)got;
        if (answer_frames(c))
            return;
    }
    close(c->fd);
    free(c);
}

static void watch(int poll, int fd, void *what) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event))
        end_with(1, "epoll_ctl: %s", strerror(errno));
}

static void welcome(int poll, int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    connection *c = room_for(1, sizeof *c);
    c->fd = fd;
    watch(poll, fd, c);
}

int main(int count, char **words) {
    if (count != 2)
        end_with(2, "usage: floor SOCKET");
    struct sockaddr_un address = address_of(words[1]);
    unlink(words[1]);
    int listener = stream_socket();
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG))
        end_with(1, "cannot listen on %s: %s", words[1], strerror(errno));
    int poll = epoll_create1(EPOLL_CLOEXEC);
    if (poll < 0)
        end_with(1, "no epoll: %s", strerror(errno));
    watch(poll, listener, NULL);
    struct epoll_event events[EPOLL_EVENTS];
    for (;;) {
        int ready = epoll_wait(poll, events, EPOLL_EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr)
                serve(events[i].data.ptr);
            else
                welcome(poll, listener);
        }
    }
}
