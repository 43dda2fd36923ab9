"""While nothing is received: since when, and why; said in the log when it begins to be so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from walsender.clocks import time_of_day
from walsender.upstream.status import NotReceiving

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from walsender.errors import WalsenderError


class Outage:
    """What stands between a receiver and its upstream's WAL, if anything does."""

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._now = time_of_day(clock)
        self._since: float | None = self._now()
        self._error = ""
        self._logged = ""

    @property
    def now(self) -> NotReceiving:
        """Why nothing is received, if that is so."""
        since = self._now() if self._since is None else self._since
        return NotReceiving(since, self._error)

    def begin(self) -> None:
        """Nothing is received from now on."""
        if self._since is None:
            self._since = self._now()

    def end(self) -> None:
        """A stream has begun, and lives: what was wrong is so no longer."""
        self._since = None
        self._error = self._logged = ""

    def complain(self, error: WalsenderError) -> None:
        """Say what is wrong, once while it stays the same."""
        self._error = error.message + error.more
        if error.message != self._logged:
            self._logged = error.message
            self._log.error(
                "cannot receive WAL from the upstream: {error}; trying again{more}",
                error=error.message,
                more=error.more,
                detail=error.detail,
                hint=error.hint,
            )

    def fail(self) -> None:
        """Log what should not have happened, with its traceback."""
        self._error = "internal error, see the log"
        self._log.failure("receiving WAL failed")
