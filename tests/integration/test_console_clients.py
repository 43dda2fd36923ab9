"""The console with real clients: psql, drivers, what monitoring systems ask; its columns are PostgreSQL's."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import exporter_queries
import psycopg
import psycopg2
import pytest
from psycopg.rows import dict_row
from relay_helpers import make_primary, make_relay

from walsender.console.relations import COLUMNS
from walsender.lsn import LSN
from walsender.testing.installation import PostgresInstallation
from walsender.testing.postgres import PgReceiveWal
from walsender.testing.processes import clean_environment, wait_until, workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from walsender.testing.postgres import Cluster
    from walsender.testing.processes import WalsenderProcess


class Site:
    """A primary, a relay, and a pg_receivewal behind it; all tests here look at these."""

    def __init__(self, stack: ExitStack, space: Path) -> None:
        self.installation = PostgresInstallation.embedded(18)
        self.primary: Cluster = make_primary(stack, self.installation, space)
        upstream = self.primary.conninfo(password="secret", application_name="relay")
        self.relay: WalsenderProcess = make_relay(stack, space, upstream, "--hot-standby-feedback", "on")
        streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        wait_until(lambda: self.primary.sql(streaming) == "1", 60, "the relay to stream", logs=[self.relay])
        self.space = space
        self.receiver = stack.enter_context(
            PgReceiveWal(self.installation, space / "copy", self.relay.conninfo())
        )
        self.receiver.wait_for_start()
        state = ("-At", "-c", "SELECT state FROM pg_stat_replication")
        wait_until(
            lambda: self.psql(*state).stdout == "streaming\n",
            60,
            "pg_receivewal to stream",
            logs=[self.relay],
        )

    def psql(
        self, *arguments: str, commands: str = "", version: int = 18
    ) -> subprocess.CompletedProcess[str]:
        """Return what psql says."""
        return subprocess.run(
            [
                PostgresInstallation.embedded(version).program("psql"),
                *("-X", "-d", self.relay.conninfo(dbname="walsender"), *arguments),
            ],
            input=commands,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """What is looked at."""
    # A directory of its own: where tests are shared out this module may come twice to one process.
    with workspace() as space, ExitStack() as stack:
        yield Site(stack, space)


@pytest.fixture
def console(site: Site) -> Iterator[psycopg.Connection[Any]]:
    """A connection of psycopg."""
    with psycopg.connect(site.relay.conninfo(dbname="walsender"), autocommit=True) as connection:
        yield connection


def one(console: psycopg.Connection[Any], text: str, *values: object) -> dict[str, Any]:
    """Return the one row of a query."""
    rows = console.cursor(row_factory=dict_row).execute(text, values or None).fetchall()
    assert len(rows) == 1, rows
    return dict(rows[0])


@pytest.mark.parametrize(
    "name",
    [
        "pg_stat_replication",
        "pg_replication_slots",
        "pg_stat_wal_receiver",
        "pg_settings",
        "pg_stat_activity",
    ],
)
def test_columnsArePostgres18s(site: Site, console: psycopg.Connection[Any], name: str) -> None:
    """Names, order and types of the columns are those of a real server."""
    text = (
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        f" WHERE attrelid = 'pg_catalog.{name}'::regclass AND attnum > 0 ORDER BY attnum"
    )
    theirs = [tuple(line.split("|")) for line in site.primary.sql(text).splitlines()]
    assert [(column.name, column.type.title) for column in COLUMNS[name]] == theirs
    with psycopg.connect(site.primary.conninfo(dbname="postgres")) as real:
        expected = real.execute(f"TABLE {name}").description  # type: ignore[arg-type]
        found = console.execute(f"TABLE {name}").description  # type: ignore[arg-type]
        assert expected is not None
        assert found is not None
        assert [(one.name, one.type_code) for one in found] == [(one.name, one.type_code) for one in expected]


def test_standbyIsShown(console: psycopg.Connection[Any]) -> None:
    """A pg_receivewal has its row, with positions that grow."""
    row = one(console, "SELECT * FROM pg_stat_replication")
    assert (row["application_name"], row["usename"], row["state"]) == (
        "pg_receivewal",
        "postgres",
        "streaming",
    )
    assert str(row["client_addr"]) == "127.0.0.1"
    assert row["sync_state"] == "async"
    assert LSN.parse(row["sent_lsn"]) > 0
    behind = one(
        console, "SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), sent_lsn) AS n FROM pg_stat_replication"
    )
    assert isinstance(behind["n"], Decimal)


def test_receiverIsShown(site: Site, console: psycopg.Connection[Any]) -> None:
    """The relay's own stream has its row, without the password."""
    row = one(console, "SELECT * FROM pg_stat_wal_receiver")
    assert row["status"] == "streaming"
    assert row["received_tli"] == 1
    assert (row["sender_host"], row["sender_port"]) == ("127.0.0.1", site.primary.port)
    assert "secret" not in str(row)
    assert "application_name='relay'" in row["conninfo"]
    site.primary.sql("SELECT pg_switch_wal()")
    target = site.primary.flush_lsn()

    def arrived() -> bool:
        return (
            LSN.parse(one(console, "SELECT flushed_lsn FROM pg_stat_wal_receiver")["flushed_lsn"]) >= target
        )

    wait_until(arrived, 60, "the WAL to be flushed at the relay", logs=[site.relay])
    assert LSN.parse(one(console, "SELECT pg_current_wal_flush_lsn() AS lsn")["lsn"]) >= target


