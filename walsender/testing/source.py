"""
`ScriptedSource`: WAL out of nothing, which grows, forks and fails on command.

Each byte of it tells its own position (see `wal_bytes`), so that a byte at the wrong
place is seen.  It is no WAL that PostgreSQL could read; for that there is
`walsender.testing.wal_maker`.  The segments are temporary files, because a sender
needs descriptors.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
import weakref
from array import array
from typing import TYPE_CHECKING, Any, Literal

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from walsender.errors import StartPositionRefused, WalFileMissing
from walsender.lsn import Geometry
from walsender.source import (
    IWalSource,
    IWalSubscriber,
    NewestWal,
    OpenSegment,
    SegmentUnavailable,
    TimelineEnd,
)
from walsender.wal import REAL_FILES

if TYPE_CHECKING:
    from walsender.source.permits import Permits

_WORD = 8


def wal_bytes(start: int, end: int) -> bytes:
    """Return the content between two positions: each aligned eight bytes are their own position."""
    first = start // _WORD * _WORD
    words = array("Q", range(first, -(-end // _WORD) * _WORD, _WORD))
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        words.byteswap()
    return words.tobytes()[start - first : end - first]


@implementer(IWalSource)
class ScriptedSource:
    """
    An `IWalSource` for tests.

    :param position: where WAL ends at first, a count of bytes: from 9.3 on the same number as the LSN.
    :param geometry: by default segments of a megabyte.
    :param sparse: all segments are holes, which cost no disk however much there is.
    :ivar newest: see `IWalSource`.
    :ivar holding: opening a segment waits for `release`.
    :ivar open_error: opening a segment fails with it.
    :ivar finding: what `find_history` returns.
    :ivar sought: what that was asked for, in order.
    :ivar opened: numbers of the segments that were asked for, in order.
    :ivar subscribers: who follows, and whether patiently.
    """

    def __init__(
        self,
        position: int,
        *,
        timeline: int = 1,
        geometry: Geometry | None = None,
        server_version: int = 180000,
        byte_order: Literal["little", "big"] = "little",
        system_identifier: int = 7300000000000000001,
        sparse: bool = False,
    ) -> None:
        self.ready = True
        self.flush_position = position
        self.timeline = timeline
        self.geometry = geometry or Geometry.contiguous(1 << 20)
        self.server_version = server_version
        self.byte_order = byte_order
        self.system_identifier = system_identifier
        self.directory_mode = 0o700
        self.newest: NewestWal | None = None
        self.permits: Permits | None = None
        self.sparse = sparse
        self.holding = False
        self.open_error: Exception | None = None
        self.finding: Deferred[None] | None = None
        self.sought: list[int | None] = []
        self.opened: list[int] = []
        self.subscribers: dict[IWalSubscriber, bool] = {}
        self.histories: dict[int, bytes] = {}
        self._ends: dict[int, TimelineEnd] = {}
        self._removed: set[int] = set()
        self._files: dict[int, Any] = {}
        self._open: weakref.WeakSet[OpenSegment] = weakref.WeakSet()
        self._held: list[tuple[Deferred[OpenSegment], int, int]] = []

    # What the test does

    def grow(self, position: int) -> None:
        """Let WAL reach *position*."""
        self.flush_position = position
        self._tell()

    def append(self, data: bytes) -> None:
        """Let WAL grow by *data*."""
        at, left = self.flush_position, data
        while left:
            number = self.geometry.segment_number(at)
            offset = at - self.geometry.segment_start(number)
            piece = left[: self.geometry.segment_size - offset]
            os.pwrite(self._file(number).fileno(), piece, offset)
            at, left = at + len(piece), left[len(piece) :]
        self.grow(at)

    def grow_at_hand(self, data: bytes) -> NewestWal:
        """Let WAL grow by *data*, which is at hand, and in no file."""
        self.newest = NewestWal(self.timeline, self.flush_position, data)
        self.grow(self.newest.end)
        return self.newest

    def flush(self, data: bytes) -> NewestWal:
        """Let WAL grow by *data* and be sent by permits; nobody is told before the next `grow`."""
        self.newest = NewestWal(self.timeline, self.flush_position, data)
        self.flush_position = self.newest.end
        if self.permits is not None:
            self.permits.use(self.newest)
        return self.newest

    def switch(self, timeline: int, switchpoint: int, position: int | None = None) -> None:
        """
        Let *timeline* take over at *switchpoint*.

        :param position: where WAL ends then; the switch point if not given.
        """
        self._ends[self.timeline] = TimelineEnd(switchpoint, timeline)
        self.timeline = timeline
        self.flush_position = switchpoint if position is None else position
        self._tell()

    def forget(self, timeline: int) -> None:
        """Let *timeline* be in the history no more."""
        del self._ends[timeline]
        self._tell()

    def release(self, error: Exception | None = None) -> None:
        """Let what waits for `holding` go on, or fail."""
        held, self._held = self._held, []
        for deferred, timeline, number in held:
            if error is not None:
                deferred.errback(error)
            else:
                deferred.callback(self._open_now(timeline, number))

    def remove(self, number: int) -> None:
        """Let a segment be gone; what is open stays readable."""
        self._removed.add(number)

    def truncate(self, number: int, size: int) -> None:
        """Make a segment's file shorter, open or not; never longer, with zeros in it."""
        file = self._file(number)
        file.truncate(min(size, os.fstat(file.fileno()).st_size))

    def retire(self, number: int) -> None:
        """Say that another file has taken the name of an open segment."""
        for segment in self._open:
            if segment.start == self.geometry.segment_start(number):
                segment.retired = True

    @property
    def held(self) -> int:
        """How many openings wait for `release`."""
        return len(self._held)

    @property
    def open_count(self) -> int:
        """How many segments are open now."""
        return len(self._open)

    def close(self) -> None:
        """Remove the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    # IWalSource

    def end_of(self, timeline: int) -> TimelineEnd:
        """See `IWalSource`."""
        if timeline == self.timeline:
            return TimelineEnd(self.flush_position)
        if timeline not in self._ends:
            raise StartPositionRefused(f"requested timeline {timeline} is not in this server's history")
        return self._ends[timeline]

    def history_file(self, timeline: int) -> bytes:
        """See `IWalSource`."""
        if timeline not in self.histories:
            raise WalFileMissing(
                f'could not open file "pg_wal/{timeline:08X}.history": No such file or directory'
            )
        return self.histories[timeline]

    def find_history(self, timeline: int | None = None) -> Deferred[None] | None:
        """See `IWalSource`."""
        self.sought.append(timeline)
        return self.finding

    def open_segment(self, timeline: int, segment_number: int) -> Deferred[OpenSegment]:
        """See `IWalSource`."""
        self.opened.append(segment_number)
        if self.open_error is not None:
            return fail(self.open_error)
        if segment_number in self._removed:
            missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            earliest = self.geometry.segment_start(max(self._removed) + 1)
            name = self._name(timeline, segment_number)
            return fail(SegmentUnavailable(name, segment_number, missing, earliest))
        if self.holding:
            waiting: Deferred[OpenSegment] = Deferred()
            self._held.append((waiting, timeline, segment_number))
            return waiting
        return succeed(self._open_now(timeline, segment_number))

    def subscribe(self, subscriber: IWalSubscriber, *, patient: bool = False) -> None:
        """See `IWalSource`."""
        self.subscribers[subscriber] = patient

    def unsubscribe(self, subscriber: IWalSubscriber) -> None:
        """See `IWalSource`."""
        self.subscribers.pop(subscriber, None)

    # Inside

    def _tell(self) -> None:
        for subscriber in list(self.subscribers):
            subscriber.wal_grew()

    def _name(self, timeline: int, number: int) -> str:
        per_log_file = self.geometry.segments_per_log_file
        return f"{timeline:08X}{number // per_log_file:08X}{number % per_log_file:08X}"

    def _file(self, number: int) -> Any:
        if number not in self._files:
            file = self._files[number] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (kept until close)
            size, start = self.geometry.segment_size, self.geometry.segment_start(number)
            if self.sparse:
                file.truncate(size)
            else:
                file.write(wal_bytes(start, start + size))
        return self._files[number]

    def _open_now(self, timeline: int, number: int) -> OpenSegment:
        start = self.geometry.segment_start(number)
        segment = OpenSegment(
            REAL_FILES,
            os.dup(self._file(number).fileno()),
            self._name(timeline, number),
            start,
            start + self.geometry.segment_size,
        )
        self._open.add(segment)
        return segment
