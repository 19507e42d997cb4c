"""Real agents with several modules: two proxies, metrics, the page, reloads, workers, upgrades."""

from __future__ import annotations

import signal
from pathlib import Path

import orjson
import pytest

from sentinel_wasm.client import request_headers
from sentinel_wasm.protocol.events import EventKind

from .conftest import StartAgent, until
from .guest import wat
from .reloading import TRAPS_AT_START, TRAPS_ON_EVENTS, configure, put, reload, tagging, tags
from .scraping import LOCAL, Scraped, get
from .test_chain import BLOCKS, FOREVER, chunk, doing
from .test_configure import assert_accepted, assert_rejected
from .test_module_config import LOG, SAYS, said
from .test_page import tried
from .upgrading import Upgrading
from .wat import module, refusing

pytestmark = pytest.mark.parallel

ALLOWS = '{"decision":"allow"}'
IS_SHORT = "(i32.lt_u (local.get 1) (i32.const 20))"
REFUSES = wat.binary(refusing("no list named x", IS_SHORT, on_request_headers=ALLOWS))


def chain_file(directory: Path, tables: str, **modules: bytes) -> Path:
    """A file of --config, with modules beside it."""
    for name, wasm in modules.items():
        (directory / f"{name}.wasm").write_bytes(wasm)
    path = directory / "agent.toml"
    path.write_text(tables)
    return path


def table(name: str, more: str = "") -> str:
    return f'[[module]]\npath = "{name}.wasm"\n{more}\n'


def test_modules_are_counted_and_shown_each_by_its_name(start_agent: StartAgent, tmp_path: Path) -> None:
    tables = table("one") + table("two", 'fail-open = true\nname = "second"') + table("one", "shadow = true")
    path = chain_file(tmp_path, tables, one=tagging("one"), two=TRAPS_ON_EVENTS)
    agent = start_agent(None, "--config", str(path), *LOCAL)
    with agent.v1() as old, agent.v2() as new:
        for client in (old, new):
            assert tags(client) == ["one", "wasm-error", "fail-open"]
        until(lambda: Scraped(agent).by("module", "shadow_events_total") == {"one-2": 2})
        status = orjson.loads(get(agent, "/status.json")[1])
        page = Scraped(agent)
    assert [(one["name"], one["is_shadow"]) for one in status["modules"]] == [
        ("one", False),
        ("second", False),
        ("one-2", True),
    ]
    assert status["errors"]["trap"]["reason"].startswith("second: trap")
    assert page.by("hook", "events_total") == {"on_request_headers": 2}
    assert page.by("module", "module_decisions_total", decision="allow") == {"one": 2, "second": 2}
    assert page.by("module", "errors_total", kind="trap") == {"second": 2}
    assert page.by("module", "guest_call_duration_seconds_count") == {"one": 2, "second": 2, "one-2": 2}
    assert page.by("module", "module_info") == {"one": 1, "second": 1, "one-2": 1}
    assert set(page.by("module", "guest_memory_limit_bytes")) == {"one", "second", "one-2"}
    assert page.by("result", "shadow_events_total") == {"same": 2}
    assert page.value("module_degraded", module="one") == 0
    (line,) = agent.lines("listening")
    assert [module.split()[0] for module in line["modules"]] == ["one", "second", "one-2"]
    failed = agent.lines("module failed")[0]
    assert (failed["name"], failed["answered"]) == ("second", "allow")


def test_a_request_is_tried_on_the_whole_chain(start_agent: StartAgent, tmp_path: Path) -> None:
    tables = table("one") + table("two") + table("two", "shadow = true")
    path = chain_file(tmp_path, tables, one=tagging("one"), two=tagging("two"))
    agent = start_agent(None, "--config", str(path), *LOCAL, "--workers", "2")
    (step,) = tried(agent)["steps"]
    assert (step["tags"], step["is_asked"]) == (["one", "two"], True)
    status = orjson.loads(get(agent, "/status.json")[1])
    assert [one["name"] for one in status["modules"]] == ["one", "two", "two-2"]


def test_one_module_that_is_worse_makes_the_agent_so(start_agent: StartAgent, tmp_path: Path) -> None:
    path = chain_file(tmp_path, table("one") + table("two"), one=tagging("one"), two=TRAPS_ON_EVENTS)
    agent = start_agent(None, "--config", str(path), *LOCAL)
    with agent.v2() as client:
        for number in range(15):
            tags(client, f"id-{number}")
    status, text = get(agent, "/readyz")
    assert status == 503
    assert text.startswith("two: the module keeps failing")
    assert Scraped(agent).by("module", "module_degraded") == {"two": 1}


def test_a_reload_exchanges_all_modules_or_none(start_agent: StartAgent, tmp_path: Path) -> None:
    path = chain_file(tmp_path, table("one") + table("two"), one=tagging("1"), two=tagging("2"))
    agent = start_agent(None, "--config", str(path), *LOCAL)
    with agent.v2() as client:
        assert tags(client) == ["1", "2"]
        put(tmp_path / "one.wasm", tagging("new 1"))
        put(tmp_path / "two.wasm", TRAPS_AT_START)
        result = reload(agent)
        assert result["event"].startswith("reload failed")
        assert f"{tmp_path}/two.wasm: cannot be started" in result["reason"]
        assert tags(client) == ["1", "2"]
        put(tmp_path / "two.wasm", tagging("new 2"))
        result = reload(agent)
        assert result["event"] == "reloaded"
        assert [text.split()[0] for text in result["modules"]] == ["one", "two"]
        assert tags(client) == ["new 1", "new 2"]
        assert reload(agent)["event"] == "reloaded: nothing has changed"
        # Another order, then one module only.
        path.write_text(table("two") + table("one"))
        reload(agent)
        assert tags(client) == ["new 2", "new 1"]
        assert Scraped(agent).by("module", "module_decisions_total") == {"one": 4, "two": 4}
        path.write_text(table("one"))
        reload(agent)
        assert tags(client) == ["new 1"]
        assert Scraped(agent).value("events_total", hook="on_request_headers") == 5
        assert Scraped(agent).by("module", "module_decisions_total") == {}


