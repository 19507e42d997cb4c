"""Whether files have been replaced since they were read.

By looking, not by inotify: that costs nothing to depend on, sees what a symlink leads to in the end (as
Kubernetes swaps `..data`), and works on every file system.
"""

from __future__ import annotations

from pathlib import Path

LOOK_S = 0.5

_Stamp = tuple[int, int, int, int]


class Files:
    """Files, as they are when they are read."""

    def __init__(self, *paths: Path | None) -> None:
        """These are looked at; None is no file."""
        self._read: dict[Path, _Stamp | None] = {}
        self._last: dict[Path, _Stamp | None] = {}
        for path in paths:
            self.note(path)

    def note(self, path: Path | None) -> None:
        """It is about to be read."""
        if path is not None:
            self._read[path] = _stamp(path)

    def forget_all_but(self, path: Path | None) -> None:
        self._read = {kept: stamp for kept, stamp in self._read.items() if kept == path}

    def have_changed(self) -> bool:
        """Whether one is another than was read. Asked every LOOK_S: one that is still being written has to
        be the same twice, and one that is missing is waited for.
        """
        read = self._read.copy()  # in another thread, files may be noted meanwhile
        now = {path: _stamp(path) for path in read}
        is_settled, self._last = now == self._last, now
        return is_settled and now != read and None not in now.values()


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
