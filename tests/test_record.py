"""`sentinel-wasm record`: a tap between real agents and our client."""

from __future__ import annotations

import fcntl
import resource
import signal
import socket
import stat
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sentinel_wasm import base64
from sentinel_wasm.client import ClientV1, ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType, encode_v2

from .conftest import EXAMPLES, BuildWat, RunningAgent, StartAgent, agents
from .guest import wat
from .tapping import RunningTap, run_here

pytestmark = pytest.mark.parallel

SECURITY = EXAMPLES / "c" / "security.wasm"
HEADERS = {
    "host": ["example.com"],
    "authorization": ["Bearer s3cret"],
    "cookie": ["a=s3cret", "b=s3cret"],
    "user-agent": ["Mozilla/5.0"],
}
FRAME = {
    "correlation_id": "r",
    "opcode": "text",
    "data": "aGk=",
    "client_to_server": True,
    "frame_index": 0,
    "fin": True,
    "route_id": None,
    "client_ip": "127.0.0.1",
}
CONTENT = {
    "correlation_id": "r",
    "inspection_type": "pii_detection",
    "content": "hi",
    "model": None,
    "categories": ["email"],
    "route_id": None,
    "metadata": {"k": "v"},
}
SPINS = wat.module(wat.hook("(loop $on (br $on)) unreachable"))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with agents(tmp_path_factory) as start:
        yield start(SECURITY)


@pytest.fixture
def tap(agent: RunningAgent, tmp_path: Path) -> Iterator[RunningTap]:
    with RunningTap(agent.socket, tmp_path / "traffic.swr") as started:
        yield started


def body(data: bytes, identity: str = "r") -> dict[str, Any]:
    return {"correlation_id": identity, "data": base64.encode(data), "is_last": True, "total_size": len(data)}


def test_what_is_asked_and_answered_is_in_the_file(tap: RunningTap, agent: RunningAgent) -> None:
    event = request_headers("r", uri="/?q=<script>", headers=HEADERS)
    with tap.v1() as first, tap.v2() as second, agent.v1() as direct_v1, agent.v2() as direct_v2:
        for client, direct in ((first, direct_v1), (second, direct_v2)):
            for kind, payload in (
                (EventKind.REQUEST_HEADERS, event),
                (EventKind.REQUEST_BODY_CHUNK, body(b"\xff")),
                (EventKind.RESPONSE_HEADERS, {"correlation_id": "r", "status": 200, "headers": {}}),
            ):
                assert client.ask(kind, payload) == direct.ask(kind, payload)
    assert tap.stop() == 0
    assert [(line["version"], line["hook"]) for line in tap.lines] == [
        (version, hook)
        for version in (1, 2)
        for hook in ("on_request_headers", "on_request_body", "on_response_headers")
    ]
    line = tap.lines[0]
    assert line["event"] == {
        "correlation_id": "r",
        "method": "GET",
        "uri": "/?q=<script>",
        "client_ip": "127.0.0.1:40000",
        "headers": {**HEADERS, "authorization": ["(masked)"], "cookie": ["(masked)", "(masked)"]},
    }
    assert line["answer"]["decision"]["block"]["status"] == 403
    assert abs(line["time"] - time.time()) < 600
    assert tap.lines[1]["event"]["data"] == "/w=="
    assert len({line["connection"] for line in tap.lines}) == 2
    assert b"s3cret" not in tap.file.read_bytes()
    assert "6 events, 6 answers, 0 events of other kinds, 0 not understood" in tap.summary


def test_messagepack_is_recorded_as_json_is(tap: RunningTap) -> None:
    with tap.v2() as json, ClientV2(tap.socket, encoding="msgpack") as packed:
        for client in (json, packed):
            client.ask(EventKind.REQUEST_HEADERS, request_headers("r", uri="/../etc/passwd", headers=HEADERS))
        packed.ask(EventKind.REQUEST_BODY_CHUNK, {**body(b""), "data": b"\xff"})
    assert tap.stop() == 0
    first, second, third = tap.lines
    assert {**first, "time": 0, "connection": 0} == {**second, "time": 0, "connection": 0}
    assert third["event"]["data"] == "/w=="
    assert "3 events, 3 answers, 0 events of other kinds, 0 not understood" in tap.summary


def test_credentials_in_answers_are_masked(
    start_agent: StartAgent, build_wat: BuildWat, tmp_path: Path
) -> None:
    says = b'{"decision":"allow","add_request_headers":{"X-Api-Key":"s3cret","X-A":"b"}}'
    agent = start_agent(build_wat(wat.module(wat.says(says))))
    with RunningTap(agent.socket, tmp_path / "traffic.swr") as tap:
        with tap.v2() as client:
            assert "s3cret" in str(client.ask(EventKind.REQUEST_HEADERS, request_headers("r")))
        tap.stop()
        assert tap.lines[0]["answer"]["request_headers"] == [
            {"set": {"name": "X-Api-Key", "value": "(masked)"}},
            {"set": {"name": "X-A", "value": "b"}},
        ]


