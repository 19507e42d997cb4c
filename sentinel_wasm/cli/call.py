"""`sentinel-wasm call`: one request at a module, and all that comes of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import orjson

from sentinel_wasm import logs
from sentinel_wasm.api import FIELDS, Asked, Module
from sentinel_wasm.cli.loading import json_object, load_options
from sentinel_wasm.errors import ModuleError
from sentinel_wasm.protocol import answers

Event = tuple[str, dict[str, Any]]
"""A hook, and what it is asked."""

_FORM = "application/x-www-form-urlencoded"


@click.command()
@click.argument("module", type=click.Path(path_type=Path))
@click.argument("request", required=False, metavar="[URL|REQUEST.json|-]")
@click.option("-X", "--request", "method", metavar="METHOD", help="The method; GET, or POST with -d.")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header; repeatable."
)
@click.option("-d", "--data", metavar="TEXT|@FILE", help="A body, which goes to on_request_body.")
@click.option("--client-ip", metavar="ADDRESS", help="Where the request comes from; 127.0.0.1.")
@click.option("--hook", type=click.Choice(list(FIELDS)), help="Ask this hook alone; the JSON is its event.")
@load_options
@click.option("--fail-open", is_flag=True, help="What the agent was started with: failures allow.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a call.")
def call(
    module: Path,
    request: str | None,
    method: str | None,
    headers: tuple[str, ...],
    data: str | None,
    client_ip: str | None,
    hook: str | None,
    config: dict[str, Any] | None,
    timeout_ms: int,
    memory_limit: int,
    fail_open: bool,
    as_json: bool,
) -> int:
    """Ask MODULE about one request, given as for curl or as JSON.

    Shown are what the module reads, what it returns, the decision, the answer to the proxy, and its time.
    The JSON has method, uri, client_ip, headers and body; with --hook, that hook's event. The exit status is
    1 where the module fails.

    \b
    sentinel-wasm call filter.wasm 'https://example.com/search?q=1' -H 'User-Agent: test'
    sentinel-wasm call filter.wasm -X POST https://example.com/ -d '{"a":1}'
    sentinel-wasm call filter.wasm request.json
    sentinel-wasm call filter.wasm --hook on_response_headers response.json
    """
    flags = {"-X": method, "-H": headers, "-d": data, "--client-ip": client_ip}
    if request is not None and "://" in request:
        if hook is not None:
            raise click.UsageError("--hook wants its event as JSON, not a URL.")
        events = _from_url(request, method, headers, data, client_ip)
    else:
        if given := [flag for flag, value in flags.items() if value]:
            raise click.UsageError(f"without a URL, as 'https://example.com/path', no {', '.join(given)}.")
        events = _from_json(_read_json(request), hook)
    failed = False
    with Module.load(module, config, timeout_ms=timeout_ms, memory_limit=memory_limit) as loaded:
        for level, source, text in loaded.start_log:
            click.echo(f"start     {level} {source}: {logs.escaped(text)}", err=True)
        for name, event in events:
            asked = loaded.ask(name, event, fail_open=fail_open)
            click.echo(
                _as_json(asked) if as_json else "\n".join(_lines(asked, is_asked=name in loaded.hooks))
            )
            failed = failed or asked.error is not None
            if failed or asked.decision.summary()["decision"] != "allow":
                break
    return 1 if failed else 0


def _from_url(
    url: str, method: str | None, headers: tuple[str, ...], data: str | None, client_ip: str | None
) -> list[Event]:
    parts = urlsplit(url)
    sent: dict[str, list[str]] = {"host": [parts.netloc.rpartition("@")[2]]}
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
        "uri": (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        "client_ip": client_ip or "127.0.0.1",
        "headers": sent,
    }
    return [("on_request_headers", request), *_body_event(body)]


def _body(data: str) -> bytes:
    if not data.startswith("@"):
        return data.encode(errors="surrogateescape")
    return _read(data[1:])


def _body_event(body: bytes | str | None) -> Iterator[Event]:
    if body is not None:
        size = len(body.encode() if isinstance(body, str) else body)
        yield "on_request_body", {"data": body, "total_size": size}


def _from_json(event: dict[str, Any], hook: str | None) -> list[Event]:
    return [(hook, event)] if hook is not None else of_request(event)


def of_request(request: dict[str, Any]) -> list[Event]:
    """The events of a request in JSON. Raises click.UsageError."""
    headers = {name: value for name, value in request.items() if name != "body"}
    body = request.get("body")
    if body is not None and not isinstance(body, str):
        raise click.UsageError(f"body of the request is {body!r:.60}, expected a string.")
    return [("on_request_headers", headers), *_body_event(body)]


def _read_json(path: str | None) -> dict[str, Any]:
    return {} if path is None else json_object(_read(path), path)


def _read(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}.") from None


def _answer(asked: Asked) -> bytes:
    """As a v2 proxy gets it, but for the correlation id."""
    return answers.encode(asked.decision, 2)


def _as_json(asked: Asked) -> str:
    return orjson.dumps(
        {
            "hook": asked.hook,
            "input": orjson.Fragment(asked.input),
            "result": None if asked.result is None else asked.result.decode(errors="replace"),
            "decision": asked.decision.summary(),
            "answer": orjson.Fragment(_answer(asked)),
            "guest_us": asked.guest_ns / 1000,
            "log": [{"level": level, "source": source, "text": text} for level, source, text in asked.log],
            "error": _failure(asked.error),
            "lost": _failure(asked.lost),
        }
    ).decode()


def _failure(error: ModuleError | None) -> dict[str, str] | None:
    return None if error is None else {"kind": error.kind, "reason": str(error)}


def _lines(asked: Asked, *, is_asked: bool) -> Iterator[str]:
    yield asked.hook
    if not is_asked:
        yield "  decision  allow: the module has no such hook"
        return
    result = "nothing to say" if asked.result is None else asked.result.decode(errors="replace")
    yield f"  input     {logs.escaped(asked.input.decode())}"
    yield f"  result    {logs.escaped(result)}"
    if asked.error is not None:
        yield f"  failed    {asked.error.kind}: {logs.escaped(str(asked.error))}"
    if asked.lost is not None:
        yield f"  lost      {asked.lost.kind}: {logs.escaped(str(asked.lost))}"
    decision = asked.decision
    words = decision.summary()
    verdict = words.pop("decision")
    rest = [f"{name} {logs.escaped(_word(value))}" for name, value in words.items()]
    yield "  decision  " + "; ".join([verdict, *rest])
    for whose, ops in (("request", decision.request_headers), ("response", decision.response_headers)):
        for op in ops:
            value = "" if op.value is None else f": {op.value}"
            yield f"  {whose:8}  {op.op} {logs.escaped(op.name + value)}"
    yield f"  answer    {logs.escaped(_answer(asked).decode())}"
    yield f"  guest     {asked.guest_ns / 1000:.1f} µs"
    for level, source, text in asked.log:
        yield f"  log       {level} {source}: {logs.escaped(text)}"


def _word(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
