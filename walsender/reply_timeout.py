"""``wal_sender_timeout``, ``wal_receiver_timeout``: ask a silent peer for a sign of life, then give it up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.shared_timer import ICancellable, ITimer

# Sums of times are rounded: a timer may fire this much too early, and would be set again for no time at all.
_MOMENT: Final = 1e-6  # seconds

# A timer that fires later than by this part of half the timeout says that this process stood still: twice
# as late as a `walsender.shared_timer` may be.
_LATE: Final = 1 / 16


class ReplyTimeout:
    """
    Watches how long one peer has been silent.

    After half the timeout without any input *ask* is called, once until there is
    input again; after all of it *give_up*, but never without half of it having passed
    since asking: time in which this process itself stood still is not the peer's.
    What came meanwhile has not been read when the timer fires, so then there is half of
    it once more, once.
    A reply only writes down the time: the timer is moved when it fires, not at every
    message.

    :param clock: a reactor, or what many peers share.
    :param timeout: seconds; 0 disables.

    Source: PostgreSQL, src/backend/replication/walsender.c, WalSndKeepaliveIfNecessary
    and WalSndCheckTimeOut; walreceiver.c, WalRcvComputeNextWakeup.
    """

    __slots__ = (
        "_ask",
        "_asked_at",
        "_clock",
        "_due",
        "_give_up",
        "_last_reply",
        "_stood_still",
        "_stopped",
        "_timeout",
        "_timer",
    )

    def __init__(
        self, clock: ITimer, timeout: float, ask: Callable[[], None], give_up: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._ask = ask
        self._give_up = give_up
        self._asked_at: float | None = None
        self._last_reply = clock.seconds()
        self._timer: ICancellable | None = None
        self._stood_still = False
        self._stopped = False
        self._due = 0.0
        if timeout:
            self._wait(timeout / 2)

    def reply_received(self, now: float | None = None) -> None:
        """The peer has sent something; *now* is the clock's time, if the caller has it at hand."""
        self._last_reply = self._clock.seconds() if now is None else now
        self._asked_at = None

    def stop(self) -> None:
        """Watch no longer; harmless when repeated."""
        self._stopped = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _wait(self, seconds: float) -> None:
        self._due = self._clock.seconds() + seconds
        self._timer = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        now, half = self._clock.seconds(), self._timeout / 2
        half -= _MOMENT
        if self._asked_at is None and now - self._last_reply >= half:
            self._asked_at = now
            self._stood_still = False
            self._ask()
            if self._stopped:
                return  # asking has found the connection lost
        elif self._asked_at is not None and not self._stood_still and now - self._due > half * _LATE:
            self._asked_at = now
            self._stood_still = True
        since = self._last_reply if self._asked_at is None else self._asked_at
        if now - since >= half:
            self._give_up()
        else:
            self._wait(half - (now - since) + _MOMENT)
