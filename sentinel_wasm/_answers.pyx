"""A hook's result made into the proxy's answer, without Python objects.

`guest.abi.parse_result` and `protocol.answers.encode` are the specification: what is written here is what
they give, and what is not surely understood is left to them (redirects, challenges, body mutations, lists of
values, text that is not ASCII, whatever is wrong).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from sentinel_wasm._json cimport (
    Cursor, Span, fnv1a, integer, key, named, next_member, put, puts, scalar, take, text, white, word,
)

cdef enum:
    MOST_NAMES = 64             # of one object; with more, Python is quick enough beside the guest
    MOST_REMOVED = 256

# The values of the fields that are there and not null, from their first byte to their last.
cdef struct Fields:
    Span decision
    Span status
    Span body
    Span set_request_headers
    Span set_response_headers
    Span remove_request_headers
    Span remove_response_headers
    Span tags
    Span rule_ids
    Span reason_codes
    Span confidence
    Span routing_metadata
    Span needs_more

ctypedef bint (*Reader)(Cursor* c) noexcept nogil

# RFC 9110, section 5.6.2: what a header's name is made of.
cdef bint token_bytes[256]
cdef uint8_t byte
memset(token_bytes, 0, sizeof(token_bytes))
for byte in b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
    token_bytes[byte] = True


def answer(bytes result not None, int version, str correlation_id=None) -> bytes | None:
    """The answer to an event of this id (v2) or without one, or None where Python must make it."""
    cdef Span id
    cdef Span* named_id = NULL
    cdef size_t written = 0
    cdef size_t audit
    cdef bint blocks
    cdef bytes ascii_id
    cdef bytes out
    if PyBytes_GET_SIZE(result) > MOST_RESULT:
        return None
    if correlation_id is not None:
        ascii_id = correlation_id.encode("ascii")
        id.at = PyBytes_AS_STRING(ascii_id)
        id.length = <size_t>PyBytes_GET_SIZE(ascii_id)
        named_id = &id
    out = PyBytes_FromStringAndSize(
        NULL, MOST_ANSWER_RATIO * PyBytes_GET_SIZE(result) + ANSWER_FRAME
        + (<Py_ssize_t>id.length if named_id != NULL else 0))
    if not write_answer(
            PyBytes_AS_STRING(result), <size_t>PyBytes_GET_SIZE(result), version, named_id,
            PyBytes_AS_STRING(out), &written, &audit, &blocks):
        return None
    return out[:<Py_ssize_t>written]


cdef bint write_answer(
        const char* result, size_t length, int64_t version, const Span* id, char* out,
        size_t* written, size_t* audit, bint* blocks) noexcept nogil:
    """Write the answer of a result of at most MOST_RESULT bytes; False where Python must.

    `out` has room for MOST_ANSWER_RATIO times the result, the id, and ANSWER_FRAME. `id` is text that stands
    in JSON as it is, NULL: without one. `version` is 1 or 2. `audit` is where the last member
    begins. `blocks`: the decision is no allow.
    """
    cdef Fields fields
    cdef Cursor c
    cdef char* o = out
    c.at = result
    c.end = result + length
    memset(&fields, 0, sizeof(fields))
    if not read(&c, &fields) or fields.decision.at == NULL:
        return False
    o = puts(o, b'{"version":')
    o[0] = <char>(c'0' + version)
    o = puts(o + 1, b',"decision":')
    blocks[0] = not named(&fields.decision, b'"allow"')
    if not blocks[0]:
        o = puts(o, b'"allow"')
    else:
        o = puts(o, b'{"block":{"status":')
        o = span_or(o, &fields.status, b"403")
        o = puts(o, b',"body":')
        o = span_or(o, &fields.body, b"null")
        o = puts(o, b',"headers":null}}')
    o = puts(o, b',"request_headers":[')
    o = header_ops(o, &fields.set_request_headers, &fields.remove_request_headers)
    o = puts(o, b'],"response_headers":[')
    o = header_ops(o, &fields.set_response_headers, &fields.remove_response_headers)
    o = puts(o, b'],"routing_metadata":')
    o = compact(o, &fields.routing_metadata, b"{}")
    o = puts(o, b',"needs_more":')
    o = span_or(o, &fields.needs_more, b"false")
    o = puts(o, b',"request_body_mutation":null,"response_body_mutation":null,"websocket_decision":null,')
    audit[0] = <size_t>(o - out)
    o = puts(o, b'"audit":{"tags":')
    o = compact(o, &fields.tags, b"[]")
    o = puts(o, b',"rule_ids":')
    o = compact(o, &fields.rule_ids, b"[]")
    o = puts(o, b',"confidence":')
    o = span_or(o, &fields.confidence, b"null")
    o = puts(o, b',"reason_codes":')
    o = compact(o, &fields.reason_codes, b"[]")
    o = puts(o, b',"custom":{')
    if id != NULL:
        o = puts(o, b'"correlation_id":"')
        o = put(o, id.at, id.length)
        o = puts(o, b'"')
    o = puts(o, b"}}}")
    written[0] = <size_t>(o - out)
    return True


# Reading: each field once, and nothing behind the object.


cdef bint read(Cursor* c, Fields* fields) noexcept nogil:
    cdef Span name
    cdef bint more = True
    if not take(c, c'{'):
        return False
    if take(c, c'}'):
        more = False
    while more:
        if not key(c, &name) or not member(c, &name, fields) or not next_member(c, &more):
            return False
    white(c)
    return c.at == c.end


cdef bint member(Cursor* c, const Span* name, Fields* fields) noexcept nogil:
    if named(name, b"decision"):
        return field(c, &fields.decision, decision)
    if named(name, b"status"):
        return field(c, &fields.status, status)
    if named(name, b"body"):
        return field(c, &fields.body, string)
    if named(name, b"add_request_headers"):
        return field(c, &fields.set_request_headers, headers)
    if named(name, b"add_response_headers"):
        return field(c, &fields.set_response_headers, headers)
    if named(name, b"remove_request_headers"):
        return field(c, &fields.remove_request_headers, header_names)
    if named(name, b"remove_response_headers"):
        return field(c, &fields.remove_response_headers, header_names)
    if named(name, b"tags"):
        return field(c, &fields.tags, strings)
    if named(name, b"rule_ids"):
        return field(c, &fields.rule_ids, strings)
    if named(name, b"reason_codes"):
        return field(c, &fields.reason_codes, strings)
    if named(name, b"confidence"):
        return field(c, &fields.confidence, confidence)
    if named(name, b"routing_metadata"):
        return field(c, &fields.routing_metadata, metadata)
    if named(name, b"needs_more"):
        return field(c, &fields.needs_more, boolean)
    white(c)
    if is_known(name):
        return word(c, b"null")
    return scalar(c)


cdef bint is_known(const Span* name) noexcept nogil:
    """A field of the ABI that is not read here."""
    return named(name, b"challenge_type") or named(name, b"challenge_params") \
        or named(name, b"append_request_headers") or named(name, b"append_response_headers") \
        or named(name, b"request_body_mutation") or named(name, b"response_body_mutation")


cdef bint field(Cursor* c, Span* out, Reader reader) noexcept nogil:
    """A value that is met for the first time: of two, orjson takes the last."""
    cdef Span found
    if out.at != NULL:
        return False
    white(c)
    found.at = c.at
    if word(c, b"null"):
        return True
    if not reader(c):
        return False
    found.length = <size_t>(c.at - found.at)
    out[0] = found
    return True


cdef bint decision(Cursor* c) noexcept nogil:
    return word(c, b'"allow"') or word(c, b'"block"') or word(c, b'"deny"')


cdef bint status(Cursor* c) noexcept nogil:
    cdef Span digits
    return integer(c, &digits) and digits.length == 3 and c'1' <= digits.at[0] <= c'5'


cdef bint confidence(Cursor* c) noexcept nogil:
    """0.5, 0.95, 0.125: what orjson writes as it stands."""
    cdef const char* start = c.at
    if not word(c, b"0."):
        return False
    while c.at < c.end and c'0' <= c.at[0] <= c'9':
        c.at += 1
    return 3 <= c.at - start <= 6 and c.at[-1] != c'0'


cdef bint boolean(Cursor* c) noexcept nogil:
    return word(c, b"true") or word(c, b"false")


cdef bint string(Cursor* c) noexcept nogil:
    cdef Span ignored
    return text(c, &ignored, True)


cdef bint strings(Cursor* c) noexcept nogil:
    return array(c, False)


cdef bint header_names(Cursor* c) noexcept nogil:
    return array(c, True)


cdef bint array(Cursor* c, bint names) noexcept nogil:
    cdef Span item
    cdef int count = 0
    if not take(c, c'['):
        return False
    if take(c, c']'):
        return True
    while True:
        count += 1
        if not text(c, &item, not names) or (names and (count > MOST_REMOVED or not is_token(&item))):
            return False
        if take(c, c']'):
            return True
        if not take(c, c','):
            return False


cdef bint headers(Cursor* c) noexcept nogil:
    return pairs(c, True)


cdef bint metadata(Cursor* c) noexcept nogil:
    return pairs(c, False)


cdef bint pairs(Cursor* c, bint names) noexcept nogil:
    """An object of strings; no name twice. `names`: they and their values are headers'."""
    cdef Span name, value
    cdef uint32_t hashes[MOST_NAMES]
    cdef int count = 0
    cdef int index
    cdef bint more = True
    if not take(c, c'{'):
        return False
    if take(c, c'}'):
        return True
    while more:
        if count == MOST_NAMES or not key(c, &name) or (names and not is_token(&name)):
            return False
        hashes[count] = fnv1a(&name)
        for index in range(count):
            if hashes[index] == hashes[count]:
                return False
        count += 1
        # A header's value must have no line end in it, which would be an escape.
        if not text(c, &value, not names) or not next_member(c, &more):
            return False
    return True


