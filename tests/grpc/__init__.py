"""Proxies over gRPC: real agents, and clients in Python and Go."""
