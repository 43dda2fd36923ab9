"""A bar for whoever waits at a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from walsender.wal import DecompressingFiles, FileKind, FileOperations, parse_file_name

if TYPE_CHECKING:
    from collections.abc import Callable

_WIDTH: Final = 40
_PERIOD: Final = 0.1  # seconds between two pictures


class Terminal(Protocol):
    """Where the bar is drawn, if it is one."""

    def write(self, text: str, /) -> object:
        """Write *text*."""

    def flush(self) -> object:
        """Hand over what was written."""

    def isatty(self) -> bool:
        """Return whether this is a terminal."""


class Bar:
    """
    How far a check is; nothing is drawn where there is no terminal.

    :param total: how many segments there are.
    """

    def __init__(self, terminal: Terminal, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal = terminal
        self._total = max(1, total)
        self._clock = clock
        self._is_shown = terminal.isatty()
        self._drawn_at = float("-inf")

    def show(self, done: int, name: str) -> None:
        """Show that so many segments are done, and which one is being read."""
        now = self._clock()
        if not self._is_shown or now - self._drawn_at < _PERIOD:
            return
        self._drawn_at = now
        part = min(1.0, done / self._total)
        bar = "#" * int(part * _WIDTH)
        self._terminal.write(f"\r\x1b[2K[{bar:{_WIDTH}}] {part:4.0%} {name}")
        self._terminal.flush()

    def clear(self) -> None:
        """Leave the line empty for what is written next."""
        if self._is_shown:
            self._terminal.write("\r\x1b[2K")
            self._terminal.flush()
            self._drawn_at = float("-inf")


class WatchedFiles(DecompressingFiles):
    """
    Files whose segments are told when they are opened.

    :param opened: is called with the name of each.
    """

    def __init__(self, files: FileOperations, opened: Callable[[str], object]) -> None:
        super().__init__(files)
        self._opened = opened

    def open(self, path: str) -> int:
        """See `walsender.wal.FileOperations`."""
        descriptor = super().open(path)
        name = path.rpartition("/")[2]
        if parse_file_name(name).kind is not FileKind.HISTORY:
            self._opened(name)
        return descriptor
