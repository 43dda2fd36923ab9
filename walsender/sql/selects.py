"""SELECT: its list, its groups and its order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .aggregates import NAMES as AGGREGATES
from .codecs import sort_key
from .environment import Column
from .errors import (
    AmbiguousColumn,
    GroupingError,
    InvalidColumnReference,
    SqlSyntaxError,
    UndefinedTable,
)
from .nodes import (
    Call,
    ColumnName,
    Constant,
    Expression,
    Select,
    SelectItem,
    SortKey,
    Star,
    Subquery,
)
from .operators import common_type
from .scope import Frame, GroupedScope, Plan, Scope, Source, Typed
from .sources import SourceCompiler
from .types import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .types import PgType
from .titles import title_of

_NO_NAME: Final = "?column?"


class _PlaceName(ColumnName):
    """A column that a star means."""

    __slots__ = ("place",)
    place: int

    def __init__(self, names: tuple[str, ...], at: int, place: int) -> None:
        ColumnName.__init__(self, names, at)
        object.__setattr__(self, "place", place)


def frame_outer(frame: Frame | None) -> Frame:
    """Return the frame of the WITH around a SELECT, which has no columns, in that around the query."""
    return Frame((), frame)


def settled_type(kind: PgType) -> PgType:
    """Return the type of a column; of a literal that is text."""
    return TEXT if kind.is_unknown else kind


def _has_aggregate(nodes: Iterable[Any]) -> bool:
    """Return whether an expression has an aggregate in it, outside of subqueries."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting += node
        elif isinstance(node, Call) and node.name in AGGREGATES:
            return True
        elif isinstance(node, SortKey) or (isinstance(node, Expression) and not isinstance(node, Subquery)):
            waiting += [getattr(node, name) for name in node.__slots__]
    return False


