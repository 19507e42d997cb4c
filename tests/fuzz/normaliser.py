"""The one-pass normaliser against the Python path: the same bytes, or it leaves the event alone."""

from __future__ import annotations

from tests.test_normaliser import FORMS, agrees, captured

from . import documents
from .targets import Change, Target

_TYPES = (0, 0x10, 0x12)


def run(data: bytes) -> None:
    if data:
        kind, form = divmod(data[0] % (len(_TYPES) * len(FORMS)), len(FORMS))
        agrees(_TYPES[kind], data[1:], FORMS[form])


def seeds() -> list[bytes]:
    frames = captured()
    return [
        bytes([_TYPES.index(frame_type) * len(FORMS) + index % len(FORMS)]) + frame
        for index, (frame_type, frame) in enumerate(frames)
    ]


def mutate(data: bytes, limit: int, seed: int, change: Change) -> bytes:
    """Mostly bytes: what the two sides read apart is rather in how a document is written."""
    return change(data, limit) if seed % 4 else documents.mutate(data, limit, seed, change)


TARGET = Target(run, seeds, mutate)
