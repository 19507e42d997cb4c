"""The `config` block that a proxy sends (Configure): some of the agent's options, the rest for the module."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from sentinel_wasm.configuration import expected_of, is_good, shown
from sentinel_wasm.errors import ModuleError
from sentinel_wasm.guest import inputs
from sentinel_wasm.settings import Settings, options

_OPTIONS = {
    option.name: option for option in options() if option.field in ("pool_size", "fail_open", "timeout_ms")
}


class Block(NamedTuple):
    """What a block says.

    `options` are fields of Settings with their values; `module_config` is as in Settings, None where nothing
    in the block is for the module.
    """

    options: tuple[tuple[str, Any], ...] = ()
    module_config: str | None = None

    def over(self, settings: Settings) -> Settings:
        """The settings with what the block says, for every module; what it does not say stays."""
        changes = dict(self.options)
        if self.module_config is not None:
            changes["module_config"] = self.module_config
        return settings.for_all(**changes)


def parse(config: Any) -> Block:
    """Raises ModuleError where an option has a bad value, and EventError where it is nested too deeply."""
    inputs.configure(config)
    if type(config) is not dict:
        return Block((), None if config is None else orjson.dumps(config).decode())
    taken: dict[str, Any] = {}
    rest = {}
    for key, value in config.items():
        option = _OPTIONS.get(key.replace("_", "-"))
        if option is None:
            rest[key] = value
        elif option.field in taken:
            raise ModuleError(f"{option.name} is in the proxy's config block twice", "refused")
        elif not is_good(option, value):
            raise ModuleError(
                f"{key} in the proxy's config block is {shown(value)}, expected {expected_of(option)}",
                "refused",
            )
        else:
            taken[option.field] = value
    return Block(tuple(sorted(taken.items())), orjson.dumps(rest).decode() if rest else None)
