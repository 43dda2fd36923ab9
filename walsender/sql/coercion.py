"""Literals, parameters and operators, and how what has one type becomes what has another."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from .casts import conversion, converts_by_itself
from .codecs import parse, sort_key
from .errors import (
    AmbiguousParameter,
    DatatypeMismatch,
    SqlError,
    UndefinedFunction,
    UndefinedType,
)
from .numbers import parse_numeric
from .operators import common_type, find_operator, unified
from .scope import NULL, Frame, GroupedScope, Plan, Scope, Typed
from .types import (
    ANY,
    BOOL,
    INT4,
    INT8,
    INTEGER_LIMITS,
    NUMERIC,
    RECORD,
    REGTYPE,
    TEXT,
    UNKNOWN,
    VOID,
    PgType,
    array_of,
    find_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .environment import Environment
    from .nodes import (
        Constant,
        Expression,
        Parameter,
        Query,
        SortKey,
        TypeName,
    )


_NO_OPERATOR: Final = (
    "No operator matches the given name and argument types. You might need to add explicit type casts."
)


_NO_PREFIX: Final = (
    "No operator matches the given name and argument type. You might need to add an explicit type cast."
)


NO_TYPES: Final = (UNKNOWN, RECORD, VOID, REGTYPE, ANY)


def _ranked(
    place: int, rank: int, key: Callable[[Any], Any] | None
) -> Callable[[Sequence[Any]], tuple[int, Any]]:
    def ranked(row: Sequence[Any]) -> tuple[int, Any]:
        value = row[place]
        if value is None:
            return rank, 0
        return 0, value if key is None else key(value)

    return ranked


class Coercion:
    """What is known of types while the expressions of one statement are compiled, for one run of it."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._lowest_level = 1 << 30  # of the queries around whose columns have been named
        self._actions: set[int] = set()  # the calls that may be one
        self._called_actions: set[int] = set()

    def query_plan(self, query: Query, outer: Scope) -> Plan:
        """Return what runs a query inside of another."""
        raise NotImplementedError

    def expression(self, node: Expression, scope: Scope) -> Typed:
        """
        Return what computes *node*.

        :raises SqlError: it is wrong.
        """
        if isinstance(scope, GroupedScope) and (place := scope.find_group(node)) is not None:
            return Typed(scope.groups[place][1].type, lambda frame: frame.row[place])
        try:
            return self._compile(node, scope)
        except SqlError as error:
            if not error.position:
                error.position = getattr(node, "at", -1) + 1
            raise

    def _compile(self, node: Expression, scope: Scope) -> Typed:
        """Return what computes *node*, whatever it is."""
        raise NotImplementedError

    def _constant(self, node: Constant) -> Typed:
        match node.kind:
            case "null":
                return NULL
            case "string":
                text = node.text
                return Typed(UNKNOWN, lambda _: text, literal=text, at=node.at)
            case "bool":
                value: Any = node.text == "true"
                return Typed(BOOL, lambda _: value)
        text = node.text
        sign = -1 if text.startswith("-") else 1
        digits = text.lstrip("-")
        if digits.startswith("0x") or digits.isdecimal():
            number = sign * (int(digits[:40], 16) if digits.startswith("0x") else int(digits[:40]))
            for kind in (INT4, INT8):
                if len(digits) < 40 and -INTEGER_LIMITS[kind.name] <= number < INTEGER_LIMITS[kind.name]:
                    return Typed(kind, lambda _: number)
            if digits.startswith("0x"):
                exact = Decimal(number)
                return Typed(NUMERIC, lambda _: exact)
        exact = parse_numeric(text)
        return Typed(NUMERIC, lambda _: exact)

    def _parameter(self, node: Parameter) -> Typed:
        types, number = self._environment.parameter_types, node.number
        types += [None] * (number - len(types))
        known = types[number - 1]
        if known is None:
            return Typed(UNKNOWN, self._parameter_value(number), parameter=number, at=node.at)
        return Typed(known, self._parameter_value(number))

    def _parameter_value(self, number: int) -> Callable[[Frame], Any]:
        environment = self._environment

        def value(_: Frame) -> Any:
            return environment.parameters[number - 1]

        return value

    def type_of(self, name: TypeName) -> PgType:
        """
        Return the type of a name.

        :raises UndefinedType: there is none.
        """
        found = find_type(name.name)
        if found is not None and name.is_array:
            found = array_of(found)
        if found is None or found in NO_TYPES:
            raise UndefinedType(
                f'type "{name.name}{"[]" if name.is_array else ""}" does not exist', name.at + 1
            )
        return found

    def coerced(self, typed: Typed, target: PgType, at: int, *, explicit: bool = False) -> Typed | None:
        """Return *typed* as a value of *target*; ``None``: it cannot be one."""
        if typed.type is target:
            return typed
        if typed.is_null:
            return Typed(target, typed.value)
        if typed.parameter:
            types, number = self._environment.parameter_types, typed.parameter
            known = types[number - 1]
            if known is None:
                types[number - 1] = target
            elif known is not target:
                raise AmbiguousParameter(
                    f"inconsistent types deduced for parameter ${number}",
                    typed.at + 1,
                    detail=f"{known.title} versus {target.title}",
                )
            return Typed(target, typed.value)
        environment = self._environment
        if typed.literal is not None:
            try:
                constant = parse(typed.literal, target, environment.zone, environment.now)
            except SqlError as error:
                error.position = error.position or (at if typed.at < 0 else typed.at) + 1
                raise
            return Typed(target, lambda _: constant)
        if not (explicit or converts_by_itself(typed.type, target)):
            return None
        convert = conversion(typed.type, target)
        if convert is None:
            return None
        inner = typed.value

        def value(frame: Frame) -> Any:
            found = inner(frame)
            return None if found is None else environment.budget.made(convert(environment, found))

        return Typed(target, value)

    def condition(self, node: Expression, scope: Scope, clause: str) -> Typed:
        """Return what computes an expression that must be true or false."""
        typed = self.expression(node, scope)
        found = self.coerced(typed, BOOL, node.at)
        if found is None:
            raise DatatypeMismatch(
                f"argument of {clause} must be type boolean, not type {typed.type.title}", node.at + 1
            )
        return found

    def settled(self, typed: Typed) -> Typed:
        """Return *typed* with a type: text if nothing tells another."""
        if not typed.type.is_unknown:
            return typed
        found = self.coerced(typed, TEXT, -1)
        return typed if found is None else found

    def _operator(self, name: str, left: Typed | None, right: Typed, at: int) -> Typed:
        """Return what computes an operator on two operands."""
        found = find_operator(name, None if left is None else left.type, right.type)
        if found is None:
            types = (
                f"{name} {right.type.title}"
                if left is None
                else f"{left.type.title} {name} {right.type.title}"
            )
            raise UndefinedFunction(
                f"operator does not exist: {types}", at + 1, hint=_NO_PREFIX if left is None else _NO_OPERATOR
            )
        environment, call = self._environment, found.call
        # What stands beside a text is made one by || alone.
        right = self._operand(right, found.right, at, explicit=name == "||")
        second = right.value
        if left is None:

            def prefix(frame: Frame) -> Any:
                value = second(frame)
                return None if value is None else call(environment, value)

            return Typed(found.result, prefix)
        assert found.left is not None, "it has been looked for between two"
        first = self._operand(left, found.left, at, explicit=name == "||").value

        def infix(frame: Frame) -> Any:
            one = first(frame)
            if one is None:
                return None
            other = second(frame)
            return None if other is None else call(environment, one, other)

        return Typed(found.result, infix)

    def _operand(self, typed: Typed, target: PgType, at: int, *, explicit: bool = False) -> Typed:
        found = self.coerced(typed, target, at, explicit=explicit)
        assert found is not None, "the operator has been found for it"
        return found

    def same_type(self, nodes: Sequence[Expression], typed: Sequence[Typed], what: str) -> list[Typed]:
        """
        Return expressions as values of one type.

        :raises DatatypeMismatch: there is none for all.
        """
        common = unified([one.type for one in typed])
        found = [
            None if common is None else self.coerced(one, common, node.at)
            for one, node in zip(typed, nodes, strict=True)
        ]
        converted = [one for one in found if one is not None]
        if len(converted) < len(typed):
            first = next(one.type for one in typed if not one.type.is_unknown)
            place, other = next(
                (node.at, one.type)
                for one, node in zip(typed, nodes, strict=True)
                if (not one.type.is_unknown and one.type.category != first.category)
                or one.type not in (first, UNKNOWN)
            )
            raise DatatypeMismatch(
                f"{what} types {first.title} and {other.title} cannot be matched", place + 1
            )
        return converted

    def sorter(
        self, keys: Sequence[SortKey], types: Sequence[PgType], first: int
    ) -> Callable[[list[Any]], None]:
        """
        Return what sorts rows by their values from place *first* on.

        :raises UndefinedFunction: values of a type have no order.
        """
        steps = []
        for place, (key, kind) in enumerate(zip(keys, types, strict=True), first):
            if common_type(kind, kind) is None or kind.name == "xid":
                raise UndefinedFunction(
                    f"could not identify an ordering operator for type {kind.title}", key.expression.at + 1
                )
            nulls_first = key.descending if key.nulls_first is None else key.nulls_first
            rank = 1 if nulls_first == key.descending else -1
            steps.append((_ranked(place, rank, sort_key(kind)), key.descending))

        budget = self._environment.budget

        def sort(rows: list[Any]) -> None:
            for ranked, descending in reversed(steps):
                budget.sorted_by(ranked(row)[1] for row in rows)
                rows.sort(key=ranked, reverse=descending)

        return sort
