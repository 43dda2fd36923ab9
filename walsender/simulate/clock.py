"""`WorldClock`: the time of a world, in which one thing happens after another."""

from __future__ import annotations

from bisect import insort
from operator import attrgetter
from typing import TYPE_CHECKING

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall

_time = attrgetter("time")


class WorldClock(Clock):
    """A clock that keeps its calls in order; `Clock` sorts all of them for each new one."""

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002 -- Twisted's name
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        """See `IReactorTime`."""
        call = DelayedCall(
            self.rightNow + delay, callable, args, kw, self.calls.remove, self._move, self.seconds
        )
        insort(self.calls, call, key=_time)
        return call

    def _move(self, call: DelayedCall) -> None:
        """A call has become an earlier one."""
        self.calls.remove(call)
        insort(self.calls, call, key=_time)

    def step(self) -> None:
        """Let time pass until the next thing happens."""
        call = self.calls.pop(0)
        while call.delayed_time:
            call.activate_delay()
            insort(self.calls, call, key=_time)
            call = self.calls.pop(0)
        self.rightNow = max(self.rightNow, call.time)
        call.called = 1
        call.func(*call.args, **call.kw)


__all__ = ["WorldClock"]
