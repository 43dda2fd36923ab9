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

from .health import DEFAULT_LAG, Health, health, readiness

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
    :ivar health: the answer of ``/health``, as *readiness* is that of ``/readiness`` if no lag is given.
    :ivar sent_bytes: WAL that has been sent to all since the start.
    :ivar timings: of the disk.
    :ivar certificate_end: until when ours is good; ``None``: there is none.
    """

    now: float
    started_at: float
    server: Snapshot | None
    is_relay: bool
    receiver: ReceiverStatus | None
    health: Health
    readiness: Health
    sent_bytes: int
    max_wal_senders: int
    timings: Timings
    certificate_end: float | None

    @property
    def walsenders(self) -> tuple[WalSenderEntry, ...]:
        """Who is connected."""
        return () if self.server is None else self.server.walsenders


def look(view: ServerView, now: float, *, stopping: bool = False) -> Picture:
    """
    Return the server as it is now.

    :param stopping: clients are turned away because it ends.
    """
    return Picture(
        now,
        view.started_at,
        take(view, now, ()) if view.source.ready else None,
        view.is_relay,
        view.receiver(),
        health(view, stopping=stopping),
        readiness(view, DEFAULT_LAG, stopping=stopping),
        view.slot_table.sent_bytes,
        view.slot_table.limit,
        view.timings,
        view.certificate_end(),
    )
