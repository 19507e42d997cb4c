"""Where keys stand in TOML text, and values as such text; tomllib is the oracle of both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_wasm import toml

pytestmark = pytest.mark.parallel

# N is 10000 and the number of the line on which the key stands, K a name that no other key has.
VALUES = [
    "N",
    '"N # no comment, [no table], \\"no = end\\\\"',
    "'N \" \\'",
    '"""\nN\nkey = 1\n[table]\n""\\"""" # a comment with \'\'\' and """',
    '"""N \\\\"""""',
    '"""N""""',
    "'''N''''",
    "'''N\n''\"\"\"\n[[tables]]\nkey = 2\\'''''",
    "[N, # ]]] '\n  N,\n\n  [ '''N]\n''', \"[N\" ] ]",
    '{ a = N, "b}" = [ N, { c = "}N" } ], d.e = """\nN""" }',
    "[]",
    "{}",
]
KEYS = ["K", '"K \\u00e9 # ] . ="', "'K \" [ ='", 'K . "x.y" . z', 'K."\\"".\'\\\'', '"K\\\\"']
HEADERS = ["[K]", '[ K . "]" ]', "[K.'a.b'.c]", "[[K]]", "[[array]]", "[[array]]"]
WITHIN_ARRAY = ["[array.K]", '[[array."sub]"]]', '[array."sub]".K]']
BLANKS = ["", "  \t", "# key = 1", "\t# [table] \"\"\" '''"]


@st.composite
def documents(draw: st.DrawFn) -> str:
    """In each value that a document has there is the number of its key's line."""
    text = ""
    for number in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["blank", "header", "key", "key"]))
        if kind == "blank":
            statement = draw(st.sampled_from(BLANKS))
        elif kind == "header":
            last_array = text.rpartition("[[array]]")
            within = WITHIN_ARRAY[: 3 if '[[array."sub]"]]' in last_array[2] else 2] if last_array[1] else []
            statement = draw(st.sampled_from(HEADERS + within))
        else:
            statement = f"{draw(st.sampled_from(KEYS))} = {draw(st.sampled_from(VALUES))}"
        line = text.count("\n") + 1
        statement = statement.replace("K", f"k{number}k").replace("N", str(10_000 + line))
        text += statement + draw(st.sampled_from(["\n", "\r\n", " # end\n"]))
    return text.rstrip("\r\n") if draw(st.booleans()) else text


def leaves(value: Any, keys: toml.Keys = ()) -> Iterator[tuple[toml.Keys, int]]:
    """Where numbers of lines are, in strings too, and which."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*keys, key))
    else:
        found = re.search(r"\d{5}", str(value))
        assert found
        yield keys, int(found[0]) - 10_000


@given(documents())
def test_every_value_is_found_on_its_line(text: str) -> None:
    lines = toml.lines(text)
    for keys, line in leaves(toml.loads(text)):
        # In `{}` and `[]`, the key that has them.
        while keys and keys not in lines:
            keys = keys[:-1]
        assert lines.get(keys) == line, (keys, text)


@pytest.mark.parametrize(
    ("text", "keys", "line"),
    [
        ("a = 1\nb = 2\n", ("b",), 2),
        ("[t]\nb = 1\n[u]\nb = 2\n", ("u", "b"), 4),
        ("\n[a.b]\nc = 1\n", ("a",), 2),
        ("[a]\n[a.b]\n", ("a", "b"), 2),
        ("a.b = 1\na.c = 2\n", ("a", "c"), 2),
        ("a.b = 1\na.c = 2\n", ("a",), 1),
        ("'a.b'.c = 1\n", ("a.b", "c"), 1),
        ('\n"\\u0061" = 1\n', ("a",), 2),
        ("[[a]]\nb = 1\n[[a]]\n\nb = 1\n", ("a", 1, "b"), 5),
        ("[[a]]\n[[a.b]]\n[[a]]\n[[a.b]]\nc = 1\n", ("a", 1, "b", 0, "c"), 5),
        ("[[a]]\n[a.t]\nb = 1\n[[a]]\n[a.t]\nb = 1\n", ("a", 1, "t", "b"), 6),
        ("a = [\n  1,\n]\nb = 1", ("b",), 4),
        ('a = """\nb = 1\n"""\nb = 1', ("b",), 4),
    ],
)
def test_lines_of_keys_and_tables(text: str, keys: toml.Keys, line: int) -> None:
    toml.loads(text)
    assert toml.lines(text)[keys] == line


def test_syntax_of_a_later_toml_costs_lines_only() -> None:
    assert toml.lines("a = 1\n€ = 2\nb = 3\n") == {("a",): 1}


def test_the_last_line_of_a_long_file_is_found() -> None:
    text = "".join(f'key{number} = """a long value""" # and a comment\n' for number in range(20_000))
    assert toml.lines(text)[("key19999",)] == 20_000


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES_OF_JSON = st.recursive(
    st.booleans()
    | TEXTS
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


@given(VALUES_OF_JSON, TEXTS)
def test_values_are_written_as_toml_that_has_them_in_one_line(value: Any, key: str) -> None:
    text = f"{toml.written_key(key)} = {toml.written(value)}"
    assert toml.loads(text) == {key: value}
    assert text.isprintable()
