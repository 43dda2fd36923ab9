"""
The types that expressions have, as PostgreSQL's catalog describes them.

A value is held as Python's own: ``int`` (also for oid, xid, pg_lsn and, in microseconds since 2000-01-01 UTC,
for times), ``float``, ``Decimal``, ``bool``, ``str``, `walsender.sql.times.Interval`, an interface of
`ipaddress` for inet, ``tuple`` for arrays; ``None`` is NULL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class PgType:
    """
    One type.

    :ivar name: internal, as ``typname``.
    :ivar title: as ``format_type`` prints it.
    :ivar length: as ``typlen``.
    :ivar category: as ``typcategory``.
    :ivar preferred: as ``typispreferred``.
    :ivar element: name of the type of an array's items; empty: it is no array.
    """

    name: str
    title: str
    oid: int
    length: int
    category: str
    preferred: bool = False
    element: str = ""

    @property
    def is_unknown(self) -> bool:
        """Whether it is the type of a literal that has none yet."""
        return self.name == "unknown"

    @property
    def is_number(self) -> bool:
        """Whether it is one that arithmetic is done with."""
        return self.name in NUMBERS


BOOL: Final = PgType("bool", "boolean", 16, 1, "B", preferred=True)
NAME: Final = PgType("name", "name", 19, 64, "S")
INT8: Final = PgType("int8", "bigint", 20, 8, "N")
INT2: Final = PgType("int2", "smallint", 21, 2, "N")
INT4: Final = PgType("int4", "integer", 23, 4, "N")
TEXT: Final = PgType("text", "text", 25, -1, "S", preferred=True)
OID: Final = PgType("oid", "oid", 26, 4, "N", preferred=True)
XID: Final = PgType("xid", "xid", 28, 4, "U")
FLOAT4: Final = PgType("float4", "real", 700, 4, "N")
FLOAT8: Final = PgType("float8", "double precision", 701, 8, "N", preferred=True)
UNKNOWN: Final = PgType("unknown", "unknown", 705, -2, "X")
INET: Final = PgType("inet", "inet", 869, -1, "I", preferred=True)
BPCHAR: Final = PgType("bpchar", "character", 1042, -1, "S")
VARCHAR: Final = PgType("varchar", "character varying", 1043, -1, "S")
DATE: Final = PgType("date", "date", 1082, 4, "D")
TIMESTAMP: Final = PgType("timestamp", "timestamp without time zone", 1114, 8, "D")
TIMESTAMPTZ: Final = PgType("timestamptz", "timestamp with time zone", 1184, 8, "D", preferred=True)
INTERVAL: Final = PgType("interval", "interval", 1186, 16, "T", preferred=True)
NUMERIC: Final = PgType("numeric", "numeric", 1700, -1, "N")
REGTYPE: Final = PgType("regtype", "regtype", 2206, 4, "N")
ANY: Final = PgType("any", '"any"', 2276, 4, "P")
VOID: Final = PgType("void", "void", 2278, 4, "P")
RECORD: Final = PgType("record", "record", 2249, -1, "P")
PG_LSN: Final = PgType("pg_lsn", "pg_lsn", 3220, 8, "U")
TEXT_ARRAY: Final = PgType("_text", "text[]", 1009, -1, "A", element="text")
NAME_ARRAY: Final = PgType("_name", "name[]", 1003, -1, "A", element="name")
INT2_ARRAY: Final = PgType("_int2", "smallint[]", 1005, -1, "A", element="int2")
INT4_ARRAY: Final = PgType("_int4", "integer[]", 1007, -1, "A", element="int4")
INT8_ARRAY: Final = PgType("_int8", "bigint[]", 1016, -1, "A", element="int8")

ALL: Final = (
    *(
        BOOL,
        NAME,
        INT8,
        INT2,
        INT4,
        TEXT,
        OID,
        XID,
        FLOAT4,
        FLOAT8,
        UNKNOWN,
        INET,
        BPCHAR,
        VARCHAR,
        DATE,
        TIMESTAMP,
    ),
    *(TIMESTAMPTZ, INTERVAL, NUMERIC, REGTYPE, ANY, VOID, RECORD, PG_LSN),
    *(TEXT_ARRAY, NAME_ARRAY, INT2_ARRAY, INT4_ARRAY, INT8_ARRAY),
)
BY_NAME: Final[Mapping[str, PgType]] = {one.name: one for one in ALL}
BY_OID: Final[Mapping[int, PgType]] = {one.oid: one for one in ALL}

ORDER_OF_NUMBERS: Final = ("int2", "int4", "int8", "numeric", "float4", "float8")
"""Each converts by itself to those behind it."""
NUMBERS: Final = frozenset(ORDER_OF_NUMBERS)
INTEGER_LIMITS: Final = {"int2": 1 << 15, "int4": 1 << 31, "int8": 1 << 63}


def find_type(name: str) -> PgType | None:
    """Return the type of an internal name that expressions can have."""
    return BY_NAME.get(name)


def array_of(element: PgType) -> PgType | None:
    """Return the type of arrays of *element*."""
    return next((one for one in ALL if one.element == element.name), None)
