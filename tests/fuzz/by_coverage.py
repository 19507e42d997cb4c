"""Fuzzing guided by coverage, of the Python code and, where it was built for that, of the compiled code."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from pathlib import Path
from typing import Any

import atheris

from .targets import HERE, Target

_LONGEST_INPUT = 4096
_ONE_RUN_S = 20
_MEMORY_MIB = 4096


def instrumented() -> contextlib.AbstractContextManager[Any]:
    """What is imported in here is followed line by line."""
    return atheris.instrument_imports(include=["sentinel_wasm"])  # type: ignore[no-any-return]


def fuzz(target: Target, name: str, seconds: int, corpus: Path, findings: Path) -> None:
    """Does not return: the engine ends the process, with a status other than 0 after a finding."""
    for data in target.seeds():
        (corpus / f"seed-{hashlib.sha1(data).hexdigest()[:12]}").write_bytes(data)
    folders = [corpus, HERE / "corpus" / name, HERE / "findings" / name]
    options = {
        "max_total_time": seconds,
        "max_len": _LONGEST_INPUT,
        "len_control": 100,
        "timeout": _ONE_RUN_S,
        "rss_limit_mb": _MEMORY_MIB,
        "dict": HERE / "json.dict",
        "artifact_prefix": f"{findings}/",
        "print_final_stats": 1,
    }
    arguments = [
        sys.argv[0],
        *(f"-{option}={value}" for option, value in options.items()),
        *(str(folder) for folder in folders if folder.is_dir()),
    ]
    atheris.Setup(
        arguments,
        target.run,
        custom_mutator=lambda data, limit, seed: target.mutate(data, limit, seed, atheris.Mutate),
    )
    atheris.Fuzz()
