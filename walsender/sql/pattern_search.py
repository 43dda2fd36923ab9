"""
Where in a text a regular expression matches, and its first group: the leftmost, and of these the longest.

As in `walsender.sql.machine` all states are followed at once, each with the best way that leads to it, so
that the time is linear in the text; a budget is asked.  The best way is that which came first: states lead
on in the order in which they are wanted, as much as can be had before less.

The method: Rob Pike's, as in Russ Cox, "Regular Expression Matching: the Virtual Machine Approach", 2009.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .errors import NotSupported

if TYPE_CHECKING:
    from .budget import Budget
    from .machine import Pattern, State


class _Way(NamedTuple):
    """Where a match begins, and where its group begins and ends; ``None``: it does not, or not yet."""

    begin: int
    group: int | None = None
    end: int | None = None


def found(pattern: Pattern, text: str, budget: Budget) -> str | None:
    """
    Return what of *text* matches, or of that the first group if there is one; ``None``: nothing does.

    :raises NotSupported: somewhere the shortest is wanted, or the group is repeated.

    Source: PostgreSQL, src/backend/utils/adt/regexp.c, textregexsubstr.
    """
    if pattern.is_vague:
        raise NotSupported("non-greedy quantifiers and repeated groups are not supported in substring")
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
        for state, way in current.items():
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
    return None if way.group is None else text[way.group : way.end]


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
                by = _Way(by.begin, by.group, place)
        entered[one] = by
        if one.accepts is None:
            waiting += [(after, by) for after in reversed(one.following)]
