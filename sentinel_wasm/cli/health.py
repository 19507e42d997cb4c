"""`sentinel-wasm-agent --check-health`: asks a running agent whether it serves, for container probes."""

from __future__ import annotations

import http.client
import socket
import time

from sentinel_wasm.settings import Address

_PATIENCE_S = 2.0
_MOST_BYTES = 8192


def check(address: Address) -> tuple[bool, str]:
    """Whether the agent with this --admin address is ready, and what it or we say of that; in 2 s at most."""
    end = time.monotonic() + _PATIENCE_S
    try:
        with socket.create_connection(address, _PATIENCE_S) as sock:
            # The agent may listen to local names only.
            sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = _read(sock, end)
    except OSError as error:
        return False, f"no answer from {address}: {error.strerror or 'it took over 2 s'}"
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
        return False, f"what answers at {address} does not speak HTTP"
    is_ready = words[1] == str(http.client.OK).encode()
    return is_ready, " ".join(body.decode(errors="replace").split()) or f"status {words[1].decode()}"


def _read(sock: socket.socket, end: float) -> bytes:
    """All that comes until it closes, up to a limit. Raises OSError where that takes too long."""
    answer = b""
    while len(answer) < _MOST_BYTES:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        data = sock.recv(_MOST_BYTES)
        if not data:
            break
        answer += data
    return answer
