"""Both protocols over real sockets: every event type answered once, and every row of the failure table."""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from sentinel_wasm.client import Client, ClientV1, ClientV2, event_v2, request_headers
from sentinel_wasm.errors import ProtocolError
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import MAX_V1, MAX_V2, FrameType, encode_v1, encode_v2

from .conftest import BuildWat, RunningAgent, StartAgent, agents
from .guest.wat import binary
from .normalising import captured_v1, captured_v2
from .wat import IS_EMPTY, module, refusing

pytestmark = pytest.mark.parallel

HOOKS_ALLOW = module(
    on_request_headers='{"decision":"allow","tags":["request"]}',
    on_request_body='{"decision":"block","status":403,"tags":["body"]}',
    on_response_headers='{"decision":"allow","tags":["response"]}',
    on_response_body='{"decision":"allow"}',
)
NO_HOOK_BUT_ONE = module(on_response_headers='{"decision":"allow"}')

PAYLOADS: dict[EventKind, dict[str, Any]] = {
    EventKind.CONFIGURE: {"correlation_id": "c", "agent_id": "wasm", "config": {"a": 1}},
    EventKind.REQUEST_HEADERS: request_headers("c"),
    EventKind.REQUEST_BODY_CHUNK: {"correlation_id": "c", "data": "aGk=", "is_last": True},
    EventKind.RESPONSE_HEADERS: {"correlation_id": "c", "status": 200, "headers": {}},
    EventKind.RESPONSE_BODY_CHUNK: {"correlation_id": "c", "data": "aGk=", "is_last": True, "chunk_index": 3},
    EventKind.REQUEST_COMPLETE: {
        "correlation_id": "c",
        "status": 200,
        "duration_ms": 3,
        "request_body_size": 0,
        "response_body_size": 2,
        "upstream_attempts": 1,
        "error": None,
    },
    EventKind.WEBSOCKET_FRAME: {
        "correlation_id": "c",
        "opcode": "text",
        "data": "aGk=",
        "client_to_server": True,
        "frame_index": 0,
        "fin": True,
        "client_ip": "127.0.0.1",
    },
    EventKind.GUARDRAIL_INSPECT: {
        "correlation_id": "c",
        "inspection_type": "prompt_injection",
        "content": "hello",
    },
}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """One agent for most of this file: whatever one test does to it, the next must find it healthy."""
    path = tmp_path_factory.mktemp("wasm") / "module.wasm"
    path.write_bytes(binary(HOOKS_ALLOW))
    with agents(tmp_path_factory) as start:
        yield start(path)


def ask(client: ClientV1 | ClientV2, name: str = "c") -> dict[str, Any]:
    return client.ask(EventKind.REQUEST_HEADERS, request_headers(name))


def reason_of(answer: dict[str, Any]) -> str:
    """The reason of a fail-closed answer."""
    assert answer["decision"] == {"block": {"status": 500, "body": "Wasm Error", "headers": None}}
    assert answer["audit"]["tags"] == ["wasm-error"]
    (reason,) = answer["audit"]["reason_codes"]
    assert isinstance(reason, str)
    return reason


def assert_closed(client: Client) -> None:
    with pytest.raises(ConnectionError):
        client.receive()


# --- answers


@pytest.mark.parametrize("kind", list(EventKind))
def test_v1_answers_every_event_type(agent: RunningAgent, kind: EventKind) -> None:
    with agent.v1() as client:
        answer = client.ask(kind, PAYLOADS[kind])
        assert answer["version"] == 1
        assert answer["decision"] == ({"block": {"status": 403, "body": None, "headers": None}}
                                      if kind is EventKind.REQUEST_BODY_CHUNK else "allow")  # fmt: skip
        assert answer["audit"]["custom"] == {}
        assert answer["websocket_decision"] == ("allow" if kind is EventKind.WEBSOCKET_FRAME else None)


@pytest.mark.parametrize("kind", list(EventKind))
def test_v2_answers_every_event_type_with_its_id(agent: RunningAgent, kind: EventKind) -> None:
    with agent.v2() as client:
        answer = client.ask(kind, PAYLOADS[kind])
        assert client.frame_type == FrameType.AGENT_RESPONSE
        assert answer["version"] == 2
        assert answer["audit"]["custom"] == {"correlation_id": "c"}


