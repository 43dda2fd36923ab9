"""
Statements as trees.

Two expressions are equal if they say the same, wherever they stand: that is how GROUP BY knows its
expressions again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class TypeName:
    """
    A type as a query names it.

    :ivar name: PostgreSQL's internal name (``int4``).
    :ivar modifiers: numbers in parentheses.
    """

    name: str
    modifiers: tuple[int, ...] = ()
    is_array: bool = False
    at: int = field(default=0, compare=False)


# Expressions; *at* is where the word is that an error would point to, counted from 0.


@dataclass(frozen=True, slots=True)
class Constant:
    """
    A literal.

    :ivar kind: ``string``, ``number``, ``bool`` or ``null``.
    """

    kind: str
    text: str = ""
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Parameter:
    """``$1``."""

    number: int
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ColumnName:
    """``name``, ``relation.name`` or ``schema.relation.name``."""

    names: tuple[str, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Star:
    """``*`` or ``relation.*``."""

    relation: str | None
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """
    A function with its arguments.

    :ivar is_star: ``count(*)``.
    :ivar order: of an aggregate's input.
    :ivar title: what the column is called if the function is not.
    """

    name: str
    arguments: tuple[Expression, ...] = ()
    is_star: bool = False
    distinct: bool = False
    order: tuple[SortKey, ...] = ()
    where: Expression | None = None
    title: str = ""
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Cast:
    """``CAST (operand AS type)``, ``operand::type``, ``type 'text'``."""

    operand: Expression
    type: TypeName
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator; *left* is ``None`` if it stands in front."""

    operator: str
    left: Expression | None
    right: Expression
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Logic:
    """``AND``, ``OR`` of two or more, ``NOT`` of one."""

    word: str
    operands: tuple[Expression, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Test:
    """``operand IS [NOT] what``: ``null``, ``true``, ``false`` or ``unknown``."""

    operand: Expression
    what: str
    negated: bool
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Distinct:
    """``left IS [NOT] DISTINCT FROM right``."""

    left: Expression
    right: Expression
    negated: bool
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class InList:
    """``operand [NOT] IN (item, …)``."""

    operand: Expression
    items: tuple[Expression, ...]
    negated: bool
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Quantified:
    """
    ``operand operator ANY|ALL (source)``.

    :ivar source: a query, or an expression that is an array.
    """

    operand: Expression
    operator: str
    is_all: bool
    source: Query | Expression
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Subquery:
    """``(query)``, ``EXISTS (query)`` or ``ARRAY (query)``; *kind* is ``scalar``, ``exists`` or ``array``."""

    kind: str
    query: Query
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ArrayItems:
    """``ARRAY[item, …]``."""

    items: tuple[Expression, ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Case:
    """``CASE [operand] WHEN … THEN … ELSE … END``."""

    operand: Expression | None
    branches: tuple[tuple[Expression, Expression], ...]
    otherwise: Expression | None
    at: int = field(default=0, compare=False)


Expression: TypeAlias = (
    Constant
    | Parameter
    | ColumnName
    | Star
    | Call
    | Cast
    | Operation
    | Logic
    | Test
    | Distinct
    | InList
    | Quantified
    | Subquery
    | ArrayItems
    | Case
)


@dataclass(frozen=True, slots=True)
class SortKey:
    """
    One of ORDER BY.

    :ivar nulls_first: ``None``: as PostgreSQL does, last if ascending.
    """

    expression: Expression
    descending: bool = False
    nulls_first: bool | None = None


# What stands behind FROM.


@dataclass(frozen=True, slots=True)
class TableName:
    """A relation by its name."""

    names: tuple[str, ...]
    alias: str = ""
    columns: tuple[str, ...] = ()
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class TableFunction:
    """A function that gives rows."""

    call: Call
    alias: str = ""
    columns: tuple[str, ...] = ()
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class TableQuery:
    """A query in parentheses."""

    query: Query
    alias: str = ""
    columns: tuple[str, ...] = ()
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Join:
    """
    Two of these.

    :ivar kind: ``inner``, ``left``, ``right``, ``full`` or ``cross``.
    """

    kind: str
    left: TableExpression
    right: TableExpression
    on: Expression | None = None
    using: tuple[str, ...] = ()
    natural: bool = False
    at: int = field(default=0, compare=False)


TableExpression: TypeAlias = TableName | TableFunction | TableQuery | Join


# Queries.


@dataclass(frozen=True, slots=True)
class SelectItem:
    """One expression of a select list; *alias* is empty if it has none."""

    expression: Expression
    alias: str = ""


@dataclass(frozen=True, slots=True)
class Select:
    """
    ``SELECT`` up to HAVING.

    :ivar distinct: ``DISTINCT``.
    """

    items: tuple[SelectItem, ...]
    tables: tuple[TableExpression, ...] = ()
    where: Expression | None = None
    groups: tuple[Expression, ...] | None = None
    having: Expression | None = None
    distinct: bool = False
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Values:
    """``VALUES (…), …``."""

    rows: tuple[tuple[Expression, ...], ...]
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class SetOperation:
    """``UNION``, ``INTERSECT`` or ``EXCEPT``, in lower case."""

    operator: str
    keep_duplicates: bool
    left: Query
    right: Query
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class CommonTable:
    """One of WITH."""

    name: str
    columns: tuple[str, ...]
    query: Query
    at: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Query:
    """A whole query."""

    body: Select | Values | SetOperation | Query
    common: tuple[CommonTable, ...] = ()
    order: tuple[SortKey, ...] = ()
    limit: Expression | None = None
    offset: Expression | None = None


# Other statements.


@dataclass(frozen=True, slots=True)
class Show:
    """``SHOW name``; *name* ``all``: every one."""

    name: str


@dataclass(frozen=True, slots=True)
class SetParameter:
    """
    ``SET [LOCAL] name TO value, …``.

    :ivar values: ``None``: the default.
    """

    name: str
    values: tuple[str, ...] | None
    is_local: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """``RESET name``; *name* ``all``: every one."""

    name: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """
    What begins, ends or parts a transaction.

    :ivar command: ``begin``, ``start transaction``, ``commit``, ``rollback``, ``savepoint``, ``release``,
        ``rollback to`` or ``set`` (its characteristics).
    :ivar name: of the savepoint.
    :ivar read_write: it asks to write.
    """

    command: str
    name: str = ""
    read_write: bool = False


@dataclass(frozen=True, slots=True)
class Discard:
    """
    ``DISCARD``, ``DEALLOCATE``, ``CLOSE`` or ``UNLISTEN``.

    :ivar tag: of the CommandComplete.
    :ivar name: of a prepared statement; empty: all.
    :ivar everything: ``DISCARD ALL``: parameters too.
    """

    tag: str
    name: str = ""
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A statement of PostgreSQL that is none here, and its tag."""

    tag: str


Statement: TypeAlias = Query | Show | SetParameter | Reset | Transaction | Discard | Unsupported
