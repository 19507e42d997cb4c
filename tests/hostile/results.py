"""Results that break the ABI's table, though their bytes lie where they should."""

from __future__ import annotations

from ..guest import wat
from .case import module

_ALLOW = '"decision":"allow"'
NOT_JSON = "result of on_request_headers is not JSON"
NOT_UTF8 = "result of on_request_headers is not UTF-8"


def _field(text: str) -> bytes:
    """A result that would be fine but for one field."""
    return f"{{{_ALLOW},{text}}}".encode()


def _mutation(side: str, text: str) -> bytes:
    return _field(f'"{side}_body_mutation":{{{text}}}')


# name: (the result, what the reason says)
BAD: dict[str, tuple[bytes, str]] = {
    # Not a JSON object
    "no UTF-8": (b'{"decision":"allow","tags":["\xff\xfe"]}', NOT_UTF8),
    "UTF-8 cut in a character": (b'{"decision":"allow","body":"\xe2\x82', NOT_UTF8),
    "surrogates as UTF-8": (b'{"decision":"allow","body":"\xed\xa0\x80"}', NOT_UTF8),
    "overlong UTF-8": (b'{"decision":"allow","body":"\xc0\xaf"}', NOT_UTF8),
    "UTF-16": ('{"decision":"allow"}'.encode("utf-16"), NOT_UTF8),
    "BOM": (b'\xef\xbb\xbf{"decision":"allow"}', NOT_JSON),
    "plain text": (b"allow", NOT_JSON),
    "a space": (b" ", NOT_JSON),
    "NULs": (bytes(20), NOT_JSON),
    "a NUL behind": (b'{"decision":"allow"}\0', NOT_JSON),
    "half an object": (b'{"decision":"allow"', NOT_JSON),
    "two objects": (b'{"decision":"allow"}{"decision":"allow"}', NOT_JSON),
    "single quotes": (b"{'decision':'allow'}", NOT_JSON),
    "a comma too many": (b'{"decision":"allow",}', NOT_JSON),
    "half a surrogate": (_field(r'"tags":["\ud800"]'), NOT_JSON),
    "surrogates in the wrong order": (_field(r'"tags":["\udc00\ud800"]'), NOT_JSON),
    "a raw line feed in a string": (_field('"body":"\n"'), NOT_JSON),
    "a number past doubles": (_field('"confidence":1e999'), NOT_JSON),
    "a number of 5000 digits": (_field('"status":' + "9" * 5000), NOT_JSON),
    "100,000 arrays deep": (b"[" * 100_000 + b"]" * 100_000, NOT_JSON),
    "100,000 objects deep": (b'{"a":' * 100_000, NOT_JSON),
    "100,000 deep in a field nobody reads": (_field('"x":' + "[" * 100_000 + "]" * 100_000), NOT_JSON),
    "null": (b"null", "result of on_request_headers is null, expected an object"),
    "an array": (b'["allow"]', "is an array, expected an object"),
    "a string": (b'"allow"', "is a string, expected an object"),
    "a number": (b"403", "is an integer, expected an object"),
    # decision
    "no decision": (b"{}", "decision is missing"),
    "decision is null": (b'{"decision":null}', "decision is missing"),
    "decision is empty": (b'{"decision":""}', "decision is ''"),
    "decision is unknown": (b'{"decision":"maybe"}', "decision is 'maybe'"),
    "decision has spaces": (b'{"decision":" allow"}', "decision is ' allow'"),
    "decision has a Kelvin sign": ('{"decision":"bloc\u212a"}'.encode(), "decision is 'bloc"),
    "decision is a control character": (rb'{"decision":"\u001b[31m"}', "decision is '"),
    "decision is 100 kB": (b'{"decision":"' + b"a" * 100_000 + b'"}', "decision is 'a{40}', expected"),
    "decision is a number": (b'{"decision":1}', "decision is an integer, expected a string"),
    "decision is a boolean": (b'{"decision":true}', "decision is a boolean, expected a string"),
    "decision is an object": (b'{"decision":{"allow":1}}', "decision is an object, expected a string"),
    # status, body
    "status 99": (b'{"decision":"block","status":99}', "status 99, expected 100 to 599"),
    "status 600": (b'{"decision":"block","status":600}', "status 600, expected 100 to 599"),
    "status -403": (b'{"decision":"block","status":-403}', "status -403, expected 100 to 599"),
    "status 2**63": (b'{"decision":"block","status":9223372036854775808}', "status "),
    "status is text": (b'{"decision":"block","status":"403"}', "status is a string, expected an integer"),
    "status is a boolean": (b'{"decision":"block","status":true}', "status is a boolean"),
    "status is a fraction": (b'{"decision":"block","status":403.0}', "status is a number"),
    "status is an array": (b'{"decision":"block","status":[403]}', "status is an array"),
    "body is an object": (b'{"decision":"block","body":{}}', "body is an object, expected a string"),
    # redirect, challenge
    "redirect without URL": (b'{"decision":"redirect"}', "a redirect without its URL"),
    "redirect to nowhere": (b'{"decision":"redirect","body":""}', "a redirect without its URL"),
    "redirect with 200": (b'{"decision":"redirect","body":"/a","status":200}', "status 200 of a redirect"),
    "redirect with CRLF": (rb'{"decision":"redirect","body":"/\r\nSet-Cookie: a"}', "has a CR, LF or NUL"),
    "challenge without type": (b'{"decision":"challenge"}', "a challenge without challenge_type"),
    "challenge of no type": (b'{"decision":"challenge","challenge_type":""}', "without challenge_type"),
    "challenge type is a number": (
        b'{"decision":"challenge","challenge_type":1}',
        "challenge_type is an int",
    ),
    "challenge params are a list": (_field('"challenge_params":["a"]'), "challenge_params is an array"),
    "challenge params nest": (_field('"challenge_params":{"a":{}}'), "challenge_params: a is an object"),
    # headers
    "header without name": (_field('"add_request_headers":{"":"v"}'), "'' is not a header name"),
    "header name with a space": (_field('"add_request_headers":{"a b":"v"}'), "'a b' is not a header name"),
    "header name with a colon": (_field('"add_response_headers":{"a:":"v"}'), "is not a header name"),
    "header name with CRLF": (_field(r'"remove_request_headers":["a\r\nb"]'), "is not a header name"),
    "header name with NUL": (_field(r'"append_response_headers":{"a\u0000":"v"}'), "is not a header name"),
    "header name that is not ASCII": (_field('"add_request_headers":{"é":"v"}'), "is not a header name"),
    "header value with CRLF": (_field(r'"add_request_headers":{"a":"v\r\nb: c"}'), "CR, LF or NUL"),
    "header value with LF": (_field(r'"append_request_headers":{"a":["v","\n"]}'), "CR, LF or NUL"),
    "header value with NUL": (_field(r'"add_response_headers":{"a":"\u0000"}'), "CR, LF or NUL"),
    "header value is a number": (_field('"add_request_headers":{"a":1}'), "the value of a is an integer"),
    "header value is null": (_field('"add_request_headers":{"a":null}'), "the value of a is null"),
    "header values nest": (_field('"add_request_headers":{"a":["v",["w"]]}'), "the value of a is"),
    "headers are a list": (_field('"add_request_headers":[["a","v"]]'), "add_request_headers is an array"),
    "removed header is a string": (_field('"remove_request_headers":"a"'), "remove_request_headers is a str"),
    "removed header is a number": (_field('"remove_response_headers":[1]'), "remove_response_headers has"),
    # audit, routing
    "tags are a string": (_field('"tags":"a"'), "tags is a string, expected an array"),
    "a tag is null": (_field('"tags":["a",null]'), "tags has something that is not a string"),
    "rule ids are numbers": (_field('"rule_ids":[1]'), "rule_ids has something that is not a string"),
    "reason codes are an object": (_field('"reason_codes":{}'), "reason_codes is an object"),
    "confidence over 1": (_field('"confidence":1.0000001'), "confidence is 1.0000001, expected 0 to 1"),
    "confidence under 0": (_field('"confidence":-1'), "confidence is -1, expected 0 to 1"),
    "confidence is NaN": (_field('"confidence":NaN'), NOT_JSON),
    "confidence is infinite": (_field('"confidence":Infinity'), NOT_JSON),
    "confidence is text": (_field('"confidence":"high"'), "confidence is a string, expected a number"),
    "confidence is a boolean": (_field('"confidence":true'), "confidence is a boolean, expected a number"),
    "routing metadata nests": (_field('"routing_metadata":{"a":[1]}'), "routing_metadata: a is an array"),
    "routing metadata is null inside": (
        _field('"routing_metadata":{"a":null}'),
        "routing_metadata: a is null",
    ),
    "needs_more is text": (_field('"needs_more":"yes"'), "needs_more is a string, expected a boolean"),
    "needs_more is a number": (_field('"needs_more":1'), "needs_more is an integer, expected a boolean"),
    # body mutations
    "mutation is text": (_field('"request_body_mutation":"drop"'), "request_body_mutation is a string"),
    "mutation without action": (_mutation("request", '"data":"a"'), "request_body_mutation: action is None"),
    "mutation of unknown action": (_mutation("response", '"action":"append"'), "action is 'append'"),
    "replace without data": (_mutation("response", '"action":"replace"'), "replace without data"),
    "replace with a number": (_mutation("request", '"action":"replace","data":1'), "data is an integer"),
    "replace with no base64": (
        _mutation("response", '"action":"replace","encoding":"base64","data":"a*b="'),
        "data is not base64",
    ),
    "replace a request body with binary": (
        _mutation("request", '"action":"replace","encoding":"base64","data":"//79"'),
        "data is not valid text",
    ),
    "unknown encoding": (
        _mutation("response", '"action":"replace","encoding":"gzip","data":"a"'),
        "encoding is 'gzip'",
    ),
    "chunk index -1": (_mutation("request", '"action":"drop","chunk_index":-1'), "chunk_index is -1"),
    "chunk index 2**32": (
        _mutation("request", '"action":"drop","chunk_index":4294967296'),
        "chunk_index is 42",
    ),
    "chunk index is text": (
        _mutation("request", '"action":"drop","chunk_index":"0"'),
        "chunk_index is a str",
    ),
}

