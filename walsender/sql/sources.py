"""What is behind FROM: relations, functions, queries and joins of them, each as columns and rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .compiler import ExpressionCompiler
from .environment import Action, Column, Function
from .errors import DuplicateAlias, InvalidColumnReference, NotSupported, UndefinedColumn, UndefinedTable
from .nodes import Join, TableExpression, TableFunction, TableName, TableQuery
from .operators import unified
from .scope import Frame, Plan, Scope, ScopeColumn, Source, Typed
from .types import TEXT, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .types import PgType


class SourceCompiler(ExpressionCompiler):
    """Compiles FROM."""

    def source(self, tables: Sequence[TableExpression], outer: Scope) -> Source:
        """
        Return what *tables* are together.

        :param outer: the scope around the query.
        """
        whole: Source | None = None
        for table in tables:
            one = self._table(table, outer)
            whole = one if whole is None else self._joined(Join("cross", table, table), whole, one, outer)
        if whole is None:
            return Source((), (), lambda _: [()])
        return whole

    def _table(self, table: TableExpression, outer: Scope) -> Source:
        match table:
            case TableName():
                return self._named(table, outer)
            case TableFunction():
                return self._function(table, outer)
            case TableQuery():
                plan = self.query_plan(table.query, Scope(outer=None, common=all_common(outer)))
                return self._aliased(plan, table.alias, table.columns, table.at)
            case Join():
                left, right = self._table(table.left, outer), self._table(table.right, outer)
                return self._joined(table, left, right, outer)

    def _named(self, table: TableName, outer: Scope) -> Source:
        name = table.names[-1]
        plan = outer.find_common(name) if len(table.names) == 1 else None
        if plan is None:
            is_catalog = len(table.names) == 1 or table.names[-2] == "pg_catalog"
            relation = self._environment.relation(name if is_catalog else ".".join(table.names[-2:]))
            if relation is None:
                whole, hint = ".".join(table.names), self._environment.relations_hint
                raise UndefinedTable(f'relation "{whole}" does not exist', table.at + 1, hint=hint)
            rows = relation.rows
            plan = Plan(relation.columns, lambda _: list(rows()))
        return self._aliased(plan, table.alias or name, table.columns, table.at)

    def _aliased(self, plan: Plan, alias: str, names: Sequence[str], at: int) -> Source:
        if len(names) > len(plan.columns):
            raise InvalidColumnReference(
                f'table "{alias}" has {len(plan.columns)} columns available'
                f" but {len(names)} columns specified"
            )
        titles = [*names, *(column.name for column in plan.columns[len(names) :])]
        columns = tuple(
            ScopeColumn(alias, title, TEXT if column.type is UNKNOWN else column.type)
            for title, column in zip(titles, plan.columns, strict=True)
        )
        return Source(columns, tuple(range(len(columns))), plan.rows)

    def _function(self, table: TableFunction, outer: Scope) -> Source:
        call = table.call
        scope = Scope(clause="functions in FROM", common=all_common(outer))
        typed = [self.expression(one, scope) for one in call.arguments]
        function = self.function(call, [one.type for one in typed])
        alias = table.alias or call.name
        if function is None or not (function.columns or function.is_action):
            if function is None:
                scalar = self.settled(self.expression(call, scope))
            else:
                scalar = Typed(
                    function.result, self._calling(function, self.arguments(call, typed, function))
                )
            columns: tuple[ScopeColumn, ...] = (ScopeColumn(alias, alias, scalar.type),)
            rows = self._one_row(scalar)
        else:
            arguments = self.arguments(call, typed, function)
            single = len(function.columns) == 1 and table.alias
            columns = tuple(
                ScopeColumn(alias, table.alias if single else column.name, column.type)
                for column in function.columns
            ) or (ScopeColumn(alias, alias, function.result),)
            rows = self._rows_of_function(table, function, arguments)
        source = Source(columns, tuple(range(len(columns))), rows)
        if not table.columns:
            return source
        kept = self._environment.budget.kept
        plan = Plan(tuple(_columns_of(source)), lambda frame: kept(rows(frame)))
        return self._aliased(plan, alias, table.columns, table.at)

    def _one_row(self, scalar: Typed) -> Callable[[Frame | None], Iterable[Sequence[Any]]]:
        return lambda _: [(scalar.value(Frame((), None)),)]

    def _rows_of_function(
        self, table: TableFunction, function: Function, arguments: Sequence[Callable[[Frame], Any]]
    ) -> Callable[[Frame | None], Iterable[Sequence[Any]]]:
        environment, here = self._environment, Frame((), None)
        if function.is_action:
            if id(table) not in self._actions:
                raise NotSupported(
                    f"{function.name}() is not supported in this place",
                    table.at + 1,
                    hint="It may be an item of the select list, or all that is behind FROM.",
                )
            self.source_action = lambda: Action(function, tuple(one(here) for one in arguments))
            return lambda _: [environment.action_row]

        def rows(_: Frame | None) -> Iterable[Sequence[Any]]:
            values = [argument(here) for argument in arguments]
            if function.strict and None in values:
                return ()
            found: Iterable[Sequence[Any]] = function.call(environment, *values)
            return found

        return rows

    source_action: Callable[[], Action] | None = None

    # Joins

    def _joined(self, join: Join, left: Source, right: Source, outer: Scope) -> Source:
        known = {column.relation for column in left.columns if column.relation}
        for column in right.columns:
            if column.relation in known:
                raise DuplicateAlias(f'table name "{column.relation}" specified more than once')
        names = join.using
        if join.natural:
            right_names = {right.columns[place].name for place in right.star}
            names = tuple(
                left.columns[place].name for place in left.star if left.columns[place].name in right_names
            )
        columns = (*left.columns, *right.columns)
        scope = Scope(columns, outer, "JOIN conditions")
        merged = [self._merge(join, name, left, right) for name in names]
        if join.on is not None:
            tests = [self.condition(join.on, scope, "JOIN/ON").value]
        else:
            tests = [test for *_, test in merged]
        rows = self._rows_of_join(join.kind, left, right, tests)
        star = (*left.star, *(place + len(left.columns) for place in right.star))
        if not merged:
            return Source(columns, star, rows)
        used = {place for one, other, *_ in merged for place in (one, other)}
        all_columns = (
            *(
                ScopeColumn(column.relation, column.name, column.type, column.needs_relation or place in used)
                for place, column in enumerate(columns)
            ),
            *(ScopeColumn("", name, kind) for name, (_, _, kind, _) in zip(names, merged, strict=True)),
        )
        places = tuple((one, other) for one, other, *_ in merged)

        def with_merged(frame: Frame | None) -> Iterator[Sequence[Any]]:
            for row in rows(frame):
                yield (*row, *(row[other] if row[one] is None else row[one] for one, other in places))

        new = tuple(range(len(columns), len(all_columns)))
        return Source(all_columns, (*new, *(place for place in star if place not in used)), with_merged)

    def _merge(
        self, join: Join, name: str, left: Source, right: Source
    ) -> tuple[int, int, PgType, Callable[[Frame], Any]]:
        """Return where a column of USING is on both sides, its type, and what compares the two."""
        places = []
        for side, columns in (("left", left.columns), ("right", right.columns)):
            place = Scope(columns).find_here((name,), join.at)
            if place is None:
                raise UndefinedColumn(
                    f'column "{name}" specified in USING clause does not exist in {side} table'
                )
            places.append(place)
        one, other = places[0], places[1] + len(left.columns)
        types = left.columns[places[0]].type, right.columns[places[1]].type
        test = self._operator(
            "=",
            Typed(types[0], lambda frame: frame.row[one]),
            Typed(types[1], lambda frame: frame.row[other]),
            join.at,
        )
        return one, other, unified(list(types)) or types[0], test.value

    def _rows_of_join(
        self, kind: str, left: Source, right: Source, tests: Sequence[Callable[[Frame], Any]]
    ) -> Callable[[Frame | None], Iterator[Sequence[Any]]]:
        budget = self._environment.budget
        no_left, no_right = (None,) * len(left.columns), (None,) * len(right.columns)

        def rows(outer: Frame | None) -> Iterator[Sequence[Any]]:
            others = budget.kept(right.rows(outer))
            unmatched = dict.fromkeys(range(len(others)))
            for one in left.rows(outer):
                found = False
                for place, other in enumerate(others):
                    budget.step()
                    row = (*one, *other)
                    if all(test(Frame(row, outer)) for test in tests):
                        found = True
                        unmatched.pop(place, None)
                        yield row
                if not found and kind in {"left", "full"}:
                    yield (*one, *no_right)
            if kind in {"right", "full"}:
                for place in unmatched:
                    yield (*no_left, *others[place])

        return rows


def _columns_of(source: Source) -> Iterator[Any]:
    for column in source.columns:
        yield Column(column.name, column.type)


def all_common(scope: Scope | None) -> dict[str, Plan]:
    """Return all relations that WITH has named around a query behind FROM, whose columns it cannot see."""
    found: dict[str, Plan] = {}
    while scope is not None:
        found = {**scope.common, **found}
        scope = scope.outer
    return found
