"""``/status.json``: the server for scripts, with PostgreSQL's names for what PostgreSQL has."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, TypeVar

from walsender.sender.slot_table import STREAMING

from .metrics import client_address
from .picture import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from walsender.console.snapshot import Snapshot
    from walsender.lsn import LSN
    from walsender.replication_slots import ReplicationSlot
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.upstream import ReceiverStatus
    from walsender.wal import WalDirectory

    from .health import Health
    from .picture import Picture

_T = TypeVar("_T")


def document(picture: Picture, most: int | None = None) -> dict[str, Any]:
    """
    Return it; LSNs are texts, times seconds since 1970, everything else bytes or seconds.

    :param most: how many standbys, slots, timelines and ranges are described: those furthest behind, those
        that hold back most, and the newest.  ``None``: all.
    """
    about: dict[str, Any] = {
        "version": VERSION,
        "role": "relay" if picture.is_relay else "directory",
        "state": "starting" if picture.server is None else "running",
        "now": picture.now,
        "started_at": picture.started_at,
        "sent_bytes": picture.sent_bytes,
        "max_wal_senders": picture.max_wal_senders,
    }
    if picture.is_relay:
        about["upstream"] = None if picture.receiver is None else _upstream(picture.receiver)
        about["not_receiving"] = outage(picture.health)
    if (server := picture.server) is not None:
        about |= {
            "system_identifier": str(server.system_identifier),  # more than JSON's numbers hold
            "timeline": server.timeline,
            "flush_lsn": str(server.geometry.lsn(server.flush_position)),
            "segment_size": server.geometry.segment_size,
            "standby_count": len(server.walsenders),
            "slot_count": len(server.slots),
            "standbys": [_standby(entry, server) for entry in _worst_standbys(server, most)],
            "slots": [_slot(slot, server) for slot in _worst_slots(server, most)],
            "timelines": [] if server.directory is None else _timelines(server.directory, server, most),
        }
    return about


def outage(found: Health) -> dict[str, Any] | None:
    """Return since when nothing is received, and why; ``None``: something is, or there is no upstream."""
    said = found.not_receiving
    return None if said is None else {"since": said.since, "error": said.error or None}


def _worst_standbys(server: Snapshot, most: int | None) -> Iterable[WalSenderEntry]:
    if most is None or len(server.walsenders) <= most:
        return server.walsenders

    def badness(entry: WalSenderEntry) -> tuple[bool, int]:
        return entry.state != STREAMING, _lag(entry, server) or 0

    return heapq.nlargest(most, server.walsenders, badness)


def _worst_slots(server: Snapshot, most: int | None) -> Iterable[ReplicationSlot]:
    if most is None or len(server.slots) <= most:
        return server.slots
    return heapq.nlargest(most, server.slots, lambda slot: _retained(slot, server) or 0)


def _upstream(receiver: ReceiverStatus) -> dict[str, Any]:
    return {
        **receiver.upstream_address,
        "timeline": receiver.timeline,
        "slot_name": receiver.slot_name or None,
        "received_lsn": str(receiver.written_lsn),
        "flushed_lsn": str(receiver.flushed_lsn),
        "latest_end_lsn": str(receiver.upstream_end),
        "lag_bytes": receiver.lag,
        "last_msg_receipt_time": receiver.received_at,
    }


def _lsn(lsn: LSN) -> str | None:
    return str(lsn) if lsn else None


def _lag(entry: WalSenderEntry, server: Snapshot) -> int | None:
    """Return how far a client is behind: what it has not replayed or, if it replays nothing, not written."""
    reached = entry.replay_lsn or entry.write_lsn or entry.sent_lsn
    return max(0, server.flush_position - server.geometry.position(reached)) if reached else None


def _standby(entry: WalSenderEntry, server: Snapshot) -> dict[str, Any]:
    behind = server.flush_position - server.geometry.position(entry.sent_lsn) if entry.sent_lsn else None
    return {
        "pid": entry.process_id,
        "usename": entry.user,
        "application_name": entry.application_name,
        "client_addr": client_address(entry) or None,
        "client_port": entry.port,
        "backend_start": entry.started_at,
        "state": entry.state,
        "sent_lsn": _lsn(entry.sent_lsn),
        "write_lsn": _lsn(entry.write_lsn),
        "flush_lsn": _lsn(entry.flush_lsn),
        "replay_lsn": _lsn(entry.replay_lsn),
        "write_lag": entry.write_lag,
        "flush_lag": entry.flush_lag,
        "replay_lag": entry.replay_lag,
        "reply_time": entry.reply_time,
        "sent_bytes": entry.sent_bytes,
        "to_send_bytes": behind,
        "lag_bytes": _lag(entry, server),
    }


def _retained(slot: ReplicationSlot, server: Snapshot) -> int | None:
    return server.flush_position - server.geometry.position(slot.restart_lsn) if slot.restart_lsn else None


def _slot(slot: ReplicationSlot, server: Snapshot) -> dict[str, Any]:
    wal_status, safe_wal_size = server.availability_of(slot)
    return {
        "slot_name": slot.name,
        "temporary": slot.temporary,
        "active_pid": slot.owner,
        "restart_lsn": _lsn(slot.restart_lsn),
        "inactive_since": slot.inactive_since,
        "wal_status": wal_status,
        "safe_wal_size": safe_wal_size,
        "invalidation_reason": slot.invalidation_reason or None,
        "retained_bytes": _retained(slot, server),
    }


def _timelines(directory: WalDirectory, server: Snapshot, most: int | None) -> list[dict[str, Any]]:
    return [_timeline(timeline, directory, server, most) for timeline in _newest(directory.timelines, most)]


def _timeline(timeline: int, directory: WalDirectory, server: Snapshot, most: int | None) -> dict[str, Any]:
    geometry = server.geometry

    def extents(runs: Sequence[range]) -> list[dict[str, Any]]:
        return [
            {
                "start_lsn": str(geometry.lsn(geometry.segment_start(run.start))),
                "end_lsn": str(geometry.lsn(geometry.segment_start(run.stop))),
                "segments": len(run),
            }
            for run in _newest(runs, most)
        ]

    ancestors = directory.history(timeline).entries
    ranges, gaps = directory.ranges[timeline], directory.gaps(timeline)
    return {
        "timeline": timeline,
        "parent": ancestors[-1].timeline if ancestors else None,
        "switchpoint": str(ancestors[-1].switchpoint) if ancestors else None,
        "segments": sum(map(len, ranges)),
        "missing": sum(map(len, gaps)),
        "ranges": extents(ranges),
        "gaps": extents(gaps),
    }


def _newest(items: Sequence[_T], most: int | None) -> Sequence[_T]:
    return items if most is None else items[-most:]
