"""One instance of a module: its store, its host state and its compiled calls."""

from __future__ import annotations

import ctypes
from typing import Any

from wasmtime import Func, Memory, Store, Trap, WasiConfig, WasmtimeError
from wasmtime import _ffi as ffi

from sentinel_wasm._fastpath import GuestCall, cause
from sentinel_wasm._hostcalls import Host
from sentinel_wasm.errors import GuestFault
from sentinel_wasm.guest import abi, capi  # noqa: F401  (capi binds the C API)
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput

_SHOWN = 200  # characters of a module's own text in a reason


class ConfigRefused(GuestFault):
    """The module's `on_configure` returned an error; the message is the module's own."""


class Instance:
    """A started instance, for one thread at a time. After `usable` is false it must be closed.

    `guest` are its compiled calls; `call` is what callers want.
    """

    def __init__(self, module: Module, limit_ms: int, output: GuestOutput) -> None:
        """Instantiate, and run the start function and `_initialize`.

        Raises GuestFault where one of them fails. `limit_ms`: the longest one run's host calls may take.
        """
        self.module = module
        self._output = output
        self._host = Host(limit_ms)
        self._store = Store(module.engine)
        ffi.wasmtime_context_set_data(self._store._context(), self._host.address)
        if module.uses_wasi:
            self._store.set_wasi(WasiConfig())
        self._host.begin()
        try:
            with_what = "the start function"
            exports = module.linked.instantiate(self._store).exports(self._store)
            if module.has_initialize:
                with_what = "_initialize"
                initialize = exports["_initialize"]
                assert isinstance(initialize, Func)
                initialize(self._store)
        except (Trap, WasmtimeError) as error:
            code = error.trap_code if isinstance(error, Trap) else None
            words = self._host.ended_by() or cause(None if code is None else code.value, str(error))
            raise GuestFault(f"{words} in {with_what}") from None
        finally:
            self._take_output("")
        self.guest = GuestCall(
            self._store,
            self._host,
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

    def call(self, hook: int, data: bytes, correlation_id: str) -> bytes | None:
        """Call a hook that the module exports; None means that it has nothing to say. Raises GuestFault."""
        try:
            return self.guest.call(hook, data)
        finally:
            if self._host.has_output:
                self._take_output(correlation_id)

    def configure(self, data: bytes) -> None:
        """Give the configuration (`inputs.configure`) to `on_configure` where there is one.

        Raises ConfigRefused where the module refuses it, GuestFault or ResultError where it fails.
        """
        if not self.module.hooks[abi.ON_CONFIGURE]:
            return
        refused = abi.parse_configured(self.call(abi.ON_CONFIGURE, data, ""))
        if refused is not None:
            raise ConfigRefused(refused[:_SHOWN])

    def close(self) -> None:
        """Free the store now."""
        self.guest.retire()
        self._store.close()

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
