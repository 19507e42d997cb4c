"""Decisions as the proxy reads them: AgentResponse (agent-protocol.md, section 2), and read from there.

`encode` makes an answer whose `audit.custom` is empty and comes last, so that v2's correlation id can be put
into finished bytes (`with_correlation_id`), and equal decisions need to be encoded once only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from sentinel_wasm import base64
from sentinel_wasm.decision import (
    ALLOW,
    ALLOWED,
    Allow,
    Audit,
    Block,
    BodyMutation,
    Challenge,
    Close,
    Decision,
    Drop,
    HeaderOp,
    Redirect,
    Verdict,
)
from sentinel_wasm.errors import ProtocolError
from sentinel_wasm.protocol import guardrail
from sentinel_wasm.protocol.events import field

_TAIL = b"{}}}"
_ID, _END = b'{"correlation_id":', b"}}}"  # what is written instead of it
AROUND_ID = len(_ID) + len(_END)
_ECHO_BYTES = 11 * 1024 * 1024  # as base64 they leave room in a frame for the largest result


def encode(decision: Decision, version: int, *, chunk_index: int = 0, is_frame: bool = False) -> bytes:
    """The AgentResponse of a decision; `chunk_index` is the chunk's at hand, for mutations that name none.

    `is_frame`: it is about a WebSocket's frame.
    """
    audit = decision.audit
    return orjson.dumps(
        {
            "version": version,
            "decision": _verdict(decision.verdict),
            "request_headers": [_header_op(op) for op in decision.request_headers],
            "response_headers": [_header_op(op) for op in decision.response_headers],
            "routing_metadata": _routing_metadata(decision),
            "needs_more": decision.needs_more,
            "request_body_mutation": _mutation(decision.request_body, chunk_index, raw=True),
            "response_body_mutation": _mutation(decision.response_body, chunk_index, raw=False),
            "websocket_decision": _websocket(decision.verdict) if is_frame else None,
            "audit": {
                "tags": audit.tags,
                "rule_ids": audit.rule_ids,
                "confidence": audit.confidence,
                "reason_codes": audit.reason_codes,
                "custom": {},
            },
        }
    )


@lru_cache(maxsize=8)
def allow(version: int, *, is_frame: bool = False) -> bytes:
    """The answer to an event that no hook asks about: the same for each."""
    return encode(ALLOW, version, is_frame=is_frame)


def with_correlation_id(answer: bytes, correlation_id: str) -> bytes:
    """Put the id where v2's proxy looks for it: `audit.custom.correlation_id` (section 3)."""
    return answer[: -len(_TAIL)] + _ID + orjson.dumps(correlation_id) + _END


def without_correlation_id(answer: bytes, correlation_id: str) -> bytes:
    """Take the id out again that `with_correlation_id` has put in."""
    return with_no_id(answer[: -AROUND_ID - len(orjson.dumps(correlation_id))])


def with_no_id(answer: bytes) -> bytes:
    """Of an answer up to where its id begins."""
    return answer + _TAIL


def _verdict(verdict: Verdict) -> str | dict[str, Mapping[str, Any]]:
    # As the proxies' own library has it for frames: their decision stands in `websocket_decision` alone.
    if isinstance(verdict, Allow | Drop | Close):
        return "allow"
    if isinstance(verdict, Block):
        return {"block": {"status": verdict.status, "body": verdict.body, "headers": None}}
    if isinstance(verdict, Redirect):
        return {"redirect": {"url": verdict.url, "status": verdict.status}}
    assert isinstance(verdict, Challenge)
    return {"challenge": {"challenge_type": verdict.type, "params": verdict.params}}


def _websocket(verdict: Verdict) -> str | dict[str, Mapping[str, Any]]:
    if isinstance(verdict, Close):
        return {"close": {"code": verdict.code, "reason": verdict.reason}}
    return "drop" if isinstance(verdict, Drop) else "allow"


def _routing_metadata(decision: Decision) -> Mapping[str, str]:
    if decision.findings is None:
        return decision.routing_metadata
    return {**decision.routing_metadata, guardrail.KEY: guardrail.encode(decision.findings)}


def _header_op(op: HeaderOp) -> dict[str, dict[str, str]]:
    if op.value is None:
        return {op.op: {"name": op.name}}
    return {op.op: {"name": op.name, "value": op.value}}


def _mutation(mutation: BodyMutation | None, chunk_index: int, *, raw: bool) -> dict[str, Any] | None:
    """Today's proxy decodes base64 in response mutations and takes request mutations as they stand."""
    if mutation is None:
        return None
    data = None
    if mutation.data is not None:
        data = mutation.data.decode() if raw else base64.encode(mutation.data)
    return {
        "data": data,
        "chunk_index": chunk_index if mutation.chunk_index is None else mutation.chunk_index,
    }


def unchallenged(decision: Decision) -> Decision:
    """A challenge as a block, for proxies that let challenges through (agent-protocol.md, section 6)."""
    verdict = decision.verdict
    if not isinstance(verdict, Challenge):
        return decision
    body = f"Blocked: this request must pass a challenge ({verdict.type}) that the proxy cannot present."
    return decision._replace(verdict=Block(403, body))


