"""A header event over gRPC, from its bytes on the wire to the JSON of a Unix socket, without a Python object;
and from there to its answer's bytes, where the agent's quick path takes it.

`grpc.events` and `grpc.answers` are the specification: what this does not surely understand is left to them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

from sentinel_wasm._fastpath cimport REQUEST_HEADERS, RESPONSE_HEADERS
from sentinel_wasm._json cimport Cursor, Span, plain, put, puts
from sentinel_wasm._metrics cimport count_written
from sentinel_wasm._quick cimport Outgoing, QuickPath, release

from sentinel_wasm.protocol import answers

cdef size_t AROUND_ID = answers.AROUND_ID

cdef enum:
    MOST_EVENT = 65536          # a larger one is left to Python
    MOST_HEADERS = 128
    MOST_VARINT = 9             # bytes
    MOST_LENGTH = 3

    # Tags: a field's number (all are below 16, so that a tag is one byte) and how it is written.
    VARINT = 0
    TEXT = 2                    # or bytes, or a message
    REQUEST_HEADERS_FIELD = 2 << 3 | TEXT
    RESPONSE_HEADERS_FIELD = 4 << 3 | TEXT

    FRAME = 160                 # what an event's JSON has beside its fields, and more
    HEADER_FRAME = 8            # and each of its headers

    FRAME_HEAD = 5              # of a v2 frame
    RESPONSE_TAG = 2 << 3 | TEXT        # of AgentToProxy
    CORRELATION_ID_TAG = 1 << 3 | TEXT  # of AgentResponse
    KEPT = 1024
    KEPT_BYTES = 8192           # of an answer

cdef struct Header:
    Span name
    Span value

cdef struct Event:
    Span id
    Span client_ip
    Span route_id
    Span method
    Span uri
    uint64_t status
    size_t count
    Header headers[MOST_HEADERS]


cdef bint varint(Cursor* c, uint64_t* value, int most) noexcept nogil:
    """A number of so many bytes at most."""
    cdef int shift = 0
    value[0] = 0
    while c.at < c.end and shift < 7 * most:
        value[0] |= <uint64_t>(c.at[0] & 0x7f) << shift
        c.at += 1
        if not c.at[-1] & 0x80:
            return True
        shift += 7
    return False


cdef bint message(Cursor* c, Cursor* inside) noexcept nogil:
    """What has its length before it."""
    cdef uint64_t length
    if not varint(c, &length, MOST_LENGTH) or length > <uint64_t>(c.end - c.at):
        return False
    inside.at = c.at
    c.at += length
    inside.end = c.at
    return True


cdef bint text(Cursor* c, Span* out) noexcept nogil:
    """A field that has not been met before, of plain text or with quotes and backslashes."""
    cdef Cursor inside
    cdef const char* p
    if out.at != NULL or not message(c, &inside):
        return False
    p = inside.at
    while True:
        p = plain(p, inside.end)
        if p == inside.end:
            break
        if p[0] != c'"' and p[0] != c'\\':
            return False
        p += 1
    out.at = inside.at
    out.length = inside.end - inside.at
    return True


cdef bint header(Cursor* c, Event* event) noexcept nogil:
    cdef Cursor inside
    cdef uint64_t tag
    cdef Header* found = &event.headers[event.count]
    if event.count == MOST_HEADERS or not message(c, &inside):
        return False
    found.name.at = found.value.at = NULL
    found.name.length = found.value.length = 0
    while inside.at < inside.end:
        if not varint(&inside, &tag, 1):
            return False
        if tag == (1 << 3 | TEXT):
            if not text(&inside, &found.name):
                return False
        elif tag != (2 << 3 | TEXT) or not text(&inside, &found.value):
            return False
    event.count += 1
    return True


cdef bint metadata(Cursor* c, Event* event) noexcept nogil:
    cdef Cursor inside
    cdef Span ignored
    cdef uint64_t tag
    cdef bint good
    if event.id.at != NULL or event.client_ip.at != NULL or not message(c, &inside):
        return False
    while inside.at < inside.end:
        if not varint(&inside, &tag, 1):
            return False
        if tag == (1 << 3 | TEXT):
            good = text(&inside, &event.id)
        elif tag == (3 << 3 | TEXT):
            good = text(&inside, &event.client_ip)
        elif tag == (8 << 3 | TEXT):
            good = text(&inside, &event.route_id)
        elif tag == (4 << 3 | VARINT) or tag == (10 << 3 | VARINT):
            good = varint(&inside, &tag, MOST_VARINT)
        elif 1 <= tag >> 3 <= 11 and tag & 7 == TEXT:
            ignored.at = NULL
            good = text(&inside, &ignored)
        else:
            good = False
        if not good:
            return False
    return True


cdef bint request_headers(Cursor* c, Event* event) noexcept nogil:
    cdef Span ignored
    cdef uint64_t tag
    cdef bint good
    while c.at < c.end:
        if not varint(c, &tag, 1):
            return False
        if tag == (1 << 3 | TEXT):
            good = metadata(c, event)
        elif tag == (2 << 3 | TEXT):
            good = text(c, &event.method)
        elif tag == (3 << 3 | TEXT):
            good = text(c, &event.uri)
        elif tag == (4 << 3 | TEXT):
            ignored.at = NULL
            good = text(c, &ignored)
        else:
            good = tag == (5 << 3 | TEXT) and header(c, event)
        if not good:
            return False
    return True


cdef bint response_headers(Cursor* c, Event* event) noexcept nogil:
    cdef uint64_t tag
    cdef bint good
    while c.at < c.end:
        if not varint(c, &tag, 1):
            return False
        if tag == (1 << 3 | TEXT):
            good = text(c, &event.id)
        elif tag == (2 << 3 | VARINT):
            good = varint(c, &event.status, MOST_VARINT) and event.status <= <uint32_t>0xffffffff
        else:
            good = tag == (3 << 3 | TEXT) and header(c, event)
        if not good:
            return False
    return True


cdef inline bint same(const Span* one, const Span* other) noexcept nogil:
    return one.length == other.length and (one.length == 0 or memcmp(one.at, other.at, one.length) == 0)


cdef char* quoted(char* o, const Span* what) noexcept nogil:
    cdef const char* p = what.at
    cdef const char* end = p + what.length
    cdef const char* stop
    o[0] = c'"'
    o += 1
    while p < end:
        stop = plain(p, end)
        o = put(o, p, stop - p)
        p = stop
        if p < end:
            o[0] = c'\\'
            o[1] = p[0]
            o += 2
            p += 1
    o[0] = c'"'
    return o + 1


cdef char* headers(char* o, const Event* event) noexcept nogil:
    """As an object of lists; NULL where a name comes again behind another one."""
    cdef size_t index, before
    o = puts(o, b"{")
    for index in range(event.count):
        if index and same(&event.headers[index].name, &event.headers[index - 1].name):
            o = puts(o - 1, b",")
        else:
            for before in range(index):
                if same(&event.headers[before].name, &event.headers[index].name):
                    return NULL
            if index:
                o = puts(o, b",")
            o = puts(quoted(o, &event.headers[index].name), b":[")
        o = puts(quoted(o, &event.headers[index].value), b"]")
    return puts(o, b"}")


cdef char* status(char* o, uint64_t number) noexcept nogil:
    return o + snprintf(o, 21, "%llu", <unsigned long long>number)


cdef bint read(const char* data, size_t size, Event* event, bint* is_request) noexcept nogil:
    """Whether a ProxyToAgent is a header event, all of which is understood."""
    cdef Cursor c, inside
    cdef uint64_t tag
    c.at = data
    c.end = data + size
    if size > MOST_EVENT or not varint(&c, &tag, 1):
        return False
    is_request[0] = tag == REQUEST_HEADERS_FIELD
    if not is_request[0] and tag != RESPONSE_HEADERS_FIELD or not message(&c, &inside) or c.at != c.end:
        return False
    event.id.at = event.client_ip.at = event.route_id.at = event.method.at = event.uri.at = NULL
    event.id.length = event.client_ip.length = event.route_id.length = 0
    event.method.length = event.uri.length = 0
    event.status = event.count = 0
    if not (request_headers(&inside, event) if is_request[0] else response_headers(&inside, event)):
        return False
    return event.id.length != 0


cdef inline size_t most_written(const Event* event, size_t size) noexcept nogil:
    """Bytes: the id stands there twice, and each character of a field may take two."""
    return 2 * size + 2 * event.id.length + HEADER_FRAME * event.count + FRAME


cdef char* write(char* o, const Event* event, bint is_request) noexcept nogil:
    """The event's JSON; NULL: it is left to Python."""
    o = puts(quoted(puts(o, b'{"correlation_id":'), &event.id), b',"headers":')
    o = headers(o, event)
    if o == NULL:
        return NULL
    if is_request:
        o = quoted(puts(o, b',"metadata":{"client_ip":'), &event.client_ip)
        o = quoted(puts(o, b',"correlation_id":'), &event.id)
        o = puts(o, b',"route_id":')
        o = puts(o, b"null") if event.route_id.at == NULL else quoted(o, &event.route_id)
        o = quoted(puts(o, b'},"method":'), &event.method)
        o = quoted(puts(o, b',"uri":'), &event.uri)
    else:
        o = status(puts(o, b',"status":'), event.status)
    return puts(o, b"}")


