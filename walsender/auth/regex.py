r"""
PostgreSQL's regular expressions, as far as names need them, compiled to Python's.

An expression is read by PostgreSQL's rules and written anew for `re`, so that
what means something else there (``$``, ``\b``, ``[[:digit:]]``) keeps its
meaning.  Left out and refused: back references, and the embedded options that
choose another syntax.

**Time.**  Python's matcher tries one way after another, and who has not yet
been let in chooses the name that it tries them on.  So an expression is refused
if there may be too many ways: nested repetition, for the most part.

Source: PostgreSQL's manual, "POSIX Regular Expressions"; its messages are from
src/include/regex/regerrs.h.
"""

from __future__ import annotations

import re
from typing import Final

MAX_NAME: Final = 63
"""Bytes in the longest name, and so characters at most."""

_MAX_WAYS: Final = 64**3
_MAX_COUNT: Final = 255
_MAX_DEPTH: Final = 20

_CLASSES: Final = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r"\x20\t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": r"\x21-\x7e",
    "lower": "a-z",
    "print": r"\x20-\x7e",
    "punct": r"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    "space": r"\x20\t\n\r\f\v",
    "upper": "A-Z",
    "word": "a-zA-Z0-9_",
    "xdigit": "0-9A-Fa-f",
}
_SHORTHANDS: Final = {"d": _CLASSES["digit"], "s": _CLASSES["space"], "w": _CLASSES["word"]}
_WORD: Final = f"[{_CLASSES['word']}]"
_WORD_BEGIN: Final = rf"(?<!{_WORD})(?={_WORD})"
_WORD_END: Final = rf"(?<={_WORD})(?!{_WORD})"
_CONSTRAINTS: Final = {
    "A": r"\A",
    "Z": r"\Z",
    "m": _WORD_BEGIN,
    "M": _WORD_END,
    "y": rf"(?:{_WORD_BEGIN}|{_WORD_END})",
    "Y": rf"(?!{_WORD_BEGIN}|{_WORD_END})",
}
_CHARACTERS: Final = {
    "a": 7,
    "b": 8,
    "B": ord("\\"),
    "e": 27,
    "f": 12,
    "n": 10,
    "r": 13,
    "t": 9,
    "v": 11,
}
_HEX: Final = {
    "u": re.compile("[0-9a-fA-F]{4}"),
    "U": re.compile("[0-9a-fA-F]{8}"),
    "x": re.compile("[0-9a-fA-F]{1,255}"),
}
_OCTAL: Final = re.compile("0[0-7]{0,2}")
_QUANTIFIER: Final = re.compile(r"(?:([*+?])|\{([0-9]+)(,([0-9]*))?\})(\?)?")
_QUANTIFIER_BEGIN: Final = re.compile(r"[*+?]|\{[0-9]")
_OPTIONS: Final = re.compile(r"\(\?([a-zA-Z]+)(\)?)")
_ALL_OPTIONS: Final = frozenset("bceimnpqstwx")
_OUR_OPTIONS: Final = frozenset("cist")
_PROGRAM: Final = {"*": (0, MAX_NAME), "+": (1, MAX_NAME), "?": (0, 1)}

_BAD_QUANTIFIER: Final = "quantifier operand invalid"
_BAD_ESCAPE: Final = r"invalid escape \ sequence"
_BAD_PARENTHESES: Final = "parentheses () not balanced"
_BAD_BRACKETS: Final = "brackets [] not balanced"
_TOO_LONG: Final = "it could take too long to match (repetition within repetition, or too many alternatives)"


class InvalidRegex(ValueError):
    """A text is no regular expression, or none for us; the text says why."""


