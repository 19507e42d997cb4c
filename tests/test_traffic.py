"""What a tap makes of bytes, and the file that it writes: anything at all may come, and some of it is cut."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_wasm.cli import traffic
from sentinel_wasm.cli.tap import Conversation, Counts
from sentinel_wasm.decision import ALLOW, Block, Decision, HeaderOp
from sentinel_wasm.errors import UserError
from sentinel_wasm.protocol import answers
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType, encode_v1, encode_v2

from .normalising import captured_v1, captured_v2

pytestmark = pytest.mark.parallel

SHAKE = encode_v2(FrameType.HANDSHAKE_REQUEST, b"{}")
RESPONSE = {"correlation_id": "a", "status": 200, "headers": {}}
ANSWER = answers.encode(ALLOW, 2)


class Heard:
    """A conversation and its lines."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.written: list[bytes] = []
        self.talk = Conversation(1, self.counts, self.written.append)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.written]


def event_v2(identity: str, data: str = "") -> bytes:
    payload = {"correlation_id": identity, "data": data, "is_last": True}
    return encode_v2(FrameType.REQUEST_BODY_CHUNK, orjson.dumps(payload))


def answer_v2(identity: str) -> bytes:
    return encode_v2(FrameType.AGENT_RESPONSE, answers.with_correlation_id(ANSWER, identity))


def test_v2_answers_find_their_events_in_any_order() -> None:
    heard = Heard()
    heard.talk.from_proxy(SHAKE + event_v2("a") + event_v2("b"))
    heard.talk.from_agent(encode_v2(FrameType.HANDSHAKE_RESPONSE, b"{}") + answer_v2("b") + answer_v2("a"))
    assert [line["event"]["correlation_id"] for line in heard.lines] == ["b", "a"]
    assert heard.counts.not_understood == 0


def test_an_event_that_the_proxy_gives_up_has_no_answer() -> None:
    heard = Heard()
    heard.talk.from_proxy(SHAKE + event_v2("a", "MQ==") + event_v2("a", "Mg=="))
    heard.talk.from_agent(answer_v2("a"))
    heard.talk.end()
    assert [(line["event"]["data"], line["answer"] is None) for line in heard.lines] == [
        ("MQ==", True),
        ("Mg==", False),
    ]


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        (b"[]", 2),
        (b"{}", 2),
        (b'{"decision":"allow"}', 2),
        (b'{"decision":"allow","audit":{"custom":{"correlation_id":"other"}}}', 2),
        (b'{"decision":"perhaps"}', 1),
        (b"not JSON", 1),
    ],
)
def test_an_answer_that_is_none_is_counted(answer: bytes, version: int) -> None:
    heard = Heard()
    if version == 2:
        heard.talk.from_proxy(SHAKE + event_v2("a"))
        heard.talk.from_agent(encode_v2(FrameType.AGENT_RESPONSE, answer))
    else:
        event = {"version": 1, "event_type": "response_headers", "payload": RESPONSE}
        heard.talk.from_proxy(encode_v1(orjson.dumps(event)))
        heard.talk.from_agent(encode_v1(answer))
    heard.talk.end()
    assert heard.counts.not_understood == 1
    assert [line["answer"] for line in heard.lines] == [None]


@pytest.mark.parametrize(
    ("event", "not_understood", "others"),
    [
        ({"event_type": "response_headers", "payload": {}}, 1, 0),
        ({"event_type": "response_headers", "payload": {**RESPONSE, "headers": {"a": "b"}}}, 1, 0),
        ({"event_type": 1}, 1, 0),
        ({"event_type": "new_in_2030"}, 0, 1),
        ([], 1, 0),
    ],
)
def test_a_v1_event_that_is_none_has_its_answer_all_the_same(
    event: Any, not_understood: int, others: int
) -> None:
    heard = Heard()
    sound = {"version": 1, "event_type": "response_headers", "payload": RESPONSE}
    heard.talk.from_proxy(encode_v1(b" " + orjson.dumps(event)) + encode_v1(orjson.dumps(sound)))
    for decision in (Decision(Block()), ALLOW):
        heard.talk.from_agent(encode_v1(answers.encode(decision, 1)))
    assert [line["answer"]["decision"] for line in heard.lines] == ["allow"]
    assert (heard.counts.not_understood, heard.counts.others) == (not_understood, others)


def test_events_that_are_never_answered_do_not_pile_up() -> None:
    heard = Heard()
    heard.talk.from_proxy(SHAKE)
    for number in range(5000):
        heard.talk.from_proxy(event_v2(f"{number}"))
    assert len(heard.written) == 5000 - 4096
    for number in range(8):
        heard.talk.from_proxy(event_v2(f"large {number}", "A" * (10 << 20)))
    assert len(heard.written) == 5000 + 2  # six of ten MiB wait
    heard.talk.end()
    assert len(heard.written) == 5008


# What each of the real proxies has sent, on one connection.
STREAMS = [
    b"".join(map(encode_v1, captured_v1())),
    b"".join(encode_v2(*frame) for frame in captured_v2()),
]


