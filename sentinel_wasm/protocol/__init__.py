"""What proxies say and hear: frames, events, the handshake, answers (agent-protocol.md)."""
