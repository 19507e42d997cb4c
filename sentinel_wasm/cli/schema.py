"""`python -m sentinel_wasm.cli.schema`: the JSON Schema of the configuration file, made from Settings."""

from __future__ import annotations

import json
from typing import Any

from sentinel_wasm.cli.shown import as_json
from sentinel_wasm.configuration import MATCHES, NAME
from sentinel_wasm.settings import MOST_MODULES, Address, Form, Option, options

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PATH = {"type": "string", "pattern": r"^[^\u0000]+$"}


def schema() -> dict[str, Any]:
    properties = {option.name: _property(option) for option in options()}
    path = properties["module"]
    description = path.pop("description")
    table = {
        "type": "object",
        "properties": {
            "path": path,
            "config": {"type": "object", "description": "What the module's on_configure gets."},
        },
        "additionalProperties": False,
    }
    tables = {"type": "array", "minItems": 1, "maxItems": MOST_MODULES, "items": _one_of_several(path)}
    properties["module"] = {"description": description, "anyOf": [path, table, tables]}
    return {
        "$schema": _DIALECT,
        "title": "Configuration file of sentinel-wasm-agent",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _one_of_several(path: dict[str, Any]) -> dict[str, Any]:
    """A table of [[module]]."""
    match = {name: {"type": "array", "minItems": 1, "items": _text(form)} for name, form in MATCHES.items()}
    properties = {
        "path": path,
        "name": {"description": "Its name in metrics and logs: else its file's.", **_text(NAME)},
        "config": {"type": "object", "description": "What the module's on_configure gets."},
        **{option.name: _property(option) for option in options() if option.of_module},
        "match": {
            "description": "The events that it is asked about: all of what is said must hold.",
            "type": "object",
            "properties": match,
            "additionalProperties": False,
        },
        "shadow": {
            "description": "It is asked beside the others, and its answers are compared only.",
            "type": "boolean",
            "default": False,
        },
    }
    for option in options():
        if option.of_module:
            properties[option.name].pop("default", None)  # it is the one above
    return {"type": "object", "properties": properties, "required": ["path"], "additionalProperties": False}


def _text(form: Form) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^({form.pattern})$"}


def _property(option: Option) -> dict[str, Any]:
    made: dict[str, Any] = {"description": option.help}
    if option.choices:
        made["enum"] = list(option.choices)
    elif option.kind is bool:
        made["type"] = "boolean"
    elif option.kind is int:
        made |= {"type": "integer", "minimum": 1, "maximum": option.most}
    elif option.kind is float:
        made |= {"type": "number", "minimum": 0, "maximum": 1}
    elif option.form is not None:
        made |= {"type": "string", "pattern": f"^{option.form.pattern}$"}
    elif option.kind is Address:
        made |= {"type": "string", "pattern": r"^(\[[^\[\]\s]+\]|[^\[\]:\s]*):[0-9]{1,5}$"}
    elif option.kind is tuple:
        made |= {"type": "array", "items": _PATH}
    else:
        made |= _PATH
    if option.default is not None:
        made["default"] = as_json(option.default)
    return made


def main() -> None:
    print(json.dumps(schema(), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
