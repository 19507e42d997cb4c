"""`sentinel-wasm record`: real traffic into a file, by a tap between proxy and agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
from pathlib import Path

import click
import uvloop

from sentinel_wasm.cli import traffic
from sentinel_wasm.cli.tap import Counts, Tap
from sentinel_wasm.errors import UserError
from sentinel_wasm.server import listener

_CONNECT_S = 1.0


@click.command()
@click.argument("agent", type=click.Path(path_type=Path), metavar="SOCKET")
@click.option("--to", required=True, type=click.Path(path_type=Path), metavar="FILE.swr")
@click.option(
    "--listen", type=click.Path(path_type=Path), metavar="PATH", help="The tap's socket; SOCKET.tap."
)
@click.option("--no-bodies", is_flag=True, help="Record the events of headers only.")
def record(agent: Path, to: Path, listen: Path | None, no_bodies: bool) -> int:
    """Record what a proxy asks the agent at SOCKET, and what that answers, until Ctrl-C.

    It listens on a socket of its own, to which the proxy is pointed, and passes everything on. Values of
    headers that carry credentials are masked in the file. URIs and bodies are not.
    """
    path = listen or agent.with_name(f"{agent.name}.tap")
    if path == agent:
        raise click.UsageError("--listen is the agent's own socket.")
    _check(agent)
    counts = Counts()
    with contextlib.closing(_File(to)) as file, _listen(path, agent) as listening:
        ours = listener.identity(path)
        try:
            file.write(traffic.HEAD)
            tap = Tap(agent, counts, file.write, bodies=not no_bodies)
            uvloop.run(_serve(tap, listening, f"point the proxy at {path}; Ctrl-C ends the recording"))
        finally:
            listener.unlink(path, ours)
    click.echo(_summary(counts))
    if file.error is not None:
        raise UserError(f"{to} is not whole: {file.error}")
    return 0


def _check(agent: Path) -> None:
    """That somebody listens there: proxies may not try again."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_CONNECT_S)
        try:
            sock.connect(str(agent))
        except OSError as error:
            raise UserError(f"no agent listens on {agent}: {error.strerror or error}") from None


def _listen(path: Path, agent: Path) -> socket.socket:
    """For those who may connect to the agent, and nobody else. Raises SocketError."""
    its = agent.stat()
    group = None if its.st_gid == os.getegid() else str(its.st_gid)
    return listener.listen(
        path, stat.S_IMODE(its.st_mode), group, taken="stop it, or choose another --listen"
    )


class _File:
    """What is recorded goes here. `error`: why it takes no more."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where it cannot be had, or there is something in it."""
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from None
        self.error: str | None = None
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size:
            self.close()
            raise UserError(f"{path} is there already, and is left as it is: choose another --to")
        os.fchmod(self._descriptor, 0o600)

    def write(self, line: bytes) -> None:
        """At once: what is recorded must outlive us. A full disk ends the recording, and no more."""
        try:
            while line and self.error is None:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            self.error = error.strerror or str(error)
            click.echo(f"nothing more is recorded: {self.error}; traffic goes on", err=True)

    def close(self) -> None:
        os.close(self._descriptor)


async def _serve(tap: Tap, listening: socket.socket, says: str) -> None:
    loop = asyncio.get_running_loop()
    serving = loop.create_task(tap.serve(listening))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    click.echo(says)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def _summary(counts: Counts) -> str:
    refused = f", {counts.refused:,} more that the agent did not take" if counts.refused else ""
    return (
        f"{counts.events:,} events, {counts.answers:,} answers, {counts.others:,} events of other kinds,"
        f" {counts.not_understood:,} not understood;"
        f" {counts.bytes:,} bytes on {counts.connections:,} connections{refused}"
    )
