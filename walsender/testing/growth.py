"""
How far a standby is behind a directory that somebody else fills, measured from outside.

What is on disk is read from the bytes of the newest file, not asked of our own
code: a preallocated segment is zero behind what has been written.
"""

from __future__ import annotations

import bisect
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from walsender.lsn import LSN, MIN_SEGMENT_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SEGMENT: Final = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?")
_STEP: Final = 64 * 1024


class WrittenEnd:
    """
    Where the written part of a directory of WAL ends.

    At most seven bytes below the end of the last record, whose padding is zero.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._name = ""
        self._offset = 0
        self._segment_size = 0

    def lsn(self) -> LSN:
        """Return the position behind the last byte that is not zero; 0 if there is no segment."""
        found = [match for path in self._directory.iterdir() if (match := _SEGMENT.fullmatch(path.name))]
        if not found:
            return LSN(0)
        newest = max(found, key=lambda match: match[0])
        name = newest[0].removesuffix(".partial")
        if name != self._name:
            self._name, self._offset = name, 0
        partial = self._directory / f"{name}.partial"
        try:
            size = self._advance(partial)
        except FileNotFoundError:
            # Complete, though it may end in zeros: after a forced switch it does.
            size = self._offset = (self._directory / name).stat().st_size
        if size >= MIN_SEGMENT_SIZE:
            self._segment_size = size
        if not self._segment_size:
            return LSN(0)  # the first file is being created right now
        number = int(newest[2], 16) * ((1 << 32) // self._segment_size) + int(newest[3], 16)
        return LSN(number * self._segment_size + self._offset)

    def _advance(self, path: Path) -> int:
        """Move the offset over what is new, and return the file's size."""
        with path.open("rb") as file:
            file.seek(self._offset)
            base = self._offset
            while (piece := file.read(_STEP)) and (length := len(piece.rstrip(b"\0"))):
                self._offset = base + length
                base += len(piece)
            return file.seek(0, 2)


@dataclass(slots=True)
class DelayMeter:
    """
    The time from "on disk" to "received", for each position that was seen on disk.

    :ivar disk: asks where the directory's written part ends.
    :ivar received: asks up to where the standby has received.
    """

    disk: Callable[[], LSN]
    received: Callable[[], LSN]
    _disk_samples: list[tuple[float, LSN]] = field(default_factory=list)
    _received_times: list[float] = field(default_factory=list)
    _received_lsns: list[LSN] = field(default_factory=list)

    def sample(self) -> tuple[LSN, LSN]:
        """Look at both sides once, at disk first, and return both positions."""
        disk = self.disk()
        if not self._disk_samples or disk > self._disk_samples[-1][1]:
            self._disk_samples.append((time.monotonic(), disk))
        received = self.received()
        if not self._received_lsns or received > self._received_lsns[-1]:
            self._received_times.append(time.monotonic())
            self._received_lsns.append(received)
        return disk, received

    def delays(self) -> list[float]:
        """
        Return in ascending order, in seconds, the delay of each position seen on disk.

        A position that has not been received counts as infinite.
        """
        result = []
        for seen_at, lsn in self._disk_samples:
            index = bisect.bisect_left(self._received_lsns, lsn)
            received_at = self._received_times[index] if index < len(self._received_times) else float("inf")
            result.append(max(0.0, received_at - seen_at))
        return sorted(result)


def percentile(ascending: list[float], percent: float) -> float:
    """Return the smallest value that at least *percent* of the values do not exceed."""
    assert ascending, "no values"
    return ascending[max(0, -int(-len(ascending) * percent // 100) - 1)]
