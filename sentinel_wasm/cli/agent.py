"""`sentinel-wasm-agent`: options and environment to Settings, and run."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import click

from sentinel_wasm import __version__, logs
from sentinel_wasm.errors import UserError
from sentinel_wasm.settings import Address, Settings, parse_address

PROGRAM = "sentinel-wasm-agent"
_SHOWN = 2000  # characters of a message
_CHECK = "--check-health"


class _Path(click.Path):
    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if value == "":
            self.fail("The path is empty.", param, ctx)  # pathlib takes it for the current directory
        return super().convert(value, param, ctx)


def address(text: str) -> Address:
    """A type of option."""
    try:
        return parse_address(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


class _Command(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if _CHECK in args:
            for parameter in self.params:
                parameter.required = False
        return super().parse_args(ctx, args)


def _option(field: dataclasses.Field[Any], kind: Any) -> click.Option:
    """A click option of one setting: its name, type, default and text are said in Settings only."""
    dashed = field.name.replace("_", "-")
    meta = field.metadata
    required = field.default is dataclasses.MISSING
    names = [f"--{dashed}/--no-{dashed}" if field.default is True else f"--{dashed}"]
    if meta["short"]:
        names.append(f"-{meta['short']}")
    choice = {
        bool: None,
        int: click.IntRange(min=1, max=meta["most"]),
        Path: _Path(path_type=Path),
        Path | None: _Path(path_type=Path),
        Address | None: address,
    }
    return click.Option(
        names,
        type=click.Choice(meta["choices"]) if meta["choices"] else choice[kind],
        is_flag=kind is bool,
        **({"required": True} if required else {"default": field.default}),
        envvar=meta["variable"],
        show_envvar=True,
        show_default=not required,
        help=meta["help"],
    )


def _run(check_health: bool, **values: Any) -> None:
    if check_health:
        _check(values["admin"])
    settings = Settings(**values)
    if settings.workers > 1:
        from sentinel_wasm.server.supervisor import run
    else:
        from sentinel_wasm.server.run import run  # loads wasmtime: not for --help, nor for a supervisor
    logs.configure()
    source = click.get_current_context().get_parameter_source("header_names")
    given = source is not None and source is not click.core.ParameterSource.DEFAULT
    run(settings, header_names_given=given)


def _check(asked: Address | None) -> NoReturn:
    from sentinel_wasm.cli import health

    if asked is None or asked.port == 0:
        raise click.UsageError(f"{_CHECK} wants the agent's --admin address, or WASM_ADMIN.")
    is_ready, says = health.check(asked)
    click.echo(says)
    sys.exit(0 if is_ready else 1)


def command() -> click.Command:
    kinds = get_type_hints(Settings)
    parameters: list[click.Parameter] = [
        _option(field, kinds[field.name]) for field in dataclasses.fields(Settings)
    ]
    parameters.append(
        click.Option(
            [_CHECK],
            is_flag=True,
            help="Ask the agent that has this --admin address whether it serves: exit status 0 or 1.",
        )
    )
    made = _Command(
        PROGRAM,
        callback=_run,
        params=parameters,
        help="Answer a Sentinel or Zentinel proxy's events with what a WebAssembly module decides.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    return click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)(made)


def main(arguments: list[str] | None = None) -> None:
    """Exit status 0; 2 for a mistake in the options, 1 for a module or socket that cannot be used."""
    try:
        status = command().main(arguments, PROGRAM, standalone_mode=False)
    except click.UsageError as error:
        _fail(f"{error.format_message()} (see {PROGRAM} --help)", 2)
    except (UserError, ImportError) as error:
        _fail(str(error), 1)
    sys.exit(status)


def _fail(message: str, status: int) -> NoReturn:
    """One line, in which a module's own names are shown and not obeyed."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(message.split()))
    click.echo(f"{PROGRAM}: {line if len(line) <= _SHOWN else line[:_SHOWN] + ' …'}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
