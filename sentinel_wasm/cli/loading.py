"""How the toolkit's commands are told to load a module, and JSON that they are given."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import click
import orjson

Function = TypeVar("Function", bound=Callable[..., Any])


def json_object(text: bytes, name: str) -> dict[str, Any]:
    """Raises click.UsageError."""
    value = _json(text, name)
    if type(value) is not dict:
        raise click.UsageError(f"{name} is not a JSON object.")
    return value


def json_objects(text: bytes, name: str) -> list[dict[str, Any]]:
    """Of an array that is not empty. Raises click.UsageError."""
    value = _json(text, name)
    if type(value) is not list or not value or not all(type(one) is dict for one in value):
        raise click.UsageError(f"{name} is not a JSON array of objects.")
    return value


def _json(text: bytes, name: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"{name} is not JSON: {error}.") from None


def _config(_: click.Context, __: click.Parameter, file: BinaryIO | None) -> dict[str, Any] | None:
    return None if file is None else json_object(file.read(), file.name)


def end_at_ctrl_c() -> None:
    """At once: an exception amid wasmtime's own cleaning up would have it free twice."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def load_options(function: Function) -> Function:
    """What `Module.load` takes beside the file: `config`, `timeout_ms`, `memory_limit`."""
    limits = click.IntRange(1, 60_000), click.IntRange(1, 4096)
    for option in (
        click.option("--memory-limit", type=limits[1], default=64, show_default=True, help="In MiB."),
        click.option("--timeout-ms", type=limits[0], default=40, show_default=True),
        click.option(
            "--module-config",
            "config",
            type=click.File("rb"),
            callback=_config,
            metavar="FILE.json",
            help="For its on_configure.",
        ),
    ):
        function = option(function)
    return function
