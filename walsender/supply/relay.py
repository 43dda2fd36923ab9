"""WAL from an upstream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger

from walsender.errors import ConfigurationError, WalFileError, WalsenderError
from walsender.preflight import wal_directory_error
from walsender.replication_slots import check_name
from walsender.retention import Limits, WalRemover
from walsender.source import AT_ONCE, Fetching, HistorySearch, RelayShelf, RelaySource
from walsender.source.removal import MAY_REMOVE_WAL
from walsender.state_lock import StateLock
from walsender.timings import Stopwatch, TimedFiles, Timings
from walsender.upstream import ReceiverSettings, UpstreamFetcher, WalReceiver
from walsender.wal import REAL_FILES
from walsender.work_threads import WorkThreads

from .parts import Archive, calls_soon, complaint, directory_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from walsender.lsn import LSN
    from walsender.replication_slots import Availability, ReplicationSlots
    from walsender.sender import IServerReactor
    from walsender.settings import Settings
    from walsender.upstream import NotReceiving, ReceiverStatus
    from walsender.upstream.libpq import LibpqConnector
    from walsender.upstream.socket_watch import IUpstreamReactor


# A standby that has lost us tries again every wal_retrieve_retry_interval, 5 s, and sees a machine that
# is gone without a word after wal_receiver_timeout, 60 s.
_RETURN: Final = 60.0  # seconds


class RelaySupply:
    """
    WAL from an upstream.

    :param feedback: returns what the standbys need, as 64-bit transaction ids.
    :param oldest_sent: returns the lowest LSN that a connected standby has been sent; 0: there is none.
    :raises walsender.errors.ConfigurationError: the settings of the upstream make no sense.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IServerReactor,
        settings: Settings,
        run_in_thread: Callable[..., Deferred[Any]],
        feedback: Callable[[], tuple[int, int]],
        slots: ReplicationSlots,
        oldest_sent: Callable[[], LSN],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._run_in_thread = run_in_thread
        self._standbys_need = feedback
        self._thread = WorkThreads(reactor, "walsender-commit")
        self.timings = Timings()
        run_commit = self.timings.timed(self._thread.run)
        self._lock: StateLock | None = None
        self._stopping = False
        self._all_are_back = 0.0
        self._look_again: IDelayedCall | None = None
        self._looking: Deferred[None] = succeed(None)
        self._looks_wrong = ""
        path = settings.wal_directory
        mode = directory_mode(path)
        # Who may read the directory may read what is in it: pg_receivewal too goes by a mode's group bits.
        files = TimedFiles(self.timings.flush, mode & 0o660 | 0o600)
        self.source = RelaySource(run_in_thread, run_commit, files, path, directory_mode=mode)
        self.source.receive = self.timings.receive
        self.source.attendant = _TimedThread(self._thread, self.timings.work)
        self._remover = WalRemover(
            reactor,
            self.source,
            slots,
            oldest_sent,
            _limits(settings),
            permission=str(Path(path, MAY_REMOVE_WAL)),
        )
        self.source.remove_unneeded = self._remover.make_room
        self.source.room.limit = _bytes(settings.max_wal_directory_size)
        self._receiver = WalReceiver(
            reactor,
            self._connector(settings),
            self.source,
            _receiver_settings(settings),
            feedback=self._feedback(settings),
        )
        self._archive = Archive(reactor, settings)
        self._shelf = RelayShelf(run_in_thread, run_commit, files, path, self.source, self._check_room)
        archive = self._archive.providers(settings)
        self._upstream = self._fetcher(settings)
        # The archive is asked first, which nobody else needs.
        self._fetching = Fetching(calls_soon(reactor), self._shelf, self.source, [*archive, self._upstream])
        self.source.fetching = self._fetching
        # What the upstream does not have, for ourselves.
        self._filling = Fetching(calls_soon(reactor), self._shelf, self.source, archive)
        self.source.restore = self._filling.restore
        self.source.histories = HistorySearch(reactor, self._filling, self.source)

    def _fetcher(self, settings: Settings) -> UpstreamFetcher:
        return UpstreamFetcher(
            self._reactor,
            self._connector(settings),
            self._run_in_thread,
            REAL_FILES,
            lambda: self.source.identity,
            timeout=settings.wal_receiver_timeout,
            status_interval=settings.wal_receiver_status_interval,
        )

    def _connector(self, settings: Settings) -> LibpqConnector:
        # libpq costs 11 MB and a tenth of a second, which a server without an upstream need not pay.
        from walsender.upstream.libpq import LibpqConnector  # noqa: PLC0415

        try:
            return LibpqConnector(
                cast("IUpstreamReactor", self._reactor),  # which has less
                settings.primary_conninfo,
                name=settings.cluster_name,
                connect_timeout_s=settings.wal_receiver_timeout,
            )
        except ConfigurationError as error:
            raise complaint(settings, "primary_conninfo", error) from error

    def _feedback(self, settings: Settings) -> Callable[[], tuple[int, int] | None] | None:
        return self._known_needs if settings.hot_standby_feedback else None

    def _known_needs(self) -> tuple[int, int] | None:
        """
        Return what the standbys need; that they need nothing is not known before they could come back.

        The upstream's slot remembers what we have said before a restart.  Taken back, rows would go that
        a standby's query still sees.

        Source: PostgreSQL, src/backend/replication/walreceiver.c, XLogWalRcvSendHSFeedback, which waits until
        it knows what its own slots hold.
        """
        needed = self._standbys_need()
        return needed if any(needed) or self._reactor.seconds() >= self._all_are_back else None

    def _check_room(self) -> None:
        """What is fetched at once must fit on the disk; in a thread."""
        self.source.room.check_disk(AT_ONCE * self.source.geometry.segment_size)

    def start(self) -> Deferred[None]:
        """See `ISupply`."""
        try:
            self._lock = StateLock.acquire(self._settings.wal_directory, "WAL")
        except ConfigurationError as error:
            raise wal_directory_error(self._settings, error) from error
        self._stopping = False
        self._all_are_back = self._reactor.seconds() + _RETURN
        try:
            self._thread.start()
            self._archive.start()
        except OSError:
            self._stopped(None)
            raise
        self._fetching.start()
        self._filling.start()
        self._upstream.start()
        started: Deferred[None] = Deferred()
        self._look(started)
        return started

    def _look(self, started: Deferred[None]) -> None:
        self._look_again = None
        # What a crash has left of fetching goes first.
        looking = self._shelf.close().addCallback(lambda _: self.source.start())
        self._looking = looking.addCallbacks(
            self._begin, self._cannot_look, callbackArgs=(started,), errbackArgs=(started,)
        )

    def _begin(self, _: None, started: Deferred[None]) -> None:
        self._looks_wrong = ""
        if not self._stopping:
            self._remover.start()
            self._receiver.start()
        started.callback(None)

    def _cannot_look(self, failure: Failure, started: Deferred[None]) -> None:
        """Nothing is received before it is known what is held."""
        message = failure.getErrorMessage()
        if message != self._looks_wrong:
            self._looks_wrong = message
            if failure.check(WalFileError):
                self._log.error("cannot use the WAL directory: {error}", error=message)
            else:
                self._log.failure("looking at the WAL directory failed", failure)
        if self._stopping:
            started.callback(None)
        else:
            self._look_again = self._reactor.callLater(
                self._settings.wal_retrieve_retry_interval, self._look, started
            )

    def stop(self) -> Deferred[None]:
        """See `ISupply`."""
        self._stopping = True
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None
        fetching = [self._filling.stop(), self._fetching.stop()]
        self._upstream.stop()
        stopping = [self._looking, self._remover.stop(), *fetching, self._receiver.stop()]
        ended: Deferred[Any] = DeferredList(stopping)
        return ended.addCallback(self._wait_for_thread).addCallback(self._stopped)

    def _wait_for_thread(self, _: object) -> Deferred[None] | None:
        """Wait for what the thread is at, which nobody else does for a look; to end a pool blocks."""
        return None if self._lock is None else self._thread.run(lambda: None)

    def _stopped(self, _: object) -> None:
        self._archive.stop()
        self._thread.stop()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def receiving(self) -> ReceiverStatus | None:
        """See `ISupply`."""
        return self._receiver.status

    @property
    def not_receiving(self) -> NotReceiving | None:
        """See `ISupply`."""
        found = self._receiver.not_receiving
        if found is None or not self._looks_wrong:
            return found
        return replace(found, error=f"cannot use the WAL directory: {self._looks_wrong}")

    def availability(self) -> Mapping[str, Availability]:
        """See `ISupply`."""
        return self._remover.availability()

    def reconfigure(self, settings: Settings) -> None:
        """See `ISupply`.  Only a change of what concerns the upstream disturbs the connection to it."""
        archive, upstream = self._archive.providers(settings), self._fetcher(settings)
        before, now = _receiver_settings(self._settings), _receiver_settings(settings)
        if (
            before != now
            or self._settings.primary_conninfo != settings.primary_conninfo
            or self._settings.hot_standby_feedback != settings.hot_standby_feedback
        ):
            self._receiver.reconfigure(self._connector(settings), now, self._feedback(settings))
        self._upstream.stop()
        self._upstream = upstream
        self._fetching.providers = [*archive, upstream]
        self._filling.providers = archive
        self._settings = settings
        self.source.room.limit = _bytes(settings.max_wal_directory_size)
        self._remover.reconfigure(_limits(settings))


