"""Instances of a module, started and freed through wasmtime's C API without the GIL.

Nothing here is known to Python but `Plan`: `_fastpath.GuestCall` and `_workers` run the guests.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memset, strlen

from sentinel_wasm._hostcalls cimport ENDED_DEADLINE, begin, ended_by, monotonic_ns, too_late
from sentinel_wasm._threads cimport add_long, load_long
from sentinel_wasm._ticker cimport enter, leave, ticks_until
from sentinel_wasm._wasmtime cimport (
    WASMTIME_EXTERN_FUNC, WASMTIME_EXTERN_MEMORY, api, wasm_byte_vec_t, wasmtime_extern_t,
    wasmtime_instance_t, wasmtime_val_raw_t,
)

import re

from wasmtime import TrapCode

from sentinel_wasm.errors import GuestFault, ModuleError, Overload, TooLate

cdef int64_t made = 0           # stores, since this process began
cdef int64_t freed = 0

cdef enum:
    TRAP_INTERRUPT = 10         # wasmtime/trap.h: the epoch has passed the store's deadline


def live_stores() -> int:
    """Stores that this process has now."""
    # In this order, or one that another thread makes and frees meanwhile would be missing.
    gone = load_long(&freed)
    return load_long(&made) - gone


def made_stores() -> int:
    """Stores that this process has made."""
    return load_long(&made)


def ended_stores() -> int:
    """Stores that this process has freed."""
    return load_long(&freed)


cdef class Plan:
    """What every instance of one module is made from.

    `linked` is the address of a wasmtime_instance_pre_t of this `engine` (wasm_engine_t); `owners` keep both
    alive. `names` are the hooks' names, `hooks` says which of them are exported.
    """

    def __cinit__(
            self, object owners, Ticker ticker, uintptr_t engine, uintptr_t linked, tuple names, hooks,
            bint wasi, bint initialize, int64_t memory_bytes, int64_t table_elements):
        if len(names) > HOOKS or len(hooks) != len(names):
            raise ValueError("too many hooks, or not as many names")
        self.names = tuple([name.encode() for name in names])
        self.owners = owners
        self.ticker = ticker
        self.state.ticker = &ticker.state
        self.state.engine = <void*>engine
        self.state.linked = <const void*>linked
        self.state.wasi = wasi
        self.state.initialize = initialize
        self.state.memory_bytes = memory_bytes
        self.state.table_elements = table_elements
        self.state.on_configure = names.index("on_configure") if "on_configure" in names else -1
        for index, there in enumerate(hooks):
            if there:
                self.state.names[<int>index] = <bytes>self.names[index]


cdef bint failed(const Outcome* out) noexcept nogil:
    return out.ending != RETURNED


cdef wasmtime_func_t function(
        wasmtime_context_t* context, const wasmtime_instance_t* instance, const char* name) noexcept nogil:
    """An export that was found to be a function when the module was loaded; zeros where it is none."""
    cdef wasmtime_extern_t item
    cdef wasmtime_func_t none
    memset(&none, 0, sizeof(none))
    if name == NULL or not api.wasmtime_instance_export_get(context, instance, name, strlen(name), &item) \
            or item.kind != WASMTIME_EXTERN_FUNC:
        return none
    return item.of.func


cdef bint run_start(const PlanState* plan, Guest* guest, Outcome* out) noexcept nogil:
    """Instantiate, which runs the start function; then `_initialize`."""
    cdef wasmtime_instance_t instance
    cdef wasmtime_extern_t item
    cdef wasmtime_func_t initialize
    cdef wasmtime_val_raw_t nothing
    cdef int index
    out.step = STEP_START
    out.error = api.wasmtime_instance_pre_instantiate(plan.linked, guest.context, &instance, &out.trap)
    if out.error != NULL or out.trap != NULL:
        return False
    if plan.initialize:
        out.step = STEP_INITIALIZE
        initialize = function(guest.context, &instance, b"_initialize")
        out.error = api.wasmtime_func_call_unchecked(guest.context, &initialize, &nothing, 1, &out.trap)
        if out.error != NULL or out.trap != NULL:
            return False
    if not api.wasmtime_instance_export_get(guest.context, &instance, b"memory", 6, &item) \
            or item.kind != WASMTIME_EXTERN_MEMORY:
        return False
    guest.memory = item.of.memory
    guest.alloc = function(guest.context, &instance, b"alloc")
    guest.dealloc = function(guest.context, &instance, b"dealloc")
    for index in range(HOOKS):
        guest.hooks[index] = function(guest.context, &instance, plan.names[index])
    return True


cdef bint start_guest(
        const PlanState* plan, Guest* guest, int64_t deadline_ns, Outcome* out) noexcept nogil:
    """Make the store and start the instance; where that fails, nothing is left of it but the reason."""
    cdef int64_t now = monotonic_ns()
    memset(out, 0, sizeof(out[0]))
    out.hook = -1
    if now >= deadline_ns:
        out.ending = FAILED_TOO_LATE
        return False
    out.ending = TRAPPED
    begin(&guest.host, deadline_ns)
    guest.store = api.wasmtime_store_new(plan.engine, guest, NULL)
    add_long(&made, 1)
    guest.context = api.wasmtime_store_context(guest.store)
    api.wasmtime_store_limiter(guest.store, plan.memory_bytes, plan.table_elements, 1, -1, 1)
    if plan.wasi:
        out.error = api.wasmtime_context_set_wasi(guest.context, api.wasi_config_new())
    if out.error == NULL:
        enter(plan.ticker)
        api.wasmtime_context_set_epoch_deadline(
            guest.context, <uint64_t>ticks_until(plan.ticker, deadline_ns))
        guest.usable = run_start(plan, guest, out)
        leave(plan.ticker)
    if not guest.usable:
        end_guest(guest)
        return False
    out.ending = RETURNED
    return True


cdef void end_guest(Guest* guest) noexcept nogil:
    """Free the store. The guest can be started again."""
    guest.usable = False
    if guest.store != NULL:
        api.wasmtime_store_delete(guest.store)
        add_long(&freed, 1)
        guest.store = NULL


cdef void free_guest(Guest* guest) noexcept nogil:
    end_guest(guest)
    free(guest.result)
    guest.result = NULL
    guest.result_capacity = 0


cdef void free_outcome(Outcome* out) noexcept nogil:
    if out.trap != NULL:
        api.wasm_trap_delete(out.trap)
        out.trap = NULL
    if out.error != NULL:
        api.wasmtime_error_delete(out.error)
        out.error = NULL


_NUMBER = re.compile(r"^\d+: ")


def cause(code: int | None, message: str) -> str:
    """What an operator reads: wasmtime's name for the trap, or the cause without backtrace and addresses."""
    if code is not None:
        return "trap: " + TrapCode(code).name.lower().replace("_", " ")
    return _NUMBER.sub("", message.rstrip("\0").strip().rpartition("\n")[2].strip()) or "an unknown failure"


