"""--config and --print-config: what a file may say, which value holds, and one line for each mistake."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel_wasm import toml
from sentinel_wasm.cli.agent import _Source, command
from sentinel_wasm.cli.schema import schema
from sentinel_wasm.configuration import Configuration
from sentinel_wasm.errors import ConfigurationError, UserError
from sentinel_wasm.settings import Address, Match, Option, Settings, options, parse_address

from .conftest import ROOT
from .test_cli import assert_one_line, run

pytestmark = pytest.mark.parallel

NAMES = ", ".join(option.name for option in options())
VARIABLES = [*(option.variable for option in options()), "WASM_CONFIG"]
RUNNING = (ROOT / "docs" / "running.md").read_text()
EXAMPLE = RUNNING.partition("```toml\n")[2].partition("```")[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str | bytes) -> Configuration:
    path = Path("agent.toml")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Configuration(path)


def printed(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """What --print-config writes, with no variable but these."""
    variables = {**dict.fromkeys(VARIABLES), **(environment or {})}
    done = CliRunner().invoke(
        command(), [*arguments, "--print-config"], env=variables, catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout_bytes.decode()


# --- what a file may say


def test_every_option_may_stand_in_the_file(here: Path) -> None:
    text = "".join(f"{option.name} = {toml.written(example(option))}\n" for option in options())
    file = read(text)
    for line, option in enumerate(options(), 1):
        expected = example(option)
        if option.kind is Path:
            expected = here / expected
        elif option.kind is tuple:
            expected = tuple(here / path for path in expected)
        elif option.kind is Address:
            expected = parse_address(expected)
        assert file.values[option.field] == expected
        assert file.origins[option.field] == f"agent.toml:{line}"


def example(option: Option) -> Any:
    """A value that is not the default."""
    if option.choices:
        return option.choices[-1]
    if option.kind is bool:
        return not option.default
    if option.kind is Address:
        return "[::1]:9090"
    if option.kind is float:
        return 0.25
    if option.form:
        return {"socket_mode": "0600", "socket_group": "proxies", "sha256": 64 * "a"}[option.field]
    if option.kind is tuple:
        return ["a.path", "/b.path", "a.path"]
    return 2 if option.kind is int else f"{option.name}.path"


def test_a_relative_path_begins_at_the_directory_of_the_file(here: Path) -> None:
    (here / "etc").mkdir()
    (here / "etc" / "agent.toml").write_text('socket = "/run/s"\n[module]\npath = "../m.wasm"\n')
    values = Configuration(Path("etc/agent.toml")).values
    assert values == {"socket": Path("/run/s"), "module": here / "etc" / "../m.wasm"}


def test_a_relative_path_begins_where_a_link_to_the_file_is(here: Path) -> None:
    """Kubernetes links a file to one in a hidden directory, and the module beside it."""
    (here / "hidden").mkdir()
    (here / "hidden" / "agent.toml").write_text('module = "m.wasm"')
    (here / "agent.toml").symlink_to("hidden/agent.toml")
    assert Configuration(Path("agent.toml")).values["module"] == here / "m.wasm"


@pytest.mark.parametrize(
    "text",
    [
        "[module]\npath = 'm'\nconfig = {a = 1, b.c = ['x']}",
        "[module]\npath = 'm'\n[module.config]\na = 1\nb.c = ['x']",
        "module.path = 'm'\nmodule.config.a = 1\nmodule.config.b.c = ['x']",
        "[module.config]\na = 1\n[module.config.b]\nc = ['x']\n[module]\npath = 'm'",
    ],
)
def test_the_module_may_be_a_table_however_it_is_written(here: Path, text: str) -> None:
    file = read(text)
    assert file.values == {"module": here / "m"}
    assert file.module_config == {"a": 1, "b": {"c": ["x"]}}


def test_no_configuration_is_not_an_empty_one(here: Path) -> None:
    assert read("[module]\npath = 'm'").module_config is None
    assert read("[module.config]").module_config == {}


# --- mistakes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\npool-sise = 8", "agent.toml:2: unknown key 'pool-sise', did you mean pool-size?"),
        ("pool_size = 8", "agent.toml:1: unknown key 'pool_size', did you mean pool-size?"),
        ("xyzzy = 8", f"agent.toml:1: unknown key 'xyzzy', expected one of {NAMES}"),
        ("[server]\nxyzzy = 8", f"agent.toml:1: unknown key 'server', expected one of {NAMES}"),
        ("config = 'x'", f"agent.toml:1: unknown key 'config', expected one of {NAMES}"),
        (
            "[module]\npath = 'm'\nconfigs = {}",
            "agent.toml:3: unknown key 'module.configs', did you mean module.config?",
        ),
        (
            "[module]\npool-size = 8",
            "agent.toml:2: unknown key 'module.pool-size', did you mean pool-size, above [module]?",
        ),
        (
            "[module]\ndispatch = 'auto'",
            "agent.toml:2: unknown key 'module.dispatch', did you mean dispatch, above [module]?",
        ),
        (
            "module.xyzzy = 8",
            "agent.toml:1: unknown key 'module.xyzzy', expected one of module.path, module.config",
        ),
        ("\n\ndispatch = 'fast'", "agent.toml:3: dispatch is 'fast', expected auto, inline or threads"),
        ("isolation = 1", "agent.toml:1: isolation is 1, expected pooled or request"),
        ("dispatch = ['auto']", "agent.toml:1: dispatch is an array, expected auto, inline or threads"),
        ("fail-open = 'yes'", "agent.toml:1: fail-open is 'yes', expected true or false"),
        ("fail-open = 1", "agent.toml:1: fail-open is 1, expected true or false"),
        ("pool-size = '8'", "agent.toml:1: pool-size is '8', expected a whole number from 1 to 256"),
        ("pool-size = 0", "agent.toml:1: pool-size is 0, expected a whole number from 1 to 256"),
        ("pool-size = 257", "agent.toml:1: pool-size is 257, expected a whole number from 1 to 256"),
        ("pool-size = true", "agent.toml:1: pool-size is true, expected a whole number from 1 to 256"),
        ("pool-size = 8.0", "agent.toml:1: pool-size is 8.0, expected a whole number from 1 to 256"),
        ("pool-size = inf", "agent.toml:1: pool-size is inf, expected a whole number from 1 to 256"),
        ("log-decisions = 1.01", "agent.toml:1: log-decisions is 1.01, expected a number from 0 to 1"),
        ("log-decisions = nan", "agent.toml:1: log-decisions is nan, expected a number from 0 to 1"),
        ("log-decisions = '1%'", "agent.toml:1: log-decisions is '1%', expected a number from 0 to 1"),
        ("queue-limit = -1", "agent.toml:1: queue-limit is -1, expected a whole number from 1 to 1000000"),
        (
            "pool-size = 2026-01-01",
            "agent.toml:1: pool-size is a date, expected a whole number from 1 to 256",
        ),
        ("pool-size.a = 8", "agent.toml:1: pool-size is a table, expected a whole number from 1 to 256"),
        (
            f"pool-size = 0x{'f' * 5000}",
            "agent.toml:1: pool-size is a number of over 64 bits, expected a whole number from 1 to 256",
        ),
        ("socket = ''", "agent.toml:1: socket is '', expected a path in quotes"),
        ("socket = 5", "agent.toml:1: socket is 5, expected a path in quotes"),
        ('socket = "a\\u0000"', "agent.toml:1: socket is 'a\\x00', expected a path in quotes"),
        ("socket = ['a']", "agent.toml:1: socket is an array, expected a path in quotes"),
        (
            f"dispatch = '{'x' * 100}'",
            f"agent.toml:1: dispatch is '{'x' * 60}…', expected auto, inline or threads",
        ),
        (
            "module = 5",
            "agent.toml:1: module is 5, expected a path in quotes, a table or an array of tables",
        ),
        ("module = []", "agent.toml:1: module has 0 tables, expected 1 to 8"),
        (9 * "[[module]]\n", "agent.toml:1: module has 9 tables, expected 1 to 8"),
        ("module = ['m']", "agent.toml:1: module.0 is 'm', expected a table"),
        ("\n[[module]]\nname = 'a'", "agent.toml:2: module.0 has no path"),
        (
            "[[module]]\npath = 'm'\n[[module]]\npath = 5",
            "agent.toml:4: module.1.path is 5, expected a path in quotes",
        ),
        (
            "[[module]]\npath = 'm'\npool-sise = 8",
            "agent.toml:3: unknown key 'module.0.pool-sise', did you mean module.0.pool-size?",
        ),
        (
            "[[module]]\npath = 'm'\nworkers = 8",
            "agent.toml:3: unknown key 'module.0.workers', did you mean workers, above [module.0]?",
        ),
        (
            "[[module]]\npath = 'm'\npool-size = 0",
            "agent.toml:3: module.0.pool-size is 0, expected a whole number from 1 to 256",
        ),
        (
            "[[module]]\npath = 'm'\nname = 'a b'",
            "agent.toml:3: module.0.name is 'a b', expected a name of letters, digits, points, dashes and"
            " underscores in quotes",
        ),
        (
            "[[module]]\npath = 'm'\nshadow = 1",
            "agent.toml:3: module.0.shadow is 1, expected true or false",
        ),
        ("[[module]]\npath = 'm'\nconfig = 1", "agent.toml:3: module.0.config is 1, expected a table"),
        (
            "[[module]]\npath = 'm'\n[module.config]\na = nan",
            "agent.toml:4: module.0.config.a is nan, expected a finite number: JSON has no other",
        ),
        ("[[module]]\npath = 'm'\nmatch = 1", "agent.toml:3: module.0.match is 1, expected a table"),
        (
            "[[module]]\npath = 'm'\n[module.match]\nroute = ['a']",
            "agent.toml:4: unknown key 'module.0.match.route', did you mean module.0.match.routes?",
        ),
        (
            "[[module]]\npath = 'm'\n[module.match]\nroutes = []",
            "agent.toml:4: module.0.match.routes is an array, expected an array with something in it",
        ),
        (
            "[[module]]\npath = 'm'\n[module.match]\nroutes = 'a'",
            "agent.toml:4: module.0.match.routes is 'a', expected an array with something in it",
        ),
        (
            "[[module]]\npath = 'm'\n[module.match]\npath-prefixes = ['/a', 'b']",
            "agent.toml:4: module.0.match.path-prefixes.1 is 'b', expected the beginning of a path, as /api/"
            " in quotes",
        ),
        (
            "[[module]]\npath = 'm'\n[module.match]\nhooks = ['on_configure']",
            "agent.toml:4: module.0.match.hooks.0 is 'on_configure', expected one of on_request_headers,"
            " on_request_body, on_response_headers, on_response_body, on_request_complete,"
            " on_websocket_frame, on_guardrail in quotes",
        ),
        ("[module]\npath = 5", "agent.toml:2: module.path is 5, expected a path in quotes"),
        ("[module]\n\nconfig = 5", "agent.toml:3: module.config is 5, expected a table"),
        (
            "[module.config]\na = 1\nb = [1, nan]",
            "agent.toml:3: module.config.b.1 is nan, expected a finite number: JSON has no other",
        ),
        (
            "[[module.config.a]]\nb = 1\n[[module.config.a]]\nb = -inf",
            "agent.toml:4: module.config.a.1.b is -inf, expected a finite number: JSON has no other",
        ),
        (
            "[module.config]\nsince = 2026-01-01",
            "agent.toml:2: module.config.since is a date, expected a string: JSON has no dates",
        ),
        (
            "[module.config]\nat = 12:00:00",
            "agent.toml:2: module.config.at is a date, expected a string: JSON has no dates",
        ),
        (
            f"[module.config]\nid = {2**63}",
            "agent.toml:2: module.config.id is a number of over 64 bits, expected a smaller one",
        ),
        (
            "[module.config]\n" + ".".join("a" * 99) + " = 1",
            "agent.toml:2: [module.config] is nested too deeply",
        ),
        (b"a = 1\nb = '\xff'", "agent.toml:2: not UTF-8"),
        ("a = " + "[" * 100_000, "agent.toml: nested too deeply"),
        (".".join("a" * 5000) + " = 1", "agent.toml: nested too deeply"),
        ("#" * (1024 * 1024 + 1), "agent.toml: longer than 1048576 bytes"),
    ],
)
def test_a_mistake_is_said_with_its_line_and_what_is_right(
    here: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb\n", 2),
        ("a = 1\na = 2\n", 2),
        ("module = 'm'\n[module]", 2),
        ("a = 1\n\nb = [1,", 3),
        ("a = '''\n\n", 2),
        ("\n\npath = C:\\x", 3),
    ],
)
def test_what_is_not_toml_is_said_with_its_line(here: Path, text: str, line: int) -> None:
    """The reason is tomllib's, which says the line in its own way."""
    with pytest.raises(ConfigurationError, match=rf"^agent\.toml:{line}: not TOML: [A-Z]") as caught:
        read(text)
    assert "(at" not in str(caught.value)


