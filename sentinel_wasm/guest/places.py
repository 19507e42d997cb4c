"""Which instance answers which event, for both kinds of isolation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from sentinel_wasm._quick import spread
from sentinel_wasm.errors import Overload
from sentinel_wasm.guest.instance import Instance

PINS = 65_536
KEPT_NS = 30_000_000_000


def least_busy(load: Sequence[int]) -> int:
    """The worker with the smallest load."""
    return load.index(min(load))


class Place:
    """An instance and the worker that runs it when it does not run on the event loop."""

    __slots__ = ("_memory_bytes", "expires_ns", "guest", "instance", "worker")

    def __init__(self, instance: Instance, worker: int) -> None:
        self.instance = instance
        self.guest = instance.guest
        self.guest.place = self
        self.worker = worker
        self.expires_ns = 0
        self._memory_bytes = 0

    @property
    def is_lost(self) -> bool:
        """Its instance has failed, and is not being started."""
        return self.guest.pending == 0 and not self.guest.usable

    def memory_bytes(self) -> int:
        """Of its instance; as it was when last asked, while a worker has it."""
        if self.guest.pending == 0:
            self._memory_bytes = self.guest.memory_bytes
        return self._memory_bytes


class Places(Protocol):
    """Where the events of a request go."""

    def inline(self, correlation_id: str, deadline_ns: int) -> Place:
        """For an event that runs on the event loop. Raises Overload."""

    def queued(self, correlation_id: str, deadline_ns: int, load: Sequence[int], *, opens: bool) -> Place:
        """For an event that goes to a worker, each with its load; `opens`: it is its request's first."""

    def forget(self, correlation_id: str) -> Place | None:
        """The request has ended; its place where that ends too."""

    def expired(self, now_ns: int) -> list[Place]:
        """Take out what ended for want of events."""

    def __iter__(self) -> Iterator[Place]: ...

    def __len__(self) -> int:
        """Requests that are kept track of."""


class PooledPlaces:
    """As many instances as workers. A hash of its id tells a request's, as long as none is busy.

    On the event loop none ever is. With workers, the first event of a request takes the least busy one, and
    the request is pinned to it: until it ends, for 30 s after its last event, or until too many came after.
    """

    def __init__(self, instances: Sequence[Instance]) -> None:
        self._places = [Place(instance, worker) for worker, instance in enumerate(instances)]
        self.pins: OrderedDict[str, tuple[Place, int]] = OrderedDict()

    def inline(self, correlation_id: str, deadline_ns: int) -> Place:
        if self.pins and (pin := self.pins.get(correlation_id)):
            return pin[0]
        return self._places[spread(correlation_id, len(self._places))]

    def queued(self, correlation_id: str, deadline_ns: int, load: Sequence[int], *, opens: bool) -> Place:
        place = usual = self.inline(correlation_id, deadline_ns)
        pinned = correlation_id in self.pins
        if (opens and not pinned) or place.is_lost:
            place = min(
                self._places, key=lambda other: (other.is_lost, load[other.worker], other is not usual)
            )
        if pinned or place is not usual:
            self.pins[correlation_id] = place, deadline_ns + KEPT_NS
            self.pins.move_to_end(correlation_id)
            if len(self.pins) > PINS:
                self.pins.popitem(last=False)
        return place

    def forget(self, correlation_id: str) -> None:
        self.pins.pop(correlation_id, None)

    def expired(self, now_ns: int) -> list[Place]:
        while self.pins and next(iter(self.pins.values()))[1] <= now_ns:
            self.pins.popitem(last=False)
        return []

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self.pins)


class RequestPlaces:
    """A fresh instance for each request; of more than `limit` at once, the oldest ends."""

    def __init__(self, make: Callable[[], Place], end: Callable[[Place], None], limit: int) -> None:
        self._make = make
        self._end = end
        self._limit = limit
        self._places: OrderedDict[str, Place] = OrderedDict()

    def inline(self, correlation_id: str, deadline_ns: int) -> Place:
        place = self._places.get(correlation_id)
        if place is None:
            if len(self._places) >= self._limit:
                self._end_oldest()
            place = self._places[correlation_id] = self._make()
        else:
            self._places.move_to_end(correlation_id)
        place.expires_ns = deadline_ns + KEPT_NS
        return place

    def queued(self, correlation_id: str, deadline_ns: int, load: Sequence[int], *, opens: bool) -> Place:
        place = self.inline(correlation_id, deadline_ns)
        if place.guest.pending == 0:
            place.worker = least_busy(load)
        return place

    def _end_oldest(self) -> None:
        for correlation_id, place in self._places.items():
            if place.guest.pending == 0:
                del self._places[correlation_id]
                self._end(place)
                return
        raise Overload(f"all {self._limit} instances that requests may have are at work")

    def forget(self, correlation_id: str) -> Place | None:
        return self._places.pop(correlation_id, None)

    def expired(self, now_ns: int) -> list[Place]:
        found = []
        while self._places:
            correlation_id, place = next(iter(self._places.items()))
            if place.expires_ns > now_ns or place.guest.pending:
                break
            found.append(self._places.pop(correlation_id))
        return found

    def __iter__(self) -> Iterator[Place]:
        return iter(list(self._places.values()))

    def __len__(self) -> int:
        return len(self._places)
