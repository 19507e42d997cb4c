"""`sentinel-wasm test`: tables of cases, as module authors run them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from .conftest import EXAMPLES, BuildWat
from .guest import wat
from .test_call import PATIENT, run

pytestmark = pytest.mark.parallel

RUST = EXAMPLES / "rust" / "security.wasm"
GOOD = """
[[case]]
name = "scripts are turned away"
request = { uri = "/?q=<script>", headers = { user-agent = "Mozilla/5.0" } }
[case.expect]
decision = "block"
status = 403
body = "Forbidden"
tags = ["~^script-"]
rule_ids = ["SEC-003"]
confidence = 0.9
needs_more = false
request_headers = []

[[case]]
request = { headers = { user-agent = "Mozilla/5.0" } }
[case.expect]
decision = "allow"
request_headers = ["set X-Wasm-Processed: true", "~^set X-Client-IP: [0-9.]+$", "remove X-Debug"]

[[case]]
name = "responses are hardened"
hook = "on_response_headers"
event = { status = 200 }
expect = { tags = ["hardened"] }

[[case]]
name = "bodies are looked at"
hook = "on_request_body"
event = { data = "hello" }
expect = { decision = "allow", tags = ["body-clean"] }

[[case]]
name = "card numbers are masked"
hook = "on_response_body"
event = { data = "card 1234-5678-9012-3456" }
expect = { response_body = "card ****-****-****-3456" }
"""

ALLOWS_ONCE = wat.module(
    wat.data(wat.RESULT, b'{"decision":"allow"}'),
    wat.hook(
        "(if (i32.load (i32.const 256)) (then unreachable)) (i32.store (i32.const 256) (i32.const 1))"
        + wat.returns(wat.RESULT, 20)
    ),
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "cases.toml"


def test_a_table_that_is_right_passes(table: Path, tmp_path: Path) -> None:
    table.write_text(GOOD)
    report = tmp_path / "report.xml"
    done = run("test", *PATIENT, RUST, table, table, "--junit", report)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "passed  scripts are turned away"
    assert done.stdout.splitlines()[-1] == "10 passed, 0 failed"
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("10", "0")
    assert suite[0].get("name") == "scripts are turned away"


def test_what_differs_is_said(table: Path, tmp_path: Path) -> None:
    table.write_text(
        """
        [[case]]
        name = "wrong"
        request = { uri = "/?q=<script>" }
        expect = { decision = "allow", status = 404, tags = ["~^bot"], confidence = 0.9, needs_more = true }

        [[case]]
        name = "right"
        request = { uri = "/?q=<script>" }
        expect = { decision = "block" }
        """
    )
    report = tmp_path / "report.xml"
    done = run("test", *PATIENT, RUST, table, "--junit", report)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "FAILED  wrong",
        "        decision: expected 'allow', found 'block'",
        "        status: expected 404, found 403",
        "        tags: expected ['~^bot'], found ['script-injection']",
        "        needs_more: expected True, found False",
        "passed  right",
        "1 passed, 1 failed",
    ]
    failure = ElementTree.parse(report).getroot()[0][0]
    assert failure.get("message") == "decision: expected 'allow', found 'block'"


def test_a_failure_of_the_module_is_no_block_by_chance(table: Path, build_wat: BuildWat) -> None:
    traps = build_wat(wat.module(wat.hook("unreachable")))
    table.write_text('[[case]]\nname="a"\nexpect = { decision = "block" }\n')
    done = run("test", *PATIENT, traps, table)
    assert done.returncode == 1
    assert "the module failed (trap): " in done.stdout
    table.write_text('[[case]]\nname="a"\nexpect = { fails = "trap" }\n')
    assert run("test", *PATIENT, traps, table).returncode == 0


def test_no_case_sees_what_another_left_behind(table: Path, build_wat: BuildWat) -> None:
    table.write_text('[[case]]\nexpect = { decision = "allow" }\n' * 3)
    assert run("test", *PATIENT, build_wat(ALLOWS_ONCE), table).stdout.endswith("3 passed, 0 failed\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected [[case]] tables"),
        ("[case]\n", "expected [[case]] tables"),
        ("a = 1\n", "expected [[case]] tables"),
        ("[[case\n", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML: nested too deeply"),
        ("[[case]]\nexpect." + ".".join("a" * 5000) + " = 1", "is not TOML: nested too deeply"),
        ("[[case]]\n", "case 1: expect is missing"),
        ('[[case]]\nname = "x"\nexpekt = {}\n', "case 1: unknown expekt; there are name, hook"),
        ('[[case]]\nname = "x"\nexpect = { tag = [] }\n', "case 1 (x): expect: unknown tag"),
        ('[[case]]\nexpect = { tags = ["~["] }\n', "'~[' is no regular expression"),
        ('[[case]]\nexpect = { decision = "alow" }\n', "decision is 'alow', expected allow"),
        ('[[case]]\nexpect = { fails = "boom" }\n', "fails is 'boom', expected one of trap"),
        ('[[case]]\nhook = "on_x"\nexpect = { status = 1 }\n', "no hook 'on_x'"),
        (
            '[[case]]\nhook = "on_request_body"\nrequest = {}\nexpect = { status = 1 }\n',
            "another hook has event",
        ),
        ('[[case]]\nrequest = { url = "/" }\nexpect = { status = 1 }\n', "on_request_headers has no 'url'"),
        ("[[case]]\nname = 1\nexpect = { status = 1 }\n", "name is 1, expected a string"),
        ("[[case]]\nrequest = 1\nexpect = { status = 1 }\n", "its event is 1, expected a table"),
        ("case = [1]\n", "1 is no table"),
        (
            f'[[case]]\nhook = "on_request_body"\nevent.chunk_index = {2**64}\nexpect.status = 1\n',
            "case 1: an event of on_request_body that JSON cannot say: Integer exceeds 64-bit range",
        ),
    ],
)
def test_a_mistake_in_a_table_is_one_line(table: Path, text: str, says: str) -> None:
    table.write_text(text)
    done = run("test", *PATIENT, RUST, table)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"sentinel-wasm: {table}")
    assert says in line


def test_files_that_cannot_be_used_are_one_line(table: Path, tmp_path: Path) -> None:
    done = run("test", *PATIENT, RUST, tmp_path / "none.toml")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    table.write_text('[[case]]\nexpect = { decision = "allow" }\n')
    done = run("test", *PATIENT, RUST, table, "--junit", "/no/such/report.xml")
    assert "/no/such/report.xml cannot be written: No such file" in done.stderr
