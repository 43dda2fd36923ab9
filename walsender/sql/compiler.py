"""From an expression's tree to what computes it, with PostgreSQL's types.

Nothing is computed before it is needed: of CASE, COALESCE, AND and OR only what is asked for.
"""

from __future__ import annotations

from typing import Any

from .calls import CallCompiler
from .casts import with_modifiers
from .errors import (
    CannotCoerce,
    SqlSyntaxError,
)
from .nodes import (
    ArrayItems,
    Call,
    Case,
    Cast,
    ColumnName,
    Constant,
    Distinct,
    Expression,
    InList,
    Logic,
    Operation,
    Parameter,
    Quantified,
    Star,
    Subquery,
    Test,
)
from .scope import Frame, Scope, Typed
from .types import (
    BPCHAR,
)


class ExpressionCompiler(CallCompiler):
    """Compiles the expressions of one statement, for one run of it."""

    def _compile(self, node: Expression, scope: Scope) -> Typed:
        match node:
            case Constant():
                return self._constant(node)
            case Parameter():
                return self._parameter(node)
            case ColumnName():
                return self._column(node, scope)
            case Cast():
                return self._cast(node, scope)
            case Operation():
                return self._operation(node, scope)
            case Logic():
                return self._logic(node, scope)
            case Test():
                return self._test(node, scope)
            case Distinct():
                return self._distinct(node, scope)
            case InList():
                return self._in_list(node, scope)
            case Quantified():
                return self._quantified(node, scope)
            case Subquery():
                return self._subquery(node, scope)
            case ArrayItems():
                return self._array(node, scope)
            case Case():
                return self._case(node, scope)
            case Call():
                return self._call(node, scope)
            case Star():
                raise SqlSyntaxError('row expansion via "*" is not supported here', node.at + 1)

    def _column(self, node: ColumnName, scope: Scope) -> Typed:
        depth, index, pg_type = scope.find(node.names, node.at)
        self._lowest_level = min(self._lowest_level, scope.level - depth)
        if depth == 0:
            return Typed(pg_type, lambda frame: frame.row[index])

        def value(frame: Frame) -> Any:
            for _ in range(depth):
                assert frame.outer is not None, "there are as many frames as scopes"
                frame = frame.outer
            return frame.row[index]

        return Typed(pg_type, value)

    def _cast(self, node: Cast, scope: Scope) -> Typed:
        target = self.type_of(node.type)
        operand = self.expression(node.operand, scope)
        found = self.coerced(operand, target, node.operand.at, explicit=True)
        if found is None:
            raise CannotCoerce(f"cannot cast type {operand.type.title} to {target.title}", node.at + 1)
        modifiers = node.type.modifiers or ((1,) if target is BPCHAR else ())
        if not modifiers:
            return found
        environment, fit, inner = self._environment, with_modifiers(target, modifiers), found.value

        def value(frame: Frame) -> Any:
            unfit = inner(frame)
            return None if unfit is None else environment.budget.made(fit(environment, unfit))

        return Typed(target, value)

    def _operation(self, node: Operation, scope: Scope) -> Typed:
        left = None if node.left is None else self.expression(node.left, scope)
        right = self.expression(node.right, scope)
        return self._operator(node.operator, left, right, node.at)
