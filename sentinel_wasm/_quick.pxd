"""An event's bytes in, its answer's frame out, in one call."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

from sentinel_wasm._fastpath cimport Found, GuestCall, Normaliser
from sentinel_wasm._json cimport Span
from sentinel_wasm._metrics cimport Counts

cdef enum:
    MOST_PAYLOAD = 65536        # a longer event is left to Python

# Bytes that are written bit by bit.
cdef struct Outgoing:
    char* data
    size_t used
    size_t capacity

cdef char* room(Outgoing* out, size_t more) except NULL
cdef int append(Outgoing* out, const char* data, size_t length) except -1
cdef void release(Outgoing* out) noexcept nogil

cdef class Inline:
    cdef readonly tuple guests
    cdef object pinned
    cdef object find
    cdef public bint open

    cdef GuestCall of(self, const Span* id, int64_t deadline_ns)

cdef class QuickPath:
    cdef Normaliser normaliser
    cdef Inline inline
    cdef object owner
    cdef int64_t limit_ns
    cdef tuple hooks
    cdef int last_hook
    cdef bint has_frames        # the module has a hook for a WebSocket's
    cdef tuple allowed          # the answer where the module has nothing to say, by version
    cdef dict kept
    cdef Counts counts
    cdef bint echo
    cdef size_t audit_at        # in the frame of `allowed` for version 2
    cdef char* input
    cdef uint64_t logged_below  # hashes of requests whose decisions are logged
    cdef int64_t guest_ns       # that guests took since it was set to 0
    cdef int64_t ended_ns       # when the last one returned

    cdef bint answer(self, int frame_type, const Span* payload, int64_t arrived_ns, Outgoing* out) except -1
    cdef bint answer_chunk(
        self, int frame_type, const Span* payload, int64_t arrived_ns, Outgoing* out) except -1
    cdef object ask(
        self, GuestCall guest, int hook, const char* data, uint32_t length, int frame_type, uint32_t version,
        const Span* id, int64_t arrived_ns, Outgoing* out, size_t* audit, bint* blocks)
    cdef size_t replace(
        self, Outgoing* out, size_t before, size_t audit, bytes data, const Span* index) except 0
    cdef bytes event(self, const Found* found)
    cdef bytes python_answer(self, outcome, int hook, const Found* found, bytes event)
    cdef void decided(
        self, int hook, bint blocks, int frame_type, uint32_t version, const Span* id, const Outgoing* out,
        size_t before, size_t audit, GuestCall guest) noexcept
    cdef bint write_result(
        self, const char* result, size_t length, int frame_type, uint32_t version, const Span* id,
        Outgoing* out, size_t* audit, bint* blocks) except -1
    cdef int write(self, bytes answer, int frame_type, const Span* id, Outgoing* out) except -1