@pytest.mark.parametrize("kind", list(EventKind))
def test_an_event_without_a_hook_is_allowed(
    start_agent: StartAgent, build_wat: BuildWat, kind: EventKind
) -> None:
    with start_agent(build_wat(NO_HOOK_BUT_ONE)).v1() as client:
        assert client.ask(kind, PAYLOADS[kind])["decision"] == "allow"


def test_v1_takes_both_names_of_websocket_frames(agent: RunningAgent) -> None:
    with agent.v1() as client:
        for name in ("web_socket_frame", "websocket_frame"):
            request = {"version": 1, "event_type": name, "payload": PAYLOADS[EventKind.WEBSOCKET_FRAME]}
            client.send(encode_v1(orjson.dumps(request)))
            assert orjson.loads(client.receive())["websocket_decision"] == "allow"


@pytest.mark.parametrize("version", [1, 2, 7])
@pytest.mark.parametrize("kind", [EventKind.REQUEST_HEADERS, EventKind.REQUEST_COMPLETE])
def test_v1_answers_with_the_version_that_was_asked(
    agent: RunningAgent, version: int, kind: EventKind
) -> None:
    with agent.v1() as client:
        assert client.ask(kind, PAYLOADS[kind], version=version)["version"] == version


def test_both_protocols_share_one_socket(agent: RunningAgent) -> None:
    with agent.v1() as one, agent.v2() as two:
        for _ in range(3):
            assert ask(one)["version"] == 1
            assert ask(two)["version"] == 2


def test_v2_answers_many_events_in_flight_each_once(agent: RunningAgent) -> None:
    with agent.v2() as client:
        ids = [f"id-{number}" for number in range(300)]
        client.send(b"".join(event_v2(EventKind.REQUEST_HEADERS, request_headers(name)) for name in ids))
        answered = [orjson.loads(client.receive())["audit"]["custom"]["correlation_id"] for _ in ids]
    assert sorted(answered) == sorted(ids)


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "é\U0001f600", "line\nbreak", "x" * 5000])
def test_v2_gives_any_correlation_id_back(agent: RunningAgent, name: str) -> None:
    with agent.v2() as client:
        assert ask(client, name)["audit"]["custom"] == {"correlation_id": name}


def test_events_may_come_in_any_pieces(agent: RunningAgent) -> None:
    frame = event_v2(EventKind.REQUEST_HEADERS, request_headers("slow"))
    with agent.v2() as client:
        for start in range(0, len(frame), 7):
            client.send(frame[start : start + 7])
        assert orjson.loads(client.receive())["decision"] == "allow"


def test_equal_results_have_equal_answers_kept_or_not(agent: RunningAgent) -> None:
    with agent.v2() as client:
        assert ask(client) == ask(client) == ask(client)


# --- v2's handshake and control frames


