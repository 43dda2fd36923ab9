"""
Where in a text a regular expression matches, and its first group: the leftmost, and of these the longest.

As in `walsender.sql.machine` all states are followed at once, each with the best way that leads to it, so
that the time is linear in the text; a budget is asked.  Of two ways the one is better that begins earlier,
then the one whose group does, then the one whose group is longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .errors import NotSupported

if TYPE_CHECKING:
    from .budget import Budget
    from .machine import Pattern, State

_NOWHERE: Final = 1 << 60


class _Way(NamedTuple):
    """
    Where a match begins, where its group does, and the group's end; its end is negative, for sorting.

    The end of a group that is open counts as the furthest.
    """

    begin: int
    group: int = _NOWHERE
    end: int = -_NOWHERE


def found(pattern: Pattern, text: str, budget: Budget) -> str | None:
    """
    Return what of *text* matches, or of that the first group if there is one; ``None``: nothing does.

    :raises NotSupported: somewhere the shortest is wanted.

    Source: PostgreSQL, src/backend/utils/adt/regexp.c, textregexsubstr.
    """
    if pattern.is_lazy:
        raise NotSupported("non-greedy quantifiers are not supported in substring")
    best: tuple[_Way, int] | None = None
    current: dict[State, _Way] = {}
    for place in range(len(text) + 1):
        if best is None:
            _enter(pattern.begin, _Way(place), current, place, len(text), budget)
        way = current.get(pattern.end)
        if way is not None and (best is None or way.begin <= best[0].begin):
            best = way, place
        if place == len(text):
            break
        following: dict[State, _Way] = {}
        for state, way in sorted(current.items(), key=lambda one: one[1]):
            budget.step()
            if state.accepts is not None and state.accepts(text[place]):
                for after in state.following:
                    _enter(after, way, following, place + 1, len(text), budget)
        if not following and best is not None:
            break
        current = following
    if best is None:
        return None
    way, end = best
    if not pattern.has_group:
        return text[way.begin : end]
    return None if way.group == _NOWHERE else text[way.group : -way.end]


def _enter(
    state: State, way: _Way, entered: dict[State, _Way], place: int, length: int, budget: Budget
) -> None:
    """Enter a state and all that need no character, unless a better way has been there."""
    waiting = [(state, way)]
    while waiting:
        one, by = waiting.pop()
        if one in entered:
            continue
        budget.step()
        match one.anchor:
            case "^" if place != 0:
                continue
            case "$" if place != length:
                continue
            case "(":
                by = _Way(by.begin, place)
            case ")":
                by = _Way(by.begin, by.group, -place)
        entered[one] = by
        if one.accepts is None:
            waiting += [(after, by) for after in reversed(one.following)]
