"""MessagePack on v2: what it says means what the same JSON means, over real sockets."""

from __future__ import annotations

import base64
import functools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.errors import EventError, FrameError, ProtocolError
from sentinel_wasm.protocol import handshake, msgpack
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType, encode_v2
from sentinel_wasm.protocol.handshake import Encoding

from .conftest import EXAMPLES, BuildWat, RunningAgent, StartAgent, agents
from .pretending import AgentThat
from .upgrading import Upgrading
from .wat import module

pytestmark = pytest.mark.parallel

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
C_EXAMPLE = EXAMPLES / "c" / "security.wasm"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with agents(tmp_path_factory) as start:
        yield start(C_EXAMPLE, "--timeout-ms", "20000")


class Both:
    """Asks over either encoding, each time over a sound connection."""

    def __init__(self, agent: RunningAgent) -> None:
        self._open = functools.partial(ClientV2, agent.socket, timeout_s=60)
        self.clients = {encoding: self._open(encoding=encoding) for encoding in ENCODINGS}

    def ask(self, encoding: Encoding, kind: EventKind, event: Any) -> dict[str, Any] | None:
        """None: the agent closes the connection."""
        try:
            return self.clients[encoding].ask(kind, event)
        except ConnectionError:
            self.clients[encoding].close()
            self.clients[encoding] = self._open(encoding=encoding)
            return None


@pytest.fixture(scope="module")
def both(agent: RunningAgent) -> Iterator[Both]:
    both = Both(agent)
    yield both
    for client in both.clients.values():
        client.close()


@pytest.fixture
def client(agent: RunningAgent) -> Iterator[ClientV2]:
    with ClientV2(agent.socket, encoding="msgpack") as client:
        yield client


# --- the same answers

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
IDENTITIES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=40) | TEXTS
NAMES = st.sampled_from(["user-agent", "Accept", "authorization", "x-a", "content-type"]) | TEXTS
HEADERS = st.dictionaries(NAMES, st.lists(st.just("Mozilla/5.0") | TEXTS, max_size=3), max_size=5)
URIS = st.sampled_from(["/", "/../etc/passwd", "/admin", "/?q=<script>"]) | TEXTS
NUMBERS = st.integers(0, 2**63) | st.integers(-5, 5)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


def bodies(seen: str) -> st.SearchStrategy[Any]:
    chunk = {
        "correlation_id": IDENTITIES,
        "data": st.binary(max_size=60).map(lambda data: base64.b64encode(data).decode()) | TEXTS,
        "is_last": st.booleans(),
    }
    return st.fixed_dictionaries(
        chunk, optional={"total_size": st.none() | NUMBERS, "chunk_index": NUMBERS, seen: NUMBERS}
    )


EVENTS: dict[EventKind, st.SearchStrategy[Any]] = {
    EventKind.REQUEST_HEADERS: st.builds(request_headers, IDENTITIES, TEXTS, URIS, HEADERS, TEXTS),
    EventKind.REQUEST_BODY_CHUNK: bodies("bytes_received"),
    EventKind.RESPONSE_HEADERS: st.fixed_dictionaries(
        {"correlation_id": IDENTITIES, "status": NUMBERS, "headers": HEADERS}
    ),
    EventKind.RESPONSE_BODY_CHUNK: bodies("bytes_sent"),
    EventKind.REQUEST_COMPLETE: st.fixed_dictionaries({"correlation_id": IDENTITIES, "status": NUMBERS}),
    EventKind.WEBSOCKET_FRAME: st.fixed_dictionaries({"correlation_id": IDENTITIES, "data": TEXTS}),
    EventKind.GUARDRAIL_INSPECT: st.fixed_dictionaries({"correlation_id": IDENTITIES, "content": TEXTS}),
    EventKind.CONFIGURE: st.fixed_dictionaries({"correlation_id": IDENTITIES, "config": ANYTHING}),
}


@st.composite
def events(draw: st.DrawFn) -> tuple[EventKind, Any]:
    """Most as they should be; in some, something is anything, or missing."""
    kind = draw(st.sampled_from(list(EVENTS)))
    event = draw(EVENTS[kind])
    if draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(sorted(set(event) - {"correlation_id"})))
        event[name] = draw(ANYTHING)
        if draw(st.booleans()):
            del event[name]
    return kind, event


@settings(max_examples=300)
@given(events())
def test_an_event_is_answered_as_its_json_is(both: Both, event: tuple[EventKind, Any]) -> None:
    assert both.ask("msgpack", *event) == both.ask("json", *event)


def test_a_body_may_be_binary(both: Both) -> None:
    attack = b"comment=<script>\x00\xff"
    event = {"correlation_id": "binary", "is_last": True}
    text = {**event, "data": base64.b64encode(attack).decode()}
    for kind, name in (
        (EventKind.REQUEST_BODY_CHUNK, "decision"),
        (EventKind.RESPONSE_BODY_CHUNK, "response_body_mutation"),
    ):
        answer = both.ask("json", kind, text)
        assert (
            both.ask("msgpack", kind, {**event, "data": attack}) == both.ask("msgpack", kind, text) == answer
        )
        assert answer is not None
        assert answer[name] not in ("allow", None)


def test_request_headers_without_an_id_have_that_of_their_metadata(client: ClientV2) -> None:
    event = request_headers("inner", uri="/../etc/passwd")
    del event["correlation_id"]
    answer = client.ask(EventKind.REQUEST_HEADERS, event)
    assert answer["audit"]["custom"] == {"correlation_id": "inner"}
    assert answer["decision"]["block"]["status"] == 403


