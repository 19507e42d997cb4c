"""The instances that answer events."""

from __future__ import annotations

from typing import Any

import structlog

from sentinel_wasm.errors import GuestFault, ModuleError, ModuleLoadError
from sentinel_wasm.guest import inputs
from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput

_log = structlog.stdlib.get_logger("pool")


class Pool:
    """`size` instances of one module, all made before the first event.

    All events of one correlation id reach the same instance. One that has failed is closed and replaced
    before its next event.
    """

    def __init__(self, module: Module, size: int, limits: Limits) -> None:
        """Raises ModuleLoadError where an instance cannot be started or refuses the empty configuration."""
        self.module = module
        self._limits = limits
        self._output = GuestOutput()
        self._config = inputs.configure(None)
        self._instances: list[Instance | None] = []
        try:
            self._instances += [self._start(limits.start_ms) for _ in range(size)]
        except ModuleError as error:
            raise ModuleLoadError(f"{module.name}: cannot be started: {error}") from None

    def instance_for(self, correlation_id: str) -> Instance:
        """The instance for a request. Raises GuestFault where a failed one cannot be replaced."""
        index = hash(correlation_id) % len(self._instances)
        instance = self._instances[index]
        if instance is None or not instance.usable:
            instance = self._replace(index)
        return instance

    def configure(self, config: Any) -> None:
        """Give every instance a new configuration.

        Raises ModuleError where one refuses or fails: then all have the old one again.
        """
        data = inputs.configure(config)
        if data == self._config:
            return
        try:
            for index in range(len(self._instances)):
                instance = self._instances[index]
                if instance is None or not instance.usable:
                    instance = self._replace(index)
                instance.configure(data, self._limits.restart_ms)
        except ModuleError:
            # Some may have taken the new one: fresh instances are sure to have the old.
            for index in range(len(self._instances)):
                self._discard(index)
            raise
        self._config = data

    def close(self) -> None:
        for index in range(len(self._instances)):
            self._discard(index)

    def _start(self, start_ms: int) -> Instance:
        instance = Instance(self.module, self._limits, start_ms, self._output)
        try:
            instance.configure(self._config, start_ms)
        except ModuleError:
            instance.close()
            raise
        return instance

    def _replace(self, index: int) -> Instance:
        lost = self._instances[index]
        if lost is not None and lost.guest.lost is not None:
            _log.warning("instance replaced after its answer", reason=str(lost.guest.lost))
        self._discard(index)
        try:
            instance = self._instances[index] = self._start(self._limits.restart_ms)
        except ModuleError as error:
            raise GuestFault(f"the module cannot be started again: {error}") from None
        return instance

    def _discard(self, index: int) -> None:
        instance = self._instances[index]
        self._instances[index] = None
        if instance is not None:
            instance.close()
