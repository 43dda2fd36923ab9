"""
`Room`: whether there is room for another segment, asked before its file is made.

A segment's file is made with its full size, so that nothing fails in the middle of one.  Receiving stops
while there is still some room: slots and histories must be saved on a disk that is full of WAL, or
nothing could ever be removed from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from walsender.errors import DiskFull, file_error
from walsender.wal import parse_file_name
from walsender.wal.segment import FileKind

if TYPE_CHECKING:
    from walsender.wal import WritableFiles

RESERVE: Final = 1 << 20
"""Bytes that WAL leaves free: for thousands of slots."""

_NO_SEGMENTS: Final = frozenset({FileKind.HISTORY, FileKind.BACKUP, FileKind.OTHER})


class Room:
    """
    The room for WAL in one directory.

    :ivar limit: ``max_wal_directory_size`` in bytes; ``None``: the disk's size.
    """

    def __init__(self, files: WritableFiles, path: str, limit: int | None = None) -> None:
        self._files = files
        self._path = path
        self.limit = limit

    def check(self, segment_size: int) -> None:
        """
        Check that one more segment may be made; blocks.

        :param segment_size: bytes.
        :raises DiskFull: it may not.
        :raises WalFileError: the directory cannot be looked at.
        """
        self.check_disk(segment_size)
        if self.limit is None:
            return
        try:
            names = self._files.list_directory(self._path)
        except OSError as error:
            raise file_error(f'could not use directory "{self._path}"', error) from error
        held = sum(parse_file_name(name).kind not in _NO_SEGMENTS for name in names)
        if (held + 1) * segment_size > self.limit:
            raise DiskFull(
                'there is no room for another WAL segment: "max_wal_directory_size" '
                f"({self.limit >> 20} MB) is reached"
            )

    def check_disk(self, size: int) -> None:
        """
        Check that *size* bytes of WAL fit on the disk, whatever the limit is; blocks.

        :raises DiskFull: they do not.
        :raises WalFileError: the directory cannot be looked at.
        """
        try:
            free = self._files.free_space(self._path)
        except OSError as error:
            raise file_error(f'could not use directory "{self._path}"', error) from error
        if free is not None and free < size + RESERVE:
            raise DiskFull('there is no room for another WAL segment on the disk of "wal_directory"')
