"""Every kind of bad result is answered by the fail-open rule, and the instance goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..conftest import agents as started_agents
from ..guest.wat import binary
from . import agents, results
from .agents import ATTEMPTS, MARGIN_MS, TIMEOUT_MS, Watched

pytestmark = pytest.mark.parallel


@pytest.fixture(scope="module", params=[False, True], ids=["block", "fail-open"])
def speaker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One agent for all results: none of them may cost the others anything."""
    module = tmp_path_factory.mktemp("speaker") / "speaker.wasm"
    module.write_bytes(binary(results.speaker()))
    with started_agents(tmp_path_factory) as start_agent:
        fail_open: bool = request.param
        watched = Watched(agents.start(start_agent, module, fail_open=fail_open), fail_open=fail_open)
        yield watched
        watched.wait_for_failure_lines("result of", len(watched.faulty_ids))
        watched.stop()


@pytest.mark.parametrize("name", results.BAD)
def test_bad_result_is_a_failure_that_says_why(speaker: Watched, name: str) -> None:
    raw, reason = results.BAD[name]
    speaker.calls = None
    late = []
    with speaker.agent.v2() as one, speaker.agent.v2() as other:
        for _ in range(ATTEMPTS):
            speaker.good(one)
            answer, took_ms = speaker.faulty_uri(one, results.uri_of(raw))
            agents.check_failure(answer, reason, fail_open=speaker.fail_open)
            speaker.good(other)
            speaker.good(one)
            if took_ms < TIMEOUT_MS + MARGIN_MS:
                break
            late.append(took_ms)
    assert len(late) < ATTEMPTS, late
    with speaker.agent.v1() as old:
        speaker.good(old)


@pytest.mark.parametrize("name", results.ODD)
def test_odd_result_is_taken(speaker: Watched, name: str) -> None:
    raw, decision = results.ODD[name]
    speaker.calls = None
    with speaker.agent.v2() as client:
        answer, _ = speaker.faulty_uri(client, results.uri_of(raw))
        speaker.faulty_ids.pop()
        assert (answer["decision"], answer["audit"]["tags"]) == (decision, [])
        speaker.good(client)
