"""What the tests of this room share: a disk in memory, and short ways to fill and ask it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from walsender.wal import EndOfWal, find_end, scan_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from walsender.testing.wal_maker import WalMaker

PATH = "/wal"


class MemoryFiles:
    """
    `FileOperations` on a dictionary.

    :ivar content: bytes by name; ``None`` is a directory.
    :ivar failures: error numbers by operation and name.
    :ivar log: what was synced and opened, in order.
    """

    def __init__(self, content: Mapping[str, bytes | None] | None = None) -> None:
        self.content: dict[str, bytes | None] = dict(content or {})
        self.failures: dict[tuple[str, str], int] = {}
        self.identities: dict[str, int] = {}
        self.log: list[tuple[str, str]] = []
        self.read_bytes = 0
        self._open: dict[int, tuple[str, bytes | None, int]] = {}
        self._next = 100

    @property
    def open_count(self) -> int:
        """How many descriptors are open."""
        return len(self._open)

    def _fail(self, operation: str, name: str) -> None:
        if number := self.failures.get((operation, name)):
            raise OSError(number, os.strerror(number), name)

    def _name(self, path: str) -> str:
        return path.removeprefix(PATH + "/")

    def list_directory(self, path: str) -> list[str]:
        """Return the names."""
        self._fail("list", path)
        return list(self.content)

    def open(self, path: str) -> int:
        """Return a descriptor on a name."""
        name = self._name(path)
        self._fail("open", name)
        if name not in self.content:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        self._next += 1
        self._open[self._next] = (name, self.content[name], self.identities.setdefault(name, self._next))
        return self._next

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Return a piece of the content that the file had when it was opened."""
        name, content, _ = self._open[descriptor]
        self._fail("read", name)
        if content is None:
            raise IsADirectoryError(errno.EISDIR, "Is a directory", name)
        self.read_bytes += len(content[offset : offset + length])
        return content[offset : offset + length]

    def size(self, descriptor: int, most: int = 0) -> int:
        """Return the content's length."""
        name, content, _ = self._open[descriptor]
        self._fail("size", name)
        return len(content or b"")

    def identity(self, descriptor: int) -> tuple[int, int]:
        """Return a number that lives as long as the name."""
        return 1, self._open[descriptor][2]

    def path_identity(self, path: str) -> tuple[int, int]:
        """Return a name's identity."""
        return 1, self.identities[self._name(path)]

    def sync(self, descriptor: int) -> None:
        """Note that a file was synced."""
        self._fail("sync", self._open[descriptor][0])
        self.log.append(("sync", self._open[descriptor][0]))

    def sync_directory(self, path: str) -> None:
        """Note that a directory was synced."""
        self._fail("sync", path)
        self.log.append(("sync", path))

    def close(self, descriptor: int) -> None:
        """Forget a descriptor."""
        del self._open[descriptor]


def disk(maker: WalMaker, *, partial: bool = False) -> MemoryFiles:
    """Return a disk with all that *maker* has written."""
    return MemoryFiles(maker.files(partial=partial))


def end_on(files: MemoryFiles, timeline: int = 1, resume: EndOfWal | None = None) -> EndOfWal | None:
    """Return where *timeline* ends on a freshly listed disk."""
    found = find_end(files, scan_directory(files, PATH), timeline, resume=resume)
    assert files.open_count == 0, "a descriptor was left open"
    return found


def position_on(files: MemoryFiles, timeline: int = 1, resume: EndOfWal | None = None) -> int:
    """Return the position of `end_on`; there must be one."""
    end = end_on(files, timeline, resume)
    assert end is not None, "no WAL was found"
    return end.position
