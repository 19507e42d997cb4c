"""The compiled path of one event: frames in, guest call, result out. No settings, no logging, no policy."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from sentinel_wasm._instances cimport Guest, HOOKS, Outcome, Plan, PlanState, RESULT_BYTES, Step
from sentinel_wasm._json cimport Cursor, Span
from sentinel_wasm._metrics cimport Counts
from sentinel_wasm._wasmtime cimport wasmtime_func_t, wasmtime_val_raw_t

cdef enum:
    REQUEST_HEADERS = 0x10      # v2's types of the events that are normalised
    RESPONSE_HEADERS = 0x12

cdef class FrameBuffer:
    # The bytes between start and end are unread; those from end to capacity are lent out by __getbuffer__.
    cdef char* data
    cdef size_t capacity
    cdef size_t start
    cdef size_t end
    cdef int lent
    # 0 until the first five bytes are here.
    cdef readonly int protocol
    # v2: the type byte of the frame that next_frame returned last.
    cdef readonly int frame_type

    cdef int grow(self, Py_ssize_t count) except -1
    cdef bint find(self, Span* payload) except -1
    cdef void drop(self, const Span* payload) noexcept nogil
    cdef int reserve(self) except -1

# What the normaliser has found of one event.
cdef struct Found:
    int kind                    # 0, or an event type of v2
    int64_t version
    Span id                     # at the top of the payload, or else metadata_id
    Span metadata_id
    Span client_ip
    Span method
    Span uri
    Span status
    size_t headers              # bytes in Normaliser.out; 0: no headers were there
    size_t length               # of the guest's input

cdef class Normaliser:
    cdef int names              # 0 canonical, 1 lower, 2 as they are
    cdef bint lists
    cdef char* out              # the headers as the guest gets them
    cdef readonly size_t capacity

    cdef bint read(self, int frame_type, const Span* payload, Found* found) except -1
    cdef void write(self, const Found* found, char* o) noexcept nogil
    cdef int room(self, size_t length) except -1
    cdef bint envelope(self, Cursor* c, Found* found) noexcept nogil
    cdef bint payload(self, Cursor* c, Found* found) noexcept nogil
    cdef bint headers(self, Cursor* c, Found* found) noexcept nogil
    cdef char* name(self, char* o, const Span* name, uint64_t* hash) noexcept nogil
    cdef char* values(self, Cursor* c, char* o, bint cookie) noexcept nogil

cdef class Pace:
    cdef Counts counts
    cdef int64_t turn_ns            # when the events of this turn came in
    cdef int64_t began_ns           # its first call
    cdef int64_t sampled_ns         # the thread's clock was read last,
    cdef int64_t sampled_cpu_ns     # and said this
    cdef int64_t slept_ns           # by guests, since then
    cdef int64_t slow_turn_ns       # the last turn that was slow
    cdef readonly bint overran

    cdef void before(self, int64_t arrived_ns, int64_t now_ns) noexcept nogil
    cdef void after(self, int64_t began_ns, int64_t now_ns, int64_t slept_ns) noexcept nogil

cdef void call_guest(
    const PlanState* plan, Guest* guest, int hook, const char* data, uint32_t length, int64_t deadline_ns,
    int64_t now_ns, Outcome* out) noexcept nogil
cdef int64_t thread_cpu_ns() noexcept nogil

cdef class GuestCall:
    cdef Plan plan
    cdef Pace pace
    cdef Guest guest
    # After a call that returned: there is output, a loss, or a pace to look at.
    cdef readonly bint needs_care
    # Of the last call: when it ended, and how long that took.
    cdef int64_t ended_ns
    cdef int64_t took_ns
    # Why the guest cannot be used although its last result was sound: dealloc trapped after it.
    cdef readonly object lost
    # Jobs that a worker has for it. It may be touched elsewhere only while there are none.
    cdef public int pending
    cdef public object place        # guest.places.Place, where the pool has it

    cdef bint run(
        self, int hook, const char* data, uint32_t length, int64_t arrived_ns, int64_t limit_ns,
        Outcome* out) except -1
