"""`SlotTable`: places, process ids, and what is shown of them."""

from __future__ import annotations

from copy import copy
from dataclasses import fields

from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import TooManyConnections
from walsender.lsn import LSN
from walsender.sender import SlotTable, WalSenderEntry


def entry(table: SlotTable) -> WalSenderEntry:
    """Return an entry that is not reserved yet."""
    return WalSenderEntry(table.new_process_id(), "127.0.0.1", 5, 0.0)


class SlotTableTests(SynchronousTestCase):
    """One table, several walsenders."""

    def test_limit(self) -> None:
        """A full table refuses, until a place is free."""
        table = SlotTable(2)
        entries = [entry(table) for _ in range(3)]
        table.reserve(entries[0])
        table.reserve(entries[1])
        error = self.assertRaises(TooManyConnections, table.reserve, entries[2])
        self.assertIn("(currently 2)", error.message)
        table.free(entries[0])
        table.reserve(entries[2])
        self.assertEqual(entries[1:], list(table))

    def test_freeIsHarmless(self) -> None:
        """What holds no place can be freed, also if its number has another owner now."""
        table = SlotTable(1)
        first = entry(table)
        table.free(first)
        second = WalSenderEntry(first.process_id, "::1", 6, 0.0)
        table.reserve(second)
        table.free(first)
        self.assertEqual([second], list(table))

    def test_processIdsAreUnique(self) -> None:
        """A number comes again only when the counter has gone round, and never while it is in use."""
        table = SlotTable(10)
        used = entry(table)
        table.reserve(used)
        self.assertEqual(1, used.process_id)
        table._last_process_id = (1 << 31) - 1
        self.assertEqual(2, table.new_process_id())

    def test_oldestSent(self) -> None:
        """The lowest position of those that have one; 0 if none has."""
        table = SlotTable(5)
        self.assertEqual(0, table.oldest_sent())
        for position in (0, 0x300, 0x200, 0):
            walsender = entry(table)
            walsender.sent_lsn = LSN(position)
            table.reserve(walsender)
        self.assertEqual(0x200, table.oldest_sent())

    def test_activity(self) -> None:
        """One standby is shown by itself, several by their number and the lowest position."""
        table = SlotTable(5)
        self.assertEqual("0 standbys", table.activity())
        first, second = entry(table), entry(table)
        table.reserve(first)
        self.assertEqual("startup", table.activity())
        first.sent_lsn = LSN(0x1_0000_0010)
        self.assertEqual("streaming 1/10", table.activity())
        table.reserve(second)
        self.assertEqual("2 standbys, streaming 1/10", table.activity())

    def test_copy(self) -> None:
        """A copy has everything, and a life of its own."""
        values = list(range(1, len(fields(WalSenderEntry)) + 1))
        walsender = WalSenderEntry(*values)  # type: ignore[arg-type]
        other = copy(walsender)
        self.assertEqual(values, [getattr(other, field.name) for field in fields(other)])
        other.sent_lsn = LSN(0)
        self.assertNotEqual(0, walsender.sent_lsn)

    def test_sentBytes(self) -> None:
        """What was sent counts over streams and connections."""
        table = SlotTable(5)
        first, second = entry(table), entry(table)
        for one, sent in ((first, 0x180), (second, 0x110)):
            table.reserve(one)
            one.start_lsn, one.sent_lsn = LSN(0x100), LSN(sent)
        self.assertEqual((0x80, 0x90), (first.sent_bytes, table.sent_bytes))
        first.reset()
        self.assertEqual((0x80, 0x90), (first.sent_bytes, table.sent_bytes))
        first.start_lsn, first.sent_lsn = LSN(0x1000), LSN(0x1001)
        self.assertEqual((0x81, 0x91), (first.sent_bytes, table.sent_bytes))
        table.free(first)
        table.free(first)
        self.assertEqual(0x91, table.sent_bytes)

    def test_reset(self) -> None:
        """What belonged to a stream is forgotten, who it is is not."""
        walsender = WalSenderEntry(
            1, "::1", 5, 3.0, "u", "a", "streaming", LSN(1), LSN(2), LSN(3), LSN(4), 5.0
        )
        walsender.reset()
        self.assertEqual(WalSenderEntry(1, "::1", 5, 3.0, "u", "a").activity, walsender.activity)
        self.assertEqual(
            (0, 0, 0, 0, None),
            (
                walsender.sent_lsn,
                walsender.write_lsn,
                walsender.flush_lsn,
                walsender.replay_lsn,
                walsender.reply_time,
            ),
        )
