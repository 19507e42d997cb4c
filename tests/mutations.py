"""Header events and body chunks changed at random: their members, how those are written, their bytes.

A document is kept as the pieces it is written of, so that it can also say what no JSON writer would: a member
twice, a number with a sign, half a surrogate pair.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

Node = Any
"""A scalar as it stands in the text (bytes), an array (list) or an object (Members)."""


class Members(list[tuple[bytes, Node]]):
    """An object: names as they stand in the text, and values."""

    def at(self, name: bytes) -> Node:
        """The first member's value, or None."""
        return next((value for key, value in self if key == name), None)

    def put(self, name: bytes, value: Node) -> None:
        """In the place of the first of this name, or at the end."""
        for index, (key, _) in enumerate(self):
            if key == name:
                self[index] = name, value
                return
        self.append((name, value))


HEADER_NAMES = (
    *(b"host", b"Host", b"cookie", b"Cookie", b"COOKIE", b"cooKie", b"set-cookie", b"user-agent"),
    *(b"USER-AGENT", b":path", b":", b"x:", b"", b"-", b"--", b"a-", b"-a", b"a--b", b"x_y", b"X1-2b-ZZ"),
    *(b"@[`{", b" a", b"a b", b"\\u0063ookie", b"a\\nb", b"\\u00e9", b"x-\xc3\xa9t\xc3\xa9"),
    *(b"\xe2\x84\xaa", b"\xc5\xbf", b"\xc3\x9f", b"cookie\\u0000", b"cookies", b"cooki\x05", b"c" * 300),
)
HEADER_VALUES = (
    *(b"[]", b'[""]', b'["",""]', b'["a"]', b'["a","b"]', b'["a","b","c"]', b'["a, b","c; d"]'),
    *(b'[ "a" , "b" ]', b'["\\"","\\\\"]', b'["\\n"]', b'["\\u00e9"]', b'["\xc3\xa9"]', b'"a"', b"null"),
    *(b"1", b"[1]", b"[null]", b'["a",null]', b'[["a"]]', b"{}", b'{"a":"b"}', b'["a",]', b"[,]"),
    *(b'["a" "b"]', b'["a"', b'["\xff"]'),
)
ADDRESSES = (
    *(b"127.0.0.1:53818", b"10.0.0.1", b"[::1]:53818", b"[::1]", b"::1", b"[::1]x", b"[]:1", b"[]", b":1"),
    *(b"1:", b"1:2:3", b"[1", b"[1:2", b"[1]x:2", b"[a]b]:1", b"[1]:", b"[1]:2x", b"a:0", b"a:-1", b"a: 1"),
    *(b"", b"[", b"]:1", b"1.2.3.4:\xd9\xa1", b"1.2.3.4:\\u0031", b"[::1%eth0]:1"),
    *(b"a:00000000000000000000001", b"x" * 100),
)
IDENTITIES = (
    *(b"", b"a", b"iuKtfzn2R7A", b"c5c951d3-38e5-4a02-9628-0504b7f1ef45", b"a b", b"\\n", b"\\u0061"),
    *(b"\xc3\xa9", b"\x7f", b"\x1f", b"a" * 1000),
)
EVENT_TYPES = (b"request_headers", b"response_headers", b"configure", b"request_header", b"Request_Headers")
NUMBERS = (
    *(b"0", b"1", b"2", b"99", b"200", b"599", b"65535", b"999999999", b"1000000000", b"4294967295"),
    *(b"4294967296", b"9" * 17, b"9" * 18, b"9" * 19, b"9223372036854775807", b"9223372036854775808"),
    *(b"18446744073709551615", b"18446744073709551616", b"9" * 400, b"-0", b"-1", b"-9223372036854775808"),
    *(b"-9223372036854775809", b"0.0", b"1.0", b"1.5", b"1e5", b"1E5", b"1e-5", b"1e400"),
)
OTHERS = (
    *(b"null", b"true", b"false", b'""', b'"a"', b'"200"'),
    *(b"[]", b"{}", b"[1]", b'["a"]', b'{"a":"b"}', b'{"a":{}}'),
)
NOT_JSON = (
    *(b"1e", b"1.", b".5", b"+1", b"00", b"01", b"0x10", b"NaN", b"Infinity", b"-", b"1_0", b"1 0"),
    *(b"True", b"nul", b"nulll", b"tru", b"undefined", b"'a'", b""),
)
DATA = (
    *(b'""', b'"YQ=="', b'"YWI="', b'"YWJj"', b'"YR=="', b'"YQ"', b'"YQ="', b'"YQ==YQ=="', b'"Y Q="'),
    *(b'"-_8="', b'"w6k="', b'"w6nDqQ=="', b'"IgpcAA=="', b'"/w=="', b'"7aCA"', b'"YQ\\u003d="'),
    *(b'"Y\\/8="', b'"Y\xc3\xa9=="'),
)
CHUNK_NUMBERS = (b'"total_size"', b'"chunk_index"', b'"bytes_sent"', b'"bytes_received"')
FIELDS = (
    *(b"data", b"is_last", b"total_size", b"chunk_index", b"bytes_sent", b"bytes_received"),
    *(b"correlation_id", b"metadata", b"client_ip", b"headers", b"method", b"uri", b"status"),
    *(b"payload", b"version", b"event_type", b"client_port", b"header\\u0073", b"Headers", b"header"),
    *(b"", b"x", b"\xc3\xa9"),
)
# What may stand in a string: as orjson writes it, otherwise, and not at all.
FINE = (
    *(b'\\"', b"\\\\", b"\\b", b"\\f", b"\\n", b"\\r", b"\\t"),
    *(b" ", b"\x7f", b",", b":", b"]", b"{", b"'", b"/", b"~"),
)
ODD = (
    *(b"\\/", b"\\u0041", b"\\u000A", b"\\u0000", b"\\u001f", b"\\u00e9", b"\\ud83d\\ude00", b"\xc3\xa9"),
    *(b"\xc2\x80", b"\xe2\x82\xac", b"\xf0\x9f\x98\x80", b"\xef\xbf\xbe", b"\xef\xbb\xbf"),
)
WRONG = (
    *(b"\\ud800", b"\\udc00", b"\\ud800\\u0041", b"\\x41", b"\\u12", b"\\u00g0", b"\\N", b"\\", b'"'),
    *(b"\x00", b"\x1f", b"\n", b"\t", b"\x80", b"\xff", b"\xc0\x80", b"\xc3", b"\xed\xa0\x80"),
    *(b"\xf4\x90\x80\x80", b"\xe2\x82"),
)
# Around the word of eight bytes that the scanner reads, and the buffer's size.
LENGTHS = (1, 6, 7, 8, 9, 15, 16, 17, 31, 64, 65, 300)
LARGE = (65_400, 65_536, 140_000)
LETTERS = b"abcdefghijklm-nopqrstuvwxyz_ABCDEFGHIJKLMNOPQRSTUVWXYZ.0123456789 /;=,"
DEPTHS = (1, 2, 3, 50, 1022, 1023, 1024, 1025)  # orjson goes to 1024
COUNTS = (1, 1, 1, 2, 5, 30)
MANY_HEADERS = range(118, 132)  # the normaliser has room for 128


