"""The admin endpoint itself, and --check-health: what is answered, what is not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from sentinel_wasm.errors import SocketError
from sentinel_wasm.server import admin
from sentinel_wasm.server.trial import Loaded
from sentinel_wasm.settings import Address, parse_address

from .conftest import BuildWat, StartAgent
from .e2e.proxy import free_port
from .guest import wat
from .scraping import LOCAL, address
from .test_cli import assert_one_line, run

pytestmark = pytest.mark.parallel

ALLOW = wat.module(wat.says('{"decision":"allow"}'))
HOST = b"Host: localhost:9\r\n"


class Said:
    """What the endpoint is told of an agent."""

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason

    async def metrics(self) -> bytes:
        return b"a_metric 1\n"

    def why_not_ready(self) -> str | None:
        return self.reason

    async def status(self) -> dict[str, Any]:
        return {"version": "1"}

    async def events(self, since: int) -> bytes:
        return b'{"events":[],"last":%d}' % since

    async def loaded(self) -> Loaded | None:
        return None


async def exchange(where: Address, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*where)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def served(
    talk: Callable[[Address], Awaitable[None]], *, source: Said | None = None, host: str = "127.0.0.1"
) -> None:
    """Have an endpoint, and talk to it."""

    async def run_both() -> None:
        where = Address(host, free_port())
        with admin.listen(where) as sock:
            server = await admin.start(sock, source or Said())
            assert server is not None
            async with server:
                await talk(where)

    asyncio.run(run_both())


def answer_to(request: bytes, *, source: Said | None = None, host: str = "127.0.0.1") -> bytes:
    answers = []

    async def talk(where: Address) -> None:
        answers.append(await exchange(where, request))

    served(talk, source=source, host=host)
    return bytes(answers[0])


def get(path: bytes, fields: bytes = HOST) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + fields + b"\r\n"


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (get(b"/metrics"), b"200 OK", b"a_metric 1\n"),
        (get(b"/metrics?name=x"), b"200 OK", b"a_metric 1\n"),
        (get(b"/healthz"), b"200 OK", b"ok\n"),
        (get(b"/readyz"), b"200 OK", b"ready\n"),
        (get(b"/status.json"), b"200 OK", b'{"ready":true,"reason":null,"version":"1"}'),
        (get(b"/events"), b"200 OK", b'{"events":[],"last":0}'),
        (get(b"/events?since=12"), b"200 OK", b'{"events":[],"last":12}'),
        (get(b"/events?a=b&since=12&c"), b"200 OK", b'{"events":[],"last":12}'),
        (get(b"/events?since=x"), b"200 OK", b'{"events":[],"last":0}'),
        (get(b"/index.html"), b"404 Not Found", b"Not Found\n"),
        (get(b"/metrics/"), b"404 Not Found", b"Not Found\n"),
        (b"POST /metrics HTTP/1.1\r\n" + HOST + b"\r\n", b"405 Method Not Allowed", b"Method Not Allowed\n"),
        (b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n", b"405 Method Not Allowed", b"Method Not Allowed\n"),
        (b"GET /metrics\r\n\r\n", b"400 Bad Request", b"Bad Request\n"),
        (b"\x16\x03\x01\r\n\r\n", b"400 Bad Request", b"Bad Request\n"),
    ],
)
def test_what_is_answered(request_: bytes, status: bytes, body: bytes) -> None:
    head, _, said = answer_to(request_).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert said == body
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    assert head.endswith(b"\r\nConnection: close")
    assert (b"\r\nAllow: GET\r\n" in head) is (status[:3] == b"405")
    if body.startswith(b"a_metric"):
        assert b"\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in head


def test_a_reason_is_one_printable_line() -> None:
    answer = answer_to(get(b"/readyz"), source=Said("bad\r\n\r\nX: y \x1b[2J \udcff " + "z" * 5000))
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    body = answer.partition(b"\r\n\r\n")[2]
    assert body.count(b"\n") == 1
    assert b"\x1b" not in body
    assert len(body) < 700


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        (b"Host: localhost\r\n", True),
        (b"host:LOCALHOST:9100\r\n", True),
        (b"Host: 127.0.0.1:9100\r\n", True),
        (b"Host: [::1]:9100\r\n", True),
        (b"Host: evil.example\r\n", False),
        (b"Host: localhost.evil.example\r\n", False),
        (b"Host: 127.0.0.1.evil.example:9100\r\n", False),
        (b"Host: localhost\r\nHost: evil.example\r\n", False),
        (b"Host:\r\n", False),
        (b"", False),
    ],
)
def test_on_loopback_only_local_names_are_answered(fields: bytes, allowed: bool) -> None:
    answer = answer_to(get(b"/healthz", fields))
    assert answer.startswith(b"HTTP/1.1 200" if allowed else b"HTTP/1.1 403"), answer


def test_elsewhere_every_name_is_answered() -> None:
    assert answer_to(get(b"/healthz", b"Host: agent.example\r\n"), host="0.0.0.0").startswith(b"HTTP/1.1 200")


def test_a_request_that_comes_in_pieces_is_answered() -> None:
    async def talk(where: Address) -> None:
        reader, writer = await asyncio.open_connection(*where)
        for byte in get(b"/healthz"):
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200")
        writer.close()

    served(talk)


def test_a_request_that_is_too_large_is_not_answered() -> None:
    assert answer_to(get(b"/metrics", HOST + b"X: " + b"x" * 9000 + b"\r\n")) == b""
    assert answer_to(b"x" * 100_000) == b""


def test_a_client_that_takes_too_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_PATIENCE_S", 0.1)

    async def talk(where: Address) -> None:
        for begun in (b"", get(b"/metrics")[:-1]):
            began = time.monotonic()
            assert await exchange(where, begun) == b""
            assert time.monotonic() - began < 5

    served(talk)


def test_so_many_connections_at_once() -> None:
    async def talk(where: Address) -> None:
        idle = [await asyncio.open_connection(*where) for _ in range(64)]
        await asyncio.sleep(0.1)
        assert await exchange(where, get(b"/healthz")) == b""
        idle[0][1].close()
        await asyncio.sleep(0.1)
        assert (await exchange(where, get(b"/healthz"))).startswith(b"HTTP/1.1 200")
        for _, writer in idle:
            writer.close()

    served(talk)


def test_a_defect_costs_one_answer() -> None:
    source = Said()

    async def talk(where: Address) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(source, "why_not_ready", lambda: 1 // 0)
            assert await exchange(where, get(b"/readyz")) == b""
        assert (await exchange(where, get(b"/readyz"))).startswith(b"HTTP/1.1 200")

    served(talk, source=source)


# --- the option


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (":9100", ("127.0.0.1", 9100)),
        ("localhost:9100", ("localhost", 9100)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:9100", ("::1", 9100)),
        ("[::]:65535", ("::", 65535)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert parse_address(text) == found
    assert parse_address(str(parse_address(text))) == found


BAD = ["9100", "host", "host:", "::1:9100", "[::1]", ":65536", "a b:1", ":-1", "x:y", "a..b:1"]


@pytest.mark.parametrize("text", BAD)
def test_a_bad_address_is_one_line_and_status_2(text: str) -> None:
    with pytest.raises(ValueError, match=r"not host:port|no port|not a host's name"):
        parse_address(text)
    if text in ("9100", ":65536"):
        assert_one_line(run("--module", "m.wasm", "--admin", text), 2, "--admin", text.strip(":"))
        assert_one_line(run("--module", "m.wasm", environment={"WASM_ADMIN": text}), 2, "WASM_ADMIN")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_address_is_one_line_and_status_1(build_wat: BuildWat, workers: str) -> None:
    wasm = build_wat(ALLOW)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(
            "--module", wasm, "--socket", wasm.with_suffix(".s"), "--admin", where, "--workers", workers
        )
    assert done.returncode == 1
    assert f"sentinel-wasm-agent: cannot listen on --admin {where}: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not wasm.with_suffix(".s").exists()


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(SocketError, match=r"cannot listen on --admin 192\.0\.2\.1:9100"):
        admin.listen(Address("192.0.2.1", 9100))


def test_nothing_listens_by_default(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(ALLOW))
    assert "admin endpoint" not in agent.log


# --- --check-health


@contextlib.contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """Something that answers so to each connection, or never."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    held.append(connection)
                    if answer is not None:
                        connection.recv(4096)
                        connection.sendall(answer)
                        connection.close()

        held: list[socket.socket] = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


