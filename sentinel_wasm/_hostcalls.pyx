"""The imports that this package serves itself, as C callbacks: bounded in length and time, without the GIL.

wasmtime's own WASI blocks in the host where no epoch reaches (poll_oneoff), fills any length of random bytes
in one go, and wasmtime-py's callbacks take the GIL. What a call leaves behind (text for the log, why the
guest was ended) is kept in the store's `HostState`, whose address is the store's data, until Python takes it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_REALTIME, clock_gettime, clockid_t, nanosleep, timespec

from sentinel_wasm._wasmtime cimport (
    WASMTIME_EXTERN_MEMORY, api, callback_t, wasm_trap_t, wasmtime_caller_t, wasmtime_extern_t,
    wasmtime_val_raw_t,
)

cdef extern from "<sys/random.h>":
    int getentropy(void* buffer, size_t length) noexcept nogil

cdef extern from * nogil:
    """
    #include <time.h>
    /* That of time.monotonic_ns. CLOCK_MONOTONIC of macOS goes on while the machine sleeps. */
    #ifdef __APPLE__
    #define SW_MONOTONIC CLOCK_UPTIME_RAW
    #else
    #define SW_MONOTONIC CLOCK_MONOTONIC
    #endif
    """
    clockid_t MONOTONIC "SW_MONOTONIC"

cdef enum:
    # Of `take_output`.
    CHANNEL_STDOUT = 1
    CHANNEL_STDERR = 2
    CHANNEL_TRACE = 3
    CHANNEL_LOG = 16            # and the level, for sentinel.log

    # WASI preview 1, errno.
    ERRNO_SUCCESS = 0
    ERRNO_BADF = 8
    ERRNO_FAULT = 21
    ERRNO_INVAL = 28
    ERRNO_IO = 29

    # WASI preview 1, clockid: 0 is the real-time clock.
    CLOCK_ID_MONOTONIC = 1

    MAX_IOVECS = 1024
    MAX_SUBSCRIPTIONS = 1024
    ENTROPY_BYTES = 256             # the most getentropy gives in one call
    ENTROPY_BETWEEN_CLOCKS = 65536

STDOUT, STDERR, TRACE, LOG = CHANNEL_STDOUT, CHANNEL_STDERR, CHANNEL_TRACE, CHANNEL_LOG

ctypedef struct View:
    char* base
    uint64_t size

ctypedef struct Subscription:
    uint64_t userdata
    uint8_t kind                    # 0 clock, 1 fd_read, 2 fd_write
    uint32_t id                     # the clock, or the file descriptor
    uint64_t timeout_ns
    bint absolute


cdef int64_t monotonic_ns() noexcept nogil:
    return clock_ns(MONOTONIC)


cdef int64_t clock_ns(clockid_t clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef HostState* state_of(wasmtime_caller_t* caller) noexcept nogil:
    return <HostState*>api.wasmtime_context_get_data(api.wasmtime_caller_context(caller))


cdef bint memory_of(wasmtime_caller_t* caller, View* view) noexcept nogil:
    """The caller's memory as it is now; valid until the guest runs again."""
    cdef wasmtime_extern_t item
    if not api.wasmtime_caller_export_get(caller, b"memory", 6, &item) or item.kind != WASMTIME_EXTERN_MEMORY:
        return False
    view.base = api.wasmtime_memory_data(api.wasmtime_caller_context(caller), &item.of.memory)
    view.size = api.wasmtime_memory_data_size(api.wasmtime_caller_context(caller), &item.of.memory)
    return True


cdef inline bint inside(const View* view, uint64_t pointer, uint64_t length) noexcept nogil:
    return length <= view.size and pointer <= view.size - length


cdef inline uint32_t u32(const View* view, uint64_t pointer) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, view.base + pointer, 4)
    return value


cdef inline bint is_late(const HostState* state) noexcept nogil:
    """Code without loops and calls meets no epoch check: calls of the host look at the time themselves."""
    return monotonic_ns() > state.deadline_ns


cdef wasm_trap_t* end(HostState* state, int32_t why) noexcept nogil:
    cdef const char* text = b"ended by the host"
    state.ended.why = why
    return api.wasmtime_trap_new(text, 17)


cdef void record(HostState* state, uint8_t channel, const char* data, size_t length) noexcept nogil:
    """Append one record, cut to the room that is left."""
    cdef Output* output = &state.output
    cdef size_t room = OUTPUT_BYTES - output.used
    cdef uint32_t kept
    if room <= 5:
        output.dropped += length
        return
    kept = <uint32_t>min(length, room - 5)
    output.dropped += length - kept
    output.data[output.used] = channel
    memcpy(output.data + output.used + 1, &kept, 4)
    memcpy(output.data + output.used + 5, data, kept)
    output.used += 5 + kept