@given(st.data())
def test_how_bytes_are_cut_changes_nothing(data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from(STREAMS))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    whole, cut = Heard(), Heard()
    whole.talk.from_proxy(stream)
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        cut.talk.from_proxy(stream[start:end])
    whole.talk.end()
    cut.talk.end()
    assert [line["event"] for line in cut.lines] == [line["event"] for line in whole.lines]
    assert cut.counts == whole.counts
    assert whole.counts.events > 10
    assert whole.counts.not_understood == 0


@given(st.data())
@settings(max_examples=300)
def test_any_bytes_both_ways_leave_lines_that_can_be_read(data: st.DataObject) -> None:
    stream = bytearray(data.draw(st.sampled_from(STREAMS)))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=20)):
        stream[at] = byte
    heard = Heard()
    heard.talk.from_proxy(bytes(stream))
    frames = st.one_of(
        st.binary(max_size=20),
        st.sampled_from([encode_v1(ANSWER), encode_v1(b"{}"), answer_v2("a"), encode_v2(0x20, b"[]")]),
    )
    for part in data.draw(st.lists(frames, max_size=6)):
        heard.talk.from_agent(part)
    heard.talk.end()
    assert all(line.endswith(b"\n") for line in heard.written)
    assert all(traffic.parsed(line).hook for line in heard.written)


# The file


GOOD = traffic.line(
    1.5,
    1,
    2,
    "on_response_headers",
    traffic.encode_event(EventKind.RESPONSE_HEADERS, {**RESPONSE, "headers": {"Set-Cookie": ["a", "b"]}}),
    Decision(response_headers=(HeaderOp("set", "X-Token", "s3cret"), HeaderOp("remove", "Cookie"))),
)


def test_a_line_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "a.swr"
    file.write_bytes(traffic.HEAD + GOOD)
    (found,) = traffic.Reader(file)
    assert found.event["headers"] == {"Set-Cookie": ["(masked)", "(masked)"]}
    assert found.answer == Decision(
        response_headers=(HeaderOp("set", "X-Token", "(masked)"), HeaderOp("remove", "Cookie"))
    )
    assert found[:4] == (1.5, 1, 2, "on_response_headers")


@pytest.mark.parametrize("end", [1, 20, len(GOOD) - 1])
def test_a_torn_end_is_left_out(tmp_path: Path, end: int) -> None:
    file = tmp_path / "a.swr"
    file.write_bytes(traffic.HEAD + GOOD + GOOD[:end])
    reader = traffic.Reader(file)
    assert len(list(reader)) == 1
    assert reader.is_cut
    assert reader.where == f"{file}:3"


def changed(**members: Any) -> bytes:
    return orjson.dumps({**orjson.loads(GOOD), **members}) + b"\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{\n", "not JSON"),
        (b"\n", "not JSON"),
        (b"[]\n", "expected an object of time, connection, version, hook, event, answer"),
        (changed(more=1), "expected an object of time"),
        (changed(time="now"), "time is 'now'"),
        (changed(version=3), "version is 3"),
        (changed(connection=None), "connection is None"),
        (changed(hook="on_configure"), "no hook 'on_configure'"),
        (changed(event={}), "an event of on_response_headers has status, correlation_id, headers"),
        (changed(event=[]), "event is []"),
        (changed(hook="on_request_body"), "an event of on_request_body has correlation_id, data"),
        (changed(answer={}), "decision is not an object with one member"),
        (changed(answer="allow"), "answer is 'allow'"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    file = tmp_path / "a.swr"
    file.write_bytes(traffic.HEAD + GOOD + line + GOOD)
    with pytest.raises(UserError) as failed:
        list(traffic.Reader(file))
    assert str(failed.value).startswith(f"{file}:3: ")
    assert says in str(failed.value)


def test_data_must_be_base64(tmp_path: Path) -> None:
    chunk = {"correlation_id": "a", "data": "YQ==", "is_last": True}
    line = traffic.line(
        1, 1, 1, "on_request_body", traffic.encode_event(EventKind.REQUEST_BODY_CHUNK, chunk), None
    )
    file = tmp_path / "a.swr"
    file.write_bytes(traffic.HEAD + line)
    (found,) = traffic.Reader(file)
    assert (found.event["data"], found.answer) == (b"a", None)
    file.write_bytes(traffic.HEAD + line.replace(b"YQ==", b"YQ="))
    with pytest.raises(UserError, match=":2: "):
        list(traffic.Reader(file))


def test_a_line_without_end_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.swr"
    with file.open("wb") as out:
        out.write(traffic.HEAD)
        out.truncate(1 << 30)
    with pytest.raises(UserError, match=f":2: a line of over {traffic.LINE_BYTES} bytes"):
        list(traffic.Reader(file))


@pytest.mark.parametrize("content", [b"", b"{", b'{"swr":2}\n', b"\0asm"])
def test_another_file_is_no_recording(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.swr"
    file.write_bytes(content)
    with pytest.raises(UserError, match="is no recording"):
        list(traffic.Reader(file))


@given(st.binary(max_size=8), st.integers(0, len(GOOD)), st.integers(0, 8))
@settings(max_examples=300)
def test_any_change_of_a_line_is_read_or_refused(put: bytes, at: int, taken: int) -> None:
    with contextlib.suppress(ValueError):
        assert traffic.parsed(GOOD[:at] + put + GOOD[at + taken :]).event
