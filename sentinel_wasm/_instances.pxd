"""Instances of a module, started and freed through wasmtime's C API without the GIL."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t

from sentinel_wasm._hostcalls cimport Ended, HostState
from sentinel_wasm._ticker cimport Ticker, TickerState
from sentinel_wasm._wasmtime cimport (
    wasm_trap_t, wasmtime_context_t, wasmtime_error_t, wasmtime_func_t, wasmtime_memory_t,
)

cdef enum:
    HOOKS = 8                   # the most hooks a module can have
    RESULT_BYTES = 1048576      # a longer result is refused before a buffer is made

cdef enum Step:
    STEP_START
    STEP_INITIALIZE
    STEP_ALLOC
    STEP_HOOK
    STEP_DEALLOC

# How a run ended. FAILED_ codes carry no trap.
cdef enum Ending:
    RETURNED
    TRAPPED
    FAILED_NO_MEMORY
    FAILED_ALLOC_POINTER
    FAILED_RESULT_POINTER
    FAILED_RESULT_LENGTH
    FAILED_HOST_MEMORY
    FAILED_TOO_LATE             # the deadline had passed before the run
    FAILED_NO_TIME              # or was too near to begin
    FAILED_REFUSED              # on_configure has returned an error
    FAILED_HELD                 # the guest had to be started, and that is on hold

cdef struct Outcome:
    Ending ending
    Step step                   # where it trapped
    int hook                    # which was called; -1 for the start
    wasm_trap_t* trap           # ours to free, as the error
    wasmtime_error_t* error
    uint32_t length             # of the result, in Guest.result

# What all instances of one module have in common.
cdef struct PlanState:
    void* engine
    const void* linked          # wasmtime_instance_pre_t
    TickerState* ticker
    bint wasi
    bint initialize
    int64_t memory_bytes
    int64_t table_elements
    const char* names[HOOKS]    # NULL: not exported
    int on_configure            # its place among them

cdef struct Guest:
    HostState host              # first: the store's data is the guest's address
    void* store                 # NULL: not started
    wasmtime_context_t* context
    wasmtime_memory_t memory
    wasmtime_func_t alloc
    wasmtime_func_t dealloc
    wasmtime_func_t hooks[HOOKS]
    bint usable                 # False once a run has left it in a state that cannot be trusted
    char* result
    size_t result_capacity

cdef class Plan:
    cdef PlanState state
    cdef object owners          # keep what `state` points to alive
    cdef Ticker ticker
    cdef readonly tuple names

cdef bint start_guest(
    const PlanState* plan, Guest* guest, int64_t deadline_ns, Outcome* out) noexcept nogil
cdef void end_guest(Guest* guest) noexcept nogil
cdef void free_guest(Guest* guest) noexcept nogil
cdef bint failed(const Outcome* out) noexcept nogil
cdef void free_outcome(Outcome* out) noexcept nogil
cdef object fault(Plan plan, Outcome* out, const Ended* ended, int64_t limit_ns)
