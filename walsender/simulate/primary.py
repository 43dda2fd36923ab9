"""`PrimarySource`: the WAL of a cluster, served from memory by our own walsender."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from walsender.errors import StartPositionRefused, WalFileMissing
from walsender.simulate.cluster import SEGMENT_SIZE, pieces
from walsender.source import IWalSource, IWalSubscriber, OpenSegment, TimelineEnd
from walsender.wal import REAL_FILES, history_name, segment_name

if TYPE_CHECKING:
    from walsender.simulate.cluster import Cluster


@implementer(IWalSource)
class PrimarySource:
    """
    What the server has that is the primary at the moment.

    A promotion happens in place: streams of the old timeline end, as on a standby that is promoted.
    """

    ready = True
    byte_order = "little"
    directory_mode = 0o700
    newest = permits = None

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._subscribers: dict[IWalSubscriber, None] = {}
        self._copied = cluster.position
        self._files: dict[tuple[int, int], int] = {}
        self.geometry = cluster.geometry
        self.system_identifier = cluster.system_identifier
        self.server_version = cluster.server_version

    def close(self) -> None:
        """Let go of the memory."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def grew(self) -> None:
        """There is more WAL, or another timeline."""
        timeline = self.timeline
        for number, first, last in pieces(min(self._copied, self.flush_position), self.flush_position):
            if (timeline, number) in self._files:
                image = self._cluster.segment(timeline, number)
                os.pwrite(self._files[timeline, number], image[first:last], first)
        self._copied = self.flush_position
        for subscriber in list(self._subscribers):
            subscriber.wal_grew()

    # IWalSource

    @property
    def timeline(self) -> int:
        """See `IWalSource`."""
        return self._cluster.timeline

    @property
    def flush_position(self) -> int:
        """See `IWalSource`."""
        return self._cluster.position

    def end_of(self, timeline: int) -> TimelineEnd:
        """See `IWalSource`."""
        if timeline == self.timeline:
            return TimelineEnd(self.flush_position)
        end = self._cluster.history(self.timeline).switchpoint(timeline)
        if end is None:
            raise StartPositionRefused(f"requested timeline {timeline} is not in this server's history")
        return TimelineEnd(self.geometry.position(end[0]), end[1])

    def history_file(self, timeline: int) -> bytes:
        """See `IWalSource`."""
        content = self._cluster.history_file(timeline)
        if content is None:
            raise WalFileMissing(f'could not open file "pg_wal/{history_name(timeline)}"')
        return content

    def find_history(self, timeline: int | None = None) -> Deferred[None] | None:
        """See `IWalSource`."""

    def open_segment(self, timeline: int, segment_number: int) -> Deferred[OpenSegment]:
        """See `IWalSource`."""
        key = timeline, segment_number
        if key not in self._files:
            self._files[key] = os.memfd_create("simulated-primary", os.MFD_CLOEXEC)
            os.pwrite(self._files[key], self._cluster.segment(timeline, segment_number), 0)
        start = segment_number * SEGMENT_SIZE
        name = segment_name(timeline, segment_number, self.geometry)
        copy = os.dup(self._files[key])
        return succeed(OpenSegment(REAL_FILES, copy, name, start, start + SEGMENT_SIZE))

    def subscribe(self, subscriber: IWalSubscriber, *, patient: bool = False) -> None:
        """See `IWalSource`."""
        self._subscribers[subscriber] = None

    def unsubscribe(self, subscriber: IWalSubscriber) -> None:
        """See `IWalSource`."""
        self._subscribers.pop(subscriber, None)
