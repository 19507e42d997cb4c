"""What was compiled is kept, and used again only where it is whole, ours and meant for this engine."""

from __future__ import annotations

import os
import platform
import pwd
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import wasmtime
from structlog.testing import capture_logs
from wasmtime import _ffi as ffi

from sentinel_wasm.client import request_headers
from sentinel_wasm.errors import ModuleLoadError
from sentinel_wasm.guest import abi, cache
from sentinel_wasm.guest.cache import KEPT, Cache
from sentinel_wasm.guest.engine import Engine, make_engine
from sentinel_wasm.guest.limits import MIB
from sentinel_wasm.guest.module import Module
from sentinel_wasm.protocol.events import EventKind

from ..conftest import EXAMPLES, RunningAgent, StartAgent
from . import wat
from .conftest import started_instance

pytestmark = pytest.mark.parallel

WASM = wat.binary(wat.module(wat.says('{"decision":"allow"}')))
NO_HOOK = wat.binary(wat.module())
NOBODY = 65534
PROCESSOR_FLAG = b"has_sse3" if platform.machine() == "x86_64" else b"has_lse"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "made" / "here"


def load(directory: Path | None, wasm: bytes = WASM, engine: Engine | None = None) -> bool:
    """Whether the module, which works, was kept."""
    module = Module(engine or make_engine(), wasm, "filter.wasm", Cache(directory))
    instance = started_instance(module)
    assert instance.call(abi.HOOKS.index("on_request_headers"), b"{}", "id") == b'{"decision":"allow"}'
    instance.close()
    return module.from_cache


def other_module(number: int) -> bytes:
    return wat.binary(wat.module(wat.says('{"decision":"allow"}'), wat.data(8, b"%d" % number)))


def the_file(directory: Path) -> Path:
    (file,) = directory.iterdir()
    return file


def reasons(log: list[Any]) -> list[str]:
    return [line["reason"] for line in log]


# --- kept and found


def test_a_module_is_compiled_once(directory: Path, log: list[Any]) -> None:
    assert [load(directory) for _ in range(3)] == [False, True, True]
    assert log == []


def test_only_its_owner_can_read_or_write_it(directory: Path) -> None:
    old = os.umask(0)
    try:
        load(directory)
    finally:
        os.umask(old)
    assert directory.stat().st_mode & 0o7777 == 0o700
    assert the_file(directory).stat().st_mode & 0o7777 == 0o600


def test_nothing_is_kept_where_none_is_wanted(log: list[Any]) -> None:
    assert [load(Path("/dev/null")) for _ in range(2)] == [False, False]
    assert log == []


def test_another_module_is_another_file(directory: Path) -> None:
    load(directory)
    assert not load(directory, other_module(1))
    assert load(directory)
    assert load(directory, other_module(1))
    assert len(list(directory.iterdir())) == 2


def engine_with(change: Callable[[wasmtime.Config], None]) -> Engine:
    config = wasmtime.Config()
    config.epoch_interruption = True
    change(config)
    return Engine(config, 64 * MIB)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: setattr(config, "cranelift_opt_level", "none"),
        lambda config: setattr(config, "wasm_relaxed_simd", False),
        lambda config: ffi.wasmtime_config_cranelift_flag_set(config.ptr(), PROCESSOR_FLAG, b"false"),
    ],
    ids=["optimisation", "proposal", "processor"],
)
def test_another_setting_is_another_file(
    directory: Path, log: list[Any], change: Callable[[wasmtime.Config], None]
) -> None:
    load(directory, engine=engine_with(lambda config: None))
    assert not load(directory, engine=engine_with(change))
    assert load(directory, engine=engine_with(lambda config: None))
    assert load(directory, engine=engine_with(change))
    assert log == []


def test_with_and_without_pooling_are_two_files(directory: Path, log: list[Any]) -> None:
    load(directory)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 46, hard))
    try:
        unpooled = make_engine()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert "address space" in log.pop()["event"]
    assert not load(directory, engine=unpooled)
    assert load(directory, engine=unpooled)
    assert load(directory)
    assert log == []


def test_another_version_of_wasmtime_is_another_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(directory)
    monkeypatch.setattr(cache, "wasmtime_version", lambda: "50.0.99")
    assert not load(directory)


def test_the_number_of_instances_is_not_compiled_in(directory: Path) -> None:
    load(directory, engine=make_engine(instances=4))
    assert load(directory, engine=make_engine(instances=40))


def test_a_module_that_is_refused_is_refused_again(directory: Path, log: list[Any]) -> None:
    said = []
    for _ in range(2):
        with pytest.raises(ModuleLoadError, match="on_request_headers") as refused:
            load(directory, NO_HOOK)
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert log == []


