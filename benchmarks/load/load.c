/*
 * A closed-loop client of one agent on a Unix socket: it keeps events in flight and measures how long their
 * answers take.
 *
 *   load SOCKET v1|v2 CONNECTIONS DEPTH WARM_UP_S SECONDS EVENT_FILE ID
 *
 * EVENT_FILE has one event's JSON as a proxy writes it, with the text ID wherever its correlation id stands:
 * each event that goes out has an id of its own there. DEPTH events are in flight on each connection (v1: 1).
 *
 * One line of JSON says what was measured after the warm-up: events_s, p50_us … max_us (microseconds), and
 * `histogram` as [[start_ns, end_ns, count], …]. `answered` counts the warm-up too; `client_busy` is this
 * client's share of one processor: where it is near 1, the client is what was measured.
 *
 * Every answer is checked: its frame's length, its id (v1 has none), and that it allows. Exit status: 1 where
 * something is wrong with the agent or an answer, 2 with the arguments, 3 where no answer comes for STALL_S
 * seconds.
 */
#define _GNU_SOURCE
#include "histogram.h"
#include "wire.h"

#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

enum {
    STALL_S = 10,
    IN_ROOM = 1 << 20,
    MOST_CONNECTIONS = 1024,
    MOST_DEPTH = 64, /* what is in flight fits in a socket's buffers: no send waits for the agent */
    SLOT_DIGITS = 4,
    LEAST_ID = SLOT_DIGITS + 5, /* a slot comes around to the same id after a million events */
    MOST_ID = 64,
    MOST_PLACES = 8,
};

static const char ALLOWS[] = "\"decision\":\"allow\"";
static const char ID_KEY[] = "\"correlation_id\":\"";

/* One event of a connection that is in flight or was answered just now. */
typedef struct {
    uint64_t sent_ns;
    uint32_t turn; /* how often it was sent; a part of the id */
    bool waiting;
} slot;

typedef struct {
    int fd;
    unsigned number;
    slot *slots;
    uint8_t *in;
    size_t filled;
} connection;

/* The frame of every event, and where the id stands in it. */
static struct {
    uint8_t *bytes;
    size_t length;
    size_t id_at[MOST_PLACES], places, id_length;
} frame;

static int protocol;
static unsigned connections, depth;
static double warm_up_s, seconds;

static uint8_t *out; /* the events of one turn, for one send */
static uint64_t answered, in_flight;
static histogram waits;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- The event ---- */

static void read_event(const char *path, const char *id) {
    FILE *file = fopen(path, "rb");
    if (!file)
        end_with(2, "cannot read the event %s: %s", path, strerror(errno));
    size_t head = LENGTH_BYTES + (protocol == 2);
    frame.bytes = room_for(1, IN_ROOM);
    frame.length = head + fread(frame.bytes + head, 1, IN_ROOM - head, file);
    if (ferror(file) || frame.length == IN_ROOM)
        end_with(2, "cannot read the event %s, or it is larger than %d bytes", path, IN_ROOM - 16);
    fclose(file);
    write_u32(frame.bytes, (uint32_t)(frame.length - LENGTH_BYTES));
    if (protocol == 2)
        frame.bytes[LENGTH_BYTES] = REQUEST_HEADERS;

    frame.id_length = strlen(id);
    if (frame.id_length < LEAST_ID || frame.id_length > MOST_ID)
        end_with(2, "the id %s has %zu characters; %d to %d are needed", id, frame.id_length, LEAST_ID,
                 MOST_ID);
    uint8_t *end = frame.bytes + frame.length;
    for (uint8_t *at = frame.bytes; (at = memmem(at, (size_t)(end - at), id, frame.id_length));) {
        if (frame.places == MOST_PLACES)
            end_with(2, "the id %s stands more than %d times in %s", id, MOST_PLACES, path);
        frame.id_at[frame.places++] = (size_t)(at - frame.bytes);
        at += frame.id_length;
    }
    if (frame.places == 0)
        end_with(2, "the id %s does not stand in %s", id, path);
}

static void write_hex(uint8_t *to, size_t digits, uint32_t value) {
    while (digits-- > 0) {
        to[digits] = (uint8_t)"0123456789abcdef"[value & 15];
        value >>= 4;
    }
}

/* The number of the slot among all of them, then its turn. */
static void write_id(uint8_t *to, const connection *c, unsigned which) {
    write_hex(to, SLOT_DIGITS, c->number * depth + which);
    write_hex(to + SLOT_DIGITS, frame.id_length - SLOT_DIGITS, c->slots[which].turn);
}

/* ---- Sending ---- */

/* Puts an event of this slot behind what waits in `out` for send_events, and returns where it ends. */
static size_t put_event(size_t at, connection *c, unsigned which, uint64_t now) {
    slot *s = &c->slots[which];
    s->turn++;
    s->sent_ns = now;
    s->waiting = true;
    in_flight++;
    memcpy(out + at, frame.bytes, frame.length);
    for (size_t i = 0; i < frame.places; i++)
        write_id(out + at + frame.id_at[i], c, which);
    return at + frame.length;
}

