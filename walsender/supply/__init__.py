"""
Where the service gets its WAL from: a directory that others fill, or an upstream.

Each form brings a source and the threads that it needs, and is started, stopped and
given new settings in the same way.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.threads import deferToThreadPool

from .directory import DirectorySupply
from .interfaces import ISupply
from .relay import RelaySupply

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.lsn import LSN
    from walsender.replication_slots import ReplicationSlots
    from walsender.sender import IServerReactor
    from walsender.settings import Settings


def make_supply(
    reactor: IServerReactor,
    settings: Settings,
    feedback: Callable[[], tuple[int, int]],
    slots: ReplicationSlots,
    oldest_sent: Callable[[], LSN],
) -> ISupply:
    """
    Return where these settings say that WAL comes from.

    :param feedback: returns what the standbys need, as 64-bit transaction ids.
    :param oldest_sent: returns the lowest LSN that a connected standby has been sent; 0: there is none.
    :raises walsender.errors.ConfigurationError: they make no sense.
    """
    run_in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    if settings.primary_conninfo:
        return RelaySupply(reactor, settings, run_in_thread, feedback, slots, oldest_sent)
    return DirectorySupply(reactor, settings, run_in_thread, slots)


__all__ = ["DirectorySupply", "ISupply", "RelaySupply", "make_supply"]
