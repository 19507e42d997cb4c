"""What only the v1 proxy does: sentinel 0.2.5."""

from __future__ import annotations

import time

import pytest

from ..conftest import EXAMPLES, BuildWat, until
from ..scraping import LOCAL, Scraped
from .conftest import StartStack
from .modules import SLOW_OR_DENIES
from .proxy import SENTINEL, SENTINEL_FRAMES, TIMEOUT, RunningProxy
from .upstream import CARD_BODY, Upstream
from .websocket import BINARY, CLOSE, CONTINUATION, TEXT, Frame, WebSocket

pytestmark = [pytest.mark.e2e, pytest.mark.parallel]

FRAMES = EXAMPLES / "c" / "websocket.wasm"

ALL_EVENTS = '"request_headers" "request_body" "response_headers" "response_body"'


def test_configure_is_accepted(start_stack: StartStack) -> None:
    stack = start_stack(SENTINEL)
    stack.agent.wait_for_log("configured by the proxy")
    assert "Agent accepted configuration" in stack.proxy.log


def test_options_of_the_config_block_hold(start_stack: StartStack) -> None:
    options = 'pool-size 2; fail-open #true; mode "strict"'
    stack = start_stack(SENTINEL, *LOCAL, changes={'mode "strict"': options})
    stack.agent.wait_for_log("configured by the proxy")
    assert "Agent accepted configuration" in stack.proxy.log
    until(lambda: Scraped(stack.agent).value("instances") == 2)
    assert stack.proxy.get("/").status == 200


def test_a_bad_option_in_the_config_block_is_rejected(start_stack: StartStack) -> None:
    stack = start_stack(SENTINEL, *LOCAL, changes={'mode "strict"': 'pool-size "many"'})
    reason = "pool-size in the proxy's config block is 'many', expected a whole number from 1 to 256"
    assert reason in stack.agent.wait_for_log("configuration rejected")
    assert Scraped(stack.agent).value("instances") == 4
    assert stack.proxy.get("/").status == 200


def test_response_events_never_come(start_stack: StartStack) -> None:
    """Listed or not, this proxy sends none: masking needs zentinel."""
    stack = start_stack(SENTINEL, "--verbose", changes={'"request_headers" "request_body"': ALL_EVENTS})
    assert stack.proxy.get("/card").body == CARD_BODY
    assert '"hook":"on_response' not in stack.agent.log


def test_restarted_agent_serves_again(start_stack: StartStack) -> None:
    stack = start_stack(SENTINEL)
    assert stack.proxy.get("/").status == 200
    stack.kill_agent()
    assert stack.proxy.get("/").status == 503
    stack.restart_agent()
    _wait_for_200(stack.proxy, 15)


def test_restarted_agent_is_configured_again(start_stack: StartStack) -> None:
    stack = start_stack(SENTINEL)
    stack.kill_agent()
    stack.restart_agent()
    _wait_for_200(stack.proxy, 15)
    stack.agent.wait_for_log("configured by the proxy")


def test_one_blocked_body_takes_the_upstream_out(start_stack: StartStack) -> None:
    """The proxy's defect: it books the block as the upstream's failure, and never forgives it."""
    proxy = start_stack(SENTINEL).proxy
    assert proxy.get("/").status == 200
    assert proxy.post("/comments", '{"comment": "<script>"}').status == 403
    assert proxy.get("/").status == 502


def test_late_answer_is_not_taken_for_the_next_request(
    start_stack: StartStack, build_wat: BuildWat, upstream: Upstream
) -> None:
    """The proxy gives what it reads next to whoever asks next: after one late answer, all are one off."""
    stack = start_stack(
        SENTINEL,
        "--proxy-timeout-ms",
        "100",
        "--timeout-ms",
        "5000",
        module=build_wat(SLOW_OR_DENIES),
        changes={TIMEOUT: "timeout-ms 100"},
    )
    assert stack.proxy.get("/slow").status == 503
    # After five refusals in a row this proxy asks no agent for ten seconds.
    end = time.monotonic() + 30
    while (status := _status(stack.proxy, "/deny")) == 503:
        assert time.monotonic() < end, f"no answer but 503: {stack.proxy.log}"
        time.sleep(0.5)
    assert status == 403
    assert upstream.paths == []


def test_frames_are_filtered_both_ways(start_stack: StartStack, upstream: Upstream) -> None:
    """The module keeps the end of one frame for the next: all reach the same instance."""
    stack = start_stack(SENTINEL_FRAMES, "--dispatch", "threads", module=FRAMES)
    with WebSocket(stack.proxy.port) as client:
        assert client.status == 101
        client.send(TEXT, b"hello")
        client.send(BINARY, bytes(65_537))
        client.send(BINARY, b"small")
        assert [client.receive(), client.receive()] == [Frame(TEXT, b"hello"), Frame(BINARY, b"small")]
        client.send(TEXT, b"my pass", fin=False)
        assert client.receive() == Frame(TEXT, b"my pass")
        client.send(CONTINUATION, b"word is")
        until(lambda: "WebSocket closed: 1008 a forbidden word" in stack.proxy.log)
        assert upstream.bodies == [b"hello", b"small", b"my pass"]


def test_a_close_is_cut_off_by_this_proxy(start_stack: StartStack) -> None:
    """Its defect: for a client's frame it writes an HTTP error into the WebSocket, and no Close frame."""
    stack = start_stack(SENTINEL_FRAMES, module=FRAMES)
    with WebSocket(stack.proxy.port) as client:
        client.send(TEXT, b"password")
        assert client.receive() != Frame(CLOSE, b"\x03\xf0a forbidden word")
    until(lambda: "WebSocket closed: 1008 a forbidden word" in stack.proxy.log)


def test_a_close_for_the_servers_frame_reaches_the_client(start_stack: StartStack) -> None:
    stack = start_stack(SENTINEL_FRAMES, module=FRAMES)
    with WebSocket(stack.proxy.port, "/password") as client:
        client.send(TEXT, b"say it")
        assert client.receive() == Frame(CLOSE, b"\x03\xf0a forbidden word")


def _wait_for_200(proxy: RunningProxy, seconds: float) -> None:
    end = time.monotonic() + seconds
    while _status(proxy) != 200:
        assert time.monotonic() < end, f"no 200 within {seconds} s: {proxy.log}"
        time.sleep(0.1)


def _status(proxy: RunningProxy, path: str = "/") -> int | None:
    """None where the proxy hangs up: a debug build counts below zero at a refusal, and panics at the next."""
    try:
        return proxy.get(path).status
    except ConnectionError:
        return None
