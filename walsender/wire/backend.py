"""
The messages that a walsender sends, each with its wire layout; decoded, for clients.

CopyData with WAL in it is not built here: on the streaming path one
header is packed per message and the WAL follows it untouched.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self, TypeAlias

from walsender.errors import InvalidMessage
from walsender.wire.body import BodyReader, decode_text, encode_string
from walsender.wire.frontend import CopyData, CopyDone, frame
from walsender.wire.reports import ErrorResponse, NoticeResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "AUTHENTICATION_OK",
    "AuthenticationRequest",
    "BackendKeyData",
    "BackendMessage",
    "CommandComplete",
    "CopyBothResponse",
    "CopyData",
    "CopyDone",
    "CopyOutResponse",
    "DataRow",
    "ErrorResponse",
    "Field",
    "NegotiateProtocolVersion",
    "NoticeResponse",
    "ParameterStatus",
    "ReadyForQuery",
    "RowDescription",
    "decode_backend",
]

_COUNT: Final = struct.Struct("!h")
_INT32: Final = struct.Struct("!i")
_FIELD: Final = struct.Struct("!IhIhih")
_COPY_FORMAT: Final = struct.Struct("!Bh")
_VERSION_AND_COUNT: Final = struct.Struct("!HHi")


@dataclass(frozen=True, slots=True)
class AuthenticationRequest:
    """
    ``R``, Int32 code, data: the client must answer (or, code 0, need not).

    :ivar code: 0 OK, 3 cleartext password, 5 MD5, 10 to 12 SASL.
    """

    type_byte: ClassVar[int] = ord("R")
    code: int
    data: bytes = b""

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, _INT32.pack(self.code) + self.data)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the message with this body."""
        reader = BodyReader(body)
        return cls(reader.int32(), reader.rest())


AUTHENTICATION_OK: Final = AuthenticationRequest(0)
"""``R``, Int32 0: the client is in."""


@dataclass(frozen=True, slots=True)
class ParameterStatus:
    """``S``, String name, String value: a setting that the client may want to know."""

    type_byte: ClassVar[int] = ord("S")
    name: str
    value: str

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, encode_string(self.name) + encode_string(self.value))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the message with this body."""
        reader = BodyReader(body)
        message = cls(decode_text(reader.string()), decode_text(reader.string()))
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class BackendKeyData:
    """
    ``K``, Int32 process id, key: what a CancelRequest must name.

    :ivar key: 4 bytes in protocol 3.0; 4 to 256, by custom 32, in 3.2.
    """

    type_byte: ClassVar[int] = ord("K")
    process_id: int
    key: bytes

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, _INT32.pack(self.process_id) + self.key)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the message with this body."""
        reader = BodyReader(body)
        return cls(reader.int32(), reader.rest())


