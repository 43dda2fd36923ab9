"""
How long the disk takes: counted where WAL is flushed and received, told as histograms.

A stopwatch costs a lock and two looks at the clock, for each commit, not for each piece of WAL.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from walsender.wal import RealFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

_Result = TypeVar("_Result")

BUCKETS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)
"""Upper bounds in seconds: from a disk with a cache that survives, to one that hangs."""


class Stopwatch:
    """
    Measures one kind of work, in any thread.

    :param clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0
        self._running: list[float] = []

    def now(self) -> float:
        """Return the time, for `since`."""
        return self._clock()

    def since(self, began: float) -> None:
        """Count what began then and is over."""
        with self._lock:
            self._count(began)

    def _count(self, began: float) -> None:
        taken = self._clock() - began
        self._counts[bisect_left(BUCKETS, taken)] += 1
        self._sum += taken

    def begin(self) -> float:
        """Something begins that may hang; what is returned ends it."""
        began = self._clock()
        self._running.append(began)  # which needs no lock
        return began

    def end(self, began: float) -> None:
        """It is over, well or not; it is counted."""
        with self._lock:
            self._running.remove(began)
            self._count(began)

    def measure(self, function: Callable[..., _Result], *args: object) -> _Result:
        """Return what *function* returns; it counts as running until then."""
        began = self.begin()
        try:
            return function(*args)
        finally:
            self.end(began)

    def running(self) -> float:
        """Return for how many seconds the oldest of what is not over has been running; 0: there is none."""
        with self._lock:
            return self._clock() - min(self._running) if self._running else 0.0

    def histogram(self) -> tuple[list[int], float]:
        """Return how often it took up to each of `BUCKETS`, how often in all, and the sum in seconds."""
        with self._lock:
            total = 0
            return [total := total + count for count in self._counts], self._sum


@dataclass(frozen=True, slots=True)
class Timings:
    """
    Of one server.

    :ivar flush: of a file with WAL.
    :ivar receive: from when the first byte of a commit has come until all of it is durable.
    :ivar work: whatever the thread is asked that looks at the directory, or writes it.
    """

    flush: Stopwatch = field(default_factory=Stopwatch)
    receive: Stopwatch = field(default_factory=Stopwatch)
    work: Stopwatch = field(default_factory=Stopwatch)

    def stuck(self) -> float:
        """Return for how many seconds the disk has not answered; 0: it is asked for nothing."""
        return max(self.flush.running(), self.work.running())

    def timed(self, run: Callable[..., Deferred[Any]]) -> Callable[..., Deferred[Any]]:
        """Return *run*, which has a thread do something, with a look at the clock for `work`."""

        def run_timed(*args: object, **kwargs: object) -> Deferred[Any]:
            began = self.work.begin()

            def ended(result: _Result) -> _Result:
                self.work.end(began)
                return result

            return run(*args, **kwargs).addBoth(ended)

        return run_timed


class TimedFiles(RealFiles):
    """
    Files of the operating system, and how long it takes to flush them.

    :param mode: as of `walsender.wal.RealFiles`.
    """

    def __init__(self, flush: Stopwatch, mode: int = 0o600) -> None:
        super().__init__(mode)
        self._flush = flush

    def sync(self, descriptor: int) -> None:
        """See `walsender.wal.FileOperations`."""
        self._flush.measure(os.fsync, descriptor)

    def sync_data(self, descriptor: int) -> None:
        """See `walsender.wal.WritableFiles`."""
        self._flush.measure(os.fdatasync, descriptor)
