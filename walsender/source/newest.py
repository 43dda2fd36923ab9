"""`NewestWal`: what has become durable last, kept at hand for standbys that have all before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class NewestWal:
    """
    A little WAL, durable, in memory; nobody changes it.

    One is made on the way of every small commit: a dataclass takes longer.

    :ivar start: position of its first byte.
    :ivar end: position behind its last byte.
    :ivar messages: what senders have made of it for their clients, by whose kind of message it is: it is
        made once for all who are level.
    """

    __slots__ = ("data", "end", "messages", "start", "timeline")

    def __init__(self, timeline: int, start: int, data: bytes) -> None:
        self.timeline = timeline
        self.start = start
        self.data = data
        self.end = start + len(data)
        self.messages: dict[Hashable, bytes] = {}
