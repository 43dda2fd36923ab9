"""What surrounds a statement while it runs: its bounds, time and parameters, what it may call and read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any

from .budget import Budget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .types import PgType


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a relation or of a result."""

    name: str
    type: PgType


@dataclass(frozen=True, slots=True)
class Relation:
    """
    What a query reads.

    :ivar rows: gives its rows, each with as many values as there are columns.
    """

    columns: tuple[Column, ...]
    rows: Callable[[], Iterable[Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class Function:
    """
    A function of certain types.

    :ivar arguments: their types.
    :ivar call: is given the environment, then the values.
    :ivar strict: it is NULL if an argument is, and is not called then.
    :ivar optional: how many arguments at the end may be missing.
    :ivar variadic: the last argument may come again.
    :ivar columns: it gives rows, with these columns.
    :ivar is_action: it changes something, and is not called while the query runs (see `Action`).
    """

    name: str
    arguments: tuple[PgType, ...]
    result: PgType
    call: Callable[..., Any]
    strict: bool = True
    optional: int = 0
    variadic: bool = False
    columns: tuple[Column, ...] = ()
    is_action: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """
    In a row of a result: a function that is to be called now, once, and its result put in this place.

    :ivar arguments: their values.
    """

    function: Function
    arguments: tuple[Any, ...]


def _no_relation(_: str) -> Relation | None:
    return None


@dataclass(slots=True)
class Environment:
    """
    Of one statement.

    :ivar now: microseconds since 2000: what ``now()`` is.
    :ivar zone: of times that are read or printed.
    :ivar relation: finds one by its name, before which there is the schema's unless that is ``pg_catalog``.
    :ivar relations_hint: what there are, for who asks for another.
    :ivar functions: those of the server, by name, beside those that are the same everywhere.
    :ivar parameter_types: of ``$1`` and so on, as far as they are known; what a query tells of them is added.
    :ivar parameters: their values.
    :ivar action_row: what the action behind FROM has given.
    """

    now: int
    budget: Budget = field(default_factory=Budget)
    zone: tzinfo = UTC
    relation: Callable[[str], Relation | None] = _no_relation
    functions: Mapping[str, Sequence[Function]] = field(default_factory=dict)
    parameter_types: list[PgType | None] = field(default_factory=list)
    parameters: Sequence[Any] = ()
    action_row: tuple[Any, ...] = ()
    relations_hint: str | None = None
