"""
What the sender knows about WAL, and nothing else: `IWalSource`.

A directory and a live upstream are two sources behind this interface; a sender
cannot tell which one it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from walsender.source.segment_file import OpenSegment


@dataclass(frozen=True, slots=True)
class TimelineEnd:
    """
    How far a timeline may be sent.

    :ivar position: the end (exclusive): what is durable here, or the switch point.
    :ivar next_timeline: the timeline that follows at *position*; ``None`` while this one grows.
    """

    position: int
    next_timeline: int | None = None


class SegmentUnavailable(Exception):
    """
    A segment's file cannot be opened; how that is said to a client is the dialect's affair.

    :ivar name: of the file.
    :ivar segment_number: as `walsender.lsn.Geometry.segment_number`.
    :ivar error: why; ``ENOENT`` if it is not held.
    :ivar earliest: position of the earliest byte that is held on the way to the current timeline; 0 if none.
    :ivar sought: where else it was looked for, a sentence; ``""`` if nowhere.
    """

    def __init__(self, name: str, segment_number: int, error: OSError, earliest: int) -> None:
        super().__init__(f"{name}: {error.strerror}")
        self.name = name
        self.segment_number = segment_number
        self.error = error
        self.earliest = earliest
        self.sought = ""


class IWalSubscriber(Interface):
    """Somebody who wants to know that there is more WAL."""

    def wal_grew() -> None:
        """
        The source's flush position or current timeline has changed.

        Called in the reactor's thread.  Must not raise.
        """


class IWalSource(Interface):
    """
    WAL that is durable here, and how to read it.

    All positions are byte positions in the sense of `walsender.lsn`.  All
    methods are called, and all Deferreds fire, in the reactor's thread.  The
    attributes other than *ready* mean something only once *ready* is true.
    """

    ready = Attribute("``bool``: there is WAL to serve; false while starting and in an empty relay.")
    system_identifier = Attribute("``int``: the cluster's 64-bit identifier.")
    server_version = Attribute("``int``: version of the server that wrote the WAL, as 90600 or 180000.")
    byte_order = Attribute("``'little'`` or ``'big'``: of the WAL's pages.")
    geometry = Attribute("`walsender.lsn.Geometry`: how the WAL is cut into pages and segments.")
    directory_mode = Attribute("``int``: permission bits of the data directory that a client may copy.")
    timeline = Attribute("``int``: the current timeline, the one that grows.")
    flush_position = Attribute(
        "``int``: end of what is durable here on the current timeline; a standby may have all before it."
    )

    newest = Attribute(
        "`walsender.source.newest.NewestWal` or ``None``: the WAL before *flush_position*, if it is at hand."
    )

    permits = Attribute(
        "`walsender.source.permits.Permits` or ``None``: who lets another thread send; a client gets "
        "WAL by a permit when *flush_position* is behind it, perhaps before ``wal_grew`` is called."
    )

    def end_of(timeline: int) -> TimelineEnd:
        """
        Return how far *timeline* may be sent.

        :raises walsender.errors.StartPositionRefused: it is not in this source's history.
        """

    def history_file(timeline: int) -> bytes:
        """
        Return the timeline history file of *timeline*, byte for byte.

        :raises walsender.errors.WalFileMissing: there is none.
        """

    def find_history(timeline: int | None = None) -> Deferred[None] | None:
        """
        Look elsewhere for a history that is missing; called before what it would tell is told or refused.

        :param timeline: whose; ``None``: of the newest timeline that is held, which may not be shown
            because of it.
        :returns: what fires when all is known that can be; ``None`` if there is nothing to wait for.
        """

    def open_segment(timeline: int, segment_number: int) -> Deferred[OpenSegment]:
        """
        Return an open file to read *timeline*'s bytes of that segment from.

        It may take long if the segment has to be fetched, and be cancelled.  It fails with
        `SegmentUnavailable`, or with `walsender.errors.DataCorrupted` if the file is not what its name says.
        """

    def subscribe(subscriber: IWalSubscriber, *, patient: bool = False) -> None:
        """
        Call ``subscriber.wal_grew()`` from now on; of several calls, from inside that too, the last counts.

        :param patient: to hear of it a tenth of a second later, while the disk answers, is early enough.
        """

    def unsubscribe(subscriber: IWalSubscriber) -> None:
        """Stop calling; harmless when it was not subscribed."""
