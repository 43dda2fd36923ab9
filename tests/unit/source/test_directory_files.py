"""`DirectorySource`: what is durable, which timelines there are, and opening segments."""

from __future__ import annotations

import errno
import gc
import os
import shutil
from typing import TYPE_CHECKING, Any

from source_helpers import FIRST, MIB, SECOND, SourceTestCase, Subscriber, some_wal

from walsender.errors import DataCorrupted, StartPositionRefused, WalFileMissing
from walsender.source import SegmentUnavailable, TimelineEnd

if TYPE_CHECKING:
    from walsender.testing.wal_maker import WalMaker


class DurabilityTests(SourceTestCase):
    """Never send what could be lost."""

    def test_syncedBeforeTold(self) -> None:
        """Files and their names are durable before anybody is told."""
        maker = some_wal()
        source = self.source(maker)
        self.assertIn(SECOND, self.files.synced)
        self.assertIn("", self.files.synced)
        told: list[list[str]] = []
        subscriber = Subscriber(source)
        self.patch(subscriber, "wal_grew", lambda: told.append(list(self.files.synced)))
        source.subscribe(subscriber)
        self.files.synced.clear()
        maker.record(500)
        maker.write(self.path)
        self.wait()
        self.assertEqual([[SECOND]], told)

    def test_failedSync(self) -> None:
        """After a failed fsync that file is never trusted again, until another takes its name."""
        maker = some_wal()
        source = self.source(maker)
        before = source.flush_position
        self.files.failures["sync", SECOND] = errno.EIO
        maker.record(500)
        maker.write(self.path)
        self.wait()
        self.assertEqual(before, source.flush_position)
        self.files.failures.clear()
        maker.record(500)
        maker.write(self.path)
        self.wait(20)
        self.assertEqual(before, source.flush_position)
        shutil.copy(self.path / SECOND, self.path / "copy")
        (self.path / "copy").rename(self.path / SECOND)
        self.wait(5.2)
        self.assertEqual(maker.position, source.flush_position)

    def test_failedDirectorySync(self) -> None:
        """Names that are not durable are not announced."""
        maker = some_wal()
        source = self.source(maker)
        before = source.flush_position
        self.files.failures["sync", ""] = errno.EIO
        maker.fill_to(maker.position + MIB, 20_000)
        maker.write(self.path)
        self.wait(20)
        self.assertLess(source.flush_position, maker.position)
        self.assertGreaterEqual(source.flush_position, before)

    def test_off(self) -> None:
        """Without sync nothing is synced."""
        source = self.source(some_wal(), sync=False)
        self.successResultOf(source.open_segment(1, 1))
        self.assertEqual([], self.files.synced)


class TimelineTests(SourceTestCase):
    """Several timelines."""

    def forked(self) -> WalMaker:
        """Return a maker that was promoted in its second segment."""
        maker = some_wal()
        self.switchpoint = maker.position
        maker.fork()
        maker.fill_to(maker.position + MIB, 20_000)
        return maker

    def test_history(self) -> None:
        """The current timeline is the highest, the others end where the history says."""
        maker = self.forked()
        source = self.source(maker)
        self.assertEqual((2, maker.position), (source.timeline, source.flush_position))
        self.assertEqual(TimelineEnd(maker.position), source.end_of(2))
        self.assertEqual(TimelineEnd(self.switchpoint, 2), source.end_of(1))
        self.assertEqual(maker.histories[2], source.history_file(2))

    def test_unknownTimelines(self) -> None:
        """Others are refused, and have no history file."""
        source = self.source(self.forked())
        for timeline in (3, 0, 77):
            error = self.assertRaises(StartPositionRefused, source.end_of, timeline)
            self.assertEqual(f"requested timeline {timeline} is not in this server's history", error.message)
        error = self.assertRaises(WalFileMissing, source.history_file, 7)
        self.assertEqual(
            'could not open file "pg_wal/00000007.history": No such file or directory', error.message
        )

    def test_promotionWhileFollowing(self) -> None:
        """A new timeline is noticed, and whoever follows the old one is told."""
        maker = some_wal()
        source = self.source(maker)
        subscriber = Subscriber(source)
        source.subscribe(subscriber)
        maker.fork()
        maker.record(500)
        maker.write(self.path)
        self.wait(5.2)
        self.assertEqual([(2, maker.position)], subscriber.told)

    def test_segmentOfTheSwitchPoint(self) -> None:
        """It is read from the next timeline's file, which has it all."""
        maker = self.forked()
        source = self.source(maker)
        segment = self.successResultOf(source.open_segment(1, 2))
        self.assertEqual("00000002" + SECOND[8:], segment.name)
        self.assertEqual(FIRST, self.successResultOf(source.open_segment(1, 1)).name)
        self.assertEqual(FIRST, self.successResultOf(source.open_segment(2, 1)).name)

    def test_holeInTheNextTimelinesFile(self) -> None:
        """A growing file that a power failure has left with a hole is not read; the older one is whole."""
        maker = some_wal()
        maker.write(self.path)
        maker.fork()
        maker.record(500)
        maker.write(self.path, partial=True)
        newer = "00000002" + SECOND[8:] + ".partial"
        with (self.path / newer).open("r+b") as file:
            file.seek(20 * 8192)
            file.write(bytes(8192))
        source = self.source()
        self.assertEqual(1, source.timeline)
        self.assertEqual(SECOND, self.successResultOf(source.open_segment(1, 2)).name)


