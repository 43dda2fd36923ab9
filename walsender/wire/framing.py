"""
The byte stream cut into packets and messages, within bounds.

`FrontendBuffer.receive_data` only stores; the caller's state chooses which
parser looks at the bytes next, because the framing itself depends on the state:
packets before authentication have no type byte, and one read may bring the last
of them together with the first typed message.

Invariants: a length that is not allowed is refused when its header is there,
before its body is waited for; what is refused stays in the buffer, so that asking
again gives the same error and never a message from behind it.  A message whose
*body* is bad is taken out before the error is raised, and the next one is readable.
Memory is bounded by the largest length that the caller allows plus what it stores
between two calls.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from walsender.wire.backend import BackendMessage, decode_backend
from walsender.wire.body import decode_text
from walsender.wire.errors import InvalidMessageLength, InvalidPacketLength, UnexpectedMessageType
from walsender.wire.frontend import FrontendMessage, UnknownMessage, decode_frontend

if TYPE_CHECKING:
    from collections.abc import Mapping

_LENGTH: Final = struct.Struct("!i")
_LENGTH_SIZE: Final = _LENGTH.size
_HEADER_SIZE: Final = 1 + _LENGTH_SIZE
_CODE_SIZE: Final = 4

MAX_STARTUP_PACKET: Final = 10_000
"""Longest packet before authentication, without its length word (MAX_STARTUP_PACKET_LENGTH)."""

MAX_SHORT_MESSAGE: Final = 10_000
"""Largest length word of a message with no long content (PostgreSQL's PQ_SMALL_MESSAGE_LIMIT)."""

MAX_COMMAND: Final = 1 << 20
"""Largest length word of a message with a text: PostgreSQL allows 1 GiB, no command needs it."""

MAX_STANDBY_DATA: Final = 64 << 10
"""Largest length word of a CopyData; what standbys send has at most 34 bytes."""

MAX_PASSWORD: Final = 65_535
"""Largest length word of a password (PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH)."""

MAX_SASL: Final = 1024
"""Largest length word of a SASL message (PostgreSQL's PG_MAX_SASL_MESSAGE_LENGTH)."""


@dataclass(frozen=True, slots=True)
class MessageRules:
    """
    Which typed messages a state reads, how long each may be, and what any other is told.

    :ivar limits: type byte → largest value of the length word, which counts itself.
    :ivar otherwise: the limit of all other types, which are read over and come
        out as `UnknownMessage`; ``None``: they are refused by the type byte alone,
        as PostgreSQL does it.
    :ivar refusal: the message of that refusal, with ``{code}`` and ``{character}``.
    """

    limits: Mapping[int, int]
    otherwise: int | None = None
    refusal: str = "invalid frontend message type {code}"

    def limit(self, type_byte: int) -> int:
        """
        Return the largest length word that a message of this type may have.

        :raises UnexpectedMessageType: the type is not read in this state.
        """
        limit = self.limits.get(type_byte, self.otherwise)
        if limit is None:
            character = decode_text(bytes((type_byte,)))
            raise UnexpectedMessageType(self.refusal.format(code=type_byte, character=character), type_byte)
        return limit


COMMAND_MESSAGES: Final = MessageRules(
    dict.fromkeys(b"QPBF", MAX_COMMAND)
    | dict.fromkeys(b"XDECHScf", MAX_SHORT_MESSAGE)
    | {ord("d"): MAX_STANDBY_DATA}
)
"""Between commands.  COPY messages belong here too: late ones are ignored."""

COPY_MESSAGES: Final = MessageRules(
    {ord("d"): MAX_STANDBY_DATA} | dict.fromkeys(b"cX", MAX_SHORT_MESSAGE),
    refusal='invalid standby message type "{character}"',
)
"""While WAL is streamed."""

PASSWORD_MESSAGES: Final = MessageRules(
    {ord("p"): MAX_PASSWORD}, refusal="expected password response, got message type {code}"
)
"""While a password is awaited."""

SASL_MESSAGES: Final = MessageRules(
    {ord("p"): MAX_SASL}, refusal="expected SASL response, got message type {code}"
)
"""While a step of SCRAM is awaited."""


class _Buffer:
    """Bytes received and not yet taken."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        # Taking from the front is cheap: CPython moves the start of a bytearray
        # and copies only when half of it is gone.
        self._bytes = bytearray()

    def receive_data(self, data: bytes) -> None:
        """Store what came; nothing is looked at."""
        self._bytes += data

    @property
    def pending(self) -> int:
        """How many bytes are stored and not yet taken."""
        return len(self._bytes)

    def peek_type(self) -> int | None:
        """Return the first byte that is not yet taken, if there is one; nothing is taken."""
        return self._bytes[0] if self._bytes else None

    def take_all(self) -> bytes:
        """Take everything, whatever it is."""
        data = bytes(self._bytes)
        self._bytes.clear()
        return data

    def _length_word(self, at: int) -> int | None:
        if len(self._bytes) < at + _LENGTH_SIZE:
            return None
        length: int = _LENGTH.unpack_from(self._bytes, at)[0]
        return length

    def _take(self, start: int, end: int) -> bytes | None:
        if len(self._bytes) < end:
            return None
        body = bytes(self._bytes[start:end])
        del self._bytes[:end]
        return body

    def _take_body(self, limit: int) -> bytes | None:
        length = self._length_word(1)
        if length is None:
            return None
        if not _LENGTH_SIZE <= length <= limit:
            raise InvalidMessageLength("invalid message length")
        return self._take(_HEADER_SIZE, 1 + length)


class FrontendBuffer(_Buffer):
    """What a client has sent: packets first, messages later."""

    __slots__ = ()

    def next_packet(self) -> bytes | None:
        """
        Take an untyped packet: ``Int32 length including itself``, then what is returned.

        :returns: at least four bytes for `decode_startup_packet`; ``None``: not yet there.
        :raises InvalidPacketLength: the length is not in 8…10004; close, answer nothing.

        Source: PostgreSQL, src/backend/tcop/backend_startup.c, ProcessStartupPacket.
        """
        length = self._length_word(0)
        if length is None:
            return None
        if not _CODE_SIZE <= length - _LENGTH_SIZE <= MAX_STARTUP_PACKET:
            raise InvalidPacketLength("invalid length of startup packet")
        return self._take(_LENGTH_SIZE, length)

    def next_message(self, rules: MessageRules = COMMAND_MESSAGES) -> FrontendMessage | None:
        """
        Take a typed message: ``Byte1 type, Int32 length including itself, body``.

        :returns: the message; ``None``: not yet there.
        :raises UnexpectedMessageType: *rules* do not know the type (FATAL 08P01).
        :raises InvalidMessageLength: the length is below 4 or beyond the limit of
            the type; close, answer nothing.
        :raises InvalidMessage: the body is bad; the message is taken, the next is readable.

        Source: PostgreSQL, src/backend/tcop/postgres.c, SocketBackend;
        src/backend/libpq/pqcomm.c, pq_getmessage.
        """
        type_byte = self.peek_type()
        if type_byte is None:
            return None
        body = self._take_body(rules.limit(type_byte))
        if body is None:
            return None
        if type_byte not in rules.limits:
            return UnknownMessage(type_byte)
        return decode_frontend(type_byte, body)


class BackendBuffer(_Buffer):
    """What a server has sent, for clients that tests and users write."""

    __slots__ = ()

    def next_message(self, limit: int = 1 << 30) -> BackendMessage | None:
        """
        Take a message.

        :param limit: largest length word that is accepted.
        :returns: the message; ``None``: not yet there.
        :raises InvalidMessageLength: the length is below 4 or beyond *limit*.
        :raises InvalidMessage: the body is bad, or the type is none that a walsender sends.
        """
        type_byte = self.peek_type()
        if type_byte is None:
            return None
        body = self._take_body(limit)
        return None if body is None else decode_backend(type_byte, body)
