"""The page of --admin over HTTP: what it may load, who may ask, what is tried, and with workers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import orjson
import pytest

from sentinel_wasm.client import request_headers
from sentinel_wasm.credentials import MASK
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.server import child, page, trial
from sentinel_wasm.settings import Address, Settings

from . import scraping
from .conftest import EXAMPLES, BuildWat, RunningAgent, StartAgent, agents
from .guest import wat
from .scraping import LOCAL, address
from .test_admin import answer_to, exchange, get, served
from .test_metrics import on
from .test_workers import pid_of

pytestmark = pytest.mark.parallel

C_EXAMPLE = EXAMPLES / "c" / "security.wasm"
SECRETS = (
    '{"decision":"allow","add_request_headers":{"Authorization":"Bearer s3cret","X-Seen":"yes"},'
    '"add_response_headers":{"Set-Cookie":"session=s3cret"},"routing_metadata":{"api-key":"s3cret","to":"b"}}'
)


# --- the document


class _Loaded(HTMLParser):
    """What a document would load, and what it runs in its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            loads = name in ("src", "srcset", "data", "action", "style") or name.startswith("on")
            if loads or (tag == "link" and name == "href"):
                self.found.append((tag, name, value))


def test_the_page_loads_nothing_and_may_not() -> None:
    head, _, body = answer_to(get(b"/")).partition(b"\r\n\r\n")
    parser = _Loaded()
    parser.feed(body.decode())
    assert [(tag, (value or "")[:5]) for tag, _, value in parser.found] == [("link", "data:")]
    policy = re.search(rb"\r\nContent-Security-Policy: ([^\r]*)\r\n", head)
    assert policy is not None
    directives = dict(item.split(" ", 1) for item in policy[1].decode().split("; "))
    assert directives == {
        "default-src": "'none'",
        "frame-ancestors": "'none'",
        "script-src": digest(rb"<script>(.*)</script>", body),
        "style-src": digest(rb"<style>(.*)</style>", body),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert b"innerHTML" not in body


def digest(pattern: bytes, body: bytes) -> str:
    (text,) = re.findall(pattern, body, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"


@pytest.mark.parametrize("path", [b"/", b"/events", b"/status.json", b"/metrics", b"/nothing"])
def test_every_answer_is_for_this_page_alone(path: bytes) -> None:
    head = answer_to(get(path)).partition(b"\r\n\r\n")[0]
    for field in (
        b"Cache-Control: no-store",
        b"X-Content-Type-Options: nosniff",
        b"Referrer-Policy: no-referrer",
        b"Cross-Origin-Resource-Policy: same-origin",
        b"Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
    ):
        assert field in head


def test_the_page_is_the_same_in_every_locale() -> None:
    program = "import sys; from sentinel_wasm.server import page; sys.stdout.buffer.write(page.make('')[0])"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == page.make("")[0]


def test_each_start_has_its_own_token() -> None:
    tokens = {token_in(answer_to(get(b"/"))) for _ in range(2)}
    assert len(tokens) == 2
    assert all(len(token) >= 43 for token in tokens)


def token_in(answer: bytes) -> str:
    (token,) = re.findall(rb'<meta name="token" content="([\w-]+)">', answer)
    return str(token, "ascii")


def test_a_token_cannot_end_its_attribute() -> None:
    assert b'content="&quot;&gt;&lt;script&gt;"' in page.make('"><script>')[0]


# --- who may have a request tried


def post(
    body: bytes = b"{}",
    *,
    token: str = "",
    host: str = "localhost:9",
    origin: str | None = "http://localhost:9",
    kind: str = "application/json",
    length: int | None = None,
) -> bytes:
    fields = [
        f"Host: {host}",
        f"Content-Type: {kind}",
        f"X-Token: {token}",
        *([] if origin is None else [f"Origin: {origin}"]),
        f"Content-Length: {len(body) if length is None else length}",
    ]
    return "\r\n".join(["POST /try HTTP/1.1", *fields, "", ""]).encode() + body


def statuses(*requests: Any, host: str = "127.0.0.1") -> list[tuple[int, str]]:
    """Status and body of what one endpoint answers to each; a function gets the page's token."""
    found: list[tuple[int, str]] = []

    async def talk(where: Address) -> None:
        token = token_in(await exchange(where, get(b"/")))
        for request in requests:
            answer = await exchange(where, request(token) if callable(request) else request)
            head, _, body = answer.partition(b"\r\n\r\n")
            found.append((int(head.split(b" ")[1]), body.decode()))

    served(talk, host=host)
    return found


def test_without_the_right_token_origin_and_host_nothing_is_tried() -> None:
    refused = statuses(
        post(),
        post(token="é"),
        lambda token: post(token=token[:-1]),
        lambda token: post(token=token, origin=None),
        lambda token: post(token=token, origin="null"),
        lambda token: post(token=token, origin="http://localhost:8"),
        lambda token: post(token=token, origin="http://evil.example"),
        lambda token: post(token=token, host="evil.example", origin="http://evil.example"),
    )
    assert {status for status, _ in refused} == {403}
    assert [("token" in body, "Origin" in body, "Host" in body) for _, body in refused] == [
        *[(True, False, False)] * 3,
        *[(False, True, False)] * 4,
        (False, False, True),
    ]
    # With all of them it would be; this one has no module.
    assert statuses(lambda token: post(token=token)) == [(503, "no module is loaded yet\n")]


def test_elsewhere_the_origin_must_be_the_host() -> None:
    answers = statuses(
        lambda token: post(token=token, host="agent.example:9", origin="http://agent.example:9"),
        lambda token: post(token=token, host="Agent.example:9", origin="https://agent.example:9"),
        lambda token: post(token=token, host="agent.example:9", origin="http://evil.example"),
        host="0.0.0.0",
    )
    assert [status for status, _ in answers] == [503, 503, 403]


def test_what_cannot_be_tried_says_why() -> None:
    bodies = {
        b"": "not JSON",
        b"[]": "not a JSON object",
        b'{"uri":7}': "uri is not a string",
        b'{"url":"/"}': "unknown: url",
        b'{"headers":{}}': "headers is not a list",
        b'{"headers":[["a"]]}': "headers has something that is not [name, value]",
        b'{"headers":[["a",1]]}': "headers has something that is not [name, value]",
        b'{"status":99}': "status is not a number from 100 to 599",
        b'{"status":"200"}': "status is not a number from 100 to 599",
        orjson.dumps({"headers": [["a", "b"]] * 257}): "headers is not a list of at most 256 headers",
    }
    answers = statuses(*(lambda token, body=body: post(body, token=token) for body in bodies))
    for (status, said), expected in zip(answers, bodies.values(), strict=True):
        assert status == 400
        assert expected in said


def test_what_is_no_json_or_too_much_is_not_read() -> None:
    answers = statuses(
        lambda token: post(token=token, kind="text/plain"),
        lambda token: post(token=token, kind="application/x-www-form-urlencoded"),
        lambda token: post(token=token, length=trial.MOST_BYTES + 1),
        lambda token: post(token=token, length=10**30),
        lambda token: post(token=token).replace(b"Content-Length: 2\r\n", b""),
        lambda token: post(token=token).replace(
            b"Content-Length: 2", b"Content-Length: 2\r\nTransfer-Encoding: x"
        ),
        get(b"/try"),
    )
    assert [status for status, _ in answers] == [415, 415, 413, 413, 411, 411, 405]


# --- a request that is tried


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """An agent with the C example."""
    with agents(tmp_path_factory) as start:
        yield start(C_EXAMPLE, *LOCAL)


def asked(agent: RunningAgent, path: str) -> Any:
    return orjson.loads(scraping.get(agent, path)[1])


def tried(agent: RunningAgent, **wanted: Any) -> Any:
    """What came of a request that the page would send."""
    where = address(agent)
    connection = http.client.HTTPConnection(where, timeout=20)
    try:
        connection.request("GET", "/")
        token = token_in(connection.getresponse().read())
        fields = {"Origin": f"http://{where}", "X-Token": token, "Content-Type": "application/json"}
        connection.request("POST", "/try", orjson.dumps(wanted), fields)
        answer = connection.getresponse()
        body = answer.read()
        return orjson.loads(body) if answer.status == 200 else (answer.status, body.decode())
    finally:
        connection.close()


def test_a_request_is_tried_beside_traffic(running: RunningAgent) -> None:
    before = asked(running, "/status.json")["metrics"]
    (step,) = tried(running, uri="/../etc/passwd")["steps"]
    assert (step["hook"], step["decision"], step["status"]) == ("on_request_headers", "block", 403)
    assert (step["tags"], step["has_failed"], step["is_asked"]) == (["path-traversal"], False, True)
    assert 0 < step["guest_us"] <= step["took_us"]
    with running.v2() as client:
        event = request_headers("trial", uri="/../etc/passwd", client_ip="127.0.0.1")
        assert orjson.loads(step["answer"]) == client.ask(EventKind.REQUEST_HEADERS, event)
    after = asked(running, "/status.json")["metrics"]
    counted = 'sentinel_wasm_events_total{hook="on_request_headers"}'
    assert after[counted] - before[counted] == 1  # the client's


def test_a_body_and_a_response_follow_where_they_are_given(running: RunningAgent) -> None:
    steps = tried(
        running, headers=[["User-Agent", "x"]], body="a=b", status=200, response_headers=[["A", "b"]]
    )["steps"]
    assert [step["hook"] for step in steps] == [
        "on_request_headers",
        "on_request_body",
        "on_response_headers",
    ]
    assert {step["decision"] for step in steps} == {"allow"}
    # After a block nothing follows.
    assert len(tried(running, uri="/../x", body="a", status=200)["steps"]) == 1


def test_what_a_module_sets_logs_and_fails_by_is_shown_but_no_credential(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    log = f"(call $log (i32.const 3) (i32.const {wat.OUT}) (i32.const 5))"
    text = wat.module(
        wat.data(wat.OUT, b"<b>hi"),
        wat.data(wat.RESULT, SECRETS.encode()),
        wat.hook(on("TRAP", "unreachable") + on("LOG", log) + wat.returns(wat.RESULT, len(SECRETS))),
        imports='(import "sentinel" "log" (func $log (param i32 i32 i32)))',
    )
    agent = start_agent(build_wat(text), *LOCAL, "--fail-open")
    (step,) = tried(agent, method="LOG", headers=[["Cookie", "s3cret"]])["steps"]
    assert step["log"] == ["warning log: <b>hi"]
    answer = orjson.loads(step["answer"])
    assert answer["request_headers"] == [
        {"set": {"name": "Authorization", "value": MASK}},
        {"set": {"name": "X-Seen", "value": "yes"}},
    ]
    assert answer["response_headers"] == [{"set": {"name": "Set-Cookie", "value": MASK}}]
    assert answer["routing_metadata"] == {"api-key": MASK, "to": "b"}
    assert "s3cret" not in step["answer"]
    # A failure ends the trial.
    (step,) = tried(agent, method="TRAP", status=200)["steps"]
    assert (step["decision"], step["has_failed"], step["tags"]) == (
        "allow",
        True,
        ["wasm-error", "fail-open"],
    )
    assert "unreachable" in step["reasons"][0]
    with agent.v2() as client:
        event = request_headers("id-1", headers={"authorization": ["Bearer s3cret"]})
        client.ask(EventKind.REQUEST_HEADERS, event)
    assert "s3cret" not in repr(asked(agent, "/events"))
    assert "s3cret" not in repr(asked(agent, "/status.json"))


def test_the_module_and_the_configuration_that_run_are_tried(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    """The hook blocks until a configuration of over 20 bytes has come."""
    long = "(global.set $long (i32.gt_u (local.get $n) (i32.const 20))) (i64.const 0)"
    text = wat.module(
        "(global $long (mut i32) (i32.const 0))",
        wat.data(wat.RESULT, b'{"decision":"block"}'),
        wat.hook(long, "on_configure"),
        wat.hook(f"(if (global.get $long) (then (return (i64.const 0)))) {wat.returns(wat.RESULT, 20)}"),
    )
    wasm = build_wat(text)
    agent = start_agent(wasm, *LOCAL)
    assert tried(agent)["steps"][0]["decision"] == "block"
    with agent.v2() as client:
        client.ask(EventKind.CONFIGURE, {"correlation_id": "c", "config": {"a": "b" * 20}})
    assert tried(agent)["steps"][0]["decision"] == "allow"
    wasm.write_bytes(C_EXAMPLE.read_bytes())
    assert "has changed since the agent loaded it" in tried(agent)["error"]


def test_one_request_at_a_time_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_PATIENCE_S", 0.5)
    loaded = trial.Loaded(Settings(module=C_EXAMPLE), [""])
    wanted = trial.read_wanted(b"{}")

    async def both() -> None:
        trials = trial.Trials()
        monkeypatch.setattr(child, "_PROGRAM", "import time; time.sleep(60)")
        first = asyncio.create_task(trials.run(loaded, wanted))
        await asyncio.sleep(0)
        with pytest.raises(trial.BusyError):
            await trials.run(loaded, wanted)
        assert orjson.loads(await first) == {"error": "it took more than 0.5 s"}
        monkeypatch.setattr(child, "_PROGRAM", "import sys; sys.exit('secret trace')")
        assert orjson.loads(await trials.run(loaded, wanted)) == {
            "error": "the process that did it ended with status 1"
        }

    asyncio.run(both())


# --- status and events of real agents


def test_status_and_events(running: RunningAgent) -> None:
    last = asked(running, "/events")["last"]
    with running.v2() as client:
        client.ask(EventKind.REQUEST_HEADERS, request_headers("to-find-1", uri="/../x"))
        client.ask(EventKind.REQUEST_HEADERS, {"correlation_id": "broken-1"})
        news = asked(running, f"/events?since={last}")
        status = asked(running, "/status.json")
    assert [event["correlation_id"] for event in news["events"]] == ["to-find-1", "broken-1"]
    assert [event["number"] for event in news["events"]] == [last + 1, last + 2]
    assert news["last"] == last + 2
    nothing = {"events": [], "last": last + 2, "started": status["started"]}
    assert asked(running, f"/events?since={last + 2}") == nothing
    assert (status["ready"], status["reason"], status["pid"]) == (True, None, running.process.pid)
    (module,) = status["modules"]
    assert module["sha256"] == hashlib.sha256(C_EXAMPLE.read_bytes()).hexdigest()
    assert (module["file"], module["path"]) == ("security.wasm", str(C_EXAMPLE))
    assert "on_request_headers" in module["hooks"]
    assert status["errors"]["event"]["correlation_id"] == "broken-1"
    assert "metadata is absent" in status["errors"]["event"]["reason"]
    assert status["metrics"]['sentinel_wasm_connections_open{protocol="v2"}'] == 1
    assert 0 < status["uptime_s"] < 600


def test_with_workers_the_page_has_the_events_of_all(start_agent: StartAgent) -> None:
    agent = start_agent(C_EXAMPLE, *LOCAL, "--workers", "2")
    with agent.v2() as one, agent.v2() as other:
        for number in range(30):
            one.ask(EventKind.REQUEST_HEADERS, request_headers(f"one-{number}"))
            other.ask(EventKind.REQUEST_HEADERS, request_headers(f"other-{number}", uri="/../x"))
        other.ask(EventKind.REQUEST_HEADERS, {"correlation_id": "broken-1"})
        found = asked(agent, "/events")
        assert [event["number"] for event in found["events"]] == list(range(1, 62))
        expected = [f"{who}-{number}" for number in range(30) for who in ("one", "other")]
        assert [event["correlation_id"] for event in found["events"]] == [*expected, "broken-1"]
        assert {event["worker"] for event in found["events"]} == {1, 2}
        one.ask(EventKind.REQUEST_HEADERS, request_headers("later"))
        (event,) = asked(agent, f"/events?since={found['last']}")["events"]
        assert event["correlation_id"] == "later"
        # More than a pipe holds comes as well.
        for number in range(520):
            one.ask(EventKind.REQUEST_HEADERS, request_headers(f"many-{number}"))
        assert len(asked(agent, "/events")["events"]) == 512
        status = asked(agent, "/status.json")
        assert [worker["connections"] for worker in status["workers"]] == [1, 1]
        assert len(status["modules"]) == 1
        assert status["errors"]["event"]["correlation_id"] == "broken-1"
        assert status["metrics"]['sentinel_wasm_events_total{hook="on_request_headers"}'] == 581
        assert tried(agent, uri="/../x")["steps"][0]["decision"] == "block"
        # One that does not answer costs a second, as does one that has no descriptor left for the question.
        one.ask(EventKind.REQUEST_HEADERS, request_headers("before"))
        stopped, full = pid_of(agent, 1), pid_of(agent, 2)
        limits = resource.prlimit(full, resource.RLIMIT_NOFILE)
        resource.prlimit(full, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(stopped, signal.SIGSTOP)
        try:
            for _ in range(2):
                began = time.monotonic()
                assert len(asked(agent, "/status.json")["workers"]) == 2
                assert time.monotonic() - began < 5
        finally:
            os.kill(stopped, signal.SIGCONT)
            resource.prlimit(full, resource.RLIMIT_NOFILE, limits)
        # Then each event is there once, however often it was asked for.
        for client in (one, other):
            client.ask(EventKind.REQUEST_HEADERS, request_headers("afterwards"))
        once = [(1, "afterwards"), (1, "before"), (2, "afterwards")]
        shown: list[tuple[int, str]] = []
        for _ in range(50):
            events = asked(agent, "/events")["events"]
            shown = [(event["worker"], event["correlation_id"]) for event in events]
            if all(event in shown for event in once):
                break
            time.sleep(0.1)
        assert sorted(event for event in shown if event[1] in ("before", "afterwards")) == once
    assert "Traceback" not in agent.log
