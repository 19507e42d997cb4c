from collections.abc import Callable, Container, Iterable
from typing import Protocol

from sentinel_wasm._fastpath import GuestCall, Normaliser
from sentinel_wasm._metrics import Counts
from sentinel_wasm.decision import Decision
from sentinel_wasm.errors import ModuleError

class Owner(Protocol):
    def guest_failed(self, guest: GuestCall, correlation_id: str, error: ModuleError) -> None: ...
    def look_after(self, guest: GuestCall, correlation_id: str) -> None: ...
    def outcome_answer(
        self, hook: int, correlation_id: str, version: int, outcome: bytes | ModuleError
    ) -> bytes: ...
    def chunk_answer(self, frame_type: int, payload: bytes, outcome: bytes | ModuleError) -> bytes: ...
    def over(self, hook: int, blocks: bool, correlation_id: str, event: bytes) -> None: ...

def spread(correlation_id: str, count: int) -> int: ...

class Inline:
    guests: tuple[GuestCall, ...]
    open: bool
    def __init__(
        self,
        guests: Iterable[GuestCall],
        pinned: Container[str],
        find: Callable[[str, int], GuestCall | None] | None = None,
    ) -> None: ...

class QuickPath:
    def __init__(
        self,
        normaliser: Normaliser,
        inline: Inline,
        owner: Owner | None,
        limit_ns: int,
        hooks: tuple[bool, ...],
        allowed: tuple[bytes, bytes],
        kept: dict[tuple[bytes, int, int], tuple[Decision, bytes]],
        counts: Counts,
        echo: bool = ...,
    ) -> None: ...
    def log_share(self, share: float) -> None: ...
    def is_logged(self, correlation_id: str) -> bool: ...
    def known(self, result: bytes, hook: int, version: int) -> tuple[Decision, bytes] | None: ...
    def answer_frame(self, frame_type: int, payload: bytes, arrived_ns: int) -> bytes | None: ...
