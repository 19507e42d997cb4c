"""Reloads of a running agent, as its operator makes them."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from sentinel_wasm.client import ClientV1, ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind

from .conftest import RunningAgent
from .guest.wat import binary
from .wat import IS_EMPTY, allowing, module, refusing

PATIENCE_S = 60


def tagging(tag: str, extra: str = "", **hooks: str) -> bytes:
    """A module that allows with this tag."""
    return binary(module(extra, on_request_headers=allowing(tag), **hooks))


def unconfigurable(tag: str) -> bytes:
    """The same, which takes no configuration but the empty one."""
    return binary(refusing("no such list", IS_EMPTY, on_request_headers=allowing(tag)))


FIRST, SECOND = tagging("first"), tagging("second")
TRAPS_AT_START = binary(module("(func $trap unreachable) (start $trap)", on_request_headers="{}"))
TRAPS_ON_EVENTS = binary(
    module('(func (export "on_request_headers") (param i32 i32) (result i64) unreachable)')
)


def put(path: Path, data: bytes) -> None:
    """Replace a file, as a careful deployment does."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(data)
    beside.rename(path)


def results(agent: RunningAgent) -> list[dict[str, Any]]:
    """The lines that say what became of reloads."""
    return [line for line in agent.lines() if line["event"].startswith("reload")]


def next_result(agent: RunningAgent, before: int) -> dict[str, Any]:
    """What became of the next reload after so many."""
    end = time.monotonic() + PATIENCE_S
    while len(found := results(agent)) <= before:
        assert time.monotonic() < end, agent.log
        time.sleep(0.01)
    return found[before]


def reload(agent: RunningAgent) -> dict[str, Any]:
    before = len(results(agent))
    agent.process.send_signal(signal.SIGHUP)
    return next_result(agent, before)


def configure(client: ClientV1 | ClientV2, config: Any) -> dict[str, Any]:
    """The answer."""
    payload = {"correlation_id": "c", "agent_id": "wasm", "config": config}
    return client.ask(EventKind.CONFIGURE, payload)


def tags(client: ClientV1 | ClientV2, identity: str = "id") -> list[str]:
    """Of the answer to one event."""
    answer = client.ask(EventKind.REQUEST_HEADERS, request_headers(identity))
    found: list[str] = answer["audit"]["tags"]
    return found
