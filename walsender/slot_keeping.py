"""The permanent slots of a service, and the lock that makes it their only writer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from walsender.errors import ConfigurationError
from walsender.preflight import state_directory_error, state_directory_needed, state_directory_unusable
from walsender.replication_slots import REAL_SLOT_FILES, ReplicationSlots, SlotStorage
from walsender.state_lock import StateLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime
    from twisted.logger import Logger

    from walsender.settings import Settings


class SlotKeeping:
    """
    Keeps them in ``state_directory``.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    :ivar slots: those that there are.
    """

    def __init__(
        self,
        settings: Settings,
        clock: IReactorTime,
        run_in_thread: Callable[..., Deferred[Any]],
        log: Logger,
    ) -> None:
        self._settings = settings
        self._log = log
        self._lock: StateLock | None = None
        storage = SlotStorage(REAL_SLOT_FILES, settings.state_directory, self._hold)
        self.slots = ReplicationSlots(storage, settings.max_replication_slots, clock, run_in_thread)

    def load(self) -> None:
        """
        Read the permanent slots; nobody is served yet, so that some small files may be waited for.

        :raises walsender.errors.ConfigurationError: the state directory cannot be had.
        """
        if not state_directory_needed(self._settings):
            return
        try:
            self.slots.load()
        except ConfigurationError as error:
            raise state_directory_error(self._settings, error) from error
        except OSError as error:
            raise state_directory_unusable(self._settings, error) from error
        for slot in self.slots:
            self._log.info(
                'replication slot "{name}" found, restart_lsn {lsn}{lost}',
                name=slot.name,
                lsn=slot.restart_lsn,
                lost=", its WAL has been removed" if slot.invalidation_reason else "",
            )

    def _hold(self) -> None:
        """
        Lock the state directory, once.

        At the start, or in a thread before the first permanent slot; the slots never do both at once.
        """
        if self._lock is None:
            self._lock = StateLock.acquire(self._settings.state_directory)

    def release(self) -> None:
        """Let go of the state directory; harmless when repeated."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
