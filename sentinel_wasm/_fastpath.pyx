"""The compiled path of one event: framing, normalisation, guest calls.

Each class has a plain specification: FrameBuffer `protocol.frames.FrameReader`, Normaliser `protocol.events`
with `guest.inputs`, GuestCall the sequence in guest-abi.md, "One call".
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport INT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset
from posix.time cimport CLOCK_THREAD_CPUTIME_ID

from sentinel_wasm._hostcalls cimport begin, clock_ns, monotonic_ns, take_output
from sentinel_wasm._instances cimport (
    FAILED_ALLOC_POINTER, FAILED_HOST_MEMORY, FAILED_NO_MEMORY, FAILED_RESULT_LENGTH, FAILED_RESULT_POINTER,
    FAILED_TOO_LATE, RETURNED, STEP_ALLOC, STEP_DEALLOC, STEP_HOOK, TRAPPED, failed, fault, free_guest,
    start_guest,
)
from sentinel_wasm._json cimport (
    Cursor, Span, integer, key, named, next_member, number, put, puts, scalar, take, text, white,
)
from sentinel_wasm._metrics cimport observe
from sentinel_wasm._ticker cimport TICK_NS, enter, leave, ticks_until
from sentinel_wasm._wasmtime cimport api, wasmtime_val_raw_t

from sentinel_wasm.errors import FrameError

cdef enum:
    SLOW_NS = 2000000           # guests may hold the event loop so long in one turn,
    SLOW_AGAIN_NS = 1000000000  # or longer if it does not happen again in this time,
    TOO_SLOW_NS = 8000000       # but never so long
    SAMPLE_NS = 1000000
    QUICK_NS = 50000
    DEALLOC_NS = 10000000
    CALM_BYTES = 65536          # a connection's buffer when no large frame is under way
    MAX_V1 = 10485760           # agent-protocol.md, section 2
    MAX_V2 = 16777216           # section 3; counts the type byte

    MAX_HEADERS = 128           # with more, the Python path is quick enough beside the guest
    SLACK = 8                   # names are written eight letters at a time
    NAMES_CANONICAL = 0
    NAMES_LOWER = 1
    NAMES_AS_IS = 2


cdef extern from * nogil:
    """
    #define SW_ONES 0x0101010101010101ULL
    #define SW_MIX 0x9e3779b97f4a7c15ULL    /* 2^64 by the golden ratio: its product mixes all bits */
    """
    const uint64_t ONES "SW_ONES"
    const uint64_t MIX "SW_MIX"


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
        self.grow(count)

    cdef int grow(self, Py_ssize_t count) except -1:
        if count < 0 or <size_t>count > self.capacity - self.end:
            raise ValueError("more bytes than the buffer has room for")
        self.end += <size_t>count
        return 0

    @property
    def unread(self) -> int:
        """Bytes that are not yet part of a returned frame."""
        return self.end - self.start

    def next_frame(self) -> bytes | None:
        """The next whole frame's payload, or None. v2: `frame_type` is set.

        Raises FrameError where the length or the first byte is not allowed.
        """
        cdef Span frame
        cdef bytes payload
        if not self.find(&frame):
            return None
        payload = PyBytes_FromStringAndSize(frame.at, <Py_ssize_t>frame.length)
        self.drop(&frame)
        return payload

    cdef bint find(self, Span* payload) except -1:
        """Whether a whole frame is there; the payload may be read until `drop`. As `next_frame` otherwise."""
        cdef size_t unread = self.end - self.start
        cdef char* frame = self.data + self.start
        cdef uint32_t length
        if unread < 4:
            return False
        length = big_endian(frame)
        if length == 0 or length > <uint32_t>(MAX_V1 if self.protocol == 1 else MAX_V2):
            raise FrameError(
                f"a frame of {length} bytes: allowed are 1 to {MAX_V1 if self.protocol == 1 else MAX_V2}")
        if self.protocol == 0:
            if unread < 5:
                return False
            if frame[4] == 1:
                self.protocol = 2
            elif frame[4] in (b"{", b" ", b"\t", b"\n", b"\r"):
                self.protocol = 1
                return self.find(payload)
            else:
                raise FrameError(
                    f"the first frame begins with byte 0x{<uint8_t>frame[4]:02x}:"
                    " neither JSON (v1) nor a handshake (v2)")
        if unread < 4 + <size_t>length:
            return False
        payload.at = frame + 4
        payload.length = length
        if self.protocol == 2:
            self.frame_type = <uint8_t>frame[4]
            payload.at += 1
            payload.length -= 1
        return True

    cdef void drop(self, const Span* payload) noexcept nogil:
        """Go behind a frame that `find` has found."""
        self.start = <size_t>(payload.at + payload.length - self.data)
        if self.start == self.end:
            self.start = self.end = 0

    def take_unread(self) -> bytes:
        """The bytes that are not part of a returned frame yet; the buffer has none of them afterwards."""
        cdef bytes unread = PyBytes_FromStringAndSize(self.data + self.start, self.end - self.start)
        self.start = self.end = 0
        return unread

    def resume(self, int protocol, bytes unread not None) -> None:
        """Go on where another buffer of this protocol had these bytes left; before anything is received."""
        cdef Py_ssize_t length = PyBytes_GET_SIZE(unread)
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t count
        self.protocol = protocol
        while done < length:
            self.reserve()
            count = min(<Py_ssize_t>(self.capacity - self.end), length - done)
            memcpy(self.data + self.end, PyBytes_AS_STRING(unread) + done, <size_t>count)
            self.grow(count)
            done += count

    def shrink(self) -> None:
        """Give a large buffer back, if all is read; uvloop lends it until a read has been looked at."""
        cdef char* smaller
        if self.end == 0 and self.capacity > CALM_BYTES and self.lent == 0:
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
        if self.end == 0:
            self.shrink()
        if self.start > 0 and (self.capacity - self.end) < <size_t>(CALM_BYTES // 2):
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
        if named(&name, b"client_ip"):
            if found.client_ip.at != NULL or not text(c, &found.client_ip, False):
                return False
        elif named(&name, b"correlation_id"):
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


cdef inline const char* first(const char* p, const char* end, char what) noexcept nogil:
    while p < end and p[0] != what:
        p += 1
    return p


cdef Span bare_ip(const Span* client_ip) noexcept nogil:
    """Without port and brackets, as `guest.inputs.bare_ip`."""
    cdef const char* start = client_ip.at
    cdef const char* end = start + client_ip.length
    cdef const char* p
    cdef Span bare = client_ip[0]
    if start < end and start[0] == c'[':
        p = first(start, end, c']')
        if p < end and (p + 1 == end or (p[1] == c':' and digits(p + 2, end))):
            bare.at = start + 1
            bare.length = p - bare.at
            return bare
    p = first(start, end, c':')
    if p < end and digits(p + 1, end):
        bare.length = p - start
    return bare


cdef inline uint64_t load(const char* p, size_t length) noexcept nogil:
    """The first eight characters, or as many as there are, with zeros behind them."""
    cdef uint64_t letters = 0
    cdef size_t index
    if length >= 8:
        memcpy(&letters, p, 8)
        return letters
    for index in range(length):
        letters |= <uint64_t><uint8_t>p[index] << (8 * index)
    return letters


cdef inline uint64_t between(uint64_t letters, uint8_t least, uint8_t most) noexcept nogil:
    """In the top bit of each ASCII character: whether it is between these two (no sum leaves its byte)."""
    return (letters + ONES * (0x80 - least)) & ~(letters + ONES * (0x7f - most)) & (ONES * 0x80)


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
        cdef Found found
        cdef Span payload
        cdef bytes data
        payload.at = PyBytes_AS_STRING(frame)
        payload.length = <size_t>PyBytes_GET_SIZE(frame)
        if not self.read(frame_type, &payload, &found):
            return None
        data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>found.length)
        self.write(&found, PyBytes_AS_STRING(data))
        return (
            found.kind, found.version,
            PyUnicode_DecodeASCII(found.id.at, <Py_ssize_t>found.id.length, NULL), data)

    cdef bint read(self, int frame_type, const Span* payload, Found* found) except -1:
        """Whether the event is understood; what was found is good for one `write`, while `payload` is."""
        cdef Cursor c
        cdef bint understood
        if frame_type != 0 and frame_type != REQUEST_HEADERS and frame_type != RESPONSE_HEADERS:
            return False
        c.at = payload.at
        c.end = c.at + payload.length
        self.room(payload.length)
        memset(found, 0, sizeof(found[0]))
        found.kind = frame_type
        found.version = 2
        understood = self.payload(&c, found) if frame_type else self.envelope(&c, found)
        white(&c)
        if found.id.at == NULL:
            if found.kind == RESPONSE_HEADERS:
                return False
            found.id = found.metadata_id
        if not understood or c.at != c.end or found.id.length == 0 or found.headers == 0:
            return False
        if found.kind == REQUEST_HEADERS:
            if found.method.at == NULL or found.uri.at == NULL or found.client_ip.at == NULL \
                    or found.metadata_id.at == NULL:
                return False
            found.client_ip = bare_ip(&found.client_ip)
            found.length = 68 + found.method.length + found.uri.length + found.client_ip.length
        elif found.status.at == NULL:
            return False
        else:
            found.length = 42 + found.status.length
        found.length += found.id.length + found.headers
        return True

    cdef int room(self, size_t length) except -1:
        """What is written is never longer than the event. The next small event gives a large buffer back."""
        cdef size_t wanted = max(length + SLACK, <size_t>CALM_BYTES)
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
        cdef Span name, kind, digits
        cdef bint more = True
        cdef bint payload = False
        cdef bint version = False
        if not take(c, c'{'):
            return False
        while more:
            if not key(c, &name):
                return False
            if named(&name, b"payload"):
                if payload or found.kind == 0 or not self.payload(c, found):
                    return False
                payload = True
            elif named(&name, b"event_type"):
                if found.kind != 0 or not text(c, &kind, False):
                    return False
                if named(&kind, b"request_headers"):
                    found.kind = REQUEST_HEADERS
                elif named(&kind, b"response_headers"):
                    found.kind = RESPONSE_HEADERS
                else:
                    return False
            elif named(&name, b"version"):
                if version or not integer(c, &digits) or digits.length > 9:
                    return False
                version = True
                found.version = number(&digits)
            elif not scalar(c):
                return False
            if not next_member(c, &more):
                return False
        return payload and version

    cdef bint payload(self, Cursor* c, Found* found) noexcept nogil:
        cdef Span name
        cdef bint more = True
        if not take(c, c'{'):
            return False
        while more:
            if not key(c, &name):
                return False
            if named(&name, b"headers"):
                if found.headers != 0 or not self.headers(c, found):
                    return False
            elif named(&name, b"correlation_id"):
                if found.id.at != NULL or not text(c, &found.id, False) or found.id.length == 0:
                    return False
            elif found.kind == RESPONSE_HEADERS:
                if named(&name, b"status"):
                    if found.status.at != NULL or not integer(c, &found.status):
                        return False
                elif not scalar(c):
                    return False
            elif named(&name, b"metadata"):
                if not metadata(c, found):
                    return False
            elif named(&name, b"method"):
                if not once(c, &found.method):
                    return False
            elif named(&name, b"uri"):
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
        cdef uint64_t hashes[MAX_HEADERS]
        cdef uint64_t hash
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

    cdef char* name(self, char* o, const Span* name, uint64_t* hash) noexcept nogil:
        """Write `"Name":` in the form asked for, eight letters at a time; the hash is of that form."""
        cdef const char* p = name.at
        cdef size_t left = name.length
        cdef uint64_t value = left
        cdef uint64_t first = 0x80        # in its byte's top bit: this letter begins a word
        cdef uint64_t letters, dashes
        o[0] = c'"'
        o += 1
        while left:
            letters = load(p, left)
            if self.names != NAMES_AS_IS:
                letters |= between(letters, c'A', c'Z') >> 2
            if self.names == NAMES_CANONICAL:
                # Where a letter is a dash, the next one begins a word, in the next eight too.
                dashes = between(letters, c'-', c'-')
                letters ^= (between(letters, c'a', c'z') & (dashes << 8 | first)) >> 2
                first = dashes >> 56
            value = (value ^ letters) * MIX
            value ^= value >> 32
            memcpy(o, &letters, 8)
            if left <= 8:
                break
            o += 8
            p += 8
            left -= 8
        hash[0] = value
        return puts(o + left, b'":')

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

    cdef void write(self, const Found* found, char* o) noexcept nogil:
        """The guest's input, `found.length` bytes, with the keys in the order of `guest.inputs`."""
        if found.kind == REQUEST_HEADERS:
            o = puts(o, b'{"method":"')
            o = put(o, found.method.at, found.method.length)
            o = puts(o, b'","uri":"')
            o = put(o, found.uri.at, found.uri.length)
            o = puts(o, b'","client_ip":"')
            o = put(o, found.client_ip.at, found.client_ip.length)
            o = puts(o, b'","correlation_id":"')
        else:
            o = puts(o, b'{"status":')
            o = put(o, found.status.at, found.status.length)
            o = puts(o, b',"correlation_id":"')
        o = put(o, found.id.at, found.id.length)
        o = puts(o, b'","headers":')
        o = put(o, self.out, found.headers)
        puts(o, b"}")


