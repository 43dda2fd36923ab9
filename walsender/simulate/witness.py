"""What must hold whenever a server and a client have spoken: the invariants of what passes between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from walsender.simulate.ledger import Broken

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from walsender.replication_slots.slot import ReplicationSlot
    from walsender.simulate.cluster import Cluster
    from walsender.simulate.ledger import Ledger
    from walsender.simulate.world import World


class Server:
    """
    What one server has told, over all lives of its program.

    :param ledger: of its disk; ``None``: it is a primary, whose disk is not at stake.
    """

    def __init__(self, world: World, name: str, cluster: Cluster, ledger: Ledger | None) -> None:
        self._world = world
        self._cluster = cluster
        self._slots: dict[str, list[int]] = {}
        self._saved: dict[str, int] = {}
        self.name = name
        self.ledger = ledger
        self.may_lose_slots = False
        self.furthest = (0, 0)  # timeline and position that anybody was told or sent

    def disk_crashed(self) -> None:
        """The disk has lost what it could."""
        assert self.ledger is not None, "only relays have disks"
        self._check(lambda ledger: ledger.changed(""))

    def promise(self, timeline: int, start: int, end: int, to_whom: str) -> None:
        """See `Ledger.promise`."""
        self._check(lambda ledger: ledger.promise(timeline, start, end, to_whom))

    def announce(self, timeline: int, to_whom: str) -> None:
        """See `Ledger.announce`."""
        self._check(lambda ledger: ledger.announce(timeline, to_whom))

    def _check(self, check: Callable[[Ledger], None]) -> None:
        if self.ledger is None:
            return
        try:
            check(self.ledger)
        except Broken as broken:
            self._world.broken(f"{self.name}: {broken}")

    def had(self, number: int) -> bool:
        """Return whether anything of this segment was promised; a primary has them all."""
        return self.ledger is None or any(number in promised for promised in self.ledger.promised.values())

    # Slots

    def slot_created(self, name: str) -> None:
        """A client has been told that its slot is there."""
        self._slots.setdefault(name, [0])

    def slot_lost(self, name: str) -> None:
        """A client has been told that its slot has lost its WAL; it will drop that."""
        if not self.may_lose_slots:
            self._world.broken(f'{self.name}: the slot "{name}" has lost its WAL, which was to be kept')
        self._slots.pop(name, None)
        self._saved.pop(name, None)

    def slot_reported(self, name: str, flush: int) -> None:
        """A client with a slot says how far it is."""
        if name in self._slots:
            self._slots[name].append(flush)

    def slots_left(self, slots: Iterable[ReplicationSlot]) -> None:
        """The program has ended with these."""
        for slot in slots:
            if slot.name in self._slots and slot.saved_lsn is not None:
                self._saved[slot.name] = int(slot.saved_lsn)

    def slots_found(self, slots: Collection[ReplicationSlot]) -> None:
        """The program has started and found these: each as it was saved last, or newer."""
        found = {slot.name: int(slot.restart_lsn) for slot in slots}
        lost = {slot.name for slot in slots if slot.invalidation_reason}
        if lost and not self.may_lose_slots:
            self._world.broken(f"{self.name}: slots {lost} have lost their WAL, which was to be kept")
        for name, reported in self._slots.items():
            if name in lost:
                continue
            if name not in found:
                self._world.broken(f'{self.name}: the slot "{name}" is lost')
                return
            saved = self._saved.get(name, 0)
            # A client may have said so again behind it, in what did not arrive.
            oldest = reported.index(saved)
            if found[name] not in reported[oldest:]:
                self._world.broken(
                    f'{self.name}: the slot "{name}" is at {found[name]:X}, was saved at {saved:X} before'
                )
            del reported[:oldest]  # so that nothing from before this life is taken for newer


class Witness:
    """
    Looks at one connection.

    :param client: is a relay if it has a ledger.
    """

    def __init__(self, world: World, cluster: Cluster, server: Server, client: Server) -> None:
        self._world = world
        self._cluster = cluster
        self._server = server
        self._client = client
        self._furthest = server.furthest

    def announced(self, timeline: int, position: int) -> None:
        """See `walsender.simulate.client.IWitness`."""
        before, told = self._furthest
        if timeline < before or (timeline == before and position < self._found_again(before, told)):
            self._broken(f"announces {timeline}:{position:X}, was at {before}:{told:X} before")
        self._told(timeline, position)
        start = position - position % self._cluster.geometry.segment_size
        self._server.promise(timeline, start, position, f"{self._client.name} (by IDENTIFY_SYSTEM)")

    def history_received(self, timeline: int, content: bytes) -> None:
        """See `walsender.simulate.client.IWitness`."""
        if content != self._cluster.history_file(timeline):
            self._broken(f"sends a wrong history of timeline {timeline}")
        self._server.announce(timeline, self._client.name)

    def wal_received(self, timeline: int, position: int, data: bytes) -> None:
        """See `walsender.simulate.client.IWitness`."""
        end = position + len(data)
        if timeline not in self._cluster.ends or end > self._cluster.ends[timeline]:
            self._broken(f"sends WAL up to {timeline}:{end:X}, which nobody has written")
            return
        if data != self._cluster.wal(timeline, position, end):
            self._broken(f"sends wrong WAL between {timeline}:{position:X} and {end:X}")
        self._world.count("bytes received", len(data))
        self._told(timeline, end)
        self._server.promise(timeline, position, end, self._client.name)

    def timeline_ended(self, timeline: int, next_timeline: int, position: int) -> None:
        """See `walsender.simulate.client.IWitness`."""
        switch = self._cluster.history(next_timeline).switchpoint(timeline)
        if switch is None or switch[0] != position:
            self._broken(f"says that timeline {timeline} ends at {position:X} and {next_timeline} follows")
        self._server.announce(next_timeline, self._client.name)

    def reported(self, timeline: int, start: int, flush: int) -> None:
        """See `walsender.simulate.client.IWitness`."""
        self._client.promise(timeline, start, flush, f"{self._server.name} (as flushed)")

    def _found_again(self, timeline: int, told: int) -> int:
        """
        Return up to where a server finds its WAL again after a crash at least, of that up to *told*.

        The beginning of a record cannot be told from garbage, and neither can the rest of one that began in
        a segment which the server has never had.
        """
        begin, end = self._cluster.last_record(timeline, told)
        number = self._cluster.geometry.segment_number(begin)
        if self._server.had(number):
            return end
        return min(end, self._cluster.geometry.segment_start(number + 1))

    def _told(self, timeline: int, position: int) -> None:
        # A stream of an older timeline, to one who is behind, says nothing about the newest.
        self._server.furthest = max(self._server.furthest, (timeline, position))

    def _broken(self, what: str) -> None:
        self._world.broken(f"{self._server.name} {what}, to {self._client.name}")
