"""What slots have of a directory from which others remove what they like."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from walsender.lsn import LSN, Geometry
from walsender.replication_slots import ReplicationSlot
from walsender.retention import archive_availability
from walsender.wal import FORMATS, WalDirectory, WalIdentity

MIB = 1 << 20


class ArchiveTests(SynchronousTestCase):
    def status(self, position: float, *, ready: bool = True, **slot: Any) -> str | None:
        """Return the status of a slot there; held are segments 4, 5 and, of another timeline, 7; 8 grows."""
        geometry = Geometry.contiguous(MIB)
        held = WalDirectory(
            "/wal", WalIdentity(1, FORMATS[-1], geometry), ranges={1: (range(4, 6),), 2: (range(7, 8),)}
        )
        source = SimpleNamespace(
            ready=ready,
            geometry=geometry,
            flush_position=int(8.5 * MIB),
            directory=held if ready else None,
        )
        found = archive_availability(
            ReplicationSlot("a", temporary=False, restart_lsn=LSN(int(position * MIB)), **slot),
            cast("Any", source),
        )
        self.assertIsNone(found.safe_wal_size)
        return found.wal_status

    def test_heldOrNot(self) -> None:
        """What is held, on whatever timeline, or is to come, is reserved; anything else is lost."""
        for position, expected in (
            (3.99, "lost"),
            (4, "reserved"),
            (5.99, "reserved"),
            (6, "lost"),
            (7.5, "reserved"),
            (8.1, "reserved"),
            (8.5, "reserved"),
            (0, None),
        ):
            self.assertEqual(expected, self.status(position), position)

    def test_inUse(self) -> None:
        """Who streams may have moved on since."""
        self.assertEqual("unreserved", self.status(3, owner=7))
        self.assertEqual("reserved", self.status(4, owner=7))

    def test_invalidated(self) -> None:
        """What has been invalidated stays lost."""
        self.assertEqual("lost", self.status(0, invalidation_reason="wal_removed"))

    def test_withoutWal(self) -> None:
        """Before there is WAL nothing is known."""
        self.assertIsNone(self.status(4, ready=False))
