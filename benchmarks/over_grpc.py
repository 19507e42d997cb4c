"""Events over gRPC: bare grpcio servers, the Rust agent and ours in turn, asked by one client in grpc-go."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click
import grpc
import orjson

from benchmarks import work
from benchmarks.servers import end
from benchmarks.side_by_side import PEERS, module_file
from benchmarks.tools import ToolError
from sentinel_wasm.bench import processes
from sentinel_wasm.bench.machine import this_machine
from sentinel_wasm.grpc import POLLER
from sentinel_wasm.grpc import agent_pb2 as pb
from tests.e2e.proxy import free_port
from tests.grpc.client import request_headers
from tests.grpc.goclient import built

STREAMS = 4
IN_FLIGHT = (1, 16)
HEADERS = 12
_PATIENCE_S = 30

BARE, OURS, RUST = "bare grpcio", "sentinel-wasm", "Rust agent"
BARE_POLLER = "bare, our poller"


class Load(NamedTuple):
    """One run: `cpu_us` is the server's processor time for an event, of all its threads."""

    events_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    client_busy: float


class Server:
    """A started server, that listens."""

    def __init__(self, name: str, port: int, module: Path, directory: Path, peer: Path) -> None:
        """Raises ToolError."""
        self.name, self.port = name, port
        python = [sys.executable, "-m"]
        commands = {
            BARE: [*python, "benchmarks.bare_grpc", str(port)],
            BARE_POLLER: [*python, "benchmarks.bare_grpc", str(port)],
            OURS: [
                *python,
                "sentinel_wasm.cli.agent",
                *("--module", str(module), "--socket", str(directory / "agent.sock")),
                *("--grpc", f"127.0.0.1:{port}", "--timeout-ms", "2000"),
            ],
            RUST: [str(peer), "--module", str(module), "--grpc-address", f"127.0.0.1:{port}"],
        }
        # This process has imported `sentinel_wasm.grpc`, which sets it.
        environment = {key: value for key, value in os.environ.items() if key != "GRPC_EXPERIMENTS"}
        if name == BARE_POLLER:
            environment["GRPC_EXPERIMENTS"] = POLLER
        with (directory / "server.log").open("wb") as log:
            self._process = subprocess.Popen(commands[name], stdout=log, stderr=log, env=environment)
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                grpc.channel_ready_future(channel).result(_PATIENCE_S)
        except grpc.FutureTimeoutError:
            self.stop()
            raise ToolError(f"{name} does not listen after {_PATIENCE_S} s") from None

    def cpu_ns(self) -> int:
        return processes.cpu_ns(self._process.pid)

    def stop(self) -> None:
        end(self._process)


class Client:
    """Asks as fast as it is answered, on four connections with a stream each."""

    def __init__(self, directory: Path) -> None:
        """Raises ToolError."""
        try:
            self._program = built(directory)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ToolError(f"the client in Go cannot be built: {getattr(error, 'stderr', error)}") from None
        self._event = directory / "event.pb"
        self._event.write_bytes(event().SerializeToString())

    def run(self, server: Server, in_flight: int, seconds: float) -> Load:
        """Raises ToolError."""
        command = [str(self._program), "-address", f"127.0.0.1:{server.port}", "-event", str(self._event)]
        numbers = ["-streams", str(STREAMS), "-in-flight", str(in_flight), "-seconds", str(seconds)]
        before_ns, start = server.cpu_ns(), time.monotonic()
        done = subprocess.run([*command, *numbers, "load"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolError(f"{server.name}: {done.stderr.strip()}")
        took_s = time.monotonic() - start
        found = orjson.loads(done.stdout)
        cpu_us = (server.cpu_ns() - before_ns) / found["events"] / 1000
        return Load(found["events"] / took_s, found["p50_us"], found["p99_us"], cpu_us, found["client_busy"])


def event() -> pb.ProxyToAgent:
    return request_headers(work.CORRELATION_ID, "/api/users?page=2&limit=50", work.headers(HEADERS))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=2.0, show_default=True)
@click.option(
    "--peer-v2",
    envvar="PEER_V2_BIN",
    show_envvar=True,
    type=click.Path(path_type=Path),
    default=PEERS / "peer-zentinel-wasm-agent",
    help="The Rust agent; where it is missing, the run is without it.",
)
def main(rounds: int, seconds: float, peer_v2: Path) -> None:
    """Four streams, 1 and 16 events in flight on each, the trivial module; medians of the rounds."""
    click.echo(f"machine: {this_machine()}", err=True)
    taken: dict[tuple[int, str], list[Load]] = defaultdict(list)
    try:
        with tempfile.TemporaryDirectory(prefix="over-grpc") as name:
            directory = Path(name)
            client, module = Client(directory), module_file("trivial", directory)
            for _ in range(rounds):
                with ExitStack() as running:
                    for what in (BARE, BARE_POLLER, OURS, *([RUST] if peer_v2.is_file() else [])):
                        server = Server(what, free_port(), module, directory, peer_v2)
                        running.callback(server.stop)
                        client.run(server, 1, seconds / 5)  # warms up
                        for in_flight in IN_FLIGHT:
                            taken[in_flight, what].append(client.run(server, in_flight, seconds))
    except ToolError as error:
        raise click.ClickException(str(error)) from None
    heads = ("events/s", "p50 µs", "p99 µs", "CPU µs/event", "client busy", "CPU / bare")
    click.echo(f"{'streams':<9}{'server':<18}" + "".join(f"{head:>14}" for head in heads))
    for (in_flight, what), loads in sorted(taken.items(), key=lambda row: row[0][0]):
        events_s, p50, p99, cpu, busy = (median(column) for column in zip(*loads, strict=True))
        bare = taken[in_flight, BARE]
        # Within each round: the machine's good and bad moments are in both.
        ratio = median(load.cpu_us / other.cpu_us for load, other in zip(loads, bare, strict=True))
        figures = f"{events_s:>14,.0f}{p50:>14.0f}{p99:>14.0f}{cpu:>14.1f}{busy:>14.2f}{ratio:>14.2f}"
        click.echo(f"{f'{STREAMS} × {in_flight}':<9}{what:<18}{figures}")


if __name__ == "__main__":
    sys.exit(main())