def compile_regex(text: str) -> re.Pattern[str]:
    """
    Return the pattern that *text* means; to be searched for, at any place.

    :raises InvalidRegex: the text says why, as PostgreSQL would where it refuses it too.
    """
    flags = re.ASCII | re.DOTALL
    if text.startswith("***"):
        if text.startswith("***="):
            return re.compile("".join(map(_literal, text[4:])), flags)
        if not text.startswith("***:"):
            raise InvalidRegex(_BAD_QUANTIFIER)
        text = text[4:]
    if options := _OPTIONS.match(text):
        if not (_ALL_OPTIONS.issuperset(options[1]) and options[2]):
            raise InvalidRegex("invalid embedded option")
        if not _OUR_OPTIONS.issuperset(options[1]):
            raise InvalidRegex(f"the embedded option {options[0]} is not supported")
        if options[1].rfind("i") > options[1].rfind("c"):
            flags |= re.IGNORECASE
        text = text[options.end() :]
    parser = _Parser(text)
    pattern, ways = parser.alternatives()
    if parser.at < len(text):
        raise InvalidRegex(_BAD_PARENTHESES)  # only that stops a parser early
    if ways > _MAX_WAYS:
        raise InvalidRegex(_TOO_LONG)
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise InvalidRegex(f"{error} is not supported") from error  # looking back at several lengths


def _literal(char: str) -> str:
    return char if char.isascii() and char.isalnum() else f"\\U{ord(char):08x}"


