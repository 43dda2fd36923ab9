"""Replication lag: samples, three heads, interpolation, overflow; and a model with a real ring."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.sender.lag import FLUSH, REPLAY, SAMPLES, WRITE, LagTracker, StandbyLag

HEADS = (WRITE, FLUSH, REPLAY)


class SampleTests(SynchronousTestCase):
    """What one head reads."""

    def test_reached(self) -> None:
        """The lag is the age of the last sample that the position has reached."""
        tracker = LagTracker()
        tracker.advanced(100, 1.0)
        tracker.advanced(200, 2.0)
        tracker.advanced(300, 5.0)
        self.assertEqual(8.0, tracker.read(WRITE, 250, 10.0))

    def test_empty(self) -> None:
        """Without a sample nothing can be said, nor when all have been reached."""
        tracker = LagTracker()
        self.assertIsNone(tracker.read(WRITE, 100, 1.0))
        tracker.advanced(100, 1.0)
        self.assertEqual(0.5, tracker.read(WRITE, 100, 1.5))
        self.assertIsNone(tracker.read(WRITE, 100, 2.0))

    def test_interpolation(self) -> None:
        """A position between the last and the next sample has a time between theirs."""
        tracker = LagTracker()
        tracker.advanced(100, 1.0)
        tracker.advanced(200, 3.0)
        self.assertEqual(9.0, tracker.read(REPLAY, 100, 10.0))
        self.assertEqual(8.5, tracker.read(REPLAY, 125, 10.0))  # 1.0 + 2.0 / 4
        self.assertEqual(18.5, tracker.read(REPLAY, 125, 20.0))

    def test_nothingBefore(self) -> None:
        """Before the first sample is reached, its own age is the best guess."""
        tracker = LagTracker()
        tracker.advanced(100, 1.0)
        self.assertEqual(4.0, tracker.read(REPLAY, 50, 5.0))

    def test_noInterpolationFromLongAgo(self) -> None:
        """A standby that had all was not on its way to what came later."""
        tracker = LagTracker()
        tracker.advanced(100, 1.0)
        tracker.read(REPLAY, 100, 1.0)
        tracker.advanced(200, 1000.0)
        self.assertEqual(1.0, tracker.read(REPLAY, 150, 1001.0))

    def test_positionGoesBack(self) -> None:
        """A position before the last sample that was read says nothing."""
        tracker = LagTracker()
        tracker.advanced(100, 1.0)
        tracker.advanced(200, 2.0)
        tracker.read(WRITE, 100, 3.0)
        self.assertIsNone(tracker.read(WRITE, 99, 4.0))

    def test_clockGoesBack(self) -> None:
        """A lag is never negative."""
        tracker = LagTracker()
        tracker.advanced(100, 10.0)
        tracker.advanced(200, 20.0)
        self.assertIsNone(tracker.read(WRITE, 50, 9.0))
        self.assertIsNone(tracker.read(WRITE, 100, 9.0))
        tracker = LagTracker()
        tracker.advanced(100, 10.0)
        tracker.advanced(200, 5.0)
        self.assertEqual(1.0, tracker.read(WRITE, 100, 11.0))
        self.assertIsNone(tracker.read(WRITE, 150, 12.0))

    def test_onlyNews(self) -> None:
        """The same position again has no sample, and so no younger age."""
        tracker = LagTracker()
        tracker.advanced(100, 1.0)
        tracker.advanced(100, 2.0)
        self.assertEqual(1, len(tracker))
        self.assertEqual(9.0, tracker.read(WRITE, 100, 10.0))

    def test_headsAreIndependent(self) -> None:
        """Each reads every sample; one that all have read is forgotten."""
        tracker = LagTracker()
        tracker.advanced(100, 1.0)
        for head in HEADS:
            self.assertEqual(1, len(tracker))
            self.assertEqual(1.0, tracker.read(head, 100, 2.0))
        self.assertEqual(0, len(tracker))


class OverflowTests(SynchronousTestCase):
    """A full ring: seven samples of eight can be read."""

    def setUp(self) -> None:
        """Write eight, read by one head only."""
        self.tracker = LagTracker(8)
        for number in range(1, 9):
            self.tracker.advanced(number * 100, float(number))
            self.tracker.read(WRITE, number * 100, float(number))

    def test_slowHeadKeepsItsPlace(self) -> None:
        """The lag of the slowest grows with the clock, whatever becomes of the ring."""
        self.assertEqual(8.0, self.tracker.read(REPLAY, 50, 9.0))
        for number in range(9, 100):
            self.tracker.advanced(number * 100, float(number))
        self.assertEqual(99.0, self.tracker.read(REPLAY, 50, 100.0))
        self.assertLessEqual(len(self.tracker), 7)

    def test_goesOnWithTheOldestLeft(self) -> None:
        """When the sample that was set aside is reached, the seven youngest are next."""
        for number in range(9, 21):
            self.tracker.advanced(number * 100, float(number))
        # aside: 100 at 1; left: 1400 at 14 to 2000 at 20
        self.assertEqual(99.0, self.tracker.read(REPLAY, 100, 100.0))
        self.assertEqual(92.5, self.tracker.read(REPLAY, 750, 100.0))  # half way from 100 to 1400
        self.assertEqual(85.0, self.tracker.read(REPLAY, 1500, 100.0))
        self.assertEqual(80.0, self.tracker.read(REPLAY, 2000, 100.0))
        self.assertIsNone(self.tracker.read(REPLAY, 2000, 101.0))

    def test_fastHeadLosesNothing(self) -> None:
        """A head that keeps up reads every sample."""
        self.tracker.advanced(900, 9.0)
        self.assertEqual(1.0, self.tracker.read(WRITE, 900, 10.0))

    def test_capacity(self) -> None:
        """PostgreSQL's ring has 8192 places, and no more is ever kept."""
        tracker = LagTracker()
        for number in range(1, 3 * SAMPLES):
            tracker.advanced(number, float(number))
        self.assertEqual(8191, len(tracker))


