"""A hook's result made into the proxy's answer, without Python objects."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t

from sentinel_wasm._json cimport Span

cdef enum:
    MOST_RESULT = 8192          # a longer result is left to Python
    MOST_ANSWER_RATIO = 6       # an answer's parts are at most so many times as long as the result's
    ANSWER_FRAME = 512          # and the rest of it is shorter than this

cdef bint write_answer(
    const char* result, size_t length, int64_t version, const Span* id, char* out,
    size_t* written, size_t* audit, bint* blocks) noexcept nogil
