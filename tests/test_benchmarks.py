"""The side-by-side runner measures, and what it writes can be read; histograms and plots are right."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import wasmtime

from benchmarks import work
from benchmarks.servers import Server, floor
from benchmarks.tools import Generator, Shape, ToolError, build
from sentinel_wasm.bench import reference, svg
from sentinel_wasm.bench.histogram import Histogram
from sentinel_wasm.client import request_headers
from sentinel_wasm.protocol.events import EventKind

from .conftest import ROOT, BuildWat, StartAgent
from .pretending import HELLO, AgentThat, Answer, v1, v2

SHAPES = [(1, 1, 1), (1, 8, 1), (1, 32, 1), (2, 4, 1), (2, 4, 16)]
ELSEWHERE = re.compile(r"<(script|link|iframe|img|object)|\b(src|href)=|@import|url\(", re.IGNORECASE)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a short run printed and where it wrote."""
    out = tmp_path_factory.mktemp("out") / "new"
    options = ["--rounds", "1", "--seconds", "0.4", "--module", "trivial", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.side_by_side", *options],
        cwd=ROOT,
        env={**os.environ, "PEER_V1_BIN": "/no/such/agent", "PEER_V2_BIN": "/no/such/agent"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "without the Rust v1 agent: there is no /no/such/agent" in done.stderr
    assert "without the Rust v2 agent: there is no /no/such/agent" in done.stderr
    return done.stdout, out


def test_side_by_side_measures_the_floor_and_ours(measured: tuple[str, Path]) -> None:
    results = json.loads((measured[1] / "results.json").read_bytes())
    found = {(row["protocol"], row["connections"], row["depth"], row["server"]) for row in results["rows"]}
    assert found == {(*shape, server) for shape in SHAPES for server in ("floor", "ours")}
    for row in results["rows"]:
        figures = row["median"]
        assert row["rounds"] == [figures]
        assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["max_us"]
        assert figures["events_s"] > 0
        # v1 has one event in flight on a connection: the whole is what each can do.
        in_flight = row["connections"] * row["depth"]
        assert figures["events_s"] <= in_flight * 1e9 / row["histogram_ns"][0][0]
    assert [ratio["to"] for ratio in results["ratios"]] == ["floor"] * len(SHAPES)
    assert {one["server"] for one in results["footprints"]} == {"floor", "ours"}
    assert all(one["first_answer_s"] > 0 and one["rss_mib"] > 0 for one in results["footprints"])
    assert results["machine"]["cores"] >= 1


def test_side_by_side_says_what_it_measured_on_which_machine(measured: tuple[str, Path]) -> None:
    text, out = measured
    machine = json.loads((out / "results.json").read_bytes())["machine"]
    for report in (text, (out / "index.html").read_text()):
        for fact in ("cpu", "kernel", "python", "wasmtime"):
            assert machine[fact] in report
        assert "ours / floor" in report


def test_the_page_needs_no_other_file(measured: tuple[str, Path]) -> None:
    page = (measured[1] / "index.html").read_text()
    assert page.count("<svg") == 3
    assert not ELSEWHERE.search(page)


def test_the_plots_are_svg(measured: tuple[str, Path]) -> None:
    names = ("trivial-cpu.svg", "trivial-latency.svg", "trivial-throughput.svg")
    assert sorted(path.name for path in measured[1].glob("*.svg")) == sorted(names)
    for name in names:
        text = (measured[1] / name).read_text()
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert not ELSEWHERE.search(text)
        assert all(title in text for title in ("floor (C, no guest)", "sentinel-wasm"))


@pytest.mark.parametrize("count", work.SIZES)
def test_events_have_as_many_headers_as_they_are_said_to(count: int) -> None:
    assert len(work.headers(count)) == count


def test_no_two_results_of_the_distinct_module_are_the_same(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    with start_agent(build_wat(work.DISTINCT)).v2() as client:
        for name in ("one", "another", "0123456789"):
            answer = client.ask(EventKind.REQUEST_HEADERS, request_headers(name))
            assert answer["decision"] == "allow"
            assert answer["audit"]["tags"] == [name]


# ---- The load generator ----


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("t")


@pytest.fixture(scope="module")
def generator(tools: Path) -> Generator:
    return Generator(tools, 12)


@pytest.mark.parametrize("shape", [Shape(1, 3), Shape(2, 2, 5), Shape(2, 1, 64)], ids=str)
def test_the_generator_counts_what_its_histogram_holds(
    generator: Generator, tools: Path, shape: Shape
) -> None:
    server = Server(floor(build("floor", tools)), Path("none.wasm"), tools)
    try:
        load = generator.run(server.socket, shape, 0.05, 0.3)
    finally:
        server.stop()
    counted = load.histogram.total
    assert counted == pytest.approx(load.events_s * load.seconds, abs=1)
    assert counted < load.answered
    assert load.histogram.quantile_ns(0.5) == pytest.approx(load.p50_us * 1000, rel=1e-3)
    assert load.histogram.quantile_ns(0.99) == pytest.approx(load.p99_us * 1000, rel=1e-3)


ALLOW = b'{"decision":"allow"'


@pytest.mark.parametrize(
    ("protocol", "answer", "why"),
    [
        (1, lambda data: v1(b'{"decision":{"block":{"status":500}}}'), "does not allow"),
        (1, lambda data: v1(ALLOW + b"}") * 2, "an answer to nothing"),
        (1, lambda data: b"\xff" * 8, "sent a frame of 4294967295 bytes"),
        (1, lambda data: b"\x00" * 8, "sent a frame of 0 bytes"),
        (2, lambda data: v2(2, b'{"success":false,"error":"why"}'), "handshake was refused"),
        (2, lambda data: HELLO if data[4] == 1 else v2(0x20, ALLOW + b"}"), "without a correlation id"),
        (
            2,
            lambda data: HELLO if data[4] == 1 else v2(0x20, ALLOW + b',"correlation_id":"00000000009"}'),
            "an answer to nothing that is in flight",
        ),
        (2, lambda data: HELLO if data[4] == 1 else v2(0x41, b"{}"), "a frame of type 0x41"),
    ],
)
def test_the_generator_refuses_wrong_answers(
    protocol: int, answer: Answer, why: str, generator: Generator, agent_that: AgentThat
) -> None:
    with pytest.raises(ToolError, match=why):
        generator.run(agent_that(answer), Shape(protocol, 1), 0, 5)


def test_the_generator_says_where_nobody_listens(generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"cannot connect to .*/none: No such file"):
        generator.run(tmp_path / "none", Shape(1, 1), 0, 1)


def test_a_server_that_does_not_start_is_named(tools: Path) -> None:
    deep = tools / ("d" * 100)
    deep.mkdir()
    with pytest.raises(ToolError, match=r"floor \(C, no guest\) ended with 2: the socket's path is longer"):
        Server(floor(build("floor", tools)), Path("none.wasm"), deep)


# ---- Histograms and plots ----

TENS = Histogram(((0, 10, 10), (10, 20, 80), (100, 200, 10)))


@pytest.mark.parametrize(
    ("share", "ns"), [(0, 0), (0.05, 5), (0.1, 10), (0.5, 15), (0.9, 20), (0.95, 150), (1, 200)]
)
def test_quantiles_are_interpolated_in_their_bucket(share: float, ns: float) -> None:
    assert TENS.quantile_ns(share) == pytest.approx(ns)


def test_merged_histograms_hold_all() -> None:
    other = Histogram(((10, 20, 1), (50, 60, 2)))
    assert Histogram.merged([TENS, other]).buckets == ((0, 10, 10), (10, 20, 81), (50, 60, 2), (100, 200, 10))
    assert Histogram.merged([]).total == 0


def test_nothing_has_no_quantiles() -> None:
    with pytest.raises(ValueError, match="nothing"):
        Histogram(()).quantile_ns(0.5)


def test_a_curve_rises_to_where_ten_times_are_left() -> None:
    points = svg.curve(Histogram(((1000, 2000, 900), (5000, 6000, 90), (9000, 9100, 10))))
    assert points == sorted(points)
    across = [at for at, _ in points]
    assert across[0] == 0
    assert across[-1] == pytest.approx(2)
    assert points[0][1] == 1
    assert points[-1][1] == pytest.approx(6)


@pytest.mark.parametrize(
    ("most", "ticks"),
    [(0, [0, 1]), (5, [0, 1, 2, 3, 4, 5]), (32, [0, 10, 20, 30, 40]), (0.9, [0, 0.2, 0.4, 0.6, 0.8, 1])],
)
def test_ticks_are_round_and_reach_the_most(most: float, ticks: list[float]) -> None:
    assert svg.even_steps(most) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.50"), (17.44, "17.4"), (172, "172"), (1234, "1.23k"), (324_000, "324k"), (1_150_000, "1.15M")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert svg.short(value) == text


def test_bars_are_as_high_as_their_values() -> None:
    groups = (svg.Group("<1>", {"floor": 10, "ours": 5}), svg.Group("8", {"ours": 2.5}))
    drawn = svg.bars(
        "A & B", "µs", [svg.BarPanel("v1", "connections", groups)], {"floor": "floor", "ours": "us"}
    )
    tree = ElementTree.fromstring(drawn)
    filled = [bar for bar in tree.iterfind("{*}rect") if bar.get("class", "").startswith("bar")]
    high, half, quarter = (float(bar.get("height", "")) for bar in filled[2:])  # behind the legend's
    assert half == pytest.approx(high / 2, abs=0.1)
    assert quarter == pytest.approx(high / 4, abs=0.1)


def test_the_modules_are_wasm() -> None:
    for text in (reference.TRIVIAL, work.DISTINCT):
        assert bytes(wasmtime.wat2wasm(text)).startswith(b"\0asm")
