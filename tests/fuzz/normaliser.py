"""The one-pass normalisers against the Python path: the same bytes, or it leaves the event alone."""

from __future__ import annotations

from tests.normalising import BODIES, FORMS, REQUEST, RESPONSE, V1, Form, captured, captured_chunks, compare

from . import documents
from .targets import Change, Target

TYPES = (V1, REQUEST, RESPONSE, *BODIES)


def run(data: bytes) -> None:
    if data:
        kind, form = divmod(data[0] % (len(TYPES) * len(FORMS)), len(FORMS))
        compare(TYPES[kind], data[1:], FORMS[form])


def written(frame_type: int, form: Form, frame: bytes) -> bytes:
    """An event as an input of this target."""
    return bytes([TYPES.index(frame_type) * len(FORMS) + FORMS.index(form)]) + frame


def seeds() -> list[bytes]:
    return [
        written(frame_type, FORMS[index % len(FORMS)], frame)
        for index, (frame_type, frame) in enumerate(captured() + captured_chunks())
    ]


def mutate(data: bytes, limit: int, seed: int, change: Change) -> bytes:
    """Mostly bytes: what the two sides read apart is rather in how a document is written."""
    return change(data, limit) if seed % 4 else documents.mutate(data, limit, seed, change)


TARGET = Target(run, seeds, mutate)
