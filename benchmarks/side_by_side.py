"""The floor, the Rust agents and ours in turn, round after round, on the same events: `make bench`."""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import click
import orjson
import wasmtime

from benchmarks import report, servers, work
from benchmarks.results import Footprint, Results, Row
from benchmarks.servers import Kind, Server
from benchmarks.tools import Generator, Load, Shape, ToolError, build
from sentinel_wasm.bench import reference
from sentinel_wasm.bench.machine import this_machine

SHAPES = (Shape(1, 1), Shape(1, 8), Shape(1, 32), Shape(2, 4, 1), Shape(2, 4, 16))
MODULES = ("trivial", "distinct", "real")
HEADERS = 12
WARM_UP = 0.2  # of the time that is measured

_ROOT = Path(__file__).parent.parent
PEERS = _ROOT.parent / "shared" / "bin"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0.05),
    default=2.0,
    show_default=True,
    help="That one load is measured for.",
)
@click.option(
    "--module",
    "modules",
    type=click.Choice(MODULES),
    multiple=True,
    default=MODULES,
    show_default=True,
    help="May be given several times.",
)
@click.option(
    "--peer-v1",
    envvar="PEER_V1_BIN",
    show_envvar=True,
    default=str(PEERS / "peer-sentinel-wasm-agent"),
    help="The Rust agent that speaks v1; where it is missing, the run is without it.",
)
@click.option(
    "--peer-v2",
    envvar="PEER_V2_BIN",
    show_envvar=True,
    default=str(PEERS / "peer-zentinel-wasm-agent"),
    help="The Rust agent that speaks v2 over the Unix socket WASM_UDS; the same.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="A directory for results.json, index.html and the plots as SVG.",
)
def main(
    rounds: int, seconds: float, modules: tuple[str, ...], peer_v1: str, peer_v2: str, out: Path | None
) -> None:
    """Measure the floor, the Rust agents and sentinel-wasm side by side; print a table.

    Quote the ratios: the machine's good and bad moments are in them twice. The figures mean something on a
    machine that does nothing else.
    """
    machine = this_machine()
    click.echo(f"machine: {machine}", err=True)
    try:
        with tempfile.TemporaryDirectory(prefix="side-by-side") as name:
            directory = Path(name)
            kinds = [
                servers.floor(build("floor", directory)),
                *peer("Rust v1 agent", "PEER_V1_BIN", peer_v1, servers.rust_v1),
                *peer("Rust v2 agent", "PEER_V2_BIN", peer_v2, servers.rust_v2),
                servers.ours(),
            ]
            measure = Measure(directory, kinds, rounds, seconds)
            for module in dict.fromkeys(modules):
                measure.module(module, module_file(module, directory))
    except ToolError as error:
        raise click.ClickException(str(error)) from None
    results = Results(
        machine, rounds, seconds, HEADERS, tuple(kinds), tuple(measure.rows), tuple(measure.footprints)
    )
    click.echo(report.text(results))
    if out is not None:
        write(results, out)
        click.echo(f"\nwritten: {out / 'index.html'}, results.json and the plots beside it", err=True)


def write(results: Results, out: Path) -> None:
    """Raises click.FileError."""
    drawn = report.plots(results)
    files = {**drawn, "index.html": report.document(results, drawn)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (out / name).write_text(text, encoding="utf-8")
        (out / "results.json").write_bytes(orjson.dumps(results.as_json()) + b"\n")
    except OSError as error:
        raise click.FileError(str(error.filename), str(error.strerror)) from None


def peer(what: str, variable: str, program: str, kind: Callable[[Path], Kind]) -> list[Kind]:
    """The one kind of server that this program is, or none where it is missing."""
    if Path(program).is_file():
        return [kind(Path(program).absolute())]
    click.echo(f"without the {what}: there is no {program}; {variable} names its program", err=True)
    return []


def module_file(name: str, directory: Path) -> Path:
    if name == "real":
        return work.EXAMPLES / "rust" / "security.wasm"
    path = directory / f"{name}.wasm"
    path.write_bytes(wasmtime.wat2wasm({"trivial": reference.TRIVIAL, "distinct": work.DISTINCT}[name]))
    return path


class Measure:
    """Takes the rounds, and keeps what they gave in `rows` and `footprints`."""

    def __init__(self, directory: Path, kinds: list[Kind], rounds: int, seconds: float) -> None:
        """Raises ToolError."""
        self._directory, self._kinds, self._rounds, self._seconds = directory, kinds, rounds, seconds
        self._generator = Generator(directory, HEADERS)
        self.rows: list[Row] = []
        self.footprints: list[Footprint] = []

    def module(self, name: str, module: Path) -> None:
        """All rounds on one module; the servers are started anew for each. Raises ToolError."""
        loads: dict[tuple[Shape, str], list[tuple[Load, float]]] = defaultdict(list)
        prints: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for number in range(self._rounds):
            click.echo(f"module {name}, round {number + 1} of {self._rounds}", err=True)
            with ExitStack() as running:
                started = []
                for kind in self._kinds:
                    started.append(Server(kind, module, self._directory))
                    running.callback(started[-1].stop)
                for shape in SHAPES:
                    for server in started:
                        if shape.protocol in server.kind.protocols:
                            loads[shape, server.kind.name].append(self._load(server, shape))
                for server in started:
                    prints[server.kind.name].append((server.first_answer_s, server.rss_mib()))
        self.rows += [Row.of(name, shape, server, taken) for (shape, server), taken in loads.items()]
        self.footprints += [
            Footprint(name, server, median(first for first, _ in taken), median(rss for _, rss in taken))
            for server, taken in prints.items()
        ]

    def _load(self, server: Server, shape: Shape) -> tuple[Load, float]:
        before = server.cpu_s()
        try:
            load = self._generator.run(server.socket, shape, self._seconds * WARM_UP, self._seconds)
        except ToolError as error:
            raise ToolError(
                f"{server.kind.title}, {shape}: {error}\nits log ends: {server.last_words()}"
            ) from None
        return load, server.cpu_s() - before


if __name__ == "__main__":
    sys.exit(main())
