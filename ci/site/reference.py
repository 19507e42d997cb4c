"""Pages of reference made from the code: both command lines, configuration, metrics, the Python API."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from sentinel_wasm.cli import agent
from sentinel_wasm.cli.schema import schema
from sentinel_wasm.cli.toolkit import PROGRAM, toolkit
from sentinel_wasm.metrics import FAMILIES
from sentinel_wasm.settings import MOST_MODULES, Address, Option, options

_COLUMNS = 80

_AGENT = f"""# `{agent.PROGRAM}`

What `--help` says. [Running the agent](../running.md) explains the options, [Configuration](configuration.md)
has their values and defaults.

"""
_TOOLKIT = f"""# `{PROGRAM}`

What `--help` says. [For module authors](../toolkit.md) explains the commands, with examples.

"""
_CONFIGURATION = """# Configuration

Each is a key of the file of `--config`, an option with `--` before it, and an environment variable: option
before variable before file before default. [Running the agent](../running.md#options) has what there is to
know beside this; [agent.schema.json](../agent.schema.json) is the same for editors.

"""
_MODULE = f"""
## Modules

In the file `module` may be a table: `path`, and `config` with whatever the module's
[`on_configure`](../abi.md#inputs) is to get. Up to {MOST_MODULES} tables of `[[module]]` are
[several modules](../modules.md). Each has a `path`, may have these, and of the options above
{", ".join(f"`{option.name}`" for option in options() if option.of_module)}.

"""
_METRICS = """# Metrics

What `/metrics` has, and v2 proxies get in a MetricsReport.
[Metrics, health and alerts](../metrics.md#metrics) says what is normal, and what to do when it is not.

"""
_PYTHON = """# Python API

[In Python](../toolkit.md#in-python), [with pytest](../toolkit.md#with-pytest) and
[the agent in a program](../toolkit.md#the-agent-in-a-program) show how these are used.

::: sentinel_wasm.api.Module

::: sentinel_wasm.api.Asked

::: sentinel_wasm.decision

::: sentinel_wasm.embedding.serve

::: sentinel_wasm.pytest_plugin
    options:
      members: [wasm_module, wasm_module_options]

::: sentinel_wasm.errors

::: sentinel_wasm.client
"""


def pages() -> dict[str, str]:
    """Markdown, by the page's path in the site."""
    return {
        "reference/agent.md": _AGENT + _help(_context(agent.command(), agent.PROGRAM)),
        "reference/toolkit.md": _TOOLKIT + _toolkit(),
        "reference/configuration.md": _CONFIGURATION + _configuration() + _MODULE + _modules(),
        "reference/metrics.md": _METRICS + _metrics(),
        "reference/python.md": _PYTHON,
    }


def _toolkit() -> str:
    whole = _context(toolkit, PROGRAM)
    parts = [_help(whole)]
    for name in toolkit.list_commands(whole):
        command = toolkit.get_command(whole, name)
        assert command is not None
        parts.append(f"## `{PROGRAM} {name}`\n\n{_help(_context(command, name, whole))}")
    return "\n".join(parts)


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return click.Context(command, parent, info_name=name, terminal_width=_COLUMNS)


def _help(context: click.Context) -> str:
    return f"```text\n{context.get_help()}\n```\n"


def _configuration() -> str:
    return _table(
        ("key, variable", "value", "default", ""),
        (
            (
                f"`{option.name}`<br>`{option.variable}`",
                _value(option),
                _default(option),
                option.help + (" A reload does not change it." if option.fixed else ""),
            )
            for option in options()
        ),
    )


def _modules() -> str:
    """What only a table of [[module]] has."""
    keys = schema()["properties"]["module"]["anyOf"][-1]["items"]["properties"]
    names = {option.name for option in options()}
    return _table(
        ("key of `[[module]]`", ""),
        (
            (f"`{key}`", said["description"] + _members(said))
            for key, said in keys.items()
            if key != "path" and key not in names
        ),
    )


def _members(said: dict[str, Any]) -> str:
    names = [f"`{name}`" for name in said.get("properties", ())]
    return f" It has {', '.join(names)}." if names else ""


def _value(option: Option) -> str:
    if option.choices:
        return ", ".join(f"`{choice}`" for choice in option.choices)
    if option.kind is int:
        return f"1 to {option.most:,}"
    if option.kind is float:
        return "0 to 1"
    if option.form is not None:
        return option.form.words
    return {bool: "`true` or `false`", Path: "a path", tuple: "paths", Address: "an address"}[option.kind]


def _default(option: Option) -> str:
    if option.required:
        return "required"
    if option.default in (None, ()):
        return "not set"
    return f"`{str(option.default).lower() if option.kind is bool else option.default}`"


def _metrics() -> str:
    return _table(
        ("metric", "kind", ""), ((f"`{family.name}`", family.kind, family.help) for family in FAMILIES)
    )


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    rule = ("---",) * len(heads)
    return "".join(f"| {' | '.join(row)} |\n" for row in (heads, rule, *rows))