def parsed(frame: bytes) -> Members:
    """A frame's document as pieces."""

    def pieces(value: Any) -> Node:
        if isinstance(value, Members):
            return Members((json.dumps(name).encode(), pieces(member)) for name, member in value)
        if isinstance(value, list):
            return [pieces(item) for item in value]
        return json.dumps(value).encode()

    document = pieces(json.loads(frame, object_pairs_hook=Members))
    assert type(document) is Members
    return document


def changed(document: Members, pick: random.Random) -> bytes:
    """A parsed header event with one to four changes, written in one of several ways."""
    made = _copied(document)
    for _ in range(pick.choice((1, 1, 1, 2, 4))):
        pick.choice(_CHANGES)(made, pick)
    gap = _gaps(pick)
    data = _spaced(made, gap) if gap else _compact(made)
    luck = pick.random()
    if luck < 0.06 and data:
        return changed_bytes(data, pick)
    if luck < 0.08:
        return data[: pick.randrange(len(data) + 1)]
    if luck < 0.10:
        return data + pick.choice((b" ", b"\n", b"\0", b"x", b"}", b",", b"{}", data))
    return data


def changed_bytes(frame: bytes, pick: random.Random) -> bytes:
    """The frame with a few bytes replaced, doubled, cut out or swapped for a piece of JSON."""
    data = bytearray(frame)
    for _ in range(pick.choice((1, 1, 1, 2, 4))):
        at = pick.randrange(len(data))
        match pick.randrange(7):
            case 0:
                data[at] = pick.randrange(256)
            case 1:
                del data[at : at + pick.randrange(1, 6)]
            case 2:
                data[at:at] = data[at : at + pick.randrange(1, 40)]
            case 3:
                data[at:at] = pick.choice(
                    (b'"', b"\\", b"\\n", b"\\u0041", b",", b"}", b"]", b" ", b"null", b"1e5", b"\xc3\xa9")
                )
            case 4:
                data[at] = pick.choice(b'"\\{}[]:,0123456789 aA-')
            case 5:
                other = pick.randrange(len(data))
                data[at], data[other] = data[other], data[at]
            case 6:
                data[at] ^= 1 << pick.randrange(8)
        if not data:
            return b"{"
    return bytes(data)


