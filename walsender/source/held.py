"""
`HeldWal`: what a source shows of the WAL that a directory holds.

Where WAL comes from is another's affair: whoever finds or writes more of it hands a
`Look` over, all of it durable, and those who send are told.
"""

from __future__ import annotations

import contextlib
import errno
import os
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from twisted.logger import Logger
from zope.interface import implementer

from walsender.errors import StartPositionRefused, WalFileMissing
from walsender.source.fetching import NotFetched
from walsender.source.interfaces import IWalSource, IWalSubscriber, SegmentUnavailable, TimelineEnd
from walsender.source.segment_file import OpenSegment, SegmentFiles
from walsender.wal import WalIdentity, base_name, history_name, parse_file_name, segment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from walsender.lsn import Geometry
    from walsender.source.fetching import Fetching
    from walsender.source.follower import Follower, Look
    from walsender.source.histories import HistorySearch
    from walsender.source.newest import NewestWal
    from walsender.source.permits import Permits
    from walsender.wal import WalDirectory


@implementer(IWalSource)
class HeldWal:
    """
    Serves what the last look saw.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    :param follower: opens files.
    :param directory_mode: as `IWalSource.directory_mode`.
    :ivar fetching: gets what is not held; ``None``: nobody does.
    :ivar histories: likewise, the history files.
    """

    _log = Logger()

    def __init__(
        self, run_in_thread: Callable[..., Deferred[Any]], follower: Follower, *, directory_mode: int
    ) -> None:
        self._run_in_thread = run_in_thread
        self._follower = follower
        self.directory_mode = directory_mode
        self._segments = SegmentFiles(self._open, self._released)
        self._subscribers: dict[IWalSubscriber, bool] = {}  # and whether it is patient
        self._impatient = 0  # so many of them are not
        self._look: Look | None = None
        self.newest: NewestWal | None = None
        self.permits: Permits | None = None
        self.fetching: Fetching | None = None
        self.histories: HistorySearch | None = None

    # IWalSource

    @property
    def ready(self) -> bool:
        """See `IWalSource`."""
        return self._look is not None

    @property
    def _identity(self) -> WalIdentity:
        assert self._look is not None, "asked for WAL before there is any"
        assert self._look.directory.identity is not None, "there is WAL, so it is somebody's"
        return self._look.directory.identity

    @property
    def system_identifier(self) -> int:
        """See `IWalSource`."""
        return self._identity.system_identifier

    @property
    def server_version(self) -> int:
        """See `IWalSource`."""
        return self._identity.format.version

    @property
    def byte_order(self) -> Literal["little", "big"]:
        """See `IWalSource`."""
        return self._identity.format.byte_order

    @property
    def geometry(self) -> Geometry:
        """See `IWalSource`."""
        return self._identity.geometry

    @property
    def timeline(self) -> int:
        """See `IWalSource`."""
        assert self._look is not None, "asked for WAL before there is any"
        return self._look.end.timeline

    @property
    def flush_position(self) -> int:
        """See `IWalSource`."""
        assert self._look is not None, "asked for WAL before there is any"
        return self._look.end.position

    def end_of(self, timeline: int) -> TimelineEnd:
        """See `IWalSource`."""
        assert self._look is not None, "asked for WAL before there is any"
        if timeline == self.timeline:
            return TimelineEnd(self.flush_position)
        end = self._look.directory.history(self.timeline).switchpoint(timeline)
        if end is None:
            raise StartPositionRefused(
                f"requested timeline {timeline} is not in this server's history",
                detail=self._why_unknown(self._without_history(self._directory_now)),
            )
        switchpoint, next_timeline = end
        return TimelineEnd(self.geometry.position(switchpoint), next_timeline)

    def history_file(self, timeline: int) -> bytes:
        """See `IWalSource`."""
        assert self._look is not None, "asked for WAL before there is any"
        content = self._look.directory.history_content(timeline)
        if content is None:
            raise WalFileMissing(
                f'could not open file "pg_wal/{history_name(timeline)}": {os.strerror(errno.ENOENT)}',
                detail=None if self.histories is None else self.histories.why_missing(timeline) or None,
            )
        return content

    def find_history(self, timeline: int | None = None) -> Deferred[None] | None:
        """See `IWalSource`."""
        if self.histories is None or self._look is None:
            return None
        directory = self._look.directory
        if timeline is None:
            wanted = self._without_history(directory)
        else:
            newest = max(self.timeline, *directory.timelines)
            wanted = [timeline] if 1 < timeline <= newest and timeline not in directory.histories else []
        searching = self.histories.search(wanted)
        return None if searching is None else searching.addCallback(self._history_sought)

    def open_segment(self, timeline: int, segment_number: int) -> Deferred[OpenSegment]:
        """See `IWalSource`."""
        return self._segments.get(timeline, segment_number)

    def subscribe(self, subscriber: IWalSubscriber, *, patient: bool = False) -> None:
        """See `IWalSource`."""
        self.unsubscribe(subscriber)
        self._subscribers[subscriber] = patient
        self._impatient += not patient

    def unsubscribe(self, subscriber: IWalSubscriber) -> None:
        """See `IWalSource`."""
        self._impatient -= not self._subscribers.pop(subscriber, True)

    # walsender.source.fetching.IReaders

    def segment_names(self, timeline: int, number: int) -> tuple[str, ...]:
        """See `walsender.source.fetching.IReaders`."""
        holders = self._directory_now.holders(timeline, number, self.timeline)
        return tuple(segment_name(holder, number, self.geometry) for holder in holders)

    def is_missing(self, timeline: int, number: int) -> bool:
        """See `walsender.source.fetching.IReaders`."""
        try:
            end = self.end_of(timeline).position
        except StartPositionRefused:
            return False
        if self.geometry.segment_start(number) >= end:
            return False
        return self._directory_now.file_for_reading(timeline, number, self.timeline) is None

    def segments_read(self) -> Iterable[tuple[int, int]]:
        """See `walsender.source.fetching.IReaders`."""
        return self._segments.read()

    def needed_until(self, name: str) -> tuple[WalDirectory, int]:
        """See `walsender.source.shelves.INeeds`."""
        file = parse_file_name(name, self.geometry)
        end = self.geometry.segment_start(file.number(self.geometry) + 1)
        with contextlib.suppress(StartPositionRefused):
            known = self.end_of(file.timeline)
            if known.next_timeline is not None:
                end = min(end, known.position)
        return self._directory_now, end

    # Inside

    @staticmethod
    def _without_history(directory: WalDirectory) -> list[int]:
        """Return the timelines that are newer than any of which the history is known, newest first."""
        newer = takewhile(
            lambda timeline: timeline > 1 and timeline not in directory.histories,
            reversed(directory.timelines),
        )
        return list(newer)

    def _why_unknown(self, timelines: list[int]) -> str | None:
        """Return where the histories of *timelines* were looked for."""
        if self.histories is None:
            return None
        reasons = (
            self.histories.why_missing(timeline, f'File "pg_wal/{history_name(timeline)}"')
            for timeline in timelines
        )
        return " ".join(filter(None, reasons)) or None

    def _history_sought(self, found: bool) -> Deferred[None] | None:
        """A history was looked for; show what has been found."""

    @property
    def directory(self) -> WalDirectory | None:
        """What is held; ``None``: nothing that is known of."""
        return None if self._look is None else self._look.directory

    @property
    def _directory_now(self) -> WalDirectory:
        assert self._look is not None, "asked for WAL before there is any"
        return self._look.directory

    def _released(self) -> None:
        if self.fetching is not None:
            self.fetching.review_soon()

    def _open(self, timeline: int, number: int) -> Deferred[OpenSegment]:
        """Open a segment that is held, or get it."""
        opened = self._open_held(timeline, number)
        if self.fetching is not None:
            opened.addErrback(self._fetch, self.fetching, timeline, number)
            opened.addCallback(self._read_ahead, self.fetching, timeline, number)
        return opened

    @staticmethod
    def _read_ahead(segment: OpenSegment, fetching: Fetching, timeline: int, number: int) -> OpenSegment:
        fetching.read_ahead(timeline, number)
        return segment

    def _fetch(
        self, failure: Failure, fetching: Fetching, timeline: int, number: int
    ) -> Deferred[OpenSegment] | Failure:
        unavailable = failure.value
        if not isinstance(unavailable, SegmentUnavailable) or unavailable.error.errno != errno.ENOENT:
            return failure

        def fetched(segment: OpenSegment | None) -> OpenSegment | Deferred[OpenSegment]:
            return segment if segment is not None else self._open_held(timeline, number)

        def not_fetched(reason: Failure) -> Failure:
            if not isinstance(reason.value, NotFetched):
                return reason
            unavailable.sought = reason.value.sought()
            return failure

        wanted = fetching.get(timeline, number)
        fetching.read_ahead(timeline, number)  # after that: this one is needed first
        return wanted.addCallbacks(fetched, not_fetched)

    def _open_held(self, timeline: int, number: int) -> Deferred[OpenSegment]:
        assert self._look is not None, "asked for WAL before there is any"
        opened: Deferred[OpenSegment] = self._run_in_thread(
            self._follower.open, self._look, timeline, number, self.end_of(timeline).position
        )
        return opened.addCallback(self._compare)

    def _compare(self, segment: OpenSegment) -> OpenSegment:
        """Retire what was opened on the result of a look and is overtaken by a later one."""
        assert self._look is not None, "a segment has been opened, so there is WAL"
        validated = self._look.validated.get(base_name(segment.name))
        segment.retired = validated is not None and validated.identity != segment.identity
        return segment

    def _take_over(self, look: Look, newest: NewestWal | None = None) -> None:
        """Show what a look found, and tell those who send."""
        before, self._look = self._look, look
        self.newest = newest
        for name, identity in look.end.covered:
            self._segments.retire_others(base_name(name), identity)
        if look.gone:
            self._segments.retire(look.gone)
        if before is None or (before.end.timeline, before.end.position) != (
            look.end.timeline,
            look.end.position,
        ):
            for subscriber in list(self._subscribers):
                try:
                    subscriber.wal_grew()
                except Exception:  # noqa: BLE001 (a bug in one stream must not stop the others)
                    self._log.failure("telling a stream of new WAL failed")
