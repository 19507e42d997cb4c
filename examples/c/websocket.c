/*
 * A filter of WebSockets: a text that has a forbidden word closes the connection, and binary frames of over 64 KiB from
 * the client are dropped. A message may come in several frames, so the end of each is kept for the next of its
 * direction: a word that is cut in two is found too.
 */
#include "sentinel.h"

#define FORBIDDEN "password"
#define LARGE 65536
#define SOCKETS 64 /* of which the ends are kept at once; then the oldest is forgotten */
#define KEPT (sizeof FORBIDDEN - 2)

/* A connection's last bytes, for each direction. */
static struct socket {
    u8 id[64];
    u32 id_len;
    struct {
        u8 end[KEPT];
        u32 len;
    } ends[2];
} sockets[SOCKETS];
static u32 oldest;

static struct socket *socket_of(text id) {
    if (id.len > sizeof sockets->id)
        id.len = sizeof sockets->id;
    for (u32 i = 0; i < SOCKETS; i++)
        if (text_equals((text){sockets[i].id, sockets[i].id_len}, id))
            return &sockets[i];
    struct socket *socket = &sockets[oldest++ % SOCKETS];
    *socket = (struct socket){.id_len = id.len};
    __builtin_memcpy(socket->id, id.at, id.len);
    return socket;
}

/* What was kept of the message and, behind it, as much of the frame as a word that begins in there can reach. */
static text seam(const u8 *kept, u32 kept_len, text data) {
    static u8 bytes[2 * KEPT];
    u32 len = data.len < KEPT ? data.len : KEPT;
    for (u32 i = 0; i < kept_len; i++)
        bytes[i] = kept[i];
    for (u32 i = 0; i < len; i++)
        bytes[kept_len + i] = data.at[i];
    return (text){bytes, kept_len + len};
}

static decision *decide(frame *frame) {
    if (equals(frame->opcode, "binary") && frame->to_server && frame->data.len > LARGE)
        return tag(drop_frame(), "large-frame");
    bool continues = equals(frame->opcode, "continuation");
    if (!continues && !equals(frame->opcode, "text"))
        return allow();
    struct socket *socket = socket_of(frame->correlation_id);
    u32 *kept_len = &socket->ends[frame->to_server].len;
    u8 *kept = socket->ends[frame->to_server].end;
    lowered(frame->data);
    text across = seam(kept, continues ? *kept_len : 0, frame->data);
    if (contains(frame->data, FORBIDDEN) || contains(across, FORBIDDEN))
        return tag(close_socket(1008, "a forbidden word"), "forbidden-word");
    /* The seam's end is the frame's where that is short, so that a word may lie across more than two. */
    text rest = frame->data.len < KEPT ? across : frame->data;
    *kept_len = frame->fin ? 0 : rest.len < KEPT ? rest.len : (u32)KEPT;
    for (u32 i = 0; i < *kept_len; i++)
        kept[i] = rest.at[rest.len - *kept_len + i];
    return allow();
}
ON_WEBSOCKET_FRAME(decide)
