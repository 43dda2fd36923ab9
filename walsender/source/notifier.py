"""Being told by the kernel that a directory has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet import inotify
from twisted.logger import Logger
from twisted.python.filepath import FilePath

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorFDSet

# A file that grows says so on every write; a name that comes or goes wants a new listing.
_NAMES: Final = (
    inotify.IN_CREATE
    | inotify.IN_MOVED_TO
    | inotify.IN_MOVED_FROM
    | inotify.IN_DELETE
    | inotify.IN_CLOSE_WRITE
)
_MASK: Final = _NAMES | inotify.IN_MODIFY


class DirectoryNotifier:
    """Watches one directory through inotify; does nothing where that cannot be had."""

    _log = Logger()

    def __init__(self, reactor: IReactorFDSet, path: str) -> None:
        self._reactor = reactor
        self._path = path
        self._inotify: inotify.INotify | None = None

    def start(self, changed: Callable[[bool], None]) -> None:
        """
        Call *changed* at each change from now on.

        :param changed: is told whether names have changed, or only content.
        """

        def notified(_: object, _path: FilePath[bytes], mask: int) -> None:
            changed(bool(mask & _NAMES))

        try:
            self._inotify = inotify.INotify(self._reactor)
            self._inotify.startReading()
            self._inotify.watch(FilePath(self._path), mask=_MASK, callbacks=[notified])
        except (OSError, inotify.INotifyError) as error:
            self.stop()
            self._log.warn(
                "cannot watch the WAL directory through inotify, only look at it: {error}", error=error
            )

    def stop(self) -> None:
        """Watch no more; harmless when repeated."""
        notifier, self._inotify = self._inotify, None
        if notifier is not None:
            notifier.loseConnection()
