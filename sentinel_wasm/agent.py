"""One event in, one answer out, where one module is asked: what is said once in `answering` is quick here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from sentinel_wasm._fastpath import GuestCall, Normaliser
from sentinel_wasm._metrics import NONE, Counts
from sentinel_wasm._quick import QuickPath
from sentinel_wasm.answering import Answering, Reply, allow
from sentinel_wasm.decision import ALLOW, Block, Close, Decision, Redirect
from sentinel_wasm.errors import ModuleError
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.crew import Outcome
from sentinel_wasm.guest.limits import START_MS
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.pool import LATER, Answered, Configured
from sentinel_wasm.link import KEPT, KEPT_BYTES, Link
from sentinel_wasm.protocol import answers, events
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType
from sentinel_wasm.settings import Settings

# What the normaliser takes: v2's types of the header events, and 0 for a v1 request.
_V1 = 0
_HOOK_OF_TYPE = {0x10: abi.ON_REQUEST_HEADERS, 0x12: abi.ON_RESPONSE_HEADERS}


class Agent(Answering):
    """Answers events with what one module decides."""

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
        counts = counts or Counts()
        self._link = link = Link(settings, module, counts, start_ms)
        super().__init__(settings, (module,), (link,), counts, link.events)
        self.module = module
        self._pool = link.pool
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
            settings.echo_response_bodies,
        )
        self._configure_by = self.configure_module
        self.set_debug(False)

    def close(self) -> None:
        """End instances and threads; the module stays."""
        super().close()
        self._kept.clear()

    def configure_module(self, event: events.Configure, deadline_ns: int, answered: Answered) -> Configured:
        """Give all of the block to the module."""
        return self._pool.configure(event.config, deadline_ns, answered)

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
            return self._result_answer(hook, correlation_id, version, outcome)
        except Exception as defect:
            return self._answer_defect(defect, hook, version, correlation_id)

    def chunk_answer(self, frame_type: int, payload: bytes, outcome: bytes | ModuleError) -> bytes:
        """The same, of a body chunk over v2."""
        response = frame_type == FrameType.RESPONSE_BODY_CHUNK
        hook = abi.ON_RESPONSE_BODY if response else abi.ON_REQUEST_BODY
        chunk = events.parse(events.EVENT_TYPES[frame_type], events.loads(payload))
        assert isinstance(chunk, events.BodyChunk)
        try:
            return self._body_answer(hook, chunk, 2, 0, True, outcome)
        except Exception as defect:
            return self._answer_defect(defect, hook, 2, chunk.correlation_id)

    def over(self, hook: int, blocks: bool, correlation_id: str, event: bytes) -> None:
        """An answer without a failure that may be the last for its request."""
        with self._defects_said(correlation_id):
            self._link.look_for_end(hook, correlation_id, refuses=blocks, event=event)

    @contextlib.contextmanager
    def _defects_said(self, correlation_id: str) -> Iterator[None]:
        try:
            yield
        except Exception as defect:
            self._broke(defect, NONE, correlation_id)

    # Events

    def _answer_v1(self, frame: bytes, deadline_ns: int, reply: Reply) -> bytes | None:
        if (quick := self._normalise(_V1, frame)) is None:
            return super()._answer_v1(frame, deadline_ns, reply)
        frame_type, version, correlation_id, data = quick
        return self._ask(_HOOK_OF_TYPE[frame_type], data, correlation_id, version, deadline_ns, reply)

    def _answer_v2(
        self, frame_type: int, frame: bytes, deadline_ns: int, reply: Reply
    ) -> tuple[str, bytes | None]:
        if (quick := self._normalise(frame_type, frame)) is None:
            return super()._answer_v2(frame_type, frame, deadline_ns, reply)
        _, version, correlation_id, data = quick
        hook = _HOOK_OF_TYPE[frame_type]
        return correlation_id, self._ask(hook, data, correlation_id, version, deadline_ns, reply)

    def _answer_chunk(
        self, kind: EventKind, chunk: events.BodyChunk, deadline_ns: int, reply: Reply
    ) -> bytes | None:
        return self._ask_body(kind, chunk, 2, deadline_ns, reply, mends=False)

    def _answer(
        self, kind: EventKind, payload: Any, version: int, deadline_ns: int, reply: Reply
    ) -> bytes | None:
        event = events.parse(kind, payload)
        if isinstance(event, events.RequestHeaders):
            data = self._link.input(event)
            return self._ask(abi.ON_REQUEST_HEADERS, data, event.correlation_id, version, deadline_ns, reply)
        if isinstance(event, events.ResponseHeaders):
            data = self._link.input(event)
            return self._ask(abi.ON_RESPONSE_HEADERS, data, event.correlation_id, version, deadline_ns, reply)
        if isinstance(event, events.BodyChunk):
            return self._ask_body(kind, event, version, deadline_ns, reply, mends=version == 2)
        if isinstance(event, events.RequestComplete):
            return self._complete(event, version, deadline_ns, reply)
        if isinstance(event, events.Configure):
            return self._configure(event, version, deadline_ns, reply)
        hook = abi.ON_WEBSOCKET_FRAME if kind is EventKind.WEBSOCKET_FRAME else abi.ON_GUARDRAIL
        if not self.module.hooks[hook]:
            return self._decided(ALLOW, hook, version, event.correlation_id, allow(hook, version))
        self._link.look_at_size(event)
        data, opens = self._link.input(event), self._link.opens(hook, event)
        return self._ask(hook, data, event.correlation_id, version, deadline_ns, reply, opens=opens)

    # Questions to the module, and what is made of their outcomes

    def _ask(
        self,
        hook: int,
        data: bytes,
        correlation_id: str,
        version: int,
        deadline_ns: int,
        reply: Reply,
        *,
        opens: bool = True,
    ) -> bytes | None:
        """As `_run`, for all but bodies; nothing is made that only a worker would need."""
        if not self.module.hooks[hook]:
            return self._decided(ALLOW, hook, version, correlation_id, allow(hook, version))
        logged_ns = self._logged_ns(correlation_id, deadline_ns)
        try:
            outcome = self._pool.call(hook, data, correlation_id, deadline_ns)
        except ModuleError as error:
            return self._result_answer(hook, correlation_id, version, error, data, logged_ns)
        if outcome is LATER:
            finish = partial(
                self._result_answer, hook, correlation_id, version, event=data, logged_ns=logged_ns
            )
            return self._queue(hook, data, correlation_id, version, deadline_ns, finish, reply, opens=opens)
        return self._result_answer(hook, correlation_id, version, outcome, data, logged_ns)

    def _result_answer(
        self,
        hook: int,
        correlation_id: str,
        version: int,
        outcome: Outcome,
        event: bytes = b"",
        logged_ns: int = 0,
    ) -> bytes:
        """Results repeat, so their answers are kept. `event` is what the module read."""
        if outcome is None:
            decision, answer = ALLOW, allow(hook, version)
        else:
            try:
                if isinstance(outcome, ModuleError):
                    raise outcome
                decision, answer = self.quick.known(outcome, hook, version) or self._keep(
                    outcome, hook, version
                )
            except ModuleError as error:
                decision = self._link.failed(error, hook, correlation_id)
                answer = answers.encode(decision, version, is_frame=hook == abi.ON_WEBSOCKET_FRAME)
        if self._pool.tracks_requests and (hook == self._link.ends.last_hook or decision is not ALLOW):
            refuses = isinstance(decision.verdict, Block | Redirect | Close)
            self._link.look_for_end(hook, correlation_id, refuses=refuses, event=event)
        if logged_ns:
            self._events.decided(decision, hook, correlation_id, logged_ns)
        return self._decided(decision, hook, version, correlation_id, answer)

    def _keep(self, result: bytes, hook: int, version: int) -> tuple[Decision, bytes]:
        self.counts.cache_misses += 1
        decision = self._link.parse(result, hook)
        answer = answers.encode(decision, version, is_frame=hook == abi.ON_WEBSOCKET_FRAME)
        if len(result) <= KEPT_BYTES and len(answer) <= KEPT_BYTES:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._kept[result, hook, version] = decision, answer
        return decision, answer

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
        self._link.look_at_size(chunk)
        data = self._link.input(chunk)
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
            decision = self._link.decision(hook, chunk.correlation_id, outcome)
            if logged_ns:
                self._events.decided(decision, hook, chunk.correlation_id, logged_ns)
            if self._pool.tracks_requests:
                self._link.answered(hook, chunk, decision)
        if hook == abi.ON_RESPONSE_BODY and mends:
            decision = answers.for_response_body(
                decision, chunk.data, echo=self.settings.echo_response_bodies
            )
        return self._say(decision, hook, version, chunk.correlation_id, chunk_index=chunk.chunk_index)

    def _complete(
        self, event: events.RequestComplete, version: int, deadline_ns: int, reply: Reply
    ) -> bytes | None:
        hook = abi.ON_REQUEST_COMPLETE
        finish = partial(self._complete_answer, event.correlation_id, version)
        if not self.module.hooks[hook]:
            return finish(None)
        data = self._link.input(event)
        return self._run(hook, data, event.correlation_id, version, deadline_ns, finish, reply)

    def _complete_answer(self, correlation_id: str, version: int, outcome: Outcome) -> bytes:
        """The request is over: what the module says of it is not listened to, unless it fails."""
        decision = ALLOW
        if isinstance(outcome, ModuleError):
            decision = self._link.failed(outcome, abi.ON_REQUEST_COMPLETE, correlation_id)
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
