"""The report of an idle standby that has been heard before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from walsender.wire import from_pg_timestamp
from walsender.wire.repeated_status import repeated_at_us, status_start

if TYPE_CHECKING:
    from walsender.reply_timeout import ReplyTimeout
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.wire import StandbyStatusUpdate


class RepeatedReport:
    """
    Takes *status* when it comes again with another time: nothing but that time is news.

    An `IRepetition`.  It is for whoever knows that before and behind such a report there is no other input,
    and that all of *status* has been taken account of.
    """

    __slots__ = ("_entry", "_start", "_timeout")

    def __init__(self, status: StandbyStatusUpdate, entry: WalSenderEntry, timeout: ReplyTimeout) -> None:
        self._start = status_start(status)
        self._entry = entry
        self._timeout = timeout

    def heard(self, data: bytes, now: float) -> bool:
        """If *data* is that report and no more, take it; return whether."""
        sent_at_us = repeated_at_us(self._start, data)
        if sent_at_us is None:
            return False
        self._timeout.reply_received(now)
        self._entry.reply_time = from_pg_timestamp(sent_at_us)
        return True
