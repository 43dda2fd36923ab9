"""
`SimulatedDisk`: files as programs see them, and what of that would be left after a power failure.

What programs see is real: each file is a memory file of the operating system, and its descriptors
may be given to ``pread`` and ``splice``.  Beside each the *platter* is kept:

* A write is on the platter when a sync of its file has returned.  Before that a power failure
  leaves any subset of the writes since the last sync, in any order, each of them whole, cut
  off, or with some of its sectors missing.
* A name, its removal and a rename are on the platter when a sync of the directory has returned.
  Before that a power failure leaves any subset of these changes; a rename is all or nothing.
* A sync that fails marks the file's pages clean: what was not on the platter never gets there, unless
  it is written again, and can be read all the same until the power fails.  Another sync succeeds.
* A file without a name and without a descriptor is gone, and its number is given to the next one.

The death of a process alone takes nothing from what programs see.
"""

from __future__ import annotations

import errno
import itertools
import os
from typing import TYPE_CHECKING, Final

from walsender.simulate.platter import Change, Directory, File, Write

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

SECTOR: Final = 512  # bytes that a disk writes whole or not at all


class PowerLost(BaseException):
    """The machine or the process is no more.  No handler of errors may catch it."""


class SimulatedDisk:
    """
    The disk of one machine.

    :ivar room: bytes that can still be written beyond the ends of files; ``None``: any number.
    :ivar failing: what operations are about to fail with, by their name: ``write``, ``sync``,
        ``rename``, ``create``, ``remove``, ``sync_directory``; each error number once.
    :ivar short_writes: how likely a write takes less than it was given.
    :ivar power: how many further operations the power lasts; ``None``: for good.
    :ivar changed: is called after each change, with what was done and the path.
    :ivar counts: how often what has been done, and failed.
    """

    def __init__(self, random: random.Random) -> None:
        self._random = random
        self._root = Directory()
        self._numbers = itertools.count(1)
        self._free: list[int] = []
        self._open: dict[int, tuple[File, str]] = {}
        self._files: set[File] = set()
        self.room: int | None = None
        self.failing: dict[str, list[int]] = {}
        self.short_writes = 0.0
        self.power: int | None = None
        self.changed: Callable[[str, str], None] = lambda _operation, _path: None
        self.counts: dict[str, int] = {}

    def close(self) -> None:
        """Let go of all files."""
        for file in self._files:
            os.close(file.descriptor)
        self._files.clear()
        self._root = Directory()

    # What programs do.  The views of `walsender.simulate.files` give these the shape of our interfaces.

    def make_directory(self, path: str) -> None:
        """Make a directory; harmless if it is there."""
        parent, name = self._place(path)
        if name in parent.names:
            return
        self._begin("make_directory")
        parent.change(Change(name, Directory()))

    def names(self, path: str) -> list[str]:
        """Return the names in a directory."""
        return list(self.directory(path).names)

    def create(self, path: str) -> int:
        """Make a new file and return a descriptor."""
        parent, name = self._place(path)
        if name in parent.names:
            raise _error(errno.EEXIST, path)
        whole = self._begin("create")
        number = self._free.pop(0) if self._free else next(self._numbers)
        file = File(number, os.memfd_create(f"simulated-{number}", os.MFD_CLOEXEC))
        self._files.add(file)
        parent.change(Change(name, file))
        self._done("create", path, whole)
        return self._descriptor(file, path)

    def open(self, path: str) -> int:
        """Return a descriptor of a file that is there."""
        return self._descriptor(self.file(path), path)

    def close_descriptor(self, descriptor: int) -> None:
        """Close a descriptor."""
        file, _ = self._open.pop(descriptor)
        file.opened -= 1
        os.close(descriptor)
        self._forget(file)

    def opened(self, descriptor: int) -> File:
        """Return the file that a descriptor is of."""
        return self._open[descriptor][0]

    def path_of(self, descriptor: int) -> str:
        """Return the path under which a descriptor was opened."""
        return self._open[descriptor][1]

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        """Write at *offset*; return how many bytes were taken."""
        file, path = self._open[descriptor]
        whole = self._begin("write", path)
        if len(data) > 1 and self._random.random() < self.short_writes:
            self._count("short write")
            data = data[: self._random.randrange(1, len(data))]
        size = os.fstat(file.descriptor).st_size
        growth = max(0, offset + len(data) - size)
        if self.room is not None:
            if growth > self.room:
                data = data[: max(0, len(data) - (growth - self.room))]
                growth = max(0, offset + len(data) - size)
                if not data:
                    self._count("full")
                    raise _error(errno.ENOSPC, path)
            self.room -= growth
        if not whole:
            data = data[: self._random.randrange(len(data) + 1)]
        os.pwrite(file.descriptor, data, offset)
        file.pending.append(Write(offset, data))
        self._done("write", path, whole)
        return len(data)

    def sync(self, file: File, path: str) -> None:
        """Put a file's content on the platter."""
        if numbers := self.failing.get("sync"):
            file.spoilt += file.pending
            file.pending.clear()
            self._count("sync failed")
            raise _error(numbers.pop(0), path)
        whole = self._begin("sync")
        if not whole:
            chosen = [write for write in file.pending if self._random.random() < 0.5]
            file.settle(chosen)
            raise PowerLost
        file.settle(file.pending)
        file.pending.clear()
        self._done("sync", path, whole)

    def sync_directory(self, path: str) -> None:
        """Put a directory's names on the platter."""
        directory = self.directory(path)
        if not self._begin("sync_directory", path):
            raise PowerLost
        directory.platter = dict(directory.names)
        directory.pending.clear()
        self._forget_unused()
        self._done("sync_directory", path, whole=True)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name."""
        parent, old_name = self._place(old)
        node = self.file(old)
        whole = self._begin("rename", old)
        new_parent, new_name = self._place(new)
        if new_parent is parent:
            parent.change(Change(new_name, node, old_name))
        else:  # either may survive without the other
            parent.change(Change(old_name, None))
            new_parent.change(Change(new_name, node))
        self._done("rename", new, whole)

    def remove(self, path: str) -> None:
        """Take a file's name away."""
        parent, name = self._place(path)
        file = self.file(path)
        whole = self._begin("remove", path)
        parent.change(Change(name, None))
        self._forget(file)
        self._done("remove", path, whole)

    def remove_directory(self, path: str) -> None:
        """Take a directory away that has nothing in it; harmless if there is none."""
        parent, name = self._place(path)
        if name in parent.names:
            assert not self.names(path), "it is not empty"
            self._begin("remove_directory")
            parent.change(Change(name, None))

    # What happens to it

    def lose_power(self) -> None:
        """Leave what a power failure leaves; programs see that from now on."""
        self._count("power lost")
        self.power = None
        self.failing.clear()
        self._lose(self._root)
        self._forget_unused()

    def _lose(self, directory: Directory) -> None:
        for change in directory.pending:
            if self._random.random() < 0.5:
                change.apply(directory.platter)
        directory.names = dict(directory.platter)
        directory.pending.clear()
        for node in directory.names.values():
            if isinstance(node, Directory):
                self._lose(node)
            else:
                self._tear(node)

    def _tear(self, file: File) -> None:
        """Put some of what is pending on the platter, and let programs see that."""
        writes = list(file.pending)
        self._random.shuffle(writes)
        for offset, data in writes:
            fate = self._random.random()
            if fate < 0.3:
                continue
            if fate < 0.5:
                file.settle([Write(offset, data[: self._random.randrange(len(data) + 1)])])
            elif fate < 0.7:
                file.settle(self._some_sectors(offset, data))
            else:
                file.settle([Write(offset, data)])
        file.pending.clear()
        file.spoilt.clear()
        os.ftruncate(file.descriptor, 0)
        os.pwrite(file.descriptor, file.platter, 0)

    def _some_sectors(self, offset: int, data: bytes) -> list[Write]:
        """Return a write without some of its sectors: of so few runs that a large one costs no more."""
        sectors = -(-(offset % SECTOR + len(data)) // SECTOR)
        cuts = sorted({0, *(self._random.randrange(sectors + 1) for _ in range(6)), sectors})
        base = offset - offset % SECTOR
        writes = []
        for first, last in itertools.pairwise(cuts):
            if self._random.random() < 0.5:
                start = max(base + first * SECTOR, offset)
                writes.append(Write(start, data[start - offset : base + last * SECTOR - offset]))
        return writes

    # What a test asks

    def directory(self, path: str) -> Directory:
        """
        Return the directory at *path*.

        :raises FileNotFoundError: there is none.
        """
        node: File | Directory | None = self._root
        for name in path.strip("/").split("/"):
            if not isinstance(node, Directory):
                raise _error(errno.ENOTDIR, path)
            node = node.names.get(name) if name else node
        if node is None:
            raise _error(errno.ENOENT, path)
        if not isinstance(node, Directory):
            raise _error(errno.ENOTDIR, path)
        return node

    def file(self, path: str) -> File:
        """
        Return the file at *path*.

        :raises FileNotFoundError: there is none.
        """
        parent, name = self._place(path)
        node = parent.names.get(name)
        if node is None:
            raise _error(errno.ENOENT, path)
        if isinstance(node, Directory):
            raise _error(errno.EISDIR, path)
        return node

    @property
    def open_paths(self) -> list[str]:
        """The paths under which what is open now was opened."""
        return [path for _, path in self._open.values()]

    # Inside

    def _place(self, path: str) -> tuple[Directory, str]:
        parent, _, name = path.rpartition("/")
        return self.directory(parent), name

    def _descriptor(self, file: File, path: str) -> int:
        descriptor = os.dup(file.descriptor)
        file.opened += 1
        self._open[descriptor] = file, path
        return descriptor

    def _begin(self, operation: str, path: str = "") -> bool:
        """Begin an operation; return whether it will come to its end."""
        self._count(operation)
        if numbers := self.failing.get(operation):
            self._count(f"{operation} failed")
            raise _error(numbers.pop(0), path)
        if self.power is None:
            return True
        self.power -= 1
        if self.power < 0:
            raise PowerLost
        return self.power > 0 or self._random.random() < 0.5

    def _done(self, operation: str, path: str, whole: bool) -> None:
        if not whole:
            raise PowerLost
        self.changed(operation, path)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _named(self, directory: Directory) -> Iterator[File]:
        pending = [change.node for change in directory.pending if change.node is not None]
        for node in (*directory.names.values(), *directory.platter.values(), *pending):
            if isinstance(node, Directory):
                yield from self._named(node)
            else:
                yield node

    def _forget(self, file: File) -> None:
        if not file.opened and file in self._files and file not in set(self._named(self._root)):
            os.close(file.descriptor)
            self._files.discard(file)
            self._free.append(file.number)

    def _forget_unused(self) -> None:
        for file in sorted(self._files, key=lambda file: file.number):
            self._forget(file)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
