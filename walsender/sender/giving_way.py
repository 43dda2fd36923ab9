"""
Reading cold WAL at a pace, while standbys that are level wait for small commits.

A flush waits behind whatever the disk is reading, and the processor is shared as well.  So while there
is somebody who is level and is sent a little now and then, a reader of cold WAL gets it by small reads with
pauses between them, and is sent it seldom: less than the disk can do, and far more than that little, so that
it overtakes (docs/performance.md has what either suffers).  Nobody gives way to nobody; and what small reads
cannot keep up to the pace, on a disk that takes its time for each, larger ones do.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Final

from walsender.wal import prefetch

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from walsender.sender.slot_table import SlotTable
    from walsender.source import IWalSource

SMALL: Final = 64 << 10
"""Bytes of a read that a flush need not wait for long; less costs more of the processor than it spares."""

LARGE: Final = 512 << 10
"""Bytes of a read by which a disk gives about all that it can."""

PIECES: Final = 4
"""
How many of a client's pieces are read, and then sent, at a time.

A commit that meets a sending is held up, by a little one hardly less than by this.  So sendings are few:
eight a second, of 4 MiB, at the default rate to a client that takes large pieces, each of less than a
millisecond.
"""

LIVE_FOR: Final = 1.0
"""Seconds without new WAL after which nobody waits for any."""

_CREDIT: Final = 0.001  # seconds; what is read takes as long to send, and that is made good without pauses
_LEAST: Final = 4 << 20  # bytes per second; a thread is not held for seconds
_LATE: Final = 0.0015  # seconds; who is later needs larger reads
_OFTEN: Final = 8  # reads in time, after which smaller ones are tried
_LOOK_EVERY: Final = 0.1  # seconds; it takes a look at all standbys
_MOST: Final = 4  # of a pace, the part that new WAL may come at; with more, catching up matters more
_NEAR: Final = 1 << 20  # bytes; whoever is so close is not catching up


class GivingWay:
    """
    Whether readers of cold WAL have to give way.

    :param source: of the WAL.
    :param standbys: who is sent it.
    :ivar rate: bytes per second for each reader who gives way; 0: nobody does.  May be changed at any time.
    """

    def __init__(self, source: IWalSource, standbys: SlotTable, clock: IReactorTime, rate: int) -> None:
        self.rate = rate
        self._source = source
        self._standbys = standbys
        self._clock = clock
        self._position = 0
        self._looked_at = self._grew_at = float("-inf")
        self._due = False

    def due(self) -> int:
        """Return *rate* if it is so now, else 0; who reads asks again and again, once there is WAL."""
        return self.rate if self.rate and self._is_due() else 0

    def _is_due(self) -> bool:
        now = self._clock.seconds()
        passed = now - self._looked_at
        if passed < _LOOK_EVERY:
            return self._due
        position = self._source.flush_position
        grown = position - self._position
        self._looked_at, self._position = now, position
        if (
            passed <= LIVE_FOR and 0 < grown * _MOST < max(self.rate, _LEAST) * passed
        ):  # after a longer time it may have grown long ago
            self._grew_at = now
        self._due = now - self._grew_at < LIVE_FOR and self._somebody_is_level(position)
        return self._due

    def _somebody_is_level(self, position: int) -> bool:
        near = self._source.geometry.lsn(max(0, position - _NEAR))
        return any(entry.sent_lsn >= near for entry in self._standbys)


class Pace:
    """
    One reader's; for one thread at a time.

    :param now: returns seconds.
    :param sleep: waits for some seconds.
    """

    def __init__(
        self, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._size = SMALL
        self._on_time = 0  # how many reads have been, one after the other
        self._next = 0.0  # when the next read is to begin

    def read_through(self, rate: int, descriptor: int, offset: int, length: int) -> None:
        """
        Make the kernel read a range, in a thread; errors are left to whoever reads it for good.

        :param rate: bytes per second; less than four megabytes count as four.
        """
        end = offset + length
        self._next = max(self._next, self._now() - _CREDIT)  # a client that takes little is not late
        with contextlib.suppress(OSError):
            while offset < end:
                size = min(self._size, end - offset)
                # It comes during the pause, at the end of which nothing is waited for if the disk is fast.
                prefetch(descriptor, offset, size)
                self._next += size / max(rate, _LEAST)
                pause = self._next - self._now()
                if pause > 0:
                    self._sleep(pause)
                read = len(os.pread(descriptor, size, offset))
                if not read:
                    break
                offset += read
                self._choose_size(self._now() - self._next)

    def _choose_size(self, late: float) -> None:
        """Choose how much to read next, after a read that was there *late* seconds after its time."""
        self._on_time += 1
        if late > _LATE:
            self._size = min(LARGE, self._size * 2)
            self._next += late - _LATE
            self._on_time = 0
        elif self._on_time >= _OFTEN:
            self._size = max(SMALL, self._size // 2)
            self._on_time = 0
