"""The end of WAL while files grow, timelines change and segments go missing; and making it durable."""

from __future__ import annotations

import errno
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase
from wal_helpers import PATH, MemoryFiles, disk, end_on, position_on

from walsender.errors import WalFileError
from walsender.testing.wal_maker import WalMaker
from walsender.wal import CoveredFile, find_current_end, find_end, scan_directory, sync_covered

SEGMENT = 1 << 20
PAGE = 8192


def some_wal(version: int = 180000, **options: object) -> WalMaker:
    """Return a little WAL."""
    maker = WalMaker(version, **options)  # type: ignore[arg-type]
    for number in range(30):
        maker.record(40 + number * 37 % 700)
    return maker


class GrowthTests(SynchronousTestCase):
    """Going on from a former end."""

    def test_growingPartialIsFollowed(self) -> None:
        """Each look finds exactly what was added, in every era, over segment ends too."""
        for version in (80400, 90300, 90500, 180000):
            maker = some_wal(version)
            end = end_on(disk(maker, partial=True))
            for length in (50, 9000, 30, 100_000, 700_000, 40, 400_000, 64):
                maker.record(length)
                end = end_on(disk(maker, partial=True), resume=end)
                assert end is not None
                self.assertEqual((maker.position, maker.position), (end.position, end.next_record))
                self.assertEqual(maker.records[-1].begin, end.last_record)

    def test_growthCostsOnlyItsOwnPages(self) -> None:
        """A look at a grown file reads about as much as it grew; one at an unchanged file, a page or so."""
        maker = WalMaker(segment_size=16 << 20)
        maker.fill_to(maker.position + 3_000_000, 50_000)
        end = end_on(disk(maker, partial=True))
        maker.record(20_000)
        files = disk(maker, partial=True)
        directory = scan_directory(files, PATH)
        files.read_bytes = 0
        end = find_end(files, directory, 1, resume=end)
        self.assertLess(files.read_bytes, 20_000 + 20 * PAGE)
        files.read_bytes = 0
        again = find_end(files, directory, 1, resume=end)
        self.assertLess(files.read_bytes, 20 * PAGE)
        assert end is not None
        assert again is not None
        self.assertEqual(
            (end.position, end.last_record, ()), (again.position, again.last_record, again.covered)
        )

    def test_firstLookReadsFewRecords(self) -> None:
        """The first look at a long segment reads page headers, and records of the last pages only."""
        maker = WalMaker(segment_size=16 << 20)
        maker.fill_to(maker.position + 10_000_000, 50_000)
        files = disk(maker)
        self.assertEqual(maker.position, position_on(files))
        self.assertLess(files.read_bytes, 1_500_000)

    def test_firstLookFindsAHoleFarBackInAPartialSegment(self) -> None:
        """A crash may have torn any part of what was not synced, and that may be many megabytes."""
        maker = WalMaker(segment_size=16 << 20)
        maker.fill_to(maker.position + 1_000_000, 50_000)
        hole = maker.record(50_000)
        maker.fill_to(maker.position + 9_000_000, 50_000)
        number, offset = divmod(hole.begin + 20_000, maker.segment_size)
        maker.image(number)[offset : offset + 512] = bytes(512)
        self.assertEqual(hole.begin // 8 * 8, position_on(disk(maker, partial=True)) // 8 * 8)

    def test_smallGrowthIsCheckedWhole(self) -> None:
        """A bad record in new WAL ends it although good pages follow."""
        maker = some_wal()
        end = end_on(disk(maker, partial=True))
        bad = maker.record(3000)
        for _ in range(40):
            maker.record(3000)
        maker.image(1)[(bad.begin + 500) % SEGMENT] ^= 1
        self.assertEqual(bad.begin, position_on(disk(maker, partial=True), resume=end))

    def test_muchNewWalIsCheckedAtItsEnd(self) -> None:
        """Of much new WAL the last pages are checked, and all page headers."""
        maker = some_wal()
        end = end_on(disk(maker))
        maker.fill_to(maker.position + 3_300_000, 5000)
        files = disk(maker)
        self.assertEqual(maker.position, position_on(files, resume=end))
        hole = 3 * SEGMENT + 40 * PAGE
        maker.image(3)[40 * PAGE : 41 * PAGE] = bytes(PAGE)
        last = max(record.end for record in maker.records if record.end <= hole)
        self.assertEqual(last, position_on(disk(maker), resume=end))

    def test_garbageWithGoodHeadersIsSearchedThrough(self) -> None:
        """Where the last pages have headers but no good record, the end is looked for before them."""
        maker = some_wal()
        end = end_on(disk(maker))
        maker.fill_to(maker.position + 900_000, 2000)
        image = maker.image(1)
        for page in range(20, SEGMENT // PAGE):
            for place in range(page * PAGE + 24, (page + 1) * PAGE, 16):
                image[place] ^= 0x5A
        last = max(record.end for record in maker.records if record.end <= SEGMENT + 20 * PAGE)
        self.assertEqual(last, position_on(disk(maker)))
        self.assertEqual(last, position_on(disk(maker), resume=end))

    def test_neverGoesBack(self) -> None:
        """A file that shrinks, is spoilt or vanishes leaves the end where it was, and covers nothing."""
        maker = some_wal()
        files = disk(maker, partial=True)
        end = end_on(files)
        assert end is not None
        name = next(iter(files.content))
        for content in (b"", bytes(SEGMENT), maker.files()[maker.name(1)][: 3 * PAGE]):
            files.content[name] = content
            again = end_on(files, resume=end)
            assert again is not None
            self.assertEqual(
                (end.position, end.next_record, ()), (again.position, again.next_record, again.covered)
            )

    def test_abandonedWhileFollowed(self) -> None:
        """A record that is awaited, and then is abandoned, is passed."""
        maker = some_wal()
        maker.fill_to(2 * SEGMENT - 30_000)
        before = maker.position
        maker.record(60_000)
        files = disk(maker)
        del files.content[maker.name(2)]
        end = end_on(files)
        assert end is not None
        self.assertEqual((2 * SEGMENT, before), (end.position, end.next_record))
        maker.records.pop()
        maker.position = before
        maker.abandon(60_000, kept_pages=4)
        maker.record(100)
        self.assertEqual(maker.position, position_on(disk(maker), resume=end))

    def test_rewrittenClosedSegmentDoesNotTakeTheEndBack(self) -> None:
        """Even if a closed segment is replaced by one that ends earlier, what was announced stays."""
        maker = some_wal()
        maker.fill_to(2 * SEGMENT - 30_000)
        before = maker.position
        maker.record(60_000)
        files = disk(maker)
        del files.content[maker.name(2)]
        end = end_on(files)
        maker.records.pop()
        maker.position = before
        maker.abandon(60_000, kept_pages=2)
        self.assertLess(maker.position, 2 * SEGMENT)
        files.content[maker.name(1)] = bytes(maker.image(1))
        self.assertEqual(2 * SEGMENT, position_on(files, resume=end))

    def test_coversWhatIsNew(self) -> None:
        """The files that hold new WAL are named, with their identities, and no others."""
        maker = some_wal()
        files = disk(maker)
        end = end_on(files)
        assert end is not None
        self.assertEqual((CoveredFile(maker.name(1), (1, files.identities[maker.name(1)])),), end.covered)
        maker.record(2_500_000)
        files.content = dict(maker.files(partial=True))
        end = end_on(files, resume=end)
        assert end is not None
        names = [maker.name(1), maker.name(2), maker.name(3) + ".partial"]
        self.assertEqual(names, [covered.name for covered in end.covered])


class GapTests(SynchronousTestCase):
    """Missing segments."""

    def wal(self) -> tuple[WalMaker, MemoryFiles]:
        """Return WAL in segments 1 to 6."""
        maker = some_wal()
        for _ in range(5):
            maker.switch()
            maker.record(100)
        return maker, disk(maker)

    def test_firstLookTakesTheNewestRun(self) -> None:
        """Without a former end, the newest run of segments counts."""
        maker, files = self.wal()
        del files.content[maker.name(3)]
        end = end_on(files)
        assert end is not None
        self.assertEqual((maker.position, False), (end.position, end.gap_ahead))

    def test_resumeStopsAtTheGapAndSaysSo(self) -> None:
        """With a former end, WAL is followed to the gap, and what lies beyond is mentioned."""
        maker, files = self.wal()
        early = MemoryFiles({maker.name(1): files.content[maker.name(1)]})
        end = end_on(early)
        removed = files.content.pop(maker.name(3))
        end = end_on(files, resume=end)
        assert end is not None
        self.assertEqual((3 * SEGMENT, True), (end.position, end.gap_ahead))
        files.content[maker.name(3)] = removed
        end = end_on(files, resume=end)
        assert end is not None
        self.assertEqual((maker.position, False), (end.position, end.gap_ahead))

    def test_unfinishedCopyWithNewerSegmentsIsAGap(self) -> None:
        """A short segment before newer ones is a gap too; recycled segments ahead are none."""
        maker, files = self.wal()
        whole = files.content[maker.name(3)]
        assert whole is not None
        end = end_on(MemoryFiles({maker.name(1): files.content[maker.name(1)]}))
        files.content[maker.name(3)] = whole[:50]
        end = end_on(files, resume=end)
        assert end is not None
        self.assertEqual((3 * SEGMENT, True), (end.position, end.gap_ahead))
        maker.recycle(2)
        end = end_on(disk(maker))
        assert end is not None
        self.assertFalse(end.gap_ahead)


class TimelineEndTests(SynchronousTestCase):
    """The end on new and old timelines."""

    def test_newTimelineInEveryEra(self) -> None:
        """A timeline's first segment, with old pages before the fork and leftovers behind, ends rightly."""
        for version in (80400, 90200, 90300, 90400, 90500, 180000, 190000):
            for after in (0, 5000, 100_000):
                maker = some_wal(version)
                maker.fill_to(maker.position + 50_000)
                at = maker.position
                if after:
                    maker.fill_to(maker.position + after)
                old_end = maker.position
                maker.fork(at)
                for more in (0, 100, 20_000):
                    if more:
                        maker.record(more)
                    expected = maker.position
                    if not more and version < 90300:
                        continue  # its history does not say where it began; there is always a record
                    self.assertEqual(expected, position_on(disk(maker), timeline=2), (version, after, more))
                self.assertEqual(old_end, position_on(disk(maker), timeline=1))

    def test_forkAtAPagesAndASegmentsBoundary(self) -> None:
        """A timeline may begin with a page or with a segment."""
        for boundary in (SEGMENT + 2 * PAGE, 2 * SEGMENT):
            maker = WalMaker()
            maker.fill_to(boundary - 4000)
            maker.record(boundary - maker.position)
            self.assertEqual(boundary, maker.position)
            maker.fork()
            self.assertEqual(maker.name(boundary // SEGMENT) in disk(maker).content, boundary < 2 * SEGMENT)
            maker.record(3000)
            maker.record(9000)
            self.assertEqual(maker.position, position_on(disk(maker), timeline=2))

    def test_oldTimelinesPagesBehindTheForkAreNotOurs(self) -> None:
        """To 9.4 the whole segment is copied: those pages carry the old timeline and do not count."""
        maker = WalMaker(90400)
        maker.fill_to(SEGMENT + 10 * PAGE)
        at = maker.position
        maker.fill_to(SEGMENT + 60 * PAGE)
        maker.fork(at)
        self.assertNotEqual(bytes(PAGE), bytes(maker.image(1)[30 * PAGE : 31 * PAGE]))
        maker.record(100)
        self.assertEqual(maker.position, position_on(disk(maker), timeline=2))

    def test_withoutHistory(self) -> None:
        """A timeline whose history is missing may begin with older pages; records decide where it ends."""
        for version in (90200, 90400, 180000):
            maker = WalMaker(version)
            maker.fill_to(SEGMENT + 20 * PAGE)
            at = maker.position
            maker.fill_to(SEGMENT + 100 * PAGE)
            maker.fork(at)
            maker.record(200)
            files = disk(maker)
            del files.content["00000002.history"]
            self.assertEqual(maker.position, position_on(files, timeline=2), version)
            maker.record(30 * PAGE)
            maker.record(100)
            files.content[maker.name(1)] = bytes(maker.image(1))
            self.assertEqual(maker.position, position_on(files, timeline=2), version)

    def test_pagesDoNotGoBackToAnOlderTimeline(self) -> None:
        """Without a history too, a page of an older timeline after one of a newer does not count."""
        maker = WalMaker(timeline=2)
        maker.fill_to(SEGMENT + 20 * PAGE)
        maker.image(1)[10 * PAGE + 4] = 1
        last = max(record.end for record in maker.records if record.end <= SEGMENT + 10 * PAGE)
        self.assertEqual(last, position_on(disk(maker), timeline=2))

    def test_twoForksInOneSegment(self) -> None:
        """Pages of three timelines in one segment, in this order, are right."""
        maker = some_wal()
        for _ in range(2):
            maker.fill_to(maker.position + 30_000)
            maker.fork()
        maker.fill_to(maker.position + 30_000)
        self.assertEqual(maker.position, position_on(disk(maker), timeline=3))

    def test_recordsOfAncestorsSegmentsAreRead(self) -> None:
        """A record that began in an ancestor's segment is followed into the new timeline's."""
        maker = some_wal()
        maker.record(SEGMENT)
        maker.fork()
        maker.record(50)
        self.assertEqual(maker.position, position_on(disk(maker), timeline=2))

    def test_currentEndIsTheNewTimelines(self) -> None:
        """The end of what is being written is on the highest timeline that is whole."""
        maker = some_wal()
        end = find_current_end(disk(maker), scan_directory(disk(maker), PATH))
        assert end is not None
        self.assertEqual((1, maker.position), (end.timeline, end.position))
        maker.fork()
        maker.record(100)
        files = disk(maker)
        end = find_current_end(files, scan_directory(files, PATH), resume=end)
        assert end is not None
        self.assertEqual((2, maker.position), (end.timeline, end.position))

    def test_newTimelineCountsFromItsBeginning(self) -> None:
        """While the new timeline's first segment is being copied in, the old one stays current."""
        maker = some_wal()
        maker.fill_to(SEGMENT + 50 * PAGE)
        at = maker.position
        before = disk(maker)
        old = find_current_end(before, scan_directory(before, PATH))
        maker.fork()
        maker.record(100)
        files = disk(maker)
        whole = files.content[maker.name(1)]
        assert whole is not None
        for length in (0, 10 * PAGE, at - SEGMENT - 8):
            files.content[maker.name(1)] = whole[:length]
            directory = scan_directory(files, PATH)
            self.assertEqual(2, directory.current_timeline)
            for resume in (None, old):
                end = find_current_end(files, directory, resume=resume)
                assert end is not None
                self.assertEqual((1, at), (end.timeline, end.position))
        files.content[maker.name(1)] = whole
        end = find_current_end(files, scan_directory(files, PATH), resume=old)
        assert end is not None
        self.assertEqual((2, maker.position), (end.timeline, end.position))
        # Its history may vanish; what was announced on it stays.
        del files.content["00000002.history"]
        again = find_current_end(files, scan_directory(files, PATH), resume=end)
        self.assertEqual(replace(end, covered=()), again)

    def test_currentEndBeforeTheBeginning(self) -> None:
        """A timeline that does not reach its beginning is none: its ancestor would be sent up to there."""
        maker = some_wal()
        maker.fill_to(SEGMENT + 50 * PAGE)
        maker.fork()
        files = disk(maker)
        whole = files.content[maker.name(1)]
        assert whole is not None
        files.content = {
            maker.name(1): whole[: 10 * PAGE],
            "00000002.history": files.content["00000002.history"],
        }
        self.assertIsNone(find_current_end(files, scan_directory(files, PATH)))
        self.assertIsNone(find_current_end(MemoryFiles(), scan_directory(MemoryFiles(), PATH)))


class SyncTests(SynchronousTestCase):
    """Making an end durable."""

    def setUp(self) -> None:
        """Find an end that covers two files."""
        self.maker = some_wal()
        self.maker.record(SEGMENT)
        self.files = disk(self.maker, partial=True)
        end = end_on(self.files)
        assert end is not None
        self.covered = end.covered
        self.names = [self.maker.name(1), self.maker.name(2) + ".partial"]

    def test_syncsFilesAndThenTheDirectory(self) -> None:
        """Each covered file is synced, and then their names."""
        self.assertTrue(sync_covered(self.files, PATH, self.covered))
        self.assertEqual([("sync", name) for name in [*self.names, PATH]], self.files.log)
        self.assertEqual(0, self.files.open_count)

    def test_nothingNewNeedsNoSync(self) -> None:
        """Where nothing is covered nothing is synced."""
        self.assertTrue(sync_covered(self.files, PATH, ()))
        self.assertEqual([], self.files.log)

    def test_renamedFileIsFoundUnderItsFinalName(self) -> None:
        """A partial segment that was completed meanwhile is the same file."""
        final = self.maker.name(2)
        self.files.content[final] = self.files.content.pop(self.names[1])
        self.files.identities[final] = self.files.identities[self.names[1]]
        self.assertTrue(sync_covered(self.files, PATH, self.covered))
        self.assertIn(("sync", final), self.files.log)

    def test_otherFileUnderTheNameIsNotTrusted(self) -> None:
        """A file that was replaced or removed since it was validated makes the answer false."""
        self.files.identities[self.names[0]] = 1
        self.assertFalse(sync_covered(self.files, PATH, self.covered))
        self.files.content.clear()
        self.assertFalse(sync_covered(self.files, PATH, self.covered))
        self.assertEqual([], self.files.log)
        self.assertEqual(0, self.files.open_count)

    def test_failuresAreTyped(self) -> None:
        """A failed open, sync or directory sync raises a typed error and leaves nothing open."""
        for operation, name in (("open", self.names[1]), ("sync", self.names[0]), ("sync", PATH)):
            self.files.failures = {(operation, name): errno.EIO}
            self.assertRaises(WalFileError, sync_covered, self.files, PATH, self.covered)
            self.assertEqual(0, self.files.open_count)

    def test_resumeOnAnEmptiedDirectoryKeepsTheEnd(self) -> None:
        """If all WAL is gone from the directory, the former end is the answer."""
        end = end_on(self.files)
        assert end is not None
        again = find_end(MemoryFiles(), scan_directory(MemoryFiles(), PATH), 1, resume=end)
        self.assertEqual(replace(end, covered=()), again)
