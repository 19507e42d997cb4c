"""A module whose every call is a known time of guest work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sentinel_wasm.client import request_headers
from sentinel_wasm.protocol.events import EventKind

from ..conftest import BuildWat, StartAgent
from ..guest import wat

Work = Callable[[float], Path]

_PROBE_TURNS = 20_000_000
_PROBES = 20


def working(turns: int) -> str:
    """A module that says `worked` after so many turns of a loop."""
    text = b'{"decision":"allow","tags":["worked"]}'
    loop = f"""
        (local.set $i (i32.const {turns}))
        (loop $work (br_if $work (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"""
    return wat.module(wat.data(wat.RESULT, text), wat.hook(loop + wat.returns(wat.RESULT, len(text))))


@pytest.fixture
def work(start_agent: StartAgent, build_wat: BuildWat) -> Work:
    """Builds a module of so many milliseconds a call, as this machine runs it when it is asked for."""
    return lambda ms: build_wat(working(int(turns_a_ms(start_agent, build_wat) * ms)))


def turns_a_ms(start_agent: StartAgent, build_wat: BuildWat) -> float:
    agent = start_agent(build_wat(working(_PROBE_TURNS)))
    took_s = []
    with agent.v2() as client:
        for number in range(_PROBES):
            start = time.monotonic()
            client.ask(EventKind.REQUEST_HEADERS, request_headers(str(number)))
            took_s.append(time.monotonic() - start)
    assert agent.stop() == 0
    return _PROBE_TURNS / min(took_s) / 1000
