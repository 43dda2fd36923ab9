"""`Retention`: whether a relay may remove what it is about to remove, judged by what is on its disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from walsender.errors import DataCorrupted
from walsender.replication_slots.state import SlotState, decode_state
from walsender.simulate.cluster import SEGMENT_SIZE
from walsender.simulate.platter import File
from walsender.source.relay import RelaySource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twisted.internet.defer import Deferred

    from walsender.replication_slots.slot import ReplicationSlot
    from walsender.retention import Limits
    from walsender.simulate.disk import SimulatedDisk


class WatchedSource(RelaySource):
    """
    A relay's source that tells of each decision to remove WAL.

    :ivar deciding: is called with the number of the first segment that is kept.
    :ivar fetched: is called with the name of each segment that has come back.
    """

    deciding: Callable[[int], object] = bool
    fetched: Callable[[str], object] = bool

    def segment_fetched(self, name: str) -> None:
        """See `walsender.source.shelves.IFetchingKeeper`."""
        self.fetched(name)
        super().segment_fetched(name)

    def remove_before(self, number: int, at_most: int) -> Deferred[int]:
        """See `walsender.retention.remover.IRemovableWal`."""
        self.deciding(number)
        return super().remove_before(number, at_most)


class Retention:
    """
    What has been decided in one life of a relay's program.

    :param limits: that were set.
    :param slots_path: of the directory with the files of slots.
    :param broken: is told what must not be.
    """

    def __init__(
        self, limits: Limits, disk: SimulatedDisk, slots_path: str, broken: Callable[[str], object]
    ) -> None:
        self._limits = limits
        self._disk = disk
        self._slots_path = slots_path
        self._broken = broken

    def decided(self, first: int, flush: int, slots: Iterable[ReplicationSlot], sent: Iterable[int]) -> None:
        """
        All before segment *first* is to go.

        :param flush: end of what is durable.
        :param slots: as the program knows them.
        :param sent: how far connected standbys have been sent WAL.
        """
        keep = self._limits.keep
        if keep is None:
            self._broken("removes WAL, although all is to be kept")
            return
        needed = {"wal_keep_size": flush // SEGMENT_SIZE - keep // SEGMENT_SIZE}
        needed["the end of WAL"] = (flush - 1) // SEGMENT_SIZE
        most = self._limits.slots
        limit = 0 if most is None else flush // SEGMENT_SIZE - most // SEGMENT_SIZE
        for number, position in enumerate(sent, 1):
            needed[f"the standby of connection {number}"] = max(position // SEGMENT_SIZE, limit)
        for slot in slots:
            if not slot.invalidation_reason and slot.restart_lsn:
                needed[f"slot {slot.name}"] = int(slot.restart_lsn) // SEGMENT_SIZE
        for state in self._slots_after_a_crash():
            if not state.invalidation_reason and state.restart_lsn:
                number = int(state.restart_lsn) // SEGMENT_SIZE
                needed[f"slot {state.name} as a power failure could leave it"] = number
                if number < first:
                    break
        for who, number in needed.items():
            if number < first:
                self._broken(f"removes WAL before segment {first}, of which {who} needs {number}")

    def _slots_after_a_crash(self) -> Iterator[SlotState]:
        """Yield every state of every slot that a power failure could leave."""
        try:
            directory = self._disk.directory(self._slots_path)
        except OSError:
            return
        names = {*directory.platter, *(change.name for change in directory.pending)}
        for name in sorted(names):
            if not name.endswith(".slot"):
                continue
            for outcome in directory.outcomes(frozenset({name, name + ".tmp"})):
                file = outcome.get(name)
                if isinstance(file, File):
                    try:
                        yield decode_state(bytes(file.platter))
                    except DataCorrupted:
                        continue  # then it is not known what is needed, and nothing is removed


__all__ = ["Retention", "WatchedSource"]
