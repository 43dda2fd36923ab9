"""
SCRAM-SHA-256, the server's side, without I/O.

A `ScramExchange` is given what the client sends and returns what it is to be told,
or raises.  It runs to the end for a user who does not exist just as for one whose
password is wrong: with the same messages, the same arithmetic and a salt that is the
same each time (`MockSecrets`).

Nothing secret stands in an error, in a `repr` or in a log.  RFC 5802 and 7677; what
a client may get wrong, and how that is put, follows PostgreSQL.

Source: PostgreSQL, src/backend/libpq/auth-scram.c and src/common/scram-common.c.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass
from hmac import compare_digest, digest
from typing import TYPE_CHECKING, Final

from walsender.auth.passwords import ScramVerifier
from walsender.auth.saslprep import prepare_password
from walsender.errors import FeatureNotSupported, InvalidAuthorization, ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable

SCRAM_SHA_256: Final = "SCRAM-SHA-256"
SCRAM_SHA_256_PLUS: Final = "SCRAM-SHA-256-PLUS"
DEFAULT_ITERATIONS: Final = 4096
SALT_SIZE: Final = 16

_HASH: Final = "sha256"
_KEY_SIZE: Final = hashlib.new(_HASH).digest_size
_NONCE_SIZE: Final = 18
_BINDING_HEADER: Final = b"p=tls-server-end-point,,"
_LONGEST_QUOTED: Final = 30
_GRAPHIC: Final = range(0x21, 0x7F)


class UnsupportedScram(FeatureNotSupported, severity="FATAL"):
    """The client asks for a part of SCRAM that nobody here knows."""


def _encode(data: bytes) -> bytes:
    return base64.b64encode(data)


def _decode(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def derive_verifier(password: bytes, salt: bytes, iterations: int = DEFAULT_ITERATIONS) -> ScramVerifier:
    """
    Return the verifier of *password*: milliseconds of computing, by intent.

    :param password: as a client would send it, by custom UTF-8.
    """
    salted = hashlib.pbkdf2_hmac(_HASH, prepare_password(password), salt, iterations)
    stored_key = hashlib.new(_HASH, digest(salted, b"Client Key", _HASH)).digest()
    return ScramVerifier(iterations, salt, stored_key, digest(salted, b"Server Key", _HASH))


def is_password(verifier: ScramVerifier, password: bytes) -> bool:
    """Return whether *verifier* is that of *password*; as long to compute as `derive_verifier`."""
    derived = derive_verifier(password, verifier.salt, verifier.iterations)
    return compare_digest(derived.server_key, verifier.server_key)


def encode_verifier(verifier: ScramVerifier) -> str:
    """Return *verifier* as the text that `ScramVerifier.parse` reads, for an ``auth_file``."""
    salt, stored_key, server_key = (
        _encode(part).decode() for part in (verifier.salt, verifier.stored_key, verifier.server_key)
    )
    return f"{SCRAM_SHA_256}${verifier.iterations}:{salt}${stored_key}:{server_key}"


class MockSecrets:
    """
    Verifiers that nobody can satisfy, for users who do not exist, the same at each try.

    Made from a key that this process makes up at its start and keeps: so the salt that a name is
    shown does not change while the process lives.  The key must not come from anything that has
    passwords in it, since salts are shown to anybody who asks.

    :param key: for tests.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(_KEY_SIZE) if key is None else key

    def salt(self, user: str) -> bytes:
        """Return the salt of the name *user*, if it exists and has a password without one as well."""
        return digest(self._key, user.encode("utf-8", "surrogateescape"), _HASH)[:SALT_SIZE]

    def verifier(self, user: str, iterations: int = DEFAULT_ITERATIONS) -> ScramVerifier:
        """Return a verifier that no password has."""
        return ScramVerifier(iterations, self.salt(user), bytes(_KEY_SIZE), bytes(_KEY_SIZE))


