"""Metrics and health of real agents: what is counted is what was sent."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import time
from collections import Counter

import orjson
import pytest

import sentinel_wasm
from sentinel_wasm.client import ClientV1, ClientV2, request_headers
from sentinel_wasm.errors import KINDS
from sentinel_wasm.metrics import FAMILIES, series, text
from sentinel_wasm.protocol.events import EventKind
from sentinel_wasm.server import usage

from .conftest import EXAMPLES, ROOT, BuildWat, StartAgent, cpu_seconds, until
from .guest import wat
from .scraping import LOCAL, Scraped, address, get
from .test_cli import run
from .test_workers import pid_of, starts_of

pytestmark = pytest.mark.parallel

HISTOGRAMS = ("event_duration_seconds", "guest_call_duration_seconds", "queue_wait_seconds")
FOREVER = "(loop $l (br $l))"
RESULTS = {
    "ALLOW": '{"decision":"allow","tags":["seen"]}',
    "BLOCK": '{"decision":"block"}',
    "REDIRECT": '{"decision":"redirect","body":"https://example.com/"}',
    "CHALLENGE": '{"decision":"challenge","challenge_type":"captcha"}',
    "NONSENSE": "[]",
}
TEXTS_AT = 20_000


def on(method: str, body: str) -> str:
    """What a hook does for requests with this method, told by its first letter."""
    letter = "(i32.load8_u offset=11 (local.get $p))"
    return f"(if (i32.eq {letter} (i32.const {ord(method[0])})) (then {body}))"


def obedient() -> str:
    """A module that does as the request's method says."""
    fields, body = [], on("TRAP", "unreachable") + on("FOREVER", FOREVER)
    for number, (method, result) in enumerate(RESULTS.items()):
        at = TEXTS_AT + 1000 * number
        fields.append(wat.data(at, result.encode()))
        body += on(method, f"(return {wat.returns(at, len(result))})")
    body += on("POINTER", f"(return {wat.returns(2**31, 10)})")
    body += on("EXIT", "(call $proc_exit (i32.const 3))")
    exits = wat.imported(f"{wat.WASI}.proc_exit", "i32")
    return wat.module(*fields, wat.hook(body + "(i64.const 0)"), imports=exits)


def ask(client: ClientV1 | ClientV2, method: str, identity: str = "id-1") -> dict[str, object]:
    return client.ask(EventKind.REQUEST_HEADERS, request_headers(identity, method=method))


def rejected(client: ClientV1 | ClientV2) -> bool:
    return ask(client, "GET")["decision"] != "allow"


@pytest.mark.parametrize("dispatch", ["inline", "threads"])
def test_counts_are_what_was_sent(start_agent: StartAgent, build_wat: BuildWat, dispatch: str) -> None:
    agent = start_agent(build_wat(obedient()), *LOCAL, "--dispatch", dispatch, "--timeout-ms", "700")
    sent: Counter[str] = Counter()
    with agent.v1() as old, agent.v2() as new:
        for method, times in [
            ("GET", 4),
            ("ALLOW", 3),
            ("BLOCK", 5),
            ("REDIRECT", 2),
            ("CHALLENGE", 3),
            ("TRAP", 1),
            ("NONSENSE", 2),
            ("POINTER", 1),
            ("EXIT", 1),
            ("FOREVER", 1),
        ]:
            for client in (old, new):
                for _ in range(times):
                    ask(client, method)
                    sent[method] += 1
        # Events that no hook is for, or that cannot be understood.
        new.ask(EventKind.RESPONSE_HEADERS, {"correlation_id": "id-1", "status": 200, "headers": {}})
        frame = {"correlation_id": "id-1", "opcode": "text", "data": "", "client_to_server": True}
        new.ask(EventKind.WEBSOCKET_FRAME, frame)
        old.ask(EventKind.REQUEST_HEADERS, {"correlation_id": 7})
        # A worker whose guest ran for ever may report after its event is answered.
        until(lambda: Scraped(agent).value("guest_call_duration_seconds_count") == sent.total())
        page = Scraped(agent)
        assert page.by("protocol", "connections_open") == {"v1": 1, "v2": 1}
    lost = sent["TRAP"] + sent["POINTER"] + sent["EXIT"] + sent["FOREVER"]
    failed = lost + sent["NONSENSE"]
    asked = "on_request_headers"
    assert page.by("decision", "decisions_total", hook=asked) == {
        "allow": sent["GET"] + sent["ALLOW"],
        "block": sent["BLOCK"] + failed,
        "redirect": sent["REDIRECT"],
        "challenge": sent["CHALLENGE"],
    }
    others = {"on_response_headers": 1, "on_websocket_frame": 1, "none": 1}
    assert page.by("hook", "events_total") == {asked: sent.total(), **others}
    assert page.by("kind", "errors_total") == {
        "trap": sent["TRAP"],
        "result": sent["NONSENSE"],
        "pointer": sent["POINTER"],
        "exit": sent["EXIT"],
        "deadline": sent["FOREVER"],
        "event": 1,
    }
    assert page.value("event_duration_seconds_count") == sent.total() + 3
    assert page.value("event_duration_seconds_sum") >= 0.7 * sent["FOREVER"]
    if dispatch == "threads":
        assert page.value("queue_wait_seconds_count") == sent.total()
    # A result of its own for v1 and v2 each, the first time.
    assert page.value("answer_cache_misses_total") == 2 * 2 + sent["NONSENSE"] + (dispatch == "threads") * 4
    assert page.value("connections_accepted_total") == 2
    assert page.value("instances_created_total") >= 4 + lost - 1
    assert page.value("guest_memory_bytes") > 0


