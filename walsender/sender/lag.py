"""
How far behind a standby is, in time: when was WAL here, and when did the standby say that it has it.

`LagTracker` remembers when WAL ended where; `StandbyLag` asks it at every reply for the three positions
that a standby reports.  Positions are those of `walsender.lsn`, times seconds of any one clock, which may
be set back.  No I/O, no clock of its own.

Source: PostgreSQL, src/backend/replication/walsender.c, LagTrackerWrite, LagTrackerRead and
ProcessStandbyReplyMessage, as they are since October 2025.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SAMPLES: Final = 8192
"""How many samples a full ring turns over (LAG_TRACKER_BUFFER_SIZE); one less are readable."""

WRITE: Final = 0
FLUSH: Final = 1
REPLAY: Final = 2
_HEADS: Final = 3


@dataclass(frozen=True, slots=True)
class _Sample:
    position: int
    time: float


@dataclass(slots=True)
class _Head:
    """
    What one reported position has read.

    :ivar next: number of the sample that is read next; those before it are behind the standby.
    :ivar last: the sample that was read last, unless the standby has had all since.
    :ivar overflow: the next sample, set aside when the ring came round to it; then *next* means nothing.
    """

    next: int = 0
    last: _Sample | None = None
    overflow: _Sample | None = None


class LagTracker:
    """
    Samples of "WAL ended here at that time", read by three heads at their own pace.

    When the ring is full, the slowest heads each keep the sample that they stand at, and the
    samples behind it are given up: such a head's lag grows with the clock until that sample is
    reached, and then goes on with the oldest one that is left.

    :param capacity: samples in the ring.

    Numbers of samples count up for ever; what is kept is a dict by number, so that an idle
    standby costs nothing.
    """

    def __init__(self, capacity: int = SAMPLES) -> None:
        self._readable = capacity - 1
        self._samples: dict[int, _Sample] = {}
        self._oldest = 0
        self._count = 0
        self._position: int | None = None
        self._heads = tuple(_Head() for _ in range(_HEADS))

    def __len__(self) -> int:
        return len(self._samples)

    def advanced(self, position: int, now: float) -> None:
        """WAL ends at *position* now; nothing is noted unless that is news."""
        if position == self._position:
            return
        self._position = position
        for head in self._heads:
            if head.overflow is None and self._count - head.next == self._readable:
                head.overflow = self._samples[head.next]
        self._samples[self._count] = _Sample(position, now)
        self._count += 1
        self._prune()

    def read(self, which: int, position: int, now: float) -> float | None:
        """
        Return how old, in seconds, what a standby has reached is; ``None`` if nothing new can be said.

        :param which: `WRITE`, `FLUSH` or `REPLAY`.
        :param position: what the standby has written, flushed or replayed.
        """
        head = self._heads[which]
        if (aside := head.overflow) is not None and aside.position > position:
            return _age(aside.time, now)
        reached = self._pass(head, position)
        upcoming = self._samples.get(head.next)
        previous = head.last
        if upcoming is None:
            head.last = None  # the standby has all: what comes next is not between this and that
        self._prune()
        if reached is not None:
            return _age(reached.time, now)
        if upcoming is None:
            return None
        if previous is None:
            return _age(upcoming.time, now)
        if position < previous.position or upcoming.time < previous.time:
            return None
        part = (position - previous.position) / (upcoming.position - previous.position)
        return _age(previous.time + (upcoming.time - previous.time) * part, now)

    def _pass(self, head: _Head, position: int) -> _Sample | None:
        """Read all samples up to *position*; return the last of them."""
        reached = None
        if head.overflow is not None:
            reached = head.last = head.overflow
            head.overflow = None
            head.next = self._count - self._readable
        while (sample := self._samples.get(head.next)) is not None and sample.position <= position:
            reached = head.last = sample
            head.next += 1
        return reached

    def _prune(self) -> None:
        """Forget what no head will read."""
        first = self._count - self._readable
        keep = min(first if head.overflow is not None else head.next for head in self._heads)
        for number in range(self._oldest, keep):
            del self._samples[number]
        self._oldest = max(self._oldest, keep)
        if not self._samples:
            self._samples = {}  # a dict that was large stays so


def _age(time: float, now: float) -> float | None:
    """Return how long ago *time* was; ``None`` if the clock has been set back."""
    return now - time if now >= time else None


class StandbyLag:
    """
    The lags of one standby, as ``pg_stat_replication`` shows them.

    :ivar write: seconds; ``None`` if nothing is known, or nothing is to be told; likewise *flush*, *replay*.
    """

    def __init__(self) -> None:
        self.write: float | None = None
        self.flush: float | None = None
        self.replay: float | None = None
        self._tracker = LagTracker()
        self._reported = (0, 0, 0)

    @property
    def settled(self) -> bool:
        """Whether to hear the last report once more would change nothing."""
        return not self._tracker and self.write is self.flush is self.replay is None

    def advanced(self, position: int, now: float) -> None:
        """Everything before *position* may be sent from now on."""
        self._tracker.advanced(position, now)

    def replied(self, write: int, flush: int, replay: int, sent: int, now: float) -> None:
        """
        The standby reports three positions.

        If it has flushed and replayed all that was sent and says nothing else than the last time, it is idle
        and only its status interval has passed: the lags of the last WAL are no news any more.

        :param sent: up to where WAL has been sent.
        """
        read = self._tracker.read
        lags = (read(WRITE, write, now), read(FLUSH, flush, now), read(REPLAY, replay, now))
        reported = (write, flush, replay)
        idle = replay == flush == sent and reported == self._reported
        self._reported = reported
        self.write, self.flush, self.replay = (
            new if new is not None or idle else old
            for new, old in zip(lags, (self.write, self.flush, self.replay), strict=True)
        )
