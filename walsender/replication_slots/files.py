"""
The file operations that keep slots, as a parameter: a simulated disk can lose what was not synced.

Each is one system call or as good as one, so that a test can stop between any two.
Failures are `OSError`.  All of them block: they are called in the thread pool, or
before there is anybody to wait.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final, Protocol


class SlotFiles(Protocol):
    """What is asked of a disk.  Every method may raise `OSError`."""

    def list_directory(self, path: str) -> list[str]:
        """Return the names in a directory, in no order."""
        ...

    def make_directory(self, path: str) -> None:
        """Make a directory for the owner alone; harmless if it is there."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of a file, at most *limit* bytes of it."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Make a new file with this content; one of that name is replaced."""
        ...

    def sync(self, path: str) -> None:
        """Make a file's content durable."""
        ...

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, at once and in place of what has that name."""
        ...

    def remove(self, path: str) -> None:
        """Take a file's name away."""
        ...


class RealSlotFiles:
    """`SlotFiles` of the operating system."""

    def list_directory(self, path: str) -> list[str]:
        """See `SlotFiles`."""
        return os.listdir(path)  # noqa: PTH208 -- names are wanted

    def make_directory(self, path: str) -> None:
        """See `SlotFiles`."""
        Path(path).mkdir(mode=0o700, exist_ok=True)

    def read(self, path: str, limit: int) -> bytes:
        """See `SlotFiles`.  Opening a pipe of that name must not hold us up."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 -- it is open already
            return file.read(limit)

    def write(self, path: str, data: bytes) -> None:
        """
        See `SlotFiles`.

        A file that is there is removed first, never written again: after a failed fsync its
        pages may be marked clean and would not be written by the next one.
        """
        with contextlib.suppress(FileNotFoundError):
            Path(path).unlink()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 -- it is open already
            file.write(data)

    def sync(self, path: str) -> None:
        """See `SlotFiles`.  On Linux fsync of a new descriptor learns of a failure since the writing one."""
        _sync(path, os.O_RDONLY | os.O_CLOEXEC)

    def sync_directory(self, path: str) -> None:
        """See `SlotFiles`."""
        _sync(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)

    def rename(self, old: str, new: str) -> None:
        """See `SlotFiles`."""
        Path(old).replace(new)

    def remove(self, path: str) -> None:
        """See `SlotFiles`."""
        Path(path).unlink()


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


REAL_SLOT_FILES: Final = RealSlotFiles()
