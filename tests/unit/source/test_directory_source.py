"""`DirectorySource` over real files, without threads and with a clock that is told the time."""

from __future__ import annotations

import errno
import gc
import shutil
from typing import Any

from source_helpers import DELAY, MIB, SourceTestCase, Subscriber, some_wal
from zope.interface.verify import verifyObject

from walsender.errors import DataCorrupted, StartPositionRefused, WalFileMissing
from walsender.source import IWalSource, SegmentUnavailable, TimelineEnd
from walsender.testing.source import ScriptedSource
from walsender.testing.wal_maker import WalMaker

FIRST = "000000010000000000000001"
SECOND = "000000010000000000000002"


class InterfaceTests(SourceTestCase):
    """Both sources that there are fulfil the contract."""

    def test_directory(self) -> None:
        """The real one."""
        self.assertTrue(verifyObject(IWalSource, self.source(some_wal())))

    def test_double(self) -> None:
        """The one for tests."""
        double = ScriptedSource(MIB)
        self.addCleanup(double.close)
        self.assertTrue(verifyObject(IWalSource, double))


class FollowingTests(SourceTestCase):
    """What is noticed, and when."""

    def test_facts(self) -> None:
        """Everything about the WAL is read from the WAL."""
        for version, order in ((90000, "big"), (180000, "little")):
            maker = some_wal(version=version, byte_order=order, start=MIB * 16)
            for file in self.path.iterdir():
                file.unlink()
            source = self.source(maker)
            self.assertTrue(source.ready)
            self.assertEqual(
                (maker.system_identifier, version, order, MIB, maker.position, 1),
                (
                    source.system_identifier,
                    source.server_version,
                    source.byte_order,
                    source.geometry.segment_size,
                    source.flush_position,
                    source.timeline,
                ),
            )

    def test_emptyDirectory(self) -> None:
        """A source without WAL is not ready, and is as soon as there is some."""
        source = self.source()
        subscriber = Subscriber(source)
        source.subscribe(subscriber)
        self.assertFalse(source.ready)
        self.wait(10)
        self.assertFalse(source.ready)
        maker = some_wal()
        maker.write(self.path)
        self.wait()
        self.assertTrue(source.ready)
        self.assertEqual([(1, maker.position)], subscriber.told)

    def test_growth(self) -> None:
        """A growing segment is looked at after each delay; nobody is told of nothing."""
        maker = some_wal()
        source = self.source(maker, partial=True)
        subscriber = Subscriber(source)
        source.subscribe(subscriber)
        self.wait(20)
        self.assertEqual([], subscriber.told)
        ends = []
        for _ in range(3):
            maker.record(500)
            ends.append((1, maker.position))
            maker.write(self.path, partial=True)
            self.wait()
        self.assertEqual(ends, subscriber.told)

    def test_newSegment(self) -> None:
        """A segment that is new is noticed at the next listing."""
        maker = some_wal()
        source = self.source(maker)
        maker.fill_to(maker.position + MIB, 20_000)
        maker.write(self.path)
        self.wait(5.2)
        self.assertEqual(maker.position, source.flush_position)

    def test_renamedPartial(self) -> None:
        """A .partial that gets its final name while the next one is begun is followed."""
        maker = some_wal()
        source = self.source(maker, partial=True)
        maker.fill_to(maker.position + MIB, 20_000)
        (self.path / f"{SECOND}.partial").rename(self.path / SECOND)
        maker.write(self.path, partial=True)
        self.wait(5.2)
        self.assertEqual(maker.position, source.flush_position)

    def test_changedDelay(self) -> None:
        """A delay that is set while it runs counts from the next look on."""
        maker = some_wal()
        source = self.source(maker, delay=100)
        source.delay = 1
        self.clock.advance(100)
        maker.record(500)
        maker.write(self.path)
        self.clock.advance(1)
        self.assertEqual(maker.position, source.flush_position)

    def test_unsubscribed(self) -> None:
        """Who has unsubscribed, twice if need be, is told no more."""
        maker = some_wal()
        source = self.source(maker)
        subscriber = Subscriber(source)
        source.subscribe(subscriber)
        source.unsubscribe(subscriber)
        source.unsubscribe(subscriber)
        maker.record(500)
        maker.write(self.path)
        self.wait()
        self.assertEqual([], subscriber.told)
        self.assertEqual(maker.position, source.flush_position)

    def test_subscriberWithABug(self) -> None:
        """A stream that fails when it is told does not keep the others from being told."""
        maker = some_wal()
        source = self.source(maker)
        broken, whole = Subscriber(source), Subscriber(source)
        self.patch(broken, "wal_grew", lambda: 1 / 0)
        source.subscribe(broken)
        source.subscribe(whole)
        maker.record(500)
        maker.write(self.path)
        self.wait()
        self.assertEqual(1, len(whole.told))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_oneLookAtATime(self) -> None:
        """A look that takes long is not overtaken, and what changed meanwhile is looked at afterwards."""
        maker = some_wal()
        notifier = Notifier()
        source = self.source(maker, notifier=notifier)
        self.threads.holding = True
        self.clock.advance(DELAY)
        self.assertEqual(1, len(self.threads.jobs))
        self.clock.advance(100)
        notifier.changed(True)
        self.clock.advance(100)
        self.assertEqual(1, len(self.threads.jobs))
        maker.fill_to(maker.position + MIB, 20_000)
        self.threads.run()
        maker.write(self.path)
        self.clock.advance(0.01)
        self.threads.run()
        self.assertEqual(maker.position, source.flush_position)

    def test_notified(self) -> None:
        """What the kernel tells is looked at almost at once."""
        maker = some_wal()
        notifier = Notifier()
        source = self.source(maker, notifier=notifier, delay=100)
        maker.record(500)
        maker.write(self.path)
        notifier.changed(False)
        self.clock.advance(0.01)
        self.assertEqual(maker.position, source.flush_position)

    def test_stop(self) -> None:
        """A stopped source looks no more and leaves no timer; what is open stays readable."""
        notifier = Notifier()
        source = self.source(some_wal(), notifier=notifier)
        self.threads.holding = True
        self.clock.advance(DELAY)
        stopped = source.stop()
        self.assertNoResult(stopped)
        self.threads.run()
        self.successResultOf(stopped)
        self.assertTrue(notifier.stopped)
        notifier.changed(True)
        self.assertEqual([], self.clock.getDelayedCalls())


