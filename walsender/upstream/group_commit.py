"""
`GroupCommit`: one write and one fsync for all that has come since the last, off the reactor's thread.

While a commit runs, what comes waits; then all of it is one commit.  Under load commits
grow, and a slow disk costs latency, not throughput.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from walsender.timings import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from walsender.upstream.segment_writer import Commit


LARGE: Final = 8 << 20
"""Bytes that are worth a commit of their own while more are on their way."""


class ISegmentWriter(Protocol):
    """As `walsender.upstream.segment_writer.SegmentWriter`."""

    def commit(self, pieces: Sequence[bytes | memoryview], behind: int = 0) -> Commit:
        """Write and make durable."""

    def close(self) -> None:
        """Let go of the file."""


class GroupCommit:
    """
    Feeds a writer, one commit at a time.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
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
    ) -> None:
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

    def close(self) -> Deferred[None]:
        """Begin no further commit, wait for the one under way, and close the file."""
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
