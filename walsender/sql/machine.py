"""
Machines that look for something in a text: states that are all followed at once, character by character.

The method: Ken Thompson, "Regular Expression Search Algorithm", 1968.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .errors import InvalidRegularExpression

if TYPE_CHECKING:
    from collections.abc import Callable

    from .budget import Budget

_MAX_STATES: Final = 5000


@dataclass(slots=True, eq=False)
class State:
    """
    One state of a machine.

    :ivar accepts: whether a character leads on; ``None``: none is needed.
    :ivar anchor: ``^`` or ``$`` if the place decides whether it leads on; ``(`` or ``)`` where the first
        group begins or ends.
    """

    accepts: Callable[[str], bool] | None = None
    anchor: str = ""
    following: list[State] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the machine with one way in and one way out."""

    begin: State
    end: State


class Pattern:
    """
    A machine that says whether a text has what it looks for.

    :ivar has_group: there are parentheses that are to be looked for.
    :ivar is_vague: somewhere the shortest is wanted, or the group comes again, so that
        `walsender.sql.pattern_search` cannot tell where it matches.
    """

    def __init__(
        self, begin: State, end: State, *, everywhere: bool, has_group: bool = False, is_vague: bool = False
    ) -> None:
        self.begin = begin
        self.end = end
        self.has_group = has_group
        self.is_vague = is_vague
        self._everywhere = everywhere  # it may begin anywhere

    def matches(self, text: str, budget: Budget) -> bool:
        """Return whether *text* has it; a machine that must begin at the beginning must end at the end."""
        current: dict[State, None] = {}
        self._enter(self.begin, current, 0, len(text))
        for place, char in enumerate(text):
            if self._everywhere and self.end in current:
                return True
            budget.step(len(current) + 1)
            following: dict[State, None] = {}
            for state in current:
                if state.accepts is not None and state.accepts(char):
                    for after in state.following:
                        self._enter(after, following, place + 1, len(text))
            if self._everywhere:
                self._enter(self.begin, following, place + 1, len(text))
            if not following:
                return False
            current = following
        return self.end in current

    @staticmethod
    def _enter(state: State, entered: dict[State, None], place: int, length: int) -> None:
        """Enter a state and all that need no character to be reached from it."""
        waiting = [state]
        while waiting:
            one = waiting.pop()
            if one in entered:
                continue
            if (one.anchor == "^" and place != 0) or (one.anchor == "$" and place != length):
                continue
            entered[one] = None
            if one.accepts is None:
                waiting += one.following


def any_character(_: str) -> bool:
    """Accept whatever it is."""
    return True


class Builder:
    """Makes states, and not too many."""

    def __init__(self, *, ignore_case: bool) -> None:
        self._ignore_case = ignore_case
        self._count = 0

    def state(self, accepts: Callable[[str], bool] | None = None, anchor: str = "") -> State:
        """Return a new state."""
        self._count += 1
        if self._count > _MAX_STATES:
            raise InvalidRegularExpression("invalid regular expression: regular expression is too complex")
        return State(accepts, anchor)

    def one(self, accepts: Callable[[str], bool]) -> Part:
        """Return the part that takes one character."""
        begin, end = self.state(accepts), self.state()
        begin.following.append(end)
        return Part(begin, end)

    def character(self, char: str) -> Part:
        """Return the part that takes *char*."""
        if self._ignore_case:
            lower, upper = char.lower(), char.upper()
            return self.one(lambda other: other in {char, lower, upper})
        return self.one(char.__eq__)
