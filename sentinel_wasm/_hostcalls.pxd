"""What a guest's host calls leave behind, one per store."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from posix.time cimport clockid_t

cdef enum:
    OUTPUT_BYTES = 8192     # between two `take_output`s; the rest is dropped and counted
    ABORT_BYTES = 512       # of each UTF-16 string of env.abort

    ENDED_NOT = 0
    ENDED_EXIT = 1
    ENDED_ABORT = 2
    ENDED_DEADLINE = 3

# Why a host call ended the guest.
ctypedef struct Ended:
    int32_t why             # one of the ENDED_ codes
    int32_t exit_code       # proc_exit
    int32_t line            # env.abort
    int32_t column
    size_t message_bytes
    size_t file_bytes
    uint8_t message[ABORT_BYTES]
    uint8_t file[ABORT_BYTES]

# What a guest printed or logged, as records: channel (a byte), u32 length, bytes.
ctypedef struct Output:
    size_t used
    size_t dropped
    uint8_t data[OUTPUT_BYTES]

ctypedef struct HostState:
    int64_t deadline_ns     # of time.monotonic_ns; no host call runs past it
    int64_t slept_ns        # in this run
    Ended ended
    Output output

cdef int64_t monotonic_ns() noexcept nogil
cdef int64_t clock_ns(clockid_t clock) noexcept nogil
cdef void begin(HostState* state, int64_t deadline_ns) noexcept nogil
cdef tuple take_output(Output* output)
cdef str ended_by(const Ended* ended, int64_t limit_ns)
cdef str too_late(int64_t limit_ns)
