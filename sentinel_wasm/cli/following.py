"""The events of a running agent, asked of its --admin address again and again (docs/page.md)."""

from __future__ import annotations

import contextlib
import http.client
from typing import Any, NamedTuple

import orjson

from sentinel_wasm.errors import UserError
from sentinel_wasm.settings import Address

_PATIENCE_S = 5.0
_MOST_BYTES = 8 * 1024 * 1024  # 512 events, all of their text escaped
_LATEST_S = 1e11  # of a time that can be shown

Event = dict[str, Any]
"""As `/events` has it."""

_TYPES: dict[str, tuple[type, ...]] = {
    "number": (int,),
    "time": (float, int),
    "correlation_id": (str,),
    "hook": (str,),
    "decision": (str,),
    "status": (int, type(None)),
    "took_us": (float, int),
    "tags": (list,),
    "rule_ids": (list,),
    "reasons": (list,),
    "is_cut": (bool,),
}


class Away(Exception):
    """Nobody answers, for this reason."""


class News(NamedTuple):
    """What came since the last question.

    `missed`: so many events before these are not kept any more. `is_another`: the agent was restarted or
    upgraded, and these are the first of its new process.
    """

    events: list[Event]
    missed: int
    is_another: bool


class Follower:
    """Knows which events it has seen."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._last = 0
        self._started: float | None = None  # the process that has answered

    def news(self) -> News:
        """At first, all events that are kept. Raises Away, and UserError where what answers is no agent."""
        is_first = self._started is None
        answer = self._ask(self._last)
        is_another = not is_first and answer["started"] != self._started
        if is_another:
            answer = self._ask(0)
            self._last = 0
        events = answer["events"]
        missed = 0 if is_first or not events else events[0]["number"] - self._last - 1
        self._last, self._started = answer["last"], answer["started"]
        return News(events, missed, is_another)

    def _ask(self, since: int) -> dict[str, Any]:
        try:
            with contextlib.closing(
                http.client.HTTPConnection(*self._address, timeout=_PATIENCE_S)
            ) as connection:
                # The agent may listen to local names only.
                connection.request("GET", f"/events?since={since}", headers={"Host": "localhost"})
                answer = connection.getresponse()
                body = answer.read(_MOST_BYTES)
                if answer.length:  # so many bytes are missing, which only a read without a limit says
                    raise http.client.IncompleteRead(body, answer.length)
        except OSError as error:
            raise Away(error.strerror or str(error)) from None
        except http.client.HTTPException:
            raise Away("what comes is broken HTTP") from None
        if answer.status != http.client.OK:
            raise UserError(f"{self._address} answers with status {answer.status}: it is no agent's --admin")
        return self._read(body)

    def _read(self, body: bytes) -> dict[str, Any]:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            answer: dict[str, Any] = orjson.loads(body)
            if (
                type(answer["last"]) is int
                and type(answer["started"]) is float
                and all(map(_is_event, answer["events"]))
            ):
                return answer
        raise UserError(f"what {self._address} answers is not an agent's: expected its --admin address")


def _is_event(event: Event) -> bool:
    return (
        all(type(event[name]) in types for name, types in _TYPES.items())
        and all(type(word) is str for name in ("tags", "rule_ids", "reasons") for word in event[name])
        and 0 <= event["time"] < _LATEST_S
    )
