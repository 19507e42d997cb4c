"""Which wasmtime is installed, without loading it."""

from __future__ import annotations

import sys
from functools import lru_cache
from glob import glob

_BEFORE, _AFTER = "wasmtime-", ".dist-info"


@lru_cache(maxsize=1)
def wasmtime_version() -> str:
    """As importlib.metadata has it, which is asked where directories' names leave doubt: to load it is a
    tenth of an agent's start. Raises PackageNotFoundError, an ImportError.
    """
    found = {name for path in sys.path for name in glob(f"{_BEFORE}*{_AFTER}", root_dir=path or None)}
    if len(found) == 1:
        return found.pop()[len(_BEFORE) : -len(_AFTER)]
    from importlib.metadata import version

    return version("wasmtime")
