"""A name in ``pg_hba.conf`` or ``pg_ident.conf``: itself, a keyword, or a regular expression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re


@dataclass(frozen=True, slots=True)
class Name:
    """
    One element of a field.

    :ivar text: without quotes.
    :ivar quoted: it stood in double quotes, and so is no keyword.
    :ivar pattern: what it means if *text* begins with ``/``.
    """

    text: str
    quoted: bool = False
    pattern: re.Pattern[str] | None = field(default=None, compare=False)

    def is_keyword(self, word: str) -> bool:
        """Return whether this is the keyword *word*."""
        return not self.quoted and self.text == word

    def matches(self, name: str) -> bool:
        """Return whether *name* is meant, if this is no keyword."""
        if self.pattern is not None:
            return self.pattern.search(name) is not None
        return self.text == name
