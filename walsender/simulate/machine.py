"""What one process has of a reactor: its timers and threads, which end with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from walsender.simulate.disk import PowerLost

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from twisted.internet.base import DelayedCall

    from walsender.sender import IServerReactor


class Process:
    """
    As much of a reactor as we use, on the world's clock.

    :param died: called when the disk says, in the middle of an operation, that it is over.
    :ivar alive: false: none of its timers and threads does anything any more.
    :ivar slowness: factor on the time that what runs in threads takes.
    """

    def __init__(self, clock: Clock, random: random.Random, died: Callable[[], None]) -> None:
        self.clock = clock
        self.random = random
        self.alive = True
        self.slowness = 1.0
        self._died = died
        self._pool = Threads(self, one_by_one=False)

    def end(self) -> None:
        """Stop at once."""
        self.alive = False

    def forget(self) -> None:
        """Let go of the world: a stream that was killed is kept by what waits for it to close its file."""
        self.clock = Clock()
        self._died = lambda: None

    @property
    def reactor(self) -> IServerReactor:
        """What it takes for the reactor; of that it has what is used."""
        return cast("IServerReactor", self)

    # IReactorTime

    def seconds(self) -> float:
        """See `IReactorTime`."""
        return float(self.clock.seconds())

    def callLater(
        self, delay: float, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> IDelayedCall:
        """See `IReactorTime`."""
        call = Timer(
            self, cast("DelayedCall", self.clock.callLater(delay, self._call, function, args, kwargs))
        )
        if not self.alive:
            call.call.cancel()
        return call

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.alive:
            function(*args, **kwargs)

    # IReactorThreads

    def callFromThread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """See `IReactorFromThreads`."""
        self.callLater(0, function, *args, **kwargs)

    def getThreadPool(self) -> Threads:
        """See `IReactorThreads`."""
        return self._pool

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """
        Run what the disk may end.

        :raises PowerLost: it has, and nothing of this process will run any more.
        """
        try:
            return function(*args, **kwargs)
        except PowerLost:
            self._died()
            raise


@implementer(IDelayedCall)
class Timer:
    """A timer of a process; when that has ended, it does not matter what is done with it."""

    def __init__(self, process: Process, call: DelayedCall) -> None:
        self._process = process
        self.call = call

    def cancel(self) -> None:
        """See `IDelayedCall`."""
        if self._process.alive:
            self.call.cancel()

    def active(self) -> bool:
        """See `IDelayedCall`."""
        return self._process.alive and bool(self.call.active())

    def getTime(self) -> float:
        """See `IDelayedCall`."""
        return float(self.call.getTime())

    def delay(self, secondsLater: float) -> None:
        """See `IDelayedCall`."""
        self.call.delay(secondsLater)

    def reset(self, secondsFromNow: float) -> None:
        """See `IDelayedCall`."""
        self.call.reset(secondsFromNow)


class IReadable(Protocol):
    """What a thread can wait for."""

    def when_readable(self, call: Callable[[], None]) -> None:
        """Call this when there is something to read."""


class Threads:
    """
    Threads of a process; what runs there takes no time, at some moment before its result is told.

    :param one_by_one: there is one thread only.
    """

    def __init__(self, process: Process, *, one_by_one: bool) -> None:
        self._process = process
        self._one_by_one = one_by_one
        self._free_at = 0.0
        self._waiting: Deferred[Any] | None = None  # for something to read
        self._attends: Deferred[Any] | None = None  # and is not recalled

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """See `twisted.internet.threads.deferToThread`."""
        self.recall()
        return self._run(function, *args, **kwargs)

    def _run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()

        def done(success: bool, outcome: Any) -> None:
            (result.callback if success else result.errback)(outcome)

        self.callInThreadWithCallback(done, function, *args, **kwargs)
        return result

    def attend(self, readable: IReadable, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """See `walsender.work_threads.WorkThreads`."""
        attended = self._attends = Deferred()

        def wait() -> None:
            self._waiting = attended
            readable.when_readable(begin)

        def begin() -> None:
            if self._waiting is attended:
                self._waiting = None
                self._run(function, *args).addCallbacks(done, attended.errback)

        def done(result: Any) -> None:
            if result is None and self._attends is attended:
                wait()
            else:
                attended.callback(result)

        wait()
        return attended

    def tell(self, function: Callable[[], object]) -> None:
        """See `walsender.work_threads.WorkThreads`."""
        self._process.callLater(self._process.random.expovariate(2000), function)

    def tell_later(self, function: Callable[[], object]) -> None:
        """See `walsender.work_threads.WorkThreads`: a tenth of a second later at most."""
        self._process.callLater(self._process.random.uniform(0, 0.1), function)

    def recall(self) -> None:
        """See `walsender.work_threads.WorkThreads`."""
        waiting, self._waiting = self._waiting, None
        self._attends = None
        if waiting is not None:
            self._process.callLater(0, waiting.callback, None)

    def callInThreadWithCallback(
        self, done: Callable[[bool, Any], None], function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        """See `twisted.python.threadpool.ThreadPool`."""
        process = self._process
        now = process.seconds()
        begin = max(now, self._free_at) if self._one_by_one else now
        happens = begin + process.random.expovariate(1000) * process.slowness
        ends = happens + process.random.expovariate(2000) * process.slowness
        self._free_at = ends

        def run() -> None:
            outcome: Any
            try:
                success, outcome = True, process.run(function, *args, **kwargs)
            except PowerLost:
                return
            except Exception:  # noqa: BLE001 -- as a thread pool does
                success, outcome = False, Failure()
            process.callLater(ends - happens, done, success, outcome)

        process.callLater(happens - now, run)
