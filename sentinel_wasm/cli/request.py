"""A request as the user gives it, as for curl or in JSON, and what a module is asked about it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from sentinel_wasm.cli.loading import json_object
from sentinel_wasm.configuration import shown

Event = tuple[str, dict[str, Any]]
"""A hook, and what it is asked."""

_FORM = "application/x-www-form-urlencoded"


def from_url(
    url: str, method: str | None, headers: tuple[str, ...], data: str | None, client_ip: str | None
) -> list[Event]:
    """As curl would send it. Raises click.UsageError."""
    host, uri = target(url)
    sent: dict[str, list[str]] = {"host": [host]}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise click.UsageError(f"-H {header!r} has no colon; expected 'NAME: VALUE'.")
        sent.setdefault(name.strip().lower(), []).append(value.strip())
    if len(sent["host"]) > 1:
        sent["host"] = sent["host"][1:]
    body = None if data is None else _body(data)
    if body is not None:
        sent.setdefault("content-type", [_FORM])
        sent.setdefault("content-length", [str(len(body))])
    request = {
        "method": method or ("GET" if data is None else "POST"),
        "uri": uri,
        "client_ip": client_ip or "127.0.0.1",
        "headers": sent,
    }
    return [("on_request_headers", request), *body_event("on_request_body", body)]


def target(url: str) -> tuple[str, str]:
    """A URL's host, with its port, and its path, with its query. Raises click.UsageError."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise click.UsageError(f"{url!r:.200} is no URL: {error}.") from None
    return parts.netloc.rpartition("@")[2], (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _body(data: str) -> bytes:
    if not data.startswith("@"):
        return data.encode(errors="surrogateescape")
    return _read(data[1:])


def body_event(hook: str, body: bytes | str | None) -> list[Event]:
    """A body in one chunk; None is no body."""
    if body is None:
        return []
    size = len(body.encode() if isinstance(body, str) else body)
    return [(hook, {"data": body, "total_size": size})]


def from_json(event: dict[str, Any], hook: str | None) -> list[Event]:
    """A hook's event, or (None) a request with its body. Raises click.UsageError."""
    return [(hook, event)] if hook is not None else of_request(event)


def of_request(request: dict[str, Any]) -> list[Event]:
    """The events of a request in JSON. Raises click.UsageError."""
    headers = {name: value for name, value in request.items() if name != "body"}
    body = request.get("body")
    if body is not None and not isinstance(body, str):
        raise click.UsageError(f"body of the request is {shown(body)}, expected a string.")
    return [("on_request_headers", headers), *body_event("on_request_body", body)]


def read_json(path: str | None) -> dict[str, Any]:
    """Of a file, or (-) of stdin. Raises click.UsageError."""
    return {} if path is None else json_object(_read(path), path)


def _read(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}.") from None
