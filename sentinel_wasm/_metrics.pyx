"""What is counted while events are answered; `sentinel_wasm.metrics` makes metrics of it.

An event is counted with its decision, when its answer is made; how long it took, when that is written. So
both have counted the same events whenever nothing is under way.
"""

from libc.stdint cimport int64_t

from sentinel_wasm._hostcalls cimport monotonic_ns

import time

from sentinel_wasm.errors import KINDS

BOUNDS_NS = tuple([bounds_ns[index] for index in range(BOUNDS)])
NONE = NO_HOOK


cdef tuple contents(const Histogram* histogram):
    return [histogram.counts[index] for index in range(BOUNDS + 1)], histogram.sum_ns


cdef class Counts:
    """The counts of one agent; its event loop's thread alone touches them."""

    def __cinit__(self):
        self.errors = dict.fromkeys(KINDS, 0)
        self.last_errors = {}

    def decided(self, int hook, int decision) -> None:
        """An event of this hook (NONE: of no hook) is answered so (`number` of its verdict)."""
        if not (0 <= hook < EVENTS and 0 <= decision < DECISIONS):
            raise ValueError(f"there is no hook {hook} or no decision {decision}")
        count_decision(self, hook, decision)

    def failed(self, str kind not None, str reason not None, str correlation_id not None) -> None:
        """An event had an error of this kind (errors.KINDS)."""
        self.errors[kind] = self.errors.get(kind, 0) + 1
        self.last_errors[kind] = (reason, correlation_id, time.time())

    def seen(self, int64_t arrived_ns) -> int:
        """When an event came that arrived at this time of the loop's clock: for `took`."""
        return seen_at(arrived_ns, monotonic_ns())

    def took(self, int64_t seen_ns) -> None:
        """The answers that were decided since the last call are written now, to events seen then."""
        count_written(self, seen_ns)

    def called(self, int64_t ns) -> None:
        """A guest's hook was called on a worker, for so long."""
        observe(&self.calls, ns, 1)

    def waited(self, int64_t ns) -> None:
        """A call was in a worker's queue for so long."""
        observe(&self.waits, ns, 1)

    @property
    def decisions_by_hook(self) -> list[list[int]]:
        """By number of the hook, NONE last; in each by number of the verdict."""
        return [[self.decisions[hook][number] for number in range(DECISIONS)] for hook in range(EVENTS)]

    @property
    def event_times(self) -> tuple[list[int], int]:
        """How many events took up to each of BOUNDS_NS and no less, or longer than all; and the sum (ns)."""
        return contents(&self.events)

    @property
    def call_times(self) -> tuple[list[int], int]:
        """The same, of calls of hooks."""
        return contents(&self.calls)

    @property
    def wait_times(self) -> tuple[list[int], int]:
        """The same, of calls in workers' queues."""
        return contents(&self.waits)
