"""Conditions, CASE, subqueries: what is true, and what is only computed then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    CardinalityViolation,
    SqlSyntaxError,
    UndefinedType,
    WrongObject,
)
from .nodes import (
    ArrayItems,
    Case,
    Distinct,
    InList,
    Logic,
    Quantified,
    Query,
    Subquery,
    Test,
)
from .operators import unified
from .scope import NULL, Frame, Plan, Scope, Typed
from .types import (
    BOOL,
    TEXT,
    array_of,
    find_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
from .coercion import Coercion


def _decided(results: Iterable[bool | None], decisive: bool) -> bool | None:
    """Return *decisive* if a result is that, NULL if one is NULL, and otherwise the opposite."""
    unknown = False
    for one in results:
        if one is decisive:
            return one
        unknown |= one is None
    return None if unknown else not decisive


class ConditionCompiler(Coercion):
    """Compiles them."""

    def _logic(self, node: Logic, scope: Scope) -> Typed:
        operands = [self.condition(one, scope, node.word.upper()).value for one in node.operands]
        if node.word == "not":
            (only,) = operands

            def negation(frame: Frame) -> bool | None:
                value = only(frame)
                return None if value is None else not value

            return Typed(BOOL, negation)
        decisive: bool = node.word == "or"

        return Typed(BOOL, lambda frame: _decided((operand(frame) for operand in operands), decisive))

    def _test(self, node: Test, scope: Scope) -> Typed:
        negated = node.negated
        if node.what == "null":
            inner = self.settled(self.expression(node.operand, scope)).value
            return Typed(BOOL, lambda frame: (inner(frame) is None) is not negated)
        title = f"IS {'NOT ' if negated else ''}{node.what.upper()}"
        inner = self.condition(node.operand, scope, title).value
        wanted = {"true": True, "false": False, "unknown": None}[node.what]
        return Typed(BOOL, lambda frame: (inner(frame) is wanted) is not negated)

    def _distinct(self, node: Distinct, scope: Scope) -> Typed:
        left, right = self.expression(node.left, scope), self.expression(node.right, scope)
        equal = self._operator("=", left, right, node.at).value
        one, other, negated = left.value, right.value, node.negated

        def value(frame: Frame) -> bool:
            nulls = (one(frame) is None) + (other(frame) is None)
            differs = nulls == 1 if nulls else not equal(frame)
            return differs is not negated

        return Typed(BOOL, value)

    def _in_list(self, node: InList, scope: Scope) -> Typed:
        operand = self.expression(node.operand, scope)
        items = [self.expression(item, scope) for item in node.items]
        if operand.type.is_unknown:  # the items say what it is
            common = unified([item.type for item in items])
            operand = (common and self.coerced(operand, common, node.operand.at)) or operand
        tests = [
            self._operator("=", operand, item, one.at).value
            for item, one in zip(items, node.items, strict=True)
        ]
        negated = node.negated

        def value(frame: Frame) -> bool | None:
            found = _decided((test(frame) for test in tests), True)
            return None if found is None else found is not negated

        return Typed(BOOL, value)

    def _quantified(self, node: Quantified, scope: Scope) -> Typed:
        operand = self.expression(node.operand, scope)
        if isinstance(node.source, Query):
            plan, rows = self._inner_rows(node.source, scope)
            if len(plan.columns) != 1:
                raise SqlSyntaxError("subquery has too many columns", node.at + 1)
            element = plan.columns[0].type

            def values(frame: Frame) -> Sequence[Any] | None:
                return [row[0] for row in rows(frame)]
        else:
            source = self.expression(node.source, scope)
            if source.type.is_unknown:
                kind = array_of(TEXT if operand.type.is_unknown else operand.type)
                source = (kind and self.coerced(source, kind, node.source.at)) or source
            found = find_type(source.type.element)
            if found is None:
                raise WrongObject("op ANY/ALL (array) requires array on right side", node.at + 1)
            element, items_of = found, source.value

            def values(frame: Frame) -> Sequence[Any] | None:
                items: Sequence[Any] | None = items_of(frame)
                return items

        cell: list[Any] = [None, None]
        test = self._operator(
            node.operator,
            Typed(
                operand.type,
                lambda _: cell[0],
                operand.literal,
                operand.parameter,
                operand.is_null,
                operand.at,
            ),
            Typed(element, lambda _: cell[1]),
            node.at,
        )
        if test.type is not BOOL:
            raise WrongObject("op ANY/ALL (array) requires operator to yield boolean", node.at + 1)
        left = operand.value
        decisive: bool = not node.is_all
        compare, budget = test.value, self._environment.budget

        def value(frame: Frame) -> bool | None:
            items = values(frame)
            if items is None:
                return None
            cell[0] = left(frame)
            return _decided((compared(item, frame) for item in items), decisive)

        def compared(item: Any, frame: Frame) -> Any:
            budget.step()
            cell[1] = item
            return compare(frame)

        return Typed(BOOL, value)

    def _case(self, node: Case, scope: Scope) -> Typed:
        conditions: list[Callable[[Frame], Any]] = []
        operand = None if node.operand is None else self.expression(node.operand, scope)
        for condition, _ in node.branches:
            if operand is None:
                conditions.append(self.condition(condition, scope, "CASE/WHEN").value)
            else:
                other = self.expression(condition, scope)
                conditions.append(self._operator("=", operand, other, condition.at).value)
        nodes = [result for _, result in node.branches]
        if node.otherwise is not None:
            nodes.insert(0, node.otherwise)  # PostgreSQL looks at it first
        results = self.same_type(nodes, [self.expression(one, scope) for one in nodes], "CASE")
        kind = results[0].type
        otherwise = NULL.value if node.otherwise is None else results.pop(0).value
        branches = list(zip(conditions, (one.value for one in results), strict=True))

        def value(frame: Frame) -> Any:
            for condition, result in branches:
                if condition(frame):
                    return result(frame)
            return otherwise(frame)

        return Typed(kind, value)

    def _array(self, node: ArrayItems, scope: Scope) -> Typed:
        items = self.same_type(node.items, [self.expression(one, scope) for one in node.items], "ARRAY")
        kind = array_of(items[0].type) if items else None
        if kind is None:
            raise UndefinedType("cannot determine type of array", node.at + 1)
        values, made = [item.value for item in items], self._environment.budget.made
        return Typed(kind, lambda frame: made(tuple(value(frame) for value in values)))

    def _inner_rows(
        self, query: Query, scope: Scope
    ) -> tuple[Plan, Callable[[Frame], Sequence[Sequence[Any]]]]:
        """Return a subquery and its rows, which are found once if no column of the query around is named."""
        outer_level, self._lowest_level = self._lowest_level, 1 << 30
        plan = self.query_plan(query, scope)
        depends = self._lowest_level <= scope.level
        self._lowest_level = min(outer_level, self._lowest_level)
        if depends:
            return plan, plan.rows
        kept: list[Sequence[Sequence[Any]]] = []

        def rows(frame: Frame) -> Sequence[Sequence[Any]]:
            if not kept:
                kept.append(plan.rows(frame))
            return kept[0]

        return plan, rows

    def _subquery(self, node: Subquery, scope: Scope) -> Typed:
        plan, rows = self._inner_rows(node.query, scope)
        if node.kind == "exists":
            return Typed(BOOL, lambda frame: bool(rows(frame)))
        if len(plan.columns) != 1:
            raise SqlSyntaxError("subquery must return only one column", node.at + 1)
        kind = TEXT if plan.columns[0].type.is_unknown else plan.columns[0].type
        if node.kind == "array":
            array = array_of(kind)
            if array is None:
                raise UndefinedType(f"could not find array type for data type {kind.title}", node.at + 1)
            made = self._environment.budget.made
            return Typed(array, lambda frame: made(tuple(row[0] for row in rows(frame))))

        def value(frame: Frame) -> Any:
            found = rows(frame)
            if len(found) > 1:
                raise CardinalityViolation("more than one row returned by a subquery used as an expression")
            return found[0][0] if found else None

        return Typed(kind, value)
