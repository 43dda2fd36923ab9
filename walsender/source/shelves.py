"""
Where fetched segments go.

A relay's go into its directory and stay there, as if it had received them.  A directory that others
fill is not ours to write to, so a segment fetched for it becomes a temporary file without a name, as
what is in a compressed one does: there as long as somebody reads it, and gone however this
program ends.

Either is fetched into a directory of its own first, and checked there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred

from walsender.errors import DataCorrupted, file_error
from walsender.source.segment_file import OpenSegment
from walsender.wal import check_whole, parse_file_name, read_file
from walsender.wal.scan import MAX_HISTORY_SIZE
from walsender.wal.segment import PARTIAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.wal import FileOperations, WalDirectory, WritableFiles

FETCH_DIRECTORY: Final = "walsender_fetch"
"""In a relay's WAL directory, for what is being fetched."""

_COMPARED: Final = 1 << 20  # bytes at a time


class IScratch(Protocol):
    """A directory with one directory in it for each fetch.  Blocks; several threads may use it."""

    def begin(self) -> str:
        """
        Make a new directory.

        :raises walsender.errors.WalFileError: that is not possible.
        """

    def remove(self, directory: str) -> None:
        """Remove a directory and what is in it."""

    def clear(self) -> None:
        """Remove all of it, and what a crash has left."""


class _Scratch:
    """
    Such a directory.

    :param path: ``None``: one for temporary files.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._made = ""
        self._counter = itertools.count(1)
        self._lock = threading.Lock()

    def begin(self) -> str:
        """See `IScratch`."""
        try:
            with self._lock:
                if not self._made:
                    self._made = self._make()
                path = f"{self._made}/{next(self._counter)}"
                Path(path).mkdir(mode=0o700)
        except OSError as error:
            raise file_error("could not make a directory to fetch WAL into", error) from error
        return path

    def _make(self) -> str:
        if self._path is None:
            # /tmp may be in memory; /var/tmp is for what is large.
            parent = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108 -- mkdtemp makes it safe
            return tempfile.mkdtemp(prefix="walsender-fetch-", dir=parent if Path(parent).is_dir() else None)
        self.remove(self._path)
        Path(self._path).mkdir(mode=0o700)
        return self._path

    def remove(self, directory: str) -> None:
        """See `IScratch`."""
        shutil.rmtree(directory, ignore_errors=True)

    def clear(self) -> None:
        """See `IScratch`."""
        with self._lock:
            path = self._made or self._path
            self._made = ""
            if path:
                self.remove(path)


class _Shelf:
    """What both shelves do alike."""

    def __init__(
        self, run_in_thread: Callable[..., Deferred[Any]], files: FileOperations, scratch: IScratch
    ) -> None:
        self._run_in_thread = run_in_thread
        self._files = files
        self._scratch = scratch

    def begin(self) -> Deferred[str]:
        """See `walsender.source.fetching.IShelf`."""
        return self._run_in_thread(self._scratch.begin)

    def read(self, directory: str, name: str) -> Deferred[bytes]:
        """See `walsender.source.fetching.IShelf`."""
        return self._run_in_thread(self._read, directory, name)

    def _read(self, directory: str, name: str) -> bytes:
        try:
            content = read_file(self._files, f"{directory}/{name}", MAX_HISTORY_SIZE + 1)
        except OSError as error:
            raise file_error(f'could not read fetched file "{name}"', error) from error
        if len(content) > MAX_HISTORY_SIZE:
            raise DataCorrupted(f'fetched file "{name}" is too long')
        return content

    def discard(self, directory: str) -> Deferred[None]:
        """See `walsender.source.fetching.IShelf`."""
        return self._run_in_thread(self._scratch.remove, directory)

    def close(self) -> Deferred[None]:
        """See `walsender.source.fetching.IShelf`."""
        return self._run_in_thread(self._scratch.clear)


class INeeds(Protocol):
    """Who knows what a segment must be."""

    def needed_until(self, name: str) -> tuple[WalDirectory, int]:
        """Return the histories to check it against, and the position up to which it must be valid."""


class TemporaryShelf(_Shelf):
    """
    Keeps segments without names, as long as somebody reads them.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    """

    def __init__(
        self, run_in_thread: Callable[..., Deferred[Any]], files: FileOperations, source: INeeds
    ) -> None:
        super().__init__(run_in_thread, files, _Scratch(None))
        self._source = source

    def keep(self, directory: str, name: str) -> Deferred[OpenSegment | None]:
        """See `walsender.source.fetching.IShelf`."""
        return self._run_in_thread(self._keep, directory, name, *self._source.needed_until(name))

    def _keep(self, directory: str, name: str, line: WalDirectory, until: int) -> OpenSegment:
        check_whole(self._files, directory, name, line, until)
        assert line.identity is not None, "somebody reads from it"
        geometry = line.identity.geometry
        number = parse_file_name(name, geometry).number(geometry)
        path = f"{directory}/{name}"
        try:
            descriptor = self._files.open(path)
        except OSError as error:
            raise file_error(f'could not open file "{name}"', error) from error
        segment = OpenSegment(
            self._files, descriptor, name, geometry.segment_start(number), geometry.segment_start(number + 1)
        )
        segment.identity = self._files.identity(descriptor)
        segment.nameless = True
        return segment


class IFetchingKeeper(INeeds, Protocol):
    """A relay's picture of its directory."""

    def held_of(self, name: str) -> int:
        """Return how many bytes of a segment that is growing here are durable, and may have been sent."""

    def segment_fetched(self, name: str) -> None:
        """A segment is there, durably."""


