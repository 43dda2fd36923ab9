"""
Dialects: everything on the wire that depends on the server's era, one object per connection.

There is no ``if version`` outside this folder and the command grammar.
"""

from __future__ import annotations

from walsender.wire.dialect.base import MAX_SEND_SIZE, Dialect
from walsender.wire.dialect.first import FirstDialect
from walsender.wire.dialect.modern import ModernDialect

__all__ = ["MAX_SEND_SIZE", "Dialect", "FirstDialect", "ModernDialect"]
