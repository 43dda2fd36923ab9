"""Positions: their text, and the arithmetic of both address eras."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import InvalidLSN
from walsender.lsn import INVALID_LSN, LSN, Geometry

SEGMENT_SIZES = st.integers(20, 30).map(lambda bits: 1 << bits)
LSNS = st.integers(0, (1 << 64) - 1).map(LSN)


class LSNTests(SynchronousTestCase):
    """An LSN as text."""

    def test_printsHalvesWithoutPadding(self) -> None:
        """An LSN prints as ``%X/%X``, as PostgreSQL before 19 prints it."""
        self.assertEqual("16/B374D848", str(LSN(0x16B374D848)))
        self.assertEqual("0/0", str(INVALID_LSN))
        self.assertEqual("LSN('1/0')", repr(LSN(1 << 32)))

    def test_parsesAnyWidth(self) -> None:
        """Padded and unpadded texts, in either case of letters, are one LSN."""
        for text in ("0/3000060", "0/03000060", "00000000/03000060"):
            self.assertEqual(0x3000060, LSN.parse(text))
        self.assertEqual(LSN.parse("A/B"), LSN.parse("a/b"))

    def test_refusesWhatIsNoLSN(self) -> None:
        """Everything but two groups of one to eight hexadecimal digits is refused with PostgreSQL's text."""
        for text in (
            "",
            "/",
            "0/",
            "/0",
            "0/123456789",
            "123456789/0",
            "0/0/0",
            " 0/0",
            "0/0\n",
            "g/0",
            "-1/0",
            "0x1/0",
        ):
            error = self.assertRaises(InvalidLSN, LSN.parse, text)
            self.assertEqual(f'invalid input syntax for type pg_lsn: "{text}"', error.message)

    @given(LSNS)
    def test_textRoundTrips(self, lsn: LSN) -> None:
        """What an LSN prints is parsed to the same LSN."""
        self.assertEqual(lsn, LSN.parse(str(lsn)))
        self.assertEqual(lsn, lsn.log_id << 32 | lsn.log_offset)


class GeometryTests(SynchronousTestCase):
    """Positions, LSNs and segments."""

    def test_refusesImpossibleSizes(self) -> None:
        """Segment sizes are powers of two from 1 MiB to 1 GiB, page sizes from 1 KiB to 64 KiB."""
        for size in (0, -1, 1 << 19, 3 << 20, 1 << 31, (16 << 20) + 1):
            self.assertRaises(ValueError, Geometry.contiguous, size)
        for size in (0, 512, 8191, 12288, 1 << 17):
            self.assertRaises(ValueError, Geometry.skipping, 16 << 20, size)

    def test_lastSegmentOfALogFileIsSkippedBefore93(self) -> None:
        """With 16 MB segments 255 are in a log file, and FF000000 is the start of the next."""
        geometry = Geometry.skipping()
        self.assertEqual(255, geometry.segments_per_log_file)
        end = LSN.parse("0/FF000000")
        self.assertEqual(LSN.parse("1/0"), geometry.lsn(geometry.position(end)))
        self.assertEqual(geometry.position(LSN.parse("1/0")), geometry.position(end))
        self.assertEqual(geometry.position(end), geometry.position(LSN.parse("0/FFABCDEF")))
        self.assertEqual(2, geometry.position(LSN.parse("1/1")) - geometry.position(LSN.parse("0/FEFFFFFF")))

    def test_everyAddressIsUsedFrom93(self) -> None:
        """A position is the LSN itself, and segment FF exists."""
        geometry = Geometry.contiguous()
        self.assertEqual(256, geometry.segments_per_log_file)
        self.assertEqual(0xFF000000, geometry.position(LSN.parse("0/FF000000")))
        self.assertEqual(255, geometry.segment_number(0xFF000000))

    @given(SEGMENT_SIZES, st.integers(0, (1 << 62)), st.booleans())
    def test_positionsRoundTripThroughLSNs(self, size: int, position: int, skipping: bool) -> None:
        """Every position has an LSN that leads back to it, and segments tile the positions."""
        geometry = (Geometry.skipping if skipping else Geometry.contiguous)(size)
        lsn = geometry.lsn(position)
        self.assertEqual(position, geometry.position(lsn))
        self.assertLess(lsn.log_offset, geometry.log_file_size)
        number = geometry.segment_number(position)
        self.assertLessEqual(geometry.segment_start(number), position)
        self.assertLess(position, geometry.segment_start(number + 1))
        self.assertEqual(position % geometry.page_size, position - geometry.page_start(position))

    @given(SEGMENT_SIZES, LSNS, LSNS, st.booleans())
    def test_orderIsKept(self, size: int, one: LSN, other: LSN, skipping: bool) -> None:
        """A later LSN is never at an earlier position."""
        geometry = (Geometry.skipping if skipping else Geometry.contiguous)(size)
        low, high = sorted((one, other))
        self.assertLessEqual(geometry.position(low), geometry.position(high))
