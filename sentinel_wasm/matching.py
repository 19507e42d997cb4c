"""Which modules of a chain are asked about which event."""

from __future__ import annotations

import posixpath
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from sentinel_wasm.guest import abi
from sentinel_wasm.protocol.events import Event, RequestHeaders
from sentinel_wasm.settings import Linked, Match

_KEPT = 65_536
_KEPT_NS = 30_000_000_000

LeftOut = OrderedDict[str, tuple[frozenset[str], int]]
"""By correlation id: the modules that a request is not for, and until when that is kept."""

_NOBODY: tuple[frozenset[str], int] = frozenset(), 0


class Matches:
    """What is decided at a request's headers holds for its later events, as long as their instances' pins do.

    An event whose request's headers were not seen is for every module that has its hook. `left_out` is for
    what is kept; another agent's requests may be in it already.
    """

    def __init__(self, chain: Iterable[Linked], left_out: LeftOut) -> None:
        self._left_out = left_out
        self._matches = {linked.name: linked.match for linked in chain}
        self._is_by_request = any(match.is_by_request for match in self._matches.values())

    def takes(self, name: str, hook: int, event: Event) -> bool:
        """Whether the module of this name is asked about an event, which `look_at` has seen."""
        hooks = self._matches[name].hooks
        if hooks and abi.HOOKS[hook] not in hooks:
            return False
        kept = self._left_out.get(event.correlation_id) if self._left_out else None
        return kept is None or name not in kept[0]

    def look_at(self, event: Event, payload: Any = None) -> None:
        """At a request's headers: which modules it is for; at its later events: that this still holds.

        `payload` is what headers were read from.
        """
        if not self._is_by_request:
            return
        left_out, _ = self._left_out.pop(event.correlation_id, _NOBODY)
        if isinstance(event, RequestHeaders):
            route, paths = payload["metadata"].get("route_id"), _paths(event.uri)
            left_out = frozenset(
                name for name, match in self._matches.items() if not _takes_request(match, route, paths)
            )
        now_ns = time.monotonic_ns()
        while self._left_out and (
            len(self._left_out) >= _KEPT or next(iter(self._left_out.values()))[1] <= now_ns
        ):
            self._left_out.popitem(last=False)
        if left_out:
            self._left_out[event.correlation_id] = left_out, now_ns + _KEPT_NS

    def forget(self, correlation_id: str) -> None:
        """The request is over."""
        self._left_out.pop(correlation_id, None)


def _takes_request(match: Match, route: Any, paths: tuple[str, ...]) -> bool:
    return (not match.routes or route in match.routes) and (
        not match.path_prefixes or any(path.startswith(match.path_prefixes) for path in paths)
    )


def _paths(uri: str) -> tuple[str, ...]:
    """The path as it came and as an upstream may read it: writing it otherwise leads past no module."""
    path = uri.partition("?")[0].partition("#")[0]
    if not path.startswith("/"):
        # The absolute form (RFC 9112, section 3.2.2).
        path = "/" + path.partition("://")[2].partition("/")[2]
    plain = unquote(path)
    end = "/" if plain.endswith(("/", "/.", "/..")) else ""
    return path, posixpath.normpath("/" + plain.lstrip("/")).rstrip("/") + end
