"""A module in a program: asked as the agent asks it, its decision as a value.

    from sentinel_wasm import Module

    with Module.load("filter.wasm") as module:
        decision = module.on_request_headers({"uri": "/admin", "headers": {"host": "example.com"}})

docs/toolkit.md has more of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from sentinel_wasm import base64
from sentinel_wasm._fastpath import Pace
from sentinel_wasm._metrics import Counts
from sentinel_wasm.decision import ALLOW, Decision, failure
from sentinel_wasm.errors import EventError, ModuleError, UserError
from sentinel_wasm.guest import abi, inputs
from sentinel_wasm.guest import module as guest
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.limits import MIB, Limits
from sentinel_wasm.guest.output import GuestOutput, lines
from sentinel_wasm.guest.signatures import describe

_ID = {"correlation_id": "call"}
_BODY = {**_ID, "data": b"", "is_last": True, "chunk_index": 0, "total_size": None, "bytes_seen": None}

FIELDS: dict[str, dict[str, Any]] = {
    "on_request_headers": {"method": "GET", "uri": "/", "client_ip": "127.0.0.1", **_ID, "headers": {}},
    "on_request_body": _BODY,
    "on_response_headers": {"status": 200, **_ID, "headers": {}},
    "on_response_body": _BODY,
    "on_guardrail": {
        **_ID,
        "inspection_type": "prompt_injection",
        "content": "",
        "model": None,
        "categories": [],
        "route_id": None,
        "metadata": {},
    },
    "on_websocket_frame": {
        **_ID,
        "opcode": "text",
        "data": b"",
        "client_to_server": True,
        "frame_index": 0,
        "fin": True,
        "route_id": None,
        "client_ip": "127.0.0.1",
    },
}
"""What an event of each hook has, and what a field is that is not given."""

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "headers": ((dict,), "an object"),
    "data": ((bytes, str), "bytes or text"),
    **dict.fromkeys(("is_last", "client_to_server", "fin"), ((bool,), "true or false")),
    **dict.fromkeys(("status", "chunk_index", "frame_index"), ((int,), "a number")),
    **dict.fromkeys(("model", "route_id"), ((str, type(None)), "a string")),
    "categories": ((list,), "an array of strings"),
    "metadata": ((dict,), "an object of strings"),
    **dict.fromkeys(("total_size", "bytes_seen"), ((int, type(None)), "a number")),
}
_TEXT: tuple[tuple[type, ...], str] = ((str,), "a string")


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of a hook and what came of it.

    `result` is what the module returned, None where it had nothing to say or was not asked; `error` says why
    it failed, and then `decision` is the fail-open rule's; `lost`, why the next call has another instance
    although this one's result is sound (`dealloc` failed). `guest_ns`: the time in the module, with `alloc`
    and `dealloc`. `log` are its lines, as (level, source, text).
    """

    hook: str
    input: bytes
    result: bytes | None
    decision: Decision
    guest_ns: int
    log: tuple[tuple[str, str, str], ...]
    error: ModuleError | None
    lost: ModuleError | None


