"""Scanning compact JSON in place: only what is surely understood.

Every function moves the cursor behind what it accepts and says True, or says False where the text is anything
else: not JSON, or JSON that needs more than copying (escapes other than the short ones, non-ASCII text,
fractions). After False the cursor is of no use. orjson writes strings that are accepted here as they stand.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, strlen

ctypedef struct Cursor:
    const char* at
    const char* end

ctypedef struct Span:
    const char* at              # NULL: not there
    size_t length

cdef enum:
    DIGITS = 18                 # an integer of so many digits fits int64_t


cdef inline char* put(char* o, const char* what, size_t length) noexcept nogil:
    memcpy(o, what, length)
    return o + length


cdef inline char* puts(char* o, const char* what) noexcept nogil:
    """A literal, whose length the compiler knows."""
    return put(o, what, strlen(what))


cdef inline void white(Cursor* c) noexcept nogil:
    while c.at < c.end and (c.at[0] == c' ' or c.at[0] == c'\n' or c.at[0] == c'\t' or c.at[0] == c'\r'):
        c.at += 1


cdef inline bint take(Cursor* c, char what) noexcept nogil:
    """White space, then this character."""
    white(c)
    if c.at < c.end and c.at[0] == what:
        c.at += 1
        return True
    return False


cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <string.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif

    /* The first quote, backslash, control character or byte that is not ASCII in a JSON string. */
    static inline const char *sw_plain(const char *p, const char *end) {
    #ifdef __SSE2__
        for (; end - p >= 16; p += 16) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)p);
            /* As signed numbers, what is not ASCII is below 0x20 too. */
            __m128i odd = _mm_or_si128(
                _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20)),
                _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')),
                             _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\\\'))));
            int where = _mm_movemask_epi8(odd);
            if (where)
                return p + __builtin_ctz((unsigned)where);
        }
    #endif
        while (p < end && *p != '"' && *p != '\\\\' && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80)
            p++;
        return p;
    }
    """
    const char* plain "sw_plain"(const char* p, const char* end)


cdef inline bint text(Cursor* c, Span* out, bint escapes) noexcept nogil:
    """A string; `out` is between its quotes. `escapes`: those are taken that orjson writes the same way."""
    cdef const char* p
    cdef char after
    if not take(c, c'"'):
        return False
    p = c.at
    while True:
        p = plain(p, c.end)
        if p >= c.end:
            return False
        if p[0] == c'"':
            break
        if p[0] != c'\\' or not escapes or c.end - p < 2:
            return False
        after = p[1]
        if not (after == c'"' or after == c'\\' or after == c'n' or after == c'r' or after == c't'
                or after == c'b' or after == c'f'):
            return False
        p += 2
    out.at = c.at
    out.length = p - c.at
    c.at = p + 1
    return True


cdef inline bint integer(Cursor* c, Span* out) noexcept nogil:
    """A whole number that is not negative, of at most 18 digits."""
    white(c)
    out.at = c.at
    while c.at < c.end and c'0' <= c.at[0] <= c'9':
        c.at += 1
    out.length = c.at - out.at
    if out.length == 0 or out.length > DIGITS or (out.at[0] == c'0' and out.length > 1):
        return False
    return c.at < c.end and (c.at[0] == c',' or c.at[0] == c'}' or c.at[0] == c' ')


cdef inline int64_t number(const Span* digits) noexcept nogil:
    cdef int64_t value = 0
    cdef size_t index
    for index in range(digits.length):
        value = value * 10 + (digits.at[index] - c'0')
    return value


cdef inline bint word(Cursor* c, const char* what) noexcept nogil:
    cdef size_t length = strlen(what)
    if <size_t>(c.end - c.at) < length or memcmp(c.at, what, length) != 0:
        return False
    c.at += length
    return True


cdef inline bint scalar(Cursor* c) noexcept nogil:
    """Skip a string, a whole number, true, false or null."""
    cdef Span ignored
    white(c)
    if c.at >= c.end:
        return False
    if c.at[0] == c'"':
        return text(c, &ignored, True)
    if c.at[0] == c'n':
        return word(c, b"null")
    if c.at[0] == c't':
        return word(c, b"true")
    if c.at[0] == c'f':
        return word(c, b"false")
    return integer(c, &ignored)


cdef inline bint key(Cursor* c, Span* out) noexcept nogil:
    """A member's name and its colon."""
    return text(c, out, False) and take(c, c':')


cdef inline bint next_member(Cursor* c, bint* more) noexcept nogil:
    """After a member's value: `more` says whether another one follows."""
    white(c)
    if c.at >= c.end:
        return False
    more[0] = c.at[0] == c','
    if not more[0] and c.at[0] != c'}':
        return False
    c.at += 1
    return True


cdef inline bint named(const Span* name, const char* what) noexcept nogil:
    cdef size_t length = strlen(what)
    return name.length == length and memcmp(name.at, what, length) == 0


cdef inline uint32_t fnv1a(const Span* what) noexcept nogil:
    """A hash of its bytes (FNV-1a)."""
    cdef uint32_t value = 2166136261
    cdef size_t index
    for index in range(what.length):
        value = (value ^ <uint8_t>what.at[index]) * 16777619
    return value
