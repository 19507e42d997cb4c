"""The compiled path of one event: framing, normalisation, guest calls.

Each class has a plain specification: FrameBuffer `protocol.frames.FrameReader`, Normaliser `protocol.events`
with `guest.inputs`, GuestCall the sequence in guest-abi.md, "One call".
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport INT32_MAX, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from sentinel_wasm._hostcalls cimport Host, monotonic_ns
from sentinel_wasm._json cimport (
    Cursor, Span, integer, key, named, next_member, number, scalar, take, text, white,
)
from sentinel_wasm._ticker cimport Ticker, ticks_until
from sentinel_wasm._wasmtime cimport (
    api, wasm_byte_vec_t, wasmtime_context_t, wasmtime_func_t, wasmtime_memory_t, wasmtime_val_raw_t,
)

import re

from wasmtime import TrapCode

from sentinel_wasm.errors import FrameError, GuestFault, ModuleError

cdef enum:
    CALM_BYTES = 65536          # a connection's buffer when no large frame is under way
    MAX_V1 = 10485760           # agent-protocol.md, section 2
    MAX_V2 = 16777216           # section 3; counts the type byte

    REQUEST_HEADERS = 0x10      # v2's event types
    RESPONSE_HEADERS = 0x12
    MAX_HEADERS = 128           # with more, the Python path is quick enough beside the guest
    NAMES_CANONICAL = 0
    NAMES_LOWER = 1
    NAMES_AS_IS = 2


cdef inline uint32_t big_endian(const char* data) noexcept nogil:
    cdef const uint8_t* p = <const uint8_t*>data
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef class FrameBuffer:
    """Receives a connection's bytes and cuts them into frames.

    It exports its free space as a writable buffer: pass it to `recv_into`, or return it from
    `BufferedProtocol.get_buffer`, release that buffer, then call `received`. Frames are copied out, so what
    `next_frame` returns lives on. After a FrameError the connection must be closed.
    """

    def __cinit__(self):
        self.data = <char*>malloc(CALM_BYTES)
        if self.data == NULL:
            raise MemoryError
        self.capacity = CALM_BYTES

    def __dealloc__(self):
        free(self.data)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        cdef Py_ssize_t room
        self.reserve()
        room = <Py_ssize_t>(self.capacity - self.end)
        PyBuffer_FillInfo(buffer, self, self.data + self.end, room, 0, flags)
        self.lent += 1

    def __releasebuffer__(self, Py_buffer* buffer):
        self.lent -= 1

    def received(self, Py_ssize_t count) -> None:
        """The lent buffer's first `count` bytes were written."""
        if count < 0 or <size_t>count > self.capacity - self.end:
            raise ValueError("more bytes than the buffer has room for")
        self.end += <size_t>count

    @property
    def unread(self) -> int:
        """Bytes that are not yet part of a returned frame."""
        return self.end - self.start

    def next_frame(self) -> bytes | None:
        """The next whole frame's payload, or None. v2: `frame_type` is set.

        Raises FrameError where the length or the first byte is not allowed.
        """
        cdef size_t unread = self.end - self.start
        cdef char* frame = self.data + self.start
        cdef uint32_t length
        cdef bytes payload
        if unread < 4:
            return None
        length = big_endian(frame)
        if length == 0 or length > (MAX_V1 if self.protocol == 1 else MAX_V2):
            raise FrameError(
                f"a frame of {length} bytes: allowed are 1 to {MAX_V1 if self.protocol == 1 else MAX_V2}")
        if self.protocol == 0:
            if unread < 5:
                return None
            if frame[4] == 1:
                self.protocol = 2
            elif frame[4] in (b"{", b" ", b"\t", b"\n", b"\r"):
                self.protocol = 1
                return self.next_frame()
            else:
                raise FrameError(
                    f"the first frame begins with byte 0x{<uint8_t>frame[4]:02x}:"
                    " neither JSON (v1) nor a handshake (v2)")
        if unread < 4 + <size_t>length:
            return None
        if self.protocol == 2:
            self.frame_type = <uint8_t>frame[4]
            payload = PyBytes_FromStringAndSize(frame + 5, length - 1)
        else:
            payload = PyBytes_FromStringAndSize(frame + 4, length)
        self.start += 4 + <size_t>length
        self.settle()
        return payload

    cdef void settle(self) noexcept:
        """When all is read: begin at the front again, and give a large buffer back."""
        cdef char* smaller
        if self.start != self.end:
            return
        self.start = self.end = 0
        if self.capacity > CALM_BYTES and self.lent == 0:
            smaller = <char*>realloc(self.data, CALM_BYTES)
            if smaller != NULL:
                self.data = smaller
                self.capacity = CALM_BYTES

    cdef int reserve(self) except -1:
        """Make room behind `end`: the buffer grows with the bytes that came, not with what they announce."""
        cdef char* larger
        cdef size_t capacity
        if self.lent:
            raise BufferError("the free space is already lent")
        if self.start > 0 and (self.capacity - self.end) < CALM_BYTES // 2:
            memmove(self.data, self.data + self.start, self.end - self.start)
            self.end -= self.start
            self.start = 0
        if self.end == self.capacity:
            capacity = min(self.capacity * 2, <size_t>(MAX_V2 + 4 + CALM_BYTES))
            if capacity == self.capacity:
                raise BufferError("the buffer is full of frames that nobody took")
            larger = <char*>realloc(self.data, capacity)
            if larger == NULL:
                raise MemoryError
            self.data = larger
            self.capacity = capacity
        return 0


