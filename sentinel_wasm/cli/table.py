"""`sentinel-wasm test`: tables of requests, and what a module must say of each."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import click

from sentinel_wasm import logs, toml
from sentinel_wasm.api import FIELDS, Asked, Module
from sentinel_wasm.cli.decisions import differs, said
from sentinel_wasm.cli.loading import end_at_ctrl_c, load_options
from sentinel_wasm.decision import VERDICTS
from sentinel_wasm.errors import KINDS, UserError

_REGEX = "~"
_CASE = ("name", "hook", "request", "event", "expect")
EXPECTED = (
    *("decision", "status", "body", "url", "challenge", "challenge_params"),
    *("tags", "rule_ids", "reason_codes", "confidence", "routing_metadata"),
    *("request_headers", "response_headers", "request_body", "response_body", "needs_more", "fails"),
    *("code", "reason", "detections", "redacted_content"),
)


class Case(NamedTuple):
    """One row: what the module is asked, and what it must say; `where` is its file and number."""

    name: str
    where: str
    hook: str
    event: dict[str, Any]
    expect: dict[str, Any]


@dataclass
class Outcome:
    """What came of a case; `differences` are empty where it passed."""

    case: Case
    seconds: float
    differences: list[str] = field(default_factory=list)


@click.command(name="test")
@click.argument("module", type=click.Path(path_type=Path))
@click.argument("tables", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CASES.toml...")
@load_options
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE.xml", help="A report for CI, too.")
def test(
    module: Path,
    tables: tuple[Path, ...],
    config: dict[str, Any] | None,
    timeout_ms: int,
    memory_limit: int,
    junit: Path | None,
) -> int:
    """Ask MODULE what the tables have, and say where it answers otherwise.

    \b
    [[case]]
    name = "scanners are turned away"
    request = { uri = "/", headers = { user-agent = "sqlmap/1.7" } }
    expect = { decision = "block", status = 403, tags = ["~^scanner"] }

    A text that begins with ~ is a regular expression, which must be found. Each case has a fresh instance.
    The exit status is 1 where one fails.
    """
    end_at_ctrl_c()
    cases = [case for path in tables for case in read_cases(path)]
    with Module.load(module, config, timeout_ms=timeout_ms, memory_limit=memory_limit) as loaded:
        outcomes = []
        for case in cases:
            outcomes.append(_run(loaded, case))
            click.echo("\n".join(_lines(outcomes[-1])))
    failed = sum(bool(outcome.differences) for outcome in outcomes)
    click.echo(f"{len(outcomes) - failed} passed, {failed} failed")
    if junit is not None:
        _write(junit, _junit(module, outcomes))
    return 1 if failed else 0


def read_cases(path: Path) -> list[Case]:
    """The cases of a file. Raises UserError with all that is wrong with the first that is not one."""
    try:
        data = toml.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    rows = data.get("case")
    if data.keys() - {"case"} or type(rows) is not list or not rows:
        raise UserError(f"{path}: expected [[case]] tables and nothing else")
    return [_case(f"{path}, case {number}", row) for number, row in enumerate(rows, 1)]


def _case(where: str, row: Any) -> Case:
    if type(row) is not dict:
        raise UserError(f"{where}: {row!r:.60} is no table")
    _check_names(where, row, _CASE)
    name, hook = row.get("name", where), row.get("hook", "on_request_headers")
    if type(name) is not str:
        raise UserError(f"{where}: name is {name!r:.60}, expected a string")
    where = f"{where} ({name})" if "name" in row else where
    if hook not in FIELDS:
        raise UserError(f"{where}: no hook {hook!r:.60}; there are {', '.join(FIELDS)}")
    if "request" in row and ("event" in row or hook != "on_request_headers"):
        raise UserError(f"{where}: request is on_request_headers' event; another hook has event")
    event, expect = row.get("request", row.get("event", {})), row.get("expect")
    if type(event) is not dict:
        raise UserError(f"{where}: its event is {event!r:.60}, expected a table")
    if type(expect) is not dict or not expect:
        raise UserError(f"{where}: expect is missing, a table of {', '.join(EXPECTED)}")
    _check_names(f"{where}: expect", expect, EXPECTED)
    if "fails" in expect and expect["fails"] not in KINDS:
        raise UserError(f"{where}: fails is {expect['fails']!r:.60}, expected one of {', '.join(KINDS)}")
    if expect.get("decision", "allow") not in VERDICTS:
        raise UserError(f"{where}: decision is {expect['decision']!r:.60}, expected {', '.join(VERDICTS)}")
    for text in _texts(expect):
        if text.startswith(_REGEX):
            try:
                re.compile(text[1:])
            except re.error as error:
                raise UserError(f"{where}: {text!r} is no regular expression: {error}") from None
    return Case(name, where, hook, event, expect)


def _check_names(where: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    if unknown := [name for name in table if name not in known]:
        raise UserError(f"{where}: unknown {', '.join(unknown)}; there are {', '.join(known)}")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))


def _run(module: Module, case: Case) -> Outcome:
    began = time.perf_counter()
    module.restart()
    try:
        asked = module.ask(case.hook, case.event)
    except UserError as error:
        raise UserError(f"{case.where}: {error}") from None
    differences = list(_differences(case.expect, asked))
    return Outcome(case, time.perf_counter() - began, differences)


def _differences(expect: dict[str, Any], asked: Asked) -> Iterator[str]:
    found = {**said(asked.decision), "fails": None if asked.error is None else asked.error.kind}
    for name, wanted in expect.items():
        if not _fits(wanted, found[name]):
            yield differs(name, wanted, found[name])
    if asked.error is not None and "fails" not in expect:
        yield f"the module failed ({asked.error.kind}): {asked.error}"


def _fits(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(wanted) == len(found)
            and all(_fits(one, other) for one, other in zip(wanted, found, strict=True))
        )
    if isinstance(wanted, str) and wanted.startswith(_REGEX):
        return isinstance(found, str) and re.search(wanted[1:], found) is not None
    return isinstance(wanted, bool) == isinstance(found, bool) and bool(wanted == found)


def _lines(outcome: Outcome) -> Iterator[str]:
    yield f"{'FAILED' if outcome.differences else 'passed'}  {logs.escaped(outcome.case.name)}"
    for difference in outcome.differences:
        yield f"        {logs.escaped(difference)}"


def _junit(module: Path, outcomes: list[Outcome]) -> bytes:
    """As Jenkins, GitLab and GitHub's reporters read it."""
    suite = ElementTree.Element(
        "testsuite",
        name=str(module),
        tests=str(len(outcomes)),
        failures=str(sum(bool(outcome.differences) for outcome in outcomes)),
        time=f"{sum(outcome.seconds for outcome in outcomes):.6f}",
    )
    for outcome in outcomes:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            name=logs.escaped(outcome.case.name),
            classname=module.stem,
            time=f"{outcome.seconds:.6f}",
        )
        if outcome.differences:
            text = "\n".join(logs.escaped(difference) for difference in outcome.differences)
            ElementTree.SubElement(case, "failure", message=text.splitlines()[0]).text = text
    report: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return report


def _write(path: Path, report: bytes) -> None:
    try:
        path.write_bytes(report)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
