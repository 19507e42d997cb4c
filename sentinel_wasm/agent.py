"""One event in, one answer out: where the protocol meets the guest."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import orjson
import structlog

from sentinel_wasm._fastpath import GuestCall, Normaliser
from sentinel_wasm._metrics import NONE, Counts
from sentinel_wasm._quick import QuickPath
from sentinel_wasm._recent import Recent
from sentinel_wasm.decision import ALLOW, FAILED, OVERLOADED, Audit, Block, Decision, Redirect
from sentinel_wasm.decision import failure as failure_decision
from sentinel_wasm.errors import EventError, FrameError, ModuleError, Overload
from sentinel_wasm.eventlog import EventLog
from sentinel_wasm.guest import abi, inputs
from sentinel_wasm.guest.crew import Outcome
from sentinel_wasm.guest.failures import Health
from sentinel_wasm.guest.instance import ConfigRefused
from sentinel_wasm.guest.limits import START_MS, Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.pool import LATER, Answered, Configured, Pool
from sentinel_wasm.protocol import answers, events
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.settings import Settings

_log = structlog.stdlib.get_logger("agent")

_ANSWERS_KEPT = 1024
_KEPT_BYTES = 8192  # of a result, and of its answer
_LARGE_CHUNK_BYTES = 65_536
_CONFIGURE_NS = 1_000_000_000  # no event waits for it

# What the normaliser takes: v2's types of the header events, and 0 for a v1 request.
_V1 = 0
_HOOK_OF_TYPE = {0x10: abi.ON_REQUEST_HEADERS, 0x12: abi.ON_RESPONSE_HEADERS}

Configure = Callable[[events.Configure, int, Answered], Configured]
"""Applies a proxy's `config` block until a deadline, of time.monotonic_ns."""

Reply = Callable[[str, bytes], None]
"""Takes an event's correlation id and its answer, which does not have the id in it yet."""


