"""SCRAM-SHA-256 as the server sees it: the RFC's words, other implementations, and every kind of nonsense."""

from __future__ import annotations

import base64
import hashlib

import scramp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.auth.passwords import ScramVerifier
from walsender.auth.scram import (
    MockSecrets,
    ScramExchange,
    ScramStep,
    derive_verifier,
    encode_verifier,
    is_password,
)
from walsender.errors import WalsenderError

# RFC 7677, section 3: user "user", password "pencil".
RFC_SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
RFC_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
RFC_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
RFC_SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
RFC_WITHOUT_PROOF = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
RFC_PROOF = b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
RFC_SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
VERIFIER = derive_verifier(b"pencil", RFC_SALT)
END_POINT = hashlib.sha256(b"a certificate").digest()
NO_BINDING = "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes"


def exchange(end_point: bytes | None = None, mechanism: bytes = b"SCRAM-SHA-256") -> ScramExchange:
    """Return an exchange with the RFC's user that has chosen a mechanism."""
    made = ScramExchange(VERIFIER, end_point=end_point, new_nonce=lambda: RFC_NONCE)
    made.select(mechanism)
    return made


def final(proof: bytes = RFC_PROOF, without_proof: bytes = RFC_WITHOUT_PROOF) -> bytes:
    """Return a client's last message."""
    return without_proof + b",p=" + proof


def client(password: str, channel_binding: tuple[str, bytes] | None = None) -> scramp.ScramClient:
    """Return the client of scramp."""
    mechanism = "SCRAM-SHA-256" if channel_binding is None else "SCRAM-SHA-256-PLUS"
    return scramp.ScramClient([mechanism], "user", password, channel_binding=channel_binding)


def converse(server: ScramExchange, peer: scramp.ScramClient) -> bool:
    """Return whether the server lets scramp's client in; if so that client has checked the server too."""
    server.select(peer.mechanism_name.encode())
    step = server.receive(peer.get_client_first().encode())
    assert step is not None
    peer.set_server_first(step.data.decode())
    last = server.receive(peer.get_client_final().encode())
    if last is None:
        return False
    peer.set_server_final(last.data.decode())
    return last.done


class RfcTests(SynchronousTestCase):
    """The conversation of RFC 7677."""

    def test_conversation(self) -> None:
        """The RFC's client is answered with the RFC's words, and is in."""
        server = exchange()
        self.assertEqual(server.receive(RFC_FIRST), ScramStep(RFC_SERVER_FIRST))
        self.assertEqual(server.receive(final()), ScramStep(RFC_SERVER_FINAL, done=True))

    def test_withoutInitialResponse(self) -> None:
        """Who names a mechanism only is asked with nothing, and begins then."""
        server = exchange()
        self.assertEqual(server.receive(None), ScramStep(b""))
        self.assertEqual(server.receive(RFC_FIRST), ScramStep(RFC_SERVER_FIRST))

    def test_extensions(self) -> None:
        """Optional extensions are read over in both messages; the proof covers them."""
        server = exchange()
        server.receive(RFC_FIRST + b",x=y")
        self.assertIsNone(server.receive(final(without_proof=RFC_WITHOUT_PROOF + b",z=1")))

    def test_doomed(self) -> None:
        """A user who may not come in fails at the end, even with the right proof."""
        server = ScramExchange(VERIFIER, doomed=True, new_nonce=lambda: RFC_NONCE)
        server.select(b"SCRAM-SHA-256")
        self.assertEqual(server.receive(RFC_FIRST), ScramStep(RFC_SERVER_FIRST))
        self.assertIsNone(server.receive(final()))

    def test_nonceIsNew(self) -> None:
        """Each exchange has a nonce of its own, as long as PostgreSQL's."""
        nonces = set()
        for _ in range(20):
            server = ScramExchange(VERIFIER)
            server.select(b"SCRAM-SHA-256")
            step = server.receive(RFC_FIRST)
            assert step is not None
            nonces.add(step.data.partition(b",")[0])
        self.assertEqual(len(nonces), 20)
        self.assertEqual({len(nonce) for nonce in nonces}, {len(b"r=rOprNGfwEbeRWgbNEkqO") + 24})


