"""Whole queries: WITH, VALUES, what joins results together, and their order and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .casts import conversion
from .environment import Column
from .errors import (
    DatatypeMismatch,
    InvalidColumnReference,
    InvalidLimit,
    InvalidOffset,
    SqlSyntaxError,
    UndefinedColumn,
)
from .nodes import (
    ColumnName,
    Query,
    Select,
    SetOperation,
    SortKey,
    TableFunction,
    Values,
)
from .operators import unified
from .scope import Frame, Plan, Scope, Typed
from .sources import all_common
from .types import INT8, TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

from .selects import SelectCompiler, settled_type


class DuplicateCommon(SqlSyntaxError, sqlstate="42712"):
    """Two queries of WITH have one name."""


def _item_at(query: Query, place: int) -> int:
    """Return where an item of a query's select list is; -1: that is not to be seen."""
    body = query.body
    return body.items[place].expression.at if isinstance(body, Select) and place < len(body.items) else -1


def _distinct_rows(
    rows: Iterable[Sequence[Any]], key: Callable[[Sequence[Any]], Any]
) -> dict[Any, Sequence[Any]]:
    found: dict[Any, Sequence[Any]] = {}
    for row in rows:
        found.setdefault(key(row), row)
    return found


def _union(
    left: Sequence[Sequence[Any]], right: Sequence[Sequence[Any]], key: Callable[..., Any], keep: bool
) -> Sequence[Sequence[Any]]:
    rows = [*left, *right]
    return rows if keep else list(_distinct_rows(rows, key).values())


def _counted(rows: Sequence[Sequence[Any]], key: Callable[..., Any]) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    for row in rows:
        one = key(row)
        counts[one] = counts.get(one, 0) + 1
    return counts


def _chosen(
    left: Sequence[Sequence[Any]],
    right: Sequence[Sequence[Any]],
    key: Callable[..., Any],
    keep: bool,
    found: bool,
) -> Sequence[Sequence[Any]]:
    """Return the rows of *left* that are, or are not, in *right*."""
    counts = _counted(right, key)
    if not keep:
        return [row for one, row in _distinct_rows(left, key).items() if (one in counts) is found]
    rows = []
    for row in left:
        one = key(row)
        left_over = counts.get(one, 0)
        if left_over:
            counts[one] = left_over - 1
        if bool(left_over) is found:
            rows.append(row)
    return rows


_COMBINE: Final[dict[str, Callable[..., Sequence[Sequence[Any]]]]] = {
    "union": _union,
    "intersect": lambda left, right, key, keep: _chosen(left, right, key, keep, True),
    "except": lambda left, right, key, keep: _chosen(left, right, key, keep, False),
}


