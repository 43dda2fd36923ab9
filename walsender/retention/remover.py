"""
`WalRemover`: removes the WAL that nobody needs from a relay's directory, oldest first.

It looks whenever a segment has been completed, every few seconds, and when there is no
room.  The order is what makes it safe: a slot's loss is durable before its WAL goes, and
a segment is forgotten before its file goes, so that nobody opens what is about to be gone.
After everything that takes time it is decided anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.logger import Logger
from zope.interface import implementer

from walsender.errors import WalFileError
from walsender.replication_slots import Availability
from walsender.retention.decision import (
    Demand,
    Holder,
    Limits,
    WalStatus,
    holder,
    kept_for_slots,
    lost_slots,
    safe_wal_size,
    wal_status,
)
from walsender.source import IWalSubscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from walsender.lsn import LSN, Geometry
    from walsender.replication_slots import ReplicationSlot, ReplicationSlots

# A standby's report may free WAL at any moment, without any other sign of it.
INTERVAL: Final = 5.0  # seconds

# Removing shares a thread with the commits, which wait for no more than this at once.
BATCH: Final = 16  # segments


class IRemovableWal(Protocol):
    """As `walsender.source.RelaySource`."""

    @property
    def ready(self) -> bool:
        """See `walsender.source.IWalSource`."""

    @property
    def geometry(self) -> Geometry:
        """See `walsender.source.IWalSource`."""

    @property
    def flush_position(self) -> int:
        """See `walsender.source.IWalSource`."""

    @property
    def receiving_at(self) -> int:
        """Position of what is received next."""

    def may_remove(self) -> Deferred[bool]:
        """Return whether this directory's WAL is ours to remove."""

    def has_before(self, number: int) -> bool:
        """Return whether there is any segment before *number*."""

    def remove_before(self, number: int, at_most: int) -> Deferred[int]:
        """Remove segments before *number*, the oldest first; return how many there were."""

    def subscribe(self, subscriber: IWalSubscriber, *, patient: bool = False) -> None:
        """See `walsender.source.held.HeldWal`."""

    def unsubscribe(self, subscriber: IWalSubscriber) -> None:
        """See `walsender.source.IWalSource`."""


