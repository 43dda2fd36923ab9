"""`prepared`: a query, made ready for one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import TooComplex
from .queries import QueryCompiler
from .types import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .environment import Action, Column, Environment
    from .nodes import Query


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    A query that can be run, once.

    :ivar columns: of its result.
    :ivar source_action: gives what must be done before it is run; its result is the environment's
        ``action_row`` then.
    """

    columns: tuple[Column, ...]
    source_action: Callable[[], Action] | None
    _rows: Callable[[], Sequence[Sequence[Any]]]

    def rows(self) -> Sequence[Sequence[Any]]:
        """
        Return its rows.

        :raises SqlError: something cannot be computed, or the budget is used up.
        """
        try:
            return self._rows()
        except RecursionError:
            raise TooComplex("stack depth limit exceeded") from None


def prepared(query: Query, environment: Environment) -> Prepared:
    """
    Return *query*, ready to be run in *environment*, whose parameters all have a type then.

    :raises SqlError: it is wrong.
    """
    compiler = QueryCompiler(environment)
    try:
        plan = compiler.top_plan(query)
    except RecursionError:
        raise TooComplex("stack depth limit exceeded") from None
    types = environment.parameter_types
    types[:] = [TEXT if one is None else one for one in types]
    return Prepared(plan.columns, compiler.source_action, lambda: plan.rows(None))
