"""Decisions as the toolkit shows and compares them."""

from __future__ import annotations

from typing import Any

from sentinel_wasm import base64
from sentinel_wasm.decision import (
    Block,
    BodyMutation,
    Challenge,
    Close,
    Decision,
    Detection,
    HeaderOp,
    Redirect,
)


def said(decision: Decision) -> dict[str, Any]:
    """All of a decision, in plain words and numbers."""
    verdict, findings = decision.verdict, decision.findings
    return {
        "decision": decision.summary()["decision"],
        "status": verdict.status if isinstance(verdict, Block | Redirect) else None,
        "body": verdict.body if isinstance(verdict, Block) else None,
        "url": verdict.url if isinstance(verdict, Redirect) else None,
        "challenge": verdict.type if isinstance(verdict, Challenge) else None,
        "challenge_params": dict(verdict.params) if isinstance(verdict, Challenge) else {},
        "tags": list(decision.audit.tags),
        "rule_ids": list(decision.audit.rule_ids),
        "reason_codes": list(decision.audit.reason_codes),
        "confidence": decision.audit.confidence,
        "request_headers": [_change(op) for op in decision.request_headers],
        "response_headers": [_change(op) for op in decision.response_headers],
        "routing_metadata": dict(decision.routing_metadata),
        "request_body": _replacement(decision.request_body),
        "response_body": _replacement(decision.response_body),
        "needs_more": decision.needs_more,
        "code": verdict.code if isinstance(verdict, Close) else None,
        "reason": verdict.reason if isinstance(verdict, Close) else None,
        "detections": [_found(found) for found in findings.detections] if findings else [],
        "redacted_content": findings.redacted_content if findings else None,
    }


def differs(name: str, expected: Any, found: Any) -> str:
    """A field of `said` that is not as it should be, in one line; not escaped."""
    return f"{name}: expected {expected!r}, found {found!r}"


def _change(op: HeaderOp) -> str:
    return f"{op.op} {op.name}" + ("" if op.value is None else f": {op.value}")


def _found(found: Detection) -> str:
    """`email, medium, 8 to 21, 0.9: an e-mail address`"""
    where = None if found.span is None else f"{found.span[0]} to {found.span[1]}"
    parts = (found.category, found.severity, where, found.confidence)
    return f"{', '.join(str(part) for part in parts if part is not None)}: {found.description}"


def _replacement(mutation: BodyMutation | None) -> str | None:
    """What the chunk becomes, empty where it is dropped; None where it stays."""
    if mutation is None or mutation.data is None:
        return None
    try:
        return mutation.data.decode()
    except UnicodeDecodeError:
        return f"base64 {base64.encode(mutation.data)}"