def test_a_smaller_memory_limit_refuses_what_a_larger_one_let_in(directory: Path, log: list[Any]) -> None:
    large = wat.binary(wat.module(wat.says('{"decision":"allow"}'), pages=512))
    load(directory, large, make_engine(memory_bytes=64 * MIB))
    with pytest.raises(ModuleLoadError, match="more than --memory-limit allows"):
        load(directory, large, make_engine(memory_bytes=16 * MIB))
    assert log == []


# --- what is found and cannot be used


def damaged(raw: bytes, at: int) -> bytes:
    at %= len(raw)
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:10],
        lambda raw: raw[:32],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: damaged(raw, 0),
        lambda raw: damaged(raw, 32),
        lambda raw: damaged(raw, len(raw) // 2),
        lambda raw: damaged(raw, -1),
    ],
    ids=["empty", "10", "32", "half", "short", "long", "bit 0", "bit 32", "bit half", "bit last"],
)
def test_a_damaged_file_is_made_anew(
    directory: Path, log: list[Any], damage: Callable[[bytes], bytes]
) -> None:
    load(directory)
    whole = the_file(directory).read_bytes()
    the_file(directory).write_bytes(damage(whole))
    assert not load(directory)
    assert reasons(log) == ["it is damaged"]
    assert the_file(directory).read_bytes() == whole
    assert load(directory)
    assert len(log) == 1


def test_a_file_under_another_name_is_not_loaded(directory: Path, log: list[Any]) -> None:
    load(directory)
    first = the_file(directory)
    load(directory, other_module(1))
    (second,) = set(directory.iterdir()) - {first}
    first.replace(second)
    assert not load(directory, other_module(1))
    assert reasons(log) == ["it is damaged"]


@pytest.mark.parametrize("artefact", [b"", b"nothing like it", b"\x7fELF" + bytes(1000)])
def test_what_wasmtime_does_not_take_is_made_anew(directory: Path, log: list[Any], artefact: bytes) -> None:
    load(directory)
    file = the_file(directory)
    file.write_bytes(cache._digest(file.name, artefact) + artefact)
    assert not load(directory)
    assert len(log) == 1
    assert "damaged" not in log[0]["reason"]
    assert load(directory)


def test_what_another_engine_compiled_is_made_anew(directory: Path, log: list[Any]) -> None:
    load(directory)
    file = the_file(directory)
    foreign = engine_with(lambda config: setattr(config, "epoch_interruption", False))
    artefact = wasmtime.Module(foreign, WASM).serialize()
    file.write_bytes(cache._digest(file.name, artefact) + artefact)
    assert not load(directory)
    assert "epoch" in log[0]["reason"]
    assert load(directory)


def as_link(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent / "elsewhere")


def as_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (as_link, "symbolic links"),
        (as_fifo, "damaged"),
        (lambda file: file.chmod(0o620), "0620"),
        (lambda file: file.chmod(0o602), "0602"),
        pytest.param(lambda file: os.chown(file, NOBODY, -1), "belongs to user 65534", marks=needs_root),
    ],
    ids=["link", "fifo", "group", "others", "owner"],
)
def test_a_file_that_is_not_ours_alone_is_made_anew(
    directory: Path, log: list[Any], change: Callable[[Path], None], reason: str
) -> None:
    load(directory)
    change(the_file(directory))
    assert not load(directory)
    assert len(log) == 1
    assert reason in log[0]["reason"]
    assert load(directory)
    assert the_file(directory).stat(follow_symlinks=False).st_mode == 0o100600


# --- a cache that cannot be used costs one line


def as_file(directory: Path) -> None:
    directory.rmdir()
    directory.touch()


def as_foreign_link(directory: Path) -> None:
    directory.rename(directory.parent / "theirs")
    os.chown(directory.parent / "theirs", NOBODY, -1)
    directory.symlink_to(directory.parent / "theirs")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (as_file, "Not a directory"),
        (lambda directory: directory.chmod(0o770), "its mode 0770 lets others write"),
        (lambda directory: directory.chmod(0o1777), "its mode 1777 lets others write"),
        pytest.param(lambda path: os.chown(path, NOBODY, -1), "belongs to user 65534", marks=needs_root),
        pytest.param(as_foreign_link, "belongs to user 65534", marks=needs_root),
    ],
    ids=["file", "group", "others", "owner", "link"],
)
def test_a_directory_that_is_not_ours_alone_is_left_alone(
    directory: Path, log: list[Any], change: Callable[[Path], None], reason: str
) -> None:
    directory.mkdir(parents=True)
    change(directory)
    assert not load(directory)
    (line,) = log
    assert line["log_level"] == "warning"
    assert reason in line["reason"]
    assert "--cache-dir" in line["hint"]
    assert line["directory"] == str(directory)
    assert not directory.is_dir() or list(directory.iterdir()) == []


