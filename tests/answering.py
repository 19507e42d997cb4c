"""Agents and pools without a server: their event loop runs while a worker has the event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sentinel_wasm.answering import Answering, Reply
from sentinel_wasm.errors import ModuleError
from sentinel_wasm.guest.crew import Outcome
from sentinel_wasm.guest.pool import LATER, Pool
from sentinel_wasm.protocol import answers

PATIENCE_S = 10
T = TypeVar("T")


class Loop:
    """An event loop that runs until something has been answered."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        self.loop.close()

    def wait(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end
            self.wait(0.001)

    def answered(self, ask: Callable[[Callable[[T], None]], None]) -> T:
        """What `ask` gives to its callback, at once or later."""
        future: asyncio.Future[T] = self.loop.create_future()
        ask(future.set_result)
        return self.loop.run_until_complete(asyncio.wait_for(future, PATIENCE_S))


class Asked(Loop):
    """A pool as the agent uses it."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        pool.attach(self.loop)

    def close(self) -> None:
        self.pool.close()
        super().close()

    def begin(self, hook: int, data: bytes, identity: str, answered: Callable[[Outcome], None]) -> None:
        """Ask without waiting; `answered` may be called at once."""
        deadline_ns = time.monotonic_ns() + self.pool.limits.event_ms * 1_000_000
        try:
            outcome = self.pool.call(hook, data, identity, deadline_ns)
            if outcome is not LATER:
                answered(outcome)
                return
            self.pool.submit(hook, data, identity, deadline_ns, answered, opens=hook == 0)
        except ModuleError as error:
            answered(error)

    def call(self, hook: int, data: bytes, identity: str) -> bytes | None:
        """Raises ModuleError."""

        def ask(done: Callable[[Outcome], None]) -> None:
            self.begin(hook, data, identity, done)

        outcome = self.answered(ask)
        if isinstance(outcome, ModuleError):
            raise outcome
        return outcome

    def configure(self, config: Any) -> None:
        """Raises ModuleError."""

        def ask(done: Callable[[ModuleError | None], None]) -> None:
            outcome = self.pool.configure(
                config, time.monotonic_ns() + self.pool.limits.event_ms * 1_000_000, done
            )
            if outcome is not LATER:
                done(outcome)

        error: ModuleError | None = self.answered(ask)
        self.settle()
        if error is not None:
            raise error

    def settle(self) -> None:
        """Until what was lost has been replaced."""
        self.until(lambda: self.pool.is_at_rest)


class AskedAgent(Loop):
    """An agent as a connection uses it."""

    def __init__(self, agent: Answering) -> None:
        super().__init__()
        self.agent = agent
        agent.attach(self.loop, lambda: None)

    def close(self) -> None:
        self.agent.close()
        super().close()

    def v1(self, frame: bytes) -> bytes:
        return self._answered(lambda reply: self.agent.answer_v1(frame, time.monotonic_ns(), reply))

    def v2(self, frame_type: int, frame: bytes) -> bytes:
        def ask(reply: Reply) -> bytes | None:
            def with_id(correlation_id: str, answer: bytes) -> None:
                reply(correlation_id, answers.with_correlation_id(answer, correlation_id))

            return self.agent.answer_v2(frame_type, frame, time.monotonic_ns(), with_id)

        return self._answered(ask)

    def _answered(self, ask: Callable[[Reply], bytes | None]) -> bytes:
        def begin(done: Callable[[bytes], None]) -> None:
            answer = ask(lambda _, answer: done(answer))
            if answer is not None:
                done(answer)

        return self.answered(begin)
