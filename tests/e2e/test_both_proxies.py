"""What the v1 and the v2 proxy do alike."""

from __future__ import annotations

import http.client
import signal

import pytest

from ..conftest import BuildWat
from .conftest import StartStack
from .modules import REDIRECTS, TRAPS_ON_TRAP
from .proxy import AGENT_CLOSED, FILTER_CLOSED, SENTINEL, TIMEOUT, ZENTINEL, ProxyKind
from .upstream import Upstream

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.parallel,
    pytest.mark.parametrize("kind", [ZENTINEL, SENTINEL], ids=lambda kind: kind.name),
]

ATTACK = '{"comment": "<script>"}'
INSPECTION = "inspect-request-body #true"
FILTER_OPEN = FILTER_CLOSED.replace("closed", "open")

# For agents that are not going to answer.
QUICK = "timeout-ms 100"


def test_allowed_request_reaches_the_upstream(kind: ProxyKind, start_stack: StartStack) -> None:
    reply = start_stack(kind).proxy.get("/shop?item=1")
    assert reply.status == 200
    assert reply.seen_by_upstream["path"] == "/shop?item=1"


def test_path_traversal_is_blocked(kind: ProxyKind, start_stack: StartStack) -> None:
    reply = start_stack(kind).proxy.get("/files/../../etc/passwd")
    assert (reply.status, reply.body) == (403, b"Forbidden")


def test_blocked_request_does_not_reach_the_upstream(
    kind: ProxyKind, start_stack: StartStack, upstream: Upstream
) -> None:
    start_stack(kind).proxy.get("/files/../../etc/passwd")
    assert upstream.paths == []


def test_admin_without_authorization_gets_401(kind: ProxyKind, start_stack: StartStack) -> None:
    reply = start_stack(kind).proxy.get("/admin")
    assert (reply.status, reply.body) == (401, b"Authentication required")


def test_admin_with_authorization_passes(kind: ProxyKind, start_stack: StartStack) -> None:
    """The proxies send header names in lower case: the filter looks up `Authorization` all the same."""
    reply = start_stack(kind).proxy.get("/admin", {"Authorization": "Bearer e2e"})
    assert reply.status == 200
    assert reply.seen_by_upstream["headers"]["x-wasm-processed"] == "true"


def test_client_ip_has_no_port(kind: ProxyKind, start_stack: StartStack) -> None:
    reply = start_stack(kind).proxy.get("/")
    assert reply.seen_by_upstream["headers"]["x-client-ip"] == "127.0.0.1"


def test_clients_own_header_is_overwritten(kind: ProxyKind, start_stack: StartStack) -> None:
    reply = start_stack(kind).proxy.get("/", {"X-Client-IP": "203.0.113.7"})
    assert reply.seen_by_upstream["headers"]["x-client-ip"] == "127.0.0.1"


def test_request_header_is_removed(kind: ProxyKind, start_stack: StartStack) -> None:
    reply = start_stack(kind).proxy.get("/", {"X-Debug": "1", "X-Kept": "1"})
    headers = reply.seen_by_upstream["headers"]
    assert "x-debug" not in headers
    assert "x-kept" in headers


def test_clean_request_body_arrives_whole(
    kind: ProxyKind, start_stack: StartStack, upstream: Upstream
) -> None:
    reply = start_stack(kind).proxy.post("/comments", '{"comment": "fine"}')
    assert reply.status == 200
    assert upstream.bodies == [b'{"comment": "fine"}']


def test_request_body_is_blocked(kind: ProxyKind, start_stack: StartStack, upstream: Upstream) -> None:
    reply = start_stack(kind).proxy.post("/comments", ATTACK)
    assert reply.status == 403
    assert upstream.bodies == []


def test_body_block_loses_the_filters_text(kind: ProxyKind, start_stack: StartStack) -> None:
    """The proxies keep the status of a block in the body phase, and write a page of their own."""
    reply = start_stack(kind).proxy.post("/comments", ATTACK)
    assert b"Forbidden" not in reply.body
    assert b"trace_id" in reply.body


def test_body_passes_unseen_without_inspection(kind: ProxyKind, start_stack: StartStack) -> None:
    changes = {INSPECTION: "inspect-request-body #false"}
    assert start_stack(kind, changes=changes).proxy.post("/comments", ATTACK).status == 200


def test_body_of_another_content_type_passes_unseen(kind: ProxyKind, start_stack: StartStack) -> None:
    """The proxies compare with their list letter by letter, so a client can choose not to be inspected."""
    proxy = start_stack(kind).proxy
    for content_type in ("text/plain", "Application/JSON", None):
        assert proxy.post("/comments", ATTACK, content_type).status == 200


