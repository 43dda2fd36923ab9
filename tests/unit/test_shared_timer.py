"""`SharedTimer`: one timer of the reactor for thousands of calls."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walsender.shared_timer import ICancellable, SharedTimer


class SharedTimerTests(SynchronousTestCase):
    """When it calls, and what it asks of the reactor."""

    def setUp(self) -> None:
        """A timer, and what it has called."""
        self.clock = Clock()
        self.timer = SharedTimer(self.clock)
        self.called: list[str] = []

    def later(self, delay: float, name: str) -> None:
        """Have *name* called."""
        self.timer.callLater(delay, lambda: self.called.append(name))

    def test_manyShareOneTimer(self) -> None:
        """Calls at nearly the same time are one timer of the reactor, and none is left after them."""
        for number in range(100):
            self.later(30 + number / 1000, str(number))
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.clock.pump([0.5] * 62)
        self.assertEqual(100, len(self.called))
        self.assertEqual([], self.clock.getDelayedCalls())

    @given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 100)), min_size=1))
    def test_neverEarlyAndNotMuchTooLate(self, calls: list[tuple[float, float]]) -> None:
        """Each is called once, after its delay and within a 32nd of it."""
        clock = Clock()
        timer = SharedTimer(clock)
        late: list[float] = []

        def pass_time(until: float) -> None:
            while clock.calls and (at := clock.calls[0].getTime()) <= until:
                clock.rightNow = max(at, clock.rightNow)
                clock.advance(0)
            clock.rightNow = max(until, clock.rightNow)

        def called(due: float, delay: float) -> None:
            late.append((clock.seconds() - due) / delay)

        for wait, delay in calls:
            pass_time(clock.seconds() + wait)
            timer.callLater(delay, partial(called, clock.seconds() + delay, delay))
        pass_time(clock.seconds() + 110)
        self.assertEqual(len(calls), len(late))
        self.assertGreaterEqual(min(late), -0.01)  # a microsecond of a millisecond
        self.assertLessEqual(max(late), 1 / 32)

    def test_anEarlierCall(self) -> None:
        """What is due before all others is called before them."""
        self.later(30, "late")
        self.later(1, "early")
        self.clock.advance(1)
        self.assertEqual(["early"], self.called)
        self.clock.advance(29)
        self.assertEqual(["early", "late"], self.called)

    def test_cancelled(self) -> None:
        """What is cancelled is not called, and the last one takes the reactor's timer with it."""
        kept = self.timer.callLater(10, lambda: self.called.append("kept"))
        gone = self.timer.callLater(5, lambda: self.called.append("gone"))
        gone.cancel()
        gone.cancel()
        self.clock.advance(9)
        self.assertEqual([], self.called)
        kept.cancel()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_cancelledByAnotherOfTheSameMoment(self) -> None:
        """A call may cancel another that is due with it."""
        second: list[ICancellable] = []
        self.timer.callLater(8, lambda: [call.cancel() for call in second])
        second.append(self.timer.callLater(8, lambda: self.called.append("second")))
        self.later(8, "third")
        self.clock.advance(8)
        self.assertEqual(["third"], self.called)

    def test_oneThatFails(self) -> None:
        """A bug in one is logged, and the others are called."""
        self.timer.callLater(8, lambda: 1 // 0)
        self.later(8, "other")
        self.clock.advance(8)
        self.assertEqual(["other"], self.called)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_again(self) -> None:
        """A call may ask to be called again."""

        def again() -> None:
            self.called.append("again")
            if len(self.called) < 3:
                self.timer.callLater(4, again)

        self.timer.callLater(4, again)
        self.clock.pump([4] * 5)
        self.assertEqual(["again"] * 3, self.called)
        self.assertEqual([], self.clock.getDelayedCalls())
