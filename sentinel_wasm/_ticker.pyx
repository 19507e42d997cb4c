"""Moves an engine's epoch while guests run: a native thread that never takes the GIL.

A guest is interrupted when the epoch passes its store's deadline (wasmtime.h, epoch interruption). The thread
ticks every 2 ms while guests run and for a while after, then parks until the next one: an idle agent costs
nothing, a busy one a few hundred short wake-ups a second.
"""

from libc.stdint cimport int64_t, uintptr_t
from libc.time cimport time_t
from posix.time cimport nanosleep, timespec

from sentinel_wasm._wasmtime cimport api

cdef extern from "<pthread.h>" nogil:
    int pthread_create(pthread_t*, const void*, void* (*)(void*) noexcept, void*)
    int pthread_join(pthread_t, void**)
    int pthread_mutex_init(pthread_mutex_t*, const void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_cond_init(pthread_cond_t*, const void*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)

cdef extern from * nogil:
    """
    /* Sequentially consistent: each side writes one of `running` and `parked` and then reads the other. */
    #define sw_load(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define sw_store(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #define sw_add(p, v) __atomic_add_fetch((p), (v), __ATOMIC_SEQ_CST)
    """
    int sw_load(int*)
    void sw_store(int*, int)
    int sw_add(int*, int)

TICK_MS = TICK_NS // 1000000

cdef enum:
    CALM_TICKS = 25             # without a running guest, before the thread parks


cdef int64_t ticks_until(int64_t deadline_ns, int64_t now_ns) noexcept nogil:
    """Ticks that surely reach past a deadline; the first may come at once."""
    return (max(deadline_ns - now_ns, <int64_t>0) + TICK_NS - 1) // TICK_NS + 1


cdef void* tick(void* argument) noexcept nogil:
    cdef TickerState* state = <TickerState*>argument
    cdef timespec pause
    cdef int calm = 0
    pause.tv_sec = <time_t>0
    pause.tv_nsec = TICK_NS
    while True:
        nanosleep(&pause, NULL)
        if sw_load(&state.running) > 0:
            api.wasmtime_engine_increment_epoch(state.engine)
            calm = 0
        else:
            calm += 1
        if calm < CALM_TICKS and not sw_load(&state.stop):
            continue
        pthread_mutex_lock(&state.lock)
        sw_store(&state.parked, 1)
        # A guest that starts from here on sees `parked` and waits for the lock to wake us.
        if sw_load(&state.running) == 0 and not sw_load(&state.stop):
            pthread_cond_wait(&state.wake, &state.lock)
        sw_store(&state.parked, 0)
        pthread_mutex_unlock(&state.lock)
        if sw_load(&state.stop):
            return NULL
        calm = 0


cdef class Ticker:
    """Ticks one engine; `engine` is the address of its wasm_engine_t. Stops when it is collected."""

    def __cinit__(self, uintptr_t engine):
        self.state.engine = api.wasmtime_engine_clone(<void*>engine)
        pthread_mutex_init(&self.state.lock, NULL)
        pthread_cond_init(&self.state.wake, NULL)
        if pthread_create(&self.thread, NULL, tick, &self.state) != 0:
            raise RuntimeError("no thread for the ticker")
        self.started = True

    def __dealloc__(self):
        if self.started:
            pthread_mutex_lock(&self.state.lock)
            sw_store(&self.state.stop, 1)
            pthread_cond_signal(&self.state.wake)
            pthread_mutex_unlock(&self.state.lock)
            pthread_join(self.thread, NULL)
        pthread_cond_destroy(&self.state.wake)
        pthread_mutex_destroy(&self.state.lock)
        if self.state.engine != NULL:
            api.wasm_engine_delete(self.state.engine)

    cdef void enter(self) noexcept nogil:
        """A guest is about to run. Each call is followed by one of `leave`."""
        sw_add(&self.state.running, 1)
        if sw_load(&self.state.parked):
            pthread_mutex_lock(&self.state.lock)
            pthread_cond_signal(&self.state.wake)
            pthread_mutex_unlock(&self.state.lock)

    cdef void leave(self) noexcept nogil:
        sw_add(&self.state.running, -1)

    def __enter__(self) -> None:
        """For a run that does not go through GuestCall."""
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

    @property
    def is_parked(self) -> bool:
        return sw_load(&self.state.parked) != 0
