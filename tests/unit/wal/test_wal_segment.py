"""Names in a WAL directory, and the identity that a segment states."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wal_helpers import PATH, MemoryFiles

from walsender.errors import DataCorrupted, WalFileDenied, WalFileMissing
from walsender.lsn import Geometry
from walsender.testing.wal_maker import MAGICS, WalMaker
from walsender.wal import FileKind, base_name, history_name, parse_file_name, read_identity, segment_name
from walsender.wal.segment import FORMS, compression_of

NAME = "000000030000000A000000FE"


class SegmentNameTests(SynchronousTestCase):
    """Names of segments, both ways."""

    def test_namesOfEverySegmentSize(self) -> None:
        """The last part of a name counts within one log file, whose length depends on the segment size."""
        cases = {1: (0xFFF, 0x1000), 16: (0xFF, 0x100), 64: (0x3F, 0x40), 1024: (3, 4)}
        for megabytes, (last, count) in cases.items():
            geometry = Geometry.contiguous(megabytes << 20)
            self.assertEqual(f"0000000100000000{last:08X}", segment_name(1, count - 1, geometry))
            self.assertEqual("000000010000000100000000", segment_name(1, count, geometry))

    def test_segmentFFIsSkippedBefore93(self) -> None:
        """Before 9.3, FE is followed by 0 of the next log file, and FF is no segment."""
        geometry = Geometry.skipping()
        self.assertEqual("0000000100000000000000FE", segment_name(1, 254, geometry))
        self.assertEqual("000000010000000100000000", segment_name(1, 255, geometry))
        self.assertIs(FileKind.OTHER, parse_file_name("0000000100000000000000FF", geometry).kind)
        self.assertIs(FileKind.SEGMENT, parse_file_name("0000000100000000000000FF").kind)

    @given(st.integers(1, 0xFFFFFFFF), st.integers(0, 1 << 40), st.integers(20, 30), st.booleans())
    def test_namesRoundTrip(self, timeline: int, number: int, bits: int, skipping: bool) -> None:
        """A name gives back the timeline and the number it was made of."""
        geometry = (Geometry.skipping if skipping else Geometry.contiguous)(1 << bits)
        number %= geometry.segments_per_log_file << 32
        parsed = parse_file_name(segment_name(timeline, number, geometry), geometry)
        self.assertEqual((FileKind.SEGMENT, timeline), (parsed.kind, parsed.timeline))
        self.assertEqual(number, parsed.number(geometry))


class FileNameTests(SynchronousTestCase):
    """What a name promises."""

    def test_kinds(self) -> None:
        """Each kind of file is told by its name."""
        cases = {
            NAME: FileKind.SEGMENT,
            NAME + ".partial": FileKind.PARTIAL,
            NAME + ".gz": FileKind.COMPRESSED,
            NAME + ".lz4": FileKind.COMPRESSED,
            NAME + ".zst": FileKind.COMPRESSED,
            NAME + ".gz.partial": FileKind.COMPRESSED_PARTIAL,
            NAME + ".00000028.backup": FileKind.BACKUP,
            "00000003.history": FileKind.HISTORY,
        }
        for name, kind in cases.items():
            parsed = parse_file_name(name)
            self.assertEqual((kind, 3), (parsed.kind, parsed.timeline), name)
        for form in FORMS:
            self.assertEqual((form, NAME), (parse_file_name(NAME + form).form, base_name(NAME + form)))
            expected = form.removesuffix(".partial")[1:] or None
            self.assertEqual(expected, parse_file_name(NAME + form).compression)
            self.assertEqual(expected, compression_of(NAME + form))
        history = parse_file_name("00000003.history.zst")
        self.assertEqual((FileKind.HISTORY, 3, "zst"), (history.kind, history.timeline, history.compression))
        self.assertIsNone(parse_file_name(NAME).compression)
        self.assertEqual("00000003.history", history_name(3))

    def test_everythingElseIsOther(self) -> None:
        """Lower case, wrong lengths, timeline 0 and unknown endings promise nothing."""
        for name in (
            "",
            NAME.lower(),
            NAME[:-1],
            NAME + "0",
            NAME + "\n",
            NAME + ".tmp",
            NAME + ".partial.gz",
            NAME + ".00000028.backup.gz",
            NAME + ".00000028.backup.partial",
            "000000000000000A000000FE",
            "00000000.history",
            "00000002.history.tmp",
            "archive_status",
        ):
            self.assertIs(FileKind.OTHER, parse_file_name(name).kind, name)

    @given(st.text())
    def test_everyStringHasAnAnswer(self, name: str) -> None:
        """No name raises."""
        parse_file_name(name, Geometry.contiguous())


class ReadIdentityTests(SynchronousTestCase):
    """The long header of a segment."""

    def test_everyEra(self) -> None:
        """System identifier, release, byte order and sizes are read from a segment of each release."""
        for version in MAGICS:
            for byte_order in ("little", "big"):
                maker = WalMaker(
                    version, byte_order=byte_order, page_size=16384, system_identifier=1 << 63 | 5
                )
                maker.record(100)
                name, content = next(iter(maker.files().items()))
                identity = read_identity(MemoryFiles({name: content}), f"{PATH}/{name}")
                self.assertEqual(1 << 63 | 5, identity.system_identifier)
                self.assertEqual((version, byte_order), (identity.format.version, identity.format.byte_order))
                sizes = identity.geometry.segment_size, identity.geometry.page_size
                self.assertEqual((1 << 20, 16384), sizes)
                self.assertEqual(4095 if version < 90300 else 4096, identity.geometry.segments_per_log_file)

    def test_whatIsNoSegmentRaisesDataCorrupted(self) -> None:
        """Empty and short files, zeros, text, impossible sizes and unknown magics are named as such."""
        maker = WalMaker()
        maker.record(100)
        good = bytes(maker.image(1)[:64])
        cases = {
            "empty": b"",
            "a byte": good[:1],
            "cut": good[:39],
            "zeros": bytes(64),
            "text": b"BEGIN TRANSACTION;" * 5,
            "segment size": good[:32] + b"\x01" + good[33:],
            "page size": good[:37] + b"\x01" + good[38:],
            "no long header": good[:2] + b"\0" + good[3:],
            "unknown flag": good[:2] + b"\x82" + good[3:],
        }
        for what, content in cases.items():
            files = MemoryFiles({"x": content})
            error = self.assertRaises(DataCorrupted, read_identity, files, f"{PATH}/x")
            self.assertIn('"pg_wal/x"', error.message, what)
            self.assertEqual(0, files.open_count)

    def test_magicIsNamed(self) -> None:
        """An unknown magic number is part of the message."""
        error = self.assertRaises(
            DataCorrupted, read_identity, MemoryFiles({"x": b"\x5c\xd0" * 32}), f"{PATH}/x"
        )
        self.assertIn("magic number D05C", error.message)

    def test_errorsOfTheDiskAreTyped(self) -> None:
        """A missing and an unreadable file are told apart, and neither message has our path."""
        files = MemoryFiles({"x": b""})
        self.assertRaises(WalFileMissing, read_identity, files, f"{PATH}/y")
        files.failures["open", "x"] = errno.EACCES
        error = self.assertRaises(WalFileDenied, read_identity, files, f"{PATH}/x")
        self.assertNotIn(PATH, error.message)
