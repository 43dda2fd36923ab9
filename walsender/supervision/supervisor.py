"""
`Supervisor`: one timer behind all that the outside is told of a running service.

Who streams WAL does nothing for it: once a second, at most, what the slot table says is put into words.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from .notify import reloading_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from .notify import ServiceManager
    from .process_title import ProcessTitle

_PERIOD: Final = 1.0
"""Seconds between two looks at the service."""

_STATUS_PERIOD: Final = 10.0
"""Seconds between two texts to the service manager, which tells them to others."""

_TICKS_OF_WATCHDOG: Final = 4


class Supervisor:
    """
    Tells the service manager and the process title how a service is.

    :param activity: returns what it does, in a few words.
    :param stuck: returns for how many seconds the disk has not answered.
    :param title: where the activity is shown; ``None``: nowhere.
    :param shows_title: returns whether it is to be shown at the moment.

    A watchdog is told that we are alive while the reactor runs, since that calls here, and the disk answers.
    """

    def __init__(
        self,
        clock: IReactorTime,
        activity: Callable[[], str],
        stuck: Callable[[], float],
        manager: ServiceManager | None,
        title: ProcessTitle | None,
        shows_title: Callable[[], bool] = lambda: True,
    ) -> None:
        self._clock = clock
        self._activity = activity
        self._stuck = stuck
        self._manager = manager
        self._title = title
        self._shows_title = shows_title
        self._watchdog = 0.0 if manager is None else manager.watchdog
        self._period = min(_PERIOD, self._watchdog / _TICKS_OF_WATCHDOG) if self._watchdog else _PERIOD
        self._status = ""
        self._is_ready = False
        self._status_at = self._alive_at = float("-inf")
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to look, if there is anybody to tell; harmless when repeated."""
        if self._timer is None and (self._manager is not None or self._title is not None):
            self._look()

    def ready(self) -> None:
        """The service serves.  A daemon is another process than the one that was started."""
        self._is_ready = True
        self._tell("READY=1", f"MAINPID={os.getpid()}", *self._new_status())

    def reloading(self) -> None:
        """The configuration is being read; `reloaded` follows.  What is not ready need not say it."""
        if self._is_ready:
            self._tell(*reloading_now())

    def reloaded(self) -> None:
        """That is done, well or not."""
        if self._is_ready:
            self._tell("READY=1")

    def stopping(self) -> None:
        """The service ends."""
        self._is_ready = False
        self._tell("STOPPING=1", *self._new_status())

    def stop(self) -> None:
        """Look no more; harmless when repeated."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _look(self) -> None:
        self._timer = self._clock.callLater(self._period, self._look)
        now = self._clock.seconds()
        if self._title is not None and self._shows_title():
            self._title.show(self._activity())
        if self._manager is None:
            return
        if now - self._status_at >= _STATUS_PERIOD:
            self._tell(*self._new_status())
        # Late by a tick at most, that is by half the watchdog's time in all.
        half = self._watchdog / 2
        if self._watchdog and now - self._alive_at > half - self._period and self._stuck() < half:
            self._alive_at = now
            self._tell("WATCHDOG=1")

    def _new_status(self) -> tuple[str, ...]:
        """Return what is to be told of the status: nothing if it is the same."""
        self._status_at = self._clock.seconds()
        status, before = self._activity(), self._status
        self._status = status
        return (f"STATUS={status}",) if status != before else ()

    def _tell(self, *lines: str) -> None:
        if self._manager is not None and lines:
            self._manager.tell(*lines)
