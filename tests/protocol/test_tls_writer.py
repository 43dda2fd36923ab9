"""
`TlsWriter`: what is sent by it and by Twisted is in order, whatever the socket takes.

The transport below TLS is Twisted's own, moved by hand on a real pair of sockets; the client decrypts.
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

from kernel_consumer_helpers import WritersReactor
from OpenSSL import SSL
from socket_helpers import server_tls
from twisted.internet import tcp
from twisted.internet.protocol import Protocol
from twisted.protocols import tls as twisted_tls
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from walsender.sender.tls_writer import SHARE, TlsWriter, can_encrypt
from walsender.sender.transport_drained import TransportDrained
from walsender.testing.source import wal_bytes
from walsender.testing.transport import ThrottledTransport

if TYPE_CHECKING:
    from collections.abc import Callable


class Reactor(WritersReactor):
    """Watches readers by hand as well."""

    def addReader(self, reader: Any) -> None:
        """See `IReactorFDSet`."""

    def removeReader(self, reader: Any) -> None:
        """See `IReactorFDSet`."""


class Producing:
    """
    Writes message after message while it may.

    :ivar asked: how often it was to begin.
    """

    def __init__(self, messages: list[tuple[bytes, ...]]) -> None:
        self.messages = messages
        self.writer: TlsWriter
        self.asked = 0
        self.paused = True
        self.stopped = False

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self.asked += 1
        self.paused = False
        while self.messages and not (self.paused or self.stopped):
            self.writer.writeSequence(self.messages.pop(0))

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self.paused = True

    def stopProducing(self) -> None:
        """See `IPushProducer`."""
        self.stopped = True


class Waiting(Producing):
    """Waits, when it has written its last message, until all is sent, as a consumer does."""

    def __init__(self, messages: list[tuple[bytes, ...]], drained: Callable[[], object]) -> None:
        super().__init__(messages)
        self._drained = drained

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        writes = bool(self.messages)
        super().resumeProducing()
        if not writes:
            self._drained()
        elif not (self.messages or self.paused):
            self.writer.unregisterProducer()
            waiting = TransportDrained(self._drained, self.stopProducing)  # type: ignore[arg-type]
            self.writer.registerProducer(waiting, False)


class TlsWriterTests(SynchronousTestCase):
    """One connection."""

    def setUp(self) -> None:
        """Connect, and shake hands."""
        self.reactor = Reactor()
        self.patch(twisted_tls, "_get_default_clock", lambda: self.reactor)
        listener = socket.create_server(("127.0.0.1", 0))
        self.socket = socket.create_connection(listener.getsockname())
        ours, address = listener.accept()
        listener.close()
        self.socket.setblocking(False)
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        self.protocol = Protocol()
        self.transport: Any = tcp.Server(ours, self.protocol, address, mock.Mock(), 1, self.reactor)  # type: ignore[arg-type]
        self.protocol.makeConnection(self.transport)
        self.transport.startTLS(server_tls())
        self.client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        self.client.set_connect_state()
        self.received = bytearray()
        self.lost = False
        self.addCleanup(self.socket.close)
        self.addCleanup(self.lose)
        for _ in range(4):
            with contextlib.suppress(SSL.WantReadError):
                self.client.do_handshake()
            self.exchange()

    def lose(self) -> None:
        """End the server's side."""
        if not self.lost:
            self.lost = True
            self.transport.connectionLost(Failure(OSError("test")))

    def turn(self) -> None:
        """Let the reactor go round once."""
        self.reactor.advance(0)
        for writer in list(self.reactor.writers):
            reason = writer.doWrite()
            if reason is not None:
                self.lost = True
                writer.connectionLost(Failure(reason))

    def say(self) -> None:
        """Bring what the client has to say to the server."""
        with contextlib.suppress(SSL.WantReadError):
            self.transport.protocol.dataReceived(self.client.bio_read(1 << 16))

    def listen(self, size: int = 1 << 20) -> bool:
        """Decrypt what has arrived, up to *size* bytes; return whether there was something."""
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            data = b""
        if data:
            self.client.bio_write(data)
        with contextlib.suppress(SSL.WantReadError, SSL.ZeroReturnError):
            while True:
                self.received += self.client.recv(1 << 16)
        return bool(data)

    def exchange(self, size: int = 1 << 20) -> bytes:
        """Go on until nothing moves; return all that the client has decrypted."""
        idle = 0
        while idle < 3:
            if not self.lost:
                self.say()
                self.turn()
            idle = 0 if self.listen(size) else idle + 1
        return bytes(self.received)

    def produce(self, *messages: tuple[bytes, ...]) -> Producing:
        """Let *messages* be written as the transport takes them."""
        producer = Producing(list(messages))
        producer.writer = TlsWriter(self.transport)
        producer.writer.registerProducer(producer, True)  # type: ignore[arg-type]
        producer.resumeProducing()
        return producer

    @staticmethod
    def messages(count: int, size: int = 120 << 10) -> list[tuple[bytes, bytes]]:
        """Return headers and WAL."""
        return [(b"%030d" % number, wal_bytes(number * size, (number + 1) * size)) for number in range(count)]

    def test_whatItIsFor(self) -> None:
        """A server's TCP connection that Twisted has encrypted is; neither others are, nor without TLS."""
        self.assertTrue(can_encrypt(self.transport))
        self.assertFalse(can_encrypt(ThrottledTransport(mock.Mock())))  # type: ignore[arg-type]
        with mock.patch.object(self.transport, "TLS", new=False):
            self.assertFalse(can_encrypt(self.transport))
        with mock.patch.object(self.transport.protocol, "_aggregator", new=None):
            self.assertFalse(can_encrypt(self.transport))

    def test_behindWhatTwistedHolds(self) -> None:
        """What was written before, and is not even encrypted yet, goes first."""
        self.transport.write(b"before")
        messages = self.messages(20)
        self.produce(*messages)
        self.assertTrue(self.exchange() == b"before" + b"".join(map(b"".join, messages)))

    def test_whateverTheSocketTakes(self) -> None:
        """The client gets the same if it reads little at a time, in the middle of records and of messages."""
        messages = [*self.messages(6), (b"small",), *self.messages(3, 5), (b"", b""), *self.messages(3)]
        expected = b"".join(map(b"".join, messages))
        self.produce(*messages)
        self.assertTrue(self.exchange(9973) == expected)

    def test_twistedsOwnWrites(self) -> None:
        """What Twisted has encrypted while the socket was full is behind what was given before."""
        messages = self.messages(40)
        whole = b"".join(map(b"".join, messages))
        producer = self.produce(*messages)
        for _ in range(20):
            self.turn()
        self.assertTrue(producer.paused)
        left = len(b"".join(map(b"".join, producer.messages)))
        self.assertGreater(left, 1 << 20)
        twisted_tls.TLSMemoryBIOProtocol.write(self.transport.protocol, b"of Twisted")
        self.assertTrue(self.exchange() == whole[:-left] + b"of Twisted" + whole[-left:])

    def test_writesAtAnyTime(self) -> None:
        """A keepalive while the socket is full is behind what was given before it."""
        messages = self.messages(40)
        producer = self.produce(*messages)
        self.turn()
        left = len(b"".join(map(b"".join, producer.messages)))
        producer.writer.write(b"keepalive")
        whole = b"".join(map(b"".join, messages))
        self.assertTrue(self.exchange() == whole[:-left] + b"keepalive" + whole[-left:])

    def test_almostAll(self) -> None:
        """A socket that leaves a little gets that before anything else."""
        messages = self.messages(40)
        wire = bytearray()

        def take(data: bytes) -> int:
            wire.extend(data)
            return len(data)

        self.patch(self.transport, "writeSomeData", take)
        producer = self.produce(*messages)
        with mock.patch("os.writev", lambda _, parts: take(b"".join(parts)[:-100])):
            while self.reactor.writers:
                self.turn()
        self.assertEqual([], producer.messages)
        self.client.bio_write(wire)
        self.assertTrue(self.exchange() == b"".join(map(b"".join, messages)))

    def test_whoWaitsUntilAllIsSentIsTold(self) -> None:
        """Wherever the last message ends among those that go to the socket in one call."""
        wire = bytearray()

        def take(data: bytes) -> int:
            wire.extend(data)
            return len(data)

        self.patch(self.transport, "writeSomeData", take)
        expected, drained = b"", []
        with mock.patch("os.writev", lambda _, parts: take(b"".join(parts))):
            for count in range(1, 40):
                messages = self.messages(count)
                expected += b"".join(map(b"".join, messages))
                producer = Waiting(messages, partial(drained.append, count))
                producer.writer = TlsWriter(self.transport)
                producer.writer.registerProducer(producer, True)  # type: ignore[arg-type]
                producer.resumeProducing()
                while self.reactor.writers:
                    self.turn()
                producer.writer.unregisterProducer()
        self.assertEqual(list(range(1, 40)), drained)
        self.client.bio_write(wire)
        self.assertTrue(self.exchange() == expected)

    def test_levelClient(self) -> None:
        """What comes when all was sent goes at once."""
        producer = self.produce(*self.messages(20))
        self.exchange()
        producer.writer.write(b"ours")
        self.assertFalse(producer.paused)
        self.assertTrue(self.exchange().endswith(b"ours"))

    def test_bothWhileLevel(self) -> None:
        """What Twisted has just encrypted is not overtaken."""
        producer = self.produce(*self.messages(20))
        self.exchange()
        twisted_tls.TLSMemoryBIOProtocol.write(self.transport.protocol, b"of Twisted")
        producer.writer.write(b"ours")
        self.assertTrue(self.exchange().endswith(b"of Twistedours"))

    def test_clientThatDoesNotRead(self) -> None:
        """Little waits for it, and nobody is asked for more."""
        producer = self.produce(*self.messages(400))
        for _ in range(50):
            self.turn()
        asked, left = producer.asked, len(producer.messages)
        for _ in range(10):
            self.turn()
        self.assertEqual((asked, left), (producer.asked, len(producer.messages)))
        below = self.transport
        self.assertLess(len(below.dataBuffer) + below._tempDataLen, 1 << 20)

    def test_share(self) -> None:
        """A socket that takes everything gets so much, and then others have their turn."""
        producer = self.produce(*self.messages(100))
        sizes: list[int] = []

        def take(_: int, parts: list[bytes]) -> int:
            sizes.append(sum(map(len, parts)))
            return sizes[-1]

        with mock.patch("os.writev", take):
            while not sizes:
                self.turn()
                self.listen()
        self.assertTrue(producer.paused)
        self.assertLess(len(sizes), 8)
        self.assertTrue(abs(SHARE - sum(sizes)) < 1 << 17)  # a message, or a part
        self.assertLess(self.transport._tempDataLen, 66 << 10)
        self.assertTrue(self.reactor.writers)

    def test_failedCall(self) -> None:
        """A socket that is broken is the transport's business, which meets the same."""
        producer = self.produce(*self.messages(100))
        with mock.patch("os.writev", side_effect=ConnectionResetError()):
            while producer.asked < 3:
                self.turn()
                self.listen()
        messages = self.messages(100)
        self.assertTrue(self.exchange() == b"".join(map(b"".join, messages)))

    def test_goodByeOfIdleClient(self) -> None:
        """A client that says good-bye is answered, and let go, though nothing is to be sent."""
        self.produce((b"all",))
        self.exchange()
        self.client.shutdown()
        self.assertEqual(b"all", self.exchange())
        self.assertTrue(self.client.get_shutdown() & SSL.RECEIVED_SHUTDOWN)
        self.assertTrue(self.lost)

    def test_goodByeInTheMiddle(self) -> None:
        """A client that says good-bye gets whole records until the answer; nothing is produced any more."""
        messages = self.messages(100)
        producer = self.produce(*messages)
        self.turn()
        self.client.shutdown()
        self.say()
        left = len(producer.messages)
        received = self.exchange()
        self.assertTrue(b"".join(map(b"".join, messages)).startswith(received))
        self.assertTrue(self.client.get_shutdown() & SSL.RECEIVED_SHUTDOWN)
        self.assertTrue(self.lost)
        self.assertEqual(left, len(producer.messages))

    def test_writingAfterGoodBye(self) -> None:
        """What cannot be encrypted any more ends the connection, and its producer is paused."""
        producer = self.produce()
        self.exchange()
        self.transport.getHandle().shutdown()
        producer.messages = self.messages(100)
        producer.resumeProducing()
        self.assertEqual(99, len(producer.messages))
        self.exchange()
        self.assertTrue(self.lost)

    def test_handedBack(self) -> None:
        """When the writer has let go, the transport is as before: it says good-bye behind all of it."""
        messages = self.messages(3)
        producer = self.produce(*messages)
        while producer.messages:
            self.turn()
            self.listen()
        producer.writer.unregisterProducer()
        self.transport.write(b"after")
        self.transport.loseConnection()
        self.assertTrue(self.exchange() == b"".join(map(b"".join, messages)) + b"after")
        self.assertTrue(self.client.get_shutdown() & SSL.RECEIVED_SHUTDOWN)

    def let_go_in_mid_turn(self, then: Callable[[], object]) -> None:
        """Give a last message to a writer that is sending, let go of it, and do *then*."""
        producer = self.produce(*self.messages(8))
        self.exchange()
        producer.messages = [(b"last",)]

        def last(message: tuple[bytes, ...]) -> None:
            TlsWriter.writeSequence(producer.writer, message)
            producer.writer.unregisterProducer()
            then()

        self.patch(producer.writer, "writeSequence", last)
        producer.writer.resumeProducing()

    def test_lettingGoInMidTurn(self) -> None:
        """Who lets go while the socket is being written to loses nothing of what was given."""
        self.let_go_in_mid_turn(lambda: self.transport.write(b"after"))
        self.assertTrue(self.exchange().endswith(b"lastafter"))

    def test_abortInMidTurn(self) -> None:
        """Who aborts then sends nothing more."""
        self.let_go_in_mid_turn(self.transport.abortConnection)
        self.turn()
        self.lost = True
        with contextlib.suppress(ConnectionResetError):
            self.listen()
        self.assertFalse(self.received.endswith(b"last"))

    def test_abort(self) -> None:
        """An abort lets go of what the socket has not taken."""
        producer = self.produce(*self.messages(100))
        self.turn()
        producer.writer.unregisterProducer()
        self.transport.abortConnection()
        self.assertEqual([], self.reactor.writers)
        self.turn()
        self.assertTrue(self.transport.disconnected)
        self.lost = True
        messages = b"".join(map(b"".join, self.messages(100)))
        with contextlib.suppress(ConnectionResetError):
            while self.listen():
                pass
        self.assertTrue(messages.startswith(bytes(self.received)))
        self.assertFalse(self.client.get_shutdown() & SSL.RECEIVED_SHUTDOWN)

    def test_lost(self) -> None:
        """Who produces learns that the connection is lost, and a later one at once."""
        producer = self.produce(*self.messages(100))
        self.lose()
        self.assertTrue(producer.stopped)
