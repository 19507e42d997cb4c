"""TOML text: where its keys stand, and values written as such text."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Keys = tuple[str | int, ...]
"""Where a value is: names of keys, and indices in arrays of tables."""

_PART = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_KEY = re.compile(rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*")
_HEADER = re.compile(rf"(\[\[?)[ \t]*({_KEY.pattern})[ \t]*\]\]?")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
# In a value, what is more than a character of it; and what ends that which may hold any of these.
_TOKEN = re.compile(r'"""|\'\'\'|["\'#\n\[\]{}]')
_ENDS = {
    '"""': re.compile(r'\\.|"{3,5}', re.DOTALL),
    "'''": re.compile("'{3,5}"),
    '"': re.compile(r'\\.|"'),
    "'": re.compile("'"),
    "#": re.compile(r"(?=\n)"),
}

_DEEPEST = 200  # tables and arrays in each other


class TooDeepError(ValueError):
    """Nested so deeply that what follows it would have to stop somewhere."""

    def __init__(self) -> None:
        super().__init__("nested too deeply")


def loads(text: str) -> dict[str, Any]:
    """Raises ValueError."""
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise TooDeepError from None
    level: list[Any] = [table]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
        if not level:
            return table
    raise TooDeepError


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def lines(text: str) -> dict[Keys, int]:
    """The line (from 1) where each key and table of a valid TOML text first stands.

    Keys inside `{}` are not in it, nor is what follows syntax that is newer than this.
    """
    found: dict[Keys, int] = {}
    lengths: dict[Keys, int] = {}  # of the arrays of tables
    table: Keys = ()
    at = last = 0
    line = 1
    while (at := _end_of_blank(text, at)) < len(text):
        line += text.count("\n", last, at)
        last = at
        header = _HEADER.match(text, at)
        if header is not None:
            keys = table = _table(_parts(header[2]), lengths, is_new=header[1] == "[[")
            at = header.end()
        else:
            key = _KEY.match(text, at)
            if key is None:
                break
            keys = table + _parts(key[0])
            at = _end_of_value(text, key.end())
        for length in range(1, len(keys) + 1):
            found.setdefault(keys[:length], line)
    return found


def _parts(key: str) -> Keys:
    """`a."b c"` → a, b c: tomllib knows about quotes and escapes."""
    parts: Keys = ()
    inner: Any = loads(f"{key} = 0")
    while isinstance(inner, dict):
        ((part, inner),) = inner.items()
        parts += (part,)
    return parts


def _table(parts: Keys, lengths: dict[Keys, int], *, is_new: bool) -> Keys:
    """What a header leads to: of an array of tables the last one, or (`is_new`) one more."""
    keys: Keys = ()
    for number, part in enumerate(parts, 1):
        keys += (part,)
        if is_new and number == len(parts):
            lengths[keys] = lengths.get(keys, 0) + 1
        if keys in lengths:
            keys += (lengths[keys] - 1,)
    return keys


def _end_of_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    assert blank is not None
    return blank.end()


def _end_of_value(text: str, at: int) -> int:
    """Where the line ends on which the value ends."""
    depth = 0
    while (token := _TOKEN.search(text, at)) is not None:
        at = token.end()
        if token[0] in _ENDS:
            ends = (end.end() for end in _ENDS[token[0]].finditer(text, at) if not end[0].startswith("\\"))
            at = next(ends, len(text))
        elif token[0] == "\n":
            if not depth:
                return at
        else:
            depth += 1 if token[0] in "[{" else -1
    return len(text)


def written(value: Any) -> str:
    """A value as JSON has it (but no null) as TOML, in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{escaped(value)}"'
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{written_key(key)} = {written(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return repr(value)


def written_key(key: str) -> str:
    return key if _BARE.fullmatch(key) else f'"{escaped(key)}"'


def escaped(text: str) -> str:
    """What stands between the quotes: what is not printable does not come through."""
    return "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"