def for_response_body(decision: Decision, data: bytes, *, echo: bool) -> Decision:
    """A mutation where v2's proxy needs one for a chunk of `data` (agent-protocol.md, section 6).

    It ignores a block of a response body and would send the body: a replacement keeps it back. And it cuts
    long bodies that nothing replaces: with `echo`, one that is to pass is replaced by itself.
    """
    verdict, body = decision.verdict, decision.response_body
    if body is not None and body.data is not None:
        return decision
    if not isinstance(verdict, Allow):
        data = ((verdict.body if isinstance(verdict, Block) else None) or "Blocked").encode()
    elif not echo or len(data) > _ECHO_BYTES:
        return decision
    return decision._replace(response_body=BodyMutation(data, body.chunk_index if body else None))


def correlation_id(answer: dict[str, Any]) -> str:
    """Where `with_correlation_id` has put it. Raises ProtocolError."""
    custom = field(field(answer, "audit", dict, {}), "custom", dict, {})
    found: str = field(custom, "correlation_id", str)
    return found


def decode(answer: dict[str, Any]) -> Decision:
    """What a module decided, from an AgentResponse as orjson gives it; the rest is left out.

    Raises ProtocolError.
    """
    audit = field(answer, "audit", dict, {})
    metadata = dict(_read_map(answer, "routing_metadata"))
    findings = metadata.pop(guardrail.KEY, None)
    return Decision(
        _read_websocket(answer.get("websocket_decision")) or _read_verdict(answer.get("decision")),
        _read_ops(answer, "request_headers"),
        _read_ops(answer, "response_headers"),
        Audit(
            _read_texts(audit, "tags"),
            _read_texts(audit, "rule_ids"),
            guardrail.number(audit, "confidence"),
            _read_texts(audit, "reason_codes"),
        ),
        metadata,
        _read_mutation(answer, "request_body_mutation", raw=True),
        _read_mutation(answer, "response_body_mutation", raw=False),
        field(answer, "needs_more", bool, False),
        None if findings is None else guardrail.decode(findings),
    )


def _read_websocket(websocket: Any) -> Verdict | None:
    """None where the answer is not about a frame."""
    if websocket is None or websocket == "allow":
        return None
    if websocket == "drop":
        return Drop()
    name, fields = _read_only_member(websocket, "websocket_decision")
    if name != "close":
        raise ProtocolError(f"websocket_decision is {name!r:.60}, expected allow, drop or close")
    return Close(field(fields, "code", int), field(fields, "reason", str))


def _read_verdict(verdict: Any) -> Verdict:
    if verdict == "allow":
        return ALLOWED
    name, fields = _read_only_member(verdict, "decision")
    match name:
        case "block":
            return Block(field(fields, "status", int), field(fields, "body", str, None))
        case "redirect":
            return Redirect(field(fields, "url", str), field(fields, "status", int))
        case "challenge":
            return Challenge(field(fields, "challenge_type", str), _read_map(fields, "params"))
    raise ProtocolError(f"decision is {name!r:.60}, expected allow, block, redirect or challenge")


def _read_only_member(value: Any, what: str) -> tuple[str, dict[str, Any]]:
    if type(value) is not dict or len(value) != 1:
        raise ProtocolError(f"{what} is not an object with one member")
    (name,) = value
    return name, field(value, name, dict)


def _read_ops(answer: dict[str, Any], name: str) -> tuple[HeaderOp, ...]:
    return tuple(_read_op(op, name) for op in field(answer, name, list, []))


def _read_op(op: Any, where: str) -> HeaderOp:
    kind, fields = _read_only_member(op, f"a change in {where}")
    match kind:
        case "set" | "add":
            return HeaderOp(kind, field(fields, "name", str), field(fields, "value", str))
        case "remove":
            return HeaderOp(kind, field(fields, "name", str))
    raise ProtocolError(f"a change in {where} is {kind!r:.60}, expected set, add or remove")


def _read_texts(audit: dict[str, Any], name: str) -> tuple[str, ...]:
    texts = field(audit, name, list, [])
    if not {str}.issuperset(map(type, texts)):
        raise ProtocolError(f"{name} has something that is not a string in it")
    return tuple(texts)


def _read_map(fields: dict[str, Any], name: str) -> Mapping[str, str]:
    pairs: dict[str, str] = field(fields, name, dict, {})
    if not {str}.issuperset(map(type, pairs.values())):
        raise ProtocolError(f"{name} has a value that is not a string")
    return pairs


def _read_mutation(answer: dict[str, Any], name: str, *, raw: bool) -> BodyMutation | None:
    mutation = field(answer, name, dict, None)
    if mutation is None:
        return None
    text = field(mutation, "data", str, None)
    try:
        data = None if text is None else text.encode() if raw else base64.decode(text)
    except ValueError as error:
        raise ProtocolError(f"data of {name} is not base64: {error}") from None
    return BodyMutation(data, field(mutation, "chunk_index", int, 0))
