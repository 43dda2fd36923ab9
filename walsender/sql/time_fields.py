"""The fields of times and intervals: EXTRACT, and the beginnings of days and months."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final

from .errors import InvalidArgument
from .times import (
    EPOCH,
    MICROSECOND,
    MONTH_DAYS,
    SECOND,
    UNIX_EPOCH,
    Interval,
    datetime_of,
    time_with_zone,
    time_without_zone,
)

_FIELDS_OF_INTERVAL: Final = (
    "epoch",
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "second",
    "milliseconds",
    "microseconds",
)


def extract(field: str, value: int | Interval, zone: tzinfo | None, kind: str) -> Decimal:
    """
    Return a field of a time or an interval.

    :param zone: of a time that has one.
    :raises InvalidArgument: there is no such field.
    """
    name = _FIELD_NAMES.get(field.lower(), "")
    if isinstance(value, Interval):
        if name in _FIELDS_OF_INTERVAL:
            return _field_of_interval(name, value)
    elif name:
        return _field_of_time(name, value, zone)
    raise InvalidArgument(f'unit "{field}" not recognized for type {kind}')


_FIELD_NAMES: Final = {
    **{name: name for name in (*_FIELDS_OF_INTERVAL, "dow", "isodow", "doy", "week", "quarter")},
    **{f"{name}s": name for name in ("year", "month", "day", "hour", "minute", "second")},
    **{name: f"{name}s" for name in ("millisecond", "microsecond")},
}


def _microseconds(value: int, digits: int) -> Decimal:
    """Return microseconds in another unit, with so many digits behind the point."""
    return Decimal(value).scaleb(-digits)


def _field_of_interval(name: str, value: Interval) -> Decimal:
    if name == "epoch":
        years, months = (
            int(value.months / 12),
            value.months % 12 if value.months >= 0 else -(-value.months % 12),
        )
        days = years * Decimal("365.25") + months * MONTH_DAYS + value.days
        return (days * 86_400 + _microseconds(value.microseconds, 6)).quantize(Decimal("0.000001"))
    sign = -1 if value.microseconds < 0 else 1
    seconds, fraction = divmod(abs(value.microseconds), SECOND)
    in_minute = sign * (seconds % 60 * SECOND + fraction)
    match name:
        case "year":
            return Decimal(int(value.months / 12))
        case "month":
            return Decimal(value.months - int(value.months / 12) * 12)
        case "day":
            return Decimal(value.days)
        case "hour":
            return Decimal(sign * (seconds // 3600))
        case "minute":
            return Decimal(sign * (seconds // 60 % 60))
    return _part_of_minute(name, in_minute)


def _part_of_minute(name: str, microseconds: int) -> Decimal:
    if name == "second":
        return _microseconds(microseconds, 6)
    return _microseconds(microseconds, 3) if name == "milliseconds" else Decimal(microseconds)


def _field_of_time(name: str, value: int, zone: tzinfo | None) -> Decimal:
    if name == "epoch":
        return _microseconds(value + UNIX_EPOCH * SECOND, 6)
    local = datetime_of(value if zone is None else time_without_zone(value, zone))
    match name:
        case "dow":
            return Decimal(local.isoweekday() % 7)
        case "isodow":
            return Decimal(local.isoweekday())
        case "doy":
            return Decimal(local.timetuple().tm_yday)
        case "week":
            return Decimal(local.isocalendar().week)
        case "quarter":
            return Decimal((local.month + 2) // 3)
        case "year" | "month" | "day" | "hour" | "minute":
            return Decimal(int(getattr(local, name)))
    return _part_of_minute(name, local.second * SECOND + local.microsecond)


def truncate(field: str, value: int, zone: tzinfo | None) -> int:
    """
    Return the beginning of the second, minute, … or year that a time is in.

    :raises InvalidArgument: there is no such field.
    """
    local = datetime_of(value if zone is None else time_without_zone(value, zone))
    name = field.lower()
    order = ("year", "month", "day", "hour", "minute", "second")
    if name in {"milliseconds", "millisecond"}:
        local = local.replace(microsecond=local.microsecond // 1000 * 1000)
    elif name == "week":
        local = local.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=local.weekday())
    elif name == "quarter":
        first = (local.month - 1) // 3 * 3 + 1
        local = local.replace(month=first, day=1, hour=0, minute=0, second=0, microsecond=0)
    elif name in order:
        kept = order.index(name) + 1
        parts = [local.year, local.month, local.day, local.hour, local.minute, local.second]
        local = datetime(*(parts[:kept] + [1, 1, 1, 0, 0, 0][kept:]))  # type: ignore[arg-type]
    elif name not in {"microseconds", "microsecond"}:
        raise InvalidArgument(f'unit "{field}" not recognized for type timestamp with time zone')
    moved = (local - EPOCH) // MICROSECOND
    return moved if zone is None else time_with_zone(moved, zone)
