"""A module with its instances: what it says to an event, or what is made of its failure, as a decision."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson

from sentinel_wasm._metrics import Counts
from sentinel_wasm.decision import ALLOW, FAILED, OVERLOADED, Decision
from sentinel_wasm.decision import failure as failure_decision
from sentinel_wasm.errors import ModuleError, Overload
from sentinel_wasm.eventlog import EventLog
from sentinel_wasm.guest import abi, inputs
from sentinel_wasm.guest.crew import Outcome
from sentinel_wasm.guest.ends import Ends
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.pool import Pool
from sentinel_wasm.protocol import answers
from sentinel_wasm.settings import Settings


class Link:
    """One module of an agent. `name` is empty where it is the only one; `counts` has its calls and errors."""

    def __init__(
        self, settings: Settings, module: Module, counts: Counts, start_ms: int, name: str = ""
    ) -> None:
        """Starts the module's instances, each within `start_ms`.

        Raises ModuleLoadError, from the ModuleError where an instance fails to start.
        """
        self.name = name
        self.settings = settings
        self.module = module
        self.counts = counts
        self.ends = Ends(module.hooks)
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
        self.inputs = inputs.InputWriter(settings.header_names, settings.header_values)
        about = {"module": module.digest, **({"name": name} if name else {})}
        self.events = EventLog(fail_open=settings.fail_open, **about)

    def attach(self, loop: asyncio.AbstractEventLoop, health_changed: Callable[[], None]) -> None:
        """Before the first event."""
        self.pool.attach(loop)
        self.pool.failures.on_change = health_changed

    def decision(self, hook: int, correlation_id: str, outcome: Outcome) -> Decision:
        """What the module says, or what the fail-open rule makes of its failure."""
        try:
            if isinstance(outcome, ModuleError):
                raise outcome
            return ALLOW if outcome is None else self.parse(outcome, hook)
        except ModuleError as error:
            return self.failed(error, hook, correlation_id)

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
    ) -> None:
        """Tell the pool when no event that the module has a hook for can follow. `event`: see Ends."""
        if self.ends.is_over(hook, refuses=refuses, is_last=is_last, event=event):
            self.pool.forget(correlation_id)
