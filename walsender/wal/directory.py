"""
A WAL directory as a whole: which timeline has which segments, as one listing saw them.

`WalDirectory` is immutable; whoever watches a directory scans again (`walsender.wal.scan`) and compares.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .history import TimelineHistory
from .segment import (
    PARTIAL,
    WalIdentity,
    history_name,
    segment_name,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from walsender.errors import WalFileError


@dataclass(frozen=True)
class WalDirectory:
    """
    One listing of a directory of WAL.

    :ivar path: the directory, as given.
    :ivar identity: whose WAL it is; ``None`` as long as no file in it is a WAL segment, and
        then there are no ranges either.
    :ivar ranges: per timeline, runs of segment numbers without a gap, ascending; complete, partial
        and compressed segments alike, whatever is in them.
    :ivar forms: what may follow a segment's name here, best first: a complete one is preferred to a
        partial one, and then a plain one to a compressed one.
    :ivar histories: the histories whose files are complete.
    :ivar unusable: names that were looked into and are not what they promise, with the reason.
    """

    path: str
    identity: WalIdentity | None = None
    ranges: Mapping[int, tuple[range, ...]] = field(default_factory=dict)
    forms: tuple[str, ...] = ("", PARTIAL)
    histories: Mapping[int, TimelineHistory] = field(default_factory=dict)
    unusable: Mapping[str, WalFileError] = field(default_factory=dict)
    _history_contents: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    _history_files: Mapping[int, str] = field(default_factory=dict, repr=False)
    _other_forms: Mapping[int, Mapping[int, str]] = field(default_factory=dict, repr=False)

    def with_segment(self, timeline: int, number: int, *, partial: bool) -> WalDirectory:
        """Return this directory after a segment has been made, or has become complete."""
        runs = self.ranges.get(timeline, ())
        if self.run_of(timeline, number) is None:
            runs = _with_number(runs, number)
        other = dict(self._other_forms.get(timeline, {}))
        other.pop(number, None)
        if partial:
            other[number] = PARTIAL
        return replace(
            self,
            ranges=dict(sorted({**self.ranges, timeline: runs}.items())),
            _other_forms={**self._other_forms, timeline: other},
        )

    def segments_before(self, number: int, timeline: int) -> Iterator[tuple[int, int]]:
        """
        Yield the segments with lower numbers as timeline and number, in the order of WAL.

        :param timeline: those of higher timelines, which may still be on their way, are left out.
        """
        numbers = [
            _numbers_before(number, holder, runs)
            for holder, runs in self.ranges.items()
            if holder <= timeline
        ]
        return ((holder, held) for held, holder in heapq.merge(*numbers))

    def without_segments(self, segments: Collection[tuple[int, int]]) -> WalDirectory:
        """Return this directory after segments, by timeline and number, have been removed."""
        ranges, forms = dict(self.ranges), dict(self._other_forms)
        for timeline in {timeline for timeline, _ in segments}:
            gone = {number for holder, number in segments if holder == timeline}
            runs = tuple(part for run in ranges.get(timeline, ()) for part in _without(run, gone))
            ranges[timeline] = runs
            if not runs:
                del ranges[timeline]
            forms[timeline] = {
                number: form for number, form in forms.get(timeline, {}).items() if number not in gone
            }
        return replace(self, ranges=ranges, _other_forms=forms)

    def with_history(self, history: TimelineHistory, content: bytes) -> WalDirectory:
        """Return this directory after a history file has been made."""
        return replace(
            self,
            histories={**self.histories, history.timeline: history},
            _history_contents={**self._history_contents, history.timeline: content},
            _history_files={**self._history_files, history.timeline: history_name(history.timeline)},
        )

    @property
    def timelines(self) -> tuple[int, ...]:
        """The timelines that have segments here, ascending."""
        return tuple(sorted(self.ranges))

    @property
    def current_timeline(self) -> int | None:
        """
        The timeline that is being written, as far as the names can tell; ``None`` without WAL.

        The highest that has a complete history (timeline 1 needs none) and a segment.  If there is
        none, the highest that has a segment.
        """
        return next(iter(self.candidate_timelines), None)

    @property
    def candidate_timelines(self) -> tuple[int, ...]:
        """The timelines that could be the current one, the best first."""
        complete = [timeline for timeline in self.ranges if timeline == 1 or timeline in self.histories]
        return tuple(sorted(complete or list(self.ranges)[-1:], reverse=True))

    def history(self, timeline: int) -> TimelineHistory:
        """
        Return a timeline's history; without its file it has no ancestors.

        Source: PostgreSQL, src/backend/access/transam/timeline.c, readTimeLineHistory.
        """
        return self.histories.get(timeline) or TimelineHistory(timeline)

    def history_content(self, timeline: int) -> bytes | None:
        """Return a history file byte for byte, or ``None`` if there is no complete one."""
        return self._history_contents.get(timeline)

    def history_file(self, timeline: int) -> str:
        """Return the name of the file that a history in `histories` is from."""
        return self._history_files[timeline]

    def gaps(self, timeline: int) -> tuple[range, ...]:
        """Return the segment numbers missing between the runs of a timeline's own segments."""
        runs = self.ranges.get(timeline, ())
        return tuple(range(a.stop, b.start) for a, b in itertools.pairwise(runs))

    def run_of(self, timeline: int, number: int) -> range | None:
        """Return the run of *timeline*'s own segments that has segment *number*."""
        runs = self.ranges.get(timeline, ())
        place = bisect.bisect_right(runs, number, key=lambda run: run.start) - 1
        return runs[place] if place >= 0 and number in runs[place] else None

    def file_for(self, timeline: int, number: int) -> str | None:
        """Return the name of the best file of a timeline's own segment, by `forms`."""
        if self.identity is None or self.run_of(timeline, number) is None:
            return None
        name = segment_name(timeline, number, self.identity.geometry)
        return name + self._other_forms.get(timeline, {}).get(number, "")

    def timeline_on_line(self, timeline: int, number: int) -> int:
        """
        Return whose file holds segment *number* of the WAL that leads to *timeline*.

        A segment in which timelines change is held by the latest of them: a new timeline starts with a copy.
        """
        assert self.identity is not None  # there is no number without a geometry
        geometry = self.identity.geometry
        holder = timeline
        for entry in reversed(self.history(timeline).entries):
            if number >= geometry.segment_number(geometry.position(entry.switchpoint)):
                break
            holder = entry.timeline
        return holder

    def earliest(self, timeline: int, end: int) -> int:
        """Return from which position *timeline*'s WAL is held without a gap up to *end*; 0 if it is not."""
        assert self.identity is not None  # there is no position without a geometry
        geometry = self.identity.geometry
        number = geometry.segment_number(end - 1)
        earliest = 0
        while (run := self.run_of(self.timeline_on_line(timeline, number), number)) is not None:
            earliest = geometry.segment_start(run.start)
            number = run.start - 1
        return earliest

    def file_for_reading(self, timeline: int, number: int, newest: int | None = None) -> str | None:
        """Return the first of `files_for_reading`."""
        return next(self.files_for_reading(timeline, number, newest), None)

    def files_for_reading(self, timeline: int, number: int, newest: int | None = None) -> Iterator[str]:
        """
        Yield the names of the files from which segment *number* can be read for a client on *timeline*.

        The segment in which *timeline* ends (in the newest timeline's history) is read from a descendant's
        file, where it is complete in any case, and only then from its own.  Before *timeline*'s first
        segment, its ancestors' files serve.

        :param newest: timeline that is shown to clients; they may have more of *timeline* than one has
            that is here and not shown yet.  `current_timeline` unless it is given.

        Source: PostgreSQL, src/backend/replication/walsender.c, WalSndSegmentOpen.
        """
        if self.identity is None:
            return
        for holder in self.holders(timeline, number, newest):
            if name := self.file_for(holder, number):
                yield name

    def holders(self, timeline: int, number: int, newest: int | None = None) -> Iterator[int]:
        """Yield the timelines in whose files segment *number* is looked for, as `file_for_reading` does."""
        yield from self._descendants_from(timeline, number, newest or self.current_timeline or 0)
        yield self.timeline_on_line(timeline, number)

    def _descendants_from(self, timeline: int, number: int, newest: int) -> Iterable[int]:
        """Yield the timelines that begin in segment *number*, where *timeline* ends, nearest first."""
        assert self.identity is not None
        geometry = self.identity.geometry
        history = self.history(newest)
        while (end := history.switchpoint(timeline)) is not None:
            switchpoint, timeline = end
            if geometry.segment_number(geometry.position(switchpoint)) != number:
                break
            yield timeline


