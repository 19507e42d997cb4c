"""Where atheris has no wheel: hypothesis bends the seeds, blind to coverage, until the time is over."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.mutations import changed_bytes

from .targets import Target, kept

_ROUND = 500


def instrumented() -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def fuzz(target: Target, name: str, seconds: int, corpus: Path, findings: Path) -> None:
    """Raises what the target raises, after its smallest input was written to `findings`."""
    begun = [*target.seeds(), *(path.read_bytes() for path in kept(name))]
    bent = st.builds(_bent, st.just(target), st.sampled_from(begun), st.integers(0, 2**32), st.integers(1, 6))
    inputs = st.one_of(st.binary(max_size=400), bent)
    last = b""
    runs = 0

    def run(data: bytes) -> None:
        nonlocal last, runs
        last, runs = data, runs + 1
        target.run(data)

    steady = settings(
        max_examples=_ROUND,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    end = time.monotonic() + seconds
    try:
        for number in iter(lambda: random.randrange(2**32), None):
            if time.monotonic() > end:
                break
            seed(number)(steady(given(inputs)(run)))()
    except BaseException:
        path = findings / f"chance-{hashlib.sha1(last).hexdigest()[:12]}"
        path.write_bytes(last)
        print(f"a finding, in {path}")
        raise
    print(f"{runs} runs by chance (hypothesis), no finding")


def _bent(target: Target, data: bytes, number: int, times: int) -> bytes:
    pick = random.Random(number)
    for _ in range(times):
        data = target.mutate(
            data, len(data) + 100, pick.randrange(2**32), lambda part, _: _changed(part, pick)
        )
    return data


def _changed(data: bytes, pick: random.Random) -> bytes:
    return changed_bytes(data, pick) if data else bytes([pick.randrange(256)])