def test_the_handshake_says_what_the_agent_handles(agent: RunningAgent) -> None:
    with agent.v2() as client:
        shaken = client.handshake
    assert shaken["protocol_version"] == 2
    assert shaken["encoding"] == "json"
    assert shaken["error"] is None
    assert shaken["capabilities"]["supported_events"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert set(shaken["capabilities"]) == {
        "agent_id", "name", "version", "supported_events", "features", "limits"
    }  # fmt: skip
    assert set(shaken["capabilities"]["limits"]) == {
        "max_body_size", "max_concurrency", "preferred_chunk_size"
    }  # fmt: skip


def test_capabilities_do_not_depend_on_the_module(
    agent: RunningAgent, start_agent: StartAgent, build_wat: BuildWat
) -> None:
    with agent.v2() as full, start_agent(build_wat(NO_HOOK_BUT_ONE)).v2() as bare:
        assert full.handshake == bare.handshake


@pytest.mark.parametrize(
    "versions",
    [b"[3]", b"[]", b"[" + b"3," * 100_000 + b"3]", b"[" * 1020 + b"]" * 1020],
    ids=["another", "none", "many", "nested"],
)
def test_no_common_version_is_refused_with_a_short_error(agent: RunningAgent, versions: bytes) -> None:
    with Client(agent.socket, 2) as client:
        client.send(encode_v2(1, b'{"supported_versions":' + versions + b',"proxy_id":"p","config":null}'))
        answer = orjson.loads(client.receive())
        assert answer["success"] is False
        assert answer["error"].startswith("no common version: this agent speaks 2, the proxy [")
        assert len(answer["error"]) < 100
        assert "capabilities" in answer
        assert_closed(client)


@pytest.mark.parametrize("payload", [b"{", b"[]", b"null", b"{}", b'{"supported_versions":2}', b"\xff"])
def test_a_broken_handshake_closes(agent: RunningAgent, payload: bytes) -> None:
    with Client(agent.socket, 2) as client:
        client.send(encode_v2(1, payload))
        assert_closed(client)
    agent.wait_for_log("handshake")


def test_ping_is_echoed(agent: RunningAgent) -> None:
    with agent.v2() as client:
        for payload in (b"", b'{"sequence":1,"timestamp_ms":2}', b"\x00\xff"):
            client.send(encode_v2(FrameType.PING, payload))
            assert client.receive() == payload
            assert client.frame_type == FrameType.PONG


def test_cancel_and_pong_have_no_answer(agent: RunningAgent) -> None:
    with agent.v2() as client:
        client.send(encode_v2(FrameType.CANCEL, b'{"correlation_id":"x","reason":0,"timestamp_ms":0}'))
        client.send(encode_v2(FrameType.PONG, b""))
        assert ask(client, "after")["audit"]["custom"] == {"correlation_id": "after"}


# --- the failure table: framing


BAD_STARTS = {
    "length 0": b"\0\0\0\0",
    "length over 16 MiB": b"\xff\xff\xff\xff",
    "neither JSON nor a handshake": b"\0\0\0\2xx",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an event before the handshake": encode_v2(1, b"{}")[:4] + b"\x10{}",
}


@pytest.mark.parametrize("bad", BAD_STARTS.values(), ids=list(BAD_STARTS))
def test_bad_framing_closes_that_connection_alone(agent: RunningAgent, bad: bytes) -> None:
    with agent.v1() as healthy, Client(agent.socket, 2) as client:
        client.send(bad)
        assert_closed(client)
        assert ask(healthy)["decision"] == "allow"
    line = orjson.loads(agent.wait_for_log("connection closed"))
    assert line["level"] == "error"
    assert line["reason"]


@pytest.mark.parametrize("frame_type", [0x00, 0x01, 0x02, 0x20, 0x30, 0x31, 0x32, 0x33, 0x43, 0xFF])
def test_a_type_that_no_proxy_sends_closes(agent: RunningAgent, frame_type: int) -> None:
    with agent.v2() as client:
        client.send(encode_v2(frame_type, b"{}"))
        assert_closed(client)
    agent.wait_for_log(f"0x{frame_type:02x}")


def test_what_came_before_a_bad_frame_is_answered(agent: RunningAgent) -> None:
    good = event_v2(EventKind.REQUEST_HEADERS, request_headers("last"))
    with agent.v2() as client:
        client.send(good + b"\0\0\0\0")
        assert orjson.loads(client.receive())["audit"]["custom"] == {"correlation_id": "last"}
        assert_closed(client)


def test_v1_takes_no_frame_over_10_mib(agent: RunningAgent) -> None:
    with agent.v1() as client:
        assert ask(client)["decision"] == "allow"
        client.send((10 * 1024 * 1024 + 1).to_bytes(4, "big"))
        assert_closed(client)


# --- the failure table: events


BROKEN = {
    "not JSON": b"{]",
    "not UTF-8": b'{"correlation_id":"c","x":"\xff"}',
    "a field missing": b'{"correlation_id":"c"}',
    "headers not an object": orjson.dumps({**request_headers("c"), "headers": []}),
    "a value not a list": orjson.dumps({**request_headers("c"), "headers": {"a": "b"}}),
    "a value not strings": orjson.dumps({**request_headers("c"), "headers": {"a": [1]}}),
    "metadata null": orjson.dumps({**request_headers("c"), "metadata": None}),
}


@pytest.mark.parametrize("payload", BROKEN.values(), ids=list(BROKEN))
def test_v1_answers_a_broken_event_by_the_fail_rule(agent: RunningAgent, payload: bytes) -> None:
    with agent.v1() as client:
        client.send(encode_v1(b'{"version":1,"event_type":"request_headers","payload":' + payload + b"}"))
        assert reason_of(orjson.loads(client.receive())).startswith("event not understood: ")
        assert ask(client)["decision"] == "allow"


@pytest.mark.parametrize("payload", BROKEN.values(), ids=list(BROKEN))
def test_fail_open_allows_a_broken_event(
    start_agent: StartAgent, build_wat: BuildWat, payload: bytes
) -> None:
    with start_agent(build_wat(HOOKS_ALLOW), "--fail-open").v1() as client:
        client.send(encode_v1(b'{"version":1,"event_type":"request_headers","payload":' + payload + b"}"))
        answer = orjson.loads(client.receive())
        assert answer["decision"] == "allow"
        assert answer["audit"]["tags"] == ["wasm-error", "fail-open"]


@pytest.mark.parametrize(
    "request_", [b"{", b" ", b"{}", b'{"event_type":1}', b'{"version":"x","event_type":"request_headers"}']
)
def test_v1_answers_a_broken_request(agent: RunningAgent, request_: bytes) -> None:
    with agent.v1() as client:
        client.send(encode_v1(request_))
        answer = orjson.loads(client.receive())
        assert reason_of(answer)
        assert answer["version"] == 1


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "not JSON"])
def test_v2_answers_a_broken_event_whose_id_can_be_read(agent: RunningAgent, name: str) -> None:
    with agent.v2() as client:
        client.send(encode_v2(FrameType.REQUEST_HEADERS, BROKEN[name]))
        answer = orjson.loads(client.receive())
        assert reason_of(answer)
        assert answer["audit"]["custom"] == {"correlation_id": "c"}
        assert ask(client)["decision"] == "allow"


