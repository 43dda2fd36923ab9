"""
Threads for one kind of work each, so that other work that hangs does not hold it up.

As Twisted's ThreadPool, with less on the way: a commit goes to a thread and back between a
primary's COMMIT and its arrival at a standby, and the pool's own work took a third of the
time for that.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorFromThreads

_Job: TypeAlias = "tuple[Deferred[Any], Callable[..., object], tuple[object, ...], dict[str, object]]"


class WorkThreads:
    """
    *count* threads that do what comes, in its order.

    They do not keep the process from ending: what hangs in a dead file system then is lost.

    :param name: of the threads, for whoever looks at the process.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, count: int = 1) -> None:
        self._reactor = reactor
        self._name = name
        self._count = count
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin to work."""
        self._jobs = queue.SimpleQueue()
        for _ in range(self._count):
            threading.Thread(target=self._work, args=(self._jobs,), name=self._name, daemon=True).start()

    def stop(self) -> None:
        """Do what has come already, and no more."""
        for _ in range(self._count):
            self._jobs.put(None)

    def run(self, function: Callable[..., object], *args: object, **kwargs: object) -> Deferred[Any]:
        """Return a Deferred of what *function* returns; as `twisted.internet.threads.deferToThread`."""
        done: Deferred[Any] = Deferred()
        self._jobs.put((done, function, args, kwargs))
        return done

    def _work(self, jobs: queue.SimpleQueue[_Job | None]) -> None:
        while (job := jobs.get()) is not None:
            self._do(*job)
            del job  # it may hold a file, and the next one may be long in coming

    def _do(
        self,
        done: Deferred[Any],
        function: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException:  # noqa: BLE001 -- whoever waits for it is told
            self._reactor.callFromThread(done.errback, Failure())
        else:
            self._reactor.callFromThread(done.callback, result)
