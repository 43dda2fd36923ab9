"""
Holes that PostgreSQL and PgBouncer have had, each with the way in that it was.

What each was is said in docs/security.md.  TLS has its own tests of what comes before the handshake.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Any

from gate import PASSWORD, authorizer, final_message, first_message
from protocol_helpers import (
    Client,
    ClockReactor,
    ProtocolTestCase,
    Server,
    error_fields,
    kinds,
    message,
    parse,
    query,
    startup_packet,
)

from walsender.auth import scram
from walsender.auth.scram import ScramExchange, derive_verifier
from walsender.errors import InvalidAuthorization, ProtocolViolation
from walsender.sender.states import State

PBKDF2, DIGEST = hashlib.pbkdf2_hmac, hmac.digest

SSL_REQUEST = struct.pack(">II", 8, 80877103)
GSSENC_REQUEST = struct.pack(">II", 8, 80877104)


def server_first(answer: bytes) -> bytes:
    """Return the data of the AuthenticationSASLContinue in *answer*."""
    (body,) = (body for kind, body in parse(answer) if kind == b"R" and body[:4] == bytes.fromhex("0000000b"))
    return body[4:]


class HoleTestCase(ProtocolTestCase):
    """Connects to a server that asks the users scram and unknown for SCRAM, plain for a password."""

    def setUp(self) -> None:
        """A server."""
        reactor = ClockReactor()
        self.server = Server(self.scripted_source(0x300000), reactor=reactor, authorizer=authorizer(reactor))

    def assertOut(self, client: Client) -> None:
        """Check that the client has not come in, and is gone."""
        self.assertIsNone(client.protocol.session)
        self.assertIs(State.CLOSED, client.states[-1])
        self.assertNotIn(State.COMMAND, client.states)


class BeforeEncryptionTests(HoleTestCase):
    def test_bytesBehindTheRequest(self) -> None:
        """CVE-2021-23214, CVE-2021-3935: what came with the request was taken for what was encrypted."""
        for request, name in ((SSL_REQUEST, "SSL"), (GSSENC_REQUEST, "GSSAPI encryption")):
            client = self.server.connect()
            client.send(request + startup_packet())
            answer = client.receive()
            self.assertEqual(b"N", answer[:1])
            fields = error_fields(answer[1:])
            self.assertEqual(("FATAL", "08P01"), (fields["S"], fields["C"]))
            self.assertEqual(f"received unencrypted data after {name} request", fields["M"])
            self.assertOut(client)

    def test_requestsWithoutEnd(self) -> None:
        """CVE-2026-6479: each request that was declined led one call deeper, until the stack ended."""
        for first, second in ((SSL_REQUEST, GSSENC_REQUEST), (GSSENC_REQUEST, SSL_REQUEST)):
            client = self.server.connect()
            client.send(first)
            client.send(second)
            self.assertEqual(b"NN", client.receive())
            client.send(first)
            answer = client.receive()
            self.assertEqual(b"E", answer[:1])
            self.assertOut(client)


class StartupTests(HoleTestCase):
    def test_secondStartupMessage(self) -> None:
        """CVE-2026-107350: one user's proof, and another user's StartupMessage in the midst of it."""
        for turn in range(2):
            client = self.server.connect()
            client.start(user="scram", database="nowhere")
            if turn:
                client.send(message(b"p", first_message()))
                client.receive()
            client.send(startup_packet(user="postgres"))
            client.receive()
            self.assertOut(client)

    def test_optionWithoutAName(self) -> None:
        """CVE-2026-107349: an empty name was found again and again."""
        for options in ("-c=", "-c =", "--=", "-c", "-c =x -c ==", "\\", "-c \\ =\\ "):
            client = self.server.connect()
            answer = client.start(options=options)
            self.assertIn(kinds(answer)[-1:], {b"E", b"Z"}, options)

    def test_lengthsThatOverflow(self) -> None:
        """CVE-2026-107348, CVE-2026-6664: a length above 2^31 made a loop, or a check pass."""
        for length in (0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFB, 0xFFFFFFFC, 0xFFFFFFFF):
            client = self.server.connect()
            client.send(struct.pack(">I", length) + b"\0\3\0\0user\0scram\0\0")
            self.assertOut(client)
            client = self.server.connect()
            client.start(user="scram")
            client.send(b"p" + struct.pack(">I", length) + first_message())
            self.assertOut(client)
            client = self.server.connect()
            client.start(user="scram")
            client.send(message(b"p", b"SCRAM-SHA-256\0" + struct.pack(">I", length) + b"n,,n=,r=x"))
            if length != 0xFFFFFFFF:  # -1: there is no first message yet
                self.assertOut(client)
            self.assertIsNone(client.protocol.session)


class AuthenticationTests(HoleTestCase):
    def test_commandsBeforeAuthentication(self) -> None:
        """CVE-2026-6667, a command without a check of its own: here all are behind one door."""
        for user in ("scram", "unknown", "plain"):
            for command in (query("IDENTIFY_SYSTEM"), query("START_REPLICATION 0/100000"), message(b"S")):
                client = self.server.connect()
                greeting = client.start(user=user)
                self.assertEqual(b"R", kinds(greeting))
                client.send(command)
                self.assertNotIn(b"D", kinds(client.receive()))
                self.assertOut(client)

    def test_unknownUsersCostTheSame(self) -> None:
        """A user who does not exist is answered by the same messages after the same computations."""
        seen = []
        for user in ("scram", "unknown"):
            calls = self.counted()
            client = self.server.connect()
            answers = [kinds(client.start(user=user))]
            client.send(message(b"p", first_message()))
            answer = client.receive()
            answers.append(kinds(answer))
            first = server_first(answer)
            before = len(calls)
            proof = final_message(first, spoil=1)
            del calls[before:]  # the client's own
            client.send(message(b"p", proof))
            fields = error_fields(client.receive())
            self.assertEqual("28P01", fields["C"])
            seen.append((answers, calls, fields["M"].replace(user, ""), len(first)))
        self.assertEqual(seen[0], seen[1])

    def test_wrongPasswordsCostTheSame(self) -> None:
        """So is one whose password is sent as it is."""
        seen = []
        for user in ("plain", "plain-unknown"):
            calls = self.counted()
            client = self.server.connect()
            client.start(user=user)
            client.send(message(b"p", b"wrong\0"))
            seen.append((calls, error_fields(client.receive())["C"]))
        self.assertEqual(seen[0], seen[1])
        self.assertIn(("pbkdf2", 4096), seen[0][0])

    def counted(self) -> list[object]:
        """Return the list in which each computation is noted from now on."""
        calls: list[object] = []

        def pbkdf2_hmac(name: str, password: Any, salt: Any, rounds: int) -> bytes:
            calls.append(("pbkdf2", rounds))
            return PBKDF2(name, password, salt, rounds)

        def digest(key: Any, data: Any, name: Any) -> bytes:
            calls.append(("hmac", len(key)))
            return DIGEST(key, data, name)

        self.patch(hashlib, "pbkdf2_hmac", pbkdf2_hmac)
        self.patch(scram, "digest", digest)
        return calls

    def test_channelBindingDowngrade(self) -> None:
        """Who was told that there is no channel binding, where there is, has been lied to on the way."""
        verifier = derive_verifier(PASSWORD.encode(), b"salt", 1)
        exchange = ScramExchange(verifier, end_point=b"\1" * 32)
        self.assertEqual(("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"), exchange.mechanisms)
        exchange.select(b"SCRAM-SHA-256")
        self.assertRaises(InvalidAuthorization, exchange.receive, b"y,,n=,r=x")
        exchange = ScramExchange(verifier, end_point=b"\1" * 32)
        exchange.select(b"SCRAM-SHA-256-PLUS")
        self.assertRaises(ProtocolViolation, exchange.receive, b"n,,n=,r=x")
        self.assertRaises(ProtocolViolation, ScramExchange(verifier).select, b"SCRAM-SHA-256-PLUS")
