"""`sentinel-wasm replay`: what a tap has recorded of real agents, at modules."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from sentinel_wasm import base64
from sentinel_wasm.cli import traffic
from sentinel_wasm.client import request_headers
from sentinel_wasm.decision import Block, Decision, HeaderOp
from sentinel_wasm.protocol.events import EventKind

from .conftest import EXAMPLES, BuildWat, StartAgent, agents
from .guest import wat
from .tapping import RunningTap, run_here
from .test_call import PATIENT, TRAPS

pytestmark = pytest.mark.parallel

SECURITY = EXAMPLES / "c" / "security.wasm"
BOT = EXAMPLES / "rust" / "published_bot.wasm"
ALLOWS = wat.module(wat.says(b'{"decision":"allow"}'))
HEADERS = {"host": ["a"], "user-agent": ["Mozilla/5.0"], "x-auth-token": ["s3cret"]}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of event, over v1 and v2."""
    file = tmp_path_factory.mktemp("r") / "traffic.swr"
    with agents(tmp_path_factory) as start:
        agent = start(SECURITY)
        with RunningTap(agent.socket, file) as tap, tap.v1() as first, tap.v2() as second:
            for client in (first, second):
                for uri in ("/", "/?q=<script>", "/files/../../etc/passwd", "/admin"):
                    event = request_headers(f"id{uri}", uri=uri, headers=HEADERS)
                    client.ask(EventKind.REQUEST_HEADERS, event)
                allowed = {**HEADERS, "authorization": ["Bearer s3cret"]}
                event = request_headers("allowed", uri="/admin", headers=allowed)
                client.ask(EventKind.REQUEST_HEADERS, event)
                for data in (b"hello", b"<script>", b"\xff"):
                    chunk = {"correlation_id": "id/", "data": base64.encode(data), "is_last": True}
                    client.ask(EventKind.REQUEST_BODY_CHUNK, chunk)
                    client.ask(EventKind.RESPONSE_BODY_CHUNK, chunk)
                response = {"correlation_id": "id/", "status": 200, "headers": {"set-cookie": ["s3cret"]}}
                client.ask(EventKind.RESPONSE_HEADERS, response)
            tap.stop()
            assert "24 events, 24 answers" in tap.summary
    return file


def write(directory: Path, answer: Decision | None, uri: str = "/") -> Path:
    """A recording of one request."""
    file = directory / "a.swr"
    event = traffic.encode_event(EventKind.REQUEST_HEADERS, request_headers("r", uri=uri))
    file.write_bytes(traffic.HEAD + traffic.line(1, 1, 2, "on_request_headers", event, answer))
    return file


def replayed(*arguments: str | Path, status: int) -> list[dict[str, Any]]:
    """What --json says, the summary last."""
    done = run_here("replay", *arguments, "--json", *PATIENT)
    assert (done.returncode, done.stderr) == (status, "")
    return [orjson.loads(line) for line in done.stdout.splitlines()]


