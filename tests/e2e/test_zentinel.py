"""What only the v2 proxy does: zentinel 0.6.45."""

from __future__ import annotations

import http.client
import threading
import time
from pathlib import Path

import pytest

from ..conftest import EXAMPLES, BuildWat, StartAgent, until
from .conftest import SECURITY, StartStack
from .modules import BLOCKS_BODIES, BLOCKS_RESPONSES, TRAPS_ON_BODIES, WITHHOLDS_BODIES
from .proxy import ZENTINEL, Reply, RunningProxy, start_proxy
from .upstream import CARD_BODY, LONG_BODY, LONG_MASKED_BODY, MASKED_BODY, STREAMED, Upstream
from .websocket import TEXT, WebSocket

pytestmark = [pytest.mark.e2e, pytest.mark.parallel]

RESPONSE_EVENTS = ' "response_headers" "response_body"'

ROUTE = 'upstream "backend"\n        filters "wasm"'
GUARDRAILS = """
        service-type "inference"
        inference {
            rate-limit {
                tokens-per-minute 1000000
            }
            guardrails {
                prompt-injection {
                    enabled #true
                    agent "wasm"
                    action "block"
                }
                pii-detection {
                    enabled #true
                    agent "wasm"
                    categories "email" "credit-card"
                }
            }
        }"""

# Long enough for several attempts at the agent; it was watched for 120 s by hand.
WATCHED_S = 3.0


def test_response_headers_reach_the_client_without_the_filter(start_stack: StartStack) -> None:
    """What the next two tests change is the filter's doing, not the proxy's."""
    headers = start_stack(ZENTINEL, changes={RESPONSE_EVENTS: ""}).proxy.get("/card").headers
    assert headers["Server"].startswith("e2e-upstream")
    assert headers["X-Powered-By"] == "e2e"
    assert "X-Frame-Options" not in headers


def test_response_headers_are_added(start_stack: StartStack) -> None:
    headers = start_stack(ZENTINEL).proxy.get("/card").headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_response_headers_are_removed(start_stack: StartStack) -> None:
    headers = start_stack(ZENTINEL).proxy.get("/card").headers
    assert "Server" not in headers
    assert "X-Powered-By" not in headers


def test_response_body_is_masked(start_stack: StartStack) -> None:
    reply = start_stack(ZENTINEL).proxy.get("/card")
    assert reply.status == 200
    assert reply.body == MASKED_BODY


def test_long_response_body_is_masked_whole(start_stack: StartStack) -> None:
    """The card number lies across two reads: the proxy gives the agent the body as one chunk."""
    assert start_stack(ZENTINEL).proxy.get("/long-card").body == LONG_MASKED_BODY


def test_long_response_body_arrives_whole(start_stack: StartStack) -> None:
    """The filter leaves it alone, and the agent echoes it."""
    reply = start_stack(ZENTINEL).proxy.get("/long")
    assert reply.whole
    assert reply.body == LONG_BODY


def test_long_response_body_is_cut_without_echo(start_stack: StartStack) -> None:
    """The proxy's defect that --echo-response-bodies is there for."""
    reply = start_stack(ZENTINEL, "--no-echo-response-bodies").proxy.get("/long")
    assert not reply.whole
    assert len(reply.body) < len(LONG_BODY)


def test_shorter_body_is_whole_once_content_length_is_removed(
    start_stack: StartStack, build_wat: BuildWat
) -> None:
    reply = start_stack(ZENTINEL, module=build_wat(WITHHOLDS_BODIES)).proxy.get("/card")
    assert (reply.whole, reply.body) == (True, b"withheld")
    assert "Content-Length" not in reply.headers


def test_shorter_body_is_broken_by_the_old_content_length(
    start_stack: StartStack, build_wat: BuildWat
) -> None:
    """The proxy keeps the upstream's Content-Length, so the client waits for bytes that do not come."""
    changes = {RESPONSE_EVENTS: ' "response_body"'}
    reply = start_stack(ZENTINEL, module=build_wat(WITHHOLDS_BODIES), changes=changes).proxy.get("/card")
    assert (reply.whole, reply.body) == (False, b"withheld")


def test_block_of_a_response_is_ignored(start_stack: StartStack, build_wat: BuildWat) -> None:
    reply = start_stack(ZENTINEL, module=build_wat(BLOCKS_RESPONSES)).proxy.get("/card")
    assert (reply.status, reply.body) == (200, CARD_BODY)


def test_blocked_response_body_is_replaced(start_stack: StartStack, build_wat: BuildWat) -> None:
    """The proxy ignores the block; the agent sends a replacement with it."""
    reply = start_stack(ZENTINEL, module=build_wat(BLOCKS_BODIES)).proxy.get("/card")
    assert (reply.status, reply.body) == (200, b"withheld")


