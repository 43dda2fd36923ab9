"""
`Permit`: a stream that is level lets the thread that makes WAL durable send it what comes next.

Otherwise the reactor has to wake up between the disk's answer and the standby's turn.  What holds:

* A permit is used for one commit after the other until it is withdrawn, under its lock.
* While it stands nobody else writes to the connection, or closes it: whoever wants to withdraws it first, and
  hears what has been sent by it.  So no byte comes between others, and none goes to another's descriptor.
* It is used with what has been flushed, and after the source's flush position has moved over it.
* The thread decides nothing: what a connection does not take, for whatever reason, is the reactor's to send.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from walsender.source.newest import NewestWal
    from walsender.upstream import Commit
    from walsender.upstream.group_commit import ISegmentWriter

MOST: Final = 16
"""So many standbys are served before the next commit may begin; what they take of its time is little then."""


@dataclass(frozen=True, slots=True)
class Used:
    """
    What has been sent by a permit.

    :ivar end: position behind the last WAL that it was.
    :ivar rest: what the connection did not take of the last message.
    :ivar at: when that was, by the clock of who has lent the permit.
    """

    end: int
    rest: bytes
    at: float


class Permit:
    """
    To be sent messages in another thread.

    :param position: what comes next begins here.
    :param until: and all of it ends here at most.
    :param message: returns the message for some WAL; called in that thread.
    :param seconds: tells the time; likewise.
    :ivar send: sends without waiting and returns how much was taken; may raise `OSError`.
    """

    __slots__ = (
        "_lock",
        "_message",
        "_position",
        "_seconds",
        "_stands",
        "_timeline",
        "_until",
        "_used",
        "send",
    )

    def __init__(
        self,
        timeline: int,
        position: int,
        until: int,
        message: Callable[[NewestWal], bytes],
        seconds: Callable[[], float],
    ) -> None:
        self._timeline = timeline
        self._position = position
        self._until = until
        self._message = message
        self._seconds = seconds
        self._lock = threading.Lock()
        self._stands = True
        self._used: Used | None = None
        self.send: Callable[[bytes], int] = len

    def use(self, newest: NewestWal) -> bool:
        """Send it if it is what comes next; from another thread.  Return whether all of it was taken."""
        if (newest.timeline, newest.start) != (self._timeline, self._position) or newest.end > self._until:
            return False
        message = self._message(newest)
        with self._lock:
            if not self._stands:
                return False
            try:
                sent = self.send(message)
            except OSError:
                sent = 0  # who sends the rest is told again
            self._position = newest.end
            self._stands = sent == len(message)
            self._used = Used(newest.end, message[sent:], self._seconds())
            return self._stands

    def withdraw(self) -> Used | None:
        """Let nothing more be sent by it; return what has been.  Harmless when repeated."""
        with self._lock:
            self._stands = False
            return self._used

    @property
    def used(self) -> bool:
        """Whether something has been sent; who has seen it arrive is told so."""
        with self._lock:
            return self._used is not None


class Permits:
    """Those that stand."""

    def __init__(self) -> None:
        self._standing: dict[Permit, None] = {}

    @property
    def wanted(self) -> bool:
        """Whether there is room for one more."""
        return len(self._standing) < MOST

    def add(self, permit: Permit) -> None:
        """Have *permit* used."""
        self._standing[permit] = None

    def discard(self, permit: Permit) -> None:
        """Forget *permit*, which has been withdrawn."""
        self._standing.pop(permit, None)

    def use(self, newest: NewestWal) -> int:
        """
        Send *newest*, which is durable, to all whose permits stand; in the thread that has made it so.

        :returns: how many have taken it.
        """
        return sum([permit.use(newest) for permit in list(self._standing)])


class TellingWriter:
    """
    A writer that tells, in its thread, what has become durable.

    :param durable: called with each `Commit`; returns whether it has been sent to all who wait for it.
    """

    def __init__(self, writer: ISegmentWriter, durable: Callable[[Commit], bool]) -> None:
        self._writer = writer
        self._durable = durable
        self.close = writer.close

    def commit(self, pieces: Sequence[bytes | memoryview], behind: int = 0) -> Commit:
        """See `ISegmentWriter`."""
        commit = self._writer.commit(pieces, behind)
        commit.sent = self._durable(commit)
        return commit
