"""
How far the WAL in a directory reaches, and opening what is in it: the part of a source that blocks.

Everything here runs in threads.  `Follower.look` lists the directory if asked to,
finds how far valid WAL reaches, and makes durable what it found, in this order;
only its result is shown to anybody.  It is called once at a time; `Follower.open`
may run beside it, on the result of a former look.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from walsender.errors import DataCorrupted, WalFileError, WalFileMissing, file_error
from walsender.source.interfaces import SegmentUnavailable
from walsender.source.running_server import running_server
from walsender.source.segment_file import OpenSegment
from walsender.wal import (
    CannotDecompress,
    CoveredFile,
    DecompressingFiles,
    EndOfWal,
    FileOperations,
    Identity,
    PageHeader,
    SyncFailed,
    TimelineHistory,
    WalDirectory,
    WalIdentity,
    base_name,
    check_history,
    find_current_end,
    find_end,
    history_name,
    parse_file_name,
    parse_page_header,
    scan_directory,
    segment_name,
    sync_covered,
    sync_file,
)
from walsender.wal.page import header_read_size
from walsender.wal.segment import PARTIAL, compression_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


# Of so many segments around the end it is known which file was validated.
_REMEMBERED: Final = 64


class ServerRunning(WalFileError):
    """A PostgreSQL server writes this directory, and recycles files that somebody may be reading."""


@dataclass(frozen=True, slots=True)
class Look:
    """
    What one look found, all of it durable.

    :ivar gone: files in use that have lost their names; only a listing finds them.
    :ivar validated: which file held each segment around the end when it was validated, by the
        segment's name.
    """

    directory: WalDirectory
    end: EndOfWal
    validated: Mapping[str, CoveredFile]
    gone: frozenset[CoveredFile] = frozenset()


def remembered(validated: Mapping[str, CoveredFile], files: Iterable[CoveredFile]) -> dict[str, CoveredFile]:
    """Return *validated* with *files* as the latest, without the oldest if there are too many."""
    result = dict(validated)
    for file in files:
        base = base_name(file.name)
        result.pop(base, None)  # the latest stand last
        result[base] = file
    while len(result) > _REMEMBERED:
        del result[next(iter(result))]
    return result


class Follower:
    """
    The part of the source that runs in threads.

    Beside a look `open` may run, in other threads and several times; what the two share is
    `_distrusted`, to which either adds, and `_server_runs`.

    Compressed files are to all of it what is in them.

    :param sync: make durable what is found.
    :param alone: nobody else writes here, so what was made durable once stays so.
    """

    def __init__(self, files: FileOperations, path: str, *, sync: bool, alone: bool = False) -> None:
        self._files = DecompressingFiles(files)
        self._path = path
        self._sync = sync
        self._alone = alone
        self._distrusted: dict[Identity, str] = {}
        self._server_runs = False
        self._found: dict[int, tuple[TimelineHistory, bytes]] = {}
        self.begin()

    def begin(self) -> None:
        """Forget what was found: somebody else has had the directory.  What is distrusted stays so."""
        self._last: Look | None = None
        self._durable: tuple[CoveredFile, ...] = ()
        self._durable_histories: set[tuple[int, Identity]] = set()

    def look(
        self, *, listing: bool, skip_gap: bool, in_use: frozenset[CoveredFile] = frozenset()
    ) -> Look | None:
        """
        Return how far WAL reaches now; ``None`` if there is none.

        :param skip_gap: go on behind a gap.
        :param in_use: files that are being read from.
        :raises walsender.errors.WalFileError: the directory cannot be used as it is now, or a file
            cannot be read or synced.  What was found before stays true.
        """
        last = self._last
        directory = self._list(last) if listing or last is None else last.directory
        resume = last.end if last is not None and not skip_gap else None
        end = find_current_end(self._files, directory, resume=resume)
        if end is None or (self._sync and end.covered and not self._make_durable(end)):
            return last
        validated = {} if last is None else dict(last.validated)
        if listing:
            # Another file of a segment (compressed meanwhile, or a copy) must prove itself when it is opened.
            validated = {base: file for base, file in validated.items() if self._has_name(file)}
        validated = remembered(validated, end.covered)
        gone = frozenset(file for file in in_use if listing and not self._has_name(file))
        self._last = Look(directory, end, validated, gone)
        return self._last

    def _list(self, last: Look | None) -> WalDirectory:
        """List the directory, and refuse what it must not have become since the last look."""
        server = running_server(self._path)
        self._server_runs = server is not None
        if server is not None:
            raise ServerRunning(
                f'"{self._path}" belongs to a running PostgreSQL server (process {server.process_id}), '
                "which recycles its files"
            )
        listed = scan_directory(self._files, self._path)
        directory = listed
        for timeline, found in list(self._found.items()):
            if timeline not in listed.histories:
                directory = directory.with_history(*found)
        if last is not None:
            if directory.identity != last.directory.identity:
                raise DataCorrupted(f'"{self._path}" no longer holds the WAL that is being served')
            if last.end.timeline not in directory.candidate_timelines:
                raise WalFileMissing(
                    f'the timeline that is being served has lost its file "{history_name(last.end.timeline)}"'
                )
        # A new file may have got the number of one that is gone.
        for identity, name in list(self._distrusted.items()):
            if not self._has_name(CoveredFile(name, identity)):
                del self._distrusted[identity]
        if self._sync:
            self._make_names_durable(listed)
        return directory

    def check_history(self, directory: WalDirectory, timeline: int, content: bytes) -> TimelineHistory:
        """
        Return what a history file says that came from elsewhere.

        :raises walsender.errors.WalFileError: it is not the one of this WAL, or that cannot be found out.
        """
        return check_history(self._files, directory, timeline, content)

    def add_history(self, history: TimelineHistory, content: bytes) -> None:
        """From the next listing on a history counts that has no file in the directory."""
        self._found[history.timeline] = history, content

    def _has_name(self, file: CoveredFile) -> bool:
        """Return whether a file still has its name, or the final name of a ``.partial``."""
        for name in {file.name, file.name.removesuffix(PARTIAL)}:
            try:
                if self._files.path_identity(f"{self._path}/{name}") == file.identity:
                    return True
            except OSError:
                pass
        return False

    def _make_names_durable(self, directory: WalDirectory) -> None:
        """Sync the directory, and the history files by which a timeline is announced."""
        for timeline in directory.histories:
            name = directory.history_file(timeline)
            try:
                descriptor = self._files.open(f"{self._path}/{name}")
            except OSError as error:
                raise file_error(f'could not open file "pg_wal/{name}"', error) from error
            try:
                file = (timeline, self._files.identity(descriptor))
                if file not in self._durable_histories:
                    sync_file(self._files, descriptor, name, file[1])
                    self._durable_histories.add(file)
            finally:
                self._files.close(descriptor)
        try:
            self._files.sync_directory(self._path)
        except OSError as error:
            raise file_error('could not fsync file "pg_wal"', error) from error

    def _make_durable(self, end: EndOfWal) -> bool:
        """
        Sync what is new; return whether that holds what was validated.

        :raises SyncFailed: a file cannot be synced, or could not before.
        """
        for name, identity in end.covered:
            self._check_trusted(name, identity)
        try:
            if not sync_covered(self._files, self._path, end.covered, self._durable):
                return False
        except SyncFailed as error:
            names = {file.identity: file.name for file in end.covered}
            self._distrusted[error.identity] = names[error.identity]
            raise
        self._durable = end.covered
        return True

    def _check_trusted(self, name: str, identity: Identity) -> None:
        if identity in self._distrusted:
            raise SyncFailed(
                f'file "pg_wal/{name}" is not trusted: it could not be synced; replace it by a copy', identity
            )

    def forget(self, identity: Identity) -> None:
        """A file is removed: a new one may get its number, and must not be taken for it."""
        self._distrusted.pop(identity, None)

    def open(self, look: Look, timeline: int, number: int, end: int) -> OpenSegment:
        """
        Open a segment to send from.

        It is synced on the way: nobody knows who wrote it and how.  On a file that is
        clean that costs next to nothing.

        :param end: position up to which WAL may be sent.
        :raises SegmentUnavailable: it is not held, or cannot be opened.
        :raises walsender.errors.WalFileError: its file is not what it should be, or cannot be synced.
        """
        if self._server_runs:
            raise ServerRunning("the WAL directory belongs to a running PostgreSQL server")
        directory = look.directory
        identity = directory.identity
        assert identity is not None, "there is WAL, so it is somebody's"
        geometry = identity.geometry
        own = segment_name(directory.timeline_on_line(timeline, number), number, geometry)
        listed = tuple(directory.files_for_reading(timeline, number, look.end.timeline)) or (own,)
        # The listing may be older than the file, and a .partial may have got its final name.
        forms = ((name, *(base_name(name) + form for form in directory.forms)) for name in listed)
        missing = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        damaged: CannotDecompress | None = None
        for name in dict.fromkeys(chain.from_iterable(forms)):
            try:
                segment = self._open_file(name, look, number, end)
            except CannotDecompress as error:
                damaged = error
                continue
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise SegmentUnavailable(name, number, error, 0) from error
                continue
            if segment is not None:
                return segment
        if damaged is not None:
            raise damaged
        raise SegmentUnavailable(own, number, missing, directory.earliest(timeline, end))

    def _open_file(self, name: str, look: Look, number: int, end: int) -> OpenSegment | None:
        """Open one file; ``None`` if it is not (all of) that segment."""
        identity = look.directory.identity
        assert identity is not None, "there is WAL, so it is somebody's"
        geometry = identity.geometry
        start = geometry.segment_start(number)
        stop = min(start + geometry.segment_size, end)
        descriptor = self._files.open(f"{self._path}/{name}")
        segment = OpenSegment(self._files, descriptor, name, start, start + geometry.segment_size)
        segment.identity = self._files.identity(descriptor)
        validated = look.validated.get(base_name(name))
        if validated is not None and validated.identity != segment.identity:
            return None  # another file than the one in which the end was found
        if self._files.size(descriptor, geometry.segment_size) < stop - start:
            return None  # still being copied in
        header = self._page_header(descriptor, start, start, identity)
        if header is None or header.long is None:
            return None  # recycled for a place that it does not hold yet
        if header.long.system_identifier != identity.system_identifier:
            raise DataCorrupted(
                f'WAL file "pg_wal/{name}" is from a different database system',
                detail=f"WAL file database system identifier is {header.long.system_identifier}, "
                f"the directory's is {identity.system_identifier}.",
            )
        # Whoever was writing it may have been cut off in it by a power failure, with a hole in its middle,
        # and what pg_receivewal compresses it writes anew when it is restarted, in the same file.
        growing = name.endswith(PARTIAL)
        changes = growing and compression_of(name) is not None
        if (validated is None or changes) and not self._reaches(segment, look.directory, stop, growing):
            return None  # preallocated, and still being copied in
        if self._sync:
            self._check_trusted(name, segment.identity)
            if validated is None or not self._alone:
                self._sync_opened(segment)
        return segment

    def _sync_opened(self, segment: OpenSegment) -> None:
        """Make durable what no look has: nobody knows who wrote it."""
        try:
            sync_file(self._files, segment.descriptor, segment.name, segment.identity)
        except SyncFailed:
            self._distrusted[segment.identity] = segment.name
            raise

    def _page_header(
        self, descriptor: int, start: int, position: int, identity: WalIdentity
    ) -> PageHeader | None:
        """Return the header of the page at *position* if that page belongs there."""
        data = self._files.read(descriptor, header_read_size(identity.format), position - start)
        try:
            header = parse_page_header(data, identity.format, identity.geometry)
        except DataCorrupted:
            return None
        return header if header.address == identity.geometry.lsn(position) else None

    def _reaches(self, segment: OpenSegment, directory: WalDirectory, stop: int, growing: bool) -> bool:
        """
        Return whether a file that no look has validated has its WAL up to *stop*.

        Files are copied in order, so its last page tells; but behind a switch to the next
        segment there are no pages, and then its records have to be looked at.

        :param growing: it may have something else in its middle, so look at all of its pages.
        """
        identity = directory.identity
        assert identity is not None, "there is WAL, so it is somebody's"
        geometry = identity.geometry
        last_page = geometry.page_start(stop - 1)
        if not growing and self._page_header(segment.descriptor, segment.start, last_page, identity):
            return True
        timeline = parse_file_name(segment.name).timeline
        number = geometry.segment_number(segment.start)
        run = directory.run_of(timeline, number) or range(number, number + 1)
        until_here = replace(directory, ranges={timeline: (range(run.start, number + 1),)})
        end = find_end(self._files, until_here, timeline)
        if end is None or end.position < stop:
            return False
        return segment.identity in {file.identity for file in end.covered}
