"""Events from a real client of another make: grpc-go."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

from . import goclient
from .client import PACKAGES, request_headers
from .conftest import Served

pytestmark = pytest.mark.parallel


@pytest.mark.parametrize("package", PACKAGES)
def test_a_stream_of_grpc_go(served: Served, go_client: Path, tmp_path: Path, package: str) -> None:
    uris = ["/deny" if number % 3 == 0 else "/" for number in range(30)]
    events = [MessageToDict(request_headers(f"g{number}", uri)) for number, uri in enumerate(uris)]
    handshake = {"handshake": {"supportedVersions": [2, 1], "configJson": "{}"}}
    options = ("-package", package)
    answers = goclient.ask(go_client, f"127.0.0.1:{served.port}", tmp_path, [handshake, *events], *options)
    assert answers[0]["handshake"]["success"] is True
    found = {answer["response"]["correlationId"]: answer["response"] for answer in answers[1:]}
    assert len(found) == len(answers) - 1 == len(events)
    for number, uri in enumerate(uris):
        assert ("block" in found[f"g{number}"]) is (uri == "/deny")