@dataclass(frozen=True, slots=True)
class ReadyForQuery:
    """``Z``, Byte1: the next command may come; *status* is always ``I`` in a walsender."""

    type_byte: ClassVar[int] = ord("Z")
    status: bytes = b"I"

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, self.status)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the message with this body."""
        reader = BodyReader(body)
        message = cls(reader.octets(1))
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class Field:
    """
    One column of a RowDescription.

    :ivar type_oid: 25 text, 23 int4, 20 int8, 17 bytea.
    :ivar type_length: bytes; -1 for what varies.
    :ivar type_modifier: -1; 0 where old servers wrote the message by hand.
    """

    name: str
    type_oid: int
    type_length: int
    type_modifier: int = -1
    table_oid: int = 0
    attribute: int = 0
    format: int = 0


@dataclass(frozen=True, slots=True)
class RowDescription:
    """
    ``T``, Int16 count, fields: the columns of the rows that follow.

    Each field: String name, Int32 table, Int16 attribute, Int32 type, Int16 type
    length, Int32 type modifier, Int16 format.
    """

    type_byte: ClassVar[int] = ord("T")
    fields: tuple[Field, ...]

    def encode(self) -> bytes:
        """Return the message's bytes."""
        parts = [_COUNT.pack(len(self.fields))]
        for field in self.fields:
            parts += (
                encode_string(field.name),
                _FIELD.pack(
                    field.table_oid,
                    field.attribute,
                    field.type_oid,
                    field.type_length,
                    field.type_modifier,
                    field.format,
                ),
            )
        return frame(self.type_byte, b"".join(parts))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the message with this body."""
        reader = BodyReader(body)
        fields = []
        for _ in range(reader.int16()):
            name = decode_text(reader.string())
            table, attribute, type_oid, length, modifier, form = _FIELD.unpack(reader.octets(_FIELD.size))
            fields.append(Field(name, type_oid, length, modifier, table, attribute, form))
        reader.end()
        return cls(tuple(fields))


@dataclass(frozen=True, slots=True)
class DataRow:
    """``D``, Int16 count, values: each Int32 length and bytes, or length -1 for NULL (``None``)."""

    type_byte: ClassVar[int] = ord("D")
    values: tuple[bytes | None, ...]

    def encode(self) -> bytes:
        """Return the message's bytes."""
        parts = [_COUNT.pack(len(self.values))]
        for value in self.values:
            parts += (_INT32.pack(-1),) if value is None else (_INT32.pack(len(value)), value)
        return frame(self.type_byte, b"".join(parts))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the message with this body."""
        reader = BodyReader(body)
        values = []
        for _ in range(reader.int16()):
            length = reader.int32()
            values.append(None if length == -1 else reader.octets(length))
        reader.end()
        return cls(tuple(values))


@dataclass(frozen=True, slots=True)
class CommandComplete:
    """``C``, String: a command has ended well."""

    type_byte: ClassVar[int] = ord("C")
    tag: str

    def encode(self) -> bytes:
        """Return the message's bytes."""
        return frame(self.type_byte, encode_string(self.tag))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the message with this body."""
        reader = BodyReader(body)
        message = cls(decode_text(reader.string()))
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class _CopyResponse:
    """Int8 format, Int16 count of columns, Int16 format of each; WAL is sent as 0 with no columns."""

    type_byte: ClassVar[int]
    format: int = 0
    column_formats: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """Return the message's bytes."""
        columns = b"".join(_COUNT.pack(column) for column in self.column_formats)
        return frame(self.type_byte, _COPY_FORMAT.pack(self.format, len(self.column_formats)) + columns)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the message with this body."""
        reader = BodyReader(body)
        form = reader.byte()
        columns = tuple(reader.int16() for _ in range(reader.int16()))
        reader.end()
        return cls(form, columns)


@dataclass(frozen=True, slots=True)
class CopyOutResponse(_CopyResponse):
    """``H``: CopyData from us follows (the first walsender; base backups)."""

    type_byte: ClassVar[int] = ord("H")


@dataclass(frozen=True, slots=True)
class CopyBothResponse(_CopyResponse):
    """``W``: CopyData of both sides follows."""

    type_byte: ClassVar[int] = ord("W")


@dataclass(frozen=True, slots=True)
class NegotiateProtocolVersion:
    """
    ``v``, Int32 version word, Int32 count, Strings: what of the start-up packet is not served.

    :ivar version: major and minor that will be spoken; the whole word is sent.
    :ivar options: the names of the protocol extensions that nobody here knows.
    """

    type_byte: ClassVar[int] = ord("v")
    version: tuple[int, int]
    options: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return the message's bytes."""
        names = b"".join(encode_string(name) for name in self.options)
        return frame(self.type_byte, _VERSION_AND_COUNT.pack(*self.version, len(self.options)) + names)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the message with this body."""
        reader = BodyReader(body)
        word = reader.uint32()
        options = tuple(decode_text(reader.string()) for _ in range(reader.int32()))
        reader.end()
        return cls((word >> 16, word & 0xFFFF), options)


BackendMessage: TypeAlias = (
    AuthenticationRequest
    | ParameterStatus
    | BackendKeyData
    | ReadyForQuery
    | RowDescription
    | DataRow
    | CommandComplete
    | ErrorResponse
    | NoticeResponse
    | CopyOutResponse
    | CopyBothResponse
    | CopyData
    | CopyDone
    | NegotiateProtocolVersion
)

_DECODERS: Final[Mapping[int, Callable[[bytes], BackendMessage]]] = {
    AuthenticationRequest.type_byte: AuthenticationRequest.decode,
    ParameterStatus.type_byte: ParameterStatus.decode,
    BackendKeyData.type_byte: BackendKeyData.decode,
    ReadyForQuery.type_byte: ReadyForQuery.decode,
    RowDescription.type_byte: RowDescription.decode,
    DataRow.type_byte: DataRow.decode,
    CommandComplete.type_byte: CommandComplete.decode,
    ErrorResponse.type_byte: ErrorResponse.decode,
    NoticeResponse.type_byte: NoticeResponse.decode,
    CopyOutResponse.type_byte: CopyOutResponse.decode,
    CopyBothResponse.type_byte: CopyBothResponse.decode,
    CopyData.type_byte: CopyData,
    CopyDone.type_byte: lambda _body: CopyDone(),
    NegotiateProtocolVersion.type_byte: NegotiateProtocolVersion.decode,
}


def decode_backend(type_byte: int, body: bytes) -> BackendMessage:
    """
    Return the message that a type byte and a body make.

    :raises InvalidMessage: the body is not one of that type, or no walsender sends that type.
    """
    decoder = _DECODERS.get(type_byte)
    if decoder is None:
        raise InvalidMessage(f"unexpected message type {type_byte}")
    return decoder(body)