def header_event(bytes data not None) -> tuple[int, str, bytes] | None:
    """(v2's event type, correlation id, payload) of a ProxyToAgent; None: it is left to Python."""
    cdef Event event
    cdef bint is_request
    cdef char* o
    cdef bytes payload
    cdef size_t size = <size_t>PyBytes_GET_SIZE(data)
    if not read(PyBytes_AS_STRING(data), size, &event, &is_request):
        return None
    payload = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>most_written(&event, size))
    o = write(PyBytes_AS_STRING(payload), &event, is_request)
    if o == NULL:
        return None
    return (
        REQUEST_HEADERS if is_request else RESPONSE_HEADERS,
        PyUnicode_DecodeASCII(event.id.at, <Py_ssize_t>event.id.length, NULL),
        payload[:o - PyBytes_AS_STRING(payload)])


cdef char* put_varint(char* o, size_t number) noexcept nogil:
    while number >= 0x80:
        o[0] = <char>(number & 0x7f | 0x80)
        o += 1
        number >>= 7
    o[0] = <char>number
    return o + 1


cdef class HeaderAnswers:
    """Header events in, their answers out, in one call: where the agent's quick path takes an event, and what
    gRPC says for its answer is kept here.
    """

    cdef dict kept              # the rests of AgentResponses, by answers up to where their id begins
    cdef char* payload          # of an event
    cdef size_t capacity

    def __cinit__(self):
        self.kept = {}

    def __dealloc__(self):
        free(self.payload)

    def keep(self, bytes answer not None, bytes rest not None) -> None:
        """`rest` is the AgentResponse, but for its id, for an answer as the method `answer` gives it."""
        if len(answer) <= KEPT_BYTES:
            if len(self.kept) >= KEPT:
                self.kept.clear()
            self.kept[answer] = rest

    def answer(self, bytes data not None, QuickPath quick not None, int64_t arrived_ns):
        """The AgentToProxy for a ProxyToAgent, or (correlation id, the agent's answer up to where its id
        begins) where none is kept; None: left to Python.
        """
        cdef Event event
        cdef bint is_request
        cdef Span span
        cdef Outgoing out
        cdef bytes answer
        cdef char* o
        cdef size_t size = <size_t>PyBytes_GET_SIZE(data)
        if not quick.inline.open or not read(PyBytes_AS_STRING(data), size, &event, &is_request):
            return None
        self.grow(most_written(&event, size))
        o = write(self.payload, &event, is_request)
        if o == NULL:
            return None
        span.at = self.payload
        span.length = o - self.payload
        if quick.counts.recent is not None:
            quick.counts.recent.seen_ns = arrived_ns
        out.data = NULL
        out.used = out.capacity = 0
        try:
            if not quick.answer(REQUEST_HEADERS if is_request else RESPONSE_HEADERS, &span, arrived_ns, &out):
                return None
            # The quick path takes no id that is written with escapes.
            size = out.used - FRAME_HEAD - AROUND_ID - event.id.length - 2
            answer = PyBytes_FromStringAndSize(out.data + FRAME_HEAD, <Py_ssize_t>size)
        finally:
            release(&out)
        count_written(quick.counts, arrived_ns)
        rest = self.kept.get(answer)
        if rest is None:
            return PyUnicode_DecodeASCII(event.id.at, <Py_ssize_t>event.id.length, NULL), answer
        return agent_to_proxy(&event.id, rest)

    cdef int grow(self, size_t wanted) except -1:
        cdef char* grown
        if wanted > self.capacity:
            grown = <char*>realloc(self.payload, wanted)
            if grown == NULL:
                raise MemoryError
            self.payload = grown
            self.capacity = wanted
        return 0


cdef bytes agent_to_proxy(const Span* id, bytes rest):
    """An AgentToProxy's response; the id goes in front."""
    cdef char[2 * MOST_LENGTH + 2] head
    cdef char* o
    cdef char* written
    cdef bytes found
    cdef size_t length = <size_t>PyBytes_GET_SIZE(rest)
    head[0] = CORRELATION_ID_TAG
    o = put_varint(head + 1, id.length)
    length += (o - head) + id.length
    found = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(length + 1 + MOST_VARINT))
    written = PyBytes_AS_STRING(found)
    written[0] = RESPONSE_TAG
    written = put_varint(written + 1, length)
    written = put(put(written, head, o - head), id.at, id.length)
    written = put(written, PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest))
    return found[:written - PyBytes_AS_STRING(found)]
