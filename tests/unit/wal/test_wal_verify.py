"""Checking all records: what is good is good to its end, and what is not is found and named."""

from __future__ import annotations

import functools
import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wal_helpers import PATH, MemoryFiles, disk

from walsender.errors import DataCorrupted
from walsender.testing.wal_maker import MAGICS, WalMaker
from walsender.wal import VerifiedWal, find_current_end, scan_directory, verify_wal

SEGMENT = 1 << 20
PAGE = 8192


def some_wal(version: int = 180000, segments: int = 3) -> WalMaker:
    """Return a maker that has written records of many sizes over some segments."""
    maker = WalMaker(version)
    sizes = random.Random(version)
    while maker.position < segments * SEGMENT + SEGMENT // 2:
        maker.record(sizes.choice((32, 64, 100, 300, 5000, 40_000)))
    return maker


@functools.cache
def same_wal(version: int) -> WalMaker:
    """Return `some_wal`, made once: not to be written to."""
    return some_wal(version)


def verified(files: MemoryFiles, start: int | None = None) -> VerifiedWal:
    """Return what is good on a disk, from *start* or the earliest place on."""
    directory = scan_directory(files, PATH)
    end = find_current_end(files, directory)
    assert end is not None, "no WAL was found"
    earliest = directory.earliest(end.timeline, end.position)
    try:
        return verify_wal(files, directory, end, earliest if start is None else start)
    finally:
        assert files.open_count == 0, "a descriptor was left open"


