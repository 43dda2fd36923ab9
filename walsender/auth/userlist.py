"""
Passwords by user, in the syntax of PgBouncer's ``userlist.txt``.

Each line is a user and a password, both in double quotes; a doubled quote is a
quote.  What follows is ignored, as are empty lines and those that begin with a
semicolon.  Of several lines about one user the last counts.

Stricter than PgBouncer, which stops at a bad line and keeps what it has: here
every bad line is told and nothing is taken over.  Nothing here shows a secret:
not in a ``repr``, not in an error.

Source: PgBouncer, src/loader.c, load_auth_file.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from walsender.auth.passwords import VERIFIER_PREFIX, PlainPassword, ScramVerifier
from walsender.auth.problems import AccessFileError, Problem
from walsender.auth.regex import MAX_NAME
from walsender.settings.file import system_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Secret: TypeAlias = PlainPassword | ScramVerifier

_BLANKS: Final = " \t\r\v\f"
_LINE: Final = re.compile(r'"((?:[^"]|"")*)"[ \t]+"((?:[^"]|"")*)"(?!")')
_MD5_HASH: Final = re.compile("md5[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Userlist:
    """
    All users of a file.

    :ivar warnings: what is doubtful about the file, such as that everybody may read it.
    """

    _secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    warnings: tuple[Problem, ...] = ()

    def secret(self, user: str) -> Secret | None:
        """Return what is stored for *user*, or ``None``: there is no such user, or none with a password."""
        return self._secrets.get(user)

    def items(self) -> Iterable[tuple[str, Secret]]:
        """Return all users who have a password, with it."""
        return self._secrets.items()


def load_userlist(path: str) -> Userlist:
    """
    Return the users in the file *path*.

    :param path: absolute.
    :raises AccessFileError: it cannot be read, or one of its lines is wrong; all are told.
    """
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read().decode("utf-8", "surrogateescape")
    except (OSError, ValueError) as error:
        problem = Problem(f'could not open auth_file "{path}": {system_error(error)}')
        raise AccessFileError(path, [problem]) from error
    secrets: dict[str, Secret | None] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    if mode & stat.S_IROTH:
        warnings.append(
            Problem(
                f'auth_file "{path}" has world access',
                hint="It holds passwords; permissions should be u=rw (0600), or g=r (0640) at most.",
            )
        )
    for number, text in enumerate(content.split("\n"), 1):
        line = text.strip(_BLANKS)
        if not line or line.startswith(";"):
            continue
        try:
            user, secret = _entry(line)
        except _Refused as refused:
            problems.append(Problem(str(refused), path, number, refused.hint))
            continue
        if user in secrets:
            warnings.append(Problem(f'user "{user}" is given again, and only this line counts', path, number))
        secrets[user] = secret
    if problems:
        raise AccessFileError(path, problems)
    known = {user: secret for user, secret in secrets.items() if secret is not None}
    return Userlist(MappingProxyType(known), tuple(warnings))


class _Refused(Exception):
    """A line has no user, or no password that can be used; the text has no secret."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _entry(line: str) -> tuple[str, Secret | None]:
    """Return user and password; an empty password is none."""
    match = _LINE.match(line)
    if match is None or "\0" in line:
        raise _Refused("invalid line", 'Write "user" "password", both in double quotes.')
    user, secret = (part.replace('""', '"') for part in match.groups())
    if not user or len(user.encode("utf-8", "surrogateescape")) > MAX_NAME:
        raise _Refused("user name is empty or too long")
    if not secret:
        return user, None
    if _MD5_HASH.fullmatch(secret):
        raise _Refused(
            f'the password of user "{user}" is an MD5 hash, which is not supported',
            "Set it anew in PostgreSQL with password_encryption = 'scram-sha-256', "
            "and copy rolpassword from pg_authid.",
        )
    if not secret.startswith(VERIFIER_PREFIX):
        return user, PlainPassword(secret)
    verifier = ScramVerifier.parse(secret)
    if verifier is None:
        raise _Refused(f'the SCRAM verifier of user "{user}" is not valid')
    return user, verifier
