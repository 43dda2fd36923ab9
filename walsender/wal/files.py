"""
The file operations that this program performs on WAL, as a parameter.

Whoever reads WAL is handed a `FileOperations`, so that the same code runs on a
real disk and on a simulated one.  Failures are `OSError`, as the operating system
gives them; the rooms that know what a file means turn them into typed errors.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from walsender.lsn import MAX_SEGMENT_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_PIECES: Final = 1024  # of one system call: IOV_MAX of Linux

Identity = tuple[int, int]
"""Device and inode: tells whether two names, or a name and a descriptor, are one file."""


class FileOperations(Protocol):
    """What can be asked of a disk.  Every method may raise `OSError`."""

    def list_directory(self, path: str) -> list[str]:
        """Return the names in a directory, in no order."""
        ...

    def open(self, path: str) -> int:
        """Return a read-only descriptor; whoever called closes it."""
        ...

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Return up to *length* bytes from *offset*; fewer only at the end of the file."""
        ...

    def size(self, descriptor: int, most: int = MAX_SEGMENT_SIZE) -> int:
        """
        Return the file's size in bytes, now.

        :param most: bytes that it is to have at most; what is compressed is not expanded further.
        """
        ...

    def identity(self, descriptor: int) -> Identity:
        """Return which file a descriptor is open on."""
        ...

    def path_identity(self, path: str) -> Identity:
        """Return which file a path leads to, now."""
        ...

    def sync(self, descriptor: int) -> None:
        """Make the file's content durable, whoever wrote it."""
        ...

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        ...

    def close(self, descriptor: int) -> None:
        """Close a descriptor from `open`."""
        ...


class WritableFiles(FileOperations, Protocol):
    """What a relay asks of a disk beside.  Every method may raise `OSError`."""

    def create(self, path: str) -> int:
        """Make a new, empty file and return a descriptor to read and write it; whoever called closes it."""
        ...

    def open_to_write(self, path: str) -> int:
        """Return a descriptor to read and write an existing file; whoever called closes it."""
        ...

    def write(self, descriptor: int, pieces: Sequence[bytes | memoryview], offset: int) -> int:
        """Write *pieces* one after another at *offset*; return how many bytes were taken, perhaps not all."""
        ...

    def allocate(self, descriptor: int, length: int) -> None:
        """Give an empty file this size and room on the disk for it; it reads as zeros."""
        ...

    def sync_data(self, descriptor: int) -> None:
        """Make a file's content and size durable; its times need not be."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, at once and in place of what has that name."""
        ...

    def remove(self, path: str) -> None:
        """Take a file's name away."""
        ...

    def free_space(self, path: str) -> int | None:
        """Return how many bytes can still be written to the disk of a directory; ``None``: nobody knows."""
        ...


def read_file(files: FileOperations, path: str, length: int, offset: int = 0) -> bytes:
    """
    Return what a file has of *length* bytes from *offset* on.

    :raises OSError: it cannot be opened or read.
    """
    descriptor = files.open(path)
    try:
        return files.read(descriptor, length, offset)
    finally:
        files.close(descriptor)


def turn_read_ahead_off(descriptor: int) -> None:
    """
    Have the kernel read of a file what is asked for, and no more.

    Before anything is read: pages that were read ahead have what follows read ahead when they are come to,
    whatever is said afterwards.
    """
    with contextlib.suppress(OSError):  # a hint, and not every file system takes it
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)


def prefetch(descriptor: int, offset: int, length: int) -> None:
    """Have the kernel begin to read a range of a file into memory."""
    with contextlib.suppress(OSError):  # likewise
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)


class RealFiles:
    """
    `WritableFiles` of the operating system.

    :param mode: permission bits of the files that it makes; by default, like all that PostgreSQL writes,
        they are their owner's alone.
    """

    def __init__(self, mode: int = 0o600) -> None:
        self._mode = mode

    def list_directory(self, path: str) -> list[str]:
        """Return the names in a directory, in no order."""
        return os.listdir(path)  # noqa: PTH208 -- names are wanted, 100,000 Path objects are not

    def open(self, path: str) -> int:
        """
        Return a read-only descriptor; whoever called closes it.

        A pipe that is named like a segment must not hold us up: O_NONBLOCK means
        nothing for ordinary files, and opening a pipe returns at once with it.
        """
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Return up to *length* bytes from *offset*; fewer only at the end of the file."""
        data = os.pread(descriptor, length, offset)
        if len(data) == length or not data:
            return data
        pieces = [data]
        while data and (missing := length - sum(map(len, pieces))):
            data = os.pread(descriptor, missing, offset + length - missing)
            pieces.append(data)
        return b"".join(pieces)

    def size(self, descriptor: int, most: int = MAX_SEGMENT_SIZE) -> int:
        """Return the file's size in bytes, now."""
        return os.fstat(descriptor).st_size

    def identity(self, descriptor: int) -> Identity:
        """Return which file a descriptor is open on."""
        status = os.fstat(descriptor)
        return status.st_dev, status.st_ino

    def path_identity(self, path: str) -> Identity:
        """Return which file a path leads to, now."""
        status = Path(path).stat()
        return status.st_dev, status.st_ino

    def sync(self, descriptor: int) -> None:
        """
        Make the file's content durable, whoever wrote it.

        On Linux a read-only descriptor suffices, and one that was opened after a failed
        write-back still learns of the failure if nobody else has.
        """
        os.fsync(descriptor)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor from `open`."""
        os.close(descriptor)

    def create(self, path: str) -> int:
        """See `WritableFiles`."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode)

    def open_to_write(self, path: str) -> int:
        """See `WritableFiles`."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)

    def write(self, descriptor: int, pieces: Sequence[bytes | memoryview], offset: int) -> int:
        """See `WritableFiles`."""
        return os.pwritev(descriptor, pieces[:_MOST_PIECES], offset)

    def allocate(self, descriptor: int, length: int) -> None:
        """See `WritableFiles`."""
        os.posix_fallocate(descriptor, 0, length)

    def sync_data(self, descriptor: int) -> None:
        """See `WritableFiles`."""
        os.fdatasync(descriptor)

    def rename(self, old: str, new: str) -> None:
        """See `WritableFiles`."""
        Path(old).replace(new)

    def remove(self, path: str) -> None:
        """See `WritableFiles`."""
        Path(path).unlink()

    def free_space(self, path: str) -> int | None:
        """See `WritableFiles`; what is set aside for root does not count, and quotas are not seen."""
        status = os.statvfs(path)
        # Some network file systems know nothing, and say 0 of 0.
        return status.f_bavail * status.f_frsize if status.f_blocks else None


REAL_FILES: Final = RealFiles()
