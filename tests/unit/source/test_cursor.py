"""`Cursor`: one reader's open files."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from walsender.source import Cursor, SegmentUnavailable
from walsender.testing.source import ScriptedSource

MIB = 1 << 20


class CursorTests(SynchronousTestCase):
    """Slices, what they need, and when it is let go."""

    def setUp(self) -> None:
        """Make a source of four MiB and a cursor on it."""
        self.source = ScriptedSource(4 * MIB)
        self.addCleanup(self.source.close)
        self.cursor = Cursor(lambda number: self.source.open_segment(1, number), MIB)

    def test_nothingOpen(self) -> None:
        """Without a file there is no slice."""
        self.assertIs(None, self.cursor.slice(MIB, MIB + 1))
        self.assertFalse(self.cursor.covers(MIB, MIB + 1))

    def test_slice(self) -> None:
        """A slice ends at its segment's end."""
        self.successResultOf(self.cursor.open(MIB + 5, MIB + 10))
        piece = self.cursor.slice(MIB + 5, MIB + 10)
        assert piece is not None
        self.assertEqual((5, 5, MIB), (piece.offset, piece.length, piece.segment.start))
        piece = self.cursor.slice(MIB + 5, 3 * MIB)
        assert piece is not None
        self.assertEqual(MIB - 5, piece.length)
        self.assertTrue(self.cursor.covers(MIB + 5, 2 * MIB))
        self.assertFalse(self.cursor.covers(MIB + 5, 2 * MIB + 1))

    def test_twoSegments(self) -> None:
        """A range over a segment's end needs both files, and reading it moves from one to the other."""
        self.successResultOf(self.cursor.open(2 * MIB - 8, 2 * MIB + 8))
        self.assertEqual([1, 2], self.source.opened)
        self.assertTrue(self.cursor.covers(2 * MIB - 8, 2 * MIB + 8))
        piece = self.cursor.slice(2 * MIB, 2 * MIB + 8)
        assert piece is not None
        self.assertEqual((2 * MIB, 0, 8), (piece.segment.start, piece.offset, piece.length))
        del piece
        self.assertEqual(1, self.source.open_count)

    def test_readAhead(self) -> None:
        """The next segment is opened once, and only if there is WAL in it."""
        self.successResultOf(self.cursor.open(MIB, MIB + 8))
        self.cursor.read_ahead(2 * MIB)
        self.assertEqual([1], self.source.opened)
        self.cursor.read_ahead(2 * MIB + 1)
        self.cursor.read_ahead(2 * MIB + 1)
        self.assertEqual([1, 2], self.source.opened)
        self.assertTrue(self.cursor.covers(MIB, 2 * MIB + 1))

    def test_readAheadThatFails(self) -> None:
        """A failure is met again when the segment is needed."""
        self.source.remove(2)
        self.successResultOf(self.cursor.open(MIB, MIB + 8))
        self.cursor.read_ahead(3 * MIB)
        self.assertFalse(self.cursor.covers(MIB, 2 * MIB + 1))
        self.failureResultOf(self.cursor.open(2 * MIB, 2 * MIB + 1), SegmentUnavailable)

    def test_readAheadThatComesTooLate(self) -> None:
        """What the reader does not stand before any more is not kept."""
        self.successResultOf(self.cursor.open(MIB, MIB + 8))
        self.source.holding = True
        self.cursor.read_ahead(3 * MIB)
        self.cursor.close()
        self.source.release()
        self.assertEqual(0, self.source.open_count)

    def test_retired(self) -> None:
        """A retired file is good for slices that were covered before, not for new ones."""
        self.successResultOf(self.cursor.open(2 * MIB - 8, 2 * MIB + 8))
        self.assertTrue(self.cursor.covers(2 * MIB - 8, 2 * MIB + 8))
        self.source.retire(1)
        self.source.retire(2)
        self.assertFalse(self.cursor.covers(2 * MIB - 8, 2 * MIB + 8))
        self.assertIsNot(None, self.cursor.slice(2 * MIB - 8, 2 * MIB))
        self.assertIsNot(None, self.cursor.slice(2 * MIB, 2 * MIB + 8))
        self.successResultOf(self.cursor.open(2 * MIB, 2 * MIB + 8))
        self.assertTrue(self.cursor.covers(2 * MIB, 2 * MIB + 8))

    def test_onlyNextRetired(self) -> None:
        """The second file of a range counts, too."""
        self.successResultOf(self.cursor.open(2 * MIB - 8, 2 * MIB + 8))
        self.source.retire(2)
        self.assertTrue(self.cursor.covers(2 * MIB - 8, 2 * MIB))
        self.assertFalse(self.cursor.covers(2 * MIB - 8, 2 * MIB + 8))

    def test_close(self) -> None:
        """A closed cursor holds nothing, and takes nothing that comes too late."""
        self.successResultOf(self.cursor.open(2 * MIB - 8, 2 * MIB + 8))
        self.source.holding = True
        opening = self.cursor.open(3 * MIB - 8, 3 * MIB + 8)
        self.source.release()
        self.cursor.close()
        self.assertEqual(0, self.source.open_count)
        self.failureResultOf(opening, CancelledError)
        self.source.release()
        self.assertEqual(0, self.source.open_count)