def test_a_number_that_is_too_long_for_python_is_no_traceback(here: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^agent\.toml: not TOML: .*4300"):
        read(f"a = {'9' * 5000}")


def test_what_is_as_deep_as_may_be_reaches_the_guest_as_json(here: Path) -> None:
    assert read("[module.config]\n" + ".".join("a" * 98) + " = 1").module_config is not None


@pytest.mark.parametrize(
    ("name", "reason"), [("none.toml", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_one_line_and_status_2(name: str, reason: str) -> None:
    assert_one_line(run("--config", name), 2, f"cannot read the configuration {name}: {reason}")


def test_a_file_that_is_forbidden_is_an_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")  # root may read everything

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(
        ConfigurationError, match=r"^cannot read the configuration a.toml: Permission denied$"
    ):
        Configuration(Path("a.toml"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pool-sise = 8", ":1: unknown key 'pool-sise', did you mean pool-size?"),
        ('"\\u001b[31m\\n" = 8', ":1: unknown key '\\x1b[31m\\n'"),
        ("a", ":1: not TOML: "),
    ],
)
@pytest.mark.parametrize("more", [(), ("--print-config",)])
def test_a_mistake_in_the_file_is_one_line_and_status_2(
    tmp_path: Path, text: str, words: str, more: tuple[str, ...]
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    assert_one_line(run("--config", path, *more), 2, f"{path}{words}")


def test_a_module_that_nothing_names_is_one_line_and_status_2(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[module.config]\na = 1\n")
    words = f"Missing option '--module', WASM_MODULE or module in {path}"
    assert_one_line(run(environment={"WASM_CONFIG": str(path)}), 2, words)


def test_an_empty_path_is_one_line_and_status_2() -> None:
    assert_one_line(run("--config", ""), 2, "The path is empty")


# --- which value holds


def values_of(option: Option) -> st.SearchStrategy[Any]:
    if option.choices:
        return st.sampled_from(option.choices)
    if option.kind is bool:
        return st.booleans()
    if option.kind is int:
        assert option.most is not None
        return st.integers(1, option.most)
    if option.kind is float:
        return st.floats(0, 1)
    if option.form:
        return st.from_regex(option.form.pattern, fullmatch=True).filter(lambda text: max(text) < "\ud800")
    if option.kind is Address:
        return st.sampled_from([":9090", "localhost:80", "[::1]:65535"]).map(parse_address)
    paths = st.from_regex(r"/[a-zé \"'\\#=\x7f]{0,9}[a-z]", fullmatch=True).map(Path)
    return st.lists(paths, min_size=1, max_size=3).map(tuple) if option.kind is tuple else paths


SOURCES = ["flag", "variable", "file"]


@st.composite
def given_values(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """What each source says of some of the options."""
    said: dict[str, dict[str, Any]] = {source: {} for source in SOURCES}
    for option in options():
        for source in draw(st.sets(st.sampled_from(SOURCES))):
            said[source][option.field] = draw(values_of(option))
    return said


def as_json(value: Any) -> Any:
    if isinstance(value, tuple) and not isinstance(value, Address):
        return [*map(as_json, value)]
    return str(value) if isinstance(value, Path | Address) else value


def in_toml(value: Any) -> str:
    return toml.written(as_json(value))


@settings(max_examples=60)
@given(given_values())
def test_flag_before_environment_before_file_before_default(
    tmp_path_factory: pytest.TempPathFactory, said: dict[str, dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("c") / "agent.toml"
    arguments, environment, lines = ["--config", str(path)], {}, []
    expected: dict[str, tuple[str, str]] = {}
    for option in options():
        if option.default is not None:
            expected[option.name] = in_toml(option.default), "default"
        if option.field in said["file"]:
            value = in_toml(said["file"][option.field])
            lines.append(f"{option.name} = {value}\n")
            expected[option.name] = value, f"{path}:{len(lines)}"
        if option.field in said["variable"]:
            value = said["variable"][option.field]
            environment[option.variable] = ":".join(map(str, value)) if option.kind is tuple else str(value)
            expected[option.name] = in_toml(value), f"environment variable {option.variable}"
        if option.field in said["flag"]:
            value = said["flag"][option.field]
            if option.kind is bool:
                arguments.append(f"--{option.name}" if value else f"--no-{option.name}")
            elif option.kind is tuple:
                arguments += [word for path in value for word in (f"--{option.name}", str(path))]
            else:
                arguments += [f"--{option.name}", str(value)]
            expected[option.name] = in_toml(value), "flag"
    path.write_text("".join(lines))
    shown = printed(*arguments, environment=environment)
    said_lines = [line for line in shown.splitlines() if not line.startswith("#")]
    assert said_lines == [f"{name} = {value}  # {origin}" for name, (value, origin) in expected.items()]
    for option in options():
        assert (f"# {option.name} is not set" in shown) is (option.name not in expected)
    # As a file it says the same.
    path.write_text(shown)
    assert toml.loads(printed("--config", str(path))) == toml.loads(shown)


def test_a_variable_may_name_the_file(here: Path) -> None:
    read("pool-size = 7")
    assert "pool-size = 7  # agent.toml:1\n" in printed(environment={"WASM_CONFIG": "agent.toml"})


def test_without_a_file_options_are_shown_too(here: Path) -> None:
    shown = printed("--module", "m.wasm", environment={"WASM_POOL_SIZE": "3"})
    assert f'module = "{here}/m.wasm"  # flag\n' in shown
    assert "pool-size = 3  # environment variable WASM_POOL_SIZE\n" in shown


def test_the_module_is_shown_as_a_table_with_its_configuration(here: Path) -> None:
    read('[module]\npath = "m.wasm"\n\n[module.config]\na = 1\n"b c" = [{d = 1.5}]\n')
    shown = printed("--config", "agent.toml")
    assert shown.endswith(
        f'\n\n[module]\npath = "{here}/m.wasm"  # agent.toml:2\n\n'
        '[module.config]\na = 1  # agent.toml:5\n"b c" = [{ d = 1.5 }]  # agent.toml:6\n'
    )
    read(shown)
    assert toml.loads(printed("--config", "agent.toml")) == toml.loads(shown)


def test_a_flag_replaces_the_path_of_the_module_and_not_its_configuration(here: Path) -> None:
    read('[module]\npath = "m.wasm"\nconfig = {}')
    assert printed("--config", "agent.toml", "--module", "/n.wasm").endswith(
        '[module]\npath = "/n.wasm"  # flag\n\n[module.config]\n'
    )


CHAIN = """\
[[module]]
path = "a.wasm"
pool-size = 2
fail-open = true

[module.config]
a = 1

[[module]]
path = "a.wasm"
name = "new"
match = { routes = ["api"], path-prefixes = ["/x"], hooks = ["on_request_headers"] }
shadow = true
"""


def test_several_modules_are_shown_each_with_what_it_says_itself(here: Path) -> None:
    read(CHAIN)
    shown = printed("--config", "agent.toml")
    assert shown.endswith(
        f'\n\n[[module]]\npath = "{here}/a.wasm"  # agent.toml:2\n'
        "pool-size = 2  # agent.toml:3\nfail-open = true  # agent.toml:4\n\n"
        "[module.config]\na = 1  # agent.toml:7\n\n"
        f'[[module]]\npath = "{here}/a.wasm"  # agent.toml:10\nname = "new"  # agent.toml:11\n'
        'match = { routes = ["api"], path-prefixes = ["/x"], hooks = ["on_request_headers"] }'
        "  # agent.toml:12\nshadow = true  # agent.toml:13\n"
    )
    read(shown)
    assert toml.loads(printed("--config", "agent.toml")) == toml.loads(shown)


def test_flags_in_the_place_of_the_file_s_modules_keep_nothing_of_them(here: Path) -> None:
    read(CHAIN)
    shown = printed("--config", "agent.toml", "--module", "/b.wasm", "--module", "/c.wasm")
    tables = '\n\n[[module]]\npath = "/b.wasm"  # flag\n\n[[module]]\npath = "/c.wasm"  # flag\n'
    assert shown.endswith(tables)
    assert 'module = "/b.wasm"  # flag\n' in printed("--config", "agent.toml", "--module", "/b.wasm")


def test_a_variable_is_one_path_whatever_is_in_it(here: Path) -> None:
    assert 'module = "/a:b c.wasm"  # environment' in printed(environment={"WASM_MODULE": "/a:b c.wasm"})


# --- what several modules come to


def wanted(*arguments: str) -> Settings:
    """What an agent would run with."""
    return _Source(None, arguments).read().settings


def test_a_module_has_what_it_says_and_else_what_is_said_above(here: Path) -> None:
    read(f"pool-size = 3\ntimeout-ms = 30\nheader-names = 'lower'\n{CHAIN}")
    found = wanted("--config", "agent.toml", "--timeout-ms", "20")
    one, new = found.chain
    assert (one.name, new.name) == ("a", "new")
    assert (one.shadow, new.shadow) == (False, True)
    assert (one.settings.pool_size, new.settings.pool_size) == (2, 3)
    assert (one.settings.fail_open, new.settings.fail_open, found.fail_open) == (True, False, False)
    assert one.settings.timeout_ms == new.settings.timeout_ms == found.timeout_ms == 20
    assert (one.settings.module_config, new.settings.module_config) == ('{"a":1}', None)
    assert new.match == Match(("api",), ("/x",), ("on_request_headers",))
    assert one.header_names_given
    assert [each.module for each in found.each] == [here / "a.wasm"] * 2


def test_names_are_made_of_files_and_each_is_another(here: Path) -> None:
    paths = ["a.wasm", "b/a.wasm", "a b.wasm", "c/a.wasm"]
    found = wanted(*(part for path in paths for part in ("--module", path)))
    assert [linked.name for linked in found.chain] == ["a", "a-2", "a-b", "a-3"]
    read("[[module]]\npath = 'a.wasm'\n[[module]]\npath = 'b.wasm'\nname = 'a'")
    assert [linked.name for linked in wanted("--config", "agent.toml").chain] == ["a-2", "a"]


def test_one_table_alone_is_as_one_module(here: Path) -> None:
    read("[[module]]\npath = 'm.wasm'\npool-size = 2\nconfig = {a = 1}")
    found = wanted("--config", "agent.toml")
    assert (found.module, found.pool_size, found.module_config, found.chain) == (
        here / "m.wasm",
        2,
        '{"a":1}',
        (),
    )


TWO = "[[module]]\npath = 'a'\n[[module]]\npath = 'b'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"timeout-ms = 20\n{TWO}timeout-ms = 21",
            "agent.toml:6: timeout-ms of b is 21, expected at most 20: that is the event's",
        ),
        (
            f"{TWO}name = 'x'\n[[module]]\npath = 'c'\nname = 'x'",
            "agent.toml:8: another module has the name x",
        ),
        ("[[module]]\npath = 'a'\nshadow = true", "agent.toml:1: every module is a shadow"),
        (f"sha256 = '{64 * 'a'}'\n{TWO}", "--sha256 is one module's digest"),
        (
            f"workers = 2\n{TWO}match = {{routes = ['a']}}",
            "agent.toml:6: with --workers, a match by routes or path-prefixes wants hooks",
        ),
    ],
)
def test_what_modules_cannot_be_together_is_one_line(here: Path, text: str, message: str) -> None:
    read(text)
    with pytest.raises(UserError, match=re.escape(message)):
        wanted("--config", "agent.toml")


def test_with_workers_a_request_s_headers_may_be_matched(here: Path) -> None:
    read(f"workers = 2\n{TWO}match = {{routes = ['a'], hooks = ['on_request_headers']}}")
    assert wanted("--config", "agent.toml").workers == 2


def test_too_many_modules_are_one_line(here: Path) -> None:
    with pytest.raises(UserError, match="--module is given 9 times, 8 at most"):
        wanted(*9 * ("--module", "a.wasm"))


def test_a_name_of_a_file_cannot_end_the_comment_it_is_in(here: Path) -> None:
    (here / "a\nb.toml").write_text("pool-size = 7")
    assert "pool-size = 7  # a\\u000ab.toml:1\n" in printed("--config", "a\nb.toml")


# --- the documentation and the schema


def test_the_example_of_the_documentation_is_shown_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(EXAMPLE)
    found = re.search(r"\$ FAIL_OPEN=false .* --pool-size 2 --print-config\n(.*?)\n *…\n", RUNNING, re.DOTALL)
    assert found
    expected = [line.strip() for line in found[1].replace("/etc/sentinel-wasm", str(tmp_path)).splitlines()]
    done = run("--config", path, "--pool-size", "2", "--print-config", environment={"FAIL_OPEN": "false"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[: len(expected)] == expected
    shown = toml.loads(done.stdout)
    assert shown["module"] == {**toml.loads(EXAMPLE)["module"], "path": str(tmp_path / "filter.wasm")}
    assert len(expected) == 5


def test_the_documentation_quotes_a_real_mistake(here: Path) -> None:
    quoted = re.search(r"`(agent\.toml:2: unknown key .*\?)`", RUNNING)
    assert quoted
    with pytest.raises(ConfigurationError, match=f"^{re.escape(quoted[1])}$"):
        read(EXAMPLE.replace("pool-size", "pool-sise"))


def test_the_committed_schema_is_that_of_the_options() -> None:
    """If not: .venv/bin/python -m sentinel_wasm.cli.schema > docs/agent.schema.json."""
    assert json.loads((ROOT / "docs" / "agent.schema.json").read_text()) == schema()


VALIDATOR = jsonschema.Draft202012Validator(schema())


def test_the_schema_is_one_and_takes_the_example() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    VALIDATOR.validate(toml.loads(EXAMPLE))


ANYTHING: st.SearchStrategy[Any] = (
    st.booleans()
    | st.just(0)
    | st.integers(-1, 300)
    | st.floats(0.1, 0.9)
    | st.text("a\0\n", max_size=3)
    | st.just([])
    | st.just({})
)
TABLE = st.fixed_dictionaries(
    {},
    optional={
        "path": st.just("m") | ANYTHING,
        "config": st.dictionaries(st.text("ab"), ANYTHING) | ANYTHING,
        "x": ANYTHING,
    },
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    option.name: values_of(option).map(as_json)
    | ANYTHING
    | st.lists(ANYTHING, max_size=2)
    | st.just((option.most or 0) + 1)
    for option in options()
}
MATCH = st.fixed_dictionaries(
    {},
    optional={
        "routes": st.lists(st.just("a") | ANYTHING, max_size=2),
        "path-prefixes": st.lists(st.sampled_from(["/", "/a\n", "a"]) | ANYTHING, max_size=2),
        "hooks": st.lists(st.sampled_from(["on_request_headers", "on_configure"]) | ANYTHING, max_size=2),
        "x": ANYTHING,
    },
)
ONE_OF_SEVERAL = st.fixed_dictionaries(
    {"path": st.just("m") | st.just("") | ANYTHING},
    optional={
        "name": st.sampled_from(["a", "a b", "", "a\n", "x" * 64, "x" * 65]) | ANYTHING,
        "config": st.dictionaries(st.text("ab"), ANYTHING),
        "match": MATCH | ANYTHING,
        "shadow": ANYTHING,
        **{option.name: VALUES[option.name] for option in options() if option.of_module},
        "workers": st.just(2),
    },
)
TABLES = st.lists(ONE_OF_SEVERAL | ANYTHING, max_size=3) | st.just([{"path": "m"}] * 9)
VALUES |= {"module": TABLE | TABLES | ANYTHING, "unknown": ANYTHING}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """With few of the keys: with many, hardly any would be good."""
    names = draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=3))
    return {name: draw(VALUES[name]) for name in sorted(names)}


@settings(max_examples=300)
@given(documents())
def test_the_schema_and_the_agent_take_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"schema{os.getpid()}.toml"
    path.write_text("".join(f"{key} = {toml.written(value)}\n" for key, value in document.items()))
    if VALIDATOR.is_valid(document):
        Configuration(path)
    else:
        with pytest.raises(ConfigurationError):
            Configuration(path)
