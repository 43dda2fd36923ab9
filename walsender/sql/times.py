"""
Times and intervals: from text, to text, and their arithmetic.

A time is microseconds since 2000-01-01 00:00 UTC, without a time zone since 2000-01-01 00:00.  Years have
four digits here: whatever is before 1 or after 9999 is out of range.

Source of the formats: PostgreSQL's documentation, "Date/Time Types"; DateStyle is always
ISO, IntervalStyle postgres.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from .errors import InvalidDatetime, NotSupported, OutOfRange

SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
MONTH_DAYS: Final = 30
EPOCH: Final = datetime(2000, 1, 1)
UNIX_EPOCH: Final = 946_684_800
MICROSECOND: Final = timedelta(microseconds=1)

_UNITS: Final = {
    "microsecond": (0, 0, 1),
    "millisecond": (0, 0, 1000),
    "second": (0, 0, SECOND),
    "minute": (0, 0, 60 * SECOND),
    "hour": (0, 0, 3600 * SECOND),
    "day": (0, 1, 0),
    "week": (0, 7, 0),
    "month": (1, 0, 0),
    "year": (12, 0, 0),
    "decade": (120, 0, 0),
    "century": (1200, 0, 0),
}
_SHORT_UNITS: Final = {
    **{unit: unit for unit in _UNITS},
    **dict.fromkeys(("us", "usec"), "microsecond"),
    **dict.fromkeys(("ms", "msec"), "millisecond"),
    **dict.fromkeys(("s", "sec"), "second"),
    **dict.fromkeys(("m", "min"), "minute"),
    **dict.fromkeys(("h", "hr"), "hour"),
    **dict.fromkeys(("d",), "day"),
    **dict.fromkeys(("w",), "week"),
    **dict.fromkeys(("mon",), "month"),
    **dict.fromkeys(("y", "yr"), "year"),
    **dict.fromkeys(("centurie",), "century"),
}
_PIECE: Final = re.compile(
    r"\s*+(?:(?P<sign>[+-]?)(?P<h>\d{1,9}):(?P<m>\d{1,2})(?::(?P<s>\d{1,2}(?:\.\d{1,9})?))?"
    r"|(?P<count>[+-]?(?:\d{1,15}(?:\.\d{0,9})?|\.\d{1,9}))\s*+(?P<unit>[A-Za-z]*+)|(?P<ago>ago))(?=[\s\d+-]|\Z)",
    re.IGNORECASE,
)
_TIME: Final = re.compile(
    r"\s*+(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:(?:\s++|[Tt])(\d{1,2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?)?"
    r"\s*+(?:([Zz]|UTC|utc)|([+-])(\d{1,2})(?::?(\d{2}))?)?\s*+\Z"
)


class Interval(NamedTuple):
    """A span of time; its parts are of any sign and do not convert into each other."""

    months: int
    days: int
    microseconds: int

    @property
    def total(self) -> int:
        """Microseconds, with months of thirty days: what two are compared by."""
        return (self.months * MONTH_DAYS + self.days) * DAY + self.microseconds


def interval(months: int, days: int, microseconds: int) -> Interval:
    """
    Return an interval.

    :raises OutOfRange: it is too long.
    """
    if abs(months) >> 31 or abs(days) >> 31 or abs(microseconds) >> 63:
        raise OutOfRange("interval out of range")
    return Interval(months, days, microseconds)


def of_seconds(seconds: float) -> Interval:
    """Return the interval of so many seconds."""
    return interval(0, 0, round(seconds * SECOND))


def of_unix_time(seconds: float) -> int:
    """Return the time that is so many seconds after 1970."""
    return round((seconds - UNIX_EPOCH) * SECOND)


def zone_of(name: str) -> tzinfo:
    """Return the time zone of a session's TimeZone; UTC if nobody knows it."""
    try:
        return UTC if name.upper() in {"UTC", "GMT", "ETC/UTC"} else ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # no such file, or no name of one
        return UTC


