"""What a standby says of itself while it streams, taken into what is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from walsender.sender.lag import StandbyLag
from walsender.wire import from_pg_timestamp

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from walsender.lsn import Geometry
    from walsender.replication_slots import HeldSlot
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.wire import HotStandbyFeedback, StandbyStatusUpdate

_FIRST_TRANSACTION: Final = 3  # below are numbers with a meaning of their own


class StandbyReports:
    """
    Takes one standby's reports.

    :param entry: shows what it has said last.
    :param clock: for the lags.
    :param slot: follows what it has flushed.
    """

    def __init__(
        self, entry: WalSenderEntry, geometry: Geometry, clock: IReactorTime, slot: HeldSlot | None
    ) -> None:
        self._entry = entry
        self._geometry = geometry
        self._clock = clock
        self._slot = slot
        self._lag = StandbyLag()
        self._reported: tuple[int, int, int] | None = None

    @property
    def settled(self) -> bool:
        """Whether to hear the last report once more would change nothing."""
        return self._lag.settled

    def wal_available(self, position: int, at: float) -> None:
        """Everything before *position* may be sent since *at*, and is late if it is not reported soon."""
        self._lag.advanced(position, at)

    def status_received(self, status: StandbyStatusUpdate, *, of_ours: bool) -> None:
        """
        Take where the standby is.

        :param of_ours: whether that is about WAL of ours; else no slot is moved.
        """
        entry, geometry, lag = self._entry, self._geometry, self._lag
        reported = (status.write_lsn, status.flush_lsn, status.replay_lsn)
        if reported != self._reported or not lag.settled:  # thousands of idle standbys say the same again
            self._reported = reported
            write, flush, replay = map(geometry.position, reported)
            # Made comparable on the way: the end of a log file is the start of the next.
            entry.write_lsn, entry.flush_lsn, entry.replay_lsn = map(geometry.lsn, (write, flush, replay))
            lag.replied(write, flush, replay, geometry.position(entry.sent_lsn), self._clock.seconds())
            entry.write_lag, entry.flush_lag, entry.replay_lag = lag.write, lag.flush, lag.replay
        if self._slot is not None and of_ours:
            self._slot.advance(entry.flush_lsn)
        entry.reply_time = from_pg_timestamp(status.sent_at_us)

    def feedback_received(self, feedback: HotStandbyFeedback) -> None:
        """
        Keep what transactions the standby still needs.

        PostgreSQL ignores what is ahead of its own transaction counter, or so far behind
        that it has wrapped around.  There is no such counter here, so all is believed but
        for numbers that no transaction has.

        Source: PostgreSQL, src/backend/replication/walsender.c, ProcessStandbyHSFeedbackMessage.
        """
        self._entry.xmin = _full_transaction_id(feedback.epoch, feedback.xmin)
        self._entry.catalog_xmin = _full_transaction_id(feedback.catalog_epoch, feedback.catalog_xmin)


def _full_transaction_id(epoch: int, transaction_id: int) -> int:
    """Return a transaction id with its epoch in the high half; 0 for none."""
    return epoch << 32 | transaction_id if transaction_id >= _FIRST_TRANSACTION else 0


__all__ = ["StandbyReports"]
