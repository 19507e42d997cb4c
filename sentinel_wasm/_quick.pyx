"""An event's bytes in, its answer's frame out, in one call, while nothing unusual is going on.

That is for header events, and for v2's body chunks. What Python does for such an event is the specification:
`agent.Agent.answer_v1` and `answer_v2`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, strlen

from sentinel_wasm._answers cimport ANSWER_FRAME, MOST_ANSWER_RATIO, MOST_RESULT, write_answer
from sentinel_wasm._chunks cimport REQUEST_BODY, RESPONSE_BODY, Chunk, chunk_input, read_chunk
from sentinel_wasm._fastpath cimport REQUEST_HEADERS
from sentinel_wasm._hostcalls cimport monotonic_ns
from sentinel_wasm._instances cimport Outcome, fault
from sentinel_wasm._json cimport fnv1a, put, puts
from sentinel_wasm._metrics cimport DECIDED_ALLOW, DECIDED_BLOCK, count_decision

from sentinel_wasm.base64 import decode, encode
from sentinel_wasm.errors import ModuleError
from sentinel_wasm.protocol import answers

cdef enum:
    HEAD_V1 = 4
    HEAD_V2 = 5
    AGENT_RESPONSE = 0x20
    TAIL = 3                    # an answer's bytes behind its empty `custom`
    ID_MEMBER = 19              # what is put in there, but for the id itself
    STATUS_AT = 43              # in an answer: {"version":2,"decision":{"block":{"status":

    # Numbers of guest.abi.HOOKS.
    ON_REQUEST_HEADERS = 0
    ON_REQUEST_BODY = 1
    ON_RESPONSE_HEADERS = 2
    ON_RESPONSE_BODY = 3
    ON_WEBSOCKET_FRAME = 6


cdef char* room(Outgoing* out, size_t more) except NULL:
    """Room for `more` bytes behind those that are used."""
    cdef char* larger
    cdef size_t capacity
    if out.capacity - out.used < more:
        capacity = max(out.capacity * 2, out.used + more)
        larger = <char*>realloc(out.data, capacity)
        if larger == NULL:
            raise MemoryError
        out.data = larger
        out.capacity = capacity
    return out.data + out.used


cdef int append(Outgoing* out, const char* data, size_t length) except -1:
    memcpy(room(out, length), data, length)
    out.used += length
    return 0


cdef void release(Outgoing* out) noexcept nogil:
    free(out.data)
    out.data = NULL
    out.used = 0
    out.capacity = 0


cdef uint32_t mixed(const Span* id) noexcept nogil:
    """A request's hash. The last steps mix its low bits, which are all that a small remainder looks at."""
    cdef uint32_t value = fnv1a(id)
    value = (value ^ value >> 15) * <uint32_t>0x2c1b3c6d
    return value ^ value >> 12


cdef uint32_t hash_of(str correlation_id) except? 0:
    cdef Span id
    cdef Py_ssize_t length
    id.at = PyUnicode_AsUTF8AndSize(correlation_id, &length)
    id.length = <size_t>length
    return mixed(&id)


def spread(str correlation_id not None, int count) -> int:
    """Which of so many instances a request has, as long as nothing else says so."""
    return hash_of(correlation_id) % <uint32_t>count


cdef class Inline:
    """The guests that the event loop calls, and whether it may do so without asking Python.

    `guests` are in the order of `spread`; the ids in `pinned` are left to Python. Where each request has a
    guest of its own, `find(correlation_id, deadline_ns)` gives that instead, or None, or raises ModuleError.
    """

    def __cinit__(self, guests, pinned, find=None):
        self.guests = tuple(guests)
        self.pinned = pinned
        self.find = find

    cdef GuestCall of(self, const Span* id, int64_t deadline_ns):
        """The guest for a request that may be answered now; None: Python must."""
        cdef GuestCall guest
        if self.find is not None:
            return self.find(ascii(id), deadline_ns)
        if self.pinned and ascii(id) in self.pinned:
            return None
        guest = self.guests[<Py_ssize_t>(mixed(id) % <uint32_t>len(self.guests))]
        return None if guest.pending or not guest.guest.usable else guest


