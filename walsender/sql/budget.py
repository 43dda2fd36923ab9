"""
What one statement may cost, so that no query, however it is meant, takes the server's time or memory.

Everything that loops asks `Budget.step`, everything that builds text asks `Budget.take`.  That is why
patterns are matched by code of our own (`walsender.sql.patterns`): Python's would hold the interpreter.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from .errors import LimitExceeded, StatementTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SECONDS: Final = 2.0
MAX_BYTES: Final = 16 << 20
MAX_ROWS: Final = 100_000

_EVERY: Final = 256  # steps between two looks at the clock

# A thread that computes keeps the interpreter for 5 ms at a time (`sys.getswitchinterval`), which whoever
# streams WAL would wait for.  So it rests in between, for as short as the kernel can.
_REST_EVERY: Final = 0.0005  # seconds
_REST: Final = 0.00001  # seconds

_ROW_BYTES: Final = MAX_BYTES // MAX_ROWS


class Budget:
    """
    The bounds of one statement.

    :param seconds: of time.
    :param clock: seconds of a clock that is never set back.
    :param rest: lets other threads run for some seconds.
    :ivar cancelled: the client wants no answer any more; set from any thread.
    """

    def __init__(
        self,
        seconds: float = MAX_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        rest: Callable[[float], object] = time.sleep,
    ) -> None:
        self._clock = clock
        self._rest = rest
        self._seconds = seconds
        self._rested = clock()
        self._end = self._rested + seconds
        self._steps = 0
        self._bytes = MAX_BYTES
        self.cancelled = False

    def step(self, count: int = 1) -> None:
        """
        Account for *count* rows looked at or characters compared.

        :raises StatementTimeout: there is no time left.
        """
        self._steps += count
        if self._steps >= _EVERY:
            self._steps = 0
            if self.cancelled:
                raise StatementTimeout("canceling statement due to user request")
            now = self._clock()
            if now - self._rested >= _REST_EVERY:
                self._rest(_REST)
                self._rested = self._clock()
            if now > self._end:
                raise StatementTimeout(
                    "canceling statement due to statement timeout",
                    detail=f"A statement may take {self._seconds:g} s here.",
                )

    def take(self, size: int) -> None:
        """
        Account for a text of *size* characters.

        :raises LimitExceeded: there is no memory left.
        """
        self._bytes -= size
        if self._bytes < 0:
            raise LimitExceeded(
                "statement needs too much memory", detail=f"It may use {MAX_BYTES >> 20} MB here."
            )

    def keep_row(self) -> None:
        """Account for a row that is kept."""
        self.step()
        self.take(_ROW_BYTES)
