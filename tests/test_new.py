"""`sentinel-wasm new`: what it makes, and that every template builds and answers as its table says."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sentinel_wasm import Module
from sentinel_wasm.cli import new
from sentinel_wasm.decision import Block
from sentinel_wasm.errors import UserError

from .test_call import PATIENT, run

pytestmark = pytest.mark.parallel

NO_TOOLCHAIN = 3
SLOW = ("rust", "go", "assemblyscript", "zig")

every_language = pytest.mark.parametrize("language", new.LANGUAGES)
every_template = pytest.mark.parametrize("template", new.TEMPLATES)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- what is made


@every_template
@every_language
def test_a_project_has_all_that_it_takes(language: str, template: str) -> None:
    project = Path("my-filter")
    new.make(project, language, template)
    files = {str(path.relative_to(project)): path for path in project.rglob("*") if path.is_file()}
    assert {"README.md", "build.sh", ".gitignore", "cases.toml"} < files.keys()
    assert os.access(files["build.sh"], os.X_OK)
    texts = {name: path.read_text() for name, path in files.items()}
    assert [name for name, text in texts.items() if "@NAME@" in text or "@CONFIG@" in text] == []
    assert "sentinel-wasm test filter.wasm cases.toml" in texts["README.md"]
    assert ("cases.toml --module-config config.json" in texts["cases.toml"]) == (template == "bot")
    assert ("config.json" in files) == (template == "bot")
    assert (project / "sdk").is_dir() == (language != "zig")


def test_it_says_what_was_made_and_what_comes_next() -> None:
    done = run("new", "my-filter", "--lang", "c", "--template", "bot")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "my-filter/ (c, bot)"
    assert {"  build.sh", "  cases.toml", "  sdk/sentinel.h"} < set(lines)
    assert lines[-6:] == [
        "Next:",
        "  cd my-filter",
        "  ./build.sh",
        "  sentinel-wasm test filter.wasm cases.toml --module-config config.json",
        "  sentinel-wasm check filter.wasm --module-config config.json",
        "  sentinel-wasm-agent --module filter.wasm",
    ]


def test_the_template_is_minimal_unless_another_is_named() -> None:
    assert run("new", "a1-", "--lang", "c").stdout.startswith("a1-/ (c, minimal)\n")


def test_what_was_built_beside_an_sdk_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "templates"
    shutil.copytree(new._PLACE, place)
    for left in ("target/a.rlib", "node_modules/assemblyscript/index.js"):
        (place / "sdk" / "c" / left).parent.mkdir(parents=True)
        (place / "sdk" / "c" / left).write_bytes(b"\xff")
    monkeypatch.setattr(new, "_PLACE", place)
    new.make(Path("my-filter"), "c", "minimal")
    assert Path("my-filter/sdk/sentinel.h").exists()
    assert not any(Path("my-filter/sdk", left).exists() for left in ("target", "node_modules"))


# --- what is refused


def refused(*arguments: str) -> tuple[int, str]:
    done = run("new", *arguments)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return done.returncode, line


def test_what_exists_is_left_alone() -> None:
    Path("mine").mkdir()
    Path("mine/build.sh").write_text("precious")
    Path("file").write_text("precious")
    Path("nowhere").symlink_to("no-such-folder")
    for name in ("mine", "file", "nowhere"):
        expected = f"sentinel-wasm: {name} cannot be made: File exists"
        assert refused(name, "--lang", "c") == (1, expected)
    assert [path.name for path in Path("mine").iterdir()] == ["build.sh"]
    assert Path("mine/build.sh").read_text() == Path("file").read_text() == "precious"


@pytest.mark.parametrize("name", ["", "..", "a/b", "My-filter", "1a", "a_b", "a\n"])
def test_a_name_that_is_none(name: str) -> None:
    status, line = refused("--lang", "c", "--", name)
    assert status == 2
    assert "has other than a-z, 0-9 and -, or does not begin with a letter" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Missing option '--lang'. Choose from: rust, go, c, assemblyscript, zig"),
        (["--lang", "cobol"], "'cobol' is not one of 'rust', 'go', 'c', 'assemblyscript', 'zig'"),
        (
            ["--lang", "c", "--template", "x"],
            "'x' is not one of 'minimal', 'security', 'bot', 'headers', 'body'",
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_choices(arguments: list[str], says: str) -> None:
    status, line = refused("a", *arguments)
    assert status == 2
    assert says in line
    assert not Path("a").exists()


def test_a_name_that_is_too_long_for_a_folder() -> None:
    status, line = refused("a" * 300, "--lang", "c")
    assert status == 1
    assert line.endswith("a cannot be made: File name too long")


def test_nothing_is_left_of_a_project_that_could_not_be_written() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sentinel_wasm.cli.toolkit", "new", "a", "--lang", "c"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert (done.returncode, done.stderr) == (1, "sentinel-wasm: a cannot be made: File too large\n")
    assert not Path("a").exists()


# --- what is made builds


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language's projects lie in one folder after each other: compilers find what they had compiled."""
    return tmp_path_factory.mktemp("workshop")


@every_template
@pytest.mark.parametrize(
    "language",
    [
        pytest.param(language, marks=pytest.mark.templates if language in SLOW else ())
        for language in new.LANGUAGES
    ],
)
def test_a_template_builds_and_passes_its_table(language: str, template: str, workshop: Path) -> None:
    project = workshop / f"{language}-filter"
    shutil.rmtree(project, ignore_errors=True)
    new.make(project, language, template)
    built = subprocess.run(
        [project / "build.sh"],
        env={**os.environ, "CARGO_TARGET_DIR": str(workshop / "target")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if built.returncode == NO_TOOLCHAIN:
        pytest.skip(built.stderr.strip())
    assert built.returncode == 0, built.stderr
    config = ("--module-config", project / "config.json") if template == "bot" else ()
    filter_ = project / "filter.wasm"
    tested = run("test", *PATIENT, filter_, project / "cases.toml", *config)
    assert (tested.returncode, tested.stderr) == (0, ""), tested.stdout
    if template == "bot":
        refuses_another_configuration(filter_)
    if template == "body":
        looks_into_bytes(filter_)


def refuses_another_configuration(path: Path) -> None:
    """As one with an empty name: every User-Agent contains it."""
    for config in ({"allowed": "Googlebot"}, {"allowed": [1]}, {"allowed": [""]}):
        with pytest.raises(UserError, match="cannot be started"):
            Module.load(path, config, timeout_ms=2000)


def looks_into_bytes(path: Path) -> None:
    """What is no text comes as base64; a table cannot say such bytes."""
    with Module.load(path, timeout_ms=2000) as module:
        assert isinstance(module.on_request_body({"data": b"\xff<SCRIPT>"}).verdict, Block)
        assert not isinstance(module.on_request_body({"data": b"\xff"}).verdict, Block)
        assert module.on_response_body({"data": b"\xffsecret"}).response_body is None