class _Parser:
    """
    Recursive descent over *text*.

    Every method returns what it read, in Python's syntax, with the number of ways in which
    a name may be tried against it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._depth = 0

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _take(self, beginning: str) -> bool:
        if self.text.startswith(beginning, self.at):
            self.at += len(beginning)
            return True
        return False

    def alternatives(self) -> tuple[str, int]:
        """Read branches to the end, or to the parenthesis that closes them."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise InvalidRegex("regular expression is too complex")
        branches = [self._branch()]
        while self._take("|"):
            branches.append(self._branch())
        self._depth -= 1
        return "|".join(pattern for pattern, _ in branches), sum(ways for _, ways in branches)

    def _branch(self) -> tuple[str, int]:
        parts, total = [], 1
        while (char := self._next()) and char not in "|)":
            if _QUANTIFIER_BEGIN.match(self.text, self.at):
                raise InvalidRegex(_BAD_QUANTIFIER)  # there is nothing that could be repeated
            if (constraint := self._constraint()) is not None:
                pattern, ways = constraint
            else:
                pattern, ways = self._quantified(*self._atom())
            parts.append(pattern)
            total = min(total * ways, _MAX_WAYS + 1)
        return "".join(parts), total

    def _constraint(self) -> tuple[str, int] | None:
        """Read what matches a place, if that is next; it cannot be repeated."""
        if self._take("^"):
            return r"\A", 1
        if self._take("$"):
            return r"\Z", 1
        if self._take("[[:<:]]"):
            return _WORD_BEGIN, 1
        if self._take("[[:>:]]"):
            return _WORD_END, 1
        for kind in ("(?=", "(?!", "(?<=", "(?<!"):
            if self._take(kind):
                return self._group(kind)
        if self._next() == "\\" and (found := _CONSTRAINTS.get(self.text[self.at + 1 : self.at + 2])):
            self.at += 2
            return found, 1
        return None

    def _group(self, opening: str) -> tuple[str, int]:
        pattern, ways = self.alternatives()
        if not self._take(")"):
            raise InvalidRegex(_BAD_PARENTHESES)
        return f"{opening}{pattern})", ways

    def _atom(self) -> tuple[str, int]:
        if self._take("(?:"):
            return self._group("(?:")
        if self._take("(?"):
            raise InvalidRegex(_BAD_QUANTIFIER)
        if self._take("("):
            return self._group("(")
        if self._take("."):
            return ".", 1
        if self._take("["):
            return self._bracket(), 1
        if self._take("\\"):
            shorthand = self._next()
            if shorthand and shorthand.lower() in _SHORTHANDS:
                self.at += 1
                negation = "^" if shorthand.isupper() else ""
                return f"[{negation}{_SHORTHANDS[shorthand.lower()]}]", 1
            return _literal(self._escape()), 1
        char = self._next()
        self.at += 1
        return _literal(char), 1

    def _quantified(self, atom: str, ways: int) -> tuple[str, int]:
        """Read the quantifier after *atom*, if there is one."""
        match = _QUANTIFIER.match(self.text, self.at)
        if match is None:
            if _QUANTIFIER_BEGIN.match(self.text, self.at):
                closed = "}" in self.text[self.at :]
                raise InvalidRegex("invalid repetition count(s)" if closed else "braces {} not balanced")
            return atom, ways
        self.at = match.end()
        if _QUANTIFIER.match(self.text, self.at):
            raise InvalidRegex(_BAD_QUANTIFIER)
        if match[1]:
            least, most = _PROGRAM[match[1]]
        else:
            least = int(match[2])
            most = least if match[3] is None else int(match[4]) if match[4] else _MAX_COUNT
        if least > most or most > _MAX_COUNT:
            raise InvalidRegex("invalid repetition count(s)")
        total = 0
        for count in range(min(least, MAX_NAME), min(most, MAX_NAME) + 1):
            total += ways**count
            if total > _MAX_WAYS:
                break
        lazy = match[5] or ""
        counts = match[1] or (f"{{{least},{most}}}" if match[4] != "" else f"{{{least},}}")
        return f"{atom}{counts}{lazy}", total

    def _escape(self) -> str:
        r"""Read what follows a backslash and return the character that is meant."""
        if octal := _OCTAL.match(self.text, self.at):
            self.at = octal.end()
            return chr(int(octal[0], 8))
        char = self._next()
        self.at += 1
        if not char:
            raise InvalidRegex(_BAD_ESCAPE)
        if char in "123456789":
            raise InvalidRegex("back references are not supported")
        if char == "c" and self._next():
            control = self._next()
            self.at += 1
            return chr(ord(control) & 0x1F)
        if char in _CHARACTERS:
            return chr(_CHARACTERS[char])
        if char in _HEX:
            digits = _HEX[char].match(self.text, self.at)
            if digits is None or (code := int(digits[0], 16)) > 0x10FFFF:  # noqa: PLR2004 (the last of Unicode)
                raise InvalidRegex(_BAD_ESCAPE)
            self.at = digits.end()
            return chr(code)
        if char.isascii() and char.isalnum():
            raise InvalidRegex(_BAD_ESCAPE)
        return char

    def _bracket(self) -> str:
        """Read a bracket expression whose ``[`` has been read."""
        items = ["^"] if self._take("^") else [""]
        first = True
        while first or self._next() != "]":
            if self._take("[:"):
                name = self._until(":]", "invalid character class")
                if name not in _CLASSES:
                    raise InvalidRegex("invalid character class")
                items.append(_CLASSES[name])
            elif self._next() == "\\" and self.text[self.at + 1 : self.at + 2] in tuple(_SHORTHANDS):
                items.append(_SHORTHANDS[self.text[self.at + 1]])
                self.at += 2
            else:
                items.append(self._range())
            first = False
        self.at += 1
        return f"[{''.join(items)}]"

    def _range(self) -> str:
        start = self._element()
        if self._next() != "-" or self.text[self.at + 1 : self.at + 2] in {"]", ""}:
            return _literal(start)
        self.at += 1
        end = self._element()
        if ord(end) < ord(start):
            raise InvalidRegex("invalid character range")
        return f"{_literal(start)}-{_literal(end)}"

    def _element(self) -> str:
        """Read one character of a bracket expression."""
        for kind in (".", "="):
            if self._take(f"[{kind}"):
                name = self._until(f"{kind}]", "invalid collating element")
                if len(name) != 1:
                    raise InvalidRegex("invalid collating element")
                return name
        if self._take("\\"):
            return self._escape()
        char = self._next()
        if not char:
            raise InvalidRegex(_BAD_BRACKETS)
        self.at += 1
        return char

    def _until(self, end: str, complaint: str) -> str:
        found = self.text.find(end, self.at)
        if found < 0:
            raise InvalidRegex(_BAD_BRACKETS if "]" not in self.text[self.at :] else complaint)
        name = self.text[self.at : found]
        self.at = found + len(end)
        return name
