"""When a request is over: no event that its module has a hook for can follow."""

from __future__ import annotations

from collections.abc import Sequence

from sentinel_wasm.guest import abi, inputs

_NEVER = len(abi.HOOKS)

# A refusal here is the end of all.
_REFUSING = (abi.ON_REQUEST_HEADERS, abi.ON_REQUEST_BODY, abi.ON_WEBSOCKET_FRAME)


class Ends:
    """Of a module with these hooks."""

    def __init__(self, hooks: Sequence[bool]) -> None:
        self._has_frames = hooks[abi.ON_WEBSOCKET_FRAME]
        self._waits_for_completion = hooks[abi.ON_REQUEST_COMPLETE]
        self.last_hook = _NEVER
        """Whose event is the last, unless it opens a WebSocket. A guardrail's may come at any time."""
        if not hooks[abi.ON_GUARDRAIL]:
            there = (hook for hook in range(abi.ON_CONFIGURE) if hooks[hook])
            self.last_hook = max(there, default=_NEVER)

    def is_over(self, hook: int, *, refuses: bool, is_last: bool = True, event: bytes = b"") -> bool:
        """After an answer at this hook; `event` is what the module read, of headers."""
        if hook == abi.ON_REQUEST_COMPLETE:
            return True
        if refuses and hook in _REFUSING:
            return not self._waits_for_completion
        if hook < self.last_hook or hook == abi.ON_GUARDRAIL or not is_last:
            return False
        return not (self._has_frames and (hook == abi.ON_WEBSOCKET_FRAME or inputs.opens_websocket(event)))
