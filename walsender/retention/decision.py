"""
Which WAL may go, which slots lose theirs, and who holds the rest: pure arithmetic.

Segments are compared by number, whatever their timeline, as PostgreSQL compares them: a
branch that was left goes when the WAL beside it goes.  What is decided here is true for
the moment only; `walsender.retention.remover` asks again after everything that takes time.

Source: PostgreSQL, src/backend/access/transam/xlog.c, KeepLogSeg and GetWALAvailability;
src/backend/replication/slotfuncs.c, pg_get_replication_slots.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class WalStatus(enum.Enum):
    """What ``pg_replication_slots.wal_status`` says of a slot."""

    RESERVED = "reserved"  # it needs no more than is kept anyway
    EXTENDED = "extended"  # more is kept, for slots
    UNRESERVED = "unreserved"  # it is past the limit, and loses its WAL when that is looked at next
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Limits:
    """
    How much WAL is kept, in bytes.

    :ivar keep: ``wal_keep_size``: so much before the flush position; ``None``: all there is.
    :ivar slots: ``max_slot_wal_keep_size``: no more than so much for slots, and for connected standbys;
        ``None``: what they need.
    """

    keep: int | None = None
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """
    Who needs WAL, as byte positions.

    :ivar segment_size: bytes.
    :ivar flush: end of what is durable; at least 1.
    :ivar receiving: what the receiver writes next; at least 1.
    :ivar restart: where each slot that has reserved WAL is.
    :ivar needed: from where WAL is kept for each: not behind *restart*, if a crash could take that back.
    :ivar standby: the lowest that a connected standby still has to read; ``None``: there is none.
    """

    segment_size: int
    flush: int
    receiving: int
    restart: Mapping[str, int] = field(default_factory=dict)
    needed: Mapping[str, int] = field(default_factory=dict)
    standby: int | None = None

    def number(self, position: int) -> int:
        """Return which segment holds the byte at *position*."""
        return position // self.segment_size


@dataclass(frozen=True, slots=True)
class Holder:
    """
    Who keeps WAL from being removed.

    :ivar number: of the first segment that is kept.
    :ivar reason: in words, behind "because of".
    """

    number: int
    reason: str


def kept_anyway(demand: Demand, limits: Limits) -> int:
    """Return the number of the first segment that ``wal_keep_size`` keeps; 0: all are kept."""
    if limits.keep is None:
        return 0
    return max(0, demand.number(demand.flush) - limits.keep // demand.segment_size)


def kept_for_slots(demand: Demand, limits: Limits) -> int:
    """Return the number of the first segment that a slot may still need; a slot below it loses its WAL."""
    current = demand.number(demand.flush)
    needed = min((demand.number(position) for position in demand.restart.values()), default=current)
    return min(max(needed, _limit(demand, limits)), current, kept_anyway(demand, limits))


def _limit(demand: Demand, limits: Limits) -> int:
    """Return the first segment that is kept for one who is behind, by number; 0: there is no limit."""
    if limits.slots is None:
        return 0
    return max(0, demand.number(demand.flush) - limits.slots // demand.segment_size)


def lost_slots(demand: Demand, limits: Limits) -> tuple[str, ...]:
    """Return the names of the slots that are past the limit."""
    first = kept_for_slots(demand, limits)
    return tuple(name for name, position in demand.restart.items() if demand.number(position) < first)


def holder(demand: Demand, limits: Limits) -> Holder:
    """
    Return what the first segment is that must be kept, and because of whom.

    Slots that are past the limit count too: they are invalidated first, and asked about again.  A connected
    standby counts up to the limit: without one, anybody who is let in and does not read would hold all
    WAL, for as long as there is room, and then all commits that wait for us.
    """
    if limits.keep is None:
        return Holder(0, '"wal_keep_size", which is -1')
    # A restart must find where WAL ended: by the last record, which may begin in the segment before.
    newest = demand.number(min(demand.flush, demand.receiving) - 1)
    holders = [Holder(max(0, newest - 1), "the newest WAL itself")]
    holders += [
        Holder(demand.number(position), f'replication slot "{name}"')
        for name, position in sorted(demand.needed.items())
    ]
    if demand.standby is not None:
        standby = max(demand.number(demand.standby), _limit(demand, limits))
        holders.append(Holder(standby, "a connected standby"))
    holders.append(Holder(kept_anyway(demand, limits), '"wal_keep_size"'))
    return min(holders, key=lambda one: one.number)


def wal_status(restart: int, demand: Demand, limits: Limits) -> WalStatus:
    """Return how sure a slot, which has not been invalidated, is of the WAL from *restart* on."""
    number = demand.number(restart)
    if number < kept_for_slots(demand, limits):
        return WalStatus.UNRESERVED
    return WalStatus.RESERVED if number >= kept_anyway(demand, limits) else WalStatus.EXTENDED


def safe_wal_size(restart: int, demand: Demand, limits: Limits) -> int | None:
    """Return how many bytes may still come before a slot at *restart* loses its WAL; ``None``: any number."""
    if limits.slots is None or limits.keep is None:
        return None
    kept = max(limits.slots, limits.keep) // demand.segment_size
    return (demand.number(restart) + kept + 1) * demand.segment_size - demand.flush
