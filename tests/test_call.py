"""`sentinel-wasm call`, as its users run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from .conftest import EXAMPLES, BuildWat
from .guest import wat

pytestmark = pytest.mark.parallel

RUST = EXAMPLES / "rust" / "security.wasm"
PATIENT = ("--timeout-ms", "2000")  # other tests run beside these
TRAPS = wat.module(wat.hook("unreachable"))


def run(*arguments: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "sentinel_wasm.cli.toolkit", *arguments],
        input=data,
        capture_output=True,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def called(*arguments: str | Path, data: bytes = b"") -> list[dict[str, Any]]:
    """What each hook said, in JSON."""
    done = run("call", RUST, "--json", *PATIENT, *arguments, data=data)
    assert (done.returncode, done.stderr) == (0, "")
    return [orjson.loads(line) for line in done.stdout.splitlines()]


def test_a_request_as_for_curl() -> None:
    (said,) = called(
        "https://me@example.com:8080/a?b=c",
        "-H",
        "User-Agent: x",
        "-H",
        "a: 1",
        "-H",
        "A:2",
        "--client-ip",
        "::1",
    )
    assert said["hook"] == "on_request_headers"
    assert said["input"] == {
        "method": "GET",
        "uri": "/a?b=c",
        "client_ip": "::1",
        "correlation_id": "call",
        "headers": {"Host": "example.com:8080", "User-Agent": "x", "A": "1, 2"},
    }
    assert orjson.loads(said["result"])["decision"] == said["decision"]["decision"] == "allow"
    assert said["answer"]["decision"] == "allow"
    assert said["guest_us"] > 0
    assert said["error"] is None


def test_a_body_is_asked_about_too(tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"\xff")
    for data, encoding in (("{}", "utf-8"), (f"@{file}", "base64")):
        head, body = called("http://a/", "-d", data, "-H", "host: b", "-H", "user-agent: c")
        assert head["input"]["method"] == "POST"
        assert head["input"]["headers"]["Host"] == "b"
        assert head["input"]["headers"]["Content-Type"] == "application/x-www-form-urlencoded"
        assert body["hook"] == "on_request_body"
        assert body["input"]["encoding"] == encoding


def test_a_request_as_json(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text('{"method":"PUT","uri":"/x","headers":{"user-agent":"a"},"body":"b"}')
    head, body = called(file)
    assert (head["input"]["method"], body["input"]["data"]) == ("PUT", "b")
    assert called("-", data=file.read_bytes())[1]["input"] == body["input"]


def test_one_hook_alone() -> None:
    (said,) = called("-", "--hook", "on_response_headers", data=b'{"status":404}')
    assert said["input"]["status"] == 404
    assert said["decision"]["tags"] == ["hardened"]


def test_a_block_ends_it_and_people_can_read_it() -> None:
    done = run("call", RUST, "http://a/?q=<script>", "-d", "body", *PATIENT)
    assert done.returncode == 0
    assert "\n  decision  block; status 403; tags script-injection" in done.stdout
    assert "on_request_body" not in done.stdout
    done = run("call", RUST, "http://a/", "-H", "user-agent: a", *PATIENT)
    assert "\n  request   set X-Wasm-Processed: true\n" in done.stdout
    assert "\n  request   remove X-Debug\n" in done.stdout


def test_a_module_that_fails_is_exit_status_1(build_wat: BuildWat) -> None:
    path = build_wat(TRAPS)
    done = run("call", path, "http://a/")
    assert done.returncode == 1
    assert "failed    trap: " in done.stdout
    assert "decision  block; status 500; tags wasm-error" in done.stdout
    assert "fail-open" in run("call", path, "http://a/", "--fail-open").stdout
    (line,) = run("call", path, "http://a/", "--json").stdout.splitlines()
    assert orjson.loads(line)["error"]["kind"] == "trap"


def test_a_hook_that_is_not_there_is_said(build_wat: BuildWat) -> None:
    done = run("call", build_wat(TRAPS), "-", "--hook", "on_response_headers", data=b"{}")
    assert done.returncode == 0
    assert "allow: the module has no such hook" in done.stdout


def test_what_a_module_says_does_not_reach_the_terminal(build_wat: BuildWat) -> None:
    result = b'{"decision":"allow","tags":["\\u001b[31m"]}'
    says = wat.module(wat.data(wat.RESULT, result), wat.hook(wat.returns(wat.RESULT, len(result))))
    done = run("call", build_wat(says), "http://a/\x1b[31m")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "tags \\x1b[31m" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["nope.wasm", "http://a/"], 1, "cannot read the module nope.wasm"),
        ([str(RUST), "nope.json"], 2, "nope.json cannot be read: No such file"),
        ([str(RUST), "-"], 2, "- is not JSON"),
        ([str(RUST), "http://a/", "-H", "broken"], 2, "-H 'broken' has no colon"),
        ([str(RUST), "-X", "POST"], 2, "without a URL"),
        ([str(RUST), "http://a/", "--hook", "on_request_body"], 2, "--hook wants its event as JSON"),
        ([str(RUST), "http://a/", "-d", "@/no/such"], 2, "/no/such cannot be read"),
        ([str(RUST), "http://a/", "--timeout-ms", "0"], 2, "--timeout-ms"),
        ([], 2, "MODULE"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], status: int, says: str) -> None:
    done = run("call", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("sentinel-wasm: ")
    assert says in line


def test_without_a_command_it_says_what_there_is() -> None:
    done = run()
    assert done.returncode == 0
    assert "call" in done.stdout
    assert run("--version").stdout.startswith("sentinel-wasm, version ")
    assert run("cal").returncode == 2
