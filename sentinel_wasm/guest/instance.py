"""One instance of a module, called on the caller's own thread."""

from __future__ import annotations

import time

from sentinel_wasm._fastpath import GuestCall, Pace
from sentinel_wasm._instances import Plan
from sentinel_wasm.errors import GuestFault
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput

_SHOWN = 200  # characters of a module's own text in a reason


class ConfigRefused(GuestFault):
    """The module's `on_configure` returned an error; the message is the module's own."""

    kind = "refused"


def check_configured(result: bytes | None) -> None:
    """Look at what `on_configure` returned. Raises ConfigRefused, and ResultError where it is nonsense."""
    refused = abi.parse_configured(result)
    if refused is not None:
        raise ConfigRefused(refused[:_SHOWN])


class Instance:
    """An instance that can be started, called, and started again; one thread at a time.

    `guest` are its compiled calls; `call` is what callers want.
    """

    def __init__(
        self,
        module: Module,
        limits: Limits,
        output: GuestOutput,
        plan: Plan | None = None,
        pace: Pace | None = None,
    ) -> None:
        """`plan`: the module's, where several instances share it; `pace` is told of calls."""
        self.module = module
        self.guest = GuestCall(plan or module.plan(), pace)
        self._limit_ns = limits.event_ms * 1_000_000
        self._output = output

    @property
    def usable(self) -> bool:
        return self.guest.usable

    def start(self, config: bytes | None, deadline_ns: int, limit_ns: int) -> None:
        """Instantiate; run the start function, `_initialize`, and `on_configure` with `config` if given.

        Raises GuestFault or ResultError where one of them fails, or refuses: then it is not started.
        """
        guest = self.guest
        try:
            guest.start(deadline_ns, limit_ns)
            if config is not None:
                check_configured(guest.call(abi.ON_CONFIGURE, config, deadline_ns, limit_ns))
                if guest.lost is not None:
                    raise guest.lost
        except Exception:
            guest.retire()
            raise
        finally:
            if guest.has_output:
                self.log_output("")

    def start_within(self, config: bytes | None, limit_ms: int) -> None:
        """The same, within so much time from now on."""
        limit_ns = limit_ms * 1_000_000
        self.start(config, time.monotonic_ns() + limit_ns, limit_ns)

    def call(self, hook: int, data: bytes, correlation_id: str) -> bytes | None:
        """Call a hook that the module exports, which has an event's time from now on; None means that it has
        nothing to say. Raises GuestFault.
        """
        try:
            return self.guest.call(hook, data, time.monotonic_ns() + self._limit_ns, self._limit_ns)
        finally:
            if self.guest.has_output:
                self.log_output(correlation_id)

    def log_output(self, correlation_id: str) -> None:
        records, dropped = self.guest.take_output()
        if records or dropped:
            self._output.write(records, dropped, correlation_id)

    def close(self) -> None:
        """Free the store now."""
        self.guest.retire()
