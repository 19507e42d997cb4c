"""gRPC's side of a proxy, blocking: what real proxies send, and what they read."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc

from sentinel_wasm.grpc import agent_pb2 as pb

BROWSER = {"host": ["example.com"], "user-agent": ["Mozilla/5.0"], "accept": ["text/html"]}
PATIENCE_S = 10.0
STREAM_S = 60.0  # for all that is said on one
PACKAGES = ("zentinel.agent.v2", "sentinel.agent.v2")


def request_headers(
    identity: str, uri: str = "/", headers: dict[str, list[str]] | None = None
) -> pb.ProxyToAgent:
    return pb.ProxyToAgent(
        request_headers=pb.RequestHeadersEvent(
            metadata=pb.RequestMetadata(
                correlation_id=identity,
                request_id="47e78138-f72f-493f-92d1-b294cd1d0e73",
                client_ip="192.0.2.7:51234",
                protocol="HTTP/1.1",
                route_id="default",
                timestamp_ms=1_795_000_000_000,
            ),
            method="GET",
            uri=uri,
            http_version="HTTP/1.1",
            headers=[
                pb.Header(name=name, value=value)
                for name, values in (headers or BROWSER).items()
                for value in values
            ],
        )
    )


class Client:
    """One connection; closes it at the end of its block."""

    def __init__(
        self, port: int, credentials: grpc.ChannelCredentials | None = None, package: str = PACKAGES[0]
    ):
        address = f"localhost:{port}" if credentials else f"127.0.0.1:{port}"
        # Not shared with other channels to the same address, as grpcio would have it.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        self.channel = (
            grpc.secure_channel(address, credentials, options)
            if credentials
            else grpc.insecure_channel(address, options)
        )
        self._service = f"/{package}.AgentServiceV2"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def ask(self, event: pb.ProxyToAgent | bytes) -> pb.AgentToProxy:
        """By ProcessEvent. Raises grpc.RpcError."""
        call = self.channel.unary_unary(f"{self._service}/ProcessEvent")
        data = event if isinstance(event, bytes) else event.SerializeToString()
        return pb.AgentToProxy.FromString(call(data, timeout=PATIENCE_S))

    def stream(self) -> Stream:
        return Stream(self.channel.stream_stream(f"{self._service}/ProcessStream"))


class Stream:
    """One ProcessStream, past its initial metadata and the handshake."""

    def __init__(self, method: Any) -> None:
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.call = method(self._said(), timeout=STREAM_S)
        self.call.initial_metadata()  # or nothing may be said
        self.say(pb.ProxyToAgent(handshake=pb.HandshakeRequest(supported_versions=[2, 1])))
        self.shaken = self.hear().handshake

    def _said(self) -> Iterator[bytes]:
        while (data := self._outgoing.get()) is not None:
            yield data

    def say(self, message: pb.ProxyToAgent | bytes) -> None:
        self._outgoing.put(message if isinstance(message, bytes) else message.SerializeToString())

    def hear(self) -> pb.AgentToProxy:
        """The next message. Raises grpc.RpcError, or StopIteration where the agent has ended the stream."""
        return pb.AgentToProxy.FromString(next(self.call))

    def ask(self, event: pb.ProxyToAgent) -> pb.AgentResponse:
        self.say(event)
        return self.hear().response

    def end(self) -> None:
        self._outgoing.put(None)
