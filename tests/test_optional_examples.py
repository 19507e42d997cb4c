"""The examples of `on_websocket_frame` and `on_guardrail`, as the toolkit and programs ask them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from sentinel_wasm import Module
from sentinel_wasm.cli import traffic
from sentinel_wasm.decision import ALLOW, ALLOWED, Close, Drop
from sentinel_wasm.errors import ResultError, UserError
from sentinel_wasm.protocol.events import EventKind

from .conftest import EXAMPLES, BuildWat
from .guest import wat
from .tapping import run_here
from .test_call import PATIENT, run
from .test_record import CONTENT, FRAME
from .test_replay import replayed

pytestmark = pytest.mark.parallel

FRAMES = EXAMPLES / "c" / "websocket.wasm"
GUARDRAIL = EXAMPLES / "c" / "guardrail.wasm"
PATIENT_MS = 2000


@pytest.mark.parametrize("module", [FRAMES, GUARDRAIL])
def test_examples_pass_their_tables(module: Path) -> None:
    done = run_here("test", *PATIENT, module, module.with_suffix(".toml"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "3 passed, 0 failed"


def test_what_differs_from_a_table_is_said(tmp_path: Path) -> None:
    table = tmp_path / "cases.toml"
    table.write_text(
        '[[case]]\nhook = "on_websocket_frame"\nevent.data = "password"\n'
        'expect = { decision = "drop", code = 1000 }\n'
        '[[case]]\nhook = "on_guardrail"\nevent.content = ""\nexpect.redacted_content = "a"\n'
    )
    done = run_here("test", *PATIENT, FRAMES, table)
    assert done.returncode == 1
    assert "decision: expected 'drop', found 'close'" in done.stdout
    assert "code: expected 1000, found 1008" in done.stdout
    assert "redacted_content: expected 'a', found None" in done.stdout


def test_a_word_that_is_cut_is_found_in_the_frame_where_it_ends() -> None:
    with Module.load(FRAMES, timeout_ms=PATIENT_MS) as module:
        for start, rest in (("pass", ["w", "ord"]), ("a pas", ["sword"]), ("passwor", ["d"])):
            frames = [{"data": start, "fin": False}]
            frames += [{"data": more, "opcode": "continuation", "fin": False} for more in rest]
            verdicts = [module.on_websocket_frame(frame).verdict for frame in frames]
            assert verdicts == [ALLOWED] * len(rest) + [Close(1008, "a forbidden word")]


def test_frames_that_have_nothing_to_do_with_each_other() -> None:
    with Module.load(FRAMES, timeout_ms=PATIENT_MS) as module:
        for other in ({"client_to_server": False}, {"opcode": "text"}, {"correlation_id": "b"}):
            module.on_websocket_frame({"data": "pass", "fin": False})
            frame = {"data": "word", "opcode": "continuation", **other}
            assert module.on_websocket_frame(frame).verdict == ALLOWED


def test_large_binary_frames_of_clients_are_dropped() -> None:
    with Module.load(FRAMES, timeout_ms=PATIENT_MS) as module:
        frame = {"data": b"\xff" * 65_537, "opcode": "binary"}
        assert module.on_websocket_frame(frame).verdict == Drop()
        assert module.on_websocket_frame({**frame, "data": b"\xff" * 65_536}).verdict == ALLOWED
        assert module.on_websocket_frame({**frame, "client_to_server": False}).verdict == ALLOWED


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("zoe@example.com", ["zoe@example.com"]),
        ("<a.b+c@x-y.co.uk>.", ["a.b+c@x-y.co.uk"]),
        ("a@b.de,c@d.fr", ["a@b.de", "c@d.fr"]),
        ("é@b.de a@b a@.de a@b.c a@b.12 @b.de a@-", []),
        ("4111111111111111", ["4111111111111111"]),
        ("5500-0000-0000-0004 378282246310005", ["5500-0000-0000-0004", "378282246310005"]),
        ("4111  1111 1111 1111 41111111111111111111 4111111111111112", []),
    ],
)
def test_what_the_guardrail_finds(content: str, found: list[str]) -> None:
    with Module.load(GUARDRAIL, timeout_ms=PATIENT_MS) as module:
        findings = module.on_guardrail({"content": content}).findings
    assert findings is not None
    spans = [one.span for one in findings.detections if one.span is not None]
    assert [content.encode()[start:end].decode() for start, end in spans] == found
    if found:
        for part in found:
            content = content.replace(part, "*" * len(part))
        assert findings.redacted_content == content


def asked(module: Path, hook: str, event: bytes) -> Any:
    done = run("call", module, "-", "--hook", hook, "--json", *PATIENT, data=event)
    assert (done.returncode, done.stderr) == (0, "")
    return orjson.loads(done.stdout)


def test_call_asks_these_hooks() -> None:
    frame = b'{"data":"password","client_to_server":false,"route_id":"chat"}'
    said = asked(FRAMES, "on_websocket_frame", frame)
    assert said["input"]["route_id"] == "chat"
    assert said["decision"] == {"decision": "close", "code": 1008, "tags": ["forbidden-word"]}
    assert said["answer"]["websocket_decision"] == {"close": {"code": 1008, "reason": "a forbidden word"}}
    content = b'{"content":"zoe@example.com","metadata":{"tenant":"a"},"categories":["email"]}'
    said = asked(GUARDRAIL, "on_guardrail", content)
    assert said["decision"]["detections"] == ["email"]
    assert '"detected":true' in said["answer"]["routing_metadata"]["guardrail_response"]


@pytest.mark.parametrize(
    ("hook", "event", "says"),
    [
        ("on_websocket_frame", {"data": 1}, "data of on_websocket_frame is 1, expected bytes or text"),
        ("on_websocket_frame", {"fin": 1}, "fin of on_websocket_frame is 1, expected true or false"),
        ("on_guardrail", {"content": b"a"}, "content of on_guardrail is b'a', expected a string"),
        ("on_guardrail", {"categories": [1]}, "categories or metadata of on_guardrail has something"),
        ("on_guardrail", {"metadata": {"a": 1}}, "categories or metadata of on_guardrail has something"),
        ("on_guardrail", {"headers": {}}, "on_guardrail has no 'headers'"),
    ],
)
def test_an_event_that_is_none_is_said(hook: str, event: dict[str, object], says: str) -> None:
    with Module.load(GUARDRAIL) as module, pytest.raises(UserError, match=says):
        module.ask(hook, event)


def test_a_module_that_fails_at_a_frame_is_an_error_in_a_program(build_wat: BuildWat) -> None:
    path = build_wat(wat.module(wat.says('{"decision":"close","code":1}', "on_websocket_frame")))
    with Module.load(path, timeout_ms=PATIENT_MS) as module:
        with pytest.raises(ResultError, match="code is 1, expected"):
            module.on_websocket_frame({})
        assert module.ask("on_websocket_frame", {}).decision.verdict == Close(1011, "Wasm Error")


def test_recorded_frames_and_contents_are_replayed(tmp_path: Path) -> None:
    """What the recorded answer says is compared, whoever gave it."""
    file = tmp_path / "a.swr"
    text = "zoe@example.com"
    with Module.load(GUARDRAIL, timeout_ms=PATIENT_MS) as module:
        found = module.on_guardrail({"content": text})
    lines = [
        traffic.line(1, 1, version, hook, traffic.encode_event(kind, event), decision)
        for version in (1, 2)
        for hook, kind, event, decision in (
            ("on_websocket_frame", EventKind.WEBSOCKET_FRAME, FRAME, ALLOW),
            ("on_guardrail", EventKind.GUARDRAIL_INSPECT, {**CONTENT, "content": text}, found),
        )
    ]
    file.write_bytes(traffic.HEAD + b"".join(lines))
    (summary,) = replayed(file, GUARDRAIL, status=0)
    assert (summary["played"], summary["same"]) == (4, 4)
    *differences, summary = replayed(file, FRAMES, status=1)
    assert summary["differs"] == 2
    names = {one["name"] for one in differences[0]["differences"]}
    assert names == {"decision", "status", "detections", "redacted_content"}
