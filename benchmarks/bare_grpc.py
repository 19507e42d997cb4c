"""`python -m benchmarks.bare_grpc PORT`: a grpcio server that does nothing, the least that ours can cost.

asyncio on uvloop, messages as bytes: each is answered with the same few bytes.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import uvloop

# AgentToProxy: a response that allows, with a correlation id of 11 letters.
ANSWER = b"\x12\x0f\x0a\x0biuKtfzn2R7A\x12\x00"


async def process_stream(_: Any, context: Any) -> None:
    await context.send_initial_metadata(())
    while await context.read() is not grpc.aio.EOF:
        await context.write(ANSWER)


async def serve(port: int) -> None:
    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(process_stream)
    service = grpc.method_handlers_generic_handler(
        "zentinel.agent.v2.AgentServiceV2", {"ProcessStream": method}
    )
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