# Odd, but the ABI takes them: name: (the result, its decision).
ODD: dict[str, tuple[bytes, object]] = {
    "one field twice: the last counts": (b'{"decision":"block","decision":"allow"}', "allow"),
    "escapes in the decision": (rb'{"decis\u0069on":"\u0061llow"}', "allow"),
    "capitals and white space": (b'\r\n\t {"decision" : "AlLoW"}\n\n', "allow"),
    "null in every other field": (
        b'{"decision":"allow","status":null,"body":null,"tags":null,"confidence":null,"needs_more":null,'
        b'"add_request_headers":null,"remove_response_headers":null,"routing_metadata":null,'
        b'"request_body_mutation":null,"challenge_type":null}',
        "allow",
    ),
    "the least confidence": (_field('"confidence":-0.0,"rule_ids":["\\u0000"]'), "allow"),
    "1000 levels in a field nobody reads": (_field('"x":' + "[" * 1000 + "]" * 1000), "allow"),
    "10,000 fields nobody reads": (_field(",".join(f'"x{n}":{n}' for n in range(10_000))), "allow"),
}

# A POST of "/NN" gets the result of that number.
NUMBERED = [*(raw for raw, _ in BAD.values()), *(raw for raw, _ in ODD.values())]
_NUMBER_AT = len('{"method":"POST","uri":"/')
_TABLE_AT = 2048
_TEXTS_AT = wat.PAGE


def uri_of(raw: bytes) -> str:
    return f"/{NUMBERED.index(raw):03}"


def speaker() -> str:
    """A module that says each of these results when it is asked for its number, and else the good one."""
    table, texts = b"", b""
    for raw in NUMBERED:
        table += (_TEXTS_AT + len(texts) << 32 | len(raw)).to_bytes(8, "little")
        texts += raw
    assert len(table) <= 8192
    digits = (
        f"(i32.sub (i32.load8_u offset={_NUMBER_AT + place} (local.get $p)) (i32.const 48))"
        for place in range(3)
    )
    number = "(i32.const 0)"
    for digit in digits:
        number = f"(i32.add (i32.mul {number} (i32.const 10)) {digit})"
    return module(
        wat.data(_TABLE_AT, table),
        wat.data(_TEXTS_AT, texts),
        fault=f"(return (i64.load offset={_TABLE_AT} (i32.mul {number} (i32.const 8))))",
        pages=2 + len(texts) // wat.PAGE,
    )
