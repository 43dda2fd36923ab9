"""
`Access`: who may come in, as three files say; read at the start, and again on SIGHUP.

At the start a file that is wrong ends the program.  Later it is told what is
wrong, and what was read from that file before stays in force.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from walsender.auth import (
    THIS_MACHINE,
    AccessFileError,
    HbaAuthorizer,
    IdentMaps,
    StoredPasswords,
    Userlist,
    load_hba,
    load_ident,
    load_userlist,
)
from walsender.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from walsender.auth import Problem
    from walsender.settings import Settings

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _File(Generic[_T]):
    """
    One of the files.

    :ivar setting: which names it.
    :ivar content: what is in it, or what holds without it; ``None``: it is wrong, see *error*.
    """

    setting: str
    content: _T | None
    error: AccessFileError | None = None


def _read(setting: str, settings: Settings, load: Callable[[str], _T], without: _T) -> _File[_T]:
    path = getattr(settings, setting)
    if not path:
        return _File(setting, without)
    try:
        return _File(setting, load(path))
    except AccessFileError as error:
        return _File(setting, None, error)


class _Files:
    """What is in all of them, read when this is made."""

    def __init__(self, settings: Settings) -> None:
        self._ssl = settings.ssl
        self.rules = _read("hba_file", settings, load_hba, THIS_MACHINE)
        self.maps = _read("ident_file", settings, load_ident, IdentMaps())
        self.users = _read("auth_file", settings, load_userlist, Userlist())

    @property
    def wrong(self) -> Iterator[tuple[str, AccessFileError]]:
        """Those that cannot be used: the setting and the error."""
        for file in (self.rules, self.maps, self.users):
            if file.error is not None:
                yield file.setting, file.error

    def warnings(self) -> list[Problem]:
        """Return what is doubtful about the others."""
        found: list[Problem] = []
        if self.rules.content is not None:
            found += self.rules.content.warnings(ssl=self._ssl)
        if self.users.content is not None:
            found += self.users.content.warnings
        return found


class Access:
    """
    The files and the authorizer that goes by them.

    :param run_in_thread: calls a function in a thread pool.
    :param run_for_strangers: likewise what those ask for who are not let in yet.
    :ivar authorizer: always by what was last read without an error.
    :raises ConfigurationError: a file is wrong; the one line says where, and if there is more than one
        thing wrong, each is logged.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        run_in_thread: Callable[..., Deferred[Any]],
        run_for_strangers: Callable[..., Deferred[Any]],
    ) -> None:
        self._run_in_thread = run_in_thread
        self._turn = 0
        # Nobody is served yet, so that some small files may be waited for.
        files = _Files(settings)
        rules, maps, users = files.rules.content, files.maps.content, files.users.content
        if rules is None or maps is None or users is None:
            raise self._refusal(files, settings)
        self._warn(files)
        self.authorizer = HbaAuthorizer(rules, maps, StoredPasswords(users), run_for_strangers)

    @inlineCallbacks
    def reload(self, settings: Settings) -> Generator[Deferred[Any], Any, None]:
        """
        Read the files again and take over what is good; fires when that is done.

        In a thread: the files are small, but a verifier is derived from each new plain password.
        """
        self._turn += 1
        turn = self._turn
        files, passwords = yield self._run_in_thread(_read_anew, settings, self.authorizer.passwords)
        if turn != self._turn:
            return  # a later one has begun, and reads everything too
        for _, error in files.wrong:
            for problem in error.problems:
                self.log.error("{problem}", problem=str(problem))
            self.log.error("{path} was not reloaded", path=error.path)
        self._warn(files)
        if files.rules.content is not None:
            self.authorizer.rules = files.rules.content
        if files.maps.content is not None:
            self.authorizer.maps = files.maps.content
        if passwords is not None:
            self.authorizer.passwords = passwords

    def _refusal(self, files: _Files, settings: Settings) -> ConfigurationError:
        wrong = list(files.wrong)
        problems = [problem for _, error in wrong for problem in error.problems]
        if len(problems) > 1:
            for problem in problems:
                self.log.critical("{problem}", problem=str(problem))
        setting, error = wrong[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        where = f'(parameter "{setting}" from {settings.sources[setting]})'
        first = str(problems[0])
        if error.path not in first:
            first = f"{error.message}: {first}"
        return ConfigurationError(f"{first}{more} {where}")

    def _warn(self, files: _Files) -> None:
        for problem in files.warnings():
            self.log.warn("{problem}", problem=str(problem))


def _read_anew(settings: Settings, passwords: StoredPasswords) -> tuple[_Files, StoredPasswords | None]:
    files = _Files(settings)
    users = files.users.content
    return files, None if users is None else passwords.replaced_by(users)
