"""Where gRPC's clients come in: address, services, start and end. One in each process that answers events."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import grpc
import structlog

from sentinel_wasm.errors import EventError, SocketError
from sentinel_wasm.grpc.streams import Context, Events, EventStream
from sentinel_wasm.server.serving import Serving
from sentinel_wasm.settings import Address

_log = structlog.stdlib.get_logger("grpc")

# Proxies named Sentinel call the same package so.
_SERVICES = ("zentinel.agent.v2.AgentServiceV2", "sentinel.agent.v2.AgentServiceV2")
_MOST_BYTES = 10 * 1024 * 1024  # of a message that comes in

_OPTIONS = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_receive_message_length", _MOST_BYTES),
    ("grpc.max_send_message_length", -1),
)


class Listener:
    """Made on the event loop that serves."""

    def __init__(self, serving: Serving, address: Address) -> None:
        """Raises SocketError where nothing can listen there."""
        self._serving = serving
        self._events = Events(serving)
        self._streams: set[EventStream] = set()
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(tuple(map(self._handlers, _SERVICES)))
        try:
            self._server.add_insecure_port(str(address))
        except RuntimeError:
            raise SocketError(f"cannot listen on --grpc {address}") from None

    async def start(self) -> None:
        await self._server.start()

    async def end(self, patience_s: float) -> None:
        """Take no new streams, answer what has come; what is not answered by then is cut."""
        draining = [stream.drain() for stream in self._streams]
        await asyncio.gather(self._server.stop(patience_s), *draining)

    def _handlers(self, service: str) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            service,
            {
                "ProcessStream": grpc.stream_stream_rpc_method_handler(self._process_stream),
                "ProcessEvent": grpc.unary_unary_rpc_method_handler(self._process_event),
            },
        )

    async def _process_event(self, data: bytes, context: Context) -> bytes:
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        try:
            answer = self._events.answer(data, functools.partial(_settle, answered))
        except EventError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return await answered if answer is None else answer

    async def _process_stream(self, _: Any, context: Context) -> None:
        stream = EventStream(self._events, context, lambda: self._serving.agent.health)
        self._streams.add(stream)
        try:
            await stream.run()
        except EventError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self._streams.discard(stream)


def _settle(answered: asyncio.Future[bytes], message: bytes) -> None:
    if not answered.done():  # by the client's going away
        answered.set_result(message)
