"""The time of day, and waiting that does not depend on it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.defer import maybeDeferred
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python import runtime
from twisted.trial.unittest import SynchronousTestCase

from walsender.clocks import time_of_day, wait_steadily
from walsender.replication_slots import ReplicationSlots
from walsender.upstream.outage import Outage

_A_DAY = 86400.0


class TimeOfDayTests(SynchronousTestCase):
    """`time_of_day`."""

    def test_timeOfDayIsThatOfTheSystemWhateverTheReactorWaitsBy(self) -> None:
        """Asyncio's reactor counts from when the machine was started, which no client is to be told."""
        reactor = _asyncio_reactor(self)
        self.patch(reactor, "seconds", lambda: 5.0)
        before = time.time()

        self.assertGreaterEqual(time_of_day(reactor)(), before)

    def test_clockThatIsMovedTellsItsOwnTime(self) -> None:
        """What is simulated has a time of day of its own."""
        clock = Clock()
        clock.advance(3)

        self.assertEqual(time_of_day(clock)(), 3)


class ToldTests(SynchronousTestCase):
    """What users are shown as a time is the time of day."""

    def setUp(self) -> None:
        """Have a reactor that knows no time of day."""
        self.reactor = _asyncio_reactor(self)
        self.patch(self.reactor, "seconds", lambda: 5.0)
        self.before = time.time()

    def test_sinceWhenNothingIsReceived(self) -> None:
        """On the page, in metrics and on the console."""
        outage = Outage(self.reactor)
        self.assertGreaterEqual(outage.now.since, self.before)
        outage.end()
        self.assertGreaterEqual(outage.now.since, self.before)
        outage.begin()
        self.assertGreaterEqual(outage.now.since, self.before)

    def test_sinceWhenASlotIsInactive(self) -> None:
        """``pg_replication_slots.inactive_since``."""
        slots = ReplicationSlots(None, 1, self.reactor, maybeDeferred)
        slots.create("one", 1, temporary=True)
        slots.acquire("one", 1).release()
        (slot,) = slots
        assert slot.inactive_since is not None
        self.assertGreaterEqual(slot.inactive_since, self.before)


class WaitSteadilyTests(SynchronousTestCase):
    """`wait_steadily`."""

    def setUp(self) -> None:
        """Make a reactor that goes by the time of day, as Twisted's do."""
        self.reactor: Any = SelectReactor()
        self.addCleanup(_close, self.reactor)
        self.set_by = 0.0
        system = time.time
        self.patch(ReactorBase, "seconds", staticmethod(lambda: system() + self.set_by))
        self.patch(time, "time", lambda: system() + self.set_by)

    def steady(self) -> None:
        """Have the reactor wait steadily."""
        self.patch(runtime, "seconds", self.reactor.seconds)
        wait_steadily(self.reactor)

    def waits(self) -> float | None:
        """Return how long the reactor sleeps until what is due in a minute, after the clock was set back."""
        self.reactor.callLater(60, lambda: None)
        self.set_by = -_A_DAY
        seconds: float | None = self.reactor.timeout()
        return seconds

    def test_reactorLeftToItselfWaitsLongerWhenTheClockIsSetBack(self) -> None:
        """That is why: were it not so, nothing would have to be done."""
        self.assertGreater(self.waits() or 0, _A_DAY)

    def test_whatWaitsDoesNotWaitLongerWhenTheClockIsSetBack(self) -> None:
        """A minute is a minute."""
        self.steady()

        self.assertLessEqual(self.waits() or 0, 60)

    def test_reactorTellsTheTimeOfDayUntilItIsSet(self) -> None:
        """Whoever else uses the reactor may take its time for that of the day."""
        before = time.time()
        self.steady()

        self.assertGreater(self.reactor.seconds(), before - 1)

    def test_reactorThatHasAClockOfItsOwnKeepsIt(self) -> None:
        """Asyncio's goes on steadily already."""
        reactor = _asyncio_reactor(self)
        own = reactor.seconds
        wait_steadily(reactor)

        self.assertEqual(reactor.seconds, own)


def _asyncio_reactor(case: SynchronousTestCase) -> Any:
    loop = asyncio.new_event_loop()
    case.addCleanup(loop.close)
    reactor = AsyncioSelectorReactor(loop)
    case.addCleanup(_close, reactor)
    return reactor


def _close(reactor: Any) -> None:
    """Close what a reactor has opened when it was made."""
    for reader in reactor.removeAll():
        reader.connectionLost(None)
