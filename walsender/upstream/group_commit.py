"""
`GroupCommit`: one write and one fsync for all that has come since the last, off the reactor's thread.

While a commit runs, what comes waits; then all of it is one commit.  Under load commits
grow, and a slow disk costs latency, not throughput.

While nothing waits and no commit runs, the thread of the commits itself may wait for the upstream: it reads,
writes and flushes, and goes on so by itself; the reactor hears of it afterwards, which spares two wake-ups on
the way.  What the thread has read it leaves at hand before it writes (`GroupCommit.look`): while a disk takes
its time, what has come is to be known, and to be read on.

A commit that nobody waits for any more, because the thread has sent it to all who follow and told the
upstream, is *settled*: of such the reactor hears at leisure, and of many at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from walsender.timings import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from walsender.upstream.interfaces import IUpstreamSession, Taken
    from walsender.upstream.segment_writer import Commit


LARGE: Final = 4 << 20
"""Bytes that are worth a commit of their own while more are on their way."""

_MOST_THERE: Final = 64  # so many commits may pass before the reactor hears of the first


class IAttendant(Protocol):
    """A thread that can wait for something; see `walsender.work_threads.WorkThreads`."""

    def attend(self, readable: Any, function: Callable[..., object], *args: object) -> Deferred[Any]:
        """Have *function* called whenever there is something to read, until it returns something."""

    def tell(self, function: Callable[[], object]) -> None:
        """Have *function* called in the reactor's thread; from the other."""

    def tell_later(self, function: Callable[[], object]) -> None:
        """Likewise, once nothing has come for a moment, but not much later; for several times once."""

    def recall(self) -> None:
        """Have it wait no longer."""


class ISegmentWriter(Protocol):
    """As `walsender.upstream.segment_writer.SegmentWriter`."""

    def commit(self, pieces: Sequence[bytes | memoryview], behind: int = 0) -> Commit:
        """Write and make durable."""

    def close(self) -> None:
        """Let go of the file."""


class IWalAtHand(Protocol):
    """What the thread may do with what comes next from an upstream; called there."""

    def wal_of(self, messages: list[bytes | memoryview]) -> Sequence[bytes | memoryview]:
        """Return what is to be written; nothing if the reactor's thread is to look at *messages* first."""

    def confirm(self, position: int) -> bool:
        """Tell the upstream that all before *position* is durable; return whether it needs nothing more."""


@dataclass(slots=True, eq=False)
class _Taken:
    """
    What the thread has read at one time.

    :ivar settled: the newest commit that was settled before.
    :ivar is_written: by the thread, too.
    :ivar length: so much of what is waiting is durable with it; known once it is delivered.
    :ivar commit: of it, once it is durable.
    """

    taken: Taken
    settled: Commit | None
    came_at: float
    is_written: bool
    is_delivered: bool = False
    length: int = 0
    commit: Commit | None = None


