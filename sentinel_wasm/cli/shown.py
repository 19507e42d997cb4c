"""--print-config: each option and where its value came from, as a file that --config would take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sentinel_wasm import toml
from sentinel_wasm.configuration import Configuration, ModuleTable
from sentinel_wasm.settings import Address, Match, options


def as_toml(
    values: dict[str, Any],
    origins: dict[str, str],
    file: Configuration | None,
    tables: Sequence[ModuleTable],
) -> str:
    """`values` and `origins` by the fields of Settings; `tables` where there are several modules.

    Paths become absolute: the text may go elsewhere.
    """
    config = file.module_config if file else None
    lines = []
    for option in options():
        if option.field != "module":
            lines.append(_line(option.name, values[option.field], origins[option.field]))
        elif not tables and config is None:
            lines.append(_line("module", _only(values["module"]), origins["module"]))
    if tables:
        for number, table in enumerate(tables):
            lines += _table(number, table, file)
    elif file is not None and config is not None:
        lines += ["", "[module]", _line("path", _only(values["module"]), origins["module"])]
        lines += ["", "[module.config]", *_config_lines(file, config, "module", "config")]
    return "".join(f"{line}\n" for line in lines)


def _only(modules: Sequence[Path]) -> Path | None:
    return modules[0] if modules else None


def _table(number: int, table: ModuleTable, file: Configuration | None) -> Iterator[str]:
    yield from ("", "[[module]]", _line("path", table.values["module"], table.origins["module"]))
    if table.name is not None:
        yield _line("name", table.name, table.origins["name"])
    for option in options():
        if option.of_module and option.field in table.values:
            yield _line(option.name, table.values[option.field], table.origins[option.field])
    if table.match != Match():
        said = {name.replace("_", "-"): list(items) for name, items in table.match._asdict().items() if items}
        yield _line("match", said, table.origins["match"])
    if table.shadow:
        yield _line("shadow", table.shadow, table.origins["shadow"])
    if table.config is not None and file is not None:
        keys = ("module", number, "config") if table in file.modules else ("module", "config")
        yield from ("", "[module.config]", *_config_lines(file, table.config, *keys))


def _config_lines(file: Configuration, config: dict[str, Any], *keys: str | int) -> Iterator[str]:
    for key, value in config.items():
        yield _line(toml.written_key(key), value, file.place(*keys, key))


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
