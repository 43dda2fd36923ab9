"""`NewestWal`: what has become durable last, kept at hand for standbys that have all before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


@dataclass(slots=True, eq=False)
class NewestWal:
    """
    A little WAL, durable, in memory; nobody changes it.

    :ivar start: position of its first byte.
    :ivar messages: what senders have made of it for their clients, by whose kind of message it is: it is
        made once for all who are level.
    """

    timeline: int
    start: int
    data: bytes
    messages: dict[Hashable, bytes] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """Position behind its last byte."""
        return self.start + len(self.data)
