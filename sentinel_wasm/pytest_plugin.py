"""A pytest plugin: the fixture `wasm_module` (docs/toolkit.md, "With pytest").

pytest imports this file wherever the package is installed: nothing heavy comes before the fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sentinel_wasm.errors import UserError

if TYPE_CHECKING:
    from sentinel_wasm.api import Module

_OPTION, _INI = "--wasm-module", "wasm_module"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sentinel-wasm")
    group.addoption(_OPTION, metavar="FILE.wasm", help="What the fixture wasm_module loads.")
    parser.addini(_INI, f"The same as {_OPTION}, from the root directory on.")


@pytest.fixture
def wasm_module_options() -> dict[str, Any]:
    """What `Module.load` gets beside the file: override it for another config, timeout_ms or memory_limit."""
    return {}


@pytest.fixture
def wasm_module(
    pytestconfig: pytest.Config, wasm_module_options: dict[str, Any], _wasm_compiled: _Compiled
) -> Module:
    """A `sentinel_wasm.Module` with a fresh instance, of the file that --wasm-module or the ini names."""
    path = _path(pytestconfig)
    if path is None:
        pytest.fail(f"which module? Say {_OPTION} FILE.wasm, or {_INI} in pytest's ini file.", pytrace=False)
    try:
        return _wasm_compiled.fresh(path, wasm_module_options)
    except UserError as error:
        pytest.fail(str(error), pytrace=False)


def _path(config: pytest.Config) -> Path | None:
    option: str | None = config.getoption(_OPTION)
    if option is not None:
        return config.invocation_params.dir / option
    ini: str = config.getini(_INI)
    return config.rootpath / ini if ini else None


class _Compiled:
    """What the test before had: kept for the next one, which mostly wants the same."""

    def __init__(self) -> None:
        self._module: Module | None = None
        self._of: tuple[Path, dict[str, Any]] | None = None

    def fresh(self, path: Path, options: dict[str, Any]) -> Module:
        """Raises UserError."""
        if self._module is None or self._of != (path, options):
            from sentinel_wasm.api import Module

            self.close()
            self._module = Module.load(path, **options)
            self._of = path, dict(options)
        else:
            self._module.restart()
        return self._module

    def close(self) -> None:
        module, self._module = self._module, None
        if module is not None:
            module.close()


@pytest.fixture(scope="session")
def _wasm_compiled() -> Iterator[_Compiled]:
    compiled = _Compiled()
    yield compiled
    compiled.close()