cdef inline bint is_cookie(const char* name) noexcept nogil:
    cdef const char* cookie = b"cookie"
    cdef int index
    for index in range(6):
        if (name[index] | 0x20) != cookie[index]:
            return False
    return True


cdef bint enter_guest(
        Guest* guest, const wasmtime_func_t* function, wasmtime_val_raw_t* values, Step step,
        Outcome* out) noexcept nogil:
    out.error = api.wasmtime_func_call_unchecked(guest.context, function, values, 2, &out.trap)
    out.step = step
    return out.error == NULL and out.trap == NULL


cdef void give_back(Guest* guest, uint32_t pointer, uint32_t length, Outcome* out) noexcept nogil:
    cdef wasmtime_val_raw_t values[2]
    if out.trap != NULL or out.error != NULL:
        return
    values[0].i64 = pointer
    values[1].i64 = length
    enter_guest(guest, &guest.dealloc, values, STEP_DEALLOC, out)


cdef bint keep(Guest* guest, uint32_t pointer, uint32_t length, Outcome* out) noexcept nogil:
    """Copy the result out of the guest's memory as it is now (any call may have moved it)."""
    cdef char* larger
    if pointer == 0 or length == 0:
        return True
    if length > RESULT_BYTES:
        out.ending = FAILED_RESULT_LENGTH
        return False
    if <uint64_t>pointer + length > api.wasmtime_memory_data_size(guest.context, &guest.memory):
        out.ending = FAILED_RESULT_POINTER
        return False
    if length > guest.result_capacity:
        larger = <char*>realloc(guest.result, length)
        if larger == NULL:
            out.ending = FAILED_HOST_MEMORY
            return False
        guest.result = larger
        guest.result_capacity = length
    memcpy(guest.result, api.wasmtime_memory_data(guest.context, &guest.memory) + pointer, length)
    out.length = length
    return True


