"""Native threads that run guests beside the event loop."""

from libc.stdint cimport int64_t, uint32_t

from sentinel_wasm._fastpath cimport GuestCall
from sentinel_wasm._hostcalls cimport Ended, Output
from sentinel_wasm._instances cimport Guest, Outcome, PlanState
from sentinel_wasm._threads cimport pthread_cond_t, pthread_mutex_t, pthread_t

cdef enum:
    ONLY_START = -1
    ONLY_END = -2

cdef struct Bytes:
    char* data
    uint32_t length

# What one thread has to do, and what came of it. Between `submit` and `finished` only the thread touches it.
cdef struct JobState:
    JobState* next
    void* job                       # the Job that holds this
    const PlanState* plan
    Guest* guest
    int hook                        # or ONLY_START, ONLY_END
    Bytes data                      # the hook's input
    Bytes config                    # for a guest that has to be started first; NULL: it has no on_configure
    int64_t deadline_ns
    int64_t start_limit_ns          # 0: a start ends with the job's deadline
    int64_t needs_ns                # with less time left, it is not begun
    Outcome out
    Ended ended
    Bytes result
    Bytes configured                # what on_configure returned
    Output* output
    bint lost                       # the result is sound, but the guest is not
    int64_t queued_ns               # when it was submitted
    int64_t waited_ns               # from then to its begin
    int64_t called_ns               # in the hook; 0: it was not called
    int64_t took_ns                 # from begin to end
    int64_t busy_ns                 # the thread's own time, and what the guest slept

cdef struct Finished:
    pthread_mutex_t lock
    JobState* first
    JobState* last
    int announce                    # a pipe's end: jobs have finished
    int hold                        # start no guest

cdef struct Worker:
    pthread_t thread
    pthread_mutex_t lock
    pthread_cond_t wake
    JobState* first
    JobState* last
    int stop
    Finished* finished

cdef class Job:
    cdef JobState state
    cdef GuestCall guest
    cdef object references
    cdef int64_t limit_ns
    cdef readonly object owner

cdef class Workers:
    cdef Finished done
    cdef Worker* workers
    cdef int running
    cdef int announced              # the pipe's other end
    cdef set jobs

    cdef void close_pipe(self) noexcept
    cdef void end(self) noexcept
