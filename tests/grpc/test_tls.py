"""TLS and mutual TLS, and what is wrong with their files, said in one line at the start."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from sentinel_wasm.cli.agent import main
from sentinel_wasm.errors import SocketError, UserError
from sentinel_wasm.grpc.check import check
from sentinel_wasm.settings import Address, Settings

from ..conftest import EXAMPLES, agents
from ..e2e.proxy import free_port
from ..test_cli import assert_one_line, run
from . import goclient
from .client import Client, request_headers

pytestmark = pytest.mark.parallel

SECURITY = EXAMPLES / "c" / "security.wasm"


@dataclass(frozen=True)
class Pair:
    cert: Path
    key: Path


class Authority:
    """Certificates by openssl, for localhost."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.own = self._made("ca", "-subj", "/CN=ca")

    def issue(self, name: str) -> Pair:
        signed = ("-CA", self.own.cert, "-CAkey", self.own.key)
        return self._made(name, "-subj", "/CN=x", "-addext", "subjectAltName=DNS:localhost", *signed)

    def _made(self, name: str, *words: str | Path) -> Pair:
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        files = ("-days", "2", "-keyout", pair.key, "-out", pair.cert)
        subprocess.run(["openssl", "req", "-x509", *curve, *files, *words], check=True, capture_output=True)
        return pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[int]:
    """The port of an agent that wants certificates of its clients."""
    port, own = free_port(), authority.issue("agent")
    files = ("--grpc-cert", own.cert, "--grpc-key", own.key, "--grpc-client-ca", authority.own.cert)
    with agents(tmp_path_factory) as start:
        start(SECURITY, "--grpc", f"localhost:{port}", *map(str, files))
        yield port


def asks(port: int, authority: Authority, pair: Pair | None) -> str | None:
    """What is decided. Raises grpc.RpcError."""
    files = (pair.key.read_bytes(), pair.cert.read_bytes()) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.own.cert.read_bytes(), *files)
    with Client(port, credentials) as client:
        decision: str | None = client.ask(request_headers("tls")).response.WhichOneof("decision")
    return decision


def test_a_proxy_with_a_certificate_is_answered(mutual: int, authority: Authority) -> None:
    assert asks(mutual, authority, authority.issue("proxy")) == "allow"


def test_a_proxy_without_one_is_not(mutual: int, authority: Authority) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        asks(mutual, authority, None)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_proxy_with_one_of_another_authority_is_not(
    mutual: int, authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        asks(mutual, authority, Authority(tmp_path).issue("other"))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_proxy_without_tls_is_not(mutual: int) -> None:
    with Client(mutual) as client, pytest.raises(grpc.RpcError) as raised:
        client.ask(request_headers("plain"))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def test_grpc_go_with_a_certificate(
    mutual: int, authority: Authority, go_client: Path, tmp_path: Path
) -> None:
    pair = authority.issue("go")
    files = ("-ca", authority.own.cert, "-cert", pair.cert, "-key", pair.key)
    said = goclient.ask(go_client, f"localhost:{mutual}", tmp_path, [{"ping": {"sequence": "3"}}], *files)
    assert said[0]["pong"]["sequence"] == "3"


# Mistakes


@pytest.fixture
def settings(authority: Authority) -> Settings:
    own = authority.issue("mistaken")
    return Settings(
        module=SECURITY,
        grpc=Address("127.0.0.1", free_port()),
        grpc_cert=own.cert,
        grpc_key=own.key,
        grpc_client_ca=authority.own.cert,
    )


def wrong(settings: Settings, **changes: Any) -> str:
    with pytest.raises(UserError) as raised:
        check(replace(settings, **changes))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_nothing_is_wrong(settings: Settings) -> None:
    check(settings)
    check(Settings(module=SECURITY))


def test_files_that_are_not_there(settings: Settings, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    for option in ("grpc_cert", "grpc_key", "grpc_client_ca"):
        name = option.replace("_", "-")
        said = wrong(settings, **{option: gone})
        assert said == f"cannot read --{name} {gone}: No such file or directory"


def test_files_that_are_no_certificates(settings: Settings, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for option in ("grpc_cert", "grpc_key", "grpc_client_ca"):
        said = wrong(settings, **{option: junk})
        assert f"--{option.replace('_', '-')} {junk}" in said
        assert "cannot be used: not PEM" in said


def test_a_key_of_another_certificate(settings: Settings, authority: Authority) -> None:
    assert wrong(settings, grpc_key=authority.own.key).endswith("they do not belong together")


def test_an_encrypted_key_is_not_asked_a_password_for(settings: Settings, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    assert settings.grpc_key is not None
    files = ("-in", str(settings.grpc_key), "-out", str(locked))
    command = ["openssl", "ec", "-aes256", "-passout", "pass:secret", *files]
    subprocess.run(command, check=True, capture_output=True)
    assert "encrypted" in wrong(settings, grpc_key=locked)


def test_an_address_that_is_taken_but_by_the_process_before(settings: Settings) -> None:
    assert settings.grpc is not None
    with socket.create_server(settings.grpc, reuse_port=True):
        with pytest.raises(SocketError, match=f"cannot listen on --grpc {settings.grpc}: Address already"):
            check(settings)
        check(replace(settings, takeover=True))


def test_an_address_of_another_machine(settings: Settings) -> None:
    assert "cannot listen on --grpc 192.0.2.1:9" in wrong(settings, grpc=Address("192.0.2.1", 9))


def test_a_name_one_of_whose_addresses_the_machine_has_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As localhost's ::1 in a container without IPv6; the resolver is made to say the like."""
    assert settings.grpc is not None
    port = settings.grpc.port
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    check(settings)
    with (
        socket.create_server(("127.0.0.1", port), reuse_port=True),
        pytest.raises(SocketError, match="Address already in use"),
    ):
        check(settings)


def test_without_the_extra_it_says_what_to_install(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentinel_wasm.grpc.check.find_spec", lambda name: None)
    assert wrong(settings) == "--grpc needs grpcio: pip install 'sentinel-wasm[grpc]'"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--grpc-cert", "c", "--grpc-key", "k"], "TLS is for --grpc"),
        (["--grpc", ":1", "--grpc-cert", "c"], "--grpc-cert and --grpc-key go together"),
        (["--grpc", ":1", "--grpc-key", "k"], "--grpc-cert and --grpc-key go together"),
        (["--grpc", ":1", "--grpc-client-ca", "a"], "--grpc-client-ca is for TLS"),
        (["--grpc", ":0", "--workers", "2"], "it cannot be 0"),
        (["--grpc", "nonsense"], "is not host:port"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--module", str(SECURITY), *options])
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_a_mistake_is_one_line_and_status_1(tmp_path: Path) -> None:
    files = ("--grpc-cert", tmp_path / "c", "--grpc-key", tmp_path / "k")
    done = run("--module", SECURITY, "--grpc", f":{free_port()}", *files)
    assert_one_line(done, 1, f"cannot read --grpc-cert {tmp_path / 'c'}")