class GroupCommit:
    """
    Feeds a writer, one commit at a time.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    :param attendant: the same thread; ``None``: it cannot wait for anything.
    :param committed: called with each `Commit`.
    :param failed: called with the failure of a commit, or of the rest of one; none is begun after it.
    :param receive: counts how long it takes from when a commit's first byte has come until it is durable.
    :ivar waiting: bytes that have come and are not durable yet.
    """

    def __init__(
        self,
        writer: ISegmentWriter,
        run_in_thread: Callable[..., Deferred[Any]],
        committed: Callable[[Commit], None],
        failed: Callable[[Failure], None],
        receive: Stopwatch | None = None,
        attendant: IAttendant | None = None,
    ) -> None:
        self._attendant = attendant
        self._session: IUpstreamSession | None = None  # which the thread attends to
        self._may_take = Lock()  # whoever takes, or ends that
        self._takes = False  # the thread, from the session
        self._there: deque[_Taken] = deque()  # of which not all has been told here
        self._writing: _Taken | None = None  # by the thread
        self._settled: Commit | None = None  # the newest that is
        self._heard: Commit | None = None  # of those, here
        self._receive = receive or Stopwatch()
        self._came_at = 0.0
        self._writer = writer
        self._run_in_thread = run_in_thread
        self._committed = committed
        self._failed = failed
        self._pieces: list[bytes | memoryview] = []
        self._running: Deferred[None] | None = None
        self._ended = False
        self._gathered = self._behind = 0
        self.waiting = 0

    def append(self, piece: bytes | memoryview) -> None:
        """Take WAL, one piece behind the other; it is written at the next `commit`."""
        if not self._pieces:
            self._came_at = self._receive.now()
        self._pieces.append(piece)
        self._gathered += len(piece)
        self.waiting += len(piece)

    def commit(self, behind: int = 0) -> None:
        """
        Make durable what has come, at once or as soon as the commit under way is done.

        :param behind: so many bytes at least are on their way.  While that is much, a commit is
            put off until much has come: many small ones would keep the disk from getting on.
        """
        self._behind = behind
        if self._running is not None or self._ended or not self._pieces:
            return
        if self._gathered < LARGE <= behind:
            return
        pieces, self._pieces = self._pieces, []
        length, self._gathered = self._gathered, 0
        self._running = Deferred()
        self._run_in_thread(self._writer.commit, pieces, behind).addCallbacks(
            self._done, self._broken, callbackArgs=(length, self._came_at)
        )

    def attend(self, session: IUpstreamSession, at_hand: IWalAtHand) -> bool:
        """
        If there is nothing to do, have the thread wait for *session*, and commit what it reads.

        :returns: whether it does so from now on.
        """
        attendant = self._attendant
        if attendant is None or self._running is not None or self._ended or self._pieces:
            return False
        if (readable := session.readable) is None:
            return False
        self._takes = True  # before the thread, which may begin at once, looks
        try:
            done = attendant.attend(readable, self._take_and_commit, session, attendant, at_hand)
        except OSError:
            return False  # no descriptor is left: the reactor reads
        self._behind = 0
        self._running, self._session = Deferred(), session
        session.attended(attendant.recall)
        done.addCallbacks(self._attended, self._broken)
        return True

    def look(self) -> bool:
        """If the thread is writing what it has read, take that over, and read on here; return whether."""
        session, attendant = self._session, self._attendant
        self._hear()
        if session is None or attendant is None:
            return False
        with self._may_take:
            writing = self._writing
            if writing is None and not self._there:
                return False
            self._takes = False
        attendant.recall()
        self._hear()  # again: now nothing more is settled, and what comes is behind what is
        for there in list(self._there):
            self._deliver(session, there)
        if writing is not None:
            self._deliver(session, writing)
        self._session = None
        session.released()
        return True

    def _take_and_commit(
        self, session: IUpstreamSession, attendant: IAttendant, at_hand: IWalAtHand
    ) -> Exception | bool | None:
        """
        Read and commit; in the thread.

        :returns: ``None``: the thread is to go on so.  An error is returned: what has been read is told all
            the same.
        """
        with self._may_take:
            if not self._takes:
                return False
            taken = session.take()
            came_at = self._receive.now()
            pieces = at_hand.wal_of(taken.messages)
            there = self._writing = _Taken(taken, self._settled, came_at, bool(pieces))
        try:
            commit = there.commit = self._writer.commit(pieces) if pieces else None
        except Exception as error:  # noqa: BLE001 -- whoever waits for it is told
            self._leave(there)
            return error
        news = taken.ended or taken.failure or taken.said
        goes_on = not (commit is None or commit.files or commit.failure or news)
        if commit is not None and commit.sent and goes_on:
            goes_on = at_hand.confirm(commit.position)  # or the reactor's thread has to, at once
            with self._may_take:
                is_settled = goes_on and self._takes  # or it has been delivered, and is waited for
                if is_settled:
                    self._settled, self._writing = commit, None
            if is_settled:
                self._receive.since(came_at)
                attendant.tell_later(self._hear)
                return None
        self._leave(there)
        if not goes_on or len(self._there) > _MOST_THERE:
            return False
        attendant.tell(self._hear)
        return None

    def _leave(self, there: _Taken) -> None:
        """Let the reactor's thread go on with what has been read."""
        with self._may_take:
            self._there.append(there)
            self._writing = None

    def _hear(self) -> None:
        """Of what the thread has read and made durable."""
        settled = self._settled  # first: what is settled by now may be behind what is there
        while self._there and (commit := self._there[0].commit) is not None:
            there = self._there[0]
            self._hear_settled(there.settled)
            if self._session is not None:
                self._deliver(self._session, there)
            self._there.popleft()
            self._durable(commit, there.length, there.came_at)
        self._hear_settled(settled)

    def _hear_settled(self, commit: Commit | None) -> None:
        """Of *commit*, the newest of some that were settled; harmless when it has been heard of."""
        if commit is not None and (self._heard is None or self._heard.position < commit.position):
            self._heard = commit
            self._committed(commit)

    def _deliver(self, session: IUpstreamSession, there: _Taken) -> None:
        """What the thread has read has come.  If it has begun to write it, nothing of it waits for that."""
        if there.is_delivered:
            return
        there.is_delivered = True
        session.deliver(there.taken)
        if there.is_written:
            there.length = self._gathered
            self._pieces.clear()
            self._gathered = 0

    def _attended(self, result: Exception | bool | None) -> None:
        """The thread has ended to wait."""
        session = self._session
        try:
            self._hear()
            for there in self._there:  # one at most, which it has not written, or could not
                if session is not None:
                    self._deliver(session, there)
        finally:
            self._there.clear()
            self._session = None
            if isinstance(result, Exception):
                self._broken(Failure(result))
            else:
                self._commit_ended()
        if session is not None:
            session.released()

    def close(self) -> Deferred[None]:
        """Begin no further commit, wait for the one under way, and close the file."""
        if self._session is not None and self._attendant is not None:
            self._attendant.recall()
        self._ended = True
        self._pieces.clear()
        running = self._running or succeed(None)
        closed: Deferred[None] = Deferred()
        running.addCallback(lambda _: self._run_in_thread(self._writer.close)).chainDeferred(closed)
        return closed

    def _done(self, commit: Commit, length: int, came_at: float) -> None:
        running, self._running = self._running, None
        try:
            self._durable(commit, length, came_at)
        finally:
            self.commit(self._behind)
            assert running is not None, "a commit is ending"
            running.callback(None)

    def _durable(self, commit: Commit, length: int, came_at: float) -> None:
        """So much more is durable."""
        self._receive.since(came_at)
        self.waiting -= length
        self._ended |= commit.failure is not None
        self._committed(commit)
        if commit.failure is not None:
            self._failed(Failure(commit.failure))

    def _commit_ended(self) -> None:
        """Nothing runs any more: begin what waits for that."""
        running, self._running = self._running, None
        self.commit(self._behind)
        assert running is not None, "it has been waited for"
        running.callback(None)

    def _broken(self, failure: Failure) -> None:
        self._ended = True
        running, self._running = self._running, None
        self._failed(failure)
        assert running is not None, "a commit is ending"
        running.callback(None)
