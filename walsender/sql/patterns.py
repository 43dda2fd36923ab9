r"""
LIKE and regular expressions, in time linear in text and pattern.

A pattern becomes a small machine (`walsender.sql.machine`) whose states are all followed at once, so that no
pattern takes long, and a budget is asked on the way.  What a regular expression may have:
characters, ``.``, ``[…]``, ``\d \s \w`` and their opposites, ``^ $``, groups, ``|``, ``* + ?`` and
``{m,n}``, also with a ``?`` behind (which of several matches is taken does not matter to a yes or no).
Back references and lookaround are not supported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .errors import InvalidRegularExpression, NotSupported
from .machine import Builder, Part, Pattern, State, any_character

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_REPEAT: Final = 255
_MAX_DEPTH: Final = 50

_CLASSES: Final[dict[str, Callable[[str], bool]]] = {
    "d": str.isdigit,
    "s": str.isspace,
    "w": lambda char: char.isalnum() or char == "_",
    "alpha": str.isalpha,
    "digit": str.isdigit,
    "alnum": str.isalnum,
    "upper": str.isupper,
    "lower": str.islower,
    "space": str.isspace,
    "punct": lambda char: char.isprintable() and not char.isalnum() and not char.isspace(),
    "xdigit": lambda char: char in "0123456789abcdefABCDEF",
}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


def like_pattern(pattern: str, *, ignore_case: bool) -> Pattern:
    """
    Return the machine of a LIKE pattern.

    :raises InvalidEscape: it ends in a backslash.
    """
    builder = Builder(ignore_case=ignore_case)
    begin = end = State()
    place = 0
    while place < len(pattern):
        char = pattern[place]
        if char == "%":
            state = builder.state(any_character)
            state.following.append(state)
            loop_end = builder.state()
            end.following += [state, loop_end]
            state.following.append(loop_end)
            end = loop_end
        else:
            if char == "\\":
                place += 1
                if place == len(pattern):
                    raise InvalidEscape("LIKE pattern must not end with escape character")
                char = pattern[place]
                part = builder.character(char)
            else:
                part = builder.one(any_character) if char == "_" else builder.character(char)
            end.following.append(part.begin)
            end = part.end
        place += 1
    return Pattern(begin, end, everywhere=False)


class InvalidEscape(InvalidRegularExpression, sqlstate="22025"):
    """A LIKE pattern has a backslash with nothing behind it."""


class _Reader(Builder):
    """Reads a regular expression."""

    def __init__(self, pattern: str, *, ignore_case: bool) -> None:
        super().__init__(ignore_case=ignore_case)
        self._pattern = pattern
        self._place = 0
        self._depth = 0
        self._first_group: int | None = None  # its place
        self._is_vague = False

    def read(self) -> Pattern:
        """Return the machine of the whole."""
        part = self._alternatives()
        if self._place < len(self._pattern):
            raise _invalid("parentheses () not balanced")
        has_group = self._first_group is not None
        return Pattern(part.begin, part.end, everywhere=True, has_group=has_group, is_vague=self._is_vague)

    @property
    def _char(self) -> str:
        return self._pattern[self._place : self._place + 1]

    def _take(self, char: str) -> bool:
        found = self._char == char
        self._place += found
        return found

    def _alternatives(self) -> Part:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _invalid("regular expression is too complex")
        begin, end = self.state(), self.state()
        while True:
            part = self._sequence()
            begin.following.append(part.begin)
            part.end.following.append(end)
            if not self._take("|"):
                self._depth -= 1
                return Part(begin, end)

    def _sequence(self) -> Part:
        begin = end = self.state()
        while self._char not in {"", "|", ")"}:
            part = self._repeated()
            end.following.append(part.begin)
            end = part.end
        return Part(begin, end)

    def _repeated(self) -> Part:
        start = self._place
        part = self._atom()
        after_atom = self._place
        match self._char:
            case "*":
                low, high = 0, None
            case "+":
                low, high = 1, None
            case "?":
                low, high = 0, 1
            case "{":
                low, high = self._bounds()
                self._place -= 1
            case _:
                return part
        self._place += 1
        self._is_vague |= self._take("?")
        if self._first_group is not None and start < self._first_group and high != 1:
            self._is_vague = True
        if self._char and self._char in "*+?{":
            raise _invalid("quantifier operand invalid")
        after = self._place
        parts = [part]
        # Copies are read again: a part cannot be in two places.
        for _ in range(max(low, high or 0, 1) - 1):
            self._place = start
            parts.append(self._atom())
        assert self._place in {after_atom, after}, "an atom ends where it has ended before"
        self._place = after
        return self._chain(parts, low, unbounded=high is None) if high != 0 else self._nothing()

    def _nothing(self) -> Part:
        state = self.state()
        return Part(state, state)

    def _chain(self, parts: list[Part], low: int, *, unbounded: bool) -> Part:
        """Return *parts* one behind the other, of which *low* must match, and the last perhaps again."""
        begin, end = self.state(), self.state()
        last = begin
        for number, part in enumerate(parts):
            last.following.append(part.begin)  # first: as much as can be had
            if number >= low:
                last.following.append(end)
            last = part.end
        if unbounded:
            last.following.append(parts[-1].begin)
        last.following.append(end)
        return Part(begin, end)

    def _bounds(self) -> tuple[int, int | None]:
        close = self._pattern.find("}", self._place)
        text = self._pattern[self._place + 1 : close] if close >= 0 else "x"
        low, comma, high = text.partition(",")
        if not (low.isdecimal() and (not high or high.isdecimal()) and len(text) < 9):
            raise _invalid("invalid repetition count(s)")
        least, most = int(low), int(high) if high else None if comma else int(low)
        if max(least, most or 0) > _MAX_REPEAT or (most is not None and most < least):
            raise _invalid("invalid repetition count(s)")
        self._place = close + 1
        return least, most

    def _atom(self) -> Part:
        char = self._char
        self._place += 1
        match char:
            case "(":
                return self._group()
            case ".":
                return self.one(any_character)
            case "^" | "$":
                state = self.state(anchor=char)
                return Part(state, state)
            case "[":
                return self.one(self._bracket())
            case "\\":
                return self._escape()
            case "*" | "+" | "?" | "{":
                raise _invalid("quantifier operand invalid")
        return self.character(char)

    def _group(self) -> Part:
        place, captures = self._place, not self._take("?")
        if not captures and not self._take(":"):
            raise NotSupported("lookaround in regular expressions is not supported")
        if captures and self._first_group is None:
            self._first_group = place
        part = self._alternatives()
        if not self._take(")"):
            raise _invalid("parentheses () not balanced")
        if not captures or place != self._first_group:
            return part
        begin, end = self.state(anchor="("), self.state(anchor=")")
        begin.following.append(part.begin)
        part.end.following.append(end)
        return Part(begin, end)

    def _escape(self) -> Part:
        char = self._char
        if not char:
            raise _invalid("invalid escape \\ sequence")
        self._place += 1
        if char in "dsw":
            return self.one(_CLASSES[char])
        if char in "DSW":
            matches = _CLASSES[char.lower()]
            return self.one(lambda other: not matches(other))
        if char.isalnum() and char not in _ESCAPES:
            raise NotSupported(f"\\{char} in regular expressions is not supported")
        return self.character(_ESCAPES.get(char, char))

    def _bracket(self) -> Callable[[str], bool]:
        """Read what is behind ``[``."""
        negated = self._take("^")
        single: set[str] = set()
        ranges: list[tuple[str, str]] = []
        classes: list[Callable[[str], bool]] = []
        first = True
        while first or self._char != "]":
            first = False
            if not self._char:
                raise _invalid("brackets [] not balanced")
            if self._pattern.startswith("[:", self._place):
                close = self._pattern.find(":]", self._place)
                name = self._pattern[self._place + 2 : close]
                if close < 0 or name not in _CLASSES or len(name) == 1:
                    raise _invalid("invalid character class")
                classes.append(_CLASSES[name])
                self._place = close + 2
                continue
            if self._char == "\\" and self._pattern[self._place + 1 : self._place + 2] in {"d", "s", "w"}:
                classes.append(_CLASSES[self._pattern[self._place + 1]])
                self._place += 2
                continue
            low = self._bracket_character()
            if self._char == "-" and self._pattern[self._place + 1 : self._place + 2] not in {"]", ""}:
                self._place += 1
                high = self._bracket_character()
                if high < low:
                    raise _invalid("invalid character range")
                ranges.append((low, high))
            else:
                single.add(low)
        self._place += 1

        def has(char: str) -> bool:
            return (
                char in single
                or any(low <= char <= high for low, high in ranges)
                or any(matches(char) for matches in classes)
            )

        if self._ignore_case:
            return lambda char: (has(char.lower()) or has(char.upper())) is not negated
        return lambda char: has(char) is not negated

    def _bracket_character(self) -> str:
        char = self._char
        self._place += 1
        if char == "\\":
            char = self._char
            if not char:
                raise _invalid("brackets [] not balanced")
            self._place += 1
            return _ESCAPES.get(char, char)
        return char


def _invalid(reason: str) -> InvalidRegularExpression:
    return InvalidRegularExpression(f"invalid regular expression: {reason}")


def regular_expression(pattern: str, *, ignore_case: bool) -> Pattern:
    """
    Return the machine of a regular expression.

    :raises InvalidRegularExpression: it is none.
    """
    if pattern.startswith("***"):
        raise NotSupported("*** in regular expressions is not supported")
    return _Reader(pattern, ignore_case=ignore_case).read()
