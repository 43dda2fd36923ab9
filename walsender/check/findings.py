"""
What is in a directory of WAL, run by run, and what is wrong with it.

Each run of segments without a gap is checked by itself, as ``verify_wal`` checks what is served: from its
first record to the end of its valid WAL.  So what stands before a gap, on a timeline that was left, or
behind a fault elsewhere is checked too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from walsender.errors import WalFileError
from walsender.wal import (
    FileKind,
    FileOperations,
    VerifiedWal,
    WalDirectory,
    find_current_end,
    find_end,
    history_name,
    parse_file_name,
    segment_name,
    verify_wal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """
    A run of segments.

    :ivar verified: what is good of it; ``None``: see *error*.
    :ivar unused: so many segments behind the end of WAL hold none: they were recycled or preallocated.
    """

    timeline: int
    segments: range
    verified: VerifiedWal | None
    error: str = ""
    unused: int = 0


def check_runs(
    files: FileOperations, directory: WalDirectory, reading: Callable[[range | None], object]
) -> Iterator[CheckedRun]:
    """
    Yield all runs, in the order of timelines and segments, each when it has been checked.

    Takes about a second for 300,000 records.

    :param reading: is called with the segments that are being read from now on, in their order, and with
        ``None`` when they have been.
    """
    for timeline in directory.timelines:
        for run in directory.ranges[timeline]:
            # As if there were nothing else on this timeline; what leads to it is found by its name.
            alone = replace(directory, ranges={timeline: (run,)})
            try:
                found = _checked(files, alone, timeline, run, reading)
            except WalFileError as error:
                found = CheckedRun(timeline, run, None, error.message)
            reading(None)
            yield found


def _checked(
    files: FileOperations,
    directory: WalDirectory,
    timeline: int,
    run: range,
    reading: Callable[[range | None], object],
) -> CheckedRun:
    assert directory.identity is not None, "there are segments"
    geometry = directory.identity.geometry
    end = find_end(files, directory, timeline)
    if end is None:
        return CheckedRun(timeline, run, None, "there is no valid WAL")
    if end.damaged:
        return CheckedRun(timeline, run, None, end.damaged[0])
    reading(run)
    verified = verify_wal(files, directory, end, geometry.segment_start(run.start))
    unused = run.stop - 1 - geometry.segment_number(end.position - 1)
    return CheckedRun(timeline, run, verified, unused=max(0, unused))


def faults(directory: WalDirectory) -> Iterator[str]:
    """Yield what is wrong with the directory itself: files that are none, gaps, missing histories."""
    assert directory.identity is not None, "there are segments"
    geometry = directory.identity.geometry
    for name, error in sorted(directory.unusable.items()):
        yield error.message if name in error.message else f'file "pg_wal/{name}": {error.message}'
    for timeline in directory.timelines:
        if timeline > 1 and timeline not in directory.histories:
            yield f'timeline {timeline}: file "pg_wal/{history_name(timeline)}" is missing'
        for gap in directory.gaps(timeline):
            first, last = (segment_name(timeline, number, geometry) for number in (gap.start, gap.stop - 1))
            which = f"{first} is missing" if len(gap) == 1 else f"{first} to {last} are missing"
            yield f"timeline {timeline}: {which} ({count(len(gap), 'segment')})"
    for path in sorted(Path(directory.path).iterdir()):
        # A compressed one tells its size when it is read.
        if parse_file_name(path.name).kind is FileKind.SEGMENT and path.is_file():
            size = path.stat().st_size
            if size != geometry.segment_size:
                yield f'file "pg_wal/{path.name}" has {size} bytes instead of {geometry.segment_size}'


def streamable(files: FileOperations, directory: WalDirectory) -> tuple[int, int, int] | None:
    """
    Return what a standby can have without a gap: the newest timeline, and from where to where.

    :returns: ``None``: nothing.

    :raises WalFileError: a file cannot be read.
    """
    end = find_current_end(files, directory)
    if end is None:
        return None
    return end.timeline, directory.earliest(end.timeline, end.position), end.position


def count(number: int, thing: str) -> str:
    """Return so many of a thing, in words."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