def test_overload_is_counted(start_agent: StartAgent, build_wat: BuildWat) -> None:
    options = ("--dispatch", "threads", "--queue-limit", "1", "--pool-size", "1", "--timeout-ms", "500")
    agent = start_agent(build_wat(obedient()), *LOCAL, *options)
    with agent.v2() as client:
        for number, method in enumerate(["FOREVER", *["GET"] * 5]):
            client.send_event(EventKind.REQUEST_HEADERS, request_headers(f"id-{number}", method=method))
        for _ in range(5):
            assert "wasm-overload" in orjson.loads(client.receive())["audit"]["tags"]
        assert Scraped(agent).value("events_pending") == 1
        client.receive()
    page = Scraped(agent)
    assert page.by("kind", "errors_total") == {"overload": 5, "deadline": 1}
    assert page.by("decision", "decisions_total") == {"block": 6}
    assert page.value("event_duration_seconds_count") == 6
    until(lambda: Scraped(agent).value("queue_wait_seconds_count") == 1)
    until(lambda: Scraped(agent).value("events_pending") == 0)


def test_every_kind_of_event_is_counted_under_its_hook(start_agent: StartAgent) -> None:
    agent = start_agent(EXAMPLES / "rust" / "security.wasm", *LOCAL)
    chunk = {"correlation_id": "a", "data": "e30=", "is_last": True, "chunk_index": 0, "total_size": 2}
    with agent.v2() as client:
        client.ask(EventKind.CONFIGURE, {"correlation_id": "a", "agent_id": "x", "config": {"a": 1}})
        ask(client, "GET", "a")
        client.ask(EventKind.REQUEST_BODY_CHUNK, chunk)
        client.ask(EventKind.RESPONSE_HEADERS, {"correlation_id": "a", "status": 200, "headers": {}})
        client.ask(EventKind.RESPONSE_BODY_CHUNK, chunk)
        client.ask(
            EventKind.REQUEST_COMPLETE,
            {"correlation_id": "a", "status": 200, "duration_ms": 1, "request_body_size": 0},
        )
    page = Scraped(agent)
    hooks = page.by("hook", "events_total")
    assert hooks.pop("none", 0) == 0, agent.log
    assert set(hooks.values()) == {1}
    assert len(hooks) == 6
    assert page.value("event_duration_seconds_count") == 6


