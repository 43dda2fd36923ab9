"""Timeline histories."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import DataCorrupted
from walsender.lsn import LSN, Geometry
from walsender.wal import TimelineHistory

# Written by PostgreSQL 15 and 18 at promotions: the parent's lines, an empty line, its own.
OBSERVED = b"1\t0/406C0A8\tno recovery target specified\n"
TWO = OBSERVED + b"\n2\t0/5000000\tbefore 2000-01-01 00:00:00+00\n"


class TimelineHistoryTests(SynchronousTestCase):
    """A history file's meaning."""

    def test_parsesWhatServersWrite(self) -> None:
        """Lines give ancestors and switch points; empty lines between them give nothing."""
        history = TimelineHistory.parse(3, TWO)
        self.assertEqual((1, 2), history.ancestors)
        self.assertEqual("no recovery target specified", history.entries[0].reason)
        self.assertEqual((LSN(0x406C0A8), 2), history.switchpoint(1))
        self.assertEqual((LSN(0x5000000), 3), history.switchpoint(2))
        self.assertEqual(LSN(0x5000000), history.begin)

    def test_padding19AndComments(self) -> None:
        """The padded LSNs of 19, comments and blanks around numbers are understood."""
        history = TimelineHistory.parse(2, b"# by hand\n\n  \t \n 1 0/0406C0A8\n")
        self.assertEqual((LSN(0x406C0A8), 2), history.switchpoint(1))
        self.assertEqual("", history.entries[0].reason)

    def test_timelineAtIsHalfOpen(self) -> None:
        """The byte at a switch point belongs to the new timeline, the one before to the old."""
        history = TimelineHistory.parse(3, TWO)
        for lsn, timeline in (
            (0, 1),
            (0x406C0A7, 1),
            (0x406C0A8, 2),
            (0x4FFFFFF, 2),
            (0x5000000, 3),
            (1 << 40, 3),
        ):
            self.assertEqual(timeline, history.timeline_at(lsn))

    def test_knowsWhomItContains(self) -> None:
        """A history contains itself and its ancestors; others have no switch point in it."""
        history = TimelineHistory.parse(5, OBSERVED)
        self.assertTrue(history.contains(5))
        self.assertTrue(history.contains(1))
        self.assertFalse(history.contains(2))
        self.assertIsNone(history.switchpoint(2))
        self.assertIsNone(history.switchpoint(5))
        self.assertEqual(5, history.switchpoint(1)[1])

    def test_withoutFileThereAreNoAncestors(self) -> None:
        """A timeline of which nothing is known holds everything."""
        history = TimelineHistory(4)
        self.assertEqual((4, LSN(0), ()), (history.timeline_at(0), history.begin, history.ancestors))
        self.assertIsNone(history.switchpoint(4))

    def test_segmentNamesBefore93(self) -> None:
        """Before 9.3 a line names the segment: the switch is somewhere in it."""
        content = b"1\t0000000100000001000000FE\tno recovery target specified\n"
        entry = TimelineHistory.parse(2, content).entries[0]
        self.assertEqual((LSN.parse("1/FE000000"), False), (entry.switchpoint, entry.exact))
        small = TimelineHistory.parse(2, content, Geometry.skipping(1 << 20))
        self.assertEqual(LSN.parse("1/FE00000"), small.entries[0].switchpoint)

    def test_refusesWhatIsNoHistory(self) -> None:
        """Each mistake has PostgreSQL's text and names the file."""
        cases = {
            b"one\t0/1\tx\n": "Expected a numeric timeline ID.",
            b"\xff\xfe\n": "Expected a numeric timeline ID.",
            b"1\n": "Expected a write-ahead log switchpoint location.",
            b"1\tx\n": "Expected a write-ahead log switchpoint location.",
            b"1\t0/123456789\n": "Expected a write-ahead log switchpoint location.",
            b"9999999999\t0/1\n": "Expected a write-ahead log switchpoint location.",
            b"2\t0/1\n1\t0/2\n": "Timeline IDs must be in increasing sequence.",
            b"1\t0/1\n1\t0/2\n": "Timeline IDs must be in increasing sequence.",
            b"1\t0/2\n2\t0/1\n": "Switchpoints must be in increasing sequence.",
            b"3\t0/1\n": "Timeline IDs must be less than child timeline's ID.",
        }
        for content, hint in cases.items():
            error = self.assertRaises(DataCorrupted, TimelineHistory.parse, 3, content)
            self.assertEqual(hint, error.hint, content)
            self.assertIn("00000003.history", error.message + (error.detail or ""))

    def test_everyTruncationIsNoticed(self) -> None:
        """A file that is just being copied in is no history, wherever the copy is."""
        for length in range(len(OBSERVED)):
            self.assertRaises(DataCorrupted, TimelineHistory.parse, 2, OBSERVED[:length])

    @given(st.binary(max_size=200), st.integers(1, 5))
    def test_anyBytesGiveAHistoryOrATypedError(self, content: bytes, timeline: int) -> None:
        """No content raises anything but DataCorrupted."""
        with contextlib.suppress(DataCorrupted):
            TimelineHistory.parse(timeline, content)

    @given(
        st.lists(
            st.tuples(st.integers(1, 1000), st.integers(0, (1 << 64) - 1)),
            min_size=1,
            max_size=8,
            unique_by=lambda pair: pair[0],
        )
    )
    def test_writtenHistoriesAreRead(self, pairs: list[tuple[int, int]]) -> None:
        """What a server would write is read back."""
        timelines, places = sorted(t for t, _ in pairs), sorted(p for _, p in pairs)
        content = "\n".join(f"{t}\t{LSN(p)}\treason\n" for t, p in zip(timelines, places, strict=True))
        history = TimelineHistory.parse(1001, content.encode())
        self.assertEqual(tuple(timelines), history.ancestors)
        self.assertEqual(places, [entry.switchpoint for entry in history.entries])