class _TimedThread:
    """
    The thread of the commits where it waits for its work by itself: the work counts, the waiting does not.

    An `IAttendant`.
    """

    def __init__(self, thread: WorkThreads, work: Stopwatch) -> None:
        self._thread = thread
        self._work = work

    def attend(self, readable: Any, function: Callable[..., object], *args: object) -> Deferred[Any]:
        """See `IAttendant`."""
        return self._thread.attend(readable, self._work.measure, function, *args)

    def tell(self, function: Callable[[], object]) -> None:
        """See `IAttendant`."""
        self._thread.tell(function)

    def tell_later(self, function: Callable[[], object]) -> None:
        """See `IAttendant`."""
        self._thread.tell_later(function)

    def recall(self) -> None:
        """See `IAttendant`."""
        self._thread.recall()


def _receiver_settings(settings: Settings) -> ReceiverSettings:
    if settings.primary_slot_name:
        try:
            check_name(settings.primary_slot_name)
        except WalsenderError as error:
            raise complaint(settings, "primary_slot_name", error) from error
    return ReceiverSettings(
        slot_name=settings.primary_slot_name,
        create_slot=settings.create_primary_slot,
        timeout=settings.wal_receiver_timeout,
        status_interval=settings.wal_receiver_status_interval,
        retry_interval=settings.wal_retrieve_retry_interval,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(keep=_bytes(settings.wal_keep_size), slots=_bytes(settings.max_slot_wal_keep_size))


def _bytes(megabytes: int) -> int | None:
    """Return a size in bytes; ``None`` for -1."""
    return None if megabytes < 0 else megabytes << 20
