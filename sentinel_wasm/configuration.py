"""The configuration file, read and checked against Settings: a mistake is one line that says where it is."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, get_args

from sentinel_wasm import toml
from sentinel_wasm.errors import ConfigurationError
from sentinel_wasm.settings import (
    MOST_MODULES,
    Address,
    EventHook,
    Form,
    Match,
    Option,
    options,
    parse_address,
)

_MOST_BYTES = 1024 * 1024
_DEEPEST = 100  # levels of [module.config]: orjson goes to 254
_SHOWN = 60  # characters of a value
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_OPTIONS = {option.name: option for option in options()}
_MODULE_KEYS = ("path", "config")
_OWN_OPTIONS = {option.name: option for option in options() if option.of_module}
_CHAIN_KEYS = ("path", "name", "config", *_OWN_OPTIONS, "match", "shadow")
NAME = Form("[A-Za-z0-9_.-]{1,64}", "a name of letters, digits, points, dashes and underscores")
MATCHES = {
    "routes": Form(r"[\s\S]+", "a route's id"),
    "path-prefixes": Form(r"/[\s\S]*", "the beginning of a path, as /api/"),
    "hooks": Form("|".join(get_args(EventHook)), f"one of {', '.join(get_args(EventHook))}"),
}


@dataclass(frozen=True, slots=True)
class ModuleTable:
    """One of several modules, as a user has written it.

    `values` and `origins` are as in Configuration, `module` its path; `origins` has `name`, `match` and
    `shadow` too, and `table`.
    """

    values: dict[str, Any]
    origins: dict[str, str]
    config: dict[str, Any] | None = None
    name: str | None = None
    match: Match = Match()
    shadow: bool = False


class Configuration:
    """What a file says.

    `values` and `origins` (`agent.toml:7`) are by the fields of Settings, for the options that the file has;
    its paths begin at its own directory. `module_config` is `[module.config]`, None where there is none.
    `modules` are the tables of `[[module]]`, and then `values` has no module.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError."""
        self.path = path
        text = _read(path)
        document = _parse(path, text)
        self._lines = toml.lines(text)
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.module_config: dict[str, Any] | None = None
        self.modules: list[ModuleTable] = []
        for name, value in document.items():
            if name == "module" and isinstance(value, dict):
                self._take_module(value)
            elif name == "module" and isinstance(value, list):
                self._take_modules(value)
            elif name in _OPTIONS:
                self._take(_OPTIONS[name], value, name)
            else:
                raise self._unknown((name,), _OPTIONS)

    def __str__(self) -> str:
        return str(self.path)

    def place(self, *keys: str | int) -> str:
        """`agent.toml:7`, where a key stands, or the innermost one around it whose line is known."""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return f"{self.path}:{self._lines[keys]}" if keys else str(self.path)

    def _take_module(self, table: dict[str, Any]) -> None:
        for name, value in table.items():
            if name == "path":
                self._take(_OPTIONS["module"], value, "module", name)
            elif name == "config":
                self.module_config = self._config(("module", name), value)
            else:
                raise self._unknown(("module", name), _MODULE_KEYS)

    def _take_modules(self, tables: list[Any]) -> None:
        if not 1 <= len(tables) <= MOST_MODULES:
            raise ConfigurationError(
                f"{self.place('module')}: module has {len(tables)} tables, expected 1 to {MOST_MODULES}"
            )
        for number, table in enumerate(tables):
            keys = ("module", number)
            if not isinstance(table, dict):
                raise self._wrong(keys, table, "a table")
            self.modules.append(self._module_table(keys, table))

    def _module_table(self, keys: toml.Keys, table: dict[str, Any]) -> ModuleTable:
        values: dict[str, Any] = {}
        origins = {"table": self.place(*keys)}
        for name, value in table.items():
            own = (*keys, name)
            option = _OPTIONS["module"] if name == "path" else _OWN_OPTIONS.get(name)
            if option is not None:
                values[option.field] = self._value(option, value, own)
            elif name not in _CHAIN_KEYS:
                raise self._unknown(own, _CHAIN_KEYS)
            origins[option.field if option else name] = self.place(*own)
        if "module" not in values:
            raise ConfigurationError(f"{self.place(*keys)}: {_dotted(keys)} has no path")
        own_name = table.get("name")
        if own_name is not None and not _is_of(NAME, own_name):
            raise self._wrong((*keys, "name"), own_name, f"{NAME.words} in quotes")
        shadow = table.get("shadow", False)
        if type(shadow) is not bool:
            raise self._wrong((*keys, "shadow"), shadow, "true or false")
        config = self._config((*keys, "config"), table["config"]) if "config" in table else None
        match = self._match((*keys, "match"), table.get("match", {}))
        return ModuleTable(values, origins, config, own_name, match, shadow)

    def _match(self, keys: toml.Keys, table: Any) -> Match:
        if not isinstance(table, dict):
            raise self._wrong(keys, table, "a table")
        for name, items in table.items():
            own = (*keys, name)
            if name not in MATCHES:
                raise self._unknown(own, MATCHES)
            if not isinstance(items, list) or not items:
                raise self._wrong(own, items, "an array with something in it")
            for number, item in enumerate(items):
                if not _is_of(MATCHES[name], item):
                    raise self._wrong((*own, number), item, f"{MATCHES[name].words} in quotes")
        return Match(**{name.replace("-", "_"): tuple(items) for name, items in table.items()})

    def _take(self, option: Option, value: Any, *keys: str) -> None:
        self.values[option.field] = self._value(option, value, keys)
        self.origins[option.field] = self.place(*keys)

    def _value(self, option: Option, value: Any, keys: toml.Keys) -> Any:
        if not is_good(option, value):
            or_else = ", a table or an array of tables" if keys == ("module",) else ""
            raise self._wrong(keys, value, expected_of(option) + or_else)
        if option.kind is Path:
            return self._path(value)
        if option.kind is tuple:
            return tuple(map(self._path, value))
        if option.kind is Address:
            return parse_address(value)
        return float(value) if option.kind is float else value

    def _path(self, value: str) -> Path:
        return self.path.absolute().parent / value

    def _config(self, keys: toml.Keys, table: Any) -> dict[str, Any]:
        if not isinstance(table, dict):
            raise self._wrong(keys, table, "a table")
        self._check_free(keys, table)
        return table

    def _check_free(self, keys: toml.Keys, value: Any) -> None:
        """What the guest gets must be JSON, and such that the agent can write it."""
        if len(keys) > _DEEPEST:
            raise ConfigurationError(f"{self.place(*keys)}: [module.config] is nested too deeply")
        if isinstance(value, dict | list):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                self._check_free((*keys, key), item)
        elif isinstance(value, float) and not math.isfinite(value):
            raise self._wrong(keys, value, "a finite number: JSON has no other")
        elif isinstance(value, int) and value.bit_length() > 63:
            raise self._wrong(keys, value, "a smaller one")
        elif not isinstance(value, str | int | float):
            raise self._wrong(keys, value, "a string: JSON has no dates")

    def _wrong(self, keys: toml.Keys, value: Any, expected: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.place(*keys)}: {_dotted(keys)} is {shown(value)}, expected {expected}"
        )

    def _unknown(self, keys: toml.Keys, known: Iterable[str]) -> ConfigurationError:
        *tables, name = keys
        near = difflib.get_close_matches(str(name).replace("_", "-").lower(), known, 1)
        if tables and name in _OPTIONS:
            hint = f"did you mean {name}, above [{_dotted(tables)}]?"
        elif near:
            hint = f"did you mean {_dotted((*tables, *near))}?"
        else:
            hint = f"expected one of {', '.join(_dotted((*tables, key)) for key in known)}"
        return ConfigurationError(f"{self.place(*keys)}: unknown key {shown(_dotted(keys))}, {hint}")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise ConfigurationError(f"{path}: longer than {_MOST_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}:{line}: not UTF-8") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return toml.loads(text)
    except toml.TooDeepError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    except ValueError as error:
        # A TOMLDecodeError says its line in its text only; a number that is too long for Python has none.
        place = _PLACE.search(str(error))
        reason = str(error)[: place.start()] if place else str(error)
        line = f":{place[1] or len(text.splitlines())}" if place else ""
        raise ConfigurationError(f"{path}{line}: not TOML: {reason}") from None


def is_good(option: Option, value: Any) -> bool:
    """Whether an option may have this value, as TOML and JSON have it."""
    if option.choices:
        return value in option.choices
    if option.kind is Path:
        return _is_path(value)
    if option.kind is tuple:
        return type(value) is list and all(map(_is_path, value))
    if option.kind is Address:
        return type(value) is str and _is_address(value)
    if option.kind is int:
        return type(value) is int and 1 <= value <= (option.most or 0)
    if option.kind is float:
        return type(value) in (int, float) and 0 <= value <= 1
    if option.form is not None:
        return _is_of(option.form, value)
    return type(value) is bool


def _is_of(form: Form, value: Any) -> bool:
    return type(value) is str and re.fullmatch(form.pattern, value) is not None


def _is_path(value: Any) -> bool:
    return type(value) is str and value != "" and "\0" not in value


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


def expected_of(option: Option) -> str:
    """What would be good, for a message."""
    if option.choices:
        return f"{', '.join(option.choices[:-1])} or {option.choices[-1]}"
    if option.kind is Path:
        return "a path in quotes"
    if option.kind is tuple:
        return "an array of paths in quotes"
    if option.kind is Address:
        return "host:port, [address]:port or :port in quotes"
    if option.kind is int:
        return f"a whole number from 1 to {option.most}"
    if option.kind is float:
        return "a number from 0 to 1"
    if option.form is not None:
        return f"{option.form.words} in quotes"
    return "true or false"


def _dotted(keys: Iterable[str | int]) -> str:
    return ".".join(map(str, keys))


def shown(value: Any) -> str:
    """A value in a message, short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return toml.written(value)
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
    if isinstance(value, int) and value.bit_length() > 63:
        return "a number of over 64 bits"  # which Python may refuse to write in full
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, date | time):
        return "a date"
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    return f"of type {type(value).__name__}"  # from a program: TOML and JSON have no more
