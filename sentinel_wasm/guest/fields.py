"""The fields of a hook's result: each reader gets one that is not null, and raises ResultError."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from sentinel_wasm.decision import Audit
from sentinel_wasm.errors import ResultError

Reader = Callable[[str, Any], Any]


def read(result: dict[str, Any], readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Only the fields that are there are looked at: most results have few of many. Others are ignored."""
    found = {}
    for field, value in result.items():
        reader = readers.get(field)
        if reader is not None and value is not None:
            found[field] = reader(field, value)
    return found


def audit(found: dict[str, Any]) -> Audit:
    """Of what the readers in AUDIT have read."""
    get = found.get
    return Audit(get("tags", ()), get("rule_ids", ()), get("confidence"), get("reason_codes", ()))


def string(field: str, value: Any) -> str:
    if type(value) is not str:
        wrong(field, value, "a string")
    return value


def boolean(field: str, value: Any) -> bool:
    if type(value) is not bool:
        wrong(field, value, "a boolean")
    return value


def word(field: str, value: Any, words: Sequence[str]) -> str:
    """One of these, in any letter case."""
    found = string(field, value)
    # Only ASCII letters have the cases that are meant: "bloc" with a Kelvin sign is no block.
    found = found.lower() if found.isascii() else found
    if found not in words:
        raise ResultError(f"{field} is {value[:40]!r}, expected {', '.join(words[:-1])} or {words[-1]}")
    return found


def confidence(field: str, value: Any) -> float:
    if type(value) not in (int, float):
        wrong(field, value, "a number")
    if not 0 <= value <= 1:
        raise ResultError(f"{field} is {value}, expected 0 to 1")
    return float(value)


def strings(field: str, values: Any) -> tuple[str, ...]:
    if type(values) is not list:
        wrong(field, values, "an array")
    for value in values:
        if type(value) is not str:
            raise ResultError(f"{field} has something that is not a string in it")
    return tuple(values)


def wrong(field: str, value: Any, expected: str) -> NoReturn:
    raise ResultError(f"{field} is {kind(value)}, expected {expected}")


KINDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    dict: "an object",
    list: "an array",
    type(None): "null",
}


def kind(value: Any) -> str:
    return KINDS[type(value)]


AUDIT: dict[str, Reader] = {
    "tags": strings,
    "rule_ids": strings,
    "reason_codes": strings,
    "confidence": confidence,
}
