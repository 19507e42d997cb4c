"""The fixture `wasm_module`, in test suites of module authors."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import EXAMPLES, BuildWat
from .guest import wat
from .test_table import ALLOWS_ONCE

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.parallel

C_EXAMPLE = EXAMPLES / "c" / "security.wasm"
OPTIONS = """
    import pytest

    @pytest.fixture
    def wasm_module_options():
        return {"timeout_ms": 2000}
"""
BLOCKS = """
    def test_it(wasm_module):
        assert wasm_module.on_request_headers({"uri": "/../x"}).status == 403
"""


@pytest.fixture(autouse=True)
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without our own other plugins, which take half a second to load."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:benchmark -p no:xdist")
    pytester.makeconftest(OPTIONS)


def test_the_module_is_an_option_or_in_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BLOCKS)
    pytester.path.joinpath("filter.wasm").symlink_to(C_EXAMPLE)
    pytester.runpytest_subprocess("--wasm-module", "filter.wasm").assert_outcomes(passed=1)
    pytester.makeini("[pytest]\nwasm_module = filter.wasm\n")
    below = pytester.mkdir("below")
    pytester.path.joinpath("conftest.py").rename(below / "conftest.py")
    pytester.path.joinpath("test_the_module_is_an_option_or_in_the_ini_file.py").rename(below / "test_it.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(below)
        pytester.runpytest_subprocess().assert_outcomes(passed=1)
        pytester.runpytest_subprocess("--wasm-module", "none.wasm").assert_outcomes(errors=1)


def test_each_test_has_a_fresh_instance(pytester: pytest.Pytester, build_wat: BuildWat) -> None:
    pytester.makepyfile("""
        import pytest
        from sentinel_wasm.errors import ModuleError

        @pytest.mark.parametrize("number", range(3))
        def test_it(wasm_module, number):
            wasm_module.on_request_headers({})
            with pytest.raises(ModuleError):
                wasm_module.on_request_headers({})
    """)
    pytester.runpytest_subprocess("--wasm-module", build_wat(ALLOWS_ONCE)).assert_outcomes(passed=3)


def test_other_options_are_another_module(pytester: pytest.Pytester, build_wat: BuildWat) -> None:
    """A module that takes no configuration but an empty one."""
    length = len('{"config":{}}')
    takes_none = wat.module(
        wat.hook("(i64.const 0)"),
        wat.hook(
            f"(if (i32.ne (local.get $n) (i32.const {length})) (then unreachable)) (i64.const 0)",
            "on_configure",
        ),
    )
    pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def wasm_module_options(request):
            return {"timeout_ms": 2000, "config": request.param}

        @pytest.mark.parametrize("wasm_module_options", [None, {"a": 1}, None], indirect=True)
        def test_it(wasm_module):
            pass
    """)
    result = pytester.runpytest_subprocess("--wasm-module", build_wat(takes_none))
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*cannot be started: *"])
    assert "Traceback" not in result.stdout.str()


def test_what_is_wrong_is_one_line(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile(BLOCKS)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["which module? Say --wasm-module FILE.wasm, or wasm_module in pytest's ini file."]
    )
    broken = tmp_path / "broken.wasm"
    broken.write_bytes(b"nothing")
    result = pytester.runpytest_subprocess("--wasm-module", broken)
    result.stdout.fnmatch_lines([f"{broken}: not a WebAssembly binary*"])


def test_it_costs_nothing_where_it_is_not_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_it():
            assert "sentinel_wasm.pytest_plugin" in sys.modules
            assert not {"wasmtime", "orjson", "click", "structlog", "sentinel_wasm.api"} & sys.modules.keys()
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
