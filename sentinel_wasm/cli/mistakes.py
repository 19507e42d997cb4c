"""What a user did wrong, said in one line; never a traceback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

import click

from sentinel_wasm import logs
from sentinel_wasm.errors import ConfigurationError, UserError

_SHOWN = 2000  # characters of a message


@contextlib.contextmanager
def in_one_line(program: str) -> Iterator[None]:
    """Exit status 2 for a mistake in the options or their file, 1 for what they name and cannot be used."""
    try:
        yield
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else program
        _fail(program, f"{error.format_message()} (see {where} --help)", 2)
    except ConfigurationError as error:
        _fail(program, str(error), 2)
    except (UserError, ImportError) as error:
        _fail(program, str(error), 1)


def _fail(program: str, message: str, status: int) -> NoReturn:
    say(program, message)
    sys.exit(status)


def say(program: str, message: str) -> None:
    """In one line on stderr. A module's own names are shown and not obeyed."""
    line = logs.escaped(" ".join(message.split()))
    click.echo(f"{program}: {line if len(line) <= _SHOWN else line[:_SHOWN] + ' …'}", err=True)
