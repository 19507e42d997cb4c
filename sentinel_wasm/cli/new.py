"""`sentinel-wasm new`: the project of a filter, which builds and has tests."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from sentinel_wasm.errors import UserError

_PLACE = Path(__file__).parent.parent / "templates"
LANGUAGES = ("rust", "go", "c", "assemblyscript", "zig")
TEMPLATES = ("minimal", "security", "bot", "headers", "body")
# What building leaves beside the SDKs in a checkout.
_LEFT_BY_BUILDS = {"target", "node_modules"}


def _name(_: click.Context, __: click.Parameter, name: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9-]*", name):
        raise click.BadParameter(f"{name!r} has other than a-z, 0-9 and -, or does not begin with a letter.")
    return name


@click.command()
@click.argument("name", callback=_name)
@click.option("--lang", "language", type=click.Choice(LANGUAGES), required=True)
@click.option("--template", type=click.Choice(TEMPLATES), default="minimal", show_default=True)
def new(name: str, language: str, template: str) -> None:
    """Make the folder NAME: a filter that builds, with tests.

    \b
    minimal   allows every request
    security  turns attacks in the URI away and hardens responses
    bot       challenges bots and turns scanners away
    headers   changes headers of requests and responses
    body      looks into bodies of requests and masks words in those of responses
    """
    project = Path(name)
    make(project, language, template)
    click.echo(f"{name}/ ({language}, {template})")
    for path in sorted(path for path in project.rglob("*") if path.is_file()):
        click.echo(f"  {path.relative_to(project)}")
    click.echo("\n".join(_next(project)))


def make(project: Path, language: str, template: str) -> None:
    """Its folder. Raises UserError where that exists or cannot be made."""
    try:
        project.mkdir()
    except OSError as error:
        raise UserError(f"{project} cannot be made: {error.strerror}") from None
    try:
        config = _config_option(_PLACE / "cases" / template)
        words = {b"@NAME@": project.name.encode(), b"@CONFIG@": config.encode()}
        for layer in (f"{language}/project", f"{language}/{template}", f"cases/{template}"):
            _copy(_PLACE / layer, project, words)
        _copy(_PLACE / "sdk" / language, project / "sdk", {})
        (project / "gitignore").rename(project / ".gitignore")
        for script in project.rglob("*.sh"):
            script.chmod(0o755)  # not every installer keeps it
    except OSError as error:
        shutil.rmtree(project, ignore_errors=True)
        raise UserError(f"{project} cannot be made: {error.strerror}") from None


def _copy(source: Path, target: Path, words: dict[bytes, bytes]) -> None:
    """Every file of it, with words for what stands for them."""
    for path in source.rglob("*"):
        place = path.relative_to(source)
        if path.is_file() and not _LEFT_BY_BUILDS & set(place.parts):
            content = path.read_bytes()
            for mark, word in words.items():
                content = content.replace(mark, word)
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).write_bytes(content)


def _config_option(folder: Path) -> str:
    return " --module-config config.json" if (folder / "config.json").exists() else ""


def _next(project: Path) -> Iterator[str]:
    """The commands that come next."""
    config = _config_option(project)
    yield "Next:"
    yield f"  cd {project}"
    yield "  ./build.sh"
    yield f"  sentinel-wasm test filter.wasm cases.toml{config}"
    yield f"  sentinel-wasm check filter.wasm{config}"
    yield "  sentinel-wasm-agent --module filter.wasm"
