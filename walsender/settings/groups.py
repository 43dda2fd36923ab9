"""Which settings belong together: for the help, the sample file and ``pg_settings.category``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "What is served": (
        "wal_directory",
        "state_directory",
        "fsync",
        "verify_wal",
        "wal_sender_delay",
        "inotify",
        "restore_command",
    ),
    "Where it comes from (of a relay)": (
        "primary_conninfo",
        "primary_slot_name",
        "create_primary_slot",
        "wal_receiver_timeout",
        "wal_receiver_status_interval",
        "wal_retrieve_retry_interval",
        "hot_standby_feedback",
    ),
    "How much of it is kept (by a relay)": (
        "wal_keep_size",
        "max_slot_wal_keep_size",
        "max_wal_directory_size",
    ),
    "Connections": (
        "listen",
        "http",
        "max_wal_senders",
        "max_replication_slots",
        "authentication_timeout",
    ),
    "Who may come in": (
        "hba_file",
        "ident_file",
        "auth_file",
        "ssl",
        "ssl_cert_file",
        "ssl_key_file",
        "ssl_ca_file",
        "ssl_crl_file",
        "ssl_min_protocol_version",
    ),
    "How it is sent": (
        "wal_sender_timeout",
        "wal_sender_shutdown_timeout",
        "protocol_dialect",
        "sendfile",
        "cold_read_rate",
    ),
    "Log and process title": (
        "log_destination",
        "log_line_prefix",
        "log_min_messages",
        "log_min_error_statement",
        "log_connections",
        "log_disconnections",
        "log_replication_commands",
        "cluster_name",
        "update_process_title",
    ),
}
"""Names of settings by what they are about, in the order in which somebody who sets things up needs them."""

GROUP_OF: Final[Mapping[str, str]] = {name: group for group, names in GROUPS.items() for name in names}
