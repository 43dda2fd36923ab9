"""
How far the WAL in a directory reaches, and opening what is in it: the part of a source that blocks.

Everything here runs in threads.  `Follower.look` lists the directory if asked to,
finds how far valid WAL reaches, and makes durable what it found, in this order;
only its result is shown to anybody.  It is called once at a time; `Follower.open`
may run beside it and uses nothing that a look changes.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from walsender.errors import DataCorrupted, WalFileError, file_error
from walsender.source.interfaces import SegmentUnavailable
from walsender.source.segment_file import OpenSegment
from walsender.wal import (
    CoveredFile,
    EndOfWal,
    FileOperations,
    Identity,
    WalDirectory,
    WalIdentity,
    find_current_end,
    parse_page_header,
    segment_name,
    sync_covered,
)
from walsender.wal.page import header_read_size
from walsender.wal.segment import PARTIAL

if TYPE_CHECKING:
    from walsender.lsn import Geometry


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found, all of it durable."""

    directory: WalDirectory
    end: EndOfWal


class Follower:
    """
    The part of the source that runs in threads; nothing here is called twice at a time but `open`.

    :param sync: make durable what is found.
    """

    def __init__(self, files: FileOperations, path: str, *, sync: bool) -> None:
        self._files = files
        self._path = path
        self.sync = sync
        self._last: Look | None = None
        self._distrusted: set[Identity] = set()
        self._durable: tuple[CoveredFile, ...] = ()

    def look(self, *, listing: bool, skip_gap: bool) -> Look | None:
        """
        Return how far WAL reaches now; ``None`` if there is none.

        :param skip_gap: go on behind a gap.
        :raises walsender.errors.WalFileError: the directory or a file cannot be read or synced.
        """
        last = self._last
        if listing or last is None:
            directory = WalDirectory.scan(self._files, self._path)
            if self.sync:
                self._sync_names()
        else:
            directory = last.directory
        resume = last.end if last is not None and not skip_gap else None
        end = find_current_end(self._files, directory, resume=resume)
        if end is None or (self.sync and end.covered and not self._make_durable(end)):
            return last
        self._last = Look(directory, end)
        return self._last

    def _sync_names(self) -> None:
        try:
            self._files.sync_directory(self._path)
        except OSError as error:
            raise file_error('could not fsync file "pg_wal"', error) from error

    def _make_durable(self, end: EndOfWal) -> bool:
        """
        Sync what is new; return whether that holds what was validated.

        A file whose fsync has failed is never trusted again: the kernel has marked
        its pages clean, so a second fsync would succeed and mean nothing.
        """
        if not self._distrusted.isdisjoint(file.identity for file in end.covered):
            return False
        try:
            if not sync_covered(self._files, self._path, end.covered, self._durable):
                return False
        except WalFileError:
            self._distrusted.update(file.identity for file in end.covered)
            raise
        self._durable = end.covered
        return True

    def open(self, directory: WalDirectory, timeline: int, number: int, end: int) -> OpenSegment:
        """
        Open a segment to send from.

        It is synced on the way: nobody knows who wrote it and how.  On a file that is
        clean that costs next to nothing.

        :param end: position up to which WAL may be sent.
        """
        identity = directory.identity
        assert identity is not None, "there is WAL, so it is somebody's"
        geometry = identity.geometry
        own = segment_name(directory.timeline_on_line(timeline, number), number, geometry)
        listed = directory.file_for_reading(timeline, number)
        # The listing may be older than the file, and a .partial may have got its final name.
        names = [own, own + PARTIAL] if listed is None else [listed, listed.removesuffix(PARTIAL)]
        missing = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        for name in dict.fromkeys(names):
            try:
                segment = self._open_file(name, identity, number, end)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise SegmentUnavailable(name, number, error, 0) from error
                continue
            if segment is not None:
                return segment
        raise SegmentUnavailable(own, number, missing, _earliest(directory, timeline, geometry, end))

    def _open_file(self, name: str, identity: WalIdentity, number: int, end: int) -> OpenSegment | None:
        """Open one file; ``None`` if it is not (all of) that segment."""
        geometry = identity.geometry
        start = geometry.segment_start(number)
        stop = start + geometry.segment_size
        descriptor = self._files.open(f"{self._path}/{name}")
        segment = OpenSegment(self._files, descriptor, name, start, stop)
        if self._files.size(descriptor) < min(stop, end) - start:
            return None  # still being copied in
        try:
            header = parse_page_header(
                self._files.read(descriptor, header_read_size(identity.format), 0), identity.format, geometry
            )
        except DataCorrupted:
            return None
        if header.address != geometry.lsn(start) or header.long is None:
            return None  # recycled for a place that it does not hold yet
        if header.long.system_identifier != identity.system_identifier:
            raise DataCorrupted(
                f'WAL file "pg_wal/{name}" is from a different database system',
                detail=f"WAL file database system identifier is {header.long.system_identifier}, "
                f"the directory's is {identity.system_identifier}.",
            )
        segment.identity = self._files.identity(descriptor)
        if self.sync:
            self._files.sync(descriptor)
        return segment


def _earliest(directory: WalDirectory, timeline: int, geometry: Geometry, end: int) -> int:
    """Return the lowest position from which WAL is held without a gap up to *end*; 0 if none is."""
    number = geometry.segment_number(end - 1)
    earliest = 0
    while True:
        run = directory.run_of(directory.timeline_on_line(timeline, number), number)
        if run is None:
            return earliest
        earliest = geometry.segment_start(run.start)
        number = run.start - 1
