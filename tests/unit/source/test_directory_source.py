"""What `DirectorySource` notices, and when: real files, no threads, and a clock that is told the time."""

from __future__ import annotations

import errno
from typing import Any

from source_helpers import DELAY, MIB, SECOND, SourceTestCase, Subscriber, some_wal
from zope.interface.verify import verifyObject

from walsender.source import IWalSource, SegmentUnavailable
from walsender.testing.source import ScriptedSource
from walsender.testing.wal_maker import WalMaker


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
