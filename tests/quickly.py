"""Events the quick way and in Python: the same frames, or the quick way leaves them alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentinel_wasm.agent import Agent
from sentinel_wasm.errors import FrameError
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.module import Module
from sentinel_wasm.protocol.frames import FrameType, encode_v1, encode_v2
from sentinel_wasm.settings import Settings

from .answering import AskedAgent
from .guest import wat
from .normalising import V1

Start = Callable[..., AskedAgent]


@contextmanager
def agents() -> Iterator[Start]:
    """Starts agents, by a module's text and settings."""
    started = []

    def start(text: str, **options: Any) -> AskedAgent:
        settings = Settings(module=Path("m.wasm"), **{"timeout_ms": 10_000, **options})
        started.append(AskedAgent(Agent(settings, Module(make_engine(), wat.binary(text), "m.wasm"))))
        return started[-1]

    yield start
    for agent in started:
        agent.close()


def in_python(asked: AskedAgent, frame_type: int, payload: bytes) -> bytes | None:
    """The frame as a connection writes it; None where the event closes the connection."""
    try:
        if frame_type == V1:
            return encode_v1(asked.v1(payload))
        return encode_v2(FrameType.AGENT_RESPONSE, asked.v2(frame_type, payload))
    except FrameError:
        return None


def quickly(asked: AskedAgent, frame_type: int, payload: bytes) -> bytes | None:
    return asked.agent.quick.answer_frame(frame_type, payload, time.monotonic_ns())