cdef wasm_trap_t* fd_write(
        void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values, size_t count) noexcept nogil:
    """(fd, iovecs, iovecs_len, written) → errno: standard output and error go to the log."""
    cdef HostState* state = state_of(caller)
    cdef View view
    cdef uint32_t fd = <uint32_t>values[0].i32
    cdef uint64_t iovecs = <uint32_t>values[1].i32
    cdef uint32_t length = <uint32_t>values[2].i32
    cdef uint64_t written_at = <uint32_t>values[3].i32
    cdef uint32_t written = 0
    cdef uint32_t pointer, size, index
    if is_late(state):
        return end(state, ENDED_DEADLINE)
    if fd != 1 and fd != 2:
        values[0].i32 = ERRNO_BADF
        return NULL
    length = min(length, <uint32_t>MAX_IOVECS)
    if not memory_of(caller, &view) or not inside(&view, iovecs, <uint64_t>length * 8) \
            or not inside(&view, written_at, 4):
        values[0].i32 = ERRNO_FAULT
        return NULL
    for index in range(length):
        pointer = u32(&view, iovecs + index * 8)
        size = u32(&view, iovecs + index * 8 + 4)
        if not inside(&view, pointer, size) or size > <uint32_t>0xffffffff - written:
            values[0].i32 = ERRNO_FAULT
            return NULL
        record(state, CHANNEL_STDOUT if fd == 1 else CHANNEL_STDERR, view.base + pointer, size)
        written += size
    memcpy(view.base + written_at, &written, 4)
    values[0].i32 = ERRNO_SUCCESS
    return NULL


cdef wasm_trap_t* clock_time_get(
        void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values, size_t count) noexcept nogil:
    """(clock, precision, time) → errno: the clocks that poll_oneoff knows, on the same scale."""
    cdef View view
    cdef uint32_t clock = <uint32_t>values[0].i32
    cdef uint64_t time_at = <uint32_t>values[2].i32
    cdef int64_t now
    if clock > CLOCK_ID_MONOTONIC:
        values[0].i32 = ERRNO_INVAL
        return NULL
    if not memory_of(caller, &view) or not inside(&view, time_at, 8):
        values[0].i32 = ERRNO_FAULT
        return NULL
    now = clock_ns(MONOTONIC if clock == CLOCK_ID_MONOTONIC else CLOCK_REALTIME)
    memcpy(view.base + time_at, &now, 8)
    values[0].i32 = ERRNO_SUCCESS
    return NULL


cdef wasm_trap_t* random_get(
        void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values, size_t count) noexcept nogil:
    """(pointer, length) → errno."""
    cdef HostState* state = state_of(caller)
    cdef View view
    cdef uint64_t pointer = <uint32_t>values[0].i32
    cdef uint64_t length = <uint32_t>values[1].i32
    cdef uint64_t done = 0
    cdef size_t step
    if not memory_of(caller, &view) or not inside(&view, pointer, length):
        values[0].i32 = ERRNO_FAULT
        return NULL
    while done < length:
        if done % ENTROPY_BETWEEN_CLOCKS == 0 and is_late(state):
            return end(state, ENDED_DEADLINE)
        step = <size_t>min(length - done, <uint64_t>ENTROPY_BYTES)
        if getentropy(view.base + pointer + done, step) != 0:
            values[0].i32 = ERRNO_IO
            return NULL
        done += step
    values[0].i32 = ERRNO_SUCCESS
    return NULL


cdef void read_subscription(const View* view, uint64_t at, Subscription* out) noexcept nogil:
    """WASI preview 1, `subscription`: 48 bytes."""
    cdef uint16_t flags
    memcpy(&out.userdata, view.base + at, 8)
    out.kind = <uint8_t>view.base[at + 8]
    out.id = u32(view, at + 16)
    memcpy(&out.timeout_ns, view.base + at + 24, 8)
    memcpy(&flags, view.base + at + 40, 2)
    out.absolute = flags & 1


cdef int64_t wake_ns(const Subscription* sub, int64_t now, int64_t real_now) noexcept nogil:
    """When (of `monotonic_ns`) a subscription is ready: at once for anything but a clock that is known."""
    cdef uint64_t base = <uint64_t>(now if sub.id == CLOCK_ID_MONOTONIC else real_now)
    cdef uint64_t wait = sub.timeout_ns
    if sub.kind != 0 or sub.id > CLOCK_ID_MONOTONIC:
        return now
    if sub.absolute:
        wait = sub.timeout_ns - base if sub.timeout_ns > base else 0
    if wait > <uint64_t>(INT64_MAX - now):
        return INT64_MAX
    return now + <int64_t>wait


