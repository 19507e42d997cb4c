"""`sentinel-wasm replay`: recorded traffic at a module, and what it decides otherwise."""

from __future__ import annotations

import contextlib
import statistics
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import orjson

from sentinel_wasm import logs
from sentinel_wasm.api import Asked, Module
from sentinel_wasm.cli import traffic
from sentinel_wasm.cli.decisions import differs, said
from sentinel_wasm.cli.loading import end_at_ctrl_c, load_options
from sentinel_wasm.cli.progress import progress
from sentinel_wasm.cli.traffic import Recorded
from sentinel_wasm.decision import Decision, HeaderOp
from sentinel_wasm.errors import UserError
from sentinel_wasm.protocol import answers

_SHOWN = 500  # characters of a line
_REQUESTS = 4096  # whose method and URI are kept for their other events
_STEPS = 200  # of the progress bar


class Difference(NamedTuple):
    """A field of a decision."""

    name: str
    expected: Any
    found: Any


class Played(NamedTuple):
    """An event and what came of it; `other`: what it was compared with, None for the recorded answer."""

    recorded: Recorded
    asked: Asked
    other: Asked | None
    differences: list[Difference]

    @property
    def outcome(self) -> str:
        if self.asked.error is not None:
            return "failed"
        if self.other is None and self.recorded.answer is None:
            return "unanswered"
        return "differs" if self.differences else "same"


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE.swr")
@click.argument("module", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="OTHER",
    help="Compare with what this module says, not with the recorded answers.",
)
@load_options
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a difference, and one for the summary."
)
def replay(
    file: Path,
    module: Path,
    against: Path | None,
    config: dict[str, Any] | None,
    timeout_ms: int,
    memory_limit: int,
    as_json: bool,
) -> int:
    """Ask MODULE what FILE has of `sentinel-wasm record`, and say where it decides otherwise.

    Both modules get the same --module-config. The exit status is 1 where something differs, or MODULE fails.
    """
    end_at_ctrl_c()
    limits = {"timeout_ms": timeout_ms, "memory_limit": memory_limit}
    tally = _Tally()
    requests = _Requests()
    reader = traffic.Reader(file)
    with contextlib.ExitStack() as stack:
        loaded = stack.enter_context(Module.load(module, config, **limits))
        other = None if against is None else stack.enter_context(Module.load(against, config, **limits))
        for recorded in _with_progress(reader, file.stat().st_size):
            try:
                played = _play(loaded, other, recorded)
            except UserError as error:
                raise UserError(f"{reader.where}: {error}") from None
            tally.add(played)
            request = requests.of(recorded)
            if played.outcome in ("differs", "failed"):
                shown = _as_json(played, request) if as_json else "\n".join(_lines(played, request))
                _say(shown)
    if reader.is_cut:
        click.echo(f"{reader.where} is cut and was left out", err=True)
    click.echo(orjson.dumps(tally.summary()).decode() if as_json else tally.words())
    return 1 if tally.outcomes["differs"] or tally.outcomes["failed"] else 0


def _play(module: Module, other: Module | None, recorded: Recorded) -> Played:
    """Raises UserError where its event is none."""
    asked = module.ask(recorded.hook, recorded.event)
    if other is not None:
        compared = other.ask(recorded.hook, recorded.event)
        return Played(recorded, asked, compared, _differences(compared.decision, asked.decision))
    if recorded.answer is None:
        return Played(recorded, asked, None, [])
    found = _as_answered(asked.decision, recorded, recorded.answer)
    return Played(recorded, asked, None, _differences(recorded.answer, found))


def _as_answered(decision: Decision, recorded: Recorded, answer: Decision) -> Decision:
    """What a recorded answer would say of a decision: as the agent words it for proxies, credentials masked.

    Two of the agent's options show in `answer`.
    """
    unchallenged = answers.unchallenged(decision)
    if unchallenged.verdict == answer.verdict:
        decision = unchallenged
    if recorded.hook == "on_response_body" and recorded.version == 2:
        data = recorded.event["data"]
        echo = answer.response_body is not None and answer.response_body.data == data
        decision = answers.for_response_body(decision, data, echo=echo)
    encoded = answers.encode(
        traffic.masked(decision),
        recorded.version,
        chunk_index=recorded.event.get("chunk_index", 0),
        is_frame=recorded.hook == "on_websocket_frame",
    )
    return answers.decode(orjson.loads(encoded))


