"""The last events of a process, as plain bytes: written on the event loop's thread, read there too."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sentinel_wasm._json cimport Span

cdef enum:
    ENTRIES = 512               # a power of two
    ID_BYTES = 64               # of a correlation id; the rest is left out
    TAIL_BYTES = 344            # of an answer from its audit on: the end of that

# server/events.py reads it.
cdef struct Entry:
    uint64_t number             # of all events so far, from 1
    int64_t seen_ns             # of time.monotonic_ns
    int64_t took_ns             # until it was decided
    uint32_t version            # of the protocol
    uint16_t status             # 0: none
    uint16_t tail_bytes         # 0: its audit has nothing in it
    uint16_t id_bytes           # how long it was
    uint8_t hook
    uint8_t decision
    uint8_t spare[4]
    char id[ID_BYTES]
    char tail[TAIL_BYTES]

cdef class Recent:
    cdef Entry* entries
    cdef uint64_t count
    cdef public int64_t seen_ns     # when the event at hand was seen; 0: nobody says

    cdef void put(
        self, int hook, int decision, int status, uint32_t version, const Span* id, const char* audit,
        size_t length, int64_t decided_ns) noexcept nogil
