"""The modern dialect from the first byte of a connection to its first ReadyForQuery."""

from __future__ import annotations

import struct

from protocol_helpers import (
    kinds,
    parse,
    startup_packet,
)
from startup_helpers import StartupTestCase
from twisted.internet.address import IPv6Address, UNIXAddress

from walsender.sender.states import State

SSL_REQUEST = bytes.fromhex("00000008 04d2162f")


GSSENC_REQUEST = bytes.fromhex("00000008 04d21630")


CANCEL_REQUEST = bytes.fromhex("00000010 04d2162e 00000001 12345678")


NINE = [
    "application_name=",
    "client_encoding=SQL_ASCII",
    "DateStyle=ISO, MDY",
    "integer_datetimes=on",
    "IntervalStyle=postgres",
    "is_superuser=off",
    "server_encoding=SQL_ASCII",
]


AFTER_VERSION = ["session_authorization=postgres", "standard_conforming_strings=on", "TimeZone=UTC"]


SINCE_14 = ["default_transaction_read_only=off", "in_hot_standby=on"]


SINCE_16 = ["scram_iterations=4096"]


SINCE_18 = ['search_path="$user", public']


class GreetingTests(StartupTestCase):
    """What an admitted client gets."""

    def greeting(self, version: int) -> list[str]:
        """Return the reported parameters of a server version, after checking the rest."""
        server = self.server(version)
        messages = parse(server.connect().start())
        self.assertEqual((b"R", b"\0\0\0\0"), messages[0])
        self.assertEqual([b"K", b"Z"], [kind for kind, _ in messages[-2:]])
        (entry,) = server.factory.slot_table
        process_id, key = struct.unpack(">I4s", messages[-2][1])
        self.assertEqual(entry.process_id, process_id)
        self.assertEqual(4, len(key))
        self.assertEqual(b"I", messages[-1][1])
        values = []
        for kind, body in messages[1:-2]:
            self.assertEqual(b"S", kind)
            name, value, rest = body.split(b"\0")
            self.assertEqual(b"", rest)
            values.append(f"{name.decode()}={value.decode()}")
        return values

    def test_parametersOfEveryVersion(self) -> None:
        """Each server version reports its own set, and its own version."""
        self.assertEqual([*NINE, "server_version=9.6.0", *AFTER_VERSION], self.greeting(90600))
        self.assertEqual([*NINE, "server_version=13.0", *AFTER_VERSION], self.greeting(130000))
        self.assertEqual([*NINE, "server_version=14.0", *AFTER_VERSION, *SINCE_14], self.greeting(140000))
        self.assertEqual([*NINE, "server_version=15.0", *AFTER_VERSION, *SINCE_14], self.greeting(150000))
        for version in (160000, 170000):
            self.assertEqual(
                [*NINE, f"server_version={version // 10000}.0", *AFTER_VERSION, *SINCE_14, *SINCE_16],
                self.greeting(version),
            )
        self.assertEqual(
            [*NINE, "server_version=18.0", *AFTER_VERSION, *SINCE_14, *SINCE_16, *SINCE_18],
            self.greeting(180000),
        )

    def test_states(self) -> None:
        """A client that comes in passes three states."""
        client = self.server().started()
        self.assertEqual([State.STARTUP, State.AUTHENTICATION, State.COMMAND], client.states)

    def test_entry(self) -> None:
        """The slot table tells who it is and since when."""
        server = self.server()
        server.reactor.advance(5)
        client = server.connect(IPv6Address("TCP", "::1", 41000))
        client.start(application_name="standby é")
        entry = client.entry
        self.assertEqual(
            ("::1", 41000, "postgres", "standby \\xc3\\xa9", "startup", 946684806.0),
            (entry.address, entry.port, entry.user, entry.application_name, entry.state, entry.started_at),
        )

    def test_unixSocket(self) -> None:
        """A unix socket has no address and no port, and no TCP options are set on it."""
        client = self.server().connect(UNIXAddress(None))
        client.start()
        self.assertEqual(("[local]", -1), (client.entry.address, client.entry.port))
        self.assertEqual({}, client.transport.options)

    def test_tcpOptions(self) -> None:
        """A TCP connection sends small messages at once and notices a dead peer."""
        client = self.server().connect()
        self.assertEqual({"TCP_NODELAY": True, "SO_KEEPALIVE": True}, client.transport.options)

    def test_longApplicationName(self) -> None:
        """A name that is cut is announced before the parameters, and reported as cut."""
        answer = self.server().connect().start(application_name="x" * 70)
        self.assertTrue(kinds(answer).startswith(b"RNS"))
        self.assertIn(b"application_name\0" + b"x" * 63 + b"\0", answer)

    def test_parametersFromOptions(self) -> None:
        """Options are taken, and the packet's own parameters win over them."""
        client = self.server().connect()
        answer = client.start(
            options="-c wal_sender_timeout=5s --application-name=one -c DateStyle=German",
            application_name="two",
        )
        self.assertIn(b"application_name\0two\0", answer)
        self.assertIn(b"DateStyle\0German, DMY\0", answer)
        self.assertIn(b"5s", client.ask("SHOW wal_sender_timeout"))


