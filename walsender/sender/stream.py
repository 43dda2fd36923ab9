"""
One START_REPLICATION: from the message that begins the stream to the one that ends it.

A stream ends in one of these ways, and each leaves the client at a message
boundary unless the connection is aborted:

* the client sends CopyDone: ours is the answer, then the results;
* a historic timeline is sent: CopyDone, the client's CopyDone, then the results;
* WAL cannot be read: an ErrorResponse; the session goes on unless the dialect forbids it;
* a start that was held, because it is ahead of the source's end, is not reached in time: likewise;
* the server stops: ``COPY 0`` and the connection is closed;
* the slot that it uses loses its WAL: a FATAL ErrorResponse and the connection is closed;
* the client breaks the protocol: a FATAL ErrorResponse and the connection is closed;
* the client is silent for too long, or a file becomes shorter inside a message: abort.

Whatever comes from the client between an end and the moment when the
consumer has handed the transport back stays unread in the protocol's buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from twisted.logger import Logger
from zope.interface import implementer

from walsender.errors import AdminShutdown
from walsender.lsn import LSN
from walsender.reply_timeout import ReplyTimeout
from walsender.sender.commands import ahead_of_flush, not_in_history
from walsender.sender.delays import Delays
from walsender.sender.interfaces import IStreamOwner, IWalConsumer
from walsender.sender.producer import WalProducer
from walsender.sender.repeated_report import RepeatedReport
from walsender.sender.reports import StandbyReports
from walsender.sender.slot_table import CATCHUP, STOPPING, STREAMING, WalSenderEntry
from walsender.sender.states import ShutdownBegun, State, StreamFailed, TimelineEnded
from walsender.wire import ReadyForQuery, StandbyStatusUpdate
from walsender.wire.dialect import Dialect, ModernDialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from walsender.errors import WalsenderError
    from walsender.replication_slots import HeldSlot
    from walsender.sender.connection_log import ConnectionLog
    from walsender.sender.idle_sockets import IdleSocket
    from walsender.shared_timer import ITimer
    from walsender.source import IWalSource, TimelineEnd

# While a drain waits for a standby to confirm, it is asked again at most this
# often: PostgreSQL asks after every reply and spins with a standby that cannot confirm.
_DRAIN_ASKS_EVERY: Final = 0.1  # seconds

# How long a start is held where wal_sender_timeout sets no limit.
_UNLIMITED_HOLD: Final = 60.0  # seconds

# How long a peer may take to read our last words.
LINGER: Final = 10.0  # seconds


class IStreamHost(Protocol):
    """
    What a stream needs of the protocol that it belongs to.

    :ivar log: what is logged of it.
    """

    log: ConnectionLog

    def advance(self, event: type) -> None:
        """Move the state machine."""

    @property
    def state(self) -> State:
        """Where the conversation stands."""

    def stream_ended(self) -> None:
        """The transport is the protocol's again; commands may come."""

    def stream_closed(self) -> None:
        """The transport is the protocol's again; close it when all is written."""

    def abort(self, reason: str) -> None:
        """The connection is useless; drop it and log why."""

    @property
    def has_input(self) -> bool:
        """Whether something has come that no message has been taken out of yet."""

    def log_error(self, error: WalsenderError) -> None:
        """Log what the client is told."""

    def forget_slots(self) -> None:
        """Let go of all slots of the session, as any ERROR does."""