def test_the_page_is_valid_and_names_what_the_documentation_names(start_agent: StartAgent) -> None:
    agent = start_agent(EXAMPLES / "c" / "security.wasm", *LOCAL)
    with agent.v1() as client:
        ask(client, "GET")
    page = Scraped(agent)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page.text, re.MULTILINE))
    assert kinds == {family.name: family.kind for family in FAMILIES}
    assert re.findall(r"^# HELP (\S+)", page.text, re.MULTILINE) == [family.name for family in FAMILIES]
    series_line = re.compile(r'[a-z_]+(\{([a-z0-9_]+="[^"\\\n]*",?)+\})? [0-9.e+-]+')
    for line in page.text.splitlines():
        assert line.startswith("# ") or series_line.fullmatch(line), line
    names = [line.split(" ")[0] for line in page.text.splitlines() if line[0] != "#"]
    assert len(names) == len(set(names))
    documented = (ROOT / "docs" / "metrics.md").read_text()
    assert re.findall(r"^\| `((?:sentinel_wasm|process)_\w+)` \|", documented, re.MULTILINE) == list(kinds)
    assert set(re.findall(r"^\| `kind=\"(\w+)\"`", documented, re.MULTILINE)) == set(KINDS)
    for name in HISTOGRAMS:
        buckets = [value for _, value in page.by("le", f"{name}_bucket").items()]
        assert buckets == sorted(buckets)
        assert page.value(f"{name}_bucket", le="+Inf") == page.value(f"{name}_count")
    (info,) = page.by("version", "build_info")
    assert info == sentinel_wasm.__version__
    assert list(page.by("file", "module_info")) == ["security.wasm"]
    assert page.value("instances") == 4
    assert page.value("guest_memory_limit_bytes") == 4 * 64 * 2**20 > page.value("guest_memory_bytes")
    assert page.value("events_pending_limit") == 1024
    assert (page.value("workers_configured"), page.value("workers_alive")) == (1, 1)


def test_what_the_process_takes_is_what_the_kernel_says(start_agent: StartAgent) -> None:
    began = time.time()
    agent = start_agent(EXAMPLES / "c" / "security.wasm", *LOCAL)
    with contextlib.ExitStack() as clients:
        for _ in range(20):
            clients.enter_context(agent.v2())
        page = Scraped(agent)
        descriptors = len(os.listdir(f"/proc/{agent.process.pid}/fd"))
    assert abs(page.of_process("open_fds") - descriptors) <= 2  # the scrape's own connection
    assert page.of_process("max_fds") == resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE)[0]
    assert abs(page.of_process("resident_memory_bytes") / 2**20 - agent.rss_mib()) < 5
    assert abs(page.of_process("cpu_seconds_total") - cpu_seconds(agent.process.pid)) < 0.5
    assert page.of_process("cpu_seconds_total") > 0.01
    # The kernel counts its beginning in hundredths of a second.
    assert began - 0.1 < page.of_process("start_time_seconds") < time.time()


def test_descriptors_are_counted_on_kernels_that_do_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.2 the folder's size was 0: so it is a folder of size 0 here, with the same in it."""
    told = usage.samples()["process_open_fds"]
    monkeypatch.setattr(usage, "_told_descriptors", lambda: 0)
    assert usage.samples()["process_open_fds"] == told == len(os.listdir("/proc/self/fd")) - 1


def test_labels_are_escaped() -> None:
    name = series("module_info", file='a"b\\c\n\udcff')
    assert name == 'sentinel_wasm_module_info{file="a\\"b\\\\c\\n?"}'
    assert f"\n{name} 1\n".encode() in text({name: 1})


# --- health


def degrade(client: ClientV2) -> None:
    for number in range(10):
        ask(client, "TRAP", f"id-{number}")
        # The next needs an instance again, or it would be no failure of the module.
        time.sleep(0.02)


def test_ready_while_the_module_serves(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(obedient()), *LOCAL, "--pool-size", "1")
    assert get(agent, "/healthz") == (200, "ok\n")
    assert get(agent, "/readyz") == (200, "ready\n")
    with agent.v2() as client:
        degrade(client)
    status, body = get(agent, "/readyz")
    assert (status, body.count("\n")) == (503, 1)
    assert "the module keeps failing; last: trap: unreachable in on_request_headers" in body
    assert get(agent, "/healthz") == (200, "ok\n")
    page = Scraped(agent)
    assert (page.value("module_degraded"), page.value("module_unhealthy")) == (1, 0)
    with agent.v1() as proxy:
        assert rejected(proxy)
        asked = run("--check-health", "--admin", address(agent))
        assert asked.returncode == 1
        assert asked.stdout.startswith("the module keeps failing, and events are answered without it; last: ")
        assert get(agent, "/readyz") == (503, asked.stdout)
        page = Scraped(agent)
        assert (page.value("module_degraded"), page.value("module_unhealthy")) == (1, 1)
        until(lambda: not rejected(proxy))
    assert get(agent, "/readyz") == (200, "ready\n")
    page = Scraped(agent)
    assert (page.value("module_degraded"), page.value("module_unhealthy")) == (0, 0)
    errors = page.by("kind", "errors_total")
    assert errors["trap"] == 10
    assert errors["paused"] > 0
    assert page.by("decision", "decisions_total") == {"block": sum(errors.values()), "allow": 1}


