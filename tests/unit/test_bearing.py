"""What the program says it does."""

from __future__ import annotations

from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from walsender.bearing import Bearing
from walsender.lsn import LSN
from walsender.sender import SlotTable
from walsender.sender.slot_table import STREAMING, WalSenderEntry
from walsender.testing.source import ScriptedSource


class Supply:
    """A source, an upstream that is there or not, and a disk that answers or not."""

    def __init__(self) -> None:
        self.source = ScriptedSource(0x500000)
        self.receiving: object = None
        self.silent = 0.0
        self.timings = self

    def stuck(self) -> float:
        """See `walsender.timings.Timings`."""
        return self.silent


class BearingTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a server."""
        self.supply = Supply()
        self.table = SlotTable(10)

    def bearing(self, *, is_relay: bool = False) -> Bearing:
        """Return what says what it does."""
        return Bearing(cast("Any", self.supply), self.table, is_relay)

    def join(self, number: int) -> None:
        """Have a standby stream."""
        self.table.reserve(
            WalSenderEntry(number, "10.0.0.1", 4000, 900.0, state=STREAMING, sent_lsn=LSN(0x400000 + number))
        )

    def test_standbys(self) -> None:
        """It says how many there are and up to where all have been sent WAL."""
        bearing = self.bearing()
        self.assertEqual("0 standbys", bearing.activity())
        self.join(0x60)
        self.assertEqual("streaming 0/400060", bearing.activity())
        self.join(0x70)
        self.assertEqual("2 standbys, streaming 0/400060", bearing.activity())

    def test_noWal(self) -> None:
        """Before there is WAL nothing else is of interest."""
        self.supply.source.ready = False
        self.assertEqual("waiting for WAL", self.bearing(is_relay=True).activity())

    def test_noUpstream(self) -> None:
        """A relay says when nothing is received; others have no upstream to miss."""
        relay = self.bearing(is_relay=True)
        self.assertEqual("0 standbys, no upstream", relay.activity())
        self.supply.receiving = object()
        self.assertEqual("0 standbys", relay.activity())

    def test_silentDisk(self) -> None:
        """A disk that takes long is told of."""
        self.supply.silent = 4.9
        self.assertEqual("0 standbys", self.bearing().activity())
        self.supply.silent = 75.2
        self.assertEqual("0 standbys, disk silent for 75 s", self.bearing().activity())

    def test_doing(self) -> None:
        """What the program itself does stands before all else."""
        bearing = self.bearing()
        bearing.doing = "shutting down"
        self.assertEqual("shutting down", bearing.activity())