cdef str place(Plan plan, const Outcome* out):
    if out.step == STEP_START:
        return "the start function"
    if out.step == STEP_INITIALIZE:
        return "_initialize"
    name = (<bytes>plan.names[out.hook]).decode()
    if out.step == STEP_HOOK:
        return name
    return f"alloc for {name}" if out.step == STEP_ALLOC else f"dealloc for {name}"


cdef object fault(Plan plan, Outcome* out, const Ended* ended, int64_t limit_ns):
    """The ModuleError for a run that failed; frees its trap and its error. `limit_ns` is for the message."""
    cdef wasm_byte_vec_t message
    cdef uint8_t code = 0
    if out.ending == FAILED_TOO_LATE:
        return TooLate(f"{too_late(limit_ns)} before the module was asked")
    if out.ending == FAILED_NO_TIME:
        return ModuleError("too little time was left to ask the module", "late")
    if out.ending == FAILED_HELD:
        return ModuleError("the module keeps failing", "paused")
    if out.trap == NULL and out.error == NULL:
        name = (<bytes>plan.names[out.hook]).decode() if out.hook >= 0 else ""
        reason, kind = {
            FAILED_NO_MEMORY: (f"out of memory in the guest: alloc returned 0 for {name}", "memory"),
            FAILED_ALLOC_POINTER: (f"alloc returned a buffer outside the memory for {name}", "pointer"),
            FAILED_RESULT_POINTER: (f"the result of {name} lies outside the memory", "pointer"),
            FAILED_RESULT_LENGTH: (f"the result of {name} is longer than {RESULT_BYTES} bytes", "result"),
            FAILED_HOST_MEMORY: (f"no memory in the agent for the result of {name}", "memory"),
        }.get(out.ending, ("an export was not found", "internal"))
        return GuestFault(reason, kind=kind)
    trap_code = None
    if out.trap != NULL:
        if api.wasmtime_trap_code(out.trap, &code):
            trap_code = code
        api.wasm_trap_message(out.trap, &message)
    else:
        api.wasmtime_error_message(out.error, &message)
    free_outcome(out)
    words = (<bytes>message.data[:message.size]).decode("utf-8", "replace")
    api.wasm_byte_vec_delete(&message)
    reason = ended_by(ended, limit_ns)
    kind = "exit"
    if trap_code == TRAP_INTERRUPT or ended.why == ENDED_DEADLINE:
        reason = too_late(limit_ns)
        kind = "deadline"
    elif reason is None:
        # wasmtime's own words: above they may be the guest's.
        reason = cause(trap_code, words)
        kind = "trap"
        if "maximum concurrent" in reason:
            return Overload("there is no room for another instance now")
        if "exceeds memory limits" in reason:
            return GuestFault(
                f"{reason}; --memory-limit allows {plan.state.memory_bytes // 1048576} MiB", trap_code,
                "memory")
    return GuestFault(f"{reason} in {place(plan, out)}", trap_code, kind)
