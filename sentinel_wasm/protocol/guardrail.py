"""A guardrail's findings as proxies read them: a JSON string in the answer's routing metadata."""

from __future__ import annotations

from typing import Any, get_args

import orjson

from sentinel_wasm.decision import Detection, Findings, Severity
from sentinel_wasm.errors import ProtocolError
from sentinel_wasm.protocol.events import field

KEY = "guardrail_response"

_SEVERITIES = get_args(Severity)


def encode(findings: Findings) -> str:
    """The value of KEY."""
    response: dict[str, Any] = {
        "detected": findings.detected,
        "confidence": findings.confidence,
        "detections": [_detection(found) for found in findings.detections],
    }
    if findings.redacted_content is not None:
        response["redacted_content"] = findings.redacted_content
    return orjson.dumps(response).decode()


def _detection(found: Detection) -> dict[str, Any]:
    """What is not said is left out."""
    said = {name: value for name, value in found._asdict().items() if value is not None}
    if found.span is not None:
        said["span"] = {"start": found.span[0], "end": found.span[1]}
    return said


def decode(text: str) -> Findings:
    """Raises ProtocolError."""
    try:
        response = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"{KEY} is not JSON: {error}") from None
    if type(response) is not dict:
        raise ProtocolError(f"{KEY} is not an object")
    return Findings(
        field(response, "detected", bool),
        number(response, "confidence") or 0.0,
        tuple(_read_detection(found) for found in field(response, "detections", list, [])),
        field(response, "redacted_content", str, None),
    )


def _read_detection(found: Any) -> Detection:
    if type(found) is not dict:
        raise ProtocolError("a detection is not an object")
    severity = field(found, "severity", str, "medium")
    if severity not in _SEVERITIES:
        raise ProtocolError(f"severity is {severity!r:.60}, expected one of {', '.join(_SEVERITIES)}")
    span = field(found, "span", dict, None)
    return Detection(
        field(found, "category", str),
        field(found, "description", str),
        severity,
        number(found, "confidence"),
        None if span is None else (field(span, "start", int), field(span, "end", int)),
    )


def number(fields: dict[str, Any], name: str) -> float | None:
    """The protocol has a number, and JSON has two kinds of them."""
    value = fields.get(name)
    return float(value) if type(value) is int else field(fields, name, float, None)