def _copied(node: Node) -> Node:
    if type(node) is bytes:
        return node
    if type(node) is Members:
        return Members([(name, _copied(value)) for name, value in node])
    return [_copied(value) for value in node]


# How a document is written


def _compact(node: Node) -> bytes:
    if type(node) is bytes:
        return node
    if type(node) is Members:
        return b"{" + b",".join([name + b":" + _compact(value) for name, value in node]) + b"}"
    return b"[" + b",".join([_compact(value) for value in node]) + b"]"


def _spaced(node: Node, gap: Callable[[], bytes]) -> bytes:
    if type(node) is bytes:
        return gap() + node + gap()
    if type(node) is Members:
        members = [gap() + name + gap() + b":" + _spaced(value, gap) for name, value in node]
        return gap() + b"{" + (b",".join(members) or gap()) + b"}" + gap()
    return gap() + b"[" + (b",".join([_spaced(value, gap) for value in node]) or gap()) + b"]" + gap()


def _gaps(pick: random.Random) -> Callable[[], bytes] | None:
    """What is written between the pieces: mostly nothing, else white space, now and then what is none."""
    luck = pick.random()
    if luck < 0.7:
        return None
    if luck < 0.85:
        return lambda: b" "
    gaps = [b"", b"", b"", b" ", b"\n", b"\t", b"\r", b" \n\t\r "]
    if luck > 0.98:
        gaps = gaps * 8 + [pick.choice((b"\x0b", b"\x0c", b"\0", b"\xc2\xa0", b"\xef\xbb\xbf", b"/**/"))]
    return lambda: gaps[int(pick.random() * len(gaps))]


# What is changed: each takes the whole document, whatever has become of it


def _places(node: Node) -> Iterator[tuple[Node, int]]:
    """Every member and item, as its container and index."""
    for index, value in enumerate(node):
        yield node, index
        if type(node) is Members:
            value = value[1]
        if type(value) is not bytes:
            yield from _places(value)


def _value(node: Node, index: int) -> Node:
    return node[index][1] if type(node) is Members else node[index]


def _set(node: Node, index: int, value: Node) -> None:
    node[index] = (node[index][0], value) if type(node) is Members else value


def _payload(document: Members) -> Members:
    """Of an event in either protocol; an empty one where it has none any more."""
    payload = document.at(b'"payload"')
    if payload is None:
        payload = document
    return payload if type(payload) is Members else Members()


def _part(document: Members, name: bytes) -> Members:
    part = _payload(document).at(name)
    return part if type(part) is Members else Members()


def _quoted(text: bytes) -> bytes:
    return b'"' + text + b'"'


