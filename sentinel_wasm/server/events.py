"""The last events of a process, from the ring's bytes (`_recent`) to what `/events` says."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import orjson

from sentinel_wasm.decision import VERDICTS
from sentinel_wasm.guest import abi
from sentinel_wasm.server import usage

# _recent.pxd: number, seen_ns, took_ns, version, status, tail_bytes, id_bytes, hook, decision, id, tail.
_ENTRY = struct.Struct("=QqqIHHHBB4x64s344s")
_ID_BYTES = 64
_AUDIT = b'"audit":{'
_KEPT = 512  # of all workers; each keeps as many (_recent)
_AT_ONCE = 64  # some 0.2 ms of the event loop's time

Event = dict[str, Any]
"""As `/events` has it; docs/page.md says what is in it."""


def read(entries: bytes) -> Iterator[Event]:
    """The events that `Recent.since` gives, in their order."""
    to_wall_ns = time.time_ns() - time.monotonic_ns()
    for (
        number,
        seen_ns,
        took_ns,
        version,
        status,
        tail_bytes,
        id_bytes,
        hook,
        decision,
        id_,
        tail,
    ) in _ENTRY.iter_unpack(entries):
        audit = _audit(tail[:tail_bytes])
        yield {
            "number": number,
            "time": round((seen_ns + to_wall_ns) / 1e9, 6),
            "correlation_id": id_[:id_bytes].decode(errors="replace") + ("…" if id_bytes > _ID_BYTES else ""),
            "protocol": f"v{version}",
            "hook": abi.EVENT_HOOKS[hook],
            "decision": VERDICTS[decision],
            "status": status or None,
            "took_us": took_ns / 1000,
            "tags": audit.get("tags", []),
            "rule_ids": audit.get("rule_ids", []),
            "reasons": audit.get("reason_codes", []),
            "is_cut": tail_bytes > 0 and not audit,
        }


def behind(entries: bytes, number: int) -> bytes:
    """Of the entries that `Recent.since` gives, those behind this number."""
    new_bytes = (last_number(entries) - number) * _ENTRY.size if entries else 0
    return entries[-new_bytes:] if new_bytes > 0 else b""


def last_number(entries: bytes) -> int:
    """Of the events that `Recent.since` gives, of which there is one at least."""
    number: int = _ENTRY.unpack_from(entries, len(entries) - _ENTRY.size)[0]
    return number


def _audit(tail: bytes) -> dict[str, Any]:
    """That of an answer's end; empty where it began before."""
    # Its quotes are not escaped, so it is in no string.
    start = tail.rfind(_AUDIT)
    if start < 0:
        return {}
    found: dict[str, Any] = orjson.loads(b"{" + tail[start:])["audit"]
    return found


async def read_all(entries: bytes) -> list[Event]:
    """The same bit by bit: the event loop has others to serve."""
    events: list[Event] = []
    for start in range(0, len(entries), _AT_ONCE * _ENTRY.size):
        events += read(entries[start : start + _AT_ONCE * _ENTRY.size])
        await asyncio.sleep(0)
    return events


def page(events: Sequence[Event], since: int) -> bytes:
    """What `/events` answers; `last` is the number to ask for more with, of the process that began then."""
    last = events[-1]["number"] if events else since
    return orjson.dumps({"events": events, "last": last, "started": usage.started()})


class Merged:
    """The last events of several workers, under numbers of their own."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._last = 0

    def add(self, events: list[Event]) -> None:
        """Those that came in since the last call, of all workers."""
        for event in sorted(events, key=itemgetter("time")):
            self._last += 1
            self._events.append({**event, "number": self._last})

    def since(self, number: int) -> list[Event]:
        """As `Recent.since`."""
        if number > self._last:
            return list(self._events)
        return [event for event in self._events if event["number"] > number]