def test_ping_and_cancel_stay_json(client: ClientV2) -> None:
    ping = b'{"sequence": 1, "timestamp_ms": 2}'
    client.send(encode_v2(FrameType.CANCEL, b'{"correlation_id": "a", "reason": 1}'))
    client.send(encode_v2(FrameType.PING, ping))
    assert client.receive() == ping
    assert client.frame_type == FrameType.PONG


# --- what is broken


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (msgspec.msgpack.encode({"correlation_id": "x-1", "uri": "/"})[:-1], "truncated"),
        (msgspec.msgpack.encode({"correlation_id": "x-1", "a": {1: 2}}), "str"),
        (msgspec.msgpack.encode({"correlation_id": "x-1", "headers": b"raw"}), "bytes"),
        (msgspec.msgpack.encode({"correlation_id": "x-1", "a": msgspec.msgpack.Ext(5, b"")}), "Ext"),
        (b"\x82\xaecorrelation_id\xa3x-1\xa1a\xd6\xff\0\0\0\1", "datetime"),
        (b"\x82\xaecorrelation_id\xd9\x03x-1\xa1a" + b"\x91" * 100_000 + b"\xc0", "recursion"),
        (b"\x82\xaecorrelation_id\xa3x-1\xa1a" + b"\x91" * 300 + b"\xc0", "[Rr]ecursion"),
        (b"\x82\xaecorrelation_id\xa3x-1\xa1a\xdd\xff\xff\xff\xff", "truncated"),
        (b"\x82\xaecorrelation_id\xa3x-1\xa1a\xa1\xff", "utf-8"),
        (b'{"correlation_id": "x-1"}\x81\xaecorrelation_id\xa3x-1', "trailing"),
    ],
)
def test_a_broken_event_is_answered_by_the_fail_open_rule(
    client: ClientV2, broken: bytes, reason: str
) -> None:
    with pytest.raises(EventError, match=reason):
        msgpack.to_json(broken)
    client.send(encode_v2(FrameType.REQUEST_HEADERS, broken))
    answer = msgspec.msgpack.decode(client.receive())
    assert answer["audit"]["custom"] == {"correlation_id": "x-1"}
    assert answer["decision"]["block"]["status"] == 500


@pytest.mark.parametrize(
    "broken",
    [
        b"\xc1",
        b"\x80",
        orjson.dumps(request_headers("json")),
        b"\x82\xaecorrelation_id\xa3x-1\xaecorrelation_id\xa3x-2\xc1",
        b"\xc1\xaecorrelation_id\xa5x-1",
        b"\xc1\xaecorrelation_id\xd9\xc9" + b"x" * 201,
        b"\xc1\xaecorrelation_id\xa3x\xff1",
    ],
)
def test_one_without_a_readable_id_closes_its_connection(client: ClientV2, broken: bytes) -> None:
    with pytest.raises(FrameError):
        msgpack.salvaged_id(broken)
    client.send(encode_v2(FrameType.REQUEST_HEADERS, broken))
    with pytest.raises(ConnectionError):
        client.receive()


# --- the handshake


@pytest.mark.parametrize(
    ("offered", "version", "chosen"),
    [
        (["msgpack", "json"], "0.6.45", "msgpack"),
        (["json", "msgpack"], "0.6.45", "json"),
        (["zstd", "msgpack"], "0.6.45", "msgpack"),
        (["json"], "0.6.45", "json"),
        ([], "0.6.45", "json"),
        (None, "0.6.45", "json"),
        ("msgpack", "0.6.45", "json"),
        ([["msgpack"], {}, 1], "0.6.45", "json"),
        (["msgpack"], "0.5.13", "json"),
        (["msgpack"], "0.5.13-rc.1", "json"),
        (["msgpack"], "0.4.99", "json"),
        (["msgpack"], "0.5.14", "msgpack"),
        (["msgpack"], "1.0.0", "msgpack"),
        (["msgpack"], "unknown", "msgpack"),
        (["msgpack"], None, "msgpack"),
    ],
)
def test_the_first_encoding_that_both_know_is_chosen(offered: Any, version: Any, chosen: str) -> None:
    request = {"supported_versions": [2], "supported_encodings": offered, "proxy_version": version}
    response = handshake.respond(orjson.dumps(request))
    assert response.encoding == orjson.loads(response.payload)["encoding"] == chosen


def test_a_client_refuses_what_it_has_not_offered(agent_that: AgentThat) -> None:
    path = agent_that(lambda read: encode_v2(2, b'{"success": true, "encoding": "json"}'))
    with pytest.raises(ProtocolError, match="speaks 'json', which was not offered"):
        ClientV2(path, encoding="msgpack")


def test_msgspec_is_loaded_when_it_is_needed() -> None:
    program = "import sys, sentinel_wasm.server.run; print('msgspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- what the agent says by itself, and what goes to the next process

TRAPS = module('(func (export "on_request_headers") (param i32 i32) (result i64) unreachable)')


def test_health_is_said_in_the_encoding_before_and_after_an_upgrade(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    agent = start_agent(build_wat(TRAPS))
    frame = encode_v2(FrameType.REQUEST_HEADERS, msgspec.msgpack.encode(request_headers("cut")))
    with Upgrading(agent) as upgrading, ClientV2(agent.socket, encoding="msgpack") as client:
        client.send(frame[:40])
        assert upgrading.upgrade()["connections"] == 1
        client.send(frame[40:])
        assert msgspec.msgpack.decode(client.receive())["audit"]["custom"] == {"correlation_id": "cut"}
        client.send(9 * frame)
        said = [msgspec.msgpack.decode(client.receive()) for _ in range(10)]
        assert [health for health in said if "state" in health] == [{"state": 2}]
        with ClientV2(agent.socket, encoding="msgpack") as late:
            assert msgspec.msgpack.decode(late.receive()) == {"state": 2}
            assert late.frame_type == FrameType.HEALTH_STATUS
