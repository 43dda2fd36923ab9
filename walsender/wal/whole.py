"""Whether a segment that came from elsewhere is whole, before anybody relies on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from walsender.errors import DataCorrupted, file_error

from .directory import WalDirectory
from .end import find_end
from .segment import parse_file_name, parse_identity

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


def _compare(name: str, found: WalIdentity, expected: WalIdentity) -> None:
    if found.system_identifier != expected.system_identifier:
        raise DataCorrupted(
            f'WAL file "{name}" is from a different database system',
            detail=f"WAL file database system identifier is {found.system_identifier}, "
            f"the directory's is {expected.system_identifier}.",
        )
    if found != expected:
        raise DataCorrupted(f'WAL file "{name}" has another format or segment size than the WAL directory')