def test_every_file_is_watched(start_agent: StartAgent, tmp_path: Path) -> None:
    path = chain_file(tmp_path, table("one") + table("two"), one=tagging("1"), two=tagging("2"))
    agent = start_agent(None, "--config", str(path), "--watch")
    with agent.v1() as client:
        for number, name in enumerate(("two", "one"), 1):
            put(tmp_path / f"{name}.wasm", tagging("new"))
            until(lambda: len(agent.lines("reloaded")) == number)  # noqa: B023
        assert tags(client) == ["new", "new"]


def test_a_proxy_s_block_is_for_all_modules(start_agent: StartAgent, tmp_path: Path) -> None:
    says = wat.binary(module(SAYS, imports=LOG, on_request_headers=ALLOWS))
    tables = table("one", "[module.config]\na = 1") + table("two") + table("three", "shadow = true")
    path = chain_file(tmp_path, tables, one=says, two=tagging("two"), three=REFUSES)
    agent = start_agent(None, "--config", str(path), *LOCAL, "--pool-size", "1")
    assert [line["text"] for line in said(agent)] == ['{"config":{"a":1}}']
    with agent.v2() as client:
        assert_accepted(client, {"pool-size": 2, "list": "x" * 20})
        texts = [line["text"] for line in said(agent)][1:]
        assert texts == [f'{{"config":{{"list":"{"x" * 20}"}}}}'] * 2
        # A shadow that refuses it is left out.
        agent.wait_for_log("the shadow module is left out")
        assert agent.lines("the shadow module is left out")[0]["name"] == "three"
        until(lambda: Scraped(agent).value("instances") == 4)
        assert configure(client, {"pool-size": 2, "list": "x" * 20})["decision"] == "allow"
        assert len(agent.lines("the shadow module is left out")) == 1
        assert_rejected(client, {"pool-size": 0}, "pool-size in the proxy's config block is 0")
        assert tags(client) == ["two"]


def test_a_block_that_one_module_refuses_leaves_all_as_they_were(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    path = chain_file(tmp_path, table("one") + table("two"), one=tagging("one"), two=REFUSES)
    agent = start_agent(None, "--config", str(path), *LOCAL, "--pool-size", "1")
    with agent.v2() as client:
        assert_rejected(client, {"pool-size": 3, "list": "x" * 20}, "no list named x")
        assert tags(client) == ["one"]
        assert Scraped(agent).value("instances") == 2


def test_workers_have_the_whole_chain_and_so_has_the_next_process(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    path = chain_file(tmp_path, table("one") + table("two"), one=tagging("1"), two=tagging("2"))
    agent = start_agent(None, "--config", str(path), *LOCAL, "--workers", "2", "--pool-size", "1")
    with Upgrading(agent) as upgrading, agent.v2() as one, agent.v2() as other:
        assert [tags(client) for client in (one, other)] == [["1", "2"]] * 2
        assert Scraped(agent).by("module", "module_decisions_total") == {"one": 2, "two": 2}
        put(tmp_path / "two.wasm", tagging("new 2"))
        assert reload(agent)["event"] == "reloaded"
        assert [tags(client) for client in (one, other)] == [["1", "new 2"]] * 2
        upgrading.upgrade()
        assert [tags(client) for client in (one, other)] == [["1", "new 2"]] * 2


def test_shadows_that_hang_hold_up_no_answer_and_what_waits_for_them_is_bounded(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    """By the order of things: all is answered while the first call of each shadow goes on."""
    hangs = wat.binary(doing(FOREVER))
    hangs_on_bodies = wat.binary(doing(FOREVER, "on_request_body"))
    tables = (
        table("live") + table("hangs", "shadow = true\nqueue-limit = 5") + table("bodies", "shadow = true")
    )
    live = wat.binary(module(on_request_headers=BLOCKS, on_request_body=ALLOWS))
    path = chain_file(tmp_path, tables, live=live, hangs=hangs, bodies=hangs_on_bodies)
    patient = {"WASM_TIMEOUT_MS": "3600000", "WASM_PROXY_TIMEOUT_MS": "3600000"}
    agent = start_agent(None, "--config", str(path), *LOCAL, "--pool-size", "1", environment=patient)
    with agent.v2() as client:
        for number in range(20):
            answer = client.ask(EventKind.REQUEST_HEADERS, request_headers(f"id-{number}"))
            assert answer["decision"]["block"]["status"] == 451
        for number in range(20):
            answer = client.ask(
                EventKind.REQUEST_BODY_CHUNK, chunk(b"x" * 1_000_000, correlation_id=f"id-{number}")
            )
            assert answer["decision"] == "allow"
        page = Scraped(agent)
    assert page.by("module", "shadow_events_total", result="dropped") == {"hangs": 15, "bodies": 3}
    assert page.by("result", "shadow_events_total") == {"dropped": 18}
    assert page.by("module", "events_pending") == {"hangs": 5, "bodies": 17}
    agent.stop(signal.SIGKILL)
