"""What can be wrong with --grpc and its files, said before anything starts."""

from __future__ import annotations

import errno
import socket
import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sentinel_wasm.errors import SocketError, UserError
from sentinel_wasm.settings import Address, Settings

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def check(settings: Settings) -> None:
    """Raises UserError; SocketError where the address is taken, unless by the process before this one."""
    if settings.grpc is None:
        return
    if find_spec("grpc") is None or find_spec("grpc_health") is None:
        raise UserError("--grpc needs grpcio: pip install 'sentinel-wasm[grpc]'")
    if settings.grpc_cert is not None and settings.grpc_key is not None:
        _check_certificate(settings.grpc_cert, settings.grpc_key)
    if settings.grpc_client_ca is not None:
        _check_authorities(settings.grpc_client_ca)
    if not settings.takeover:
        _check_free(settings.grpc)


def _check_certificate(cert: Path, key: Path) -> None:
    _check_readable("--grpc-cert", cert)
    _check_readable("--grpc-key", key)
    try:
        # Without a password it would be asked for at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: b"")
    except ssl.SSLError as error:
        why = "they do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else _reason(error)
        raise UserError(f"--grpc-cert {cert} and --grpc-key {key} cannot be used: {why}") from None


def _check_authorities(path: Path) -> None:
    _check_readable("--grpc-client-ca", path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        raise UserError(f"--grpc-client-ca {path} cannot be used: {_reason(error)}") from None


def _check_readable(option: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {option} {path}: {error.strerror}") from None


def _reason(error: ssl.SSLError) -> str:
    return f"not PEM, or encrypted ({error.reason or 'SSL error'})"


def _check_free(address: Address) -> None:
    """The listeners share their port with others that do (SO_REUSEPORT), with whoever has it: not here."""
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SocketError(f"cannot listen on --grpc {address}: {error.strerror}") from None
    failed = [why for one in found if (why := _error_of(*one)) is not None]
    # A name may have addresses that this machine has not, as those of IPv6: gRPC does without them.
    wrong = [why for why in failed if why.errno not in _NOT_HERE]
    if not wrong and len(failed) == len(found):
        wrong = failed
    if wrong:
        raise SocketError(f"cannot listen on --grpc {address}: {wrong[0].strerror}")


def _error_of(family: int, kind: int, protocol: int, _: str, where: Any) -> OSError | None:
    try:
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)
    except OSError as error:
        return error
    return None