def parse_interval(text: str) -> Interval:
    """
    Return the interval that *text* is.

    :raises InvalidDatetime: it is none.
    """
    if text.lstrip().upper().startswith("P"):
        raise NotSupported("intervals in the format of ISO 8601 are not supported")
    parts = [Decimal(0)] * 3
    place, ago = 0, False
    stripped = text.strip()
    while place < len(stripped):
        match = _PIECE.match(stripped, place)
        if match is None or ago:
            raise _no_interval(text)
        place = match.end()
        if match["ago"]:
            ago = True
        elif match["h"]:
            clock = Decimal(int(match["h"]) * 3600 + int(match["m"]) * 60) + Decimal(match["s"] or 0)
            parts[2] += clock * (-SECOND if match["sign"] == "-" else SECOND)
        else:
            _add(parts, Decimal(match["count"]), match["unit"] or "second", text)
    if not stripped or stripped == "ago":
        raise _no_interval(text)
    months, days, microseconds = (int(part.to_integral_value()) for part in parts)
    sign = -1 if ago else 1
    return interval(sign * months, sign * days, sign * microseconds)


def _add(parts: list[Decimal], count: Decimal, unit: str, text: str) -> None:
    """Add *count* units; what is behind the point of months and days goes to the smaller part."""
    unit = unit.lower()
    name = _SHORT_UNITS.get(unit) or _SHORT_UNITS.get(unit.removesuffix("s"))
    if name is None:
        raise _no_interval(text)
    months, days, microseconds = (count * factor for factor in _UNITS[name])
    whole_months = months.to_integral_value("ROUND_DOWN") if months else months
    days += (months - whole_months) * MONTH_DAYS
    whole_days = days.to_integral_value("ROUND_DOWN") if days else days
    parts[0] += whole_months
    parts[1] += whole_days
    parts[2] += microseconds + (days - whole_days) * DAY


def _no_interval(text: str) -> InvalidDatetime:
    return InvalidDatetime(f'invalid input syntax for type interval: "{text}"')


def interval_text(value: Interval) -> str:
    """Return an interval as PostgreSQL prints it: ``1 mon -2 days +03:00:00``."""
    years, months = divmod(abs(value.months), 12)
    sign = -1 if value.months < 0 else 1
    words: list[str] = []
    negative_before = False
    for count, unit in ((sign * years, "year"), (sign * months, "mon"), (value.days, "day")):
        if count:
            plus = "+" if negative_before and count > 0 else ""
            words.append(f"{plus}{count} {unit}{'' if count == 1 else 's'}")
            negative_before = count < 0
    if value.microseconds or not words:
        negative = value.microseconds < 0
        seconds, fraction = divmod(abs(value.microseconds), SECOND)
        plus = "-" if negative else "+" if negative_before else ""
        clock = f"{plus}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        words.append(clock + _fraction_text(fraction))
    return " ".join(words)


def _fraction_text(microseconds: int) -> str:
    return f".{microseconds:06}".rstrip("0") if microseconds else ""


def parse_time(text: str, zone: tzinfo | None, now: int, kind: str) -> int:
    """
    Return the time that *text* is.

    :param zone: where it is if the text does not say; ``None``: the type has no zone.
    :param now: the time that ``now`` is.
    :param kind: the type, for the message.
    :raises InvalidDatetime: it is none.
    """
    word = text.strip().lower()
    if word == "now":
        return now if zone is not None else time_without_zone(now, UTC)
    if word == "epoch":
        return -UNIX_EPOCH * SECOND
    if word in {"today", "yesterday", "tomorrow"}:
        days = ("yesterday", "today", "tomorrow").index(word) - 1
        midnight = time_without_zone(now, zone or UTC) // DAY * DAY + days * DAY
        return midnight if zone is None else time_with_zone(midnight, zone)
    match = _TIME.match(text)
    if match is None:
        raise InvalidDatetime(f'invalid input syntax for type {kind}: "{text}"')
    year, month, day, hour, minute, second = (int(group or 0) for group in match.groups()[:6])
    microseconds = round(Decimal(match[7] or 0) * SECOND)
    try:
        local = datetime(year, month, day, hour, minute, second)
    except ValueError:
        raise FieldOverflow(f'date/time field value out of range: "{text}"') from None
    value = (local - EPOCH) // MICROSECOND + microseconds
    if zone is None:
        return value
    if match[8]:
        zone = UTC
    elif match[9]:
        offset = timedelta(hours=int(match[10]), minutes=int(match[11] or 0))
        if offset >= timedelta(hours=16):
            raise FieldOverflow(f'time zone displacement out of range: "{text}"')
        zone = timezone(offset if match[9] == "+" else -offset)
    return time_with_zone(value, zone)


class FieldOverflow(OutOfRange, sqlstate="22008"):
    """A part of a time is too large, or a time is too far away."""