class Ring:
    """The same by other means: an array of fixed size, and indexes that go round."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.places: list[tuple[int, float]] = [(0, 0.0)] * size
        self.newest = 0
        self.writer = 0
        self.readers = [0, 0, 0]
        self.passed: list[tuple[int, float] | None] = [None] * 3
        self.aside: list[tuple[int, float]] = [(0, 0.0)] * 3

    def write(self, lsn: int, now: float) -> None:
        """Take a sample."""
        if self.newest == lsn:
            return
        self.newest = lsn
        following = (self.writer + 1) % self.size
        for head in HEADS:
            if following == self.readers[head]:
                self.aside[head] = self.places[self.readers[head]]
                self.readers[head] = -1
        self.places[self.writer] = (lsn, now)
        self.writer = following

    def read(self, head: int, lsn: int, now: float) -> float | None:
        """Return the lag."""
        time = None
        if self.readers[head] == -1:
            if self.aside[head][0] > lsn:
                return now - self.aside[head][1]
            time = self.aside[head][1]
            self.passed[head] = self.aside[head]
            self.readers[head] = (self.writer + 1) % self.size
        while self.readers[head] != self.writer and self.places[self.readers[head]][0] <= lsn:
            self.passed[head] = self.places[self.readers[head]]
            time = self.places[self.readers[head]][1]
            self.readers[head] = (self.readers[head] + 1) % self.size
        if self.readers[head] == self.writer:
            self.passed[head] = None
        if time is not None:
            return now - time
        if self.readers[head] == self.writer:
            return None
        after = self.places[self.readers[head]]
        before = self.passed[head]
        if before is None:
            return now - after[1]
        if lsn < before[0]:
            return None
        return now - (before[1] + (after[1] - before[1]) * ((lsn - before[0]) / (after[0] - before[0])))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 20)),
        st.tuples(st.sampled_from(HEADS), st.integers(0, 250)),
    ),
    max_size=120,
)


class ModelTests(SynchronousTestCase):
    """Against the ring."""

    @settings(max_examples=300)
    @given(st.integers(2, 8), STEPS)
    def test_sameAsTheRing(self, size: int, steps: list[tuple[object, int]]) -> None:
        """Whatever is written and read, both say the same, and never more is kept than is readable."""
        ring, tracker = Ring(size), LagTracker(size)
        end = 0
        for now, (what, number) in enumerate(steps):
            if what == "write":
                if end == 0 and number == 0:
                    continue  # the ring takes 0 for "none yet"
                end += number
                ring.write(end, float(now))
                tracker.advanced(end, float(now))
            else:
                position = min(number, end)
                assert isinstance(what, int)
                self.assertEqual(
                    ring.read(what, position, float(now)), tracker.read(what, position, float(now))
                )
            self.assertLess(len(tracker), size)


class StandbyLagTests(SynchronousTestCase):
    """What is shown of a standby."""

    def shown(self, lag: StandbyLag) -> tuple[float | None, float | None, float | None]:
        """Return all three."""
        return lag.write, lag.flush, lag.replay

    def test_threePositions(self) -> None:
        """Each has its own lag; what is not known anew stays."""
        lag = StandbyLag()
        self.assertEqual((None, None, None), self.shown(lag))
        lag.advanced(100, 1.0)
        lag.replied(100, 0, 0, 100, 2.0)
        self.assertEqual((1.0, 1.0, 1.0), self.shown(lag))
        lag.replied(100, 100, 0, 100, 3.0)
        self.assertEqual((1.0, 2.0, 2.0), self.shown(lag))
        lag.replied(100, 100, 100, 100, 5.0)
        self.assertEqual((1.0, 2.0, 4.0), self.shown(lag))

    def test_clearedWhenIdle(self) -> None:
        """The same reply again from a standby that has all means that nothing happens any more."""
        lag = StandbyLag()
        lag.advanced(100, 1.0)
        lag.replied(100, 100, 100, 100, 2.0)
        self.assertEqual((1.0, 1.0, 1.0), self.shown(lag))
        lag.replied(100, 100, 100, 100, 12.0)
        self.assertEqual((None, None, None), self.shown(lag))

    def test_notClearedWhileBehind(self) -> None:
        """The same reply again from one that has not replayed all says that it hangs."""
        lag = StandbyLag()
        lag.advanced(100, 1.0)
        for now in (2.0, 12.0, 22.0):
            lag.replied(100, 100, 50, 100, now)
        self.assertEqual((1.0, 1.0, 21.0), self.shown(lag))

    def test_notClearedBetweenTwoCommits(self) -> None:
        """Two replies in a row with all that was sent, but not the same, are a busy standby."""
        lag = StandbyLag()
        lag.advanced(100, 1.0)
        lag.replied(100, 100, 100, 100, 1.5)
        lag.advanced(200, 2.0)
        lag.replied(200, 200, 200, 200, 2.25)
        self.assertEqual((0.25, 0.25, 0.25), self.shown(lag))
