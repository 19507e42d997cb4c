"""`sentinel_wasm.serve`: the agent in a program, on its event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop

from sentinel_wasm import serve
from sentinel_wasm._instances import live_stores
from sentinel_wasm._workers import live_threads
from sentinel_wasm.cli import health
from sentinel_wasm.client import ClientV1, ClientV2, request_headers
from sentinel_wasm.errors import UserError
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import FrameType, encode_v2
from sentinel_wasm.server import serving
from sentinel_wasm.settings import Address

from .conftest import EXAMPLES, ROOT, BuildWat
from .e2e.proxy import free_port
from .guest import wat

pytestmark = pytest.mark.parallel

C_EXAMPLE = EXAMPLES / "c" / "security.wasm"
PATIENT: dict[str, Any] = {"timeout_ms": 2000, "proxy_timeout_ms": 5000}
LOOPS = wat.module(wat.hook("(loop $for_ever (br $for_ever)) (i64.const 0)"))


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e") / "agent.sock"


def ask(client: ClientV1 | ClientV2) -> Any:
    return client.ask(EventKind.REQUEST_HEADERS, request_headers("a", uri="/../x"))["decision"]


def test_it_answers_on_the_programs_loop_and_ends_with_the_block(path: Path) -> None:
    before = live_stores(), live_threads()

    def talk() -> None:
        with ClientV2(path) as client, ClientV1(path) as other:
            assert ask(client)["block"]["status"] == ask(other)["block"]["status"] == 403

    async def program() -> None:
        for _ in range(2):  # once more after it has ended
            async with serve(C_EXAMPLE, str(path), **PATIENT):
                await asyncio.to_thread(talk)
            assert not path.exists()

    uvloop.run(program())
    assert (live_stores(), live_threads()) == before


def begin(path: Path) -> ClientV2:
    """An event that a worker has."""
    client = ClientV2(path)
    client.send_event(EventKind.REQUEST_HEADERS, request_headers("a"))
    client.send(encode_v2(FrameType.PING, b"ping"))
    assert client.receive() == b"ping"
    return client


def test_what_has_come_is_answered_at_the_end(path: Path, build_wat: BuildWat) -> None:
    async def program() -> ClientV2:
        options: dict[str, Any] = {"dispatch": "threads", "timeout_ms": 500, "fail_open": True}
        async with serve(build_wat(LOOPS), path, **options):
            return await asyncio.to_thread(begin, path)

    with uvloop.run(program()) as client:
        answer = client.receive()
        while client.frame_type == FrameType.HEALTH_STATUS:  # it drains
            answer = client.receive()
    assert orjson.loads(answer)["decision"] == "allow"


def test_what_is_left_at_the_end_is_closed_and_freed(
    path: Path, build_wat: BuildWat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_FLUSH_S", 0.1)
    before = live_stores(), live_threads()

    async def program() -> ClientV2:
        async with serve(build_wat(LOOPS), path, dispatch="threads", timeout_ms=500):
            return await asyncio.to_thread(begin, path)

    with uvloop.run(program()) as client:
        client.receive()
        assert client.frame_type == FrameType.HEALTH_STATUS  # it drains
        with pytest.raises(ConnectionError):
            client.receive()
    assert (live_stores(), live_threads()) == before


def test_a_configuration_and_the_proxys_block(path: Path, build_wat: BuildWat) -> None:
    """The module takes no other configuration than one of this length, and traps on events."""
    length = len('{"config":{"a":1}}')
    picky = wat.module(
        wat.hook("unreachable"),
        wat.hook(
            f"(if (i32.ne (local.get $n) (i32.const {length})) (then unreachable)) (i64.const 0)",
            "on_configure",
        ),
    )

    def talk() -> None:
        with ClientV2(path) as client:
            assert ask(client)["block"]["status"] == 500
            block = {"correlation_id": "c", "agent_id": "wasm", "config": {"fail-open": True}}
            assert client.ask(EventKind.CONFIGURE, block)["decision"] == "allow"
            assert ask(client) == "allow"

    async def program() -> None:
        async with serve(build_wat(picky), path, {"a": 1}, **PATIENT):
            await asyncio.to_thread(talk)
        with pytest.raises(UserError, match="cannot be started"):
            async with serve(build_wat(picky), path, {"a": 10}, **PATIENT):
                pass

    uvloop.run(program())


def test_the_admin_address(path: Path) -> None:
    where = Address("127.0.0.1", free_port())

    async def program() -> None:
        async with serve(C_EXAMPLE, path, admin=str(where), **PATIENT):
            assert await asyncio.to_thread(health.check, where) == (True, "ready")
        assert not (await asyncio.to_thread(health.check, where))[0]

    uvloop.run(program())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"module": "none.wasm"}, "cannot read the module none.wasm"),
        ({"socket": "README.md"}, "README.md exists and is not a socket"),
        ({"workers": 2}, "no option workers; there are pool_size, "),
        ({"pool_size": 0}, "pool_size is 0, expected a whole number from 1 to 256"),
        ({"admin": "9100"}, "admin is '9100', expected host:port"),
        ({"cache_dir": Path("/x")}, "cache_dir is of type PosixPath, expected a path in quotes"),
        ({"connect": ["p"], "connect_token_file": "none"}, "cannot read the token of --connect in none"),
        ({"sha256": "0" * 64}, "its SHA-256 digest is "),
    ],
    ids=str,
)
def test_what_cannot_be_used(
    path: Path, options: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    before = live_stores(), live_threads()

    async def program() -> None:
        async with serve(**{"module": C_EXAMPLE, "socket": path, **options}):
            pass

    with pytest.raises(UserError, match=reason):
        uvloop.run(program())
    assert (live_stores(), live_threads()) == before


def test_two_cannot_have_one_admin_address(path: Path) -> None:
    """And the second leaves no socket."""
    where = f"127.0.0.1:{free_port()}"
    other = path.with_name("other.sock")

    async def program() -> None:
        async with serve(C_EXAMPLE, path, admin=where):
            with pytest.raises(UserError, match=f"cannot listen on --admin {where}"):
                async with serve(C_EXAMPLE, other, admin=where):
                    pass
            assert not other.exists()

    uvloop.run(program())


def test_another_event_loop_is_refused(path: Path) -> None:
    async def program() -> None:
        async with serve(C_EXAMPLE, path):
            pass

    with pytest.raises(UserError, match=r"uvloop\.run"):
        asyncio.run(program())


def test_in_a_thread_of_its_own(path: Path) -> None:
    started = threading.Event()
    stop: list[Callable[[], object]] = []

    async def program() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        async with serve(C_EXAMPLE, path, **PATIENT):
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: uvloop.run(program()))
    thread.start()
    try:
        assert started.wait(30)
        with ClientV2(path) as client:
            assert ask(client)["block"]["status"] == 403
    finally:
        stop[0]()
        thread.join(30)
    assert not path.exists()