def test_response_body_is_kept_back_when_the_module_traps(
    start_stack: StartStack, build_wat: BuildWat
) -> None:
    """What comes instead is cut or padded by the old Content-Length; not a byte of the body comes."""
    proxy = start_stack(ZENTINEL, module=build_wat(TRAPS_ON_BODIES)).proxy
    try:
        body = proxy.get("/card").body
    except http.client.IncompleteRead as cut:
        body = cut.partial
    assert body == b"Wasm Error"


def test_response_passes_unmasked_when_the_agent_dies_before_it(
    start_stack: StartStack, upstream: Upstream
) -> None:
    """With `failure-mode "closed"` everywhere: in the response phases the proxy is always fail-open."""
    stack = start_stack(ZENTINEL)
    replies: list[Reply] = []
    request = threading.Thread(target=lambda: replies.append(stack.proxy.get("/held")))
    request.start()
    try:
        upstream.wait_until_held()
        stack.kill_agent()
    finally:
        upstream.release()
        request.join()
    assert [reply.body for reply in replies] == [CARD_BODY]


def test_blocked_bodies_leave_the_upstream_in_service(start_stack: StartStack) -> None:
    """Each is a failed connection in the proxy's log; its circuit breaker must not open for that."""
    proxy = start_stack(ZENTINEL).proxy
    blocked = [proxy.post("/comments", '{"comment": "<script>"}').status for _ in range(12)]
    assert blocked == [403] * 12
    assert proxy.get("/").status == 200


def test_waf_block_must_say_that_it_is_off(start_stack: StartStack) -> None:
    """Its default mode keeps the proxy from starting, though all the block does here is show bodies."""
    with pytest.raises(AssertionError, match="WAF mode"):
        start_stack(ZENTINEL, changes={'mode "off"\n': ""})


def test_restarted_agent_is_never_reached_again(start_stack: StartStack) -> None:
    """The proxy's defect: it does not reconnect (upstream issues 465 and 471)."""
    stack = start_stack(ZENTINEL)
    assert stack.proxy.get("/").status == 200
    stack.kill_agent()
    stack.restart_agent()
    assert _statuses(stack.proxy) <= {503, 504}


def test_agent_started_after_the_proxy_is_never_reached(
    upstream: Upstream, start_agent: StartAgent, tmp_path: Path
) -> None:
    """The same defect at start-up: the agent's socket must be there before the proxy starts."""
    ZENTINEL.binary()
    agent = start_agent(SECURITY)
    waiting = agent.socket.rename(agent.socket.with_name("later.sock"))
    proxy = start_proxy(ZENTINEL, tmp_path, upstream.port, agent.socket, {})
    try:
        waiting.rename(agent.socket)
        assert _statuses(proxy) <= {503, 504}
    finally:
        proxy.kill()


def test_a_models_stream_is_inspected_when_it_is_over(start_stack: StartStack) -> None:
    """This proxy tells of what was found; it redacts and blocks nothing."""
    module = EXAMPLES / "c" / "guardrail.wasm"
    stack = start_stack(ZENTINEL, "--verbose", module=module, changes={ROUTE: ROUTE + GUARDRAILS})
    assert stack.proxy.get("/stream").body == STREAMED
    stack.agent.wait_for_log('"detections":["credit-card","email"]')
    until(lambda: "PII detected in inference response" in stack.proxy.log)


def test_prompts_are_never_inspected(start_stack: StartStack) -> None:
    """This proxy's defect: it looks for a prompt before it has read the body."""
    module = EXAMPLES / "c" / "guardrail.wasm"
    stack = start_stack(ZENTINEL, "--verbose", module=module, changes={ROUTE: ROUTE + GUARDRAILS})
    assert stack.proxy.post("/", '{"prompt": "I am zoe@example.com"}').status == 200
    assert "on_guardrail" not in {line.get("hook") for line in stack.agent.lines("decided")}


def test_inspected_frames_end_the_websocket(start_stack: StartStack, upstream: Upstream) -> None:
    """This proxy's defect: it takes the event's name, and then cannot send it."""
    changes = {
        ROUTE: f"websocket #true\n        websocket-inspection #true\n        {ROUTE}",
        RESPONSE_EVENTS: ' "websocket_frame"',
    }
    stack = start_stack(ZENTINEL, module=EXAMPLES / "c" / "websocket.wasm", changes=changes)
    with WebSocket(stack.proxy.port) as client:
        assert client.status == 101
        client.send(TEXT, b"hello")
        until(lambda: "Unsupported event type WebSocketFrame" in stack.proxy.log)
    assert upstream.bodies == []


def _statuses(proxy: RunningProxy) -> set[int]:
    """Every status that the proxy answers with for a while."""
    seen = set()
    end = time.monotonic() + WATCHED_S
    while time.monotonic() < end:
        seen.add(proxy.get("/").status)
        time.sleep(0.1)
    return seen
