"""What is counted while events are answered: plain C integers, touched by the event loop's thread only."""

from libc.stdint cimport int64_t, uint64_t

from sentinel_wasm._hostcalls cimport monotonic_ns
from sentinel_wasm._recent cimport Recent

cdef enum:
    BOUNDS = 18                 # of a histogram; one more bucket has what is above them
    EVENTS = 9                  # a module's hooks, and NO_HOOK
    NO_HOOK = 8                 # the place of events that no hook is for
    DECISIONS = 6               # decision.VERDICTS
    DECIDED_ALLOW = 0
    DECIDED_BLOCK = 1
    LOOP_CLOCK_NS = 1000000     # how coarse the event loop's clock is

cdef struct Histogram:
    uint64_t counts[BOUNDS + 1]
    int64_t sum_ns

cdef extern from * nogil:
    """
    static const int64_t sw_bounds_ns[] = {
        250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000,
        1000000, 2500000, 5000000, 10000000, 25000000, 50000000, 100000000,
    };
    """
    const int64_t bounds_ns "sw_bounds_ns"[BOUNDS]

cdef inline void observe(Histogram* histogram, int64_t ns, uint64_t times) noexcept nogil:
    """So many things took so long; negative counts as 0."""
    cdef int index = 0
    ns = max(ns, 0)
    while index < BOUNDS and ns > bounds_ns[index]:
        index += 1
    histogram.counts[index] += times
    histogram.sum_ns += ns * <int64_t>times

cdef class Counts:
    cdef uint64_t decisions[EVENTS][DECISIONS]
    cdef uint64_t unwritten             # decisions whose events `took` has not been told of
    cdef Histogram events
    cdef Histogram calls
    cdef Histogram waits
    cdef readonly uint64_t cache_hits
    cdef public uint64_t cache_misses
    cdef public uint64_t connections    # accepted
    cdef readonly dict errors           # by kind
    cdef readonly dict last_errors      # by kind: (reason, correlation id, time.time())
    cdef public Recent recent           # None: nobody looks at single events

cdef inline void count_decision(Counts counts, int hook, int decision) noexcept:
    counts.decisions[hook][decision] += 1
    counts.unwritten += 1

cdef inline void count_written(Counts counts, int64_t seen_ns) noexcept:
    """As Counts.took; what was seen is decided, and goes to the proxy now."""
    if counts.unwritten:
        observe(&counts.events, monotonic_ns() - seen_ns, counts.unwritten)
        counts.unwritten = 0

cdef inline int64_t seen_at(int64_t arrived_ns, int64_t now_ns) noexcept nogil:
    """When an event was there, more finely than the event loop's clock says: at most 1 ms too late."""
    return min(now_ns, arrived_ns + LOOP_CLOCK_NS)