def datetime_of(value: int) -> datetime:
    """
    Return a time without its zone.

    :raises FieldOverflow: it is too far away.
    """
    try:
        return EPOCH + timedelta(microseconds=value)
    except OverflowError:
        raise FieldOverflow("timestamp out of range") from None


def check_time(value: int) -> int:
    """
    Return *value* if it is a time.

    :raises FieldOverflow: it is too far away.
    """
    datetime_of(value)
    return value


def time_without_zone(value: int, zone: tzinfo) -> int:
    """Return what the clocks in *zone* show at a time."""
    if zone is UTC:
        return value
    try:
        local = datetime_of(value).replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)
    except OverflowError:
        raise FieldOverflow("timestamp out of range") from None
    return (local - EPOCH) // MICROSECOND


def time_with_zone(value: int, zone: tzinfo) -> int:
    """Return the time at which the clocks in *zone* show *value*."""
    if zone is UTC:
        return check_time(value)
    try:
        utc = datetime_of(value).replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise FieldOverflow("timestamp out of range") from None
    return (utc - EPOCH) // MICROSECOND


def time_text(value: int, zone: tzinfo | None = None) -> str:
    """Return a time as PostgreSQL prints it; *zone* of one that has none is ``None``."""
    utc = datetime_of(value)
    if zone is None:
        return utc.strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0") + _fraction_text(utc.microsecond)
    try:
        local = utc.replace(tzinfo=UTC).astimezone(zone)
    except OverflowError:
        raise FieldOverflow("timestamp out of range") from None
    offset = local.utcoffset() or timedelta(0)
    seconds = abs(offset) // timedelta(seconds=1)
    text = f"{'-' if offset < timedelta(0) else '+'}{seconds // 3600:02}"
    if seconds % 3600:
        text += f":{seconds // 60 % 60:02}"
    if seconds % 60:
        text += f":{seconds % 60:02}"
    return time_text((local.replace(tzinfo=None) - EPOCH) // MICROSECOND) + text


def parse_date(text: str, now: int, zone: tzinfo) -> int:
    """
    Return the day that *text* is, counted from 2000-01-01.

    :raises InvalidDatetime: it is none.
    """
    word = text.strip().lower()
    if word in {"now", "today", "yesterday", "tomorrow"}:
        offset = {"yesterday": -1, "tomorrow": 1}.get(word, 0)
        return time_without_zone(now, zone) // DAY + offset
    return parse_time(text, None, now, "date") // DAY


def date_text(value: int) -> str:
    """Return a day as PostgreSQL prints it."""
    try:
        return (date(2000, 1, 1) + timedelta(days=value)).isoformat()
    except OverflowError:
        raise FieldOverflow("date out of range") from None


def add_interval(value: int, span: Interval, zone: tzinfo) -> int:
    """Return the time that is *span* after *value*; its months and days are those of *zone*."""
    if not (span.months or span.days):
        return check_time(value + span.microseconds)
    local = datetime_of(time_without_zone(value, zone))
    month = local.year * 12 + local.month - 1 + span.months
    year, month = divmod(month, 12)
    if not 1 <= year <= 9999:
        raise FieldOverflow("timestamp out of range")
    day = min(local.day, calendar.monthrange(year, month + 1)[1])
    try:
        moved = local.replace(year=year, month=month + 1, day=day) + timedelta(days=span.days)
    except OverflowError:
        raise FieldOverflow("timestamp out of range") from None
    return check_time(time_with_zone((moved - EPOCH) // MICROSECOND, zone) + span.microseconds)


def difference(later: int, earlier: int) -> Interval:
    """Return the interval between two times, in days and what is left."""
    sign = -1 if later < earlier else 1
    days, microseconds = divmod(abs(later - earlier), DAY)
    return interval(0, sign * days, sign * microseconds)


def scale(span: Interval, factor: float) -> Interval:
    """
    Return *span* so many times; what is behind the point of months and days goes to the smaller parts.

    Source: PostgreSQL, src/backend/utils/adt/timestamp.c, interval_mul.
    """
    try:
        months, days = span.months * factor, span.days * factor
        whole_months, whole_days = int(months), int(days)
        rest_days = round((months - whole_months) * MONTH_DAYS, 6)
        more_days = int(rest_days)
        rest = round((days - whole_days + rest_days - more_days) * 86_400, 6)
        microseconds = round(span.microseconds * factor + rest * SECOND)
    except (OverflowError, ValueError):  # infinite, or no number
        raise OutOfRange("interval out of range") from None
    return interval(whole_months, whole_days + more_days, microseconds)
