"""What the documentation says of the code, held against it."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from ci.site import reference
from sentinel_wasm.cli.agent import command
from sentinel_wasm.guest import abi, imports, module
from sentinel_wasm.settings import options

from .conftest import ROOT

pytestmark = pytest.mark.parallel

PACKAGE = ROOT / "sentinel_wasm"


def section(page: str, title: str) -> str:
    """Of a page of the repository, the text under a heading of the second level."""
    text = (ROOT / page).read_text()
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """What stands in code in the first column of its tables, without signatures."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall("`([^`]+)`", cell)}


def shares(text: str, pattern: str) -> list[int]:
    return sorted(map(int, re.findall(pattern, text)))


def exists(name: str, classes: dict[str, type]) -> bool:
    """Whether a dotted name leads somewhere: in the package, or in a class that was named in full before."""
    first, *rest = name.split(".")
    path = f"sentinel_wasm.{first}"
    value: Any = classes[first] if first in classes else importlib.import_module(path)
    for part in rest:
        path += f".{part}"
        if isinstance(value, type) and not hasattr(value, part):
            return is_compiled_method(value, part)
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(path)
        if isinstance(value, type):
            classes[value.__name__] = value
    return True


def is_compiled_method(of: type, name: str) -> bool:
    """Whether its Cython source has a `cdef` of that name: Python does not see those."""
    source = (PACKAGE / f"{of.__module__.rpartition('.')[2]}.pyx").read_text()
    body = source.partition(f"\ncdef class {of.__name__}")[2].partition("\ncdef class ")[0]
    return re.search(rf"^    cdef .*\b{name}\(", body, re.MULTILINE) is not None


def test_the_life_of_one_event_names_what_there_is() -> None:
    text = section("CONTRIBUTING.md", "The life of one event")
    names = re.findall(r"`(\w+(?:\.\w+)+)`", text)
    assert len(names) > 15
    classes: dict[str, type] = {}
    assert [name for name in names if not exists(name, classes)] == []


def test_the_rooms_name_every_file_of_python() -> None:
    """Of the package itself, and of the rooms whose files are said one by one."""
    text = section("CONTRIBUTING.md", "The rooms")
    places = (PACKAGE, *(PACKAGE / room for room in ("guest", "server", "protocol", "bench")))
    files = {path for place in places for path in place.glob("*.py") if path.stem != "__init__"}
    assert {path.stem for path in files if not re.search(rf"`{path.stem}(\.py)?`", text)} == set()


def test_the_abi_has_the_exports_imports_and_fields_of_the_code() -> None:
    page = "docs/abi.md"
    exports = {"memory", *module._REQUIRED, *module._OPTIONAL}
    assert first_cells(section(page, "Exports")) == exports
    assert first_cells(section(page, "Results")) == set(abi._READERS)
    served = {f"{of}.{'*' if of == imports.WASI else name}" for of, name in imports._TYPES}
    assert first_cells(section(page, "Imports")) == served


def test_the_plot_of_where_the_time_goes_has_the_figures_of_the_table() -> None:
    table = section("docs/performance.md", "Where the time goes").partition("\n\nWith the real")[0]
    plot = (ROOT / "docs/benchmarks/where-the-time-goes.svg").read_text()
    assert shares(plot, r">(\d+)%<") == shares(table, r"\| (\d+)% \|")


def test_the_page_explains_options_that_there_are_and_names_those_that_a_reload_leaves() -> None:
    page = "docs/running.md"
    parameters = {flag for parameter in command().params for flag in parameter.opts}
    assert first_cells(section(page, "Options")) - parameters == set()
    left = section(page, "Reloading").partition("**What cannot change")[2].partition("\n- ")[0]
    assert set(re.findall("`([^`]+)`", left)) == {option.name for option in options() if option.fixed}


def test_the_reference_has_every_option() -> None:
    """`make docs` makes it, and is not part of every run."""
    table = reference.pages()["reference/configuration.md"]
    assert [
        option.name for option in options() if f"`{option.name}`<br>`{option.variable}`" not in table
    ] == []
