"""What columns without an alias are called."""

from __future__ import annotations

from .nodes import (
    ArrayItems,
    Call,
    Case,
    Cast,
    ColumnName,
    Expression,
    Select,
    Subquery,
)


def title_of(node: Expression) -> tuple[str, int]:
    """
    Return what a column without an alias is called, and how much that says: 0 nothing, 1 something.

    Source: PostgreSQL, src/backend/parser/parse_target.c, FigureColnameInternal.
    """
    match node:
        case ColumnName():
            return node.names[-1], 2
        case Call() if node.name == "array_element":
            return title_of(node.arguments[0])
        case Call():
            return node.title or node.name, 2
        case Cast():
            title, strength = title_of(node.operand)
            return (title, strength) if strength > 1 else (node.type.name, 1)
        case Case():
            title, strength = ("", 0) if node.otherwise is None else title_of(node.otherwise)
            return (title, strength) if strength > 1 else ("case", 1)
        case ArrayItems():
            return "array", 2
        case Subquery():
            if node.kind != "scalar":
                return node.kind, 2
            body = node.query.body
            if isinstance(body, Select) and body.items:
                item = body.items[0]
                return (item.alias, 2) if item.alias else title_of(item.expression)
    return "", 0
