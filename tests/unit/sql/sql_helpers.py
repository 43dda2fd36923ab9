"""What the tests of SQL share: one query, its environment, its rows as text."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from walsender.sql import Budget, Environment, Query, parse_statements, prepared, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from walsender.sql import Prepared

NOW = 800_000_000 * 1_000_000  # 2025-05-08 06:13:20 UTC


def environment(**options: Any) -> Environment:
    """Return an environment."""
    return Environment(options.pop("now", NOW), options.pop("budget", None) or Budget(60), **options)


def query(text: str) -> Query:
    """Return the one query that a text is."""
    (statement,) = parse_statements(text)
    assert isinstance(statement, Query)
    return statement


def make_ready(text: str, around: Environment | None = None) -> Prepared:
    """Return the query of a text, ready to be run."""
    return prepared(query(text), around or environment())


def rows(text: str, around: Environment | None = None) -> Sequence[tuple[str | None, ...]]:
    """Return the rows of a query as text."""
    ready = make_ready(text, around)
    return [
        tuple(
            None if value is None else text_of(value, column.type, UTC)
            for value, column in zip(row, ready.columns, strict=True)
        )
        for row in ready.rows()
    ]


def value(text: str, around: Environment | None = None) -> str | None:
    """Return the one value of a query."""
    ((only,),) = rows(text, around)
    return only
