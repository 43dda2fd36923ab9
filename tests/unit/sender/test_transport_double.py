"""`ThrottledTransport` behaves as a TCP transport: the tests that use it rest on that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from walsender.testing.transport import ThrottledTransport

if TYPE_CHECKING:
    from twisted.python.failure import Failure


class Listener(Protocol):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """See `Protocol`."""
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `Protocol`."""
        self.reason = reason


@implementer(IHalfCloseableProtocol)
class HalfListener(Listener):
    """Outlives the peer's end."""

    ended = False

    def readConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`."""
        self.ended = True

    def writeConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`."""


class Producer:
    """Counts calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self.calls.append("resume")

    def stopProducing(self) -> None:
        """See `IPushProducer`."""
        self.calls.append("stop")


class ThrottledTransportTests(SynchronousTestCase):
    """One transport, its protocol and a producer."""

    def setUp(self) -> None:
        """Connect."""
        self.protocol = Listener()
        self.transport = ThrottledTransport(self.protocol)
        self.producer = Producer()

    def test_interfaces(self) -> None:
        """It has what it says."""
        for interface in (ITCPTransport, IConsumer, IPushProducer):
            verifyObject(interface, self.transport)

    def test_onlyBytes(self) -> None:
        """What a socket would refuse is refused, in a sequence too."""
        for data in (bytearray(b"x"), memoryview(b"x"), "x"):
            self.assertRaises(TypeError, self.transport.write, data)
            self.assertRaises(TypeError, self.transport.writeSequence, [b"x", data])
        self.assertEqual(b"", self.transport.value())

    def test_pausesInsideEachWrite(self) -> None:
        """Beyond the mark each write pauses again; an empty buffer resumes, once."""
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * self.transport.high_water)
        self.assertEqual([], self.producer.calls)
        self.transport.write(b"x")
        self.transport.write(b"x")
        self.assertEqual(["pause", "pause"], self.producer.calls)
        self.transport.drain(self.transport.buffered - 1)
        self.assertEqual(["pause", "pause"], self.producer.calls)
        self.transport.drain()
        self.transport.drain()
        self.assertEqual(["pause", "pause", "resume"], self.producer.calls)

    def test_pullProducer(self) -> None:
        """It is asked at once, and each time that nothing waits."""
        self.transport.registerProducer(self.producer, False)
        self.assertEqual(["resume"], self.producer.calls)
        self.transport.write(b"x" * (1 << 20))
        self.transport.drain(5)
        self.assertEqual(["resume"], self.producer.calls)
        self.transport.drain()
        self.assertEqual(["resume"] * 2, self.producer.calls)

    def test_oneProducer(self) -> None:
        """A second producer is refused; unregistering is harmless when repeated."""
        self.transport.registerProducer(self.producer, True)
        self.assertRaises(RuntimeError, self.transport.registerProducer, self.producer, True)
        self.transport.unregisterProducer()
        self.transport.unregisterProducer()

    def test_closesWhenAllIsWritten(self) -> None:
        """An orderly close waits for the last byte, and what comes after it is dropped."""
        self.transport.write(b"ab")
        self.transport.loseConnection()
        self.transport.drain(1)
        self.assertIs(None, self.protocol.reason)
        self.assertEqual(b"ab", self.transport.drain_all())
        assert self.protocol.reason is not None
        self.assertTrue(self.protocol.reason.check(ConnectionDone))
        self.transport.write(b"late")
        self.transport.drain()
        self.assertEqual(b"ab", self.transport.value())

    def test_pausedProducerKeepsItOpen(self) -> None:
        """Closing under a paused producer resumes it instead, as on a socket."""
        self.transport.registerProducer(self.producer, True)
        self.transport.write(b"x" * (self.transport.high_water + 1))
        self.transport.loseConnection()
        self.transport.drain()
        self.assertEqual(["pause", "resume"], self.producer.calls)
        self.assertIs(None, self.protocol.reason)

    def test_abort(self) -> None:
        """An abort drops what waits, and is told in the next turn."""
        self.transport.write(b"x")
        self.transport.abortConnection()
        self.transport.abortConnection()
        self.assertIs(None, self.protocol.reason)
        self.assertEqual(b"", self.transport.drain_all())
        assert self.protocol.reason is not None
        self.assertTrue(self.protocol.reason.check(ConnectionAborted))

    def test_lost(self) -> None:
        """The producer is stopped before the protocol is told; later ones at once."""
        self.transport.registerProducer(self.producer, True)
        self.transport.lose()
        self.transport.lose()
        assert self.protocol.reason is not None
        self.assertTrue(self.protocol.reason.check(ConnectionLost))
        self.transport.registerProducer(self.producer, True)
        self.assertEqual(["stop", "stop"], self.producer.calls)

    def test_pausedReading(self) -> None:
        """What arrives while reading is paused waits for the turn after it is resumed."""
        self.transport.deliver(b"a")
        self.transport.pauseProducing()
        self.transport.deliver(b"b")
        self.assertEqual(b"a", self.protocol.data)
        self.transport.resumeProducing()
        self.assertEqual(b"a", self.protocol.data)
        self.transport.drain()
        self.assertEqual(b"ab", self.protocol.data)
        self.transport.stopProducing()
        self.transport.resumeProducing()
        self.transport.deliver(b"c")
        self.assertEqual(b"ab", self.protocol.data)

    def test_peersEnd(self) -> None:
        """A protocol that outlives it is told so, any other has lost its connection."""
        self.transport.deliver_eof()
        assert self.protocol.reason is not None
        self.assertTrue(self.protocol.reason.check(ConnectionDone))
        half = HalfListener()
        ThrottledTransport(half).deliver_eof()
        self.assertTrue(half.ended)
        self.assertIs(None, half.reason)

    def test_options(self) -> None:
        """Socket options are kept."""
        self.transport.setTcpNoDelay(True)
        self.assertEqual((True, False), (self.transport.getTcpNoDelay(), self.transport.getTcpKeepAlive()))
