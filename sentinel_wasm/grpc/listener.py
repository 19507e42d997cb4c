"""Where gRPC's clients come in: address, services, start and end. One in each process that answers events."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from sentinel_wasm.errors import EventError, SocketError
from sentinel_wasm.grpc import reports
from sentinel_wasm.grpc.streams import Context, Events, EventStream, control_stream
from sentinel_wasm.guest.failures import Health
from sentinel_wasm.logs import Throttle
from sentinel_wasm.server.run import settle
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.settings import Settings

_log = structlog.stdlib.get_logger("grpc")
_throttle = Throttle()

# Proxies named Sentinel call the same package so.
_SERVICES = ("zentinel.agent.v2.AgentServiceV2", "sentinel.agent.v2.AgentServiceV2")
_MOST_BYTES = 10 * 1024 * 1024  # of a message that comes in
_MOST_CALLS = 1024  # on one connection
_LOOK_S = 0.005
_STATUS_S = 0.1  # for the last streams' status to leave

_OPTIONS = (
    # For the processes of --workers, and for the next one, which takes over.
    ("grpc.so_reuseport", 1),
    ("grpc.max_receive_message_length", _MOST_BYTES),
    ("grpc.max_concurrent_streams", _MOST_CALLS),
)


class Listener:
    """Made on the event loop that serves."""

    def __init__(self, serving: Serving, settings: Settings) -> None:
        """Raises SocketError where nothing can listen at --grpc."""
        assert settings.grpc is not None
        self._serving = serving
        self._settings = settings
        self._events = Events(serving)
        self._streams: set[EventStream] = set()
        self._calls: set[object] = set()  # in which events are answered
        self._health = health.aio.HealthServicer()
        self._telling: set[asyncio.Task[None]] = set()
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(tuple(map(self._handlers, _SERVICES)))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        credentials = _credentials(settings)
        try:
            if credentials is None:
                port = self._server.add_insecure_port(str(settings.grpc))
            else:
                port = self._server.add_secure_port(str(settings.grpc), credentials)
        except RuntimeError:
            raise SocketError(f"cannot listen on --grpc {settings.grpc}") from None
        self._address = settings.grpc._replace(port=port)

    @property
    def streams(self) -> int:
        """Of events, open now."""
        return len(self._streams)

    @property
    def dropped(self) -> dict[str, int]:
        """What of answers gRPC could not carry, and how often."""
        return self._events.dropped

    async def start(self) -> None:
        self._serving.health_changed.append(self._tell_health)
        await self._set_health()
        settle()  # grpc's modules too
        await self._server.start()
        mutual = self._settings.grpc_client_ca is not None
        tls = "none" if self._settings.grpc_cert is None else "mutual" if mutual else "server"
        _log.info("gRPC endpoint", address=str(self._address), tls=tls)

    async def end(self, patience_s: float) -> None:
        """Take nothing new, and answer what has come; what is not answered by then is cut."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        await self._health.enter_graceful_shutdown()
        stopping = loop.create_task(self._server.stop(patience_s))
        draining = [loop.create_task(stream.drain()) for stream in self._streams]
        while self._calls and loop.time() < deadline:
            await asyncio.sleep(_LOOK_S)
        for task in draining:
            task.cancel()
        # Streams of control and health are without end.
        await self._server.stop(_STATUS_S)
        await stopping

    def send_metrics(self, report: dict[str, Any]) -> int:
        """To how many proxies' streams it goes (protocol.metrics_report)."""
        if not self._streams:
            return 0
        message = reports.metrics(report)
        return sum(stream.tell(message) for stream in self._streams)

    def _tell_health(self, state: Health) -> None:
        message = reports.health(state)
        for stream in self._streams:
            stream.tell(message)
        telling = asyncio.get_running_loop().create_task(self._set_health())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _set_health(self) -> None:
        is_ready = self._serving.agent.trouble is None
        status = HealthCheckResponse.SERVING if is_ready else HealthCheckResponse.NOT_SERVING
        for service in ("", *_SERVICES):
            await self._health.set(service, status)

    # Calls

    def _handlers(self, service: str) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            service,
            {
                "ProcessStream": grpc.stream_stream_rpc_method_handler(_guarded(self._process_stream)),
                "ControlStream": grpc.stream_stream_rpc_method_handler(_guarded(control_stream)),
                "ProcessEvent": grpc.unary_unary_rpc_method_handler(_guarded(self._process_event)),
            },
        )

    async def _process_event(self, data: bytes, _: Context) -> bytes:
        with self._counted(object()):
            answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            answer = self._events.answer(data, functools.partial(_settle, answered))
            return await answered if answer is None else answer

    async def _process_stream(self, _: Any, context: Context) -> None:
        stream = EventStream(self._events, context, self._serving)
        with self._counted(stream):
            self._serving.agent.counts.connections += 1
            self._streams.add(stream)
            _log.debug("stream opened", peer=context.peer(), streams=self.streams)
            try:
                await stream.run()
            finally:
                self._streams.discard(stream)
                _log.debug("stream ended", peer=context.peer(), streams=self.streams)

    @contextmanager
    def _counted(self, call: object) -> Iterator[None]:
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)


def _guarded(handle: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
    """What breaks a call ends this call alone, and is said."""

    async def guarded(request: Any, context: Context) -> Any:
        try:
            return await handle(request, context)
        except EventError as error:
            _throttle.say("ended", _log.error, "call ended", peer=context.peer(), reason=str(error))
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except (grpc.aio.AbortError, grpc.aio.BaseError) as error:
            _log.debug("the client has gone", reason=str(error))
        except Exception as defect:
            _throttle.say("defect", _log.error, "internal error, please report it", exc_info=defect)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error of the agent")

    return guarded


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """None: no TLS. `check` has looked at the files. Raises SocketError where they have gone since then."""
    if settings.grpc_cert is None or settings.grpc_key is None:
        return None
    try:
        pair = settings.grpc_key.read_bytes(), settings.grpc_cert.read_bytes()
        authorities = settings.grpc_client_ca and settings.grpc_client_ca.read_bytes()
    except OSError as error:
        raise SocketError(f"cannot read {error.filename}: {error.strerror}") from None
    return grpc.ssl_server_credentials([pair], authorities, require_client_auth=authorities is not None)


def _settle(answered: asyncio.Future[bytes], message: bytes) -> None:
    if not answered.done():  # by the client's going away
        answered.set_result(message)
