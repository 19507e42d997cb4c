"""Reloads of a running agent, as its operator makes them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import orjson
import wasmtime

from sentinel_wasm.client import ClientV1, ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind

from .conftest import RunningAgent
from .wat import module

PATIENCE_S = 60


def tagging(tag: str, extra: str = "", **hooks: str) -> bytes:
    """A module that allows with this tag."""
    says = f'{{"decision":"allow","tags":["{tag}"]}}'
    return built(module(extra, on_request_headers=says, **hooks))


def built(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


FIRST, SECOND = tagging("first"), tagging("second")
TRAPS_AT_START = built(module("(func $trap unreachable) (start $trap)", on_request_headers="{}"))
TRAPS_ON_EVENTS = built(
    module('(func (export "on_request_headers") (param i32 i32) (result i64) unreachable)')
)


def put(path: Path, data: bytes) -> None:
    """Replace a file, as a careful deployment does."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(data)
    beside.rename(path)


def results(agent: RunningAgent) -> list[dict[str, Any]]:
    """The lines that say what became of reloads."""
    whole = agent.log.rpartition("\n")[0]
    lines = map(orjson.loads, whole.splitlines())
    return [line for line in lines if line["event"].startswith("reload")]


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


def tags(client: ClientV1 | ClientV2, identity: str = "id") -> list[str]:
    """Of the answer to one event."""
    answer = client.ask(EventKind.REQUEST_HEADERS, request_headers(identity))
    found: list[str] = answer["audit"]["tags"]
    return found


def threads(agent: RunningAgent) -> int:
    return len(os.listdir(f"/proc/{agent.process.pid}/task"))
