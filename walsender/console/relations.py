"""
The relations of the console: PostgreSQL 18's columns, in its order and of its types, and some of our own.

What PostgreSQL has and a walsender has not is NULL.
"""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, Any, Final

from walsender.sql import Column, Relation, find_type
from walsender.sql.times import of_seconds, of_unix_time
from walsender.wal import segment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from walsender.lsn import LSN
    from walsender.sender.slot_table import WalSenderEntry

    from .snapshot import Snapshot

Row = tuple[Any, ...]

_XID_MASK: Final = 0xFFFFFFFF


def _columns(text: str) -> tuple[Column, ...]:
    """Return the columns that *text* names, each with its type."""
    found = []
    for line in text.split(","):
        name, type_name = line.split()
        pg_type = find_type(type_name)
        assert pg_type is not None, f"{type_name} is no type"
        found.append(Column(name, pg_type))
    return tuple(found)


COLUMNS: Final[Mapping[str, tuple[Column, ...]]] = {
    "pg_stat_replication": _columns(
        "pid int4, usesysid oid, usename name, application_name text, client_addr inet,"
        "client_hostname text,"
        "client_port int4, backend_start timestamptz, backend_xmin xid, state text, sent_lsn pg_lsn,"
        "write_lsn pg_lsn, flush_lsn pg_lsn, replay_lsn pg_lsn, write_lag interval, flush_lag interval,"
        "replay_lag interval, sync_priority int4, sync_state text, reply_time timestamptz"
    ),
    "pg_replication_slots": _columns(
        "slot_name name, plugin name, slot_type text, datoid oid, database name, temporary bool,"
        "active bool, active_pid int4, xmin xid, catalog_xmin xid, restart_lsn pg_lsn,"
        "confirmed_flush_lsn pg_lsn,"
        "wal_status text, safe_wal_size int8, two_phase bool, two_phase_at pg_lsn,"
        "inactive_since timestamptz,"
        "conflicting bool, invalidation_reason text, failover bool, synced bool"
    ),
    "pg_stat_wal_receiver": _columns(
        "pid int4, status text, receive_start_lsn pg_lsn, receive_start_tli int4, written_lsn pg_lsn,"
        "flushed_lsn pg_lsn, received_tli int4, last_msg_send_time timestamptz,"
        "last_msg_receipt_time timestamptz, latest_end_lsn pg_lsn, latest_end_time timestamptz,"
        "slot_name text, sender_host text, sender_port int4, conninfo text"
    ),
    "pg_settings": _columns(
        "name text, setting text, unit text, category text, short_desc text, extra_desc text,"
        "context text, vartype text, source text, min_val text, max_val text, enumvals _text,"
        "boot_val text, reset_val text,"
        "sourcefile text, sourceline int4, pending_restart bool"
    ),
    "pg_stat_activity": _columns(
        "datid oid, datname name, pid int4, leader_pid int4, usesysid oid, usename name,"
        "application_name text, client_addr inet, client_hostname text, client_port int4,"
        "backend_start timestamptz,"
        "xact_start timestamptz, query_start timestamptz, state_change timestamptz, wait_event_type text,"
        "wait_event text, state text, backend_xid xid, backend_xmin xid, query_id int8, query text,"
        "backend_type text"
    ),
    "walsender_timelines": _columns(
        "timeline int8, parent int8, start_lsn pg_lsn, end_lsn pg_lsn, is_current bool, segments int8,"
        "missing int8, first_segment text, last_segment text"
    ),
    "walsender_segments": _columns(
        "timeline int8, held bool, first_segment text, last_segment text, start_lsn pg_lsn, end_lsn pg_lsn,"
        "segments int8, size int8"
    ),
    "walsender_upstream": _columns("streaming bool, lost_at timestamptz, error text"),
    "information_schema.tables": _columns(
        "table_catalog name, table_schema name, table_name name, table_type varchar"
    ),
    "information_schema.columns": _columns(
        "table_catalog name, table_schema name, table_name name, column_name name, ordinal_position int4,"
        "column_default varchar, is_nullable varchar, data_type varchar"
    ),
}
"""
Of each relation its columns.

The first five are compared with PostgreSQL 18's; the last two have the first of their columns there.
"""

