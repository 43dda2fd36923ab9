"""
What is told over HTTP, as it is in one moment: taken in the reactor's thread, put into words in another.

Everything is read from where it is kept anyway when somebody asks; nothing is counted for this.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from walsender.console.snapshot import ServerView, Snapshot, take
from walsender.own_version import own_version

if TYPE_CHECKING:
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.timings import Timings
    from walsender.upstream import ReceiverStatus


VERSION: Final = own_version()
TWISTED_VERSION: Final = version("Twisted")


@dataclass(frozen=True, slots=True)
class Picture:
    """
    The server in one moment.

    :ivar now: when that was, in seconds since 1970, as *started_at*.
    :ivar server: all that needs WAL to be told; ``None``: there is none yet.
    :ivar is_relay: there is an upstream, connected or not.
    :ivar receiver: ``None``: nothing is received.
    :ivar sent_bytes: WAL that has been sent to all since the start.
    :ivar timings: of the disk.
    :ivar certificate_end: until when ours is good; ``None``: there is none.
    """

    now: float
    started_at: float
    server: Snapshot | None
    is_relay: bool
    receiver: ReceiverStatus | None
    sent_bytes: int
    max_wal_senders: int
    timings: Timings
    certificate_end: float | None

    @property
    def walsenders(self) -> tuple[WalSenderEntry, ...]:
        """Who is connected."""
        return () if self.server is None else self.server.walsenders


def look(view: ServerView, now: float) -> Picture:
    """Return the server as it is now."""
    return Picture(
        now,
        view.started_at,
        take(view, now, ()) if view.source.ready else None,
        is_relay(view),
        view.receiver(),
        view.slot_table.sent_bytes,
        view.slot_table.limit,
        view.timings,
        view.certificate_end(),
    )


def is_relay(view: ServerView) -> bool:
    """Return whether the server has an upstream."""
    return bool(view.conninfo())


def upstream_lag(receiver: ReceiverStatus) -> int:
    """Return how much of the upstream's WAL is not durable here, in bytes."""
    return max(0, receiver.upstream_end - receiver.flushed_lsn)