cdef void write_event(View* view, uint64_t at, const Subscription* sub) noexcept nogil:
    """WASI preview 1, `event`: 32 bytes. No descriptor can be read, none but 1 and 2 written."""
    cdef uint16_t errno = ERRNO_SUCCESS
    if sub.kind == 0 and sub.id > CLOCK_ID_MONOTONIC:
        errno = ERRNO_INVAL
    elif sub.kind == 1 or (sub.kind == 2 and sub.id != 1 and sub.id != 2):
        errno = ERRNO_BADF
    memset(view.base + at, 0, 32)
    memcpy(view.base + at, &sub.userdata, 8)
    memcpy(view.base + at + 8, &errno, 2)
    view.base[at + 10] = <char>sub.kind


cdef wasm_trap_t* poll_oneoff(
        void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values, size_t count) noexcept nogil:
    """(subscriptions, events, n, n_events) → errno: sleeps as asked, but never past the deadline."""
    cdef HostState* state = state_of(caller)
    cdef View view
    cdef Subscription sub
    cdef uint64_t subscriptions = <uint32_t>values[0].i32
    cdef uint64_t events = <uint32_t>values[1].i32
    cdef uint32_t length = <uint32_t>values[2].i32
    cdef uint64_t ready_at = <uint32_t>values[3].i32
    cdef uint32_t ready = 0
    cdef uint32_t index
    cdef int64_t start = monotonic_ns()
    cdef int64_t real_start = clock_ns(CLOCK_REALTIME)
    cdef int64_t wake = INT64_MAX
    cdef int64_t now = start
    cdef timespec pause
    if is_late(state):
        return end(state, ENDED_DEADLINE)
    if length == 0 or length > MAX_SUBSCRIPTIONS:
        values[0].i32 = ERRNO_INVAL
        return NULL
    if not memory_of(caller, &view) or not inside(&view, subscriptions, <uint64_t>length * 48) \
            or not inside(&view, events, <uint64_t>length * 32) or not inside(&view, ready_at, 4):
        values[0].i32 = ERRNO_FAULT
        return NULL
    for index in range(length):
        read_subscription(&view, subscriptions + index * 48, &sub)
        wake = min(wake, wake_ns(&sub, start, real_start))
    while now < wake:
        if now >= state.deadline_ns:
            return end(state, ENDED_DEADLINE)
        pause.tv_sec = (min(wake, state.deadline_ns) - now) // 1000000000
        pause.tv_nsec = (min(wake, state.deadline_ns) - now) % 1000000000
        nanosleep(&pause, NULL)
        state.slept_ns -= now
        now = monotonic_ns()
        state.slept_ns += now
    for index in range(length):
        read_subscription(&view, subscriptions + index * 48, &sub)
        if wake_ns(&sub, start, real_start) <= now:
            write_event(&view, events + ready * 32, &sub)
            ready += 1
    memcpy(view.base + ready_at, &ready, 4)
    values[0].i32 = ERRNO_SUCCESS
    return NULL


cdef wasm_trap_t* no_directory(
        void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values, size_t count) noexcept nogil:
    """Whatever path_ function: no descriptor is a directory. wasmtime's own reads the whole path first."""
    if is_late(state_of(caller)):
        return end(state_of(caller), ENDED_DEADLINE)
    values[0].i32 = ERRNO_BADF
    return NULL


cdef wasm_trap_t* proc_exit(
        void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values, size_t count) noexcept nogil:
    """(code): a module that exits has failed."""
    cdef HostState* state = state_of(caller)
    state.ended.exit_code = values[0].i32
    return end(state, ENDED_EXIT)


cdef wasm_trap_t* log(
        void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values, size_t count) noexcept nogil:
    """sentinel.log (level, pointer, length); a pointer outside the memory logs nothing."""
    cdef View view
    cdef uint32_t level = min(<uint32_t>values[0].i32, <uint32_t>4)
    cdef uint64_t pointer = <uint32_t>values[1].i32
    cdef uint64_t length = <uint32_t>values[2].i32
    if is_late(state_of(caller)):
        return end(state_of(caller), ENDED_DEADLINE)
    if memory_of(caller, &view) and inside(&view, pointer, length):
        record(state_of(caller), <uint8_t>(CHANNEL_LOG + level), view.base + pointer, length)
    return NULL


cdef size_t utf16_at(const View* view, uint64_t pointer, uint8_t* out, size_t room) noexcept nogil:
    """Copy AssemblyScript's string (u32 length in bytes before it), cut to the room; 0 for null."""
    cdef uint64_t length
    if pointer < 4 or not inside(view, pointer - 4, 4):
        return 0
    length = min(<uint64_t>u32(view, pointer - 4), <uint64_t>room)
    if not inside(view, pointer, length):
        return 0
    memcpy(out, view.base + pointer, <size_t>length)
    return <size_t>length


