"""What both forms need: the archive, and some words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from walsender.errors import ConfigurationError, WalsenderError
from walsender.restore_command import RestoreCommand
from walsender.source import AT_ONCE, IWalProvider
from walsender.work_threads import WorkThreads

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.sender import IServerReactor
    from walsender.settings import Settings


_GROUP_MAY_READ: Final = 0o050


def directory_mode(path: str) -> int:
    """Return the mode of directories that are made in *path*: its group may read them if it may read that."""
    return 0o750 if Path(path).stat().st_mode & _GROUP_MAY_READ == _GROUP_MAY_READ else 0o700


def calls_soon(reactor: IServerReactor) -> Callable[[Callable[[], object]], None]:
    """Return what calls a function in the reactor's thread, from whichever."""

    def call_soon(function: Callable[[], object]) -> None:
        reactor.callFromThread(function)

    return call_soon


class Archive:
    """What ``restore_command`` needs."""

    def __init__(self, reactor: IServerReactor, settings: Settings) -> None:
        self._reactor = reactor
        self._threads = WorkThreads(reactor, "walsender-restore", AT_ONCE)
        self.start, self.stop = self._threads.start, self._threads.stop

    def providers(self, settings: Settings) -> list[IWalProvider]:
        """
        Return the command, if there is one.

        :raises walsender.errors.ConfigurationError: it has a placeholder that nobody knows.
        """
        if not settings.restore_command:
            return []
        try:
            return [RestoreCommand(self._reactor, self._threads.run, settings.restore_command)]
        except ConfigurationError as error:
            raise complaint(settings, "restore_command", error) from error


def complaint(settings: Settings, name: str, error: WalsenderError) -> ConfigurationError:
    """Return *error* as one of a setting, with where that comes from."""
    return ConfigurationError(
        f'{error.message} (parameter "{name}" from {settings.sources[name]})', hint=error.hint
    )