class Agent:
    """Answers events with what a module decides.

    `answer_v1` and `answer_v2` give one AgentResponse (JSON, without its frame), or None where `reply` will
    be called with it later, once, on the event loop. `quick` gives the frame of most answers, in a fraction
    of the time; what it leaves alone is for these two.
    """

    def __init__(
        self,
        settings: Settings,
        module: Module,
        counts: Counts | None = None,
        start_ms: int = START_MS,
    ) -> None:
        """Starts the module's instances, each within `start_ms`. `counts` is what an agent before this one
        counted in.

        Raises ModuleLoadError, from the ModuleError where an instance fails to start.
        """
        self.settings = settings
        self._limit_ns = settings.timeout_ms * 1_000_000
        self.module = module
        self.counts = counts or Counts()
        if settings.admin is not None and self.counts.recent is None:
            self.counts.recent = Recent()
        self._last_hook = max(hook for hook in range(abi.ON_CONFIGURE) if module.hooks[hook])
        self._pool = Pool(
            module,
            settings.pool_size,
            Limits(event_ms=settings.timeout_ms, start_ms=start_ms),
            dispatch=settings.dispatch,
            isolation=settings.isolation,
            queue_limit=settings.queue_limit,
            request_instances=settings.request_instances,
            config=orjson.loads(settings.module_config) if settings.module_config else None,
            counts=self.counts,
        )
        self._inputs = inputs.InputWriter(settings.header_names, settings.header_values)
        normaliser = Normaliser(settings.header_names, settings.header_values == "list")
        self._normalise = normaliser.event
        # Equal results of one hook have equal answers: (result, hook, version) → (decision, answer).
        self._kept: dict[tuple[bytes, int, int], tuple[Decision, bytes]] = {}
        self.quick = QuickPath(
            normaliser,
            self._pool.inline,
            self,
            self._limit_ns,
            module.hooks,
            (answers.allow(1), answers.allow(2)),
            self._kept,
            self.counts,
        )
        self.configured: events.Configure | None = None
        """The last configuration that a proxy sent and the module took."""
        self.configured_changed: Callable[[events.Configure], None] = lambda configured: None
        self._configure_by: Configure = self.configure_module
        self._unknown_seen: set[str] = set()
        self._events = EventLog(module.digest, fail_open=settings.fail_open)
        self.set_debug(False)

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        health_changed: Callable[[], None],
        configure: Configure | None = None,
    ) -> None:
        """Before the first event. `configure` takes a proxy's `config` block, else all is for the module."""
        self._pool.attach(loop)
        self._pool.failures.on_change = health_changed
        self._configure_by = configure or self.configure_module

    def detach(self) -> None:
        """No event comes any more, and none is pending. Then `close` may be called on any thread."""
        self._pool.detach()

    def close(self) -> None:
        """End instances and threads; the module stays."""
        self._pool.close()
        self._kept.clear()

    def configure_module(self, event: events.Configure, deadline_ns: int, answered: Answered) -> Configured:
        """Give all of the block to the module."""
        return self._pool.configure(event.config, deadline_ns, answered)

    def set_debug(self, on: bool) -> None:
        """Whether every decision is logged, whatever the settings say."""
        self.quick.log_share(1 if on or self.settings.verbose else self.settings.log_decisions)

    @property
    def pending(self) -> int:
        """Events whose answers will come by `reply`."""
        return self._pool.pending

    @property
    def guest_memory_bytes(self) -> int:
        return self._pool.memory_bytes

    @property
    def health(self) -> Health:
        return self._pool.failures.health

    @property
    def config(self) -> str | None:
        """What instances are configured with, as JSON; None: with nothing, or nobody asks for it."""
        return self._pool.config

    @property
    def trouble(self) -> str | None:
        """Why events are not answered as the module would; None: they are."""
        return self._pool.failures.trouble

    # What `quick` leaves to Python

    def guest_failed(self, guest: GuestCall, correlation_id: str, error: ModuleError) -> None:
        """A call has failed; the event is answered by `outcome_answer`."""
        with self._defects_said(correlation_id):
            self._pool.guest_failed(guest, correlation_id, error)

    def look_after(self, guest: GuestCall, correlation_id: str) -> None:
        """A call has returned and left something behind."""
        with self._defects_said(correlation_id):
            self._pool.look_after(guest, correlation_id)

    def outcome_answer(
        self, hook: int, correlation_id: str, version: int, outcome: bytes | ModuleError
    ) -> bytes:
        """The answer to a failure, or to a result that takes Python."""
        try:
            return self._header_answer(hook, correlation_id, version, outcome)
        except Exception as defect:
            return self._answer_defect(defect, hook, version, correlation_id)

    def over(self, hook: int, blocks: bool, correlation_id: str) -> None:
        """An answer without a failure that may be the last for its request."""
        with self._defects_said(correlation_id):
            self._look_for_end(hook, correlation_id, blocks=blocks)

    @contextlib.contextmanager
    def _defects_said(self, correlation_id: str) -> Iterator[None]:
        try:
            yield
        except Exception as defect:
            self._broke(defect, NONE, correlation_id)

    # Events

    def answer_v1(self, frame: bytes, arrived_ns: int, reply: Reply) -> bytes | None:
        """The answer to one v1 request (agent-protocol.md, section 2); `arrived_ns` of time.monotonic_ns."""
        deadline_ns = arrived_ns + self._limit_ns
        try:
            if (quick := self._normalise(_V1, frame)) is None:
                return self._answer_v1_slowly(frame, deadline_ns, reply)
            frame_type, version, correlation_id, data = quick
            return self._ask(_HOOK_OF_TYPE[frame_type], data, correlation_id, version, deadline_ns, reply)
        except Exception as error:
            return self._answer_defect(error, NONE, 1, "")

    def _answer_v1_slowly(self, frame: bytes, deadline_ns: int, reply: Reply) -> bytes | None:
        version = 1
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
            return self._answer_broken(error, version, "")

    def answer_v2(self, frame_type: int, frame: bytes, arrived_ns: int, reply: Reply) -> bytes | None:
        """The answer to one v2 event (section 3). Raises FrameError where it has no id to answer to."""
        deadline_ns = arrived_ns + self._limit_ns
        try:
            if (quick := self._normalise(frame_type, frame)) is not None:
                _, version, correlation_id, data = quick
                answer = self._ask(
                    _HOOK_OF_TYPE[frame_type], data, correlation_id, version, deadline_ns, reply
                )
            else:
                correlation_id, answer = self._answer_v2_slowly(frame_type, frame, deadline_ns, reply)
            return None if answer is None else answers.with_correlation_id(answer, correlation_id)
        except FrameError:
            raise
        except Exception as error:
            correlation_id = events.salvaged_id(frame)
            answer = self._answer_defect(error, NONE, 2, correlation_id)
            return answers.with_correlation_id(answer, correlation_id)

    def answer_chunk(
        self, kind: EventKind, chunk: events.BodyChunk, arrived_ns: int, reply: Reply
    ) -> bytes | None:
        """The answer to a body chunk over gRPC, with no id in it. As a proxy gets no mutations there, none
        are made for its sake.
        """
        try:
            return self._ask_body(kind, chunk, 2, arrived_ns + self._limit_ns, reply, mends=False)
        except Exception as error:
            return self._answer_defect(error, NONE, 2, chunk.correlation_id)

    def _answer_v2_slowly(
        self, frame_type: int, frame: bytes, deadline_ns: int, reply: Reply
    ) -> tuple[str, bytes | None]:
        """(correlation id, answer)"""
        correlation_id = None
        try:
            payload = events.loads(frame)
            correlation_id = events.correlation_id(payload)
            if correlation_id is None:
                raise EventError("the event has no correlation_id")
            kind = events.EVENT_TYPES.get(frame_type)
            if kind is None:
                return correlation_id, self._answer_unknown(f"0x{frame_type:02x}", 2, correlation_id)
            return correlation_id, self._answer(kind, payload, 2, deadline_ns, reply)
        except EventError as error:
            correlation_id = correlation_id or events.salvaged_id(frame)
            return correlation_id, self._answer_broken(error, 2, correlation_id)

    def _answer(
        self, kind: EventKind, payload: Any, version: int, deadline_ns: int, reply: Reply
    ) -> bytes | None:
        event = events.parse(kind, payload)
        if isinstance(event, events.RequestHeaders):
            data = self._inputs.request_headers(
                event.method, event.uri, event.client_ip, event.correlation_id, event.headers
            )
            return self._ask(abi.ON_REQUEST_HEADERS, data, event.correlation_id, version, deadline_ns, reply)
        if isinstance(event, events.ResponseHeaders):
            data = self._inputs.response_headers(event.status, event.correlation_id, event.headers)
            return self._ask(abi.ON_RESPONSE_HEADERS, data, event.correlation_id, version, deadline_ns, reply)
        if isinstance(event, events.BodyChunk):
            return self._ask_body(kind, event, version, deadline_ns, reply, mends=version == 2)
        if isinstance(event, events.RequestComplete):
            return self._complete(event, version, deadline_ns, reply)
        if isinstance(event, events.Configure):
            return self._configure(event, version, deadline_ns, reply)
        websocket = "allow" if kind is EventKind.WEBSOCKET_FRAME else None
        return self._say(ALLOW, NONE, version, event.correlation_id, websocket=websocket)

    # Questions to the module, and what is made of their outcomes

    def _ask(
        self, hook: int, data: bytes, correlation_id: str, version: int, deadline_ns: int, reply: Reply
    ) -> bytes | None:
        """A header event: as `_run`, but nothing is made that only a worker would need."""
        if not self.module.hooks[hook]:
            return self._decided(ALLOW, hook, version, correlation_id, answers.allow(version))
        logged_ns = self._logged_ns(correlation_id, deadline_ns)
        try:
            outcome = self._pool.call(hook, data, correlation_id, deadline_ns)
        except ModuleError as error:
            return self._header_answer(hook, correlation_id, version, error, logged_ns)
        if outcome is LATER:
            finish = partial(self._header_answer, hook, correlation_id, version, logged_ns=logged_ns)
            return self._queue(hook, data, correlation_id, version, deadline_ns, finish, reply)
        return self._header_answer(hook, correlation_id, version, outcome, logged_ns)

    def _logged_ns(self, correlation_id: str, deadline_ns: int) -> int:
        """When an event was seen, where its decision is to be logged; otherwise 0."""
        if not self.quick.is_logged(correlation_id):
            return 0
        return self.counts.seen(deadline_ns - self._limit_ns)

    def _header_answer(
        self, hook: int, correlation_id: str, version: int, outcome: Outcome, logged_ns: int = 0
    ) -> bytes:
        """Results repeat, so their answers are kept."""
        if outcome is None:
            decision, answer = ALLOW, answers.allow(version)
        else:
            try:
                if isinstance(outcome, ModuleError):
                    raise outcome
                decision, answer = self.quick.known(outcome, hook, version) or self._keep(
                    outcome, hook, version
                )
            except ModuleError as error:
                decision = self._failed(error, hook, correlation_id)
                answer = answers.encode(decision, version)
        if self._pool.tracks_requests and (hook >= self._last_hook or decision is not ALLOW):
            self._look_for_end(hook, correlation_id, blocks=isinstance(decision.verdict, Block | Redirect))
        if logged_ns:
            self._events.decided(decision, hook, correlation_id, logged_ns)
        return self._decided(decision, hook, version, correlation_id, answer)

    def _keep(self, result: bytes, hook: int, version: int) -> tuple[Decision, bytes]:
        self.counts.cache_misses += 1
        decision = self._parse(result, hook)
        answer = answers.encode(decision, version)
        if len(result) <= _KEPT_BYTES and len(answer) <= _KEPT_BYTES:
            if len(self._kept) >= _ANSWERS_KEPT:
                self._kept.clear()
            self._kept[result, hook, version] = decision, answer
        return decision, answer

    def _parse(self, result: bytes, hook: int) -> Decision:
        """Raises ResultError."""
        decision = abi.parse_result(result, hook)
        return answers.unchallenged(decision) if self.settings.challenge_fallback == "block" else decision

    def _ask_body(
        self,
        kind: EventKind,
        chunk: events.BodyChunk,
        version: int,
        deadline_ns: int,
        reply: Reply,
        *,
        mends: bool,
    ) -> bytes | None:
        """`mends`: the proxy needs a mutation where the module has none (answers.for_response_body)."""
        response = kind is EventKind.RESPONSE_BODY_CHUNK
        hook = abi.ON_RESPONSE_BODY if response else abi.ON_REQUEST_BODY
        if not self.module.hooks[hook]:
            return self._body_answer(hook, chunk, version, 0, mends, None)
        logged_ns = self._logged_ns(chunk.correlation_id, deadline_ns)
        finish = partial(self._body_answer, hook, chunk, version, logged_ns, mends)
        if len(chunk.data) > _LARGE_CHUNK_BYTES:
            self._pool.leave_loop("a body chunk of over 64 KiB")
        data = inputs.body_chunk(
            chunk.correlation_id,
            chunk.data,
            chunk.text,
            is_last=chunk.is_last,
            total_size=chunk.total_size,
            chunk_index=chunk.chunk_index,
            bytes_seen=chunk.bytes_seen,
        )
        opens = chunk.chunk_index == 0
        return self._run(hook, data, chunk.correlation_id, version, deadline_ns, finish, reply, opens=opens)

    def _body_answer(
        self,
        hook: int,
        chunk: events.BodyChunk,
        version: int,
        logged_ns: int,
        mends: bool,
        outcome: Outcome,
    ) -> bytes:
        decision = ALLOW
        if self.module.hooks[hook]:
            decision = self._decision(hook, chunk.correlation_id, outcome)
            if logged_ns:
                self._events.decided(decision, hook, chunk.correlation_id, logged_ns)
            if self._pool.tracks_requests:
                blocks = isinstance(decision.verdict, Block | Redirect)
                self._look_for_end(hook, chunk.correlation_id, blocks=blocks, is_last=chunk.is_last)
        if hook == abi.ON_RESPONSE_BODY and mends:
            decision = answers.for_response_body(
                decision, chunk.data, echo=self.settings.echo_response_bodies
            )
        return self._say(decision, hook, version, chunk.correlation_id, chunk_index=chunk.chunk_index)

    def _decision(self, hook: int, correlation_id: str, outcome: Outcome) -> Decision:
        """What the module says, or what the fail-open rule makes of its failure."""
        try:
            if isinstance(outcome, ModuleError):
                raise outcome
            return ALLOW if outcome is None else self._parse(outcome, hook)
        except ModuleError as error:
            return self._failed(error, hook, correlation_id)

    def _complete(
        self, event: events.RequestComplete, version: int, deadline_ns: int, reply: Reply
    ) -> bytes | None:
        hook = abi.ON_REQUEST_COMPLETE
        finish = partial(self._complete_answer, event.correlation_id, version)
        if not self.module.hooks[hook]:
            return finish(None)
        data = inputs.request_complete(event.fields)
        return self._run(hook, data, event.correlation_id, version, deadline_ns, finish, reply)

    def _complete_answer(self, correlation_id: str, version: int, outcome: Outcome) -> bytes:
        """The request is over: what the module says of it is not listened to, unless it fails."""
        decision = ALLOW
        if isinstance(outcome, ModuleError):
            decision = self._failed(outcome, abi.ON_REQUEST_COMPLETE, correlation_id)
        self._pool.forget(correlation_id)
        return self._say(decision, abi.ON_REQUEST_COMPLETE, version, correlation_id)

    def _run(
        self,
        hook: int,
        data: bytes,
        correlation_id: str,
        version: int,
        deadline_ns: int,
        finish: Callable[[Outcome], bytes],
        reply: Reply,
        *,
        opens: bool = True,
    ) -> bytes | None:
        """Ask the module, here or on a worker; `finish` makes the answer. `_ask` does so for headers."""
        try:
            outcome = self._pool.call(hook, data, correlation_id, deadline_ns)
        except ModuleError as error:
            return finish(error)
        if outcome is LATER:
            return self._queue(hook, data, correlation_id, version, deadline_ns, finish, reply, opens=opens)
        return finish(outcome)

    def _queue(
        self,
        hook: int,
        data: bytes,
        correlation_id: str,
        version: int,
        deadline_ns: int,
        finish: Callable[[Outcome], bytes],
        reply: Reply,
        *,
        opens: bool = True,
    ) -> bytes | None:
        """Have a worker ask the module; the answer at once where that is hopeless."""
        seen_ns = self.counts.seen(deadline_ns - self._limit_ns)

        def answered(outcome: Outcome) -> None:
            self._has(seen_ns)
            try:
                answer = finish(outcome)
            except Exception as error:
                answer = self._answer_defect(error, hook, version, correlation_id)
            self.counts.took(seen_ns)
            reply(correlation_id, answer)

        opens = opens and hook == self.module.first_hook
        try:
            self._pool.submit(hook, data, correlation_id, deadline_ns, answered, opens=opens)
        except ModuleError as error:
            return finish(error)
        return None

    def _look_for_end(self, hook: int, correlation_id: str, *, blocks: bool, is_last: bool = True) -> None:
        """Tell the pool when no event that the module has a hook for can follow."""
        if hook <= abi.ON_REQUEST_BODY and blocks:
            is_over = not self.module.hooks[abi.ON_REQUEST_COMPLETE]
        else:
            is_over = hook >= self._last_hook and is_last
        if is_over:
            self._pool.forget(correlation_id)

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

    def _failed(self, error: ModuleError, hook: int, correlation_id: str) -> Decision:
        reason = str(error)
        self.counts.failed(error.kind, reason, correlation_id)
        self._events.failed(error.kind, reason, hook, correlation_id)
        tag = OVERLOADED if isinstance(error, Overload) else FAILED
        return failure_decision(reason, fail_open=self.settings.fail_open, tag=tag)

    def _broke(self, error: Exception, hook: int, correlation_id: str) -> Decision:
        """A defect of this agent: it costs the event, not the connection, and says where it is."""
        reason = f"internal error: {type(error).__name__}"
        self.counts.failed("internal", reason, correlation_id)
        self._events.failed("internal", reason, hook, correlation_id or None, error)
        return failure_decision(reason, fail_open=self.settings.fail_open)

    def _answer_defect(self, error: Exception, hook: int, version: int, correlation_id: str) -> bytes:
        return self._say(self._broke(error, hook, correlation_id), hook, version, correlation_id)

    def _answer_broken(self, error: EventError, version: int, correlation_id: str) -> bytes:
        reason = f"event not understood: {error}"
        self.counts.failed("event", reason, correlation_id)
        self._events.failed("event", str(error), NONE, correlation_id or None)
        decision = failure_decision(reason, fail_open=self.settings.fail_open)
        return self._say(decision, NONE, version, correlation_id)

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
        websocket: str | None = None,
    ) -> bytes:
        """A decision's answer, counted."""
        answer = answers.encode(decision, version, chunk_index=chunk_index, websocket=websocket)
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
