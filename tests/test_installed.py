"""The version of wasmtime, told by a directory's name, is the one that importlib.metadata finds."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_wasm.installed import wasmtime_version

pytestmark = pytest.mark.parallel


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    wasmtime_version.cache_clear()
    yield
    wasmtime_version.cache_clear()


def install(directory: Path, version: str) -> None:
    """As pip leaves it, as far as its version goes."""
    (directory / f"wasmtime-{version}.dist-info").mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: wasmtime\nVersion: {version}\n"
    (directory / f"wasmtime-{version}.dist-info" / "METADATA").write_text(metadata)


def test_it_is_the_installed_one() -> None:
    assert wasmtime_version() == importlib.metadata.version("wasmtime")


@pytest.mark.parametrize("here", [True, False], ids=["in the working directory", "elsewhere"])
def test_it_is_found_by_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool) -> None:
    install(tmp_path, "50.1.2")
    monkeypatch.chdir(tmp_path if here else "/")
    monkeypatch.setattr(sys, "path", ["" if here else str(tmp_path)])
    assert wasmtime_version() == "50.1.2"


def test_the_first_of_two_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "b", "50.1.2")
    install(tmp_path / "a", "51.0.0")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "b"), str(tmp_path / "a")])
    assert wasmtime_version() == importlib.metadata.version("wasmtime") == "50.1.2"


def test_none_is_an_import_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        wasmtime_version()


def test_a_wasmtime_of_another_major_version_is_refused(tmp_path: Path) -> None:
    install(tmp_path, "51.0.0")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import sentinel_wasm.guest.capi"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ), timeout=60
    )
    assert done.returncode == 1
    assert "ImportError: sentinel-wasm needs wasmtime 50, found 51.0.0; install another with" in done.stderr
