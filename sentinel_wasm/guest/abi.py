"""The guest ABI's data: events as modules read them, results as Decisions (guest-abi.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import orjson

from sentinel_wasm import base64
from sentinel_wasm.decision import (
    ALLOWED,
    FRAME_REFUSED,
    REFUSED,
    Block,
    BodyMutation,
    Challenge,
    Decision,
    HeaderOp,
    Redirect,
    Verdict,
)
from sentinel_wasm.errors import ResultError
from sentinel_wasm.guest import fields, guardrail, websocket

# The exports that answer events, in the order of their numbers for `GuestCall.call`.
HOOKS = (
    "on_request_headers",
    "on_request_body",
    "on_response_headers",
    "on_response_body",
    "on_request_complete",
    "on_configure",
    "on_websocket_frame",
    "on_guardrail",
)
(
    ON_REQUEST_HEADERS,
    ON_REQUEST_BODY,
    ON_RESPONSE_HEADERS,
    ON_RESPONSE_BODY,
    ON_REQUEST_COMPLETE,
    ON_CONFIGURE,
    ON_WEBSOCKET_FRAME,
    ON_GUARDRAIL,
) = range(len(HOOKS))

DECIDING = (
    ON_REQUEST_HEADERS,
    ON_REQUEST_BODY,
    ON_GUARDRAIL,
    ON_RESPONSE_HEADERS,
    ON_RESPONSE_BODY,
    ON_WEBSOCKET_FRAME,
)
"""Those whose results are listened to, in the order in which a request's events come."""

EVENT_HOOKS = (*HOOKS, "none")  # what events are for, as metrics and logs have it

# No proxy takes so many; each would cost the agent's time, and a name is repeated for each of its values.
_HEADER_OPS = 1024
_HEADER_BYTES = 1024 * 1024

_WORDS = ("allow", "block", "deny", "redirect", "challenge")
REDIRECTS = (301, 302, 303, 307, 308)

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2


_DECISIONS: dict[int, Callable[[dict[str, Any]], Decision]] = {
    ON_WEBSOCKET_FRAME: websocket.decision,
    ON_GUARDRAIL: guardrail.decision,
}
"""Of the hooks that have results of their own kind."""

Ops = tuple[list[HeaderOp], list[HeaderOp]]
"""What a name's first value does, and what its others do."""


def parse_result(data: bytes, hook: int) -> Decision:
    """The decision in a hook's result; raises ResultError where the ABI's table is broken."""
    result = _object(data, hook)
    try:
        return _DECISIONS.get(hook, _decision)(result)
    except ResultError as error:
        raise ResultError(f"result of {HOOKS[hook]}: {error}") from None


def refusal(hook: int) -> Verdict:
    """What a failure at this hook is answered with, without --fail-open."""
    return FRAME_REFUSED if hook == ON_WEBSOCKET_FRAME else REFUSED


def parse_configured(data: bytes | None) -> str | None:
    """What `on_configure` returned: None where it accepts, else its `error`. Raises ResultError."""
    if data is None:
        return None
    refused = _object(data, ON_CONFIGURE).get("error")
    return None if refused is None else fields.string("error", refused)


def _object(data: bytes, hook: int) -> dict[str, Any]:
    """A hook's result as JSON has it. Raises ResultError."""
    try:
        result = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        try:
            data.decode()
        except UnicodeDecodeError:
            raise ResultError(f"result of {HOOKS[hook]} is not UTF-8") from None
        raise ResultError(f"result of {HOOKS[hook]} is not JSON: {error}") from None
    if type(result) is not dict:
        raise ResultError(f"result of {HOOKS[hook]} is {fields.kind(result)}, expected an object")
    return result


