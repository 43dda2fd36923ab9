"""Whether a file that came from elsewhere is what it should be, before anybody relies on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from walsender.errors import DataCorrupted, file_error

from .directory import WalDirectory
from .end import find_end
from .history import TimelineHistory
from .page import header_read_size, parse_page_header
from .segment import history_name, parse_file_name, parse_identity

if TYPE_CHECKING:
    from .files import FileOperations
    from .segment import WalIdentity

_HEADER: Final = 64  # bytes; no long header is longer


def check_whole(files: FileOperations, path: str, name: str, line: WalDirectory, until: int) -> None:
    """
    Check a complete segment: size, cluster, the header of each page, and the records at its end.

    This blocks, for some 20 ms with 16 MB: it belongs in a thread.

    :param path: the directory that has it; what grows there beside it is not looked at.
    :param name: of the segment and its file.
    :param line: whose WAL it must be, and the histories of its timelines.
    :param until: position up to which it is needed, in it or at its end: where its timeline ends, whatever
        its last server wrote behind that.
    :raises DataCorrupted: it is not that segment, or not all of it.
    :raises walsender.errors.WalFileError: it cannot be read.

    Source: for the size, PostgreSQL, src/backend/access/transam/xlogarchive.c, RestoreArchivedFile.
    """
    identity = line.identity
    assert identity is not None, "somebody needs it to go on with"
    try:
        descriptor = files.open(f"{path}/{name}")
        try:
            size = files.size(descriptor)
            header = files.read(descriptor, _HEADER, 0)
        finally:
            files.close(descriptor)
    except OSError as error:
        raise file_error(f'could not read fetched file "{name}"', error) from error
    geometry = identity.geometry
    if size != geometry.segment_size:
        raise DataCorrupted(f'file "{name}" has wrong size: {size} instead of {geometry.segment_size}')
    _compare(name, parse_identity(name, header), identity)
    file = parse_file_name(name, geometry)
    number = file.number(geometry)
    alone = WalDirectory(
        path, identity, {file.timeline: (range(number, number + 1),)}, ("",), histories=line.histories
    )
    end = find_end(files, alone, file.timeline)
    position = geometry.segment_start(number) if end is None else end.position
    if position < until:
        reason = "its first page is not its own" if end is None else end.reason
        raise DataCorrupted(f'file "{name}" has no valid WAL at {geometry.lsn(position)}: {reason}')


def check_history(
    files: FileOperations, directory: WalDirectory, timeline: int, content: bytes
) -> TimelineHistory:
    """
    Check a history file against the WAL and the histories that are held, and return what it says.

    There is nothing in it that tells one cluster's from another's.  But a timeline's first segment shows on
    which page it begins, and a timeline's history begins with those of its ancestors.

    This blocks: it belongs in a thread.

    :param directory: has WAL.
    :raises DataCorrupted: it is no (complete) history, or not the one of this WAL.
    :raises walsender.errors.WalFileError: a segment cannot be read.
    """
    identity = directory.identity
    assert identity is not None, "somebody reads from it"
    geometry = identity.geometry
    history = TimelineHistory.parse(timeline, content, geometry)
    for known in directory.histories.values():
        if not _agree(history, known):
            raise DataCorrupted(
                f'history file "{history_name(timeline)}" does not agree with '
                f'"pg_wal/{history_name(known.timeline)}"'
            )
    if not _begins_there(files, directory, history):
        raise DataCorrupted(
            f'history file "{history_name(timeline)}" lets the timeline begin at {history.begin}, '
            "where its WAL does not"
        )
    return history


def _agree(one: TimelineHistory, other: TimelineHistory) -> bool:
    """Return whether two histories tell the same of what they have in common."""
    older, newer = sorted((one, other), key=lambda history: history.timeline)
    if older.timeline not in newer.ancestors:
        return True
    until = newer.ancestors.index(older.timeline)
    return [(entry.timeline, entry.switchpoint) for entry in older.entries] == [
        (entry.timeline, entry.switchpoint) for entry in newer.entries[:until]
    ]


def _begins_there(files: FileOperations, directory: WalDirectory, history: TimelineHistory) -> bool:
    """
    Return whether the first segment of a timeline may be one of a timeline that begins as *history* says.

    The page in the middle of which a timeline begins is a copy, and says the older one; the next page says
    this one.

    Source: PostgreSQL, src/backend/access/transam/xlog.c, XLogInitNewTimeline.
    """
    identity, timeline = directory.identity, history.timeline
    assert identity is not None, "its caller needs it too"
    geometry = identity.geometry
    begin = geometry.position(history.begin)
    runs = directory.ranges.get(timeline)
    if not runs:
        return True
    number = runs[0].start
    if number < geometry.segment_number(begin):
        return False
    start = geometry.segment_start(number)
    copied = start <= begin
    if copied and not history.entries[-1].exact:
        return True
    name = directory.file_for(timeline, number)
    assert name is not None, "it is listed"

    def timeline_of(page: int) -> int | None:
        data = files.read(descriptor, header_read_size(identity.format), page - start)
        try:
            header = parse_page_header(data, identity.format, geometry)
        except DataCorrupted:
            return None
        return header.timeline if header.address == geometry.lsn(page) else None

    try:
        descriptor = files.open(f"{directory.path}/{name}")
        try:
            page = geometry.page_start(begin) if copied else start
            if copied and page < begin:
                if timeline_of(page) == timeline:
                    return False
                page += geometry.page_size
            return timeline_of(page) in {None, timeline}
        finally:
            files.close(descriptor)
    except OSError as error:
        raise file_error(f'could not read file "pg_wal/{name}"', error) from error


def _compare(name: str, found: WalIdentity, expected: WalIdentity) -> None:
    if found.system_identifier != expected.system_identifier:
        raise DataCorrupted(
            f'WAL file "{name}" is from a different database system',
            detail=f"WAL file database system identifier is {found.system_identifier}, "
            f"the directory's is {expected.system_identifier}.",
        )
    if found != expected:
        raise DataCorrupted(f'WAL file "{name}" has another format or segment size than the WAL directory')
