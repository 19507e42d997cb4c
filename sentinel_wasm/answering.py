"""Events in, answers out: the protocol's side of an agent, whatever modules it asks."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import structlog

from sentinel_wasm._metrics import NONE, Counts
from sentinel_wasm._quick import QuickPath
from sentinel_wasm._recent import Recent
from sentinel_wasm.decision import ALLOW, Audit, Block, Decision
from sentinel_wasm.decision import failure as failure_decision
from sentinel_wasm.errors import EventError, FrameError, ModuleError
from sentinel_wasm.eventlog import EventLog
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.failures import Failures, Health
from sentinel_wasm.guest.instance import ConfigRefused
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.pool import LATER, Answered, Configured
from sentinel_wasm.link import Link
from sentinel_wasm.protocol import answers, events
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.settings import Settings
from sentinel_wasm.shadow import Shadow

_log = structlog.stdlib.get_logger("agent")

_CONFIGURE_NS = 1_000_000_000  # no event waits for it
_WORSE: tuple[Health, ...] = ("healthy", "degraded", "unhealthy")

Configure = Callable[[events.Configure, int, Answered], Configured]
"""Applies a proxy's `config` block until a deadline, of time.monotonic_ns."""

Reply = Callable[[str, bytes], None]
"""Takes an event's correlation id and its answer, which does not have the id in it yet."""


