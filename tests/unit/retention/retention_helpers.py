"""A relay's directory and its slots on one simulated disk, and what removes WAL from it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walsender.lsn import LSN
from walsender.replication_slots import ReplicationSlots, SlotStorage
from walsender.retention import Limits, WalRemover
from walsender.simulate.cluster import SEGMENT_SIZE, Cluster
from walsender.simulate.disk import PowerLost, SimulatedDisk
from walsender.simulate.files import SlotFilesOnDisk, WalFiles
from walsender.source import RelaySource

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from walsender.upstream import GroupCommit

MIB = SEGMENT_SIZE
WAL = "/wal"
STATE = "/wal/walsender_state"
NAME = "{:08X}00000000{:08X}"


class Threads:
    """
    Runs at once, or when told to.

    :ivar dead: the power was lost in one, and nothing comes back from any.
    """

    def __init__(self) -> None:
        self.holding = False
        self.dead = False
        self.jobs: list[Callable[[], None]] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """See `deferToThread`."""
        result: Deferred[Any] = Deferred()
        self.jobs.append(lambda: self._run(result, function, *arguments))
        if not self.holding:
            self.finish()
        return result

    def _run(self, result: Deferred[Any], function: Callable[..., Any], *arguments: Any) -> None:
        def call() -> Any:
            try:
                return function(*arguments)
            except PowerLost:
                self.dead = True
                return None

        if self.dead:
            return
        done = maybeDeferred(call)
        if not self.dead:
            done.chainDeferred(result)

    def finish(self) -> None:
        """Do all that waits."""
        while self.jobs:
            self.jobs.pop(0)()


class Relay:
    """What a relay has of one timeline; it can be started again on the same disk."""

    def __init__(self, seed: int = 0, limits: Limits | None = None) -> None:
        self.cluster = Cluster()
        self.disk = SimulatedDisk(random.Random(seed))
        self.disk.make_directory(WAL)
        self.disk.sync_directory("/")
        self.files = WalFiles(self.disk)
        self.limits = limits or Limits(keep=0)
        self.failures: list[Failure] = []
        self.start()

    def start(self) -> None:
        """Begin a new process."""
        self.clock = Clock()
        self.threads = Threads()
        self.sent = LSN(0)
        slot_files = SlotFilesOnDisk(self.disk)
        storage = SlotStorage(slot_files, STATE, lambda: slot_files.make_directory(STATE))
        self.slots = ReplicationSlots(storage, 10, self.clock, self.threads.run)
        self.slots.load()
        self.source = RelaySource(self.threads.run, self.threads.run, self.files, WAL)
        self.source.start()
        self.remover = WalRemover(
            self.clock, self.source, self.slots, lambda: self.sent, self.limits, permission="the file"
        )
        self.commits: GroupCommit | None = None

    def receive(self, end: int, start: int = MIB, timeline: int = 1) -> None:
        """Let WAL come up to *end*, from *start* on if none came before."""
        while self.cluster.position < end:
            self.cluster.write(min(200_000, max(100, end - self.cluster.position)))
        if self.commits is None:
            self._received = start
            self.commits = self.source.keep_from(
                timeline, start, self.cluster.geometry, lambda _: None, self.failures.append
            )
        self.commits.append(self.cluster.wal(timeline, self._received, end))
        self._received = end
        self.commits.commit()

    @property
    def numbers(self) -> list[int]:
        """The numbers of the segments that have files."""
        names = (name for name in self.disk.names(WAL) if not name.startswith("walsender"))
        return sorted({int(name[16:24], 16) for name in names if not name.endswith(".history")})


class RetentionTestCase(SynchronousTestCase):
    """Has relays, and lets go of their files."""

    def relay(self, seed: int = 0, limits: Limits | None = None, segments: float = 6.5) -> Relay:
        """Return a relay that has received so many segments, the first of which has number 1."""
        relay = Relay(seed, limits)
        self.addCleanup(relay.disk.close)
        relay.receive(int((1 + segments) * MIB))
        self.assertEqual([], relay.failures)
        return relay