@pytest.mark.parametrize(
    "payload",
    [
        b"{]",
        b"[]",
        b'{"headers":{}}',
        b'{"correlation_id":7}',
        b'{"correlation_id":"a"]{"correlation_id":"b"}',
    ],
)
def test_v2_closes_where_no_id_can_be_read(agent: RunningAgent, payload: bytes) -> None:
    with agent.v2() as client:
        client.send(encode_v2(FrameType.REQUEST_HEADERS, payload))
        assert_closed(client)


def test_v1_allows_an_unknown_event_and_says_so_once(agent: RunningAgent) -> None:
    with agent.v1() as client:
        for _ in range(3):
            client.send(encode_v1(b'{"version":1,"event_type":"tea_time","payload":{}}'))
            assert orjson.loads(client.receive())["decision"] == "allow"
    agent.wait_for_log("tea_time")
    assert agent.log.count("tea_time") == 1


def test_v2_allows_an_unknown_event_and_says_so_once(agent: RunningAgent) -> None:
    with agent.v2() as client:
        for _ in range(3):
            client.send(encode_v2(0x1F, b'{"correlation_id":"new"}'))
            answer = orjson.loads(client.receive())
            assert answer["decision"] == "allow"
            assert answer["audit"]["custom"] == {"correlation_id": "new"}
    agent.wait_for_log("0x1f")
    assert agent.log.count("0x1f") == 1


@pytest.mark.parametrize("data", ["!", "aGk", "aGk=\n", "é"])
def test_a_body_that_is_no_base64_is_a_broken_event(agent: RunningAgent, data: str) -> None:
    with agent.v1() as client:
        answer = client.ask(
            EventKind.REQUEST_BODY_CHUNK, {"correlation_id": "c", "data": data, "is_last": True}
        )
        assert "base64" in reason_of(answer)


