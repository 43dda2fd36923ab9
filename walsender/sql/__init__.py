"""
SQL queries as PostgreSQL answers them, over rows that are given: no I/O, no server, no Twisted.

`parse_statements` makes a text into statements, `prepared` makes a query ready to be run.  Whatever text
comes in, what comes out is rows or a `walsender.errors.WalsenderError`, within the bounds of a `Budget`.
"""

from __future__ import annotations

from .budget import Budget
from .codecs import binary_of, from_binary, has_binary, parse, text_of
from .engine import Prepared, prepared
from .environment import Action, Column, Environment, Function, Relation
from .errors import SqlError
from .nodes import (
    Discard,
    Query,
    Reset,
    SetParameter,
    Show,
    Statement,
    Transaction,
    Unsupported,
)
from .parser import parse_statements
from .types import BY_OID, PgType, find_type

__all__ = [
    "BY_OID",
    "Action",
    "Budget",
    "Column",
    "Discard",
    "Environment",
    "Function",
    "PgType",
    "Prepared",
    "Query",
    "Relation",
    "Reset",
    "SetParameter",
    "Show",
    "SqlError",
    "Statement",
    "Transaction",
    "Unsupported",
    "binary_of",
    "find_type",
    "from_binary",
    "has_binary",
    "parse",
    "parse_statements",
    "prepared",
    "text_of",
]
