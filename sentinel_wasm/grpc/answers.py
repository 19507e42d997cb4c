"""Answers as gRPC has them, made of the agent's JSON (protocol.answers)."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from sentinel_wasm.decision import Block, Challenge, Close, Decision, Drop, HeaderOp, Redirect
from sentinel_wasm.grpc import agent_pb2 as pb
from sentinel_wasm.link import KEPT, KEPT_BYTES
from sentinel_wasm.protocol import answers

# Tags on the wire, for what has a length: of AgentToProxy.response and AgentResponse.correlation_id.
_RESPONSE = b"\x12"
_CORRELATION_ID = b"\x0a"

DROPPED = ("routing_metadata", "request_body_mutation", "response_body_mutation", "websocket_decision")
"""What an answer of the agent may have, and AgentResponse has not."""


class Encoded(NamedTuple):
    """An AgentResponse but for its correlation id, and what of the answer is not in it."""

    rest: bytes
    dropped: tuple[str, ...]


class Answers:
    """Answers repeat, so what was made of them is kept."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Encoded] = {}

    def encoded(self, answer: bytes) -> Encoded:
        """Of an answer that has no correlation id in it."""
        found = self._kept.get(answer)
        if found is None:
            found = _encode(answer)
            if len(answer) <= KEPT_BYTES:
                if len(self._kept) >= KEPT:
                    self._kept.clear()
                self._kept[answer] = found
        return found


def message_of(encoded: Encoded, correlation_id: str) -> bytes:
    """The AgentToProxy: the id goes in front."""
    identity = correlation_id.encode()
    head = _CORRELATION_ID + _varint(len(identity)) + identity
    return b"".join((_RESPONSE, _varint(len(head) + len(encoded.rest)), head, encoded.rest))


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    septets = bytearray()
    while number >= 0x80:
        septets.append(number & 0x7F | 0x80)
        number >>= 7
    septets.append(number)
    return bytes(septets)


def _encode(answer: bytes) -> Encoded:
    said = orjson.loads(answer)
    dropped = tuple(name for name in DROPPED if said.get(name) not in (None, {}, "allow"))
    return Encoded(_response(answers.decode(said)).SerializeToString(), dropped)


def _response(decision: Decision) -> pb.AgentResponse:
    audit = decision.audit
    response = pb.AgentResponse(
        request_headers=map(_header_op, decision.request_headers),
        response_headers=map(_header_op, decision.response_headers),
        audit=pb.AuditMetadata(
            tags=audit.tags,
            rule_ids=audit.rule_ids,
            confidence=audit.confidence,
            reason_codes=audit.reason_codes,
        ),
        needs_more=decision.needs_more,
    )
    verdict = decision.verdict
    if isinstance(verdict, Block):
        response.block.status = verdict.status
        if verdict.body is not None:
            response.block.body = verdict.body
    elif isinstance(verdict, Redirect):
        response.redirect.url, response.redirect.status = verdict.url, verdict.status
    elif isinstance(verdict, Challenge):
        response.challenge.challenge_type = verdict.type
        response.challenge.params.update(verdict.params)
    elif isinstance(verdict, Drop | Close):
        response.block.status = 403  # as near as one can say it here
    else:
        response.allow.SetInParent()
    return response


def _header_op(op: HeaderOp) -> pb.HeaderOp:
    if op.value is None:
        return pb.HeaderOp(remove=op.name)
    header = pb.Header(name=op.name, value=op.value)
    return pb.HeaderOp(set=header) if op.op == "set" else pb.HeaderOp(add=header)
