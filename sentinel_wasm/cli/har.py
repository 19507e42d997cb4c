"""A HAR file (HTTP Archive 1.2), as browsers and proxies save it: what a module is asked about each entry."""

from __future__ import annotations

from typing import Any, TypeVar

import click

from sentinel_wasm import base64
from sentinel_wasm.cli.request import Event, body_event, target
from sentinel_wasm.configuration import shown

Value = TypeVar("Value", dict[str, Any], list[Any], str, int)

_WORDS: dict[type, str] = {dict: "an object", list: "an array", str: "a string", int: "a whole number"}


def from_har(har: dict[str, Any], path: str) -> list[tuple[str, list[Event]]]:
    """Of each entry what it is, and its events. Raises click.UsageError."""
    log = _field(har, "log", dict, path)
    entries = _field(log, "entries", list, f"{path}: log")
    if not entries:
        raise click.UsageError(f"{path} is a HAR file without entries.")
    return [_entry(entry, f"entry {number}", path) for number, entry in enumerate(entries, 1)]


def _entry(entry: Any, name: str, path: str) -> tuple[str, list[Event]]:
    where = f"{path}: {name}"
    request = _field(_object(entry, where), "request", dict, where)
    response = _field(entry, "response", dict, where, {})
    asked = f"{where}: request"
    method, url = _field(request, "method", str, asked), _field(request, "url", str, asked)
    host, uri = target(url)
    headers = _headers(request, asked)
    headers.setdefault("host", [host])  # over HTTP/2 it is not among them
    events: list[Event] = [("on_request_headers", {"method": method, "uri": uri, "headers": headers})]
    post = _field(request, "postData", dict, asked, {})
    events += body_event("on_request_body", _text(post, f"{asked}.postData"))
    events += _response(response, f"{where}: response")
    return f"{name}: {method} {url}", [(hook, {**event, "correlation_id": name}) for hook, event in events]


def _response(response: dict[str, Any], where: str) -> list[Event]:
    """Nothing, where none has come: browsers give it the status 0."""
    status = _field(response, "status", int, where, 0)
    if status == 0:
        return []
    content = _field(response, "content", dict, where, {})
    return [
        ("on_response_headers", {"status": status, "headers": _headers(response, where)}),
        *body_event("on_response_body", _text(content, f"{where}.content")),
    ]


def _headers(message: dict[str, Any], where: str) -> dict[str, list[str]]:
    """Without HTTP/2's own, as `:path`."""
    headers: dict[str, list[str]] = {}
    for header in _field(message, "headers", list, where):
        name, value = (
            _field(_object(header, f"{where}.headers"), part, str, f"{where}.headers")
            for part in ("name", "value")
        )
        if not name.startswith(":"):
            headers.setdefault(name.lower(), []).append(value)
    return headers


def _text(content: dict[str, Any], where: str) -> bytes | str | None:
    """What was saved of a body."""
    if content.get("text") is None:
        return None
    text = _field(content, "text", str, where)
    if content.get("encoding") != "base64":
        return text
    try:
        return base64.decode(text)
    except ValueError as error:
        raise click.UsageError(f"{where}.text is not base64: {error}.") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise click.UsageError(f"{where} is {shown(value)}, expected an object.")
    return value


def _field(
    table: dict[str, Any], name: str, kind: type[Value], where: str, default: Value | None = None
) -> Value:
    """`default` for what is absent or null."""
    value = table.get(name)
    value = default if value is None else value
    if type(value) is not kind:
        raise click.UsageError(f"{where}.{name} is {shown(value)}, expected {_WORDS[kind]}.")
    return value