HINT: Final = (
    "The console of walsender has no other catalogs than "
    + ", ".join(name for name in COLUMNS if "." not in name)
    + "; information_schema.columns has their columns."
)
"""For who asks for another relation."""


def relation(name: str, snapshot: Snapshot, database: str = "") -> Relation | None:
    """
    Return the relation of that name; ``None``: there is none.

    :param database: that the session has chosen.
    """
    if name in _ABOUT:
        return Relation(COLUMNS[name], lambda: _ABOUT[name](database))
    rows = _ROWS.get(name)
    return None if rows is None else Relation(COLUMNS[name], lambda: rows(snapshot))


def _names(name: str) -> tuple[str, str]:
    schema, _, plain = name.rpartition(".")
    return schema or "pg_catalog", plain


def _tables(database: str) -> Iterator[Row]:
    for name in COLUMNS:
        yield database, *_names(name), "VIEW"


def _all_columns(database: str) -> Iterator[Row]:
    for name, columns in COLUMNS.items():
        for number, column in enumerate(columns, 1):
            kind = "ARRAY" if column.type.title.endswith("[]") else column.type.title
            yield database, *_names(name), column.name, number, None, "YES", kind


_ABOUT: Final[Mapping[str, Callable[[str], Iterator[Row]]]] = {
    "information_schema.tables": _tables,
    "information_schema.columns": _all_columns,
}


def address_of(host: str) -> object:
    """Return a client's address; ``None`` for a unix socket."""
    try:
        return ipaddress.ip_interface(host)
    except ValueError:
        return None


def time_of(seconds: float | None) -> int | None:
    """Return a time of ours as SQL has it."""
    return None if seconds is None else of_unix_time(seconds)


def _span(seconds: float | None) -> object:
    return None if seconds is None else of_seconds(seconds)


def _lsn(lsn: LSN | int | None) -> int | None:
    return int(lsn) if lsn else None


def _xid(full: int) -> int | None:
    return full & _XID_MASK if full else None


def _stat_replication(snapshot: Snapshot) -> Iterator[Row]:
    for entry in snapshot.walsenders:
        yield (
            *(entry.process_id, None, entry.user, entry.application_name, address_of(entry.address), None),
            *(entry.port, time_of(entry.started_at), _xid(entry.xmin), entry.state, _lsn(entry.sent_lsn)),
            *(_lsn(entry.write_lsn), _lsn(entry.flush_lsn), _lsn(entry.replay_lsn)),
            *(_span(entry.write_lag), _span(entry.flush_lag), _span(entry.replay_lag)),
            # Nobody commits here: no standby is synchronous.
            *(0, "async", time_of(entry.reply_time)),
        )


def _replication_slots(snapshot: Snapshot) -> Iterator[Row]:
    for slot in snapshot.slots:
        yield (
            *(slot.name, None, "physical", None, None, slot.temporary, slot.owner is not None, slot.owner),
            *(None, None, _lsn(slot.restart_lsn), None, *snapshot.availability_of(slot), False, None),
            *(time_of(slot.inactive_since), None, slot.invalidation_reason or None, False, False),
        )


def _stat_wal_receiver(snapshot: Snapshot) -> Iterator[Row]:
    state = snapshot.receiver
    if state is None:
        return
    upstream = state.upstream_address
    port = upstream.get("port", "")
    sent_at = time_of(state.sent_at)
    yield (
        *(os.getpid(), "streaming", int(state.start_lsn), state.timeline, int(state.written_lsn)),
        *(int(state.flushed_lsn), state.timeline, sent_at, time_of(state.received_at)),
        *(int(state.upstream_end), sent_at, state.slot_name or None, upstream.get("host")),
        # Who may not see the connection string sees of it what is in the columns before.
        *(int(port) if port.isdecimal() else None, snapshot.conninfo or state.upstream or None),
    )


