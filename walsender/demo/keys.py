"""Single keys from a terminal, where there is one."""

from __future__ import annotations

import os
import select
import termios
import time
import tty
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType


class Input(Protocol):
    """Where keys may come from: standard input."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def isatty(self) -> bool:
        """Return whether it is a terminal."""


class Keys:
    """
    Gives keys as they are pressed, without Enter; puts the terminal back at the end.

    :ivar working: whether there is a terminal, and it is ours to read.
    """

    def __init__(self, source: Input | None) -> None:
        self._descriptor = -1
        if source is not None and source.isatty():
            self._descriptor = source.fileno()
        # Of a job in the background the terminal would make one that is stopped.
        self.working = self._descriptor >= 0 and os.tcgetpgrp(self._descriptor) == os.getpgrp()

    def __enter__(self) -> Self:
        if self.working:
            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)  # Ctrl-C stays a signal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0 and hasattr(self, "_before"):
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def wait(self, timeout_s: float) -> str:
        """Return the key that is pressed within this time, or nothing when it is over."""
        if not self.working:
            time.sleep(max(0.0, timeout_s))
            return ""
        if not select.select([self._descriptor], [], [], max(0.0, timeout_s))[0]:
            return ""
        key = os.read(self._descriptor, 1)
        self.working = bool(key)  # Ctrl-D, or the terminal is gone
        return key.decode(errors="replace").lower()
