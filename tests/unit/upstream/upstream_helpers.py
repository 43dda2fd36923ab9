"""A simulated disk with a WAL directory, the WAL of a cluster to write there, and a ledger that watches."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from walsender.simulate.cluster import SEGMENT_SIZE, Cluster
from walsender.simulate.disk import SimulatedDisk
from walsender.simulate.files import WalFiles
from walsender.simulate.ledger import Ledger
from walsender.upstream import Commit, Room, SegmentWriter
from walsender.wal import Identity, WalIdentity, parse_identity

WAL = "/wal"
FIRST = "000000010000000000000001"
SECOND = "000000010000000000000002"
KIB = 1 << 10


class Relay:
    """A disk, and all that a receiver keeps of one timeline between two writers."""

    def __init__(self, segments: float = 2.5, seed: int = 0) -> None:
        self.cluster = Cluster()
        while self.cluster.position < SEGMENT_SIZE * (1 + segments):
            self.cluster.write(30_000)
        self.disk = SimulatedDisk(random.Random(seed))
        self.disk.make_directory(WAL)
        self.disk.sync_directory("/")
        self.files = WalFiles(self.disk)
        self.ledger = Ledger(self.disk, WAL, self.cluster)
        self.disk.changed = lambda _, path: self.ledger.changed(path.rpartition("/")[2])
        self.distrusted: set[Identity] = set()
        self.room: Room | None = None
        self.identity: WalIdentity | None = None
        self.position = SEGMENT_SIZE
        self.sent = SEGMENT_SIZE
        self.writer = self.new_writer()

    def new_writer(self, start: int | None = None, valid: int | None = None) -> SegmentWriter:
        """Return a writer that goes on from what is held, as at the next connection."""
        if start is None:
            start = self.position // SEGMENT_SIZE * SEGMENT_SIZE
        self.sent = start
        self.writer = SegmentWriter(
            self.files,
            WAL,
            self.cluster.geometry,
            1,
            start,
            self.position if valid is None else valid,
            identity=self.identity,
            distrusted=self.distrusted,
            room=self.room,
        )
        return self.writer

    def wal(self, end: int) -> bytes:
        """Return the WAL that comes next, up to *end*."""
        start, self.sent = self.sent, end
        return self.cluster.wal(1, start, end)

    def commit(self, *ends: int) -> Commit:
        """Let WAL come, in pieces that end there, and be made durable; whoever is told may rely on it."""
        commit = self.writer.commit([self.wal(end) for end in ends])
        self.ledger.promise(1, SEGMENT_SIZE, commit.position, "the upstream")
        self.position, self.identity = commit.position, commit.identity
        return commit

    def names(self) -> list[str]:
        """Return the names in the WAL directory."""
        return sorted(self.disk.names(WAL))

    def content(self, name: str) -> bytes:
        """Return a file's content."""
        return self.disk.file(f"{WAL}/{name}").visible()

    def put(self, name: str, content: bytes) -> None:
        """Make a durable file."""
        descriptor = self.disk.create(f"{WAL}/{name}")
        self.disk.write(descriptor, content, 0)
        self.files.sync(descriptor)
        self.files.close(descriptor)
        self.disk.sync_directory(WAL)


class RelayTestCase(SynchronousTestCase):
    """Has relays, and lets go of their files."""

    def relay(self, segments: float = 2.5, seed: int = 0) -> Relay:
        """Return a relay with an empty directory."""
        relay = Relay(segments, seed)
        self.addCleanup(relay.disk.close)
        return relay


def identity_of(cluster: Cluster) -> WalIdentity:
    """Return whose WAL it is."""
    return parse_identity(FIRST, cluster.wal(1, SEGMENT_SIZE, SEGMENT_SIZE + 64))
