"""WAL from a directory that others fill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import DeferredList

from walsender.retention import archive_availability
from walsender.source import DirectorySource, Fetching, HistorySearch, TemporaryShelf
from walsender.source.notifier import DirectoryNotifier
from walsender.timings import TimedFiles, Timings
from walsender.wal import REAL_FILES
from walsender.work_threads import WorkThreads

from .parts import Archive, calls_soon, directory_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.defer import Deferred

    from walsender.replication_slots import Availability, ReplicationSlots
    from walsender.sender import IServerReactor
    from walsender.settings import Settings
    from walsender.upstream import NotReceiving, ReceiverStatus


class DirectorySupply:
    """WAL from a directory that others fill."""

    def __init__(
        self,
        reactor: IServerReactor,
        settings: Settings,
        run_in_thread: Callable[..., Deferred[Any]],
        slots: ReplicationSlots,
    ) -> None:
        self._slots = slots
        path = settings.wal_directory
        self._thread = WorkThreads(reactor, "walsender-look")
        self.timings = Timings()
        self.source = DirectorySource(
            reactor,
            run_in_thread,
            TimedFiles(self.timings.flush),
            path,
            run_look=self.timings.timed(self._thread.run),
            delay=settings.wal_sender_delay,
            sync=settings.fsync,
            directory_mode=directory_mode(path),
            notifier=DirectoryNotifier(reactor, path) if settings.inotify else None,
        )
        self._archive = Archive(reactor, settings)
        shelf = TemporaryShelf(run_in_thread, REAL_FILES, self.source)
        self._fetching = Fetching(calls_soon(reactor), shelf, self.source, self._archive.providers(settings))
        self.source.fetching = self._fetching
        self.source.histories = HistorySearch(reactor, self._fetching, self.source)

    def start(self) -> Deferred[None]:
        """See `ISupply`."""
        try:
            self._thread.start()
            self._archive.start()
        except OSError:
            self._stopped(None)
            raise
        self._fetching.start()
        return self.source.start()

    def stop(self) -> Deferred[None]:
        """See `ISupply`."""
        ended: Deferred[Any] = DeferredList([self._fetching.stop(), self.source.stop()])
        return ended.addCallback(self._stopped)

    def _stopped(self, _: object) -> None:
        self._archive.stop()
        self._thread.stop()

    @property
    def receiving(self) -> ReceiverStatus | None:
        """See `ISupply`: there is no upstream."""
        return None

    @property
    def not_receiving(self) -> NotReceiving | None:
        """See `ISupply`."""
        return None

    def availability(self) -> Mapping[str, Availability]:
        """See `ISupply`."""
        return {slot.name: archive_availability(slot, self.source) for slot in self._slots}

    def reconfigure(self, settings: Settings) -> None:
        """See `ISupply`."""
        self._fetching.providers = self._archive.providers(settings)
        self.source.delay = settings.wal_sender_delay
