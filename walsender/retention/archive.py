"""What slots have of a directory that others fill, and from which others remove what they like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from walsender.replication_slots import Availability
from walsender.retention.decision import WalStatus

if TYPE_CHECKING:
    from walsender.replication_slots import ReplicationSlot
    from walsender.source.held import HeldWal


def archive_availability(slot: ReplicationSlot, source: HeldWal) -> Availability:
    """
    Return whether *source* has the segment from which a slot needs WAL.

    A slot keeps nothing there, so ``reserved`` is said of what is there.  As in PostgreSQL a slot in use is
    not called lost: it may have moved on.
    """
    if slot.invalidation_reason:
        return Availability(WalStatus.LOST.value)
    directory = source.directory
    if not slot.restart_lsn or directory is None or not source.ready:
        return Availability()
    geometry = source.geometry
    number = geometry.segment_number(geometry.position(slot.restart_lsn))
    is_there = number >= geometry.segment_number(source.flush_position) or any(
        directory.run_of(timeline, number) is not None for timeline in directory.ranges
    )
    if is_there:
        return Availability(WalStatus.RESERVED.value)
    return Availability((WalStatus.LOST if slot.owner is None else WalStatus.UNRESERVED).value)