def _differences(expected: Decision, found: Decision) -> list[Difference]:
    wanted, has = said(_sorted(expected)), said(_sorted(found))
    return [Difference(name, wanted[name], has[name]) for name in wanted if wanted[name] != has[name]]


def _sorted(decision: Decision) -> Decision:
    """Changes of different headers do the same in any order, and modules that keep them in maps have none."""
    return decision._replace(
        request_headers=tuple(sorted(decision.request_headers, key=_lower_name)),
        response_headers=tuple(sorted(decision.response_headers, key=_lower_name)),
    )


def _lower_name(op: HeaderOp) -> str:
    return op.name.lower()


class _Requests:
    """Of which request an event is: as far as the last few thousand tell."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, recorded: Recorded) -> str:
        """Its method and URI."""
        event = recorded.event
        if recorded.hook == "on_request_headers":
            self._known[event["correlation_id"]] = f"{event['method']} {event['uri']}"
            if len(self._known) > _REQUESTS:
                del self._known[next(iter(self._known))]
        return self._known.get(event["correlation_id"], "a request that is not in the file")


class _Tally:
    """How many events had which outcome, and how long the modules took."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._module_ns, self._other_ns = array("Q"), array("Q")

    def add(self, played: Played) -> None:
        self.outcomes[played.outcome] += 1
        for asked, times_ns in ((played.asked, self._module_ns), (played.other, self._other_ns)):
            if asked is not None and asked.guest_ns:  # 0: it has no such hook
                times_ns.append(asked.guest_ns)

    def summary(self) -> dict[str, Any]:
        outcomes = {name: self.outcomes[name] for name in ("same", "differs", "failed", "unanswered")}
        return {
            "played": self.outcomes.total(),
            **outcomes,
            "median_us": _median_us(self._module_ns),
            "against_median_us": _median_us(self._other_ns),
        }

    def words(self) -> str:
        has = self.summary()
        line = f"{has['played']:,} played: {has['same']:,} same, {has['differs']:,} differ"
        line += f", {has['failed']:,} failed"
        if has["unanswered"]:
            line += f", {has['unanswered']:,} had no answer"
        if has["median_us"] is not None:
            line += f"; {has['median_us']:.1f} µs a call"
        if has["against_median_us"] is not None:
            line += f", the other {has['against_median_us']:.1f}"
        return line


def _median_us(times_ns: array[int]) -> float | None:
    return statistics.median(times_ns) / 1000 if times_ns else None


def _lines(played: Played, request: str) -> Iterator[str]:
    recorded, error = played.recorded, played.asked.error
    identity = logs.escaped(recorded.event["correlation_id"])
    yield _cut(f"{played.outcome:8} {recorded.hook}  {identity}  {logs.escaped(request)}")
    if error is not None:
        yield _cut(f"         {error.kind}: {logs.escaped(str(error))}")
        return
    for one in played.differences:
        yield _cut(f"         {logs.escaped(differs(*one))}")


def _cut(line: str) -> str:
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]} …"


def _as_json(played: Played, request: str) -> str:
    error = played.asked.error
    return orjson.dumps(
        {
            "outcome": played.outcome,
            "hook": played.recorded.hook,
            "correlation_id": played.recorded.event["correlation_id"],
            "request": request,
            "differences": [one._asdict() for one in played.differences],
            "error": None if error is None else {"kind": error.kind, "reason": str(error)},
        }
    ).decode()


def _with_progress(reader: traffic.Reader, size: int) -> Iterator[Recorded]:
    """On a terminal, `_say` makes room in what is shown."""
    shown = 0
    with progress(size) as advance:
        for recorded in reader:
            yield recorded
            if reader.read_bytes - shown >= size / _STEPS:
                advance(reader.read_bytes - shown)
                shown = reader.read_bytes
        advance(size - shown)


def _say(text: str) -> None:
    if sys.stderr.isatty():
        # Not a colour, which NO_COLOR would take away.
        click.echo("\r\x1b[2K", err=True, nl=False, color=True)
    click.echo(text)
