"""One event in, one answer out: where the protocol meets the guest."""

from __future__ import annotations

import re
from dataclasses import replace as _replaced
from typing import Any

import orjson
import structlog

from sentinel_wasm._fastpath import Normaliser
from sentinel_wasm.decision import ALLOW, Allow, Audit, Block, BodyMutation, Challenge, Decision, failure
from sentinel_wasm.errors import EventError, ModuleError
from sentinel_wasm.guest import abi, inputs
from sentinel_wasm.guest.instance import ConfigRefused
from sentinel_wasm.guest.limits import MIB, Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.pool import Pool
from sentinel_wasm.protocol import answers, events
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.settings import Settings

_log = structlog.stdlib.get_logger("agent")

_ANSWERS_KEPT = 1024
_KEPT_RESULT_BYTES = 4096

# What the normaliser takes: v2's types of the header events, and 0 for a v1 request.
_V1 = 0
_HOOK_OF_TYPE = {0x10: abi.ON_REQUEST_HEADERS, 0x12: abi.ON_RESPONSE_HEADERS}

_ID_IN_BROKEN_JSON = re.compile(rb'"correlation_id"\s*:\s*"([\w.:-]{1,200})"', re.ASCII)


class Agent:
    """Answers events with what a module decides.

    `answer_v1` and `answer_v2` give one AgentResponse (JSON, without its frame) for whatever they are given.
    """

    def __init__(self, settings: Settings, module: Module) -> None:
        """Starts the module's instances. Raises ModuleLoadError."""
        self._settings = settings
        self._limit_ns = settings.timeout_ms * 1_000_000
        self._module = module
        limits = Limits(event_ms=settings.timeout_ms, memory_bytes=settings.memory_limit * MIB)
        self._pool = Pool(module, settings.pool_size, limits)
        self._inputs = inputs.InputWriter(settings.header_names, settings.header_values)
        self._normalise = Normaliser(settings.header_names, settings.header_values == "list").event
        # Equal results of one hook have equal answers: result bytes → (decision, answer).
        self._kept: dict[tuple[bytes, int, int], tuple[Decision, bytes]] = {}
        self._unknown_seen: set[str] = set()

    def close(self) -> None:
        self._pool.close()

    def answer_v1(self, frame: bytes, arrived_ns: int) -> bytes:
        """The answer to one v1 request (agent-protocol.md, section 2); `arrived_ns` of time.monotonic_ns."""
        try:
            return self._answer_v1(frame, arrived_ns + self._limit_ns)
        except Exception as error:
            return answers.encode(self._broke(error), 1)

    def _answer_v1(self, frame: bytes, deadline_ns: int) -> bytes:
        if (quick := self._normalise(_V1, frame)) is not None:
            frame_type, version, correlation_id, data = quick
            return self._ask(_HOOK_OF_TYPE[frame_type], data, correlation_id, version, deadline_ns)
        version = 1
        try:
            request = _loads(frame)
            if type(request) is not dict:
                raise EventError("the request is not an object")
            asked = request.get("version")
            if type(asked) is int and 0 <= asked < 2**32:
                version = asked
            name = request.get("event_type")
            if type(name) is not str:
                raise EventError("event_type is not a string")
            kind = events.EVENT_NAMES.get(name)
            if kind is None:
                return self._answer_unknown(name, version)
            return self._answer(kind, request.get("payload"), version, deadline_ns)
        except EventError as error:
            return self._answer_broken(error, version, None)

    def answer_v2(self, frame_type: int, frame: bytes, arrived_ns: int) -> bytes | None:
        """The answer to one v2 event (section 3), or None where it has no id to answer to."""
        try:
            return self._answer_v2(frame_type, frame, arrived_ns + self._limit_ns)
        except Exception as error:
            decision = self._broke(error)
            correlation_id = _salvaged_id(frame)
            if correlation_id is None:
                return None
            return answers.with_correlation_id(answers.encode(decision, 2), correlation_id)

    def _answer_v2(self, frame_type: int, frame: bytes, deadline_ns: int) -> bytes | None:
        if (quick := self._normalise(frame_type, frame)) is not None:
            _, version, correlation_id, data = quick
            answer = self._ask(_HOOK_OF_TYPE[frame_type], data, correlation_id, version, deadline_ns)
            return answers.with_correlation_id(answer, correlation_id)
        return self._answer_v2_slowly(frame_type, frame, deadline_ns)

    def _answer_v2_slowly(self, frame_type: int, frame: bytes, deadline_ns: int) -> bytes | None:
        correlation_id = None
        try:
            payload = _loads(frame)
            correlation_id = events.correlation_id(payload)
            if correlation_id is None:
                raise EventError("the event has no correlation_id")
            kind = events.EVENT_TYPES.get(frame_type)
            if kind is None:
                answer = self._answer_unknown(f"0x{frame_type:02x}", 2)
            else:
                answer = self._answer(kind, payload, 2, deadline_ns)
        except EventError as error:
            correlation_id = correlation_id or _salvaged_id(frame)
            answer = self._answer_broken(error, 2, correlation_id)
            if correlation_id is None:
                return None
        return answers.with_correlation_id(answer, correlation_id)

    def _answer(self, kind: EventKind, payload: Any, version: int, deadline_ns: int) -> bytes:
        event = events.parse(kind, payload)
        if isinstance(event, events.RequestHeaders):
            return self._ask(
                abi.ON_REQUEST_HEADERS,
                self._inputs.request_headers(
                    event.method, event.uri, event.client_ip, event.correlation_id, event.headers
                ),
                event.correlation_id,
                version,
                deadline_ns,
            )
        if isinstance(event, events.ResponseHeaders):
            data = self._inputs.response_headers(event.status, event.correlation_id, event.headers)
            return self._ask(abi.ON_RESPONSE_HEADERS, data, event.correlation_id, version, deadline_ns)
        if isinstance(event, events.BodyChunk):
            return self._answer_body(kind, event, version, deadline_ns)
        if isinstance(event, events.RequestComplete):
            return self._complete(event, version, deadline_ns)
        if isinstance(event, events.Configure):
            return answers.encode(self._configure(event.config), version)
        websocket = "allow" if kind is EventKind.WEBSOCKET_FRAME else None
        return answers.encode(ALLOW, version, websocket=websocket)

    def _ask(self, hook: int, data: bytes, correlation_id: str, version: int, deadline_ns: int) -> bytes:
        """The answer to a header event: results repeat, so their answers are kept."""
        if not self._module.hooks[hook]:
            return answers.allow(version)
        try:
            result = self._pool.instance_for(correlation_id).call(hook, data, correlation_id, deadline_ns)
            if result is None:
                decision, answer = ALLOW, answers.allow(version)
            else:
                decision, answer = self._kept.get((result, hook, version)) or self._keep(
                    result, hook, version
                )
        except ModuleError as error:
            return answers.encode(self._failed(error, hook, correlation_id), version)
        if self._settings.verbose:
            self._log_decision(decision, hook, correlation_id)
        return answer

    def _keep(self, result: bytes, hook: int, version: int) -> tuple[Decision, bytes]:
        decision = self._for_proxy(abi.parse_result(result, hook))
        answer = answers.encode(decision, version)
        if len(result) <= _KEPT_RESULT_BYTES:
            if len(self._kept) >= _ANSWERS_KEPT:
                self._kept.clear()
            self._kept[result, hook, version] = decision, answer
        return decision, answer

    def _answer_body(self, kind: EventKind, chunk: events.BodyChunk, version: int, deadline_ns: int) -> bytes:
        response = kind is EventKind.RESPONSE_BODY_CHUNK
        hook = abi.ON_RESPONSE_BODY if response else abi.ON_REQUEST_BODY
        decision = ALLOW
        if self._module.hooks[hook]:
            data = inputs.body_chunk(
                chunk.correlation_id,
                chunk.data,
                chunk.text,
                is_last=chunk.is_last,
                total_size=chunk.total_size,
                chunk_index=chunk.chunk_index,
                bytes_seen=chunk.bytes_seen,
            )
            decision = self._decide(hook, data, chunk.correlation_id, deadline_ns)
        if response and version == 2:
            decision = self._for_response_body(decision, chunk.data)
        return answers.encode(decision, version, chunk_index=chunk.chunk_index)

    def _complete(self, event: events.RequestComplete, version: int, deadline_ns: int) -> bytes:
        """The request is over: what the module says of it is not listened to, unless it fails."""
        decision = ALLOW
        if self._module.hooks[abi.ON_REQUEST_COMPLETE]:
            try:
                instance = self._pool.instance_for(event.correlation_id)
                data = inputs.request_complete(event.fields)
                instance.call(abi.ON_REQUEST_COMPLETE, data, event.correlation_id, deadline_ns)
            except ModuleError as error:
                decision = self._failed(error, abi.ON_REQUEST_COMPLETE, event.correlation_id)
        return answers.encode(decision, version)

    def _decide(self, hook: int, data: bytes, correlation_id: str, deadline_ns: int) -> Decision:
        """What the module says, or what the fail-open rule makes of its failure."""
        try:
            result = self._pool.instance_for(correlation_id).call(hook, data, correlation_id, deadline_ns)
            decision = ALLOW if result is None else self._for_proxy(abi.parse_result(result, hook))
        except ModuleError as error:
            return self._failed(error, hook, correlation_id)
        if self._settings.verbose:
            self._log_decision(decision, hook, correlation_id)
        return decision

    def _configure(self, config: Any) -> Decision:
        try:
            self._pool.configure(config)
        except ModuleError as error:
            why = f"the module refuses it: {error}" if isinstance(error, ConfigRefused) else str(error)
            _log.error("configuration rejected, the old one stays", reason=why)
            return Decision(Block(500, "Configuration rejected"), audit=Audit(reason_codes=(why,)))
        _log.info("configured by the proxy")
        return ALLOW

    def _for_proxy(self, decision: Decision) -> Decision:
        """A challenge as a block, for proxies that let challenges through (agent-protocol.md, section 6)."""
        verdict = decision.verdict
        if self._settings.challenge_fallback != "block" or not isinstance(verdict, Challenge):
            return decision
        body = f"Blocked: this request must pass a challenge ({verdict.type}) that the proxy cannot present."
        return _replaced(decision, verdict=Block(403, body))

    def _for_response_body(self, decision: Decision, data: bytes) -> Decision:
        """A mutation where the proxy needs one (agent-protocol.md, section 6).

        It ignores a block of a response body and would send the body: a replacement keeps it back. And it
        cuts long bodies that nothing replaces: one that is to pass is replaced by itself.
        """
        verdict, body = decision.verdict, decision.response_body
        if body is not None and body.data is not None:
            return decision
        if not isinstance(verdict, Allow):
            data = ((verdict.body if isinstance(verdict, Block) else None) or "Blocked").encode()
        elif not self._settings.echo_response_bodies:
            return decision
        return _replaced(decision, response_body=BodyMutation(data, body.chunk_index if body else None))

    def _failed(self, error: ModuleError, hook: int, correlation_id: str) -> Decision:
        reason = str(error)
        _log.error(
            "module failed",
            hook=abi.HOOKS[hook],
            reason=reason,
            correlation_id=correlation_id,
            answered="allow" if self._settings.fail_open else "block 500",
        )
        return failure(reason, fail_open=self._settings.fail_open)

    def _broke(self, error: Exception) -> Decision:
        """A defect of this agent: it costs the event, not the connection, and says where it is."""
        _log.error("internal error, please report it", exc_info=error)
        return failure(f"internal error: {type(error).__name__}", fail_open=self._settings.fail_open)

    def _answer_broken(self, error: EventError, version: int, correlation_id: str | None) -> bytes:
        reason = f"event not understood: {error}"
        _log.error(reason, correlation_id=correlation_id)
        return answers.encode(failure(reason, fail_open=self._settings.fail_open), version)

    def _answer_unknown(self, name: str, version: int) -> bytes:
        name = name[:60]
        if name not in self._unknown_seen and len(self._unknown_seen) < 100:
            self._unknown_seen.add(name)
            _log.warning("unknown event type, allowed; said once", event_type=name)
        return answers.allow(version)

    def _log_decision(self, decision: Decision, hook: int, correlation_id: str) -> None:
        _log.info("decided", hook=abi.HOOKS[hook], correlation_id=correlation_id, **decision.summary())


def _loads(frame: bytes) -> Any:
    try:
        return orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise EventError(f"not JSON: {error}") from None


def _salvaged_id(frame: bytes) -> str | None:
    """The correlation id of an event whose JSON is broken, where only one stands in it.

    Closing instead costs a v2 proxy the connection for good (agent-protocol.md, section 6).
    """
    found = set(_ID_IN_BROKEN_JSON.findall(frame))
    return found.pop().decode() if len(found) == 1 else None
