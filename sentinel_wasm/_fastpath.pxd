"""The compiled path of one event: frames in, guest call, result out. No settings, no logging, no policy."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t

from sentinel_wasm._hostcalls cimport Host
from sentinel_wasm._json cimport Cursor, Span
from sentinel_wasm._ticker cimport Ticker
from sentinel_wasm._wasmtime cimport (
    wasm_trap_t, wasmtime_context_t, wasmtime_error_t, wasmtime_func_t, wasmtime_memory_t,
)

cdef enum:
    HOOKS = 6                   # the most functions one GuestCall can hold
    RESULT_BYTES = 1048576      # a longer result is refused before a buffer is made
    TRAP_INTERRUPT = 10         # wasmtime/trap.h: the epoch has passed the store's deadline

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

    cdef void settle(self) noexcept
    cdef int reserve(self) except -1

# What the normaliser has found of one event.
cdef struct Found:
    int kind                    # 0, or an event type of v2
    Span version
    Span id                     # at the top of the payload
    Span metadata_id
    Span client_ip
    Span method
    Span uri
    Span status
    size_t headers              # bytes in Normaliser.out; 0: no headers were there

cdef class Normaliser:
    cdef int names              # 0 canonical, 1 lower, 2 as they are
    cdef bint lists
    cdef char* out              # the headers as the guest gets them
    cdef readonly size_t capacity

    cdef int room(self, size_t length) except -1
    cdef bint envelope(self, Cursor* c, Found* found) noexcept nogil
    cdef bint payload(self, Cursor* c, Found* found) noexcept nogil
    cdef bint headers(self, Cursor* c, Found* found) noexcept nogil
    cdef char* name(self, char* o, const Span* name, uint32_t* hash) noexcept nogil
    cdef char* values(self, Cursor* c, char* o, bint cookie) noexcept nogil
    cdef bytes build(self, const Found* found, const Span* id)

cdef enum Step:
    STEP_NONE
    STEP_ALLOC
    STEP_HOOK
    STEP_DEALLOC

# How a call ended. FAILED_ codes carry no trap.
cdef enum Ending:
    RETURNED
    TRAPPED
    FAILED_NO_MEMORY
    FAILED_ALLOC_POINTER
    FAILED_RESULT_POINTER
    FAILED_RESULT_LENGTH
    FAILED_HOST_MEMORY

cdef struct Outcome:
    Ending ending
    Step step                   # where it trapped
    wasm_trap_t* trap           # ours to free, as the error
    wasmtime_error_t* error
    uint32_t length             # of the result, in GuestCall.result

cdef class GuestCall:
    cdef object owner           # keeps the store, and so all below, alive
    cdef Host host
    cdef Ticker ticker
    cdef wasmtime_context_t* context
    cdef wasmtime_memory_t memory
    cdef wasmtime_func_t alloc
    cdef wasmtime_func_t dealloc
    cdef wasmtime_func_t hooks[HOOKS]
    cdef list names
    cdef char* result
    cdef size_t result_capacity
    # False once a call has left the guest in a state that cannot be trusted.
    cdef readonly bint usable
    # Why, where the last result was sound all the same: dealloc trapped after it.
    cdef readonly object lost

    cdef bint enter(
        self, const wasmtime_func_t* function, void* values, Step step, Outcome* out) noexcept nogil
    cdef void give_back(self, uint32_t pointer, uint32_t length, Outcome* out) noexcept nogil
    cdef void run(self, int hook, const char* data, uint32_t length, Outcome* out) noexcept nogil
    cdef bint keep(self, uint32_t pointer, uint32_t length, Outcome* out) noexcept nogil
    cdef object fault(self, int hook, Outcome* out)