def _text(pick: random.Random) -> bytes:
    """A string that is likely to be plain."""
    length = pick.choice(LARGE if pick.random() < 0.002 else LENGTHS)
    at = pick.randrange(len(LETTERS))
    text = (LETTERS[at:] + LETTERS * (length // len(LETTERS) + 1))[:length]
    return _spoilt(text, pick) if pick.random() < 0.3 else text


def _spoilt(text: bytes, pick: random.Random) -> bytes:
    luck = pick.random()
    pieces = FINE if luck < 0.7 else ODD if luck < 0.95 else WRONG
    at = pick.randrange(len(text) + 1)
    return text[:at] + pick.choice(pieces) + text[at:]


def _number(pick: random.Random) -> bytes:
    return pick.choice(NUMBERS if pick.randrange(6) else NOT_JSON)


def _any_value(pick: random.Random) -> Node:
    match pick.randrange(12):
        case 0:
            depth = pick.choice(DEPTHS)
            return b"[" * depth + pick.choice((b"", b"1")) + b"]" * depth
        case 1:
            depth = pick.choice(DEPTHS)
            return b'{"a":' * depth + b"1" + b"}" * depth
        case 2 | 3:
            return pick.choice(OTHERS)
        case 4 | 5 | 6:
            return _number(pick)
        case _:
            return _quoted(_text(pick))


def _header_value(pick: random.Random) -> Node:
    if pick.randrange(8) == 0:
        return pick.choice(HEADER_VALUES)
    return [_quoted(_text(pick)) for _ in range(pick.choice(COUNTS))]


def _header_name(pick: random.Random) -> bytes:
    luck = pick.randrange(8)
    if luck == 0:
        return _quoted(_text(pick))
    if luck < 4:
        return _quoted(bytes(pick.choices(b"abcXYZ-09_", k=pick.randrange(1, 12))))
    return _quoted(pick.choice(HEADER_NAMES))


def _change_header(document: Members, pick: random.Random) -> None:
    headers = _part(document, b'"headers"')
    if not headers:
        return
    at = pick.randrange(len(headers))
    name, value = headers[at]
    match pick.randrange(8):
        case 0:
            del headers[at]
        case 1:
            headers[at] = _header_name(pick), value
        case 2:
            headers[at] = pick.choice((name.upper(), name.title(), name.swapcase())), value
        case 3:
            again = pick.choice((name, name.upper(), name.title()))
            headers.insert(pick.randrange(len(headers) + 1), (again, _header_value(pick)))
        case 4 if type(value) is list:
            value.insert(pick.randrange(len(value) + 1), _quoted(_text(pick)))
        case 5 if type(value) is list and value:
            value[pick.randrange(len(value))] = _any_value(pick)
        case _:
            headers[at] = name, _header_value(pick)


def _add_headers(document: Members, pick: random.Random) -> None:
    headers = _part(document, b'"headers"')
    for _ in range(pick.choice(COUNTS[:-1])):
        headers.insert(pick.randrange(len(headers) + 1), (_header_name(pick), _header_value(pick)))


def _add_many_headers(document: Members, pick: random.Random) -> None:
    headers = _part(document, b'"headers"')
    headers += [(b'"x-%d"' % number, [b'"v"']) for number in range(pick.choice(MANY_HEADERS))]


def _change_address(document: Members, pick: random.Random) -> None:
    address = pick.choice(ADDRESSES)
    if pick.randrange(2):
        address = bytes(pick.choices(b"[]:.0123456789ax", k=pick.randrange(12)))
    _part(document, b'"metadata"').put(b'"client_ip"', _quoted(address))


def _change_identity(document: Members, pick: random.Random) -> None:
    owner = pick.choice((_payload(document), _part(document, b'"metadata"')))
    identity = _any_value(pick) if pick.randrange(4) == 0 else _quoted(pick.choice(IDENTITIES))
    if pick.randrange(4) == 0:
        owner.insert(0, (b'"correlation_id"', identity))
    else:
        owner.put(b'"correlation_id"', identity)


def _change_metadata(document: Members, pick: random.Random) -> None:
    """Members that come from two objects of one name, or stand in the wrong one."""
    payload, metadata = _payload(document), _part(document, b'"metadata"')
    match pick.randrange(4):
        case 0:
            at = pick.randrange(len(metadata) + 1)
            payload.insert(0, (b'"metadata"', Members(metadata[:at])))
            del metadata[:at]
        case 1:
            payload += metadata
        case 2:
            payload.append((b'"metadata"', _copied(metadata)))
        case 3:
            metadata.append((b'"metadata"', _copied(metadata)))


def _change_envelope(document: Members, pick: random.Random) -> None:
    """Of v1; to v2 these are members without a meaning."""
    match pick.randrange(4):
        case 0:
            document.put(b'"version"', _number(pick))
        case 1:
            document.put(b'"event_type"', _quoted(pick.choice(EVENT_TYPES)))
        case 2:
            document.insert(0, (b'"event_type"', _quoted(pick.choice(EVENT_TYPES))))
        case 3 if document:
            document.append(_copied(Members([pick.choice(document)]))[0])


def _change_chunk(document: Members, pick: random.Random) -> None:
    """Nothing where there is no data."""
    payload = _payload(document)
    if payload.at(b'"data"') is None:
        return
    match pick.randrange(4):
        case 0:
            payload.put(b'"data"', pick.choice(DATA))
        case 1:
            payload.put(b'"is_last"', pick.choice((b"true", b"false", *OTHERS)))
        case _:
            payload.put(pick.choice(CHUNK_NUMBERS), pick.choice((*NUMBERS, b"null")))


def _change_number(document: Members, pick: random.Random) -> None:
    numbers = [
        (node, index)
        for node, index in _places(document)
        if type(value := _value(node, index)) is bytes and value[:1].isdigit()
    ]
    if numbers:
        _set(*pick.choice(numbers), _number(pick))


def _change_text(document: Members, pick: random.Random) -> None:
    """A string anywhere, a name too: another character in it, or one of its own in another spelling."""
    node, index = pick.choice(list(_places(document)) or [([b'""'], 0)])
    is_name = type(node) is Members and pick.randrange(4) == 0
    text = node[index][0] if is_name else _value(node, index)
    if type(text) is not bytes or len(text) < 2 or text[:1] != b'"':
        return
    inside = text[1:-1]
    if inside and pick.randrange(3) == 0:
        at = pick.randrange(len(inside))
        text = inside[:at] + b"\\u%04x" % inside[at] + inside[at + 1 :]
    else:
        text = _spoilt(inside, pick)
    if is_name:
        node[index] = _quoted(text), node[index][1]
    else:
        _set(node, index, _quoted(text))


def _change_any(document: Members, pick: random.Random) -> None:
    places = list(_places(document))
    if not places:
        return
    node, index = pick.choice(places)
    other, other_index = pick.choice(places)
    match pick.randrange(9):
        case 0:
            del node[index]
        case 1:
            node.insert(index, _copied([node[index]])[0] if type(node) is list else node[index])
        case 2:
            pick.shuffle(node)
        case 3 if type(node) is Members:
            node[index] = _quoted(pick.choice(FIELDS)), node[index][1]
        case 4 if type(node) is Members:
            node.insert(index, (_quoted(pick.choice(FIELDS)), _any_value(pick)))
        case 5:
            value = _copied(_value(node, index))
            _set(node, index, _copied(_value(other, other_index)))
            _set(other, other_index, value)
        case 6:
            _set(node, index, [_value(node, index)])
        case 7:
            _set(node, index, Members([(b'"a"', _value(node, index))]))
        case _:
            _set(node, index, _any_value(pick))


def _reorder(document: Members, pick: random.Random) -> None:
    pick.shuffle(
        pick.choice((_payload(document), _part(document, b'"headers"'), _part(document, b'"metadata"')))
    )


def _add_member(document: Members, pick: random.Random) -> None:
    """One more that may mean nothing: to be skipped."""
    owner = pick.choice((_payload(document), _part(document, b'"metadata"'), document))
    name = _quoted(pick.choice(FIELDS)) if pick.randrange(4) == 0 else b'"x-%d"' % pick.randrange(9)
    owner.insert(pick.randrange(len(owner) + 1), (name, _any_value(pick)))


# As often as they stand here.
_CHANGES: tuple[Callable[[Members, random.Random], None], ...] = (
    *(_change_header,) * 24,
    *(_add_headers,) * 12,
    _add_many_headers,
    *(_change_address,) * 10,
    *(_change_identity,) * 8,
    *(_change_metadata,) * 3,
    *(_change_envelope,) * 5,
    *(_change_chunk,) * 20,
    *(_change_number,) * 8,
    *(_change_text,) * 14,
    *(_change_any,) * 10,
    *(_reorder,) * 6,
    *(_add_member,) * 8,
)
