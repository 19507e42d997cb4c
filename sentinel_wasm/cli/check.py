"""`sentinel-wasm check`: whether a module will do under the agent, and what it is like."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import orjson

from sentinel_wasm import logs
from sentinel_wasm.api import Module
from sentinel_wasm.cli.loading import end_at_ctrl_c, load_options
from sentinel_wasm.cli.progress import progress
from sentinel_wasm.errors import UserError
from sentinel_wasm.guest.limits import MIB

CALLS = 10_000
_STEP = CALLS // 2
_SHOWN = CALLS // 20  # a step of the progress bar
_MOST_CALLS = 4 * CALLS  # of a module whose memory grows: a collector lets it at first
SLOW_US = 2000
SLOW_START_MS = 1000
_GROWTH_BYTES = 64 * 1024  # a page: what a module may take for once

_BROWSER = {
    "host": "example.com",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
    "accept": "text/html,*/*;q=0.8",
    "cookie": ["session=0123456789abcdef", "theme=dark"],
}
_ODD_HEADERS: dict[str, dict[str, Any]] = {
    "a browser's": _BROWSER,
    "none": {},
    "an empty name and value": {"": "", "x-empty": ""},
    "one of 100 KB": {"x-long": "a" * 100_000},
    "1,000 of them": {f"x-{number}": "a" for number in range(1000)},
    "one with 1,000 values": {"x-many": ["a"] * 1000},
    "not ASCII": {"x-name": "Zoë 日本語 \U0001f600", "x-ñ": "a"},
    "broken UTF-8, as proxies pass it on": {"x-broken": "a\ufffd\ufffdb"},
    "quotes, backslashes, control characters": {"x-odd": 'a"\\\x00\x01\x1f\x7f\u2028</script>'},
}
_URIS = ("/", "", "*", "/" + "a" * 8000, "/%00%ff?q=%27%22", "/ü?ü=\ufffd", "//a/../..//b", "http://a/b")
_BODIES: dict[str, bytes | str] = {
    "empty": b"",
    "JSON": '{"a":[1,"é"]}',
    "not text": bytes(range(256)),
    "64 KiB": b"a" * 65_536,
}
_OPCODES = ("text", "binary", "continuation", "ping", "pong", "close", "")
_CONTENTS = {
    "plain": "My card is 4111 1111 1111 1111, write to zoe@example.com.",
    "empty": "",
    "not ASCII": "Zoë 日本語 \U0001f600 \ufffd",
    "control characters": "\x00\x01\x1f\x7f\u2028\\",
    "64 KiB": "a" * 65_536,
}
_HEADERS_OF = {"on_request_headers": {}, "on_response_headers": {"status": 200}}

Case = tuple[str, dict[str, Any]]


@dataclass
class Report:
    """What was found. Sizes in bytes, times in the unit of their name."""

    module: str
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sha256: str = ""
    size_bytes: int = 0
    exports: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    hooks: list[str] = field(default_factory=list)
    load_ms: float = 0.0
    start_ms: float = 0.0
    memory_bytes: int = 0
    memory_after_bytes: int = 0
    odd_events: int = 0
    call_us: float = 0.0


@click.command()
@click.argument("modules", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODULE...")
@load_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object a module.")
def check(
    modules: tuple[Path, ...],
    config: dict[str, Any] | None,
    timeout_ms: int,
    memory_limit: int,
    as_json: bool,
) -> int:
    """Load each MODULE as the agent does, ask it odd events and 10,000 usual ones, and say what it is like.

    The exit status is 1 where one would fail under the agent.
    """
    end_at_ctrl_c()
    failed = False
    for path in modules:
        report = examine(path, config, timeout_ms, memory_limit)
        click.echo(orjson.dumps(asdict(report)).decode() if as_json else "\n".join(_lines(report)))
        failed = failed or bool(report.problems)
    return 1 if failed else 0


def examine(path: Path, config: dict[str, Any] | None, timeout_ms: int, memory_limit: int) -> Report:
    """Everything there is to know of a module; what is wrong is in the report."""
    report = Report(str(path))
    began = time.perf_counter()
    try:
        module = Module.load(path, config, timeout_ms=timeout_ms, memory_limit=memory_limit)
    except UserError as error:
        report.problems.append(str(error))
        return report
    report.load_ms = (time.perf_counter() - began) * 1000
    report.sha256, report.size_bytes = module.sha256, path.stat().st_size
    report.exports, report.imports, report.hooks = module.exports, module.imports, list(module.hooks)
    report.memory_bytes = module.memory_bytes
    with module:
        try:
            began = time.perf_counter()
            module.restart()
            report.start_ms = (time.perf_counter() - began) * 1000
            _ask_odd(module, report)
            with progress(len(module.hooks) * CALLS, logs.escaped(path.name)) as advance:
                _ask_often(module, report, advance)
        except UserError as error:
            report.problems.append(str(error))
        report.memory_after_bytes = module.memory_bytes
    if report.start_ms > SLOW_START_MS:
        report.warnings.append(
            f"an instance takes {report.start_ms:.0f} ms to start: --isolation request would not do"
        )
    if report.call_us > SLOW_US:
        report.warnings.append(
            f"a call takes {report.call_us / 1000:.1f} ms: the agent runs it on worker threads"
        )
    return report


def _cases(hook: str) -> Iterator[Case]:
    """Odd events: what is odd, and the event."""
    if hook in _HEADERS_OF:
        for what, headers in _ODD_HEADERS.items():
            yield f"headers: {what}", {**_HEADERS_OF[hook], "headers": headers}
    if hook == "on_request_headers":
        for uri in _URIS:
            yield f"uri {uri[:20]!r}", {"uri": uri, "headers": _BROWSER}
        for method in ("POST", "", "BREW", "a" * 1000):
            yield f"method {method[:20]!r}", {"method": method, "headers": _BROWSER}
        yield "client_ip 'unix:'", {"client_ip": "unix:", "headers": _BROWSER}
    if hook == "on_response_headers":
        for status in (101, 204, 599, 999):
            yield f"status {status}", {"status": status}
    if hook.endswith("_body"):
        for what, data in _BODIES.items():
            for is_last in (True, False):
                yield (
                    f"body: {what}, {'the last' if is_last else 'a'} chunk",
                    {"data": data, "is_last": is_last},
                )
    if hook == "on_websocket_frame":
        for what, data in _BODIES.items():
            for to_server in (True, False):
                yield f"a frame: {what}", {"data": data, "client_to_server": to_server, "fin": to_server}
        for opcode in _OPCODES:
            yield f"a frame: opcode {opcode!r}", {"opcode": opcode, "frame_index": 2**32}
    if hook == "on_guardrail":
        for what, content in _CONTENTS.items():
            for kind in ("prompt_injection", "pii_detection", ""):
                yield f"{what} content, {kind!r}", {"content": content, "inspection_type": kind}
        yield "1,000 categories", {"categories": ["a"] * 1000, "metadata": {"": ""}, "model": "a"}


def _ask_odd(module: Module, report: Report) -> None:
    for hook in module.hooks:
        for what, event in _cases(hook):
            report.odd_events += 1
            asked = module.ask(hook, event)
            if asked.error is not None:
                report.problems.append(f"{hook}, {what}: {asked.error}")
                module.restart()  # what it has broken in its memory is no finding of the next


def _ask_often(module: Module, report: Report, advance: Callable[[int], None]) -> None:
    """Usual events: whether its memory stays as it is, and how long it takes."""
    for hook in module.hooks:
        case = next(_cases(hook), None)
        if case is None:
            continue
        times = []
        memory: list[int] = []  # of one instance, before every 5,000th call
        was_lost = False
        for number in range(_MOST_CALLS + 1):
            if number % _SHOWN == 0:
                advance(_SHOWN)
            if number % _STEP == 0:
                memory.append(module.memory_bytes)
                if number >= CALLS and _growth(memory) <= _GROWTH_BYTES:
                    break
            asked = module.ask(hook, case[1])
            if asked.error is not None:
                report.problems.append(f"{hook}, call {number + 1:,} alike: {asked.error}")
                return
            if asked.lost is not None:
                report.warnings.append(
                    f"{hook}, call {number + 1:,}: its answer was sound, but then {asked.lost}"
                )
                if was_lost:
                    return
                was_lost, memory = True, []
            times.append(asked.guest_ns)
        report.call_us = max(report.call_us, statistics.median(times) / 1000)
        if (grown := _growth(memory)) > _GROWTH_BYTES:
            report.problems.append(
                f"{hook}: its memory grew by {grown / MIB:.1f} MiB in the last {_STEP:,} of"
                f" {_MOST_CALLS:,} calls alike: something is not freed, as what dealloc gets"
            )


def _growth(memory: list[int]) -> int:
    """A heap that is collected may take its time to settle: what grows for ever has grown in the end, too."""
    return memory[-1] - memory[-2] if len(memory) > 1 else 0


def _lines(report: Report) -> Iterator[str]:
    yield logs.escaped(report.module)
    if report.hooks:
        at_rest, afterwards = report.memory_bytes / MIB, report.memory_after_bytes / MIB
        yield f"  size      {report.size_bytes:,} bytes, sha256 {report.sha256[:12]}"
        yield f"  hooks     {', '.join(report.hooks)}"
        for name, what in report.imports.items():
            yield f"  import    {logs.escaped(name)}: {what}"
        yield f"  load      {report.load_ms:.1f} ms to compile and start, {report.start_ms:.2f} to restart"
        yield f"  memory    {at_rest:.1f} MiB at rest, {afterwards:.1f} after all calls"
        yield f"  calls     {report.odd_events} odd; {CALLS:,} alike a hook, {report.call_us:.1f} µs each"
    for warning in report.warnings:
        yield f"  warning   {logs.escaped(warning)}"
    for problem in report.problems:
        yield f"  problem   {logs.escaped(problem)}"
    yield "  fails under the agent" if report.problems else "  good"
