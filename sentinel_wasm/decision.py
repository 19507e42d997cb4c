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


Verdict = Allow | Block | Redirect | Challenge
VERDICTS = ("allow", "block", "redirect", "challenge")
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

    @property
    def status(self) -> int:
        """Of the response that the client gets instead; 0: none."""
        return self.verdict.status if isinstance(self.verdict, Block | Redirect) else 0

    def summary(self) -> dict[str, Any]:
        """The decision in a few words for a log line: what is not the default."""
        words: dict[str, Any] = {"decision": type(self.verdict).__name__.lower()}
        if isinstance(self.verdict, Block | Redirect):
            words["status"] = self.verdict.status
        if self.audit.tags:
            words["tags"] = list(self.audit.tags)
        if self.audit.rule_ids:
            words["rule_ids"] = list(self.audit.rule_ids)
        if self.audit.reason_codes:
            words["reason_codes"] = list(self.audit.reason_codes)
        return words


ALLOW = Decision()


def failure(reason: str, *, fail_open: bool, tag: str = FAILED) -> Decision:
    """The answer when a module has failed on an event (guest-abi.md, "When the module fails")."""
    if fail_open:
        return Decision(audit=Audit(tags=(tag, "fail-open"), reason_codes=(reason,)))
    return Decision(Block(500, "Wasm Error"), audit=Audit(tags=(tag,), reason_codes=(reason,)))