def test_frames_in_pieces_and_large_bodies_arrive_whole(tap: RunningTap) -> None:
    large = bytes(range(256)) * 4 * 4096  # 4 MiB
    with tap.v2() as client:
        payload = base64.encode(b"in pieces").join(('{"correlation_id":"p","is_last":true,"data":"', '"}'))
        for byte in encode_v2(FrameType.REQUEST_BODY_CHUNK, payload.encode()):
            client.send(bytes([byte]))
        client.receive()
        answer = client.ask(EventKind.RESPONSE_BODY_CHUNK, body(large, "l"))
    assert answer["response_body_mutation"]["data"] == base64.encode(large)  # the agent echoes it
    tap.stop()
    pieces, whole = tap.lines
    assert base64.decode(pieces["event"]["data"]) == b"in pieces"
    assert base64.decode(whole["event"]["data"]) == large
    assert whole["answer"]["response_body_mutation"]["data"] == base64.encode(large)


def test_events_of_other_kinds_pass_and_are_counted(tap: RunningTap) -> None:
    """They have answers too, which over v1 come in their order."""
    with tap.v1() as client:
        client.send_event(EventKind.CONFIGURE, {"agent_id": "a", "config": {"key": "s3cret"}})
        client.send_event(EventKind.REQUEST_HEADERS, request_headers("r", uri="/?q=<script>"))
        client.receive()
        client.receive()
        client.ask(EventKind.REQUEST_COMPLETE, {"correlation_id": "r", "error": "s3cret"})
    tap.stop()
    (line,) = tap.lines
    assert "block" in line["answer"]["decision"]
    assert b"s3cret" not in tap.file.read_bytes()
    assert "1 events, 1 answers, 2 events of other kinds, 0 not understood" in tap.summary


def test_frames_and_contents_are_recorded(tap: RunningTap) -> None:
    with tap.v1() as client:
        client.ask(EventKind.WEBSOCKET_FRAME, FRAME)
        client.ask(EventKind.GUARDRAIL_INSPECT, CONTENT)
    tap.stop()
    frame, content = tap.lines
    assert (frame["hook"], frame["event"]) == ("on_websocket_frame", FRAME)
    assert frame["answer"]["websocket_decision"] == "allow"
    assert (content["hook"], content["event"]) == ("on_guardrail", CONTENT)


def test_bodies_can_be_left_out(agent: RunningAgent, tmp_path: Path) -> None:
    with RunningTap(agent.socket, tmp_path / "traffic.swr", "--no-bodies") as tap:
        with tap.v2() as client:
            client.ask(EventKind.REQUEST_HEADERS, request_headers("r"))
            client.ask(EventKind.REQUEST_BODY_CHUNK, body(b"a"))
            client.ask(EventKind.RESPONSE_BODY_CHUNK, body(b"a"))
            client.ask(EventKind.WEBSOCKET_FRAME, FRAME)
            client.ask(EventKind.GUARDRAIL_INSPECT, CONTENT)
        tap.stop()
        assert [line["hook"] for line in tap.lines] == ["on_request_headers"]


def test_what_it_does_not_understand_it_passes_on(tap: RunningTap) -> None:
    with tap.v2() as client:
        client.send(encode_v2(FrameType.REQUEST_HEADERS, b'{"correlation_id":"broken"'))
        assert b'"broken"' in client.receive()
        client.ask(EventKind.REQUEST_HEADERS, request_headers("after"))
    with ClientV1(tap.socket) as garbage:
        garbage.send(b"\0\0\0\x05garbage")
        with pytest.raises(ConnectionError):
            garbage.receive()
    tap.stop()
    assert [line["event"]["correlation_id"] for line in tap.lines] == ["after"]
    # The event, the answer to it, and the garbage.
    assert ", 3 not understood" in tap.summary


def wait_until_taken(client: ClientV1 | ClientV2) -> None:
    """Until the tap has read what was sent."""
    end = time.monotonic() + 10
    while struct.unpack("i", fcntl.ioctl(client.sock, termios.TIOCOUTQ, bytes(4)))[0]:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_an_event_on_which_the_agent_dies_has_no_answer(start_agent: StartAgent, tmp_path: Path) -> None:
    agent = start_agent(SECURITY)
    with RunningTap(agent.socket, tmp_path / "traffic.swr") as tap:
        with tap.v2() as client:
            agent.process.send_signal(signal.SIGSTOP)
            client.send_event(EventKind.REQUEST_HEADERS, request_headers("last"))
            wait_until_taken(client)
            agent.stop(signal.SIGKILL)
            with pytest.raises(ConnectionError):
                client.receive()
        with socket.socket(socket.AF_UNIX) as late:
            late.connect(str(tap.socket))
            assert late.recv(1) == b""
        assert tap.stop() == 0
        (line,) = tap.lines
        assert (line["event"]["correlation_id"], line["answer"]) == ("last", None)
        assert "1 events, 0 answers" in tap.summary
        assert "1 more that the agent did not take" in tap.summary


