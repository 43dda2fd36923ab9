"""Where WAL comes from, with threads that do not answer."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import WalFileError
from walsender.settings import Settings
from walsender.supply import directory, make_supply, parts, relay
from walsender.upstream import NotReceiving

if TYPE_CHECKING:
    from collections.abc import Callable


class HungThreads:
    """Threads that begin what they are asked, and no more."""

    def __init__(self, *args: object) -> None:
        self.start = self.stop = lambda: None
        self.attended: list[Callable[[], object]] = []

    def attend(self, readable: object, function: Callable[..., object], *args: object) -> Deferred[Any]:
        """Return what will never fire; the test says when there is something to read."""
        self.attended.append(partial(function, *args))
        return Deferred()

    def run(self, *args: object, **kwargs: object) -> Deferred[Any]:
        """Return what will never fire."""
        return Deferred()


class FetchingTests(SynchronousTestCase):
    """Who fetches is told of readers that have gone."""

    def test_fromAnyThread(self) -> None:
        """What gives a reader's segment back may be a thread, from which the reactor can only be asked."""
        path = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, path)
        for more in ([], [("primary_conninfo", "host=a")]):
            reactor: Any = Clock()
            asked: list[object] = []
            reactor.callFromThread, reactor.getThreadPool = asked.append, lambda: None
            settings = Settings.load([("wal_directory", path), ("inotify", "off"), *more])
            nobody: Any = None
            found = make_supply(reactor, settings, lambda: (0, 0), nobody, nobody)
            assert found.source.fetching is not None
            found.source.fetching._call_soon(repr)  # type: ignore[arg-type]
            self.assertEqual([repr], asked)
            self.assertEqual([], reactor.getDelayedCalls())


class HungDiskTests(SynchronousTestCase):
    """A directory or a disk that does not answer is known to be silent, whatever it was asked."""

    def setUp(self) -> None:
        """Make a directory."""
        self.path = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.path)
        for module in (directory, parts, relay):
            self.patch(module, "WorkThreads", HungThreads)

    def settings(self, *more: tuple[str, str]) -> Settings:
        """Return those of a server of the directory."""
        return Settings.load([("wal_directory", self.path), ("inotify", "off"), *more])

    def relay(self) -> relay.RelaySupply:
        """Return the supply of a relay."""
        settings = self.settings(("primary_conninfo", "host=a"))
        return relay.RelaySupply(
            *(cast("Any", Clock()), settings, maybeDeferred),
            feedback=lambda: (0, 0),
            slots=cast("Any", []),
            oldest_sent=cast("Any", int),
        )

    def test_directory(self) -> None:
        """A look at a directory that others fill."""
        found = directory.DirectorySupply(
            cast("Any", Clock()), self.settings(), HungThreads().run, cast("Any", [])
        )
        self.assertEqual(0, found.timings.stuck())
        found.start()
        self.assertGreater(found.timings.stuck(), 0)

    def test_relay(self) -> None:
        """The thread of a relay's commits."""
        found = self.relay()
        self.assertEqual(0, found.timings.stuck())
        found.start()
        self.assertEqual(NotReceiving(0.0), found.not_receiving)
        found._cannot_look(Failure(WalFileError("disk on fire")), Deferred())
        self.assertEqual(NotReceiving(0.0, "cannot use the WAL directory: disk on fire"), found.not_receiving)
        assert found._lock is not None
        self.addCleanup(found._lock.release)
        self.assertGreater(found.timings.stuck(), 0)

    def test_threadThatWaitsByItself(self) -> None:
        """What the thread of the commits does when it has waited for the upstream, and not the waiting."""
        found = self.relay()
        stuck: list[float] = []
        assert found.source.attendant is not None
        found.source.attendant.attend(7, lambda: stuck.append(found.timings.stuck()))
        self.assertEqual(0, found.timings.stuck())
        cast("HungThreads", found._thread).attended.pop()()
        self.assertGreater(stuck[0], 0)
        self.assertEqual(0, found.timings.stuck())

    def test_feedbackAfterTheStart(self) -> None:
        """That nobody needs anything is believed when everybody has had the time to come back."""
        found = self.relay()
        needs = iter([(0, 0), (7, 0), (0, 0), (0, 0)])
        found._standbys_need = lambda: next(needs)
        clock = cast("Clock", found._reactor)
        clock.advance(1000)
        found.start()
        assert found._lock is not None
        self.addCleanup(found._lock.release)
        self.assertIsNone(found._known_needs())
        self.assertEqual((7, 0), found._known_needs())
        self.assertIsNone(found._known_needs())
        clock.advance(60)
        self.assertEqual((0, 0), found._known_needs())

    def test_stopBeforeTheFirstLook(self) -> None:
        """A look that is still to come, behind other work, is waited for as well."""
        found = self.relay()
        closing: Deferred[None] = Deferred()
        self.patch(found._shelf, "close", lambda: closing)
        self.patch(found.source, "start", lambda: succeed(None))
        self.patch(found._thread, "run", lambda _: succeed(None))
        found.start()
        stopped = found.stop()
        self.assertNoResult(stopped)
        closing.callback(None)
        self.successResultOf(stopped)
        self.assertIsNone(found._lock)

    def test_stopWhileACommitHangs(self) -> None:
        """The lock stays, as somebody may be writing still, until that has ended."""
        found = self.relay()
        self.patch(found.source, "start", lambda: succeed(None))
        self.patch(found._receiver, "start", lambda: None)
        found.start()
        lock = found._lock
        assert lock is not None
        hangs: Deferred[None] = Deferred()
        self.patch(found._thread, "run", lambda _: hangs)
        stopped = found.stop()
        self.assertNoResult(stopped)
        self.assertIs(lock, found._lock)
        hangs.callback(None)
        self.successResultOf(stopped)
        self.assertIsNone(found._lock)
