"""Moves an engine's epoch while guests run."""

from libc.stdint cimport int64_t

from sentinel_wasm._threads cimport pthread_cond_t, pthread_mutex_t, pthread_t

cdef enum:
    TICK_NS = 2000000

# Shared with the ticker's thread: the integers are touched by atomics only.
ctypedef struct TickerState:
    void* engine                # a clone, ours to delete
    int64_t ticks               # so many have been; the engine's epoch is at least that
    int64_t zero_ns             # when the one numbered 0 was due
    int running                 # guests that run now
    int parked                  # the thread sleeps until it is woken
    int stop
    pthread_mutex_t lock
    pthread_cond_t wake

cdef class Ticker:
    cdef TickerState state
    cdef pthread_t thread
    cdef bint started
    cdef void end(self) noexcept nogil

cdef void enter(TickerState* ticker) noexcept nogil
cdef void leave(TickerState* ticker) noexcept nogil
cdef int64_t ticks_until(const TickerState* ticker, int64_t deadline_ns) noexcept nogil
