"""
The typed messages that clients send, each with its wire layout.

What is in a message is looked at only as far as a walsender needs it: the
extended query protocol is always refused, so its bodies stay bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from walsender.wire.body import BodyReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HEADER: Final = struct.Struct("!Bi")


def frame(type_byte: int, body: bytes) -> bytes:
    """Return a typed message: ``Byte1 type, Int32 length of itself and the body, body``."""
    return _HEADER.pack(type_byte, len(body) + 4) + body


@dataclass(frozen=True, slots=True)
class Query:
    """``Q``, String: a command; the text without its NUL."""

    type_byte: ClassVar[int] = ord("Q")
    text: bytes

    def encode(self) -> bytes:
        """
        Return the message's bytes.

        :raises ValueError: the text contains a NUL.
        """
        if b"\0" in self.text:
            raise ValueError("a query cannot contain NUL")
        return frame(self.type_byte, self.text + b"\0")


@dataclass(frozen=True, slots=True)
class CopyData:
    """``d``, bytes: a piece of the COPY stream; of both sides."""

    type_byte: ClassVar[int] = ord("d")
    data: bytes

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, self.data)


@dataclass(frozen=True, slots=True)
class CopyDone:
    """``c``: the sender's half of COPY has ended; of both sides."""

    type_byte: ClassVar[int] = ord("c")

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, b"")


@dataclass(frozen=True, slots=True)
class CopyFail:
    """``f``, String: the client gives up its half of COPY; *message* says why."""

    type_byte: ClassVar[int] = ord("f")
    message: bytes

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, self.message + b"\0")


@dataclass(frozen=True, slots=True)
class Terminate:
    """``X``: the client says good-bye."""

    type_byte: ClassVar[int] = ord("X")

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, b"")


@dataclass(frozen=True, slots=True)
class PasswordMessage:
    """``p``, bytes: the answer to an authentication request; the request says how to read it."""

    type_byte: ClassVar[int] = ord("p")
    data: bytes

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, self.data)


@dataclass(frozen=True, slots=True)
class Sync:
    """``S``: the client wants a ReadyForQuery."""

    type_byte: ClassVar[int] = ord("S")

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, b"")


@dataclass(frozen=True, slots=True)
class Flush:
    """``H``: the client wants what is pending."""

    type_byte: ClassVar[int] = ord("H")

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, b"")


@dataclass(frozen=True, slots=True)
class ExtendedQuery:
    """
    ``P``, ``B``, ``D``, ``E`` or ``C``: Parse, Bind, Describe, Execute, Close.

    :ivar type_byte: which of them.
    :ivar body: as it came; a walsender refuses the message before reading it.
    """

    type_byte: int
    body: bytes

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, self.body)


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """``F``, bytes: the fast path; refused before its body is read."""

    type_byte: ClassVar[int] = ord("F")
    body: bytes

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, self.body)


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """A well-framed message of a type that the state does not read; its body is dropped."""

    type_byte: int


FrontendMessage: TypeAlias = (
    Query
    | CopyData
    | CopyDone
    | CopyFail
    | Terminate
    | PasswordMessage
    | Sync
    | Flush
    | ExtendedQuery
    | FunctionCall
    | UnknownMessage
)


def _decode_query(body: bytes) -> Query:
    reader = BodyReader(body)
    text = reader.string()
    reader.end()
    return Query(text)


def _decode_sync(body: bytes) -> Sync:
    BodyReader(body).end()
    return Sync()


def _decode_flush(body: bytes) -> Flush:
    BodyReader(body).end()
    return Flush()


# PostgreSQL reads the bodies of CopyDone, CopyFail and Terminate nowhere in a
# physical walsender: junk in them is no error, seen on 15 and 18.
_DECODERS: Final[Mapping[int, Callable[[bytes], FrontendMessage]]] = {
    Query.type_byte: _decode_query,
    CopyData.type_byte: CopyData,
    CopyDone.type_byte: lambda _body: CopyDone(),
    CopyFail.type_byte: lambda body: CopyFail(body.partition(b"\0")[0]),
    Terminate.type_byte: lambda _body: Terminate(),
    PasswordMessage.type_byte: PasswordMessage,
    Sync.type_byte: _decode_sync,
    Flush.type_byte: _decode_flush,
    FunctionCall.type_byte: FunctionCall,
}
EXTENDED_QUERY_TYPES: Final = frozenset(b"PBDEC")
"""The type bytes that `ExtendedQuery` stands for."""


def decode_frontend(type_byte: int, body: bytes) -> FrontendMessage:
    """
    Return the message that a type byte and a body make.

    :raises InvalidMessage: the body is not one of that type (ERROR 08P01).
    """
    decoder = _DECODERS.get(type_byte)
    if decoder is not None:
        return decoder(body)
    if type_byte in EXTENDED_QUERY_TYPES:
        return ExtendedQuery(type_byte, body)
    return UnknownMessage(type_byte)