cdef inline char* put(char* o, const char* what, size_t length) noexcept nogil:
    memcpy(o, what, length)
    return o + length


cdef inline bint once(Cursor* c, Span* field) noexcept nogil:
    """A string where this field has not been met before: of two, orjson takes the last."""
    return field.at == NULL and text(c, field, True)


cdef bint metadata(Cursor* c, Found* found) noexcept nogil:
    cdef Span name
    cdef bint more = True
    if found.client_ip.at != NULL or found.metadata_id.at != NULL or not take(c, c'{') or take(c, c'}'):
        return False
    while more:
        if not key(c, &name):
            return False
        if named(&name, b"client_ip", 9):
            if found.client_ip.at != NULL or not text(c, &found.client_ip, False):
                return False
        elif named(&name, b"correlation_id", 14):
            if found.metadata_id.at != NULL or not text(c, &found.metadata_id, False):
                return False
        elif not scalar(c):
            return False
        if not next_member(c, &more):
            return False
    return True


cdef inline bint digits(const char* p, const char* end) noexcept nogil:
    if p == end:
        return False
    while p < end and c'0' <= p[0] <= c'9':
        p += 1
    return p == end


cdef Span bare_ip(const Span* client_ip) noexcept nogil:
    """Without port and brackets, as `guest.inputs.bare_ip`."""
    cdef const char* p = client_ip.at
    cdef const char* end = client_ip.at + client_ip.length
    cdef Span bare = client_ip[0]
    cdef bint bracket = p < end and p[0] == c'['
    while p < end and p[0] != (c']' if bracket else c':'):
        p += 1
    if p == end:
        return bare
    if bracket:
        if p + 1 == end or (p[1] == c':' and digits(p + 2, end)):
            bare.at = client_ip.at + 1
            bare.length = p - bare.at
    elif digits(p + 1, end):
        bare.length = p - bare.at
    return bare


