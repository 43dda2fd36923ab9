"""A WAL directory as one listing sees it."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wal_helpers import PATH, MemoryFiles, disk

from walsender.errors import DataCorrupted, WalFileDenied, WalFileMissing
from walsender.testing.compression import compress_file
from walsender.testing.wal_maker import WalMaker
from walsender.wal import REAL_FILES, DecompressingFiles, WalDirectory, scan_directory

SEGMENT = 1 << 20


def scan(files: MemoryFiles) -> WalDirectory:
    """Return what *files* holds."""
    directory = scan_directory(files, PATH)
    assert files.open_count == 0, "a descriptor was left open"
    return directory


def archive(segments: int = 4, *, partial: bool = False, **options: int) -> MemoryFiles:
    """Return a disk with *segments* segments, from number 1 on, of one cluster."""
    maker = WalMaker(**options)  # type: ignore[arg-type]
    for _ in range(segments - 1):
        maker.record(100)
        maker.switch()
    maker.record(100)
    return disk(maker, partial=partial)


def name(number: int, timeline: int = 1) -> str:
    """Return a segment's name (1 MB segments, first log file)."""
    return f"{timeline:08X}00000000{number:08X}"


class ScanTests(SynchronousTestCase):
    """Listing a directory."""

    def test_identityAndRanges(self) -> None:
        """Cluster, release, sizes and the run of segments come from the files alone."""
        directory = scan(archive(4))
        assert directory.identity is not None
        self.assertEqual("18", directory.identity.format.name)
        self.assertEqual({1: (range(1, 5),)}, directory.ranges)
        self.assertEqual((), directory.gaps(1))
        self.assertEqual((1,), directory.timelines)
        self.assertEqual({}, directory.unusable)

    def test_missingSegmentsAreGaps(self) -> None:
        """Runs end where segments are missing."""
        files = archive(9)
        for number in (3, 6, 7):
            del files.content[name(number)]
        directory = scan(files)
        self.assertEqual((range(1, 3), range(4, 6), range(8, 10)), directory.ranges[1])
        self.assertEqual((range(3, 4), range(6, 8)), directory.gaps(1))
        self.assertEqual(range(4, 6), directory.run_of(1, 5))
        self.assertIsNone(directory.run_of(1, 6))
        self.assertIsNone(directory.run_of(1, 0))
        self.assertIsNone(directory.run_of(2, 1))
        self.assertIsNone(directory.file_for(1, 3))

    def test_completeIsPreferredToPartial(self) -> None:
        """A partial segment closes the run, and serves only where there is no complete one."""
        files = archive(3, partial=True)
        files.content[name(2) + ".partial"] = files.content[name(2)]
        directory = scan(files)
        self.assertEqual((range(1, 4),), directory.ranges[1])
        self.assertEqual(name(2), directory.file_for(1, 2))
        self.assertEqual(name(3) + ".partial", directory.file_for(1, 3))

    def test_emptyDirectory(self) -> None:
        """Without a segment there is no identity, no timeline and no file."""
        for content in ({}, {"archive_status": None, "README": b"text"}, {name(1): b"", name(2): bytes(64)}):
            directory = scan(MemoryFiles(content))
            self.assertEqual(
                (None, {}, None), (directory.identity, directory.ranges, directory.current_timeline)
            )
            self.assertIsNone(directory.file_for(1, 1))
            self.assertIsNone(directory.file_for_reading(1, 1))

    def test_filesThatAreNoSegmentsAreUnusable(self) -> None:
        """Garbage, zeros, directories and short files under segment names make no scan fail."""
        files = archive(4)
        files.content[name(0)] = b"this is no WAL" * 10
        files.content[name(5)] = bytes(SEGMENT)
        files.content[name(6)] = b""
        files.content[name(7)] = None
        directory = scan(files)
        self.assertEqual({name(0), name(5), name(6), name(7)}, set(directory.unusable))
        self.assertEqual((range(8),), directory.ranges[1])

    def test_filesThatVanishAreUnusable(self) -> None:
        """A segment or history that is removed after the listing makes no scan fail."""
        files = archive(4)
        files.content["00000002.history"] = b"1\t0/200000\tx\n"
        for gone in (name(4), "00000002.history"):
            files.failures["open", gone] = errno.ENOENT
        directory = scan(files)
        self.assertEqual({name(4), "00000002.history"}, set(directory.unusable))
        self.assertIsInstance(directory.unusable[name(4)], WalFileMissing)

    def test_twoClustersAreAMixture(self) -> None:
        """Segments of two clusters raise an error that names both files and both identifiers."""
        files = archive(4, system_identifier=111)
        files.content[name(4)] = archive(4, system_identifier=222).content[name(4)]
        error = self.assertRaises(DataCorrupted, scan, files)
        for part in ("111", "222", name(4), PATH):
            self.assertIn(part, error.message)
        self.assertNotIn("\n", error.message)

    def test_twoReleasesAreAMixture(self) -> None:
        """So do segments of two releases, and of two segment sizes."""
        for options in ({"version": 170000}, {"segment_size": 2 << 20}):
            files = archive(4)
            files.content[name(9)] = (
                archive(9, **options).content.get(name(9)) or archive(1, **options).content[name(1)]
            )
            self.assertRaises(DataCorrupted, scan, files)

    def test_bothEndsOfEachRunAreLookedAt(self) -> None:
        """A stranger is found at either end of a run, also behind files that are no WAL."""
        for place in (1, 4, 6, 9):
            files = archive(9, system_identifier=1)
            del files.content[name(5)]
            files.content[name(place)] = archive(9, system_identifier=2).content[name(place)]
            if place == 9:
                files.content[name(10)] = b""
            self.assertRaises(DataCorrupted, scan, files)

    def test_namesBeyondALogFileAreNoSegments(self) -> None:
        """Before 9.3 a name ending in the skipped segment is passed over."""
        files = archive(2, version=90200)
        files.content[name(0xFFF)] = files.content[name(1)]
        self.assertEqual((range(1, 3),), scan(files).ranges[1])

    def test_formsOfSegments(self) -> None:
        """Of several forms of a segment the complete ones are preferred, then the plain ones."""
        files = archive(1)
        for number, forms in {
            2: ("", ".gz", ".partial"),
            3: (".zst", ".gz", ".partial"),
            4: (".lz4.partial", ".partial"),
            5: (".zst.partial",),
        }.items():
            files.content.update(dict.fromkeys((name(number) + form for form in forms), b""))
        directory = scan(files)
        self.assertEqual((range(1, 6),), directory.ranges[1])
        self.assertEqual(
            [name(1), name(2), name(3) + ".gz", name(4) + ".partial", name(5) + ".zst.partial", None],
            [directory.file_for(1, number) for number in range(1, 7)],
        )

    def test_formsToLookFor(self) -> None:
        """A directory without compressed segments is searched for none."""
        files = archive(2)
        self.assertEqual(("", ".partial"), scan(files).forms)
        files.content[name(3) + ".lz4.partial"] = b""
        self.assertEqual(("", ".lz4", ".partial", ".lz4.partial"), scan(files).forms)

    def test_identityFromACompressedSegment(self) -> None:
        """A directory may consist of compressed segments."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory)
            maker = WalMaker(90200)
            maker.record(100)
            maker.write(path)
            compress_file(path / name(1), ".zst")
            found = scan_directory(DecompressingFiles(REAL_FILES), directory)
            assert found.identity is not None
            self.assertEqual("9.2", found.identity.format.name)
            self.assertEqual({1: (range(1, 2),)}, found.ranges)
            (path / f"{name(1)}.zst").write_bytes(b"damaged")
            found = scan_directory(DecompressingFiles(REAL_FILES), directory)
            self.assertIsNone(found.identity)
            self.assertEqual({f"{name(1)}.zst"}, set(found.unusable))

    def test_directoryThatCannotBeListed(self) -> None:
        """A missing or forbidden directory is a typed error."""
        files = MemoryFiles()
        for number, expected in ((errno.ENOENT, WalFileMissing), (errno.EACCES, WalFileDenied)):
            files.failures["list", PATH] = number
            self.assertRaises(expected, scan, files)

    def test_fewFilesAreOpened(self) -> None:
        """However many segments a run has, only its first and last are opened."""
        files = archive(3)
        content = files.content[name(1)]
        for number in range(1, 4000):
            files.content[name(number)] = content
        opened: list[str] = []
        real = files.open
        files.open = lambda path: opened.append(path) or real(path)  # type: ignore[method-assign,func-returns-value]
        scan(files)
        self.assertLess(len(opened), 5)

    @given(
        st.dictionaries(
            st.sampled_from(
                [
                    name(1),
                    name(2),
                    name(3, 2),
                    name(4) + ".partial",
                    "00000002.history",
                    "00000003.history",
                    "x",
                ]
            ),
            st.binary(max_size=100),
        )
    )
    def test_anyContentScans(self, content: dict[str, bytes]) -> None:
        """No content of any file makes a scan fail, mixtures apart."""
        scan(MemoryFiles(content))


class TimelineTests(SynchronousTestCase):
    """Timelines, histories, and whose file holds what."""

    def forked(self, version: int = 180000) -> tuple[WalMaker, MemoryFiles]:
        """Return three timelines: 1 → 2 in segment 2, 2 → 3 in segment 4."""
        maker = WalMaker(version)
        maker.record(100)
        maker.switch()
        maker.record(100)
        maker.fork()
        for _ in range(2):
            maker.record(100)
            maker.switch()
        maker.record(100)
        maker.fork()
        maker.record(100)
        maker.switch()
        maker.record(100)
        return maker, disk(maker)

    def test_currentTimelineNeedsItsHistoryAndASegment(self) -> None:
        """The highest timeline with both is the current one; timeline 1 needs no history."""
        _, files = self.forked()
        self.assertEqual(3, scan(files).current_timeline)
        files.content["00000004.history"] = b"1\t0/200000\tx\n"
        self.assertEqual(3, scan(files).current_timeline)
        files.content["00000003.history"] = b"1\t0/2000"  # being copied in
        directory = scan(files)
        self.assertEqual(2, directory.current_timeline)
        self.assertIn("00000003.history", directory.unusable)
        del files.content["00000002.history"]
        self.assertEqual(1, scan(files).current_timeline)

    def test_withoutAnyHistoryTheHighestIsCurrent(self) -> None:
        """Where no timeline qualifies, the highest with segments is served, without ancestors."""
        _, files = self.forked()
        files.content = {
            n: c for n, c in files.content.items() if n.startswith(("00000002", "00000003")) and "h" not in n
        }
        directory = scan(files)
        self.assertEqual(3, directory.current_timeline)
        self.assertEqual((), directory.history(3).ancestors)

    def test_historiesAreKeptByteForByte(self) -> None:
        """A history's content is what the file has, not what we would write."""
        maker, files = self.forked()
        directory = scan(files)
        self.assertEqual(maker.histories[3], directory.history_content(3))
        self.assertIsNone(directory.history_content(1))
        self.assertEqual((1, 2), directory.histories[3].ancestors)

    def test_overlongHistoryIsUnusable(self) -> None:
        """A history file beyond the limit is not read into memory whole."""
        files = archive(1)
        files.content["00000002.history"] = b"#" * (1 << 22)
        directory = scan(files)
        self.assertIn("00000002.history", directory.unusable)
        self.assertLess(files.read_bytes, 1 << 21)

    def test_eachSegmentIsReadFromTheFileThatHasItWhole(self) -> None:
        """Per timeline and segment, as PostgreSQL's walsender chooses."""
        _, files = self.forked()
        directory = scan(files)
        expected = {
            (1, 1): name(1, 1),
            (1, 2): name(2, 2),  # timeline 1 ends here: its end is whole in timeline 2's
            (2, 1): name(1, 1),  # before timeline 2 began
            (2, 2): name(2, 2),
            (2, 3): name(3, 2),
            (2, 4): name(4, 3),
            (3, 1): name(1, 1),
            (3, 2): name(2, 2),
            (3, 3): name(3, 2),
            (3, 4): name(4, 3),
            (3, 5): name(5, 3),
            (3, 6): None,
            (1, 3): None,
            (2, 5): None,
        }
        for (timeline, number), wanted in expected.items():
            self.assertEqual(wanted, directory.file_for_reading(timeline, number), (timeline, number))

    def test_ownFileServesWhereTheDescendantsIsMissing(self) -> None:
        """Without the next timeline's file, the end of a timeline is read from its own."""
        _, files = self.forked()
        del files.content[name(4, 3)]
        directory = scan(files)
        self.assertEqual(name(4, 2), directory.file_for_reading(2, 4))
        self.assertIsNone(directory.file_for_reading(3, 4))

    def test_partialOfTheOldTimelineServesToo(self) -> None:
        """The old timeline's last segment may have been archived as partial only."""
        _, files = self.forked()
        files.content[name(2) + ".partial"] = files.content.pop(name(2))
        del files.content[name(2, 2)]
        self.assertEqual(name(2) + ".partial", scan(files).file_for_reading(1, 2))

    def test_twoSwitchesInOneSegment(self) -> None:
        """Where several timelines end in one segment, the nearest descendant that has it serves."""
        maker = WalMaker()
        maker.record(100)
        maker.fork()
        maker.record(100)
        maker.fork()
        maker.record(100)
        files = disk(maker)
        directory = scan(files)
        self.assertEqual(name(1, 2), directory.file_for_reading(1, 1))
        self.assertEqual(name(1, 3), directory.file_for_reading(2, 1))
        del files.content[name(1, 2)]
        self.assertEqual(name(1, 3), scan(files).file_for_reading(1, 1))

    def test_lostBranchKeepsItsOwnFiles(self) -> None:
        """A timeline that is no ancestor of the current one is read from its own files."""
        maker = WalMaker()
        maker.record(100)
        maker.fork()
        maker.record(100)
        maker.switch()
        maker.record(100)
        files = disk(maker)
        files.content["00000003.history"] = b"1\t0/100090\tother branch\n"
        files.content[name(1, 3)] = files.content[name(1, 2)]
        directory = scan(files)
        self.assertEqual(3, directory.current_timeline)
        self.assertEqual(name(1, 2), directory.file_for_reading(2, 1))
        self.assertEqual(name(2, 2), directory.file_for_reading(2, 2))

    def test_before93ByTheSegmentThatTheHistoryNames(self) -> None:
        """A history of 9.2 leads to the same files."""
        _, files = self.forked(90200)
        directory = scan(files)
        self.assertEqual(name(2, 2), directory.file_for_reading(1, 2))
        self.assertEqual(name(3, 2), directory.file_for_reading(3, 3))
        self.assertEqual(name(4, 3), directory.file_for_reading(2, 4))


