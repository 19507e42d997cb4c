"""What can go wrong, and whose fault it is: the user's, the module's, the proxy's.

SentinelWasmError
├── UserError           the person who starts the agent can mend it; the CLI prints it as one line
│   ├── ConfigurationError  the configuration file cannot be used; exit status 2 instead of 1
│   ├── ModuleLoadError     the .wasm file cannot be used
│   └── SocketError         the socket path cannot be used
├── ModuleError         the module failed on one event: answered by the fail-open rule
│   ├── GuestFault          and its instance can no longer be trusted
│   ├── ResultError         its result breaks the ABI; the instance is sound
│   ├── TooLate             it was not asked: the event's time was over
│   └── Overload            it was not asked: more events come than it can take
└── ProtocolError       the proxy sent something that is not the protocol
    ├── FrameError          the connection cannot go on
    ├── RefusedError        a proxy of --connect does not take this agent
    ├── LateAnswerError     v1 only: an answer would be taken for the next event's
    └── EventError          only this event cannot be understood
"""

from __future__ import annotations

KINDS = (
    "trap",  # the guest trapped
    "exit",  # it called proc_exit or abort
    "deadline",  # it was interrupted, or its worker did not report in time
    "late",  # the deadline had passed before it could be asked
    "memory",  # it, or the agent, had no memory left for it
    "pointer",  # it gave a buffer outside its memory
    "result",  # its result breaks the ABI
    "refused",  # its on_configure returned an error
    "paused",  # it keeps failing, and is not started for now
    "overload",  # more events came than it can take
    "event",  # the proxy's event could not be understood
    "internal",  # a defect of this agent
)
"""What events fail by: ModuleError's `kind`, and the last two."""


class SentinelWasmError(Exception):
    """The base of every error this package raises on purpose."""


class UserError(SentinelWasmError):
    """A mistake in options, paths or files; the message says what to do."""


class ConfigurationError(UserError):
    """The configuration file cannot be read, or something in it is wrong; the message has file and line."""


class ModuleLoadError(UserError):
    """The module cannot be loaded: not wasm, wrong exports, unknown imports, a failing start function."""


class SocketError(UserError):
    """The socket path is taken or cannot be made."""


class ModuleError(SentinelWasmError):
    """The module failed on one event; `str(error)` is the reason an operator reads, `kind` one of KINDS."""

    kind = "internal"

    def __init__(self, reason: str, kind: str | None = None) -> None:
        super().__init__(reason)
        if kind is not None:
            self.kind = kind


class GuestFault(ModuleError):
    """A trap, an exit or a bad pointer: the instance is thrown away.

    `code` is wasmtime's trap code (wasmtime/trap.h), or None where there is none.
    """

    kind = "trap"

    def __init__(self, reason: str, code: int | None = None, kind: str | None = None) -> None:
        super().__init__(reason, kind)
        self.code = code


class ResultError(ModuleError):
    """The result is not what guest-abi.md, "What the hooks return", allows."""

    kind = "result"


class TooLate(ModuleError):
    """The event's deadline has passed before the module could be asked."""

    kind = "late"


class Overload(ModuleError):
    """More events come than the module can take: this one is answered without it."""

    kind = "overload"


class ProtocolError(SentinelWasmError):
    """The peer broke the agent protocol."""


class FrameError(ProtocolError):
    """Framing is lost or not allowed: the connection closes."""


class RefusedError(ProtocolError):
    """A proxy that this agent has connected to does not take it; the message is the proxy's reason."""


class LateAnswerError(ProtocolError):
    """The proxy has given the event up: the connection closes instead of answering."""


class EventError(ProtocolError):
    """An event of unknown shape in an intact frame: answered by the fail-open rule."""
