"""A connection's bytes in and out."""

from libc.stdint cimport int64_t

from sentinel_wasm._fastpath cimport FrameBuffer
from sentinel_wasm._json cimport Span
from sentinel_wasm._metrics cimport Counts
from sentinel_wasm._quick cimport Outgoing, QuickPath

cdef class Stream

cdef class Turns:
    cdef object time
    cdef object call_soon
    cdef double this_s              # of the loop's clock
    cdef int64_t this_ns
    cdef int64_t before_ns
    # When the loop was last seen to run, and when the gap began behind which this turn is; 0: behind none.
    cdef public int64_t beat_ns
    cdef public int64_t gap_began_ns

    cdef object look                # look_again, bound once
    cdef bint looks                 # it will be called
    cdef int state                  # one of _stream.pyx's: ASLEEP and so on
    cdef int64_t read_ns            # when it began to linger
    cdef readonly int doubt         # how often in a row nothing came, at most 6
    cdef int at_once                # how often in a row something was there already, at most 15
    cdef int skip                   # reads that it will not linger for

    cdef list held                  # streams whose answers wait for the end of the turn
    cdef int64_t held_ns            # since when

    cdef int hold(self, Stream stream, int64_t now_ns) except -1
    cdef int send_held(self) except -1
    cdef int look_soon(self) except -1
    cdef int64_t turn(self) except -1
    cdef int has_read(self) except -1
    cdef int64_t v1_arrival(self) noexcept

cdef class Stream:
    cdef readonly FrameBuffer frames
    cdef QuickPath quick
    cdef Turns turns
    cdef Counts counts
    cdef Outgoing out
    cdef int64_t proxy_timeout_ns
    cdef public object send         # the transport's write
    cdef public object unsent       # the transport's get_write_buffer_size
    cdef public int fd              # of the socket, while there may be sent past the transport; else -1
    cdef bint behind                # the transport has had something to send
    cdef public bint shaken         # v2: the handshake is done
    cdef public bint packed         # v2: payloads are MessagePack
    cdef public int waiting         # events that workers have

    cdef bint answer_quickly(self, const Span* payload, int64_t arrived_ns) except -1
    cdef int answer_all(self, int64_t arrived_ns) except -1
    cdef bint late(self, int64_t arrived_ns) noexcept
    cdef int flush(self) except -1
