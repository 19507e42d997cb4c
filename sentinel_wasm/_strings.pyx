"""Text as JSON strings, from bytes: body chunks are long, and full of quotes."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

import json

cdef enum:
    WORD = 8                    # bytes looked at together
    LONGEST = 6                 # \u0000
    STEP = WORD * LONGEST + 2   # the most that a word becomes, and the last eight written for one byte

# What each byte becomes, and its length.
cdef char written[256][WORD]
cdef uint8_t lengths[256]


def _fill() -> None:
    cdef bytes text
    for byte in range(256):
        # The standard library escapes as orjson does; what is not ASCII stays as it is.
        text = json.dumps(chr(byte)).encode()[1:-1] if byte < 0x7f else bytes([byte])
        memcpy(written[byte], PyBytes_AS_STRING(text), <size_t>len(text))
        lengths[byte] = <uint8_t>len(text)


_fill()


cdef inline bint is_plain(uint64_t word) noexcept nogil:
    """No quote, no backslash, no control character among eight bytes."""
    cdef uint64_t ones = 0x0101010101010101
    cdef uint64_t quotes = word ^ (ones * c'"')
    cdef uint64_t backslashes = word ^ (ones * c'\\')
    return not (
        ((word - ones * 0x20) & ~word) | ((quotes - ones) & ~quotes) | ((backslashes - ones) & ~backslashes)
    ) & (ones * 0x80)


cdef char* write(const char* at, const char* end, char** out, size_t room) noexcept nogil:
    """Write the string into `out`, which grows as it must; its end, or NULL where there is no memory."""
    cdef char* o = out[0]
    cdef char* larger
    cdef uint64_t word
    cdef size_t used
    o[0] = c'"'
    o += 1
    while at < end:
        used = <size_t>(o - out[0])
        if room - used < STEP:
            room = room * 2
            larger = <char*>realloc(out[0], room)
            if larger == NULL:
                return NULL
            out[0] = larger
            o = larger + used
        if end - at >= WORD:
            memcpy(&word, at, WORD)
            if is_plain(word):
                memcpy(o, &word, WORD)
                at += WORD
                o += WORD
                continue
        for _ in range(min(<size_t>(end - at), <size_t>WORD)):
            memcpy(o, written[<uint8_t>at[0]], WORD)
            o += lengths[<uint8_t>at[0]]
            at += 1
    o[0] = c'"'
    return o + 1


def json_string(bytes text not None) -> bytes:
    """UTF-8 text (valid, which is not looked at here) as a JSON string: as orjson writes it."""
    cdef const char* at = PyBytes_AS_STRING(text)
    cdef size_t length = <size_t>PyBytes_GET_SIZE(text)
    cdef size_t room = length + length // 4 + 2 * STEP
    cdef char* out = <char*>malloc(room)
    cdef char* end = NULL
    try:
        if out != NULL:
            end = write(at, at + length, &out, room)
        if end == NULL:
            raise MemoryError
        return PyBytes_FromStringAndSize(out, end - out)
    finally:
        free(out)
