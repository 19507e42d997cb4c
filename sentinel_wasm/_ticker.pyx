"""Moves an engine's epoch while guests run: a native thread that never takes the GIL.

A guest is interrupted when the epoch passes its store's deadline (wasmtime.h, epoch interruption). The thread
ticks every 2 ms while guests run and for a while after, then parks until the next one: an idle agent costs
nothing, a busy one a few hundred short wake-ups a second.
"""

from libc.stdint cimport int64_t, uintptr_t
from libc.time cimport time_t
from posix.time cimport nanosleep, timespec

from sentinel_wasm._hostcalls cimport monotonic_ns
from sentinel_wasm._threads cimport (
    add, add_long, load, load_long, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal,
    pthread_cond_wait, pthread_create, pthread_join, pthread_mutex_destroy, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_unlock, store, store_long,
)
from sentinel_wasm._wasmtime cimport api

TICK_MS = TICK_NS // 1000000

cdef enum:
    CALM_TICKS = 25             # without a running guest, before the thread parks


cdef int64_t due_ns(const TickerState* ticker, int64_t number) noexcept nogil:
    return load_long(&ticker.zero_ns) + number * TICK_NS


cdef int64_t ticks_until(const TickerState* ticker, int64_t deadline_ns) noexcept nogil:
    """Ticks from now to the first that is due at a deadline or after it, for a guest that has entered.

    Ticks that are overdue count: they may come all at once.
    """
    return max((deadline_ns - due_ns(ticker, load_long(&ticker.ticks)) + TICK_NS - 1) // TICK_NS, <int64_t>1)


cdef void enter(TickerState* ticker) noexcept nogil:
    """A guest is about to run, on any thread. Each call is followed by one of `leave`."""
    # This writes `running` and then reads `parked`, the ticker's thread the other way round.
    add(&ticker.running, 1)
    if not load(&ticker.parked):
        return
    pthread_mutex_lock(&ticker.lock)
    if load(&ticker.parked):
        store_long(&ticker.zero_ns, monotonic_ns() - load_long(&ticker.ticks) * TICK_NS)
        store(&ticker.parked, 0)
        pthread_cond_signal(&ticker.wake)
    pthread_mutex_unlock(&ticker.lock)


cdef void leave(TickerState* ticker) noexcept nogil:
    add(&ticker.running, -1)


cdef void sleep_until(int64_t at_ns) noexcept nogil:
    cdef int64_t left_ns = at_ns - monotonic_ns()
    cdef timespec left
    if left_ns > 0:
        left.tv_sec = <time_t>(left_ns // 1000000000)
        left.tv_nsec = left_ns % 1000000000
        nanosleep(&left, NULL)


cdef void* tick(void* argument) noexcept nogil:
    cdef TickerState* state = <TickerState*>argument
    cdef int64_t now
    cdef int calm = 0
    while not load(&state.stop):
        sleep_until(due_ns(state, state.ticks + 1))
        now = monotonic_ns()
        calm = 0 if load(&state.running) > 0 else calm + 1
        while due_ns(state, state.ticks + 1) <= now:
            # The epoch first: a guest that reads one tick too few is interrupted later, never too early.
            api.wasmtime_engine_increment_epoch(state.engine)
            add_long(&state.ticks, 1)
        if calm < CALM_TICKS:
            continue
        pthread_mutex_lock(&state.lock)
        store(&state.parked, 1)
        # A guest that starts from here on sees `parked` and waits for the lock to wake us.
        if load(&state.running) > 0:
            store(&state.parked, 0)
        while load(&state.parked) and not load(&state.stop):
            pthread_cond_wait(&state.wake, &state.lock)
        pthread_mutex_unlock(&state.lock)
        calm = 0
    return NULL


cdef class Ticker:
    """Ticks one engine; `engine` is the address of its wasm_engine_t. Stops by `stop`, or when collected."""

    def __cinit__(self, uintptr_t engine):
        self.state.engine = api.wasmtime_engine_clone(<void*>engine)
        self.state.zero_ns = monotonic_ns()
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
