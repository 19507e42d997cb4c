"""An event in MessagePack: JSON that says the same, or an EventError; an id that can be answered, or none."""

from __future__ import annotations

import base64

import msgspec
import orjson

from sentinel_wasm.client import request_headers
from sentinel_wasm.errors import EventError, FrameError
from sentinel_wasm.protocol import msgpack

from .targets import Target, any_byte


def run(data: bytes) -> None:
    try:
        json = msgpack.to_json(data)
    except EventError as error:
        orjson.dumps(str(error))  # it goes to the log and to the proxy
    else:
        event = msgspec.msgpack.decode(data)
        if type(event) is dict and type(event.get("data")) is bytes:
            event["data"] = base64.b64encode(event["data"]).decode()
        assert orjson.dumps(event) == json
        assert msgpack.to_json(msgpack.from_json(json)) == json
    try:
        identity = msgpack.salvaged_id(data)
    except FrameError:
        return
    assert b"\xaecorrelation_id" in data
    assert identity.encode() in data


def seeds() -> list[bytes]:
    event = request_headers("id-1", headers={"accept": ["*/*", "a"]})
    chunk = {
        "correlation_id": 40 * "i",
        "data": b"\0\xff",
        "is_last": True,
        "total_size": None,
        "bytes_sent": 2**63,
    }
    written = [
        msgspec.msgpack.encode(one) for one in (event, chunk, {1: 1.5}, [True], msgspec.msgpack.Ext(1, b""))
    ]
    return [
        *written,
        *(one[:-1] for one in written),
        b"\xd6\xff\0\0\0\1",
        300 * b"\x91" + b"\xc0",
        b"\xa1\xff",
    ]


TARGET = Target(run, seeds, any_byte)