cdef class Normaliser:
    """Turns a header event's bytes into the guest's, without a Python object a header.

    `event` gives None for every event that it does not surely understand: the Python path (`protocol.events`,
    `guest.inputs`) takes those, and would have given the same bytes for the others. `names` is one of
    canonical, lower, as-is; `lists`: values as lists instead of joined.
    """

    def __cinit__(self, str names not None, bint lists):
        self.names = {"canonical": NAMES_CANONICAL, "lower": NAMES_LOWER, "as-is": NAMES_AS_IS}[names]
        self.lists = lists

    def __dealloc__(self):
        free(self.out)

    def event(self, int frame_type, bytes frame not None) -> tuple[int, int, str, bytes] | None:
        """(v2's event type, version, correlation id, the guest's input) of a v2 event or a v1 request (0)."""
        cdef Cursor c
        cdef Found found
        cdef Span id
        cdef size_t length = <size_t>PyBytes_GET_SIZE(frame)
        cdef bint understood
        if frame_type != 0 and frame_type != REQUEST_HEADERS and frame_type != RESPONSE_HEADERS:
            return None
        c.at = PyBytes_AS_STRING(frame)
        c.end = c.at + length
        self.room(length)
        memset(&found, 0, sizeof(found))
        found.kind = frame_type
        understood = self.payload(&c, &found) if frame_type else self.envelope(&c, &found)
        white(&c)
        id = found.id if found.id.at != NULL else found.metadata_id
        if not understood or c.at != c.end or id.length == 0 or found.headers == 0:
            return None
        if found.kind == REQUEST_HEADERS:
            if found.method.at == NULL or found.uri.at == NULL or found.client_ip.at == NULL \
                    or found.metadata_id.at == NULL:
                return None
        elif found.status.at == NULL or found.id.at == NULL:
            return None
        return (
            found.kind, number(&found.version) if frame_type == 0 else 2,
            PyUnicode_DecodeASCII(id.at, <Py_ssize_t>id.length, NULL), self.build(&found, &id))

    cdef int room(self, size_t length) except -1:
        """What is written is never longer than the event. The next small event gives a large buffer back."""
        cdef size_t wanted = max(length, <size_t>CALM_BYTES)
        cdef char* other
        if self.capacity < wanted or (self.capacity > CALM_BYTES and wanted == CALM_BYTES):
            other = <char*>realloc(self.out, wanted)
            if other == NULL:
                raise MemoryError
            self.out = other
            self.capacity = wanted
        return 0

    cdef bint envelope(self, Cursor* c, Found* found) noexcept nogil:
        """v1: {"version", "event_type", "payload"}, the payload after the type."""
        cdef Span name, kind
        cdef bint more = True
        cdef bint payload = False
        if not take(c, c'{'):
            return False
        while more:
            if not key(c, &name):
                return False
            if named(&name, b"payload", 7):
                if payload or found.kind == 0 or not self.payload(c, found):
                    return False
                payload = True
            elif named(&name, b"event_type", 10):
                if found.kind != 0 or not text(c, &kind, False):
                    return False
                if named(&kind, b"request_headers", 15):
                    found.kind = REQUEST_HEADERS
                elif named(&kind, b"response_headers", 16):
                    found.kind = RESPONSE_HEADERS
                else:
                    return False
            elif named(&name, b"version", 7):
                if found.version.at != NULL or not integer(c, &found.version) or found.version.length > 9:
                    return False
            elif not scalar(c):
                return False
            if not next_member(c, &more):
                return False
        return payload and found.version.at != NULL

    cdef bint payload(self, Cursor* c, Found* found) noexcept nogil:
        cdef Span name
        cdef bint more = True
        if not take(c, c'{'):
            return False
        while more:
            if not key(c, &name):
                return False
            if named(&name, b"headers", 7):
                if found.headers != 0 or not self.headers(c, found):
                    return False
            elif named(&name, b"correlation_id", 14):
                if found.id.at != NULL or not text(c, &found.id, False) or found.id.length == 0:
                    return False
            elif found.kind == RESPONSE_HEADERS:
                if named(&name, b"status", 6):
                    if found.status.at != NULL or not integer(c, &found.status):
                        return False
                elif not scalar(c):
                    return False
            elif named(&name, b"metadata", 8):
                if not metadata(c, found):
                    return False
            elif named(&name, b"method", 6):
                if not once(c, &found.method):
                    return False
            elif named(&name, b"uri", 3):
                if not once(c, &found.uri):
                    return False
            elif not scalar(c):
                return False
            if not next_member(c, &more):
                return False
        return True

    cdef bint headers(self, Cursor* c, Found* found) noexcept nogil:
        """Write the headers object; False where two names become one."""
        cdef Span name
        cdef char* o = self.out
        cdef char* start
        cdef bint more
        cdef uint32_t hashes[MAX_HEADERS]
        cdef uint32_t hash
        cdef int count = 0
        cdef int index
        if not take(c, c'{'):
            return False
        o[0] = c'{'
        o += 1
        more = not take(c, c'}')
        while more:
            if count == MAX_HEADERS or not key(c, &name):
                return False
            start = o
            if count:
                o[0] = c','
                o += 1
            o = self.name(o, &name, &hash)
            o = self.values(c, o, name.length == 6 and is_cookie(name.at))
            if o == NULL:
                return False
            if name.length and name.at[0] == c':':
                o = start
            else:
                for index in range(count):
                    if hashes[index] == hash:
                        return False
                hashes[count] = hash
                count += 1
            if not next_member(c, &more):
                return False
        o[0] = c'}'
        found.headers = o + 1 - self.out
        return True

    cdef char* name(self, char* o, const Span* name, uint32_t* hash) noexcept nogil:
        """Write `"Name":` in the form asked for; the hash (FNV-1a) is of that form."""
        cdef uint32_t value = 2166136261
        cdef bint first = True
        cdef uint8_t letter
        cdef size_t index
        o[0] = c'"'
        o += 1
        for index in range(name.length):
            letter = <uint8_t>name.at[index]
            if self.names == NAMES_CANONICAL and first:
                if c'a' <= letter <= c'z':
                    letter -= 32
            elif self.names != NAMES_AS_IS and c'A' <= letter <= c'Z':
                letter += 32
            first = letter == c'-'
            value = (value ^ letter) * 16777619
            o[0] = <char>letter
            o += 1
        hash[0] = value
        return put(o, b'":', 2)

    cdef char* values(self, Cursor* c, char* o, bint cookie) noexcept nogil:
        """Write an array of strings as a list or joined; NULL where it is anything else."""
        cdef Span value
        cdef bint first = True
        if not take(c, c'['):
            return NULL
        o[0] = c'[' if self.lists else c'"'
        o += 1
        if not take(c, c']'):
            while True:
                if not text(c, &value, True):
                    return NULL
                if not first:
                    o = put(o, b"," if self.lists else (b"; " if cookie else b", "), 1 if self.lists else 2)
                first = False
                if self.lists:
                    o = put(o, value.at - 1, value.length + 2)
                else:
                    o = put(o, value.at, value.length)
                if take(c, c','):
                    continue
                if not take(c, c']'):
                    return NULL
                break
        o[0] = c']' if self.lists else c'"'
        return o + 1

    cdef bytes build(self, const Found* found, const Span* id):
        """The guest's input, with the keys in the order in which `guest.inputs` writes them."""
        cdef Span ip
        cdef size_t length
        cdef bytes data
        cdef char* start
        cdef char* o
        if found.kind == REQUEST_HEADERS:
            ip = bare_ip(&found.client_ip)
            length = 68 + found.method.length + found.uri.length + ip.length + id.length + found.headers
            data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
            start = o = PyBytes_AS_STRING(data)
            o = put(o, b'{"method":"', 11)
            o = put(o, found.method.at, found.method.length)
            o = put(o, b'","uri":"', 9)
            o = put(o, found.uri.at, found.uri.length)
            o = put(o, b'","client_ip":"', 15)
            o = put(o, ip.at, ip.length)
            o = put(o, b'","correlation_id":"', 20)
        else:
            length = 42 + found.status.length + id.length + found.headers
            data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
            start = o = PyBytes_AS_STRING(data)
            o = put(o, b'{"status":', 10)
            o = put(o, found.status.at, found.status.length)
            o = put(o, b',"correlation_id":"', 19)
        o = put(o, id.at, id.length)
        o = put(o, b'","headers":', 12)
        o = put(o, self.out, found.headers)
        o = put(o, b"}", 1)
        if <size_t>(o - start) != length:
            raise SystemError("the input's length was not foreseen")
        return data