cdef bint is_token(const Span* name) noexcept nogil:
    cdef size_t index
    for index in range(name.length):
        if not token_bytes[<uint8_t>name.at[index]]:
            return False
    return name.length != 0


# Writing: the values have been read before, so nothing in them can be wrong.


cdef char* span_or(char* o, const Span* value, const char* otherwise) noexcept nogil:
    if value.at == NULL:
        return puts(o, otherwise)
    return put(o, value.at, value.length)


cdef char* compact(char* o, const Span* value, const char* otherwise) noexcept nogil:
    """An array or object of strings, without the white space between them."""
    cdef const char* p = value.at
    cdef const char* end = p + value.length
    cdef bint inside = False
    if p == NULL:
        return puts(o, otherwise)
    while p < end:
        if inside and p[0] == c'\\':
            o[0] = p[0]
            o[1] = p[1]
            o += 2
            p += 2
            continue
        if p[0] == c'"':
            inside = not inside
        if inside or not (p[0] == c' ' or p[0] == c'\n' or p[0] == c'\t' or p[0] == c'\r'):
            o[0] = p[0]
            o += 1
        p += 1
    return o


cdef char* header_ops(char* o, const Span* sets, const Span* removes) noexcept nogil:
    """Sets, then removes: a name that is set and removed is removed."""
    cdef Cursor c
    cdef Span name, value
    cdef bint first = True
    cdef bint more
    cdef const char* setting = b',{"set":{"name":"'
    cdef const char* removing = b',{"remove":{"name":"'
    if sets.at != NULL:
        c.at = sets.at
        c.end = sets.at + sets.length
        take(&c, c'{')
        more = not take(&c, c'}')
        while more and key(&c, &name) and text(&c, &value, False) and next_member(&c, &more):
            o = puts(o, setting + first)
            first = False
            o = put(o, name.at, name.length)
            o = puts(o, b'","value":"')
            o = put(o, value.at, value.length)
            o = puts(o, b'"}}')
    if removes.at != NULL:
        c.at = removes.at
        c.end = removes.at + removes.length
        take(&c, c'[')
        while text(&c, &name, False):
            take(&c, c',')
            o = puts(o, removing + first)
            first = False
            o = put(o, name.at, name.length)
            o = puts(o, b'"}}')
    return o
