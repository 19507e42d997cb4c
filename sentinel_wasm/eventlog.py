"""What the log says of single events: failures, and the decisions that are asked for."""

from __future__ import annotations

import time

import structlog

from sentinel_wasm.decision import Decision
from sentinel_wasm.guest import abi
from sentinel_wasm.logs import Throttle

_FAILED = "module failed"
_SAYS = {  # of errors.KINDS
    "overload": "overload: answered without the module",
    "event": "event not understood",
    "internal": "internal error, please report it",
}

_log = structlog.stdlib.get_logger("agent")


class EventLog:
    """Each line has the hook and the correlation id, and `about`: the digest of the module, say."""

    def __init__(self, *, fail_open: bool, **about: str) -> None:
        self._log = _log.bind(**about)
        self._fail_open = fail_open
        self._throttle = Throttle()

    def failed(
        self, kind: str, reason: str, hook: int, correlation_id: str | None, defect: Exception | None = None
    ) -> None:
        """The fail-open rule answers an event, for this kind of reason (errors.KINDS)."""
        self._throttle.say(
            kind,
            self._log.warning if kind == "overload" else self._log.error,
            _SAYS.get(kind, _FAILED),
            kind=kind,
            hook=abi.EVENT_HOOKS[hook],
            correlation_id=correlation_id,
            reason=reason,
            answered=self._fail_answer(hook),
            **({"exc_info": defect} if defect else {}),
        )

    def _fail_answer(self, hook: int) -> str:
        if self._fail_open:
            return "allow"
        return "close 1011" if hook == abi.ON_WEBSOCKET_FRAME else "block 500"

    def configured(self) -> None:
        self._throttle.say("configured", self._log.info, "configured by the proxy")

    def config_rejected(self, kind: str, reason: str, correlation_id: str) -> None:
        self._throttle.say(
            "config",
            self._log.error,
            "configuration rejected, the old one stays",
            kind=kind,
            hook=abi.EVENT_HOOKS[abi.ON_CONFIGURE],
            correlation_id=correlation_id,
            reason=reason,
            answered="block 500",
        )

    def decided(self, decision: Decision, hook: int, correlation_id: str, seen_ns: int, by: str = "") -> None:
        """`seen_ns`: when the agent saw the event, of time.monotonic_ns; `by`: the module that has ended a
        chain.
        """
        self._log.info(
            "decided",
            hook=abi.EVENT_HOOKS[hook],
            correlation_id=correlation_id,
            **decision.summary(),
            **({"by": by} if by else {}),
            took_us=(time.monotonic_ns() - seen_ns) // 1000,
        )

    def shadow_failed(self, kind: str, reason: str, hook: int, correlation_id: str) -> None:
        """Nobody waits for what it says."""
        self._throttle.say(
            f"shadow {kind}",
            self._log.warning,
            "shadow module failed",
            kind=kind,
            hook=abi.EVENT_HOOKS[hook],
            correlation_id=correlation_id,
            reason=reason,
        )

    def shadow_differs(
        self, hook: int, correlation_id: str, differs: list[str], live: Decision, shadow: Decision
    ) -> None:
        """`differs`: the fields in which they do."""
        self._throttle.say(
            "differs",
            self._log.info,
            "shadow module decides otherwise",
            hook=abi.EVENT_HOOKS[hook],
            correlation_id=correlation_id,
            differs=differs,
            live=_in_words(live),
            shadow=_in_words(shadow),
        )


def _in_words(decision: Decision) -> str:
    """`block 403`"""
    word = decision.summary()["decision"]
    return f"{word} {decision.status}" if decision.status else str(word)