@pytest.mark.parametrize("index", [-1, 2**32, 2**64 - 1])
@pytest.mark.parametrize("kind", [EventKind.REQUEST_BODY_CHUNK, EventKind.RESPONSE_BODY_CHUNK])
def test_a_chunk_index_that_is_no_u32_is_a_broken_event(
    agent: RunningAgent, kind: EventKind, index: int
) -> None:
    with agent.v2() as client:
        answer = client.ask(kind, {"correlation_id": "c", "data": "", "is_last": True, "chunk_index": index})
        assert f"chunk_index is {index}, expected 0 to 4294967295" in reason_of(answer)


# --- the failure table: clients


def test_a_client_gone_in_the_middle_hurts_nobody(agent: RunningAgent) -> None:
    with agent.v2() as other:
        with agent.v2() as client:
            client.send(encode_v2(FrameType.REQUEST_HEADERS, b"x" * 100)[:50])
        agent.wait_for_log("client gone in the middle of a frame")
        assert ask(other)["decision"] == "allow"


def test_a_client_that_does_not_read_stops_being_read(agent: RunningAgent) -> None:
    frame = event_v2(EventKind.REQUEST_HEADERS, request_headers("greedy")) * 200
    sent = 0
    with agent.v2() as greedy, agent.v2() as other:
        greedy.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while sent < 16 * 1024 * 1024:
                sent += greedy.sock.send(frame)
        assert sent < 16 * 1024 * 1024
        assert ask(other)["decision"] == "allow"
        before = agent.rss_mib()
        # What was read before is still answered, whole and in order.
        greedy.sock.settimeout(5)
        for _ in range(1000):
            assert orjson.loads(greedy.receive())["audit"]["custom"] == {"correlation_id": "greedy"}
        assert agent.rss_mib() < before + 16


# --- configuration and bodies


