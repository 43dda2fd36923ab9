"""`MemoryServer` and `MemoryConnection`: a server without a network, as other programs' tests use it."""

from __future__ import annotations

import struct

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from walsender.testing import MemoryServer, ScriptedSource, wal_bytes
from walsender.testing.raw_client import startup_packet

START = 1 << 20
STRANGER = IPv4Address("TCP", "192.0.2.1", 40000)


def query(text: str) -> bytes:
    """Return a Query."""
    return b"Q" + struct.pack("!I", len(text) + 5) + text.encode() + b"\0"


class Client(Protocol):
    """Greets, and keeps what it gets."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.reason: Failure | None = None

    def connectionMade(self) -> None:
        """Greet."""
        assert self.transport is not None
        self.transport.write(startup_packet())

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.got += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """Keep that."""
        self.reason = reason


@implementer(IHalfCloseableProtocol)
class SlowClient(Client):
    """Goes on when the server has said its last word."""

    def readConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`."""

    def writeConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`."""


class MemoryConnectionTests(SynchronousTestCase):
    """One connection to a server of a `ScriptedSource`."""

    def setUp(self) -> None:
        """Make the server."""
        self.source = ScriptedSource(START)
        self.addCleanup(self.source.close)
        self.server = MemoryServer(self.source)

    def test_byHand(self) -> None:
        """What is sent is answered at once, and each answer is given once."""
        connection = self.server.connect()
        connection.send(startup_packet())
        self.assertTrue(connection.receive().endswith(b"Z\0\0\0\5I"))
        self.assertEqual(connection.receive(), b"")
        connection.send(query("IDENTIFY_SYSTEM"))
        self.assertIn(b"7300000000000000001", connection.receive())

    def test_stream(self) -> None:
        """A stream of more than a transport takes at once arrives whole, and what is appended follows."""
        client = Client()
        connection = self.server.connect(client)
        self.source.grow(START + 3 * (1 << 20))
        client.got.clear()
        connection.send(query("START_REPLICATION 0/100000"))
        self.assertGreater(len(client.got), 3 << 20)
        self.assertIn(wal_bytes(START + 2 * (1 << 20), START + 2 * (1 << 20) + 4096), bytes(client.got))
        client.got.clear()
        across = b"my own WAL" * 200_000  # from one segment over to the next
        self.source.append(across)
        connection.flush()
        pieces, rest = b"", bytes(client.got)
        while rest:
            (length,) = struct.unpack_from("!I", rest, 1)
            pieces += rest[30 : 1 + length]
            rest = rest[1 + length :]
        self.assertEqual(pieces, across)

    def test_time(self) -> None:
        """A silent client loses the connection after wal_sender_timeout, when the test lets it pass."""
        client = Client()
        connection = self.server.connect(client)
        connection.send(query("START_REPLICATION 0/100000"))
        connection.advance(50)
        self.assertFalse(connection.is_closed)
        connection.advance(20)
        self.assertTrue(connection.is_closed)
        assert client.reason is not None
        client.reason.trap(ConnectionLost)  # nobody has closed it in order
        self.assertEqual(len(self.server.factory.slot_table), 0)

    def test_endByTheClient(self) -> None:
        """A client that closes frees its place, and is told that the connection is done."""
        client = Client()
        connection = self.server.connect(client)
        self.assertEqual(len(self.server.factory.slot_table), 1)
        assert client.transport is not None
        client.transport.loseConnection()
        connection.flush()
        self.assertTrue(connection.is_closed)
        assert client.reason is not None
        client.reason.trap(ConnectionDone)
        self.assertEqual(len(self.server.factory.slot_table), 0)

    def test_endByTheServer(self) -> None:
        """A server that shuts down tells why, and then the connection is over for the client."""
        client = Client()
        connection = self.server.connect(client)
        self.server.factory.shut_down()
        connection.flush()
        self.assertIn(b"57P01", client.got)
        self.assertTrue(connection.is_closed)

    def test_lastWords(self) -> None:
        """A server that has ended a stream with an error waits until the client closes, too."""
        client = SlowClient()
        connection = self.server.connect(client)
        connection.send(query("START_REPLICATION 0/100000"))
        connection.send(b"F\0\0\0\4")
        self.assertIn(b"08P01", client.got)
        self.assertFalse(connection.server.disconnected)
        assert client.transport is not None
        client.transport.loseConnection()
        connection.flush()
        self.assertTrue(connection.is_closed)

    def test_networkIsCut(self) -> None:
        """Both ends lose the connection, not in order."""
        client = Client()
        connection = self.server.connect(client)
        connection.lose()
        assert client.reason is not None
        client.reason.trap(ConnectionLost)
        self.assertTrue(connection.is_closed)

    def test_peer(self) -> None:
        """Who seems to be elsewhere is not let in."""
        connection = self.server.connect(peer=STRANGER)
        connection.send(startup_packet())
        self.assertIn(b"28000", connection.receive())
        self.assertTrue(connection.is_closed)
