"""Results that need no Python: the same answer as Python's, byte for byte, or they are left to it."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_wasm._answers import answer
from sentinel_wasm.errors import ResultError
from sentinel_wasm.guest.abi import ON_REQUEST_HEADERS, parse_result
from sentinel_wasm.protocol import answers

pytestmark = pytest.mark.parallel

EXAMPLES = 2_000
MUTATIONS = 50_000

plain = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12)
anything = st.one_of(plain, st.text(max_size=6), st.sampled_from(['a"b', "a\\b", "a\nb", "a/b", "\x7f", ""]))
token = st.text(st.sampled_from("aZ09-_.!~"), min_size=1, max_size=6)
name = st.one_of(token, token, st.sampled_from(["", "a b", "X-A", "x-a", "é"]))
headers = st.dictionaries(name, st.one_of(plain, plain, anything, st.lists(plain, max_size=2)), max_size=3)
confidence = st.one_of(st.integers(0, 9999).map(lambda n: n / 10_000), st.floats(-1, 2), st.integers(0, 1))


def or_null(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, values, values, st.none())


DECISION = st.sampled_from(["allow", "allow", "block", "deny", "Block", "redirect", "challenge", None])
OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "status": or_null(st.one_of(st.integers(90, 610), st.sampled_from([403, 429, 302, 40.5]))),
    "body": or_null(anything),
    "add_request_headers": or_null(headers),
    "add_response_headers": or_null(headers),
    "remove_request_headers": or_null(st.lists(name, max_size=2)),
    "remove_response_headers": or_null(st.lists(name, max_size=2)),
    "append_request_headers": or_null(headers),
    "tags": or_null(st.lists(anything, max_size=3)),
    "rule_ids": or_null(st.lists(anything, max_size=2)),
    "reason_codes": or_null(st.lists(anything, max_size=2)),
    "confidence": or_null(confidence),
    "routing_metadata": or_null(st.dictionaries(anything, st.one_of(anything, st.integers()), max_size=2)),
    "needs_more": or_null(st.booleans()),
    "challenge_type": or_null(plain),
    "request_body_mutation": st.none(),
    "unknown": st.one_of(anything, st.integers(), st.none(), st.lists(st.booleans(), max_size=2)),
}
SEPARATORS = [(",", ":"), (", ", ": "), (" ,\n", "\t: ")]


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A result as some module's JSON library might write it: with white space, members in any order."""
    names = draw(
        st.permutations(["decision", *draw(st.lists(st.sampled_from(list(OTHERS)), max_size=4, unique=True))])
    )
    members = {name: draw(DECISION if name == "decision" else OTHERS[name]) for name in names}
    text = json.dumps(members, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from(SEPARATORS)))
    return text.encode()


def specified(result: bytes, version: int, correlation_id: str | None) -> bytes | None:
    """What Python makes of it; None where that is an error."""
    try:
        made = answers.encode(parse_result(result, ON_REQUEST_HEADERS), version)
    except ResultError:
        return None
    return made if correlation_id is None else answers.with_correlation_id(made, correlation_id)


def compare(result: bytes) -> str:
    """What the two make of a result."""
    taken = answer(result, 1)
    expected = specified(result, 1, None)
    if taken is None:
        return "refused" if expected is None else "left to Python"
    assert taken == expected, result
    assert answer(result, 2, "id-1") == specified(result, 2, "id-1"), result
    return "taken"


def test_generated_results_agree(capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()

    @given(written())
    @settings(max_examples=EXAMPLES)
    def agrees(result: bytes) -> None:
        counts[compare(result)] += 1

    agrees()
    with capsys.disabled():
        print(f"\n{counts.total():,} generated results: {dict(counts)}")
    assert min(counts.values()) > EXAMPLES // 20
    assert len(counts) == 3


REAL = [
    b'{"decision":"allow","add_request_headers":{"X-Wasm-Processed":"true"},"tags":["processed"]}',
    b'{"decision": "block", "status": 403, "body": "No {[\\"entry\\"]}", "tags": [ "a" , "b\\n" ]}',
    b'{"tags":[],"decision":"deny","status":null,"remove_response_headers":["Server","X-Powered-By"],'
    b'"add_response_headers":{"X-A":"1","X-B":"2"},"confidence":0.95,"needs_more":true,"reason_codes":["r"]}',
    b'{"decision":"allow","routing_metadata":{"pool":"a","zone":"b"},"rule_ids":["942100"],"body":null}',
]
PIECES = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b" ",
    b"null",
    b"0",
    b"\x00",
    b"\xc3\xa9",
    b'"tags"',
]


