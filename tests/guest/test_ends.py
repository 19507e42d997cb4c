"""When no event can follow in a request."""

from __future__ import annotations

import pytest

from sentinel_wasm.guest.abi import (
    HOOKS,
    ON_GUARDRAIL,
    ON_REQUEST_BODY,
    ON_REQUEST_COMPLETE,
    ON_REQUEST_HEADERS,
    ON_RESPONSE_BODY,
    ON_RESPONSE_HEADERS,
    ON_WEBSOCKET_FRAME,
)
from sentinel_wasm.guest.ends import Ends

pytestmark = pytest.mark.parallel

OPENS = b'{"method":"GET","headers":{"Upgrade":"websocket"}}'
OPENS_LIST = b'{"method":"GET","headers":{"upgrade":["h2c, WebSocket"]}}'
AGREES = b'{"status":101,"headers":{}}'
PLAIN = b'{"method":"GET","uri":"/upgrade/websocket","headers":{"Accept":"101"}}'


def ends(*hooks: int) -> Ends:
    return Ends([hook in hooks for hook in range(len(HOOKS))])


def test_the_last_hook_of_a_request_ends_it() -> None:
    of = ends(ON_REQUEST_HEADERS, ON_RESPONSE_BODY)
    assert not of.is_over(ON_REQUEST_HEADERS, refuses=False)
    assert not of.is_over(ON_RESPONSE_BODY, refuses=False, is_last=False)
    assert of.is_over(ON_RESPONSE_BODY, refuses=False)


def test_a_refused_request_is_over() -> None:
    of = ends(ON_REQUEST_HEADERS, ON_REQUEST_BODY, ON_RESPONSE_HEADERS, ON_RESPONSE_BODY)
    assert of.is_over(ON_REQUEST_HEADERS, refuses=True)
    assert of.is_over(ON_REQUEST_BODY, refuses=True, is_last=False)
    assert not of.is_over(ON_RESPONSE_HEADERS, refuses=True)


def test_completion_is_waited_for() -> None:
    of = ends(ON_REQUEST_HEADERS, ON_WEBSOCKET_FRAME, ON_REQUEST_COMPLETE)
    for hook in (ON_REQUEST_HEADERS, ON_WEBSOCKET_FRAME):
        assert not of.is_over(hook, refuses=True)
    assert of.is_over(ON_REQUEST_COMPLETE, refuses=False)


@pytest.mark.parametrize("event", [OPENS, OPENS_LIST])
def test_a_websocket_is_over_when_it_is_closed(event: bytes) -> None:
    of = ends(ON_REQUEST_HEADERS, ON_WEBSOCKET_FRAME)
    assert not of.is_over(ON_REQUEST_HEADERS, refuses=False, event=event)
    assert of.is_over(ON_REQUEST_HEADERS, refuses=False, event=PLAIN)
    assert not of.is_over(ON_WEBSOCKET_FRAME, refuses=False)
    assert of.is_over(ON_WEBSOCKET_FRAME, refuses=True)
    assert ends(ON_REQUEST_HEADERS).is_over(ON_REQUEST_HEADERS, refuses=False, event=event)


def test_a_response_that_becomes_a_websocket_is_not_the_end() -> None:
    of = ends(ON_RESPONSE_HEADERS, ON_WEBSOCKET_FRAME)
    assert not of.is_over(ON_RESPONSE_HEADERS, refuses=False, event=AGREES)
    assert of.is_over(ON_RESPONSE_HEADERS, refuses=False, event=AGREES.replace(b"101", b"200"))


def test_a_guardrail_may_be_asked_at_any_time() -> None:
    of = ends(ON_REQUEST_HEADERS, ON_GUARDRAIL)
    for hook in (ON_REQUEST_HEADERS, ON_GUARDRAIL):
        assert not of.is_over(hook, refuses=False)
    assert not of.is_over(ON_GUARDRAIL, refuses=True)
    assert of.is_over(ON_REQUEST_HEADERS, refuses=True)
    assert of.is_over(ON_REQUEST_COMPLETE, refuses=False)


def test_frames_alone_have_no_last_hook() -> None:
    assert not ends(ON_WEBSOCKET_FRAME).is_over(ON_WEBSOCKET_FRAME, refuses=False)