def test_a_link_to_a_directory_of_ours_is_followed(directory: Path) -> None:
    """systemd has one with DynamicUser=."""
    directory.mkdir(parents=True)
    link = directory.parent / "link"
    link.symlink_to(directory)
    load(link)
    assert load(directory)


@pytest.mark.parametrize("place", ["/proc/nothing/here", "/proc/self"], ids=["not made", "not written"])
def test_a_file_system_that_takes_nothing_costs_one_line(log: list[Any], place: str) -> None:
    assert not load(Path(place))
    (line,) = log
    assert "not kept" in line["event"]


def test_a_full_disk_costs_one_line_and_leaves_nothing(directory: Path, log: list[Any]) -> None:
    directory.mkdir(mode=0o700, parents=True)
    engine = make_engine()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert not Cache(directory).module(engine, WASM)[1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert reasons(log) == ["File too large"]
    assert list(directory.iterdir()) == []
    assert [load(directory), load(directory)] == [False, True]


# --- where it is


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CACHE_DIRECTORY": "/var/cache/a", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/var/cache/a"),
        ({"CACHE_DIRECTORY": "/var/cache/a:/var/cache/b"}, "/var/cache/a"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/sentinel-wasm"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/sentinel-wasm"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/sentinel-wasm"),
    ],
)
def test_the_directory_is_the_services_or_the_users(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache.default_directory() == Path(expected)


def test_a_user_without_a_home_costs_one_line(monkeypatch: pytest.MonkeyPatch, log: list[Any]) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert not load(None)
    assert reasons(log) == ["the user has no home directory"]


# --- how much


def test_the_last_used_are_kept(directory: Path) -> None:
    engine = make_engine()
    for number in range(KEPT):
        load(directory, other_module(number), engine)
        newest = max(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    note = directory / "note.txt"
    note.touch()
    os.utime(note, (0, 0))
    unfinished = directory / f"{'a' * 64}.{'b' * 16}"
    unfinished.touch()
    os.utime(unfinished, (0, 0))
    assert load(directory, other_module(0), engine)
    load(directory, WASM, engine)
    assert note.exists()
    assert not unfinished.exists()
    note.unlink()
    assert len(list(directory.iterdir())) == KEPT
    assert load(directory, other_module(0), engine)
    assert load(directory, other_module(2), engine)
    assert not load(directory, other_module(1), engine)


# --- several at once


def test_starts_at_the_same_time_find_a_whole_file_or_none(directory: Path) -> None:
    wasm = (EXAMPLES / "rust" / "security.wasm").read_bytes()
    Module(make_engine(), wasm, "filter.wasm", Cache(directory))
    file = the_file(directory)
    kept = []
    stop = threading.Event()

    def start() -> None:
        engine = make_engine()
        while not stop.is_set():
            kept.append(Cache(directory).module(engine, wasm)[1])

    threads = [threading.Thread(target=start) for _ in range(3)]
    with capture_logs() as log:
        for thread in threads:
            thread.start()
        for _ in range(10):
            file.unlink(missing_ok=True)
            stop.wait(0.1)
        stop.set()
        for thread in threads:
            thread.join()
    assert log == []
    assert True in kept
    assert False in kept
    assert list(directory.iterdir()) == [file]


# --- the agent


def from_cache(agent: RunningAgent) -> bool:
    """Of an agent that answers."""
    with agent.v2() as client:
        answer = client.ask(EventKind.REQUEST_HEADERS, request_headers("a", uri="/admin"))
    assert answer["decision"]["block"]["status"] == 401
    listening: dict[str, Any] = orjson.loads(agent.wait_for_log("listening"))
    return bool(listening["from_cache"])


MODULE = EXAMPLES / "c" / "security.wasm"


def test_an_agent_keeps_its_module_for_the_next(start_agent: StartAgent, directory: Path) -> None:
    option = ("--cache-dir", str(directory))
    assert [from_cache(start_agent(MODULE, *option)) for _ in range(2)] == [False, True]
    assert not from_cache(start_agent(MODULE, *option, "--memory-limit", "32"))
    assert from_cache(start_agent(MODULE, environment={"WASM_CACHE_DIR": str(directory)}))
    assert not from_cache(start_agent(MODULE, "--cache-dir", "/dev/null"))


def test_an_agent_whose_cache_anybody_could_write_compiles(start_agent: StartAgent, directory: Path) -> None:
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    for _ in range(2):
        agent = start_agent(MODULE, "--cache-dir", str(directory))
        assert not from_cache(agent)
        assert agent.log.count("lets others write") == 1
    assert list(directory.iterdir()) == []