def test_the_module_that_was_recorded_decides_alike(recording: Path) -> None:
    (summary,) = replayed(recording, SECURITY, status=0)
    assert summary.pop("median_us") > 0
    assert summary == {
        "played": 24,
        "same": 24,
        "differs": 0,
        "failed": 0,
        "unanswered": 0,
        "against_median_us": None,
    }
    done = run_here("replay", recording, SECURITY, *PATIENT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("24 played: 24 same, 0 differ, 0 failed; ")


def test_what_another_module_decides_otherwise_is_listed(recording: Path, build_wat: BuildWat) -> None:
    *found, summary = replayed(recording, build_wat(ALLOWS), status=1)
    assert summary["differs"] == len(found)
    assert summary["played"] == summary["same"] + len(found) == 24
    blocked = next(one for one in found if one["correlation_id"] == "id/?q=<script>")
    assert (blocked["hook"], blocked["request"]) == ("on_request_headers", "GET /?q=<script>")
    assert {"name": "decision", "expected": "block", "found": "allow"} in blocked["differences"]
    assert {"name": "status", "expected": 403, "found": None} in blocked["differences"]
    body = next(one for one in found if one["hook"] == "on_request_body")
    assert body["request"] == "GET /"

    done = run_here("replay", recording, build_wat(ALLOWS), *PATIENT)
    assert done.returncode == 1
    first, second = done.stdout.splitlines()[:2]
    assert first == "differs  on_request_headers  id/  GET /"
    assert second.startswith("         tags: expected [")
    assert f" {len(found)} differ, 0 failed; " in done.stdout.splitlines()[-1]


def test_two_modules_are_compared_with_each_other(recording: Path, build_wat: BuildWat) -> None:
    (summary,) = replayed(recording, BOT, "--against", BOT, status=0)
    assert (summary["same"], summary["against_median_us"] > 0) == (24, True)
    *found, summary = replayed(recording, SECURITY, "--against", build_wat(ALLOWS), status=1)
    blocked = next(one for one in found if one["correlation_id"] == "id/?q=<script>")
    assert {"name": "decision", "expected": "allow", "found": "block"} in blocked["differences"]
    said = run_here("replay", recording, BOT, "--against", BOT, *PATIENT).stdout
    assert " µs a call, the other " in said


def test_a_module_that_fails_is_said(recording: Path, build_wat: BuildWat) -> None:
    *found, summary = replayed(recording, build_wat(TRAPS), status=1)
    failed = [one for one in found if one["outcome"] == "failed"]
    assert summary["failed"] == len(failed) == 10
    assert failed[0]["error"]["kind"] == "trap"
    said = run_here("replay", recording, build_wat(TRAPS), *PATIENT).stdout
    assert "failed   on_request_headers  id/?q=<script>  GET /?q=<script>\n         trap: " in said


def test_credentials_that_a_module_sets_are_not_compared(tmp_path: Path, build_wat: BuildWat) -> None:
    file = write(
        tmp_path, Decision(request_headers=(HeaderOp("set", "X-Token", "1"), HeaderOp("set", "X-A", "a")))
    )

    def sets(token: str, other: str) -> Path:
        result = {"decision": "allow", "add_request_headers": {"X-Token": token, "X-A": other}}
        return build_wat(wat.module(wat.says(orjson.dumps(result))))

    assert replayed(file, sets("2", "a"), status=0)[-1]["same"] == 1
    found, _ = replayed(file, sets("1", "b"), status=1)
    assert found["differences"] == [
        {
            "name": "request_headers",
            "expected": ["set X-A: a", "set X-Token: (masked)"],
            "found": ["set X-A: b", "set X-Token: (masked)"],
        }
    ]
    assert replayed(file, sets("1", "a"), "--against", sets("2", "a"), status=1)[-1]["differs"] == 1


def test_only_the_order_of_changes_to_one_header_counts(tmp_path: Path, build_wat: BuildWat) -> None:
    file = write(
        tmp_path,
        Decision(
            request_headers=(
                HeaderOp("set", "X-B", "1"),
                HeaderOp("set", "X-A", "1"),
                HeaderOp("add", "X-A", "2"),
            )
        ),
    )

    def sets(headers: dict[str, list[str]]) -> Path:
        result = {"decision": "allow", "add_request_headers": headers}
        return build_wat(wat.module(wat.says(orjson.dumps(result))))

    assert replayed(file, sets({"X-A": ["1", "2"], "X-B": ["1"]}), status=0)[-1]["same"] == 1
    assert replayed(file, sets({"X-A": ["2", "1"], "X-B": ["1"]}), status=1)[-1]["differs"] == 1


@pytest.mark.parametrize(
    ("hook", "result", "options"),
    [
        (
            "on_request_headers",
            '{"decision":"challenge","challenge_type":"js"}',
            ["--challenge-fallback", "block"],
        ),
        ("on_request_headers", '{"decision":"challenge","challenge_type":"js"}', []),
        ("on_response_body", '{"decision":"block","body":"no"}', []),
        ("on_response_body", '{"decision":"allow"}', ["--no-echo-response-bodies"]),
        ("on_response_body", '{"decision":"allow","response_body_mutation":{"action":"drop"}}', []),
        ("on_request_body", '{"decision":"allow","request_body_mutation":{"action":"pass_through"}}', []),
    ],
)
def test_what_the_agent_makes_of_a_decision_is_no_difference(
    start_agent: StartAgent, build_wat: BuildWat, tmp_path: Path, hook: str, result: str, options: list[str]
) -> None:
    module = build_wat(wat.module(wat.says(result, hook)))
    agent = start_agent(module, *options)
    with RunningTap(agent.socket, tmp_path / "a.swr") as tap, tap.v2() as client:
        chunk = {"correlation_id": "r", "data": "YQ==", "is_last": True, "chunk_index": 7}
        client.ask(EventKind.REQUEST_HEADERS, request_headers("r"))
        client.ask(EventKind.REQUEST_BODY_CHUNK, chunk)
        client.ask(EventKind.RESPONSE_BODY_CHUNK, chunk)
        tap.stop()
    assert replayed(tap.file, module, status=0)[-1]["same"] == 3
    # And it is no case of everything being alike.
    other = build_wat(wat.module(wat.says('{"decision":"block","status":429}', hook)))
    assert replayed(tap.file, other, status=1)[-1]["differs"] == 1


def test_an_event_without_answer_is_played(tmp_path: Path, build_wat: BuildWat) -> None:
    file = write(tmp_path, None)
    assert replayed(file, build_wat(ALLOWS), status=0)[-1]["unanswered"] == 1
    assert "1 had no answer" in run_here("replay", file, build_wat(ALLOWS), *PATIENT).stdout
    assert replayed(file, build_wat(TRAPS), status=1)[-1]["failed"] == 1
    assert replayed(file, build_wat(ALLOWS), "--against", build_wat(ALLOWS), status=0)[-1]["same"] == 1


def test_a_torn_end_is_said(recording: Path, tmp_path: Path) -> None:
    file = tmp_path / "torn.swr"
    file.write_bytes(recording.read_bytes()[:-10])
    done = run_here("replay", file, SECURITY, *PATIENT)
    assert done.returncode == 0
    assert done.stderr == f"{file}:25 is cut and was left out\n"
    assert done.stdout.startswith("23 played: 23 same")


def test_what_is_shown_does_not_reach_the_terminal_nor_fill_it(tmp_path: Path, build_wat: BuildWat) -> None:
    file = write(tmp_path, Decision(Block(403, "x" * 10_000)), uri="/\x1b[31m")
    done = run_here("replay", file, build_wat(ALLOWS), *PATIENT)
    assert "GET /\\x1b[31m\n" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 600


def test_progress_on_a_terminal_makes_room_for_what_differs(recording: Path) -> None:
    ours, its = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "sentinel_wasm.cli.toolkit", "replay", recording, BOT, *PATIENT],
        stdout=subprocess.PIPE,
        stderr=its,
        env={**os.environ, "NO_COLOR": "1"},
        timeout=60,
    )
    os.close(its)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 1
    assert "100%" in shown
    assert shown.count("\r\x1b[2K") == done.stdout.count(b"differs  ") > 0


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        (b"", 1, "is no recording: its first line is not {"),
        (traffic.HEAD + b"{}\n", 1, "a.swr:2: expected an object of time"),
        (
            traffic.HEAD
            + b'{"time":1,"connection":1,"version":1,"hook":"on_response_headers","event":{"status":"200",'
            b'"correlation_id":"a","headers":{}},"answer":null}\n',
            1,
            "a.swr:2: status of on_response_headers is '200', expected a number",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_line(tmp_path: Path, text: bytes, status: int, says: str) -> None:
    file = tmp_path / "a.swr"
    file.write_bytes(text)
    done = run_here("replay", file, SECURITY, *PATIENT)
    assert (done.returncode, done.stdout) == (status, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("sentinel-wasm: ")
    assert says in line


def test_files_that_are_not_there_are_one_line(recording: Path) -> None:
    for arguments, status in ((("none.swr", SECURITY), 2), ((recording, "none.wasm"), 1)):
        done = run_here("replay", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (status, 1)
        assert "none." in done.stderr
