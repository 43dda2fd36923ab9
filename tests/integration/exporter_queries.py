"""
What postgres_exporter asks a server of PostgreSQL 13 and later, letter for letter but for the blanks.

Source: postgres_exporter 0.20.1, collector/*.go; 0.11.1, queries.go (Apache License 2.0).
"""

from __future__ import annotations

from typing import Final

STAT_REPLICATION: Final = """
SELECT application_name, client_addr::text, state, s.slot_name, pg_stat_replication.pid,
(case pg_is_in_recovery() when 't' then pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_lsn('0/0'))::float
else pg_wal_lsn_diff(pg_current_wal_lsn(), pg_lsn('0/0'))::float end) AS pg_current_wal_lsn_bytes,
(case pg_is_in_recovery() when 't' then pg_wal_lsn_diff(pg_last_wal_receive_lsn(), replay_lsn)::float
else pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float end) AS pg_wal_lsn_diff
FROM pg_stat_replication LEFT JOIN pg_replication_slots s ON s.active_pid = pg_stat_replication.pid
"""
OLD_STAT_REPLICATION: Final = """
SELECT *,
(case pg_is_in_recovery() when 't' then null else pg_current_wal_lsn() end) AS pg_current_wal_lsn,
(case pg_is_in_recovery() when 't' then null else pg_wal_lsn_diff(pg_current_wal_lsn(), pg_lsn('0/0'))::float
end) AS pg_current_wal_lsn_bytes,
(case pg_is_in_recovery() when 't' then null else pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float
end) AS pg_wal_lsn_diff FROM pg_stat_replication
"""
REPLICATION_SLOTS: Final = """
SELECT slot_name, database, active, (case pg_is_in_recovery() when 't'
then pg_wal_lsn_diff(pg_last_wal_receive_lsn(), restart_lsn)
else pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) end) as pg_wal_lsn_diff FROM pg_replication_slots
"""
REPLICATION_SLOT: Final = """
SELECT slot_name, slot_type,
CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() - '0/0' ELSE pg_current_wal_lsn() - '0/0' END
AS current_wal_lsn,
COALESCE(confirmed_flush_lsn, '0/0') - '0/0' AS confirmed_flush_lsn, active, safe_wal_size, wal_status
FROM pg_replication_slots;
"""
FLUSHED_LSN_COLUMN: Final = """
SELECT column_name FROM information_schema.columns
WHERE table_name = 'pg_stat_wal_receiver' and column_name = 'flushed_lsn'
"""
STAT_WAL_RECEIVER: Final = """
SELECT trim(both '''' from substring(conninfo from 'host=([^ ]*)')) as upstream_host, slot_name, status,
(receive_start_lsn- '0/0') % (2^52)::bigint as receive_start_lsn,
(flushed_lsn - '0/0') % (2^52)::bigint as flushed_lsn,
receive_start_tli, received_tli,
extract(epoch from last_msg_send_time) as last_msg_send_time,
extract(epoch from last_msg_receipt_time) as last_msg_receipt_time,
(latest_end_lsn - '0/0') % (2^52)::bigint as latest_end_lsn,
extract(epoch from latest_end_time) as latest_end_time,
substring(slot_name from 'repmgr_slot_([0-9]*)') as upstream_node
FROM pg_catalog.pg_stat_wal_receiver
"""
REPLICATION: Final = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN 0
WHEN pg_last_wal_receive_lsn () = pg_last_wal_replay_lsn () THEN 0
ELSE GREATEST (0, EXTRACT(EPOCH FROM (now() - pg_last_xact_replay_timestamp()))) END AS lag,
CASE WHEN pg_is_in_recovery() THEN 1 ELSE 0 END as is_replica,
GREATEST (0, EXTRACT(EPOCH FROM (now() - pg_last_xact_replay_timestamp()))) as last_replay
"""
SETTINGS: Final = (
    "SELECT name, setting, COALESCE(unit, ''), COALESCE(short_desc, ''), vartype FROM pg_settings"
    " WHERE vartype IN ('bool', 'integer', 'real')"
    " AND name NOT IN ('sync_commit_cancel_wait', 'google_dataplex.max_messages');"
)
START_TIME: Final = "SELECT extract(epoch from pg_postmaster_start_time) from pg_postmaster_start_time();"
