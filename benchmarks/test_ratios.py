"""Ratios that hold on any machine, each from one run: the fast path against what it replaces."""

from __future__ import annotations

import timeit
from collections.abc import Callable

import pytest

from benchmarks import work
from benchmarks.test_fixed_work import normalise_in_python
from sentinel_wasm._fastpath import Normaliser
from sentinel_wasm.bench import reference
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.inputs import InputWriter

Work = tuple[Callable[[], object], int]
"""What to measure, and how often in a row."""

ROUNDS = 60
TRIES = 5


def best_in_turn_us(one: Work, other: Work) -> tuple[float, float]:
    """The best of each, measured in turn: a machine's bad moments last longer than a round."""
    rounds = [(each_us(one), each_us(other)) for _ in range(ROUNDS)]
    return min(first for first, _ in rounds), min(second for _, second in rounds)


def each_us(work: Work) -> float:
    function, times = work
    return timeit.timeit(function, number=times) / times * 1e6


def say(capsys: pytest.CaptureFixture[str], what: str, fast: float, slow: float) -> None:
    with capsys.disabled():
        print(f"\n{what}: {fast:.2f} µs against {slow:.2f} µs, {slow / fast:.1f} times")


def test_a_guest_call_is_300_times_as_fast_as_through_wasmtime_py(capsys: pytest.CaptureFixture[str]) -> None:
    data = work.frame_v2(12)
    guest = work.trivial_instance().guest
    call = (abi.ON_REQUEST_HEADERS, data, work.FAR_NS, work.FAR_NS)
    through_wasmtime_py = work.wasmtime_py_call(data)
    assert guest.call(*call) == through_wasmtime_py() == reference.RESULT
    fast, slow = best_in_turn_us((lambda: guest.call(*call), 5000), (through_wasmtime_py, 30))
    say(capsys, "guest call", fast, slow)
    assert slow / fast >= 300


@pytest.mark.parametrize("headers", work.SIZES)
def test_normalising_is_4_times_as_fast_as_in_python(
    headers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = work.frame_v2(headers)
    writer = InputWriter("canonical", "joined")
    normaliser = Normaliser("canonical", False)
    found = normaliser.event(0x10, frame)
    assert found is not None
    assert found[3] == normalise_in_python(writer, frame)
    fast, slow = best_in_turn_us(
        (lambda: normaliser.event(0x10, frame), 2000), (lambda: normalise_in_python(writer, frame), 300)
    )
    say(capsys, f"normalise {headers} headers", fast, slow)
    assert slow / fast >= 4


BODY_MS = 3.0


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_a_body_chunk_of_1_mib_costs_at_most_3_ms(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside what the module itself takes for it; more where libraries alone take more."""
    whole, guest = work.large_body(kind)
    in_libraries = work.large_body_in_libraries()
    for _ in range(TRIES):
        whole_us, guest_us = best_in_turn_us((whole, 3), (guest, 3))
        _, libraries_us = best_in_turn_us((guest, 1), (in_libraries, 3))
        cost_ms, libraries_ms = (whole_us - guest_us) / 1000, libraries_us / 1000
        with capsys.disabled():
            print(
                f"\n1 MiB of {kind}: {cost_ms:.2f} ms beside the guest's {guest_us / 1000:.2f},"
                f" {libraries_ms:.2f} in libraries"
            )
        if cost_ms <= max(BODY_MS, libraries_ms):
            return
    pytest.fail(f"over {BODY_MS} ms, {TRIES} times")


# What a request of three events may cost more with an instance of its own than with a shared one, in µs; and
# on machines that are slower, in shares of what it takes where Python answers it.
ISOLATION = {"c": (8, 0.9), "rust": (60, 2.3)}


@pytest.mark.parametrize("language", ISOLATION)
def test_isolation_of_requests_costs_little(language: str, capsys: pytest.CaptureFixture[str]) -> None:
    most_us, most_share = ISOLATION[language]
    pooled, isolated = (work.whole_request(language, isolation) for isolation in ("pooled", "request"))
    python = work.whole_request(language, "pooled", quickly=False)
    for _ in range(TRIES):
        shared, own = best_in_turn_us((pooled, 300), (isolated, 300))
        yardstick, _ = best_in_turn_us((python, 100), (pooled, 100))
        more = own - shared
        with capsys.disabled():
            print(
                f"\n{language}: a request {shared:.2f} µs pooled, {own:.2f} isolated, {more:.2f} more,"
                f" {more / yardstick:.2f} of the {yardstick:.2f} in Python"
            )
        if more <= most_us or more / yardstick <= most_share:
            return
    pytest.fail(f"over {most_us} µs and {most_share} of a request in Python, {TRIES} times")
