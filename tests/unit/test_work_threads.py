"""Threads for one kind of work."""

from __future__ import annotations

import errno
import gc
import os
import select
import sys
import threading
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from walsender.work_threads import WorkThreads

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReadDescriptor

DEADLINE_S = 30


def _no_descriptor(*_: int) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class _Reactor:
    """Watches what is to be watched when the test says so."""

    def __init__(self) -> None:
        self.readers: list[IReadDescriptor] = []

    def addReader(self, reader: IReadDescriptor) -> None:
        """See `IReactorFDSet`."""
        self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """See `IReactorFDSet`."""
        self.readers.remove(reader)

    def turn(self) -> None:
        """Wait until there is something to read, and have it read."""
        readable, _, _ = select.select(self.readers, [], [], DEADLINE_S)
        readable[0].doRead()


class ThreadTestCase(SynchronousTestCase):
    """Has one thread."""

    def setUp(self) -> None:
        """Start one thread."""
        self.reactor = _Reactor()
        self.threads = WorkThreads(self.reactor, "worker")  # type: ignore[arg-type]
        self.threads.start()
        self.addCleanup(self.threads.stop)

    def result(self, deferred: Deferred[Any]) -> object:
        """Return what *deferred* fires with, in a turn of the reactor and not before."""
        self.assertNoResult(deferred)
        while not deferred.called:  # a turn may bring no more than the end of a thread
            self.reactor.turn()
        return self.successResultOf(deferred)


class StartTests(SynchronousTestCase):
    """Starting where the system has not enough."""

    def test_noThreadLeft(self) -> None:
        """Those threads that have begun end, and nothing is watched any more."""
        reactor = _Reactor()
        begun: list[threading.Thread] = []
        begin = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if len(begun) == 2:
                raise RuntimeError("can't start new thread")
            begin(thread)
            begun.append(thread)

        self.patch(threading.Thread, "start", start)
        threads = WorkThreads(reactor, "worker", 4)  # type: ignore[arg-type]
        self.assertEqual(errno.EAGAIN, self.assertRaises(OSError, threads.start).errno)
        for thread in begun:
            thread.join(DEADLINE_S)
            self.assertFalse(thread.is_alive())
        while reactor.readers:
            reactor.turn()


class WorkThreadsTests(ThreadTestCase):
    """What is to be done is done, one thing after another."""

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
        while len(done) < 20:
            self.reactor.turn()
        self.assertEqual(list(range(20)), done)

    def test_stopAndStart(self) -> None:
        """What came before the stop is done, and threads may be started again."""
        last = self.threads.run(int, "5")
        self.threads.stop()
        self.assertEqual(5, self.result(last))
        self.threads.start()
        self.assertEqual(6, self.result(self.threads.run(int, "6")))

    def test_stoppedLeavesNothing(self) -> None:
        """When all that came is done, nothing is watched any more, and no descriptor is left."""
        (reader,) = self.reactor.readers
        last = self.threads.run(int, "5")
        self.threads.stop()
        while self.reactor.readers:
            self.reactor.turn()
        self.assertEqual(5, self.successResultOf(last))
        self.assertRaises(OSError, os.fstat, reader.fileno())

    def test_resultThatAsksForMore(self) -> None:
        """Who asks for more when he is told waits for another turn, so that others have theirs."""
        again: list[Deferred[Any]] = []
        first = self.threads.run(int, "1")
        first.addCallback(lambda _: again.append(self.threads.run(int, "2")))
        self.reactor.turn()
        self.assertEqual(2, self.result(again[0]))

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