class RelayShelf(_Shelf):
    """
    Keeps segments in a relay's directory, under their names.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    :param run_commit: likewise, with the one thread that makes names in the directory.
    :param path: the WAL directory.
    :param check_room: raises `walsender.errors.WalsenderError` if the disk has no room for what is fetched;
        called in a thread.
    :param scratch: where is fetched into; a directory in the WAL directory unless it is given.
    """

    def __init__(
        self,
        run_in_thread: Callable[..., Deferred[Any]],
        run_commit: Callable[..., Deferred[Any]],
        files: WritableFiles,
        path: str,
        source: IFetchingKeeper,
        check_room: Callable[[], object] = bool,
        scratch: IScratch | None = None,
    ) -> None:
        super().__init__(run_in_thread, files, scratch or _Scratch(f"{path}/{FETCH_DIRECTORY}"))
        self._check_room = check_room
        self._run_commit = run_commit
        self._writable = files
        self._path = path
        self._source = source

    def begin(self) -> Deferred[str]:
        """See `walsender.source.fetching.IShelf`."""
        return self._run_in_thread(self._begin)

    def _begin(self) -> str:
        self._check_room()
        return self._scratch.begin()

    def keep(self, directory: str, name: str) -> Deferred[OpenSegment | None]:
        """See `walsender.source.fetching.IShelf`."""
        return Deferred.fromCoroutine(self._keep(directory, name))

    async def _keep(self, directory: str, name: str) -> None:
        await self._run_in_thread(self._check, directory, name, *self._source.needed_until(name))
        await self._run_commit(self._give_name, directory, name, self._source.held_of(name))
        self._source.segment_fetched(name)

    def _check(self, directory: str, name: str, line: WalDirectory, until: int) -> None:
        """Check a file, and make it durable."""
        check_whole(self._files, directory, name, line, until)
        try:
            descriptor = self._files.open(f"{directory}/{name}")
            try:
                self._files.sync(descriptor)
            finally:
                self._files.close(descriptor)
        except OSError as error:
            raise file_error(f'could not fsync file "{name}"', error) from error

    def _give_name(self, directory: str, name: str, held: int) -> None:
        """
        Give a durable file its name, unless there is one that has it.

        :param held: bytes that a file which was growing must have in common with it.
        """
        final = f"{self._path}/{name}"
        try:
            try:
                self._files.path_identity(final)
            except FileNotFoundError:
                self._compare(f"{directory}/{name}", name + PARTIAL, held)
                self._writable.rename(f"{directory}/{name}", final)
                try:
                    self._files.sync_directory(self._path)
                except OSError:
                    # Whoever looks for it would find it, and send what a power failure may take away.
                    with contextlib.suppress(OSError):
                        self._writable.remove(final)
                    raise
                if held:
                    with contextlib.suppress(FileNotFoundError):
                        self._writable.remove(final + PARTIAL)  # all that counts of it is in the other
            else:
                self._files.sync_directory(self._path)
        except OSError as error:
            raise file_error(f'could not rename file "{name}" to "pg_wal/{name}"', error) from error

    def _compare(self, path: str, partial: str, held: int) -> None:
        """Refuse what differs from what is held: a standby may have that."""
        try:
            growing = self._files.open(f"{self._path}/{partial}")
        except FileNotFoundError:
            return
        try:
            fetched = self._files.open(path)
            try:
                for offset in range(0, held, _COMPARED):
                    length = min(_COMPARED, held - offset)
                    if self._files.read(growing, length, offset) != self._files.read(fetched, length, offset):
                        raise DataCorrupted(f'it differs from file "pg_wal/{partial}"')
            finally:
                self._files.close(fetched)
        finally:
            self._files.close(growing)


__all__ = ["FETCH_DIRECTORY", "RelayShelf", "TemporaryShelf"]
