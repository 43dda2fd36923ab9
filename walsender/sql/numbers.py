"""
Arithmetic and text of numbers, with PostgreSQL's ranges and digits.

Source: PostgreSQL, src/backend/utils/adt/numeric.c (select_div_scale), float.c, int.c.
"""

from __future__ import annotations

import math
import re
import struct
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

from .errors import DivisionByZero, InvalidText, NotSupported, OutOfRange
from .types import INTEGER_LIMITS

if TYPE_CHECKING:
    from .types import PgType

MAX_DIGITS: Final = 1000
"""Of a numeric; PostgreSQL has 131072, which nobody needs to watch replication."""

_CONTEXT: Final = Context(prec=2 * MAX_DIGITS + 50, rounding=ROUND_HALF_UP, Emin=-(1 << 20), Emax=1 << 20)
_INTEGER: Final = re.compile(r"\s*+([+-]?)(?:([0-9]++)|0[xX]([0-9A-Fa-f]++))\s*+\Z", re.ASCII)
_NUMERIC: Final = re.compile(
    r"\s*+([+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]{1,5})?)\s*+\Z", re.ASCII
)
_SPECIAL: Final = {"nan": math.nan, "infinity": math.inf, "inf": math.inf}
_MIN_DIVISION_DIGITS: Final = 16
_MAX_FLOAT4: Final = 3.4028235677973366e38
_FLOAT8_DIGITS: Final = 15
_MIN_FLOAT_POINT: Final = -4
_SINGLE: Final = struct.Struct("f")


def parse_integer(text: str, pg_type: PgType) -> int:
    """
    Return the number that *text* is.

    :raises InvalidText: it is none.
    :raises OutOfRange: the type has none that large.
    """
    match = _INTEGER.match(text)
    if match is None:
        raise InvalidText(f'invalid input syntax for type {pg_type.title}: "{text}"')
    digits = (match[2] or "").lstrip("0")
    value = int(match[3][:40], 16) if match[3] else int(digits[:40] or "0")
    if match[1] == "-":
        value = -value
    limit = INTEGER_LIMITS[pg_type.name]
    if not -limit <= value < limit:
        raise OutOfRange(f'value "{text}" is out of range for type {pg_type.title}')
    return value


def parse_unsigned(text: str, pg_type: PgType) -> int:
    """Return the number of 32 bits that *text* is, as oid and xid have them."""
    match = _INTEGER.match(text)
    if match is None or match[3]:
        raise InvalidText(f'invalid input syntax for type {pg_type.title}: "{text}"')
    value = int(match[2].lstrip("0")[:20] or "0")
    if match[1] == "-":
        value = (1 << 32) - value
    if not 0 <= value < 1 << 32:
        raise OutOfRange(f'value "{text}" is out of range for type {pg_type.title}')
    return value


def parse_numeric(text: str) -> Decimal:
    """Return the numeric that *text* is."""
    match = _NUMERIC.match(text)
    if match is None:
        if text.strip().lower().lstrip("+-") in _SPECIAL:
            raise NotSupported(f'numeric "{text.strip()}" is not supported')
        raise InvalidText(f'invalid input syntax for type numeric: "{text}"')
    if len(match[1]) > MAX_DIGITS:
        raise OutOfRange("value overflows numeric format")
    return checked(_plain(Decimal(match[1])))


def _plain(value: Decimal) -> Decimal:
    """Return a value with its digits written out: 1E+3 as 1000."""
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent > 0:
        if exponent > MAX_DIGITS:
            raise OutOfRange("value overflows numeric format")
        return value.quantize(Decimal(1), context=_CONTEXT)
    return value


def checked(value: Decimal) -> Decimal:
    """
    Return *value* if it is a numeric.

    :raises OutOfRange: it has too many digits.
    """
    if not value.is_finite() or value.adjusted() > MAX_DIGITS or digits_behind(value) > MAX_DIGITS:
        raise OutOfRange("value overflows numeric format")
    return value


def digits_behind(value: Decimal) -> int:
    """Return how many digits a numeric has behind its point."""
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def numeric_text(value: Decimal) -> str:
    """Return a numeric as PostgreSQL prints it."""
    return f"{abs(value) if value.is_zero() else value:f}"


def rounded(value: Decimal, digits: int, rounding: str = ROUND_HALF_UP) -> Decimal:
    """Return *value* with so many digits behind the point, or zeros before it."""
    digits = max(-MAX_DIGITS, min(digits, MAX_DIGITS))
    if digits >= 0:
        return value.quantize(Decimal(1).scaleb(-digits), rounding=rounding, context=_CONTEXT)
    if value.adjusted() < -digits - 1:
        return Decimal(0)
    unit = Decimal(1).scaleb(-digits)
    return _plain(value.quantize(unit, rounding=rounding, context=_CONTEXT))


def fit(value: Decimal, modifiers: tuple[int, ...]) -> Decimal:
    """Return *value* as ``numeric(precision, scale)`` has it."""
    precision, digits = modifiers[0], modifiers[1] if len(modifiers) > 1 else 0
    if not 1 <= precision <= MAX_DIGITS:
        raise InvalidModifier(f"NUMERIC precision {precision} must be between 1 and {MAX_DIGITS}")
    value = rounded(value, digits)
    if not value.is_zero() and value.adjusted() >= precision - digits:
        whole = precision - digits
        raise OutOfRange(
            "numeric field overflow",
            detail=f"A field with precision {precision}, scale {digits} must round to an absolute value less"
            f" than {f'10^{whole}' if whole else '1'}.",
        )
    return value


