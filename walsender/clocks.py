"""
Two clocks: one that tells the time of day, and one for waiting, which nobody sets.

Twisted's reactors wait by the time of day (all but asyncio's, which know none).  When that is set back by an
hour, as at the first start of a machine, whatever waits does so for an hour longer: for the next try to
reach an upstream, say.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorCore
from twisted.python import runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime


def time_of_day(clock: IReactorTime) -> Callable[[], float]:
    """
    Return what tells the time of day, in seconds since 1970.

    :param clock: a reactor; or a clock that somebody moves, which is believed.
    """
    return time.time if IReactorCore.providedBy(clock) else clock.seconds


def wait_steadily(reactor: Any) -> None:
    """
    Have *reactor* wait by a clock that only goes on, if it goes by the time of day.

    What its ``seconds`` tells is the time of day for as long as nobody sets that.

    :param reactor: the program's; before anything waits.
    """
    if reactor.seconds is not runtime.seconds:
        return
    begin = time.time() - time.monotonic()
    reactor.seconds = lambda: begin + time.monotonic()