def test_a_configuration_that_the_module_refuses_is_rejected(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    text = refusing("no such list", IS_EMPTY, on_request_headers='{"decision":"allow"}')
    agent = start_agent(build_wat(text))
    with agent.v2() as client:
        answer = client.ask(EventKind.CONFIGURE, {"correlation_id": "cfg", "config": {"list": "x"}})
        assert answer["decision"]["block"] == {
            "status": 500,
            "body": "Configuration rejected",
            "headers": None,
        }
        assert "no such list" in answer["audit"]["reason_codes"][0]
        assert (
            client.ask(EventKind.CONFIGURE, {"correlation_id": "cfg", "config": None})["decision"] == "allow"
        )
        assert ask(client)["decision"] == "allow"
    agent.wait_for_log("no such list")


def test_v2_echoes_a_response_body_that_passes(agent: RunningAgent) -> None:
    with agent.v2() as client:
        answer = client.ask(EventKind.RESPONSE_BODY_CHUNK, PAYLOADS[EventKind.RESPONSE_BODY_CHUNK])
        assert answer["response_body_mutation"] == {"data": "aGk=", "chunk_index": 3}


def test_the_echo_needs_no_hook(start_agent: StartAgent, build_wat: BuildWat) -> None:
    with start_agent(build_wat(NO_HOOK_BUT_ONE)).v2() as client:
        answer = client.ask(EventKind.RESPONSE_BODY_CHUNK, PAYLOADS[EventKind.RESPONSE_BODY_CHUNK])
        assert answer["response_body_mutation"] == {"data": "aGk=", "chunk_index": 3}


def test_the_echo_can_be_switched_off(start_agent: StartAgent, build_wat: BuildWat) -> None:
    with start_agent(build_wat(HOOKS_ALLOW), "--no-echo-response-bodies").v2() as client:
        answer = client.ask(EventKind.RESPONSE_BODY_CHUNK, PAYLOADS[EventKind.RESPONSE_BODY_CHUNK])
        assert answer["response_body_mutation"] is None


def test_v1_and_request_bodies_are_not_echoed(agent: RunningAgent) -> None:
    with agent.v1() as client:
        answer = client.ask(EventKind.RESPONSE_BODY_CHUNK, PAYLOADS[EventKind.RESPONSE_BODY_CHUNK])
        assert answer["response_body_mutation"] is None
    with agent.v2() as client:
        answer = client.ask(EventKind.REQUEST_BODY_CHUNK, PAYLOADS[EventKind.REQUEST_BODY_CHUNK])
        assert answer["request_body_mutation"] is None
        assert answer["response_body_mutation"] is None


@pytest.mark.parametrize(
    ("result", "sent"),
    [
        ('{"decision":"block","body":"gone"}', b"gone"),
        ('{"decision":"block"}', b"Blocked"),
        ('{"decision":"redirect","body":"https://x/"}', b"Blocked"),
        ('{"decision":"challenge","challenge_type":"captcha"}', b"Blocked"),
        ("no JSON", b"Wasm Error"),
        ('{"decision":"block","response_body_mutation":{"action":"replace","data":"own"}}', b"own"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--no-echo-response-bodies"]])
def test_a_response_body_that_is_not_allowed_is_kept_back(
    start_agent: StartAgent, build_wat: BuildWat, result: str, sent: bytes, options: list[str]
) -> None:
    """The proxy ignores the block itself and would send the body."""
    with start_agent(build_wat(module(on_response_body=result)), *options).v2() as client:
        answer = client.ask(EventKind.RESPONSE_BODY_CHUNK, PAYLOADS[EventKind.RESPONSE_BODY_CHUNK])
        assert answer["decision"] != "allow"
        assert base64.b64decode(answer["response_body_mutation"]["data"]) == sent


SPINS_IF_POST = module(on_request_headers='{"decision":"allow"}').replace(
    '(func (export "on_request_headers") (param i32 i32) (result i64)',
    """(func (export "on_request_headers") (param i32 i32) (result i64)
    ;; {"method":"P…
    (if (i32.eq (i32.load8_u offset=11 (local.get 0)) (i32.const 80)) (then (loop $spin (br $spin))))""",
)
# The others are answered in time on a busy machine too.
LATE = ("--proxy-timeout-ms", "250", "--timeout-ms", "300")


def test_v1_closes_instead_of_answering_late(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(SPINS_IF_POST), *LATE)
    with agent.v1() as client:
        assert ask(client)["decision"] == "allow"
        with pytest.raises(ConnectionError):
            client.ask(EventKind.REQUEST_HEADERS, request_headers("slow", "POST"))
    assert "an answer took" in agent.wait_for_log("connection closed")
    with agent.v1() as client:
        assert ask(client)["decision"] == "allow"


def test_v2_answers_late_because_answers_carry_the_id(start_agent: StartAgent, build_wat: BuildWat) -> None:
    with start_agent(build_wat(SPINS_IF_POST), *LATE).v2() as client:
        answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("slow", "POST"))
        assert answer["audit"]["custom"] == {"correlation_id": "slow"}


def test_mutations_are_raw_for_requests_and_base64_for_responses(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    request = '{"decision":"allow","request_body_mutation":{"action":"replace","data":"new"}}'
    response = '{"decision":"allow","response_body_mutation":{"action":"replace","data":"new"}}'
    with start_agent(build_wat(module(on_request_body=request, on_response_body=response))).v2() as client:
        answer = client.ask(EventKind.REQUEST_BODY_CHUNK, PAYLOADS[EventKind.REQUEST_BODY_CHUNK])
        assert answer["request_body_mutation"] == {"data": "new", "chunk_index": 0}
        answer = client.ask(EventKind.RESPONSE_BODY_CHUNK, PAYLOADS[EventKind.RESPONSE_BODY_CHUNK])
        assert answer["response_body_mutation"] == {"data": "bmV3", "chunk_index": 3}


def test_a_large_body_comes_through(agent: RunningAgent) -> None:
    data = "QUJD" * (3 * 1024 * 1024)
    with agent.v2() as client:
        answer = client.ask(
            EventKind.RESPONSE_BODY_CHUNK, {"correlation_id": "big", "data": data, "is_last": True}
        )
        assert answer["response_body_mutation"]["data"] == data


@pytest.mark.parametrize("kind", [EventKind.REQUEST_BODY_CHUNK, EventKind.RESPONSE_BODY_CHUNK])
@pytest.mark.parametrize("protocol", [1, 2])
def test_the_largest_frames_come_through_and_leave_no_memory_behind(
    start_agent: StartAgent, build_wat: BuildWat, protocol: int, kind: EventKind
) -> None:
    """With an instance for each request, the guest's own memory ends with it."""
    hook = "on_request_body" if kind is EventKind.REQUEST_BODY_CHUNK else "on_response_body"
    wasm = build_wat(module(**{hook: '{"decision":"allow"}'}))
    agent = start_agent(wasm, "--timeout-ms", "5000", "--proxy-timeout-ms", "5000", "--isolation", "request")
    room = (MAX_V1 if protocol == 1 else MAX_V2) - 200
    payload = {"correlation_id": "big", "data": "QUJD" * (room // 4), "is_last": True}
    with agent.v1() if protocol == 1 else agent.v2() as client:
        client.ask(kind, PAYLOADS[kind])
        before = agent.rss_mib()
        for _ in range(5):
            assert client.ask(kind, payload)["decision"] == "allow"
        # A second after the last one.
        end = time.monotonic() + 10
        while (after := agent.rss_mib()) > before + 4:
            assert time.monotonic() < end, f"RSS {before:.1f} MiB before, {after:.1f} after"
            time.sleep(0.1)


def test_a_challenge_is_sent_as_it_is(start_agent: StartAgent, build_wat: BuildWat) -> None:
    wasm = build_wat(module(on_request_headers='{"decision":"challenge","challenge_type":"captcha"}'))
    with start_agent(wasm).v2() as client:
        assert ask(client)["decision"] == {"challenge": {"challenge_type": "captcha", "params": {}}}


def test_a_challenge_can_be_sent_as_a_block(start_agent: StartAgent, build_wat: BuildWat) -> None:
    wasm = build_wat(
        module(on_request_headers='{"decision":"challenge","challenge_type":"captcha","tags":["t"]}')
    )
    with start_agent(wasm, "--challenge-fallback", "block").v2() as client:
        answer = ask(client)
        assert answer["decision"]["block"]["status"] == 403
        assert "captcha" in answer["decision"]["block"]["body"]
        assert answer["audit"]["tags"] == ["t"]


# --- the end


def test_sigterm_tells_v2_proxies_answers_what_came_and_exits_0(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    agent = start_agent(build_wat(HOOKS_ALLOW))
    with agent.v2() as client, agent.v1() as old:
        ask(client)
        ask(old)
        client.send_event(EventKind.REQUEST_HEADERS, request_headers("in-flight"))
        start = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - start < 10
        assert orjson.loads(client.receive())["audit"]["custom"] == {"correlation_id": "in-flight"}
        assert orjson.loads(client.receive()) == {"state": 3}
        assert client.frame_type == FrameType.HEALTH_STATUS
        assert_closed(client)
        assert_closed(old)
    assert not agent.socket.exists()


def test_nothing_a_client_sends_ends_the_process(agent: RunningAgent) -> None:
    """Every broken thing of this file at once, on many connections."""
    for _ in range(5):
        for bad in [*BAD_STARTS.values(), *map(encode_v1, BROKEN.values())]:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(agent.socket))
                sock.sendall(bad)
    with agent.v2() as client:
        assert ask(client)["decision"] == "allow"
    assert agent.process.poll() is None


def test_captured_frames_of_the_real_proxies_are_answered(agent: RunningAgent) -> None:
    with agent.v1() as client:
        for payload in captured_v1():
            client.send(encode_v1(payload))
            answer = orjson.loads(client.receive())
            assert answer["version"] == 1
            assert "wasm-error" not in answer["audit"]["tags"]
    events = [frame for frame in captured_v2() if frame[0] != FrameType.HANDSHAKE_REQUEST]
    with agent.v2() as two:
        for frame in events:
            two.send(encode_v2(*frame))
        answers = [orjson.loads(two.receive()) for _ in events]
    ids = [orjson.loads(payload)["correlation_id"] for _, payload in events]
    # In any order: a Configure is answered when all instances have taken it.
    assert sorted(answer["audit"]["custom"]["correlation_id"] for answer in answers) == sorted(ids)


def test_a_refused_client_raises(agent: RunningAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentinel_wasm.client.orjson.dumps", lambda _: b'{"supported_versions":[]}')
    with pytest.raises(ProtocolError, match="no common version"):
        agent.v2()
