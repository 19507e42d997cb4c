"""`sentinel-wasm bench`: how quick a module is under an agent, beside another."""

from __future__ import annotations

import hashlib
import math
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import click
import orjson

from sentinel_wasm import logs, toml
from sentinel_wasm.bench import events, report
from sentinel_wasm.bench.baseline import LEAST_ROUNDS, Baseline, slower
from sentinel_wasm.bench.machine import this_machine
from sentinel_wasm.bench.measure import Target, measure
from sentinel_wasm.bench.results import Results, Shape
from sentinel_wasm.cli.loading import json_objects, load_options
from sentinel_wasm.cli.progress import progress
from sentinel_wasm.cli.request import of_request
from sentinel_wasm.errors import UserError

_MOST_FAILED = 0.01  # figures of a module that fails say nothing


class _Number(click.FloatRange):
    """click's own takes nan."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail("nan is no number.", param, ctx)
        return number


def _requests(_: click.Context, __: click.Parameter, file: BinaryIO | None) -> list[events.Request]:
    if file is None:
        return events.TYPICAL
    requests = [of_request(request) for request in json_objects(file.read(), file.name)]
    for number, request in enumerate(requests, 1):
        try:
            events.frames(request, 2)
        except UserError as error:
            raise click.UsageError(f"{file.name}, request {number}: {error}.") from None
    return requests


@click.command()
@click.argument("target", type=click.Path(path_type=Path), metavar="MODULE|SOCKET")
@click.argument("other", required=False, type=click.Path(path_type=Path), metavar="[MODULE|SOCKET]")
@load_options
@click.option(
    "--requests",
    type=click.File("rb"),
    callback=_requests,
    metavar="FILE.json",
    help="An array of requests, as call has them, to play in turn; else one with 12 headers.",
)
@click.option("--connections", type=click.IntRange(1, 256), default=4, show_default=True)
@click.option(
    "--in-flight", type=click.IntRange(1, 64), default=1, show_default=True, help="Events on each connection."
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option(
    "--seconds",
    type=_Number(0.05, 600),
    default=0.5,
    show_default=True,
    help="That each is measured for in a round.",
)
@click.option(
    "--report",
    "page",
    type=click.File("w", encoding="utf-8", lazy=False),
    metavar="OUT.html",
    help="A page with plots, too.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: also what --baseline reads.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Fail where MODULE is slower than this file has it.",
)
@click.option(
    "--threshold",
    type=_Number(0),
    help="By how many percent it may be (10), or the second of two than the first.",
)
def bench(
    target: Path,
    other: Path | None,
    config: dict[str, Any] | None,
    timeout_ms: int,
    memory_limit: int,
    requests: list[events.Request],
    connections: int,
    in_flight: int,
    rounds: int,
    seconds: float,
    page: TextIO | None,
    as_json: bool,
    baseline: Path | None,
    threshold: float | None,
) -> int:
    """Measure a module under the agent, beside the smallest module there is or beside another one.

    Each has an agent of its own, which is asked over its socket as a proxy asks it. A SOCKET is one where an
    agent listens already, of any make.

    \b
    sentinel-wasm bench filter.wasm --report out.html
    sentinel-wasm bench old.wasm new.wasm --threshold 10
    sentinel-wasm bench filter.wasm --json > baseline.json
    sentinel-wasm bench filter.wasm --baseline baseline.json

    The exit status is 1 where it is slower than it may be, or over 1% of the answers are failures.
    """
    if baseline is not None and other is not None:
        raise click.UsageError("--baseline is for one module.")
    if threshold is not None and baseline is None and other is None:
        raise click.UsageError("--threshold wants --baseline or a second module.")
    if (baseline is not None or threshold is not None) and rounds < LEAST_ROUNDS:
        raise click.UsageError(f"to say what is slower takes --rounds {LEAST_ROUNDS} or more.")
    shape = Shape(connections, in_flight, rounds, seconds, hashlib.sha256(orjson.dumps(requests)).hexdigest())
    held_to = None if baseline is None else Baseline(baseline, shape)
    machine = this_machine()
    with (
        tempfile.TemporaryDirectory(prefix="sentinel-wasm-") as name,
        progress(2 * rounds, "measuring") as advance,
    ):
        directory = Path(name)
        limits = ("--timeout-ms", str(timeout_ms), "--memory-limit", str(memory_limit))
        flags = (*limits, *_config_flags(config, directory))
        first, second = (target, other) if other is not None else (None, target)
        targets = Target(first, flags if first is not None else limits), Target(second, flags)
        sides = measure(targets, requests, shape, directory, advance)
    results = Results(machine, shape, *sides)
    click.echo(orjson.dumps(results.as_json()).decode() if as_json else report.text(results))
    if page is not None:
        page.write(report.document(results))
    wrong = [
        f"{side.failed_share:.1%} of the answers of {side.name} are failures"
        for side in sides
        if side.failed_share > _MOST_FAILED
    ]
    if held_to is not None:
        if held_to.machine != (machine.cpu, machine.cores):
            click.echo(f"{baseline} is of another machine: take it for a rough one", err=True)
        wrong += slower(results, 10 if threshold is None else threshold, held_to.ratios)
    elif threshold is not None:
        wrong += slower(results, threshold)
    for line in wrong:
        click.echo(f"failed: {logs.escaped(line)}", err=True)
    return 1 if wrong else 0


def _config_flags(config: dict[str, Any] | None, directory: Path) -> tuple[str, ...]:
    """The module's configuration in a file of the agent's. Raises click.UsageError."""
    if config is None:
        return ()
    try:
        lines = [f"{toml.written_key(key)} = {toml.written(value)}\n" for key, value in config.items()]
        text = "[module.config]\n" + "".join(lines)
        toml.loads(text)
    except (toml.TooDeepError, RecursionError):
        raise click.UsageError("--module-config is nested too deeply.") from None
    except ValueError:
        raise click.UsageError("--module-config has a null, which an agent's file cannot have.") from None
    path = directory / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return "--config", str(path)