cdef class QuickPath:
    """Answers header events of one agent, and v2's body chunks.

    `owner` takes what is out of the ordinary, and never raises: `guest_failed(guest, correlation_id, error)`
    and `look_after(guest, correlation_id)` follow a call that failed or left something behind,
    `outcome_answer(hook, correlation_id, version, outcome, event)` gives an answer without an id,
    `chunk_answer(frame_type, payload, outcome)` does for a body chunk, and
    `over(hook, blocks, correlation_id, event)` is told of other answers that may be a request's last, where
    it has a guest of its own; `event` is what the guest read, empty where no frames can follow. `hooks` says
    which hooks there are, `last_hook` is that of `guest.ends.Ends`. `kept`: answers without an id, each
    behind its decision, by (result, hook, version). Where `inline` never opens, `owner` may be None. Each
    answer is counted in `counts`: those of `outcome_answer` and `chunk_answer` by themselves. `echo`: a chunk
    of a response that passes is replaced by itself.
    """

    def __cinit__(
            self, Normaliser normaliser not None, Inline inline not None, object owner, int64_t limit_ns,
            tuple hooks not None, int last_hook, dict kept not None, Counts counts not None,
            bint echo=False):
        self.normaliser = normaliser
        self.inline = inline
        self.owner = owner
        self.limit_ns = limit_ns
        self.hooks = hooks
        self.last_hook = last_hook
        self.has_frames = hooks[ON_WEBSOCKET_FRAME]
        self.allowed = answers.allow(1), answers.allow(2)
        self.kept = kept
        self.counts = counts
        self.echo = echo
        self.audit_at = HEAD_V2 + <size_t>(<bytes>self.allowed[1]).index(b'"audit"')
        self.input = <char*>malloc(MOST_PAYLOAD)
        if self.input == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.input)

    def answer_frame(self, int frame_type, bytes payload not None, int64_t arrived_ns) -> bytes | None:
        """The whole frame that answers a v2 event of this type, or a v1 request (0); None: left to Python."""
        cdef Span span
        cdef Outgoing out
        span.at = PyBytes_AS_STRING(payload)
        span.length = <size_t>PyBytes_GET_SIZE(payload)
        out.data = NULL
        out.used = out.capacity = 0
        try:
            if not self.answer(frame_type, &span, arrived_ns, &out):
                return None
            return PyBytes_FromStringAndSize(out.data, <Py_ssize_t>out.used)
        finally:
            release(&out)

    def log_share(self, double share) -> None:
        """Leave this share of requests (0 to 1) to Python, which logs what is decided for them."""
        self.logged_below = <uint64_t>(share * 4294967296.0)

    def is_logged(self, str correlation_id not None) -> bool:
        """Whether a request is in that share; all its events are, in every process."""
        return self.logged_below != 0 and hash_of(correlation_id) < self.logged_below

    def known(self, bytes result not None, int hook, int version) -> tuple[Decision, bytes] | None:
        """The decision and the answer that are kept for a result."""
        kept = self.kept.get((result, hook, version))
        if kept is not None:
            self.counts.cache_hits += 1
        return kept

    cdef bint answer(
            self, int frame_type, const Span* payload, int64_t arrived_ns, Outgoing* out) except -1:
        """The same, written behind what is in `out`; False: nothing was done."""
        cdef Found found
        cdef GuestCall guest
        cdef int hook
        cdef bint blocks = False
        cdef size_t before = out.used
        cdef size_t audit = 0
        if not self.inline.open or payload.length > MOST_PAYLOAD:
            return False
        if frame_type == REQUEST_BODY or frame_type == RESPONSE_BODY:
            return self.answer_chunk(frame_type, payload, arrived_ns, out)
        if not self.normaliser.read(frame_type, payload, &found) \
                or found.version < 1 or found.version > 2 or found.length > MOST_PAYLOAD:
            return False
        hook = ON_REQUEST_HEADERS if found.kind == REQUEST_HEADERS else ON_RESPONSE_HEADERS
        if not self.hooks[hook]:
            self.write(self.allowed[found.version - 1], frame_type, &found.id, out)
            self.decided(
                hook, False, frame_type, <uint32_t>found.version, &found.id, out, before, audit, None)
            return True
        if self.logged_below != 0 and mixed(&found.id) < self.logged_below:
            return False
        try:
            guest = self.inline.of(&found.id, arrived_ns + self.limit_ns)
        except ModuleError as error:
            self.write(self.python_answer(error, hook, &found, b""), frame_type, &found.id, out)
            return True
        if guest is None:
            return False
        self.normaliser.write(&found, self.input)
        left = self.ask(
            guest, hook, self.input, <uint32_t>found.length, frame_type, <uint32_t>found.version, &found.id,
            arrived_ns, out, &audit, &blocks)
        if left is not None:
            self.write(
                self.python_answer(left, hook, &found, self.event(&found)), frame_type, &found.id, out)
            return True
        self.decided(
            hook, blocks, frame_type, <uint32_t>found.version, &found.id, out, before, audit, guest)
        if self.inline.find is not None and (blocks or hook == self.last_hook):
            self.owner.over(hook, blocks, ascii(&found.id), self.event(&found))
        return True

    cdef bint answer_chunk(
            self, int frame_type, const Span* payload, int64_t arrived_ns, Outgoing* out) except -1:
        """The same, of a body chunk."""
        cdef Chunk chunk
        cdef GuestCall guest = None
        cdef bytes data, given
        cdef int hook = ON_REQUEST_BODY if frame_type == REQUEST_BODY else ON_RESPONSE_BODY
        cdef bint blocks = False
        cdef size_t before = out.used
        cdef size_t audit = 0
        cdef bint asks = self.hooks[hook]
        if not read_chunk(frame_type, payload, &chunk) \
                or (asks and self.logged_below != 0 and mixed(&chunk.id) < self.logged_below):
            return False
        try:
            data = decode(ascii(&chunk.data))
        except ValueError:
            return False
        if asks:
            try:
                guest = self.inline.of(&chunk.id, arrived_ns + self.limit_ns)
                if guest is None:
                    return False
                given = chunk_input(&chunk, data)
                left = self.ask(
                    guest, hook, PyBytes_AS_STRING(given), <uint32_t>PyBytes_GET_SIZE(given), frame_type, 2,
                    &chunk.id, arrived_ns, out, &audit, &blocks)
            except ModuleError as error:
                left = error
            if left is not None:
                event = PyBytes_FromStringAndSize(payload.at, <Py_ssize_t>payload.length)
                self.write(self.owner.chunk_answer(frame_type, event, left), frame_type, &chunk.id, out)
                return True
        else:
            self.write(self.allowed[1], frame_type, &chunk.id, out)
        if self.echo and frame_type == RESPONSE_BODY:
            audit = self.replace(out, before, audit, data, &chunk.index)
        self.decided(hook, blocks, frame_type, 2, &chunk.id, out, before, audit, guest)
        if asks and self.inline.find is not None and (blocks or chunk.is_last):
            self.owner.over(hook, blocks, ascii(&chunk.id), b"")
        return True

    cdef object ask(
            self, GuestCall guest, int hook, const char* data, uint32_t length, int frame_type,
            uint32_t version, const Span* id, int64_t arrived_ns, Outgoing* out, size_t* audit, bint* blocks):
        """Call the guest and write the answer; otherwise what Python must make one of, a result or an error.

        `audit` is where the answer's begins in `out`, and stays where the module has nothing to say.
        """
        cdef Outcome outcome
        cdef size_t before = out.used
        cdef object left = None
        if not guest.run(hook, data, length, arrived_ns, self.limit_ns, &outcome):
            left = fault(guest.plan, &outcome, &guest.guest.host.ended, self.limit_ns)
            self.owner.guest_failed(guest, ascii(id), left)
        elif outcome.length == 0:
            self.write(self.allowed[version - 1], frame_type, id, out)
        elif not self.write_result(
                guest.guest.result, outcome.length, frame_type, version, id, out, audit, blocks) \
                or (blocks[0] and frame_type == RESPONSE_BODY):
            # A block of a response's body needs a replacement too (protocol.answers).
            out.used = before
            left = PyBytes_FromStringAndSize(guest.guest.result, outcome.length)
        self.guest_ns += guest.took_ns
        self.ended_ns = guest.ended_ns
        if guest.needs_care:
            # What it returned has been copied: the guest may be given to a worker.
            self.owner.look_after(guest, ascii(id))
        return left

    cdef size_t replace(
            self, Outgoing* out, size_t before, size_t audit, bytes data, const Span* index) except 0:
        """Have the answer that begins at `before` replace a chunk by itself; where its audit begins then.

        Its mutation is null. `protocol.answers.for_response_body` is the specification.
        """
        cdef Py_ssize_t length
        cdef const char* encoded
        cdef object text = encode(data)
        cdef size_t more, null_at
        cdef char* o
        if audit == 0:
            audit = before + self.audit_at
        null_at = audit - strlen(b'null,"websocket_decision":null,')
        encoded = PyUnicode_AsUTF8AndSize(text, &length)
        more = strlen(b'{"data":"","chunk_index":}') + <size_t>length + index.length - strlen(b"null")
        room(out, more)
        o = out.data + null_at
        memmove(o + more, o, out.used - null_at)
        o = puts(o, b'{"data":"')
        o = put(o, encoded, <size_t>length)
        o = puts(o, b'","chunk_index":')
        o = put(o, index.at, index.length)
        puts(o, b"}")
        out.used += more
        write_head(out.data + before, AGENT_RESPONSE, out.used - before - HEAD_V2)
        return audit + more

    cdef bytes event(self, const Found* found):
        """What the guest has read, where it is the request's own and frames may follow; else empty."""
        if self.inline.find is None or not self.has_frames:
            return b""
        return PyBytes_FromStringAndSize(self.input, <Py_ssize_t>found.length)

    cdef bytes python_answer(self, outcome, int hook, const Found* found, bytes event):
        """The answer, without an id, to a result or an error."""
        if self.inline.find is None and type(outcome) is bytes:
            kept = self.kept.get((outcome, hook, found.version))
            if kept is not None:
                self.counts.cache_hits += 1
                count_decision(self.counts, hook, kept[0].verdict.number)
                if self.counts.recent is not None:
                    self.counts.recent.add(
                        hook, kept[0].verdict.number, kept[0].status, found.version, ascii(&found.id),
                        kept[1])
                return kept[1]
        return self.owner.outcome_answer(hook, ascii(&found.id), found.version, outcome, event)

    cdef void decided(
            self, int hook, bint blocks, int frame_type, uint32_t version, const Span* id,
            const Outgoing* out, size_t before, size_t audit, GuestCall guest) noexcept:
        """Count an answer, and keep it for whoever looks at single events. It begins at `before`; `audit` 0:
        it has none; `guest` None: none was asked.
        """
        cdef int decision = DECIDED_BLOCK if blocks else DECIDED_ALLOW
        cdef const char* digits = out.data + before + (HEAD_V2 if frame_type else HEAD_V1) + STATUS_AT
        cdef int status = 0
        count_decision(self.counts, hook, decision)
        if self.counts.recent is None:
            return
        if blocks:
            status = (digits[0] - c'0') * 100 + (digits[1] - c'0') * 10 + (digits[2] - c'0')
        if audit == 0:
            audit = out.used
        self.counts.recent.put(
            hook, decision, status, version, id, out.data + audit, out.used - audit,
            monotonic_ns() if guest is None else guest.ended_ns)

    cdef bint write_result(
            self, const char* result, size_t length, int frame_type, uint32_t version, const Span* id,
            Outgoing* out, size_t* audit, bint* blocks) except -1:
        """The answer to a result that needs no Python; `audit` is where its audit begins in `out`."""
        cdef size_t head = HEAD_V2 if frame_type else HEAD_V1
        cdef size_t written = 0
        cdef char* o
        if length > MOST_RESULT:
            return False
        o = room(out, head + MOST_ANSWER_RATIO * length + ANSWER_FRAME + id.length)
        if not write_answer(
                result, length, version, id if frame_type else NULL, o + head, &written, audit, blocks):
            return False
        write_head(o, frame_type, written)
        audit[0] += out.used + head
        out.used += head + written
        return True

    cdef int write(self, bytes answer, int frame_type, const Span* id, Outgoing* out) except -1:
        """A finished answer, into which v2's correlation id is put (protocol.answers)."""
        cdef size_t length = <size_t>PyBytes_GET_SIZE(answer)
        cdef char* o
        if frame_type == 0:
            o = room(out, HEAD_V1 + length)
            memcpy(o + HEAD_V1, PyBytes_AS_STRING(answer), length)
            write_head(o, frame_type, length)
            out.used += HEAD_V1 + length
            return 0
        o = room(out, HEAD_V2 + length + id.length + ID_MEMBER)
        o = put(o + HEAD_V2, PyBytes_AS_STRING(answer), length - TAIL)
        o = puts(o, b'"correlation_id":"')
        o = put(o, id.at, id.length)
        puts(o, b'"}}}')
        length += id.length + ID_MEMBER
        write_head(out.data + out.used, frame_type, length)
        out.used += HEAD_V2 + length
        return 0


cdef void write_head(char* o, int frame_type, size_t length) noexcept nogil:
    """A v1 frame's length, or a v2 frame's with the type of an answer."""
    cdef uint32_t value = <uint32_t>length + (1 if frame_type else 0)
    o[0] = <char>(value >> 24)
    o[1] = <char>(value >> 16)
    o[2] = <char>(value >> 8)
    o[3] = <char>value
    if frame_type:
        o[4] = AGENT_RESPONSE


cdef str ascii(const Span* id):
    return PyUnicode_DecodeASCII(id.at, <Py_ssize_t>id.length, NULL)