def _settings(snapshot: Snapshot) -> Iterator[Row]:
    for one in snapshot.settings:
        yield (
            *(one.name, one.setting, one.unit, one.category, one.short_desc, None, one.context, one.vartype),
            *(one.source, one.min_val, one.max_val, one.enumvals, one.boot_val, one.setting),
            *(one.sourcefile, one.sourceline, one.pending_restart),
        )


def _activity_row(entry: WalSenderEntry, middle: Sequence[Any], end: Sequence[Any]) -> Row:
    return (
        *(entry.process_id, None, None, entry.user, entry.application_name, address_of(entry.address), None),
        *(entry.port, time_of(entry.started_at), *middle, None, _xid(entry.xmin), None, *end),
    )


def _stat_activity(snapshot: Snapshot) -> Iterator[Row]:
    for entry in snapshot.walsenders:
        middle: tuple[Any, ...] = (None, None, None, None, None, "active" if entry.sent_lsn else "idle")
        yield (None, None, *_activity_row(entry, middle, ("", "walsender")))
    for session in snapshot.sessions:
        began = time_of(session.query_at)
        state = "active" if session.is_active else "idle in transaction" if session.in_transaction else "idle"
        middle = (began if session.is_active else None, began, began, None, None, state)
        yield (
            None,
            session.database,
            *_activity_row(session.entry, middle, (session.query, "client backend")),
        )


def _timelines(snapshot: Snapshot) -> Iterator[Row]:
    directory = snapshot.directory
    if directory is None:
        return
    geometry = snapshot.geometry
    for timeline in sorted({*directory.timelines, *directory.histories}):
        history = directory.history(timeline)
        runs = directory.ranges.get(timeline, ())
        end = directory.history(snapshot.timeline).switchpoint(timeline)
        end_lsn = geometry.lsn(snapshot.flush_position) if timeline == snapshot.timeline else end and end[0]
        first = segment_name(timeline, runs[0].start, geometry) if runs else None
        last = segment_name(timeline, runs[-1].stop - 1, geometry) if runs else None
        yield (
            *(timeline, history.entries[-1].timeline if history.entries else None, int(history.begin)),
            *(_lsn(end_lsn), timeline == snapshot.timeline, sum(map(len, runs))),
            *(sum(map(len, directory.gaps(timeline))), first, last),
        )


def _segments(snapshot: Snapshot) -> Iterator[Row]:
    directory = snapshot.directory
    if directory is None:
        return
    geometry = snapshot.geometry
    for timeline in directory.timelines:
        runs = [(run, True) for run in directory.ranges[timeline]]
        runs += [(gap, False) for gap in directory.gaps(timeline)]
        for run, held in sorted(runs, key=lambda one: one[0].start):
            yield (
                *(timeline, held, segment_name(timeline, run.start, geometry)),
                segment_name(timeline, run.stop - 1, geometry),
                int(geometry.lsn(geometry.segment_start(run.start))),
                int(geometry.lsn(geometry.segment_start(run.stop))),
                *(len(run), len(run) * geometry.segment_size),
            )


def _upstream(snapshot: Snapshot) -> Iterator[Row]:
    if (lost := snapshot.not_receiving) is not None:
        yield False, time_of(lost.since), lost.error or None
    elif snapshot.receiver is not None:
        yield True, None, None


_ROWS: Final[Mapping[str, Callable[[Snapshot], Iterator[Row]]]] = {
    "pg_stat_replication": _stat_replication,
    "pg_replication_slots": _replication_slots,
    "pg_stat_wal_receiver": _stat_wal_receiver,
    "pg_settings": _settings,
    "pg_stat_activity": _stat_activity,
    "walsender_timelines": _timelines,
    "walsender_segments": _segments,
    "walsender_upstream": _upstream,
}
