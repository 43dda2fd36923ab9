"""
Whole files of a relay's directory, made durable: history files, and what could not be trusted otherwise.

Everything here blocks, and belongs in the thread of the commits.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from walsender.errors import WalFileError, file_error
from walsender.upstream.segment_writer import REPLACEMENT
from walsender.wal import DecompressingFiles, find_end, parse_file_name, scan_directory
from walsender.wal.segment import PARTIAL, FileKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from walsender.wal import Identity, WalDirectory, WritableFiles

_TEMPORARY: Final = ".tmp"
_AT_ONCE: Final = 1 << 20  # bytes
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

        What was growing and is whole gets its final name.

        :raises OSError: that cannot be done.
        """
        for name in self._files.list_directory(self._path):
            base = name.removesuffix(REPLACEMENT).removesuffix(_TEMPORARY)
            if base != name and parse_file_name(base).kind is not FileKind.OTHER:
                self._files.remove(f"{self._path}/{name}")
        growing = [
            name
            for name in self._files.list_directory(self._path)
            if parse_file_name(name).kind is FileKind.PARTIAL
        ]
        for name in growing:
            self._write_again(name)
        if growing:
            self._complete(growing)

    def _complete(self, growing: list[str]) -> None:
        """
        Rename growing segments that are whole, and durable: somebody could not do so once.

        Where WAL ends with such a segment, receiving goes on behind it, and nobody comes back to it.  A
        rename that fails is tried again at the next start; until then the file is served as it is.
        """
        with contextlib.suppress(WalFileError):  # whoever looks next meets the same, and says so
            directory = scan_directory(DecompressingFiles(self._files), self._path)
            for name in growing:
                if self._is_whole(directory, name):
                    with contextlib.suppress(OSError):
                        self._finish(name)

    def complete(self, name: str, durable: int) -> bool:
        """
        Give a growing segment its final name if its last record is a switch to the next; return whether.

        The rest of it is unused then, and need not come: the file was made of zeros, durably.

        :param durable: up to which position of the segment, at least, what has come is on disk.
        :raises walsender.errors.WalFileError: it cannot be read.
        :raises OSError: likewise, or it cannot be renamed.
        """
        directory = scan_directory(DecompressingFiles(self._files), self._path)
        if not self._is_whole(directory, name):
            return False
        assert directory.identity is not None, "a whole segment has one"
        size = directory.identity.geometry.segment_size
        descriptor = self._files.open(f"{self._path}/{name}")
        try:
            if not self._is_unused(descriptor, durable % size):
                return False  # something has come that is not known to be on disk
        finally:
            self._files.close(descriptor)
        self._finish(name)
        self._files.sync_directory(self._path)
        return True

    def _is_whole(self, directory: WalDirectory, name: str) -> bool:
        if directory.identity is None:
            return False
        geometry = directory.identity.geometry
        file = parse_file_name(name, geometry)
        number = file.number(geometry)
        run = directory.run_of(file.timeline, number)
        if run is None or directory.file_for(file.timeline, number) != name:
            return False  # nothing was in it, or the segment has a better file
        ranges = {file.timeline: (range(run.start, number + 1),)}
        files = DecompressingFiles(self._files)
        end = find_end(files, replace(directory, ranges=ranges), file.timeline, last=number)
        return end is not None and end.position == geometry.segment_start(number + 1)

    def _finish(self, name: str) -> None:
        path = f"{self._path}/{name}"
        self._files.rename(path, path.removesuffix(PARTIAL))

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
            empty = self._is_unused(descriptor)
            if not empty:
                self._write(descriptor, self._pieces(descriptor))
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
            self._replace(path, self._pieces(descriptor), REPLACEMENT)
        finally:
            self._files.close(descriptor)

    def write_history(self, name: str, content: bytes) -> None:
        """
        Make a history file durable under its name.

        :raises walsender.errors.WalFileError: that cannot be done.
        """
        try:
            self._replace(f"{self._path}/{name}", [content], _TEMPORARY)
        except OSError as error:
            raise file_error(f'could not write file "pg_wal/{name}"', error) from error

    def _replace(self, path: str, content: Iterable[bytes], suffix: str) -> None:
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

    def _write(self, descriptor: int, content: Iterable[bytes]) -> None:
        """Write a file from its beginning, durably."""
        offset = 0
        for piece in content:
            left = memoryview(piece)
            while left:
                written = self._files.write(descriptor, [left], offset)
                offset += written
                left = left[written:]
        self._files.sync_data(descriptor)

    def _pieces(self, descriptor: int, offset: int = 0) -> Iterator[bytes]:
        """Yield what is in a file from *offset* on, a little at a time: a segment may have a gigabyte."""
        while piece := self._files.read(descriptor, _AT_ONCE, offset):
            yield piece
            offset += len(piece)

    def _is_unused(self, descriptor: int, offset: int = 0) -> bool:
        """Return whether there are zeros only from *offset* on."""
        return not any(piece.lstrip(b"\0") for piece in self._pieces(descriptor, offset))


def _is_or_follows(name: str, segment: str) -> bool:
    """Return whether a file is that of *segment*, or of a later one of its timeline."""
    return bool(segment) and name[:_TIMELINE] == segment[:_TIMELINE] and name >= segment


__all__ = ["DurableFiles"]
