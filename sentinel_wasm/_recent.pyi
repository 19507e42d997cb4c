KEPT: int
ENTRY_BYTES: int

class Recent:
    seen_ns: int
    def add(
        self, hook: int, decision: int, status: int, version: int, correlation_id: str, answer: bytes
    ) -> None: ...
    def since(self, number: int) -> bytes: ...
