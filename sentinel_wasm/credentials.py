"""Which headers carry credentials: their values are shown to nobody."""

from __future__ import annotations

import re

MASK = "(masked)"

# Besides the registered names, what applications call theirs: X-Api-Key, X-Amz-Security-Token, X-Session-Id.
_NAMES = re.compile(
    r"authorization|authentication-info|cookie|token|secret|passw(or)?d|passphrase|session|credential|signature"
    r"|assertion|api[-_]?key|access[-_]?key|private[-_]?key|(^|[-_])(auth|jwt|key|pwd|sid)([-_]|$)",
    re.IGNORECASE,
)


def is_credential(name: str) -> bool:
    """Whether the values of headers of this name are secret."""
    return _NAMES.search(name) is not None


def masked(name: str, value: str) -> str:
    """A header's value as it may be shown."""
    return MASK if is_credential(name) else value
