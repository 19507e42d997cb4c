"""Requests made up by chance: their events, and what the right answer to each is."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sentinel_wasm.client import request_headers
from sentinel_wasm.protocol.events import EventKind

from . import filter

# The share of events that make the module fail.
TRAPS, BAD_RESULTS, TIMEOUTS = 0.01, 0.005, 0.001

BODY_SIZES = (0, 10, 1_000, 20_000, 200_000, 1_048_576)
BODY_WEIGHTS = (5, 30, 40, 20, 4, 1)

_LETTERS = {
    EventKind.REQUEST_HEADERS: (filter.ALLOW, filter.BLOCK, filter.CHALLENGE, filter.HEADERS),
    EventKind.REQUEST_BODY_CHUNK: (filter.ALLOW, filter.BLOCK, filter.REQUEST_BODY),
    EventKind.RESPONSE_HEADERS: (filter.ALLOW, filter.BLOCK, filter.HEADERS),
    EventKind.RESPONSE_BODY_CHUNK: (filter.ALLOW, filter.BLOCK, filter.RESPONSE_BODY),
}
_REASONS = {
    filter.TRAP: "trap: unreachable",
    filter.MEMORY_HOG: "trap: unreachable",
    filter.NOT_JSON: "is not JSON",
    filter.BAD_POINTER: "outside the memory",
    filter.SPIN: "deadline of",
}
FAILURE = {"block": {"status": 500, "body": "Wasm Error", "headers": None}}

_FILLER = "".join(random.Random(0).choices(string.ascii_letters + string.digits, k=BODY_SIZES[-1]))


@dataclass(frozen=True)
class Event:
    """One event and what is expected of its answer."""

    kind: EventKind
    payload: dict[str, Any]
    letter: str = ""  # what it asks of the module; nothing where the module has no hook for it
    token: str = ""
    total: str = ""

    @property
    def fails(self) -> bool:
        return self.letter in _REASONS

    def wrong(self, answer: dict[str, Any], protocol: int) -> str:
        """What is wrong with an answer that is neither late nor refused; nothing where it is right."""
        if self.fails:
            reasons = answer["audit"]["reason_codes"]
            right = (
                answer["decision"] == FAILURE
                and answer["audit"]["tags"] == ["wasm-error"]
                and len(reasons) == 1
                and _REASONS[self.letter] in reasons[0]
            )
            return "" if right else f"not the failure that was asked for: {_shown(answer)}"
        for name, value in self._expected(protocol).items():
            found = answer["audit"]["tags"] if name == "tags" else answer[name]
            if found != value:
                return f"{name} should be {str(value)[:200]}: {_shown(answer)}"
        return ""

    def _expected(self, protocol: int) -> dict[str, Any]:
        token, on_headers = self.token, self.letter == filter.HEADERS
        decision: Any = "allow"
        if self.letter == filter.BLOCK:
            decision = {"block": {"status": 418, "body": token, "headers": None}}
        elif self.letter == filter.CHALLENGE:
            decision = {"challenge": {"challenge_type": "captcha", "params": {"key": token}}}
        return {
            "decision": decision,
            "request_headers": [{"set": {"name": "X-Token", "value": token}}] if on_headers else [],
            "response_headers": [{"remove": {"name": "X-Token"}}] if on_headers else [],
            "request_body_mutation": self._mutation(token) if self.letter == filter.REQUEST_BODY else None,
            "response_body_mutation": self._response_mutation(protocol),
            "tags": self._tags(),
        }

    def _tags(self) -> list[str]:
        if not self.letter:
            return ["nothing asked"] if self.kind in _LETTERS else []
        return [*([self.token] if self.letter == filter.ALLOW else []), self.total]

    def _response_mutation(self, protocol: int) -> dict[str, Any] | None:
        """Over v2 every response body is replaced, if by itself: see the agent-protocol's section 6."""
        if self.letter == filter.RESPONSE_BODY:
            return self._mutation(_base64(self.token.encode()))
        if self.kind is not EventKind.RESPONSE_BODY_CHUNK or protocol == 1:
            return None
        if self.letter == filter.BLOCK:
            return self._mutation(_base64(self.token.encode()))
        return self._mutation(self.payload["data"])

    def _mutation(self, data: str) -> dict[str, Any]:
        return {"data": data, "chunk_index": self.payload["chunk_index"]}


