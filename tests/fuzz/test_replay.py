"""What fuzzing has kept: inputs that reach code, and those that once found something (`make fuzz`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import targets

pytestmark = pytest.mark.parallel


@pytest.mark.parametrize("name", targets.NAMES)
def test_seeds_are_taken(name: str) -> None:
    target = targets.load(name)
    for data in [b"", *target.seeds()]:
        target.run(data)


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name in targets.NAMES for path in targets.kept(name)],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_kept_input(name: str, path: Path) -> None:
    targets.load(name).run(path.read_bytes())
