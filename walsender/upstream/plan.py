"""
Where to go on receiving: what is held compared with what the upstream's history says.

Pure arithmetic on histories; `walsender.upstream.receiver` asks and acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from walsender.errors import DataCorrupted, WalsenderError
from walsender.wal import history_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.lsn import Geometry
    from walsender.wal import TimelineHistory


@dataclass(frozen=True, slots=True)
class Start:
    """
    Where to begin.

    :ivar position: a segment's first byte.
    :ivar forked_at: position where the upstream's history left the WAL that is held; ``None`` if all
        of that is the upstream's too.
    """

    timeline: int
    position: int
    forked_at: int | None = None


class UpstreamBehind(WalsenderError):
    """The upstream is on a timeline that ours has come from; it may yet follow."""


def _no_further(_timeline: int, position: int) -> int:
    return position


def plan_start(
    upstream: TimelineHistory,
    held: TimelineHistory,
    flush_position: int,
    geometry: Geometry,
    durable_on: Callable[[int, int], int] = _no_further,
) -> Start:
    """
    Return where to go on.

    What is held is whole up to *flush_position* on its newest timeline, and up to its
    end on each timeline before.  The first timeline of the upstream's history that is
    not whole here is the one to begin on, at the start of the segment in which WAL
    of it is missing.

    :param upstream: history of the timeline that the upstream is on.
    :param held: history of the newest timeline that is held.
    :param durable_on: returns up to where another timeline is held, if that is beyond a position: what
        was received of a branch before it can be shown.
    :raises UpstreamBehind: the upstream's timeline is an ancestor of ours.
    :raises DataCorrupted: the two histories tell different things about one timeline.

    Source: PostgreSQL, src/backend/replication/walreceiver.c, WalReceiverMain (timeline checks).
    """
    if upstream.timeline < held.timeline:
        raise UpstreamBehind(
            f"highest timeline {upstream.timeline} of the primary is behind recovery timeline {held.timeline}"
        )
    _compare_ancestors(upstream, held)
    timeline, end = _last_in_common(upstream, held, flush_position, geometry, durable_on)
    forked = _forked_at(upstream, held, timeline, end, geometry)
    while (switch := upstream.switchpoint(timeline)) is not None and end >= geometry.position(switch[0]):
        timeline = switch[1]
        end = durable_on(timeline, geometry.position(switch[0]))
    return Start(timeline, _segment_start(geometry, end), forked)


def _last_in_common(
    upstream: TimelineHistory,
    held: TimelineHistory,
    flush_position: int,
    geometry: Geometry,
    durable_on: Callable[[int, int], int],
) -> tuple[int, int]:
    """Return the newest timeline that both have been on, and up to where it is held."""
    if upstream.contains(held.timeline):
        return held.timeline, flush_position
    for entry in reversed(held.entries):
        if upstream.contains(entry.timeline):
            return entry.timeline, durable_on(entry.timeline, geometry.position(entry.switchpoint))
    raise DataCorrupted(
        f"the upstream's timeline {upstream.timeline} has no ancestor in common "
        f"with timeline {held.timeline}, which is held",
        detail=f'The file "pg_wal/{history_name(upstream.timeline)}" names none of its ancestors.',
    )


def _forked_at(
    upstream: TimelineHistory, held: TimelineHistory, timeline: int, end: int, geometry: Geometry
) -> int | None:
    """Return where the upstream's history left what is held, both having been on *timeline* up to there."""
    switch, own = upstream.switchpoint(timeline), held.switchpoint(timeline)
    left = None if switch is None else geometry.position(switch[0])
    if own is not None:
        position = geometry.position(own[0])
        return position if left is None else min(position, left)
    return left if left is not None and left < end else None


def _compare_ancestors(upstream: TimelineHistory, held: TimelineHistory) -> None:
    """Refuse another cluster's history that has the same identifiers: two promotions to one timeline."""
    parents = _parents(upstream)
    for timeline, parent in _parents(held).items():
        if parents.get(timeline, parent) != parent:
            raise DataCorrupted(
                f"the upstream's timeline {timeline} is not the timeline {timeline} that is held",
                detail="Two servers have been promoted to the same timeline.",
                hint="Serve this upstream from another, empty WAL directory.",
            )


def _parents(history: TimelineHistory) -> dict[int, tuple[int, int]]:
    """Return from which timeline, and where, each timeline of a history came."""
    children = (*history.ancestors, history.timeline)[1:]
    return {
        child: (entry.timeline, entry.switchpoint)
        for child, entry in zip(children, history.entries, strict=True)
    }


def _segment_start(geometry: Geometry, position: int) -> int:
    return geometry.segment_start(geometry.segment_number(position))
