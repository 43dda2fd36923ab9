"""
`Ledger`: what somebody was promised of one relay's disk, and whether a power failure now could take it away.

All that is asked is asked of the platter, for the worst of all that a power failure could leave.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from walsender.simulate.cluster import SEGMENT_SIZE, pieces
from walsender.simulate.platter import Directory, File
from walsender.wal import FileKind, history_name, parse_file_name, segment_name
from walsender.wal.segment import PARTIAL

if TYPE_CHECKING:
    from walsender.simulate.cluster import Cluster
    from walsender.simulate.disk import SimulatedDisk


class Broken(AssertionError):
    """An invariant does not hold."""


class Ledger:
    """
    What was promised of the WAL in one directory.

    :ivar promised: of each timeline's segments, from where to where in them.
    :ivar announced: history files that somebody relies on.
    :ivar leaving: numbers of the segments that are about to be removed.
    """

    def __init__(self, disk: SimulatedDisk, path: str, cluster: Cluster) -> None:
        self._disk = disk
        self._path = path
        self._cluster = cluster
        self.promised: defaultdict[int, dict[int, tuple[int, int]]] = defaultdict(dict)
        self.announced: set[int] = set()
        self.leaving: set[int] = set()
        self._released: set[int] = set()

    def release(self, numbers: set[int]) -> None:
        """Retention takes these segments, of all timelines: whoever may have had them no longer can."""
        self.leaving |= numbers
        self._released |= numbers
        for promised in self.promised.values():
            for number in numbers.intersection(promised):
                del promised[number]

    def promise(self, timeline: int, start: int, end: int, to_whom: str) -> None:
        """
        Somebody has been promised *timeline*'s WAL from *start* to *end*.

        :raises Broken: a power failure could take it away.
        """
        promised = self.promised[timeline]
        for number, first, last in pieces(start, end):
            if number in self.leaving:
                continue  # it was sent before that was decided
            if number in self._released and not self._is_seen(timeline, number, first, last):
                continue  # it was sent before it was removed
            old = promised.get(number, (first, first))
            self._check(timeline, number, first, last, to_whom)
            promised[number] = min(old[0], first), max(old[1], last)
        if timeline > 1:
            self.announce(timeline, to_whom)

    def announce(self, timeline: int, to_whom: str) -> None:
        """
        Somebody has been told of *timeline*.

        :raises Broken: a power failure could take its history file away.
        """
        if timeline not in self.announced and timeline > 1:
            self.announced.add(timeline)
            self._check_history(timeline, to_whom)

    def changed(self, name: str) -> None:
        """
        Something in the directory has changed.

        :param name: of the file; empty: all are meant.
        :raises Broken: a promise is.
        """
        parsed = parse_file_name(name.removesuffix(".new").removesuffix(".tmp"))
        number = parsed.number(self._cluster.geometry)
        for timeline, promised in self.promised.items():
            for one, (first, last) in promised.items():
                if not name or (parsed.kind is not FileKind.HISTORY and one == number):
                    self._check(timeline, one, first, last, "somebody")
        for timeline in self.announced:
            if not name or parsed.kind is FileKind.HISTORY:
                self._check_history(timeline, "somebody")
        self._check_final(number if name else None)

    def _names(self, number: int) -> frozenset[str]:
        names = [segment_name(one, number, self._cluster.geometry) for one in self._cluster.timelines]
        return frozenset(name + form for name in names for form in ("", PARTIAL))

    def _is_seen(self, timeline: int, number: int, first: int, last: int) -> bool:
        """Return whether programs can read it, safe or not."""
        truth = bytes(self._cluster.segment(timeline, number)[first:last])
        return any(
            isinstance(file, File) and file.visible()[first:last] == truth
            for name, file in self._directory.names.items()
            if name in self._names(number)
        )

    def _check(self, timeline: int, number: int, first: int, last: int, to_whom: str) -> None:
        truth = self._cluster.segment(timeline, number)[first:last]
        geometry = self._cluster.geometry
        for outcome in self._directory.outcomes(self._names(number)):
            if not any(_holds(file, first, truth) for file in outcome.values()):
                start = number * SEGMENT_SIZE
                raise Broken(
                    f"{to_whom} was promised {geometry.lsn(start + first)} to {geometry.lsn(start + last)} "
                    f"of timeline {timeline}; a power failure could take that away "
                    f"({self._why(outcome, first, truth)})"
                )

    def _why(self, outcome: dict[str, File | Directory], first: int, truth: memoryview) -> str:
        reasons = []
        for name, file in outcome.items():
            assert isinstance(file, File), "a directory with a segment's name"
            last = first + len(truth)
            platter = bytes(file.platter[first:last])
            pairs = enumerate(zip(platter, truth, strict=False))
            right = next((at for at, (is_, ought) in pairs if is_ != ought), len(platter))
            state = "unsynced" if not file.is_safe(first, last) else "synced"
            reasons.append(f"{name}: {state}, right up to {first + right:#x} of {last:#x}")
        return "; ".join(reasons) or "no file"

    def _check_history(self, timeline: int, to_whom: str) -> None:
        content = self._cluster.history_file(timeline)
        assert content is not None, "every timeline but the first has one"
        name = history_name(timeline)
        for outcome in self._directory.outcomes(frozenset({name})):
            file = outcome.get(name)
            if file is None or not _holds(file, 0, memoryview(content)):
                raise Broken(f"{to_whom} was told of timeline {timeline}; {name} could be lost")

    def _check_final(self, number: int | None) -> None:
        """A segment's final name must lead to nothing but all of that segment, come what may."""
        directory = self._directory
        found = [*directory.platter.items(), *((change.name, change.node) for change in directory.pending)]
        for name, node in found:
            parsed = parse_file_name(name)
            if parsed.kind is not FileKind.SEGMENT or not isinstance(node, File):
                continue
            its = parsed.number(self._cluster.geometry)
            if number not in {None, its}:
                continue
            if not _holds(node, 0, self._cluster.segment(parsed.timeline, its)):
                raise Broken(f"{name} may be left by a power failure without being whole and right")

    @property
    def _directory(self) -> Directory:
        return self._disk.directory(self._path)


def _holds(node: File | Directory, first: int, truth: memoryview) -> bool:
    """Return whether a file has *truth* at *first*, safely."""
    return (
        isinstance(node, File)
        and node.is_safe(first, first + len(truth))
        and node.platter.startswith(truth, first)  # without a copy
    )
