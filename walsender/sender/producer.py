"""
`WalProducer`: one standby's position in WAL, and the loop that moves it.

Flow control is two plain flags, not state-machine inputs: a transport pauses its
producer from inside ``write``, so the loop must see the flag right after each
slice that it hands over.

A *message* is a header and one or more *reads*, as large as the consumer likes them.
Pausing and fairness act between reads; an end, a keepalive or an error may only
come between messages, since bytes inside a promised message would be taken for
WAL.  A message is begun only when every file that it needs is open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walsender.clocks import time_of_day
from walsender.errors import OutOfResources, StartPositionRefused, WalsenderError
from walsender.source import (
    Cursor,
    IWalSource,
    IWalSubscriber,
    Permit,
    SegmentUnavailable,
    TimelineEnd,
    WalSlice,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.sender.interfaces import IStreamOwner, IWalConsumer
    from walsender.source import NewestWal
    from walsender.wire.dialect import Dialect


@implementer(IPushProducer, IWalSubscriber)
class WalProducer:
    """
    Pushes one timeline's WAL, from *start* on, to one consumer.

    :param start: position of the first byte to send.
    :ivar sent_position: everything before it has been given to the consumer, or is about to be.
    """

    _log = Logger()

    def __init__(
        self,
        source: IWalSource,
        dialect: Dialect,
        consumer: IWalConsumer,
        owner: IStreamOwner,
        clock: IReactorTime,
        timeline: int,
        start: int,
    ) -> None:
        self._source = source
        self._consumer = consumer
        self._owner = owner
        self._now = time_of_day(clock)
        self._seconds = clock.seconds
        self._dialect = dialect
        self._timeline = timeline
        self._geometry = source.geometry
        self._cursor = Cursor(
            lambda number: source.open_segment(timeline, number), source.geometry.segment_size
        )
        self.sent_position = start
        self._message_end = start
        self._end = TimelineEnd(start)
        # The end is fixed: WAL that comes later is not for this stream.
        self._last = not dialect.sends_from(start)
        self._caught_up = False
        self._keepalive: bool | None = None
        self._at_boundary: Callable[[], None] | None = None
        self._permit: Permit | None = None
        self._patient = False
        self._paused = True
        self._running = False
        self._opening = False
        self._stopped = False

    # The owner's side

    def start(self) -> None:
        """Begin: take the connection over and follow the source."""
        self._source.subscribe(self)
        if not self._last:
            self._learn_end()
        self._consumer.start(self)

    def send_keepalive(self, *, reply_requested: bool) -> None:
        """
        Send a keepalive as soon as one may be sent.

        While the client does not read, at most one waits: a client that asks for
        answers and never takes them costs nothing.
        """
        self._keepalive = reply_requested or bool(self._keepalive)
        self._run()

    def drain(self) -> None:
        """Fix the end of the stream where the source ends now."""
        self._settle()
        if not self._last:
            self._learn_end()
        self._last = True
        self._caught_up = False
        self._run()

    def stop_at_boundary(self, stopped: Callable[[], None]) -> None:
        """Send no further message; call *stopped* when the one under way has been handed over."""
        self._settle()
        self._at_boundary = stopped
        if self.sent_position == self._message_end:
            self._stop_here()

    def stopProducing(self) -> None:
        """Stop for good: the connection is lost or the stream has ended.  Harmless when repeated."""
        self._settle()
        self._stopped = True
        self._at_boundary = None
        self._cursor.close()
        self._source.unsubscribe(self)

    @property
    def level(self) -> bool:
        """Whether nothing is left to send."""
        return self.sent_position >= self._end.position

    @property
    def is_ahead(self) -> bool:
        """Whether the next WAL to send is not even the next that the source will have."""
        return self.sent_position > self._end.position

    # The source's side

    def wal_grew(self) -> None:
        """See `IWalSubscriber`."""
        self._settle()
        if self._stopped:
            return  # by another who was told before us
        if not self._last:
            self._learn_end()
        self._run()

    def _follow(self, *, patient: bool) -> None:
        """
        Choose how soon to hear of new WAL.

        Who has enough to send can wait: for others a commit is done with when all who are level have it.
        """
        if patient != self._patient:
            self._patient = patient
            # First, so that a commit either counts us or is seen here.
            self._source.subscribe(self, patient=patient)
            if not patient:
                self._learn_end()

    def _learn_end(self) -> None:
        try:
            self._end = self._source.end_of(self._timeline)
        except StartPositionRefused as error:
            # The source's history has changed under a stream that had begun.
            refusal = error
            if self.sent_position == self._message_end:
                self._fail(refusal)
            elif self._at_boundary is None:
                self._at_boundary = lambda: self._owner.stream_failed(refusal)
        else:
            self._owner.wal_available(self._end.position, self._seconds())

    # The consumer's side

    def pauseProducing(self) -> None:
        """See `twisted.internet.interfaces.IPushProducer`; idempotent, called from inside `send` too."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See `twisted.internet.interfaces.IPushProducer`."""
        self._paused = False
        self._run()

    def read_failed(self, piece: WalSlice, length: int, error: OSError | None, *, in_message: bool) -> None:
        """
        *piece* could not be read.

        :param length: how many bytes of it could.
        :param error: why not; ``None`` if the file ended there.
        :param in_message: the message's header, or some of its bytes, are on their way.
        """
        position = piece.segment.start + piece.offset
        failure = self._dialect.read_error(
            piece.segment.name, self._geometry, position, length, piece.length, error
        )
        if in_message:
            self.stopProducing()
            self._owner.stream_broken(failure)
        else:
            self._fail(failure)

    def cannot_send(self, error: OSError) -> None:
        """The consumer lacks something of the system's; nothing has been sent."""
        self._fail(OutOfResources(f"could not take over the connection: {error.strerror}"))

    def mistake(self, failure: Failure) -> None:
        """Something unforeseen has happened, perhaps inside a message: it costs this connection only."""
        self._log.failure("sending WAL failed", failure)
        self.stopProducing()
        self._owner.stream_broken(WalsenderError("internal error"))

    # Sending by a permit

    def _lend(self) -> None:
        """If nothing is left to send, let the thread that makes WAL durable send what comes next."""
        permits, position = self._source.permits, self.sent_position
        if (
            permits is None
            or not permits.wanted
            or not position == self._message_end == self._end.position
            or self._paused
            or self._stopped
            or self._last
            or self._keepalive is not None
            or self._at_boundary is not None
        ):
            return
        segment_end = self._geometry.segment_end(position)
        if not self._cursor.covers(position, segment_end):
            return
        until = self._dialect.message_end(position, segment_end, self._geometry, self._consumer.read_size)
        permit = Permit(self._timeline, position, until, self._message_of, self._seconds)
        if self._consumer.lend(permit):
            self._permit = permit
            permits.add(permit)

    def _settle(self) -> None:
        """Take the permit back before anything else is done: what has been sent by it has been sent by us."""
        permit, self._permit = self._permit, None
        if permit is None:
            return
        self._source.permits.discard(permit)
        used = permit.withdraw()
        if used is None:
            self._consumer.take_back(b"")
            return
        self.sent_position = self._message_end = used.end
        self._caught_up = False
        self._consumer.take_back(used.rest)
        if not self._stopped:
            self._owner.wal_available(used.end, used.at)
            self._learn_end()
            self._read_sent()

    def client_has_spoken(self) -> None:
        """Know of what the client may have got by a permit, before what it says of it is looked at."""
        if self._permit is not None and self._permit.used:
            self._run()

    # The loop

    def _run(self) -> None:
        self._settle()
        if self._opening:
            # What is opened may have to be fetched from far away: the client is not left in doubt.
            if self._keepalive is not None and not (self._running or self._paused or self._stopped):
                self._send_waiting_keepalive()
            return
        if self._running:
            return  # send() below can pause and resume us before it returns
        self._running = True
        try:
            while not (self._paused or self._stopped or self._opening) and self._step():
                pass
        except Exception:  # noqa: BLE001 (who told us of new WAL has others to tell)
            self.mistake(Failure())
        finally:
            self._running = False
        if not (self.level or self._stopped):
            self._follow(patient=True)
        self._lend()

    def _step(self) -> bool:
        """Send one read; return whether there may be more to do."""
        prefix = b""
        position = self.sent_position
        if position == self._message_end:
            if self._keepalive is not None:
                self._send_waiting_keepalive()
                return True
            end = self._end.position
            if position >= end:
                if self._patient and not self._last:
                    self._follow(patient=False)
                    return True  # there may be more than it knows of
                self._level()
                return self._keepalive is not None  # which the owner may have asked for just now
            message_end = self._dialect.message_end(position, end, self._geometry, self._consumer.read_size)
            if not self._cursor.covers(position, message_end):
                self._open(position, message_end)
                return not self._opening  # what others read is open at once
            self._cursor.read_ahead(end)
            self._message_end = message_end
            self._caught_up = False
            newest = self._source.newest
            if (
                newest is not None
                and newest.start == position
                and newest.end == message_end == end
                and newest.timeline == self._timeline
            ):
                self._send_newest(newest)
                return True
            prefix = self._header(position, message_end, end)
        piece = self._cursor.slice(position, min(self._message_end, position + self._consumer.read_size))
        assert piece is not None, "all files of a message are open before it begins"
        self.sent_position = position + piece.length
        self._consumer.send(prefix, piece)
        self._read_sent()
        return True

    def _send_newest(self, newest: NewestWal) -> None:
        """Send what is at hand, in one message."""
        self.sent_position = newest.end
        self._consumer.write(self._message_of(newest))
        self._read_sent()

    def _message_of(self, newest: NewestWal) -> bytes:
        """Return the message, which is made for the first who is level with the source; in any thread."""
        message = newest.messages.get(self._dialect)
        if message is None:
            message = self._header(newest.start, newest.end, newest.end) + newest.data
            newest.messages[self._dialect] = message
        return message

    def _header(self, start: int, end: int, source_end: int) -> bytes:
        lsn = self._geometry.lsn
        return self._dialect.wal_header(lsn(start), lsn(source_end), self._now(), end - start)

    def _read_sent(self) -> None:
        if self.sent_position == self._message_end and not self._stopped:
            self._owner.wal_sent(self.sent_position)
            if self._at_boundary is not None:
                self._stop_here()

    def _send_waiting_keepalive(self) -> None:
        keepalive = self._dialect.keepalive(
            self._geometry.lsn(self.sent_position),
            self._now(),
            reply_requested=bool(self._keepalive),
        )
        self._keepalive = None
        if keepalive:
            self._consumer.write(keepalive)

    def _level(self) -> None:
        """Nothing is left to send."""
        if self._end.next_timeline is not None:
            # A switch point may lie below what has been sent: the standby is told where.
            end = self._end
            self.stopProducing()
            self._owner.timeline_ended(end)
        elif not self._caught_up:
            self._caught_up = True
            self._owner.caught_up()

    def _stop_here(self) -> None:
        stopped = self._at_boundary
        assert stopped is not None, "asked to stop"
        self.stopProducing()
        stopped()

    def _open(self, start: int, end: int) -> None:
        self._opening = True
        self._cursor.open(start, end).addCallbacks(self._opened, self._open_failed)
        if self._opening:
            self._owner.opening(start)

    def _opened(self, _: None) -> None:
        self._opening = False
        if not self._stopped:
            self._owner.opened(self.sent_position)
        self._run()

    def _open_failed(self, failure: Failure) -> None:
        self._opening = False
        if self._stopped:
            return
        error = failure.value
        if isinstance(error, SegmentUnavailable):
            lsn = self._geometry.lsn(error.earliest)
            refusal = self._dialect.open_error(
                error.name, self._geometry, error.segment_number, error.error, lsn
            )
            refusal.detail = " ".join(text for text in (error.sought, refusal.detail) if text) or None
            self._fail(refusal)
        elif isinstance(error, WalsenderError):
            self._fail(error)
        else:
            self._log.failure("opening a WAL segment failed", failure)
            self._fail(WalsenderError("internal error"))

    def _fail(self, error: WalsenderError) -> None:
        self.stopProducing()
        self._owner.stream_failed(error)
