"""The result of `on_websocket_frame` (docs/abi.md, "WebSocket frames")."""

from __future__ import annotations

from typing import Any

from sentinel_wasm.decision import ALLOWED, Close, Decision, Drop, Verdict
from sentinel_wasm.errors import ResultError
from sentinel_wasm.guest import fields

_WORDS = ("allow", "drop", "close", "block", "deny")
_POLICY_VIOLATION = 1008
_REASON_BYTES = 123  # a control frame's 125 without the code


def decision(result: dict[str, Any]) -> Decision:
    """Raises ResultError."""
    read = fields.read(result, _READERS)
    return Decision(_verdict(read), audit=fields.audit(read))


def _verdict(read: dict[str, Any]) -> Verdict:
    match read.get("decision"):
        case "allow":
            return ALLOWED
        case "drop":
            return Drop()
        case "close" | "block" | "deny":
            return Close(read.get("code", _POLICY_VIOLATION), read.get("reason", ""))
    raise ResultError("decision is missing, expected allow, drop or close")


def is_sendable(code: int) -> bool:
    """Whether a Close frame may have it (RFC 6455, section 7.4, and IANA's registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def _word(field: str, value: Any) -> str:
    return fields.word(field, value, _WORDS)


def _code(field: str, value: Any) -> int:
    if type(value) is not int:
        fields.wrong(field, value, "an integer")
    if not is_sendable(value):
        raise ResultError(f"{field} is {value}, expected 1000 to 1003, 1007 to 1014 or 3000 to 4999")
    return value


def _reason(field: str, value: Any) -> str:
    reason = fields.string(field, value)
    if (size := len(reason.encode())) > _REASON_BYTES:
        raise ResultError(f"{field} has {size} bytes, expected at most {_REASON_BYTES}")
    return reason


_READERS: dict[str, fields.Reader] = {
    "decision": _word,
    "code": _code,
    "reason": _reason,
    **fields.AUDIT,
}
