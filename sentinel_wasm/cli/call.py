"""`sentinel-wasm call`: a request at a module, and all that comes of it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import orjson

from sentinel_wasm import logs
from sentinel_wasm.api import FIELDS, Asked, Module
from sentinel_wasm.cli.har import from_har
from sentinel_wasm.cli.loading import end_at_ctrl_c, load_options
from sentinel_wasm.cli.mistakes import say
from sentinel_wasm.cli.request import Event, from_json, from_url, read_json
from sentinel_wasm.errors import ModuleError, UserError
from sentinel_wasm.protocol import answers
from sentinel_wasm.server.watch import LOOK_S, Files

Exchange = tuple[str, list[Event]]
"""What it is, if there are several, and what is asked about it: one after another, while that is allowed."""


@click.command()
@click.argument("module", type=click.Path(path_type=Path))
@click.argument("request", required=False, metavar="[URL|REQUEST.json|SESSION.har|-]")
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
@click.option("--watch", is_flag=True, help="Ask again whenever the module's file is replaced.")
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
    watch: bool,
) -> int:
    """Ask MODULE about one request, given as for curl or as JSON, or about those of a HAR file.

    Shown are what the module reads, what it returns, the decision, the answer to the proxy, and its time.
    The JSON has method, uri, client_ip, headers and body; with --hook, that hook's event. The exit status is
    1 where the module fails.

    \b
    sentinel-wasm call filter.wasm 'https://example.com/search?q=1' -H 'User-Agent: test'
    sentinel-wasm call filter.wasm -X POST https://example.com/ -d '{"a":1}'
    sentinel-wasm call filter.wasm request.json
    sentinel-wasm call filter.wasm session.har --watch
    sentinel-wasm call filter.wasm --hook on_response_headers response.json
    """
    end_at_ctrl_c()
    if request is not None and "://" in request:
        if hook is not None:
            raise click.UsageError("--hook wants its event as JSON, not a URL.")
        exchanges = [("", from_url(request, method, headers, data, client_ip))]
    else:
        flags = {"-X": method, "-H": headers, "-d": data, "--client-ip": client_ip}
        if given := [flag for flag, value in flags.items() if value]:
            raise click.UsageError(f"without a URL, as 'https://example.com/path', no {', '.join(given)}.")
        exchanges = _from_file(request, hook)

    def ask() -> bool:
        with Module.load(module, config, timeout_ms=timeout_ms, memory_limit=memory_limit) as loaded:
            return _ask(loaded, exchanges, fail_open=fail_open, as_json=as_json)

    if watch:
        _at_every_change(module, ask)
        return 0
    return 0 if ask() else 1


def _from_file(path: str | None, hook: str | None) -> list[Exchange]:
    given = read_json(path)
    if "log" in given:
        if hook is not None:
            raise click.UsageError("--hook wants its event, not a HAR file.")
        return from_har(given, str(path))
    return [("", from_json(given, hook))]


def _at_every_change(module: Path, ask: Callable[[], bool]) -> None:
    """Ask now, and whenever the module's file is another, until Ctrl-C."""
    # Which is looked at between two questions only: wasmtime's objects would be freed twice.
    interrupted, interrupt = os.pipe()
    signal.signal(signal.SIGINT, lambda *_: os.write(interrupt, b"!"))
    program = click.get_current_context().find_root().command_path
    files = Files(module)
    while True:
        files.note(module)
        try:
            ask()
        except UserError as error:
            say(program, str(error))
        while not files.have_changed():
            if select.select([interrupted], [], [], LOOK_S)[0]:
                return
        click.echo(f"-- {logs.escaped(str(module))} has changed --", err=True)


def _ask(module: Module, exchanges: list[Exchange], *, fail_open: bool, as_json: bool) -> bool:
    """Whether the module has failed at nothing. An exchange ends where a decision does not allow."""
    for level, source, text in module.start_log:
        click.echo(f"start     {level} {source}: {logs.escaped(text)}", err=True)
    is_good = True
    for title, events in exchanges:
        if title and not as_json:
            click.echo(logs.escaped(title))
        for name, event in events:
            asked = module.ask(name, event, fail_open=fail_open)
            click.echo(
                _as_json(asked) if as_json else "\n".join(_lines(asked, is_asked=name in module.hooks))
            )
            is_good = is_good and asked.error is None
            if asked.error is not None or asked.decision.summary()["decision"] != "allow":
                break
    return is_good


def _answer(asked: Asked) -> bytes:
    """As a v2 proxy gets it, but for the correlation id."""
    return answers.encode(asked.decision, 2, is_frame=asked.hook == "on_websocket_frame")


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
