"""Sockets of idle streams: who watches them when, and that nothing is left behind."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any
from unittest import mock

from descriptor_helpers import open_descriptors, watch_descriptors
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walsender.sender.idle_sockets import INTERVAL, IdleSocket, IdleSockets

if TYPE_CHECKING:
    from collections.abc import Callable


class Reading:
    """
    A transport's reading side on a real socket, and who is given what is read.

    :ivar reading: whether the reactor watches it.
    :ivar received: what was read.
    :ivar then: is called after each read, as the stream would be.
    """

    def __init__(self, handle: socket.socket, then: Callable[[], object]) -> None:
        self.handle = handle
        self.then = then
        self.reading = True
        self.aborted = False
        self.received = b""
        self.reads = 0

    def getHandle(self) -> socket.socket:
        """See `ISystemHandle`."""
        return self.handle

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self.reading = False

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self.reading = True

    def abortConnection(self) -> None:
        """See `ITCPTransport`."""
        self.aborted = True

    def dataReceived(self, data: bytes) -> None:
        """See `IProtocol`."""
        self.reads += 1
        self.received += data
        self.then()


class Repetition:
    """
    Knows one report.

    :ivar heard_at: when it came again.
    """

    def __init__(self, report: bytes) -> None:
        self._report = report
        self.heard_at: list[float] = []

    def heard(self, data: bytes, now: float) -> bool:
        """See `IRepetition`."""
        if data == self._report:
            self.heard_at.append(now)
        return data == self._report


class IdleSocketsTests(SynchronousTestCase):
    """With a clock in the place of the reactor."""

    def setUp(self) -> None:
        """Two sockets, and the other ends."""
        self.clock = Clock()
        self.worth_it = True
        self.all = IdleSockets(self.clock, lambda: self.worth_it)
        self.before = watch_descriptors(self)
        self.transports: list[Reading] = []
        self.peers: list[socket.socket] = []
        self.idle: list[IdleSocket] = []
        for number in range(2):
            ours, theirs = socket.socketpair()
            self.addCleanup(ours.close)
            self.addCleanup(theirs.close)
            transport: Any = Reading(ours, lambda number=number: self.idle[number].rest())
            self.transports.append(transport)
            self.peers.append(theirs)
            self.idle.append(IdleSocket(transport, transport.dataReceived, self.all))

    def rest(self) -> None:
        """Let both rest."""
        for idle in self.idle:
            idle.rest()

    def assertAwake(self, *awake: bool) -> None:
        """Check which of the two the reactor watches, and that the others rest."""
        self.assertEqual(list(awake), [transport.reading for transport in self.transports])
        self.assertEqual(awake.count(False), len(self.all))

    def assertNothingLeft(self) -> None:
        """Check that there is no epoll and no timer."""
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(4, len(open_descriptors() - self.before))

    def test_readTogether(self) -> None:
        """What comes is read when the interval is over, of both, and both rest on."""
        self.rest()
        for peer in self.peers:
            peer.send(b"report")
        self.assertEqual(b"", self.transports[0].received)
        self.clock.advance(INTERVAL)
        self.assertEqual([b"report"] * 2, [transport.received for transport in self.transports])
        self.assertAwake(False, False)
        self.peers[1].send(b"more")
        self.clock.advance(INTERVAL)
        self.assertEqual(b"reportmore", self.transports[1].received)

    def test_somethingElse(self) -> None:
        """Who is not said to be idle after what has come is the reactor's again."""
        self.rest()
        self.transports[0].then = bool
        for peer in self.peers:
            peer.send(b"news")
        self.clock.advance(INTERVAL)
        self.assertAwake(True, False)

    def test_ends(self) -> None:
        """A closed and a half closed connection are the reactor's, unread."""
        self.rest()
        self.peers[0].send(b"last words")
        self.peers[0].shutdown(socket.SHUT_RDWR)
        self.peers[1].shutdown(socket.SHUT_WR)
        self.clock.advance(INTERVAL)
        self.assertAwake(True, True)
        self.assertEqual([0, 0], [transport.reads for transport in self.transports])
        self.assertNothingLeft()

    def test_notWorthIt(self) -> None:
        """Where there are few clients nothing rests."""
        self.worth_it = False
        self.rest()
        self.assertAwake(True, True)
        self.assertNothingLeft()

    def test_noDescriptors(self) -> None:
        """Where no descriptor is left for it nothing rests."""
        with mock.patch("select.epoll", side_effect=OSError(24, "Too many open files")):
            self.rest()
        self.assertAwake(True, True)
        self.assertNothingLeft()

    def test_refused(self) -> None:
        """A descriptor that cannot be watched does not rest, and nothing is left of the attempt."""
        handle = self.transports[0].handle
        os.close(handle.fileno())
        self.idle[0].rest()
        handle.detach()
        self.assertAwake(True, True)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_expecting(self) -> None:
        """Who has been sent something is awake in the next turn, not in this one."""
        self.rest()
        self.idle[0].expect_input()
        self.idle[0].expect_input()
        self.assertAwake(False, False)
        self.clock.advance(0)
        self.assertAwake(True, False)

    def test_expectingAwake(self) -> None:
        """Who is awake costs no call."""
        self.idle[0].expect_input()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_nothingLeft(self) -> None:
        """When the last one wakes epoll and timer go, and come again with the next."""
        for _ in range(2):
            self.rest()
            self.idle[0].wake()
            self.assertEqual(1, len(self.clock.getDelayedCalls()))
            self.idle[1].wake()
            self.idle[1].wake()
            self.assertAwake(True, True)
            self.assertNothingLeft()

    def test_restsAgain(self) -> None:
        """Who has been woken can rest again."""
        self.rest()
        self.idle[0].wake()
        self.assertAwake(True, False)
        self.idle[0].rest()
        self.assertAwake(False, False)

    def test_closedBefore(self) -> None:
        """A socket that was closed while it rested leaves nothing, and a new one of its number is heard."""
        self.rest()
        number = self.transports[0].handle.fileno()
        self.transports[0].handle.close()
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        if ours.fileno() != number:
            ours = socket.socket(fileno=os.dup2(ours.detach(), number))
        self.addCleanup(ours.close)
        self.idle[0].wake()
        transport: Any = Reading(ours, bool)
        IdleSocket(transport, transport.dataReceived, self.all).rest()
        theirs.send(b"new")
        self.clock.advance(INTERVAL)
        self.assertEqual((b"new", b""), (transport.received, self.transports[0].received))

    def repeating(self) -> Repetition:
        """Return what the first takes when it comes again."""
        repetition = Repetition(b"again")
        self.idle[0].rest(repetition)
        return repetition

    def test_repetition(self) -> None:
        """What comes again goes to who knows it, with the time, and to nobody else, as often as it comes."""
        repetition = self.repeating()
        for _ in range(2):
            self.peers[0].send(b"again")
            self.clock.advance(INTERVAL)
        self.assertEqual([INTERVAL, 2 * INTERVAL], repetition.heard_at)
        self.assertEqual(0, self.transports[0].reads)
        self.assertAwake(False, True)

    def test_noRepetition(self) -> None:
        """Behind anything else it is input as any other, for it may be the rest of something longer."""
        repetition = self.repeating()
        for data in (b"else", b"again"):
            self.peers[0].send(data)
            self.clock.advance(INTERVAL)
        self.assertEqual([], repetition.heard_at)
        self.assertEqual(b"elseagain", self.transports[0].received)

    def test_expectAnother(self) -> None:
        """When told so, it is input as any other."""
        repetition = self.repeating()
        self.idle[0].expect_another()
        self.peers[0].send(b"again")
        self.clock.advance(INTERVAL)
        self.assertEqual(([], b"again"), (repetition.heard_at, self.transports[0].received))
        self.assertAwake(False, True)

    def test_notWhatWasKnownBeforeItWoke(self) -> None:
        """Who rests anew knows no report of before."""
        repetition = self.repeating()
        self.idle[0].wake()
        self.idle[0].rest()
        self.peers[0].send(b"again")
        self.clock.advance(INTERVAL)
        self.assertEqual(([], b"again"), (repetition.heard_at, self.transports[0].received))

    def test_much(self) -> None:
        """Of much input the rest is the reactor's."""
        self.rest()
        self.peers[0].send(bytes(300))
        self.clock.advance(INTERVAL)
        self.assertEqual(256, len(self.transports[0].received))
        self.assertAwake(True, False)

    def test_endedByAnother(self) -> None:
        """If hearing one ends the other, that one is not read."""
        self.rest()
        for number in range(2):
            self.transports[number].then = self.idle[1 - number].wake
            self.peers[number].send(b"both")
        self.clock.advance(INTERVAL)
        self.assertEqual([b"", b"both"], sorted(transport.received for transport in self.transports))
        self.assertNothingLeft()

    def test_mistake(self) -> None:
        """A mistake ends that connection, is logged, and the others are heard."""

        def fail() -> None:
            raise ZeroDivisionError

        self.rest()
        self.transports[0].then = fail
        for peer in self.peers:
            peer.send(b"report")
        self.clock.advance(INTERVAL)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual([True, False], [transport.aborted for transport in self.transports])
        self.assertEqual(b"report", self.transports[1].received)
        self.clock.advance(INTERVAL)
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
