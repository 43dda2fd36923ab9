"""
One timer of the reactor for what thousands of connections wait for.

A timer each would wake the process hundreds of times a second for nothing, since almost every one
is moved when it fires.  Here times are rounded up, so that those of many connections fall on the same
moment, and the reactor knows of the next moment only.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Final, Protocol

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

# A call is late by less than this part of its delay: half a second of half a minute.
_LATE: Final = 1 / 32

# Sums of times are rounded: what is a hair behind a moment belongs to it.
_HAIR: Final = 1e-6  # seconds


class ICancellable(Protocol):
    """Something that will be called."""

    def cancel(self) -> None:
        """It shall not."""


class ITimer(Protocol):
    """Who calls later: a reactor, or a `SharedTimer`."""

    def seconds(self) -> float:
        """Return the time."""

    def callLater(self, delay: float, function: Callable[[], object], /) -> ICancellable:
        """Call *function* after *delay* seconds."""


class _Call:
    """Something that will be called."""

    __slots__ = ("_timer", "function", "moment")

    def __init__(self, timer: SharedTimer, moment: float, function: Callable[[], object]) -> None:
        self._timer = timer
        self.moment = moment
        self.function = function

    def cancel(self) -> None:
        """It shall not; harmless when repeated, and when it has been."""
        self._timer.forget(self)


class SharedTimer:
    """
    Calls later what need not be called on time.

    Late is up to 1/32 of the delay, early never.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._moments: dict[float, dict[_Call, None]] = {}
        self._order: list[float] = []  # a heap of the moments, and of some at which nobody waits any more
        self._next: IDelayedCall | None = None

    def seconds(self) -> float:
        """Return the time."""
        return self._clock.seconds()

    def callLater(self, delay: float, function: Callable[[], object], /) -> ICancellable:
        """
        Call *function* after *delay* seconds or a little more.

        :param delay: more than 0.
        """
        step = 2.0 ** math.floor(math.log2(delay * _LATE))
        moment = math.ceil((self._clock.seconds() + delay - _HAIR) / step) * step
        call = _Call(self, moment, function)
        if moment not in self._moments:
            self._moments[moment] = {}
            heapq.heappush(self._order, moment)
            if self._order[0] == moment:
                self._watch()
        self._moments[moment][call] = None
        return call

    def forget(self, call: ICancellable) -> None:
        """Do not call; for `ICancellable.cancel`."""
        assert isinstance(call, _Call), "callLater makes no others"
        calls = self._moments.get(call.moment, {})
        calls.pop(call, None)
        if not calls:
            self._moments.pop(call.moment, None)
        if not self._moments:
            self._order.clear()
            self._watch()

    def _watch(self) -> None:
        """Have the reactor call at the next moment."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None
        if self._order:
            delay = max(0.0, self._order[0] - self._clock.seconds())
            self._next = self._clock.callLater(delay, self._due)

    def _due(self) -> None:
        now = self._clock.seconds() + _HAIR
        while self._order and self._order[0] <= now:
            calls = self._moments.get(heapq.heappop(self._order), {})
            # Not the first again and again: a dict finds it behind the places of all that are gone.
            for call in list(calls):
                if call not in calls:
                    continue  # cancelled by another
                self.forget(call)
                try:
                    call.function()
                except Exception:  # noqa: BLE001 (a bug that meets one connection must not stop the others)
                    self._log.failure("what was to be done at its time has failed")
        self._watch()
