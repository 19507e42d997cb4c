"""What a guest's host calls leave behind, one per store."""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef enum:
    OUTPUT_BYTES = 8192     # between two `take_output`s; the rest is dropped and counted
    ABORT_BYTES = 512       # of each UTF-16 string of env.abort

ctypedef struct HostState:
    int64_t deadline_ns     # CLOCK_MONOTONIC; no host call runs past it
    int32_t ended           # why the guest was ended by a host call: one of the ENDED_ codes
    int32_t exit_code       # proc_exit
    int32_t line            # env.abort
    int32_t column
    size_t message_bytes
    size_t file_bytes
    size_t output_bytes
    size_t dropped_bytes
    uint8_t message[ABORT_BYTES]
    uint8_t file[ABORT_BYTES]
    uint8_t output[OUTPUT_BYTES]

cdef int64_t monotonic_ns() noexcept nogil

cdef class Host:
    cdef HostState state
    cdef int64_t limit_ns       # of the run under way, for messages
    cdef void start(self, int64_t deadline_ns, int64_t limit_ns) noexcept nogil
