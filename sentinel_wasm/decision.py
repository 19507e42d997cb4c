"""What a module decides about one event: the word that `guest` and `protocol` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

# Named tuples where one is made for each result: a frozen dataclass takes several times as long.


@dataclass(frozen=True, slots=True)
class Allow:
    number: ClassVar[int] = 0


ALLOWED = Allow()


@dataclass(frozen=True, slots=True)
class Block:
    number: ClassVar[int] = 1
    status: int = 403
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    number: ClassVar[int] = 2
    url: str
    status: int = 302


@dataclass(frozen=True, slots=True)
class Challenge:
    number: ClassVar[int] = 3
    type: str
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Drop:
    """Of a WebSocket frame: it is not passed on, and the connection stays."""

    number: ClassVar[int] = 4


@dataclass(frozen=True, slots=True)
class Close:
    """Of a WebSocket: the code and the reason of RFC 6455, section 5.5.1."""

    number: ClassVar[int] = 5
    code: int
    reason: str


Verdict = Allow | Block | Redirect | Challenge | Drop | Close
VERDICTS = ("allow", "block", "redirect", "challenge", "drop", "close")
"""Their names, by their numbers: as such they are counted."""


FAILED, OVERLOADED = "wasm-error", "wasm-overload"
"""Tags of an answer that the module has not given: it failed, or was not asked."""


class HeaderOp(NamedTuple):
    """One change to the headers; `value` is None for a removal."""

    op: Literal["set", "add", "remove"]
    name: str
    value: str | None = None


class BodyMutation(NamedTuple):
    """`data` None passes the chunk through, empty drops it; `chunk_index` None means the chunk at hand."""

    data: bytes | None
    chunk_index: int | None = None


class Audit(NamedTuple):
    tags: tuple[str, ...] = ()
    rule_ids: tuple[str, ...] = ()
    confidence: float | None = None
    reason_codes: tuple[str, ...] = ()


Severity = Literal["low", "medium", "high", "critical"]


class Detection(NamedTuple):
    """Something that a guardrail found; `span` is (start, end) in bytes of the content's UTF-8."""

    category: str
    description: str
    severity: Severity = "medium"
    confidence: float | None = None
    span: tuple[int, int] | None = None


class Findings(NamedTuple):
    """What a guardrail says of a content; `confidence` 0 to 1."""

    detected: bool
    confidence: float = 0.0
    detections: tuple[Detection, ...] = ()
    redacted_content: str | None = None


_NOTHING: Mapping[str, str] = {}


class Decision(NamedTuple):
    """Everything a module can say in one result (guest-abi.md, "What the hooks return")."""

    verdict: Verdict = ALLOWED
    request_headers: tuple[HeaderOp, ...] = ()
    response_headers: tuple[HeaderOp, ...] = ()
    audit: Audit = Audit()
    routing_metadata: Mapping[str, str] = _NOTHING
    request_body: BodyMutation | None = None
    response_body: BodyMutation | None = None
    needs_more: bool = False
    findings: Findings | None = None

    @property
    def status(self) -> int:
        """Of the response that the client gets instead, or the code that its WebSocket ends with; 0: none."""
        if isinstance(self.verdict, Close):
            return self.verdict.code
        return self.verdict.status if isinstance(self.verdict, Block | Redirect) else 0

    def summary(self) -> dict[str, Any]:
        """The decision in a few words for a log line: what is not the default."""
        words: dict[str, Any] = {"decision": type(self.verdict).__name__.lower()}
        if isinstance(self.verdict, Block | Redirect):
            words["status"] = self.verdict.status
        if isinstance(self.verdict, Close):
            words["code"] = self.verdict.code
        if self.findings is not None and self.findings.detections:
            words["detections"] = sorted({found.category for found in self.findings.detections})
        if self.audit.tags:
            words["tags"] = list(self.audit.tags)
        if self.audit.rule_ids:
            words["rule_ids"] = list(self.audit.rule_ids)
        if self.audit.reason_codes:
            words["reason_codes"] = list(self.audit.reason_codes)
        return words


ALLOW = Decision()


REFUSED = Block(500, "Wasm Error")
FRAME_REFUSED = Close(1011, "Wasm Error")


def failure(reason: str, *, fail_open: bool, tag: str = FAILED, refused: Verdict = REFUSED) -> Decision:
    """The answer when a module has failed on an event (guest-abi.md, "When the module fails")."""
    if fail_open:
        return Decision(audit=Audit(tags=(tag, "fail-open"), reason_codes=(reason,)))
    return Decision(refused, audit=Audit(tags=(tag,), reason_codes=(reason,)))
