"""`sentinel_wasm.Module`: a module in a program."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

import sentinel_wasm
from sentinel_wasm import Decision, Module
from sentinel_wasm.decision import Block, HeaderOp
from sentinel_wasm.errors import GuestFault, ModuleLoadError, ResultError, UserError

from .conftest import EXAMPLES, BuildWat
from .guest import wat

pytestmark = pytest.mark.parallel

RUST = EXAMPLES / "rust" / "security.wasm"
PATIENT_MS = 2000  # other tests run beside these
SAYS = wat.data(wat.RESULT, b'{"decision":"allow","tags":["a"]}')
# Says what it was given, which is no decision.
ECHO = wat.module(
    wat.hook(
        "(i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32))"
        " (i64.extend_i32_u (local.get $n)))"
    )
)


def test_what_an_example_decides_is_a_value() -> None:
    with Module.load(RUST, timeout_ms=PATIENT_MS) as module:
        decision = module.on_request_headers({"uri": "/?q=<script>", "headers": {"user-agent": "Mozilla"}})
        assert isinstance(decision, Decision)
        assert decision.verdict == Block(403, "Forbidden")
        assert decision.audit.rule_ids == ("SEC-003",)
        assert HeaderOp("remove", "Server") in module.on_response_headers({"status": 200}).response_headers
        assert module.on_request_body({"data": "hello"}).audit.tags == ("body-clean",)
        assert module.on_response_body({"data": b"\xff"}).status == 0
        assert module.hooks[0] == "on_request_headers"
        assert len(module.sha256) == 64


def test_the_module_reads_what_it_reads_behind_a_proxy(build_wat: BuildWat) -> None:
    with Module.load(build_wat(ECHO), timeout_ms=PATIENT_MS) as module:
        headers = {"user-agent": "a", "cookie": ["b=1", "c=2"], ":path": "/"}
        asked = module.ask("on_request_headers", {"client_ip": "[::1]:80", "headers": headers})
    assert orjson.loads(asked.input) == {
        "method": "GET",
        "uri": "/",
        "client_ip": "::1",
        "correlation_id": "call",
        "headers": {"User-Agent": "a", "Cookie": "b=1; c=2"},
    }
    assert asked.result == asked.input
    assert asked.guest_ns > 0
    assert isinstance(asked.error, ResultError)


def test_a_body_may_be_bytes_or_text(build_wat: BuildWat) -> None:
    with Module.load(build_wat(ECHO), timeout_ms=PATIENT_MS) as module:
        text, raw = (module.ask("on_request_body", {"data": data}).input for data in ("é", b"\xff\x00"))
    assert orjson.loads(text)["data"] == "é"
    assert orjson.loads(text)["bytes_seen"] == 2
    assert orjson.loads(raw)["encoding"] == "base64"
    assert orjson.loads(raw)["data"] == "/wA="


def test_a_hook_that_is_not_there_allows(build_wat: BuildWat) -> None:
    with Module.load(build_wat(ECHO), timeout_ms=PATIENT_MS) as module:
        assert module.on_response_headers({}) == Decision()
        assert module.ask("on_response_headers", {}).result is None


def test_a_failure_is_raised_or_told_and_costs_the_instance_only(build_wat: BuildWat) -> None:
    traps_once = wat.module(
        SAYS,
        wat.hook(
            "(if (i32.eq (i32.load8_u offset=11 (local.get $p)) (i32.const 80)) (then unreachable))"
            + wat.returns(wat.RESULT, 33)
        ),
    )
    with Module.load(build_wat(traps_once), timeout_ms=PATIENT_MS) as module:
        with pytest.raises(GuestFault):
            module.on_request_headers({"method": "POST"})
        assert module.on_request_headers({}).audit.tags == ("a",)
        asked = module.ask("on_request_headers", {"method": "POST"}, fail_open=True)
        assert isinstance(asked.error, GuestFault)
        assert asked.decision.audit.tags == ("wasm-error", "fail-open")
        assert module.ask("on_request_headers", {"method": "POST"}).decision.status == 500


def test_an_instance_that_is_lost_after_its_answer_is_told(build_wat: BuildWat) -> None:
    text = wat.module(SAYS, wat.hook(wat.returns(wat.RESULT, 33)), dealloc="(unreachable)")
    with Module.load(build_wat(text), timeout_ms=PATIENT_MS) as module:
        for _ in range(2):
            asked = module.ask("on_request_headers", {})
            assert asked.decision.audit.tags == ("a",)
            assert asked.error is None
            assert asked.lost is not None
            assert asked.lost.kind == "trap"


def test_a_result_that_is_none_is_raised(build_wat: BuildWat) -> None:
    nonsense = wat.module(wat.data(wat.RESULT, b"[]"), wat.hook(wat.returns(wat.RESULT, 2)))
    with (
        Module.load(build_wat(nonsense), timeout_ms=PATIENT_MS) as module,
        pytest.raises(ResultError, match="an array"),
    ):
        module.on_request_headers({})


def test_a_module_that_spins_ends_in_time(build_wat: BuildWat) -> None:
    spins = wat.module(wat.hook("(loop $l (br $l)) (i64.const 0)"))
    with Module.load(build_wat(spins), timeout_ms=20) as module:
        with pytest.raises(GuestFault, match="deadline of 20 ms") as caught:
            module.on_request_headers({})
        assert caught.value.kind == "deadline"


def test_what_a_module_logs_is_kept(build_wat: BuildWat) -> None:
    text = wat.module(
        wat.data(wat.RESULT, b"hello"),
        wat.hook(f"(call $log (i32.const 3) (i32.const {wat.RESULT}) (i32.const 5)) (i64.const 0)"),
        imports='(import "sentinel" "log" (func $log (param i32 i32 i32)))',
    )
    with Module.load(build_wat(text), timeout_ms=PATIENT_MS) as module:
        for _ in range(2):
            assert module.ask("on_request_headers", {}).log == (("warning", "log", "hello"),)


def test_a_configuration_reaches_the_module_or_is_refused(build_wat: BuildWat) -> None:
    refuses = wat.module(
        wat.hook("(i64.const 0)"),
        wat.data(wat.RESULT, b'{"error":"no rules"}'),
        wat.hook(wat.returns(wat.RESULT, 20), "on_configure"),
    )
    with pytest.raises(UserError, match="no rules"):
        Module.load(build_wat(refuses), {"rules": []})
    for what in (object(), "\ud800"):
        with pytest.raises(UserError, match="the configuration cannot be passed on: "):
            Module.load(build_wat(refuses), {"rules": what})


@pytest.mark.parametrize(
    ("hook", "event", "says"),
    [
        ("on_request_headers", {"url": "/"}, "on_request_headers has no 'url'; it has method, uri"),
        ("on_request_headers", {"uri": 1}, "uri of on_request_headers is 1, expected a string"),
        ("on_request_headers", {"headers": []}, r"headers of on_request_headers is \[\], expected an object"),
        ("on_request_headers", {"headers": {"a": 1}}, "header 'a' is 1, expected a string or an array"),
        ("on_request_headers", {"headers": {"a": [1]}}, "header 'a' is"),
        ("on_response_headers", {"status": "200"}, "expected a number"),
        ("on_request_body", {"data": 1}, "expected bytes or text"),
        ("on_request_body", {"is_last": 1}, "expected true or false"),
        ("on_request_headers", {"uri": "/\udcff"}, "that JSON cannot say: str is not valid UTF-8"),
        ("on_request_headers", {"headers": {"\udcff": "a"}}, "that JSON cannot say: str is not valid UTF-8"),
        ("on_request_body", {"data": "\udcff"}, "that JSON cannot say: 'utf-8' codec can't encode"),
        ("on_request_body", {"chunk_index": 2**64}, "that JSON cannot say: Integer exceeds 64-bit range"),
        ("on_configure", {}, "no hook 'on_configure'; there are on_request_headers"),
    ],
)
def test_an_event_that_is_none_is_one_clear_error(hook: str, event: dict[str, Any], says: str) -> None:
    with Module.load(RUST, timeout_ms=PATIENT_MS) as module, pytest.raises(UserError, match=says):
        module.ask(hook, event)


def test_a_file_that_is_no_module_is_one_clear_error() -> None:
    with pytest.raises(ModuleLoadError, match="not a"):
        Module.load(__file__)


def test_the_package_hands_out_three_names_and_no_others() -> None:
    assert {name for name in sentinel_wasm.__all__ if hasattr(sentinel_wasm, name)} == {
        "Module",
        "Decision",
        "serve",
    }
    with pytest.raises(AttributeError, match="no attribute 'Modul'"):
        _ = sentinel_wasm.Modul
