"""Several modules, as options and the file of --config say them, to the settings of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import orjson

from sentinel_wasm.configuration import Configuration, ModuleTable
from sentinel_wasm.errors import ConfigurationError
from sentinel_wasm.settings import MOST_MODULES, Linked, Match, Settings

_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_NAME_LENGTH = 64


def tables(paths: Sequence[Path], file: Configuration | None, *, from_file: bool) -> list[ModuleTable]:
    """The modules as tables: the file's, or one for each path of an option. Raises UsageError."""
    if file is not None and from_file and file.modules:
        return file.modules
    if len(paths) > MOST_MODULES:
        raise click.UsageError(f"--module is given {len(paths)} times, {MOST_MODULES} at most.")
    config = file.module_config if file else None
    return [ModuleTable({"module": path}, {"module": "flag", "table": "--module"}, config) for path in paths]


def chained(base: Settings, tables: Sequence[ModuleTable], *, header_names_given: bool) -> Settings:
    """`base` with these modules: what one does not say is as it says. Raises UserError."""
    linked = [
        _linked(base, table, name, header_names_given)
        for table, name in zip(tables, _names(tables), strict=True)
    ]
    (first, *more) = linked
    if not more and first.match == Match() and not first.shadow:
        return first.settings
    if all(one.shadow for one in linked):
        raise ConfigurationError(f"{tables[0].origins['table']}: every module is a shadow")
    if base.sha256 is not None:
        raise click.UsageError("--sha256 is one module's digest: with several, say it in each [[module]].")
    return replace(base, module=first.settings.module, chain=tuple(linked))


def _linked(base: Settings, table: ModuleTable, name: str, header_names_given: bool) -> Linked:
    timeout_ms = table.values.get("timeout_ms", 0)
    if timeout_ms > base.timeout_ms:
        raise ConfigurationError(
            f"{table.origins['timeout_ms']}: timeout-ms of {name} is {timeout_ms}, expected at most"
            f" {base.timeout_ms}: that is the event's"
        )
    if base.workers > 1 and table.match.is_by_request and table.match.hooks != ("on_request_headers",):
        raise ConfigurationError(
            f"{table.origins['match']}: with --workers, a match by routes or path-prefixes wants hooks ="
            ' ["on_request_headers"]: only that event says them, and others may come to another process'
        )
    config = base.module_config if table.config is None else orjson.dumps(table.config).decode()
    settings = replace(base, **table.values, module_config=config)
    return Linked(
        name, settings, table.match, table.shadow, header_names_given or "header_names" in table.values
    )


def _names(tables: Sequence[ModuleTable]) -> list[str]:
    """Those that they say, and made of their files' names for the others. Raises ConfigurationError."""
    taken: dict[str, Any] = {}
    for table in tables:
        if table.name is not None and taken.setdefault(table.name, table) is not table:
            raise ConfigurationError(
                f"{table.origins['name']}: another module has the name {table.name} already"
            )
    names = []
    for table in tables:
        name = table.name
        if name is None:
            stem = _NOT_OF_A_NAME.sub("-", table.values["module"].stem)[:_NAME_LENGTH]
            numbers = iter(range(2, MOST_MODULES + 2))
            name = stem
            while name in taken:
                name = f"{stem}-{next(numbers)}"
            taken[name] = table
        names.append(name)
    return names
