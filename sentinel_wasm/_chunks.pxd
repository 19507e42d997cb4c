"""Body chunks, from v2's bytes to the guest's."""

from sentinel_wasm._json cimport Span

cdef enum:
    REQUEST_BODY = 0x11         # v2's types
    RESPONSE_BODY = 0x13

# What is found of one event; numbers are as they stand there.
cdef struct Chunk:
    Span id
    Span data                   # base64
    Span index
    Span total_size             # or null
    Span seen                   # bytes so far
    bint is_last

cdef bint read_chunk(int frame_type, const Span* payload, Chunk* chunk) noexcept nogil
cdef bytes chunk_input(const Chunk* chunk, bytes data)
