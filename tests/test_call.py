"""`sentinel-wasm call`, as its users run it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from .conftest import EXAMPLES, BuildWat
from .guest import wat
from .warm import FORGE, TOOLKIT

pytestmark = pytest.mark.parallel

RUST = EXAMPLES / "rust" / "security.wasm"
PATIENT = ("--timeout-ms", "2000")  # other tests run beside these
TRAPS = wat.module(wat.hook("unreachable"))


def run(*arguments: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = FORGE.run(TOOLKIT, *arguments, data=data)
    assert "Traceback" not in done.stderr
    return done


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
    call = ("call", build_wat(TRAPS), "http://a/", *PATIENT)
    done = run(*call)
    assert done.returncode == 1
    assert "failed    trap: " in done.stdout
    assert "decision  block; status 500; tags wasm-error" in done.stdout
    assert "fail-open" in run(*call, "--fail-open").stdout
    (line,) = run(*call, "--json").stdout.splitlines()
    assert orjson.loads(line)["error"]["kind"] == "trap"


def test_a_hook_that_is_not_there_is_said(build_wat: BuildWat) -> None:
    done = run("call", build_wat(TRAPS), "-", "--hook", "on_response_headers", data=b"{}")
    assert done.returncode == 0
    assert "allow: the module has no such hook" in done.stdout


def test_what_a_module_says_does_not_reach_the_terminal(build_wat: BuildWat) -> None:
    result = b'{"decision":"allow","tags":["\\u001b[31m"]}'
    says = wat.module(wat.data(wat.RESULT, result), wat.hook(wat.returns(wat.RESULT, len(result))))
    done = run("call", build_wat(says), "http://a/\x1b[31m", *PATIENT)
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
        ([str(RUST), "http://[/"], 2, "'http://[/' is no URL: "),
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


def har(*entries: dict[str, Any]) -> bytes:
    return orjson.dumps({"log": {"version": "1.2", "entries": entries}})


def entry(url: str = "https://example.com/a?b=c", **parts: Any) -> dict[str, Any]:
    """As Chrome saves one of HTTP/2."""
    headers = [{"name": ":path", "value": "/"}, {"name": "User-Agent", "value": "x"}]
    return {"request": {"method": "GET", "url": url, "headers": headers, **parts.pop("request", {})}, **parts}


def test_the_exchanges_of_a_har_file() -> None:
    response = {
        "status": 404,
        "headers": [{"name": "set-cookie", "value": "a"}, {"name": "Set-Cookie", "value": "b"}],
        "content": {"text": "/w==", "encoding": "base64"},
    }
    posted = {"method": "POST", "postData": {"mimeType": "text/plain", "text": "hello"}}
    session = har(entry(request=posted, response=response), entry("http://a/?q=<script>", response=response))
    head, body, answer, answer_body, blocked = called("-", data=session)
    assert head["input"] == {
        "method": "POST",
        "uri": "/a?b=c",
        "client_ip": "127.0.0.1",
        "correlation_id": "entry 1",
        "headers": {"User-Agent": "x", "Host": "example.com"},
    }
    assert (body["hook"], body["input"]["data"]) == ("on_request_body", "hello")
    assert (answer["hook"], answer["input"]["status"]) == ("on_response_headers", 404)
    assert answer["input"]["headers"] == {"Set-Cookie": "a, b"}
    assert (answer_body["hook"], answer_body["input"]["encoding"]) == ("on_response_body", "base64")
    assert blocked["decision"]["decision"] == "block"
    assert blocked["input"]["correlation_id"] == "entry 2"


def test_a_request_of_a_har_file_that_was_not_answered(tmp_path: Path) -> None:
    file = tmp_path / "session.har"
    file.write_bytes(har(entry(response={"status": 0, "headers": [], "content": {}}), entry("http://a/\x1b")))
    done = run("call", RUST, file, *PATIENT)
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if not line.startswith(" ")] == [
        "entry 1: GET https://example.com/a?b=c",
        "on_request_headers",
        "entry 2: GET http://a/\\x1b",
        "on_request_headers",
    ]


def test_an_entry_that_fails_does_not_end_the_others(build_wat: BuildWat) -> None:
    done = run("call", build_wat(TRAPS), "-", "--json", *PATIENT, data=har(entry(), entry()))
    assert done.returncode == 1
    assert [orjson.loads(line)["error"]["kind"] for line in done.stdout.splitlines()] == ["trap", "trap"]


@pytest.mark.parametrize(
    ("session", "says"),
    [
        (b'{"log": 1}', "-.log is 1, expected an object."),
        (har(), "- is a HAR file without entries."),
        (b'{"log": {"entries": [1]}}', "-: entry 1 is 1, expected an object."),
        (har(entry(), {}), "-: entry 2.request is null, expected an object."),
        (har(entry(request={"url": 1})), "-: entry 1: request.url is 1, expected a string."),
        (har(entry(request={"headers": ["a"]})), "request.headers is 'a', expected an object."),
        (
            har(entry(request={"headers": [{"name": "a"}]})),
            "request.headers.value is null, expected a string.",
        ),
        (har(entry("http://[/")), "'http://[/' is no URL: "),
        (har(entry(request={"postData": {"text": 1}})), "request.postData.text is 1, expected a string."),
        (har(entry(response={"status": "200"})), "response.status is '200', expected a whole number."),
        (
            har(entry(response={"status": 1, "headers": [], "content": {"text": "?", "encoding": "base64"}})),
            "response.content.text is not base64: ",
        ),
        (
            b'{"log": {"entries": [{"request": %s}]}}' % (b"[" * 900 + b"]" * 900),
            "-: entry 1.request is an array, expected an object.",
        ),
    ],
    ids=str,
)
def test_a_mistake_in_a_har_file_is_one_line(session: bytes, says: str) -> None:
    done = run("call", RUST, "-", data=session)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert says in line


def test_it_asks_again_when_the_module_changes(tmp_path: Path, build_wat: BuildWat) -> None:
    """Replaced by a file beside it, by one that does not load, and by another link."""
    module, link = tmp_path / "filter.wasm", tmp_path / "..data"
    link.symlink_to(build_wat(wat.module(wat.hook("unreachable"))))
    module.symlink_to(link.name)

    def exchange(target: Path) -> None:
        new = tmp_path / "new"
        new.symlink_to(target)
        new.replace(link)

    command = [sys.executable, "-m", "sentinel_wasm.cli.toolkit", "call"]
    command += [str(module), "http://a/", "--json", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        patience = threading.Timer(60, watching.kill)  # what is read ends then
        patience.start()
        try:
            assert watching.stdout is not None
            assert watching.stderr is not None
            assert orjson.loads(watching.stdout.readline())["error"]["kind"] == "trap"
            broken = tmp_path / "broken.wasm"
            broken.write_bytes(b"nothing")
            exchange(broken)
            assert watching.stderr.readline() == f"-- {module} has changed --\n".encode()
            assert b"not a WebAssembly binary" in watching.stderr.readline()
            broken.write_bytes(wat.binary(wat.module(wat.says('{"decision":"allow"}'))))
            assert watching.stderr.readline() == f"-- {module} has changed --\n".encode()
            said = orjson.loads(watching.stdout.readline())
            assert (said["error"], said["decision"]) == (None, {"decision": "allow"})
            watching.send_signal(signal.SIGINT)
            rest = watching.communicate(timeout=20)
            assert (watching.returncode, *rest) == (0, b"", b"")
        finally:
            patience.cancel()
            watching.kill()


def test_without_a_command_it_says_what_there_is() -> None:
    done = run()
    assert done.returncode == 0
    assert "call" in done.stdout
    assert run("--version").stdout.startswith("sentinel-wasm, version ")
    assert run("cal").returncode == 2