def _decision(result: dict[str, Any]) -> Decision:
    read = fields.read(result, _READERS)
    get = read.get
    return Decision(
        _verdict(read),
        _header_ops(
            "request_headers",
            get("add_request_headers"),
            get("append_request_headers"),
            get("remove_request_headers"),
        ),
        _header_ops(
            "response_headers",
            get("add_response_headers"),
            get("append_response_headers"),
            get("remove_response_headers"),
        ),
        fields.audit(read),
        get("routing_metadata", {}),
        get("request_body_mutation"),
        get("response_body_mutation"),
        get("needs_more", False),
    )


def _verdict(read: dict[str, Any]) -> Verdict:
    word, status, body = read.get("decision"), read.get("status"), read.get("body")
    if word == "allow":
        return ALLOWED
    match word:
        case "block" | "deny":
            return Block(403 if status is None else status, body)
        case "redirect":
            if status is not None and status not in REDIRECTS:
                raise ResultError(f"status {status} of a redirect, expected one of 301 302 303 307 308")
            if not body:
                raise ResultError("a redirect without its URL in body")
            return Redirect(_value(body, "the redirect's URL"), 302 if status is None else status)
        case "challenge":
            if not (kind := read.get("challenge_type")):
                raise ResultError("a challenge without challenge_type")
            return Challenge(kind, read.get("challenge_params", {}))
    raise ResultError("decision is missing, expected allow, block, deny, redirect or challenge")


def _header_ops(
    headers: str, added: Ops | None, appended: Ops | None, removed: list[HeaderOp] | None
) -> tuple[HeaderOp, ...]:
    """Sets, then adds, then removes: a name that is set and removed is removed."""
    if added is None and appended is None and removed is None:
        return ()
    sets, adds = added or ((), ())
    _, more = appended or ((), ())
    ops = (*sets, *adds, *more, *(removed or ()))
    # Without adds no name is repeated: then it is less than the result itself.
    if adds or more or len(ops) > _HEADER_OPS:
        check_header_ops(headers, ops)
    return ops


def check_header_ops(headers: str, ops: tuple[HeaderOp, ...]) -> None:
    """Raises ResultError where they are more than an answer may have."""
    if len(ops) > _HEADER_OPS or sum(len(op.name) + len(op.value or "") for op in ops) > _HEADER_BYTES:
        raise ResultError(f"over {_HEADER_OPS} changes of {headers}, or {_HEADER_BYTES // 1024} KiB of them")


def _name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ResultError(f"{name[:40]!r} is not a header name (RFC 9110, section 5.6.2)")
    return name


def _value(value: str, what: str) -> str:
    if _has_line_end(value):
        raise ResultError(f"{what} has a CR, LF or NUL in it")
    return value


def _has_line_end(value: str) -> bool:
    return "\r" in value or "\n" in value or "\0" in value


# What reads a field's value, which is not null; each raises ResultError.


def _word(field: str, value: Any) -> str:
    return fields.word(field, value, _WORDS)


def _status(field: str, value: Any) -> int:
    if type(value) is not int:
        fields.wrong(field, value, "an integer")
    if not 100 <= value <= 599:
        raise ResultError(f"{field} {value}, expected 100 to 599")
    return value


def _string_map(field: str, values: Any) -> Mapping[str, str]:
    """Strings; numbers and booleans become their JSON text, because proxies accept strings only."""
    if type(values) is not dict:
        fields.wrong(field, values, "an object")
    pairs = {}
    for name, value in values.items():
        if type(value) in (int, float, bool):
            value = orjson.dumps(value).decode()
        elif type(value) is not str:
            fields.wrong(f"{field}: {name[:40]}", value, "a string, number or boolean")
        pairs[name] = value
    return pairs


def _added(field: str, headers: Any) -> Ops:
    """A name's first value is set, its others are added."""
    return _changes(field, headers, "set", [], [])


def _appended(field: str, headers: Any) -> Ops:
    adds: list[HeaderOp] = []
    return _changes(field, headers, "add", adds, adds)


