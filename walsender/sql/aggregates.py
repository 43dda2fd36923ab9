"""The aggregate functions: which there are for which types, and what they make of many values."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from . import numbers
from .codecs import sort_key
from .times import Interval, interval, scale
from .types import BOOL, FLOAT8, INT8, INTERVAL, NUMERIC, TEXT, PgType, array_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .environment import Environment

NAMES: Final = frozenset(
    ("count", "sum", "avg", "min", "max", "bool_and", "bool_or", "every", "string_agg", "array_agg")
)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """
    An aggregate of certain types.

    :ivar arguments: what its arguments are converted to.
    :ivar call: is given the environment and the rows of arguments, none with a NULL in the first.
    """

    arguments: tuple[PgType, ...]
    result: PgType
    call: Callable[[Environment, Sequence[tuple[Any, ...]]], Any]
    takes_nulls: bool = False


def find_aggregate(name: str, types: Sequence[PgType]) -> Aggregate | None:
    """Return the aggregate of that name for arguments of these types; ``None``: there is none."""
    if name == "string_agg":
        fits = len(types) == 2 and all(one.category in "SX" for one in types)
        return Aggregate((TEXT, TEXT), TEXT, _string_agg) if fits else None
    if len(types) != 1:
        return None
    kind = TEXT if types[0].is_unknown or types[0].category == "S" else types[0]
    match name:
        case "count":
            return Aggregate((kind,), INT8, lambda _, rows: len(rows))
        case "bool_and" | "every" if kind is BOOL:
            return Aggregate((BOOL,), BOOL, lambda _, rows: all(row[0] for row in rows) if rows else None)
        case "bool_or" if kind is BOOL:
            return Aggregate((BOOL,), BOOL, lambda _, rows: any(row[0] for row in rows) if rows else None)
        case "min" | "max" if kind.name not in {"bool", "xid", "void", "record", "regtype"}:
            return Aggregate((kind,), kind, _extreme(kind, max if name == "max" else min))
        case "sum" | "avg":
            return _sum(kind, average=name == "avg")
        case "array_agg" if (array := array_of(kind)) is not None:
            return Aggregate((kind,), array, _array_agg, takes_nulls=True)
    return None


def _array_agg(environment: Environment, rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    return environment.budget.made(tuple(row[0] for row in rows)) or None


def _string_agg(environment: Environment, rows: Sequence[tuple[Any, ...]]) -> str | None:
    if not rows:
        return None
    pieces = [rows[0][0]]
    for text, separator in rows[1:]:
        pieces += [separator or "", text]
    environment.budget.take(sum(map(len, pieces)))
    return "".join(pieces)


def _extreme(kind: PgType, choose: Callable[..., Any]) -> Callable[..., Any]:
    key = sort_key(kind)
    return lambda _, rows: choose((row[0] for row in rows), key=key) if rows else None


def _sum(kind: PgType, *, average: bool) -> Aggregate | None:
    if kind is INTERVAL:
        return Aggregate((kind,), kind, _average_interval if average else _sum_intervals)
    if not kind.is_number:
        return None
    if kind.name in {"float4", "float8"}:
        return Aggregate(
            (FLOAT8,), FLOAT8 if average else kind, _average_float if average else _sum_floats(kind)
        )
    if average:
        return Aggregate((NUMERIC,), NUMERIC, _average)
    if kind.name in {"int2", "int4"}:
        return Aggregate((kind,), INT8, lambda _, rows: sum(row[0] for row in rows) if rows else None)
    return Aggregate((NUMERIC,), NUMERIC, _sum_numeric)


def _sum_numeric(_: Environment, rows: Sequence[tuple[Any, ...]]) -> Decimal | None:
    if not rows:
        return None
    total: Decimal = rows[0][0]
    for row in rows[1:]:
        total = numbers.add(total, row[0])
    return total


def _average(environment: Environment, rows: Sequence[tuple[Any, ...]]) -> Decimal | None:
    total = _sum_numeric(environment, rows)
    return None if total is None else numbers.divide(total, Decimal(len(rows)))


def _sum_floats(kind: PgType) -> Callable[..., float | None]:
    def call(_: Environment, rows: Sequence[tuple[Any, ...]]) -> float | None:
        return numbers.check_float(float(sum(row[0] for row in rows)), kind) if rows else None

    return call


def _average_float(_: Environment, rows: Sequence[tuple[Any, ...]]) -> float | None:
    return sum(row[0] for row in rows) / len(rows) if rows else None


def _sum_intervals(_: Environment, rows: Sequence[tuple[Any, ...]]) -> Interval | None:
    return interval(*(sum(parts) for parts in zip(*(row[0] for row in rows), strict=True))) if rows else None


def _average_interval(environment: Environment, rows: Sequence[tuple[Any, ...]]) -> Interval | None:
    total = _sum_intervals(environment, rows)
    return None if total is None else scale(total, 1 / len(rows))
