"""Each step of one event, and the whole of it in process: `make bench`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import work
from sentinel_wasm._answers import answer
from sentinel_wasm._fastpath import FrameBuffer, Normaliser
from sentinel_wasm.agent import Agent
from sentinel_wasm.bench import reference
from sentinel_wasm.chain import Chain
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.inputs import InputWriter
from sentinel_wasm.protocol import answers, events
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.protocol.frames import encode_v1
from sentinel_wasm.settings import Address, Linked, Settings

FRAMES_A_READ = 16


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent(Settings(module=Path("trivial.wasm")), work.trivial_module())


@pytest.mark.benchmark(group="frame")
def test_cut_16_frames_of_one_read(benchmark: BenchmarkFixture) -> None:
    read = encode_v1(work.frame_v1(12)) * FRAMES_A_READ
    buffer = FrameBuffer()

    def cut() -> None:
        with memoryview(buffer) as room:
            room[: len(read)] = read
        buffer.received(len(read))
        while buffer.next_frame() is not None:
            pass

    benchmark(cut)


@pytest.mark.benchmark(group="normalise")
@pytest.mark.parametrize("headers", work.SIZES)
def test_normalise(benchmark: BenchmarkFixture, headers: int) -> None:
    assert benchmark(Normaliser("canonical", False).event, 0x10, work.frame_v2(headers)) is not None


@pytest.mark.benchmark(group="normalise")
@pytest.mark.parametrize("headers", work.SIZES)
def test_normalise_in_python(benchmark: BenchmarkFixture, headers: int) -> None:
    frame = work.frame_v2(headers)
    benchmark(normalise_in_python, InputWriter("canonical", "joined"), frame)


def normalise_in_python(writer: InputWriter, frame: bytes) -> bytes:
    return writer.event(events.parse(EventKind.REQUEST_HEADERS, orjson.loads(frame)))


@pytest.mark.benchmark(group="guest call")
def test_guest_call(benchmark: BenchmarkFixture) -> None:
    guest = work.trivial_instance().guest
    call = (abi.ON_REQUEST_HEADERS, work.frame_v2(12), work.FAR_NS, work.FAR_NS)
    assert benchmark(guest.call, *call) == reference.RESULT


@pytest.mark.benchmark(group="guest call")
def test_guest_call_through_wasmtime_py(benchmark: BenchmarkFixture) -> None:
    assert benchmark(work.wasmtime_py_call(work.frame_v2(12))) == reference.RESULT


@pytest.mark.benchmark(group="map")
def test_map_a_fresh_result(benchmark: BenchmarkFixture) -> None:
    assert benchmark(answer, reference.RESULT, 2, work.CORRELATION_ID) is not None


@pytest.mark.benchmark(group="map")
def test_map_a_fresh_result_in_python(benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: answers.encode(abi.parse_result(reference.RESULT, abi.ON_REQUEST_HEADERS), 2))


@pytest.mark.benchmark(group="whole event")
def test_v1_event(benchmark: BenchmarkFixture, agent: Agent) -> None:
    assert benchmark(agent.quick.answer_frame, 0, work.frame_v1(12), work.FAR_NS) is not None


@pytest.mark.benchmark(group="whole event")
def test_v2_event(benchmark: BenchmarkFixture, agent: Agent) -> None:
    assert benchmark(agent.quick.answer_frame, 0x10, work.frame_v2(12), work.FAR_NS) is not None


@pytest.mark.benchmark(group="whole event")
def test_v2_event_with_admin(benchmark: BenchmarkFixture) -> None:
    """The same, kept for the page of --admin."""
    settings = Settings(module=Path("trivial.wasm"), admin=Address("127.0.0.1", 0))
    agent = Agent(settings, work.trivial_module())
    assert benchmark(agent.quick.answer_frame, 0x10, work.frame_v2(12), work.FAR_NS) is not None


@pytest.mark.benchmark(group="whole event")
@pytest.mark.parametrize("modules", [2, 3])
def test_v2_event_of_a_chain(benchmark: BenchmarkFixture, modules: int) -> None:
    """Each changes a header, which the next one sees."""
    base = Settings(module=Path("trivial.wasm"))
    chain = tuple(Linked(f"m{number}", base) for number in range(modules))
    agent = Chain(replace(base, chain=chain), [work.trivial_module() for _ in chain])
    benchmark(lambda: agent.answer_v2(0x10, work.frame_v2(12), time.monotonic_ns(), work.no_reply))


@pytest.mark.benchmark(group="whole event")
@pytest.mark.parametrize("hook", ["on_response_body", "on_request_headers"])
def test_v2_body_chunk(benchmark: BenchmarkFixture, hook: str) -> None:
    """It passes, for the module or because there is no hook for it."""
    agent = Agent(Settings(module=Path("trivial.wasm")), work.trivial_module(hook))
    assert benchmark(agent.quick.answer_frame, 0x13, work.chunk_v2(200), work.FAR_NS) is not None


@pytest.mark.benchmark(group="whole event")
def test_v2_event_in_python(benchmark: BenchmarkFixture, agent: Agent) -> None:
    benchmark(agent.answer_v2, 0x10, work.frame_v2(12), work.FAR_NS, work.no_reply)
