"""Calls under way on worker threads: each is answered once, in time, whatever its worker does."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from dataclasses import dataclass

from sentinel_wasm._metrics import Counts
from sentinel_wasm._workers import END, Job, Workers
from sentinel_wasm.errors import ModuleError, Overload
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.output import GuestOutput
from sentinel_wasm.guest.places import Place

# A guest is interrupted at most two ticks late; a worker that has not reported by then is not waited for.
GRACE_NS = 5_000_000
_WEIGHT = 8  # a call counts for an eighth of what is expected of the next

Outcome = bytes | None | ModuleError


@dataclass(slots=True, eq=False)
class Call:
    """What a worker shall do: call a hook, START or END an instance.

    On the event loop `settle` makes an outcome of the finished job, and `answered` gets it: once, and at the
    deadline even where the job has not finished; without it nobody waits. `start_ns`: the time for a start
    that is needed first; 0: the call's own. `config` is for such a start.
    """

    place: Place
    hook: int
    settle: Callable[[Job, Call], Outcome]
    data: bytes | None = None
    config: bytes | None = None
    correlation_id: str = ""
    deadline_ns: int = 0
    start_ns: int = 0
    answered: Callable[[Outcome], None] | None = None

    def answer(self, outcome: Outcome) -> None:
        answered, self.answered = self.answered, None
        if answered is not None:
            answered(outcome)


class Crew:
    """The workers and what they have to do. Everything is called on one thread, the event loop's."""

    def __init__(
        self, size: int, limits: Limits, queue_limit: int, output: GuestOutput, counts: Counts
    ) -> None:
        self.load = [0] * size
        self._limit_ms = limits.event_ms
        self._limit_ns = limits.event_ms * 1_000_000
        self._queue_limit = queue_limit
        self._output = output
        self._counts = counts
        self._expected_ns = [0] * size
        self._calls: dict[Job, Call] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._watched_ns = 0  # the deadline for which that is
        self._workers = Workers(size)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.add_reader(self._workers.fileno(), self.collect)

    def detach(self) -> None:
        """Nobody waits for an answer any more."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._workers.fileno())
        if self._watching is not None:
            self._watching.cancel()
        self._loop = self._watching = None

    def close(self) -> None:
        """End the threads; what has not begun is dropped."""
        self.detach()
        self._workers.stop()
        self._calls.clear()

    def wait(self) -> None:
        """Until the workers have done all of it; without a loop only. Other Python threads may run."""
        finished = select.poll()
        finished.register(self._workers.fileno(), select.POLLIN)
        while any(self.load):
            finished.poll()
            self.collect()

    @property
    def pending(self) -> int:
        """Calls of hooks for events that workers have, those too that were answered without them."""
        return len(self._calls)

    def hold(self, hold: bool) -> None:
        """Whether instances that have failed stay as they are."""
        self._workers.hold(hold)

    def check_room(self, worker: int, deadline_ns: int, now_ns: int) -> None:
        """Raises Overload where a call of a hook would not be answered in time."""
        if len(self._calls) >= self._queue_limit:
            raise Overload(f"{self._queue_limit} events are waiting, as many as --queue-limit allows")
        # A third of its time is kept for what takes longer than expected.
        if now_ns + self.load[worker] * self._expected_ns[worker] > deadline_ns - self._limit_ns // 3:
            raise Overload("an instance would not have been free in time")

    def give(self, call: Call) -> None:
        """Append a call to its worker's queue. The END of an instance that nothing waits for goes first."""
        place = call.place
        first = call.hook == END and place.guest.pending == 0
        # With less time left than a call is likely to take, it would only cost the instance.
        needs_ns = min(self._expected_ns[place.worker], self._limit_ns // 2) if call.hook >= 0 else 0
        job = Job(
            place.guest,
            call.hook,
            call.data,
            call.config,
            call.deadline_ns,
            self._limit_ns,
            call.start_ns,
            needs_ns,
            call,
        )
        if call.answered is not None:
            self._calls[job] = call
            self._watch(call.deadline_ns)
        place.guest.pending += 1
        self.load[place.worker] += 1
        self._workers.submit(place.worker, job, first)

    def collect(self) -> None:
        """Take what the workers have finished; the event loop calls it when there is something."""
        for job in self._workers.finished():
            call: Call = job.owner
            place = call.place
            place.guest.pending -= 1
            self.load[place.worker] -= 1
            self._calls.pop(job, None)
            records, dropped = job.take_output()
            if records or dropped:
                self._output.write(records, dropped, call.correlation_id)
            if call.hook >= 0:
                self._counts.waited(job.waited_ns)
                if job.called_ns:
                    self._counts.called(job.called_ns)
                if not job.had_no_time:
                    expected_ns = self._expected_ns[place.worker]
                    self._expected_ns[place.worker] += (job.took_ns - expected_ns) // _WEIGHT
            call.answer(call.settle(job, call))

    def _watch(self, deadline_ns: int) -> None:
        """Look for late calls after this deadline, or after an earlier one."""
        if self._loop is None or (self._watching is not None and self._watched_ns <= deadline_ns):
            return
        if self._watching is not None:
            self._watching.cancel()
        left_ns = deadline_ns + GRACE_NS - time.monotonic_ns()
        self._watching = self._loop.call_later(max(left_ns, 0) / 1e9, self._answer_late)
        self._watched_ns = deadline_ns

    def _answer_late(self) -> None:
        """Answer what is past its deadline, although its worker is still at it."""
        self._watching = None
        now_ns = time.monotonic_ns()
        waiting = [call for call in self._calls.values() if call.answered is not None]
        late = [call for call in waiting if call.deadline_ns + GRACE_NS <= now_ns]
        # Not always in the order in which they came: in a chain the modules before may have taken time.
        if len(late) < len(waiting):
            self._watch(min(call.deadline_ns for call in waiting if call.deadline_ns + GRACE_NS > now_ns))
        for call in late:
            call.answer(ModuleError(f"deadline of {self._limit_ms} ms exceeded", "deadline"))
