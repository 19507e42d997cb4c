"""What the user can set: said once, with its option, variable and default."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args, get_type_hints

HeaderNames = Literal["canonical", "lower", "as-is"]
HeaderValues = Literal["joined", "list"]
ChallengeFallback = Literal["none", "block"]
Dispatch = Literal["auto", "inline", "threads"]
Isolation = Literal["pooled", "request"]
LogFormat = Literal["auto", "json", "text"]


_ADDRESS = re.compile(r"(?:\[([^\[\]\s]+)\]|([^\[\]:\s]*)):(\d{1,5})", re.ASCII)


class Address(NamedTuple):
    """Where to listen over TCP."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`host:port`, `[::1]:port`, or `:port` for 127.0.0.1. Raises ValueError that says what is wrong."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not host:port, [address]:port or :port")
    host, port = found[1] or found[2] or "127.0.0.1", int(found[3])
    if port > 65_535:
        raise ValueError(f"there is no port {port}")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"{host!r} is not a host's name") from None
    return Address(host, port)


class Form(NamedTuple):
    """What a text looks like: a regular expression for all of it, and the same in words."""

    pattern: str
    words: str


_DIGEST = Form("[0-9a-fA-F]{64}", "a SHA-256 digest, 64 hexadecimal digits")
_MODE = Form("0?[0-7]{3}", "a file mode in octal digits, as 0660")
_GROUP = Form(r"[^\u0000]+", "a group's name or number")


