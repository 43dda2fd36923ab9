"""Queries that PostgreSQL 18 answers too: the same columns, types and rows, or the same error."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.pq import DiagnosticField, ExecStatus

from walsender.sql import Environment, Query, SqlError, parse_statements, prepared, text_of
from walsender.testing.installation import PostgresInstallation
from walsender.testing.postgres import Cluster, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.pq.abc import PGconn

NOW = 800_000_000 * 1_000_000

CASES = [
    line
    for line in Path(__file__).with_name("sql_cases.sql").read_text().splitlines()
    if line and not line.startswith("--")
]


@pytest.fixture(scope="session")
def postgres(archive_space: Path) -> Iterator[PGconn]:
    """A connection to a real server."""
    cluster = Cluster.create(PostgresInstallation.embedded(18), archive_space / "sql-18")
    with (
        started(cluster),
        psycopg.connect(cluster.conninfo(dbname="postgres"), autocommit=True) as connection,
    ):
        connection.execute("SET timezone = 'UTC'")
        yield connection.pgconn


def theirs(postgres: PGconn, text: str) -> Any:
    """Return what PostgreSQL answers: columns with the types' oids and rows, or what is wrong and where."""
    result = postgres.exec_params(text.encode(), [])
    if result.status == ExecStatus.TUPLES_OK:
        columns = [
            ((result.fname(place) or b"").decode(), result.ftype(place)) for place in range(result.nfields)
        ]
        rows = [
            tuple(
                None if (value := result.get_value(row, column)) is None else value.decode()
                for column in range(result.nfields)
            )
            for row in range(result.ntuples)
        ]
        return columns, rows
    fields = (DiagnosticField.SQLSTATE, DiagnosticField.MESSAGE_PRIMARY, DiagnosticField.STATEMENT_POSITION)
    sqlstate, message, position = (result.error_field(field) or b"" for field in fields)
    return sqlstate.decode(), message.decode(), int(position or b"0")


def ours(text: str) -> Any:
    """Return the same of our answer."""
    try:
        (statement,) = parse_statements(text)
        assert isinstance(statement, Query)
        ready = prepared(statement, Environment(NOW))
        columns = [(column.name, column.type.oid) for column in ready.columns]
        rows = [
            tuple(
                None if value is None else text_of(value, column.type, UTC)
                for value, column in zip(row, ready.columns, strict=True)
            )
            for row in ready.rows()
        ]
    except SqlError as error:
        return error.sqlstate, error.message, error.position
    else:
        return columns, rows


def test_sameAnswers(postgres: PGconn) -> None:
    """Every case has the answer that PostgreSQL gives."""
    differences = [
        (text, expected, found)
        for text in CASES
        if (expected := theirs(postgres, text)) != (found := ours(text))
    ]
    assert differences == []
