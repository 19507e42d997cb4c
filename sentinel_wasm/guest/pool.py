"""A module's instances: which of them answers, on which thread, and what follows when one fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, Literal

import structlog

from sentinel_wasm._fastpath import GuestCall, Pace
from sentinel_wasm._metrics import Counts
from sentinel_wasm._quick import Inline
from sentinel_wasm._workers import END, START, Job
from sentinel_wasm.errors import GuestFault, ModuleError, ModuleLoadError, Overload, TooLate
from sentinel_wasm.guest import abi, inputs
from sentinel_wasm.guest.calm import Calm
from sentinel_wasm.guest.crew import Call, Crew, Outcome
from sentinel_wasm.guest.failures import Failures
from sentinel_wasm.guest.instance import Instance, check_configured
from sentinel_wasm.guest.limits import MIB, Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput
from sentinel_wasm.guest.places import KEPT_NS, Place, Places, PooledPlaces, RequestPlaces, least_busy
from sentinel_wasm.logs import Throttle
from sentinel_wasm.settings import Dispatch, Isolation

ENDED_KEPT = 64
LARGE_BYTES = 16 * MIB  # wiping it takes about 1 ms

_log = structlog.stdlib.get_logger("pool")


class Later(Enum):
    LATER = 0


LATER: Final = Later.LATER
"""What `Pool.call` gives where the event must be submitted to a worker."""

Answered = Callable[[ModuleError | None], None]
Configured = ModuleError | Literal[Later.LATER] | None
"""What came of a configuration: None where all have it, else the reason; with LATER, `Answered` gets that."""


class Pool:
    """Calls a module's hooks: on the event loop while the module is quick, else on `size` workers.

    `call` first; where it gives LATER, `submit`. While `inline` is open, its guests may be called past this
    pool, which wants to hear what came of it by `guest_failed` and `look_after`. `keeps_requests`: each
    request has an instance of its own. While `tracks_requests`, it is told of a request's end by `forget`.
    Everything is called on the thread of the event loop that it is attached to.
    """

    def __init__(
        self,
        module: Module,
        size: int,
        limits: Limits,
        *,
        dispatch: Dispatch = "auto",
        isolation: Isolation = "pooled",
        queue_limit: int = 1024,
        request_instances: int = 256,
        config: Any = None,
        counts: Counts | None = None,
    ) -> None:
        """`config` (as JSON has it) is what every instance starts with, until `configure` gives another.
        `counts` gets the times of calls.

        Raises ModuleLoadError where an instance cannot be started or refuses it, and EventError where it is
        nested too deeply.
        """
        self.module = module
        self._log = _log.bind(module=module.digest)
        self._throttle = Throttle()
        self.failures = Failures(self._log)
        self.keeps_requests = isolation == "request"
        self.tracks_requests = self.keeps_requests or dispatch == "threads"
        self.limits = limits
        self._limit_ns = limits.event_ms * 1_000_000
        self._restart_ns = limits.restart_ms * 1_000_000
        self._auto = dispatch == "auto"
        self._runs_inline = dispatch != "threads"
        self._calm = Calm()
        self._holding = False
        self._plan = module.plan()
        counts = counts or Counts()
        self._pace = Pace(counts)
        self._output = GuestOutput(module.digest)
        # None where the module has no `on_configure`.
        self._config = inputs.configure(config) if module.hooks[abi.ON_CONFIGURE] else None
        self._change: _Change | None = None
        self._ended: list[Place] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._sweeping: asyncio.TimerHandle | None = None
        self._crew = Crew(size, limits, queue_limit, self._output, counts)
        self._places: Places
        if self.keeps_requests:
            self._places = RequestPlaces(self._make_place, self._release, request_instances)
            self._start_first([Place(self._make(), 0)])
            self.inline = Inline((), (), self._free_guest)
        else:
            pooled = PooledPlaces([self._make() for _ in range(size)])
            self._places = pooled
            self._start_first(pooled)
            self.inline = Inline([place.guest for place in pooled], pooled.pins)
        self._open_inline()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._crew.attach(loop)

    def detach(self) -> None:
        """No event comes any more, and none is pending. Then `close` may be called on any thread."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.failures.on_change = lambda: None
        self._crew.detach()
        self._loop = None

    def close(self) -> None:
        """End threads and instances, on the workers as far as nothing is under way there. Once is enough."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._loop is not None:
            self.detach()
        if self.is_at_rest:
            for place in self._places:
                if place.guest.usable:
                    self._end_on_worker(place)
            self._crew.wait()
        self._crew.close()
        for place in self._places:
            place.instance.close()

    @property
    def instances(self) -> list[Instance]:
        """With shared instances: all, also those that are being started; else those of requests under way."""
        return [place.instance for place in self._places]

    @property
    def pending(self) -> int:
        """Events that are with workers."""
        return self._crew.pending

    @property
    def memory_bytes(self) -> int:
        """Of all its instances."""
        return sum(place.memory_bytes() for place in self._places)

    @property
    def config(self) -> str | None:
        """What instances start with, as JSON; None where the module has no `on_configure`."""
        return None if self._config is None else inputs.configuration_in(self._config)

    @property
    def is_at_rest(self) -> bool:
        """Workers have nothing to do: no event, and no instance to start or to end."""
        return not any(self._crew.load)

    # Calls

    def call(
        self, hook: int, data: bytes, correlation_id: str, deadline_ns: int
    ) -> bytes | Literal[Later.LATER] | None:
        """Call a hook now; None means that it has nothing to say. Raises ModuleError."""
        guest = self._free_guest(correlation_id, deadline_ns) if self._runs_inline else None
        if guest is None:
            return LATER
        try:
            result = guest.call(hook, data, deadline_ns, self._limit_ns)
        except GuestFault as error:
            self.guest_failed(guest, correlation_id, error)
            raise
        if guest.needs_care:
            self.look_after(guest, correlation_id)
        if self.failures.row:
            self._recovered()
        return result

    def _free_guest(self, correlation_id: str, deadline_ns: int) -> GuestCall | None:
        """The request's guest, where the event loop may call it now. Raises ModuleError."""
        guest = self._places.inline(correlation_id, deadline_ns).guest
        if guest.pending:
            return None
        if not guest.usable:
            if not self.keeps_requests:
                return None
            self._start_for_request(guest.place, deadline_ns)
        return guest

    def guest_failed(self, guest: GuestCall, correlation_id: str, error: ModuleError) -> None:
        """A call on the event loop has failed."""
        if isinstance(error, GuestFault):
            self.look_after(guest, correlation_id)
            self._failed(guest.place, error)

    def look_after(self, guest: GuestCall, correlation_id: str) -> None:
        """What a call on the event loop has left behind: output, a loss, or time that others wanted."""
        place: Place = guest.place
        place.instance.log_output(correlation_id)
        if guest.lost is not None:
            self._lost(place, guest.lost, correlation_id)
        if self._pace.overran:
            self._pace.reset()
            self.leave_loop("guests held the event loop for over 2 ms twice in a second, or for over 8 ms")

    def submit(
        self,
        hook: int,
        data: bytes,
        correlation_id: str,
        deadline_ns: int,
        answered: Callable[[Outcome], None],
        *,
        opens: bool = True,
    ) -> None:
        """Have a worker call the hook; `answered` is called once, in time, on the event loop.

        `opens`: the event is the first of its request. Raises ModuleError instead where that is hopeless.
        """
        now_ns = time.monotonic_ns()
        if now_ns >= deadline_ns:
            raise TooLate(f"deadline of {self.limits.event_ms} ms exceeded before the module was asked")
        # Before a place is taken: it may have to be made by ending another request's.
        self._crew.check_room(least_busy(self._crew.load), deadline_ns, now_ns)
        place = self._places.queued(correlation_id, deadline_ns, self._crew.load, opens=opens)
        self._crew.check_room(place.worker, deadline_ns, now_ns)
        if place.is_lost:
            self._check_may_start(now_ns)
        if self._holding and self.failures.may_start(now_ns):
            self._hold(False)
        start_ns = 0 if self.keeps_requests else self._restart_ns
        self._crew.give(
            Call(
                place,
                hook,
                self._settle,
                data,
                self._config,
                correlation_id,
                deadline_ns,
                start_ns,
                answered,
            )
        )
        self._sweep_later()

    def leave_loop(self, why: str) -> None:
        """The module is slow, or will be: workers run it until it has been quick for a while."""
        self._calm.end()
        if self._runs_inline and self._auto:
            self._runs_inline = self.inline.open = False
            self.tracks_requests = True
            self._log.info("worker threads run the module from now on", reason=why)

    def forget(self, correlation_id: str) -> None:
        """No event can follow for this request."""
        place = self._places.forget(correlation_id)
        if place is not None:
            self._release(place)

    def _check_may_start(self, now_ns: int) -> None:
        if not self.failures.may_start(now_ns):
            raise self.failures.refuse(now_ns)

    def _start_for_request(self, place: Place, deadline_ns: int) -> None:
        if self.failures.row:
            self._check_may_start(time.monotonic_ns())
        try:
            if self._config is None:
                place.guest.start(deadline_ns, self._limit_ns)
            else:
                place.instance.start(self._config, deadline_ns, self._limit_ns)
        except (Overload, TooLate):
            raise
        except ModuleError as error:
            self._count_failure(error, time.monotonic_ns())
            raise
        if self._sweeping is None:
            self._sweep_later()

    def _settle(self, job: Job, call: Call) -> Outcome:
        """What came of a worker's job, and what has to follow."""
        now_ns = time.monotonic_ns()
        if job.had_no_time:
            return Overload(f"an instance was not free for most of its {self.limits.event_ms} ms")
        if job.was_held:
            return self.failures.refuse(now_ns) if call.hook >= 0 else None
        self._look_at_time(job)
        try:
            check_configured(job.configured)
        except ModuleError as error:
            self._end(call.place)
            self._count_failure(error, now_ns)
            return ModuleError(f"the module cannot be started again: {error}", error.kind)
        failure = job.failure()
        if failure is not None and not job.is_sound:
            if isinstance(failure, GuestFault):
                self._failed(call.place, failure, started=job.was_called)
            return failure
        if failure is not None:
            self._lost(call.place, failure, call.correlation_id)
        if call.hook >= 0 and self.failures.row:
            self._recovered()
        return job.result

    def _look_at_time(self, job: Job) -> None:
        """Back to the event loop when the module has been quick for a while."""
        if self._calm.lasts(job.busy_ns) and self._auto and not self._runs_inline:
            self._runs_inline = True
            self.tracks_requests = self.keeps_requests
            self._pace.reset()
            self._open_inline()
            self._log.info("the event loop runs the module again", reason="its calls were quick for 10 s")

    # Instances

    def _make(self) -> Instance:
        return Instance(self.module, self.limits, self._output, self._plan, self._pace)

    def _make_place(self) -> Place:
        return self._ended.pop() if self._ended else Place(self._make(), -1)

    def _start_first(self, places: Iterable[Place]) -> None:
        """On the workers: nothing is held up but the caller. Raises ModuleLoadError from what failed."""
        errors: list[ModuleError] = []

        def settle(job: Job, call: Call) -> None:
            # What takes long at first takes long again.
            self._restart_ns = max(self._restart_ns, 2 * job.took_ns)
            try:
                check_configured(job.configured)
                if (failure := job.failure()) is not None:
                    raise failure
            except ModuleError as error:
                errors.append(error)

        start_ns = self.limits.start_ms * 1_000_000
        for place in places:
            self._crew.give(Call(place, START, settle, config=self._config, start_ns=start_ns))
        self._crew.wait()
        if errors or self.keeps_requests:
            for place in places:
                place.instance.close()
        if errors:
            self._crew.close()
            raise ModuleLoadError(f"{self.module.name}: cannot be started: {errors[0]}") from errors[0]

    def _failed(self, place: Place, error: ModuleError, *, started: bool = True) -> None:
        """An instance cannot be used again; a new one is made unless that has to wait.

        One that has failed to start is left until an event needs it. One that was a request's own is no
        reason to let other requests wait for theirs.
        """
        now_ns = time.monotonic_ns()
        self._count_failure(error, now_ns, pauses=not (started and self.keeps_requests))
        if not self.failures.may_start(now_ns):
            self._hold(True)
        elif started and not self.keeps_requests:
            self._start_again(place)

    def _count_failure(self, error: ModuleError, now_ns: int, *, pauses: bool = True) -> None:
        self.inline.open = False
        self.failures.failed(str(error), now_ns, pauses=pauses)

    def _lost(self, place: Place, error: ModuleError, correlation_id: str) -> None:
        """The result was sound, but the instance cannot be used again."""
        self._throttle.say(
            error.kind,
            self._log.warning,
            "instance replaced after its answer",
            kind=error.kind,
            correlation_id=correlation_id,
            reason=str(error),
        )
        if not self.keeps_requests:
            self._start_again(place)

    def _open_inline(self) -> None:
        """Calls may pass this pool by, where nothing speaks against it."""
        self.inline.open = self._runs_inline and not self.failures.row

    def _recovered(self) -> None:
        self.failures.succeeded()
        self._open_inline()
        if self._holding:
            self._hold(False)
        if not self.keeps_requests:
            for place in self._places:
                if place.is_lost:
                    self._start_again(place)

    def _start_again(self, place: Place) -> None:
        self._log.debug("instance is started again", worker_thread=place.worker)
        self._crew.give(Call(place, START, self._settle, config=self._config, start_ns=self._restart_ns))

    def _hold(self, hold: bool) -> None:
        self._holding = hold
        self._crew.hold(hold)

    def _end(self, place: Place) -> bool:
        """Free an instance: at once (True), but a large one is wiped by a worker."""
        guest = place.guest
        if place.guest.pending == 0 and guest.memory_bytes <= LARGE_BYTES:
            guest.retire()
            return True
        self._end_on_worker(place)
        return False

    def _end_on_worker(self, place: Place) -> None:
        if place.worker < 0:
            place.worker = least_busy(self._crew.load)
        self._crew.give(Call(place, END, self._settle))

    def _release(self, place: Place) -> None:
        """The same, for a place that nothing leads to any more."""
        if self._end(place) and len(self._ended) < ENDED_KEPT:
            self._ended.append(place)

    def _sweep_later(self) -> None:
        if self._sweeping is None and self._loop is not None and len(self._places):
            self._sweeping = self._loop.call_later(KEPT_NS / 2e9, self.sweep)

    def sweep(self) -> None:
        """End what no event came for; a timer calls it from time to time."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for place in self._places.expired(time.monotonic_ns()):
            self._release(place)
        self._sweep_later()

    # Configuration

    def configure(self, config: Any, deadline_ns: int, answered: Answered) -> Configured:
        """Give every instance a new configuration. Where that fails, all have the old one."""
        data = inputs.configure(config)
        if self._config is None or data == self._config:
            return None
        if self._change is not None:
            return ModuleError("another configuration is being applied", "refused")
        self._begin_change(data, deadline_ns, answered)
        return LATER

    def _begin_change(self, data: bytes, deadline_ns: int, answered: Answered) -> None:
        places = (
            [Place(self._make(), least_busy(self._crew.load))] if self.keeps_requests else list(self._places)
        )
        self._change = _Change(self._config, places, answered)
        # An instance that starts from now on takes the new one.
        self._config = data
        for place in places:
            # One that a worker is starting may begin with the old one: it is told the new one then.
            hook = START if place.is_lost else abi.ON_CONFIGURE
            start_ns = 0 if hook == START else self._restart_ns
            self._crew.give(
                Call(place, hook, self._settle_change, data, data, "", deadline_ns, start_ns, self._taken)
            )

    def _settle_change(self, job: Job, call: Call) -> Outcome:
        try:
            check_configured(job.configured)
            if job.is_sound:
                check_configured(job.result)
        except ModuleError as error:
            return error
        return job.failure()

    def _taken(self, outcome: Outcome) -> None:
        """One instance has the new configuration, or not."""
        change = self._change
        assert change is not None
        change.left -= 1
        if isinstance(outcome, ModuleError):
            change.error = change.error or outcome
        if change.left:
            return
        self._change = None
        if change.error is not None:
            self._config = change.old
        for place in change.places:
            if self.keeps_requests:
                self._release(place)
            elif change.error is not None:
                # Some may have taken the new one: fresh instances are sure to have the old.
                self._crew.give(Call(place, END, self._settle))
                self._start_again(place)
        change.answered(change.error)


class _Change:
    """A configuration on its way to all instances."""

    def __init__(self, old: bytes | None, places: list[Place], answered: Answered) -> None:
        self.old = old
        self.places = places
        self.answered = answered
        self.left = len(places)
        self.error: ModuleError | None = None
