"""The agent is upgraded in place behind the v2 proxy, fail-closed and under load, and no client notices.

UPGRADES says how often (make upgrades: 50). Where it is set, the proxy waits the published 50 ms for an
answer, and no connection may pause for 20: for a machine that does nothing else.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING

import pytest

from ..upgrading import Upgrading
from .conftest import StartStack
from .proxy import TIMEOUT, ZENTINEL
from .upstream import MASKED_BODY

if TYPE_CHECKING:
    from typing_extensions import Self

pytestmark = pytest.mark.e2e

UPGRADES = int(os.environ.get("UPGRADES", "5"))
IS_STRICT = "UPGRADES" in os.environ
CLIENTS = 4
LIMIT_MS = 20


class Load:
    """Clients that ask one request after the other, and check what they get."""

    def __init__(self, port: int) -> None:
        self.statuses: Counter[int] = Counter()
        self.longest_s = 0.0
        self._port = port
        self._stops = threading.Event()
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stops.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            while not self._stops.is_set():
                began = time.monotonic()
                connection.request("GET", "/card", headers={"User-Agent": "e2e"})
                response = connection.getresponse()
                body = response.read()
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                self.statuses[response.status] += 1
                if (response.status, body) != (200, MASKED_BODY):
                    self.errors.append(f"{response.status} {body!r} after {time.monotonic() - began:.3f} s")
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(repr(error))
        finally:
            connection.close()


def test_upgrades_under_load_cost_no_request(start_stack: StartStack) -> None:
    stack = start_stack(ZENTINEL, changes={TIMEOUT: TIMEOUT} if IS_STRICT else {})
    pauses_ms = []
    with Upgrading(stack.agent) as upgrading:
        with Load(stack.proxy.port) as load:
            for _ in range(UPGRADES):
                said = upgrading.upgrade()
                assert said["connections"] == 4
                pauses_ms.append(said["longest_pause_ms"])
        stack.proxy.kill()
    print(
        f"{UPGRADES} upgrades, {load.statuses.total()} requests;"
        f" longest pause of a connection {max(pauses_ms)} ms, of a request {load.longest_s * 1000:.0f} ms"
    )
    assert load.errors == []
    assert load.statuses[200] > UPGRADES
    if IS_STRICT:
        assert max(pauses_ms) < LIMIT_MS
