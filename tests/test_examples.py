"""Every committed example module through one table of cases; and its source builds to the same behaviour."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.engine import make_engine
from sentinel_wasm.guest.instance import Instance
from sentinel_wasm.guest.limits import Limits
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.output import GuestOutput
from sentinel_wasm.protocol import answers
from sentinel_wasm.protocol.events import EventKind

from .conftest import EXAMPLES, RunningAgent, agents

pytestmark = pytest.mark.parallel

SECURITY = {name: EXAMPLES / name / "security.wasm" for name in ("c", "assemblyscript", "rust", "go")}
NO_TOOLCHAIN = 3

ENGINE = make_engine()


def expand(value: Any) -> Any:
    """Cases write a long string as {"$repeat": [text, times]}."""
    if isinstance(value, dict):
        if set(value) == {"$repeat"}:
            text, times = value["$repeat"]
            return text * times
        return {name: expand(item) for name, item in value.items()}
    return [expand(item) for item in value] if isinstance(value, list) else value


CASES = [expand(case) for case in json.loads((EXAMPLES / "cases.json").read_text())]


@cache
def instance_of(path: Path) -> Instance:
    # A generous limit: a machine under load must not make a module fail.
    instance = Instance(Module.load(ENGINE, path), Limits(event_ms=10_000), GuestOutput())
    instance.start_within(None, 10_000)
    return instance


def ask(path: Path, hook: str, data: Any) -> Any:
    result = instance_of(path).call(abi.HOOKS.index(hook), orjson.dumps(data), "case")
    return None if result is None else orjson.loads(result)


def assert_all_cases(path: Path) -> None:
    wrong = {case["name"]: ask(path, case["hook"], case["input"]) for case in CASES}
    wrong = {case["name"]: wrong[case["name"]] for case in CASES if wrong[case["name"]] != case["result"]}
    assert wrong == {}


def test_the_table_covers_every_hook_and_decision() -> None:
    assert len(CASES) >= 45
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert {case["hook"] for case in CASES} == set(abi.HOOKS[:4])
    assert {case["result"]["decision"] for case in CASES} == {"allow", "block", "challenge"}


@pytest.mark.parametrize("language", SECURITY)
def test_every_language_gives_the_results_of_the_table(language: str) -> None:
    assert_all_cases(SECURITY[language])


def test_every_result_of_the_table_is_a_decision() -> None:
    for case in CASES:
        if is_sane(case["input"]):
            abi.parse_result(orjson.dumps(case["result"]), abi.HOOKS.index(case["hook"]))


def is_sane(given: Any) -> bool:
    """The filter copies two fields into its answer as they are; line ends and odd numbers fail there."""
    if not isinstance(given, dict):
        return True
    index = given.get("chunk_index", 0)
    return str(given.get("client_ip")).isprintable() and isinstance(index, int) and 0 <= index < 2**32


@pytest.fixture(scope="module", params=list(SECURITY))
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with agents(tmp_path_factory) as start:
        yield start(SECURITY[request.param])


def test_the_agent_answers_with_what_the_table_says(agent: RunningAgent) -> None:
    """Request headers as proxies send them: lower-case names, an address with a port."""
    with agent.v2() as client:
        for case in CASES:
            given = case["input"]
            if case["hook"] != "on_request_headers" or not is_whole_request(given):
                continue
            answer = ask_agent(client, given)
            decision = abi.parse_result(orjson.dumps(case["result"]), abi.ON_REQUEST_HEADERS)
            wanted = answers.with_correlation_id(answers.encode(decision, 2), given["correlation_id"])
            assert in_any_order(answer) == in_any_order(orjson.loads(wanted)), case["name"]


def in_any_order(answer: dict[str, Any]) -> dict[str, Any]:
    """Languages differ in the order in which they write the names of an object."""
    return {**answer, "request_headers": sorted(answer["request_headers"], key=str)}


def is_whole_request(given: Any) -> bool:
    """Not one of the inputs that no agent would make."""
    return (
        isinstance(given, dict)
        and all(isinstance(given.get(name), str) for name in ("method", "uri", "client_ip", "correlation_id"))
        and isinstance(given.get("headers"), dict)
        and given["correlation_id"] != ""
        and is_sane(given)
        and given["client_ip"].count(":") == 0
        and all(isinstance(value, str) for value in given["headers"].values())
        and all(name.title() == name for name in given["headers"])
    )


def ask_agent(client: ClientV2, given: dict[str, Any]) -> dict[str, Any]:
    payload = request_headers(
        given["correlation_id"],
        given["method"],
        given["uri"],
        {name.lower(): [value] for name, value in given["headers"].items()},
        f"{given['client_ip']}:53818",
    )
    return client.ask(EventKind.REQUEST_HEADERS, payload)


# --- the published page's two Rust examples


@pytest.mark.parametrize(
    ("uri", "result"),
    [
        ("/admin", {"decision": "block", "status": 403, "body": "Forbidden"}),
        ("/x/admin?y", {"decision": "block", "status": 403, "body": "Forbidden"}),
        ("/", {"decision": "allow"}),
        ("/Admin", {"decision": "allow"}),
    ],
)
def test_the_published_admin_example(uri: str, result: dict[str, Any]) -> None:
    given = {"method": "GET", "uri": uri, "client_ip": "1.2.3.4", "correlation_id": "c", "headers": {}}
    assert ask(EXAMPLES / "rust" / "published_admin.wasm", "on_request_headers", given) == result


CAPTCHA = {
    "decision": "challenge",
    "challenge_type": "captcha",
    "challenge_params": {"site_key": "your-captcha-site-key"},
    "tags": ["suspicious-ua"],
}
JS_CHALLENGE = {"decision": "challenge", "challenge_type": "js_challenge", "tags": ["no-user-agent"]}


@pytest.mark.parametrize(
    ("headers", "result"),
    [
        ({}, JS_CHALLENGE),
        ({"User-Agent": ""}, JS_CHALLENGE),
        ({"User-Agent": "ExampleBot/1"}, CAPTCHA),
        ({"User-Agent": "curl/8"}, CAPTCHA),
        ({"User-Agent": "Mozilla/5.0"}, {"decision": "allow"}),
        ({"user-agent": "Mozilla/5.0"}, JS_CHALLENGE),
    ],
)
def test_the_published_bot_example(headers: dict[str, str], result: dict[str, Any]) -> None:
    given = {"method": "GET", "uri": "/", "client_ip": "1.2.3.4", "correlation_id": "c", "headers": headers}
    found = ask(EXAMPLES / "rust" / "published_bot.wasm", "on_request_headers", given)
    assert {name: value for name, value in found.items() if value != []} == result


# --- the ABI without an SDK


@pytest.mark.parametrize("language", ["assemblyscript", "c", "rust"])
def test_the_bare_example(language: str) -> None:
    result = ask(EXAMPLES / language / "bare.wasm", "on_response_headers", {"status": 200})
    assert result == HARDENED


HARDENED = {
    "decision": "allow",
    "add_response_headers": {"X-Frame-Options": "DENY"},
    "remove_response_headers": ["Server"],
}


# --- building from source


@pytest.mark.parametrize("language", ["c", "assemblyscript"])
def test_the_source_builds_to_a_module_that_passes(language: str, tmp_path: Path) -> None:
    """These two always: ci/toolchains.sh installs their compilers."""
    subprocess.run([build_script(language, tmp_path), tmp_path], check=True, timeout=300)
    assert_all_cases(tmp_path / "security.wasm")


def test_the_same_source_gives_the_same_bytes_in_another_directory(tmp_path: Path) -> None:
    """C alone, whose compiler is quick: ci/reproducible_examples.sh does it for all."""
    for place in ("one", "another/below"):
        here = tmp_path / place
        here.mkdir(parents=True)
        subprocess.run([build_script("c", here), here], check=True, timeout=300)
    for name in ("security.wasm", "bare.wasm"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "another/below" / name).read_bytes()


@pytest.mark.parametrize("language", ["rust", "go"])
def test_the_source_builds_where_the_compiler_is_there(language: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [build_script(language, tmp_path), tmp_path], timeout=600, capture_output=True, text=True
    )
    if done.returncode == NO_TOOLCHAIN:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert_all_cases(tmp_path / "security.wasm")
    if language == "go":  # whose bare.wasm is too large to be committed
        assert ask(tmp_path / "bare.wasm", "on_response_headers", {"status": 200}) == HARDENED


def build_script(language: str, tmp_path: Path) -> Path:
    """A copy of the example's source: what was built in the checkout by hand must not help."""
    built = shutil.ignore_patterns("*.wasm", "target", "node_modules")
    for folder in (language, "sdk"):
        shutil.copytree(EXAMPLES / folder, tmp_path / "source" / folder, ignore=built)
    return tmp_path / "source" / language / "build.sh"
