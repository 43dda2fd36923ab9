"""When readers of cold WAL give way, and how they read then."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, cast
from unittest.mock import Mock

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from walsender.lsn import LSN
from walsender.sender import WalSenderFactory, factory
from walsender.sender.giving_way import LARGE, LIVE_FOR, SMALL, GivingWay, Pace
from walsender.sender.page_cache import WARM_WINDOW, PageCache
from walsender.sender.slot_table import SlotTable, WalSenderEntry
from walsender.testing.source import ScriptedSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.sender.interfaces import IClientTransport
    from walsender.sender.page_cache import RunInThread

MIB = 1 << 20
SEGMENT = 16 * MIB
RATE = 64_000_000


class GivingWayTests(SynchronousTestCase):
    """A source that grows, one standby that is level, and one that reads what is cold."""

    def setUp(self) -> None:
        """Let the one be level with the source and the other far behind it."""
        self.clock = Clock()
        self.source = ScriptedSource(10 * SEGMENT)
        self.addCleanup(self.source.close)
        self.standbys = SlotTable(10)
        self.live = self.standby(self.source.flush_position)
        self.standby(SEGMENT)
        self.giving_way = GivingWay(self.source, self.standbys, self.clock, RATE)
        self.giving_way.due()

    def standby(self, sent: int) -> WalSenderEntry:
        """Enter a standby that has been sent everything before *sent*."""
        entry = WalSenderEntry(self.standbys.new_process_id(), "127.0.0.1", 1, 0.0, sent_lsn=LSN(sent))
        self.standbys.reserve(entry)
        return entry

    def commits(self, size: int, seconds: float = 1.0) -> bool:
        """Let a commit come and be sent every tenth of a second; return whether to give way then."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.source.grow(self.source.flush_position + size)
            self.live.sent_lsn = LSN(self.source.flush_position)
            due = self.giving_way.due()
        return due > 0

    def test_nothingNew(self) -> None:
        """While no WAL comes nobody gives way, however many are level."""
        for _ in range(50):
            self.clock.advance(0.1)
            self.assertEqual(0, self.giving_way.due())

    def test_smallCommits(self) -> None:
        """Give way while a standby is sent small commits, and for a moment after the last."""
        self.assertTrue(self.commits(100))
        self.clock.advance(LIVE_FOR / 2)
        self.assertEqual(RATE, self.giving_way.due())
        self.clock.advance(LIVE_FOR)
        self.assertEqual(0, self.giving_way.due())

    def test_noRate(self) -> None:
        """Where no rate is set nobody gives way; it may be set and taken back meanwhile."""
        self.giving_way.rate = 0
        self.assertFalse(self.commits(100))
        self.giving_way.rate = RATE // 2
        self.assertTrue(self.commits(100))
        self.assertEqual(RATE // 2, self.giving_way.due())
        self.giving_way.rate = 0
        self.assertEqual(0, self.giving_way.due())

    def test_nobodyIsLevel(self) -> None:
        """Who is alone gives way to nobody, although WAL comes."""
        self.standbys.free(self.live)
        self.assertFalse(self.commits(100))

    def test_somebodyBecomesLevel(self) -> None:
        """Whoever has become level is given way to."""
        self.standbys.free(self.live)
        self.commits(100)
        self.live = self.standby(self.source.flush_position)
        self.assertTrue(self.commits(100))

    def test_muchWal(self) -> None:
        """While much comes, catching up matters more."""
        self.assertTrue(self.commits(100))
        self.assertFalse(self.commits(RATE // 10, 1.5))

    def test_longAgo(self) -> None:
        """What has come since somebody asked for the last time may have come long ago."""
        self.clock.advance(60)
        self.source.grow(self.source.flush_position + 100)
        self.live.sent_lsn = LSN(self.source.flush_position)
        self.assertEqual(0, self.giving_way.due())


class WiringTests(SynchronousTestCase):
    """Who asks."""

    def test_readersOfAServer(self) -> None:
        """What carries a stream asks the server's own standbys and source, and reads in the given threads."""
        source = ScriptedSource(SEGMENT)
        self.addCleanup(source.close)
        clock = MemoryReactorClock()
        read = Mock()
        server = WalSenderFactory(clock, source, cold_read_rate=RATE, read=read)
        asked: list[Callable[[], int]] = []

        def page_cache(run_in_thread: RunInThread, give_way: Callable[[], int]) -> PageCache:
            self.assertIs(read, run_in_thread)
            asked.append(give_way)
            return PageCache(run_in_thread, give_way)

        self.patch(factory, "PageCache", page_cache)
        server.consumer(cast("IClientTransport", StringTransport()))
        (give_way,) = asked
        self.assertFalse(give_way())
        clock.advance(0.5)
        source.grow(source.flush_position + 100)
        server.slot_table.reserve(WalSenderEntry(1, "127.0.0.1", 1, 0.0, sent_lsn=LSN(source.flush_position)))
        self.assertTrue(give_way())


class PaceTests(SynchronousTestCase):
    """A file of 4 MiB on a disk that takes a time for each read."""

    def setUp(self) -> None:
        """Make the file, and write down the reads and the pauses."""
        self.descriptor, path = tempfile.mkstemp(prefix="walsender-test-")
        os.unlink(path)  # noqa: PTH108 (a descriptor is all that is needed)
        self.addCleanup(os.close, self.descriptor)
        os.truncate(self.descriptor, 4 * MIB)
        self.clock = Clock()
        self.clock.advance(1000)
        self.reads: list[tuple[int, int]] = []
        self.pauses: list[float] = []
        self.done_at = self.clock.seconds()
        self.rests: list[float] = []
        self.read = os.pread
        self.pace = Pace(self.clock.seconds, self.sleep)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.pauses.append(seconds)
        self.clock.advance(seconds)

    def disk(self, seconds_for: Callable[[int], float]) -> None:
        """Let a read take the time that *seconds_for* tells of its length, from when it is asked for."""
        read = self.read

        def advise(_: int, __: int, length: int, ___: int) -> None:
            now = self.clock.seconds()
            self.rests.append(now - self.done_at)
            self.done_at = now + seconds_for(length)

        def pread(descriptor: int, length: int, offset: int) -> bytes:
            self.reads.append((offset, length))
            self.clock.advance(max(0.0, self.done_at - self.clock.seconds()))
            return read(descriptor, length, offset)

        self.patch(os, "posix_fadvise", advise)
        self.patch(os, "pread", pread)

    def read_all(self) -> float:
        """Read the file in windows; return bytes per second."""
        begun = self.clock.seconds()
        for offset in range(0, 4 * MIB, WARM_WINDOW):
            self.pace.read_through(RATE, self.descriptor, offset, WARM_WINDOW)
        end = 0
        for offset, length in self.reads:
            self.assertEqual(end, offset)
            end += length
        self.assertEqual(4 * MIB, end)
        return 4 * MIB / (self.clock.seconds() - begun)

    def test_fastDisk(self) -> None:
        """Reads are small, with pauses, and as fast as they should be together."""
        self.disk(lambda _: 0.0001)
        speed = self.read_all()
        self.assertEqual({SMALL}, {length for _, length in self.reads})
        self.assertLess(0.9 * RATE, speed)
        self.assertLess(speed, 1.1 * RATE)
        self.assertGreater(len(self.pauses), len(self.reads) // 2)

    def test_slowDisk(self) -> None:
        """A disk that takes milliseconds for each read is read from by larger ones, as fast as ever."""
        self.disk(lambda length: 0.003 + length / 1e9)
        self.read_all()
        self.reads.clear()
        self.assertGreater(self.read_all(), RATE * 0.9)
        self.assertIn(max(length for _, length in self.reads), range(2 * SMALL, LARGE + 1))

    def test_verySlowDisk(self) -> None:
        """One that cannot keep up is given no rest, and read from by the largest."""
        self.disk(lambda length: 0.01 + length / 50e6)
        self.read_all()
        self.assertEqual({0.0}, set(self.rests))
        self.reads.clear()
        self.read_all()
        self.assertEqual({LARGE}, {length for _, length in self.reads})

    def test_hiccup(self) -> None:
        """What was read by large reads while the disk was busy is read by small ones again."""
        self.disk(lambda length: 0.01 + length / 50e6)
        self.read_all()
        self.disk(lambda _: 0.0001)
        for _ in range(3):
            self.reads.clear()
            self.read_all()
        self.assertEqual({SMALL}, {length for _, length in self.reads})

    def test_clientThatTakesLittle(self) -> None:
        """Between two windows a client may take its time: the next is read by small reads all the same."""
        self.disk(lambda _: 0.0001)
        for offset in range(0, 4 * MIB, WARM_WINDOW):
            self.pace.read_through(RATE, self.descriptor, offset, WARM_WINDOW)
            self.clock.advance(10)
        self.assertEqual({SMALL}, {length for _, length in self.reads})

    def test_leastRate(self) -> None:
        """No rate makes a thread wait for seconds."""
        self.disk(lambda _: 0.0001)
        self.pace.read_through(1, self.descriptor, 0, 4 * MIB)
        self.assertLess(sum(self.pauses), 1.1)

    def test_endOfFile(self) -> None:
        """Behind the end of the file nothing is waited for."""
        self.disk(lambda _: 0.0001)
        self.pace.read_through(RATE, self.descriptor, 4 * MIB - SMALL, MIB)
        self.assertEqual([4 * MIB - SMALL, 4 * MIB], [offset for offset, _ in self.reads])

    def test_error(self) -> None:
        """An error is left to whoever reads it for good."""
        self.pace.read_through(RATE, -1, 0, MIB)
