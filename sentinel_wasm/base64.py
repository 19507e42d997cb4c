"""Base64 as the protocol has it: the standard alphabet, padded, nothing else.

By pybase64: the standard library takes 3 ms for a body chunk of 1 MiB, fifty times as long.
"""

from __future__ import annotations

import pybase64


def decode(text: str) -> bytes:
    """Raises ValueError."""
    if len(text) % 4:
        raise ValueError("its length is not a multiple of 4")
    return pybase64.b64decode(text, validate=True)


def encode(data: bytes) -> str:
    return pybase64.b64encode_as_string(data)
