"""What several modules say of one event, put together: one decision, and what the next of them sees."""

from __future__ import annotations

from collections.abc import Iterable

from sentinel_wasm import base64
from sentinel_wasm.decision import ALLOW, Allow, Audit, BodyMutation, Decision, Findings, HeaderOp
from sentinel_wasm.guest import abi
from sentinel_wasm.protocol.events import BodyChunk, Event, Headers, RequestHeaders, ResponseHeaders


def joined(earlier: Decision, later: Decision) -> Decision:
    """The decision of a module that allows, and that of the next one. A body is replaced by who allows, or by
    who does not; and who does not says alone whether that is provisional.

    Raises ResultError where it changes more headers than one module may.
    """
    if earlier is ALLOW:
        return later
    if later is ALLOW:
        return earlier
    allows = isinstance(later.verdict, Allow)
    audit, more = earlier.audit, later.audit
    return Decision(
        later.verdict,
        _both("request_headers", earlier.request_headers, later.request_headers),
        _both("response_headers", earlier.response_headers, later.response_headers),
        Audit(
            audit.tags + more.tags,
            audit.rule_ids + more.rule_ids,
            audit.confidence if more.confidence is None else more.confidence,
            audit.reason_codes + more.reason_codes,
        ),
        {**earlier.routing_metadata, **later.routing_metadata},
        _last(earlier.request_body if allows else None, later.request_body),
        _last(earlier.response_body if allows else None, later.response_body),
        (allows and earlier.needs_more) or later.needs_more,
        _found(earlier.findings, later.findings),
    )


def _both(headers: str, earlier: tuple[HeaderOp, ...], later: tuple[HeaderOp, ...]) -> tuple[HeaderOp, ...]:
    ops = earlier + later
    if earlier and later:
        abi.check_header_ops(headers, ops)
    return ops


def _last(earlier: BodyMutation | None, later: BodyMutation | None) -> BodyMutation | None:
    """To pass a chunk through leaves what it was replaced by."""
    return earlier if later is None or (later.data is None and earlier is not None) else later


def _found(earlier: Findings | None, later: Findings | None) -> Findings | None:
    """Each has inspected the content as it came, so what they found adds up; the last redaction holds."""
    if earlier is None or later is None:
        return earlier or later
    return Findings(
        later.detected,
        later.confidence if later.detected else max(earlier.confidence, later.confidence),
        earlier.detections + later.detections,
        earlier.redacted_content if later.redacted_content is None else later.redacted_content,
    )


def seen_after(hook: int, event: Event, decision: Decision) -> Event:
    """The event as a module that allows it leaves it to the next one."""
    if isinstance(event, RequestHeaders) and decision.request_headers:
        return event._replace(headers=changed(event.headers, decision.request_headers))
    if isinstance(event, ResponseHeaders) and decision.response_headers:
        return event._replace(headers=changed(event.headers, decision.response_headers))
    if isinstance(event, BodyChunk):
        return _replaced(
            event, decision.response_body if hook == abi.ON_RESPONSE_BODY else decision.request_body
        )
    return event


def _replaced(chunk: BodyChunk, mutation: BodyMutation | None) -> BodyChunk:
    """By a mutation, where that is one of this chunk."""
    if mutation is None or mutation.data is None or mutation.chunk_index not in (None, chunk.chunk_index):
        return chunk
    return chunk._replace(data=mutation.data, text=base64.encode(mutation.data))


def changed(headers: Headers, ops: Iterable[HeaderOp]) -> Headers:
    """Headers as a proxy has them once it has applied the changes, in their order."""
    after = dict(headers)
    for op in ops:
        name = op.name.lower()
        same = [other for other in after if other.lower() == name]
        if op.op != "add":
            for other in same:
                del after[other]
        if op.value is not None:
            kept = same[0] if op.op == "add" and same else op.name
            after[kept] = [*after.get(kept, ()), op.value]
    return after
