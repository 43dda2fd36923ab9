"""Page headers of every era."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import DataCorrupted
from walsender.lsn import LSN, Geometry
from walsender.testing.wal_maker import MAGICS, WalMaker
from walsender.wal import FORMATS, identify_format, parse_page_header

# The first bytes of a segment of PostgreSQL 18.4, and of its second page.
LONG_18 = bytes.fromhex(
    "18d1"  # magic
    "0600"  # long header; backup blocks removable
    "01000000"  # timeline 1
    "0000000100000000"  # address 0/1000000
    "00000000"
    "00000000"  # nothing continues; padding
    "1122334455667788"  # system identifier
    "00000001"
    "00200000"  # segments of 16 MB, pages of 8 kB
)
SHORT_18 = bytes.fromhex(
    "18d1"
    "0100"
    "02000000"
    "0020000100000000"  # continues a record; timeline 2; 0/1002000
    "5e000000"
    "00000000"  # of which 94 bytes are to come
)
# As PostgreSQL 9.2 on a big-endian machine would write them: the LSN is two words.
LONG_92_BIG = bytes.fromhex(
    "d071"
    "0003"
    "00000001"
    "00000003"
    "fe000000"  # continues, long; timeline 1; 3/FE000000
    "1122334455667788"
    "01000000"
    "00002000"
    "00000010"  # 16 bytes of the record are to come
)


class IdentifyFormatTests(SynchronousTestCase):
    """From magic number to release."""

    def test_everyReleaseInBothByteOrders(self) -> None:
        """Each magic of the releases 8.4 to 19 is known, whichever byte comes first."""
        for version, magic in MAGICS.items():
            for order in ("little", "big"):
                found = identify_format(magic.to_bytes(2, order))
                self.assertEqual((version, order, magic), (found.version, found.byte_order, found.magic))
        self.assertEqual("19", identify_format(b"\x20\xd1").name)
        self.assertEqual(
            ("9.2", "10"), (identify_format(b"\x71\xd0").name, identify_format(b"\xd0\x97").name)
        )
        self.assertEqual(2 * (len(MAGICS) + 1), len(FORMATS))

    def test_unknownMagicIsNamed(self) -> None:
        """8.3, zeros and single bytes are no WAL that we know."""
        self.assertIn("D062", self.assertRaises(DataCorrupted, identify_format, b"\x62\xd0").message)
        self.assertIn("0000", self.assertRaises(DataCorrupted, identify_format, bytes(8)).message)
        self.assertIn("too short", self.assertRaises(DataCorrupted, identify_format, b"\x18").message)

    def test_flagsChangeTheirMeaning(self) -> None:
        """0x0004 is a hint from 9.2 to 18, and says "overwritten" in 19; 0x0008 says so from 10 to 18."""
        flags = {
            wal_format.version: (wal_format.allowed_flags, wal_format.overwrite_flag)
            for wal_format in FORMATS
        }
        self.assertEqual((0x3, 0), flags[90100])
        self.assertEqual((0x7, 0), flags[90200])
        self.assertEqual((0xF, 0x8), flags[140000])
        self.assertEqual((0xF, 0x8), flags[180000])
        self.assertEqual((0x7, 0x4), flags[190000])


class ParsePageHeaderTests(SynchronousTestCase):
    """One page's header."""

    modern = identify_format(LONG_18)
    geometry = Geometry.contiguous()

    def test_longHeader(self) -> None:
        """A segment's first page tells about the cluster."""
        header = parse_page_header(LONG_18, self.modern, self.geometry)
        self.assertEqual(
            (1, LSN(0x1000000), 40, False),
            (header.timeline, header.address, header.data_start, header.continues),
        )
        assert header.long is not None
        self.assertEqual(0x8877665544332211, header.long.system_identifier)

    def test_shortHeader(self) -> None:
        """Other pages have a shorter one, and may continue a record."""
        header = parse_page_header(SHORT_18, self.modern, self.geometry)
        self.assertEqual((2, LSN(0x1002000), 24), (header.timeline, header.address, header.data_start))
        self.assertEqual((True, 94, None), (header.continues, header.remaining, header.long))
        self.assertFalse(header.overwrites)

    def test_before93(self) -> None:
        """LSNs are two words, high one first, and the remaining length stands behind the header."""
        header = parse_page_header(LONG_92_BIG, identify_format(LONG_92_BIG), Geometry.skipping())
        self.assertEqual(LSN.parse("3/FE000000"), header.address)
        self.assertEqual((16, 36, True), (header.remaining, header.data_start, header.continues))
        assert header.long is not None
        self.assertEqual(0x1122334455667788, header.long.system_identifier)

    def test_refusals(self) -> None:
        """Wrong magic, unknown flags, a misplaced long header, foreign sizes and cuts are refused."""
        cases = {
            "magic": b"\x17" + LONG_18[1:],
            "flags": LONG_18[:2] + b"\x12" + LONG_18[3:],
            "long header missing": LONG_18[:2] + b"\x00" + LONG_18[3:],
            "long header not at a segment's start": LONG_18[:9] + b"\x20" + LONG_18[10:],
            "segment size": LONG_18[:32] + b"\x00\x00\x00\x02" + LONG_18[36:],
            "page size": LONG_18[:37] + b"\x40" + LONG_18[38:],
            "cut": LONG_18[:39],
            "cut short": SHORT_18[:19],
        }
        for what, data in cases.items():
            with self.assertRaises(DataCorrupted, msg=what):
                parse_page_header(data, self.modern, self.geometry)
        with self.assertRaises(DataCorrupted):
            parse_page_header(LONG_92_BIG[:34], identify_format(LONG_92_BIG), Geometry.skipping())

    def test_overwriteFlagBelongsToItsEra(self) -> None:
        """The same bit is a hint in 18 and an overwritten record in 19."""
        for version, flags, overwrites in ((180000, 0x4, False), (180000, 0x8, True), (190000, 0x4, True)):
            maker = WalMaker(version)
            maker.record(20_000)
            page = bytearray(maker.image(1)[8192:16384])
            page[2] = flags
            parsed = parse_page_header(page, identify_format(bytes(page)), Geometry.contiguous(1 << 20))
            self.assertIs(overwrites, parsed.overwrites)

    @given(st.sampled_from(FORMATS), st.binary(max_size=80), st.booleans())
    def test_anyBytesGiveAHeaderOrATypedError(self, wal_format: object, data: bytes, magic: bool) -> None:
        """No bytes raise anything but DataCorrupted."""
        for each in FORMATS:
            if each == wal_format:
                if magic:
                    data = each.magic.to_bytes(2, each.byte_order) + data
                with contextlib.suppress(DataCorrupted):
                    parse_page_header(data, each, each.geometry(16 << 20, 8192))