class OpeningTests(SourceTestCase):
    """Segments that are opened to be sent."""

    def refusal(self, source: Any, number: int) -> SegmentUnavailable:
        """Return why a segment cannot be opened."""
        error = self.failureResultOf(source.open_segment(1, number), SegmentUnavailable).value
        assert isinstance(error, SegmentUnavailable)
        return error

    def test_shared(self) -> None:
        """A segment is opened once, synced on the way, and closed when the last reader drops it."""
        source = self.source(some_wal())
        self.files.synced.clear()
        self.threads.holding = True
        waiting = [source.open_segment(1, 1) for _ in range(3)]
        self.assertEqual(1, len(self.threads.jobs))
        self.threads.run()
        segments = [self.successResultOf(each) for each in waiting]
        self.assertEqual(1, len(set(map(id, segments))))
        self.assertIs(segments[0], self.successResultOf(source.open_segment(1, 1)))
        self.assertEqual([FIRST], self.files.synced)
        self.assertEqual([FIRST], self.files.open_names)
        del segments, waiting
        self.assertEqual([], self.files.open_names)

    def test_nothingIsReadAhead(self) -> None:
        """The kernel is told so before a page is read, or pages read ahead then go on asking for more."""
        source = self.source(some_wal())
        asked: list[str] = []
        for name in ("posix_fadvise", "pread"):
            original = getattr(os, name)

            def noted(*arguments: Any, name: str = name, original: Any = original) -> Any:
                asked.append(name)
                return original(*arguments)

            self.patch(os, name, noted)
        self.successResultOf(source.open_segment(1, 1))
        self.assertEqual("posix_fadvise", asked[0])
        self.assertIn("pread", asked)

    def test_missing(self) -> None:
        """A segment that is not held is refused with the earliest position that is."""
        source = self.source(some_wal(start=7 * MIB))
        error = self.refusal(source, 3)
        self.assertEqual(("000000010000000000000003", 3), (error.name, error.segment_number))
        self.assertEqual((errno.ENOENT, 7 * MIB), (error.error.errno, error.earliest))

    def test_vanished(self) -> None:
        """A segment that was listed and is gone is refused, and nothing else happens."""
        source = self.source(some_wal())
        (self.path / FIRST).unlink()
        self.assertEqual(errno.ENOENT, self.refusal(source, 1).error.errno)
        self.successResultOf(source.open_segment(1, 2))

    def test_cannotBeOpened(self) -> None:
        """Any other error is told as it is."""
        source = self.source(some_wal())
        self.files.failures["open", FIRST] = errno.EACCES
        self.assertEqual(errno.EACCES, self.refusal(source, 1).error.errno)
        gc.collect()  # the error's traceback
        self.assertEqual([], self.files.open_names)

    def test_shortFile(self) -> None:
        """A file that is still being copied in is not there yet."""
        source = self.source(some_wal())
        with (self.path / FIRST).open("r+b") as file:
            file.truncate(MIB - 1)
        self.assertEqual(errno.ENOENT, self.refusal(source, 1).error.errno)
        self.assertEqual([], self.files.open_names)

    def test_recycledFile(self) -> None:
        """A file whose pages belong elsewhere, or to nobody, is not that segment."""
        maker = some_wal()
        source = self.source(maker)
        for content in (bytes(maker.image(2)), bytes(MIB), b"x" * MIB):
            (self.path / FIRST).write_bytes(content)
            self.assertEqual(errno.ENOENT, self.refusal(source, 1).error.errno)

    def test_otherCluster(self) -> None:
        """A file of another cluster is told as corruption."""
        source = self.source(some_wal())
        other = some_wal(system_identifier=5)
        (self.path / FIRST).write_bytes(bytes(other.image(1)))
        error = self.failureResultOf(source.open_segment(1, 1), DataCorrupted).value
        self.assertIn("is from a different database system", str(error))

    def test_renamedSinceListing(self) -> None:
        """A .partial that has got its final name since the listing is found under that."""
        source = self.source(some_wal(), partial=True)
        (self.path / f"{SECOND}.partial").rename(self.path / SECOND)
        self.assertEqual(SECOND, self.successResultOf(source.open_segment(1, 2)).name)

    def test_retired(self) -> None:
        """An open file whose name another one has taken is opened anew for who comes then."""
        maker = some_wal()
        source = self.source(maker)
        old = self.successResultOf(source.open_segment(1, 2))
        maker.record(500)
        (self.path / "new").write_bytes(bytes(maker.image(2)))
        (self.path / "new").rename(self.path / SECOND)
        self.wait(5.2)
        self.assertEqual(maker.position, source.flush_position)
        self.assertTrue(old.retired)
        new = self.successResultOf(source.open_segment(1, 2))
        self.assertIsNot(old, new)
        self.assertFalse(new.retired)

    def test_forgottenTimeline(self) -> None:
        """A timeline that is not in the history is refused each time, not waited for."""
        source = self.source(some_wal())
        for _ in range(2):
            self.failureResultOf(source.open_segment(9, 1), StartPositionRefused)