static void send_events(connection *c, size_t length) {
    if (!send_all(c->fd, out, length))
        end_with(errno == EAGAIN ? 3 : 1, "cannot send on connection %u: %s", c->number, strerror(errno));
}

/* ---- Answers ---- */

/* Whether a text stands in an answer; looked for first where it stood in the one before. */
static const uint8_t *find(const uint8_t *in, size_t length, const char *text, size_t text_length,
                           size_t *before) {
    if (*before + text_length <= length && !memcmp(in + *before, text, text_length))
        return in + *before;
    const uint8_t *found = memmem(in, length, text, text_length);
    if (found)
        *before = (size_t)(found - in);
    return found;
}

__attribute__((noreturn)) static void refuse(const connection *c, const char *why, const uint8_t *answer,
                                             size_t length) {
    int shown = length < 1000 ? (int)length : 1000;
    end_with(1, "connection %u: %s: %.*s", c->number, why, shown, (const char *)answer);
}

/* The slot that an answer's correlation id names; ends where no event with this id is in flight here. */
static unsigned slot_of(const connection *c, const uint8_t *answer, size_t length) {
    static size_t before;
    const uint8_t *key = find(answer, length, ID_KEY, sizeof ID_KEY - 1, &before);
    size_t at = key ? (size_t)(key - answer) + sizeof ID_KEY - 1 : length;
    if (length - at <= frame.id_length || answer[at + frame.id_length] != '"')
        refuse(c, "an answer without a correlation id of ours", answer, length);
    char digits[SLOT_DIGITS + 1] = {0};
    memcpy(digits, answer + at, SLOT_DIGITS);
    unsigned which = (unsigned)strtoul(digits, NULL, 16) - c->number * depth;
    uint8_t expected[MOST_ID];
    if (which < depth && c->slots[which].waiting) {
        write_id(expected, c, which);
        if (!memcmp(answer + at, expected, frame.id_length))
            return which;
    }
    refuse(c, "an answer to nothing that is in flight", answer, length);
}

/* Takes one frame; the slot whose event it answers, or `depth` where it is about the agent itself. */
static unsigned take_answer(connection *c, const uint8_t *answer, size_t length, uint64_t now, bool counts) {
    static size_t before;
    unsigned which = 0;
    if (protocol == 2) {
        uint8_t type = *answer++;
        length--;
        if (type >= FIRST_CONTROL && type <= LAST_CONTROL)
            return depth;
        if (type != AGENT_RESPONSE)
            end_with(1, "connection %u: a frame of type 0x%02x instead of an answer", c->number, type);
        which = slot_of(c, answer, length);
    } else if (!c->slots[0].waiting) {
        refuse(c, "an answer to nothing", answer, length);
    }
    if (!find(answer, length, ALLOWS, sizeof ALLOWS - 1, &before))
        refuse(c, "an answer that does not allow", answer, length);
    c->slots[which].waiting = false;
    in_flight--;
    answered++;
    if (counts)
        count_times(&waits, now - c->slots[which].sent_ns, 1);
    return which;
}

/* Reads what is there, and sends the next event of each slot that was answered unless all is over. */
static void take_turn(connection *c, bool counts, uint64_t end_ns) {
    ssize_t got = recv(c->fd, c->in + c->filled, IN_ROOM - c->filled, 0);
    uint64_t now = now_ns();
    if (got <= 0)
        end_with(1, "the agent closed connection %u: %s", c->number, got ? strerror(errno) : "its end");
    c->filled += (size_t)got;
    size_t at = 0, unsent = 0;
    while (c->filled - at > LENGTH_BYTES) {
        size_t size = frame_size(read_u32(c->in + at), IN_ROOM, "the agent");
        if (c->filled - at < size)
            break;
        /* Its event has not been sent yet. */
        if (protocol == 1 && unsent > 0)
            refuse(c, "an answer to nothing", c->in + at + LENGTH_BYTES, size - LENGTH_BYTES);
        unsigned which = take_answer(c, c->in + at + LENGTH_BYTES, size - LENGTH_BYTES, now, counts);
        if (which < depth && now < end_ns)
            unsent = put_event(unsent, c, which, now);
        at += size;
    }
    memmove(c->in, c->in + at, c->filled - at);
    c->filled -= at;
    send_events(c, unsent);
}

/* ---- Connections ---- */

