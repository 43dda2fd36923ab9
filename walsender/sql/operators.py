"""
Which operators there are, for which types, and what they do.

Source: PostgreSQL's documentation, "Functions and Operators"; how one is found, "Operator Type Resolution".
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any, Final

from . import numbers
from .casts import converts_by_itself
from .codecs import sort_key
from .errors import InvalidArgument, OutOfRange
from .patterns import like_pattern, regular_expression
from .times import add_interval, difference, interval, scale
from .types import (
    BOOL,
    DATE,
    FLOAT8,
    INT4,
    INT8,
    INTEGER_LIMITS,
    INTERVAL,
    NUMERIC,
    ORDER_OF_NUMBERS,
    PG_LSN,
    TEXT,
    TIMESTAMP,
    TIMESTAMPTZ,
    XID,
    PgType,
    find_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .environment import Environment

COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TIMES: Final = ("date", "timestamp", "timestamptz")
_NOT_COMPARED: Final = frozenset(("void", "record", "unknown"))
_MAX_LSN: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Operator:
    """
    An operator of certain types.

    :ivar left: what the operands are converted to; ``None`` if it stands in front.
    :ivar call: is given the environment and the values, none of them NULL.
    """

    left: PgType | None
    right: PgType
    result: PgType
    call: Callable[..., Any]


def find_operator(name: str, left: PgType | None, right: PgType) -> Operator | None:
    """
    Return the operator that stands between these types.

    :param left: ``None``: it stands in front.
    :returns: ``None`` if there is no such operator.  A literal without a type takes that of the other side.
    """
    if left is None:
        return _in_front(name, right)
    if name in _MATCHES:
        return _matching(name, left, right)
    if name == "||":
        return _concatenation(left, right)
    if left.is_unknown or right.is_unknown:
        left, right = _settled(name, left, right)
    if name in COMPARISONS:
        return _comparison(name, left, right)
    return _arithmetic(name, left, right)


def _settled(name: str, left: PgType, right: PgType) -> tuple[PgType, PgType]:
    """Give a literal a type: that of the other side, but an interval is what is added to a time."""
    if left.is_unknown and right.is_unknown:
        return TEXT, TEXT
    known = right if left.is_unknown else left
    other = known
    if name == "+" and known.name in _TIMES:
        other = INTERVAL
    elif name == "+" and known is PG_LSN:
        other = NUMERIC
    elif name in "*/" and known is INTERVAL:
        other = FLOAT8
    elif known.category == "S":
        other = TEXT
    return (other, known) if left.is_unknown else (known, other)


# Comparisons


def common_type(left: PgType, right: PgType) -> PgType | None:
    """Return the type in which values of two types are compared; ``None``: they are not."""
    if left is right:
        return None if left.name in _NOT_COMPARED else left
    if left.is_number and right.is_number:
        return max(left, right, key=lambda one: ORDER_OF_NUMBERS.index(one.name))
    if left.category == right.category == "S":
        return TEXT
    if left.name in _TIMES and right.name in _TIMES:
        return max(left, right, key=lambda one: _TIMES.index(one.name))
    names = {left.name, right.name}
    if "oid" in names and names & {"int2", "int4", "int8"}:
        return INT8
    if "regtype" in names and names & {"oid", "int4", "int8"}:
        return INT8
    return None


def _comparison(name: str, left: PgType, right: PgType) -> Operator | None:
    if XID in (left, right):
        # Transactions are numbered round and round: there is no earlier and later.
        if name not in {"=", "<>"} or {left.name, right.name} - {"xid", "int4"}:
            return None
        return Operator(left, right, BOOL, _comparing(name, XID))
    common = common_type(left, right)
    if common is None:
        return None
    return Operator(
        left if common is INT8 and not left.is_number else common,
        right if common is INT8 and not right.is_number else common,
        BOOL,
        _comparing(name, common),
    )


def _comparing(name: str, pg_type: PgType) -> Callable[..., bool]:
    compare, key = COMPARISONS[name], sort_key(pg_type)
    if key is None:
        return lambda _, left, right: compare(left, right)

    def call(environment: Environment, left: Any, right: Any) -> bool:
        if pg_type.element:
            environment.budget.step(len(left) + len(right))
        return compare(key(left), key(right))

    return call


# Patterns

_MATCHES: Final = {
    "~~": (like_pattern, False, False),
    "!~~": (like_pattern, False, True),
    "~~*": (like_pattern, True, False),
    "!~~*": (like_pattern, True, True),
    "~": (regular_expression, False, False),
    "!~": (regular_expression, False, True),
    "~*": (regular_expression, True, False),
    "!~*": (regular_expression, True, True),
}


def _matching(name: str, left: PgType, right: PgType) -> Operator | None:
    if left.category not in "SX" or right.category not in "SX":
        return None
    make, ignore_case, negated = _MATCHES[name]
    last: list[Any] = ["", None]  # the pattern is the same from row to row

    def call(environment: Environment, text: str, pattern: str) -> bool:
        if last[1] is None or last[0] != pattern:
            environment.budget.step(len(pattern))
            last[:] = pattern, make(pattern, ignore_case=ignore_case)
        found: bool = last[1].matches(text, environment.budget)
        return found is not negated

    return Operator(TEXT, TEXT, BOOL, call)


def _concatenation(left: PgType, right: PgType) -> Operator | None:
    if left.element or right.element or not (left.category in "SX" or right.category in "SX"):
        return None

    def call(environment: Environment, before: str, after: str) -> str:
        environment.budget.take(len(before) + len(after))
        return before + after

    return Operator(TEXT, TEXT, TEXT, call)


# Arithmetic

_NUMERIC: Final[dict[str, Callable[[Decimal, Decimal], Decimal]]] = {
    "+": numbers.add,
    "-": numbers.subtract,
    "*": numbers.multiply,
    "/": numbers.divide,
    "%": numbers.remainder,
}
_INTEGER: Final[dict[str, Callable[[int, int], int]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": numbers.divide_integers,
    "%": numbers.remainder_of_integers,
}
_FLOAT: Final[dict[str, Callable[[float, float], float]]] = {
    "+": lambda left, right: numbers.finite(left + right, left, right),
    "-": lambda left, right: numbers.finite(left - right, left, right),
    "*": lambda left, right: numbers.finite(left * right, left, right),
    "/": numbers.divide_floats,
}


def _arithmetic(name: str, left: PgType, right: PgType) -> Operator | None:
    if left.is_number and right.is_number:
        return _of_numbers(name, left, right)
    found = _OF_OTHERS.get((left.name, name, right.name))
    if found is None and (number := _number_beside(left, right)) is not None:
        found = _OF_OTHERS.get((left.name, name, number.name))
    if found is None and (number := _number_beside(right, left)) is not None:
        found = _OF_OTHERS.get((number.name, name, right.name))
    if found is None and left.name in _TIMES and right.name in _TIMES and name == "-":
        kind = TIMESTAMPTZ if "timestamptz" in {left.name, right.name} else TIMESTAMP
        return Operator(kind, kind, INTERVAL, lambda _, later, earlier: difference(later, earlier))
    return found


_NUMBER_FOR: Final = {"pg_lsn": NUMERIC, "interval": FLOAT8, "date": INT4}


def _number_beside(one: PgType, other: PgType) -> PgType | None:
    """Return as which number *other* stands beside a type that is none; ``None``: it cannot."""
    number = _NUMBER_FOR.get(one.name)
    return number if number is not None and other.is_number and converts_by_itself(other, number) else None


def _of_numbers(name: str, left: PgType, right: PgType) -> Operator | None:
    common = max(left, right, key=lambda one: ORDER_OF_NUMBERS.index(one.name))
    if name == "^":
        return Operator(FLOAT8, FLOAT8, FLOAT8, lambda _, base, power: float_power(base, power))
    if common.name in INTEGER_LIMITS:
        integer = _INTEGER.get(name)
        if integer is None:
            return None
        return Operator(
            left, right, common, lambda _, one, other: numbers.check_integer(integer(one, other), common)
        )
    if common is NUMERIC:
        exact = _NUMERIC.get(name)
        return None if exact is None else Operator(common, common, common, lambda _, a, b: exact(a, b))
    if common.name == "float4" and {left.name, right.name} != {"float4"}:
        common = FLOAT8
    inexact = _FLOAT.get(name)
    if inexact is None:
        return None
    return Operator(
        common, common, common, lambda _, one, other: numbers.check_float(inexact(one, other), common)
    )


def float_power(base: float, power: float) -> float:
    """
    Return *base* to the power of *power*.

    :raises OutOfRange: it is too large, or none.
    """
    try:
        value: float | complex = base**power
    except (OverflowError, ZeroDivisionError):
        raise OutOfRange("value out of range: overflow") from None
    if isinstance(value, complex):
        raise PowerError("a negative number raised to a non-integer power yields a complex result")
    return value


class PowerError(OutOfRange, sqlstate="2201F"):
    """A power that is no real number."""


def _lsn(value: int | Decimal) -> int:
    number = int(value if isinstance(value, int) else value.to_integral_value(ROUND_HALF_UP))
    if not 0 <= number <= _MAX_LSN:
        raise InvalidArgument("pg_lsn out of range")
    return number


def _add(environment: Environment, value: int, span: Any) -> int:
    return add_interval(value, span, environment.zone)


def _subtract(environment: Environment, value: int, span: Any) -> int:
    return add_interval(value, scale(span, -1), environment.zone)


def _entry(
    left: PgType, name: str, right: PgType, result: PgType, call: Callable[..., Any]
) -> tuple[tuple[str, str, str], Operator]:
    return (left.name, name, right.name), Operator(left, right, result, call)


def _sum(left: Any, right: Any, sign: int = 1) -> Any:
    return interval(*(one + sign * other for one, other in zip(left, right, strict=True)))


_OF_OTHERS: Final = dict(
    [
        _entry(PG_LSN, "-", PG_LSN, NUMERIC, lambda _, one, other: Decimal(one - other)),
        _entry(PG_LSN, "+", NUMERIC, PG_LSN, lambda _, lsn, count: _lsn(lsn + count)),
        _entry(NUMERIC, "+", PG_LSN, PG_LSN, lambda _, count, lsn: _lsn(lsn + count)),
        _entry(PG_LSN, "-", NUMERIC, PG_LSN, lambda _, lsn, count: _lsn(lsn - count)),
        _entry(INTERVAL, "+", INTERVAL, INTERVAL, lambda _, one, other: _sum(one, other)),
        _entry(INTERVAL, "-", INTERVAL, INTERVAL, lambda _, one, other: _sum(one, other, -1)),
        _entry(INTERVAL, "*", FLOAT8, INTERVAL, lambda _, span, factor: scale(span, factor)),
        _entry(FLOAT8, "*", INTERVAL, INTERVAL, lambda _, factor, span: scale(span, factor)),
        _entry(
            INTERVAL,
            "/",
            FLOAT8,
            INTERVAL,
            lambda _, span, part: scale(span, numbers.divide_floats(1.0, part)),
        ),
        _entry(DATE, "+", INT4, DATE, lambda _, day, count: day + count),
        _entry(INT4, "+", DATE, DATE, lambda _, count, day: day + count),
        _entry(DATE, "-", INT4, DATE, lambda _, day, count: day - count),
        _entry(DATE, "-", DATE, INT4, lambda _, later, earlier: later - earlier),
    ]
    + [
        entry
        for time in (TIMESTAMP, TIMESTAMPTZ)
        for entry in (
            _entry(time, "+", INTERVAL, time, _add),
            _entry(
                INTERVAL, "+", time, time, lambda environment, span, value: _add(environment, value, span)
            ),
            _entry(time, "-", INTERVAL, time, _subtract),
        )
    ]
)


def _in_front(name: str, right: PgType) -> Operator | None:
    if right.is_unknown and name in "+-":
        right = FLOAT8
    if name == "+" and right.is_number:
        return Operator(None, right, right, lambda _, value: value)
    if name == "-" and right.is_number:
        if right.name in INTEGER_LIMITS:
            return Operator(None, right, right, lambda _, value: numbers.check_integer(-value, right))
        return Operator(None, right, right, lambda _, value: -value)
    if name == "-" and right is INTERVAL:
        return Operator(None, right, right, lambda _, value: scale(value, -1))
    if name == "@" and right.is_number:
        return Operator(None, right, right, lambda _, value: abs(value))
    return None


def unified(types: list[PgType]) -> PgType | None:
    """
    Return the type that CASE, COALESCE, UNION, … of these types have.

    Source: PostgreSQL's documentation, "UNION, CASE, and Related Constructs".

    :returns: ``None`` if there is none.
    """
    chosen: PgType | None = None
    for one in types:
        if one.is_unknown or one is chosen:
            continue
        if chosen is None:
            chosen = one
        elif one.category != chosen.category:
            return None
        elif not chosen.preferred and converts_by_itself(chosen, one) and not converts_by_itself(one, chosen):
            chosen = one
    return chosen or find_type("text")