def test_passwordIsNowhere(site: Site, console: psycopg.Connection[Any]) -> None:
    """Neither SHOW nor pg_settings gives it away."""
    shown = one(console, "SHOW primary_conninfo")["primary_conninfo"]
    assert "application_name='relay'" in shown
    assert "secret" not in shown
    everything = console.execute("SHOW ALL").fetchall() + console.execute("TABLE pg_settings").fetchall()
    assert "secret" not in str(everything)


def test_segmentsAndTimelines(console: psycopg.Connection[Any]) -> None:
    """What is held is one range without a gap, on one timeline."""
    row = one(console, "SELECT * FROM walsender_segments")
    assert (row["timeline"], row["held"]) == (1, True)
    assert row["size"] == row["segments"] << 20
    row = one(console, "SELECT *, end_lsn = pg_current_wal_flush_lsn() AS level FROM walsender_timelines")
    assert (row["timeline"], row["parent"], row["is_current"], row["missing"]) == (1, None, True, 0)
    assert row["level"]


def test_monitoring(console: psycopg.Connection[Any]) -> None:
    """What others ask than postgres_exporter, each column as they write it."""
    for column, expected in (
        ("(EXTRACT(EPOCH FROM replay_lag))::float8 IS NULL OR true", True),
        ("coalesce(client_addr::text, client_hostname)", "127.0.0.1/32"),
        ("case when sync_state in ('sync', 'quorum') then 1 else 0 end", 0),
    ):
        found = one(console, f"SELECT {column} AS found FROM pg_stat_replication")["found"]
        assert found == expected, column


