"""AgentResponse as a strict proxy reads it (agent-protocol.md, section 2), without the project's code."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], None]

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")


def check(answer: bytes) -> dict[str, Any]:
    """The answer, parsed; AssertionError where a strict proxy could not read it or would read it wrong."""
    response = json.loads(answer.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    _object(
        response,
        required={"version": _u32, "decision": _decision},
        optional={
            "request_headers": _header_ops,
            "response_headers": _header_ops,
            "routing_metadata": _strings_by_name,
            "audit": _audit,
            "needs_more": _boolean,
            "request_body_mutation": _nullable(_mutation(_string)),
            "response_body_mutation": _nullable(_mutation(_base64)),
            "websocket_decision": _nullable(_websocket),
        },
    )
    assert isinstance(response, dict)
    return response


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), f"a name twice in {names}"
    return dict(pairs)


def _no_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def _object(value: Any, *, required: dict[str, Check], optional: dict[str, Check]) -> None:
    assert type(value) is dict
    assert required.keys() <= value.keys() <= required.keys() | optional.keys()
    for name, part in value.items():
        (required.get(name) or optional[name])(part)


def _nullable(check: Check) -> Check:
    def checked(value: Any) -> None:
        if value is not None:
            check(value)

    return checked


def _string(value: Any) -> None:
    assert type(value) is str


def _boolean(value: Any) -> None:
    assert type(value) is bool


def _u16(value: Any) -> None:
    assert type(value) is int
    assert 0 <= value < 2**16


def _u32(value: Any) -> None:
    assert type(value) is int
    assert 0 <= value < 2**32


def _status(value: Any) -> None:
    _u16(value)
    assert 100 <= value <= 599


def _redirect_status(value: Any) -> None:
    _u16(value)
    assert value in {301, 302, 303, 307, 308}


def _url(value: Any) -> None:
    _value(value)
    assert value


def _value(value: Any) -> None:
    _string(value)
    assert not set("\r\n\0") & set(value)


def _strings(value: Any) -> None:
    assert type(value) is list
    for item in value:
        _string(item)


def _strings_by_name(value: Any) -> None:
    assert type(value) is dict
    for item in value.values():
        _string(item)


def _confidence(value: Any) -> None:
    assert type(value) in (int, float)
    assert 0 <= value <= 1


def _base64(value: Any) -> None:
    _string(value)
    assert base64.b64encode(base64.b64decode(value, validate=True)).decode() == value


def _decision(value: Any) -> None:
    if value == "allow":
        return
    assert type(value) is dict
    assert len(value) == 1
    (word, fields), *_ = value.items()
    assert word in ("block", "redirect", "challenge")
    if word == "block":
        headers = _nullable(_strings_by_name)
        _object(
            fields, required={"status": _status}, optional={"body": _nullable(_string), "headers": headers}
        )
    elif word == "redirect":
        _object(fields, required={"url": _url, "status": _redirect_status}, optional={})
    else:
        _object(fields, required={"challenge_type": _string, "params": _strings_by_name}, optional={})


def _header_name(value: Any) -> None:
    _string(value)
    assert _TOKEN.match(value)


def _header_ops(value: Any) -> None:
    assert type(value) is list
    for op in value:
        assert type(op) is dict
        assert len(op) == 1
        (word, fields), *_ = op.items()
        assert word in ("set", "add", "remove")
        values: dict[str, Check] = {} if word == "remove" else {"value": _value}
        _object(fields, required={"name": _header_name, **values}, optional={})


def _audit(value: Any) -> None:
    _object(
        value,
        required={},
        optional={
            "tags": _strings,
            "rule_ids": _strings,
            "confidence": _nullable(_confidence),
            "reason_codes": _strings,
            "custom": _any_object,
        },
    )


def _any_object(value: Any) -> None:
    assert type(value) is dict


def _mutation(data: Check) -> Check:
    def checked(value: Any) -> None:
        _object(value, required={"data": _nullable(data), "chunk_index": _u32}, optional={})

    return checked


def _websocket(value: Any) -> None:
    if value in ("allow", "drop"):
        return
    assert type(value) is dict
    assert list(value) == ["close"]
    _object(value["close"], required={"code": _u16, "reason": _string}, optional={})
