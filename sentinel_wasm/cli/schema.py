"""`python -m sentinel_wasm.cli.schema`: the JSON Schema of the configuration file, made from Settings."""

from __future__ import annotations

import json
from typing import Any

from sentinel_wasm.cli.shown import as_json
from sentinel_wasm.settings import Address, Option, options

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
    properties["module"] = {"description": description, "anyOf": [path, table]}
    return {
        "$schema": _DIALECT,
        "title": "Configuration file of sentinel-wasm-agent",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


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
