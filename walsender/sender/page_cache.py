"""
Is WAL in the page cache, and if not, getting it there without stopping the reactor.

``pread`` and ``splice`` wait for the disk on a cold page, and every other
standby would wait with them.  So before a range is read in the reactor's thread
some of its pages are asked for with ``RWF_NOWAIT``, which fails instead of
waiting; a range that is not there is read once in a thread.  A window
larger than one read is warmed, so that a reader of cold WAL makes one trip to
a thread per window and not per message.

Only a few pages of a window are asked for, and its last: pages come in and leave in long
runs, in the order in which they are read, and asking for each would cost as much as copying it.

What one stream has found others need not ask for again, for a moment: each call lets another thread have
the interpreter, and with twenty clients that cost more than anything else.

How much a reader of cold WAL has under way at the disk is bounded, and the kernel's own
read-ahead, which has megabytes under way, is off (`walsender.source.OpenSegment`): a flush
waits behind what is under way, and the standbys that are level wait for the flush
(docs/performance.md).  While there are such, less still is asked for, and not at once
(`walsender.sender.giving_way`).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from walsender.sender.giving_way import PIECES, Pace
from walsender.wal import prefetch

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from walsender.source import OpenSegment, WalSlice

WARM_WINDOW: Final = 1 << 20  # bytes
_PROBE_EVERY: Final = 256 << 10  # bytes
_READ: Final = 128 << 10  # bytes
_AHEAD: Final = 256 << 10  # bytes
_STAYS: Final = 1.0  # seconds for which what was in the page cache is taken to be there
_MOST_SEEN: Final = 256  # windows of a segment
_CATCHING_UP: Final = 64 << 10  # bytes; a reader of such pieces will want what follows

# Runs a callable in a thread; a Deferred of its result fires in the reactor's thread.
RunInThread = Callable[..., "Deferred[Any]"]


def _read_through(descriptor: int, offset: int, length: int) -> None:
    """
    Make the kernel read a range, and begin with what follows it.

    Errors are left to whoever reads it for good.
    Some is always asked for ahead of what is waited for, so that the disk has something to do.
    """
    end = offset + length
    asked = offset
    try:
        while offset < end:
            if asked < offset + _AHEAD:
                prefetch(descriptor, asked, _AHEAD)
                asked += _AHEAD
            data = os.pread(descriptor, min(_READ, end - offset), offset)
            if not data:
                break
            offset += len(data)
    except OSError:
        pass


class PageCache:
    """
    What one stream knows of the page cache.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    :param give_way: returns how much cold WAL may be read now, in bytes per second; 0: as much as can be.
    """

    def __init__(self, run_in_thread: RunInThread, give_way: Callable[[], int] = lambda: 0) -> None:
        self._run_in_thread = run_in_thread
        self._give_way = give_way
        self._pace = Pace()
        self._probe = (bytearray(1),)
        self._warm_segment: OpenSegment | None = None
        self._warm_start = self._warm_end = 0
        self._warm_at = 0.0
        self._forgotten = False

    def holds(self, piece: WalSlice) -> bool:
        """Return whether *piece* can be read without waiting for a disk."""
        segment, offset = piece.segment, piece.offset
        end = offset + piece.length
        if (
            self._warm_segment is segment
            and self._warm_start <= offset
            and end <= self._warm_end
            and time.monotonic() - self._warm_at <= _STAYS  # a slow client may be long in one window
        ):
            return True
        if piece.length >= _CATCHING_UP:
            window_end = min(offset + WARM_WINDOW, segment.end - segment.start)
            if self._was_seen(segment, offset, window_end):
                return True
            if self._is_cached(segment.descriptor, offset, window_end):
                self._seen(segment, offset, window_end)
                return True
        return self._is_cached(segment.descriptor, offset, end)

    def _was_seen(self, segment: OpenSegment, start: int, end: int) -> bool:
        """Return whether another stream has just seen the window, which most begin at the same places."""
        seen_end, seen_at = segment.in_memory.get(start, (0, 0.0))
        if seen_end < end or time.monotonic() - seen_at > _STAYS:
            return False
        self._trust(segment, start, end, seen_at)
        return True

    def _seen(self, segment: OpenSegment, start: int, end: int) -> None:
        now = time.monotonic()
        self._trust(segment, start, end, now)
        if len(segment.in_memory) >= _MOST_SEEN:
            segment.in_memory.clear()
        segment.in_memory[start] = (end, now)

    def _trust(self, segment: OpenSegment, start: int, end: int, seen_at: float) -> None:
        self._warm_segment, self._warm_start, self._warm_end = segment, start, end
        self._warm_at = seen_at

    def _is_cached(self, descriptor: int, start: int, end: int) -> bool:
        probe = self._probe
        try:
            for offset in range(start, end, _PROBE_EVERY):
                if not os.preadv(descriptor, probe, offset, os.RWF_NOWAIT):
                    return True  # shorter than it should be: the read will say so
            os.preadv(descriptor, probe, end - 1, os.RWF_NOWAIT)
        except OSError as error:
            # A file system without RWF_NOWAIT says EOPNOTSUPP: nothing is known, so
            # "cold".  Any other error is met again, and reported, by the read itself.
            return error.errno not in {errno.EAGAIN, errno.EOPNOTSUPP}
        return True

    def warm(self, piece: WalSlice) -> Deferred[None]:
        """Read *piece* and what follows it in a thread; fires when `holds` is true of it."""
        segment, offset = piece.segment, piece.offset
        # A little is for a standby that is level, of whose file system nothing can be known.
        rate = self._give_way() if piece.length >= _CATCHING_UP else 0
        window = PIECES * piece.length if rate else WARM_WINDOW
        length = max(piece.length, min(window, segment.end - segment.start - offset))

        def warmed(_: object) -> None:
            if not self._forgotten:
                self._seen(segment, offset, offset + length)

        read_through = partial(self._pace.read_through, rate) if rate else _read_through
        read: Deferred[None] = self._run_in_thread(read_through, segment.descriptor, offset, length)
        return read.addCallback(warmed)

    def forget(self) -> None:
        """Let go of the segment for good, so that its file can be closed."""
        self._forgotten = True
        self._warm_segment = None
