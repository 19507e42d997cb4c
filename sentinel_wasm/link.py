"""A module with its instances: what it says to an event, or what is made of its failure, as a decision."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import orjson

from sentinel_wasm._metrics import Counts
from sentinel_wasm.decision import ALLOW, FAILED, OVERLOADED, Block, Close, Decision, Redirect
from sentinel_wasm.decision import failure as failure_decision
from sentinel_wasm.errors import ModuleError, Overload
from sentinel_wasm.eventlog import EventLog
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.crew import Outcome
from sentinel_wasm.guest.ends import Ends
from sentinel_wasm.guest.inputs import InputWriter
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.pool import LATER, Later, Pool
from sentinel_wasm.protocol import answers
from sentinel_wasm.protocol.events import (
    BodyChunk,
    Event,
    EventKind,
    GuardrailInspect,
    RequestHeaders,
    ResponseHeaders,
    WebSocketFrame,
)
from sentinel_wasm.settings import HeaderNames, HeaderValues, Settings

HOOK_OF_KIND = {
    EventKind.REQUEST_HEADERS: abi.ON_REQUEST_HEADERS,
    EventKind.REQUEST_BODY_CHUNK: abi.ON_REQUEST_BODY,
    EventKind.RESPONSE_HEADERS: abi.ON_RESPONSE_HEADERS,
    EventKind.RESPONSE_BODY_CHUNK: abi.ON_RESPONSE_BODY,
    EventKind.REQUEST_COMPLETE: abi.ON_REQUEST_COMPLETE,
    EventKind.CONFIGURE: abi.ON_CONFIGURE,
    EventKind.WEBSOCKET_FRAME: abi.ON_WEBSOCKET_FRAME,
    EventKind.GUARDRAIL_INSPECT: abi.ON_GUARDRAIL,
}

Form = tuple[HeaderNames, HeaderValues]
"""How a module reads headers: modules of one form read an event as the same bytes."""

KEPT = 1024
KEPT_BYTES = 8192  # of a result that is kept
"""How many results' decisions, or answers, are kept, and how long those results may be."""

_LARGE_BYTES = 65_536  # of a body's chunk, a frame or a content


class Link:
    """One module of an agent. `name` is empty where it is the only one; `counts` has its calls and errors."""

    def __init__(
        self,
        settings: Settings,
        module: Module,
        counts: Counts,
        start_ms: int,
        name: str = "",
        *,
        is_shadow: bool = False,
    ) -> None:
        """Starts the module's instances, each within `start_ms`.

        Raises ModuleLoadError, from the ModuleError where an instance fails to start.
        """
        self.name = name
        self.is_shadow = is_shadow
        self.settings = settings
        self.module = module
        self.counts = counts
        self.ends = Ends(module.hooks)
        self._limit_ns = settings.timeout_ms * 1_000_000
        self.pool = Pool(
            module,
            settings.pool_size,
            Limits(event_ms=settings.timeout_ms, start_ms=start_ms),
            dispatch=settings.dispatch,
            isolation=settings.isolation,
            queue_limit=settings.queue_limit,
            request_instances=settings.request_instances,
            config=orjson.loads(settings.module_config) if settings.module_config else None,
            counts=counts,
        )
        self.input = InputWriter(settings.header_names, settings.header_values).event
        """An event of a hook as the module reads it. Raises EventError."""
        self.form: Form = settings.header_names, settings.header_values
        self._known: dict[tuple[bytes, int], Decision] = {}
        about = {"module": module.digest, **({"name": name} if name else {})}
        self.events = EventLog(fail_open=settings.fail_open, **about)

    def ask(
        self,
        hook: int,
        event: Event,
        data: bytes,
        deadline_ns: int,
        answered: Callable[[Outcome], None],
    ) -> Outcome | Literal[Later.LATER]:
        """What the module says, by the deadline and in its own time; with LATER, `answered` gets that, once.

        `data` is the event as it reads it.
        """
        self.look_at_size(event)
        correlation_id = event.correlation_id
        deadline_ns = min(deadline_ns, time.monotonic_ns() + self._limit_ns)
        try:
            outcome = self.pool.call(hook, data, correlation_id, deadline_ns)
            if outcome is LATER:
                opens = self.opens(hook, event)
                self.pool.submit(hook, data, correlation_id, deadline_ns, answered, opens=opens)
            return outcome
        except ModuleError as error:
            return error

    def look_at_size(self, event: Event) -> None:
        """A large one takes the module's time."""
        if isinstance(event, BodyChunk) and len(event.data) > _LARGE_BYTES:
            self.pool.leave_loop("a body chunk of over 64 KiB")
        elif isinstance(event, WebSocketFrame) and len(event.data) > _LARGE_BYTES:
            self.pool.leave_loop("a WebSocket frame of over 64 KiB")
        elif isinstance(event, GuardrailInspect) and len(event.content) > _LARGE_BYTES:
            self.pool.leave_loop("a content of over 64 KiB")

    def opens(self, hook: int, event: Event) -> bool:
        """Whether it is the first of its request that the module is asked about.

        A frame is never sure to be: there are two directions. A prompt is inspected before a response is.
        """
        if isinstance(event, WebSocketFrame):
            return False
        if isinstance(event, GuardrailInspect) and event.inspection_type != "prompt_injection":
            return False
        return hook == self.module.first_hook and not (isinstance(event, BodyChunk) and event.chunk_index)

    def decision(self, hook: int, correlation_id: str, outcome: Outcome) -> Decision:
        """What the module says, or what the fail-open rule makes of its failure."""
        try:
            if isinstance(outcome, ModuleError):
                raise outcome
            return ALLOW if outcome is None else self._known.get((outcome, hook)) or self._keep(outcome, hook)
        except ModuleError as error:
            return self.failed(error, hook, correlation_id)

    def _keep(self, result: bytes, hook: int) -> Decision:
        """Results repeat."""
        decision = self.parse(result, hook)
        if len(result) <= KEPT_BYTES:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[result, hook] = decision
        return decision

    def parse(self, result: bytes, hook: int) -> Decision:
        """Raises ResultError."""
        decision = abi.parse_result(result, hook)
        return answers.unchallenged(decision) if self.settings.challenge_fallback == "block" else decision

    def failed(self, error: ModuleError, hook: int, correlation_id: str) -> Decision:
        """By the fail-open rule; counted and logged."""
        reason = str(error)
        self.counts.failed(error.kind, reason, correlation_id)
        self.events.failed(error.kind, reason, hook, correlation_id)
        tag = OVERLOADED if isinstance(error, Overload) else FAILED
        return failure_decision(reason, fail_open=self.settings.fail_open, tag=tag, refused=abi.refusal(hook))

    def look_for_end(
        self, hook: int, correlation_id: str, *, refuses: bool, is_last: bool = True, event: bytes = b""
    ) -> bool:
        """Whether the request is over for the module; then the pool is told. See `Ends.is_over`."""
        is_over = self.ends.is_over(hook, refuses=refuses, is_last=is_last, event=event)
        if is_over:
            self.pool.forget(correlation_id)
        return is_over

    def answered(self, hook: int, event: Event, decision: Decision) -> bool:
        """The same, of an event that was answered so."""
        refuses = isinstance(decision.verdict, Block | Redirect | Close)
        is_last = event.is_last if isinstance(event, BodyChunk) else True
        may_open = self.module.hooks[abi.ON_WEBSOCKET_FRAME] and isinstance(
            event, RequestHeaders | ResponseHeaders
        )
        data = self.input(event) if may_open else b""
        return self.look_for_end(hook, event.correlation_id, refuses=refuses, is_last=is_last, event=data)
