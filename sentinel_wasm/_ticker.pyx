"""Moves an engine's epoch while guests run: a native thread that never takes the GIL.

A guest is interrupted when the epoch passes its store's deadline (wasmtime.h, epoch interruption). The thread
ticks every 2 ms while guests run and for a while after, then parks until the next one: an idle agent costs
nothing, a busy one a few hundred short wake-ups a second.
"""

from libc.stdint cimport int64_t, uintptr_t
from libc.time cimport time_t
from posix.time cimport CLOCK_MONOTONIC, TIMER_ABSTIME, clock_nanosleep, timespec

from sentinel_wasm._hostcalls cimport monotonic_ns
from sentinel_wasm._threads cimport (
    add, load, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_wait,
    pthread_create, pthread_join, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock, store,
)
from sentinel_wasm._wasmtime cimport api

TICK_MS = TICK_NS // 1000000

cdef enum:
    CALM_TICKS = 25             # without a running guest, before the thread parks


cdef int64_t ticks_until(int64_t deadline_ns, int64_t now_ns) noexcept nogil:
    """Ticks that surely reach past a deadline; the first may come at once."""
    return (max(deadline_ns - now_ns, <int64_t>0) + TICK_NS - 1) // TICK_NS + 1


cdef void enter(TickerState* ticker) noexcept nogil:
    """A guest is about to run, on any thread. Each call is followed by one of `leave`."""
    # This writes `running` and then reads `parked`, the ticker's thread the other way round.
    add(&ticker.running, 1)
    if load(&ticker.parked):
        pthread_mutex_lock(&ticker.lock)
        pthread_cond_signal(&ticker.wake)
        pthread_mutex_unlock(&ticker.lock)


cdef void leave(TickerState* ticker) noexcept nogil:
    add(&ticker.running, -1)


cdef int64_t sleep_until(int64_t next_ns) noexcept nogil:
    """Sleep until the next tick is due, and say when the one after it is.

    Ticks that are a little late do not make later ones late. One that is late by a whole tick shifts
    all: ticks in quick succession would interrupt a guest that started between them too early.
    """
    cdef timespec at
    cdef int64_t now
    at.tv_sec = <time_t>(next_ns // 1000000000)
    at.tv_nsec = next_ns % 1000000000
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL)
    now = monotonic_ns()
    return (next_ns if now - next_ns < TICK_NS else now) + TICK_NS


cdef void* tick(void* argument) noexcept nogil:
    cdef TickerState* state = <TickerState*>argument
    cdef int64_t next_ns = 0
    cdef int calm = 0
    while True:
        next_ns = sleep_until(next_ns)
        if load(&state.running) > 0:
            api.wasmtime_engine_increment_epoch(state.engine)
            calm = 0
        else:
            calm += 1
        if calm < CALM_TICKS and not load(&state.stop):
            continue
        pthread_mutex_lock(&state.lock)
        store(&state.parked, 1)
        # A guest that starts from here on sees `parked` and waits for the lock to wake us.
        if load(&state.running) == 0 and not load(&state.stop):
            pthread_cond_wait(&state.wake, &state.lock)
        store(&state.parked, 0)
        pthread_mutex_unlock(&state.lock)
        if load(&state.stop):
            return NULL
        calm = 0


cdef class Ticker:
    """Ticks one engine; `engine` is the address of its wasm_engine_t. Stops by `stop`, or when collected."""

    def __cinit__(self, uintptr_t engine):
        self.state.engine = api.wasmtime_engine_clone(<void*>engine)
        pthread_mutex_init(&self.state.lock, NULL)
        pthread_cond_init(&self.state.wake, NULL)
        if pthread_create(&self.thread, NULL, tick, &self.state) != 0:
            raise RuntimeError("no thread for the ticker")
        self.started = True

    def stop(self) -> None:
        """No guest runs any more. Takes up to a tick, in which other Python threads may run."""
        if self.started:
            self.started = False
            with nogil:
                self.end()

    cdef void end(self) noexcept nogil:
        pthread_mutex_lock(&self.state.lock)
        store(&self.state.stop, 1)
        pthread_cond_signal(&self.state.wake)
        pthread_mutex_unlock(&self.state.lock)
        pthread_join(self.thread, NULL)
        api.wasm_engine_delete(self.state.engine)
        self.state.engine = NULL

    def __dealloc__(self):
        if self.started:
            self.end()
        pthread_cond_destroy(&self.state.wake)
        pthread_mutex_destroy(&self.state.lock)
        if self.state.engine != NULL:
            api.wasm_engine_delete(self.state.engine)

    @property
    def is_parked(self) -> bool:
        return load(&self.state.parked) != 0