@implementer(IStreamOwner)
class Stream:
    """
    One stream to one client.

    :param timeout: ``wal_sender_timeout`` in seconds.
    :param timer: tells when to look at whether the client lives.
    :param slot: follows what the standby has flushed, until the stream is over.
    :param idle: lets reading rest while nothing but the same report is expected; ``None``: it never does.
    :param held: the start is ahead of what may be sent, and is given some time to be reached.
    :ivar ending: the end is on its way; what the client sends now is for after it.
    """

    _log = Logger()

    def __init__(
        self,
        host: IStreamHost,
        source: IWalSource,
        dialect: Dialect,
        consumer: IWalConsumer,
        entry: WalSenderEntry,
        clock: IReactorTime,
        timeline: int,
        start: int,
        timeout: float,
        timer: ITimer,
        slot: HeldSlot | None = None,
        idle: IdleSocket | None = None,
        *,
        held: bool = False,
    ) -> None:
        self._host = host
        self._geometry = source.geometry
        self._source = source
        self._dialect = dialect
        self._consumer = consumer
        self._entry = entry
        self._clock = clock
        self._slot = slot
        self._idle = idle
        if slot is not None:
            slot.invalidated = self._slot_invalidated
        self._timeline = timeline
        self._producer = WalProducer(source, dialect, consumer, self, clock, timeline, start)
        self._reports = StandbyReports(entry, source.geometry, clock, slot)
        self._start = start
        self._delays = Delays(clock, host.log, self._geometry.lsn)
        self._hold_for = (timeout or _UNLIMITED_HOLD) if held else 0.0
        self._ended: TimelineEnd | None = None
        self._draining = False
        self._may_ask_at = 0.0
        self._asking_later: IDelayedCall | None = None
        self._over = False
        self._linger: IDelayedCall | None = None
        self.ending = False
        entry.state = CATCHUP
        entry.start_lsn = entry.sent_lsn = LSN(self._geometry.lsn(start))
        # A dialect without replies has nothing to wait for.
        self._timeout = ReplyTimeout(
            timer, timeout if dialect.copy_both else 0, self._ask_for_reply, self._standby_silent
        )

    def start(self) -> None:
        """Begin to send."""
        if self._hold_for:
            self._delays.hold(self._start, self._source.flush_position, self._hold_for, self._hold_expired)
        self._producer.start()

    # From the client

    def heard(self) -> None:
        """Any input at all shows that the client lives."""
        self._timeout.reply_received()

    def copy_data_received(self, data: bytes) -> None:
        """
        Take what a standby reports.

        :raises WalsenderError: it is no message of a standby.
        """
        message = self._dialect.decode_standby(data)
        if isinstance(message, StandbyStatusUpdate):
            self._status_received(message)
        else:
            self._reports.feedback_received(message)

    def copy_done_received(self) -> None:
        """The client ends the stream, or answers our end of it."""
        assert isinstance(self._dialect, ModernDialect), "no dialect before 9.3 has CopyDone"
        self.ending = True
        if self._ended is not None:
            self._farewell(self._result(self._ended), self._host.stream_ended)
            return
        end = self._source.end_of(self._timeline)
        result = self._dialect.copy_done + self._result(end)
        self._producer.stop_at_boundary(lambda: self._farewell(result, self._host.stream_ended))

    def refuse(self, error: WalsenderError) -> None:
        """Tell the client of *error* when its current message is complete."""
        self._end_with(error)
        if self._ended is not None:
            self._tell(error)  # no message is under way any more
        else:
            self._producer.stop_at_boundary(lambda: self._tell(error))

    # From the server

    def shut_down(self) -> None:
        """End at the next message boundary."""
        if self.ending:
            return  # a session that goes on after it comes back to the shutdown by itself
        self._begin_shutdown()
        self._draining = False
        self.ending = True
        if self._ended is not None:
            self._say_goodbye()  # all is sent
        else:
            self._producer.stop_at_boundary(self._say_goodbye)

    def drain(self) -> None:
        """Send all there is now, wait until the standby confirms it, then end."""
        if self._ended is not None or self._producer.is_ahead:
            self.shut_down()  # there is nothing that the standby could confirm
        elif not self.ending and not self._draining:
            self._begin_shutdown()
            self._wake()
            self._draining = True
            self._producer.drain()

    def _slot_invalidated(self) -> None:
        """The slot has lost its WAL: the standby must not go on in the belief that it is kept."""
        if not self.ending:
            self.refuse(AdminShutdown("terminating connection due to administrator command"))

    def close(self) -> None:
        """Let go of everything: the connection is lost or about to be."""
        self._over = self.ending = True
        self._stop_timers()
        self._wake()
        self._producer.stopProducing()
        self._consumer.close()
        self._release_slot()

    # IStreamOwner

    def wal_sent(self, position: int) -> None:
        """See `IStreamOwner`."""
        self._entry.sent_lsn = self._geometry.lsn(position)
        if self._idle is not None:
            self._idle.expect_input()

    def wal_available(self, position: int, at: float) -> None:
        """See `IStreamOwner`."""
        self._reports.wal_available(position, at)
        if self._idle is not None:
            self._idle.expect_another()
        if self._delays.reached(position):
            self._output_drained()  # but for a keepalive; what is sent from now on is waited for as ever

    def opening(self, position: int) -> None:
        """See `IStreamOwner`."""
        self._delays.opening(position)

    def opened(self, position: int) -> None:
        """See `IStreamOwner`."""
        self._delays.opened(position)

    def caught_up(self) -> None:
        """See `IStreamOwner`."""
        if self._draining:
            self._check_drained()
        elif self._entry.state == CATCHUP:
            # In a stream that is held too: not much later the consumer could not tell any more.
            self._consumer.when_drained(self._output_drained)

    def timeline_ended(self, end: TimelineEnd) -> None:
        """See `IStreamOwner`."""
        if self.is_held:
            # The standby has WAL of a branch that was left before it; no end of ours could tell it so.
            start, switchpoint = self._geometry.lsn(self._start), self._geometry.lsn(end.position)
            self.stream_failed(not_in_history(start, self._timeline, switchpoint))
            return
        if self._draining or not isinstance(self._dialect, ModernDialect):
            # Before 9.3 there are no words for another timeline: the standby
            # comes back and finds it by IDENTIFY_SYSTEM.
            self._say_goodbye()
            return
        self._ended = end
        self._wake()
        self._host.advance(TimelineEnded)
        self._consumer.write(self._dialect.copy_done)

    def stream_failed(self, error: WalsenderError) -> None:
        """See `IStreamOwner`."""
        self._end_with(error)
        self._tell(error)

    def stream_broken(self, error: WalsenderError) -> None:
        """See `IStreamOwner`."""
        self._host.abort(f"cannot complete a message: {error.message}")

    # Inside

    def _result(self, end: TimelineEnd) -> bytes:
        assert isinstance(self._dialect, ModernDialect), "no dialect before 9.3 has results of streams"
        return self._dialect.stream_result(end.next_timeline, self._geometry.lsn(end.position))

    def _output_drained(self) -> None:
        """
        All that was sent is with the kernel; if nothing has come since, the standby is level.

        It stays `STREAMING` when it falls behind again.

        Source: PostgreSQL, src/backend/replication/walsender.c, WalSndLoop.
        """
        if self._entry.state == CATCHUP and not self.is_held and self._producer.level:
            self._entry.state = STREAMING

    @property
    def is_held(self) -> bool:
        """Whether the start is still waited for: what the standby reports then is not about WAL of ours."""
        return self._delays.is_held

    def _hold_expired(self) -> None:
        lsn = self._geometry.lsn
        self.refuse(ahead_of_flush(lsn(self._start), lsn(self._source.flush_position)))

    def _status_received(self, status: StandbyStatusUpdate) -> None:
        self._producer.client_has_spoken()
        self._reports.status_received(status, of_ours=not self.is_held)
        if status.reply_requested and self._host.state is not State.ENDING:
            self._producer.send_keepalive(reply_requested=False)
        if self._draining:
            self._check_drained()
        elif self._idle is not None and self._reports.settled:
            self._idle.rest(self._repetition(status))

    def _repetition(self, status: StandbyStatusUpdate) -> RepeatedReport | None:
        """Return what takes *status* when it comes again, if that can then be told by its bytes alone."""
        if self.is_held or self._host.has_input or not isinstance(self._dialect, ModernDialect):
            return None
        return RepeatedReport(status, self._entry, self._timeout)

    def _wake(self) -> None:
        if self._idle is not None:
            self._idle.wake()

    def _check_drained(self) -> None:
        """
        End if the standby has all that it is to have.

        A standby that reports no flush position (0) is judged by what it has written.

        Source: PostgreSQL, src/backend/replication/walsender.c, WalSndDone.
        """
        if not self._producer.level:
            return
        entry = self._entry
        confirmed = entry.flush_lsn or entry.write_lsn
        if not self._dialect.copy_both or confirmed >= entry.sent_lsn:
            self.shut_down()
        elif self._asking_later is None:
            now = self._clock.seconds()
            if now < self._may_ask_at:
                self._asking_later = self._clock.callLater(self._may_ask_at - now, self._ask_again)
                return
            self._may_ask_at = now + _DRAIN_ASKS_EVERY
            self._producer.send_keepalive(reply_requested=True)

    def _ask_again(self) -> None:
        self._asking_later = None
        self._check_drained()

    def _ask_for_reply(self) -> None:
        if self._host.state is not State.ENDING:
            self._producer.send_keepalive(reply_requested=True)

    def _standby_silent(self) -> None:
        self._host.abort("terminating walsender process due to replication timeout")

    def _is_last(self, error: WalsenderError) -> bool:
        """Whether the connection ends with *error*: a server that is stopping takes no further command."""
        return self._dialect.severity(error) == "FATAL" or self._host.state is State.STOPPING

    def _end_with(self, error: WalsenderError) -> None:
        self.ending = True
        if self._is_last(error):
            self._start_linger()
        elif self._host.state is not State.COMMAND:  # which it is already if both sides have said CopyDone
            self._host.advance(StreamFailed)

    def _tell(self, error: WalsenderError) -> None:
        self._host.log_error(error)
        self._host.forget_slots()
        message = self._dialect.error(error)
        if self._is_last(error):
            self._farewell(message, self._host.stream_closed)
        else:
            self._farewell(message + ReadyForQuery().encode(), self._host.stream_ended)

    def _say_goodbye(self) -> None:
        self.ending = True
        self._start_linger()
        self._farewell(self._dialect.farewell, self._host.stream_closed)

    def _farewell(self, last_words: bytes, then: Callable[[], None]) -> None:
        """Send the last bytes of the stream, hand the transport back, and call *then*."""
        if self._over:
            return
        self._over = True
        self._wake()
        self._delays.stop()
        self._release_slot()  # before the client can know that the stream is over
        self._producer.stopProducing()
        self._consumer.write(last_words)
        self._consumer.finish().addCallback(self._handed_back, then)

    def _handed_back(self, _: None, then: Callable[[], None]) -> None:
        self._stop_timers()
        if self._host.state is State.COMMAND:
            self._entry.reset()
        then()

    def _release_slot(self) -> None:
        if self._slot is not None:
            self._slot.release()

    def _begin_shutdown(self) -> None:
        if self._host.state is not State.STOPPING:
            self._host.advance(ShutdownBegun)
            self._entry.state = STOPPING

    def _start_linger(self) -> None:
        """Bound the time that a client may take to read our last words."""
        if self._linger is None:
            self._linger = self._clock.callLater(
                LINGER, self._host.abort, "client does not read our last words"
            )

    def _stop_timers(self) -> None:
        self._timeout.stop()
        self._delays.stop()
        for timer in (self._linger, self._asking_later):
            if timer is not None and timer.active():
                timer.cancel()
