"""Clients that are not let in yet: how long, how many, how much of them is kept."""

from __future__ import annotations

import errno
from functools import partial
from types import SimpleNamespace

from protocol_helpers import (
    LOCAL,
    TERMINATE,
    Client,
    ProtocolTestCase,
    Server,
    error_fields,
    kinds,
    startup_packet,
    status,
)
from twisted.internet.address import IPv4Address
from twisted.logger import formatEvent, globalLogPublisher

from walsender.sender import WalSender, WalSenderFactory
from walsender.sender.states import State
from walsender.source import SegmentUnavailable
from walsender.testing.transport import ThrottledTransport

END = 0x300000


class WaitingTestCase(ProtocolTestCase):
    def server(self, **options: object) -> Server:
        """Return a server with some WAL."""
        return Server(self.scripted_source(END), **options)

    def logged(self) -> list[str]:
        """Return the list that fills with what is logged."""
        lines: list[str] = []

        def observe(event: dict[str, object]) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines


class TimeTests(WaitingTestCase):
    def test_trickledBytesGainNothing(self) -> None:
        """One byte a second does not put off the end: the time counts from the connection."""
        server = self.server(authentication_timeout=30)
        client = server.connect()
        packet = startup_packet(application_name="x" * 200)
        for byte in packet[:29]:
            client.send(bytes((byte,)))
            server.reactor.advance(1)
        self.assertFalse(client.transport.aborted)
        client.send(packet[29:30])
        server.reactor.advance(1)
        self.assertTrue(client.transport.aborted)

    def test_requestsGainNothing(self) -> None:
        """Neither do answers to encryption requests."""
        server = self.server(authentication_timeout=30)
        client = server.connect()
        server.reactor.advance(20)
        client.send(bytes.fromhex("00000008 04d2162f"))
        self.assertEqual(b"N", client.receive())
        server.reactor.advance(10)
        self.assertTrue(client.transport.aborted)

    def test_whoIsInStays(self) -> None:
        """Who has been let in has all the time it wants."""
        server = self.server(authentication_timeout=30)
        client = server.started()
        server.reactor.advance(1000)
        self.assertFalse(client.transport.aborted)
        self.assertEqual(b"TDCZ", kinds(client.ask("IDENTIFY_SYSTEM")))


class NumberTests(WaitingTestCase):
    def flood(self, server: Server, count: int, host: str = "192.0.2.66") -> list[Client]:
        """Return clients that have said nothing; who is driven out is gone before the next one comes."""
        clients: list[Client] = []
        for number in range(count):
            clients.append(server.connect(IPv4Address("TCP", host, 1024 + number)))
            for client in clients[-100:]:
                client.transport.drain()
        return clients

    def test_floodDrivesOutItself(self) -> None:
        """Of two thousand silent clients few are kept; a standby is let in, another streams on."""
        server = self.server(max_wal_senders=10)
        standby = server.streaming(0x100000)
        standby.receive()
        lines = self.logged()
        silent = self.flood(server, 2000)
        kept = [client for client in silent if not client.transport.disconnected]
        self.assertEqual(silent[-42:], kept)  # max_wal_senders + 32
        self.assertEqual(43, len(server.factory._connections))
        self.assertEqual(b"TDCZ", kinds(server.started().ask("IDENTIFY_SYSTEM")))
        server.source.grow(END + 1000)
        self.assertIn(b"d", kinds(standby.receive()))
        (line,) = (line for line in lines if "wait" in line)
        self.assertIn("more than 42 clients wait to be let in", line)
        self.assertIn("192.0.2.66", line)
        self.assertEqual([], [line for line in lines if "timeout" in line])

    def test_oneTurn(self) -> None:
        """Of those who come in one turn no more are taken than descriptors are kept for."""
        server = self.server(max_wal_senders=10)
        peer = IPv4Address("TCP", "192.0.2.66", 1024)
        build = partial(WalSenderFactory.buildProtocol, server.factory, peer)
        clients = [server.connect(peer) for _ in range(42 + 32)]
        self.assertEqual([True] * 32 + [False] * 42, [client.transport.aborted for client in clients])
        self.assertIsNone(build())
        clients[0].transport.drain()
        clients.append(server.connect(peer))
        self.assertIsNone(build())
        for client in clients:
            client.transport.drain()
        self.assertIsNotNone(build())

    def test_fewInATurn(self) -> None:
        """However many have come in the last turn, a port does not take more and more of them."""

        class FromPort(ThrottledTransport):
            server = SimpleNamespace(numberAccepts=100)

        protocol = WalSender(self.server().factory)
        protocol.makeConnection(FromPort(protocol, LOCAL))
        self.assertEqual(1, FromPort.server.numberAccepts)

    def test_fiftyStandbysAtOnce(self) -> None:
        """Fifty standbys behind one address that come back at the same time are all let in."""
        server = self.server(max_wal_senders=50)
        peers = self.flood(server, 50, "127.0.0.1")
        answers = [client.start() for client in peers]
        self.assertEqual({b"Z"}, {kinds(answer)[-1:] for answer in answers})

    def test_whoIsInDoesNotCount(self) -> None:
        """Who has been let in is not driven out, and leaves its place to others."""
        server = self.server(max_wal_senders=40)
        inside = [server.started() for _ in range(40)]
        self.flood(server, 100)
        self.assertEqual([], [client for client in inside if client.transport.aborted])

    def test_allIsFreed(self) -> None:
        """Nothing is left of them."""
        server = self.server(max_wal_senders=1)
        silent = self.flood(server, 50)
        inside = server.started()
        inside.send(TERMINATE)
        for client in (*silent, inside):
            client.transport.drain()
            client.transport.lose()
        self.assertEqual(0, len(server.factory._connections))
        self.assertEqual(0, len(server.factory._waiting))
        self.assertEqual([], server.reactor.getDelayedCalls())

    def test_descriptorsAreKept(self) -> None:
        """So few wait that those who are in find descriptors; too few for them is said at the start."""
        lines = self.logged()
        server = self.server(max_wal_senders=100)
        server.factory.limit_descriptors(10_000)
        self.assertEqual(132, server.factory._waiting.limit)
        self.assertEqual([], lines)
        server.factory.limit_descriptors(500)
        self.assertEqual(36, server.factory._waiting.limit)
        self.assertEqual([], lines)
        server.factory.limit_descriptors(500, 20)
        self.assertEqual(16, server.factory._waiting.limit)
        server.factory.limit_descriptors(256)
        self.assertEqual(8, server.factory._waiting.limit)
        self.assertIn("256 open files are not enough for max_wal_senders = 100: 472 may be needed", lines)


