"""[module.config] on its way to every instance of a module, in real agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from sentinel_wasm.client import request_headers
from sentinel_wasm.protocol.events import EventKind

from .conftest import BuildWat, RunningAgent, StartAgent, until
from .test_cli import ALLOW, assert_one_line, run
from .wat import module, refusing

pytestmark = pytest.mark.parallel

LOG = '(import "sentinel" "log" (func $log (param i32 i32 i32)))'
SAYS = """
  (func (export "on_configure") (param i32 i32) (result i64)
    (call $log (i32.const 2) (local.get 0) (local.get 1))
    (i64.const 0))
"""
SAYING = module(SAYS, imports=LOG, on_request_headers='{"decision":"allow"}')
SAYING_AND_FAILING = module(
    SAYS + '(func (export "on_request_headers") (param i32 i32) (result i64) unreachable)', imports=LOG
)
REFUSING = module(on_request_headers="{}", on_configure='{"error":"no list named x"}')
WARNING = "no on_configure"
MOST_BYTES = 300_000


# Wants a configuration of over `MOST_BYTES`, more than a socket takes in one message.
REFUSES_SHORT_ONES = refusing(
    "too short",
    f"(i32.gt_u (local.get 1) (i32.const {MOST_BYTES}))",
    on_request_headers='{"decision":"allow"}',
)


def file_for(wasm: Path, config: str) -> Path:
    """A file beside the module, which it names."""
    path = wasm.with_suffix(".toml")
    path.write_text(f'[module]\npath = "{wasm.name}"\n\n{config}')
    return path


def said(agent: RunningAgent) -> list[dict[str, Any]]:
    """The lines that guests have logged."""
    return [line for line in agent.lines() if line.get("source") == "log"]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_instance_of_every_process_starts_with_it(
    start_agent: StartAgent, build_wat: BuildWat, workers: int
) -> None:
    path = file_for(
        build_wat(SAYING), "[module.config]\nwords = ['a', 'é']\n[module.config.limits]\nsize = 1.5\n"
    )
    agent = start_agent(None, "--config", str(path), "--pool-size", "2", "--workers", str(workers))
    until(lambda: len(said(agent)) == 2 * workers)
    lines = said(agent)
    assert [orjson.loads(line["text"]) for line in lines] == 2 * workers * [
        {"config": {"words": ["a", "é"], "limits": {"size": 1.5}}}
    ]
    assert {line.get("worker") for line in lines} == ({1, 2} if workers == 2 else {None})
    assert WARNING not in agent.log


def test_an_instance_of_one_request_starts_with_it(start_agent: StartAgent, build_wat: BuildWat) -> None:
    path = file_for(build_wat(SAYING), "[module.config]\na = 1\n")
    agent = start_agent(None, "--config", str(path), "--isolation", "request")
    at_start = len(said(agent))
    with agent.v2() as client:
        client.ask(EventKind.REQUEST_HEADERS, request_headers("a"))
    until(lambda: len(said(agent)) > at_start)
    assert {line["text"] for line in said(agent)} == {'{"config":{"a":1}}'}


def test_an_instance_that_replaces_another_starts_with_it(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    path = file_for(build_wat(SAYING_AND_FAILING), "[module.config]\na = 1\n")
    agent = start_agent(None, "--config", str(path), "--pool-size", "1")
    with agent.v2() as client:
        client.ask(EventKind.REQUEST_HEADERS, request_headers("a"))
    until(lambda: len(said(agent)) == 2)
    assert {line["text"] for line in said(agent)} == {'{"config":{"a":1}}'}


def test_a_configuration_of_the_proxy_replaces_it(start_agent: StartAgent, build_wat: BuildWat) -> None:
    path = file_for(build_wat(SAYING), "[module.config]\na = 1\n")
    agent = start_agent(None, "--config", str(path), "--pool-size", "1", "--timeout-ms", "10000")
    with agent.v2() as client:
        answer = client.ask(EventKind.CONFIGURE, {"correlation_id": "c", "config": {"b": 2}})
    assert answer["decision"] == "allow"
    until(lambda: len(said(agent)) == 2)
    assert [line["text"] for line in said(agent)] == ['{"config":{"a":1}}', '{"config":{"b":2}}']


@pytest.mark.parametrize("config", ["", "[module.config]\n"])
def test_without_it_the_configuration_is_empty(
    start_agent: StartAgent, build_wat: BuildWat, config: str
) -> None:
    agent = start_agent(None, "--config", str(file_for(build_wat(SAYING), config)), "--pool-size", "1")
    until(lambda: len(said(agent)) == 1)
    assert [line["text"] for line in said(agent)] == ['{"config":{}}']


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_refusal_is_one_line_with_the_words_of_the_module_and_status_1(
    build_wat: BuildWat, tmp_path: Path, workers: str
) -> None:
    path = file_for(build_wat(REFUSING), "[module.config]\nlist = 'x'\n")
    done = run("--config", path, "--socket", tmp_path / "s", "--workers", workers)
    assert_one_line(done, 1, "cannot be started", "no list named x")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_long_one_reaches_every_process(
    start_agent: StartAgent, build_wat: BuildWat, tmp_path: Path, workers: str
) -> None:
    wasm = build_wat(REFUSES_SHORT_ONES)
    short = file_for(wasm, "[module.config]\ntext = ''\n")
    assert_one_line(run("--config", short, "--socket", tmp_path / "s"), 1, "too short")
    path = file_for(wasm, f"[module.config]\ntext = '{'x' * MOST_BYTES}'\n")
    start_agent(None, "--config", str(path), "--workers", workers)


@pytest.mark.parametrize("workers", ["1", "3"])
@pytest.mark.parametrize(("config", "times"), [("", 0), ("[module.config]\na = 1\n", 1)])
def test_a_module_that_cannot_be_given_it_is_warned_of_once(
    start_agent: StartAgent, build_wat: BuildWat, workers: str, config: str, times: int
) -> None:
    path = file_for(build_wat(ALLOW), config)
    agent = start_agent(None, "--config", str(path), "--workers", workers)
    until(lambda: agent.log.count(WARNING) >= times)
    assert agent.log.count(WARNING) == times


def test_options_of_the_file_hold_in_the_agent(start_agent: StartAgent, build_wat: BuildWat) -> None:
    path = file_for(build_wat(ALLOW), "")
    path.write_text("pool-size = 3\nverbose = true\n" + path.read_text())
    agent = start_agent(None, environment={"WASM_CONFIG": str(path)})
    assert orjson.loads(agent.wait_for_log("listening"))["pool_size"] == 3
    with agent.v2() as client:
        client.ask(EventKind.REQUEST_HEADERS, request_headers("id-1"))
    assert "id-1" in agent.wait_for_log("decided")


def test_header_names_of_the_file_are_a_choice(start_agent: StartAgent, build_wat: BuildWat) -> None:
    """So there is no warning about a module that looks up lower-case names."""
    wasm = build_wat(
        module('(data (i32.const 4096) "user-agent")', on_request_headers='{"decision":"allow"}')
    )
    path = file_for(wasm, "")
    assert "--header-names lower" in start_agent(None, "--config", str(path)).log
    path.write_text('header-names = "canonical"\n' + path.read_text())
    assert "--header-names lower" not in start_agent(None, "--config", str(path)).log
