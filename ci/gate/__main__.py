"""ci/gate.sh BASE [HEAD]: fails where a benchmark of HEAD is over 10% slower than at BASE.

HEAD is the working tree where it is not given. The status is 1 where something is slower, 2 where nothing
could be compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import sys
from pathlib import Path

from ci.gate.build import GateError, Side, build
from ci.gate.compare import Benchmark, Line, Minima, compare, keep_least, slower, table
from ci.gate.sides import play_round, runnable

ROUNDS = 10
ROUNDS_AGAIN = 20  # at most, for what seems slower


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/gate.sh", description=__doc__)
    parser.add_argument("base", metavar="BASE", help="a commit")
    parser.add_argument("head", metavar="HEAD", nargs="?", help="a commit (default: the working tree)")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    try:
        lines = measure(*common(*build(arguments.base, arguments.head)))
    except GateError as error:
        print(f"gate: {error}", file=sys.stderr)
        return 2
    print(table(lines))
    found = slower(lines)
    for line in found:
        print(f"gate: slower: {line.benchmark.suite}: {line.benchmark.name}, {line.ratio:.2f} times base")
    if not found:
        print("gate: nothing is over 10% slower")
    return 1 if found else 0


def machine() -> str:
    cpu = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{cpu.rpartition(': ')[2]}, {os.cpu_count()} cores, {system}"


def common(base: Side, head: Side) -> tuple[Side, Side, list[Benchmark]]:
    """The sides with the suites that they are to run, and the benchmarks that both can run."""
    of_head = runnable(head, must_pass=True)
    with_heads_suites = dataclasses.replace(base, suites=head.suites)
    of_base = runnable(with_heads_suites, must_pass=False)
    if of_base:
        base = with_heads_suites
    else:
        print("base cannot run HEAD's benchmarks: each side runs its own, which may not do the same work")
        of_base = runnable(base, must_pass=True)
    for benchmark in of_head:
        if benchmark not in of_base:
            print(f"not compared, for base cannot run it: {benchmark.test}")
    both = [benchmark for benchmark in of_head if benchmark in of_base]
    if not both:
        raise GateError("base and HEAD have no benchmark in common")
    return base, head, both


def measure(base: Side, head: Side, benchmarks: list[Benchmark]) -> list[Line]:
    """Measure all; then what seems slower again, until it no longer does or has had its rounds."""
    least: tuple[Minima, Minima] = ({}, {})
    cores = sorted(os.sched_getaffinity(0))
    for number in range(ROUNDS + ROUNDS_AGAIN):
        if number >= ROUNDS:
            benchmarks = [line.benchmark for line in slower(compare(*least))]
        if not benchmarks:
            break
        round_ = play_round(base, head, benchmarks, cores[number % len(cores)])
        for kept, measured in zip(least, round_, strict=True):
            keep_least(kept, measured)
    return compare(*least)


if __name__ == "__main__":
    sys.exit(main())
