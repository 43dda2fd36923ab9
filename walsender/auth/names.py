"""A name in ``pg_hba.conf`` or ``pg_ident.conf``: itself, a keyword, or a regular expression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from walsender.auth.regex import InvalidRegex, compile_regex
from walsender.auth.tokens import RefusedRecord

if TYPE_CHECKING:
    import re

    from walsender.auth.tokens import Token

LONGEST_SEARCHED: Final = 256
"""
Characters of the longest name that a regular expression may match.

Names of roles have 63 bytes, but that of a certificate is as long as its authority likes, and
how long a search takes grows with it.
"""


class BadName(RefusedRecord):
    """A token is no name, or none for us; the text says why."""


@dataclass(frozen=True, slots=True)
class Name:
    """
    One element of a field.

    :ivar text: without quotes.
    :ivar quoted: it began with a double quote, and so is no keyword.
    :ivar pattern: what it means if *text* begins with ``/``, be it quoted or not.
    """

    text: str
    quoted: bool = False
    pattern: re.Pattern[str] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, token: Token) -> Self:
        """
        Return what *token* means.

        :raises BadName: it begins with ``/``, and the rest is no regular expression.
        """
        if not token.text.startswith("/"):
            return cls(token.text, token.quoted)
        try:
            return cls(token.text, token.quoted, compile_regex(token.text[1:]))
        except InvalidRegex as error:
            raise BadName(f'invalid regular expression "{token.text[1:]}": {error}') from error

    @property
    def is_group(self) -> bool:
        """Whether this means the members of a role, ``+role``."""
        return not self.quoted and self.text.startswith("+")

    def is_keyword(self, word: str) -> bool:
        """Return whether this is the keyword *word*."""
        return not self.quoted and self.text == word

    def matches(self, name: str) -> bool:
        """Return whether *name* is meant, if this is no keyword."""
        return self.text == name if self.pattern is None else self.search(name) is not None

    def search(self, name: str) -> re.Match[str] | None:
        """
        Return where the regular expression matches in *name*; nowhere if that is too long.

        Never in a part of it: what ends like a name that may come in would be taken for that name.
        """
        if self.pattern is None or len(name) > LONGEST_SEARCHED:
            return None
        return self.pattern.search(name)
