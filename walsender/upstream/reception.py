"""
`Reception`: one stream from the upstream, from CopyBoth to its end.

What comes is handed to a `GroupCommit`; when that says that it is durable, and not
before, the upstream hears of it.  While the disk is behind, nothing more is read.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from walsender.clocks import time_of_day
from walsender.errors import WalsenderError
from walsender.reply_timeout import ReplyTimeout
from walsender.upstream.interfaces import ICopyReceiver, IUpstreamSession, Row, UpstreamError
from walsender.upstream.kept_memory import keep_freed_memory
from walsender.upstream.status import ReceiverStatus
from walsender.wire import (
    HotStandbyFeedback,
    PrimaryKeepalive,
    StandbyStatusUpdate,
    from_pg_timestamp,
    to_pg_timestamp,
)
from walsender.wire.replication import NetworkLayout, XLogData

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from walsender.lsn import Geometry
    from walsender.upstream.group_commit import GroupCommit
    from walsender.upstream.segment_writer import Commit

MOST_WAITING: Final = 16 << 20
"""So many bytes may wait for the disk before the upstream has to."""

_LITTLE: Final = 64 << 10  # bytes that are committed without the reactor

_LOOKS_EVERY: Final = 1.0  # seconds; whoever asks for a reply waits no longer, whatever the disk does

_LAYOUT: Final = NetworkLayout()


@implementer(ICopyReceiver)
class Reception:
    """
    Receives one timeline's WAL.

    :param start: position of the first byte that will come.
    :param flushed: position up to which the timeline is durable here already.
    :param timeout: ``wal_receiver_timeout`` in seconds; 0 disables.
    :param status_interval: ``wal_receiver_status_interval`` in seconds; 0: tell of progress only.
    :param feedback: see `WalReceiver`.
    :param alive: called once, when the upstream has answered or WAL has been kept.
    :param expected: position up to which the upstream has WAL: while that has not come, it is not by a
        keepalive that it shows that it can give it.
    :param until: position at which enough has come, and the stream is over; the upstream is then told of
        nothing that is flushed, so that it waits for nobody.  ``None``: it has no end of ours.
    :ivar ended: fires when the stream is over and all that came is durable, with the rows that the
        upstream gave at the end; fails with `UpstreamError`, or with why WAL could not be kept.
    """

    def __init__(
        self,
        clock: IReactorTime,
        session: IUpstreamSession,
        geometry: Geometry,
        start: int,
        flushed: int,
        *,
        timeout: float,
        status_interval: float,
        feedback: Callable[[], tuple[int, int] | None] | None = None,
        alive: Callable[[], None] = lambda: None,
        expected: int = 0,
        until: int | None = None,
    ) -> None:
        self._clock = clock
        self._now = time_of_day(clock)
        self._session = session
        self._geometry = geometry
        self._commits: GroupCommit | None = None
        self._start = self._received = self._upstream_end = start
        self._announced_end = start  # by a keepalive
        self._sent_at: float | None = None
        self._received_at: float | None = None
        self._flushed = flushed
        self._confirmed = 0  # by the thread of the commits
        self._telling = Lock()  # whoever does: the upstream must not hear of an older position last
        self._at_hand: _WalAtHand | None = None
        self._expected = expected
        self._until = until
        self._status_interval = status_interval
        self._feedback = feedback
        # A slot remembers what its last walsender was told; a stream with an end of ours has none.
        self._told_feedback = until is None
        self._alive: Callable[[], None] | None = alive
        self._paused = self._stopped = False
        self._result: Sequence[Row] | Failure | None = None
        self._timer: IDelayedCall | None = None
        self._looking: IDelayedCall | None = None
        self._timeout = timeout
        self._silence: ReplyTimeout | None = None
        self.ended: Deferred[Sequence[Row]] = Deferred()

    def begin(self, commits: GroupCommit) -> None:
        """The upstream has begun to send: tell it where we are, as a standby does."""
        self._commits = commits
        keep_freed_memory(MOST_WAITING)
        self._silence = ReplyTimeout(self._clock, self._timeout, self._ask, self._upstream_silent)
        self._report(reply_requested=True)
        self._look_regularly()
        self._attend()

    @property
    def has_all(self) -> bool:
        """Whether everything up to *until* is durable."""
        return self._flushed == self._until

    def status(self, timeline: int, slot_name: str) -> ReceiverStatus:
        """Return what is known of the stream; its owner knows the timeline and the slot."""
        lsn = self._geometry.lsn
        return ReceiverStatus(
            timeline,
            lsn(self._start),
            lsn(self._received),
            lsn(self._flushed),
            self._sent_at,
            self._received_at,
            lsn(max(self._upstream_end, self._announced_end)),
            slot_name,
            self._session.description,
        )

    # ICopyReceiver

    def wal_message_received(self, body: bytes | memoryview) -> None:
        """See `ICopyReceiver`."""
        if self._stopped:
            return
        assert self._silence is not None, "the stream has begun"
        self._silence.reply_received()
        try:
            message = _LAYOUT.decode_walsender(memoryview(body))
        except WalsenderError as error:
            self._fail(error)
            return
        self._sent_at, self._received_at = from_pg_timestamp(message.sent_at_us), self._now()
        if isinstance(message, PrimaryKeepalive):
            self._announced_end = self._geometry.position(message.wal_end)
            if self._received >= self._expected:
                self._lives()
            if message.reply_requested:
                self._tell_status()
            return
        self._take(message)

    def batch_received(self) -> None:
        """See `ICopyReceiver`."""
        if self._stopped:
            return
        assert self._commits is not None, "the stream has begun"
        self._commits.commit(max(0, self._upstream_end - self._received))
        if self._commits.waiting > MOST_WAITING and not self._paused:
            self._paused = True
            self._session.pauseProducing()
        self._attend()

    def stream_ended(self, rows: Sequence[Row]) -> None:
        """See `ICopyReceiver`."""
        self._end(rows)

    def session_lost(self, error: UpstreamError) -> None:
        """See `ICopyReceiver`."""
        self._end(Failure(error))

    # From the disk

    def committed(self, commit: Commit) -> None:
        """All before ``commit.position`` is durable."""
        assert self._commits is not None, "what did not begin has no commits"
        self._flushed = commit.position
        if commit.sent and commit.position > self._received:
            self._settled(commit.position)
        self._lives()
        if self._result is None and commit.position > self._confirmed:
            self._tell_status()
        if self._paused and self._commits.waiting <= MOST_WAITING // 2:
            self._paused = False
            if self._silence is not None:
                self._silence.reply_received()  # it was we who did not listen
            self._session.resumeProducing()
        self._check_end()
        self._attend()

    def commit_failed(self, failure: Failure) -> None:
        """What came could not be kept."""
        self._result = failure
        self._finish()

    # Inside

    def _take(self, message: XLogData) -> None:
        assert self._commits is not None, "the stream has begun"
        position = self._geometry.position(message.start)
        if position != self._received:
            self._fail(
                UpstreamError(
                    f"the upstream sent WAL at {message.start}, expected {self._geometry.lsn(self._received)}"
                )
            )
        elif message.data:
            self._upstream_end = self._geometry.position(message.wal_end)
            data = message.data if self._until is None else message.data[: self._until - position]
            self._commits.append(data)
            self._received += len(data)
            if self._received == self._until:
                self._session.pauseProducing()
                self._end(())

    def _attend(self) -> None:
        """While nothing is to be done, let the thread of the commits read, unless much is still to come."""
        level = self._upstream_end <= self._received
        if level and not self._stopped and self._until is None and self._commits is not None:
            at_hand = _WalAtHand(self._geometry, self._received, self._confirm)
            if self._commits.attend(self._session, at_hand):
                self._at_hand = at_hand

    def _confirm(self, position: int) -> bool:
        """See `walsender.upstream.group_commit.IWalAtHand`; in the thread of the commits."""
        with self._telling:
            self._confirmed = position
            return self._session.confirm(self._status_update(position, position))

    def _settled(self, position: int) -> None:
        """All before *position* has come, and needs nothing more."""
        assert self._at_hand is not None, "the thread of the commits had it"
        self._received = position
        if self._silence is not None:
            self._silence.reply_received()
        message = _LAYOUT.decode_walsender(self._at_hand.newest)
        self._sent_at, self._received_at = from_pg_timestamp(message.sent_at_us), self._now()
        self._upstream_end = max(self._upstream_end, self._geometry.position(message.wal_end))

    def _tell_status(self, *, reply_requested: bool = False) -> None:
        """
        Say how far we are.  What is durable here counts as replayed too: there is nothing else to wait for.

        Nothing else counts as written either: WAL that waits for the disk goes with this process, and
        ``synchronous_commit = remote_write`` promises that it does not.

        Source: PostgreSQL, src/backend/replication/walreceiver.c, XLogWalRcvSendReply.
        """
        with self._telling:
            if self._until is None:
                written = flushed = max(min(self._flushed, self._received), self._confirmed)
            else:
                written, flushed = self._received, 0
            self._session.send(self._status_update(written, flushed, reply_requested=reply_requested))

    def _status_update(self, written: int, flushed: int, *, reply_requested: bool = False) -> bytes:
        """Return the message that says so; in any thread."""
        write, flush = self._geometry.lsn(written), self._geometry.lsn(flushed)
        now = to_pg_timestamp(self._now())
        return _LAYOUT.encode(StandbyStatusUpdate(write, flush, flush, now, reply_requested))

    def _tell_feedback(self) -> None:
        """
        Hand on what the standbys need; once nobody needs anything, say that once, at the beginning too.

        What could not be taken back is not said at all: without a status interval there is no second time.
        """
        needed: tuple[int, int] | None = 0, 0
        if self._feedback is not None and self._status_interval:
            needed = self._feedback()
        if needed is None:
            return
        xmin, catalog_xmin = needed
        if not (xmin or catalog_xmin) and not self._told_feedback:
            return
        self._told_feedback = bool(xmin or catalog_xmin)
        low = 0xFFFFFFFF
        self._session.send(
            _LAYOUT.encode(
                HotStandbyFeedback(
                    to_pg_timestamp(self._now()),
                    xmin & low,
                    xmin >> 32,
                    catalog_xmin & low,
                    catalog_xmin >> 32,
                )
            )
        )

    def _lives(self) -> None:
        alive, self._alive = self._alive, None
        if alive is not None:
            alive()

    def _report(self, *, reply_requested: bool = False) -> None:
        self._timer = None
        self._tell_status(reply_requested=reply_requested)
        self._tell_feedback()
        if self._status_interval:
            self._timer = self._clock.callLater(self._status_interval, self._report)

    def _ask(self) -> None:
        self._look()
        if self._commits is not None:
            self._commits.commit()  # what was on its way has not come
        self._tell_status(reply_requested=True)

    def _look_regularly(self) -> None:
        self._looking = self._clock.callLater(_LOOKS_EVERY, self._look_regularly)
        self._look()

    def _look(self) -> bool:
        """Know what has come while the disk takes its time."""
        return self._commits is not None and self._commits.look()

    def _upstream_silent(self) -> None:
        received = self._received
        if self._silence is not None and (self._look() or self._paused or self._received > received):
            self._silence = ReplyTimeout(self._clock, self._timeout, self._ask, self._upstream_silent)
            return  # we have not been listening, or had not heard of it
        self._fail(UpstreamError("terminating walreceiver due to timeout"))

    def _fail(self, error: WalsenderError) -> None:
        self._end(Failure(error))

    def _end(self, result: Sequence[Row] | Failure) -> None:
        """The stream is over; what has come is still made durable."""
        if not self._stopped:
            self._result = result
            self.stop()
            if self._commits is not None:
                self._commits.commit()
            self._check_end()

    def _check_end(self) -> None:
        if self._result is not None and (self._commits is None or not self._commits.waiting):
            self._finish()

    def _finish(self) -> None:
        self.stop()
        result = self._result
        assert result is not None, "the stream is over"
        if not self.ended.called:
            self.ended.callback(result)

    def stop(self) -> None:
        """Say nothing more, and hear nothing: who gives a stream up before it begins may still be sent it."""
        self._stopped = True
        if self._silence is not None:
            self._silence.stop()
        timers = self._timer, self._looking
        self._timer = self._looking = None
        for timer in timers:
            if timer is not None and timer.active():
                timer.cancel()


class _WalAtHand:
    """
    What follows a position, for as long as it is little at a time; see `IWalAtHand`.

    :param position: of the next byte.
    :ivar newest: the last message that there was WAL in.
    """

    def __init__(self, geometry: Geometry, position: int, confirm: Callable[[int], bool]) -> None:
        self._geometry = geometry
        self._position = position
        self.confirm = confirm
        self.newest: bytes | memoryview = b""

    def wal_of(self, messages: list[bytes | memoryview]) -> list[memoryview]:
        """Return the WAL in *messages* if there is nothing else in them, it is little and what comes next."""
        position = self._position
        pieces = []
        for body in messages:
            found = _LAYOUT.wal_in(body)
            if found is None or self._geometry.position(found[0]) != position or not found[1]:
                return []
            pieces.append(found[1])
            position += len(found[1])
        if position > self._position + _LITTLE:
            return []
        self._position = position
        if messages:
            self.newest = messages[-1]
        return pieces
