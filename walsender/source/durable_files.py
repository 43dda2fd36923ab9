"""
Whole files of a relay's directory, made durable: history files, and what could not be trusted otherwise.

Everything here blocks, and belongs in the thread of the commits.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from walsender.errors import file_error
from walsender.upstream.segment_writer import REPLACEMENT
from walsender.wal import parse_file_name
from walsender.wal.segment import FileKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.wal import Identity, WritableFiles

_TEMPORARY: Final = ".tmp"
_TIMELINE: Final = 8  # digits at the beginning of a segment's name


class DurableFiles:
    """
    Writes whole files in one directory.

    :param forget: is called with each file that is gone or new: it must not be taken for one that had
        its number before.
    """

    def __init__(self, files: WritableFiles, path: str, forget: Callable[[Identity], object]) -> None:
        self._files = files
        self._path = path
        self._forget = forget

    def clear_up(self) -> None:
        """
        Remove what a crash has left, and make durable what was growing; the caller syncs the directory.

        :raises OSError: that cannot be done.
        """
        for name in self._files.list_directory(self._path):
            base = name.removesuffix(REPLACEMENT).removesuffix(_TEMPORARY)
            if base != name and parse_file_name(base).kind is not FileKind.OTHER:
                self._files.remove(f"{self._path}/{name}")
        for name in self._files.list_directory(self._path):
            if parse_file_name(name).kind is FileKind.PARTIAL:
                self._write_again(name)

    def _write_again(self, name: str) -> None:
        """
        Write what a growing segment holds over itself.

        Whoever wrote it may have been killed after a sync had failed.  What the kernel shows then
        may never get to the disk, and another sync would succeed and mean nothing.  What is
        written again gets there, and needs no room.

        A segment that was made and into which nothing was written goes: receiving may begin elsewhere now.
        """
        path = f"{self._path}/{name}"
        descriptor = self._files.open_to_write(path)
        try:
            identity = self._files.identity(descriptor)
            content = self._files.read(descriptor, self._files.size(descriptor), 0)
            empty = not content.lstrip(b"\0")
            if not empty:
                self._write(descriptor, content)
        except OSError:
            self._renew(name)
            return
        finally:
            self._files.close(descriptor)
        if empty:
            self._files.remove(path)
            self._forget(identity)

    def renew(self, identity: Identity, busy: str = "") -> list[str]:
        """
        Put a copy in the place of a file whose sync has failed.

        :param busy: name of the segment that is being received: its writer must keep its file, and those
            behind it.  Empty: nobody writes.
        :returns: names of the copies.
        """
        renewed: list[str] = []
        with contextlib.suppress(OSError):
            for name in self._files.list_directory(self._path):
                if parse_file_name(name).kind is FileKind.PARTIAL and _is_or_follows(name, busy):
                    continue
                with contextlib.suppress(OSError):
                    if self._files.path_identity(f"{self._path}/{name}") == identity:
                        self._renew(name)
                        renewed.append(name)
        return renewed

    def _renew(self, name: str) -> None:
        path = f"{self._path}/{name}"
        descriptor = self._files.open(path)
        try:
            content = self._files.read(descriptor, self._files.size(descriptor), 0)
        finally:
            self._files.close(descriptor)
        self._replace(path, content, REPLACEMENT)

    def write_history(self, name: str, content: bytes) -> None:
        """
        Make a history file durable under its name.

        :raises walsender.errors.WalFileError: that cannot be done.
        """
        try:
            self._replace(f"{self._path}/{name}", content, _TEMPORARY)
        except OSError as error:
            raise file_error(f'could not write file "pg_wal/{name}"', error) from error

    def _replace(self, path: str, content: bytes, suffix: str) -> None:
        """Make *content* durable under a name, in place of what has it."""
        files = self._files
        with contextlib.suppress(FileNotFoundError):
            files.remove(path + suffix)
        descriptor = files.create(path + suffix)
        try:
            self._forget(files.identity(descriptor))
            self._write(descriptor, content)
        finally:
            files.close(descriptor)
        files.rename(path + suffix, path)
        files.sync_directory(self._path)

    def _write(self, descriptor: int, content: bytes) -> None:
        """Write a file from its beginning, durably."""
        view, written = memoryview(content), 0
        while written < len(content):
            written += self._files.write(descriptor, [view[written:]], written)
        self._files.sync_data(descriptor)


def _is_or_follows(name: str, segment: str) -> bool:
    """Return whether a file is that of *segment*, or of a later one of its timeline."""
    return bool(segment) and name[:_TIMELINE] == segment[:_TIMELINE] and name >= segment


__all__ = ["DurableFiles"]
