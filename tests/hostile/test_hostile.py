"""The worst module costs its own requests an error answer in time, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sentinel_wasm.client import ClientV1, ClientV2

from ..conftest import BuildWat, StartAgent
from . import agents, hogs, hostcalls, places, pointers
from .agents import ATTEMPTS, MARGIN_MS, TIMEOUT_MS, Watched
from .case import Runs, names

pytestmark = pytest.mark.parallel

RUNS = [*places.RUNS, *pointers.RUNS, *hogs.RUNS, *hostcalls.RUNS]


@pytest.mark.parametrize("case", RUNS, ids=names(RUNS))
def test_faulty_module_costs_its_own_events_only(
    start_agent: StartAgent, build_wat: BuildWat, case: Runs
) -> None:
    """In both fail modes, each with an agent of its own, at the same time."""
    module = build_wat(case.text)
    with ThreadPoolExecutor(2) as both:
        for _ in both.map(lambda fail_open: suffer(start_agent, module, case, fail_open), (False, True)):
            pass


# The modes of running other than the default, with one case of each kind.
OTHER_MODES = {
    "on threads": ("--dispatch", "threads"),
    "isolated": ("--isolation", "request"),
    "isolated on threads": ("--dispatch", "threads", "--isolation", "request"),
}
CHOSEN = (
    "unreachable in the hook",
    "unreachable in on_response_body",
    "load outside in alloc",
    "unreachable in dealloc of the input",
    "unreachable in on_configure, later",
    "the hook never works",
    "the result is past the end",
    "grows to the limit, then traps",
    "exits with 0",
)


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("mode", OTHER_MODES)
def test_faulty_module_costs_its_own_events_only_in_each_mode(
    start_agent: StartAgent, build_wat: BuildWat, mode: str, name: str
) -> None:
    (case,) = (case for case in RUNS if case.name == name)
    case = replace(case, options=(*case.options, *OTHER_MODES[mode]))
    suffer(start_agent, build_wat(case.text), case, fail_open=False)


def suffer(start_agent: StartAgent, module: Path, case: Runs, fail_open: bool) -> None:
    agent = agents.start(start_agent, module, fail_open=fail_open, options=case.options)
    watched = Watched(agent, fail_open=fail_open, isolated="request" in case.options)
    with agent.v2() as one, agent.v2() as other:
        suffer_and_recover(watched, case, one, other)
    with agent.v2() as fresh:
        still_healthy(watched, case, fresh)
    if case.v1:
        with agent.v1() as old:
            suffer_v1(watched, case, old)
    if pattern := case.lost or case.reason:
        watched.wait_for_failure_lines(pattern, len(watched.faulty_ids))
    watched.stop()


def suffer_and_recover(watched: Watched, case: Runs, one: ClientV2, other: ClientV2) -> None:
    """Faulty events until one is answered in time: more than one only on a machine that is busy."""
    late = []
    for _ in range(ATTEMPTS):
        if case.recovers:
            watched.good(one)
        answer, took_ms = watched.faulty(one, case)
        watched.check_faulty(case, answer)
        # A dealloc has a part of the time only: the result is there.
        if case.times_out and case.lost is None:
            assert took_ms >= TIMEOUT_MS - 2  # an arrival is known to the millisecond
        still_healthy(watched, case, other)
        still_healthy(watched, case, one)
        if took_ms < limit_ms(case):
            return
        late.append(took_ms)
    raise AssertionError(f"answered late each time, in ms: {late}")


def limit_ms(case: Runs) -> float:
    """`--timeout-ms` as the agent has it, and a margin."""
    asked = case.options[case.options.index("--timeout-ms") + 1] if "--timeout-ms" in case.options else None
    return float(asked or TIMEOUT_MS) + MARGIN_MS


def still_healthy(watched: Watched, case: Runs, client: ClientV2) -> None:
    agents.check_answers_at_all(client)
    if case.recovers:
        watched.good(client)


def suffer_v1(watched: Watched, case: Runs, old: ClientV1) -> None:
    answer, _ = watched.faulty(old, case)
    watched.check_faulty(case, answer)
    agents.check_answers_at_all_v1(old)
    if case.recovers:
        watched.good(old)
