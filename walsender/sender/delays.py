"""
What holds a stream up: a start that is ahead of all there is, and WAL that has to be fetched first.

The log has a line when a stream begins to wait, and one when it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from walsender.lsn import LSN
    from walsender.sender.connection_log import ConnectionLog

WORTH_TELLING: Final = 1.0
"""Seconds that a segment takes until it is said; files that are there take milliseconds."""

QUIET: Final = 60.0
"""Seconds after such a pair of lines without another, for a slow archive makes each segment wait."""


class Delays:
    """
    Of one stream.

    :param lsn: of a position.
    """

    def __init__(self, clock: IReactorTime, log: ConnectionLog, lsn: Callable[[int], LSN]) -> None:
        self._clock = clock
        self._log = log
        self._lsn = lsn
        self._start = 0
        self._hold: IDelayedCall | None = None
        self._fetch: IDelayedCall | None = None
        self._fetch_told = False
        self._quiet_until = clock.seconds()

    # A start that is ahead

    @property
    def is_held(self) -> bool:
        """Whether the start is still waited for."""
        return self._hold is not None

    def hold(self, start: int, flush: int, seconds: float, expired: Callable[[], None]) -> None:
        """Wait until *start* is reached, but not for longer; *expired* is called then."""
        self._start = start
        self._hold = self._clock.callLater(seconds, self._expired, expired)
        self._log.waits(self._lsn(start), f"is ahead of the flush position {self._lsn(flush)}")

    def reached(self, position: int) -> bool:
        """There is WAL up to *position*; return whether that ends the waiting."""
        if self._hold is None or position < self._start:
            return False
        self._stop_holding()
        self._log.goes_on(self._lsn(self._start))
        return True

    def _expired(self, expired: Callable[[], None]) -> None:
        self._hold = None
        expired()

    def _stop_holding(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    # WAL that is not at hand

    def opening(self, position: int) -> None:
        """The file with the next WAL is not open, and may be far away."""
        if self._fetch is None and self._clock.seconds() >= self._quiet_until:
            self._fetch = self._clock.callLater(WORTH_TELLING, self._tell_fetch, position)

    def opened(self, position: int) -> None:
        """It is open."""
        self._stop_fetch()
        if self._fetch_told:
            self._fetch_told = False
            self._quiet_until = self._clock.seconds() + QUIET
            self._log.goes_on(self._lsn(position))

    def _tell_fetch(self, position: int) -> None:
        self._fetch = None
        self._fetch_told = True
        self._log.waits(self._lsn(position), "is still to be fetched or opened")

    def _stop_fetch(self) -> None:
        if self._fetch is not None:
            self._fetch.cancel()
            self._fetch = None

    # All of it

    def stop(self) -> None:
        """Nothing is waited for any more; harmless when repeated."""
        self._stop_holding()
        self._stop_fetch()
