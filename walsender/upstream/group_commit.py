"""
`GroupCommit`: one write and one fsync for all that has come since the last, off the reactor's thread.

While a commit runs, what comes waits; then all of it is one commit.  Under load commits
grow, and a slow disk costs latency, not throughput.

While nothing waits and no commit runs, the thread of the commits itself may wait for the upstream: it reads,
writes and flushes, and the reactor hears of it afterwards, which spares two wake-ups on the way.  What the
thread has read it leaves at hand before it writes (`GroupCommit.look`): while a disk takes its time, what has
come is to be known, and to be read on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from walsender.timings import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from walsender.upstream.interfaces import IUpstreamSession, Taken
    from walsender.upstream.segment_writer import Commit

    WalOf: TypeAlias = "Callable[[list[bytes]], Sequence[bytes | memoryview]]"


LARGE: Final = 8 << 20
"""Bytes that are worth a commit of their own while more are on their way."""


class IAttendant(Protocol):
    """A thread that can wait for something; see `walsender.work_threads.WorkThreads`."""

    def attend(self, readable: Any, function: Callable[..., object], *args: object) -> Deferred[Any]:
        """Have *function* called when there is something to read; ``None`` if there is else to do before."""

    def recall(self) -> None:
        """Have it wait no longer."""


class ISegmentWriter(Protocol):
    """As `walsender.upstream.segment_writer.SegmentWriter`."""

    def commit(self, pieces: Sequence[bytes | memoryview], behind: int = 0) -> Commit:
        """Write and make durable."""

    def close(self) -> None:
        """Let go of the file."""


class _Taken(NamedTuple):
    taken: Taken
    came_at: float
    is_written: bool  # by the thread that has read it


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
        self._taken: _Taken | None = None
        self._writing = 0, 0.0  # how many bytes of what the thread has taken it writes, and since when
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

    def attend(self, session: IUpstreamSession, wal_of: WalOf) -> None:
        """
        If there is nothing to do, have the thread wait for *session*, and commit what it reads.

        :param wal_of: returns what is to be written of some messages; nothing if they are not to be committed
            before they are looked at here.  Called in the thread.
        """
        attendant = self._attendant
        if attendant is None or self._running is not None or self._ended or self._pieces:
            return
        if (readable := session.readable) is None:
            return
        try:
            done = attendant.attend(readable, self._take_and_commit, session, wal_of)
        except OSError:
            return  # no descriptor is left: the reactor reads
        self._behind = 0
        self._running, self._session = Deferred(), session
        session.attended(attendant.recall)
        done.addCallbacks(self._attended, self._broken)

    def look(self) -> bool:
        """If the thread is writing what it has read, take that over, and read on here; return whether."""
        session = self._session
        if session is None or self._taken is None:
            return False
        self._deliver(session)
        self._session = None
        session.released()
        return True

    def _take_and_commit(self, session: IUpstreamSession, wal_of: WalOf) -> Commit | Exception | None:
        """Read and commit; in the thread.  An error is returned: what has been read is told all the same."""
        taken = session.take()
        came_at = self._receive.now()
        pieces = wal_of(taken.messages)
        self._taken = _Taken(taken, came_at, bool(pieces))
        if not pieces:
            return None
        try:
            return self._writer.commit(pieces)
        except Exception as error:  # noqa: BLE001 -- whoever waits for it is told
            return error

    def _deliver(self, session: IUpstreamSession) -> None:
        """What the thread has read has come.  If it has begun to write it, nothing of it waits for that."""
        taken, self._taken = self._taken, None
        if taken is not None:
            session.deliver(taken.taken)
            if taken.is_written:
                self._writing = self._gathered, taken.came_at
                self._pieces.clear()
                self._gathered = 0

    def _attended(self, result: Commit | Exception | None) -> None:
        session = self._session
        if session is not None:
            self._deliver(session)
        self._session = None
        if isinstance(result, Exception):
            self._broken(Failure(result))
        elif result is not None:
            self._done(result, *self._writing)
        else:
            running, self._running = self._running, None
            assert running is not None, "it has been waited for"
            self.commit(self._behind)
            running.callback(None)
        if session is not None and self._session is None:
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
        self._receive.since(came_at)
        self.waiting -= length
        running, self._running = self._running, None
        self._ended |= commit.failure is not None
        try:
            self._committed(commit)
            if commit.failure is not None:
                self._failed(Failure(commit.failure))
        finally:
            self.commit(self._behind)
            assert running is not None, "a commit is ending"
            running.callback(None)

    def _broken(self, failure: Failure) -> None:
        self._ended = True
        running, self._running = self._running, None
        self._failed(failure)
        assert running is not None, "a commit is ending"
        running.callback(None)
