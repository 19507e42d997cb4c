"""Recorded traffic, .swr: one JSON object a line (docs/toolkit.md, "The file"); credentials are masked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from sentinel_wasm import base64
from sentinel_wasm.api import FIELDS
from sentinel_wasm.credentials import MASK, is_credential
from sentinel_wasm.decision import Decision, HeaderOp
from sentinel_wasm.errors import EventError, ProtocolError, UserError
from sentinel_wasm.protocol import answers, events
from sentinel_wasm.protocol.events import EventKind

HEAD = b'{"swr":1}\n'
"""The first line: what the file is, and the format's version."""

LINE_BYTES = 40 * 1024 * 1024
"""At most: two of the largest frames, and something over."""

HOOKS = {
    EventKind.REQUEST_HEADERS: "on_request_headers",
    EventKind.REQUEST_BODY_CHUNK: "on_request_body",
    EventKind.RESPONSE_HEADERS: "on_response_headers",
    EventKind.RESPONSE_BODY_CHUNK: "on_response_body",
    EventKind.WEBSOCKET_FRAME: "on_websocket_frame",
    EventKind.GUARDRAIL_INSPECT: "on_guardrail",
}
"""The events that are recorded: a module decides on them."""

HEADERS = (EventKind.REQUEST_HEADERS, EventKind.RESPONSE_HEADERS)

_LINE: dict[str, tuple[type, ...]] = {
    "time": (float, int),
    "connection": (int,),
    "version": (int,),
    "hook": (str,),
    "event": (dict,),
    "answer": (dict, type(None)),
}


class Recorded(NamedTuple):
    """An event and its answer; `time` in s since 1970, `version` the protocol's, `answer` None where none
    came. `event` is what `Module.ask` takes.
    """

    time: float
    connection: int
    version: int
    hook: str
    event: dict[str, Any]
    answer: Decision | None


def encode_event(kind: EventKind, payload: Any) -> bytes:
    """The event as a line has it. Raises EventError where it is not one."""
    fields = events.parse(kind, payload)._asdict()
    if "headers" in fields:
        fields["headers"] = {name: _masked(name, values) for name, values in fields["headers"].items()}
    elif "text" in fields:
        fields["data"] = fields.pop("text")
    return orjson.dumps(fields)


def _masked(name: str, values: Any) -> list[str]:
    if type(values) is not list or not {str}.issuperset(map(type, values)):
        raise EventError(f"headers: the value of {name!r:.60} is not an array of strings")
    return [MASK] * len(values) if is_credential(name) else values


def masked(decision: Decision) -> Decision:
    """Without the credentials that it puts into headers."""
    return decision._replace(
        request_headers=_masked_ops(decision.request_headers),
        response_headers=_masked_ops(decision.response_headers),
    )


def _masked_ops(ops: tuple[HeaderOp, ...]) -> tuple[HeaderOp, ...]:
    return tuple(
        op._replace(value=MASK) if op.value is not None and is_credential(op.name) else op for op in ops
    )


def line(
    time: float, connection: int, version: int, hook: str, event: bytes, answer: Decision | None
) -> bytes:
    """`event` is from `encode_event`."""
    said = None
    if answer is not None:
        is_frame = hook == "on_websocket_frame"
        said = orjson.Fragment(answers.encode(masked(answer), version, is_frame=is_frame))
    fields = {"time": time, "connection": connection, "version": version, "hook": hook}
    return orjson.dumps(
        {**fields, "event": orjson.Fragment(event), "answer": said}, option=orjson.OPT_APPEND_NEWLINE
    )


class Reader:
    """The events of a file, in its order.

    `where` is the file and line of the last; `is_cut` afterwards: the last line is not whole, and left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)
        self.is_cut = False
        self.read_bytes = 0

    def __iter__(self) -> Iterator[Recorded]:
        """Raises UserError where it cannot be read, and for the first line that is not one."""
        try:
            with self._path.open("rb") as file:
                if file.readline(len(HEAD)) != HEAD:
                    raise UserError(
                        f"{self._path} is no recording: its first line is not {HEAD.decode().strip()}"
                    )
                number = 1
                while text := file.readline(LINE_BYTES + 1):
                    number += 1
                    self.where = f"{self._path}:{number}"
                    self.read_bytes = file.tell()
                    if len(text) > LINE_BYTES:
                        raise UserError(f"{self.where}: a line of over {LINE_BYTES} bytes")
                    if not text.endswith(b"\n"):
                        self.is_cut = True
                        return
                    try:
                        yield parsed(text)
                    except ValueError as error:
                        raise UserError(f"{self.where}: {error}") from None
        except OSError as error:
            raise UserError(f"{self._path} cannot be read: {error.strerror}") from None


def parsed(text: bytes) -> Recorded:
    """A line. Raises ValueError."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if type(found) is not dict or found.keys() != _LINE.keys():
        raise ValueError(f"expected an object of {', '.join(_LINE)}")
    for name, types in _LINE.items():
        if type(found[name]) not in types:
            raise ValueError(f"{name} is {found[name]!r:.60}")
    hook, event, answer = found["hook"], found["event"], found["answer"]
    if found["version"] not in (1, 2):
        raise ValueError(f"version is {found['version']}, expected 1 or 2")
    if hook not in FIELDS:
        raise ValueError(f"no hook {hook!r:.60}; there are {', '.join(FIELDS)}")
    if event.keys() != FIELDS[hook].keys():
        raise ValueError(f"an event of {hook} has {', '.join(FIELDS[hook])}")
    try:
        if "data" in event:
            event["data"] = base64.decode(events.field(event, "data", str))
        found["answer"] = None if answer is None else answers.decode(answer)
    except ProtocolError as error:
        raise ValueError(str(error)) from None
    return Recorded(**found)