def test_not_ready_while_the_agent_drains(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(obedient()), *LOCAL, "--dispatch", "threads")
    with agent.v2() as client:
        client.send_event(EventKind.REQUEST_HEADERS, request_headers("a", method="FOREVER"))
        until(lambda: Scraped(agent).value("events_pending") == 1)
        agent.process.send_signal(signal.SIGTERM)
        agent.wait_for_log("stopping")
        assert get(agent, "/readyz") == (503, "the agent is stopping\n")
        assert get(agent, "/healthz") == (200, "ok\n")
    assert agent.stop() == 0


# --- workers


def test_workers_are_counted_together_and_none_is_forgotten(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    began = time.time()
    agent = start_agent(build_wat(obedient()), *LOCAL, "--workers", "2")
    clients = [agent.v2() for _ in range(4)]
    for client in clients:
        for method in ("GET", "BLOCK", "BLOCK"):
            ask(client, method)
    page = Scraped(agent)
    assert page.by("decision", "decisions_total") == {"allow": 4, "block": 8}
    assert page.value("event_duration_seconds_count") == 12
    assert page.by("protocol", "connections_open") == {"v2": 4}
    assert page.value("instances") == 8
    assert sum(page.by("from_cache", "module_info").values()) == 2
    assert (page.value("workers_configured"), page.value("workers_alive")) == (2, 2)
    assert page.value("workers_died_total") == 0
    assert page.value("events_pending_limit") == 2 * 1024
    # Theirs and the parent's, whose start is the agent's.
    assert page.of_process("resident_memory_bytes") / 2**20 > 1.5 * agent.rss_mib()
    assert page.of_process("max_fds") == 3 * resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE)[0]
    assert began - 0.1 < page.of_process("start_time_seconds") < time.time()
    os.kill(pid_of(agent, 1), signal.SIGKILL)
    until(lambda: starts_of(agent, 1) == 2)
    after = Scraped(agent)
    assert all(after.counters[name] >= value for name, value in page.counters.items())
    assert after.by("decision", "decisions_total") == {"allow": 4, "block": 8}
    assert after.by("protocol", "connections_open") == {"v2": 2}
    assert (after.value("workers_died_total"), after.value("workers_alive")) == (1, 2)
    for client in clients:
        client.close()
    with agent.v1() as one, agent.v1() as other:
        ask(one, "GET")
        ask(other, "GET")
    assert Scraped(agent).by("decision", "decisions_total") == {"allow": 6, "block": 8}


def test_a_worker_that_does_not_report_is_counted_as_it_was(
    start_agent: StartAgent, build_wat: BuildWat
) -> None:
    agent = start_agent(build_wat(obedient()), *LOCAL, "--workers", "2")
    with agent.v2() as one, agent.v2() as other:
        ask(one, "GET")
        ask(other, "GET")
        assert Scraped(agent).by("decision", "decisions_total") == {"allow": 2}
        os.kill(pid_of(agent, 2), signal.SIGSTOP)
        ask(one, "GET")
        began = time.monotonic()
        assert Scraped(agent).by("decision", "decisions_total") == {"allow": 3}
        assert time.monotonic() - began < 4
        os.kill(pid_of(agent, 2), signal.SIGCONT)
        ask(other, "GET")
        until(lambda: Scraped(agent).by("decision", "decisions_total") == {"allow": 4})


def test_workers_are_ready_while_one_of_them_serves(start_agent: StartAgent, build_wat: BuildWat) -> None:
    agent = start_agent(build_wat(obedient()), *LOCAL, "--workers", "2", "--pool-size", "1")
    assert get(agent, "/readyz") == (200, "ready\n")
    with agent.v2() as one, agent.v2() as other:
        degrade(one)
        agent.wait_for_log("the module keeps failing")
        assert get(agent, "/readyz") == (200, "ready\n")
        degrade(other)
        until(lambda: get(agent, "/readyz") == (503, "the module keeps failing\n"))
        assert Scraped(agent).value("module_degraded") == 2
        assert rejected(one)
        assert rejected(other)
        unasked = "the module keeps failing, and events are answered without it\n"
        until(lambda: get(agent, "/readyz") == (503, unasked))
        assert Scraped(agent).value("module_unhealthy") == 2
    with agent.v1() as client:
        until(lambda: not rejected(client))
    until(lambda: get(agent, "/readyz") == (200, "ready\n"))
    assert Scraped(agent).value("module_degraded") == 1