@implementer(IWalSubscriber)
class WalRemover:
    """
    Removes what is not needed, for as long as it runs.

    :param oldest_sent: returns the lowest LSN that a connected standby has been sent; 0: there is none.
    :param permission: path of the file by which an administrator permits it; for messages.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        source: IRemovableWal,
        slots: ReplicationSlots,
        oldest_sent: Callable[[], LSN],
        limits: Limits,
        *,
        permission: str = "",
    ) -> None:
        self._clock = clock
        self._source = source
        self._slots = slots
        self._oldest_sent = oldest_sent
        self._limits = limits
        self._permission = permission
        self._timer: IDelayedCall | None = None
        self._waiting: list[Deferred[int]] = []  # for the end of the look that is under way
        self._again = False
        self._stopping = True
        self._number = -1
        self._complaint = ""

    def start(self) -> None:
        """Begin to look."""
        self._stopping = False
        self._source.subscribe(self, patient=True)
        self._look_often()

    def stop(self) -> Deferred[None]:
        """Remove nothing more; fires when nothing is being removed."""
        self._stopping = True
        self._source.unsubscribe(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if not self._waiting:
            return succeed(None)
        stopped: Deferred[int] = Deferred()
        self._waiting.append(stopped)
        return stopped.addCallback(lambda _: None)

    def reconfigure(self, limits: Limits) -> None:
        """Go on with other limits, at once."""
        self._limits = limits
        self._complaint = ""
        self.look()

    def wal_grew(self) -> None:
        """See `IWalSubscriber`: a new segment may make an old one superfluous."""
        number = self._source.geometry.segment_number(self._source.flush_position)
        if number != self._number:
            self._number = number
            self.look()

    def demand(self) -> Demand | None:
        """Return who needs WAL now; ``None`` if that is not known."""
        needed = self._slots.needs()
        if not self._source.ready or needed is None:
            return None
        position = self._source.geometry.position
        sent = self._oldest_sent()
        return Demand(
            segment_size=self._source.geometry.segment_size,
            flush=self._source.flush_position,
            receiving=self._source.receiving_at,
            restart={slot.name: position(slot.restart_lsn) for slot in self._slots if slot.restart_lsn},
            needed={name: position(lsn) for name, lsn in needed.items()},
            standby=position(sent) if sent else None,
        )

    def availability(self) -> dict[str, Availability]:
        """
        Return of each slot how sure it is of its WAL.

        Source: PostgreSQL, src/backend/replication/slotfuncs.c, pg_get_replication_slots.
        """
        demand = self.demand()
        return {slot.name: self._availability(slot, demand) for slot in self._slots}

    def _availability(self, slot: ReplicationSlot, demand: Demand | None) -> Availability:
        if slot.invalidation_reason:
            return Availability(WalStatus.LOST.value)
        if not slot.restart_lsn:
            return Availability()
        if demand is None:  # nothing is removed before all is known
            return Availability(WalStatus.RESERVED.value)
        restart = self._source.geometry.position(slot.restart_lsn)
        return Availability(
            wal_status(restart, demand, self._limits).value, safe_wal_size(restart, demand, self._limits)
        )

    def look(self) -> Deferred[int]:
        """Remove what is not needed; fires with how many segments that were, however it went."""
        if self._stopping or self._limits.keep is None:
            return succeed(0)
        looked: Deferred[int] = Deferred()
        self._waiting.append(looked)
        if len(self._waiting) == 1:
            self._run_all().addErrback(self._failed).addCallback(self._ended)
        else:
            self._again = True
        return looked

    @inlineCallbacks
    def make_room(self) -> Generator[Deferred[Any], Any, str]:
        """Remove what is not needed; return who holds what is left, or nothing if something was removed."""
        yield self._slots.save()  # what standbys have reported lately frees WAL when it is on disk
        removed: int = yield self.look()
        if removed:
            return ""
        first = self._first_kept()
        if first is None or self._complaint:
            return self._complaint
        geometry = self._source.geometry
        lsn = geometry.lsn(geometry.segment_start(first.number))
        since = f"from {lsn} on " if first.number else ""
        return f"WAL {since}is kept because of {first.reason}."

    # Inside

    def _look_often(self) -> None:
        self._timer = self._clock.callLater(INTERVAL, self._look_often)
        self.look()

    def _ended(self, removed: int) -> None:
        waiting, self._waiting = self._waiting, []
        for looked in waiting:
            looked.callback(removed)

    def _failed(self, failure: Failure) -> int:
        error = failure.value
        if isinstance(error, WalFileError):
            self._complain(f"could not remove WAL: {error.message}")
        else:
            self._log.failure("removing WAL failed", failure)
        return 0

    def _complain(self, message: str) -> None:
        """Say why nothing is removed, once while it stays the same."""
        if message != self._complaint:
            self._complaint = message
            self._log.warn("{complaint}", complaint=message)

    def _first_kept(self) -> Holder | None:
        demand = self.demand()
        return None if demand is None else holder(demand, self._limits)

    @inlineCallbacks
    def _run_all(self) -> Generator[Deferred[Any], Any, int]:
        removed = 0
        while True:
            self._again = False
            count: int = yield self._run()
            removed += count
            if self._stopping or not (self._again or count == BATCH):
                return removed

    @inlineCallbacks
    def _run(self) -> Generator[Deferred[Any], Any, int]:
        """Let slots that are past the limit lose their WAL, and remove one batch."""
        demand = self.demand()
        if demand is None:
            if self._source.ready:
                self._complain("no WAL is removed: it is not known what all replication slots need")
            return 0
        lost = lost_slots(demand, self._limits)
        if not lost and not self._source.has_before(holder(demand, self._limits).number):
            return 0
        if not (yield self._source.may_remove()):
            self._complain(
                "no WAL is removed: the WAL directory was not begun by this relay "
                f'(create the file "{self._permission}" to permit it)'
            )
            return 0
        demand = self.demand()
        if demand is not None and (lost := lost_slots(demand, self._limits)):
            self._log_lost(lost, demand)
            yield self._slots.invalidate(lost)
        first = self._first_kept()
        if first is None or self._stopping:
            return 0
        removed: int = yield self._source.remove_before(first.number, BATCH)
        self._complaint = ""
        return removed

    def _log_lost(self, lost: tuple[str, ...], demand: Demand) -> None:
        """
        Log what happens to slots in PostgreSQL's words.

        Source: PostgreSQL, src/backend/replication/slot.c, ReportSlotInvalidation.
        """
        oldest = kept_for_slots(demand, self._limits) * demand.segment_size
        for name in lost:
            slot = self._slots.get(name)
            if slot is None:
                continue
            if slot.owner is not None:
                self._log.info(
                    'terminating process {pid} to release replication slot "{name}"',
                    pid=slot.owner,
                    name=name,
                )
            self._log.warn(
                'invalidating obsolete replication slot "{name}": its restart_lsn {lsn} exceeds the limit by '
                '{bytes} bytes; you might need to increase "max_slot_wal_keep_size"',
                name=name,
                lsn=slot.restart_lsn,
                bytes=oldest - demand.restart[name],
            )
