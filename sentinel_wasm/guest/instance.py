"""One instance of a module: its store, its host state and its compiled calls."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from wasmtime import Func, Memory, Store, Trap, TrapCode, WasiConfig, WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime._instance import InstanceExports

from sentinel_wasm._fastpath import GuestCall, cause
from sentinel_wasm._hostcalls import Host
from sentinel_wasm._ticker import TICK_MS
from sentinel_wasm.errors import GuestFault
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.limits import MIB, TABLE_ELEMENTS, Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput

_SHOWN = 200  # characters of a module's own text in a reason


class ConfigRefused(GuestFault):
    """The module's `on_configure` returned an error; the message is the module's own."""


class Instance:
    """A started instance, for one thread at a time. After `usable` is false it must be closed.

    `guest` are its compiled calls; `call` is what callers want.
    """

    def __init__(self, module: Module, limits: Limits, start_ms: int, output: GuestOutput) -> None:
        """Instantiate, and run the start function and `_initialize`, within `start_ms`.

        Raises GuestFault where one of them fails or the module needs more than its limits.
        """
        self.module = module
        self._limits = limits
        self._output = output
        self._host = Host()
        self._store = Store(module.engine)
        ffi.wasmtime_context_set_data(self._store._context(), self._host.address)
        if module.uses_wasi:
            self._store.set_wasi(WasiConfig())
        self._store.set_limits(
            memory_size=limits.memory_bytes, table_elements=TABLE_ELEMENTS, instances=1, memories=1
        )
        exports = self._start(start_ms)
        self.guest = GuestCall(
            self._store,
            self._host,
            module.engine.ticker,
            _address(self._store._context().contents),
            _address(_memory(exports["memory"])),
            _function(exports["alloc"]),
            _function(exports["dealloc"]),
            [
                _function(exports[name]) if there else 0
                for name, there in zip(abi.HOOKS, module.hooks, strict=True)
            ],
            list(abi.HOOKS),
        )

    @property
    def usable(self) -> bool:
        return self.guest.usable

    def call(self, hook: int, data: bytes, correlation_id: str, deadline_ns: int = 0) -> bytes | None:
        """Call a hook that the module exports; None means that it has nothing to say.

        `deadline_ns` (of time.monotonic_ns) is the event's; without one it has its time from now on. Raises
        GuestFault, and ModuleError where the deadline has passed.
        """
        limit_ns = self._limits.event_ms * 1_000_000
        try:
            return self.guest.call(hook, data, deadline_ns or time.monotonic_ns() + limit_ns, limit_ns)
        finally:
            if self._host.has_output:
                self._take_output(correlation_id)

    def configure(self, data: bytes, limit_ms: int) -> None:
        """Give the configuration (`inputs.configure`) to `on_configure` where there is one.

        Raises ConfigRefused where the module refuses it, GuestFault or ResultError where it fails.
        """
        if not self.module.hooks[abi.ON_CONFIGURE]:
            return
        limit_ns = limit_ms * 1_000_000
        try:
            result = self.guest.call(abi.ON_CONFIGURE, data, time.monotonic_ns() + limit_ns, limit_ns)
        finally:
            self._take_output("")
        refused = abi.parse_configured(result)
        if refused is not None:
            raise ConfigRefused(refused[:_SHOWN])

    def close(self) -> None:
        """Free the store now."""
        self.guest.retire()
        self._store.close()

    def _start(self, start_ms: int) -> InstanceExports:
        self._store.set_epoch_deadline(start_ms // TICK_MS + 2)
        self._host.begin(start_ms)
        where = "the start function"
        try:
            with self.module.engine.ticker:
                exports = self.module.linked.instantiate(self._store).exports(self._store)
                if self.module.has_initialize:
                    where = "_initialize"
                    initialize = exports["_initialize"]
                    assert isinstance(initialize, Func)
                    initialize(self._store)
        except (Trap, WasmtimeError) as error:
            raise GuestFault(self._start_reason(error, where)) from None
        finally:
            self._take_output("")
        return exports

    def _start_reason(self, error: Trap | WasmtimeError, where: str) -> str:
        code = error.trap_code if isinstance(error, Trap) else None
        words = self._host.ended_by() or cause(None if code is None else code.value, str(error))
        if code is TrapCode.INTERRUPT:
            words = self._host.too_late()
        if "exceeds memory limits" in words:
            return f"{words}; --memory-limit allows {self._limits.memory_bytes // MIB} MiB"
        return f"{words} in {where}"

    def _take_output(self, correlation_id: str) -> None:
        records, dropped = self._host.take_output()
        if records or dropped:
            self._output.write(records, dropped, correlation_id)


def _address(struct: Any) -> int:
    return ctypes.addressof(struct)


def _memory(item: Any) -> Any:
    assert isinstance(item, Memory)
    return item._memory


def _function(item: Any) -> int:
    assert isinstance(item, Func)
    return ctypes.addressof(item._func)
