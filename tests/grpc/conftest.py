"""One agent for most tests, and the client in Go, built once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..conftest import RunningAgent, agents
from ..e2e.modules import slow_or_denies
from ..e2e.proxy import free_port
from ..guest.wat import binary
from ..scraping import LOCAL
from . import goclient

RESPONSES = '{"decision":"allow","add_response_headers":{"X-A":"\\"1\\""},"routing_metadata":{"pool":"b"}}'
BODIES = '{"decision":"block","request_body_mutation":{"action":"replace","data":"x","chunk_index":0}}'


@dataclass(frozen=True)
class Served:
    agent: RunningAgent
    port: int


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Takes 300 ms for /slow and blocks /deny; says what gRPC cannot carry at other events."""
    module = tmp_path_factory.mktemp("module") / "grpc.wasm"
    text = slow_or_denies(on_response_headers=RESPONSES, on_request_body=BODIES)
    module.write_bytes(binary(text))
    port = free_port()
    with agents(tmp_path_factory) as start:
        yield Served(start(module, "--grpc", f":{port}", "--dispatch", "threads", *LOCAL), port)


@pytest.fixture(scope="session")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return goclient.built(tmp_path_factory.mktemp("go"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the client in Go cannot be built: {error.stderr[-500:]}")
