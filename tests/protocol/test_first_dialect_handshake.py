"""
The first walsender's dialect up to its stream, byte for byte.

Expected bytes are written down from the description of the dialect, field by
field; nothing of the code under test makes them.
"""

from __future__ import annotations

from first_dialect_wal import short_wal
from protocol_helpers import (
    LOCAL,
    READY,
    TERMINATE,
    Client,
    ProtocolTestCase,
    Server,
    error_response,
    message,
    query,
    startup_packet,
)
from twisted.internet.address import IPv4Address
from zope.interface import implementer

from walsender.auth import ConnectionRequest, IAuthenticationClient, IAuthorizer
from walsender.sender.connection_log import ConnectionLog
from walsender.sender.states import FIRST, State

AUTHENTICATION_OK = bytes.fromhex("52 00000008 00000000")

# ParameterStatus: S, Int32 length, name, value.
PARAMETERS = (
    b"S\0\0\0\x16application_name\0\0"
    b"S\0\0\0\x1eclient_encoding\0SQL_ASCII\0"
    b"S\0\0\0\x17DateStyle\0ISO, MDY\0"
    b"S\0\0\0\x19integer_datetimes\0on\0"
    b"S\0\0\0\x1bIntervalStyle\0postgres\0"
    b"S\0\0\0\x14is_superuser\0on\0"
    b"S\0\0\0\x1eserver_encoding\0SQL_ASCII\0"
    b"S\0\0\0\x19server_version\x009.0.0\0"
    b"S\0\0\0\x23session_authorization\0postgres\0"
    b"S\0\0\0\x24standard_conforming_strings\0off\0"
    b"S\0\0\0\x11TimeZone\0UTC\0"
)

GREETING = AUTHENTICATION_OK + PARAMETERS + READY  # and no BackendKeyData

IDENTIFIED = (
    # RowDescription: length, 2 fields; each name, table 0, attribute 0, type, length, typmod 0, format 0
    bytes.fromhex("54 0000003c 0002")
    + b"systemid\0"
    + bytes.fromhex("00000000 0000 00000019 ffff 00000000 0000")
    + b"timeline\0"
    + bytes.fromhex("00000000 0000 00000017 0004 00000000 0000")
    # DataRow: length, 2 columns; each length, text
    + bytes.fromhex("44 00000023 0002 00000014")
    + b"18364758544493064720"
    + bytes.fromhex("00000001")
    + b"1"
    # CommandComplete, no count
    + bytes.fromhex("43 0000000b")
    + b"SELECT\0"
    + READY
)

LOST = error_response(S="FATAL", C="08P01", M="unexpected EOF on standby connection")


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


class EntryTests(ProtocolTestCase):
    """From the start-up packet to the first ReadyForQuery."""

    def test_greeting(self) -> None:
        """AuthenticationOk, what 9.0 reports, ReadyForQuery; no key."""
        client = self.first_server(short_wal()).connect()
        self.assertEqual(GREETING, client.start())
        self.assertEqual([State.STARTUP, State.AUTHENTICATION, State.COMMAND], client.states)

    def test_greetingToSplitPacket(self) -> None:
        """The packet may come byte by byte."""
        client = self.first_server(short_wal()).connect()
        client.send(*(bytes((byte,)) for byte in startup_packet()))
        self.assertEqual(GREETING, client.receive())

    def test_encryptionIsDeclined(self) -> None:
        """SSLRequest and GSSENCRequest are answered by one byte N each."""
        client = self.first_server(short_wal()).connect()
        client.send(bytes.fromhex("00000008 04d2162f"))
        self.assertEqual(b"N", client.receive())
        client.send(bytes.fromhex("00000008 04d21630"))
        self.assertEqual(b"N", client.receive())
        self.assertEqual(GREETING, client.start())

    def test_badReplicationValue(self) -> None:
        """What is no boolean is refused before anything else; "database" is none."""
        for value in ("database", "", "o", "2"):
            client = self.first_server(short_wal()).connect()
            refusal = error_response(S="FATAL", C="22023", M='invalid value for boolean option "replication"')
            self.assertEqual(refusal, client.start(replication=value), value)
            self.assertTrue(client.is_closed)

    def test_notAllowedToReplicate(self) -> None:
        """The privilege is checked after the parameters, in place of ReadyForQuery."""
        client = self.first_server(short_wal(), authorizer=NoReplication()).connect()
        refusal = error_response(S="FATAL", C="42501", M="must be superuser to start walsender")
        self.assertEqual(AUTHENTICATION_OK + PARAMETERS + refusal, client.start())
        self.assertTrue(client.is_closed)

    def test_tooManyStandbys(self) -> None:
        """Without a free entry the refusal comes in place of ReadyForQuery; a freed entry is used again."""
        server = self.first_server(short_wal(), max_wal_senders=1)
        first = server.started()
        second = server.connect()
        refusal = error_response(S="FATAL", C="53300", M="sorry, too many standbys already")
        self.assertEqual(AUTHENTICATION_OK + PARAMETERS + refusal, second.start())
        self.assertTrue(second.is_closed)
        first.transport.lose()
        self.assertEqual(GREETING, server.connect().start())

    def test_privilegeComesBeforePlaces(self) -> None:
        """Who may not replicate is told that, even if every place is taken."""
        server = self.first_server(short_wal(), authorizer=NoReplication(), max_wal_senders=0)
        self.assertIn(b"must be superuser", server.connect().start())

    def test_strangersAreRefused(self) -> None:
        """The peer's address decides, before AuthenticationOk."""
        client = self.first_server(short_wal()).connect(IPv4Address("TCP", "192.0.2.1", 5000))
        refusal = error_response(
            S="FATAL",
            C="28000",
            M="no pg_hba.conf entry for replication connection from host "
            '"192.0.2.1", user "postgres", no encryption',
        )
        self.assertEqual(refusal, client.start())
        self.assertEqual([State.STARTUP, State.AUTHENTICATION, State.CLOSED], client.states)


