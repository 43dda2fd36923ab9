"""One replication slot, and a stream's claim on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from walsender.lsn import INVALID_LSN, LSN

if TYPE_CHECKING:
    from collections.abc import Callable

    from .slots import ReplicationSlots


class Availability(NamedTuple):
    """
    How sure a slot is of its WAL, as ``pg_replication_slots`` says it.

    :ivar wal_status: ``reserved``, ``extended``, ``unreserved`` or ``lost``; ``None``: none of these yet.
    :ivar safe_wal_size: bytes that may still come before it loses some; ``None``: any number.
    """

    wal_status: str | None = None
    safe_wal_size: int | None = None


@dataclass(slots=True, eq=False)
class ReplicationSlot:
    """
    One slot.

    :ivar restart_lsn: WAL from here on is needed; 0 if none has been reserved yet, or no longer is.
    :ivar invalidation_reason: why it no longer is, as `SlotState.invalidation_reason`.
    :ivar saved_lsn: *restart_lsn* as it is on disk; ``None`` if that is not known, or other things have
        changed.
    :ivar oldest_saved_lsn: the lowest *restart_lsn* that the next start may find; 0: none.
    :ivar owner: process id of the session that has it; ``None``: nobody.
    :ivar busy: it is being created or dropped.
    :ivar held: the claim of the stream that uses it.
    :ivar inactive_since: when it was last let go of, in seconds since 1970; ``None``: it is in use.
    """

    name: str
    temporary: bool
    restart_lsn: LSN = INVALID_LSN
    invalidation_reason: str = ""
    saved_lsn: LSN | None = None
    oldest_saved_lsn: LSN = INVALID_LSN
    owner: int | None = None
    busy: bool = False
    held: HeldSlot | None = None
    inactive_since: float | None = None

    @property
    def needed_lsn(self) -> LSN:
        """From where on WAL must be kept for it, also if the power fails now; 0: nothing is."""
        return lowest(self.restart_lsn, self.oldest_saved_lsn)


class HeldSlot:
    """
    A stream's claim on a slot, from `ReplicationSlots.acquire` to `release`.

    :ivar invalidated: is called when the slot loses its WAL.
    """

    def __init__(self, slots: ReplicationSlots, slot: ReplicationSlot) -> None:
        self._slots = slots
        self._slot = slot
        self.invalidated: Callable[[], object] = bool

    @property
    def invalidation_reason(self) -> str:
        """Why the slot protects nothing any more; empty if it does."""
        return self._slot.invalidation_reason

    def advance(self, flush_lsn: LSN) -> None:
        """
        Take over what the standby has reported as flushed; 0 means that it does not report.

        A lower position than the last one counts too.

        Source: PostgreSQL, src/backend/replication/walsender.c, PhysicalConfirmReceivedLocation.
        """
        if flush_lsn and self._slot.held is self and not self._slot.invalidation_reason:
            self._slots.advance(self._slot, flush_lsn)

    def release(self) -> None:
        """The stream is over; harmless when repeated."""
        if self._slot.held is self:
            self._slots.release(self._slot)


def lowest(one: LSN, other: LSN) -> LSN:
    """Return the lower of two LSNs; 0 is none."""
    return min(one, other) if one and other else one or other
