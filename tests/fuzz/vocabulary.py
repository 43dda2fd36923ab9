"""What the clients of a `Siege` say: commands, names, numbers and start-up packets of all kinds."""

from __future__ import annotations

from typing import Final

COMMANDS: Final = (
    "IDENTIFY_SYSTEM",
    "START_REPLICATION {lsn}",
    "START_REPLICATION {lsn} TIMELINE {number}",
    "START_REPLICATION SLOT {name} PHYSICAL {lsn} TIMELINE {number}",
    "START_REPLICATION SLOT {name} LOGICAL {lsn} (a 'b', c)",
    "TIMELINE_HISTORY {number}",
    "SHOW {name}",
    "SHOW all",
    "CREATE_REPLICATION_SLOT {name} TEMPORARY PHYSICAL RESERVE_WAL",
    "CREATE_REPLICATION_SLOT {name} PHYSICAL (RESERVE_WAL {number})",
    "CREATE_REPLICATION_SLOT {name} TEMPORARY PHYSICAL",
    "CREATE_REPLICATION_SLOT {name} LOGICAL test_decoding",
    "DROP_REPLICATION_SLOT {name}",
    "DROP_REPLICATION_SLOT {name} WAIT",
    "READ_REPLICATION_SLOT {name}",
    "ALTER_REPLICATION_SLOT {name} (FAILOVER)",
    "BASE_BACKUP (LABEL '{name}', TARGET 'server', TARGET_DETAIL '/etc/{name}')",
    "UPLOAD_MANIFEST",
    "SET {name} = {number}",
    "SET application_name TO '{name}'",
    "SET wal_sender_timeout = {number}",
    "RESET {name}",
    "RESET ALL",
    "SELECT pg_catalog.set_config('{name}', '{number}', false)",
    "SELECT pg_catalog.pg_is_in_recovery()",
    "SELECT {number}; DROP TABLE {name}",
    "",
    ";",
    '"{name}',
    "'",
    "{name}{number}/{lsn}",
)
NAMES: Final = (
    "a", "b", "all", "../../etc/passwd", "..", ".", "/", "a/b", "pg_conflict_detection", "x" * 63, "x" * 64,
    "x" * 5000, "é", "\udcff", "A", '"', "'", "a b", "-c", "wal_sender_timeout", "application_name",
    "server_version", "%s%n", "{0}", "{client}", "\x1b[2J", "a\nb",
)  # fmt: skip
NUMBERS: Final = (0, 1, 2, 3, 255, 4294967295, 4294967296, 18446744073709551616, -1, 10**40)

PARAMETERS: Final[tuple[dict[str, str], ...]] = (
    {},
    {"application_name": "standby"},
    {"application_name": "\udcff\x1b" * 50, "client_encoding": "LATIN1"},
    {"options": "-c wal_sender_timeout=1s --application-name=x"},
    {"options": "-c="},
    {"options": "-c ="},
    {"options": "--="},
    {"options": "-c"},
    {"options": "\\"},
    {"options": "-c a=b\\ -c " * 300},
    {"options": " " * 5000 + "-"},
    {"options": "-- - -- -"},
    {"user": ""},
    {"user": "x" * 3000},
    {"replication": "database", "database": "../x"},
    {"replication": "maybe"},
    {"replication": "off"},
    {"wal_sender_timeout": "0"},
    {"wal_sender_timeout": "1ms"},
    {"search_path": "public"},
    {"_pq_.x": "1", "_pq_.test_protocol_negotiation": ""},
    {"nosuch": "1"},
    {"user": "scram"},
    {"user": "unknown"},
    {"user": "plain"},
    {"user": "evil"},
)
PROTOCOLS: Final = (0x30000, 0x30002, 0x30001, 0x3270F, 0x20000, 0x40000, 0, 0xFFFFFFFF, 80877103, 80877104)