class AttendingTests(ThreadTestCase):
    """A thread that waits for something to read."""

    def setUp(self) -> None:
        """Have something to wait for."""
        super().setUp()
        self.readable, self.other = os.pipe()
        self.addCleanup(os.close, self.readable)
        self.addCleanup(os.close, self.other)

    def test_somethingToRead(self) -> None:
        """The function runs when there is something to read, and what it returns comes back."""
        attended = self.threads.attend(self.readable, os.read, self.readable, 10)
        os.write(self.other, b"here")
        self.assertEqual(b"here", self.result(attended))
        again = self.threads.attend(self.readable, os.read, self.readable, 10)
        os.write(self.other, b"more")
        self.assertEqual(b"more", self.result(again))

    def test_onAndOn(self) -> None:
        """It goes on by itself until the function returns something, and tells the reactor meanwhile."""
        read: list[bytes] = []
        told: list[list[bytes]] = []

        def take() -> bytes | None:
            read.append(os.read(self.readable, 1))
            self.threads.tell(lambda: told.append(list(read)))
            return b"end" if read[-1] == b"." else None

        attended = self.threads.attend(self.readable, take)
        os.write(self.other, b"ab.c")
        self.assertEqual(b"end", self.result(attended))
        self.assertEqual([b"a", b"b", b"."], read)
        self.assertEqual(3, len(told))

    def test_aMistakeInWhatIsTold(self) -> None:
        """It is logged, and what comes behind it is told all the same."""
        attended = self.threads.attend(self.readable, lambda: self.threads.tell(lambda: 1 / 0) or 5)
        os.write(self.other, b"a")
        self.assertEqual(5, self.result(attended))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_toldLater(self) -> None:
        """The reactor is told once, of the last, when nothing comes any more for a moment."""
        told: list[bytes] = []
        read: list[bytes] = []

        def take() -> bytes | None:
            read.append(os.read(self.readable, 1))
            last = read[-1]
            self.threads.tell_later(lambda: told.append(last))
            return b"end" if last == b"." else None

        attended = self.threads.attend(self.readable, take)
        os.write(self.other, b"abc")
        while told[-1:] != [b"c"]:
            self.reactor.turn()
        self.assertNoResult(attended)
        self.assertLess(len(told), 4)
        told.clear()
        os.write(self.other, b"d.")
        self.assertEqual(b"end", self.result(attended))
        self.assertEqual(b".", told[-1])

    def test_notMuchLater(self) -> None:
        """While something comes all the time, it is told now and then."""
        told: list[int] = []

        def take() -> None:
            self.threads.tell_later(lambda: told.append(1))  # and is readable still

        attended = self.threads.attend(self.readable, take)
        os.write(self.other, b"a")
        while len(told) < 2:
            self.reactor.turn()
        self.threads.recall()
        self.assertIsNone(self.result(attended))

    def test_toldBeforeTheEnd(self) -> None:
        """A thread that is recalled has told everything before that is known."""
        told: list[bool] = []
        attended = self.threads.attend(self.readable, self._tell_and_be_recalled, told)
        attended.addCallback(lambda _: told.append(False))
        os.write(self.other, b"a")
        self.result(attended)
        self.assertEqual([True, False], told)

    def _tell_and_be_recalled(self, told: list[bool]) -> None:
        self.threads.tell_later(lambda: told.append(True))
        self.threads.recall()

    def test_otherWorkGoesFirst(self) -> None:
        """What else is to be done does not wait for something to read."""
        attended = self.threads.attend(self.readable, os.read, self.readable, 10)
        self.assertEqual(5, self.result(self.threads.run(int, "5")))
        self.assertIsNone(self.successResultOf(attended))

    def test_notBehindOtherWork(self) -> None:
        """While a thread is busy nobody would see what comes, so it takes no waiting on."""
        going_on = threading.Event()
        busy = self.threads.run(going_on.wait, DEADLINE_S)
        self.assertRaises(BlockingIOError, self.threads.attend, self.readable, os.read, self.readable, 10)
        going_on.set()
        self.assertTrue(self.result(busy))
        attended = self.threads.attend(self.readable, os.read, self.readable, 10)
        os.write(self.other, b"here")
        self.assertEqual(b"here", self.result(attended))

    def test_noDescriptorLeft(self) -> None:
        """Nothing is waited for, whoever has asked is told so, and nothing is said about it anywhere else."""
        unraisable: list[object] = []
        self.patch(sys, "unraisablehook", unraisable.append)
        attempt = self.patch(os, "eventfd", _no_descriptor)
        self.assertRaises(OSError, self.threads.attend, self.readable, os.read, self.readable, 10)
        gc.collect()
        attempt.restore()
        self.assertEqual([], unraisable)

    def test_recalled(self) -> None:
        """It waits no longer than is wanted; to say so twice is harmless."""
        attended = self.threads.attend(self.readable, os.read, self.readable, 10)
        self.threads.recall()
        self.threads.recall()
        self.assertIsNone(self.result(attended))

    def test_stopped(self) -> None:
        """A thread that is to end does not wait."""
        attended = self.threads.attend(self.readable, os.read, self.readable, 10)
        self.threads.stop()
        self.assertIsNone(self.result(attended))
