"""
What one statement may cost, so that no query, however it is meant, takes the server's time or memory.

Everything that loops asks `Budget.step`, everything that builds text asks `Budget.take`.  That is why
patterns are matched by code of our own (`walsender.sql.patterns`): Python's would hold the interpreter.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

from .errors import LimitExceeded, StatementTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")
Row = TypeVar("Row", bound="Sequence[object]")

MAX_SECONDS: Final = 2.0
MAX_BYTES: Final = 16 << 20
MAX_ROWS: Final = 100_000

# What Python does with one text it does without letting other threads run: some milliseconds for this many
# characters, whatever it is.
MAX_TEXT: Final = 1 << 20

_EVERY: Final = 256  # steps between two looks at the clock

# A thread that computes keeps the interpreter for 5 ms at a time (`sys.getswitchinterval`), which whoever
# streams WAL would wait for.  So it rests in between, for as short as the kernel can.
_REST_EVERY: Final = 0.0005  # seconds
_REST: Final = 0.00001  # seconds

_ROW_BYTES: Final = MAX_BYTES // MAX_ROWS
_VALUE_BYTES: Final = 64  # what is not longer comes with its row
_ITEM_BYTES: Final = 8
_MAX_KEYS: Final = 8 << 20


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

        :raises LimitExceeded: there is no memory left, or no text may be so long.
        """
        check_length(size)
        self._take(size)

    def _take(self, size: int) -> None:
        self._bytes -= size
        if self._bytes < 0:
            raise LimitExceeded(
                "statement needs too much memory", detail=f"It may use {MAX_BYTES >> 20} MB here."
            )

    def made(self, value: T) -> T:
        """
        Account for a value that has been computed, and return it.

        :raises LimitExceeded: there is no memory left, or it is too long.
        """
        size = _size(value)
        if size > _VALUE_BYTES:
            self.step(size)
            self.take(size)
        return value

    def keep_row(self, row: Sequence[object] = ()) -> None:
        """Account for a row that is kept."""
        self.step()
        self._take(max(_ROW_BYTES, _VALUE_BYTES * len(row)))

    def kept(self, rows: Iterable[Row]) -> list[Row]:
        """Return *rows*, as many as there may be."""
        found = []
        for row in rows:
            self.keep_row(row)
            found.append(row)
        return found

    def sorted_by(self, keys: Iterable[object]) -> None:
        """
        Account for rows that are about to be sorted by *keys*, without letting other threads run.

        :raises LimitExceeded: there is too much to compare.
        """
        size = 0
        for key in keys:
            self.step()
            size += _size(key)
        if size > _MAX_KEYS:
            raise LimitExceeded(
                "statement has too much to sort", detail=f"Its keys may be {_MAX_KEYS >> 20} MB here."
            )


def check_length(size: int) -> None:
    """
    Check that a text of *size* characters may be made.

    :raises LimitExceeded: no text may be so long.
    """
    if size > MAX_TEXT:
        raise LimitExceeded(
            "value is too long", detail=f"A text or an array may have {MAX_TEXT >> 20} MB here."
        )


def _size(value: object) -> int:
    """Return how many bytes a text or an array has, about; 0 of anything else."""
    if isinstance(value, str):
        return len(value)
    return sum(_ITEM_BYTES + _size(one) for one in value) if isinstance(value, tuple) else 0