class LogTests(WaitingTestCase):
    def test_linesAreBounded(self) -> None:
        """Of a flood of garbage a hundred lines a minute are logged, and then how many it was."""
        lines = self.logged()
        server = self.server()
        for _ in range(1000):
            client = server.connect()
            client.send(b"\xff" * 100)
            client.receive()
        self.assertEqual(100, len(lines))
        server.reactor.advance(60)
        server.connect().send(b"\xff" * 100)
        self.assertEqual("900 clients more have gone before they were let in", lines[100])
        self.assertEqual(102, len(lines))

    def test_refusalsAreAllLogged(self) -> None:
        """Whoever is refused by name has a line, however many there are: who guesses passwords is seen."""
        lines = self.logged()
        server = self.server()
        for _ in range(150):
            client = server.connect(IPv4Address("TCP", "192.0.2.1", 5))
            self.assertEqual("28000", error_fields(client.start())["C"])
        self.assertEqual(150, len([line for line in lines if "FATAL" in line]))

    def test_whoIsInHasItsLine(self) -> None:
        """The end of a stream is logged whatever others do."""
        server = self.server()
        standby = server.streaming(0x100000)
        for _ in range(200):
            server.connect().send(b"\xff" * 100)
        lines = self.logged()
        standby.transport.deliver_eof()
        self.assertEqual(1, len(lines))


class SizeTests(WaitingTestCase):
    def test_boundedBeforeItIsIn(self) -> None:
        """No length word makes more be kept than the longest packet and one read."""
        client = self.server().connect()
        client.send((10_004).to_bytes(4, "big") + b"\0\3\0\0" + b"a" * 9_995)
        self.assertFalse(client.protocol.is_closed)
        for length in (0, 7, 10_005, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            client = self.server().connect()
            client.send(length.to_bytes(4, "big"))
            self.assertTrue(client.protocol.is_closed, length)
            client.send(b"x" * 100_000)
            self.assertLess(client.protocol._input.pending, 16)


class DescriptorTests(WaitingTestCase):
    def test_noneForASegment(self) -> None:
        """Who needs a segment that cannot be opened is told 53000; who streams already goes on."""
        server = self.server()
        going_on = server.streaming(0x200000)
        going_on.receive()
        error = OSError(errno.EMFILE, "Too many open files")
        server.source.open_error = SegmentUnavailable("000000010000000000000001", 1, error, 0)
        late = server.streaming(0x100000)
        answer = late.receive()
        fields = error_fields(answer)
        self.assertEqual(("ERROR", "53000"), (fields["S"], fields["C"]))
        self.assertEqual(
            'could not open file "pg_wal/000000010000000000000001": Too many open files', fields["M"]
        )
        self.assertTrue(answer.endswith(bytes.fromhex("5a 00000005 49")))
        self.assertIs(State.COMMAND, late.states[-1])
        server.source.grow(END)
        going_on.send(status(END))
        self.assertIs(State.STREAMING, going_on.states[-1])
        server.source.open_error = None
        self.assertIn(b"W", kinds(late.ask("START_REPLICATION 0/100000")))
