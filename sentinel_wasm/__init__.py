"""Runs users' WebAssembly modules as an agent of the Sentinel/Zentinel reverse proxy.

`Module` is one in a program of yours (`sentinel_wasm.api`), `Decision` what it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentinel_wasm.api import Module
    from sentinel_wasm.decision import Decision

__all__ = ["Decision", "Module"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """When it is asked for: most of the package's users are programs that start, and soon."""
    if name == "Module":
        from sentinel_wasm.api import Module

        return Module
    if name == "Decision":
        from sentinel_wasm.decision import Decision

        return Decision
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
