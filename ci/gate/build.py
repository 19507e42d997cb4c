"""Two trees of this repository, built as wheels, each in an environment of its own in build/gate."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "gate"

SUITES = ("benchmarks", "examples", "pyproject.toml")
"""What benchmarks need of a tree; the package itself must come from the wheel."""

# Without this a change of one function moves those behind it, and another's benchmark by up to 8%.
ALIGNED = "-falign-functions=64"


class GateError(Exception):
    """Nothing can be compared, and why."""


@dataclass(frozen=True)
class Side:
    """An interpreter that has one of the wheels, and the suites that it runs."""

    name: str
    python: Path
    suites: Path


def build(base: str, head: str | None) -> tuple[Side, Side]:
    """Raises GateError where a commit is not known or does not build."""
    trees = {"base": tree_of(base), "head": tree_of(head) if head else working_tree()}
    shutil.rmtree(BUILD, ignore_errors=True)
    builds = [(name, start_build(name, tree)) for name, tree in trees.items()]
    for name, status in [(name, process.wait()) for name, process in builds]:
        if status:
            raise GateError(f"{name} does not build:\n{(BUILD / name / 'build.log').read_text()}")
    sides = [environment(name) for name in trees]
    return sides[0], sides[1]


def git(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode:
        raise GateError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def tree_of(commit: str) -> str:
    try:
        return git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{tree}}")
    except GateError as error:
        raise GateError(f"there is no commit {commit!r} here; fetch it first") from error


def working_tree() -> str:
    """What `git add --all` would commit, without touching the index."""
    BUILD.parent.mkdir(exist_ok=True)
    index = BUILD.parent / "gate.index"
    index.unlink(missing_ok=True)
    git("add", "--all", GIT_INDEX_FILE=str(index))
    return git("write-tree", GIT_INDEX_FILE=str(index))


def start_build(name: str, tree: str) -> subprocess.Popen[bytes]:
    """Unpack a tree into build/gate/NAME/tree and begin to make its wheel in build/gate/NAME."""
    place = BUILD / name
    (place / "suites").mkdir(parents=True)
    git("archive", "--format=zip", f"--output={place / 'tree.zip'}", tree)
    shutil.unpack_archive(place / "tree.zip", place / "tree")
    for part in SUITES:
        if (place / "tree" / part).exists():
            (place / "tree" / part).rename(place / "suites" / part)
    shutil.copy(place / "suites" / "pyproject.toml", place / "tree")
    with (place / "build.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, place / "tree"],
            env={**os.environ, "CFLAGS": f"{os.environ.get('CFLAGS', '')} {ALIGNED}"},
            stdout=log,
            stderr=log,
        )


def environment(name: str) -> Side:
    """An environment that has what this one has but for the package, and the package from its wheel."""
    place = BUILD / name
    python = place / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site, main = (
        subprocess.run([binary, "-c", purelib], check=True, capture_output=True, text=True).stdout.strip()
        for binary in (python, sys.executable)
    )
    (wheel,) = place.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    # Of this environment only the directory: what makes the checkout importable is a .pth in it.
    (Path(site) / "main.pth").write_text(main + "\n")
    return Side(name, python, place / "suites")
