"""JSON strings from bytes: orjson is the oracle."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_wasm._strings import json_string

pytestmark = pytest.mark.parallel

# Mostly what needs an escape, and what is next to it.
SPICY = st.text(st.sampled_from('"\\/\x00\x07\x08\t\n\x0b\x0c\r\x1f !#[]\x7fa\x80é日😀'))


@given(st.text() | SPICY)
def test_as_orjson_writes_it(text: str) -> None:
    assert json_string(text.encode()) == orjson.dumps(text)


@pytest.mark.parametrize("at", range(17))
def test_every_character_in_every_place(at: int) -> None:
    for code in range(256):
        text = "a" * at + chr(code) + "b" * (16 - at)
        assert json_string(text.encode()) == orjson.dumps(text)


@pytest.mark.parametrize("letter", ['"', "\x01", "a", "\n"])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000, 1_000_000])
def test_any_length_of_one_character(letter: str, count: int) -> None:
    assert json_string((letter * count).encode()) == orjson.dumps(letter * count)