class Answering(ABC):
    """Answers events with what modules decide.

    `answer_v1` and `answer_v2` give one AgentResponse (JSON, without its frame), or None where `reply` will
    be called with it later, once, on the event loop. `quick` gives the frame of most answers, in a fraction
    of the time; what it leaves alone is for these two.
    """

    quick: QuickPath
    shadows: tuple[Shadow, ...] = ()
    _configure_by: Configure

    def __init__(
        self,
        settings: Settings,
        modules: Sequence[Module],
        links: Sequence[Link],
        counts: Counts,
        events_log: EventLog,
    ) -> None:
        """`links` are those of the modules that are asked, shadows too."""
        self.settings = settings
        self.modules = modules
        self.links = links
        self.counts = counts
        if settings.admin is not None and counts.recent is None:
            counts.recent = Recent()
        self.configured: events.Configure | None = None
        """The last configuration that a proxy sent and the modules took."""
        self.configured_changed: Callable[[events.Configure], None] = lambda configured: None
        self._limit_ns = settings.timeout_ms * 1_000_000
        self._events = events_log
        self._unknown_seen: set[str] = set()

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        health_changed: Callable[[], None],
        configure: Configure | None = None,
    ) -> None:
        """Before the first event. `configure` takes a proxy's `config` block; without it the only module
        gets all of it.
        """
        for link in self.links:
            link.pool.attach(loop)
            if not link.is_shadow:
                link.pool.failures.on_change = health_changed
        for shadow in self.shadows:
            shadow.attach(loop)
        if configure is not None:
            self._configure_by = configure

    def detach(self) -> None:
        """No event comes any more, and none is pending. Then `close` may be called on any thread."""
        for shadow in self.shadows:
            shadow.detach()
        for link in self.links:
            link.pool.detach()

    def close(self) -> None:
        """End instances and threads; the modules stay."""
        for link in self.links:
            link.pool.close()

    def set_debug(self, on: bool) -> None:
        """Whether every decision is logged, whatever the settings say."""
        self.quick.log_share(1 if on or self.settings.verbose else self.settings.log_decisions)

    @property
    def pending(self) -> int:
        """Events that workers have: their answers will come by `reply`, or shadows are asked."""
        return sum(link.pool.pending for link in self.links)

    @property
    def health(self) -> Health:
        """The worst of its modules'."""
        return max((failures.health for _, failures in self._failures()), key=_WORSE.index)

    @property
    def trouble(self) -> str | None:
        """Why events are not answered as the modules would; None: they are."""
        for name, failures in self._failures():
            if failures.trouble is not None:
                return f"{name}: {failures.trouble}" if name else failures.trouble
        return None

    def _failures(self) -> Iterator[tuple[str, Failures]]:
        """Of the modules that answers depend on, by their names."""
        return ((link.name, link.pool.failures) for link in self.links if not link.is_shadow)

    # Events

    def answer_v1(self, frame: bytes, arrived_ns: int, reply: Reply) -> bytes | None:
        """The answer to one v1 request (agent-protocol.md, section 2); `arrived_ns` of time.monotonic_ns."""
        deadline_ns = arrived_ns + self._limit_ns
        try:
            return self._answer_v1(frame, deadline_ns, reply)
        except Exception as error:
            return self._answer_defect(error, NONE, 1, "")

    def _answer_v1(self, frame: bytes, deadline_ns: int, reply: Reply) -> bytes | None:
        version = 1
        kind = None
        try:
            request = events.loads(frame)
            if type(request) is not dict:
                raise EventError("the request is not an object")
            asked = request.get("version")
            if type(asked) is int and 0 <= asked < 2**32:
                version = asked
            name = request.get("event_type")
            if type(name) is not str:
                raise EventError("event_type is not a string")
            kind = events.EVENT_NAMES.get(name)
            if kind is None:
                return self._answer_unknown(name, version, "")
            return self._answer(kind, request.get("payload"), version, deadline_ns, reply)
        except EventError as error:
            return self._answer_broken(error, version, "", kind)

    def answer_v2(self, frame_type: int, frame: bytes, arrived_ns: int, reply: Reply) -> bytes | None:
        """The answer to one v2 event (section 3). Raises FrameError where it has no id to answer to."""
        deadline_ns = arrived_ns + self._limit_ns
        try:
            correlation_id, answer = self._answer_v2(frame_type, frame, deadline_ns, reply)
            return None if answer is None else answers.with_correlation_id(answer, correlation_id)
        except FrameError:
            raise
        except Exception as error:
            correlation_id = events.salvaged_id(frame)
            answer = self._answer_defect(error, NONE, 2, correlation_id)
            return answers.with_correlation_id(answer, correlation_id)

    def _answer_v2(
        self, frame_type: int, frame: bytes, deadline_ns: int, reply: Reply
    ) -> tuple[str, bytes | None]:
        """(correlation id, answer)"""
        correlation_id = None
        kind = events.EVENT_TYPES.get(frame_type)
        try:
            payload = events.loads(frame)
            correlation_id = events.correlation_id(payload)
            if correlation_id is None:
                raise EventError("the event has no correlation_id")
            if kind is None:
                return correlation_id, self._answer_unknown(f"0x{frame_type:02x}", 2, correlation_id)
            return correlation_id, self._answer(kind, payload, 2, deadline_ns, reply)
        except EventError as error:
            correlation_id = correlation_id or events.salvaged_id(frame)
            return correlation_id, self._answer_broken(error, 2, correlation_id, kind)

    def answer_chunk(
        self, kind: EventKind, chunk: events.BodyChunk, arrived_ns: int, reply: Reply
    ) -> bytes | None:
        """The answer to a body chunk over gRPC, with no id in it. As a proxy gets no mutations there, none
        are made for its sake.
        """
        try:
            return self._answer_chunk(kind, chunk, arrived_ns + self._limit_ns, reply)
        except Exception as error:
            return self._answer_defect(error, NONE, 2, chunk.correlation_id)

    def answer_unreadable(self, error: EventError, frame_type: int, correlation_id: str) -> bytes:
        """The answer to a v2 event that is no JSON to begin with."""
        answer = self._answer_broken(error, 2, correlation_id, events.EVENT_TYPES.get(frame_type))
        return answers.with_correlation_id(answer, correlation_id)

    @abstractmethod
    def _answer(
        self, kind: EventKind, payload: Any, version: int, deadline_ns: int, reply: Reply
    ) -> bytes | None:
        """The answer to an event that was read; its payload was not. Raises EventError."""

    @abstractmethod
    def _answer_chunk(
        self, kind: EventKind, chunk: events.BodyChunk, deadline_ns: int, reply: Reply
    ) -> bytes | None:
        """The same, of a body chunk that was parsed elsewhere."""

    # Configurations

    def _configure(
        self, event: events.Configure, version: int, deadline_ns: int, reply: Reply
    ) -> bytes | None:
        seen_ns = self.counts.seen(deadline_ns - self._limit_ns)

        def answered(error: ModuleError | None) -> None:
            self._has(seen_ns)
            decision = self._configured(event, error)
            answer = self._say(decision, abi.ON_CONFIGURE, version, event.correlation_id)
            self.counts.took(seen_ns)
            reply(event.correlation_id, answer)

        error = self._configure_by(event, deadline_ns, answered)
        if error is LATER:
            return None
        return self._say(self._configured(event, error), abi.ON_CONFIGURE, version, event.correlation_id)

    async def configure(self, event: events.Configure) -> ModuleError | None:
        """What an agent before this one was given; None where the module has it now, else the reason."""
        done: asyncio.Future[ModuleError | None] = asyncio.get_running_loop().create_future()
        deadline_ns = time.monotonic_ns() + _CONFIGURE_NS
        error = self._configure_by(event, deadline_ns, done.set_result)
        if error is LATER:
            error = await done
        if error is None:
            self.configured = event
        return error

    def _configured(self, event: events.Configure, error: ModuleError | None) -> Decision:
        if error is None:
            self.configured = event
            self.configured_changed(event)
            self._events.configured()
            return ALLOW
        why = f"the module refuses it: {error}" if isinstance(error, ConfigRefused) else str(error)
        self.counts.failed(error.kind, why, event.correlation_id)
        self._events.config_rejected(error.kind, why, event.correlation_id)
        return Decision(Block(500, "Configuration rejected"), audit=Audit(reason_codes=(why,)))

    # What answers are made of, and who is told

    def _logged_ns(self, correlation_id: str, deadline_ns: int) -> int:
        """When an event was seen, where its decision is to be logged; otherwise 0."""
        if not self.quick.is_logged(correlation_id):
            return 0
        return self.counts.seen(deadline_ns - self._limit_ns)

    def _broke(self, error: Exception, hook: int, correlation_id: str) -> Decision:
        """A defect of this agent: it costs the event, not the connection, and says where it is."""
        reason = f"internal error: {type(error).__name__}"
        self.counts.failed("internal", reason, correlation_id)
        self._events.failed("internal", reason, hook, correlation_id or None, error)
        return failure_decision(reason, fail_open=self.settings.fail_open, refused=abi.refusal(hook))

    def _answer_defect(self, error: Exception, hook: int, version: int, correlation_id: str) -> bytes:
        return self._say(self._broke(error, hook, correlation_id), hook, version, correlation_id)

    def _answer_broken(
        self, error: EventError, version: int, correlation_id: str, kind: EventKind | None
    ) -> bytes:
        # A frame's answer is read in another place than all others.
        hook = abi.ON_WEBSOCKET_FRAME if kind is EventKind.WEBSOCKET_FRAME else NONE
        reason = f"event not understood: {error}"
        self.counts.failed("event", reason, correlation_id)
        self._events.failed("event", str(error), hook, correlation_id or None)
        decision = failure_decision(reason, fail_open=self.settings.fail_open, refused=abi.refusal(hook))
        return self._say(decision, hook, version, correlation_id)

    def _answer_unknown(self, name: str, version: int, correlation_id: str) -> bytes:
        name = name[:60]
        if name not in self._unknown_seen and len(self._unknown_seen) < 100:
            self._unknown_seen.add(name)
            _log.warning("unknown event type, allowed; said once", event_type=name)
        return self._say(ALLOW, NONE, version, correlation_id)

    def _say(
        self,
        decision: Decision,
        hook: int,
        version: int,
        correlation_id: str,
        *,
        chunk_index: int = 0,
    ) -> bytes:
        """A decision's answer, counted."""
        answer = encoded(decision, hook, version, chunk_index=chunk_index)
        return self._decided(decision, hook, version, correlation_id, answer)

    def _decided(
        self, decision: Decision, hook: int, version: int, correlation_id: str, answer: bytes
    ) -> bytes:
        """The answer, counted, and kept for who looks at single events."""
        number = decision.verdict.number
        self.counts.decided(hook, number)
        if self.counts.recent is not None:
            self.counts.recent.add(hook, number, decision.status, version, correlation_id, answer)
        return answer

    def _has(self, seen_ns: int) -> None:
        """The event that is answered next was seen then."""
        if self.counts.recent is not None:
            self.counts.recent.seen_ns = seen_ns


def encoded(decision: Decision, hook: int, version: int, *, chunk_index: int = 0) -> bytes:
    """The answer to an event of this hook."""
    is_frame = hook == abi.ON_WEBSOCKET_FRAME
    return answers.encode(decision, version, chunk_index=chunk_index, is_frame=is_frame)


def allow(hook: int, version: int) -> bytes:
    """The answer that allows an event of this hook, and does nothing else."""
    return answers.allow(version, is_frame=hook == abi.ON_WEBSOCKET_FRAME)