static void shake_hands(connection *c) {
    static const char HELLO[] =
        "{\"supported_versions\":[2],\"proxy_id\":\"load\",\"proxy_version\":\"0\",\"config\":null,"
        "\"supported_encodings\":[\"json\"]}";
    uint8_t hello[LENGTH_BYTES + sizeof HELLO];
    write_u32(hello, sizeof HELLO);
    hello[LENGTH_BYTES] = HANDSHAKE_REQUEST;
    memcpy(hello + LENGTH_BYTES + 1, HELLO, sizeof HELLO - 1);
    size_t size = LENGTH_BYTES;
    if (!send_all(c->fd, hello, sizeof hello) || recv(c->fd, c->in, size, MSG_WAITALL) != LENGTH_BYTES)
        end_with(1, "the agent does not answer the handshake");
    size = frame_size(read_u32(c->in), IN_ROOM, "the agent") - LENGTH_BYTES;
    if (recv(c->fd, c->in, size, MSG_WAITALL) != (ssize_t)size || c->in[0] != HANDSHAKE_RESPONSE)
        end_with(1, "the agent does not answer the handshake");
    static const char SUCCESS[] = "\"success\":true";
    if (!memmem(c->in, size, SUCCESS, sizeof SUCCESS - 1))
        refuse(c, "the handshake was refused", c->in + 1, size - 1);
}

static void open_connection(connection *c, unsigned number, const char *path, int poll) {
    struct sockaddr_un address = address_of(path);
    struct timeval patience = {.tv_sec = STALL_S};
    c->fd = stream_socket();
    c->number = number;
    c->slots = room_for(depth, sizeof(slot));
    c->in = room_for(1, IN_ROOM);
    if (setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) ||
        setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        connect(c->fd, (struct sockaddr *)&address, sizeof address))
        end_with(1, "cannot connect to %s: %s", path, strerror(errno));
    if (protocol == 2)
        shake_hands(c);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event))
        end_with(1, "epoll_ctl: %s", strerror(errno));
}

/* ---- The run ---- */

static double busy_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

/* Returns how many seconds the counted answers took. */
static double run(int poll, connection *all) {
    uint64_t start = now_ns();
    uint64_t warm_ns = start + (uint64_t)(warm_up_s * 1e9), end_ns = warm_ns + (uint64_t)(seconds * 1e9);
    for (unsigned i = 0; i < connections; i++) {
        size_t unsent = 0;
        for (unsigned which = 0; which < depth; which++)
            unsent = put_event(unsent, &all[i], which, now_ns());
        send_events(&all[i], unsent);
    }
    uint64_t counted_from = 0, counted_to = 0;
    struct epoll_event events[EPOLL_EVENTS];
    while (in_flight > 0) {
        int ready = epoll_wait(poll, events, EPOLL_EVENTS, STALL_S * 1000);
        if (ready == 0)
            end_with(3, "no answer for %d s, with %llu events in flight", STALL_S,
                     (unsigned long long)in_flight);
        uint64_t now = now_ns();
        bool counts = counted_from && now < end_ns;
        if (counts)
            counted_to = now;
        else if (!counted_from && now >= warm_ns)
            counted_from = now;
        for (int i = 0; i < ready; i++)
            take_turn(events[i].data.ptr, counts, end_ns);
    }
    return counted_to > counted_from ? (double)(counted_to - counted_from) * 1e-9 : 0;
}

static double number(const char *text, const char *what, double least, double most) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most))
        end_with(2, "%s is %s; a number from %g to %g is needed", what, text, least, most);
    return value;
}

int main(int count, char **words) {
    if (count != 9 || (strcmp(words[2], "v1") && strcmp(words[2], "v2")))
        end_with(2, "usage: load SOCKET v1|v2 CONNECTIONS DEPTH WARM_UP_S SECONDS EVENT_FILE ID");
    protocol = words[2][1] - '0';
    connections = (unsigned)number(words[3], "CONNECTIONS", 1, MOST_CONNECTIONS);
    depth = (unsigned)number(words[4], "DEPTH", 1, protocol == 1 ? 1 : MOST_DEPTH);
    warm_up_s = number(words[5], "WARM_UP_S", 0, 3600);
    seconds = number(words[6], "SECONDS", 0.01, 3600);
    read_event(words[7], words[8]);
    out = room_for(depth, frame.length);

    int poll = epoll_create1(EPOLL_CLOEXEC);
    if (poll < 0)
        end_with(1, "no epoll: %s", strerror(errno));
    connection *all = room_for(connections, sizeof *all);
    for (unsigned i = 0; i < connections; i++)
        open_connection(&all[i], i, words[1], poll);
    double busy = busy_s();
    uint64_t start = now_ns();
    double took = run(poll, all);
    busy = (busy_s() - busy) / ((double)(now_ns() - start) * 1e-9);
    if (waits.total == 0 || took <= 0)
        end_with(1, "no answer came after the warm-up; measure for longer");

    printf("{\"events_s\":%.1f,\"p50_us\":%.3f,\"p90_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f,",
           (double)waits.total / took, quantile_ns(&waits, 0.5) / 1e3, quantile_ns(&waits, 0.9) / 1e3,
           quantile_ns(&waits, 0.99) / 1e3, quantile_ns(&waits, 0.999) / 1e3);
    printf("\"max_us\":%.3f,\"answered\":%llu,\"seconds\":%.6f,\"client_busy\":%.3f,\"histogram\":",
           (double)waits.largest_ns / 1e3, (unsigned long long)answered, took, busy);
    print_buckets(&waits);
    puts("}");
}
