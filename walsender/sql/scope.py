"""Which columns an expression can name, and the rows that it finds them in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import AmbiguousColumn, GroupingError, UndefinedColumn, UndefinedTable
from .nodes import ColumnName, Expression
from .types import UNKNOWN, PgType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .aggregates import Aggregate
    from .environment import Column


class Frame:
    """A row, and that of the query around it."""

    __slots__ = ("outer", "row")

    def __init__(self, row: Sequence[Any], outer: Frame | None) -> None:
        self.row = row
        self.outer = outer


@dataclass(frozen=True, slots=True)
class Typed:
    """
    An expression that can be computed.

    :ivar value: gives its value in a frame.
    :ivar literal: the text of a literal without a type.
    :ivar parameter: the number of a parameter whose type is not known yet; 0: it is none.
    :ivar is_null: it is the word NULL.
    :ivar at: where a literal is, counted from 0; -1: it is none.
    """

    type: PgType
    value: Callable[[Frame], Any]
    literal: str | None = None
    parameter: int = 0
    is_null: bool = False
    at: int = -1


@dataclass(frozen=True, slots=True)
class ScopeColumn:
    """
    A column of what is behind FROM.

    :ivar relation: the name or alias of its relation; empty if JOIN USING has made it of two.
    :ivar needs_relation: it is found by the name with the relation only.
    """

    relation: str
    name: str
    type: PgType
    needs_relation: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """
    What is behind FROM.

    :ivar star: which columns ``*`` means, in order.
    :ivar rows: gives rows, in the frame around the query.
    """

    columns: tuple[ScopeColumn, ...]
    star: tuple[int, ...]
    rows: Callable[[Frame | None], Iterable[Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """
    A query that can be run; its columns may be literals without a type.

    :ivar rows: gives rows, in the frame around the query.
    """

    columns: tuple[Column, ...]
    rows: Callable[[Frame | None], Sequence[Sequence[Any]]]


@dataclass(eq=False)
class Scope:
    """
    The columns of one query, and those of the queries around it.

    :ivar clause: what is being read, for messages.
    :ivar common: the relations that WITH has given names.
    """

    columns: tuple[ScopeColumn, ...] = ()
    outer: Scope | None = None
    clause: str = ""
    common: dict[str, Plan] = field(default_factory=dict)

    @property
    def level(self) -> int:
        """How many queries are around this one."""
        return 0 if self.outer is None else self.outer.level + 1

    def find_common(self, name: str) -> Plan | None:
        """Return the relation that a WITH here or further out has given this name."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.common:
                return scope.common[name]
            scope = scope.outer
        return None

    def find(self, names: tuple[str, ...], at: int) -> tuple[int, int, PgType]:
        """
        Return how many queries further out a column is, its place in their row, and its type.

        :raises SqlError: there is none of that name, or more than one.
        """
        depth, scope, known_relation = 0, self, False
        while True:
            index = scope.find_here(names, at)
            if index is not None:
                return depth, index, scope.columns[index].type
            known_relation |= len(names) > 1 and any(one.relation == names[-2] for one in scope.columns)
            if scope.outer is None:
                break
            depth, scope = depth + 1, scope.outer
        if len(names) == 1:
            raise UndefinedColumn(f'column "{names[0]}" does not exist', at + 1)
        if known_relation:
            raise UndefinedColumn(f"column {names[-2]}.{names[-1]} does not exist", at + 1)
        raise UndefinedTable(f'missing FROM-clause entry for table "{names[-2]}"', at + 1)

    def find_here(self, names: tuple[str, ...], at: int) -> int | None:
        """Return the place of a column in the rows of this query, if it is one of theirs."""
        name = names[-1]
        relation = names[-2] if len(names) > 1 else None
        found = [
            index
            for index, column in enumerate(self.columns)
            if column.name == name
            and (not column.needs_relation if relation is None else column.relation == relation)
        ]
        if len(found) > 1:
            raise AmbiguousColumn(f'column reference "{name}" is ambiguous', at + 1)
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class AggregateCall:
    """
    An aggregate in a query.

    :ivar sort: puts the rows of arguments in order.
    """

    aggregate: Aggregate
    arguments: tuple[Typed, ...]
    where: Typed | None
    distinct: bool
    sort: Callable[[list[Any]], None] | None = None
    keys: tuple[Typed, ...] = ()


@dataclass(eq=False)
class GroupedScope(Scope):
    """
    The scope behind GROUP BY: rows are the grouped expressions, then the aggregates.

    :ivar inner: the scope of the rows that are grouped.
    :ivar groups: the grouped expressions, as they were written and as they are computed.
    """

    inner: Scope = field(default_factory=Scope)
    groups: list[tuple[Expression, Typed]] = field(default_factory=list)
    aggregates: list[AggregateCall] = field(default_factory=list)

    def find_here(self, names: tuple[str, ...], at: int) -> int | None:
        """See `Scope`."""
        index = self.inner.find_here(names, at)
        if index is None:
            return None
        for place, (expression, _) in enumerate(self.groups):
            if isinstance(expression, ColumnName) and self.inner.find_here(expression.names, at) == index:
                return place
        column = self.inner.columns[index]
        name = f"{column.relation}.{column.name}" if column.relation else column.name
        raise GroupingError(
            f'column "{name}" must appear in the GROUP BY clause or be used in an aggregate function', at + 1
        )

    def find_group(self, expression: Expression) -> int | None:
        """Return the place of a grouped expression."""
        for place, (grouped, _) in enumerate(self.groups):
            if grouped == expression and not isinstance(expression, ColumnName):
                return place
        return None

    def add(self, call: AggregateCall) -> int:
        """Take in an aggregate; return its place."""
        self.aggregates.append(call)
        return len(self.groups) + len(self.aggregates) - 1

    def finish(self) -> None:
        """The grouped expressions are known: they are the columns."""
        self.columns = tuple(ScopeColumn("", "", typed.type) for _, typed in self.groups)


NULL = Typed(UNKNOWN, lambda _: None, is_null=True)
