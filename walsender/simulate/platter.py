"""What is on a simulated disk: files and directories as programs see them, and on the platter."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Write(NamedTuple):
    """A write that is not on the platter."""

    offset: int
    data: bytes


@dataclass(eq=False)
class File:
    """
    One file, whatever its names.

    :ivar number: of its inode.
    :ivar descriptor: of what programs see.
    :ivar platter: what is there for good.
    :ivar pending: writes that are not.
    :ivar spoilt: what was written and will never get to the platter, since a sync has failed.
    """

    number: int
    descriptor: int
    platter: bytearray = field(default_factory=bytearray)
    pending: list[Write] = field(default_factory=list)
    spoilt: list[Write] = field(default_factory=list)
    opened: int = 0

    def visible(self) -> bytes:
        """Return the content as programs see it."""
        return os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)

    def settle(self, writes: list[Write]) -> None:
        """Put *writes* on the platter."""
        for offset, data in writes:
            if len(self.platter) < offset:
                self.platter.extend(bytes(offset - len(self.platter)))
            self.platter[offset : offset + len(data)] = data

    def is_safe(self, start: int, end: int) -> bool:
        """Return whether no write to that range can still be lost or torn."""
        if end > len(self.platter):
            return False
        for offset, data in self.pending:
            first, last = max(start, offset), min(end, offset + len(data))
            # Writing what is there already can do no harm.
            if first < last and self.platter[first:last] != data[first - offset : last - offset]:
                return False
        return True


@dataclass(eq=False)
class Directory:
    """
    One directory.

    :ivar names: as programs see them.
    :ivar platter: as they are for good.
    :ivar pending: the changes that are not.
    """

    names: dict[str, File | Directory] = field(default_factory=dict)
    platter: dict[str, File | Directory] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        """Make a change, which a power failure may take back."""
        change.apply(self.names)
        self.pending.append(change)

    def outcomes(self, about: frozenset[str]) -> Iterator[dict[str, File | Directory]]:
        """Yield what a power failure could leave of the names *about*."""
        changes = [change for change in self.pending if about & {change.name, change.old}]
        kept = {name: node for name, node in self.platter.items() if name in about}
        for chosen in itertools.product((False, True), repeat=len(changes)):
            names = dict(kept)
            for change, survives in zip(changes, chosen, strict=True):
                if survives:
                    change.apply(names)
            yield names


class Change(NamedTuple):
    """
    A change of names.

    :ivar name: that leads to *node* now; to nothing if that is ``None``.
    :ivar old: the name that *node* had before.
    """

    name: str
    node: File | Directory | None
    old: str = ""

    def apply(self, names: dict[str, File | Directory]) -> None:
        """Make the change in *names*."""
        if self.node is None:
            names.pop(self.name, None)
            return
        if names.get(self.old) is self.node:
            del names[self.old]
        names[self.name] = self.node