def test_a_proxy_that_goes_takes_nobody_with_it(
    start_agent: StartAgent, build_wat: BuildWat, tmp_path: Path
) -> None:
    agent = start_agent(build_wat(SPINS), environment={"WASM_TIMEOUT_MS": "500"})
    with RunningTap(agent.socket, tmp_path / "traffic.swr") as tap:
        with tap.v2() as stays:
            with tap.v2() as goes:
                goes.send_event(EventKind.REQUEST_HEADERS, request_headers("gone"))
                wait_until_taken(goes)
            stays.ask(EventKind.REQUEST_HEADERS, request_headers("stays"))
        tap.stop()
        assert {line["event"]["correlation_id"] for line in tap.lines} == {"gone", "stays"}


def test_a_proxy_that_says_no_more_still_gets_its_answer(tap: RunningTap) -> None:
    with tap.v1() as client:
        client.send_event(EventKind.REQUEST_HEADERS, request_headers("r"))
        client.sock.shutdown(socket.SHUT_WR)
        client.receive()
        with pytest.raises(ConnectionError):
            client.receive()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_on_a_signal_and_leaves_only_its_file(tap: RunningTap, number: int) -> None:
    assert tap.says == f"point the proxy at {tap.socket}; Ctrl-C ends the recording\n"
    with tap.v2() as client:
        client.ask(EventKind.REQUEST_HEADERS, request_headers("r"))
        assert tap.stop(number) == 0
        with pytest.raises(ConnectionError):
            client.receive()
    assert tap.errors == ""
    assert not tap.socket.exists()
    assert stat.S_IMODE(tap.file.stat().st_mode) == 0o600


def test_an_empty_file_is_taken_and_nobody_elses_then(agent: RunningAgent, tmp_path: Path) -> None:
    file = tmp_path / "traffic.swr"
    file.touch(0o644)
    with RunningTap(agent.socket, file) as tap:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        tap.stop()
        assert file.read_bytes() == b'{"swr":1}\n'


def test_the_taps_socket_is_for_whom_the_agents_is(start_agent: StartAgent, tmp_path: Path) -> None:
    agent = start_agent(SECURITY, "--socket-mode", "600")
    with RunningTap(agent.socket, tmp_path / "traffic.swr") as tap:
        assert stat.S_IMODE(tap.socket.stat().st_mode) == 0o600


def test_a_full_disk_ends_the_recording_and_not_the_traffic(tap: RunningTap) -> None:
    resource.prlimit(tap.process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
    with tap.v2() as client:
        for number in range(10):
            client.ask(EventKind.REQUEST_HEADERS, request_headers(f"{number}"))
    assert tap.stop() == 1
    first, last = tap.errors.splitlines()
    assert first == "nothing more is recorded: File too large; traffic goes on"
    assert last == f"sentinel-wasm: {tap.file} is not whole: File too large"
    assert tap.file.stat().st_size == 1000


def test_connections_are_taken_again_after_too_many(tap: RunningTap) -> None:
    resource.prlimit(tap.process.pid, resource.RLIMIT_NOFILE, (3, 1000))
    with socket.socket(socket.AF_UNIX) as waits:
        waits.connect(str(tap.socket))
        time.sleep(0.2)
        resource.prlimit(tap.process.pid, resource.RLIMIT_NOFILE, (1000, 1000))
        with tap.v2() as client:
            client.ask(EventKind.REQUEST_HEADERS, request_headers("r"))


def test_mistakes_are_one_line(agent: RunningAgent, tmp_path: Path) -> None:
    full = tmp_path / "full.swr"
    full.write_text("mine")
    new = tmp_path / "new.swr"
    for arguments, status, says in (
        ((agent.socket, "--to", full), 1, f"{full} is there already, and is left as it is"),
        ((agent.socket, "--to", "/dev/null"), 1, "/dev/null is there already"),
        ((agent.socket, "--to", "/no/such.swr"), 1, "/no/such.swr cannot be written: No such file"),
        ((tmp_path / "none", "--to", new), 1, f"no agent listens on {tmp_path / 'none'}: No such file"),
        ((agent.socket, "--to", new, "--listen", agent.socket), 2, "--listen is the agent's own socket"),
        ((agent.socket, "--to", new, "--listen", full), 1, f"{full} exists and is not a socket"),
        ((agent.socket,), 2, "Missing option '--to'"),
    ):
        done = run_here("record", *arguments)
        assert done.returncode == status
        (line,) = done.stderr.splitlines()
        assert line.startswith("sentinel-wasm: ")
        assert says in line
    assert full.read_text() == "mine"


def test_two_taps_need_two_sockets(tap: RunningTap, agent: RunningAgent, tmp_path: Path) -> None:
    done = run_here("record", agent.socket, "--to", tmp_path / "other.swr")
    assert done.returncode == 1
    assert f"is listening on {tap.socket}; stop it, or choose another --listen" in done.stderr
