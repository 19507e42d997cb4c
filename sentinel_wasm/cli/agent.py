"""`sentinel-wasm-agent`: options, environment and configuration file to Settings, and run."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click
import orjson
from click.core import ParameterSource

from sentinel_wasm import __version__, logs
from sentinel_wasm.cli import modules
from sentinel_wasm.cli.mistakes import in_one_line
from sentinel_wasm.configuration import Configuration, ModuleTable
from sentinel_wasm.errors import UserError
from sentinel_wasm.settings import Address, Form, Option, Settings, Wanted, options, parse_address

PROGRAM = "sentinel-wasm-agent"
_CHECK = "--check-health"


class _Path(click.Path):
    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if value == "":
            self.fail("The path is empty.", param, ctx)  # pathlib takes it for the current directory
        return super().convert(value, param, ctx)


class _OnePath(_Path):
    def split_envvar_value(self, value: str) -> list[str]:
        """Any character may be in it."""
        return [value]


def address(text: str | Address) -> Address:
    """A type of option; a file has been read already."""
    if isinstance(text, Address):
        return text
    try:
        return parse_address(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


def share(text: str | float) -> float:
    """A type of option; not click's FloatRange, which takes nan."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise click.BadParameter(f"{text!r} is not a number from 0 to 1.")


def text(form: Form) -> Callable[[str], str]:
    """A type of option."""

    def checked(value: str) -> str:
        if re.fullmatch(form.pattern, value) is None:
            raise click.BadParameter(f"{value!r} is not {form.words}.")
        return value

    return checked


def _option(option: Option) -> click.Option:
    """A click option of one setting: its name, type, default and text are said in Settings only.

    That a module is required is for `_run` to say: --print-config is also for who looks for it.
    """
    is_flag = option.kind is bool
    names = [f"--{option.name}/--no-{option.name}" if is_flag else f"--{option.name}"]
    if option.short:
        names.append(f"-{option.short}")
    choice = {
        bool: None,
        int: click.IntRange(min=1, max=option.most),
        float: share,
        Path: _OnePath(path_type=Path),
        tuple: _Path(path_type=Path),
        Address: address,
    }
    return click.Option(
        names,
        type=click.Choice(option.choices)
        if option.choices
        else text(option.form)
        if option.form
        else choice[option.kind],
        is_flag=is_flag,
        multiple=option.kind is tuple or option.field == "module",
        default=option.default,
        envvar=option.variable,
        show_envvar=True,
        show_default=not option.required,
        help=option.help,
    )


