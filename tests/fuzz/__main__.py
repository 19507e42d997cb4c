"""python -m tests.fuzz TARGET: looks for inputs that break a target, as long as it is told to."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
from pathlib import Path

from . import targets


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=targets.NAMES)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, required=True, help="what reaches new code is kept here")
    parser.add_argument("--findings", type=Path, required=True, help="what breaks the target is kept here")
    arguments = parser.parse_args()
    # What a sanitizer starts to name functions needs nothing preloaded.
    os.environ.pop("LD_PRELOAD", None)
    for folder in (arguments.corpus, arguments.findings):
        folder.mkdir(parents=True, exist_ok=True)
    # The log is written in its real form, and to nowhere.
    with open(os.devnull, "w") as nowhere:
        if importlib.util.find_spec("atheris"):
            from . import by_coverage as engine
        else:
            from . import by_chance as engine  # type: ignore[no-redef]
        with engine.instrumented():
            target = targets.load(arguments.target)
            from sentinel_wasm import logs
        with contextlib.redirect_stderr(nowhere):
            logs.configure()
        engine.fuzz(target, arguments.target, arguments.seconds, arguments.corpus, arguments.findings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
