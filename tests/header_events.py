"""Header events for hypothesis: many are such as proxies send, each may have one place that is odd.

An example is built of few draws, since a draw costs more than a comparison: a number whose bytes decide
(drawn as bytes, each would be a draw), and a text to cut strings from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from .normalising import FORMS, REQUEST, RESPONSE, V1, Form

T = TypeVar("T")

_EVENTS = ((V1, REQUEST), (V1, RESPONSE), (REQUEST, REQUEST), (RESPONSE, RESPONSE))
_TEXTS = (
    "a",
    "GET",
    "/a?b=c&d",
    "text/html; q=0.9",
    'say "no"',
    "C:\\",
    "a\tb\r\n",
    "/",
    "",
    "\x7f",
    "a" * 70,
)
_NAMES = ("host", "Host", "user-agent", "USER-AGENT", "cookie", "Cookie", "x-a", ":method", "-", "")
_ADDRESSES = ("127.0.0.1:53818", "10.0.0.1", "[::1]:53818", "[::1]", "::1", "[::1]x", ":1", "1:", "[1:2", "")
_DECISIONS = 128
_PLACES = (
    *("correlation_id", "metadata", "headers", "method", "uri", "status", "payload", "version", "event_type"),
    *("client_ip", "metadata.correlation_id", "a header", "more"),
)

_texts = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    st.sampled_from(["\\", '"', "\n\t", "\x00", "\x7f", "é", "\U0001f600", "</script>"]),
)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    _texts,
)
_odd = st.one_of(
    _scalars, st.lists(_scalars, max_size=2), st.lists(_texts), st.dictionaries(_texts, _scalars, max_size=2)
)


class _Choices:
    """Choices made by bytes, the first of each where these are used up."""

    def __init__(self, decisions: bytes, text: str) -> None:
        self._decisions = iter(decisions)
        self._text = text

    def below(self, limit: int) -> int:
        return next(self._decisions, 0) % limit

    def of(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def text(self, known: Sequence[str]) -> str:
        luck = self.below(16)
        if luck < 11:
            return self.of(known)
        size = self.below(12)
        if luck < 15:
            return "".join([chr(32 + self.below(95)) for _ in range(size)])
        cut, self._text = self._text[:size], self._text[size:]
        return cut

    def headers(self) -> dict[str, Any]:
        return {
            self.text(_NAMES): [self.text(_TEXTS) for _ in range(self.of((1, 1, 1, 0, 2, 3)))]
            for _ in range(self.below(6))
        }

    def shuffled(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Turned: whichever comes first, all come."""
        names = list(fields)
        turn = self.below(len(names))
        return {name: fields[name] for name in names[turn:] + names[:turn]}


@st.composite
def written(draw: st.DrawFn) -> tuple[int, bytes, Form]:
    """(v2's type or 0, payload, the form that is asked for)"""
    decisions = draw(st.integers(0, 256**_DECISIONS - 1)).to_bytes(_DECISIONS, "big")
    choices = _Choices(decisions, draw(st.text(max_size=24)))
    frame_type, kind = choices.of(_EVENTS)
    form = choices.of(FORMS)
    place = choices.of((*(None,) * 2 * len(_PLACES), *_PLACES))
    event = _request(choices, with_id=frame_type != V1) if kind == REQUEST else _response(choices)
    payload = event
    if frame_type == V1:
        name = "request_headers" if kind == REQUEST else "response_headers"
        event = {"version": choices.of((1, 0, 2, 3)), "event_type": name, "payload": payload}
    if place is not None:
        _put(event, payload, place, draw(_odd))
    separators = choices.of((None, (",", ":")))
    text = json.dumps(event, ensure_ascii=choices.below(2) == 0, separators=separators, allow_nan=False)
    return frame_type, text.encode(errors="replace"), form


def _request(choices: _Choices, *, with_id: bool) -> dict[str, Any]:
    identity = choices.text(("iuKtfzn2R7A", "a-b", "c5c951d3-38e5-4a02-9628-0504b7f1ef45"))
    metadata = {"client_ip": choices.text(_ADDRESSES), "client_port": 0, "correlation_id": identity}
    fields = {"correlation_id": identity} if with_id else {}
    return choices.shuffled(
        {
            **fields,
            "headers": choices.headers(),
            "metadata": choices.shuffled({**metadata, "protocol": "HTTP/1.1", "server_name": None}),
            "method": choices.text(_TEXTS),
            "uri": choices.text(_TEXTS),
        }
    )


def _response(choices: _Choices) -> dict[str, Any]:
    identity = choices.text(("iuKtfzn2R7A", "a-b"))
    status = choices.of((200, 204, 301, 404, 500, 599, 0, 1000))
    return choices.shuffled({"correlation_id": identity, "headers": choices.headers(), "status": status})


def _put(event: dict[str, Any], payload: dict[str, Any], place: str, value: Any) -> None:
    """Something odd; in a place that this kind of event does not have, it is one member more."""
    if place in ("payload", "version", "event_type"):
        event[place] = value
    elif place in ("client_ip", "metadata.correlation_id"):
        payload.get("metadata", payload)[place.removeprefix("metadata.")] = value
    elif place == "a header":
        payload["headers"]["x-odd"] = value
    else:
        payload[place] = value