class ProtocolVersionTests(StartupTestCase):
    """Minor versions and extensions of the protocol."""

    def start(self, minor: int, *extensions: str) -> tuple[bytes | None, int]:
        """Return the body of NegotiateProtocolVersion, if there is one, and the key's length."""
        client = self.server().connect()
        client.send(startup_packet(0x00030000 | minor, **dict.fromkeys(extensions, "1")))
        messages = parse(client.receive())
        self.assertEqual(b"Z", messages[-1][0])
        negotiation = None
        if messages[0][0] == b"v":
            negotiation = messages.pop(0)[1]
        self.assertEqual(b"R", messages[0][0])
        self.assertNotIn(b"v", [kind for kind, _ in messages])
        return negotiation, len(messages[-2][1]) - 4

    def test_versions(self) -> None:
        """Keys are longer from 3.2 on; what is beyond it is negotiated down, once."""
        self.assertEqual((None, 4), self.start(0))
        self.assertEqual((None, 4), self.start(1))
        self.assertEqual((None, 32), self.start(2))
        # the full version word, then the number of unknown options
        self.assertEqual((bytes.fromhex("00030002 00000000"), 32), self.start(3))
        self.assertEqual((bytes.fromhex("00030002 00000000"), 32), self.start(9999))

    def test_extensions(self) -> None:
        """Every unknown extension is listed."""
        self.assertEqual((bytes.fromhex("00030000 00000001") + b"_pq_.foo\0", 4), self.start(0, "_pq_.foo"))
        grease = "_pq_.test_protocol_negotiation"
        expected = bytes.fromhex("00030002 00000002") + f"{grease}\0_pq_.b\0".encode()
        self.assertEqual((expected, 32), self.start(9999, grease, "_pq_.b"))

    def test_unsupportedVersions(self) -> None:
        """Version 4 gets an error, version 2 one in the format of its time."""
        client = self.server().connect()
        client.send(startup_packet(0x00040000))
        text = "unsupported frontend protocol 4.0: server supports 3.0 to 3.2"
        self.assertRefused(client, client.receive(), "0A000", text)
        client = self.server().connect()
        client.send(startup_packet(0x00020000))
        expected = b"EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\0"
        self.assertEqual(expected, client.receive())
        self.assertTrue(client.is_closed)


class EncryptionRequestTests(StartupTestCase):
    """SSLRequest and GSSENCRequest."""

    def test_bothAreDeclined(self) -> None:
        """One byte N each, in either order, and the session goes on."""
        for first, second in ((SSL_REQUEST, GSSENC_REQUEST), (GSSENC_REQUEST, SSL_REQUEST)):
            client = self.server().connect()
            client.send(first)
            self.assertEqual(b"N", client.receive())
            client.send(second)
            self.assertEqual(b"N", client.receive())
            self.assertEqual(b"R", client.start()[:1])

    def test_secondSSLRequest(self) -> None:
        """The same request again is an unknown version."""
        client = self.server().connect()
        client.send(SSL_REQUEST)
        client.receive()
        client.send(SSL_REQUEST)
        text = "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2"
        self.assertRefused(client, client.receive(), "0A000", text)

    def test_bytesBehindTheRequest(self) -> None:
        """What came before the answer was known is an attack: N, then the error."""
        for request, what in ((SSL_REQUEST, "SSL request"), (GSSENC_REQUEST, "GSSAPI encryption request")):
            client = self.server().connect()
            client.send(request + startup_packet())
            answer = client.receive()
            self.assertEqual(b"N", answer[:1])
            self.assertRefused(client, answer[1:], "08P01", f"received unencrypted data after {what}")

    def test_cancelRequest(self) -> None:
        """It is never answered, and takes no place."""
        server = self.server()
        client = server.connect()
        client.send(CANCEL_REQUEST)
        self.assertEqual(b"", client.receive())
        self.assertEqual([State.STARTUP, State.CLOSED], client.states)
        self.assertEqual(0, len(server.factory.slot_table))
