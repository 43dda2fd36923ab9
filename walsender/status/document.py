"""``/status.json``: the server for scripts, with PostgreSQL's names for what PostgreSQL has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .metrics import client_address
from .picture import VERSION, upstream_lag

if TYPE_CHECKING:
    from walsender.console.snapshot import Snapshot
    from walsender.lsn import LSN
    from walsender.replication_slots import ReplicationSlot
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.upstream import ReceiverStatus
    from walsender.wal import WalDirectory

    from .picture import Picture


def document(picture: Picture) -> dict[str, Any]:
    """Return it; LSNs are texts, times seconds since 1970, everything else bytes or seconds."""
    about: dict[str, Any] = {
        "version": VERSION,
        "role": "relay" if picture.is_relay else "directory",
        "state": "starting" if picture.server is None else "running",
        "started_at": picture.started_at,
        "sent_bytes": picture.sent_bytes,
        "max_wal_senders": picture.max_wal_senders,
    }
    if picture.is_relay:
        about["upstream"] = None if picture.receiver is None else _upstream(picture.receiver)
    if (server := picture.server) is not None:
        about |= {
            "system_identifier": str(server.system_identifier),  # more than JSON's numbers hold
            "timeline": server.timeline,
            "flush_lsn": str(server.geometry.lsn(server.flush_position)),
            "segment_size": server.geometry.segment_size,
            "standbys": [_standby(entry, server) for entry in server.walsenders],
            "slots": [_slot(slot, server) for slot in server.slots],
            "timelines": [] if server.directory is None else _timelines(server.directory),
        }
    return about


def _upstream(receiver: ReceiverStatus) -> dict[str, Any]:
    return {
        **receiver.upstream_address,
        "timeline": receiver.timeline,
        "slot_name": receiver.slot_name or None,
        "received_lsn": str(receiver.written_lsn),
        "flushed_lsn": str(receiver.flushed_lsn),
        "latest_end_lsn": str(receiver.upstream_end),
        "lag_bytes": upstream_lag(receiver),
        "last_msg_receipt_time": receiver.received_at,
    }


def _lsn(lsn: LSN) -> str | None:
    return str(lsn) if lsn else None


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
    }


def _slot(slot: ReplicationSlot, server: Snapshot) -> dict[str, Any]:
    kept = server.flush_position - server.geometry.position(slot.restart_lsn) if slot.restart_lsn else None
    return {
        "slot_name": slot.name,
        "temporary": slot.temporary,
        "active_pid": slot.owner,
        "restart_lsn": _lsn(slot.restart_lsn),
        "wal_status": slot.wal_status,
        "safe_wal_size": server.safe_wal_size(slot),
        "invalidation_reason": slot.invalidation_reason or None,
        "retained_bytes": kept,
    }


def _timelines(directory: WalDirectory) -> list[dict[str, Any]]:
    return [
        {
            "timeline": timeline,
            "segments": sum(map(len, directory.ranges[timeline])),
            "missing": sum(map(len, directory.gaps(timeline))),
        }
        for timeline in directory.timelines
    ]
