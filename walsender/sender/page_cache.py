"""
Is WAL in the page cache, and if not, getting it there without stopping the reactor.

``pread`` and ``sendfile`` wait for the disk on a cold page, and every other
standby would wait with them.  So before a range is read in the reactor's thread
its first and last page are asked for with ``RWF_NOWAIT``, which fails instead of
waiting; a range that is not there is read once in the thread pool.  A window
larger than one read is warmed, so that a reader of cold WAL makes one trip to
the pool per window and not per message.

Only the two ends are asked: pages come in and leave in runs of at least a read's
size (read-ahead, folios), and asking for each page would cost as much as copying it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from walsender.source import OpenSegment, WalSlice

WARM_WINDOW: Final = 1 << 20  # bytes
_READ_SIZE: Final = 128 << 10

# Runs a callable in a thread; a Deferred of its result fires in the reactor's thread.
RunInThread = Callable[..., "Deferred[Any]"]


def _is_cached(descriptor: int, offset: int, probe: bytearray) -> bool:
    try:
        return os.preadv(descriptor, (probe,), offset, os.RWF_NOWAIT) > 0
    except OSError as error:
        # A file system without RWF_NOWAIT says EOPNOTSUPP: nothing is known, so
        # "cold".  Any other error is met again, and reported, by the read itself.
        return error.errno not in {errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOTSUP}


def _read_through(descriptor: int, offset: int, length: int) -> None:
    """Make the kernel read a range; errors are left to whoever reads it for good."""
    end = offset + length
    try:
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)
        while offset < end and (data := os.pread(descriptor, min(_READ_SIZE, end - offset), offset)):
            offset += len(data)
    except OSError:
        pass


class PageCache:
    """
    What one stream knows of the page cache.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    """

    def __init__(self, run_in_thread: RunInThread) -> None:
        self._run_in_thread = run_in_thread
        self._probe = bytearray(1)
        self._warm_segment: OpenSegment | None = None
        self._warm_start = self._warm_end = 0

    def holds(self, piece: WalSlice) -> bool:
        """Return whether *piece* can be read without waiting for a disk."""
        offset, end = piece.offset, piece.offset + piece.length
        if self._warm_segment is piece.segment and self._warm_start <= offset and end <= self._warm_end:
            return True
        descriptor = piece.segment.descriptor
        return _is_cached(descriptor, offset, self._probe) and _is_cached(descriptor, end - 1, self._probe)

    def warm(self, piece: WalSlice) -> Deferred[None]:
        """Read *piece* and what follows it in the thread pool; fires when `holds` is true of it."""
        segment, offset = piece.segment, piece.offset
        length = max(piece.length, min(WARM_WINDOW, segment.end - segment.start - offset))

        def warmed(_: object) -> None:
            self._warm_segment, self._warm_start, self._warm_end = segment, offset, offset + length

        read: Deferred[None] = self._run_in_thread(_read_through, segment.descriptor, offset, length)
        return read.addCallback(warmed)

    def forget(self) -> None:
        """Let go of the segment, so that its file can be closed."""
        self._warm_segment = None
