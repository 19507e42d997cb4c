"""python -m tests.fuzz.mutating: the normalisers against the Python path, on captured events changed.

NORMALISER_MUTATIONS says on how many; NORMALISER_SEED repeats a run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import time
from collections import Counter
from pathlib import Path

from tests import mutations
from tests.normalising import (
    BODIES,
    FORMS,
    RESPONSE,
    RESPONSE_BODY,
    V1,
    Disagreement,
    Outcome,
    captured_chunks,
    compare,
    in_both_protocols,
)

from . import normaliser

COUNT = int(os.environ.get("NORMALISER_MUTATIONS") or 200_000)
SEED = int(os.environ.get("NORMALISER_SEED") or random.randrange(10**6))

Counts = Counter[tuple[str, Outcome]]
"""Events by their kind ("v1 request") and what became of them."""


def run(count: int, seed: int, findings: Path | None = None) -> Counts:
    """Compare so many events, and write one that breaks the agreement to `findings`. Raises Disagreement."""
    pick = random.Random(seed)
    sources = [
        (_kind(frame_type, frame), frame_type, frame, mutations.parsed(frame))
        for frame_type, frame in in_both_protocols() + captured_chunks()
    ]
    counts: Counts = Counter()
    for number in range(count):
        kind, frame_type, frame, document = pick.choice(sources)
        form = pick.choice(FORMS)
        if pick.randrange(8):
            data = mutations.changed(document, pick)
        else:
            data = mutations.changed_bytes(frame, pick)
        if pick.randrange(200) == 0:
            frame_type = pick.choice(normaliser.TYPES)
        try:
            counts[kind, compare(frame_type, data, form)] += 1
        except Exception as error:
            if findings:
                kept = normaliser.written(frame_type, form, data)
                path = findings / f"mutation-{hashlib.sha1(kept).hexdigest()[:12]}"
                path.write_bytes(kept)
                print(f"a finding, in {path}")
            raise Disagreement(f"event {number} with NORMALISER_SEED={seed}: {error!r}") from error
    return counts


def _kind(frame_type: int, frame: bytes) -> str:
    is_response = frame_type in (RESPONSE, RESPONSE_BODY) or b'"response_headers"' in frame
    part = " body" if frame_type in BODIES else ""
    return f"v{1 if frame_type == V1 else 2} {'response' if is_response else 'request'}{part}"


def table(counts: Counts) -> str:
    """The counts for people to read."""
    kinds = sorted({kind for kind, _ in counts})
    lines = [f"{'':18}" + "".join(f"{outcome.value:>22}" for outcome in Outcome)]
    for kind in kinds:
        lines.append(f"{kind:18}" + "".join(f"{counts[kind, outcome]:>22,}" for outcome in Outcome))
    sums = [sum(counts[kind, outcome] for kind in kinds) for outcome in Outcome]
    lines.append(f"{sum(sums):<18,}" + "".join(f"{number:>22,}" for number in sums))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.mutating", description=__doc__)
    parser.add_argument("--findings", type=Path, required=True, help="what breaks the agreement is kept here")
    findings = parser.parse_args().findings
    findings.mkdir(parents=True, exist_ok=True)
    # What a sanitizer starts to name functions needs nothing preloaded.
    os.environ.pop("LD_PRELOAD", None)
    print(f"seed {SEED}", flush=True)
    began = time.monotonic()
    print(table(run(COUNT, SEED, findings)))
    print(f"Done {COUNT:,} comparisons in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
