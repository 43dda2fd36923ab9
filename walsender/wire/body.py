"""
Reading and writing what is inside a message: numbers, strings, names.

Strings become `str` by UTF-8 with *surrogateescape*: the protocol fixes no
encoding before a session has one, a walsender's session has SQL_ASCII, which
means "any bytes", and a name must come back byte for byte in an error message
or a column.  Latin-1 would do that too, but every UTF-8 name would be garbled in
our log.  The price is that such a string may not be printable as it stands: what
goes to a log goes through `printable`.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from walsender.errors import InvalidMessage

MAX_NAME_BYTES: Final = 63
"""Longest name, in bytes (PostgreSQL's NAMEDATALEN less the NUL)."""

_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_INT16: Final = struct.Struct("!h")
_INT32: Final = struct.Struct("!i")
_UINT32: Final = struct.Struct("!I")


def decode_text(data: bytes) -> str:
    """Return *data* as text; every sequence of bytes has one, and `encode_text` gives it back."""
    return data.decode("utf-8", "surrogateescape")


def encode_text(text: str) -> bytes:
    """Return the bytes of *text*, those of `decode_text` exactly."""
    return text.encode("utf-8", "surrogateescape")


def encode_string(text: str) -> bytes:
    """
    Return *text* as the protocol's String: its bytes and a NUL.

    :raises ValueError: *text* contains a NUL; nothing that a client sent can.
    """
    data = encode_text(text)
    if b"\0" in data:
        raise ValueError("a String of the protocol cannot contain NUL")
    return data + b"\0"


def printable(text: str) -> str:
    r"""Return *text* for one line of a log: control characters and stray bytes as ``\xHH``."""
    readable = encode_text(text).decode("utf-8", "backslashreplace")
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", readable)


def cut_name(name: str) -> str:
    """
    Return *name* cut to the length of an identifier.

    Cut at a byte, not at a character: the encoding of a walsender's session is SQL_ASCII.
    """
    return decode_text(encode_text(name)[:MAX_NAME_BYTES])


class BodyReader:
    """
    Takes the parts of one message's body in order.

    Each method raises `InvalidMessage` (ERROR 08P01) with PostgreSQL's text if
    the body does not hold what is asked for.

    Source: PostgreSQL, src/backend/libpq/pqformat.c.
    """

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def byte(self) -> int:
        """Take one byte."""
        if self._at >= len(self._body):
            raise InvalidMessage("no data left in message")
        self._at += 1
        return self._body[self._at - 1]

    def octets(self, count: int) -> bytes:
        """Take *count* bytes."""
        end = self._at + count
        if count < 0 or end > len(self._body):
            raise InvalidMessage("insufficient data left in message")
        taken = self._body[self._at : end]
        self._at = end
        return taken

    def int16(self) -> int:
        """Take a signed 16-bit number."""
        number: int = _INT16.unpack(self.octets(2))[0]
        return number

    def int32(self) -> int:
        """Take a signed 32-bit number."""
        number: int = _INT32.unpack(self.octets(4))[0]
        return number

    def uint32(self) -> int:
        """Take an unsigned 32-bit number."""
        number: int = _UINT32.unpack(self.octets(4))[0]
        return number

    def string(self) -> bytes:
        """Take a String, without its NUL."""
        end = self._body.find(b"\0", self._at)
        if end < 0:
            raise InvalidMessage("invalid string in message")
        taken = self._body[self._at : end]
        self._at = end + 1
        return taken

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.octets(len(self._body) - self._at)

    def end(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._body):
            raise InvalidMessage("invalid message format")
