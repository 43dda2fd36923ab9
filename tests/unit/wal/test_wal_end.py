"""Where valid WAL ends, file by file."""

from __future__ import annotations

import errno

from twisted.trial.unittest import SynchronousTestCase
from wal_helpers import PATH, MemoryFiles, disk, end_on, position_on

from walsender.errors import WalFileDenied, WalFileError
from walsender.testing.wal_maker import MAGICS, WalMaker
from walsender.wal import find_end, scan_directory

SEGMENT = 1 << 20
PAGE = 8192


def some_wal(version: int = 180000, **options: object) -> WalMaker:
    """Return WAL with records of many sizes, on pages and over their ends."""
    maker = WalMaker(version, **options)  # type: ignore[arg-type]
    for number in range(60):
        maker.record(40 + number * 37 % 700)
    maker.record(30_000)
    maker.record(50)
    return maker


class EndOfWalTests(SynchronousTestCase):
    """The end is the end of the last good record."""

    def test_everyEra(self) -> None:
        """In both byte orders of all releases the end is found, whether the segment is partial or not."""
        for version in MAGICS:
            for byte_order in ("little", "big"):
                maker = some_wal(version, byte_order=byte_order)
                for partial in (False, True):
                    end = end_on(disk(maker, partial=partial))
                    assert end is not None
                    self.assertEqual(maker.position, end.position, (version, byte_order))
                    self.assertEqual(maker.records[-1].begin, end.last_record)
                    self.assertEqual(maker.position, end.next_record)
                    self.assertFalse(end.gap_ahead)

    def test_everyPageAndSegmentSize(self) -> None:
        """Pages from 1 to 64 KiB and larger segments make no difference."""
        for page_size in (1024, 4096, 65536):
            maker = some_wal(page_size=page_size, segment_size=2 << 20)
            self.assertEqual(maker.position, position_on(disk(maker)))

    def test_recordsCrossSegments(self) -> None:
        """Records over one and over several segments count once they are whole."""
        for version in (80400, 90300, 90500, 180000):
            maker = some_wal(version)
            maker.record(SEGMENT)
            maker.record(3 * SEGMENT + 12345)
            maker.record(64)
            self.assertEqual(maker.position, position_on(disk(maker, partial=True)), version)

    def test_recordsEndAtEveryPlaceAroundAPageEnd(self) -> None:
        """Headers and bodies that touch a page's end, by every number of bytes, are read in each era."""
        for version in (80400, 90200, 90300, 90400, 90500, 180000):
            for rest in range(0, 88, 8):
                maker = WalMaker(version)
                maker.record(
                    PAGE - maker.position % PAGE - 40 - rest if version >= 90300 else PAGE - 32 - rest
                )
                maker.record(120)
                maker.record(56)
                self.assertEqual(maker.position, position_on(disk(maker, partial=True)), (version, rest))
                end = end_on(disk(maker))
                assert end is not None
                self.assertEqual(maker.records[-1].begin, end.last_record)

    def test_logFileBoundaryBefore93(self) -> None:
        """Before 9.3 the last segment of a log file is skipped, in names, addresses and links."""
        for version in (80400, 90200):
            for byte_order in ("little", "big"):
                maker = some_wal(version, byte_order=byte_order, start=4094 * SEGMENT)
                self.assertEqual("000000010000000000000FFE", maker.name(maker.last_number))
                maker.record(SEGMENT)
                maker.record(100)
                files = disk(maker)
                self.assertEqual({"000000010000000000000FFE", "000000010000000100000000"}, set(files.content))
                self.assertEqual(maker.position, position_on(files))

    def test_garbageAndZerosBehindTheEnd(self) -> None:
        """What follows the last record in a partial segment is not counted, whatever it is."""
        for version in (80400, 90300, 180000):
            for tail in (b"\xff", b"\x01\0\0\0", b"garbage", bytes(range(256))):
                maker = some_wal(version)
                image = maker.image(1)
                start = maker.position % SEGMENT
                image[start:] = (tail * (SEGMENT // len(tail) + 1))[: SEGMENT - start]
                self.assertEqual(maker.position, position_on(disk(maker, partial=True)), (version, tail))
                self.assertEqual(maker.position, position_on(disk(maker)), (version, tail))

    def test_recordWithWrongChecksumEndsIt(self) -> None:
        """The last record counts only with every bit of its body."""
        maker = some_wal()
        expected = maker.position
        spoilt = maker.record(20_000)
        for place in (spoilt.begin + 100, spoilt.begin + 9000, spoilt.end - 9):
            files = disk(maker, partial=True)
            name = next(iter(files.content))
            content = bytearray(files.content[name] or b"")
            content[place % SEGMENT] ^= 1
            files.content[name] = bytes(content)
            self.assertEqual(expected, position_on(files))

    def test_recordThatPointsElsewhereEndsIt(self) -> None:
        """A record that is right in itself but does not follow the one before is not counted."""
        maker = some_wal()
        expected = maker.position
        removed = maker.records.pop()
        maker.record(80)
        maker.records[-1:-1] = [removed]
        self.assertEqual(expected, position_on(disk(maker)))

    def test_continuedRecordMustBeExpected(self) -> None:
        """A page that continues a record where none is unfinished does not count."""
        maker = WalMaker()
        maker.record(PAGE - 40)
        expected = maker.position
        maker.record(100)
        self.assertEqual(expected, maker.records[1].begin - 24)
        maker.image(1)[PAGE + 2] = 1
        self.assertEqual(expected, position_on(disk(maker)))

    def test_longRecordWithoutItsBeginning(self) -> None:
        """WAL that starts inside a record is counted up to its closed segments' end, or not at all."""
        maker = some_wal()
        maker.record(4 * SEGMENT)
        files = disk(maker)
        for name in list(files.content)[:2]:
            del files.content[name]
        del files.content[maker.name(5)]
        end = end_on(files)
        assert end is not None
        self.assertEqual((5 * SEGMENT, None), (end.position, end.next_record))
        files.content = {maker.name(4) + ".partial": files.content[maker.name(4)]}
        self.assertEqual(4 * SEGMENT, position_on(files))
        # Once the record is over, the next one leads on.
        maker.record(64)
        again = end_on(disk(maker), resume=end)
        assert again is not None
        self.assertEqual(maker.position, again.position)

    def test_noWalAtAll(self) -> None:
        """Without a page of its own a timeline has no end."""
        self.assertIsNone(end_on(MemoryFiles({"x": b""})))
        maker = some_wal()
        files = disk(maker)
        self.assertIsNone(end_on(files, timeline=2))
        files.content["000000020000000000000009"] = files.content[maker.name(1)]
        self.assertIsNone(end_on(files, timeline=2))

    def test_pagesWithoutOneGoodRecord(self) -> None:
        """A segment that has headers and no good record counts up to its beginning, however complete."""
        maker = WalMaker()
        maker.fill_to(2 * SEGMENT - 5000)
        maker.record(40_000)
        image = maker.image(1)
        for place in range(200, SEGMENT, 64):
            image[place] ^= 0x55 if place % PAGE > 64 else 0
        files = disk(maker)
        self.assertEqual(2 * SEGMENT, position_on(files))
        del files.content[maker.name(2)]
        self.assertEqual(SEGMENT, position_on(files))


class ClosedSegmentTests(SynchronousTestCase):
    """Segments that have their final name and size."""

    def unfinished(self) -> WalMaker:
        """Return WAL whose last record begins in segment 1 and ends in segment 2."""
        maker = WalMaker()
        maker.fill_to(2 * SEGMENT - 30_000)
        maker.record(60_000)
        maker.record(100)
        return maker

    def test_endsAtTheSegmentsEndInsideARecord(self) -> None:
        """An archive's last segment counts whole though its last record goes on in the next."""
        maker = self.unfinished()
        files = disk(maker)
        del files.content[maker.name(2)]
        end = end_on(files)
        assert end is not None
        self.assertEqual(2 * SEGMENT, end.position)
        self.assertEqual(maker.records[-2].begin, end.next_record)
        self.assertEqual(maker.records[-3].begin, end.last_record)

    def test_goesOnWithTheNextSegment(self) -> None:
        """When the next segment arrives, in pieces, the unfinished record is finished."""
        maker = self.unfinished()
        files = disk(maker)
        second = files.content.pop(maker.name(2))
        assert second is not None
        end = end_on(files)
        for length in (10, 5000, 20_000):
            files.content[maker.name(2)] = second[:length]
            end = end_on(files, resume=end)
            assert end is not None
            self.assertEqual(2 * SEGMENT, end.position)
            self.assertEqual((), end.covered)
        files.content[maker.name(2)] = second
        self.assertEqual(maker.position, position_on(files, resume=end))

    def test_nextFileMustProveItself(self) -> None:
        """If a next file exists, only whole records count: it may be recycled, and overwritten later."""
        maker = self.unfinished()
        good = maker.records[-3].end
        files = disk(maker)
        for content in (bytes(SEGMENT), files.content[maker.name(1)], b"", b"x" * SEGMENT):
            files.content[maker.name(2)] = content
            self.assertEqual(good, position_on(files))
        files.content[maker.name(2) + ".partial"] = files.content.pop(maker.name(2))
        self.assertEqual(good, position_on(files))

    def test_partialIsNotClosed(self) -> None:
        """A partial segment that is full ends with its last whole record."""
        maker = self.unfinished()
        files = disk(maker)
        del files.content[maker.name(2)]
        files.content[maker.name(1) + ".partial"] = files.content.pop(maker.name(1))
        self.assertEqual(maker.records[-3].end, position_on(files))

    def test_wrongLengthIsNoUnfinishedRecord(self) -> None:
        """Only a record whose further pages agree with it takes the end to the segment's end."""
        maker = self.unfinished()
        unfinished = maker.records[-2]
        good = maker.records[-3].end
        maker.image(1)[unfinished.begin % SEGMENT] ^= 8  # its length
        files = disk(maker)
        del files.content[maker.name(2)]
        self.assertEqual(good, position_on(files))

    def test_recordEndsWithTheSegment(self) -> None:
        """A record that ends exactly with its segment, or so near that no other fits, closes it."""
        closed = 2 * SEGMENT
        for version, rest, expected in (
            (180000, 0, closed),
            (180000, 8, closed - 8),
            (90300, 24, closed - 24),
            (80400, 0, closed),
            (80400, 8, closed),
            (80400, 24, closed),
            (80400, 32, closed - 32),
        ):
            maker = WalMaker(version)
            maker.fill_to(2 * SEGMENT - PAGE // 2)
            maker.record(2 * SEGMENT - maker.position - rest)
            self.assertEqual(2 * SEGMENT - rest, maker.position)
            self.assertEqual(expected, position_on(disk(maker)), (version, rest))
            self.assertEqual(maker.position, position_on(disk(maker, partial=True)))

    def test_shortFileEndsWithItsLastWholeRecord(self) -> None:
        """A segment that is being copied in counts as far as it goes, wherever that is, and never further."""
        for version in (80400, 90300, 180000):
            maker = some_wal(version)
            whole = maker.files()[maker.name(1)]
            cuts = {
                record.end % SEGMENT + delta
                for record in maker.records[::7]
                for delta in (-9, -8, -7, -1, 0, 1, 9)
            }
            for cut in sorted(cuts | {0, 20, 39, 40, 41, PAGE - 1, PAGE, PAGE + 1, PAGE + 30}):
                files = MemoryFiles({maker.name(1): whole[:cut]})
                end = end_on(files)
                if end is None:
                    self.assertLess(cut, 45)
                    continue
                expected = max(
                    [record.end for record in maker.records if record.end - SEGMENT <= cut], default=SEGMENT
                )
                self.assertEqual(expected, end.position, (version, cut))

    def test_newestSegmentThatIsNoneIsPassedOver(self) -> None:
        """A directory, garbage or an empty file as the newest name leaves the end in the segment before."""
        for content in (None, b"", b"garbage" * 5000, bytes(SEGMENT)):
            maker = some_wal()
            files = disk(maker)
            files.content[maker.name(2)] = content
            self.assertEqual(maker.position, position_on(files))

    def test_vanishedFilesAreMissingFiles(self) -> None:
        """A segment that is removed between listing and opening ends WAL before it."""
        maker = some_wal()
        maker.switch()
        maker.record(100)
        files = disk(maker)
        directory = scan_directory(files, PATH)
        del files.content[maker.name(2)]
        end = find_end(files, directory, 1)
        assert end is not None
        self.assertEqual(2 * SEGMENT, end.position)
        files.content.clear()
        self.assertIsNone(find_end(files, directory, 1))
        self.assertEqual(end.position, getattr(find_end(files, directory, 1, resume=end), "position", None))

    def test_renamedPartialIsFollowed(self) -> None:
        """A partial segment that got its final name after the listing is read under that."""
        maker = some_wal()
        files = disk(maker, partial=True)
        directory = scan_directory(files, PATH)
        files.content[maker.name(1)] = files.content.pop(maker.name(1) + ".partial")
        end = find_end(files, directory, 1)
        assert end is not None
        self.assertEqual((maker.position, maker.name(1)), (end.position, end.covered[0].name))

    def test_errorsOfTheDiskAreTyped(self) -> None:
        """A file that is there and cannot be opened or read raises a typed error; nothing stays open."""
        for operation, number, expected in (
            ("open", errno.EACCES, WalFileDenied),
            ("size", errno.EIO, WalFileError),
            ("read", errno.EIO, WalFileError),
        ):
            maker = some_wal()
            files = disk(maker)
            directory = scan_directory(files, PATH)
            files.failures[operation, maker.name(1)] = number
            error = self.assertRaises(expected, find_end, files, directory, 1)
            self.assertIn(f'"pg_wal/{maker.name(1)}"', error.message)
            self.assertEqual(0, files.open_count)


class ForeignPagesTests(SynchronousTestCase):
    """Pages that look like WAL and are not ours, or not there yet."""

    def test_recycledAndPreallocatedSegments(self) -> None:
        """Future names with old content, or zeros, in the directory of a dead server are not WAL."""
        for version in (80400, 90400, 180000):
            maker = some_wal(version)
            for _ in range(3):
                maker.switch()
                maker.record(100)
            maker.recycle(3)
            self.assertEqual(maker.position, position_on(disk(maker)))
            maker.preallocate(5)
            self.assertEqual(maker.position, position_on(disk(maker)))

    def test_recycledTailInTheSegmentItself(self) -> None:
        """Old pages behind the end in a file that is being overwritten are told by their addresses."""
        for version in (80400, 90300, 180000):
            maker = some_wal(version)
            maker.fill_to(2 * SEGMENT - 1000)
            maker.switch()
            maker.recycle(1)
            for number in range(40):
                maker.record(40 + number * 37 % 700)
            self.assertEqual(maker.position, position_on(disk(maker)))

    def test_otherClustersSegmentIsNotOurs(self) -> None:
        """A page of another system identifier at the right address is not there."""
        maker = some_wal()
        maker.switch()
        maker.record(100)
        files = disk(maker)
        directory = scan_directory(files, PATH)
        other = some_wal(system_identifier=5)
        other.switch()
        other.record(100)
        files.content[maker.name(2)] = other.files()[maker.name(2)]
        end = find_end(files, directory, 1)
        assert end is not None
        self.assertEqual(2 * SEGMENT, end.position)

    def test_abandonedRecord(self) -> None:
        """A record that was given up in a crash, and what was written over its rest, are one chain."""
        for version in (100000, 140000, 180000, 190000):
            for length, kept in (
                (20_000, 1),
                (20_000, 2),
                (SEGMENT, 100),
                (2 * SEGMENT, 128),
                (2 * SEGMENT, 130),
            ):
                maker = some_wal(version)
                maker.abandon(length, kept_pages=kept)
                self.assertEqual(maker.position, position_on(disk(maker)), (version, length, kept))
                maker.record(100)
                maker.record(9000)
                self.assertEqual(maker.position, position_on(disk(maker, partial=True)))

    def test_abandonedRecordMustBeNamed(self) -> None:
        """A page that claims to overwrite, without saying which record, does not count."""
        maker = some_wal()
        good = maker.position
        note = maker.abandon(20_000)
        maker.record(100)
        maker.image(1)[(note.begin + 26) % SEGMENT] ^= 8
        self.assertEqual(good, position_on(disk(maker)))
        maker = some_wal()
        maker.abandon(20_000)
        maker.position = maker.records.pop().begin
        maker.record(100)
        self.assertEqual(good, position_on(disk(maker)))

    def test_overwriteAndContinuationContradict(self) -> None:
        """A page cannot both continue a record and abandon it."""
        maker = some_wal()
        good = maker.position
        note = maker.abandon(20_000)
        maker.image(1)[note.begin // PAGE * PAGE % SEGMENT + 2] |= 1
        self.assertEqual(good, position_on(disk(maker)))


class SwitchTests(SynchronousTestCase):
    """XLOG_SWITCH: the rest of the segment is unused."""

    def test_closedSegmentEndsAtItsEnd(self) -> None:
        """After a switch a closed segment counts whole in every era, whatever the rest is."""
        for version in MAGICS:
            maker = some_wal(version)
            switch = maker.switch()
            end = end_on(disk(maker))
            assert end is not None
            self.assertEqual((2 * SEGMENT, 2 * SEGMENT), (end.position, end.next_record))
            self.assertEqual(switch.begin, end.last_record)
            maker.image(1)[-PAGE:] = b"\xee" * PAGE
            self.assertEqual(2 * SEGMENT, position_on(disk(maker)))

    def test_nextSegmentFollowsASwitch(self) -> None:
        """The record after a switch points back over the unused rest."""
        for version in (80400, 90300, 90400, 100000, 110000, 180000):
            maker = some_wal(version)
            maker.switch()
            self.assertEqual(2 * SEGMENT, maker.position)
            maker.record(100)
            maker.switch()
            maker.record(100)
            files = disk(maker)
            self.assertEqual(maker.position, position_on(files))
            late = files.content.pop(maker.name(3))
            first = files.content.pop(maker.name(2))
            end = end_on(files)
            files.content |= {maker.name(2): first, maker.name(3): late}
            self.assertEqual(maker.position, position_on(files, resume=end))

    def test_partialFrom11(self) -> None:
        """From 11 on the rest is zeros; in a partial file of full size they count, nothing else does."""
        maker = some_wal(110000)
        switch = maker.switch()
        files = disk(maker, partial=True)
        name = maker.name(1) + ".partial"
        self.assertEqual(2 * SEGMENT, position_on(files))
        content = files.content[name]
        assert content is not None
        files.content[name] = content[:-1]
        end = end_on(files)
        assert end is not None
        self.assertEqual((switch.end, 2 * SEGMENT), (end.position, end.next_record))
        files.content[name] = content[:-1] + b"\x01"
        self.assertEqual(switch.end, position_on(files))
        self.assertEqual(switch.end, position_on(files, resume=end))
        files.content[name] = content
        self.assertEqual(2 * SEGMENT, position_on(files, resume=end))

    def test_partialFrom94To10(self) -> None:
        """From 9.4 to 10 the rest is empty pages, and counts page by page as they arrive."""
        for version in (90400, 100000):
            maker = some_wal(version)
            switch = maker.switch()
            name = maker.name(1) + ".partial"
            content = maker.files()[maker.name(1)]
            page = -(-switch.end // PAGE) * PAGE
            end = None
            for expected, arrived in (
                (page, page + 10),
                (page + PAGE, page + PAGE),
                (page + 3 * PAGE, page + 3 * PAGE),
                (2 * SEGMENT, 2 * SEGMENT),
            ):
                files = MemoryFiles({name: content[: arrived - SEGMENT].ljust(SEGMENT, b"\0")})
                self.assertEqual(expected, position_on(files), version)
                end = end_on(files, resume=end)
                assert end is not None
                self.assertEqual((expected, 2 * SEGMENT), (end.position, end.next_record))
            spoilt = bytearray(content)
            spoilt[page + 2 * PAGE + 100 - SEGMENT] = 1
            self.assertEqual(page + 2 * PAGE, position_on(MemoryFiles({name: bytes(spoilt)})))
            spoilt[switch.end + 1 - SEGMENT] = 1
            self.assertEqual(switch.end, position_on(MemoryFiles({name: bytes(spoilt)})))

    def test_partialTo93(self) -> None:
        """To 9.3 nobody wrote the rest: in a partial file nothing tells what has arrived."""
        for version in (80400, 90300):
            maker = some_wal(version)
            switch = maker.switch()
            files = disk(maker, partial=True)
            end = end_on(files)
            assert end is not None
            self.assertEqual(switch.end, end.position)
            maker.record(100)
            self.assertEqual(maker.position, position_on(disk(maker), resume=end))

    def test_fileGoneAfterASwitch(self) -> None:
        """If the file vanishes while its rest is awaited, the end stays."""
        maker = some_wal(90300)
        maker.switch()
        files = disk(maker, partial=True)
        directory = scan_directory(files, PATH)
        end = find_end(files, directory, 1)
        files.content.clear()
        again = find_end(files, directory, 1, resume=end)
        assert end is not None
        assert again is not None
        self.assertEqual((end.position, ()), (again.position, again.covered))
