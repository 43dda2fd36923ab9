"""
Passwords by user, in the syntax of PgBouncer's ``userlist.txt``.

Nothing here shows a secret: not in a ``repr``, not in an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from walsender.auth.passwords import PlainPassword, ScramVerifier
    from walsender.auth.problems import Problem


@dataclass(frozen=True, slots=True)
class Userlist:
    """
    All users of a file.

    :ivar warnings: what is doubtful about the file, such as that everybody may read it.
    """

    _secrets: Mapping[str, PlainPassword | ScramVerifier] = field(default_factory=dict, repr=False)
    warnings: tuple[Problem, ...] = ()

    def secret(self, user: str) -> PlainPassword | ScramVerifier | None:
        """Return what is stored for *user*, or ``None``: there is no such user, or none with a password."""
        return self._secrets.get(user)


def load_userlist(path: str) -> Userlist:
    """
    Return the users in the file *path*.

    :param path: absolute.
    :raises AccessFileError: it cannot be read, or one of its lines is wrong; all are told.
    """
    raise NotImplementedError
