"""Calls of functions and aggregates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .aggregates import NAMES as AGGREGATES
from .aggregates import find_aggregate
from .codecs import sort_key
from .environment import Action, Function
from .errors import (
    DatatypeMismatch,
    GroupingError,
    NotSupported,
    UndefinedFunction,
    WrongObject,
)
from .functions import FUNCTIONS, argument_types, best
from .operators import common_type, find_operator
from .scope import AggregateCall, Frame, GroupedScope, Scope, Typed
from .types import (
    INT4,
    REGTYPE,
    PgType,
    find_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .nodes import (
        Call,
    )
from .coercion import NO_TYPES
from .conditions import ConditionCompiler

_NO_FUNCTION: Final = (
    "No function matches the given name and argument types. You might need to add explicit type casts."
)


_OF_SYNTAX: Final = frozenset(("extract", "timezone"))


_TITLES: Final = {"coalesce": "COALESCE", "greatest": "GREATEST", "least": "LEAST"}


class CallCompiler(ConditionCompiler):
    """Compiles them."""

    def _call(self, node: Call, scope: Scope) -> Typed:
        if node.name in AGGREGATES:
            return self._aggregate(node, scope)
        for given, what in (
            (node.is_star, f"{node.name}(*)"),
            (node.distinct, "DISTINCT"),
            (node.order, "ORDER BY"),
            (node.where, "FILTER"),
        ):
            if given:
                raise WrongObject(
                    f"{what} specified, but {node.name} is not an aggregate function", node.at + 1
                )
        typed = [self.expression(one, scope) for one in node.arguments]
        if node.name in _TITLES:
            return self._first_or_extreme(node, typed)
        if node.name == "nullif" and len(typed) == 2:
            return self._nullif(node, typed)
        if node.name == "pg_typeof" and len(typed) == 1:
            oid = typed[0].type.oid
            return Typed(REGTYPE, lambda _: oid)
        if node.name == "array_element" and typed[0].type.element:
            return self._element(node, typed)
        function = self.function(node, [one.type for one in typed])
        if function is None:
            return self._cast_by_name(node, typed)
        arguments = self.arguments(node, typed, function)
        if function.is_action:
            if id(node) not in self._actions:
                raise NotSupported(
                    f"{node.name}() is not supported in this place",
                    node.at + 1,
                    hint="It may be an item of the select list, or all that is behind FROM.",
                )
            self._called_actions.add(id(node))
            return Typed(
                function.result, lambda frame: Action(function, tuple(one(frame) for one in arguments))
            )
        if function.columns:
            raise NotSupported("set-returning functions are supported behind FROM only", node.at + 1)
        return Typed(function.result, self._calling(function, arguments))

    def _calling(
        self, function: Function, arguments: Sequence[Callable[[Frame], Any]]
    ) -> Callable[[Frame], Any]:
        environment, call, strict = self._environment, function.call, function.strict

        def value(frame: Frame) -> Any:
            values = [argument(frame) for argument in arguments]
            if strict and None in values:
                return None
            return environment.budget.made(call(environment, *values))

        return value

    def function(self, node: Call, types: Sequence[PgType]) -> Function | None:
        """Return the function that is called with arguments of these types."""
        candidates = [*FUNCTIONS.get(node.name, ()), *self._environment.functions.get(node.name, ())]
        return best(candidates, types)

    def arguments(
        self, node: Call, typed: Sequence[Typed], function: Function
    ) -> list[Callable[[Frame], Any]]:
        """Return what computes the arguments of a call."""
        expected = argument_types(function, len(typed))
        assert expected is not None, "the function has been found for them"
        return [
            self._operand(one, kind, argument.at).value
            for one, kind, argument in zip(typed, expected, node.arguments, strict=True)
        ]

    def _cast_by_name(self, node: Call, typed: Sequence[Typed]) -> Typed:
        """Return a cast that is written as a function: ``pg_lsn('0/0')``."""
        target = find_type(node.name) if len(typed) == 1 else None
        if target is not None and target not in NO_TYPES:
            found = self.coerced(typed[0], target, node.arguments[0].at, explicit=True)
            if found is not None:
                return found
        types = ", ".join(one.type.title for one in typed)
        name = f"pg_catalog.{node.name}" if node.name in _OF_SYNTAX else node.name
        raise UndefinedFunction(f"function {name}({types}) does not exist", node.at + 1, hint=_NO_FUNCTION)

    def _first_or_extreme(self, node: Call, typed: Sequence[Typed]) -> Typed:
        same = self.same_type(node.arguments, typed, _TITLES[node.name])
        kind, values = same[0].type, [one.value for one in same]
        if node.name == "coalesce":

            def first(frame: Frame) -> Any:
                return next((found for value in values if (found := value(frame)) is not None), None)

            return Typed(kind, first)
        if common_type(kind, kind) is None or kind.name == "xid":
            raise UndefinedFunction(
                f"could not identify a comparison function for type {kind.title}", node.at + 1
            )
        choose: Callable[..., Any] = max if node.name == "greatest" else min
        key = sort_key(kind)

        def extreme(frame: Frame) -> Any:
            found = [one for value in values if (one := value(frame)) is not None]
            return choose(found, key=key) if found else None

        return Typed(kind, extreme)

    def _nullif(self, node: Call, typed: Sequence[Typed]) -> Typed:
        equal = self._operator("=", typed[0], typed[1], node.at).value
        found = find_operator("=", typed[0].type, typed[1].type)
        first = self.settled(typed[0])
        if typed[0].is_null and found is not None and found.left is not None:
            first = Typed(found.left, typed[0].value)
        inner = first.value
        return Typed(first.type, lambda frame: None if equal(frame) else inner(frame))

    def _element(self, node: Call, typed: Sequence[Typed]) -> Typed:
        kind = find_type(typed[0].type.element)
        index = self.coerced(typed[1], INT4, node.at)
        if kind is None or index is None:
            raise DatatypeMismatch("array subscript must have type integer", node.at + 1)
        items, place = typed[0].value, index.value

        def value(frame: Frame) -> Any:
            found, number = items(frame), place(frame)
            if found is None or number is None or not 1 <= number <= len(found):
                return None
            return found[number - 1]

        return Typed(kind, value)

    def _aggregate(self, node: Call, scope: Scope) -> Typed:
        if not isinstance(scope, GroupedScope):
            if scope.clause == "aggregate":
                raise GroupingError("aggregate function calls cannot be nested", node.at + 1)
            raise GroupingError(f"aggregate functions are not allowed in {scope.clause}", node.at + 1)
        inner = scope.inner
        clause, inner.clause = inner.clause, "aggregate"
        try:
            typed = [self.expression(one, inner) for one in node.arguments]
            where = None if node.where is None else self.condition(node.where, inner, "FILTER")
            keys = [self.settled(self.expression(key.expression, inner)) for key in node.order]
        finally:
            inner.clause = clause
        if node.is_star:
            if node.name != "count":
                raise UndefinedFunction(f"function {node.name}() does not exist", node.at + 1)
            one = Typed(INT4, lambda _: 1)
            typed = [one]
        aggregate = find_aggregate(node.name, [one.type for one in typed])
        if aggregate is None:
            types = ", ".join(one.type.title for one in typed)
            raise UndefinedFunction(
                f"function {node.name}({types}) does not exist", node.at + 1, hint=_NO_FUNCTION
            )
        arguments = tuple(
            self._operand(one, kind, node.at) for one, kind in zip(typed, aggregate.arguments, strict=True)
        )
        sort = self.sorter(node.order, [key.type for key in keys], 0) if keys else None
        place = scope.add(AggregateCall(aggregate, arguments, where, node.distinct, sort, tuple(keys)))
        return Typed(aggregate.result, lambda frame: frame.row[place])
