"""Sizes and times as people read them.  ``words.js`` says the same in the page's script."""

from __future__ import annotations

import time

NONE = "\N{EN DASH}"
"""What is not known."""

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_AGES = ((86400, "d"), (3600, "h"), (60, "min"))


def _digits(value: float) -> str:
    """Return three significant digits."""
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"  # noqa: PLR2004 (rounded up)


def size(count: int | None) -> str:
    """Return a number of bytes, with PostgreSQL's units."""
    if count is None:
        return NONE
    value, power = float(count), 0
    while value >= 1000 and power < len(_UNITS) - 1:  # noqa: PLR2004 (four digits are too many)
        value, power = value / 1024, power + 1
    return f"{_digits(value) if power else count} {_UNITS[power]}"


def seconds(value: float | None) -> str:
    """Return a lag."""
    if value is None:
        return NONE
    if value < 1:
        return f"{_digits(value * 1000)} ms"
    return f"{_digits(value)} s" if value < 100 else age(value)  # noqa: PLR2004 (three digits)


def age(value: float) -> str:
    """Return how long something has lasted, in its two largest units."""
    rest = max(0, int(value))
    if rest < 60:  # noqa: PLR2004 (seconds)
        return f"{rest} s"
    for number, (unit, name) in enumerate(_AGES):
        if rest >= unit:
            smaller, its_name = _AGES[number + 1] if number + 1 < len(_AGES) else (1, "s")
            return f"{rest // unit} {name} {rest % unit // smaller} {its_name}"
    raise AssertionError("a minute at least")


def moment(value: float) -> str:
    """Return a time of day."""
    return time.strftime("%H:%M:%S UTC", time.gmtime(value))
