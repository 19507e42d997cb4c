"""The result of `on_guardrail` (docs/abi.md, "Guardrails")."""

from __future__ import annotations

from typing import Any, get_args

from sentinel_wasm.decision import ALLOWED, Block, Decision, Detection, Findings, Severity
from sentinel_wasm.errors import ResultError
from sentinel_wasm.guest import fields

_SEVERITIES = get_args(Severity)
_MOST_BYTES = 2**32 - 1  # of a content


def decision(result: dict[str, Any]) -> Decision:
    """What is detected is a block, which proxies that do not read findings take for the same.

    Raises ResultError.
    """
    read = fields.read(result, _READERS)
    detected = read.get("detected")
    if detected is None:
        raise ResultError("detected is missing, expected true or false")
    findings = Findings(
        detected,
        read.get("confidence", float(detected)),
        read.get("detections", ()),
        read.get("redacted_content"),
    )
    return Decision(Block() if detected else ALLOWED, audit=fields.audit(read), findings=findings)


def _detections(field: str, values: Any) -> tuple[Detection, ...]:
    if type(values) is not list:
        fields.wrong(field, values, "an array")
    return tuple(_detection(f"{field}[{number}]", value) for number, value in enumerate(values))


def _detection(field: str, value: Any) -> Detection:
    if type(value) is not dict:
        fields.wrong(field, value, "an object")
    try:
        read = fields.read(value, _DETECTION)
        if missing := [name for name in ("category", "description") if name not in read]:
            raise ResultError(f"{missing[0]} is missing")
    except ResultError as error:
        raise ResultError(f"{field}: {error}") from None
    return Detection(**read)


def _severity(field: str, value: Any) -> str:
    return fields.word(field, value, _SEVERITIES)


def _span(field: str, value: Any) -> tuple[int, int]:
    if type(value) is not dict:
        fields.wrong(field, value, "an object")
    start, end = _offset("start", value.get("start")), _offset("end", value.get("end"))
    if not 0 <= start <= end <= _MOST_BYTES:
        raise ResultError(f"{field} is {start} to {end}, expected bytes of the content")
    return start, end


def _offset(field: str, value: Any) -> int:
    if type(value) is not int:
        fields.wrong(f"{field} of span", value, "an integer")
    return value


_DETECTION: dict[str, fields.Reader] = {
    "category": fields.string,
    "description": fields.string,
    "severity": _severity,
    "confidence": fields.confidence,
    "span": _span,
}

_READERS: dict[str, fields.Reader] = {
    "detected": fields.boolean,
    "detections": _detections,
    "redacted_content": fields.string,
    **fields.AUDIT,
}
