"""Record headers in three layouts, and both checksums."""

from __future__ import annotations

import contextlib
import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import DataCorrupted
from walsender.testing.wal_maker import MAGICS, WalMaker
from walsender.wal import FORMATS, RecordParser, WalFormat, identify_format, legacy_crc


def format_of(version: int, byte_order: str = "little") -> WalFormat:
    """Return the format of a release."""
    return next(each for each in FORMATS if (each.version, each.byte_order) == (version, byte_order))


def first_record(maker: WalMaker) -> bytes:
    """Return the one record that *maker* has written, page headers not taken out."""
    record = maker.records[0]
    return bytes(maker.image(1)[record.begin % maker.segment_size : record.end % maker.segment_size])


class LegacyCRCTests(SynchronousTestCase):
    """The checksum before 9.5."""

    def test_checkValue(self) -> None:
        """The nine digits give what PostgreSQL's algorithm gives, which is no standard CRC."""
        self.assertEqual(0xC40ED0B0, legacy_crc(b"123456789"))
        self.assertNotEqual(zlib.crc32(b"123456789"), legacy_crc(b"123456789"))
        self.assertEqual(0, legacy_crc(b""))

    @given(st.binary(max_size=64))
    def test_equalsTheDefinition(self, data: bytes) -> None:
        """Four bytes at a time give the same as one after the other."""
        crc = 0xFFFFFFFF
        for byte in data:
            entry = crc >> 24 ^ byte
            for _ in range(8):
                entry = entry >> 1 ^ (0xEDB88320 if entry & 1 else 0)
            crc = entry ^ crc << 8 & 0xFFFFFFFF
        self.assertEqual(crc ^ 0xFFFFFFFF, legacy_crc(data))


class RecordParserTests(SynchronousTestCase):
    """Records of each era."""

    def test_everyEra(self) -> None:
        """A record of each release and byte order is accepted, and a changed bit anywhere is not."""
        for version in MAGICS:
            for byte_order in ("little", "big"):
                maker = WalMaker(version, byte_order=byte_order)
                maker.record(104)
                parser = RecordParser(format_of(version, byte_order))
                record = first_record(maker)
                header = parser.check(record)
                self.assertEqual((104, 0, 0x20), (header.total_length, header.previous, header.info))
                self.assertEqual(104, parser.stated_length(record, 0))
                padding = range(28, 32) if version in {90300, 90400} else ()
                for index in range(len(record)):
                    if index in padding:
                        continue  # outside the checksum in 9.3 and 9.4
                    spoilt = bytearray(record)
                    spoilt[index] ^= 0x10
                    with self.assertRaises(DataCorrupted, msg=f"{version} byte {index}"):
                        parser.check(bytes(spoilt))

    def test_backupBlocksAreChecked(self) -> None:
        """Before 9.5 page images follow the data, up to three, or four from 9.2; checksums cover them."""
        for version, most in ((80400, 3), (90100, 3), (90200, 4), (90400, 4)):
            parser = RecordParser(format_of(version))
            for images in range(1, most + 1):
                maker = WalMaker(version, page_size=65536)
                maker.record(100, images=images)
                header = parser.check(first_record(maker)[: 100 + images * (24 + 8192)])
                self.assertEqual(68, header.data_length)

    def test_impossibleLengthsAreRefusedFromTheHeader(self) -> None:
        """Lengths that no record has are refused before anything of the body is looked at."""
        modern, old = RecordParser(format_of(180000)), RecordParser(format_of(90200))
        for parser, most in ((modern, 1020 << 20), (old, 1 << 30)):
            parser.check_length(parser.header_size)
            parser.check_length(most)
            for stated in (0, 1, parser.header_size - 1, most + 1, 0xFFFFFFFF):
                self.assertRaises(DataCorrupted, parser.check_length, stated)

    def test_dataLengthMustFitTheTotal(self) -> None:
        """Before 9.5 the data must fit in the record, and what is left in page images."""
        maker = WalMaker(90200)
        maker.record(104)
        parser = RecordParser(format_of(90200))
        for length in (105, 0xFFFFFFFF, 0):
            record = bytearray(first_record(maker))
            record[20:24] = length.to_bytes(4, "little")
            self.assertRaises(DataCorrupted, parser.parse, bytes(record))
        record = bytearray(first_record(maker))
        record[16:20] = (104 + 4 * (24 + 32768) + 1).to_bytes(4, "little")
        self.assertRaises(DataCorrupted, parser.parse, bytes(record))

    def test_switchHasNoDataBefore95(self) -> None:
        """A switch record has no data and every other record has some."""
        for version in (80400, 90300):
            maker = WalMaker(version)
            maker.switch()
            parser = RecordParser(format_of(version))
            self.assertTrue(parser.check(first_record(maker)[:32]).is_switch)
            maker = WalMaker(version)
            maker.record(104, info=0x40)
            self.assertRaises(DataCorrupted, parser.parse, first_record(maker))

    def test_kindsAreOfTheXLOGResourceManager(self) -> None:
        """The same info bits of another resource manager mean something else; low bits mean nothing here."""
        for manager, info, switch, overwrite in (
            (0, 0x40, True, False),
            (0, 0x41, True, False),
            (0, 0xD0, False, True),
            (10, 0x40, False, False),
            (10, 0xD0, False, False),
        ):
            maker = WalMaker()
            maker.record(104, manager=manager, info=info)
            header = RecordParser(format_of(180000)).check(first_record(maker))
            self.assertEqual((switch, overwrite), (header.is_switch, header.is_overwrite))

    def test_recordMustBeWhole(self) -> None:
        """A record that is shorter or longer than it states is not accepted."""
        maker = WalMaker()
        maker.record(104)
        parser, record = RecordParser(format_of(180000)), first_record(maker)
        for data in (record[:-1], record + b"\0", record[:23], b""):
            self.assertRaises(DataCorrupted, parser.check, data)
        self.assertIsNone(parser.stated_length(record, 101))

    @given(st.sampled_from(FORMATS), st.binary(max_size=120))
    def test_anyBytesGiveARecordOrATypedError(self, wal_format: WalFormat, data: bytes) -> None:
        """No bytes raise anything but DataCorrupted."""
        with contextlib.suppress(DataCorrupted):
            RecordParser(wal_format).check(data)

    def test_layoutsOfTheirEras(self) -> None:
        """The layout changes with 9.3 and 9.5, the header's length with 9.5."""
        sizes = {version: RecordParser(format_of(version)).header_size for version in MAGICS}
        self.assertEqual({32}, {size for version, size in sizes.items() if version < 90500})
        self.assertEqual({24}, {size for version, size in sizes.items() if version >= 90500})
        self.assertEqual(90300, identify_format(b"\x75\xd0").version)
