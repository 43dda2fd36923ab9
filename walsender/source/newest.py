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
    :ivar end: position behind its last byte.
    :ivar messages: what senders have made of it for their clients, by whose kind of message it is: it is
        made once for all who are level.
    """

    timeline: int
    start: int
    data: bytes
    end: int = field(init=False)
    messages: dict[Hashable, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Add up once."""
        self.end = self.start + len(self.data)
