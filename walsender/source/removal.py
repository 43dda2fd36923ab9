"""
Removing segments from a directory, and whether that is permitted there.

Everything here blocks, and belongs in the thread of the commits.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from walsender.errors import WalFileError, file_error
from walsender.wal import parse_file_name
from walsender.wal.segment import FileKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from walsender.wal import Identity, WritableFiles

MAY_REMOVE_WAL: Final = "walsender.may_remove_wal"
"""
A file of this name in a WAL directory says that WAL may be removed from it.

A relay makes it in a directory that it begins empty.  What somebody else has begun is an
archive until an administrator makes the file.
"""


class SegmentRemover:
    """
    Takes segments out of one directory.

    :param forget: is called with each file that is gone: a new one may get its number, and must not be
        taken for it.
    """

    def __init__(self, files: WritableFiles, path: str, forget: Callable[[Identity], object]) -> None:
        self._files = files
        self._path = path
        self._forget = forget

    def begin(self, names: Collection[str]) -> None:
        """
        Say that the directory, in which there are these names, is ours, if there is no WAL in it.

        Whoever called syncs it.

        :raises OSError: that is not possible.
        """
        empty = all(parse_file_name(name).kind is FileKind.OTHER for name in names)
        if empty and MAY_REMOVE_WAL not in names:
            descriptor = self._files.create(f"{self._path}/{MAY_REMOVE_WAL}")
            self._files.close(descriptor)  # it is its name that counts

    def may_remove(self) -> bool:
        """
        Return whether WAL may be removed here.

        :raises WalFileError: that cannot be found out.
        """
        try:
            self._files.path_identity(f"{self._path}/{MAY_REMOVE_WAL}")
        except FileNotFoundError:
            return False
        except OSError as error:
            raise file_error(f'could not stat file "{MAY_REMOVE_WAL}"', error) from error
        return True

    def remove(self, names: Iterable[str], forms: Collection[str]) -> tuple[list[str], WalFileError | None]:
        """
        Remove segments, in this order.

        :param forms: what may follow their names.
        :returns: which are gone, and why no more are or why that may not be for good.
        """
        removed = []
        try:
            for name in names:
                for form in forms:
                    self._remove_file(f"{self._path}/{name}{form}")
                removed.append(name)
            self._files.sync_directory(self._path)
        except OSError as error:
            return removed, file_error('could not remove old WAL from "pg_wal"', error)
        return removed, None

    def _remove_file(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            identity = self._files.path_identity(path)
            self._files.remove(path)
            self._forget(identity)
