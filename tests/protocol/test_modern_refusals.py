"""Who does not come in, in the modern dialect."""

from __future__ import annotations

from protocol_helpers import (
    READY,
    TERMINATE,
    error_fields,
    error_response,
    kinds,
    message,
    query,
    startup_packet,
)
from startup_helpers import AUTHENTICATION_OK, StartupTestCase
from twisted.internet.address import IPv4Address, IPv6Address
from zope.interface import implementer

from walsender.auth import ConnectionRequest, IAuthenticationClient, IAuthorizer


@implementer(IAuthorizer)
class NoReplication:
    """Lets everybody in and nobody replicate."""

    async def authenticate(self, request: ConnectionRequest, client: IAuthenticationClient) -> None:
        """See `IAuthorizer`."""

    def may_replicate(self, request: ConnectionRequest) -> bool:
        """See `IAuthorizer`."""
        return False

    def may_administer(self, request: ConnectionRequest) -> bool:
        """See `IAuthorizer`."""
        return False


class RefusalTests(StartupTestCase):
    """Who does not come in."""

    def test_badPackets(self) -> None:
        """An impossible length closes without a word."""
        for packet in ("00000007", "00002715", "ffffffff", "47455420"):
            client = self.server().connect()
            client.send(bytes.fromhex(packet))
            self.assertEqual(b"", client.receive())
            self.assertTrue(client.is_closed)

    def test_badLayout(self) -> None:
        """A packet that does not end where it should is told so."""
        client = self.server().connect()
        client.send(bytes.fromhex("00000008 00030000"))
        text = "invalid startup packet layout: expected terminator as last byte"
        self.assertRefused(client, client.receive(), "08P01", text)

    def test_strangers(self) -> None:
        """Only this machine comes in, by the peer's address."""
        for address, refused in (
            (IPv4Address("TCP", "127.8.9.10", 1), False),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 1), False),
            (IPv4Address("TCP", "10.0.0.1", 1), True),
            (IPv6Address("TCP", "2001:db8::1", 1), True),
            (IPv6Address("TCP", "::ffff:10.0.0.1", 1), True),
        ):
            client = self.server().connect(address)
            answer = client.start()
            if refused:
                text = (
                    "no pg_hba.conf entry for replication connection from host "
                    f'"{address.host.removeprefix("::ffff:")}", '
                    'user "postgres", no encryption'
                )
                self.assertRefused(client, answer, "28000", text)
            else:
                self.assertEqual(b"R", answer[:1])

    def test_noUser(self) -> None:
        """A user name is needed."""
        client = self.server().connect()
        text = "no PostgreSQL user name specified in startup packet"
        self.assertRefused(client, client.start(user=""), "28000", text)

    def test_tooMany(self) -> None:
        """The refusal comes in place of AuthenticationOk, in the words of the version."""
        server = self.server(max_wal_senders=1)
        server.started()
        client = server.connect()
        text = 'number of requested standby connections exceeds "max_wal_senders" (currently 1)'
        self.assertRefused(client, client.start(), "53300", text)
        self.assertEqual(1, len(server.factory.slot_table))

    def test_startingUp(self) -> None:
        """Before there is WAL clients are told to come back."""
        server = self.server()
        server.source.ready = False
        client = server.connect()
        self.assertRefused(client, client.start(), "57P03", "the database system is starting up")

    def test_shuttingDown(self) -> None:
        """While the server stops nobody comes in any more."""
        server = self.server()
        server.started()
        late = server.connect()
        server.factory.stopping = True
        self.assertRefused(late, late.start(), "57P03", "the database system is shutting down")

    def test_mayNotReplicate(self) -> None:
        """The privilege is checked after the parameters, and the place is free again."""
        server = self.server(authorizer=NoReplication())
        client = server.connect()
        answer = client.start()
        self.assertEqual(AUTHENTICATION_OK, answer[:9])
        self.assertRefused(client, answer, "42501", "permission denied to start WAL sender")
        self.assertEqual(0, len(server.factory.slot_table))

    def test_otherSessions(self) -> None:
        """Ordinary and database-bound sessions are not served, and the hint says where they are."""
        for value in ("false", "0", "database"):
            client = self.server().connect()
            answer = client.start(replication=value)
            text = "walsender serves physical replication connections only"
            self.assertRefused(client, answer, "0A000", text)
            self.assertIn("replication=true", error_fields(answer)["H"])

    def test_badReplicationValue(self) -> None:
        """What is no boolean is refused with the possible values."""
        client = self.server().connect()
        expected = error_response(
            S="FATAL",
            V="FATAL",
            C="22023",
            M='invalid value for parameter "replication": "maybe"',
            H='Valid values are: "false", 0, "true", 1, "database".',
        )
        self.assertEqual(expected, client.start(replication="maybe"))

    def test_badParameters(self) -> None:
        """Unknown and impossible parameters are refused after AuthenticationOk, and free the place."""
        server = self.server()
        for parameters, sqlstate, text in (
            ({"nonsense": "1"}, "42704", 'unrecognized configuration parameter "nonsense"'),
            ({"client_encoding": "NO"}, "22023", 'invalid value for parameter "client_encoding": "NO"'),
            ({"server_version": "9"}, "55P02", 'parameter "server_version" cannot be changed'),
            ({"options": "-x"}, "42601", "invalid command-line argument for server process: -x"),
        ):
            client = server.connect()
            answer = client.start(**parameters)
            self.assertEqual(b"RE", kinds(answer))
            self.assertRefused(client, answer, sqlstate, text)
        self.assertEqual(0, len(server.factory.slot_table))


class AuthenticationTimeoutTests(StartupTestCase):
    """A client must come in within authentication_timeout."""

    def test_silentClient(self) -> None:
        """Who has not come in by then is dropped without a word."""
        server = self.server(authentication_timeout=5)
        client = server.connect()
        client.send(startup_packet()[:20])
        server.reactor.advance(4.9)
        self.assertFalse(client.transport.aborted)
        server.reactor.advance(0.2)
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.transport.aborted)
        self.assertTrue(client.is_closed)

    def test_admittedClient(self) -> None:
        """Who is in stays, and leaves no timer."""
        server = self.server(authentication_timeout=5)
        client = server.started()
        self.assertEqual([], server.reactor.getDelayedCalls())
        server.reactor.advance(10)
        self.assertFalse(client.transport.aborted)

    def test_refusedClientThatDoesNotRead(self) -> None:
        """Last words wait ten seconds for their reader."""
        server = self.server()
        client = server.connect()
        client.send(startup_packet(replication="database"))
        server.reactor.advance(9.9)
        self.assertFalse(client.transport.aborted)
        server.reactor.advance(0.2)
        self.assertTrue(client.transport.aborted)
        client.receive()
        self.assertEqual([], server.reactor.getDelayedCalls())

    def test_lostConnections(self) -> None:
        """A connection that is lost in any phase leaves nothing."""
        server = self.server()
        for sent in (b"", startup_packet()[:9], startup_packet(), startup_packet() + query("x") + TERMINATE):
            client = server.connect()
            client.send(sent)
            client.transport.lose()
        self.assertEqual([], server.reactor.getDelayedCalls())
        self.assertEqual(0, len(server.factory.slot_table))
        self.successResultOf(server.factory.shut_down())

    def test_bytesAfterTheEnd(self) -> None:
        """What comes behind a refusal is not looked at."""
        client = self.server().connect()
        client.send(startup_packet(replication="x") + startup_packet(), message(b"Q", b"x\0"))
        self.assertEqual(b"E", kinds(client.receive()))
        self.assertNotIn(READY, client.receive())
