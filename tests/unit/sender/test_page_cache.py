"""What is asked of the disk for a reader of cold WAL, and in which order."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from walsender.sender.giving_way import PIECES, SMALL
from walsender.sender.page_cache import WARM_WINDOW, PageCache
from walsender.source import OpenSegment, WalSlice
from walsender.wal import REAL_FILES

KIB, MIB = 1 << 10, 1 << 20


def at_once(function: Any, *arguments: object) -> Deferred[object]:
    """Run without a thread."""
    return succeed(function(*arguments))


class PageCacheTests(SynchronousTestCase):
    """With a file of 4 MiB, of which nothing is said to be in the page cache."""

    def setUp(self) -> None:
        """Make the file, and write down what is asked of the kernel: what, where, how much."""
        descriptor, path = tempfile.mkstemp(prefix="walsender-test-")
        os.unlink(path)  # noqa: PTH108 (a descriptor is all that is needed)
        os.truncate(descriptor, 4 * MIB)
        self.cache = PageCache(at_once)
        self.now = 100.0  # or what was seen "just now" would be old on a machine that stands still
        self.patch(time, "monotonic", lambda: self.now)
        self.calls: list[tuple[str, int, int]] = []
        names = {os.POSIX_FADV_RANDOM: "no read-ahead", os.POSIX_FADV_WILLNEED: "ask"}
        read = os.pread

        def advise(_: int, offset: int, length: int, advice: int) -> None:
            self.calls.append((names[advice], offset, length))

        def pread(file: int, length: int, offset: int) -> bytes:
            self.calls.append(("wait", offset, length))
            return read(file, length, offset)

        def preadv(_: int, __: object, offset: int, flags: int) -> int:
            self.calls.append(("look", offset, flags))
            raise BlockingIOError(errno.EAGAIN, "would have to wait")

        for name, double in (("posix_fadvise", advise), ("pread", pread), ("preadv", preadv)):
            self.patch(os, name, double)
        self.segment = OpenSegment(REAL_FILES, descriptor, "0" * 24, 0, 4 * MIB)

    def piece(self, offset: int, length: int) -> WalSlice:
        """Return a piece of the file."""
        return WalSlice(self.segment, offset, length)

    def test_readAheadIsOff(self) -> None:
        """It is turned off before anything is looked for, since looking would begin it."""
        self.assertFalse(self.cache.holds(self.piece(0, 128 * KIB)))
        self.assertEqual(["no read-ahead", "look"], [call[0] for call in self.calls][:2])

    def test_allIsRead(self) -> None:
        """Whatever asking was worth, all that is to be there has been read; then nobody looks."""
        self.cache.warm(self.piece(MIB, 128 * KIB))
        read = [(offset, length) for what, offset, length in self.calls if what == "wait"]
        self.assertEqual([(offset, 128 * KIB) for offset in range(MIB, MIB + WARM_WINDOW, 128 * KIB)], read)
        self.calls.clear()
        self.assertTrue(self.cache.holds(self.piece(MIB, WARM_WINDOW)))
        self.assertEqual([], self.calls)

    def test_littleUnderWay(self) -> None:
        """The disk always has something to do, and never more than three reads' worth."""
        self.cache.warm(self.piece(0, 128 * KIB))
        asked = 0
        self.assertEqual("no read-ahead", self.calls.pop(0)[0])
        for what, offset, length in self.calls:
            if what == "ask":
                self.assertEqual(asked, offset)
                asked += length
            else:
                self.assertEqual("wait", what)
                self.assertGreater(asked, offset + length)
                self.assertLessEqual(asked, offset + 3 * length)

    def test_givingWay(self) -> None:
        """Who gives way reads by small reads, one at a time; who no longer does reads as ever."""
        give_way = 64_000_000
        cache = PageCache(at_once, lambda: give_way)
        cache.warm(self.piece(0, 128 * KIB))
        self.assertEqual([("ask", 0, SMALL), ("wait", 0, SMALL)], self.calls[1:3])
        self.assertTrue(cache.holds(self.piece(0, PIECES * 128 * KIB)))
        self.assertFalse(cache.holds(self.piece(PIECES * 128 * KIB, 128 * KIB)))
        give_way = 0
        cache.warm(self.piece(MIB, 128 * KIB))
        self.assertEqual(("wait", 2 * MIB - 128 * KIB, 128 * KIB), self.calls[-1])

    def test_littleIsNotPaced(self) -> None:
        """Whoever is level waits for no pace, also where a file system cannot say what is in memory."""
        asked: list[None] = []
        cache = PageCache(at_once, lambda: asked.append(None) or 64_000_000)
        cache.warm(self.piece(0, 200))
        self.assertEqual([], asked)
        cache.warm(self.piece(0, 128 * KIB))
        self.assertEqual([None], asked)

    def test_others(self) -> None:
        """What one stream has had read others do not look for, for a moment, and no other place."""
        self.cache.warm(self.piece(MIB, 128 * KIB))
        self.calls.clear()
        other = PageCache(at_once)
        self.assertTrue(other.holds(self.piece(MIB, 128 * KIB)))
        self.assertTrue(other.holds(self.piece(MIB + 128 * KIB, 128 * KIB)))
        self.assertEqual([], self.calls)
        self.assertFalse(PageCache(at_once).holds(self.piece(0, MIB)))
        self.now += 2
        self.assertFalse(PageCache(at_once).holds(self.piece(MIB, MIB)))

    def test_slowClient(self) -> None:
        """What has been read is looked for again by whoever is long in coming to it."""
        self.cache.warm(self.piece(MIB, 128 * KIB))
        self.now += 0.9
        self.assertTrue(self.cache.holds(self.piece(MIB + 128 * KIB, 128 * KIB)))
        self.now += 0.2
        self.assertFalse(self.cache.holds(self.piece(MIB + 256 * KIB, 128 * KIB)))

    def test_slowClientAmongOthers(self) -> None:
        """What another stream has seen is believed for as long as it is by that one."""
        self.cache.warm(self.piece(MIB, 128 * KIB))
        self.now += 0.9
        other = PageCache(at_once)
        self.assertTrue(other.holds(self.piece(MIB, 128 * KIB)))
        self.now += 0.2
        self.assertFalse(other.holds(self.piece(MIB + 128 * KIB, 128 * KIB)))

    def test_manyPlaces(self) -> None:
        """What is remembered of a segment has a bound."""
        for offset in range(1000):
            PageCache(at_once).warm(self.piece(offset, 128 * KIB))
        self.assertLess(len(self.segment.in_memory), 300)

    def test_end(self) -> None:
        """Behind the end of the file nothing is waited for."""
        os.truncate(self.segment.descriptor, MIB // 2)
        self.cache.warm(self.piece(0, 128 * KIB))
        waited = [call for call in self.calls if call[0] == "wait"]
        self.assertEqual(("wait", MIB // 2, 128 * KIB), waited[-1])

    def test_noAdvice(self) -> None:
        """A file system that takes no advice is read from as ever."""
        with mock.patch("os.posix_fadvise", side_effect=OSError(95, "Operation not supported")):
            self.assertFalse(self.cache.holds(self.piece(0, 128 * KIB)))
            for window, rate in ((WARM_WINDOW, 0), (PIECES * 128 * KIB, 64_000_000)):
                self.calls.clear()
                PageCache(at_once, lambda rate=rate: rate).warm(self.piece(0, 128 * KIB))
                self.assertEqual(window, sum(length for what, _, length in self.calls if what == "wait"))
