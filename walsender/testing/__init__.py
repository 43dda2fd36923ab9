"""
What tests of replication software need: doubles of a server, and real ones.

The names in ``__all__`` are for other programs' tests; what else is in this package, among it
whatever starts real servers, is for our own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from walsender.lazily import attribute_of

if TYPE_CHECKING:
    from walsender.testing.memory import ClockReactor, MemoryConnection, MemoryServer
    from walsender.testing.source import ScriptedSource, wal_bytes
    from walsender.testing.transport import ThrottledTransport
    from walsender.testing.wal_maker import WalMaker

__all__ = [
    "ClockReactor",
    "MemoryConnection",
    "MemoryServer",
    "ScriptedSource",
    "ThrottledTransport",
    "WalMaker",
    "wal_bytes",
]

# Most of this package does without Twisted, and starts faster for it.
_HOMES: Final = {
    "memory": ("ClockReactor", "MemoryConnection", "MemoryServer"),
    "source": ("ScriptedSource", "wal_bytes"),
    "transport": ("ThrottledTransport",),
    "wal_maker": ("WalMaker",),
}


def __getattr__(name: str) -> object:
    return attribute_of(__name__, _HOMES, name)