cdef wasm_trap_t* abort(
        void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values, size_t count) noexcept nogil:
    """env.abort (message, file, line, column)."""
    cdef Ended* ended = &state_of(caller).ended
    cdef View view
    ended.message_bytes = ended.file_bytes = 0
    if memory_of(caller, &view):
        ended.message_bytes = utf16_at(&view, <uint32_t>values[0].i32, ended.message, ABORT_BYTES)
        ended.file_bytes = utf16_at(&view, <uint32_t>values[1].i32, ended.file, ABORT_BYTES)
    ended.line = values[2].i32
    ended.column = values[3].i32
    return end(state_of(caller), ENDED_ABORT)


cdef wasm_trap_t* seed(
        void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values, size_t count) noexcept nogil:
    """env.seed () → f64: in [0, 1), as Math.random seeds itself elsewhere."""
    cdef uint64_t bits = 0
    getentropy(&bits, 8)
    values[0].f64 = <double>(bits >> 11) / 9007199254740992.0
    return NULL


cdef wasm_trap_t* trace(
        void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values, size_t count) noexcept nogil:
    """env.trace (message, n, five f64): the record holds u32 n, the five doubles and the UTF-16 text."""
    cdef View view
    cdef uint8_t text[44 + ABORT_BYTES]
    cdef uint32_t used = min(<uint32_t>values[1].i32, <uint32_t>5)
    cdef size_t length
    cdef int index
    if is_late(state_of(caller)):
        return end(state_of(caller), ENDED_DEADLINE)
    if memory_of(caller, &view):
        memcpy(text, &used, 4)
        for index in range(5):
            memcpy(text + 4 + index * 8, &values[2 + index].f64, 8)
        length = utf16_at(&view, <uint32_t>values[0].i32, text + 44, ABORT_BYTES)
        record(state_of(caller), CHANNEL_TRACE, <const char*>text, 44 + length)
    return NULL


# (module, name): the callback's address. The types are in sentinel_wasm.guest.imports.
CALLBACKS = {
    ("wasi_snapshot_preview1", "clock_time_get"): <uintptr_t><callback_t>clock_time_get,
    ("wasi_snapshot_preview1", "fd_write"): <uintptr_t><callback_t>fd_write,
    ("wasi_snapshot_preview1", "random_get"): <uintptr_t><callback_t>random_get,
    ("wasi_snapshot_preview1", "poll_oneoff"): <uintptr_t><callback_t>poll_oneoff,
    ("wasi_snapshot_preview1", "proc_exit"): <uintptr_t><callback_t>proc_exit,
    ("wasi_snapshot_preview1", "path_*"): <uintptr_t><callback_t>no_directory,
    ("sentinel", "log"): <uintptr_t><callback_t>log,
    ("env", "abort"): <uintptr_t><callback_t>abort,
    ("env", "seed"): <uintptr_t><callback_t>seed,
    ("env", "trace"): <uintptr_t><callback_t>trace,
}


cdef void begin(HostState* state, int64_t deadline_ns) noexcept nogil:
    """A run begins: its host calls end at the deadline."""
    state.deadline_ns = deadline_ns
    state.slept_ns = 0
    state.ended.why = ENDED_NOT


cdef str too_late(int64_t limit_ns):
    """What an operator reads when the deadline has passed."""
    return f"deadline of {limit_ns // 1000000} ms exceeded"


cdef tuple take_output(Output* output):
    """The records since the last call, as [(channel, bytes)], and how many bytes were dropped."""
    cdef size_t at = 0
    cdef uint32_t length
    records = []
    while at < output.used:
        memcpy(&length, output.data + at + 1, 4)
        records.append((output.data[at], <bytes>output.data[at + 5:at + 5 + length]))
        at += 5 + length
    dropped = output.dropped
    output.used = 0
    output.dropped = 0
    return records, dropped


cdef str ended_by(const Ended* ended, int64_t limit_ns):
    """Why a host call ended the run, in words; None when none did."""
    if ended.why == ENDED_EXIT:
        return f"the module called proc_exit({ended.exit_code})"
    if ended.why == ENDED_DEADLINE:
        return too_late(limit_ns)
    if ended.why == ENDED_ABORT:
        message = (<bytes>ended.message[:ended.message_bytes]).decode("utf-16-le", "replace")
        file = (<bytes>ended.file[:ended.file_bytes]).decode("utf-16-le", "replace")
        return f"abort: {message or 'no message'} ({file or '?'}:{ended.line}:{ended.column})"
    return None
