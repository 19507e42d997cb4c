"""The process of one trial: the module, an agent of its own, the request, and what is said to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson
import structlog

from sentinel_wasm import base64
from sentinel_wasm.answering import Answering
from sentinel_wasm.chain import agent_for
from sentinel_wasm.credentials import masked
from sentinel_wasm.errors import UserError
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.cache import Cache
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.limits import MIB
from sentinel_wasm.guest.module import Module
from sentinel_wasm.protocol.frames import FrameType
from sentinel_wasm.server.trial import Loaded, Wanted
from sentinel_wasm.settings import Settings

_ID = "trial"
_SHOWN = 16_384  # characters of an answer

Step = dict[str, Any]


def tried(order: tuple[Loaded, Wanted]) -> dict[str, Any]:
    """What came of it, in the shape that docs/page.md has. Raises UserError."""
    loaded, wanted = order
    lines = _collect_output()
    settings = loaded.settings.for_all(pool_size=1, dispatch="inline", admin=None, verbose=False)
    modules = [_module(*each) for each in zip(settings.each, loaded.sha256, strict=True)]
    agent = agent_for(settings, modules)
    try:
        started = _taken(lines)
        return {"started": started, "steps": list(_steps(agent, wanted, lines))}
    finally:
        agent.close()


def _module(settings: Settings, sha256: str) -> Module:
    """Raises UserError where it has another digest."""
    module = Module.load(
        make_engine(2, settings.memory_limit * MIB),
        settings.module,
        settings.max_module_size * MIB,
        Cache(settings.cache_dir),
    )
    if module.sha256 != sha256:
        raise UserError(
            f"{settings.module} has changed since the agent loaded it: there it is {sha256[:12]}, now"
            f" {module.sha256[:12]}"
        )
    return module


def _collect_output() -> list[str]:
    """Where the module's lines go from now on; what else is logged goes nowhere."""
    lines: list[str] = []

    def collect(_: object, level: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        if "source" in event:
            lines.append(f"{level} {event['source']}: {event['text']}")
        raise structlog.DropEvent

    structlog.configure(processors=[collect])
    return lines


def _taken(lines: list[str]) -> list[str]:
    taken = lines.copy()
    lines.clear()
    return taken


def _steps(agent: Answering, wanted: Wanted, lines: list[str]) -> Iterator[Step]:
    """The events of the request, until one is not allowed or the module fails."""
    for frame_type, hook, payload in _events(wanted):
        before_ns, failed = _spent(agent)
        arrived_ns = time.monotonic_ns()
        answer = agent.answer_v2(frame_type, orjson.dumps(payload), arrived_ns, _later)
        took_ns = time.monotonic_ns() - arrived_ns
        assert answer is not None  # without worker threads each event is answered at once
        said = orjson.loads(answer)
        after_ns, has_failed = _spent(agent)[0], _spent(agent)[1] > failed
        decision, status = _verdict(said["decision"])
        yield {
            "hook": abi.HOOKS[hook],
            "is_asked": any(module.hooks[hook] for module in agent.modules),
            "decision": decision,
            "status": status,
            "tags": said["audit"]["tags"],
            "reasons": said["audit"]["reason_codes"],
            "has_failed": has_failed,
            "took_us": took_ns / 1000,
            "guest_us": (after_ns - before_ns) / 1000,
            "log": _taken(lines),
            "answer": _shown(said),
        }
        if decision != "allow" or has_failed:
            return


def _spent(agent: Answering) -> tuple[int, int]:
    """In the guests so far (ns), and errors."""
    counts = {agent.counts, *(link.counts for link in agent.links)}
    return sum(one.call_times[1] for one in counts), sum(sum(one.errors.values()) for one in counts)


def _verdict(decision: str | dict[str, dict[str, Any]]) -> tuple[str, int | None]:
    """Its name, and the status that the client would get."""
    if isinstance(decision, str):
        return decision, None
    ((name, details),) = decision.items()
    return name, details.get("status")


def _later(*_: object) -> None:
    raise AssertionError


def _events(wanted: Wanted) -> Iterator[tuple[FrameType, int, dict[str, Any]]]:
    """(type, hook, payload), as v2 proxies send them."""
    metadata = {"client_ip": wanted.client_ip, "correlation_id": _ID}
    yield (
        FrameType.REQUEST_HEADERS,
        abi.ON_REQUEST_HEADERS,
        {
            "correlation_id": _ID,
            "metadata": metadata,
            "method": wanted.method,
            "uri": wanted.uri,
            "headers": _folded(wanted.headers),
        },
    )
    if wanted.body:
        data = wanted.body.encode(errors="replace")
        yield (
            FrameType.REQUEST_BODY_CHUNK,
            abi.ON_REQUEST_BODY,
            {
                "correlation_id": _ID,
                "data": base64.encode(data),
                "is_last": True,
                "total_size": len(data),
                "chunk_index": 0,
                "bytes_received": len(data),
            },
        )
    if wanted.status:
        yield (
            FrameType.RESPONSE_HEADERS,
            abi.ON_RESPONSE_HEADERS,
            {
                "correlation_id": _ID,
                "status": wanted.status,
                "headers": _folded(wanted.response_headers),
            },
        )


def _folded(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in pairs:
        headers.setdefault(name.lower(), []).append(value)
    return headers


def _shown(answer: dict[str, Any]) -> str:
    """An answer's JSON, without the credentials that it sets."""
    for name in ("request_headers", "response_headers"):
        for op in answer[name]:
            for change in op.values():
                if "value" in change:
                    change["value"] = masked(change["name"], change["value"])
    metadata = answer["routing_metadata"]
    answer["routing_metadata"] = {name: masked(name, value) for name, value in metadata.items()}
    text = orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"
