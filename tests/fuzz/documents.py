"""Changes to JSON that leave it JSON, so that what comes after the parser is reached."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from .targets import Change

_NAMES = (
    "decision",
    "correlation_id",
    "headers",
    "payload",
    "status",
    "data",
    "a",
    ":a",
    "X-A",
    "",
    "\0",
    "é",
)
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 99, 600, 2**16, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 2**64),
    *(0.5, -0.0, 1.0, 1.5, 1e308, 1e-320),
    *("", "\0", "\r\n", "a\nb", "é", "\U0001f600", "\ud800", " ", ":", "a" * 300, "YQ==", "YQ", "\x7f"),
    *("allow", "BLOCK", "redirect", "challenge", "replace", "[::1]:1", "1.2.3.4:5"),
    *([], {}, [[]], ["a"], ["a", 1], [None], {"a": "b"}, {"a": ["b", "c"]}, {"": None}),
)


def mutate(data: bytes, limit: int, seed: int, change: Change) -> bytes:
    """For inputs of one byte and a document."""
    made = changed(data[1:], random.Random(seed))
    return change(data, limit) if made is None or len(made) >= limit else data[:1] + made


def changed(text: bytes, pick: random.Random) -> bytes | None:
    """The document with one place changed; None in one case of four, and where it has no place."""
    if pick.randrange(4) == 0:
        return None
    try:
        document = json.loads(text)
        places = list(_places(document))
        if not places:
            return None
        _change(*pick.choice(places), places, pick)
        written = json.dumps(document, ensure_ascii=pick.random() < 0.5, separators=(",", ":"))
    except (ValueError, RecursionError):
        return None
    return written.encode(errors="replace")


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every member, as its container and key."""
    members = enumerate(node) if isinstance(node, list) else node.items() if isinstance(node, dict) else ()
    for key, value in members:
        yield node, key
        yield from _places(value)


def _change(node: Any, key: Any, places: list[tuple[Any, Any]], pick: random.Random) -> None:
    other = pick.choice(places)
    value = copy.deepcopy(pick.choice((pick.choice(_ODD), other[0][other[1]])))
    match pick.randrange(8):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[pick.choice((*_NAMES, str(other[1])))] = value
        case 1:
            node.insert(key, value)
        case 2 if isinstance(node[key], str):
            at = pick.randrange(len(node[key]) + 1)
            node[key] = node[key][:at] + str(value)[:300] + node[key][at:]
        case _:
            node[key] = value