def test_exporter(site: Site, console: psycopg.Connection[Any]) -> None:
    """postgres_exporter's queries are answered, and tell what is."""
    console.execute("SELECT pg_create_physical_replication_slot('watched', true)")
    end = int(LSN.parse(one(console, "SELECT pg_last_wal_receive_lsn() AS lsn")["lsn"]))
    row = one(console, exporter_queries.STAT_REPLICATION)
    pid = one(console, "SELECT pid FROM pg_stat_replication")["pid"]
    assert [row[name] for name in ("application_name", "client_addr", "state", "slot_name", "pid")] == [
        *("pg_receivewal", "127.0.0.1/32", "streaming", None, pid)
    ]
    assert row["pg_current_wal_lsn_bytes"] >= end
    assert row["pg_wal_lsn_diff"] is None
    old = one(console, exporter_queries.OLD_STAT_REPLICATION)
    assert (old["state"], old["pg_current_wal_lsn_bytes"]) == ("streaming", None)
    row = one(console, exporter_queries.REPLICATION_SLOTS)
    assert (row["slot_name"], row["database"], row["active"]) == ("watched", None, False)
    assert row["pg_wal_lsn_diff"] >= 0
    row = one(console, exporter_queries.REPLICATION_SLOT)
    assert row["current_wal_lsn"] >= end
    assert (row["slot_type"], row["confirmed_flush_lsn"]) == ("physical", 0)
    assert (row["safe_wal_size"], row["wal_status"]) == (None, "reserved")
    console.execute("SELECT pg_drop_replication_slot('watched')")
    assert one(console, exporter_queries.FLUSHED_LSN_COLUMN) == {"column_name": "flushed_lsn"}
    row = one(console, exporter_queries.STAT_WAL_RECEIVER)
    assert (row["upstream_host"], row["slot_name"], row["status"]) == ("127.0.0.1", None, "streaming")
    assert (row["receive_start_tli"], row["received_tli"], row["upstream_node"]) == (1, 1, None)
    assert row["flushed_lsn"] >= end
    assert row["latest_end_lsn"] >= row["receive_start_lsn"]
    assert 0 <= row["last_msg_receipt_time"] - row["last_msg_send_time"] < 60
    assert one(console, exporter_queries.REPLICATION) == {"lag": 0, "is_replica": 1, "last_replay": 0}
    settings = console.execute(exporter_queries.SETTINGS).fetchall()
    by_name = {name: (setting, unit) for name, setting, unit, *_ in settings}
    assert by_name["wal_segment_size"] == (str(1 << 20), "B")
    assert by_name["wal_sender_timeout"] == ("60000", "ms")
    assert by_name["hot_standby_feedback"] == ("on", "")
    assert console.execute(exporter_queries.START_TIME).fetchone() is not None


def test_slotsLikePostgres(site: Site, console: psycopg.Connection[Any]) -> None:
    """What is NULL of a slot and what is not is as on a real server, in use, at rest, and without WAL."""
    with psycopg.connect(site.primary.conninfo(dbname="postgres"), autocommit=True) as real:
        assert _slot_life(site, site.relay, console) == _slot_life(site, site.primary, real)


def _slot_life(
    site: Site, server: Cluster | WalsenderProcess, connection: psycopg.Connection[Any]
) -> list[dict[str, Any]]:
    """Return what ``pg_replication_slots`` says of a slot's whole life, but for what is by chance."""

    def look() -> dict[str, Any]:
        row = one(connection, "SELECT * FROM pg_replication_slots WHERE slot_name = 'lived'")
        by_chance = ("active_pid", "restart_lsn", "inactive_since")
        return row | {name: row[name] is not None for name in by_chance}

    seen = []
    connection.execute("SELECT pg_create_physical_replication_slot('lived')")
    seen.append(look())
    connection.execute("SELECT pg_drop_replication_slot('lived')")
    connection.execute("SELECT pg_create_physical_replication_slot('lived', true)")
    seen.append(look())
    copy = site.space / f"{server.__class__.__name__}-copy"
    with PgReceiveWal(site.installation, copy, server.conninfo(), "--slot", "lived") as client:
        client.wait_for_start()
        seen.append(look())
    wait_until(lambda: not look()["active"], 60, "the slot to be free")
    seen.append(look())
    connection.execute("SELECT pg_drop_replication_slot('lived')")
    return seen