class InvalidModifier(OutOfRange, sqlstate="22023"):
    """A type cannot have this modifier."""


# Arithmetic


def add(left: Decimal, right: Decimal) -> Decimal:
    """Return the sum."""
    return checked(_CONTEXT.add(left, right))


def subtract(left: Decimal, right: Decimal) -> Decimal:
    """Return the difference."""
    return checked(_CONTEXT.subtract(left, right))


def multiply(left: Decimal, right: Decimal) -> Decimal:
    """Return the product, with the digits of both."""
    return checked(_CONTEXT.multiply(left, right))


def _weight(value: Decimal) -> tuple[int, int]:
    """Return the place and the content of the first digit of base 10000."""
    if value.is_zero():
        return 0, 0
    weight = value.adjusted() // 4
    first = int(abs(value).scaleb(-4 * weight, context=_CONTEXT))
    return weight, first


def divide(left: Decimal, right: Decimal) -> Decimal:
    """
    Return the quotient, with at least sixteen significant digits.

    :raises DivisionByZero: *right* is 0.
    """
    if right.is_zero():
        raise DivisionByZero("division by zero")
    weight, first = _weight(left)
    weight_right, first_right = _weight(right)
    quotient_weight = weight - weight_right - (first <= first_right)
    scale = max(_MIN_DIVISION_DIGITS - quotient_weight * 4, digits_behind(left), digits_behind(right), 0)
    quotient = _CONTEXT.divide(left, right)
    return checked(rounded(quotient, min(scale, MAX_DIGITS)))


def remainder(left: Decimal, right: Decimal) -> Decimal:
    """Return what is left of a division, with the sign of *left*."""
    if right.is_zero():
        raise DivisionByZero("division by zero")
    try:
        return checked(_CONTEXT.remainder(left, right))
    except InvalidOperation:  # more digits between them than we have
        raise OutOfRange("value overflows numeric format") from None


def check_integer(value: int, pg_type: PgType) -> int:
    """
    Return *value* if the type has it.

    :raises OutOfRange: it has not.
    """
    limit = INTEGER_LIMITS[pg_type.name]
    if not -limit <= value < limit:
        raise OutOfRange(f"{pg_type.title} out of range")
    return value


def divide_integers(left: int, right: int) -> int:
    """Return the quotient without what is behind the point."""
    if right == 0:
        raise DivisionByZero("division by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def remainder_of_integers(left: int, right: int) -> int:
    """Return what is left of that division."""
    return left - divide_integers(left, right) * right


# Floating point


def parse_float(text: str, pg_type: PgType) -> float:
    """Return the floating point number that *text* is."""
    match = _NUMERIC.match(text)
    if match is None:
        word = text.strip().lower()
        special = _SPECIAL.get(word.lstrip("+-"))
        if special is None:
            raise InvalidText(f'invalid input syntax for type {pg_type.title}: "{text}"')
        return -special if word.startswith("-") else special
    value = float(match[1])
    if math.isinf(value) or (value == 0 and match[1].strip("+-0.eE")[:1] in set("123456789")):
        raise OutOfRange(f'"{text.strip()}" is out of range for type {pg_type.title}')
    return check_float(value, pg_type)


def check_float(value: float, pg_type: PgType) -> float:
    """
    Return *value* in the precision of the type.

    :raises OutOfRange: real has no number that large.
    """
    if pg_type.name == "float8" or not math.isfinite(value):
        return value
    if abs(value) > _MAX_FLOAT4:
        raise OutOfRange("value out of range: overflow")
    return _float4(value)


def _float4(value: float) -> float:
    number: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    return number


def finite(value: float, *operands: float) -> float:
    """
    Return the result of an operation on *operands*.

    :raises OutOfRange: it has become infinite.
    """
    if math.isinf(value) and not any(map(math.isinf, operands)):
        raise OutOfRange("value out of range: overflow")
    return value


def float_text(value: float, pg_type: PgType) -> str:
    """Return a floating point number in the fewest digits that say which it is."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    digits = repr(value)
    if pg_type.name == "float4":
        digits = next(text for count in range(1, 10) if _float4(float(text := f"{value:.{count}g}")) == value)
    sign, number, exponent = Decimal(digits).normalize().as_tuple()
    assert isinstance(exponent, int), "it is finite"
    text = "".join(map(str, number))
    point = len(text) + exponent
    minus = "-" if sign or math.copysign(1, value) < 0 else ""
    limit = _FLOAT8_DIGITS if pg_type.name == "float8" else 6
    if value == 0:
        return f"{minus}0"
    if _MIN_FLOAT_POINT < point <= limit:
        if point <= 0:
            return f"{minus}0.{'0' * -point}{text}"
        whole = text.ljust(point, "0")
        return minus + (f"{whole[:point]}.{whole[point:]}" if len(whole) > point else whole)
    mantissa = f"{text[0]}.{text[1:]}" if len(text) > 1 else text
    return f"{minus}{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1):02}"


def divide_floats(left: float, right: float) -> float:
    """Return the quotient."""
    if right == 0:
        raise DivisionByZero("division by zero")
    return finite(left / right, left)


def numeric_of_float(value: float, pg_type: PgType) -> Decimal:
    """Return a floating point number as numeric, with the digits that are its own."""
    if not math.isfinite(value):
        raise NotSupported("numeric infinity and NaN are not supported")
    return _plain(Decimal(f"{value:.{6 if pg_type.name == 'float4' else _FLOAT8_DIGITS}g}"))
