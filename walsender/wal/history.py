"""Timeline history files: which timeline holds which part of WAL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from walsender.errors import DataCorrupted
from walsender.lsn import LSN, Geometry

from .segment import SEGMENT_NAME, history_name

_LINE: Final = re.compile(
    r"\s*([0-9]{1,10})\s+(?:([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})|([0-9A-F]{24}))(\s.*)?"
)
_TIMELINE: Final = re.compile(r"\s*[0-9]+")
_MAX_TIMELINE: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """
    One ancestor: where its WAL stops being ours.

    :ivar switchpoint: first LSN that belongs to the next timeline.
    :ivar exact: false for history files from before 9.3, which name only the segment; *switchpoint*
        is then that segment's start, and the true one is somewhere in the segment or at its end.
    :ivar reason: what the server wrote down, free text.
    """

    timeline: int
    switchpoint: LSN
    reason: str = ""
    exact: bool = True


@dataclass(frozen=True, slots=True)
class TimelineHistory:
    """
    A timeline and its ancestors, oldest first.

    A timeline holds the LSNs from the previous entry's switch point up to, not including, its own.
    """

    timeline: int
    entries: tuple[HistoryEntry, ...] = ()

    @classmethod
    def parse(cls, timeline: int, content: bytes, geometry: Geometry | None = None) -> TimelineHistory:
        """
        Return the history that the file of *timeline* holds.

        A file whose last line has no end, or that has no entry at all, is one that is being copied
        in: PostgreSQL itself writes neither.

        :param geometry: of the WAL beside it; needed for segment names (before 9.3), of whose
            era the default is.
        :raises DataCorrupted: the content is no (complete) history.

        Source: PostgreSQL, src/backend/access/transam/timeline.c, readTimeLineHistory; 9.2 xlog.c.
        """
        entries: list[HistoryEntry] = []
        lines = content.decode("utf-8", "replace").split("\n")
        if lines.pop().strip():
            raise _invalid(timeline, "The last line has no end.")
        for line in lines:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            entry = _parse_line(timeline, line, geometry or Geometry.skipping())
            if entries and entry.timeline <= entries[-1].timeline:
                raise _invalid(timeline, "Timeline IDs must be in increasing sequence.")
            if entries and entry.switchpoint < entries[-1].switchpoint:
                raise _invalid(timeline, "Switchpoints must be in increasing sequence.")
            entries.append(entry)
        if entries and entries[-1].timeline >= timeline:
            raise _invalid(timeline, "Timeline IDs must be less than child timeline's ID.")
        if timeline > 1 and not entries:
            raise _invalid(timeline, "The file names no ancestor.")
        return cls(timeline, tuple(entries))

    @property
    def ancestors(self) -> tuple[int, ...]:
        """The timelines before this one, oldest first."""
        return tuple(entry.timeline for entry in self.entries)

    @property
    def begin(self) -> LSN:
        """Where this timeline begins: 0 without ancestors."""
        return self.entries[-1].switchpoint if self.entries else LSN(0)

    def contains(self, timeline: int) -> bool:
        """Return whether *timeline* is this one or an ancestor."""
        return timeline == self.timeline or timeline in self.ancestors

    def switchpoint(self, timeline: int) -> tuple[LSN, int] | None:
        """
        Return where *timeline* ends in this history and which timeline follows it.

        ``None`` for this timeline itself, which has no end, and for one that is no part of the history.
        """
        following = (*self.ancestors, self.timeline)[1:]
        for entry, next_timeline in zip(self.entries, following, strict=True):
            if entry.timeline == timeline:
                return entry.switchpoint, next_timeline
        return None

    def timeline_at(self, lsn: int) -> int:
        """Return which timeline of this history holds the byte at *lsn*."""
        for entry in self.entries:
            if lsn < entry.switchpoint:
                return entry.timeline
        return self.timeline


def _parse_line(timeline: int, line: str, geometry: Geometry) -> HistoryEntry:
    """Return the entry that one line holds."""
    match = _LINE.fullmatch(line)
    if match is None or int(match[1]) > _MAX_TIMELINE:
        raise DataCorrupted(
            f"syntax error in history file: {line[:200]}",
            detail=f'The file is "pg_wal/{history_name(timeline)}".',
            hint="Expected a write-ahead log switchpoint location."
            if _TIMELINE.match(line)
            else "Expected a numeric timeline ID.",
        )
    parent, reason = int(match[1]), (match[5] or "").strip()
    if match[4] is None:
        return HistoryEntry(parent, LSN(int(match[2], 16) << 32 | int(match[3], 16)), reason)
    name = SEGMENT_NAME.fullmatch(match[4])
    assert name is not None  # the line's pattern has 24 of the same digits
    number = int(name[2], 16) * geometry.segments_per_log_file + int(name[3], 16)
    return HistoryEntry(parent, geometry.lsn(geometry.segment_start(number)), reason, exact=False)


def _invalid(timeline: int, hint: str) -> DataCorrupted:
    return DataCorrupted(f'invalid data in history file "pg_wal/{history_name(timeline)}"', hint=hint)