def test_check_health_of_an_agent(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(ALLOW), *LOCAL)
    done = run("--check-health", "--admin", address(agent))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
    done = run("--check-health", environment={"WASM_ADMIN": address(agent)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nthe module keeps failing\n", "the module keeps failing\n"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404\n"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP\n"),
        (b"", "does not speak HTTP\n"),
    ],
)
def test_check_health_of_what_is_not_ready(answer: bytes, says: str) -> None:
    with answering(answer) as where:
        done = run("--check-health", "--admin", where)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (1, 1, "")
    assert done.stdout.endswith(says)


def test_check_health_takes_two_seconds_at_most() -> None:
    began = time.monotonic()
    run("--version")
    start_s = time.monotonic() - began
    with answering(None) as where:
        began = time.monotonic()
        done = run("--check-health", "--admin", where)
        assert time.monotonic() - began < 2.5 + 3 * start_s
    assert (done.returncode, done.stdout) == (1, f"no answer from {where}: it took over 2 s\n")


def test_check_health_where_nothing_listens() -> None:
    done = run("--check-health", "--admin", f":{free_port()}")
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (1, 1, "")
    assert "Connection refused" in done.stdout


def test_check_health_without_an_address_is_a_mistake() -> None:
    assert_one_line(run("--check-health"), 2, "--check-health", "--admin", "WASM_ADMIN")