def test_changed_results_agree(capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes replaced, removed, doubled and put in anywhere, one to three times."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    for _ in range(MUTATIONS):
        result = chance.choice(REAL)
        for _ in range(chance.randint(1, 3)):
            at, to = sorted(chance.choices(range(len(result) + 1), k=2))
            to = min(to, at + chance.choice([0, 1, 1, 8]))
            piece = chance.choice([b"", chance.choice(PIECES), result[at:to] * 2, result[:8]])
            result = result[:at] + piece + result[to:]
        counts[compare(result)] += 1
    with capsys.disabled():
        print(f"\n{MUTATIONS:,} changed results, seed {seed}: {dict(counts)}")
    assert counts["taken"] > MUTATIONS // 20
    assert counts["refused"] > MUTATIONS // 5


@pytest.mark.parametrize("result", REAL)
def test_usual_results_need_no_python(result: bytes) -> None:
    assert compare(result) == "taken"


def test_every_short_confidence_is_written_as_python_writes_it() -> None:
    taken = 0
    for number in range(10_000):
        for digits in {f"{number:04}", f"{number}"}:
            taken += compare(b'{"decision":"allow","confidence":0.%s}' % digits.encode()) == "taken"
    assert taken == 9_000 + 900


@pytest.mark.parametrize(
    "result",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"decision":"allow"',
        b'{"decision":"allow"} x',
        b'{"decision":"allow",}',
        b'{"decision":"ALLOW"}',
        b'{"decision":"allow","decision":"block"}',
        b'{"decision":"allow","tags":["a"],"tags":null}',
        b'{"decision":"allow","tags":["a",]}',
        b'{"decision":"allow","tags":["\\u0041"]}',
        b'{"decision":"allow","tags":["\xc3\xa9"]}',
        b'{"decision":"allow","add_request_headers":{"a":"1","a":"2"}}',
        b'{"decision":"allow","add_request_headers":{"a":"1\\n2"}}',
        b'{"decision":"allow","add_request_headers":{"a b":"1"}}',
        b'{"decision":"allow","add_request_headers":{"":"1"}}',
        b'{"decision":"allow","add_request_headers":{"a":["1"]}}',
        b'{"decision":"allow","remove_request_headers":[""]}',
        b'{"decision":"allow","append_request_headers":{"a":"1"}}',
        b'{"decision":"block","status":600}',
        b'{"decision":"block","status":0403}',
        b'{"decision":"allow","confidence":0.50}',
        b'{"decision":"allow","confidence":1.5}',
        b'{"decision":"allow","routing_metadata":{"a":1}}',
        b'{"decision":"redirect","body":"https://example.com/"}',
        b'{"decision":"challenge","challenge_type":"js"}',
        b'{"decision":"allow","request_body_mutation":{"action":"drop"}}',
        b'{"decision":"allow","unknown":{"nested":1}}',
    ],
)
def test_what_is_not_surely_understood_is_left_to_python(result: bytes) -> None:
    assert answer(result, 1) is None


def test_an_object_of_more_names_than_it_has_room_for_is_left_to_python() -> None:
    def result(count: int) -> bytes:
        return json.dumps(
            {"decision": "allow", "add_request_headers": {f"x-{n}": "v" for n in range(count)}}
        ).encode()

    assert compare(result(64)) == "taken"
    assert compare(result(65)) == "left to Python"


def test_more_removals_than_it_has_room_for_are_left_to_python() -> None:
    def result(count: int) -> bytes:
        return json.dumps({"decision": "allow", "remove_request_headers": ["a"] * count}).encode()

    assert compare(result(256)) == "taken"
    assert compare(result(257)) == "left to Python"
    assert compare(result(1025)) == "refused"


@pytest.mark.parametrize("shape", ["names", "removed", "tags", "body"])
def test_the_longest_results_fit(shape: str) -> None:
    """Those whose answers are the longest for what they are; the sanitizers see a byte too many."""
    room = 8192 - 60
    values: dict[str, Any] = {
        "names": {"add_request_headers": {chr(97 + n): "" for n in range(26)}, "body": "x" * (room - 300)},
        "removed": {"remove_request_headers": ["a"] * 256, "body": "x" * (room - 1100)},
        "tags": {"tags": ["" for _ in range(room // 3 - 10)]},
        "body": {"body": "x" * (room - 40)},
    }
    result = json.dumps({"decision": "block", **values[shape]}, separators=(",", ":")).encode()
    assert 8000 < len(result) <= 8192
    assert compare(result) == "taken"


def test_a_long_result_is_left_to_python() -> None:
    result = json.dumps({"decision": "block", "body": "x" * 9000}).encode()
    assert compare(result) == "left to Python"
