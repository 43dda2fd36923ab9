"""
From one type to another: which conversions there are, and which happen by themselves.

Source: PostgreSQL, pg_cast; texts convert to and from everything, explicitly.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from walsender.wire import cut_name

from .codecs import parse, text_of
from .errors import OutOfRange
from .numbers import check_float, check_integer, finite, fit, numeric_of_float, rounded
from .times import DAY, check_time, time_with_zone, time_without_zone
from .types import BY_NAME, INTEGER_LIMITS, ORDER_OF_NUMBERS, PgType

if TYPE_CHECKING:
    from collections.abc import Callable

    from .environment import Environment

    Conversion = Callable[[Environment, Any], Any]

_IMPLICIT: Final = frozenset(
    [
        (source, target)
        for place, source in enumerate(ORDER_OF_NUMBERS)
        for target in ORDER_OF_NUMBERS[place + 1 :]
    ]
    + [(source, "oid") for source in ("int2", "int4", "int8", "regtype")]
    + [("oid", "int8"), ("date", "timestamp"), ("date", "timestamptz"), ("timestamp", "timestamptz")]
    + [
        (source, target)
        for source in ("name", "varchar", "bpchar", "text")
        for target in ("text", "varchar", "name")
    ]
)
_TEXTS: Final = frozenset(("text", "varchar", "bpchar", "name"))
_SECOND_DIGITS: Final = 6


def converts_by_itself(source: PgType, target: PgType) -> bool:
    """Return whether a value of *source* may stand where one of *target* is asked for."""
    return (
        source is target
        or source.is_unknown
        or target.name == "any"
        or (source.name, target.name) in _IMPLICIT
    )


def conversion(source: PgType, target: PgType) -> Conversion | None:
    """Return what makes values of *target* of those of *source*; ``None``: there is no such cast."""
    if source is target:
        return _same
    if target.name == "any":
        return lambda environment, value: text_of(value, source, environment.zone)
    if target.name in _TEXTS:
        return _to_text(source, target)
    if source.name in _TEXTS or source.is_unknown:
        return lambda environment, value: parse(value, target, environment.zone, environment.now)
    if source.is_number and target.is_number:
        return _between_numbers(source, target)
    if source.element and target.element:
        return _between_arrays(source, target)
    return _OTHERS.get((source.name, target.name))


def _same(_: Environment, value: Any) -> Any:
    return value


def _to_text(source: PgType, target: PgType) -> Conversion:
    if source.name in _TEXTS:
        return (lambda _, value: cut_name(value)) if target.name == "name" else _same
    if source.name == "bool":
        return lambda _, value: "true" if value else "false"
    if source.name == "inet":  # other than its output this shows the bits in any case
        return lambda _, value: value.with_prefixlen
    return lambda environment, value: text_of(value, source, environment.zone)


def _between_numbers(source: PgType, target: PgType) -> Conversion:
    if target.name in INTEGER_LIMITS:
        if source.name in INTEGER_LIMITS:
            return lambda _, value: check_integer(value, target)
        if source.name == "numeric":
            return lambda _, value: check_integer(int(rounded(value, 0)), target)
        return lambda _, value: _integer_of_float(value, target)
    if target.name == "numeric":
        if source.name in INTEGER_LIMITS:
            return lambda _, value: Decimal(value)
        return lambda _, value: numeric_of_float(value, source)
    return lambda _, value: check_float(_float(value), target)


def _float(value: float | Decimal) -> float:
    try:
        return finite(float(value), *((value,) if isinstance(value, float) else ()))
    except OverflowError:
        raise OutOfRange("value out of range: overflow") from None


def _integer_of_float(value: float, target: PgType) -> int:
    try:
        return check_integer(round(value), target)
    except (OverflowError, ValueError):  # infinite, or no number
        raise OutOfRange(f"{target.title} out of range") from None


def _between_arrays(source: PgType, target: PgType) -> Conversion | None:
    inner = conversion(BY_NAME[source.element], BY_NAME[target.element])
    if inner is None:
        return None
    return lambda environment, value: tuple(
        None if item is None else inner(environment, item) for item in value
    )


def _unsigned(_: Environment, value: int) -> int:
    if not -(1 << 31) <= value < 1 << 32:
        raise OutOfRange("OID out of range")
    return value % (1 << 32)


_OTHERS: Final[dict[tuple[str, str], Conversion]] = {
    ("int2", "oid"): _unsigned,
    ("int4", "oid"): _unsigned,
    ("int8", "oid"): _unsigned,
    ("oid", "int8"): _same,
    ("oid", "int4"): lambda _, value: value - (1 << 32) if value >> 31 else value,
    ("regtype", "oid"): _same,
    ("bool", "int4"): lambda _, value: int(value),
    ("int4", "bool"): lambda _, value: value != 0,
    ("date", "timestamp"): lambda _, value: check_time(value * DAY),
    ("date", "timestamptz"): lambda environment, value: time_with_zone(value * DAY, environment.zone),
    ("timestamp", "timestamptz"): lambda environment, value: time_with_zone(value, environment.zone),
    ("timestamptz", "timestamp"): lambda environment, value: time_without_zone(value, environment.zone),
    ("timestamp", "date"): lambda _, value: value // DAY,
    ("timestamptz", "date"): lambda environment, value: time_without_zone(value, environment.zone) // DAY,
}


def with_modifiers(target: PgType, modifiers: tuple[int, ...]) -> Conversion:
    """Return what fits a value to ``numeric(10,2)``, ``varchar(5)`` or ``timestamptz(0)``."""
    if modifiers and target.name == "numeric":
        return lambda _, value: fit(value, modifiers)
    if modifiers and target.name in {"varchar", "bpchar"}:
        return lambda _, value: value[: modifiers[0]]
    if modifiers and target.name in {"timestamptz", "timestamp"}:
        unit = 10 ** max(_SECOND_DIGITS - modifiers[0], 0)
        return lambda _, value: (value + unit // 2) // unit * unit
    return _same
