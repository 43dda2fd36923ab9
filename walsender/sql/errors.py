"""What can be wrong with a query, each with PostgreSQL's SQLSTATE."""

from __future__ import annotations

from walsender.errors import WalsenderError


class SqlError(WalsenderError):
    """
    Base of what is wrong with a statement.

    :ivar position: of the character in the text that is to blame, counted from 1; 0: none.
    """

    def __init__(
        self, message: str, position: int = 0, *, detail: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.position = position


class SqlSyntaxError(SqlError, sqlstate="42601"):
    """The text is no statement."""


class UndefinedTable(SqlError, sqlstate="42P01"):
    """There is no relation of that name."""


class UndefinedColumn(SqlError, sqlstate="42703"):
    """There is no column of that name."""


class UndefinedFunction(SqlError, sqlstate="42883"):
    """There is no function or operator of that name for these types."""


class UndefinedType(SqlError, sqlstate="42704"):
    """There is no type of that name, or no role or other object."""


class UndefinedParameter(SqlError, sqlstate="42P02"):
    """There is no parameter of that number."""


class IndeterminateType(SqlError, sqlstate="42P18"):
    """Nothing tells which type a parameter has."""


class AmbiguousColumn(SqlError, sqlstate="42702"):
    """More than one column has that name."""


class AmbiguousParameter(SqlError, sqlstate="42P08"):
    """A parameter has two types."""


class DuplicateAlias(SqlError, sqlstate="42712"):
    """Two relations of a query have one name."""


class DatatypeMismatch(SqlError, sqlstate="42804"):
    """An expression has another type than its place asks for."""


class CannotCoerce(SqlError, sqlstate="42846"):
    """There is no cast between two types."""


class WrongObject(SqlError, sqlstate="42809"):
    """A thing of another kind than its place asks for."""


class GroupingError(SqlError, sqlstate="42803"):
    """An aggregate where none may be, or a column that is not grouped."""


class InvalidColumnReference(SqlError, sqlstate="42P10"):
    """ORDER BY or GROUP BY names no column of the query."""


class CardinalityViolation(SqlError, sqlstate="21000"):
    """A subquery has more rows than its place can take."""


class InvalidText(SqlError, sqlstate="22P02"):
    """A text is no value of its type."""


class InvalidDatetime(SqlError, sqlstate="22007"):
    """A text is no time."""


class InvalidBinary(SqlError, sqlstate="22P03"):
    """Bytes are no value of their type."""


class OutOfRange(SqlError, sqlstate="22003"):
    """A number is too large for its type."""


class DivisionByZero(SqlError, sqlstate="22012"):
    """A number was to be divided by zero."""


class InvalidArgument(SqlError, sqlstate="22023"):
    """A function cannot take this value."""


class InvalidRegularExpression(SqlError, sqlstate="2201B"):
    """A pattern is none."""


class InvalidLimit(SqlError, sqlstate="2201W"):
    """LIMIT must not be negative."""


class InvalidOffset(SqlError, sqlstate="2201X"):
    """OFFSET must not be negative."""


class InRecovery(SqlError, sqlstate="55000"):
    """The function is one of a server that writes WAL."""


class NotSupported(SqlError, sqlstate="0A000"):
    """PostgreSQL can do that, and this room cannot."""


class TooComplex(SqlError, sqlstate="54001"):
    """A statement is nested too deeply or too long."""


class LimitExceeded(SqlError, sqlstate="54000"):
    """A statement needs more memory than it may have."""


class StatementTimeout(SqlError, sqlstate="57014"):
    """A statement has taken too long, or its client wants it no more."""
