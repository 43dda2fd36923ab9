"""
Values to and from text and PostgreSQL's binary format.

Binary results are for the types that drivers ask for in binary; for others it is refused.
"""

from __future__ import annotations

import ipaddress
import math
import struct
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from walsender.errors import InvalidLSN
from walsender.lsn import LSN
from walsender.wire import cut_name, decode_text, encode_text

from .errors import InvalidBinary, InvalidDatetime, InvalidText, NotSupported
from .numbers import (
    float_text,
    numeric_text,
    parse_float,
    parse_integer,
    parse_numeric,
    parse_unsigned,
)
from .times import date_text, interval_text, parse_date, parse_interval, parse_time, time_text
from .types import BY_NAME, BY_OID, PgType

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

_TRUE: Final = ("true", "yes", "on", "1", "t", "tr", "tru", "y", "ye")
_FALSE: Final = ("false", "no", "off", "0", "f", "fa", "fal", "fals", "n", "of")
_LONGEST: Final = 4096  # characters of a text that may be a value of something else; blanks count, too
_SHOWN: Final = 100
_TIMES: Final = frozenset(("date", "timestamp", "timestamptz", "interval"))
_PLAIN_ITEM: Final = frozenset('{},"\\ \t\n\r\f\v')


def parse(text: str, pg_type: PgType, zone: tzinfo, now: int) -> Any:
    """
    Return the value of a type that *text* is.

    :param now: the time that ``now`` means.
    :raises SqlError: it is none.
    """
    match pg_type.name:
        case "text" | "varchar" | "unknown" | "any":
            return text
        case "name":
            return cut_name(text)
        case "bpchar":
            return text
    if pg_type.element:
        return _parse_array(text, BY_NAME[pg_type.element], zone, now)
    if len(text) > _LONGEST:
        refusal = InvalidDatetime if pg_type.name in _TIMES else InvalidText
        raise refusal(f'invalid input syntax for type {pg_type.title}: "{text[:_SHOWN]}…"')
    match pg_type.name:
        case "bool":
            return _parse_bool(text)
        case "int2" | "int4" | "int8":
            return parse_integer(text, pg_type)
        case "oid" | "xid":
            return parse_unsigned(text, pg_type)
        case "numeric":
            return parse_numeric(text)
        case "float4" | "float8":
            return parse_float(text, pg_type)
        case "pg_lsn":
            try:
                return int(LSN.parse(text))
            except InvalidLSN as error:
                raise InvalidText(error.message) from None
        case "timestamptz":
            return parse_time(text, zone, now, pg_type.title)
        case "timestamp":
            return parse_time(text, None, now, pg_type.title)
        case "date":
            return parse_date(text, now, zone)
        case "interval":
            return parse_interval(text)
        case "inet":
            return _parse_inet(text)
    raise NotSupported(f"cannot read values of type {pg_type.title}")


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise InvalidText(f'invalid input syntax for type boolean: "{text}"')


def _parse_inet(text: str) -> object:
    try:
        return ipaddress.ip_interface(text.strip())
    except ValueError:
        raise InvalidText(f'invalid input syntax for type inet: "{text}"') from None


def _parse_array(text: str, element: PgType, zone: tzinfo, now: int) -> tuple[Any, ...]:
    """Return the items of ``{1,NULL,"a b"}``; there are no arrays in arrays here."""
    items: list[Any] = []
    inner = text.strip()
    if not (inner.startswith("{") and inner.endswith("}")) or len(inner) == 1:
        raise InvalidText(f'malformed array literal: "{text}"')
    inner = inner[1:-1].strip()
    place = 0
    while inner and place <= len(inner):
        word, place, quoted = _array_item(inner, place, text)
        items.append(None if not quoted and word.upper() == "NULL" else parse(word, element, zone, now))
    return tuple(items)


def _array_item(inner: str, place: int, text: str) -> tuple[str, int, bool]:
    """Return an item's text, where the next begins, and whether it was quoted."""
    word: list[str] = []
    quoted = inside = False
    while place < len(inner):
        char = inner[place]
        if char == "\\" and place + 1 < len(inner):
            place += 1
            word.append(inner[place])
        elif char == '"':
            quoted, inside = True, not inside
        elif char in "{}" and not inside:
            raise NotSupported("arrays of arrays are not supported")
        elif char == "," and not inside:
            break
        else:
            word.append(char)
        place += 1
    found = "".join(word)
    if inside or not (quoted or found.strip()):
        raise InvalidText(f'malformed array literal: "{text}"')
    return found if quoted else found.strip(), place + 1, quoted


