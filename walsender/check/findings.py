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
from walsender.source import SegmentUnavailable
from walsender.source.follower import Follower
from walsender.wal import (
    REAL_FILES,
    FileKind,
    FileOperations,
    VerifiedWal,
    WalDirectory,
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


def streamable(directory: WalDirectory) -> tuple[int, int, int] | None:
    """
    Return what a standby can have without a gap: the newest timeline, and from where to where.

    Every file is opened as it is for a standby, so that what is not listed as missing but is too short, or
    cannot be decompressed, counts too.

    :returns: ``None``: nothing.

    :raises WalFileError: the end cannot be found.
    """
    follower = Follower(REAL_FILES, directory.path, sync=False)
    look = follower.look(listing=True, skip_gap=False)
    if look is None:
        return None
    timeline, end = look.end.timeline, look.end.position
    identity = look.directory.identity
    assert identity is not None, "there is an end"
    geometry = identity.geometry
    first = geometry.segment_number(look.directory.earliest(timeline, end))
    last = number = geometry.segment_number(end - 1)
    while number >= first:
        try:
            follower.open(look, timeline, number, end)
        except (SegmentUnavailable, WalFileError):
            break
        number -= 1
    return None if number == last else (timeline, geometry.segment_start(number + 1), end)


def count(number: int, thing: str) -> str:
    """Return so many of a thing, in words."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
