from collections.abc import Sequence
from typing import Any

from sentinel_wasm._ticker import Ticker

class Plan:
    names: tuple[bytes, ...]
    def __init__(
        self,
        owners: Any,
        ticker: Ticker,
        engine: int,
        linked: int,
        names: tuple[str, ...],
        hooks: Sequence[bool],
        wasi: bool,
        initialize: bool,
        memory_bytes: int,
        table_elements: int,
    ) -> None: ...

def live_stores() -> int: ...
def made_stores() -> int: ...
def ended_stores() -> int: ...
def cause(code: int | None, message: str) -> str: ...