class WithoutSegmentsTests(SynchronousTestCase):
    """A directory after segments have been removed."""

    @given(st.sets(st.tuples(st.integers(1, 3), st.integers(0, 12))), st.data())
    def test_sameAsNeverListed(self, segments: set[tuple[int, int]], data: st.DataObject) -> None:
        """What is left is what a listing without them gives."""
        gone = data.draw(st.sets(st.sampled_from(sorted(segments)))) if segments else set()

        def listed(held: set[tuple[int, int]]) -> WalDirectory:
            directory = WalDirectory(PATH)
            for timeline, number in sorted(held):
                directory = directory.with_segment(timeline, number, partial=number % 3 == 0)
            return directory

        left = listed(segments).without_segments(gone)
        self.assertEqual(listed(segments - gone).ranges, left.ranges)
        for number, timeline in ((5, 1), (9, 2), (13, 3)):
            expected = sorted(
                (other for other in segments - gone if other[1] < number and other[0] <= timeline),
                key=lambda segment: (segment[1], segment[0]),
            )
            self.assertEqual(expected, list(left.segments_before(number, timeline)))

    def test_names(self) -> None:
        """A segment that is made again under a removed one's number has its own form."""
        directory = scan(archive(3, partial=True)).without_segments([(1, 3)])
        self.assertIsNone(directory.file_for(1, 3))
        self.assertEqual(name(3), directory.with_segment(1, 3, partial=False).file_for(1, 3))