def _changes(
    field: str, headers: Any, first: Literal["set", "add"], firsts: list[HeaderOp], adds: list[HeaderOp]
) -> Ops:
    if type(headers) is not dict:
        fields.wrong(field, headers, "an object")
    _check_count(field, headers)
    for name, value in headers.items():
        _name(name)
        if type(value) is str and not _has_line_end(value):
            firsts.append(HeaderOp(first, name, value))
            continue
        values = _header_values(field, name, value)
        firsts += [HeaderOp(first, name, each) for each in values[:1]]
        adds += [HeaderOp("add", name, each) for each in values[1:]]
    return firsts, adds


def _header_values(field: str, name: str, value: Any) -> list[str]:
    values = [value] if type(value) is str else value
    if type(values) is not list or not all(type(value) is str for value in values):
        fields.wrong(f"{field}: the value of {name[:40]}", values, "a string or an array of strings")
    for value in values:
        _value(value, f"{field}: the value of {name[:40]}")
    return values


def _removed(field: str, names: Any) -> list[HeaderOp]:
    if type(names) is list:
        _check_count(field, names)
    return [HeaderOp("remove", _name(name)) for name in fields.strings(field, names)]


def _check_count(field: str, changes: Any) -> None:
    """Before anything is made of them."""
    if len(changes) > _HEADER_OPS:
        raise ResultError(f"{field} has more than {_HEADER_OPS} entries")


def _request_body(field: str, mutation: Any) -> BodyMutation:
    return _mutation(field, mutation, text=True)


def _response_body(field: str, mutation: Any) -> BodyMutation:
    return _mutation(field, mutation, text=False)


def _mutation(field: str, mutation: Any, *, text: bool) -> BodyMutation:
    if type(mutation) is not dict:
        fields.wrong(field, mutation, "an object")
    action = _member(mutation, "action", str)
    index = _member(mutation, "chunk_index", int)
    data = _member(mutation, "data", str)
    encoding = _member(mutation, "encoding", str) or "utf-8"
    if index is not None and not 0 <= index < 2**32:
        raise ResultError(f"{field}: chunk_index is {index}, expected 0 to 4294967295")
    if encoding not in ("utf-8", "base64"):
        raise ResultError(f"{field}: encoding is {encoding[:40]!r}, expected utf-8 or base64")
    match action:
        case "pass_through":
            return BodyMutation(None, index)
        case "drop":
            return BodyMutation(b"", index)
        case "replace":
            if data is None:
                raise ResultError(f"{field}: replace without data")
            return BodyMutation(_mutation_data(field, data, encoding, text=text), index)
        case _:
            raise ResultError(f"{field}: action is {action!r:.40}, expected pass_through, replace or drop")


def _member(mutation: dict[str, Any], field: str, kind: type) -> Any:
    value = mutation.get(field)
    if value is not None and type(value) is not kind:
        fields.wrong(field, value, fields.KINDS[kind])
    return value


def _mutation_data(field: str, data: str, encoding: str, *, text: bool) -> bytes:
    if encoding == "utf-8":
        return data.encode()
    try:
        decoded = base64.decode(data)
    except ValueError as error:
        raise ResultError(f"{field}: data is not base64: {error}") from None
    if text:
        try:
            decoded.decode()
        except UnicodeDecodeError:
            raise ResultError(
                f"{field}: data is not valid text, and proxies take request bodies as text"
            ) from None
    return decoded


_READERS: dict[str, fields.Reader] = {
    "decision": _word,
    "status": _status,
    "body": fields.string,
    "challenge_type": fields.string,
    "challenge_params": _string_map,
    "add_request_headers": _added,
    "append_request_headers": _appended,
    "remove_request_headers": _removed,
    "add_response_headers": _added,
    "append_response_headers": _appended,
    "remove_response_headers": _removed,
    **fields.AUDIT,
    "routing_metadata": _string_map,
    "request_body_mutation": _request_body,
    "response_body_mutation": _response_body,
    "needs_more": fields.boolean,
}
