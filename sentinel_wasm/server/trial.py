"""A request that is tried on the loaded module, beside traffic: in a process of its own, one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from sentinel_wasm.errors import UserError
from sentinel_wasm.server import child
from sentinel_wasm.settings import Settings

MOST_BYTES = 65_536  # of a request's JSON
_MOST_HEADERS = 256
_PATIENCE_S = 5.0
_TRY = "sentinel_wasm.server.trial_process:tried"


class Loaded(NamedTuple):
    """What runs: `settings` with the configurations that modules have now, and the digests of their files."""

    settings: Settings
    sha256: list[str]


class Wanted(NamedTuple):
    """The request, and the response to it where one is given; headers as (name, value)."""

    method: str
    uri: str
    client_ip: str
    headers: list[tuple[str, str]]
    body: str
    status: int  # 0: no response
    response_headers: list[tuple[str, str]]


class WantedError(ValueError):
    """A request that cannot be tried; the message says what is wrong."""


class BusyError(Exception):
    """Another request is being tried."""


def loaded(
    settings: Settings, modules: Iterable[Mapping[str, Any]], configs: Mapping[str, str | None]
) -> Loaded:
    """Of modules as `Status.about` has them. Shadows are not tried."""
    digests = {module["name"]: module["sha256"] for module in modules}
    if not settings.chain:
        return Loaded(replace(settings, module_config=configs[""]), [digests[""]])
    chain = tuple(
        linked._replace(settings=replace(linked.settings, module_config=configs[linked.name]))
        for linked in settings.chain
        if not linked.shadow
    )
    return Loaded(replace(settings, chain=chain), [digests[linked.name] for linked in chain])


class Trials:
    """One at a time: a second one is refused."""

    def __init__(self) -> None:
        self._busy = False

    async def run(self, loaded: Loaded, wanted: Wanted) -> bytes:
        """What came of it, as JSON. Raises BusyError."""
        if self._busy:
            raise BusyError
        self._busy = True
        try:
            came_of_it = await child.ask(_TRY, (loaded, wanted), patience_s=_PATIENCE_S)
        except UserError as error:
            came_of_it = {"error": str(error)}
        finally:
            self._busy = False
        return orjson.dumps(came_of_it)


def read_wanted(body: bytes) -> Wanted:
    """The request in a POST's body. Raises WantedError."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WantedError(f"not JSON: {error}") from None
    if type(data) is not dict:
        raise WantedError("not a JSON object")
    unknown = data.keys() - set(Wanted._fields)
    if unknown:
        raise WantedError(f"unknown: {', '.join(sorted(unknown))[:100]}")
    status = data.get("status", 0)
    if type(status) is not int or not (status == 0 or 100 <= status <= 599):
        raise WantedError("status is not a number from 100 to 599")
    return Wanted(
        _text(data, "method", "GET"),
        _text(data, "uri", "/"),
        _text(data, "client_ip", "127.0.0.1"),
        _headers(data, "headers"),
        _text(data, "body", ""),
        status,
        _headers(data, "response_headers"),
    )


def _text(data: dict[str, Any], name: str, default: str) -> str:
    value = data.get(name, default)
    if type(value) is not str:
        raise WantedError(f"{name} is not a string")
    return value


def _headers(data: dict[str, Any], name: str) -> list[tuple[str, str]]:
    pairs = data.get(name, [])
    if type(pairs) is not list or len(pairs) > _MOST_HEADERS:
        raise WantedError(f"{name} is not a list of at most {_MOST_HEADERS} headers")
    for pair in pairs:
        if type(pair) is not list or len(pair) != 2 or not all(type(part) is str for part in pair):
            raise WantedError(f"{name} has something that is not [name, value]")
    return [(header, value) for header, value in pairs]
