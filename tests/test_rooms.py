"""The design's rule: a module imports only from rooms above its own (CONTRIBUTING.md, "The rooms")."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sentinel_wasm

pytestmark = pytest.mark.parallel

PACKAGE = Path(sentinel_wasm.__file__).parent

# From the top. What stands in one line may import from each other.
ROOMS = [
    {""},
    {"errors"},
    {"settings"},
    {"toml"},
    {"configuration"},
    {"decision"},
    {"logs", "stderr", "base64", "_strings", "metrics", "credentials", "installed"},
    {"protocol"},
    {
        "_wasmtime",
        "_json",
        "_threads",
        "_ticker",
        "_hostcalls",
        "_recent",
        "_instances",
        "_metrics",
        "_fastpath",
        "_workers",
    },
    {"_answers", "_chunks"},
    {"_quick"},
    {"_stream", "_protobuf"},
    {"guest"},
    {"api"},
    {"pytest_plugin"},
    {"eventlog"},
    {"link"},
    {"merging", "matching", "shadow"},
    {"answering"},
    {"agent"},
    {"chain"},
    {"server", "grpc"},
    {"embedding"},
    {"client"},
    {"bench"},
    {"cli"},
]
# What the package itself hands out, when it is asked for.
DOORS = {("", "sentinel_wasm.api"), ("", "sentinel_wasm.decision"), ("", "sentinel_wasm.embedding")}
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}


def room_of(module: str) -> str:
    """`sentinel_wasm.guest.abi` → `guest`; the package itself → the empty name."""
    return module.split(".")[1] if "." in module else ""


def imported(source: Path) -> Iterator[str]:
    """Modules of this package that a file imports or cimports, in whatever function it does so."""
    if source.suffix in (".pyx", ".pxd"):
        for line in source.read_text().splitlines():
            words = line.split()
            if words[:1] in (["from"], ["import"], ["cimport"]) and words[1].startswith("sentinel_wasm"):
                yield words[1]
        return
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sentinel_wasm"):
            assert node.module is not None
            yield from (
                f"sentinel_wasm.{alias.name}" if node.module == "sentinel_wasm" else node.module
                for alias in node.names
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("sentinel_wasm"))


SOURCES = sorted(
    path
    for pattern in ("*.py", "*.pyx", "*.pxd")
    for path in PACKAGE.rglob(pattern)
    if "__pycache__" not in str(path)
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_up_only(source: Path) -> None:
    here = source.relative_to(PACKAGE).parts[0].split(".")[0]
    here = "" if here == "__init__" else here
    for module in imported(source):
        if module == "sentinel_wasm.__version__" or (here, module) in DOORS:
            continue
        there = room_of(module)
        assert LEVEL[there] <= LEVEL[here], f"{source.name} imports {module}, which is below it"