class Notifier:
    """Tells of changes when the test does."""

    stopped = False

    def start(self, changed: Any) -> None:
        """See `DirectoryNotifier`."""
        self.changed = changed

    def stop(self) -> None:
        """See `DirectoryNotifier`."""
        self.stopped = True


class TroubleTests(SourceTestCase):
    """Directories and files that cannot be used."""

    def complaints(self, source: Any) -> list[str]:
        """Return a list that gets what the source complains of."""
        complaints: list[str] = []

        class Log:
            def error(self, _format: str, complaint: str) -> None:
                complaints.append(complaint)

            def warn(self, text: str, **fields: object) -> None:
                complaints.append(text.format(**fields))

        source._log = Log()
        return complaints

    def test_unreadableDirectory(self) -> None:
        """It is said once, and WAL is followed again when it can be read again."""
        maker = some_wal()
        source = self.source(maker)
        complaints = self.complaints(source)
        self.files.failures["list", ""] = errno.EIO
        self.wait(20)
        self.assertEqual(1, len(complaints))
        self.assertTrue(complaints[0].endswith("Input/output error"))
        self.files.failures.clear()
        maker.fill_to(maker.position + MIB, 20_000)
        maker.write(self.path)
        self.wait(5.2)
        self.assertEqual(maker.position, source.flush_position)
        self.files.failures["list", ""] = errno.EIO
        self.wait(5.2)
        self.assertEqual(2, len(complaints))

    def test_otherCluster(self) -> None:
        """WAL of a second cluster stops the following, not the serving."""
        maker = some_wal()
        source = self.source(maker)
        complaints = self.complaints(source)
        other = WalMaker(system_identifier=5, start=9 * MIB)
        other.record(500)
        other.write(self.path)
        self.wait(5.2)
        self.assertEqual(1, len(complaints))
        self.assertEqual(maker.position, source.flush_position)

    def test_bugInALook(self) -> None:
        """A mistake of ours is logged, and the next look is made all the same."""
        maker = some_wal()
        source = self.source(maker)
        patch = self.patch(source._follower, "look", lambda **_: 1 / 0)
        self.wait()
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        patch.restore()
        maker.record(500)
        maker.write(self.path)
        self.wait()
        self.assertEqual(maker.position, source.flush_position)

    def with_gap(self) -> tuple[Any, WalMaker]:
        """Return a source whose directory has segments behind the third, which has not come."""
        maker = some_wal()
        source = self.source(maker)
        maker.fill_to(maker.position + 3 * MIB, 20_000)
        self.late = self.path / "000000010000000000000003"
        maker.write(self.path)
        self.late.rename(self.path / "late")
        return source, maker

    def test_gap(self) -> None:
        """A missing segment is waited for, then WAL is served from behind it; it is said once."""
        source, maker = self.with_gap()
        complaints = self.complaints(source)
        self.wait(30)
        self.assertLessEqual(source.flush_position, 3 * MIB)
        self.wait(10)
        self.assertEqual(maker.position, source.flush_position)
        self.assertEqual(
            ["WAL behind 0/300000 on timeline 1 is missing, but later segments are there"], complaints
        )
        maker.record(500)
        maker.write(self.path)
        self.late.unlink()
        self.wait()
        self.assertEqual(maker.position, source.flush_position)
        error = self.failureResultOf(source.open_segment(1, 3), SegmentUnavailable).value
        self.assertEqual(4 * MIB, error.earliest)

    def test_gapThatIsFilled(self) -> None:
        """A segment that comes late is followed as if it had come in time."""
        source, maker = self.with_gap()
        self.wait(20)
        self.assertLessEqual(source.flush_position, 3 * MIB)
        (self.path / "late").rename(self.late)
        self.wait(5.2)
        self.assertEqual(maker.position, source.flush_position)

    def test_gapFromTheBeginning(self) -> None:
        """What is behind a gap when the source starts is served at once."""
        maker = some_wal()
        maker.fill_to(maker.position + 3 * MIB, 20_000)
        maker.write(self.path)
        (self.path / "000000010000000000000003").unlink()
        self.assertEqual(maker.position, self.source(None).flush_position)


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
        """Without sync nothing is synced, and it can be switched while running."""
        maker = some_wal()
        source = self.source(maker, sync=False)
        self.successResultOf(source.open_segment(1, 1))
        self.assertEqual([], self.files.synced)
        self.assertFalse(source.sync)
        source.sync = True
        maker.record(500)
        maker.write(self.path)
        self.wait()
        self.assertIn(SECOND, self.files.synced)


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
        self.files.failures.clear()
        self.files.failures["sync", FIRST] = errno.EIO
        self.assertEqual(errno.EIO, self.refusal(source, 1).error.errno)
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