class SelectCompiler(SourceCompiler):
    """Compiles SELECT."""

    def _compile(self, node: Expression, scope: Scope) -> Typed:
        """See `ExpressionCompiler`; what a star means is known by its place, two may have one name."""
        if isinstance(node, _PlaceName) and not isinstance(scope, GroupedScope):
            place = node.place
            return Typed(scope.columns[place].type, lambda frame: frame.row[place])
        return super()._compile(node, scope)

    def _select(self, body: Select, order: Sequence[SortKey], outer: Scope) -> Plan:
        source = self.source(body.tables, outer)
        scope: Scope = Scope(source.columns, outer, "WHERE")
        where = None if body.where is None else self.condition(body.where, scope, "WHERE")
        items = self._items(body.items, source)
        grouped: GroupedScope | None = None
        if (
            body.groups is not None
            or body.having is not None
            or _has_aggregate([*(item.expression for item in items), *(key.expression for key in order)])
        ):
            grouped = self._grouped(body, items, scope, outer)
        scope.clause = "GROUP BY" if grouped is None else scope.clause
        inner = scope if grouped is None else grouped
        typed = [self.expression(item.expression, inner) for item in items]
        columns = tuple(
            Column(item.alias or title_of(item.expression)[0] or _NO_NAME, one.type)
            for item, one in zip(items, typed, strict=True)
        )
        having = None
        if body.having is not None and grouped is not None:
            having = self.condition(body.having, grouped, "HAVING")
        sort, hidden = self._order(body, order, items, columns, inner)
        computed = [one.value for one in (*typed, *hidden)]
        rows = self._rows(source, where)
        if grouped is not None:
            rows = self._group_rows(rows, grouped, having, always=body.groups is None)
        width = len(columns)
        key = self._row_key([column.type for column in columns]) if body.distinct else None
        if key is not None:
            self._check_distinct(body, columns)
        budget = self._environment.budget

        def results(frame: Frame | None) -> Sequence[Sequence[Any]]:
            found: list[Sequence[Any]] = []
            seen: set[Any] = set()
            for row in rows(frame):
                here = Frame(row, frame_outer(frame))
                result = tuple(value(here) for value in computed)
                if key is not None:
                    one = key(result)
                    if one in seen:
                        continue
                    seen.add(one)
                budget.keep_row(result)
                found.append(result)
            if sort is not None:
                sort(found)
            return [row[:width] for row in found] if hidden else found

        return Plan(columns, results)

    def _check_distinct(self, body: Select, columns: Sequence[Column]) -> None:
        for column in columns:
            kind = settled_type(column.type)
            if common_type(kind, kind) is None:
                raise GroupingError(
                    f"could not identify an equality operator for type {kind.title}", body.at + 1
                )

    def _items(self, items: Sequence[SelectItem], source: Source) -> list[SelectItem]:
        """Return the select list with a column for each that a star means."""
        found = []
        for item in items:
            star = item.expression
            if not isinstance(star, Star):
                found.append(item)
                continue
            if not source.columns:
                raise SqlSyntaxError("SELECT * with no tables specified is not valid", star.at + 1)
            places = (
                source.star
                if star.relation is None
                else [place for place, one in enumerate(source.columns) if one.relation == star.relation]
            )
            if not places:
                raise UndefinedTable(f'missing FROM-clause entry for table "{star.relation}"', star.at + 1)
            for place in places:
                column = source.columns[place]
                names = (column.relation, column.name) if column.relation else (column.name,)
                found.append(SelectItem(_PlaceName(names, star.at, place), column.name))
        return found

    def _grouped(self, body: Select, items: Sequence[SelectItem], scope: Scope, outer: Scope) -> GroupedScope:
        grouped = GroupedScope(outer=outer, clause="SELECT", inner=scope)
        scope.clause = "GROUP BY"
        columns = [Column(item.alias or title_of(item.expression)[0] or _NO_NAME, TEXT) for item in items]
        for node in body.groups or ():
            expression = node
            is_input = isinstance(node, ColumnName) and scope.find_here(node.names, node.at) is not None
            if not is_input and isinstance(node, (ColumnName, Constant)):
                place = self._output_place(node, columns, "GROUP BY")
                if place is not None:
                    expression = items[place].expression
            typed = self.settled(self.expression(expression, scope))
            if common_type(typed.type, typed.type) is None:
                raise GroupingError(
                    f"could not identify an equality operator for type {typed.type.title}", node.at + 1
                )
            grouped.groups.append((expression, typed))
        grouped.finish()
        return grouped

    def _rows(self, source: Source, where: Typed | None) -> Callable[[Frame | None], Iterable[Sequence[Any]]]:
        budget = self._environment.budget

        def rows(frame: Frame | None) -> Iterator[Sequence[Any]]:
            outer = frame_outer(frame)
            for row in source.rows(outer):
                budget.step()
                if where is None or where.value(Frame(row, outer)):
                    yield row

        return rows

    def _group_rows(
        self,
        rows: Callable[[Frame | None], Iterable[Sequence[Any]]],
        grouped: GroupedScope,
        having: Typed | None,
        *,
        always: bool,
    ) -> Callable[[Frame | None], Iterable[Sequence[Any]]]:
        """
        Return what makes one row of each group.

        :param always: without rows there is one group all the same.
        """
        keys = [typed.value for _, typed in grouped.groups]
        row_key = self._row_key([typed.type for _, typed in grouped.groups])
        budget = self._environment.budget

        def results(frame: Frame | None) -> Iterator[Sequence[Any]]:
            outer = frame_outer(frame)
            groups: dict[Any, tuple[tuple[Any, ...], list[Frame]]] = {}
            for row in rows(frame):
                here = Frame(row, outer)
                values = tuple(key(here) for key in keys)
                budget.keep_row(row)
                groups.setdefault(row_key(values), (values, []))[1].append(here)
            if always and not groups:
                groups[()] = (), []
            for values, members in groups.values():
                row = (*values, *(self._aggregated(call, members) for call in grouped.aggregates))
                if having is None or having.value(Frame(row, outer)):
                    yield row

        return results

    def _aggregated(self, call: Any, members: Sequence[Frame]) -> Any:
        """Return what an aggregate makes of a group."""
        rows = []
        width = len(call.arguments)
        for frame in members:
            self._environment.budget.step()
            if call.where is not None and not call.where.value(frame):
                continue
            row = tuple(one.value(frame) for one in call.arguments)
            if row[0] is None and not call.aggregate.takes_nulls:
                continue
            rows.append((*(one.value(frame) for one in call.keys), *row))
        if call.distinct:
            key = self._row_key([one.type for one in (*call.keys, *call.arguments)])
            rows = list({key(row): row for row in rows}.values())
        if call.sort is not None:
            call.sort(rows)
        return call.aggregate.call(self._environment, [row[-width:] for row in rows])

    def _order(
        self,
        body: Select,
        order: Sequence[SortKey],
        items: Sequence[SelectItem],
        columns: Sequence[Column],
        scope: Scope,
    ) -> tuple[Callable[[list[Any]], None] | None, list[Typed]]:
        """Return what sorts the rows, and the expressions that they need for it beside the select list."""
        hidden: list[Typed] = []
        sorts = []
        clause, scope.clause = scope.clause, "ORDER BY"
        for key in order:
            node = key.expression
            place = self._output_place(node, columns)
            if place is not None and isinstance(node, ColumnName):
                same = {items[at].expression for at, one in enumerate(columns) if one.name == node.names[0]}
                if len(same) > 1:
                    raise AmbiguousColumn(f'ORDER BY "{node.names[0]}" is ambiguous', node.at + 1)
            if place is None:
                place = next((at for at, item in enumerate(items) if item.expression == node), None)
            if place is None:
                if body.distinct:
                    raise InvalidColumnReference(
                        "for SELECT DISTINCT, ORDER BY expressions must appear in select list", node.at + 1
                    )
                hidden.append(self.settled(self.expression(node, scope)))
                place = len(columns) + len(hidden) - 1
            kind = columns[place].type if place < len(columns) else hidden[-1].type
            if place < len(columns) and id(items[place].expression) in self._called_actions:
                raise InvalidColumnReference("cannot sort by what a function does", node.at + 1)
            sorts.append(self.sorter([key], [settled_type(kind)], place))
        scope.clause = clause
        if not sorts:
            return None, hidden

        def sort(rows: list[Any]) -> None:
            for one in reversed(sorts):
                one(rows)

        return sort, hidden

    def _output_place(
        self, node: Expression, columns: Sequence[Column], what: str = "ORDER BY"
    ) -> int | None:
        """Return which column of a result *node* names, by its name or number; ``None``: it is neither."""
        if isinstance(node, Constant):
            if node.kind != "number" or not node.text.isdecimal():
                raise SqlSyntaxError(f"non-integer constant in {what}", node.at + 1)
            place = int(node.text[:9]) - 1
            if not 0 <= place < len(columns):
                raise InvalidColumnReference(
                    f"{what} position {node.text} is not in select list", node.at + 1
                )
            return place
        if isinstance(node, ColumnName) and len(node.names) == 1:
            found = [place for place, column in enumerate(columns) if column.name == node.names[0]]
            if found:
                return found[0]
        return None

    def _row_key(self, types: Sequence[PgType]) -> Callable[[Sequence[Any]], Any]:
        """Return what tells equal rows."""
        keys = [sort_key(kind) for kind in types]

        def row_key(row: Sequence[Any]) -> Any:
            return tuple(
                value if value is None or key is None else key(value)
                for value, key in zip(row, keys, strict=False)
            )

        return row_key