class HandshakeTests(ProtocolTestCase):
    """Messages until replication starts: every error is fatal."""

    def client(self) -> Client:
        """Return a greeted client."""
        self.server: Server = self.first_server(short_wal())
        return self.server.started()

    def assertFatal(self, client: Client, expected: bytes) -> None:
        """Check that *expected* is the last the client gets, and that its place is free again."""
        self.assertEqual(expected, client.receive())
        self.assertTrue(client.is_closed)
        self.assertEqual(0, len(self.server.factory.slot_table))
        self.assertIs(State.CLOSED, client.states[-1])
        self.assertLegalUpTo(client)

    def assertLegalUpTo(self, client: Client) -> None:
        """Check all steps but the one that an error made."""
        self.assertLegal(FIRST, client.states[:-1])

    def test_identifySystem(self) -> None:
        """Two columns, the identifier unsigned, as often as it is asked for."""
        client = self.client()
        self.assertEqual(IDENTIFIED, client.ask("IDENTIFY_SYSTEM"))
        client.send(query("IDENTIFY_SYSTEM") + query("IDENTIFY_SYSTEM"))
        self.assertEqual(IDENTIFIED + IDENTIFIED, client.receive())
        self.assertEqual(State.COMMAND, client.states[-1])

    def test_otherQueries(self) -> None:
        """Any other text is quoted in the refusal."""
        for text in ("identify_system", "IDENTIFY_SYSTEM ", "", "SELECT 1", "START_REPLICATION", "SHOW all"):
            client = self.client()
            client.send(query(text))
            self.assertFatal(
                client, error_response(S="FATAL", C="08P01", M=f"invalid standby query string: {text}")
            )

    def test_queryWithoutNul(self) -> None:
        """A text that does not end is an invalid string."""
        client = self.client()
        client.send(message(b"Q", b"IDENTIFY_SYSTEM"))
        self.assertFatal(client, error_response(S="FATAL", C="08P01", M="invalid string in message"))

    def test_queryWithBytesBehindNul(self) -> None:
        """A text that ends too early is an invalid format."""
        client = self.client()
        client.send(message(b"Q", b"IDENTIFY_SYSTEM\0x"))
        self.assertFatal(client, error_response(S="FATAL", C="08P01", M="invalid message format"))

    def test_terminate(self) -> None:
        """X ends the connection quietly."""
        client = self.client()
        client.send(TERMINATE)
        self.assertFatal(client, b"")
        self.assertLegal(FIRST, client.states)

    def test_otherMessages(self) -> None:
        """Any other type is named by its number."""
        for kind in b"dcfSPp\x00\xff":
            client = self.client()
            client.send(message(bytes((kind,)), b"\0\0\0\0"))
            refusal = error_response(S="FATAL", C="08P01", M=f"invalid standby handshake message type {kind}")
            self.assertFatal(client, refusal)

    def test_nothingIsReadBehindAnError(self) -> None:
        """What comes after the fatal message has no answer."""
        client = self.client()
        client.send(query("x") + query("IDENTIFY_SYSTEM"))
        self.assertFatal(client, error_response(S="FATAL", C="08P01", M="invalid standby query string: x"))


class EndOfFileTests(ProtocolTestCase):
    """The client's end of the connection is closed, or its frames make no sense."""

    def ended(self, sent: bytes) -> tuple[bytes, list[str]]:
        """Return the answer to *sent* and end of file, and what is logged meanwhile."""
        client = self.first_server(short_wal()).started()
        logged: list[str] = []
        self.patch(ConnectionLog, "_log", RecordingLog(logged))
        client.send(sent)
        client.transport.deliver_eof()
        answer = client.receive()
        self.assertTrue(client.is_closed)
        return answer, logged

    def test_betweenMessages(self) -> None:
        """It is an error, logged once."""
        answer, logged = self.ended(b"")
        self.assertEqual(LOST, answer)
        self.assertEqual(["FATAL: unexpected EOF on standby connection"], logged)

    def test_withinLengthWord(self) -> None:
        """What was cut off is logged first."""
        answer, logged = self.ended(b"Q\0\0\0")
        self.assertEqual(LOST, answer)
        self.assertEqual(
            ["unexpected EOF within message length word", "FATAL: unexpected EOF on standby connection"],
            logged,
        )

    def test_withinBody(self) -> None:
        """A message that never arrived is logged first."""
        answer, logged = self.ended(query("IDENTIFY_SYSTEM")[:-1])
        self.assertEqual(LOST, answer)
        self.assertEqual(
            ["incomplete message from client", "FATAL: unexpected EOF on standby connection"], logged
        )

    def test_badLength(self) -> None:
        """An impossible length is logged, and then the connection counts as lost."""
        for length in ("00000003", "ffffffff", "7fffffff"):
            answer, logged = self.ended(b"Q" + bytes.fromhex(length))
            self.assertEqual(LOST, answer)
            self.assertEqual(
                ["FATAL: invalid message length", "FATAL: unexpected EOF on standby connection"], logged
            )

    def test_beforeStartup(self) -> None:
        """Before a start-up packet nothing is said."""
        client = self.first_server(short_wal()).connect()
        client.send(startup_packet()[:7])
        client.transport.deliver_eof()
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.is_closed)


class RecordingLog:
    """Keeps lines without the client's address."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def _keep(self, format: str, **fields: object) -> None:  # noqa: A002 (as Logger)
        text = format.format(**fields)
        self._lines.append(text.removeprefix(f"{LOCAL.host}:{LOCAL.port} postgres").strip())

    debug = info = warn = error = _keep
