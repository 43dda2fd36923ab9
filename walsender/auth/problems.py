"""What is wrong with the files that say who may come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from walsender.errors import ConfigurationError
from walsender.settings.values import printable

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One thing wrong in one line.

    :ivar message: PostgreSQL's text where it has one; never a secret.
    :ivar file: the path of the file; ``None`` where *message* names it.
    :ivar line: counted from 1.
    :ivar hint: what to do about it.
    """

    message: str
    file: str | None = None
    line: int = 0
    hint: str | None = None

    def __str__(self) -> str:
        """Return it as one line, what does not print escaped: files may hold anything."""
        text = self.message
        if self.file is not None:
            text += f', line {self.line} of configuration file "{self.file}"'
        if self.hint is not None:
            text += f". {self.hint}"
        return printable(text)


class AccessFileError(ConfigurationError):
    """
    A file that says who may come in cannot be used.

    :ivar path: of the file.
    :ivar problems: all that is wrong with it and with the files that it includes; at least one.
    """

    def __init__(self, path: str, problems: Sequence[Problem]) -> None:
        super().__init__(f'could not load "{path}"')
        self.path = path
        self.problems = tuple(problems)
