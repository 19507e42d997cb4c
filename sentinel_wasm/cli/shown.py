"""--print-config: each option and where its value came from, as a file that --config would take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentinel_wasm import toml
from sentinel_wasm.configuration import Configuration
from sentinel_wasm.settings import Address, options


def as_toml(values: dict[str, Any], origins: dict[str, str], file: Configuration | None) -> str:
    """`values` and `origins` by the fields of Settings. Paths become absolute: the text may go elsewhere."""
    config = file.module_config if file else None
    lines = []
    for option in options():
        if option.field != "module" or config is None:
            lines.append(_line(option.name, values[option.field], origins[option.field]))
    if file is not None and config is not None:
        lines += ["", "[module]", _line("path", values["module"], origins["module"])]
        lines += ["", "[module.config]", *_config_lines(file, config)]
    return "".join(f"{line}\n" for line in lines)


def _config_lines(file: Configuration, config: dict[str, Any]) -> Iterator[str]:
    for key, value in config.items():
        yield _line(toml.written_key(key), value, file.place("module", "config", key))


def _line(key: str, value: Any, origin: str) -> str:
    if value is None:
        return f"# {key} is not set"
    return f"{key} = {toml.written(as_json(value))}  # {toml.escaped(origin)}"


def as_json(value: Any) -> Any:
    """An option's value as it stands in a file."""
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, Address):
        return str(value)
    return [*map(as_json, value)] if isinstance(value, tuple) else value
