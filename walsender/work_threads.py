"""
Threads for one kind of work each, so that other work that hangs does not hold it up.

As Twisted's ThreadPool, with less on the way: a commit goes to a thread and back between a
primary's COMMIT and its arrival at a standby, and the pool's own work took a third of the
time for that.  What is done is told through a descriptor of its own: the reactor's way of
being called from threads takes another turn.
"""

from __future__ import annotations

import errno
import os
import queue
import select
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable

_Job: TypeAlias = "tuple[Deferred[Any], Callable[..., object], tuple[object, ...], dict[str, object]]"
_Jobs: TypeAlias = "queue.SimpleQueue[_Job | None]"

_log = Logger()

# What is told later is told when nothing has come for so long, or when it has waited so long.
_MOMENT: Final = 1  # milliseconds
_NOT_LATER: Final = 0.1  # seconds


class WorkThreads:
    """
    *count* threads that do what comes, in its order.

    They do not keep the process from ending: what hangs in a dead file system then is lost.

    :param name: of the threads, for whoever looks at the process.
    """

    def __init__(self, reactor: IReactorFDSet, name: str, count: int = 1) -> None:
        self._reactor = reactor
        self._name = name
        self._count = count
        self._jobs: _Jobs = queue.SimpleQueue()
        self._interrupt: _Interrupt | None = None
        self._begun = 0
        self._results: _Results | None = None
        self._later: Callable[[], None] | None = None  # the thread's own
        self._later_since = 0.0

    def start(self) -> None:
        """
        Begin to work.

        :raises OSError: there is no descriptor left, or no thread; nothing has been begun.
        """
        self._jobs = queue.SimpleQueue()
        results = self._results = _Results(self._reactor, self._count)
        self._begun = 0
        for number in range(self._count):
            thread = threading.Thread(target=_work, args=(self._jobs, results), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # so Python says it
                for _ in range(number, self._count):
                    results.thread_ended()
                self.stop()
                raise OSError(errno.EAGAIN, "there is no thread left") from error

    def stop(self) -> None:
        """Do what has come already, and no more."""
        self.recall()
        for _ in range(self._count):
            self._jobs.put(None)

    def run(self, function: Callable[..., object], *args: object, **kwargs: object) -> Deferred[Any]:
        """Return a Deferred of what *function* returns; as `twisted.internet.threads.deferToThread`."""
        done: Deferred[Any] = Deferred()
        self._begun += 1
        self._jobs.put((done, function, args, kwargs))
        if self._interrupt is not None:
            self.recall()
        return done

    def attend(self, descriptor: int, function: Callable[..., object], *args: object) -> Deferred[Any]:
        """
        Have *function* called whenever *descriptor* is readable, until it returns something; only where there
        is one thread.

        :returns: a Deferred of what it returned last; of ``None`` if there is something else to do.
        :raises OSError: there is no descriptor left, or something else is still being done: for as long
            as that takes nobody would see what comes.
        """
        if self._results is None or self._begun != self._results.ended:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        interrupt = self._interrupt = _Interrupt()
        done: Deferred[Any] = Deferred()
        self._begun += 1
        self._jobs.put((done, self._attend, (interrupt, descriptor, function, args), {}))
        return done

    def _attend(
        self,
        interrupt: _Interrupt,
        descriptor: int,
        function: Callable[..., object],
        args: tuple[object, ...],
    ) -> object:
        """In the thread."""
        waiting = select.poll()
        waiting.register(interrupt.event, select.POLLIN)
        waiting.register(descriptor, select.POLLIN)
        interrupted = (interrupt.event, select.POLLIN)
        try:
            while interrupted not in (events := waiting.poll(_MOMENT if self._later else None)):
                if events and (result := function(*args)) is not None:
                    return result
                if self._later and not (events and time.monotonic() - self._later_since < _NOT_LATER):
                    self._tell_now()
        finally:
            self._tell_now()
        return None

    def _tell_now(self) -> None:
        """Have told what was to be told later."""
        later, self._later = self._later, None
        if later is not None:
            later()

    def tell(self, function: Callable[[], object]) -> None:
        """Have *function* called in the reactor's thread, behind what came before; from the thread."""
        assert self._results is not None, "there are threads"
        self._results.put(partial(_call, function), None)

    def tell_later(self, function: Callable[[], object]) -> None:
        """
        Likewise, once nothing has been readable for a moment, but not much later; from inside of `attend`.

        Called several times meanwhile, the last *function* is called, once.
        """
        assert self._results is not None, "there are threads"
        if self._later is None:
            self._later_since = time.monotonic()
        self._later = partial(self._results.put, partial(_call, function), None)

    def recall(self) -> None:
        """Have the thread wait no longer in `attend`; harmless if it does not."""
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            interrupt.set()


class _Interrupt:
    """Ends one waiting; what waits keeps it, so that its descriptor is not another's meanwhile."""

    event = -1  # for as long as there is no descriptor for it

    def __init__(self) -> None:
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __del__(self) -> None:
        if self.event >= 0:
            os.close(self.event)

    def set(self) -> None:
        os.eventfd_write(self.event, 1)


def _call(function: Callable[[], object], _: object) -> None:
    """Call what nobody waits for: no mistake in it may keep others from being told."""
    try:
        function()
    except Exception:  # noqa: BLE001
        _log.failure("telling of a thread's work failed")


def _work(jobs: _Jobs, results: _Results) -> None:
    while (job := jobs.get()) is not None:
        _do(results, *job)
        del job  # it may hold a file, and the next one may be long in coming
    results.thread_ended()


def _do(
    results: _Results,
    done: Deferred[Any],
    function: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    try:
        result = function(*args, **kwargs)
    except BaseException:  # noqa: BLE001 -- whoever waits for it is told
        results.ended += 1
        results.put(done.errback, Failure())
    else:
        results.ended += 1  # first: who is told may have the thread wait again
        results.put(done.callback, result)


@implementer(IReadDescriptor)
class _Results:
    """
    The way back into the reactor's thread.

    :param threads: how many use it; it ends when all of them have.
    :ivar ended: how much has been done; exact where there is one thread.
    """

    def __init__(self, reactor: IReactorFDSet, threads: int) -> None:
        self._reactor = reactor
        self._threads = threads
        self.ended = 0
        self._results: deque[tuple[Callable[[Any], object] | None, object]] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ending = threading.Lock()
        reactor.addReader(self)

    def put(self, tell: Callable[[Any], object] | None, result: object) -> None:
        """Have *tell* called with *result*; from any thread."""
        self._results.append((tell, result))
        os.eventfd_write(self._event, 1)

    def thread_ended(self) -> None:
        """That was this thread's last, from that thread; or it has not begun."""
        with self._ending:  # or the descriptor is closed, and another's perhaps, before it is written to
            self.put(None, None)

    def fileno(self) -> int:
        """See `IFileDescriptor`."""
        return self._event

    def doRead(self) -> None:
        """See `IReadDescriptor`: there are results."""
        os.eventfd_read(self._event)
        # No more than there are now: what comes meanwhile has made the descriptor readable again.
        for _ in range(len(self._results)):
            tell, result = self._results.popleft()
            if tell is not None:
                tell(result)
            else:
                self._threads -= 1
        if not self._threads:
            self._reactor.removeReader(self)
            with self._ending:
                os.close(self._event)

    def connectionLost(self, reason: Failure) -> None:
        """See `IFileDescriptor`: the reactor ends."""

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "threads"
