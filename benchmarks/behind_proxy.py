"""What an agent adds behind the real v2 proxy: latency without one, with the Rust agent, with ours."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click

from benchmarks import servers
from benchmarks.servers import Kind, Server
from benchmarks.side_by_side import PEERS, module_file, peer
from benchmarks.tools import ToolError, build
from sentinel_wasm.bench.machine import this_machine
from tests.e2e.proxy import ZENTINEL, free_port, start_proxy

CONNECTIONS = 8
_UNITS_US = {"us": 1.0, "ms": 1e3, "s": 1e6}


class Load(NamedTuple):
    """What wrk measured."""

    requests_s: float
    p50_us: float
    p99_us: float


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--peer-v2", envvar="PEER_V2_BIN", show_envvar=True, default=str(PEERS / "peer-zentinel-wasm-agent")
)
def main(rounds: int, seconds: int, peer_v2: str) -> None:
    """wrk with 8 connections through zentinel (ZENTINEL_BIN), in turn and round after round."""
    click.echo(f"machine: {this_machine()}", err=True)
    if shutil.which("wrk") is None or not ZENTINEL.path().is_file():
        click.echo(
            "nothing measured: it takes wrk (apt-get install wrk) and zentinel (ZENTINEL_BIN)", err=True
        )
        return
    peers = peer("Rust v2 agent", "PEER_V2_BIN", peer_v2, servers.rust_v2)
    agents = (None, *peers, servers.ours())
    taken: dict[str, list[Load]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="behind-proxy") as name:
            directory = Path(name)
            with upstream(directory) as upstream_port:
                for _, kind in itertools.product(range(rounds), agents):
                    load = measure(kind, module_file("trivial", directory), directory, upstream_port, seconds)
                    taken.setdefault(kind.title if kind else "none", []).append(load)
    except ToolError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{'agent':<16}{'requests/s':>12}{'p50 µs':>9}{'p99 µs':>9}{'adds at p50':>13}")
    for what, loads in taken.items():
        requests, p50, p99 = (median(column) for column in zip(*loads, strict=True))
        # Within each round: the machine's good and bad moments are in both.
        adds = median(load.p50_us - bare.p50_us for load, bare in zip(loads, taken["none"], strict=True))
        click.echo(f"{what:<16}{requests:>12,.0f}{p50:>9.0f}{p99:>9.0f}{adds:>13.0f}")


@contextmanager
def upstream(directory: Path) -> Iterator[int]:
    """Its port. Raises ToolError."""
    port = free_port()
    process = subprocess.Popen([build("upstream", directory), str(port)])
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def measure(kind: Kind | None, module: Path, directory: Path, upstream_port: int, seconds: int) -> Load:
    """A proxy and its agent of their own for each run: the proxy counts what wrk breaks off at its end as
    failures of the upstream, and takes it out of service at the next. Raises ToolError.
    """
    place = directory / "proxy"
    place.mkdir(exist_ok=True)
    # Without an agent: no route has the filter.
    changes = {} if kind else {'upstream "backend"\n        filters "wasm"': 'upstream "backend"'}
    with ExitStack() as running:
        socket = place / "nobody.sock"
        if kind is not None:
            agent = Server(kind, module, place)
            running.callback(agent.stop)
            socket = agent.socket
        proxy = start_proxy(ZENTINEL, place, upstream_port, socket, changes)
        running.callback(proxy.kill)
        if proxy.get("/").status != 200:
            raise ToolError(f"a request through the proxy failed: {proxy.log[-500:]}")
        return wrk(kind.title if kind else "none", proxy.port, seconds)


def wrk(what: str, port: int, seconds: int) -> Load:
    """Raises ToolError where a request failed."""
    command = ["wrk", "--latency", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://127.0.0.1:{port}/"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise ToolError(f"{what}: requests failed: {said}")
    requests = re.search(r"Requests/sec:\s+([\d.]+)", said)
    shares = dict(re.findall(r"(\d+)%\s+([\d.]+[mu]?s)", said))
    if requests is None or not {"50", "99"} <= shares.keys():
        raise ToolError(f"wrk said something else: {said}")
    return Load(float(requests[1]), _us(shares["50"]), _us(shares["99"]))


def _us(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS_US[unit]


if __name__ == "__main__":
    sys.exit(main())
