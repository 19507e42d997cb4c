"""A module that is asked beside the live ones: what it would have decided is compared, and not given."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from sentinel_wasm.decision import ALLOW, Decision
from sentinel_wasm.errors import EventError, ModuleError, Overload, TooLate
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.crew import Outcome
from sentinel_wasm.guest.limits import MIB
from sentinel_wasm.link import Link
from sentinel_wasm.protocol.events import Event

RESULTS = ("same", "different", "failed", "dropped")
"""What becomes of an event, as it is counted. `dropped`: it was not asked, because too much was waiting."""

_QUEUED_BYTES = 16 * MIB  # what the events that wait for it may have
_COMPARED = (  # beside the verdict
    "request_headers",
    "response_headers",
    "routing_metadata",
    "request_body",
    "response_body",
    "needs_more",
    "findings",
)


class Shadow:
    """Asked when the answer has been written, on threads of its own; what it does costs nobody an answer."""

    def __init__(self, link: Link, results: dict[str, int] | None = None) -> None:
        """`link` runs on worker threads. `results` are those of the agent before this."""
        self.link = link
        self.results = results or dict.fromkeys(RESULTS, 0)
        self._queued_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def detach(self) -> None:
        """What it would be asked yet, it is not."""
        self._loop = None

    def ask_later(self, hook: int, event: Event, live: Decision) -> None:
        """In the loop's next turn, when the live answer to the event has been written."""
        if self._loop is not None and self.link.module.hooks[hook]:
            self._loop.call_soon(self._ask, hook, event, live)

    def _ask(self, hook: int, event: Event, live: Decision) -> None:
        if self._loop is None:
            return
        pool, limit_ns = self.link.pool, self.link.settings.timeout_ms * 1_000_000
        if pool.pending >= self.link.settings.queue_limit or self._queued_bytes > _QUEUED_BYTES:
            self.results["dropped"] += 1
            return
        try:
            data = self.link.input(event)
        except EventError:
            return  # its headers are none, and no live module has read them
        self._queued_bytes += len(data)
        answered = partial(self._answered, hook, event, live, len(data))
        deadline_ns = time.monotonic_ns() + limit_ns
        try:
            opens = self.link.opens(hook, event)
            pool.submit(hook, data, event.correlation_id, deadline_ns, answered, opens=opens)
        except ModuleError as error:
            answered(error)

    def _answered(self, hook: int, event: Event, live: Decision, data_bytes: int, outcome: Outcome) -> None:
        self._queued_bytes -= data_bytes
        self._compare(hook, event.correlation_id, live, outcome)
        self.link.answered(hook, event, live)

    def _compare(self, hook: int, correlation_id: str, live: Decision, outcome: Outcome) -> None:
        try:
            if isinstance(outcome, ModuleError):
                raise outcome
            decision = ALLOW if outcome is None else self.link.parse(outcome, hook)
        except (Overload, TooLate):
            self.results["dropped"] += 1
        except ModuleError as error:
            self.results["failed"] += 1
            self.link.events.shadow_failed(error.kind, str(error), hook, correlation_id)
        else:
            # What it says of a request that is over is not listened to.
            differs = [] if hook == abi.ON_REQUEST_COMPLETE else differences(live, decision)
            self.results["different" if differs else "same"] += 1
            if differs:
                self.link.events.shadow_differs(hook, correlation_id, differs, live, decision)


def differences(live: Decision, decision: Decision) -> list[str]:
    """What a proxy or its client would notice."""
    found = ["decision"] if live.verdict != decision.verdict else []
    return found + [field for field in _COMPARED if getattr(live, field) != getattr(decision, field)]