class _Kept(GuestOutput):
    """The module's lines, kept for who asked."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str, str]] = []

    def write(self, records: list[tuple[int, bytes]], bytes_dropped: int, correlation_id: str) -> None:
        self.lines += lines(records)

    def taken(self) -> tuple[tuple[str, str, str], ...]:
        taken = tuple(self.lines)
        self.lines.clear()
        return taken


class Module:
    """A loaded module with one instance; for one thread at a time.

    An instance that has failed is replaced at the next call, as the agent does it.
    """

    def __init__(self, compiled: guest.Module, config: Mapping[str, Any] | None, limits: Limits) -> None:
        """`compiled` has its engine to itself; `load` is what makes one."""
        self._compiled = compiled
        self._counts = Counts()
        self._output = _Kept()
        self._writer = inputs.InputWriter("canonical", "joined")
        self._limits = limits
        self._instance = Instance(compiled, limits, self._output, pace=Pace(self._counts))
        try:
            self._config = inputs.configure(config) if compiled.hooks[abi.ON_CONFIGURE] else None
            self.restart()
        except (UserError, EventError) as error:
            self.close()
            raise UserError(str(error)) from None
        self.start_log = self._output.taken()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        config: Mapping[str, Any] | None = None,
        *,
        timeout_ms: int = 40,
        memory_limit: int = 64,
    ) -> Module:
        """Compile and start a .wasm file. Raises UserError with all that is wrong with it.

        `config` is given to its `on_configure`; `timeout_ms` is a call's time, `memory_limit` the instance's
        memory in MiB.
        """
        compiled = guest.Module.load(make_engine(2, memory_limit * MIB), Path(path))
        return cls(compiled, config, Limits(event_ms=timeout_ms))

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that it exports."""
        return tuple(self._compiled.hook_names)

    @property
    def sha256(self) -> str:
        """The file's digest."""
        return self._compiled.sha256

    @property
    def exports(self) -> dict[str, str]:
        """Everything that it exports, in words."""
        return {export.name: describe(export.type) for export in self._compiled.compiled.exports}

    @property
    def imports(self) -> dict[str, str]:
        """What it wants of its host, in words."""
        wanted = self._compiled.compiled.imports
        return {f"{item.module}.{item.name}": describe(item.type) for item in wanted}

    @property
    def memory_bytes(self) -> int:
        """How large its instance's memory is now."""
        return self._instance.guest.memory_bytes

    def restart(self) -> None:
        """Take a fresh instance. Raises UserError where it does not start."""
        try:
            self._instance.start_within(self._config, self._limits.start_ms)
        except ModuleError as error:
            raise UserError(f"{self._compiled.name}: cannot be started: {error}") from None

    def on_request_headers(self, request: Mapping[str, Any]) -> Decision:
        """`method`, `uri`, `client_ip`, `headers` (name → value or list of values), all optional.

        This and the following raise UserError for an event that is none, ModuleError where the module fails;
        a hook that is not exported allows.
        """
        return self._decided("on_request_headers", request)

    def on_request_body(self, chunk: Mapping[str, Any]) -> Decision:
        """`data` (bytes, or text), `is_last`, `chunk_index`, `total_size`, `bytes_seen` (bytes)."""
        return self._decided("on_request_body", chunk)

    def on_response_headers(self, response: Mapping[str, Any]) -> Decision:
        """`status`, `headers`."""
        return self._decided("on_response_headers", response)

    def on_response_body(self, chunk: Mapping[str, Any]) -> Decision:
        """As for `on_request_body`."""
        return self._decided("on_response_body", chunk)

    def on_websocket_frame(self, frame: Mapping[str, Any]) -> Decision:
        """`opcode`, `data` (bytes, or text), `client_to_server`, `frame_index`, `fin`, `route_id`,
        `client_ip`. The decision's `verdict` is Allow, Drop or Close.
        """
        return self._decided("on_websocket_frame", frame)

    def on_guardrail(self, content: Mapping[str, Any]) -> Decision:
        """`inspection_type`, `content`, `model`, `categories`, `route_id`, `metadata`. The decision has
        `findings`, and is a block where something was detected.
        """
        return self._decided("on_guardrail", content)

    def _decided(self, hook: str, event: Mapping[str, Any]) -> Decision:
        asked = self.ask(hook, event)
        if asked.error is not None:
            raise asked.error
        return asked.decision

    def ask(self, hook: str, event: Mapping[str, Any], *, fail_open: bool = False) -> Asked:
        """Call a hook; a failure is in what comes back. Raises UserError for an event that is none."""
        if hook not in FIELDS:
            raise UserError(f"no hook {hook!r}; there are {', '.join(FIELDS)}")
        number = abi.HOOKS.index(hook)
        try:
            data = self._input(hook, event)
        except (orjson.JSONEncodeError, UnicodeEncodeError) as wrong:
            raise UserError(f"an event of {hook} that JSON cannot say: {wrong}") from None
        result = error = lost = None
        decision = ALLOW
        before_ns = self._counts.call_times[1]
        if self._compiled.hooks[number]:
            try:
                if not self._instance.usable:
                    self._instance.start_within(self._config, self._limits.restart_ms)
                result = self._instance.call(number, data, "call")
                lost = self._instance.guest.lost
                decision = ALLOW if result is None else abi.parse_result(result, number)
            except ModuleError as failed:
                error = failed
                decision = failure(str(failed), fail_open=fail_open, refused=abi.refusal(number))
        guest_ns = self._counts.call_times[1] - before_ns
        return Asked(hook, data, result, decision, guest_ns, self._output.taken(), error, lost)

    def _input(self, hook: str, event: Mapping[str, Any]) -> bytes:
        """What the module reads (guest-abi.md, "What the hooks get")."""
        values = checked(hook, event)
        if hook == "on_request_headers":
            return self._writer.request_headers(**values)
        if hook == "on_response_headers":
            return self._writer.response_headers(**values)
        if hook == "on_guardrail":
            return inputs.guardrail(values)
        body = values["data"].encode() if isinstance(values["data"], str) else values["data"]
        values |= {"data": body, "text": base64.encode(body)}
        if hook == "on_websocket_frame":
            return inputs.websocket_frame(**values)
        seen = len(body) if values["bytes_seen"] is None else values["bytes_seen"]
        return inputs.body_chunk(**{**values, "bytes_seen": seen})

    def close(self) -> None:
        """Free the instance and the compiled code."""
        self._instance.close()
        self._compiled.close()

    def __enter__(self) -> Module:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def checked(hook: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a hook's event, a header's values as a list. Raises UserError for one that is none."""
    fields = FIELDS[hook]
    for name, value in event.items():
        if name not in fields:
            raise UserError(f"{hook} has no {name!r}; it has {', '.join(fields)}")
        types, expected = _TYPES.get(name, _TEXT)
        if type(value) not in types:
            raise UserError(f"{name} of {hook} is {value!r:.60}, expected {expected}")
    values = {**fields, **event}
    if "headers" in values:
        values["headers"] = {name: _values(name, value) for name, value in values["headers"].items()}
    texts = [*values.get("categories", ()), *chain.from_iterable(values.get("metadata", {}).items())]
    if not {str}.issuperset(map(type, texts)):
        raise UserError(f"categories or metadata of {hook} has something that is not a string in it")
    return values


def _values(name: Any, value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if type(name) is not str or type(values) is not list or not all(type(one) is str for one in values):
        raise UserError(f"header {name!r:.60} is {value!r:.60}, expected a string or an array of strings")
    return values