def test_psycopg(console: psycopg.Connection[Any]) -> None:
    """Parameters, server-side statements, binary results, transactions, pipelines, rows one by one."""
    row = one(console, "SELECT %s + 1 AS a, %s::text AS b, %s::pg_lsn - '0/0' AS c", 3, "ä", "0/10")
    assert row == {"a": 4, "b": "ä", "c": 16}
    for _ in range(3):
        prepared = console.execute(
            "SELECT name FROM pg_settings WHERE name = ANY(%s)", (["fsync"],), prepare=True
        )
        assert prepared.fetchall() == [("fsync",)]
    values = console.execute(
        "SELECT 1::int8, 2.50, 1.5::float8, true, '1 day'::interval", binary=True
    ).fetchone()
    assert values is not None
    assert values[:4] == (1, Decimal("2.50"), 1.5, True)
    with console.transaction():
        with pytest.raises(psycopg.errors.DivisionByZero), console.transaction():
            console.execute("SELECT 1/0")
        assert one(console, "SELECT 1 AS a") == {"a": 1}
    with console.pipeline():
        cursors = [console.execute("SELECT %s::int", (number,)) for number in range(3)]
        assert [cursor.fetchone() for cursor in cursors] == [(0,), (1,), (2,)]
    assert list(console.cursor().stream("SELECT * FROM generate_series(1, 3)")) == [(1,), (2,), (3,)]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        console.execute("CREATE TABLE a (b int)")


def test_psycopg2(site: Site) -> None:
    """Its own transactions and parameters."""
    connection = psycopg2.connect(site.relay.conninfo(dbname="walsender"))
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT %s, count(*) FROM pg_stat_replication", ("a",))
        assert cursor.fetchall() == [("a", 1)]
        connection.rollback()
        connection.set_session(readonly=True, autocommit=True)
        cursor.execute("SELECT pg_terminate_backend(99999)")
        assert cursor.fetchall() == [(False,)]
        assert connection.notices == ["WARNING:  PID 99999 is not a PostgreSQL backend process\n"]
    finally:
        connection.close()


@pytest.mark.parametrize("version", [16, 18])
def test_psql(site: Site, version: int) -> None:
    """Its commands work where they make sense, and say what is wrong where not."""
    commands = ("conninfo", "timing on", "dconfig wal_keep_size", "x on", "d", "dt", "dv", "l", "du")
    meta = "".join(f"\\{command}\n" for command in commands)
    done = site.psql(commands=f"SELECT 1::pg_lsn AS lsn \\gdesc\n{meta}SELECT 1 AS one;\n", version=version)
    assert "walsender" in done.stdout
    assert "one | 1" in done.stdout
    assert "Time: " in done.stdout
    missing = 'ERROR:  relation "pg_catalog.pg_{}" does not exist'
    assert missing.format("class") in done.stderr
    assert missing.format("database") in done.stderr
    assert done.stderr.count("HINT:  The console of walsender has no other catalogs than pg_stat_repl") == 5
    assert "wal_keep_size | -1" in done.stdout
    assert "syntax error" not in done.stderr
    assert done.returncode == 0
    watched = site.psql("-At", commands="SELECT state FROM pg_stat_replication \\watch i=0.1 c=2\n")
    assert watched.stdout.split().count("streaming") == 2, watched
    wrong = site.psql("-c", "SELECT sent_lsn, nosuch FROM pg_stat_replication")
    assert wrong.stderr.splitlines()[:2] == [
        'ERROR:  column "nosuch" does not exist',
        "LINE 1: SELECT sent_lsn, nosuch FROM pg_stat_replication",
    ]


def test_reloadAndTerminate(site: Site, console: psycopg.Connection[Any]) -> None:
    """The configuration is read again, and a client that is sent away comes back by itself."""
    before = one(console, "SELECT pid FROM pg_stat_replication")["pid"]
    assert one(console, "SELECT pg_reload_conf() AS done") == {"done": True}
    assert "reloading configuration files" in site.relay.log_text()
    text = (
        "SELECT pg_terminate_backend(pid) AS done FROM pg_stat_replication"
        " WHERE application_name = 'pg_receivewal'"
    )
    assert one(console, text) == {"done": True}

    def is_back() -> bool:
        rows = console.execute("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'").fetchall()
        return bool(rows) and rows[0][0] != before

    wait_until(is_back, 60, "pg_receivewal to come back", logs=[site.relay, site.receiver])
