"""`ReplyTimeout` by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walsender.reply_timeout import ReplyTimeout


class Watched:
    """A timeout of *timeout* seconds, and when it did what."""

    def __init__(self, timeout: float) -> None:
        self.clock = Clock()
        self.asked: list[float] = []
        self.given_up: list[float] = []
        self.timeout = ReplyTimeout(
            self.clock,
            timeout,
            lambda: self.asked.append(self.clock.seconds()),
            lambda: self.given_up.append(self.clock.seconds()),
        )


class ReplyTimeoutTests(SynchronousTestCase):
    """When it asks and when it gives up."""

    def test_silence(self) -> None:
        """It asks once at half of it and gives up at the end, once."""
        watched = Watched(10)
        watched.clock.pump([1] * 100)
        self.assertEqual(([5], [10]), (watched.asked, watched.given_up))
        self.assertEqual([], watched.clock.getDelayedCalls())

    def test_inputAfterTheQuestion(self) -> None:
        """Input starts it all over."""
        watched = Watched(10)
        watched.clock.pump([1] * 6)
        watched.timeout.reply_received()
        watched.clock.pump([1] * 9)
        self.assertEqual(([5, 11], []), (watched.asked, watched.given_up))
        watched.clock.pump([1] * 10)
        self.assertEqual([16], watched.given_up)

    def test_aTimerThatFiresAMomentTooEarlyIsNotSetAgainForNothing(self) -> None:
        """Sums of times are rounded: what is left then may be less than any clock can tell."""
        for number in range(300):
            watched = Watched(10)
            watched.clock.advance(number / 70)
            watched.timeout.reply_received()
            for _ in range(5):
                for call in watched.clock.calls[:1]:
                    watched.clock.rightNow = call.getTime()
                    watched.clock.calls.remove(call)
                    call.called = 1
                    call.func()
            self.assertEqual((1, 1), (len(watched.asked), len(watched.given_up)))

    def test_stoodStill(self) -> None:
        """What came while this process stood still is read after the timer has fired, and is in time."""
        watched = Watched(10)
        watched.clock.pump([1] * 6)
        watched.clock.advance(100)
        self.assertEqual([], watched.given_up)
        watched.timeout.reply_received()
        watched.clock.pump([1] * 9)
        self.assertEqual([], watched.given_up)

    def test_stoodStillAndHeardNothing(self) -> None:
        """Nor is a peer that is gone waited for again and again: half of the time more, once."""
        watched = Watched(10)
        watched.clock.pump([1] * 6)
        watched.clock.advance(100)
        watched.clock.advance(100)
        self.assertEqual(([5], [206]), (watched.asked, watched.given_up))
        self.assertEqual([], watched.clock.getDelayedCalls())

    def test_stopped(self) -> None:
        """A stopped one does nothing and leaves no timer; stopping is harmless when repeated."""
        watched = Watched(10)
        watched.timeout.stop()
        watched.timeout.stop()
        self.assertEqual([], watched.clock.getDelayedCalls())

    def test_stoppedByTheQuestion(self) -> None:
        """Asking may find the connection lost."""
        clock = Clock()
        timeouts: list[ReplyTimeout] = []

        def ask() -> None:
            timeouts[0].stop()

        timeouts.append(ReplyTimeout(clock, 10, ask, self.fail))
        clock.pump([1] * 20)
        self.assertEqual([], clock.getDelayedCalls())

    def test_zero(self) -> None:
        """0 never asks."""
        watched = Watched(0)
        self.assertEqual([], watched.clock.getDelayedCalls())
        watched.timeout.reply_received()
        watched.timeout.stop()

    @given(st.lists(st.integers(1, 30), max_size=40))
    def test_neverTooEarlyNorTooLate(self, silences: list[int]) -> None:
        """However input is spread: given up exactly when all of the timeout has passed without any."""
        watched = Watched(20)
        last = 0.0
        for silence in silences:
            watched.clock.pump([0.5] * (2 * silence))
            if silence >= 20:
                self.assertEqual([last + 20], watched.given_up)
                self.assertEqual(last + 10, watched.asked[-1])
                return
            self.assertEqual([], watched.given_up)
            asked_since = [time for time in watched.asked if time > last]
            self.assertEqual([last + 10] if silence >= 10 else [], asked_since)
            watched.timeout.reply_received()
            last = watched.clock.seconds()
