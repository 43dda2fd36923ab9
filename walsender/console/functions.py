"""
The functions of the console: what the server says of itself, and what it can be told.

The server is like a standby: it has WAL and makes none.  So ``pg_is_in_recovery`` is true, and what
PostgreSQL refuses in recovery is refused in its words.  ``pg_current_wal_flush_lsn`` alone answers here:
it is the position up to which standbys may have WAL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from walsender.errors import UnrecognizedParameter
from walsender.sql import BY_OID, Column, Environment, Function, PgType, find_type
from walsender.sql.errors import InRecovery

from .relations import address_of, time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from walsender.sender.slot_table import WalSenderEntry

    from .snapshot import Snapshot


def _type(name: str) -> PgType:
    found = find_type(name)
    assert found is not None, f"{name} is no type"
    return found


BOOL, INT4, INT8, OID, TEXT, NAME = map(_type, ("bool", "int4", "int8", "oid", "text", "name"))
PG_LSN, INET, TIMESTAMPTZ, RECORD, VOID = map(_type, ("pg_lsn", "inet", "timestamptz", "record", "void"))

_RECOVERY_HINT: Final = "WAL control functions cannot be executed during recovery."

CREATE_SLOT: Final = "pg_create_physical_replication_slot"
DROP_SLOT: Final = "pg_drop_replication_slot"
RELOAD: Final = "pg_reload_conf"
TERMINATE: Final = "pg_terminate_backend"
CANCEL: Final = "pg_cancel_backend"
SET_CONFIG: Final = "set_config"


def _in_recovery(_: Environment, *__: object) -> Any:
    raise InRecovery("recovery is in progress", hint=_RECOVERY_HINT)


def _refuse(_: Environment, *__: object) -> Any:
    raise AssertionError("what acts is called by the session")


_ACTIONS: Final = (
    Function(
        CREATE_SLOT,
        (NAME, BOOL, BOOL),
        RECORD,
        _refuse,
        optional=2,
        columns=(Column("slot_name", NAME), Column("lsn", PG_LSN)),
        is_action=True,
    ),
    Function(DROP_SLOT, (NAME,), VOID, _refuse, is_action=True),
    Function(RELOAD, (), BOOL, _refuse, is_action=True),
    Function(TERMINATE, (INT4, INT8), BOOL, _refuse, optional=1, is_action=True),
    Function(CANCEL, (INT4,), BOOL, _refuse, is_action=True),
    Function(SET_CONFIG, (TEXT, TEXT, BOOL), TEXT, _refuse, strict=False, is_action=True),
)
_REFUSED: Final = (
    *(
        Function(name, (), PG_LSN, _in_recovery)
        for name in ("pg_current_wal_lsn", "pg_current_wal_insert_lsn")
    ),
    Function("pg_walfile_name", (PG_LSN,), TEXT, _in_recovery),
    Function("pg_switch_wal", (), PG_LSN, _in_recovery),
)


def functions(
    snapshot: Snapshot,
    entry: WalSenderEntry,
    database: str,
    version: str,
    server_address: tuple[str | None, int | None],
    show: Callable[[str], str],
) -> Mapping[str, Sequence[Function]]:
    """
    Return the functions for one statement.

    :param entry: of the session.
    :param show: the value of a parameter.
    :param server_address: host and port that the client has connected to.
    """
    user = entry.user
    position = snapshot.flush_position
    flush_lsn = int(snapshot.geometry.lsn(position))
    is_remote = entry.port >= 0

    def current_setting(_: Environment, name: str, missing_ok: bool = False) -> str | None:
        try:
            return show(name)
        except UnrecognizedParameter:
            if missing_ok:
                return None
            raise

    control = (
        Column("pg_control_version", INT4),
        Column("catalog_version_no", INT4),
        Column("system_identifier", INT8),
        Column("pg_control_last_modified", TIMESTAMPTZ),
    )
    identifier = snapshot.system_identifier
    values: list[tuple[str, PgType, Any]] = [
        ("pg_is_in_recovery", BOOL, True),
        ("pg_is_wal_replay_paused", BOOL, False),
        ("pg_get_wal_replay_pause_state", TEXT, "not paused"),
        ("pg_current_wal_flush_lsn", PG_LSN, flush_lsn),
        ("pg_last_wal_receive_lsn", PG_LSN, flush_lsn),
        ("pg_last_wal_replay_lsn", PG_LSN, None),
        ("pg_last_xact_replay_timestamp", TIMESTAMPTZ, None),
        ("pg_postmaster_start_time", TIMESTAMPTZ, time_of(snapshot.started_at)),
        ("pg_conf_load_time", TIMESTAMPTZ, time_of(snapshot.configured_at)),
        ("pg_backend_pid", INT4, entry.process_id),
        ("version", TEXT, version),
        ("current_database", NAME, database),
        ("current_catalog", NAME, database),
        ("current_schema", NAME, "pg_catalog"),
        *((name, NAME, user) for name in ("current_user", "session_user", "user", "current_role")),
        ("inet_client_addr", INET, address_of(entry.address)),
        ("inet_client_port", INT4, entry.port if is_remote else None),
        ("inet_server_addr", INET, address_of(server_address[0] or "")),
        ("inet_server_port", INT4, server_address[1]),
    ]
    found = [
        *_ACTIONS,
        *_REFUSED,
        *(Function(name, (), pg_type, _constant(value)) for name, pg_type, value in values),
        Function("format_type", (OID, INT4), TEXT, _format_type, strict=False),
        Function("current_setting", (TEXT, BOOL), TEXT, current_setting, optional=1),
        Function(
            "pg_control_system",
            (),
            RECORD,
            lambda _: [(None, None, identifier - (1 << 64) if identifier >> 63 else identifier, None)],
            columns=control,
        ),
    ]
    table: dict[str, list[Function]] = {}
    for function in found:
        table.setdefault(function.name, []).append(function)
    return table


def _format_type(_: Environment, oid: int | None, __: int | None) -> str | None:
    """Return the name of a type, for psql's *gdesc*; the columns here have no modifiers."""
    if oid is None:
        return None
    return BY_OID[oid].title if oid in BY_OID else "???"


def _constant(value: Any) -> Callable[[Environment], Any]:
    return lambda _: value


__all__ = ["CANCEL", "CREATE_SLOT", "DROP_SLOT", "RELOAD", "SET_CONFIG", "TERMINATE", "functions"]
