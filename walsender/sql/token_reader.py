"""Takes the tokens of a statement in order: what both parsers, of queries and of expressions, are made of."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from .errors import SqlSyntaxError, TooComplex
from .lexer import Kind, Token, near, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH: Final = 60
"""Levels of parentheses, CASE and subqueries; Python's own stack ends behind it."""

# Source: PostgreSQL's documentation, "SQL Key Words": reserved, and reserved but for functions and types.
RESERVED: Final = frozenset(
    "all analyse analyze and any array as asc asymmetric both case cast check collate column constraint "
    "create current_catalog current_date current_role current_time current_timestamp current_user "
    "default deferrable desc distinct do else end except false fetch for foreign from grant group "
    "having in initially intersect into lateral leading limit localtime localtimestamp not null offset "
    "on only or order placing primary references returning select session_user some symmetric "
    "system_user table then to trailing true union unique user using variadic when where window with".split()
)
RESERVED_BUT_FUNCTION: Final = frozenset(
    "authorization binary collation concurrently cross current_schema freeze full ilike inner is isnull "
    "join left like natural notnull outer overlaps right similar tablesample verbose".split()
)
NEEDS_AS: Final = frozenset(
    "array as char character create day except fetch filter for from grant group having hour intersect "
    "into isnull limit minute month notnull numeric offset on order over overlaps precision returning "
    "second time timestamp to union varying where window with within without year".split()
)


class TokenReader:
    """The tokens of one text, and a place among them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._place = 0
        self._depth = 0

    @property
    def token(self) -> Token:
        """The next token."""
        return self._tokens[self._place]

    @property
    def at(self) -> int:
        """Where the next token begins."""
        return self.token.at

    def peek(self, ahead: int = 1) -> Token:
        """Return a token behind the next one."""
        return self._tokens[min(self._place + ahead, len(self._tokens) - 1)]

    def advance(self) -> Token:
        """Take the next token; the last is never taken."""
        token = self.token
        if token.kind is not Kind.END:
            self._place += 1
        return token

    def unexpected(self) -> SqlSyntaxError:
        """Return the error that the next token is."""
        return near(self._text, self.token.at, self.token.end)

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Bound how deeply a statement is nested."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooComplex("stack depth limit exceeded", self.at + 1)
        try:
            yield
        finally:
            self._depth -= 1

    # Words and operators

    def is_word(self, *words: str) -> bool:
        """Return whether the next token is one of these key words."""
        return self.token.kind is Kind.WORD and self.token.text in words

    def is_operator(self, *operators: str) -> bool:
        """Return whether the next token is one of these operators."""
        return self.token.kind is Kind.OPERATOR and self.token.text in operators

    def take_word(self, *words: str) -> bool:
        """Take the next token if it is one of these key words."""
        found = self.is_word(*words)
        if found:
            self.advance()
        return found

    def take_words(self, *words: str) -> bool:
        """Take as many tokens as there are words, if they are these."""
        for ahead, word in enumerate(words):
            token = self.peek(ahead)
            if token.kind is not Kind.WORD or token.text != word:
                return False
        self._place += len(words)
        return True

    def take_operator(self, operator: str) -> bool:
        """Take the next token if it is this operator."""
        found = self.is_operator(operator)
        if found:
            self.advance()
        return found

    def expect_word(self, *words: str) -> None:
        """Take these key words, which must come now."""
        for word in words:
            if not self.take_word(word):
                raise self.unexpected()

    def expect_operator(self, operator: str) -> None:
        """Take an operator, which must come now."""
        if not self.take_operator(operator):
            raise self.unexpected()

    # Names

    def is_name(self, *, of_function: bool = False) -> bool:
        """Return whether the next token may be the name of a column or relation, or of a function."""
        if self.token.kind is Kind.QUOTED:
            return True
        if self.token.kind is not Kind.WORD or self.token.text in RESERVED:
            return False
        return of_function or self.token.text not in RESERVED_BUT_FUNCTION

    def name(self) -> str:
        """Take a name."""
        if not self.is_name():
            raise self.unexpected()
        return self.advance().text

    def any_name(self) -> str:
        """Take a name that may be a key word: behind AS or a dot."""
        if self.token.kind not in {Kind.WORD, Kind.QUOTED}:
            raise self.unexpected()
        return self.advance().text

    def bare_label(self) -> str:
        """Take the name of an output column that has no AS, if there is one."""
        if self.token.kind is Kind.QUOTED or (
            self.token.kind is Kind.WORD and self.token.text not in NEEDS_AS
        ):
            return self.advance().text
        return ""

    def names(self) -> tuple[str, ...]:
        """Take names in parentheses."""
        self.expect_operator("(")
        found = [self.name()]
        while self.take_operator(","):
            found.append(self.name())
        self.expect_operator(")")
        return tuple(found)

    def integer(self) -> int:
        """Take a whole number."""
        if self.token.kind is not Kind.NUMBER or not self.token.text.isdecimal():
            raise self.unexpected()
        return min(int(self.advance().text[:20]), 1 << 40)
