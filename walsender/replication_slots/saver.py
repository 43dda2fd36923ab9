"""
`SlotSaver`: when slots are saved, and what is known then of what is on disk.

What a standby reports is saved some seconds later, all slots that have changed together, and
when a stream gives its slot back.  What could not be saved is tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks
from twisted.logger import Logger

from .slot import ReplicationSlot, lowest
from .state import SlotState

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from .storage import SlotStorage

# How much of what standbys reported a crash may take back.  Ten times as long would
# cost nothing but WAL that is kept longer; a tenth would sync ten times as often.
SAVE_DELAY: Final = 5.0  # seconds


class SlotSaver:
    """
    Saves the slots of one server.

    :param run_in_thread: `twisted.internet.threads.deferToThread`, or one like it.
    :param disk: is held while anything is done there.
    :param slots: all there are, by name; not changed.
    """

    _log = Logger()

    def __init__(
        self,
        storage: SlotStorage | None,
        clock: IReactorTime,
        run_in_thread: Callable[..., Deferred[Any]],
        disk: DeferredLock,
        slots: Mapping[str, ReplicationSlot],
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._disk = disk
        self._slots = slots
        self._timer: IDelayedCall | None = None
        self._queued = False

    def changed(self, slot: ReplicationSlot) -> None:
        """A slot has moved: save it later."""
        if self._timer is None and is_dirty(slot):
            self._timer = self._clock.callLater(SAVE_DELAY, self.save)

    def released(self, slot: ReplicationSlot) -> None:
        """Nobody moves a slot any more: save it soon."""
        if is_dirty(slot) and not self._queued:  # the one that is queued will see this slot
            self._queued = True
            self.save()

    def try_again(self) -> None:
        """Something could not be saved: do it later."""
        self.stop()
        self._timer = self._clock.callLater(SAVE_DELAY, self.save)

    def stop(self) -> None:
        """Save nothing later."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def save(self) -> Deferred[None]:
        """Save what has changed, now; never fails."""
        self.stop()
        return self._disk.run(self._save_changed)

    @inlineCallbacks
    def _save_changed(self) -> Generator[Deferred[Any], Any, None]:
        self._queued = False
        changed = {
            slot: SlotState(slot.name, slot.restart_lsn, slot.invalidation_reason)
            for slot in self._slots.values()
            if is_dirty(slot)
        }
        if not changed:
            return
        for slot, state in changed.items():
            # Until this has gone well the file may have either.
            slot.oldest_saved_lsn = lowest(slot.oldest_saved_lsn, state.restart_lsn)
        errors: dict[str, OSError] = yield self._run_in_thread(self._save_states, list(changed.values()))
        for slot, state in changed.items():
            if slot.name in errors:
                slot.saved_lsn = None
                self._log.error(
                    'could not save replication slot "{name}": {reason}',
                    name=slot.name,
                    reason=errors[slot.name].strerror,
                )
            else:
                slot.oldest_saved_lsn = state.restart_lsn
                if slot.invalidation_reason == state.invalidation_reason:  # not invalidated meanwhile
                    slot.saved_lsn = state.restart_lsn
        if errors:
            self.try_again()

    def _save_states(self, states: list[SlotState]) -> dict[str, OSError]:
        """In a thread: save each and return what failed, by name."""
        assert self._storage is not None, "there are permanent slots"
        errors: dict[str, OSError] = {}
        for state in states:
            try:
                self._storage.save(state)
            except OSError as error:
                errors[state.name] = error
        return errors


def is_dirty(slot: ReplicationSlot) -> bool:
    """Return whether a slot is to be saved; what is being created or dropped is its creator's affair."""
    return not slot.temporary and not slot.busy and slot.saved_lsn != slot.restart_lsn


__all__ = ["SAVE_DELAY", "SlotSaver", "is_dirty"]