@pytest.mark.parametrize("content_type", ["Application/JSON", None])
def test_empty_content_type_on_the_list_shows_every_body(
    kind: ProxyKind, start_stack: StartStack, content_type: str | None
) -> None:
    changes = {INSPECTION: f'{INSPECTION}\n        content-types ""'}
    stack = start_stack(kind, changes=changes)
    assert stack.proxy.post("/comments", ATTACK, content_type).status == 403


def test_trap_fails_closed(kind: ProxyKind, start_stack: StartStack, build_wat: BuildWat) -> None:
    stack = start_stack(kind, module=build_wat(TRAPS_ON_TRAP))
    assert stack.proxy.get("/fine").status == 200
    reply = stack.proxy.get("/trap")
    assert (reply.status, reply.body) == (500, b"Wasm Error")
    stack.agent.wait_for_log("trap: unreachable in on_request_headers")


def test_trap_with_fail_open_passes(kind: ProxyKind, start_stack: StartStack, build_wat: BuildWat) -> None:
    stack = start_stack(kind, "--fail-open", module=build_wat(TRAPS_ON_TRAP))
    assert stack.proxy.get("/trap").status == 200
    stack.agent.wait_for_log("trap: unreachable in on_request_headers")


def test_challenge_is_let_through_by_default(kind: ProxyKind, start_stack: StartStack) -> None:
    assert start_stack(kind).proxy.get("/", {"User-Agent": "a bot"}).status == 200


def test_challenge_fallback_blocks(kind: ProxyKind, start_stack: StartStack) -> None:
    stack = start_stack(kind, "--challenge-fallback", "block")
    reply = stack.proxy.get("/", {"User-Agent": "a bot"})
    assert reply.status == 403
    assert b"challenge" in reply.body


def test_redirect_becomes_an_error(kind: ProxyKind, start_stack: StartStack, build_wat: BuildWat) -> None:
    reply = start_stack(kind, module=build_wat(REDIRECTS)).proxy.get("/")
    assert reply.status == 500
    assert "Location" not in reply.headers


def test_dead_agent_refuses_requests(kind: ProxyKind, start_stack: StartStack, upstream: Upstream) -> None:
    stack = start_stack(kind, changes={TIMEOUT: QUICK})
    stack.kill_agent()
    assert stack.proxy.get("/").status in (503, 504)
    assert upstream.paths == []


def test_dead_agent_lets_requests_pass_where_the_filter_is_open(
    kind: ProxyKind, start_stack: StartStack
) -> None:
    stack = start_stack(kind, changes={FILTER_CLOSED: FILTER_OPEN, TIMEOUT: QUICK})
    stack.kill_agent()
    assert stack.proxy.get("/").status == 200


def test_five_timeouts_open_the_circuit(kind: ProxyKind, start_stack: StartStack) -> None:
    """An agent that hangs costs five requests the timeout; after that they are refused at once."""
    stack = start_stack(kind, changes={TIMEOUT: QUICK})
    stack.agent.process.send_signal(signal.SIGSTOP)
    try:
        replies = [stack.proxy.get("/") for _ in range(6)]
    finally:
        stack.agent.process.send_signal(signal.SIGCONT)
    assert {reply.status for reply in replies} <= {503, 504}
    assert [reply.body for reply in replies].index(b"Service unavailable") == 5


def test_body_is_refused_when_the_agent_dies_before_it(
    kind: ProxyKind, start_stack: StartStack, upstream: Upstream
) -> None:
    assert _status_of_orphaned_body(kind, start_stack, {}) in (503, 504)
    assert upstream.bodies == []


def test_body_passes_a_dead_agent_where_the_agent_block_is_not_closed(
    kind: ProxyKind, start_stack: StartStack
) -> None:
    """The filter's and the route's failure-mode do not count for bodies, and the agent's default is open."""
    changes = {AGENT_CLOSED: "events"}
    assert _status_of_orphaned_body(kind, start_stack, changes) == 200


def _status_of_orphaned_body(kind: ProxyKind, start_stack: StartStack, changes: dict[str, str]) -> int:
    """The answer to a request whose agent dies between its headers and its body."""
    stack = start_stack(kind, "--verbose", changes=changes)
    connection = http.client.HTTPConnection("127.0.0.1", stack.proxy.port, timeout=10)
    try:
        connection.putrequest("POST", "/comments")
        connection.putheader("User-Agent", "e2e")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(ATTACK)))
        connection.endheaders()
        stack.agent.wait_for_log('"decision":"allow"')
        stack.kill_agent()
        connection.send(ATTACK.encode())
        return connection.getresponse().status
    finally:
        connection.close()
