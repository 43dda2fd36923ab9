"""Statements with their values, and what they have given, as it goes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from walsender.console.errors import InvalidBind
from walsender.errors import FeatureNotSupported, InvalidParameterValue
from walsender.sql import Column, binary_of, find_type, has_binary, text_of
from walsender.wire import DataRow, Field, RowDescription, encode_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from walsender.sql import Environment, PgType, Statement


@dataclass(frozen=True, slots=True)
class Result:
    """
    What a statement has given.

    :ivar columns: ``None``: it gives no rows.
    :ivar rows: each as its DataRow, made where it costs nobody time.
    :ivar tag: of the CommandComplete, without the count of rows.
    :ivar warning: SQLSTATE and text of what the client is told besides.
    """

    tag: str
    columns: tuple[Column, ...] | None = None
    rows: Sequence[bytes] = ()
    warning: tuple[str, str] | None = None

    def complete(self, count: int) -> str:
        """Return the tag at the end of so many rows."""
        return f"{self.tag} {count}" if self.tag == "SELECT" else self.tag


@dataclass(frozen=True, slots=True)
class Bound:
    """
    A statement with its values.

    :ivar types: of the parameters.
    :ivar formats: of the columns, 0 text or 1 binary; none: all text, one: of all.
    """

    statement: Statement
    types: tuple[PgType, ...] = ()
    values: tuple[Any, ...] = ()
    formats: tuple[int, ...] = ()


def text_type() -> PgType:
    """Return the type of texts."""
    found = find_type("text")
    assert found is not None, "there is text"
    return found


def texts(tag: str, columns: tuple[Column, ...], rows: Sequence[tuple[str, ...]]) -> Result:
    """Return the result of texts."""
    return Result(
        tag, columns, [DataRow(tuple(encode_text(value) for value in row)).encode() for row in rows]
    )


def format_of(formats: Sequence[int], place: int) -> int:
    """Return the format of one of several values."""
    if len(formats) == 1:
        return formats[0]
    return formats[place] if formats else 0


def check_formats(columns: Sequence[Column], formats: Sequence[int]) -> None:
    """
    Check that results can be given in these formats.

    :raises WalsenderError: there is one for which a type has no form here.
    """
    if len(formats) > 1 and len(formats) != len(columns):
        raise InvalidBind(
            f"bind message has {len(formats)} result formats but query has {len(columns)} columns"
        )
    for place, column in enumerate(columns):
        form = format_of(formats, place)
        if form not in {0, 1}:
            raise InvalidParameterValue(f"unsupported format code: {form}")
        if form == 1 and not has_binary(column.type):
            raise FeatureNotSupported(f"binary results of type {column.type.title} are not supported")


def encoded(
    rows: Sequence[Sequence[Any]], columns: Sequence[Column], formats: Sequence[int], environment: Environment
) -> list[bytes]:
    """In a thread: return rows as the messages that they are."""
    budget, zone = environment.budget, environment.zone
    forms = [format_of(formats, place) for place in range(len(columns))]
    found = []
    for row in rows:
        values: list[bytes | None] = []
        for value, column, form in zip(row, columns, forms, strict=True):
            if value is None:
                values.append(None)
                continue
            data = binary_of(value, column.type) if form else encode_text(text_of(value, column.type, zone))
            budget.step(len(data))
            budget.take(len(data))
            values.append(data)
        budget.step()
        found.append(DataRow(tuple(values)).encode())
    return found


def description(columns: Sequence[Column], formats: tuple[int, ...]) -> bytes:
    """Return RowDescription."""
    return RowDescription(
        tuple(
            Field(column.name, column.type.oid, column.type.length, format=format_of(formats, place))
            for place, column in enumerate(columns)
        )
    ).encode()
