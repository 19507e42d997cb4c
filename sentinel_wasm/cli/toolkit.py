"""The command `sentinel-wasm`: what module authors work with."""

from __future__ import annotations

import os
import sys

import click

from sentinel_wasm import __version__
from sentinel_wasm.cli.bench import bench
from sentinel_wasm.cli.call import call
from sentinel_wasm.cli.check import check
from sentinel_wasm.cli.mistakes import in_one_line
from sentinel_wasm.cli.new import new
from sentinel_wasm.cli.record import record
from sentinel_wasm.cli.replay import replay
from sentinel_wasm.cli.table import test
from sentinel_wasm.cli.trace import trace

PROGRAM = "sentinel-wasm"


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)
@click.pass_context
def toolkit(context: click.Context) -> None:
    """Try WebAssembly filters for a Sentinel or Zentinel proxy."""
    if os.environ.get("NO_COLOR"):  # no-color.org; to a pipe click writes none anyway
        context.color = False
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (new, check, call, test, bench, record, replay, trace):
    toolkit.add_command(command)


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
