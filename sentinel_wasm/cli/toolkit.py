"""The command `sentinel-wasm`: what module authors work with."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from sentinel_wasm import __version__, logs
from sentinel_wasm.cli.call import call
from sentinel_wasm.cli.check import check
from sentinel_wasm.cli.table import test
from sentinel_wasm.errors import UserError

PROGRAM = "sentinel-wasm"
_SHOWN = 2000


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)
@click.pass_context
def toolkit(context: click.Context) -> None:
    """Try WebAssembly filters for a Sentinel or Zentinel proxy."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (call, check, test):
    toolkit.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Exit status 0; 1 where a module cannot be loaded or fails, 2 for a mistake in what was asked."""
    try:
        status = toolkit.main(arguments, PROGRAM, standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else PROGRAM
        _fail(f"{error.format_message()} (see {where} --help)", 2)
    except (UserError, ImportError) as error:
        _fail(str(error), 1)
    except click.Abort:
        sys.exit(130)
    sys.exit(status)


def _fail(message: str, status: int) -> NoReturn:
    """One line, in which a module's own names are shown and not obeyed."""
    line = logs.escaped(" ".join(message.split()))
    click.echo(f"{PROGRAM}: {line if len(line) <= _SHOWN else line[:_SHOWN] + ' …'}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
