"""The command `sentinel-wasm`: what module authors work with."""

from __future__ import annotations

import importlib
import os
import sys

import click

from sentinel_wasm import __version__
from sentinel_wasm.cli.mistakes import in_one_line

PROGRAM = "sentinel-wasm"

COMMANDS = {
    "new": "new",
    "check": "check",
    "call": "call",
    "test": "table",
    "bench": "bench",
    "record": "record",
    "replay": "replay",
    "trace": "trace",
}
"""Their order, and the file of each."""


class Commands(click.Group):
    """Each is imported when it is asked for: what it needs, as wasmtime, takes its time."""

    def list_commands(self, _: click.Context) -> list[str]:
        """As click wants it."""
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """As click wants it."""
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"{__package__}.{COMMANDS[name]}"), name)
        return command


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True
)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)
@click.pass_context
def toolkit(context: click.Context) -> None:
    """Try WebAssembly filters for a Sentinel or Zentinel proxy."""
    if os.environ.get("NO_COLOR"):  # no-color.org; to a pipe click writes none anyway
        context.color = False
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Exit status 0; 1 where a module cannot be loaded or fails, 2 for a mistake in what was asked."""
    try:
        with in_one_line(PROGRAM):
            status = toolkit.main(arguments, PROGRAM, standalone_mode=False)
    except click.Abort:
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
