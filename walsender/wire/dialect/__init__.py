"""
Dialects: everything on the wire that depends on the server's era, one object per connection.

There is no ``if version`` outside this folder and the command grammar.
"""

from __future__ import annotations

from walsender.wire.dialect.base import MAX_SEND_SIZE, Dialect
from walsender.wire.dialect.first import ByteOrder, FirstDialect
from walsender.wire.dialect.modern import ModernDialect
from walsender.wire.dialect.raw import Dialect90, Dialect91, Dialect92

__all__ = [
    "FIRST_VERSION",
    "MAX_SEND_SIZE",
    "Dialect",
    "Dialect90",
    "Dialect91",
    "Dialect92",
    "FirstDialect",
    "ModernDialect",
    "dialect_of",
]

FIRST_VERSION = 90000
"""The first release that had a walsender."""


def dialect_of(version: int, byte_order: ByteOrder) -> Dialect:
    """
    Return the dialect of a released server.

    :param version: `FIRST_VERSION` or later, as 90200 or 180000.
    :param byte_order: of that server's WAL.
    """
    if version >= 90300:
        return ModernDialect(version)
    if version >= 90200:
        return Dialect92(version, byte_order)
    return Dialect91(version, byte_order) if version >= 90100 else Dialect90(version, byte_order)