def _option(
    variable: str,
    help: str,
    *,
    choices: Any = None,
    short: str | None = None,
    most: int | None = None,
    form: Form | None = None,
    fixed: bool = False,
    **kwargs: Any,
) -> Any:
    metadata = {
        "variable": variable,
        "help": help,
        "choices": get_args(choices),
        "short": short,
        "most": most,
        "form": form,
        "fixed": fixed,
    }
    return field(metadata=metadata, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One agent's settings. Option names are the fields' with dashes; the CLI is made from them.

    `module_config` is no option: `[module.config]` of the configuration file as a JSON object's text, None
    where the file has none.
    """

    socket: Path = _option(
        "AGENT_SOCKET",
        "Unix socket to listen on.",
        default=Path("/tmp/sentinel-wasm.sock"),  # noqa: S108
        fixed=True,
    )
    module: Path = _option("WASM_MODULE", "The WebAssembly module (.wasm) to run; required.")
    pool_size: int = _option("WASM_POOL_SIZE", "Instances of the module.", default=4, most=256)
    workers: int = _option(
        "WASM_WORKERS",
        "Processes that share the connections: for quick modules on many cores.",
        default=1,
        most=64,
        fixed=True,
    )
    verbose: bool = _option("WASM_VERBOSE", "Log every decision.", default=False, short="v")
    fail_open: bool = _option(
        "FAIL_OPEN", "Allow when the module fails; otherwise block with 500.", default=False
    )
    log_decisions: float = _option(
        "WASM_LOG_DECISIONS",
        "Log the decisions on this share of requests, from 0 to 1: 0.01 is one in a hundred.",
        default=0.0,
    )
    log_format: LogFormat = _option(
        "WASM_LOG_FORMAT",
        "The log as JSON lines, as text, or as text on a terminal only (auto).",
        choices=LogFormat,
        default="auto",
        fixed=True,
    )
    header_names: HeaderNames = _option(
        "WASM_HEADER_NAMES",
        "How the module gets header names: User-Agent, user-agent, or as the proxy sent them.",
        choices=HeaderNames,
        default="canonical",
    )
    header_values: HeaderValues = _option(
        "WASM_HEADER_VALUES",
        "How the module gets several values of one header: joined with a comma, or always a list.",
        choices=HeaderValues,
        default="joined",
    )
    challenge_fallback: ChallengeFallback = _option(
        "WASM_CHALLENGE_FALLBACK",
        "Send a challenge as it is, or as a 403 for proxies that let challenges through.",
        choices=ChallengeFallback,
        default="none",
    )
    echo_response_bodies: bool = _option(
        "WASM_ECHO_RESPONSE_BODIES",
        "Over v2, send back a response body that the module leaves alone: the proxy cuts long ones.",
        default=True,
    )
    proxy_timeout_ms: int = _option(
        "WASM_PROXY_TIMEOUT_MS",
        "The proxy's timeout-ms: a v1 connection closes instead of answering an event later.",
        default=50,
        most=3_600_000,
        fixed=True,
    )
    timeout_ms: int = _option(
        "WASM_TIMEOUT_MS",
        "From an event's arrival to its answer (ms); the module is interrupted then. Proxies give up at 50.",
        default=40,
        most=3_600_000,
    )
    dispatch: Dispatch = _option(
        "WASM_DISPATCH",
        "Call the module on the event loop, on worker threads, or as its calls' length asks for.",
        choices=Dispatch,
        default="auto",
    )
    queue_limit: int = _option(
        "WASM_QUEUE_LIMIT",
        "With worker threads: events that may wait; more are answered at once, tagged wasm-overload.",
        default=1024,
        most=1_000_000,
    )
    isolation: Isolation = _option(
        "WASM_ISOLATION",
        "Instances that requests share, or a fresh one for each request.",
        choices=Isolation,
        default="pooled",
    )
    request_instances: int = _option(
        "WASM_REQUEST_INSTANCES",
        "With --isolation request: instances at once; beyond them the oldest ends.",
        default=256,
        most=10_000,
    )
    memory_limit: int = _option("WASM_MEMORY_LIMIT", "Memory of one instance (MiB).", default=64, most=4096)
    max_module_size: int = _option(
        "WASM_MAX_MODULE_SIZE", "A larger .wasm file is refused (MiB).", default=64, most=4096
    )
    sha256: str | None = _option(
        "WASM_SHA256",
        "The module's SHA-256 digest, in hexadecimal: a module with another one is refused.",
        form=_DIGEST,
        default=None,
    )
    socket_mode: str = _option(
        "WASM_SOCKET_MODE",
        "Mode of the socket's file, in octal: who may write to it may connect.",
        form=_MODE,
        default="0660",
        fixed=True,
    )
    socket_group: str | None = _option(
        "WASM_SOCKET_GROUP",
        "Group of the socket's file, by name or number: one that this process is a member of.",
        form=_GROUP,
        default=None,
        fixed=True,
    )
    admin: Address | None = _option(
        "WASM_ADMIN",
        "Address for metrics, health and a page over HTTP: host:port, or :port for 127.0.0.1.",
        default=None,
        fixed=True,
    )
    grpc: Address | None = _option(
        "WASM_GRPC_ADDRESS",
        "Address for proxies over gRPC too: host:port, or :port for 127.0.0.1; needs the extra grpc.",
        default=None,
        fixed=True,
    )
    grpc_cert: Path | None = _option(
        "WASM_GRPC_CERT",
        "With --grpc: TLS, by this certificate (PEM, with its chain).",
        default=None,
        fixed=True,
    )
    grpc_key: Path | None = _option(
        "WASM_GRPC_KEY", "The certificate's private key (PEM).", default=None, fixed=True
    )
    grpc_client_ca: Path | None = _option(
        "WASM_GRPC_CLIENT_CA",
        "Mutual TLS: proxies must have a certificate of these authorities (PEM).",
        default=None,
        fixed=True,
    )
    cache_dir: Path | None = _option(
        "WASM_CACHE_DIR",
        "Private directory that keeps compiled modules (~/.cache/sentinel-wasm); /dev/null for none.",
        default=None,
        fixed=True,
    )
    watch: bool = _option(
        "WASM_WATCH",
        "Reload when the module's file, or that of --config, has been replaced.",
        default=False,
        fixed=True,
    )
    takeover: bool = _option(
        "WASM_TAKEOVER",
        "Take the socket and the live connections over from the agent that has them, if one runs.",
        default=False,
        fixed=True,
    )
    module_config: str | None = None


class Wanted(NamedTuple):
    """What the user wants to run.

    `header_names_given`: --header-names was chosen, so there is no warning about lower-case names.
    """

    settings: Settings
    header_names_given: bool


class Source(Protocol):
    """Where that comes from: flags, variables and the file of --config (None: there is none)."""

    file: Path | None

    def read(self) -> Wanted:
        """As it is now. Raises UserError."""


class Option(NamedTuple):
    """One option as the command line, the configuration file and its schema have it.

    `kind` is bool, int, float, Path, Address, or str, of `choices` or of a `form`. An int is from 1 to
    `most`, a float from 0 to 1.
    `fixed`: a reload does not change it.
    """

    field: str
    name: str
    kind: type
    required: bool
    default: Any
    variable: str
    help: str
    choices: tuple[str, ...]
    short: str | None
    most: int | None
    form: Form | None
    fixed: bool


def options() -> list[Option]:
    """All of Settings' options, in its order; `default` is None for one that is required."""
    hints = get_type_hints(Settings)
    return [
        Option(
            field.name,
            field.name.replace("_", "-"),
            _kind(hints[field.name]),
            field.default is MISSING,
            None if field.default is MISSING else field.default,
            **field.metadata,
        )
        for field in fields(Settings)
        if field.metadata
    ]


def _kind(hint: Any) -> type:
    if hint in (Path, Path | None):
        return Path
    if hint == Address | None:
        return Address
    return str if get_args(hint) else hint