def _malformed(detail: str) -> ProtocolViolation:
    return ProtocolViolation("malformed SCRAM message", detail=detail)


def _quoted_character(text: bytes) -> str:
    """Return the first byte of *text* as messages show it; the end of a text shows as 0x00."""
    code = text[0] if text else 0
    return f"'{chr(code)}'" if code in _GRAPHIC else f"0x{code:02x}"


def _quoted(text: bytes) -> str:
    return "".join(chr(code) if code in _GRAPHIC else "?" for code in text[:_LONGEST_QUOTED])


class _Attributes:
    """
    Takes ``a=value`` after ``a=value`` from a message.

    :ivar rest: what is not taken yet.
    """

    def __init__(self, text: bytes) -> None:
        self.rest = text

    def take(self, name: bytes) -> bytes:
        """Take the value of the attribute *name*, which must be the next."""
        if self.rest[:1] != name:
            found = _quoted_character(self.rest)
            raise _malformed(f'Expected attribute "{name.decode()}" but found "{found}".')
        return self._value()

    def take_any(self) -> tuple[bytes, bytes]:
        """Take the next attribute, whatever it is; return name and value."""
        name = self.rest[:1]
        if not name:
            raise _malformed("Attribute expected, but found end of string.")
        if not name.isalpha():
            found = _quoted_character(name)
            raise _malformed(f'Attribute expected, but found invalid character "{found}".')
        return name, self._value()

    def _value(self) -> bytes:
        if self.rest[1:2] != b"=":
            raise _malformed(f'Expected character "=" for attribute "{self.rest[:1].decode()}".')
        value, _, self.rest = self.rest[2:].partition(b",")
        return value


@dataclass(frozen=True, slots=True)
class ScramStep:
    """
    What to tell the client.

    :ivar done: it is who it says; otherwise its answer is awaited.
    """

    data: bytes
    done: bool = False


