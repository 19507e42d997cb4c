"""The guest ABI's data: events as modules read them, results as Decisions (guest-abi.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson

from sentinel_wasm import base64
from sentinel_wasm.decision import (
    Allow,
    Audit,
    Block,
    BodyMutation,
    Challenge,
    Decision,
    HeaderOp,
    Redirect,
    Verdict,
)
from sentinel_wasm.errors import ResultError

# The exports that answer events, in the order of their numbers for `GuestCall.call`.
HOOKS = (
    "on_request_headers",
    "on_request_body",
    "on_response_headers",
    "on_response_body",
    "on_request_complete",
    "on_configure",
)
(
    ON_REQUEST_HEADERS,
    ON_REQUEST_BODY,
    ON_RESPONSE_HEADERS,
    ON_RESPONSE_BODY,
    ON_REQUEST_COMPLETE,
    ON_CONFIGURE,
) = range(len(HOOKS))

# No proxy takes so many; each would cost the agent's time, and a name is repeated for each of its values.
_HEADER_OPS = 1024
_HEADER_BYTES = 1024 * 1024

REDIRECTS = (301, 302, 303, 307, 308)

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_FORBIDDEN_IN_VALUES = re.compile(r"[\r\n\0]")


def parse_result(data: bytes, hook: int) -> Decision:
    """The decision in a hook's result; raises ResultError where the ABI's table is broken."""
    try:
        result = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        try:
            data.decode()
        except UnicodeDecodeError:
            raise ResultError(f"result of {HOOKS[hook]} is not UTF-8") from None
        raise ResultError(f"result of {HOOKS[hook]} is not JSON: {error}") from None
    if type(result) is not dict:
        raise ResultError(f"result of {HOOKS[hook]} is {_word(result)}, expected an object")
    try:
        return _decision(result)
    except ResultError as error:
        raise ResultError(f"result of {HOOKS[hook]}: {error}") from None


def parse_configured(data: bytes | None) -> str | None:
    """What `on_configure` returned: None where it accepts, else its `error`. Raises ResultError."""
    if data is None:
        return None
    try:
        result = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ResultError(f"result of on_configure is not JSON: {error}") from None
    if type(result) is not dict:
        raise ResultError(f"result of on_configure is {_word(result)}, expected an object")
    return _string(result, "error")


def _decision(result: dict[str, Any]) -> Decision:
    return Decision(
        verdict=_verdict(result),
        request_headers=_header_ops(result, "request_headers"),
        response_headers=_header_ops(result, "response_headers"),
        audit=Audit(
            _strings(result, "tags"),
            _strings(result, "rule_ids"),
            _confidence(result),
            _strings(result, "reason_codes"),
        ),
        routing_metadata=_string_map(result, "routing_metadata"),
        request_body=_mutation(result, "request_body_mutation", text=True),
        response_body=_mutation(result, "response_body_mutation", text=False),
        needs_more=_typed(result, "needs_more", bool) or False,
    )


def _verdict(result: dict[str, Any]) -> Verdict:
    word = _string(result, "decision")
    status = _typed(result, "status", int)
    body = _string(result, "body")
    kind = _string(result, "challenge_type")
    params = _string_map(result, "challenge_params")
    if word is None:
        raise ResultError("decision is missing, expected allow, block, deny, redirect or challenge")
    if status is not None and not 100 <= status <= 599:
        raise ResultError(f"status {status}, expected 100 to 599")
    # Only ASCII letters have the cases that are meant: "bloc" with a Kelvin sign is no block.
    match word.lower() if word.isascii() else word:
        case "allow":
            return Allow()
        case "block" | "deny":
            return Block(403 if status is None else status, body)
        case "redirect":
            if status is not None and status not in REDIRECTS:
                raise ResultError(f"status {status} of a redirect, expected one of 301 302 303 307 308")
            if not body:
                raise ResultError("a redirect without its URL in body")
            return Redirect(_value(body, "the redirect's URL"), 302 if status is None else status)
        case "challenge":
            if not kind:
                raise ResultError("a challenge without challenge_type")
            return Challenge(kind, params)
        case _:
            raise ResultError(
                f"decision is {word[:40]!r}, expected allow, block, deny, redirect or challenge"
            )


def _header_ops(result: dict[str, Any], headers: str) -> tuple[HeaderOp, ...]:
    """Sets, then adds, then removes: a name that is set and removed is removed."""
    sets: list[HeaderOp] = []
    adds: list[HeaderOp] = []
    for name, values in _changes(result, f"add_{headers}", dict).items():
        for index, value in enumerate(_values(values, f"add_{headers}", name)):
            if index == 0:
                sets.append(HeaderOp("set", name, value))
            else:
                adds.append(HeaderOp("add", name, value))
    for name, values in _changes(result, f"append_{headers}", dict).items():
        adds += [HeaderOp("add", name, value) for value in _values(values, f"append_{headers}", name)]
    _changes(result, f"remove_{headers}", list)
    removes = [HeaderOp("remove", _name(name)) for name in _strings(result, f"remove_{headers}")]
    ops = (*sets, *adds, *removes)
    if len(ops) > _HEADER_OPS or sum(len(op.name) + len(op.value or "") for op in ops) > _HEADER_BYTES:
        raise ResultError(f"over {_HEADER_OPS} changes of {headers}, or {_HEADER_BYTES // 1024} KiB of them")
    return ops


def _changes(result: dict[str, Any], field: str, kind: type) -> Any:
    """The field's value, empty where it is absent; its length is checked before anything is made of it."""
    changes = _typed(result, field, kind) or kind()
    if len(changes) > _HEADER_OPS:
        raise ResultError(f"{field} has more than {_HEADER_OPS} entries")
    return changes