class QueryCompiler(SelectCompiler):
    """Compiles queries."""

    def top_plan(self, query: Query) -> Plan:
        """Return what runs the query of a statement, in which alone there may be actions."""
        body = query.body
        if isinstance(body, Select) and not (body.distinct or body.groups or body.having):
            self._actions.update(id(item.expression) for item in body.items)
            if len(body.tables) == 1 and isinstance(body.tables[0], TableFunction):
                self._actions.add(id(body.tables[0]))
        plan = self.query_plan(query, Scope())
        columns = tuple(Column(one.name, TEXT if one.type.is_unknown else one.type) for one in plan.columns)
        return Plan(columns, plan.rows)

    def query_plan(self, query: Query, outer: Scope) -> Plan:
        """See `ExpressionCompiler`."""
        scope = Scope(outer=outer, common={})
        for common in query.common:
            if common.name in scope.common:
                raise DuplicateCommon(
                    f'WITH query name "{common.name}" specified more than once', common.at + 1
                )
            scope.common[common.name] = self._common_plan(common.name, common.columns, common.query, scope)
        if isinstance(query.body, Select):
            plan = self._select(query.body, query.order, scope)
        else:
            plan = self._other_body(query.body, scope)
            if query.order:
                plan = self._sorted(plan, query.order)
        if query.limit is None and query.offset is None:
            return plan
        return self._limited(plan, query, scope)

    def _common_plan(self, name: str, names: Sequence[str], query: Query, scope: Scope) -> Plan:
        plan = self.query_plan(query, Scope(common=all_common(scope)))
        if len(names) > len(plan.columns):
            raise InvalidColumnReference(
                f'WITH query "{name}" has {len(plan.columns)} columns available'
                f" but {len(names)} columns specified"
            )
        titles = [*names, *(column.name for column in plan.columns[len(names) :])]
        columns = tuple(
            Column(title, TEXT if one.type.is_unknown else one.type)
            for title, one in zip(titles, plan.columns, strict=True)
        )
        kept: list[Sequence[Sequence[Any]]] = []

        def rows(_: Frame | None) -> Sequence[Sequence[Any]]:
            if not kept:
                kept.append(plan.rows(None))
            return kept[0]

        return Plan(columns, rows)

    def _other_body(self, body: Values | SetOperation | Query, scope: Scope) -> Plan:
        if isinstance(body, Query):
            return self.query_plan(body, scope)
        return self._values(body, scope) if isinstance(body, Values) else self._set_operation(body, scope)

    def _limited(self, plan: Plan, query: Query, scope: Scope) -> Plan:
        bounds: list[Callable[[Frame], Any] | None] = []
        for node, what in ((query.limit, "LIMIT"), (query.offset, "OFFSET")):
            if node is None:
                bounds.append(None)
                continue
            inner = Scope(clause=what, common=scope.common)
            typed = self.expression(node, inner)
            found = self.coerced(typed, INT8, node.at, explicit=typed.type.is_number)
            if found is None:
                raise DatatypeMismatch(
                    f"argument of {what} must be type bigint, not type {typed.type.title}", node.at + 1
                )
            bounds.append(found.value)
        limit, offset = bounds

        def rows(frame: Frame | None) -> Sequence[Sequence[Any]]:
            here = Frame((), None)
            most = None if limit is None else limit(here)
            skipped = (None if offset is None else offset(here)) or 0
            if most is not None and most < 0:
                raise InvalidLimit("LIMIT must not be negative")
            if skipped < 0:
                raise InvalidOffset("OFFSET must not be negative")
            found = plan.rows(frame)
            return found[skipped : None if most is None else skipped + most]

        return Plan(plan.columns, rows)

    def _values(self, body: Values, scope: Scope) -> Plan:
        inner = Scope(outer=scope, clause="VALUES")
        typed = [[self.expression(one, inner) for one in row] for row in body.rows]
        columns: list[list[Typed]] = []
        for place in range(len(body.rows[0])):
            nodes = [row[place] for row in body.rows]
            column = [row[place] for row in typed]
            if len(body.rows) > 1 or not column[0].type.is_unknown:
                column = self.same_type(nodes, column, "VALUES")
            columns.append(column)
        computed = list(zip(*([one.value for one in column] for column in columns), strict=True))
        titles = tuple(Column(f"column{place}", one[0].type) for place, one in enumerate(columns, 1))

        def rows(outer: Frame | None) -> Sequence[Sequence[Any]]:
            frame = Frame((), Frame((), outer))
            return [tuple(value(frame) for value in row) for row in computed]

        return Plan(titles, rows)

    def _set_operation(self, body: SetOperation, scope: Scope) -> Plan:
        left, right = self.query_plan(body.left, scope), self.query_plan(body.right, scope)
        what = body.operator.upper()
        if len(left.columns) != len(right.columns):
            raise SqlSyntaxError(
                f"each {what} query must have the same number of columns", _item_at(body.right, 0) + 1
            )
        columns = []
        for place, (one, other) in enumerate(zip(left.columns, right.columns, strict=True)):
            both_unknown = one.type.is_unknown and other.type.is_unknown
            kind = TEXT if both_unknown else unified([one.type, other.type])
            if kind is None:
                raise DatatypeMismatch(
                    f"{what} types {one.type.title} and {other.type.title} cannot be matched",
                    _item_at(body.right, place) + 1,
                )
            columns.append(Column(one.name, kind))
        sides = [self._converted(plan, columns) for plan in (left, right)]
        keys = self._row_key([column.type for column in columns])
        combine = _COMBINE[body.operator]
        budget, keep = self._environment.budget, body.keep_duplicates

        def rows(frame: Frame | None) -> Sequence[Sequence[Any]]:
            one, other = sides[0](frame), sides[1](frame)
            budget.step(len(one) + len(other))
            return combine(one, other, keys, keep)

        return Plan(tuple(columns), rows)

    def _converted(
        self, plan: Plan, columns: Sequence[Column]
    ) -> Callable[[Frame | None], Sequence[Sequence[Any]]]:
        """Return the rows of a plan with values of other types."""
        environment = self._environment
        converts = [
            None if one.type is other.type else conversion(one.type, other.type)
            for one, other in zip(plan.columns, columns, strict=True)
        ]
        if not any(converts):
            return plan.rows
        made = environment.budget.made

        def rows(frame: Frame | None) -> Sequence[Sequence[Any]]:
            return [
                tuple(
                    value if value is None or convert is None else made(convert(environment, value))
                    for value, convert in zip(row, converts, strict=True)
                )
                for row in plan.rows(frame)
            ]

        return rows

    def _sorted(self, plan: Plan, order: Sequence[SortKey]) -> Plan:
        """Return a plan's rows in the order of its own columns."""
        places = [self._output_place(key.expression, plan.columns) for key in order]
        for key, place in zip(order, places, strict=True):
            node = key.expression
            if place is None and isinstance(node, ColumnName) and len(node.names) == 1:
                raise UndefinedColumn(f'column "{node.names[0]}" does not exist', node.at + 1)
            if place is None:
                raise InvalidColumnReference(
                    "invalid UNION/INTERSECT/EXCEPT ORDER BY clause",
                    key.expression.at + 1,
                    detail="Only result column names can be used, not expressions or functions.",
                )
        sorts = [
            self.sorter([key], [settled_type(plan.columns[place or 0].type)], place or 0)
            for key, place in zip(order, places, strict=True)
        ]

        def rows(frame: Frame | None) -> Sequence[Sequence[Any]]:
            found = list(plan.rows(frame))
            for sort in reversed(sorts):
                sort(found)
            return found

        return Plan(plan.columns, rows)
