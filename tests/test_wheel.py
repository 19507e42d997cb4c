"""The built wheel, installed into an empty virtual environment, away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

import sentinel_wasm
from ci import wheels
from sentinel_wasm.cli import new

from .conftest import EXAMPLES, ROOT

pytestmark = pytest.mark.parallel


PACKAGE = ("sentinel_wasm/", "examples/sdk/")
PARTS = (*PACKAGE, "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


def handed_out() -> list[str]:
    """What git would hand out of what wheels are made of: nothing that lies in the checkout by chance."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    return [name for name in files.decode().split("\0") if name.startswith(PARTS)]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What builds leave beside sources lay there when it was made: Cython's and the SDKs'."""
    source = tmp_path_factory.mktemp("source")
    compiled = [str(path.relative_to(ROOT)) for path in (ROOT / "sentinel_wasm").glob("*.c")]
    for name in handed_out() + compiled:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    for left in ("target/a.rlib", "node_modules/a.js"):
        (source / "examples/sdk/c" / left).parent.mkdir()
        (source / "examples/sdk/c" / left).touch()
    out = tmp_path_factory.mktemp("sdist")
    build(source, out, "--sdist")
    (archive,) = out.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, without the optimiser, which takes most of the time and changes nothing that is
    looked at here.
    """
    out = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as files:
        files.extractall(out, filter="data")
    build(out / sdist.name.removesuffix(".tar.gz"), out, "--wheel")
    (made,) = out.glob("*.whl")
    return made


def build(source: Path, out: Path, what: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", what, "--no-isolation", "--outdir", out, source],
        check=True,
        capture_output=True,
        env={**os.environ, "CFLAGS": "-O0"},
    )


@pytest.fixture(scope="module")
def bin_(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs are that pip made of it."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip: list[str | Path] = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", wheel]
    subprocess.run(pip, check=True)
    return venv / "bin"


ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def test_the_wheel_holds_the_package_and_no_sources_of_the_compiled_part(wheel: Path) -> None:
    """Every file that git has of it, by way of the sdist, and nothing else."""
    files = wheels.contents(wheel)
    info = f"sentinel_wasm-{sentinel_wasm.__version__}.dist-info/"
    sdk = "sentinel_wasm/templates/sdk"  # a link to examples/sdk
    wanted = {name.replace("examples/sdk", sdk) for name in handed_out() if name.startswith(PACKAGE)}
    modules = {name.removesuffix(".pyx") for name in wanted if name.endswith(".pyx")}
    assert {name.partition(".")[0] for name in files if name.endswith(".so")} == modules
    assert {name for name in files if not name.startswith(info) and not name.endswith(".so")} == {
        name for name in wanted if not name.endswith(".pyx") and name != sdk
    }
    assert wheels.faults(files) == []
    entry_points = files[f"{info}entry_points.txt"]
    assert b"[pytest11]\nsentinel-wasm = sentinel_wasm.pytest_plugin\n" in entry_points


def test_the_sdist_holds_what_the_package_is_built_from(sdist: Path) -> None:
    with tarfile.open(sdist) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {name for name in names if name.endswith(".pyx")} == {
        name for name in handed_out() if name.endswith(".pyx")
    }
    assert not any(Path(name).match("sentinel_wasm/*.c") for name in names)
    assert not any(name.startswith("tests") for name in names)


def test_the_agent_and_the_toolkit_run_from_the_wheel_alone(bin_: Path, tmp_path: Path) -> None:
    smoke: list[str | Path] = [bin_ / "python", ROOT / "ci" / "smoke.py", EXAMPLES / "c" / "security.wasm"]
    done = subprocess.run(smoke, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" works\n")
    assert str(ROOT) not in done.stdout


def test_the_wheel_alone_makes_the_projects_that_the_checkout_makes(bin_: Path, tmp_path: Path) -> None:
    for language in new.LANGUAGES:
        made, wanted = tmp_path / language, tmp_path / "wanted" / language
        wanted.parent.mkdir(exist_ok=True)
        new.make(wanted, language, "bot")
        command: list[str | Path] = [bin_ / "sentinel-wasm", "new", language, "--lang", language]
        command += ["--template", "bot"]
        subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True, capture_output=True)
        assert contents(made) == contents(wanted)


def contents(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Of every file: what is in it, and whether it can be run."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), os.access(path, os.X_OK))
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- what looks at the wheels of a release (python -m ci.wheels)


def packed(path: Path, files: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)


GOOD = {"sentinel_wasm/a.so": b"\x7fELF", "sentinel_wasm/templates/c/body/filter.c": b""}


def test_a_good_wheel_passes_and_its_sizes_are_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(wheels.main, [packed(tmp_path / "a.whl", GOOD)])
    assert done.exit_code == 0
    assert "        4  a.so" in done.output


@pytest.mark.parametrize(
    ("name", "size", "fault"),
    [
        ("sentinel_wasm/_quick.c", 1, "sentinel_wasm/_quick.c: a source"),
        ("sentinel_wasm/_quick.pyx", 1, "sentinel_wasm/_quick.pyx: a source"),
        ("sentinel_wasm/b.so", 2**20 + 1, "sentinel_wasm/b.so: 1,048,577 bytes, more than 1,048,576"),
    ],
)
def test_a_wheel_with_what_it_should_not_have_fails(tmp_path: Path, name: str, size: int, fault: str) -> None:
    done = CliRunner().invoke(wheels.main, [packed(tmp_path / "a.whl", {**GOOD, name: b"0" * size})])
    assert done.exit_code == 1
    assert f"a.whl: {fault}" in done.output


@pytest.mark.parametrize(
    ("second", "differs"),
    [({}, None), ({"sentinel_wasm/a.so": b"other"}, "a.so"), ({"sentinel_wasm/b.py": b""}, "b.py")],
)
def test_wheels_that_should_be_the_same(
    tmp_path: Path, second: dict[str, bytes], differs: str | None
) -> None:
    paths = [packed(tmp_path / "a.whl", GOOD), packed(tmp_path / "b.whl", {**GOOD, **second})]
    done = CliRunner().invoke(wheels.main, ["--same", *paths])
    assert done.exit_code == (differs is not None)
    said = f"sentinel_wasm/{differs} differs between {paths[0]} and {paths[1]}\n"
    assert done.output.endswith(said) == (differs is not None)