def text_of(value: Any, pg_type: PgType, zone: tzinfo) -> str:
    """Return a value, which is not NULL, as PostgreSQL prints it."""
    if isinstance(value, str):
        return value
    match pg_type.name:
        case "bool":
            return "t" if value else "f"
        case "numeric":
            return numeric_text(value)
        case "float4" | "float8":
            return float_text(value, pg_type)
        case "pg_lsn":
            return str(LSN(value))
        case "timestamptz":
            return time_text(value, zone)
        case "timestamp":
            return time_text(value)
        case "date":
            return date_text(value)
        case "interval":
            return interval_text(value)
        case "regtype":
            return BY_OID[value].title
        case "inet":
            whole = value.network.prefixlen == value.max_prefixlen
            return str(value.ip) if whole else value.with_prefixlen
    if pg_type.element:
        element = BY_NAME[pg_type.element]
        return "{" + ",".join(_array_item_text(item, element, zone) for item in value) + "}"
    return str(value)


def _array_item_text(item: Any, element: PgType, zone: tzinfo) -> str:
    if item is None:
        return "NULL"
    text = text_of(item, element, zone)
    if text and text.upper() != "NULL" and not _PLAIN_ITEM.intersection(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_PACKED: Final[dict[str, struct.Struct]] = {
    "bool": struct.Struct("!?"),
    "int2": struct.Struct("!h"),
    "int4": struct.Struct("!i"),
    "int8": struct.Struct("!q"),
    "oid": struct.Struct("!I"),
    "xid": struct.Struct("!I"),
    "float4": struct.Struct("!f"),
    "float8": struct.Struct("!d"),
    "pg_lsn": struct.Struct("!Q"),
    "timestamptz": struct.Struct("!q"),
    "timestamp": struct.Struct("!q"),
    "date": struct.Struct("!i"),
}
_INTERVAL: Final = struct.Struct("!qii")
_NUMERIC_HEADER: Final = struct.Struct("!HhHH")
_TEXTS: Final = frozenset(("text", "varchar", "bpchar", "name", "unknown"))


def has_binary(pg_type: PgType) -> bool:
    """Return whether `binary_of` knows the type."""
    return (
        pg_type.name in _PACKED or pg_type.name in _TEXTS or pg_type.name in {"interval", "numeric", "void"}
    )


def binary_of(value: Any, pg_type: PgType) -> bytes:
    """Return a value, which is not NULL, in PostgreSQL's binary format; `has_binary` says of which types."""
    if isinstance(value, str):
        return encode_text(value)
    if (packed := _PACKED.get(pg_type.name)) is not None:
        return packed.pack(value)
    if pg_type.name == "interval":
        return _INTERVAL.pack(value.microseconds, value.days, value.months)
    assert isinstance(value, Decimal), "the others have been packed"
    return _binary_numeric(value)


def _binary_numeric(value: Decimal) -> bytes:
    """Return a numeric in digits of base 10000: their count, the first one's weight, sign, scale, digits."""
    text = numeric_text(abs(value))
    whole, _, fraction = text.partition(".")
    scale = len(fraction)
    whole = whole.lstrip("0")
    whole = whole.rjust(-(-len(whole) // 4) * 4, "0")
    fraction = fraction.ljust(-(-scale // 4) * 4, "0")
    digits = [int(piece) for piece in map("".join, zip(*[iter(whole + fraction)] * 4, strict=True))]
    weight = len(whole) // 4 - 1
    while digits and digits[0] == 0:
        digits.pop(0)
        weight -= 1
    while digits and digits[-1] == 0:
        digits.pop()
    header = _NUMERIC_HEADER.pack(len(digits), weight if digits else 0, 0x4000 if value < 0 else 0, scale)
    return header + struct.pack(f"!{len(digits)}H", *digits)


def from_binary(data: bytes, pg_type: PgType) -> Any:
    """
    Return the value that *data*, a parameter in binary, is.

    :raises InvalidBinary: it is none.
    :raises NotSupported: the type is not read in binary.
    """
    if pg_type.name in _TEXTS:
        return decode_text(data)
    packed = _PACKED.get(pg_type.name)
    if packed is None:
        raise NotSupported(f"binary parameters of type {pg_type.title} are not supported")
    if len(data) != packed.size:
        raise InvalidBinary("incorrect binary data format")
    return packed.unpack(data)[0]


def sort_key(pg_type: PgType) -> Callable[[Any], Any] | None:
    """Return what values of a type, NULL aside, are compared by; ``None``: by themselves."""
    match pg_type.name:
        case "interval":
            return lambda value: value.total
        case "inet":
            return lambda value: (
                value.version,
                int(value.network.network_address),
                value.network.prefixlen,
                int(value.ip),
            )
        case "float4" | "float8":
            return lambda value: (math.isnan(value), 0.0 if math.isnan(value) else value)
        case "bpchar":
            return lambda value: value.rstrip(" ")
    if pg_type.element:
        inner = sort_key(BY_NAME[pg_type.element]) or (lambda value: value)
        return lambda value: tuple((item is None, 0 if item is None else inner(item)) for item in value)
    return None