class GoodWalTests(SynchronousTestCase):
    """WAL without a fault is good, whatever stands around it."""

    def assertGood(self, maker: WalMaker, files: MemoryFiles, records: int | None = None) -> None:
        """Assert that all records are found to be good, to the end."""
        found = verified(files)
        self.assertEqual((maker.records[0].begin, maker.position), (found.begin, found.end))
        self.assertEqual(len(maker.records) if records is None else records, found.records)

    def test_everyEra(self) -> None:
        """In every release, plain to the end or partial."""
        for version in MAGICS:
            maker = some_wal(version, 1)
            self.assertGood(maker, disk(maker))
            self.assertGood(maker, disk(maker, partial=True))

    def test_switches(self) -> None:
        """The unused rest of a segment is no fault, at the end or before it."""
        for version in (90200, 90400, 100000, 180000):
            maker = some_wal(version, 1)
            for _ in range(3):
                maker.switch()
                maker.record(100)
            self.assertGood(maker, disk(maker))
            maker.switch()
            self.assertGood(maker, disk(maker))

    def test_longRecords(self) -> None:
        """Records over several segments are read whole."""
        maker = some_wal(segments=1)
        maker.record(3 * SEGMENT + 1234)
        maker.record(64)
        self.assertGood(maker, disk(maker))

    def test_abandoned(self) -> None:
        """A record that was given up after a crash is no fault."""
        maker = some_wal(segments=1)
        maker.abandon(50_000, kept_pages=2)
        maker.fill_to(maker.position + SEGMENT)
        self.assertGood(maker, disk(maker))

    def test_fork(self) -> None:
        """The way to the current timeline leads over its ancestors, and not behind where they end."""
        maker = some_wal()
        at = maker.records[-20].end
        maker.fork(at)
        maker.fill_to(maker.position + SEGMENT)
        self.assertGood(maker, disk(maker))

    def test_deadServer(self) -> None:
        """Recycled and preallocated files behind the end, and a torn last record, are the usual end."""
        maker = some_wal()
        maker.recycle(2)
        files = disk(maker)
        self.assertGood(maker, files)
        maker = some_wal()
        maker.preallocate(2)
        self.assertGood(maker, disk(maker))
        for kept in (10, 40, 20_000):
            maker = some_wal()
            end = maker.position
            torn = maker.record(30_000)
            maker.recycle(1)
            files = disk(maker)
            name = maker.name(maker.last_number)
            content = files.content[name]
            assert content is not None
            place = torn.begin % SEGMENT + kept
            # The server writes whole pages.
            rest = -place % PAGE
            spoilt = content[:place] + bytes(rest) + content[: SEGMENT - place - rest]
            files.content[name] = spoilt
            found = verified(files)
            self.assertEqual((end, len(maker.records) - 1), (found.end, found.records))

    def test_archive(self) -> None:
        """An archive may end with its last segment, inside a record."""
        maker = some_wal()
        while maker.records[-1].begin // SEGMENT == maker.position // SEGMENT:
            maker.record(40_000)
        files = disk(maker)
        del files.content[maker.name(maker.last_number)]
        found = verified(files)
        self.assertEqual((maker.last_number * SEGMENT, len(maker.records) - 1), (found.end, found.records))

    def test_insideOneRecord(self) -> None:
        """Where no record begins there is nothing to check."""
        maker = WalMaker()
        maker.record(5 * SEGMENT)
        files = disk(maker)
        for number in (1, 2, 6):
            del files.content[maker.name(number)]
        self.assertEqual(VerifiedWal(6 * SEGMENT, 6 * SEGMENT, 0), verified(files))

    def test_fromSomewhere(self) -> None:
        """From a given place on: the first record on its page."""
        maker = some_wal()
        for record in (maker.records[0], maker.records[50], maker.records[-1]):
            page = record.begin // PAGE * PAGE
            later = [one for one in maker.records if one.begin >= page]
            found = verified(disk(maker), record.begin)
            self.assertEqual((later[0].begin, len(later)), (found.begin, found.records))

    def test_behindAGap(self) -> None:
        """A missing segment is where checking begins, as it is where serving does."""
        maker = some_wal()
        files = disk(maker)
        del files.content[maker.name(2)]
        found = verified(files)
        self.assertEqual(min(one.begin for one in maker.records if one.begin >= 3 * SEGMENT), found.begin)

    def test_staleAfterACrash(self) -> None:
        """Older WAL of the same place behind a page that ends in zeros is of no account."""
        maker = some_wal()
        end = maker.position
        files = disk(maker)
        maker.record(3 * PAGE)
        maker.record(100)
        maker.fill_to(maker.position + 10 * PAGE)
        stale = disk(maker)
        name = maker.name(end // SEGMENT)
        old, new = files.content[name], stale.content[name]
        assert old is not None
        assert new is not None
        page_end = -(-end // PAGE) * PAGE % SEGMENT
        files.content[name] = old[:page_end] + new[page_end:]
        self.assertEqual(end, verified(files).end)


class BadWalTests(SynchronousTestCase):
    """What is not good is found, and where it is."""

    def refused(self, files: MemoryFiles, start: int | None = None) -> tuple[str, int, str]:
        """Return name, position and reason of the first fault."""
        error = self.assertRaises(DataCorrupted, verified, files, start)
        match = re.fullmatch(r'file "pg_wal/(\S+)", offset (\d+) \(LSN 0/([0-9A-F]+)\): (.+)', error.message)
        assert match is not None, error.message
        position = int(match[3], 16)
        self.assertEqual(int(match[2]), position % SEGMENT)
        return match[1], position, match[4]

    def spoil(self, files: MemoryFiles, maker: WalMaker, position: int, length: int = 1) -> None:
        """Change bytes of a disk."""
        name = maker.name(position // SEGMENT)
        content = bytearray(files.content[name] or b"")
        offset = position % SEGMENT
        for place in range(offset, offset + length):
            content[place] ^= 0x5A
        files.content[name] = bytes(content)

    @settings(deadline=None, max_examples=50)
    @given(st.data())
    def test_anyByteOfAnyRecord(self, data: st.DataObject) -> None:
        """Whichever byte of whichever record but the last is wrong, it is that record that is named."""
        maker = same_wal(data.draw(st.sampled_from((90200, 90400, 180000))))
        record = maker.records[data.draw(st.integers(0, len(maker.records) - 2))]
        position = data.draw(st.integers(record.begin, record.end - 1))
        files = disk(maker)
        if position % PAGE < 44 or position >= record.end - 8:
            return  # a page header or padding: not all of their bytes mean something
        if maker.version == 90400 and 28 <= position - record.begin < 32 + 40:
            return  # padding of the record's header, which the checksum of its time leaves out
        self.spoil(files, maker, position)
        name, found, reason = self.refused(files)
        self.assertTrue(record.begin <= found <= position, (record, found, position, reason))
        self.assertEqual(maker.name(found // SEGMENT), name)

    def test_pageHeader(self) -> None:
        """A page that is not there is named, wherever it is, also the first of the newest segment."""
        maker = some_wal()
        late = maker.records[-10].begin // PAGE * PAGE
        for page in (SEGMENT, SEGMENT + 7 * PAGE, 2 * SEGMENT, 3 * SEGMENT, late):
            files = disk(maker)
            self.spoil(files, maker, page + 8, 8)
            name, found, _ = self.refused(files)
            self.assertEqual((maker.name(page // SEGMENT), page), (name, found))

    def test_zeroedBlock(self) -> None:
        """A block that was never written is named although its segment seems to end there."""
        maker = some_wal()
        page = maker.records[-10].begin // PAGE * PAGE
        files = disk(maker)
        name = maker.name(page // SEGMENT)
        content = files.content[name]
        assert content is not None
        place = page % SEGMENT
        files.content[name] = content[:place] + bytes(PAGE) + content[place + PAGE :]
        self.assertEqual((name, page), self.refused(files)[:2])

    def test_newestAfterASwitch(self) -> None:
        """A newest segment with a spoilt first page is no recycled one: its other pages are its own."""
        maker = some_wal(segments=1)
        maker.switch()
        maker.fill_to(maker.position + SEGMENT // 2)
        files = disk(maker)
        first = maker.last_number * SEGMENT
        self.spoil(files, maker, first + 8, 8)
        name, found, reason = self.refused(files)
        self.assertEqual((maker.name(maker.last_number), first), (name, found))
        self.assertIn("; but good WAL follows at ", reason)

    def test_goodWalBehind(self) -> None:
        """A fault shortly before the end is told from the end by what follows."""
        maker = some_wal()
        maker.record(64)
        spoilt = maker.record(64)
        following = maker.record(64)
        files = disk(maker)
        self.spoil(files, maker, spoilt.begin + 30)
        _, found, reason = self.refused(files)
        self.assertEqual(spoilt.begin, found)
        self.assertRegex(reason, f"^incorrect .* at 0/.*; but good WAL follows at 0/{following.begin:X}$")

    def test_beforeTheStart(self) -> None:
        """A fault before the place where checking begins is of no account."""
        maker = some_wal()
        files = disk(maker)
        self.spoil(files, maker, maker.records[3].begin + 30)
        self.refused(files)
        self.assertEqual(maker.position, verified(files, 2 * SEGMENT).end)

    def test_startOnABadPage(self) -> None:
        """Where the very first page is not there, that is said."""
        maker = some_wal()
        files = disk(maker)
        self.spoil(files, maker, 2 * SEGMENT + 8, 8)
        self.assertEqual(2 * SEGMENT, self.refused(files, 2 * SEGMENT)[1])

    def test_vanished(self) -> None:
        """A segment that is listed and gone is missing."""
        maker = some_wal()
        files = disk(maker)
        directory = scan_directory(files, PATH)
        end = find_current_end(files, directory)
        assert end is not None
        del files.content[maker.name(2)]
        error = self.assertRaises(DataCorrupted, verify_wal, files, directory, end, SEGMENT)
        self.assertRegex(
            error.message, rf'^file "pg_wal/{maker.name(2)}", offset 0 \(LSN .*\): it is missing$'
        )
