"""The simulated disk as our interfaces have it: `WritableFiles` for WAL, `SlotFiles` for slots."""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING

from walsender.lsn import MAX_SEGMENT_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from walsender.simulate.disk import SimulatedDisk
    from walsender.wal import Identity

_DEVICE = 1


class WalFiles:
    """`walsender.wal.WritableFiles` on a simulated disk."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk

    def list_directory(self, path: str) -> list[str]:
        """See `FileOperations`."""
        return self._disk.names(path)

    def open(self, path: str) -> int:
        """See `FileOperations`."""
        return self._disk.open(path)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """See `FileOperations`."""
        return os.pread(descriptor, length, offset)

    def size(self, descriptor: int, most: int = MAX_SEGMENT_SIZE) -> int:
        """See `FileOperations`."""
        return os.fstat(descriptor).st_size

    def identity(self, descriptor: int) -> Identity:
        """See `FileOperations`."""
        return _DEVICE, self._disk.opened(descriptor).number

    def path_identity(self, path: str) -> Identity:
        """See `FileOperations`."""
        return _DEVICE, self._disk.file(path).number

    def sync(self, descriptor: int) -> None:
        """See `FileOperations`."""
        self._disk.sync(self._disk.opened(descriptor), self._disk.path_of(descriptor))

    sync_data = sync

    def sync_directory(self, path: str) -> None:
        """See `FileOperations`."""
        self._disk.sync_directory(path)

    def close(self, descriptor: int) -> None:
        """See `FileOperations`."""
        self._disk.close_descriptor(descriptor)

    def create(self, path: str) -> int:
        """See `WritableFiles`."""
        return self._disk.create(path)

    def open_to_write(self, path: str) -> int:
        """See `WritableFiles`."""
        return self._disk.open(path)

    def write(self, descriptor: int, pieces: Sequence[bytes | memoryview], offset: int) -> int:
        """See `WritableFiles`."""
        return self._disk.write(descriptor, b"".join(pieces), offset)

    def allocate(self, descriptor: int, length: int) -> None:
        """See `WritableFiles`."""
        done = 0
        while done < length:
            done += self._disk.write(descriptor, bytes(length - done), done)

    def rename(self, old: str, new: str) -> None:
        """See `WritableFiles`."""
        self._disk.rename(old, new)

    def remove(self, path: str) -> None:
        """See `WritableFiles`."""
        self._disk.remove(path)

    def free_space(self, path: str) -> int | None:
        """See `WritableFiles`."""
        return self._disk.room


class ProcessFiles(WalFiles):
    """The same for one process, with which its descriptors end."""

    def __init__(self, disk: SimulatedDisk) -> None:
        super().__init__(disk)
        self._descriptors: set[int] | None = set()

    def open(self, path: str) -> int:
        """See `FileOperations`."""
        return self._opened(super().open(path))

    def create(self, path: str) -> int:
        """See `WritableFiles`."""
        return self._opened(super().create(path))

    def open_to_write(self, path: str) -> int:
        """See `WritableFiles`."""
        return self._opened(super().open_to_write(path))

    def close(self, descriptor: int) -> None:
        """See `FileOperations`; harmless after the end."""
        if self._descriptors is not None:
            self._descriptors.remove(descriptor)
            super().close(descriptor)

    def end(self) -> None:
        """Close all, once."""
        descriptors, self._descriptors = self._descriptors or set(), None
        for descriptor in sorted(descriptors):
            super().close(descriptor)
        self.__dict__.pop(
            "_disk", None
        )  # a killed program may keep this, but must not keep all that was on disk

    def _opened(self, descriptor: int) -> int:
        assert self._descriptors is not None, "a process that has ended opens nothing"
        self._descriptors.add(descriptor)
        return descriptor


class SlotFilesOnDisk:
    """`walsender.replication_slots.SlotFiles` on a simulated disk."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk

    def list_directory(self, path: str) -> list[str]:
        """See `SlotFiles`."""
        return self._disk.names(path)

    def make_directory(self, path: str) -> None:
        """See `SlotFiles`."""
        self._disk.make_directory(path)

    def read(self, path: str, limit: int) -> bytes:
        """See `SlotFiles`."""
        return self._disk.file(path).visible()[:limit]

    def write(self, path: str, data: bytes) -> None:
        """See `SlotFiles`."""
        with contextlib.suppress(FileNotFoundError):
            self._disk.remove(path)
        descriptor = self._disk.create(path)
        try:
            written = 0
            while written < len(data):
                written += self._disk.write(descriptor, data[written:], written)
        finally:
            self._disk.close_descriptor(descriptor)

    def sync(self, path: str) -> None:
        """See `SlotFiles`."""
        self._disk.sync(self._disk.file(path), path)

    def sync_directory(self, path: str) -> None:
        """See `SlotFiles`."""
        self._disk.sync_directory(path)

    def rename(self, old: str, new: str) -> None:
        """See `SlotFiles`."""
        self._disk.rename(old, new)

    def remove(self, path: str) -> None:
        """See `SlotFiles`."""
        self._disk.remove(path)


class FetchDirectories:
    """`walsender.source.shelves.IScratch` on a simulated disk."""

    def __init__(self, disk: SimulatedDisk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._numbers = itertools.count(1)

    def begin(self) -> str:
        """See `IScratch`."""
        self._disk.make_directory(self._path)
        path = f"{self._path}/{next(self._numbers)}"
        self._disk.make_directory(path)
        return path

    def remove(self, directory: str) -> None:
        """See `IScratch`."""
        with contextlib.suppress(OSError):
            for name in self._disk.names(directory):
                self._disk.remove(f"{directory}/{name}")
            self._disk.remove_directory(directory)

    def clear(self) -> None:
        """See `IScratch`."""
        with contextlib.suppress(FileNotFoundError):
            for name in self._disk.names(self._path):
                self.remove(f"{self._path}/{name}")