class OtherImplementationTests(SynchronousTestCase):
    """scramp's client."""

    # What a client and a server must agree on how to spell: a soft hyphen, a Roman numeral, an exotic blank.
    PASSWORDS = ("pencil", "p w", "I\u00adX", "\u2168", "a\u2003b", "\u00aa", "\u0627\u0628", "Kän\u0308")

    def test_rightPasswords(self) -> None:
        """Any spelling of the right password is let in."""
        for password in self.PASSWORDS:
            verifier = derive_verifier(password.encode(), RFC_SALT, 4096)
            self.assertTrue(converse(ScramExchange(verifier), client(password)), ascii(password))

    def test_wrongPasswords(self) -> None:
        """A wrong password is refused at the end."""
        for password in ("Pencil", "pencil "):
            self.assertFalse(converse(ScramExchange(VERIFIER), client(password)), password)

    def test_channelBinding(self) -> None:
        """With our certificate's hash in the proof the client is in; with another's it is told."""
        server = ScramExchange(VERIFIER, end_point=END_POINT)
        self.assertEqual(server.mechanisms, ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"))
        self.assertTrue(converse(server, client("pencil", ("tls-server-end-point", END_POINT))))
        other = ("tls-server-end-point", bytes(32))
        error = self.assertRaises(
            WalsenderError, converse, ScramExchange(VERIFIER, end_point=END_POINT), client("pencil", other)
        )
        self.assertEqual((error.sqlstate, error.message), ("28000", "SCRAM channel binding check failed"))

    def test_verifiers(self) -> None:
        """The verifier is the one that scramp derives."""
        mechanism = scramp.ScramMechanism("SCRAM-SHA-256")
        for password in self.PASSWORDS:
            _, stored_key, server_key, _ = mechanism.make_auth_info(password, 4096, RFC_SALT)
            ours = derive_verifier(password.encode(), RFC_SALT, 4096)
            self.assertEqual((ours.stored_key, ours.server_key), (stored_key, server_key), ascii(password))


class RefusalTests(SynchronousTestCase):
    """What a client may get wrong, in PostgreSQL's words."""

    MALFORMED = "malformed SCRAM message"

    def check(
        self,
        server: ScramExchange,
        data: bytes,
        message: str,
        detail: str | None = None,
        sqlstate: str = "08P01",
    ) -> None:
        """Check that *data* is refused so."""
        error = self.assertRaises(WalsenderError, server.receive, data)
        self.assertEqual((error.sqlstate, error.message), (sqlstate, message), data)
        self.assertEqual(error.severity, "FATAL")
        if detail is None:
            self.assertIsNone(error.detail)
        else:
            self.assertIn(detail, error.detail or "")

    def test_mechanisms(self) -> None:
        """Only what is offered can be chosen: channel binding needs a certificate."""
        for mechanism in (b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-1", b"", b"\xff", b"scram-sha-256"):
            error = self.assertRaises(WalsenderError, ScramExchange(VERIFIER).select, mechanism)
            self.assertEqual(error.message, "client selected an invalid SASL authentication mechanism")
            self.assertEqual((error.sqlstate, error.severity), ("08P01", "FATAL"))

    def test_firstMessages(self) -> None:
        """Messages that no client may begin with."""
        for data, detail in (
            (b"", "The message is empty."),
            (b"n,,n=,r=x\0", "Message length does not match input length."),
            (b"p=tls-server-end-point,,n=,r=x", NO_BINDING),
            (b"z", "Unexpected channel-binding flag \"'z'\"."),
            (b"\x01", 'Unexpected channel-binding flag "0x01".'),
            (b"n", 'Comma expected, but found character "0x00".'),
            (b"nn", "Comma expected, but found character \"'n'\"."),
            (b"n,x", "Unexpected attribute \"'x'\" in client-first-message."),
            (b"n,,", 'Expected attribute "n" but found "0x00".'),
            (b"n,,r=x", 'Expected attribute "n" but found "\'r\'".'),
            (b"n,,n", 'Expected character "=" for attribute "n".'),
            (b"n,,n=", 'Expected attribute "r" but found "0x00".'),
            (b"n,,n=,r=x,1", "Attribute expected, but found invalid character \"'1'\"."),
            (b"n,,n=,r=x,e", 'Expected character "=" for attribute "e".'),
        ):
            self.check(exchange(), data, self.MALFORMED, detail)
        self.check(exchange(), b"n,,n=,r=\x7f", "non-printable characters in SCRAM nonce")

    def test_unsupported(self) -> None:
        """An authorization identity, or an extension that must be understood."""
        authzid = "client uses authorization identity, but it is not supported"
        self.check(exchange(), b"n,a=me,n=,r=x", authzid, sqlstate="0A000")
        extension = "client requires an unsupported SCRAM extension"
        self.check(exchange(), b"n,,m=x,n=,r=x", extension, sqlstate="0A000")

    def test_channelBindingFlags(self) -> None:
        """The flag must say what the mechanism says; who thinks that we have no binding was lied to."""
        plus = exchange(END_POINT, b"SCRAM-SHA-256-PLUS")
        missing = "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel"
        self.check(plus, b"n,,n=,r=x", self.MALFORMED, missing)
        self.check(plus, b"y,,n=,r=x", self.MALFORMED, missing)
        self.check(plus, b"p=tls-unique,,n=,r=x", 'unsupported SCRAM channel-binding type "tls-unique"')
        self.check(
            plus, b"p=" + b"\x01" * 40 + b",,n=,r=x", f'unsupported SCRAM channel-binding type "{"?" * 30}"'
        )
        self.check(exchange(END_POINT), b"p=tls-server-end-point,,n=,r=x", self.MALFORMED, NO_BINDING)
        downgraded = "The client supports SCRAM channel binding but thinks the server does not."
        error = "SCRAM channel binding negotiation error"
        self.check(exchange(END_POINT), b"y,,n=,r=x", error, downgraded, sqlstate="28000")
        self.assertIsNotNone(exchange(END_POINT).receive(b"n,,n=,r=x"))
        self.assertIsNotNone(exchange().receive(b"y,,n=,r=x"), "where there is no certificate it is right")

    def test_lastMessages(self) -> None:
        """Messages that no client may end with."""
        nonce = RFC_WITHOUT_PROOF[7:]
        for data, detail in (
            (b"", "The message is empty."),
            (b"r=x", 'Expected attribute "c" but found "\'r\'".'),
            (b"c=biws", 'Expected attribute "r" but found "0x00".'),
            (RFC_WITHOUT_PROOF, "Attribute expected, but found end of string."),
            (final(RFC_PROOF[:-4]), "Malformed proof in client-final-message."),
            (final(RFC_PROOF + b"AAAA"), "Malformed proof in client-final-message."),
            (final(b"!" + RFC_PROOF[1:]), "Malformed proof in client-final-message."),
            (final() + b",x=y", "Garbage found at the end of client-final-message."),
        ):
            server = exchange()
            server.receive(RFC_FIRST)
            self.check(server, data, self.MALFORMED, detail)
        for data, message, more in (
            (b"c=eSws," + nonce, "unexpected SCRAM channel-binding attribute in client-final-message", None),
            (b"c=," + nonce, "unexpected SCRAM channel-binding attribute in client-final-message", None),
            (final(without_proof=b"c=biws," + nonce[:-1]), "invalid SCRAM response", "Nonce does not match."),
            (final(without_proof=b"c=biws,r=x"), "invalid SCRAM response", "Nonce does not match."),
        ):
            server = exchange()
            server.receive(RFC_FIRST)
            self.check(server, data, message, more)

    def test_wrongProofs(self) -> None:
        """A proof with any one bit changed is refused, and so is that of another password."""
        proof = base64.b64decode(RFC_PROOF)
        for bit in range(len(proof) * 8):
            wrong = (int.from_bytes(proof) ^ 1 << bit).to_bytes(len(proof))
            server = exchange()
            server.receive(RFC_FIRST)
            self.assertIsNone(server.receive(final(base64.b64encode(wrong))), bit)


class AnyBytesTests(SynchronousTestCase):
    """Whatever a client sends, the answer is a step, a refusal, or a typed error."""

    PIECES = st.sampled_from(
        [b"n,,", b"y,,", b"p=tls-server-end-point,,", b"n=", b"r=", b"c=", b"biws", b"p=", b",", b"=", b"m="]
    )
    MESSAGES = st.binary(max_size=60) | st.lists(PIECES | st.binary(max_size=4), max_size=8).map(b"".join)

    @given(st.lists(st.none() | MESSAGES, max_size=4), st.booleans(), st.booleans())
    @settings(max_examples=500)
    @example([RFC_FIRST, b"c=biws,r=x,p="], False, False)
    def test_anyMessages(self, messages: list[bytes | None], certificate: bool, plus: bool) -> None:
        """Only typed errors, and nobody is let in by chance."""
        server = ScramExchange(VERIFIER, end_point=END_POINT if certificate else None)
        try:
            server.select(b"SCRAM-SHA-256-PLUS" if plus else b"SCRAM-SHA-256")
            for message in messages:
                step = server.receive(message)
                if step is None:
                    break
                self.assertFalse(step.done)
        except WalsenderError as error:
            self.assertEqual(error.severity, "FATAL")

    @given(st.binary(max_size=80))
    def test_anyLastMessage(self, data: bytes) -> None:
        """The same of what follows the first message."""
        server = exchange()
        server.receive(RFC_FIRST)
        try:
            step = server.receive(RFC_WITHOUT_PROOF + b",p=" + data)
        except WalsenderError as error:
            self.assertEqual(error.sqlstate, "08P01")
        else:
            self.assertTrue(step is None or data == RFC_PROOF)


class MockTests(SynchronousTestCase):
    """Users who do not exist."""

    def test_saltIsStable(self) -> None:
        """A name is shown the same salt each time, and another name another one; another process differs."""
        mock = MockSecrets()
        self.assertEqual(mock.verifier("nobody").salt, mock.verifier("nobody").salt)
        self.assertNotEqual(mock.verifier("nobody").salt, mock.verifier("nobody2").salt)
        self.assertNotEqual(mock.salt("nobody"), MockSecrets().salt("nobody"))
        self.assertEqual(len(mock.salt("\udcff")), len(RFC_SALT))

    def test_nobodyComesIn(self) -> None:
        """A mock verifier is shown like a real one, and no password satisfies it."""
        verifier = MockSecrets(b"key").verifier("user")
        self.assertEqual(verifier.iterations, 4096)
        for password in ("pencil", "x"):
            self.assertFalse(converse(ScramExchange(verifier), client(password)))
            self.assertFalse(is_password(verifier, password.encode()))


class VerifierTests(SynchronousTestCase):
    """What is stored."""

    def test_text(self) -> None:
        """A verifier is written as it is read."""
        text = encode_verifier(VERIFIER)
        self.assertTrue(text.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"))
        self.assertEqual(ScramVerifier.parse(text), VERIFIER)

    def test_passwords(self) -> None:
        """The right password is known from any other."""
        self.assertTrue(is_password(VERIFIER, b"pencil"))
        self.assertFalse(is_password(VERIFIER, b"pencil "))
        self.assertFalse(is_password(VERIFIER, b""))
