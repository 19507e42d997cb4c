"""gRPC v2 (agent-protocol.md, section 4): another way in, to the same agent. Needs the extra `grpc`."""

import os

# What grpcio's core prints is no line of the log; what matters to users of it comes as errors.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# The older poller takes a fifth less of the processor (docs/grpc.md). grpcio looks here when it is imported.
POLLER = "-event_engine_listener"
os.environ.setdefault("GRPC_EXPERIMENTS", POLLER)
