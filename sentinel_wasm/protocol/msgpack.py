"""Payloads in MessagePack, to and from the JSON that says the same (agent-protocol.md, section 3).

Everything else of the agent knows JSON alone, so an event means the same in either. Importing this loads
msgspec.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson

from sentinel_wasm import base64
from sentinel_wasm.errors import EventError
from sentinel_wasm.protocol.events import only_id

_decode = msgspec.msgpack.Decoder().decode
_encode = msgspec.msgpack.Encoder().encode

# The name, and the head of a string of up to 31 or 255 bytes.
_BEFORE_ID = re.compile(rb"\xaecorrelation_id(?:([\xa1-\xbf])|\xd9(.))", re.DOTALL)
_ID = re.compile(rb"[\w.:-]{1,200}", re.ASCII)


def to_json(payload: bytes) -> bytes:
    """An event's JSON. Raises EventError, also for what JSON has not."""
    try:
        event: Any = _decode(payload)
    except (ValueError, RecursionError) as error:
        raise EventError(f"not MessagePack: {error}") from None
    if type(event) is dict and type(data := event.get("data")) is bytes:
        event["data"] = base64.encode(data)  # a body, which may also come as it is in JSON
    try:
        return orjson.dumps(event, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except orjson.JSONEncodeError as error:
        raise EventError(f"MessagePack that JSON cannot say: {error}") from None


def from_json(payload: bytes) -> bytes:
    """An answer, or what else the agent says."""
    return _encode(orjson.loads(payload))


def salvaged_id(payload: bytes) -> str:
    """As `events.salvaged_id`. Raises FrameError."""
    found = set()
    for before in _BEFORE_ID.finditer(payload):
        length = before[2][0] if before[2] else before[1][0] & 0x1F
        text = payload[before.end() : before.end() + length]
        if len(text) == length and _ID.fullmatch(text):
            found.add(text)
    return only_id(found)