cdef inline bint is_cookie(const char* name) noexcept nogil:
    cdef const char* cookie = b"cookie"
    cdef int index
    for index in range(6):
        if (name[index] | 0x20) != cookie[index]:
            return False
    return True


_NUMBER = re.compile(r"^\d+: ")


def cause(code: int | None, message: str) -> str:
    """What an operator reads: wasmtime's name for the trap, or the cause without backtrace and addresses."""
    if code is not None:
        return "trap: " + TrapCode(code).name.lower().replace("_", " ")
    return _NUMBER.sub("", message.rstrip("\0").strip().rpartition("\n")[2].strip()) or "an unknown failure"


cdef class GuestCall:
    """The exports of one instance, called through wasmtime's C API.

    Call `call` from one thread at a time. When `usable` is false the instance must not be called again.
    `owner` must keep the store alive; `memory`, `alloc`, `dealloc` and `hooks` are addresses of
    wasmtime_memory_t and wasmtime_func_t structs (copied), 0 for a hook that is not exported; `names` are the
    hooks' names for messages.
    """

    def __cinit__(
            self, object owner, Host host, Ticker ticker, uintptr_t context, uintptr_t memory,
            uintptr_t alloc, uintptr_t dealloc, hooks: list[int], list names):
        cdef uintptr_t address
        if len(hooks) > HOOKS or len(hooks) != len(names):
            raise ValueError("too many hooks, or not as many names")
        self.owner = owner
        self.host = host
        self.ticker = ticker
        self.context = <wasmtime_context_t*>context
        self.memory = (<wasmtime_memory_t*>memory)[0]
        self.alloc = (<wasmtime_func_t*>alloc)[0]
        self.dealloc = (<wasmtime_func_t*>dealloc)[0]
        self.names = names
        for index, address in enumerate(hooks):
            if address:
                self.hooks[<int>index] = (<wasmtime_func_t*>address)[0]
        self.usable = True

    def __dealloc__(self):
        free(self.result)

    def call(self, int hook, bytes data not None, int64_t deadline_ns, int64_t limit_ns) -> bytes | None:
        """Give `data` to a hook; its result's bytes, or None where pointer or length is 0.

        The guest is interrupted at `deadline_ns` (CLOCK_MONOTONIC), or up to 4 ms later; `limit_ns` is the
        time that the event had, for the message. Raises GuestFault (trap, deadline, exit, bad pointer,
        result over 1 MiB, no memory in the guest), and ModuleError where the deadline has passed before the
        call.
        """
        cdef Outcome out
        cdef int64_t now
        if hook < 0 or hook >= HOOKS or self.hooks[hook].store_id == 0:
            raise ValueError(f"hook {hook} is not exported")
        if not self.usable:
            raise ValueError("this instance has failed and must not be called again")
        if PyBytes_GET_SIZE(data) > INT32_MAX:
            raise ValueError("more input than an i32 can count")
        self.host.start(deadline_ns, limit_ns)
        now = monotonic_ns()
        if now >= deadline_ns:
            raise ModuleError(f"{self.host.too_late()} before the module was asked")
        api.wasmtime_context_set_epoch_deadline(self.context, <uint64_t>ticks_until(deadline_ns, now))
        self.ticker.enter()
        # The GIL is kept: releasing it around a quick call costs ms at p99 beside a thread that computes.
        self.run(hook, PyBytes_AS_STRING(data), <uint32_t>PyBytes_GET_SIZE(data), &out)
        self.ticker.leave()
        if out.ending != RETURNED:
            self.usable = False
            raise self.fault(hook, &out)
        if out.trap != NULL or out.error != NULL:
            # dealloc trapped: that costs the instance, not the result.
            self.usable = False
            self.lost = self.fault(hook, &out)
        if out.length == 0:
            return None
        return PyBytes_FromStringAndSize(self.result, out.length)

    def retire(self) -> None:
        """Allow no further call: the store is about to be freed."""
        self.usable = False
        self.owner = None

    cdef bint enter(
            self, const wasmtime_func_t* function, void* values, Step step, Outcome* out) noexcept nogil:
        out.error = api.wasmtime_func_call_unchecked(
            self.context, function, <wasmtime_val_raw_t*>values, 2, &out.trap)
        out.step = step
        return out.error == NULL and out.trap == NULL

    cdef void give_back(self, uint32_t pointer, uint32_t length, Outcome* out) noexcept nogil:
        cdef wasmtime_val_raw_t values[2]
        if out.trap != NULL or out.error != NULL:
            return
        values[0].i64 = pointer
        values[1].i64 = length
        self.enter(&self.dealloc, values, STEP_DEALLOC, out)

    cdef void run(self, int hook, const char* data, uint32_t length, Outcome* out) noexcept nogil:
        """One call as guest-abi.md has it, but the result is copied out before the input is freed."""
        cdef wasmtime_val_raw_t values[2]
        cdef uint32_t pointer, result
        cdef uint64_t packed
        out.trap = NULL
        out.error = NULL
        out.length = 0
        out.ending = TRAPPED
        values[0].i64 = length
        if not self.enter(&self.alloc, values, STEP_ALLOC, out):
            return
        pointer = <uint32_t>values[0].i32
        if pointer == 0:
            out.ending = FAILED_NO_MEMORY
            return
        if <uint64_t>pointer + length > api.wasmtime_memory_data_size(self.context, &self.memory):
            out.ending = FAILED_ALLOC_POINTER
            return
        memcpy(api.wasmtime_memory_data(self.context, &self.memory) + pointer, data, length)
        values[0].i64 = pointer
        values[1].i64 = length
        if not self.enter(&self.hooks[hook], values, STEP_HOOK, out):
            return
        packed = <uint64_t>values[0].i64
        result = <uint32_t>(packed >> 32)
        if not self.keep(result, <uint32_t>packed, out):
            return
        out.ending = RETURNED
        self.give_back(pointer, length, out)
        if out.length:
            self.give_back(result, out.length, out)

    cdef bint keep(self, uint32_t pointer, uint32_t length, Outcome* out) noexcept nogil:
        """Copy the result out of the guest's memory as it is now (any call may have moved it)."""
        cdef char* larger
        if pointer == 0 or length == 0:
            return True
        if length > RESULT_BYTES:
            out.ending = FAILED_RESULT_LENGTH
            return False
        if <uint64_t>pointer + length > api.wasmtime_memory_data_size(self.context, &self.memory):
            out.ending = FAILED_RESULT_POINTER
            return False
        if length > self.result_capacity:
            larger = <char*>realloc(self.result, length)
            if larger == NULL:
                out.ending = FAILED_HOST_MEMORY
                return False
            self.result = larger
            self.result_capacity = length
        memcpy(self.result, api.wasmtime_memory_data(self.context, &self.memory) + pointer, length)
        out.length = length
        return True

    cdef object fault(self, int hook, Outcome* out):
        """The GuestFault for an outcome; frees its trap and its error."""
        cdef wasm_byte_vec_t message
        cdef uint8_t code
        name = self.names[hook]
        if out.trap == NULL and out.error == NULL:
            return GuestFault({
                FAILED_NO_MEMORY: f"out of memory in the guest: alloc returned 0 for {name}",
                FAILED_ALLOC_POINTER: f"alloc returned a buffer outside the memory for {name}",
                FAILED_RESULT_POINTER: f"the result of {name} lies outside the memory",
                FAILED_RESULT_LENGTH: f"the result of {name} is longer than {RESULT_BYTES} bytes",
                FAILED_HOST_MEMORY: f"no memory in the agent for the result of {name}",
            }[out.ending])
        trap_code = None
        if out.trap != NULL:
            if api.wasmtime_trap_code(out.trap, &code):
                trap_code = code
            api.wasm_trap_message(out.trap, &message)
            api.wasm_trap_delete(out.trap)
        else:
            api.wasmtime_error_message(out.error, &message)
            api.wasmtime_error_delete(out.error)
        words = (<bytes>message.data[:message.size]).decode("utf-8", "replace")
        api.wasm_byte_vec_delete(&message)
        where = {STEP_ALLOC: f"alloc for {name}", STEP_HOOK: name, STEP_DEALLOC: f"dealloc for {name}"}
        reason = self.host.ended_by() or cause(trap_code, words)
        if trap_code == TRAP_INTERRUPT:
            reason = self.host.too_late()
        return GuestFault(f"{reason} in {where[out.step]}", trap_code)
