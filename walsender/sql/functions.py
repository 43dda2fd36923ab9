"""
The functions that are the same on every server, and how one of a name is found for given types.

Source: PostgreSQL's documentation, "Functions and Operators" and "Function Type Resolution".
"""

from __future__ import annotations

import math
from datetime import UTC
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any, Final

from walsender.wire import cut_name

from . import numbers, time_fields, times
from .casts import converts_by_itself
from .environment import Column, Environment, Function
from .errors import InvalidArgument, OutOfRange
from .operators import float_power
from .text_functions import joined, text_functions
from .types import (
    DATE,
    FLOAT8,
    INET,
    INT2,
    INT4,
    INT8,
    INTERVAL,
    NUMERIC,
    PG_LSN,
    TEXT,
    TEXT_ARRAY,
    TIMESTAMP,
    TIMESTAMPTZ,
    PgType,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


# How one is found


def best(candidates: Sequence[Function], types: Sequence[PgType]) -> Function | None:
    """
    Return which of *candidates* is meant for arguments of these types; ``None``: none fits.

    The one with the most arguments as they are; of two, the one with the most preferred types.
    """
    found: tuple[tuple[int, int], Function] | None = None
    for candidate in candidates:
        expected = argument_types(candidate, len(types))
        if expected is None or not all(map(converts_by_itself, types, expected)):
            continue
        pairs = list(zip(types, expected, strict=True))
        exact = sum(one is other for one, other in pairs)
        preferred = sum(
            other.preferred and (not one.is_unknown or other.category == "S")
            for one, other in pairs
            if one is not other
        )
        if found is None or (exact, preferred) > found[0]:
            found = (exact, preferred), candidate
    return None if found is None else found[1]


def argument_types(function: Function, count: int) -> tuple[PgType, ...] | None:
    """Return the types of *count* arguments; ``None``: it does not take so many."""
    expected = function.arguments
    if function.variadic and count >= len(expected):
        return expected + expected[-1:] * (count - len(expected))
    return expected[:count] if len(expected) - function.optional <= count <= len(expected) else None


# Numbers


def _of_decimal(rounding: str) -> Callable[[Environment, Decimal], Decimal]:
    return lambda _, value: numbers.rounded(value, 0, rounding)


def _of_float(call: Callable[[float], float]) -> Callable[[Environment, float], float]:
    return lambda _, value: float(call(value)) if math.isfinite(value) else value


def _sign(_: Environment, value: Any) -> Any:
    return type(value)((value > 0) - (value < 0))


def _sqrt(_: Environment, value: float) -> float:
    if value < 0:
        raise SquareRootError("cannot take square root of a negative number")
    return math.sqrt(value)


class SquareRootError(OutOfRange, sqlstate="2201F"):
    """Of a negative number."""


def _size_pretty(_: Environment, size: int | Decimal) -> str:
    """Source: PostgreSQL, src/backend/utils/adt/dbsize.c, pg_size_pretty: the next unit from 10240 on."""
    amount = int(size) if isinstance(size, int) or size == size.to_integral_value() else None
    if amount is None:
        assert isinstance(size, Decimal), "the others are whole"
        if abs(size) < 10240:
            return f"{numbers.numeric_text(size)} bytes"
        amount = int(size)
    sign, amount = (-1 if amount < 0 else 1), abs(amount)
    if amount < 10240:
        return f"{sign * amount} bytes"
    units = ("kB", "MB", "GB", "TB", "PB")
    amount >>= 9  # one bit more than shown, to round by
    for unit in units:
        if amount < 20480 - 1 or unit == units[-1]:
            return f"{sign * ((amount + 1) // 2)} {unit}"
        amount >>= 10
    raise AssertionError("the last unit takes all")


# Times


def _zoned(name: str) -> Any:
    name = cut_name(name)
    zone = times.zone_of(name)
    if zone is UTC and name.upper() not in {"UTC", "GMT", "Z", "ETC/UTC"}:
        raise InvalidArgument(f'time zone "{name}" not recognized')
    return zone


def _zone_for(kind: PgType) -> Callable[[Environment], Any]:
    return (lambda environment: environment.zone) if kind is TIMESTAMPTZ else (lambda _: None)


def _time_functions() -> list[Function]:
    found = [
        Function("now", (), TIMESTAMPTZ, lambda environment: environment.now),
        Function(
            "age", (TIMESTAMPTZ, TIMESTAMPTZ), INTERVAL, lambda _, one, other: times.difference(one, other)
        ),
        Function(
            "timezone",
            (TEXT, TIMESTAMPTZ),
            TIMESTAMP,
            lambda _, zone, value: times.time_without_zone(value, _zoned(zone)),
        ),
        Function(
            "timezone",
            (TEXT, TIMESTAMP),
            TIMESTAMPTZ,
            lambda _, zone, value: times.time_with_zone(value, _zoned(zone)),
        ),
        Function(
            "to_timestamp",
            (FLOAT8,),
            TIMESTAMPTZ,
            lambda _, seconds: times.check_time(
                times.of_unix_time(seconds) if math.isfinite(seconds) else 1 << 62
            ),
        ),
    ]
    found += [
        Function(name, (), TIMESTAMPTZ, lambda environment: environment.now)
        for name in ("transaction_timestamp", "statement_timestamp", "clock_timestamp", "current_timestamp")
    ]
    found.append(
        Function(
            "localtimestamp",
            (),
            TIMESTAMP,
            lambda environment: times.time_without_zone(environment.now, environment.zone),
        )
    )
    found.append(
        Function(
            "current_date",
            (),
            DATE,
            lambda environment: times.time_without_zone(environment.now, environment.zone) // times.DAY,
        )
    )
    for kind in (TIMESTAMPTZ, TIMESTAMP, INTERVAL):
        found += _of_fields(kind)
    return found


def _of_fields(kind: PgType) -> list[Function]:
    zone = _zone_for(kind)

    def extract(environment: Environment, field: str, value: Any) -> Decimal:
        return time_fields.extract(field, value, zone(environment), kind.title)

    found = [
        Function("extract", (TEXT, kind), NUMERIC, extract),
        Function("date_part", (TEXT, kind), FLOAT8, lambda *arguments: float(extract(*arguments))),
    ]
    if kind is not INTERVAL:
        found.append(
            Function(
                "date_trunc",
                (TEXT, kind),
                kind,
                lambda environment, field, value: time_fields.truncate(field, value, zone(environment)),
            )
        )
    return found


# The table


def _series(environment: Environment, first: int, last: int, step: int = 1) -> Iterable[tuple[int]]:
    if step == 0:
        raise InvalidArgument("step size cannot equal zero")
    for number in range(first, last + (1 if step > 0 else -1), step):
        environment.budget.step()
        yield (number,)


def _numbers() -> list[Function]:
    found = [
        Function("sqrt", (FLOAT8,), FLOAT8, _sqrt),
        Function("round", (NUMERIC, INT4), NUMERIC, lambda _, value, digits: _to_digits(value, digits)),
        Function(
            "trunc", (NUMERIC, INT4), NUMERIC, lambda _, value, digits: _to_digits(value, digits, ROUND_DOWN)
        ),
        Function("to_hex", (INT4,), TEXT, lambda _, value: f"{value % (1 << 32):x}"),
        Function("to_hex", (INT8,), TEXT, lambda _, value: f"{value % (1 << 64):x}"),
        Function("mod", (NUMERIC, NUMERIC), NUMERIC, lambda _, one, other: numbers.remainder(one, other)),
        Function("div", (NUMERIC, NUMERIC), NUMERIC, _whole_quotient),
        Function("pg_size_pretty", (INT8,), TEXT, _size_pretty),
        Function("pg_size_pretty", (NUMERIC,), TEXT, _size_pretty),
        Function("pg_wal_lsn_diff", (PG_LSN, PG_LSN), NUMERIC, lambda _, one, other: Decimal(one - other)),
    ]
    found += [
        Function(name, (FLOAT8, FLOAT8), FLOAT8, lambda _, base, power: float_power(base, power))
        for name in ("power", "pow")
    ]
    for kind in (INT2, INT4, INT8):
        found.append(
            Function(
                "mod", (kind, kind), kind, lambda _, one, other: numbers.remainder_of_integers(one, other)
            )
        )
        found.append(Function("abs", (kind,), kind, _absolute(kind)))
    for kind in (NUMERIC, FLOAT8):
        found.append(Function("abs", (kind,), kind, lambda _, value: abs(value)))
        found.append(Function("sign", (kind,), kind, _sign))
    for name, rounding in (("ceil", ROUND_CEILING), ("ceiling", ROUND_CEILING), ("floor", ROUND_FLOOR)):
        found.append(Function(name, (NUMERIC,), NUMERIC, _of_decimal(rounding)))
        found.append(
            Function(name, (FLOAT8,), FLOAT8, _of_float(math.floor if name == "floor" else math.ceil))
        )
    found.append(Function("round", (NUMERIC,), NUMERIC, lambda _, value: numbers.rounded(value, 0)))
    found.append(Function("round", (FLOAT8,), FLOAT8, _of_float(round)))
    found.append(Function("trunc", (NUMERIC,), NUMERIC, _of_decimal(ROUND_DOWN)))
    found.append(Function("trunc", (FLOAT8,), FLOAT8, _of_float(math.trunc)))
    return found


def _absolute(kind: PgType) -> Callable[[Environment, int], int]:
    return lambda _, value: numbers.check_integer(abs(value), kind)


def _to_digits(value: Decimal, digits: int, rounding: str = ROUND_HALF_UP) -> Decimal:
    return numbers.rounded(value, digits, rounding)


def _whole_quotient(_: Environment, one: Decimal, other: Decimal) -> Decimal:
    return numbers.rounded(numbers.divide(one - numbers.remainder(one, other), other), 0)


def _others() -> list[Function]:
    series = (Column("generate_series", INT4),)
    big_series = (Column("generate_series", INT8),)
    return [
        Function("host", (INET,), TEXT, lambda _, address: str(address.ip)),
        Function("family", (INET,), INT4, lambda _, address: address.version),
        Function("masklen", (INET,), INT4, lambda _, address: address.network.prefixlen),
        Function("generate_series", (INT4, INT4, INT4), INT4, _series, optional=1, columns=series),
        Function("generate_series", (INT8, INT8, INT8), INT8, _series, optional=1, columns=big_series),
        Function("array_element", (TEXT_ARRAY, INT4), TEXT, _array_element),
        Function("array_length", (TEXT_ARRAY, INT4), INT4, _array_length),
        Function("cardinality", (TEXT_ARRAY,), INT4, lambda _, items: len(items)),
        Function("array_to_string", (TEXT_ARRAY, TEXT), TEXT, _array_text),
    ]


def _array_element(_: Environment, items: tuple[Any, ...], index: int) -> Any:
    return items[index - 1] if 1 <= index <= len(items) else None


def _array_length(_: Environment, items: tuple[Any, ...], dimension: int) -> int | None:
    return len(items) if dimension == 1 and items else None


def _array_text(_: Environment, items: tuple[Any, ...], separator: str) -> str:
    return joined(separator, items)


def _table() -> Mapping[str, Sequence[Function]]:
    table: dict[str, list[Function]] = {}
    for function in (*text_functions(), *_numbers(), *_time_functions(), *_others()):
        table.setdefault(function.name, []).append(function)
    table["character_length"] = table["char_length"]
    return table


FUNCTIONS: Final = _table()
"""All of them, by name."""
