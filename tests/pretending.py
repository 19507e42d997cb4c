"""Agents of our own making, that answer as no agent should."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Answer = Callable[[bytes], bytes]
"""What is said to what was read; b"": the connection is closed."""

AgentThat = Callable[[Answer], Path]


@contextlib.contextmanager
def pretended(path: Path) -> Iterator[AgentThat]:
    """What starts one at a socket, and gives that."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def talk(connection: socket.socket, answer: Answer) -> None:
        with connection, contextlib.suppress(OSError):
            while (data := connection.recv(1 << 16)) and (said := answer(data)):
                connection.sendall(said)

    def serve(answer: Answer) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection, answer), daemon=True).start()

    def start(answer: Answer) -> Path:
        threading.Thread(target=serve, args=(answer,), daemon=True).start()
        return path

    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def v1(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def v2(kind: int, text: bytes) -> bytes:
    return struct.pack(">IB", len(text) + 1, kind) + text


HELLO = v2(2, b'{"success":true}')
