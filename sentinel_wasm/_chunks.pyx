"""Body chunks, from v2's bytes to the guest's, without an object a member.

`protocol.events` and `guest.inputs` are the specification; what is not surely understood is left to them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.string cimport memset, strlen

from sentinel_wasm._json cimport (
    Cursor, Span, integer, key, named, next_member, number, put, puts, scalar, take, text, white, word,
)

from sentinel_wasm._strings import json_string
from sentinel_wasm.base64 import decode

cdef enum:
    INPUT = 97                  # the guest's bytes without any value

    # Members that have been met: of two, orjson takes the last.
    HAS_LAST = 1
    HAS_TOTAL = 2


def chunk(int frame_type, bytes frame not None) -> tuple[str, int, bytes, bytes] | None:
    """(correlation id, chunk_index, data, the guest's input) of a v2 event of this type, or None.

    Raises ValueError where the data is not base64.
    """
    cdef Chunk found
    cdef Span payload
    cdef bytes data
    payload.at = PyBytes_AS_STRING(frame)
    payload.length = <size_t>PyBytes_GET_SIZE(frame)
    if not read_chunk(frame_type, &payload, &found):
        return None
    data = decode(PyUnicode_DecodeASCII(found.data.at, <Py_ssize_t>found.data.length, NULL))
    return (
        PyUnicode_DecodeASCII(found.id.at, <Py_ssize_t>found.id.length, NULL), number(&found.index), data,
        chunk_input(&found, data))


cdef bint read_chunk(int frame_type, const Span* payload, Chunk* chunk) noexcept nogil:
    """Whether the event is understood, but for its data; what was found is good while `payload` is."""
    cdef Cursor c
    cdef Span name
    cdef const char* seen = b"bytes_received" if frame_type == REQUEST_BODY else b"bytes_sent"
    cdef bint more = True
    cdef int has = 0
    c.at = payload.at
    c.end = c.at + payload.length
    memset(chunk, 0, sizeof(chunk[0]))
    if not take(&c, c'{'):
        return False
    while more:
        if not key(&c, &name):
            return False
        if named(&name, b"correlation_id"):
            if chunk.id.at != NULL or not text(&c, &chunk.id, False) or chunk.id.length == 0:
                return False
        elif named(&name, b"data"):
            if chunk.data.at != NULL or not text(&c, &chunk.data, False):
                return False
        elif named(&name, b"is_last"):
            white(&c)
            chunk.is_last = word(&c, b"true")
            if has & HAS_LAST or not (chunk.is_last or word(&c, b"false")):
                return False
            has |= HAS_LAST
        elif named(&name, b"total_size"):
            white(&c)
            if has & HAS_TOTAL or not (word(&c, b"null") or integer(&c, &chunk.total_size)):
                return False
            has |= HAS_TOTAL
        elif named(&name, b"chunk_index"):
            if chunk.index.at != NULL or not integer(&c, &chunk.index) \
                    or number(&chunk.index) >> 32 != 0:
                return False
        elif named(&name, seen):
            if chunk.seen.at != NULL or not integer(&c, &chunk.seen):
                return False
        elif not scalar(&c):
            return False
        if not next_member(&c, &more):
            return False
    white(&c)
    otherwise(&chunk.index, b"0")
    otherwise(&chunk.seen, b"0")
    otherwise(&chunk.total_size, b"null")
    return c.at == c.end and chunk.id.at != NULL and chunk.data.at != NULL and has & HAS_LAST


cdef inline void otherwise(Span* value, const char* default) noexcept nogil:
    """What a member is that is not there, or null."""
    if value.at == NULL:
        value.at = default
        value.length = strlen(default)


cdef bytes chunk_input(const Chunk* chunk, bytes data):
    """What the guest reads: text where `data`, which the event has as base64, is valid UTF-8."""
    cdef bytes content = None
    cdef bytes out
    cdef char* o
    try:
        data.decode()
        content = json_string(data)
    except UnicodeDecodeError:
        pass
    out = PyBytes_FromStringAndSize(
        NULL, INPUT + <Py_ssize_t>(
            chunk.id.length + chunk.index.length + (4 if chunk.is_last else 5) + chunk.total_size.length
            + chunk.seen.length)
        + (6 + 2 + <Py_ssize_t>chunk.data.length if content is None else 5 + PyBytes_GET_SIZE(content)))
    o = puts(PyBytes_AS_STRING(out), b'{"correlation_id":"')
    o = put(o, chunk.id.at, chunk.id.length)
    o = puts(o, b'","chunk_index":')
    o = put(o, chunk.index.at, chunk.index.length)
    o = puts(o, b',"is_last":true' if chunk.is_last else b',"is_last":false')
    o = puts(o, b',"total_size":')
    o = put(o, chunk.total_size.at, chunk.total_size.length)
    o = puts(o, b',"bytes_seen":')
    o = put(o, chunk.seen.at, chunk.seen.length)
    if content is None:
        o = puts(o, b',"encoding":"base64","data":"')
        o = put(o, chunk.data.at, chunk.data.length)
        puts(o, b'"}')
    else:
        o = puts(o, b',"encoding":"utf-8","data":')
        o = put(o, PyBytes_AS_STRING(content), <size_t>PyBytes_GET_SIZE(content))
        puts(o, b"}")
    return out