def _values(values: Any, field: str, name: str) -> list[str]:
    _name(name)
    if type(values) is str:
        values = [values]
    if type(values) is not list or not all(type(value) is str for value in values):
        raise ResultError(
            f"{field}: the value of {name[:40]} is {_word(values)}, expected a string or an array of strings"
        )
    return [_value(value, f"{field}: the value of {name[:40]}") for value in values]


def _name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ResultError(f"{name[:40]!r} is not a header name (RFC 9110, section 5.6.2)")
    return name


def _value(value: str, what: str) -> str:
    if _FORBIDDEN_IN_VALUES.search(value):
        raise ResultError(f"{what} has a CR, LF or NUL in it")
    return value


def _confidence(result: dict[str, Any]) -> float | None:
    value = result.get("confidence")
    if value is None:
        return None
    if type(value) not in (int, float):
        _wrong("confidence", value, "a number")
    if not 0 <= value <= 1:
        raise ResultError(f"confidence is {value}, expected 0 to 1")
    return float(value)


def _mutation(result: dict[str, Any], field: str, *, text: bool) -> BodyMutation | None:
    mutation = _typed(result, field, dict)
    if mutation is None:
        return None
    action = _string(mutation, "action")
    index = _typed(mutation, "chunk_index", int)
    data = _string(mutation, "data")
    encoding = _string(mutation, "encoding") or "utf-8"
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


def _string_map(result: dict[str, Any], field: str) -> Mapping[str, str]:
    """Strings; numbers and booleans become their JSON text, because proxies accept strings only."""
    pairs = {}
    for name, value in (_typed(result, field, dict) or {}).items():
        if type(value) in (int, float, bool):
            value = orjson.dumps(value).decode()
        elif type(value) is not str:
            _wrong(f"{field}: {name[:40]}", value, "a string, number or boolean")
        pairs[name] = value
    return pairs


def _strings(result: dict[str, Any], field: str) -> tuple[str, ...]:
    values = _typed(result, field, list) or []
    if not all(type(value) is str for value in values):
        raise ResultError(f"{field} has something that is not a string in it")
    return tuple(values)


def _string(result: dict[str, Any], field: str) -> str | None:
    value = _typed(result, field, str)
    assert value is None or isinstance(value, str)
    return value


def _typed(result: dict[str, Any], field: str, kind: type) -> Any:
    """The field's value, of exactly this type; None where it is null or absent."""
    value = result.get(field)
    if value is not None and type(value) is not kind:
        _wrong(field, value, _WORDS[kind])
    return value


def _wrong(field: str, value: Any, expected: str) -> NoReturn:
    raise ResultError(f"{field} is {_word(value)}, expected {expected}")


_WORDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    dict: "an object",
    list: "an array",
    type(None): "null",
}


def _word(value: Any) -> str:
    return _WORDS[type(value)]
