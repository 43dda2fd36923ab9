"""
`ReplicationSlots`: all slots of one server, who owns each, and when they are saved.

All of it runs in the reactor's thread; what touches the disk goes to the thread
pool, one job at a time, so that the file of a slot is never written twice at once.

A slot has one owner, named by the process id of its session.  Who creates or drops
a permanent slot owns it meanwhile, as in PostgreSQL: a slot that is not yet, or
perhaps no longer, durable belongs to nobody else.

``restart_lsn`` in memory is what the standby reported last.  It is saved some
seconds later and when the slot is released, so that after a crash it may be older:
more WAL is kept than needed, never less of what was promised.  (PostgreSQL saves
at checkpoints.)  Whoever removes WAL asks for `needed_lsn`, which knows of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks, succeed
from twisted.logger import Logger

from walsender.clocks import time_of_day
from walsender.errors import (
    ConfigurationError,
    ConfigurationLimitExceeded,
    DuplicateObject,
    ObjectInUse,
    QueryCanceled,
    UndefinedObject,
    WrongState,
    file_error,
)
from walsender.lsn import INVALID_LSN, LSN

from .saver import SlotSaver, is_dirty
from .slot import HeldSlot, ReplicationSlot
from .state import WAL_REMOVED, SlotState, check_name
from .storage import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator

    from twisted.internet.interfaces import IReactorTime

    from walsender.errors import WalsenderError

    from .storage import SlotStorage, StoredSlots

_NO_STORAGE_HINT: Final = (
    "A temporary slot needs no storage; for permanent slots set "
    '"state_directory" of walsender to a directory that it may write, and see its log.'
)


class ReplicationSlots:
    """
    The slots of one server.

    :param storage: where permanent ones are kept; ``None``: there can be none.
    :ivar limit: ``max_replication_slots``: of both kinds together, as in PostgreSQL.
    :param run_in_thread: `twisted.internet.threads.deferToThread`, or one like it.
    """

    _log = Logger()

    def __init__(
        self,
        storage: SlotStorage | None,
        limit: int,
        clock: IReactorTime,
        run_in_thread: Callable[..., Deferred[Any]],
    ) -> None:
        self._storage = storage
        self.limit = limit
        self._now = time_of_day(clock)
        self._run_in_thread = run_in_thread
        self._slots: dict[str, ReplicationSlot] = {}
        self._owned: dict[int, dict[ReplicationSlot, None]] = {}
        self._disk = DeferredLock()
        self._opened = False
        self._damaged: set[str] = set()
        self._waiting: list[tuple[str, int, Deferred[None]]] = []
        self._saver = SlotSaver(storage, clock, run_in_thread, self._disk, self._slots)

    def __iter__(self) -> Iterator[ReplicationSlot]:
        return iter(self._slots.values())

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, name: str) -> ReplicationSlot | None:
        """Return the slot of that name if there is one."""
        return self._slots.get(name)

    def needs(self) -> dict[str, LSN] | None:
        """
        Return from where on each slot that has reserved WAL needs it.

        :returns: ``None`` if that is not known: the slots have not been read, or a file is damaged.
        """
        if self._storage is not None and (not self._opened or self._damaged):
            return None
        return {slot.name: slot.needed_lsn for slot in self if slot.needed_lsn}

    # Beginning and end

    def load(self) -> None:
        """
        Read the permanent slots, before anybody is served; blocks for some small files.

        Without this they are read before the first one is created.

        :raises OSError: the directory cannot be used; see `SlotStorage.open` for more.
        :raises walsender.errors.ConfigurationError: there are more than the limit.
        """
        assert self._storage is not None, "nothing is stored anywhere"
        stored = self._storage.open()
        if len(stored.states) > self.limit:
            raise ConfigurationError(
                f'there are {len(stored.states)} replication slots, more than "max_replication_slots" '
                f"(currently {self.limit})"
            )
        self._take_over(stored)

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """Save what has changed; fires when it is done.  No session may be left."""
        yield self.save()
        self._saver.stop()
        self._slots.clear()
        self._owned.clear()
        self._opened = False

    # Commands

    def create(
        self,
        name: str,
        process_id: int,
        *,
        temporary: bool = False,
        restart_lsn: LSN = INVALID_LSN,
        reserved: Collection[str] = (),
    ) -> Deferred[None]:
        """
        Make a slot; fires when it is durable.  A temporary one is its maker's at once.

        :param restart_lsn: WAL from here on is reserved; 0: none yet.
        :param reserved: names that this server's version keeps for itself.
        :raises walsender.errors.WalsenderError: it cannot be made.  What only the disk tells
            is a failure of the Deferred.

        Source: PostgreSQL, src/backend/replication/slot.c, ReplicationSlotCreate.
        """
        check_name(name, reserved)
        if name in self._slots:
            raise _exists(name)
        if len(self._slots) >= self.limit:
            raise _full()
        if not temporary and self._storage is None:
            raise _no_storage(name)
        slot = ReplicationSlot(name, temporary, restart_lsn, busy=not temporary)
        self._slots[name] = slot
        self._give(slot, process_id)
        if temporary:
            self._rests(slot)
            return succeed(None)
        return self._disk.run(self._create_file, slot)

    def acquire(self, name: str, process_id: int) -> HeldSlot:
        """
        Claim a slot for a stream.

        :raises walsender.errors.UndefinedObject: there is none of that name.
        :raises walsender.errors.ObjectInUse: another session owns it.

        Source: PostgreSQL, src/backend/replication/slot.c, ReplicationSlotAcquire.
        """
        slot = self._find(name)
        if slot.busy or slot.owner not in {None, process_id}:
            raise _active(slot)
        self._give(slot, process_id)
        slot.inactive_since = None
        slot.held = HeldSlot(self, slot)
        return slot.held

    def drop(self, name: str, process_id: int, *, wait: bool = False) -> Deferred[None]:
        """
        Remove a slot; fires when that is durable.

        :param wait: until its owner lets go of it.
        :raises walsender.errors.UndefinedObject: there is none of that name.
        :raises walsender.errors.ObjectInUse: another session owns it, and *wait* is false.  What
            only the disk or the waiting tells is a failure of the Deferred.

        Source: PostgreSQL, src/backend/replication/slot.c, ReplicationSlotDrop.
        """
        slot = self._find(name)
        if slot.busy or slot.owner not in {None, process_id}:
            if not wait:
                raise _active(slot)
            released: Deferred[None] = Deferred()
            self._waiting.append((name, process_id, released))
            return released.addCallback(lambda _: self.drop(name, process_id, wait=True))
        if slot.temporary:
            self._forget(slot)
            return succeed(None)
        self._give(slot, process_id)
        slot.busy = True
        return self._disk.run(self._remove_file, slot)

    def let_go(self, process_id: int) -> None:
        """
        An ERROR or its end takes from a session what it has: temporary slots, its claim, its waiting.

        What it creates or drops at the moment is done to the end all the same.

        Source: PostgreSQL, src/backend/replication/walsender.c, WalSndErrorCleanup.
        """
        self._waiting = [waiter for waiter in self._waiting if waiter[1] != process_id]
        for slot in list(self._owned.get(process_id, ())):
            if slot.busy:
                continue
            if slot.temporary:
                self._forget(slot)
            else:
                self.release(slot)

    def cancel_wait(self, process_id: int) -> None:
        """Let a session that waits for a slot give up: its wait fails with `QueryCanceled`."""
        given_up = [waiter for waiter in self._waiting if waiter[1] == process_id]
        self._waiting = [waiter for waiter in self._waiting if waiter[1] != process_id]
        for _, _, released in given_up:
            released.errback(QueryCanceled("canceling statement due to user request"))

    # For whoever removes WAL

    @inlineCallbacks
    def invalidate(self, names: Collection[str]) -> Generator[Deferred[Any], Any, bool]:
        """
        Take from slots the WAL that is kept for them; who streams with one is told at once.

        A slot that is just being made or dropped keeps its WAL.

        :returns: whether it is durable, so that the WAL may be removed.

        Source: PostgreSQL, src/backend/replication/slot.c, InvalidatePossiblyObsoleteSlot.
        """
        for name in names:
            slot = self._slots.get(name)
            if slot is None or slot.busy:
                continue
            slot.invalidation_reason = WAL_REMOVED
            slot.restart_lsn, slot.saved_lsn = INVALID_LSN, None
            if slot.held is not None:
                slot.held.invalidated()
        yield self.save()
        return not any(slot.invalidation_reason and is_dirty(slot) for slot in self)

    # For `HeldSlot`

    def advance(self, slot: ReplicationSlot, restart_lsn: LSN) -> None:
        """Set where WAL is needed from; saved later."""
        slot.restart_lsn = restart_lsn
        self._saver.changed(slot)

    def release(self, slot: ReplicationSlot) -> None:
        """Let a slot be anybody's again; a temporary one stays with its session."""
        slot.held = None
        self._rests(slot)
        if slot.temporary:
            return
        self._give(slot, None)
        self._saver.released(slot)
        self._wake(slot.name)

    # Inside

    def _find(self, name: str) -> ReplicationSlot:
        slot = self._slots.get(name)
        if slot is None:
            raise UndefinedObject(f'replication slot "{name}" does not exist')
        return slot

    def _give(self, slot: ReplicationSlot, process_id: int | None) -> None:
        """Make a slot a session's, or nobody's; who has which is asked whenever a session ends."""
        if slot.owner is not None:
            owned = self._owned.get(slot.owner, {})
            owned.pop(slot, None)
            if not owned:
                self._owned.pop(slot.owner, None)
        slot.owner = process_id
        if process_id is not None:
            self._owned.setdefault(process_id, {})[slot] = None

    def _rests(self, slot: ReplicationSlot) -> None:
        """
        Note that nobody streams with a slot from now on; of one that is lost it does not matter any more.

        Source: PostgreSQL, src/include/replication/slot.h, ReplicationSlotSetInactiveSince.
        """
        if not slot.invalidation_reason:
            slot.inactive_since = self._now()

    def _forget(self, slot: ReplicationSlot) -> None:
        slot.held = None
        self._give(slot, None)
        del self._slots[slot.name]
        self._wake(slot.name)

    def _free(self, slot: ReplicationSlot) -> None:
        """What its owner did with it on disk is done."""
        self._give(slot, None)
        self._rests(slot)
        slot.busy = False
        self._wake(slot.name)

    def _wake(self, name: str) -> None:
        """Let those who wait for a slot try again: the first has it, the others wait on, or find it gone."""
        woken = [waiter for waiter in self._waiting if waiter[0] == name]
        self._waiting = [waiter for waiter in self._waiting if waiter[0] != name]
        for _, _, released in woken:
            released.callback(None)

    def _take_over(self, stored: StoredSlots) -> None:
        self._damaged = {name_of(path) for path in stored.damaged}
        for path, reason in stored.damaged.items():
            self._log.error(
                'replication slot file "{path}" is damaged and not used: {reason}; '
                "remove it, or create the slot again",
                path=path,
                reason=reason,
            )
        for name, state in stored.states.items():
            # If a session has a temporary slot of that name, it has lost it now: what is
            # on disk is a promise that somebody relies on.
            lsn = state.restart_lsn
            if name in self._slots:
                self._give(self._slots[name], None)
            self._slots[name] = ReplicationSlot(
                name,
                temporary=False,
                restart_lsn=lsn,
                invalidation_reason=state.invalidation_reason,
                saved_lsn=lsn,
                oldest_saved_lsn=lsn,
                inactive_since=self._now(),
            )
        self._opened = True

    @inlineCallbacks
    def _create_file(self, slot: ReplicationSlot) -> Generator[Deferred[Any], Any, None]:
        assert self._storage is not None, "checked when the slot was made"
        storage, name = self._storage, slot.name
        saving = False
        try:
            if not self._opened:
                yield self._open(slot)
            saving = True
            yield self._run_in_thread(storage.save, SlotState(name, slot.restart_lsn))
        except BaseException as error:
            if self._slots.get(name) is slot:
                self._forget(slot)
            if not isinstance(error, OSError):
                raise
            if saving:
                # It may have got as far as the new name.  If it cannot be taken away either, the
                # slot is there at the next start, which a client that was told of an error must expect.
                yield self._run_in_thread(storage.remove, name).addErrback(lambda _: None)
            raise self._storage_failed(f'could not create replication slot "{name}"', error) from error
        slot.saved_lsn = slot.oldest_saved_lsn = slot.restart_lsn
        self._damaged.discard(name)  # its file has been replaced
        self._free(slot)

    @inlineCallbacks
    def _open(self, new: ReplicationSlot) -> Generator[Deferred[Any], Any, None]:
        """Find what is on disk; another process may have left slots since we started."""
        assert self._storage is not None, "checked when the slot was made"
        try:
            stored: StoredSlots = yield self._run_in_thread(self._storage.open)
        except (OSError, ConfigurationError) as error:
            self._log.error(
                'could not use the state directory for replication slot "{name}": {reason}',
                name=new.name,
                reason=getattr(error, "message", error),
            )
            raise _no_storage(new.name) from error
        self._take_over(stored)
        if self._slots[new.name] is not new:
            self._wake(new.name)
            raise _exists(new.name)
        if len(self._slots) > self.limit:
            raise _full()

    @inlineCallbacks
    def _remove_file(self, slot: ReplicationSlot) -> Generator[Deferred[Any], Any, None]:
        assert self._storage is not None, "the slot is permanent"
        try:
            yield self._run_in_thread(self._storage.remove, slot.name)
        except OSError as error:
            # The slot lives on, and what is on disk of it, if anything, is written again.
            slot.saved_lsn = None
            self._free(slot)
            self._saver.try_again()
            raise self._storage_failed(f'could not drop replication slot "{slot.name}"', error) from error
        self._forget(slot)

    def _storage_failed(self, action: str, error: OSError) -> WalsenderError:
        return file_error(action, error)

    def save(self) -> Deferred[None]:
        """Save what has changed, now; never fails."""
        return self._saver.save()


def _exists(name: str) -> DuplicateObject:
    return DuplicateObject(f'replication slot "{name}" already exists')


def _active(slot: ReplicationSlot) -> ObjectInUse:
    return ObjectInUse(f'replication slot "{slot.name}" is active for PID {slot.owner}')


def _full() -> ConfigurationLimitExceeded:
    return ConfigurationLimitExceeded(
        "all replication slots are in use", hint='Free one or increase "max_replication_slots".'
    )


def _no_storage(name: str) -> WrongState:
    return WrongState(f'cannot create permanent replication slot "{name}" here', hint=_NO_STORAGE_HINT)