class ScramExchange:
    """
    One client's exchange.

    :param verifier: of the user, or of nobody (`MockSecrets`).
    :param doomed: fail at the end, whatever the proof.
    :param end_point: the hash of our certificate for ``tls-server-end-point``; ``None``: no channel binding.
    :param new_nonce: returns our part of the nonce; for tests.
    """

    def __init__(
        self,
        verifier: ScramVerifier,
        *,
        doomed: bool = False,
        end_point: bytes | None = None,
        new_nonce: Callable[[], bytes] = lambda: _encode(secrets.token_bytes(_NONCE_SIZE)),
    ) -> None:
        self._verifier = verifier
        self._doomed = doomed
        self._end_point = end_point
        self._new_nonce = new_nonce
        self._binding = False
        self._flag = b""
        self._nonce = b""
        self._first_bare = b""
        self._server_first = b""

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What to offer, the best first."""
        return (SCRAM_SHA_256,) if self._end_point is None else (SCRAM_SHA_256_PLUS, SCRAM_SHA_256)

    def select(self, mechanism: bytes) -> None:
        """
        Take note of what the client has chosen.

        :raises ProtocolViolation: we do not offer that.
        """
        if mechanism.decode("latin-1") not in self.mechanisms:
            raise ProtocolViolation("client selected an invalid SASL authentication mechanism")
        self._binding = mechanism == SCRAM_SHA_256_PLUS.encode()

    def receive(self, data: bytes | None) -> ScramStep | None:
        """
        Take the client's next message.

        :param data: ``None``: its choice of a mechanism came without a first message.
        :returns: what to tell it; ``None``: it is not who it says.
        :raises WalsenderError: it is not SCRAM, or not as agreed; fatal.
        """
        if data is None:
            return ScramStep(b"")
        if not data:
            raise _malformed("The message is empty.")
        if b"\0" in data:
            raise _malformed("Message length does not match input length.")
        return self._final(data) if self._server_first else ScramStep(self._first(data))

    def _first(self, data: bytes) -> bytes:
        rest = self._after_binding_flag(data)
        if rest[:1] == b"a":
            raise UnsupportedScram("client uses authorization identity, but it is not supported")
        if rest[:1] != b",":
            found = _quoted_character(rest)
            raise _malformed(f'Unexpected attribute "{found}" in client-first-message.')
        self._first_bare = rest[1:]
        if self._first_bare[:1] == b"m":
            raise UnsupportedScram("client requires an unsupported SCRAM extension")
        attributes = _Attributes(self._first_bare)
        attributes.take(b"n")  # the user's name; that of the start-up packet counts
        nonce = attributes.take(b"r")
        if not all(code in _GRAPHIC for code in nonce):
            raise ProtocolViolation("non-printable characters in SCRAM nonce")
        while attributes.rest:
            attributes.take_any()
        self._nonce = nonce + self._new_nonce()
        verifier = self._verifier
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, _encode(verifier.salt), verifier.iterations)
        return self._server_first

    def _after_binding_flag(self, data: bytes) -> bytes:
        self._flag = data[:1]
        if self._flag not in {b"n", b"y", b"p"}:
            raise _malformed(f'Unexpected channel-binding flag "{_quoted_character(data)}".')
        if self._flag == b"p":
            if not self._binding:
                raise _malformed(
                    "The client selected SCRAM-SHA-256 without channel binding, "
                    "but the SCRAM message includes channel binding data."
                )
            attributes = _Attributes(data)
            kind = attributes.take(b"p")
            if kind != b"tls-server-end-point":
                raise ProtocolViolation(f'unsupported SCRAM channel-binding type "{_quoted(kind)}"')
            return attributes.rest
        if self._binding:
            raise _malformed(
                "The client selected SCRAM-SHA-256-PLUS, "
                "but the SCRAM message does not include channel binding data."
            )
        # Somebody between us may have taken the better mechanism out of our offer.  Only if we made it.
        if self._flag == b"y" and self._end_point is not None:
            raise InvalidAuthorization(
                "SCRAM channel binding negotiation error",
                detail=(
                    "The client supports SCRAM channel binding but thinks the server does not.  "
                    "However, this server does support channel binding."
                ),
            )
        if data[1:2] != b",":
            raise _malformed(f'Comma expected, but found character "{_quoted_character(data[1:])}".')
        return data[2:]

    def _final(self, data: bytes) -> ScramStep | None:
        attributes = _Attributes(data)
        self._check_binding(attributes.take(b"c"))
        nonce = attributes.take(b"r")
        name = b""
        before_proof = 0
        while name != b"p":
            before_proof = len(data) - len(attributes.rest) - 1
            name, value = attributes.take_any()
        proof = _decode(value)
        if proof is None or len(proof) != _KEY_SIZE:
            raise _malformed("Malformed proof in client-final-message.")
        if attributes.rest:
            raise _malformed("Garbage found at the end of client-final-message.")
        if nonce != self._nonce:
            raise ProtocolViolation("invalid SCRAM response", detail="Nonce does not match.")
        conversation = b",".join((self._first_bare, self._server_first, data[:before_proof]))
        signature = digest(self._verifier.stored_key, conversation, _HASH)
        client_key = bytes(one ^ other for one, other in zip(proof, signature, strict=True))
        stored_key = hashlib.new(_HASH, client_key).digest()
        server_signature = digest(self._verifier.server_key, conversation, _HASH)
        if not compare_digest(stored_key, self._verifier.stored_key) or self._doomed:
            return None
        return ScramStep(b"v=" + _encode(server_signature), done=True)

    def _check_binding(self, given: bytes) -> None:
        if self._binding:
            assert self._end_point is not None, "offered with an end point only"
            if not compare_digest(given, _encode(_BINDING_HEADER + self._end_point)):
                raise InvalidAuthorization("SCRAM channel binding check failed")
        elif given != _encode(self._flag + b",,"):
            raise ProtocolViolation("unexpected SCRAM channel-binding attribute in client-final-message")
