"""
The settings as data: a new one is a row here and a field of `Settings`.

Defaults are written as a configuration file would write them and go through
the same parser.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .log_settings import LOG_SETTINGS
from .setting import Setting
from .values import (
    MAX_INTEGER,
    AbsolutePath,
    Boolean,
    Duration,
    Enumeration,
    Integer,
    OptionalPath,
    Start,
    String,
    StringList,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def _none(_: Mapping[str, Any]) -> object:
    return ""


def _shutdown_timeout(values: Mapping[str, Any]) -> object:
    return values["wal_sender_timeout"] or 60.0


def _state_directory(values: Mapping[str, Any]) -> object:
    return str(Path(values["wal_directory"], "walsender_state"))


SETTINGS: Final = (
    Setting(
        "wal_directory",
        AbsolutePath(),
        "DIR",
        "directory of the WAL segments to serve; required",
        short="D",
        restart_required=True,
    ),
    Setting(
        "listen",
        StringList(),
        "ENDPOINT",
        "where to listen: Twisted endpoint strings (tcp:, tcp6:, unix:, systemd:)",
        "tcp:5433:interface=127.0.0.1",
        short="l",
        restart_required=True,
    ),
    Setting(
        "http",
        String(),
        "ENDPOINT",
        "where metrics and health are told over HTTP: a Twisted endpoint string; for all who can reach it",
        derive=_none,
        derived_default="none",
        restart_required=True,
    ),
    Setting(
        "cluster_name",
        String(),
        "NAME",
        "name of this server, in the process title and for the upstream",
        derive=_none,
        derived_default="none",
        restart_required=True,
    ),
    Setting(
        "update_process_title",
        Boolean(),
        "on|off",
        "show in the process title what is done; needs the package setproctitle",
        "on",
    ),
    Setting(
        "primary_conninfo",
        String(),
        "CONNINFO",
        "libpq connection string of the server to receive WAL from; makes this a relay",
        derive=_none,
        derived_default="none",
    ),
    Setting(
        "primary_slot_name",
        String(),
        "NAME",
        "replication slot to use there",
        derive=_none,
        derived_default="none",
    ),
    Setting(
        "create_primary_slot",
        Boolean(),
        "on|off",
        "make that slot if it is missing",
        "off",
    ),
    Setting(
        "wal_receiver_timeout",
        Duration(0, MAX_INTEGER),
        "TIME",
        "connect again if the upstream has been silent for this long; 0 disables",
        "60s",
    ),
    Setting(
        "wal_receiver_status_interval",
        Duration(0, MAX_INTEGER // 1000, "s"),
        "TIME",
        "tell the upstream at least this often how far WAL is here; 0: of progress only",
        "10s",
    ),
    Setting(
        "wal_retrieve_retry_interval",
        Duration(1, MAX_INTEGER),
        "TIME",
        "the longest rest between two tries to reach the upstream",
        "5s",
    ),
    Setting(
        "restore_command",
        String(),
        "COMMAND",
        "shell command that gets WAL that is not in the directory; %f: file name, %p: where to put it",
        derive=_none,
        derived_default="none",
    ),
    Setting(
        "hot_standby_feedback",
        Boolean(),
        "on|off",
        "tell the upstream which transactions the standbys still need",
        "off",
    ),
    Setting(
        "wal_keep_size",
        Integer(-1, MAX_INTEGER, "MB"),
        "SIZE",
        "relay: keep at least so much WAL; -1: all of it, nothing is ever removed",
        "-1",
    ),
    Setting(
        "max_slot_wal_keep_size",
        Integer(-1, MAX_INTEGER, "MB"),
        "SIZE",
        "relay: keep no more than so much WAL for replication slots and standbys; -1: as much as they need",
        "-1",
    ),
    Setting(
        "max_wal_directory_size",
        Integer(-1, MAX_INTEGER, "MB"),
        "SIZE",
        "relay: receive nothing while there is so much WAL in wal_directory; -1: no limit but the disk",
        "-1",
    ),
    Setting(
        "max_wal_senders",
        Integer(0, 262143),
        "NUMBER",
        "how many clients may be connected at once",
        "100",
        restart_required=True,
    ),
    Setting(
        "max_replication_slots",
        Integer(0, 262143),
        "NUMBER",
        "how many replication slots there may be",
        "100",
        restart_required=True,
    ),
    Setting(
        "wal_sender_timeout",
        Duration(0, MAX_INTEGER),
        "TIME",
        "end a connection whose client has been silent for this long; 0 disables",
        "60s",
    ),
    Setting(
        "wal_sender_shutdown_timeout",
        Duration(0, MAX_INTEGER),
        "TIME",
        "how long a drain may wait for the standbys; 0: not at all",
        derive=_shutdown_timeout,
        derived_default="wal_sender_timeout, or 60s if that is 0",
    ),
    Setting(
        "wal_sender_delay",
        Duration(1, 10_000),
        "TIME",
        "at the latest after this time new WAL in the directory is noticed",
        "200ms",
    ),
    Setting(
        "authentication_timeout",
        Duration(1, 600, "s"),
        "TIME",
        "end a connection that is not let in after this time",
        "60s",
    ),
    Setting(
        "hba_file",
        OptionalPath(),
        "FILE",
        "who may come in, as pg_hba.conf",
        derive=_none,
        derived_default="this machine only",
    ),
    Setting(
        "ident_file",
        OptionalPath(),
        "FILE",
        "which system users may be which role, as pg_ident.conf",
        derive=_none,
        derived_default="none",
    ),
    Setting(
        "auth_file",
        OptionalPath(),
        "FILE",
        "users and their passwords, as PgBouncer's userlist.txt",
        derive=_none,
        derived_default="none",
    ),
    Setting(
        "ssl",
        Boolean(),
        "on|off",
        "let clients encrypt their connections",
        "off",
    ),
    Setting(
        "ssl_cert_file",
        OptionalPath(),
        "FILE",
        "our certificate, and behind it those that lead from it to an authority",
        derive=_none,
        derived_default="none",
    ),
    Setting(
        "ssl_key_file",
        OptionalPath(),
        "FILE",
        "the certificate's private key, without a passphrase",
        derive=_none,
        derived_default="none",
    ),
    Setting(
        "ssl_ca_file",
        OptionalPath(),
        "FILE",
        "authorities that may have signed the certificates of clients",
        derive=_none,
        derived_default="none",
    ),
    Setting(
        "ssl_crl_file",
        OptionalPath(),
        "FILE",
        "clients' certificates that have been revoked",
        derive=_none,
        derived_default="none",
    ),
    Setting(
        "ssl_min_protocol_version",
        Enumeration(("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")),
        "VERSION",
        "the oldest version of TLS that clients may speak",
        "TLSv1.2",
    ),
    Setting(
        "state_directory",
        AbsolutePath(),
        "DIR",
        "directory for what must survive a restart; created when needed",
        derive=_state_directory,
        derived_default="WAL_DIRECTORY/walsender_state",
        restart_required=True,
    ),
    Setting(
        "fsync",
        Boolean(),
        "on|off",
        "flush WAL to disk before it is sent; off: trust whoever writes the directory",
        "on",
        restart_required=True,
    ),
    Setting(
        "verify_wal",
        Start(),
        "LSN|on|off",
        "before the start check every WAL record from this LSN on; on: from the earliest that is held",
        "off",
        restart_required=True,
    ),
    Setting(
        "protocol_dialect",
        Enumeration(("auto", "8.5")),
        "DIALECT",
        "auto: as the version of the WAL; 8.5: as the first walsender of all",
        "auto",
        restart_required=True,
    ),
    Setting(
        "sendfile",
        Boolean(),
        "on|off",
        "move WAL from file to socket in the kernel where the connection permits it",
        "on",
    ),
    Setting(
        "cold_read_rate",
        Integer(0, MAX_INTEGER, "kB"),
        "SIZE",
        "read so much a second, for each who reads what is on disk only, while others are level; 0: no limit",
        "32MB",
    ),
    Setting(
        "inotify",
        Boolean(),
        "on|off",
        "notice new WAL through inotify; off where it misleads (some network file systems)",
        "on",
        restart_required=True,
    ),
    *LOG_SETTINGS,
)
