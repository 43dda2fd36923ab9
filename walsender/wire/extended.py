"""
The extended query protocol: a statement is parsed, bound to values, described and executed, one message each.

A walsender refuses all of it (`walsender.wire.frontend.ExtendedQuery` keeps the bodies as bytes); a console
reads it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from walsender.errors import ProtocolViolation
from walsender.wire.body import BodyReader, decode_text, encode_string
from walsender.wire.frontend import frame

if TYPE_CHECKING:
    from walsender.wire.frontend import ExtendedQuery

_COUNT: Final = struct.Struct("!H")
_INT32: Final = struct.Struct("!i")


def _unsigned(number: int) -> int:
    return number & 0xFFFF


@dataclass(frozen=True, slots=True)
class Parse:
    """
    ``P``, String name, String text, Int16 count, Int32 types: make a prepared statement.

    :ivar types: oids of the parameters' types, 0 where the server is to find out.
    """

    type_byte: ClassVar[int] = ord("P")
    name: str
    text: str
    types: tuple[int, ...] = ()

    @classmethod
    def decode(cls, body: bytes) -> Parse:
        """Return the message with this body."""
        reader = BodyReader(body)
        name, text = decode_text(reader.string()), decode_text(reader.string())
        types = tuple(reader.uint32() for _ in range(_unsigned(reader.int16())))
        reader.end()
        return cls(name, text, types)

    def encode(self) -> bytes:
        """Return the message's bytes."""
        types = b"".join(struct.pack("!I", oid) for oid in self.types)
        body = encode_string(self.name) + encode_string(self.text) + _COUNT.pack(len(self.types)) + types
        return frame(self.type_byte, body)


@dataclass(frozen=True, slots=True)
class Bind:
    """
    ``B``, String portal, String statement, formats, values, formats: make a portal.

    Formats: Int16 count, Int16 each; values: Int16 count, each Int32 length (-1: NULL) and bytes.

    :ivar formats: of the values, 0 text or 1 binary; none: all text, one: of all.
    :ivar result_formats: likewise of the results.
    """

    type_byte: ClassVar[int] = ord("B")
    portal: str
    statement: str
    formats: tuple[int, ...] = ()
    values: tuple[bytes | None, ...] = ()
    result_formats: tuple[int, ...] = ()

    @classmethod
    def decode(cls, body: bytes) -> Bind:
        """Return the message with this body."""
        reader = BodyReader(body)
        portal, statement = decode_text(reader.string()), decode_text(reader.string())
        formats = tuple(reader.int16() for _ in range(_unsigned(reader.int16())))
        values: list[bytes | None] = []
        for _ in range(_unsigned(reader.int16())):
            length = reader.int32()
            values.append(None if length == -1 else reader.octets(length))
        results = tuple(reader.int16() for _ in range(_unsigned(reader.int16())))
        reader.end()
        return cls(portal, statement, formats, tuple(values), results)

    def encode(self) -> bytes:
        """Return the message's bytes."""
        parts = [encode_string(self.portal), encode_string(self.statement)]
        parts += _formats(self.formats)
        parts.append(_COUNT.pack(len(self.values)))
        for value in self.values:
            parts += (_INT32.pack(-1),) if value is None else (_INT32.pack(len(value)), value)
        parts += _formats(self.result_formats)
        return frame(self.type_byte, b"".join(parts))


def _formats(formats: tuple[int, ...]) -> list[bytes]:
    return [_COUNT.pack(len(formats)), *(_COUNT.pack(form) for form in formats)]


@dataclass(frozen=True, slots=True)
class Describe:
    """``D``, Byte1, String name: tell the types of a prepared statement (``S``) or a portal (``P``)."""

    type_byte: ClassVar[int] = ord("D")
    is_portal: bool
    name: str

    @classmethod
    def decode(cls, body: bytes) -> Describe:
        """Return the message with this body."""
        return cls(*_named(body, "DESCRIBE"))

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, (b"P" if self.is_portal else b"S") + encode_string(self.name))


@dataclass(frozen=True, slots=True)
class Close:
    """``C``, Byte1, String name: forget a prepared statement (``S``) or a portal (``P``)."""

    type_byte: ClassVar[int] = ord("C")
    is_portal: bool
    name: str

    @classmethod
    def decode(cls, body: bytes) -> Close:
        """Return the message with this body."""
        return cls(*_named(body, "CLOSE"))

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, (b"P" if self.is_portal else b"S") + encode_string(self.name))


def _named(body: bytes, what: str) -> tuple[bool, str]:
    reader = BodyReader(body)
    kind, name = reader.byte(), decode_text(reader.string())
    reader.end()
    if kind not in b"SP":
        raise ProtocolViolation(f"invalid {what} message subtype {kind}")
    return kind == ord("P"), name


@dataclass(frozen=True, slots=True)
class Execute:
    """
    ``E``, String portal, Int32 rows: run a portal.

    :ivar rows: at most so many; 0: all.
    """

    type_byte: ClassVar[int] = ord("E")
    portal: str
    rows: int = 0

    @classmethod
    def decode(cls, body: bytes) -> Execute:
        """Return the message with this body."""
        reader = BodyReader(body)
        message = cls(decode_text(reader.string()), reader.int32())
        reader.end()
        return message

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, encode_string(self.portal) + _INT32.pack(self.rows))


ExtendedMessage: TypeAlias = Parse | Bind | Describe | Close | Execute

_DECODERS: Final = {one.type_byte: one.decode for one in (Parse, Bind, Describe, Close, Execute)}


def decode_extended(message: ExtendedQuery) -> ExtendedMessage:
    """
    Return what *message* says.

    :raises InvalidMessage: it is none of its type.
    """
    return _DECODERS[message.type_byte](message.body)


# Answers

PARSE_COMPLETE: Final = frame(ord("1"), b"")
BIND_COMPLETE: Final = frame(ord("2"), b"")
CLOSE_COMPLETE: Final = frame(ord("3"), b"")
NO_DATA: Final = frame(ord("n"), b"")
"""A statement has no rows."""
PORTAL_SUSPENDED: Final = frame(ord("s"), b"")
"""As many rows as were asked for have come, and there may be more."""
EMPTY_QUERY_RESPONSE: Final = frame(ord("I"), b"")


def parameter_description(types: tuple[int, ...]) -> bytes:
    """Return ``t``, Int16 count, Int32 oids: the types of a prepared statement's parameters."""
    return frame(ord("t"), _COUNT.pack(len(types)) + b"".join(struct.pack("!I", oid) for oid in types))