def is_late(answer: dict[str, Any]) -> bool:
    """The agent's word for an event that waited too long, or for which there was no room."""
    audit = answer["audit"]
    waited = any("deadline of" in reason for reason in audit["reason_codes"])
    return answer["decision"] == FAILURE and ("wasm-overload" in audit["tags"] or waited)


class Requests:
    """Makes requests; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._made = 0

    def request(self) -> Iterator[Event]:
        """The events of one request, in order, with one correlation id."""
        identity = self._identity()
        chance = self._random.random
        yield self.request_headers(identity)
        if chance() < 0.5:
            yield from self._body(EventKind.REQUEST_BODY_CHUNK, identity)
        if chance() < 0.7:
            yield self._response_headers(identity)
        if chance() < 0.5:
            yield from self._body(EventKind.RESPONSE_BODY_CHUNK, identity)
        if chance() < 0.3:
            payload = {"correlation_id": identity, "status": 200, "duration_ms": 3, "upstream_attempts": 1}
            yield Event(EventKind.REQUEST_COMPLETE, payload)

    def request_headers(self, identity: str = "", letter: str = "") -> Event:
        letter = letter or self._letter(EventKind.REQUEST_HEADERS)
        asked, token, total = self._asked(letter, self._random.choice((0, 20, 2000)))
        headers = {f"x-header-{number}": ["value"] for number in range(self._random.randrange(12))}
        payload = request_headers(identity or self._identity(), "POST", f"/path/{asked}", headers)
        return Event(EventKind.REQUEST_HEADERS, payload, letter, token, total)

    def _response_headers(self, identity: str) -> Event:
        letter = self._letter(EventKind.RESPONSE_HEADERS)
        asked, token, total = self._asked(letter, self._random.choice((0, 100)))
        headers = {"content-type": ["text/html"], "x-asked": [asked]}
        payload = {"correlation_id": identity, "status": 200, "headers": headers}
        return Event(EventKind.RESPONSE_HEADERS, payload, letter, token, total)

    def _body(self, kind: EventKind, identity: str) -> Iterator[Event]:
        chunks = self._random.randrange(1, 4)
        for index in range(chunks):
            size = self._random.choices(BODY_SIZES, BODY_WEIGHTS)[0]
            payload = {"correlation_id": identity, "chunk_index": index, "is_last": index == chunks - 1}
            if size == 0 or self._random.random() < 0.1:
                # Not text: the module gets base64, in which it finds nothing.
                yield Event(kind, payload | {"data": _base64(b"\xff" * size)})
                continue
            letter = self._letter(kind)
            asked, token, total = self._asked(letter, size)
            yield Event(kind, payload | {"data": _base64(asked.encode())}, letter, token, total)

    def _letter(self, kind: EventKind) -> str:
        chance = self._random.random()
        for share, letters in (
            (TIMEOUTS, (filter.SPIN,)),
            (TRAPS, (filter.TRAP, filter.MEMORY_HOG)),
            (BAD_RESULTS, (filter.NOT_JSON, filter.BAD_POINTER)),
        ):
            if chance < share:
                return self._random.choice(letters)
            chance -= share
        return self._random.choice(_LETTERS[kind])

    def _asked(self, letter: str, filler: int) -> tuple[str, str, str]:
        """What asks for it, its token, and its sum as the module writes it."""
        token = f"{self._random.randrange(10**8):08}"
        asked = f"~{letter}{token}{_FILLER[:filler]}"
        return asked, token, f"{sum(asked.encode()):08x}"

    def _identity(self) -> str:
        self._made += 1
        return f"request-{self._made}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _shown(answer: dict[str, Any]) -> str:
    return str(answer)[:600]
