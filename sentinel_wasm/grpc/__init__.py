"""gRPC v2 (agent-protocol.md, section 4): another way in, to the same agent. Needs the extra `grpc`."""