cdef void run(
        const PlanState* plan, Guest* guest, int hook, const char* data, uint32_t length,
        Outcome* out) noexcept nogil:
    """One call as guest-abi.md has it, but the result is copied out before the input is freed."""
    cdef wasmtime_val_raw_t values[2]
    cdef uint32_t pointer, result
    cdef uint64_t packed
    cdef int64_t now_ns, most_ns, dealloc_ns
    values[0].i64 = length
    if not enter_guest(guest, &guest.alloc, values, STEP_ALLOC, out):
        return
    pointer = <uint32_t>values[0].i32
    if pointer == 0:
        out.ending = FAILED_NO_MEMORY
        return
    if <uint64_t>pointer + length > api.wasmtime_memory_data_size(guest.context, &guest.memory):
        out.ending = FAILED_ALLOC_POINTER
        return
    memcpy(api.wasmtime_memory_data(guest.context, &guest.memory) + pointer, data, length)
    values[0].i64 = pointer
    values[1].i64 = length
    if not enter_guest(guest, &guest.hooks[hook], values, STEP_HOOK, out):
        return
    packed = <uint64_t>values[0].i64
    result = <uint32_t>(packed >> 32)
    if not keep(guest, result, <uint32_t>packed, out):
        return
    out.ending = RETURNED
    # What follows must not cost the result, nor the time that is left to send it. Where none is left, as when
    # the machine has stood still, overdue ticks come all at once: that must not cost the instance.
    now_ns = monotonic_ns()
    most_ns = max(DEALLOC_NS, (guest.host.deadline_ns - now_ns) // 4)
    dealloc_ns = min(max(guest.host.deadline_ns, now_ns + 2 * TICK_NS), now_ns + most_ns)
    api.wasmtime_context_set_epoch_deadline(guest.context, <uint64_t>ticks_until(plan.ticker, dealloc_ns))
    give_back(guest, pointer, length, out)
    if out.length:
        give_back(guest, result, out.length, out)


cdef void call_guest(
        const PlanState* plan, Guest* guest, int hook, const char* data, uint32_t length,
        int64_t deadline_ns, int64_t now_ns, Outcome* out) noexcept nogil:
    """Call a hook; afterwards `guest.usable` says whether the guest may run again."""
    out.trap = NULL
    out.error = NULL
    out.length = 0
    out.hook = hook
    if now_ns >= deadline_ns:
        out.ending = FAILED_TOO_LATE
        return
    out.ending = TRAPPED
    begin(&guest.host, deadline_ns)
    enter(plan.ticker)
    api.wasmtime_context_set_epoch_deadline(guest.context, <uint64_t>ticks_until(plan.ticker, deadline_ns))
    run(plan, guest, hook, data, length, out)
    leave(plan.ticker)
    if out.ending != RETURNED or out.trap != NULL or out.error != NULL:
        guest.usable = False


cdef int64_t thread_cpu_ns() noexcept nogil:
    return clock_ns(CLOCK_THREAD_CPUTIME_ID)


cdef class Pace:
    """Tells when guests hold the event loop's thread for too long: over 8 ms in one turn of the loop, or over
    2 ms in two turns within a second.

    Not by one turn of 2 ms: a virtual machine's clock adds some milliseconds to a thread's time now and then,
    in which its host ran something else (every half minute where the host takes 2.5%).

    A turn is known by its events' arrival. Calls under 50 µs do not count, however many: a worker would not
    be quicker with them. What counts is the thread's own time and what guests slept: one that another process
    has pushed aside is not slow. `counts` gets the times of calls.
    """

    def __cinit__(self, Counts counts not None):
        self.counts = counts

    cdef inline void before(self, int64_t arrived_ns, int64_t now_ns) noexcept nogil:
        if arrived_ns == self.turn_ns:
            return
        self.turn_ns = arrived_ns
        self.began_ns = now_ns
        # The clock costs a system call: a sample is good for 1 ms.
        if now_ns - self.sampled_ns > SAMPLE_NS:
            self.sampled_ns = now_ns
            self.sampled_cpu_ns = thread_cpu_ns()
            self.slept_ns = 0

    cdef inline void after(self, int64_t began_ns, int64_t now_ns, int64_t slept_ns) noexcept nogil:
        cdef int64_t used
        cdef bint again
        self.slept_ns += slept_ns
        if now_ns - self.turn_ns > SLOW_NS and now_ns - began_ns > QUICK_NS:
            used = thread_cpu_ns() - self.sampled_cpu_ns + self.slept_ns - (self.began_ns - self.sampled_ns)
            if used <= SLOW_NS:
                return
            again = self.turn_ns != self.slow_turn_ns and self.turn_ns - self.slow_turn_ns < SLOW_AGAIN_NS
            self.slow_turn_ns = self.turn_ns
            if again or used > TOO_SLOW_NS:
                self.overran = True

    def reset(self) -> None:
        """Forget that guests were slow."""
        self.overran = False


cdef class GuestCall:
    """One guest: started, called and freed on the caller's thread, one call at a time.

    When `usable` is false it must be started (again) before a call.
    """

    def __cinit__(self, Plan plan not None, Pace pace=None):
        self.plan = plan
        self.pace = pace

    def __dealloc__(self):
        free_guest(&self.guest)

    @property
    def usable(self) -> bool:
        return self.guest.usable

    @property
    def memory_bytes(self) -> int:
        """How large its memory has become."""
        if self.guest.store == NULL:
            return 0
        return api.wasmtime_memory_data_size(self.guest.context, &self.guest.memory)

    @property
    def has_output(self) -> bool:
        return self.guest.host.output.used != 0

    def take_output(self) -> tuple[list[tuple[int, bytes]], int]:
        """What the guest printed or logged since the last call, as (channel, bytes), and bytes left out."""
        return take_output(&self.guest.host.output)

    def start(self, int64_t deadline_ns, int64_t limit_ns) -> None:
        """Make a fresh instance. Raises as `call`, or Overload where all slots are taken."""
        cdef Outcome out
        cdef bint started
        cdef int64_t now = monotonic_ns()
        self.retire()
        if self.pace is not None:
            self.pace.before(deadline_ns - limit_ns, now)
        started = start_guest(&self.plan.state, &self.guest, deadline_ns, &out)
        if self.pace is not None:
            self.pace.after(now, monotonic_ns(), self.guest.host.slept_ns)
        if not started:
            raise fault(self.plan, &out, &self.guest.host.ended, limit_ns)

    def call(self, int hook, bytes data not None, int64_t deadline_ns, int64_t limit_ns) -> bytes | None:
        """Give `data` to a hook; its result's bytes, or None where pointer or length is 0.

        The guest is interrupted at `deadline_ns` (of time.monotonic_ns), or up to 4 ms later; `limit_ns` is
        the time that the event had. Raises GuestFault (trap, deadline, exit, bad pointer, result over 1 MiB,
        no memory in the guest), and TooLate where the deadline has passed before the call.
        """
        cdef Outcome out
        if hook < 0 or hook >= HOOKS or self.guest.hooks[hook].store_id == 0:
            raise ValueError(f"hook {hook} is not exported")
        if not self.guest.usable:
            raise ValueError("this instance has failed and must not be called again")
        if PyBytes_GET_SIZE(data) > INT32_MAX:
            raise ValueError("more input than an i32 can count")
        if not self.run(
                hook, PyBytes_AS_STRING(data), <uint32_t>PyBytes_GET_SIZE(data), deadline_ns - limit_ns,
                limit_ns, &out):
            raise fault(self.plan, &out, &self.guest.host.ended, limit_ns)
        if out.length == 0:
            return None
        return PyBytes_FromStringAndSize(self.guest.result, out.length)

    cdef bint run(
            self, int hook, const char* data, uint32_t length, int64_t arrived_ns, int64_t limit_ns,
            Outcome* out) except -1:
        """Whether the call returned: then `out.length` bytes are in `guest.result`, else `out` is a fault."""
        cdef int64_t now = monotonic_ns()
        self.needs_care = False
        if self.lost is not None:
            self.lost = None
        if self.pace is not None:
            self.pace.before(arrived_ns, now)
        # The GIL is kept: releasing it around a quick call costs ms at p99 beside a thread that computes.
        call_guest(&self.plan.state, &self.guest, hook, data, length, arrived_ns + limit_ns, now, out)
        self.ended_ns = monotonic_ns()
        self.took_ns = self.ended_ns - now
        if self.pace is not None:
            self.pace.after(now, self.ended_ns, self.guest.host.slept_ns)
            if out.ending != FAILED_TOO_LATE:
                observe(&self.pace.counts.calls, self.took_ns, 1)
        if failed(out):
            return False
        if not self.guest.usable:
            # dealloc trapped: that costs the instance, not the result.
            self.lost = fault(self.plan, out, &self.guest.host.ended, limit_ns)
        self.needs_care = self.guest.host.output.used != 0 or not self.guest.usable \
            or (self.pace is not None and self.pace.overran)
        return True

    def retire(self) -> None:
        """Free the store now."""
        self.lost = None
        free_guest(&self.guest)
