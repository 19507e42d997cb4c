from typing import Any

from sentinel_wasm._hostcalls import Host
from sentinel_wasm._ticker import Ticker
from sentinel_wasm.errors import GuestFault

class FrameBuffer:
    protocol: int
    frame_type: int
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def received(self, count: int) -> None: ...
    @property
    def unread(self) -> int: ...
    def next_frame(self) -> bytes | None: ...

class Normaliser:
    capacity: int
    def __init__(self, names: str, lists: bool) -> None: ...
    def event(self, frame_type: int, frame: bytes) -> tuple[int, int, str, bytes] | None: ...

class GuestCall:
    usable: bool
    lost: GuestFault | None
    def __init__(
        self,
        owner: Any,
        host: Host,
        ticker: Ticker,
        context: int,
        memory: int,
        alloc: int,
        dealloc: int,
        hooks: list[int],
        names: list[str],
    ) -> None: ...
    def call(self, hook: int, data: bytes, deadline_ns: int, limit_ns: int) -> bytes | None: ...
    def retire(self) -> None: ...

def cause(code: int | None, message: str) -> str: ...