def _with_number(runs: tuple[range, ...], number: int) -> tuple[range, ...]:
    """Return *runs* with one more number, which is usually the one behind the last."""
    if runs and runs[-1].stop == number:
        return (*runs[:-1], range(runs[-1].start, number + 1))
    return runs_of({number}.union(*runs))


def _numbers_before(number: int, timeline: int, runs: Iterable[range]) -> Iterator[tuple[int, int]]:
    """Yield the segment numbers below *number*, ascending, each with the timeline."""
    for run in runs:
        for held in range(run.start, min(run.stop, number)):
            yield held, timeline


def _without(run: range, gone: set[int]) -> Iterable[range]:
    """Yield what is left of a run."""
    start = run.start
    for number in sorted(gone.intersection(run)):
        if number > start:
            yield range(start, number)
        start = number + 1
    if start < run.stop:
        yield range(start, run.stop)


def runs_of(numbers: set[int]) -> tuple[range, ...]:
    """Return the runs without gaps that *numbers* form, ascending."""
    runs: list[range] = []
    start = stop = -1
    for number in sorted(numbers):
        if number != stop:
            if stop >= 0:
                runs.append(range(start, stop))
            start = number
        stop = number + 1
    if stop >= 0:
        runs.append(range(start, stop))
    return tuple(runs)
