"""The SDKs for guests in Go and AssemblyScript: each by its own tests, and asked as the agent asks it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from sentinel_wasm import Module
from sentinel_wasm.errors import UserError

from .conftest import EXAMPLES

pytestmark = pytest.mark.parallel

PATIENT_MS = 2000


# --- AssemblyScript


@pytest.fixture(scope="module")
def assemblyscript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filter that uses everything, built with the examples' compiler."""
    folder = tmp_path_factory.mktemp("assemblyscript")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(EXAMPLES / "assemblyscript" / name, folder)
    shutil.copytree(EXAMPLES / "sdk" / "assemblyscript", folder / "sdk")
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=300)
    command = "node_modules/.bin/asc sdk/tests/filter.ts --runtime minimal --outFile filter.wasm"
    subprocess.run(command.split(), cwd=folder, check=True, timeout=300)
    return folder / "filter.wasm"


@pytest.fixture(scope="module")
def everything(assemblyscript: Path) -> Iterator[Module]:
    with Module.load(assemblyscript, timeout_ms=PATIENT_MS) as module:
        yield module


def result(module: Module, hook: str, event: dict[str, Any]) -> Any:
    asked = module.ask(hook, event)
    assert (asked.error, asked.lost) == (None, None)
    return None if asked.result is None else orjson.loads(asked.result)


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("/block", {"decision": "block", "status": 403, "body": 'No "entry"'}),
        ("/redirect", {"decision": "redirect", "status": 307, "body": "/b"}),
        (
            "/challenge",
            {
                "decision": "challenge",
                "challenge_type": "captcha",
                "challenge_params": {"key": "v", "size": "2"},
            },
        ),
        (
            "/headers",
            {
                "decision": "allow",
                "add_request_headers": {"A": "2"},
                "append_request_headers": {"B": ["3", "4"], "C": ["5"]},
                "remove_request_headers": ["D", "E"],
            },
        ),
        (
            "/audit",
            {
                "decision": "allow",
                "needs_more": True,
                "tags": ["a", "b"],
                "rule_ids": ["R1"],
                "reason_codes": ["C1"],
                "confidence": 0.25,
                "routing_metadata": {"pool": "blue"},
            },
        ),
        ("/", {"decision": "allow", "tags": ["GET 127.0.0.1 call é", "1"]}),
    ],
)
def test_decisions_on_requests(everything: Module, uri: str, wanted: dict[str, Any]) -> None:
    assert result(everything, "on_request_headers", {"uri": uri, "headers": {"host": "é"}}) == wanted


def test_decisions_on_responses(everything: Module) -> None:
    event = {"status": 404, "headers": {"server": "nginx"}}
    assert result(everything, "on_response_headers", event) == {
        "decision": "allow",
        "tags": ["404 call nginx"],
        "add_response_headers": {"A": "1"},
        "append_response_headers": {"Set-Cookie": ["a=b", "c=d"]},
        "remove_response_headers": ["Server"],
    }


def test_decisions_on_request_bodies(everything: Module) -> None:
    last = {"data": "é", "chunk_index": 7, "total_size": 2**53 + 1, "bytes_seen": 9, "is_last": True}
    assert result(everything, "on_request_body", last) == {
        "decision": "allow",
        "tags": ["7 true 9007199254740993 9 true"],
        "request_body_mutation": {"action": "replace", "chunk_index": 7, "data": "é!"},
    }
    assert result(everything, "on_request_body", {"data": "drop"}) == {
        "decision": "allow",
        "tags": ["0 true unknown 4 true"],
        "request_body_mutation": {"action": "drop", "chunk_index": 0},
    }


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 300])
def test_a_response_body_that_is_no_text_is_replaced_by_bytes(everything: Module, length: int) -> None:
    data = b"\xff" + bytes(number % 256 for number in range(length))
    decision = everything.on_response_body({"data": data})
    assert decision.response_body is not None
    assert decision.response_body.data == data + b"!"


def test_other_response_bodies(everything: Module) -> None:
    drop = {"action": "drop", "chunk_index": 0}
    replace = {"action": "replace", "chunk_index": 0, "data": 'a"\n!'}
    for data, wanted in {"drop": drop, 'a"\n': replace}.items():
        found = result(everything, "on_response_body", {"data": data})
        assert found == {"decision": "allow", "response_body_mutation": wanted}


def test_decisions_on_frames(everything: Module) -> None:
    frame = {"data": "é", "frame_index": 7, "fin": False, "route_id": "chat"}
    assert result(everything, "on_websocket_frame", frame) == {
        "decision": "close",
        "code": 1003,
        "reason": 'no "é"',
        "tags": ["text true 7 false chat 127.0.0.1"],
    }
    assert result(everything, "on_websocket_frame", {"data": b"\xff"}) == {"decision": "drop"}


def test_findings_in_contents(everything: Module) -> None:
    content = {"content": "é", "model": "m", "categories": ["email", "ssn"]}
    detection = {
        "category": "email",
        "description": "prompt_injection m  email+ssn",
        "severity": "low",
        "span": {"start": 0, "end": 2},
    }
    found = {"detected": True, "detections": [detection], "redacted_content": '"*"'}
    assert result(everything, "on_guardrail", content) == found
    assert result(everything, "on_guardrail", {}) == {"detected": False, "detections": []}


def test_assemblyscript_configuration(assemblyscript: Path) -> None:
    with Module.load(assemblyscript, {"greeting": "grüß Gott"}, timeout_ms=PATIENT_MS) as module:
        assert module.start_log == (("warning", "log", "grüß Gott"),)
    with pytest.raises(UserError, match='greeting has to be "text"'):
        Module.load(assemblyscript, {"greeting": 1}, timeout_ms=PATIENT_MS)


# --- Go


def go(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["go", *command.split()],
        cwd=EXAMPLES / "sdk" / "go",
        env={**os.environ, "GOFLAGS": "", "GOWORK": "off", "GOTOOLCHAIN": "local", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def needs_go() -> None:
    if shutil.which("go") is None or go("list -m").returncode != 0:
        pytest.skip("there is no Go 1.24")


@pytest.mark.usefixtures("needs_go")
def test_go_tests_itself() -> None:
    done = go("test ./...")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("needs_go")
def test_go_configuration_and_log(tmp_path: Path) -> None:
    """What it cannot test itself."""
    built = tmp_path / "filter.wasm"
    done = go(
        f"build -buildmode=c-shared -trimpath -o {built} ./testdata/filter", GOOS="wasip1", GOARCH="wasm"
    )
    assert done.returncode == 0, done.stderr
    with Module.load(built, {"greeting": "grüß Gott"}, timeout_ms=PATIENT_MS) as module:
        assert module.start_log == (("warning", "log", "grüß Gott"),)
        asked = module.ask("on_request_headers", {"uri": "/a"})
    assert (asked.result, asked.error, asked.log) == (None, None, (("info", "log", "/a"),))
