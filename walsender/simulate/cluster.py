"""`Cluster`: all WAL that a cluster has ever written, with which whatever anybody has is compared."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Final

from walsender.lsn import Geometry
from walsender.testing.wal_maker import WalMaker
from walsender.wal import TimelineHistory

if TYPE_CHECKING:
    from collections.abc import Iterator

SEGMENT_SIZE: Final = 1 << 20  # the smallest that there is


class Cluster:
    """
    The WAL of one cluster; promotions, lost branches included.

    :ivar ends: position up to which each timeline has been written, which is durable at its server.
    """

    def __init__(self) -> None:
        self._maker = WalMaker(segment_size=SEGMENT_SIZE)
        self.geometry = Geometry.contiguous(SEGMENT_SIZE, self._maker.page_size)
        self.ends: dict[int, int] = {}
        self._records: dict[int, list[int]] = {1: [self._maker.position]}
        self.write(3000)

    @property
    def system_identifier(self) -> int:
        """Whose WAL it is."""
        return self._maker.system_identifier

    @property
    def server_version(self) -> int:
        """Of the servers that write it."""
        return self._maker.version

    @property
    def timeline(self) -> int:
        """The timeline that is being written."""
        return self._maker.timeline

    @property
    def position(self) -> int:
        """Up to where it is written."""
        return self._maker.position

    def write(self, length: int) -> None:
        """Write a record of *length* bytes."""
        self._maker.record(length)
        self._records[self.timeline].append(self.position)
        self.ends[self.timeline] = self.position

    def switch_segment(self) -> None:
        """Leave the rest of the segment unused."""
        self._maker.switch()
        self._records[self.timeline].append(self.position)
        self.ends[self.timeline] = self.position

    def promote(self, records_lost: int) -> None:
        """
        Begin a new timeline; the last records of the old one were not at the server that is promoted.

        A switch record counts to the end of its segment, as for a server that replays it: none forks off
        between the two (PostgreSQL, src/backend/access/transam/xlogreader.c, XLogDecodeNextRecord).
        """
        ends = self._records[self.timeline]
        at = max(ends[-1 - min(records_lost, len(ends) - 1)], self.begin(self.timeline))
        self._maker.fork(at)
        self._records[self.timeline] = ends[: bisect.bisect_right(ends, at)]
        self.ends[self.timeline] = self.position

    def last_record(self, timeline: int, position: int) -> tuple[int, int]:
        """Return from where to where the last record goes that is whole at *position*."""
        ends = self._records[timeline]
        last = max(0, bisect.bisect_right(ends, position) - 1)
        return ends[max(0, last - 1)], ends[last]

    def history_file(self, timeline: int) -> bytes | None:
        """Return a timeline's history file; ``None`` for the first one."""
        return self._maker.histories.get(timeline)

    def history(self, timeline: int) -> TimelineHistory:
        """Return a timeline's history."""
        content = self.history_file(timeline)
        if content is None:
            return TimelineHistory(timeline)
        return TimelineHistory.parse(timeline, content, self.geometry)

    def begin(self, timeline: int) -> int:
        """Return where a timeline begins; 0 for the first one."""
        return self.geometry.position(self.history(timeline).begin)

    @property
    def timelines(self) -> tuple[int, ...]:
        """All timelines, ascending."""
        return tuple(self.ends)

    def segment(self, timeline: int, number: int) -> memoryview:
        """Return a segment of the WAL that leads to *timeline*, its unwritten rest included."""
        for holder in (timeline, *reversed(self.history(timeline).ancestors)):
            try:
                return memoryview(self._maker.image(number, holder)).toreadonly()
            except KeyError:
                continue
        raise AssertionError(f"nobody has written segment {number} of timeline {timeline}")

    def wal(self, timeline: int, start: int, end: int) -> bytes:
        """Return the WAL that leads to *timeline*, from *start* to *end*."""
        return b"".join(
            self.segment(timeline, number)[first:last] for number, first, last in pieces(start, end)
        )


def pieces(start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of segments from *start* to *end*: number, first offset, last offset."""
    while start < end:
        number, first = divmod(start, SEGMENT_SIZE)
        last = min(SEGMENT_SIZE, first + end - start)
        yield number, first, last
        start += last - first
