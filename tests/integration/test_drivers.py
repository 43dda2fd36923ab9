"""Real drivers as clients: psycopg2 and psycopg, and the libpq that both are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import psycopg2
import psycopg2.extras
import pytest

from walsender.lsn import LSN
from walsender.testing.installation import PostgresInstallation
from walsender.testing.postgres import Cluster, started
from walsender.testing.processes import WalsenderProcess
from walsender.testing.raw_client import RawClient
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from psycopg2.extras import ReplicationMessage

    from walsender.testing.archives import Archive

# What PostgreSQL makes of each is known from a session with replication=database, which may say SQL.
STATEMENTS = (
    "SET datestyle TO 'ISO'",
    "SET datestyle = german",
    "SHOW datestyle",
    "SET datestyle TO postgres, dmy",
    "SET datestyle TO 'foo'",
    "SET datestyle TO 'ISO,SQL'",
    "SET datestyle TO 'dmy,mdy'",
    "SET datestyle TO DEFAULT",
    "SHOW datestyle",
    "SET client_encoding TO LATIN1",
    "SET client_encoding TO 'utf-8'",
    "SET client_encoding TO 'nosuch'",
    "SET client_encoding TO 'SQL_ASCII'",
    "SET wal_sender_timeout = 5000",
    "SHOW wal_sender_timeout",
    "SET wal_sender_timeout = '5 parsecs'",
    "SET wal_sender_timeout = -1",
    "SET wal_sender_timeout = foo",
    "SET wal_sender_timeout = '1.5s'",
    "SHOW wal_sender_timeout",
    "SET nonsense = 1",
    "SET application_name = Foo",
    "SET application_name = 'äx'",
    f"SET application_name = '{'x' * 70}'",
    "RESET application_name",
    "SET max_wal_senders = 3",
    "SET wal_level = logical",
    "SET wal_keep_size = 3",
    "SET max_slot_wal_keep_size = 3",
    "SET server_version = '3'",
    "SET in_hot_standby = on",
    "SET wal_segment_size = 3",
    "SET max_replication_slots = 4",
    "SET hot_standby = off",
    "SET primary_conninfo = 'x'",
    "SET extra_float_digits = 3",
    "SET extra_float_digits = 9",
    "SET extra_float_digits TO 1, 2",
    "SET statement_timeout = 2000",
    "SHOW statement_timeout",
    "SET standard_conforming_strings = maybe",
    "SET synchronous_commit = 1",
    "SHOW synchronous_commit",
    "SET synchronous_commit = never",
    "SET search_path TO a, \"B c\", 'd'",
    "SET search_path = ''",
    "SHOW search_path",
    "SELECT pg_catalog.set_config('search_path', '', false)",
    "SELECT set_config('search_path', 'x', true)",
    "SHOW search_path",
    "SELECT set_config('nonsense', '', false)",
    "SELECT set_config('datestyle', 'x', false)",
    "SHOW nonsense",
    "SHOW primary_conninfo",
    "SHOW data_directory",
    "RESET nonsense",
    "RESET wal_level",
    "SET intervalstyle = foo",
    "RESET ALL",
    "SHOW application_name",
)


@pytest.fixture
def maker() -> WalMaker:
    """WAL of some megabytes."""
    made = WalMaker()
    made.fill_to(made.position + (3 << 20), 60_000)
    return made


def answers(host: str, port: int, **parameters: str) -> Iterator[tuple[str, list[object]]]:
    """
    Yield each statement with the messages that answer it.

    Without places in PostgreSQL's source, and without the description of a result that does not come.
    """
    with RawClient(host, port, user="reader", client_encoding="SQL_ASCII", **parameters).ready() as client:
        for text in STATEMENTS:
            messages = client.query(text)
            failed = any(message.kind == b"E" for message in messages)
            found: list[object] = []
            for message in messages:
                if message.kind in {b"E", b"N"}:
                    found.append(
                        {name: value for name, value in message.fields().items() if name in "SVCMDH"}
                    )
                elif message.kind != b"T" or not failed:
                    found.append(message)
            yield text, found


def test_statementsAsPostgres(space: Path) -> None:
    """Parameters are set, refused and reported byte for byte as by PostgreSQL, where that runs SQL."""
    maker = WalMaker()
    maker.record(1000)
    (space / "wal").mkdir()
    maker.write(space / "wal")
    installation = PostgresInstallation.embedded(18)  # whose texts are ours; they changed a little over time
    with (
        WalsenderProcess(space / "wal", log_file=space / "walsender.log") as ours,
        started(Cluster.create(installation, space / "real")) as real,
    ):
        real.sql("CREATE ROLE reader LOGIN REPLICATION")
        theirs = answers("127.0.0.1", real.port, replication="database", database="template1")
        for (text, answer), (_, expected) in zip(answers(ours.host, ours.port), theirs, strict=True):
            assert answer == expected, text


def test_psycopg2Streams(server: WalsenderProcess, maker: WalMaker) -> None:
    """The replication cursor of psycopg2 receives all there is, and sends its reports."""
    start = LSN(maker.position - (maker.position % maker.segment_size))
    connection = psycopg2.connect(
        server.conninfo(), connection_factory=psycopg2.extras.PhysicalReplicationConnection
    )
    received = b""
    try:
        cursor = connection.cursor()
        cursor.create_replication_slot("driver")
        cursor.start_replication("driver", start_lsn=f"{start >> 32:X}/{start & 0xFFFFFFFF:08X}", timeline=1)

        def take(message: ReplicationMessage) -> None:
            nonlocal received
            assert message.data_start == start + len(received)
            received += message.payload
            message.cursor.send_feedback(flush_lsn=message.data_start + message.data_size, force=True)
            if message.data_start + message.data_size >= maker.position:
                raise psycopg2.extras.StopReplication

        with pytest.raises(psycopg2.extras.StopReplication):
            cursor.consume_stream(take)
    finally:
        connection.close()
    assert received == maker.image(maker.position // maker.segment_size)[: len(received)]
    with RawClient(server.host, server.port).ready() as client:
        row = client.query("READ_REPLICATION_SLOT driver")[1].values()
    assert row[1] == str(LSN(maker.position))


def test_psycopg2SetsItsSession(server: WalsenderProcess) -> None:
    """An ordinary connection of psycopg2 works once it sends no BEGIN; what it sets is set."""
    connection = psycopg2.connect(server.conninfo(replication="true", application_name="two"))
    try:
        cursor = connection.cursor()
        with pytest.raises(psycopg2.errors.FeatureNotSupported, match="cannot execute SQL commands"):
            cursor.execute("IDENTIFY_SYSTEM")
        connection.rollback()
        connection.set_session(readonly=True, autocommit=True)
        connection.set_client_encoding("UTF8")
        assert connection.encoding == "UTF8"
        cursor.execute("SHOW default_transaction_read_only")
        assert cursor.fetchone() == ("on",)
        cursor.execute("SHOW application_name")
        assert cursor.fetchone() == ("two",)
    finally:
        connection.close()


def test_patroniAndBarman(fork: Archive, space: Path) -> None:
    """What Patroni asks a leader before pg_rewind and Barman asks a streaming server, as they connect."""
    state = ("--state-directory", str(space / "state"))
    with WalsenderProcess(fork.directory, *state, log_file=space / "walsender.log") as server:
        for parameters in (
            {"replication": "1", "options": "-c statement_timeout=2000", "connect_timeout": "3"},
            {"replication": "true", "options": "-cdatestyle=iso", "dbname": "replication"},
        ):
            connection = psycopg2.connect(server.conninfo(**parameters))
            connection.autocommit = True
            try:
                assert connection.server_version == fork.installation.major * 10000
                cursor = connection.cursor()
                cursor.execute("IDENTIFY_SYSTEM")
                row = cursor.fetchone()
                assert row is not None
                assert row[1:] == (2, str(LSN(fork.end)), None)
                cursor.execute(b"TIMELINE_HISTORY 2")
                row = cursor.fetchone()
                assert row is not None
                assert row[1].encode() == (fork.directory / "00000002.history").read_bytes()
                cursor.execute("CREATE_REPLICATION_SLOT barman PHYSICAL")
                with pytest.raises(psycopg2.errors.DuplicateObject):
                    cursor.execute("CREATE_REPLICATION_SLOT barman PHYSICAL")
                cursor.execute("DROP_REPLICATION_SLOT barman")
            finally:
                connection.close()


def test_psycopg(server: WalsenderProcess) -> None:
    """Psycopg 3 works with autocommit, and is told why it does not without."""
    parameters = server.conninfo(replication="true", client_encoding="UTF8")
    with psycopg.connect(parameters) as connection:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot execute SQL commands"):
            connection.execute("IDENTIFY_SYSTEM")
        connection.rollback()
    with psycopg.connect(parameters, autocommit=True) as connection:
        row = connection.execute("IDENTIFY_SYSTEM").fetchone()
        assert row is not None
        assert row[1] == 1
        connection.execute("SET application_name = 'three'")
        assert connection.info.parameter_status("application_name") == "three"
        assert connection.execute("SHOW ALL").fetchall()


@pytest.mark.parametrize("protocol", ["3.0", "latest"])
def test_cancel(server: WalsenderProcess, maker: WalMaker, protocol: str) -> None:
    """A cancel request of libpq, with the key of either protocol, ends the stream and leaves the session."""
    parameters = server.conninfo(replication="true", max_protocol_version=protocol)
    with psycopg.connect(parameters, autocommit=True) as connection:
        session = connection.pgconn
        for _ in range(2):
            result = session.exec_(f"START_REPLICATION {LSN(maker.segment_size)} TIMELINE 1".encode())
            assert result.status == psycopg.pq.ExecStatus.COPY_BOTH
            session.get_copy_data(0)
            session.get_cancel().cancel()
            while session.get_copy_data(0)[0] > 0:
                pass
            ended = session.get_result()
            assert ended is not None
            assert ended.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"
            assert session.get_result() is None
            assert connection.execute("IDENTIFY_SYSTEM").fetchone() is not None


def test_standbyIsFound(space: Path) -> None:
    """The libpq of today finds a standby in a server of 13, which does not report that it is one."""
    maker = WalMaker(version=130000)
    maker.record(1000)
    (space / "wal").mkdir()
    maker.write(space / "wal")
    with WalsenderProcess(space / "wal", log_file=space / "walsender.log") as server:
        for wanted in ("standby", "prefer-standby", "read-only"):
            parameters = server.conninfo(replication="true", target_session_attrs=wanted)
            with psycopg.connect(parameters, autocommit=True) as connection:
                assert connection.info.parameter_status("in_hot_standby") is None
        for unwanted, reason in (("primary", "hot standby mode"), ("read-write", "read-only")):
            parameters = server.conninfo(replication="true", target_session_attrs=unwanted)
            with pytest.raises(psycopg.OperationalError, match=reason):
                psycopg.connect(parameters, autocommit=True)
