"""Runs users' WebAssembly modules as an agent of the Sentinel/Zentinel reverse proxy.

`Module` is one in a program of yours (`sentinel_wasm.api`), `Decision` what it says; `serve` is the agent in
a program (`sentinel_wasm.embedding`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentinel_wasm.api import Module
    from sentinel_wasm.decision import Decision
    from sentinel_wasm.embedding import serve

__all__ = ["Decision", "Module", "serve"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """When it is asked for: most of the package's users are programs that start, and soon."""
    if name == "Module":
        from sentinel_wasm.api import Module

        return Module
    if name == "Decision":
        from sentinel_wasm.decision import Decision

        return Decision
    if name == "serve":
        from sentinel_wasm.embedding import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