def _read(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """What the file says becomes the options' defaults, before they are looked at."""
    if path is not None:
        context.obj = file = Configuration(path)
        paths = [table.values["module"] for table in file.modules]
        if "module" in file.values:
            paths = [file.values["module"]]
        context.default_map = {**file.values, **({"module": paths} if paths else {})}


def _run(arguments: Sequence[str], *, print_config: bool, check_health: bool, **values: Any) -> None:
    context = click.get_current_context()
    file: Configuration | None = context.obj
    if check_health:
        _check(values["admin"])
    if print_config:
        from sentinel_wasm.cli import shown

        origins = {option.field: _origin(context, option) for option in options()}
        tables = _tables(context, values)
        is_list = len(tables) > 1 or (file is not None and tables is file.modules)
        click.echo(shown.as_toml(values, origins, file, tables if is_list else []).encode(), nl=False)
        return
    wanted = _wanted(context, values)
    if wanted.settings.workers > 1:
        from sentinel_wasm.server.supervisor import run
    else:
        from sentinel_wasm.server.run import run  # loads wasmtime: not for --help, nor for a supervisor
    logs.configure(wanted.settings.log_format)
    run(wanted, _Source(file.path if file else None, arguments))


def _wanted(context: click.Context, values: dict[str, Any]) -> Wanted:
    """Raises UsageError."""
    file: Configuration | None = context.obj
    for option in options():
        if option.required and not values[option.field]:
            there = f"{option.name} in {file or 'the file of --config'}"
            raise click.UsageError(f"Missing option '--{option.name}', {option.variable} or {there}.")
    _check_grpc(values)
    config = file.module_config if file else None
    base = Settings(
        **{option.field: values[option.field] for option in options() if option.field != "module"},
        module=values["module"][0],
        module_config=None if config is None else orjson.dumps(config).decode(),
    )
    given = context.get_parameter_source("header_names") is not ParameterSource.DEFAULT
    tables = _tables(context, values)
    settings = modules.chained(base, tables, header_names_given=given)
    return Wanted(settings, given or "header_names" in tables[0].values)


def _tables(context: click.Context, values: dict[str, Any]) -> list[ModuleTable]:
    source = context.get_parameter_source("module")
    return modules.tables(values["module"], context.obj, from_file=source is ParameterSource.DEFAULT_MAP)


def _check_grpc(values: dict[str, Any]) -> None:
    """What goes together. Raises UsageError."""
    address, cert, key = values["grpc"], values["grpc_cert"], values["grpc_key"]
    if address is None and (cert or key or values["grpc_client_ca"]):
        raise click.UsageError("TLS is for --grpc, of which there is no address.")
    if (cert is None) != (key is None):
        raise click.UsageError("--grpc-cert and --grpc-key go together: one of them is missing.")
    if cert is None and values["grpc_client_ca"]:
        raise click.UsageError("--grpc-client-ca is for TLS: --grpc-cert and --grpc-key are missing.")
    if address is not None and address.port == 0 and values["workers"] > 1:
        raise click.UsageError("--workers share one port of --grpc: it cannot be 0.")


class _Source:
    """The same arguments and variables again, with the file of --config as it is then."""

    def __init__(self, file: Path | None, arguments: Sequence[str]) -> None:
        self.file = file
        self._arguments = arguments

    def read(self) -> Wanted:
        """Raises UserError."""
        try:
            context = command().make_context(PROGRAM, list(self._arguments))
            return _wanted(context, context.params)
        except click.UsageError as error:
            raise UserError(error.format_message()) from None


def _origin(context: click.Context, option: Option) -> str:
    source = context.get_parameter_source(option.field)
    if source is ParameterSource.COMMANDLINE:
        return "flag"
    if source is ParameterSource.ENVIRONMENT:
        return f"environment variable {option.variable}"
    file: Configuration | None = context.obj
    return file.origins.get(option.field, "default") if file else "default"


def _check(asked: Address | None) -> NoReturn:
    from sentinel_wasm.cli import health

    if asked is None or asked.port == 0:
        raise click.UsageError(f"{_CHECK} wants the agent's --admin address, or WASM_ADMIN.")
    is_ready, says = health.check(asked)
    click.echo(says)
    sys.exit(0 if is_ready else 1)


def command(arguments: Sequence[str] = ()) -> click.Command:
    """`arguments` are those that it will get."""
    made = click.Command(
        PROGRAM,
        callback=partial(_run, arguments),
        params=[
            click.Option(
                ["--config"],
                type=_Path(path_type=Path),
                envvar="WASM_CONFIG",
                show_envvar=True,
                is_eager=True,
                callback=_read,
                expose_value=False,
                help="A TOML file with any of these options; flags and variables win over it.",
            ),
            *map(_option, options()),
            click.Option(
                ["--print-config"], is_flag=True, help="Show each option's value and origin, and exit."
            ),
            click.Option(
                [_CHECK],
                is_flag=True,
                help="Ask the agent that has this --admin address whether it serves: exit status 0 or 1.",
            ),
        ],
        help="Answer a Sentinel or Zentinel proxy's events with what a WebAssembly module decides.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    return click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)(made)


def main(arguments: list[str] | None = None) -> None:
    """Exit status 0; 2 for a mistake in the options or their file, 1 for an unusable module or socket."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with in_one_line(PROGRAM):
        status = command(arguments).main(arguments, PROGRAM, standalone_mode=False)
    sys.exit(status)


if __name__ == "__main__":
    main()
