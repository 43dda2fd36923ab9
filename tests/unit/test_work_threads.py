"""Threads for one kind of work."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from walsender.work_threads import WorkThreads

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

DEADLINE_S = 30


class _Reactor:
    """Keeps what threads ask for, until the test does it."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[..., object], tuple[object, ...]]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., object], *args: object) -> None:
        """See `IReactorFromThreads`."""
        self._calls.put((function, args))

    def turn(self) -> None:
        """Do the next thing that was asked for."""
        function, args = self._calls.get(timeout=DEADLINE_S)
        function(*args)


class WorkThreadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Start one thread."""
        self.reactor = _Reactor()
        self.threads = WorkThreads(self.reactor, "worker")  # type: ignore[arg-type]
        self.threads.start()
        self.addCleanup(self.threads.stop)

    def result(self, deferred: Deferred[Any]) -> object:
        """Return what *deferred* fires with in the next turn, and not before."""
        self.assertNoResult(deferred)
        self.reactor.turn()
        return self.successResultOf(deferred)

    def test_resultComesInTheReactor(self) -> None:
        """The function runs in a thread of that name; its result is given by the reactor."""
        name = self.result(self.threads.run(lambda: threading.current_thread().name))
        self.assertEqual("worker", name)
        self.assertEqual(7, self.result(self.threads.run(int, "13", base=4)))

    def test_failure(self) -> None:
        """What the function raises is the Deferred's failure; the thread goes on."""
        failed = self.threads.run(int, "no number")
        self.reactor.turn()
        self.failureResultOf(failed, ValueError)
        self.assertEqual(1, self.result(self.threads.run(int, "1")))

    def test_oneAfterTheOther(self) -> None:
        """One thread does one thing at a time, in the order in which it was asked."""
        done: list[int] = []
        for number in range(20):
            self.threads.run(done.append, number)
        for _ in range(20):
            self.reactor.turn()
        self.assertEqual(list(range(20)), done)

    def test_stopAndStart(self) -> None:
        """What came before the stop is done, and threads may be started again."""
        last = self.threads.run(int, "5")
        self.threads.stop()
        self.assertEqual(5, self.result(last))
        self.threads.start()
        self.assertEqual(6, self.result(self.threads.run(int, "6")))

    def test_nothingIsKept(self) -> None:
        """A thread that waits for work keeps nothing of the last: it may have been an open file."""

        class Thing:
            def __del__(self) -> None:
                gone.set()

            def use(self) -> None:
                """Do nothing."""

        gone = threading.Event()
        thing = Thing()
        used = self.threads.run(thing.use)
        self.reactor.turn()
        self.successResultOf(used)
        del thing
        self.assertTrue(gone.wait(DEADLINE_S))
