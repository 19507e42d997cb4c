"""The proxy's `config` block: what is for the agent, and what for the module."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from sentinel_wasm.client import ClientV1, ClientV2
from sentinel_wasm.errors import ModuleError
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.server.block import Block, parse
from sentinel_wasm.settings import Settings

from .conftest import StartAgent, until
from .guest.wat import binary
from .reloading import (
    TRAPS_ON_EVENTS,
    configure,
    next_result,
    put,
    reload,
    tagging,
    tags,
    unconfigurable,
)
from .scraping import LOCAL, Scraped
from .test_module_config import LOG, SAYS, file_for, said
from .upgrading import Upgrading
from .wat import module

pytestmark = pytest.mark.parallel

STARTED = Settings(module=Path("filter.wasm"), module_config='{"a":1}')
# Traps on events, and says what it is configured with.
FAILING = binary(
    module(
        SAYS + '(func (export "on_request_headers") (param i32 i32) (result i64) unreachable)', imports=LOG
    )
)


def assert_accepted(client: ClientV1 | ClientV2, config: Any) -> None:
    answer = configure(client, config)
    assert answer["decision"] == "allow", answer


def assert_rejected(client: ClientV1 | ClientV2, config: Any, reason: str) -> None:
    answer = configure(client, config)
    assert answer["decision"] == {
        "block": {"status": 500, "body": "Configuration rejected", "headers": None}
    }, answer
    (why,) = answer["audit"]["reason_codes"]
    assert reason in why


@pytest.mark.parametrize(
    ("config", "options", "for_module"),
    [
        (None, {}, '{"a":1}'),
        ({}, {}, '{"a":1}'),
        ({"pool-size": 8}, {"pool_size": 8}, '{"a":1}'),
        ({"pool_size": 8, "fail_open": True}, {"pool_size": 8, "fail_open": True}, '{"a":1}'),
        ({"timeout-ms": 5, "b": 2}, {"timeout_ms": 5}, '{"b":2}'),
        ({"workers": 8, "POOL-SIZE": 9}, {}, '{"workers":8,"POOL-SIZE":9}'),
        ([1], {}, "[1]"),
    ],
)
def test_a_block_is_divided_between_agent_and_module(
    config: Any, options: dict[str, Any], for_module: str
) -> None:
    settings = parse(config).over(STARTED)
    assert settings.module_config == for_module
    for option in ("pool_size", "fail_open", "timeout_ms"):
        assert getattr(settings, option) == options.get(option, getattr(STARTED, option))


def test_equal_blocks_are_equal() -> None:
    assert parse({"pool-size": 8, "fail-open": True}) == parse({"fail_open": True, "pool_size": 8})
    assert parse({}) == Block()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            {"pool-size": "8"},
            "pool-size in the proxy's config block is '8', expected a whole number from 1 to 256",
        ),
        (
            {"pool_size": 0},
            "pool_size in the proxy's config block is 0, expected a whole number from 1 to 256",
        ),
        ({"pool-size": 257}, "is 257, expected"),
        ({"pool-size": True}, "is true, expected"),
        ({"timeout-ms": 1.5}, "is 1.5, expected a whole number from 1 to 3600000"),
        ({"timeout-ms": None}, "is null, expected"),
        ({"fail-open": "yes"}, "is 'yes', expected true or false"),
        ({"fail-open": 1}, "is 1, expected true or false"),
        ({"pool-size": 1, "pool_size": 1}, "pool-size is in the proxy's config block twice"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(config: Any, reason: str) -> None:
    with pytest.raises(ModuleError) as error:
        parse(config)
    assert reason in str(error.value)
    assert error.value.kind == "refused"


def test_options_of_a_block_hold_in_the_agent_until_the_next(start_agent: StartAgent, tmp_path: Path) -> None:
    wasm = tmp_path / "filter.wasm"
    wasm.write_bytes(FAILING)
    agent = start_agent(None, "--config", str(file_for(wasm, "[module.config]\na = 1\n")), *LOCAL)
    with agent.v1() as old, agent.v2() as new:
        assert_accepted(old, {"pool-size": 2, "fail-open": True, "b": 2})
        until(lambda: Scraped(agent).value("instances") == 2)
        assert [line["text"] for line in said(agent)] == 4 * ['{"config":{"a":1}}'] + 2 * [
            '{"config":{"b":2}}'
        ]
        assert tags(new) == ["wasm-error", "fail-open"]

        assert_rejected(old, {"pool-size": 0}, "pool-size in the proxy's config block is 0, expected")
        assert_rejected(new, {"timeout-ms": "1"}, "timeout-ms in the proxy's config block is '1', expected")
        assert tags(new) == ["wasm-error", "fail-open"]
        assert Scraped(agent).value("instances") == 2

        # What the block does not say is as the agent was started.
        assert_accepted(new, {"pool_size": 3})
        until(lambda: Scraped(agent).value("instances") == 3)
        assert tags(old) == ["wasm-error"]
        assert [line["text"] for line in said(agent)][-1] == '{"config":{"a":1}}'
    page = Scraped(agent)
    assert page.by("decision", "decisions_total", hook="on_configure") == {"allow": 2, "block": 2}
    assert page.by("kind", "errors_total")["refused"] == 2
    assert agent.log.count("configuration rejected, the old one stays") == 2
    assert "Traceback" not in agent.log


def test_a_block_that_changes_nothing_makes_no_instance(start_agent: StartAgent, tmp_path: Path) -> None:
    """Each connection of a v1 proxy begins with the same one."""
    wasm = tmp_path / "filter.wasm"
    wasm.write_bytes(tagging("first"))
    agent = start_agent(wasm, *LOCAL)
    clients = [agent.v1() for _ in range(8)]
    block = {"pool-size": 2, "b": 2}
    for client in clients:
        client.send_event(EventKind.CONFIGURE, {"agent_id": "wasm", "config": block})
    for client in clients:
        assert b'"allow"' in client.receive()
    created = Scraped(agent).value("instances_created_total")
    assert created == 6
    for client in clients:
        assert_accepted(client, block)
        client.close()
    assert Scraped(agent).value("instances_created_total") == created
    until(lambda: Scraped(agent).value("instances") == 2)


def test_what_the_module_refuses_changes_nothing(start_agent: StartAgent, tmp_path: Path) -> None:
    wasm = tmp_path / "filter.wasm"
    wasm.write_bytes(unconfigurable("first"))
    agent = start_agent(wasm, "--pool-size", "1", *LOCAL)
    with agent.v1() as client:
        for options in ({}, {"pool-size": 3}):
            assert_rejected(client, {**options, "list": "x"}, "the module refuses it: no such list")
            assert Scraped(agent).value("instances") == 1
        assert tags(client) == ["first"]
        assert_accepted(client, {"pool-size": 3})
    until(lambda: Scraped(agent).value("instances") == 3)


def test_the_last_block_holds_after_a_reload(start_agent: StartAgent, tmp_path: Path) -> None:
    wasm = tmp_path / "filter.wasm"
    wasm.write_bytes(tagging("first"))
    configuration = file_for(wasm, "")
    agent = start_agent(None, "--config", str(configuration), *LOCAL)
    with agent.v1() as client:
        assert_accepted(client, {"pool-size": 2, "fail-open": True, "b": 2})
        put(wasm, FAILING)
        configuration.write_text("pool-size = 3\ntimeout-ms = 30\n" + configuration.read_text())
        assert reload(agent)["event"] == "reloaded"
        assert tags(client) == ["wasm-error", "fail-open"]
        until(lambda: Scraped(agent).value("instances") == 2)
        assert {line["text"] for line in said(agent) if "process" not in line} == {'{"config":{"b":2}}'}
        # It was tried beside the traffic first.
        assert [line["text"] for line in said(agent) if "process" in line] == ['{"config":{"b":2}}']
        assert_accepted(client, {})
        until(lambda: Scraped(agent).value("instances") == 3)
        assert tags(client) == ["wasm-error"]


def test_a_block_that_cannot_be_applied_in_time_is_rejected_in_time(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    """New instances of this module never start, once they are configured."""
    loops = module(
        """(func (export "on_configure") (param i32 i32) (result i64)
          (if (i32.gt_u (local.get 1) (i32.const 13)) (then (loop $for_ever (br $for_ever))))
          (i64.const 0))""",
        on_request_headers='{"decision":"allow","tags":["first"]}',
    )
    wasm = tmp_path / "filter.wasm"
    wasm.write_bytes(binary(loops))
    agent = start_agent(wasm, "--timeout-ms", "500", *LOCAL)
    with agent.v2() as client:
        for options in ({}, {"pool-size": 2}):
            answer = configure(client, {**options, "b": 2})
            assert answer["decision"]["block"]["status"] == 500
        assert tags(client) == ["first"]
    until(lambda: Scraped(agent).value("instances") == 4)
    assert "internal error" not in agent.log


def test_the_last_block_holds_after_an_upgrade_which_may_reload(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    wasm = tmp_path / "filter.wasm"
    wasm.write_bytes(FAILING)
    with Upgrading(start_agent(wasm, *LOCAL)) as upgrading, upgrading.agent.v1() as client:
        assert_accepted(client, {"fail-open": True, "b": 2})
        put(wasm, TRAPS_ON_EVENTS)
        upgrading.upgrade()
        assert tags(client) == ["wasm-error", "fail-open"]
        put(wasm, tagging("first"))
        os.kill(upgrading.pid, signal.SIGHUP)
        assert next_result(upgrading.agent, 0)["event"] == "reloaded"
        assert tags(client) == ["first"]
        put(wasm, TRAPS_ON_EVENTS)
        os.kill(upgrading.pid, signal.SIGHUP)
        assert next_result(upgrading.agent, 1)["event"] == "reloaded"
        assert tags(client) == ["wasm-error", "fail-open"]
