"""What a relay's thread of the commits sends, and when: nothing that is not flushed, or not shown next."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING

from source_helpers import MIB, SourceTestCase, Threads

from walsender.simulate.cluster import Cluster
from walsender.simulate.disk import SimulatedDisk
from walsender.simulate.files import WalFiles
from walsender.source import Permit
from walsender.source.relay import RelaySource

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from walsender.source import NewestWal
    from walsender.upstream import Commit

WAL = "/wal"
FAR = 9 * MIB


class Subscriber:
    """Who does not care."""

    def wal_grew(self) -> None:
        """See `IWalSubscriber`."""


class RelaysPermitsTests(SourceTestCase):
    def setUp(self) -> None:
        """Make a relay that has received a segment and a half."""
        super().setUp()
        self.cluster = Cluster()
        while self.cluster.position < 4 * MIB:
            self.cluster.write(20_000)
        self.disk = SimulatedDisk(random.Random(0))
        self.addCleanup(self.disk.close)
        self.disk.make_directory(WAL)
        self.disk.sync_directory("/")
        self.relay = RelaySource(Threads(), Threads(), WalFiles(self.disk), WAL)
        self.successResultOf(self.relay.start())
        self.sent: list[tuple[bytes, int, bool]] = []
        self.committed: list[Commit] = []
        self.failed: list[Failure] = []
        self.commits = self.relay.keep_from(
            1, MIB, self.cluster.geometry, self.committed.append, self.failed.append
        )
        self.position = MIB
        self.receive(2 * MIB + MIB // 2)

    def receive(self, end: int) -> None:
        """Receive and commit WAL up to *end*."""
        self.commits.append(self.cluster.wal(1, self.position, end))
        self.position = end
        self.commits.commit()

    def permit(self, timeline: int = 1) -> None:
        """Let what comes next be sent."""
        permit = Permit(timeline, self.position, FAR, self.message, float)
        permit.send = self.send
        self.relay.permits.add(permit)

    @staticmethod
    def message(newest: NewestWal) -> bytes:
        """Return no more than the WAL."""
        return newest.data

    def send(self, message: bytes) -> int:
        """Note what is sent, what the flush position is then, and whether the disk has all of it."""
        name = f"{WAL}/000000010000000000000002.partial"
        begin = self.position - 2 * MIB - len(message)
        on_platter = bytes(self.disk.file(name).platter)[begin : begin + len(message)]
        self.sent.append((message, self.relay.flush_position, on_platter == message))
        return len(message)

    def test_sentWhenDurable(self) -> None:
        """What is sent is on the platter, below the flush position, and not told to the reactor yet."""
        self.permit()
        start = self.position
        told = len(self.committed)
        self.receive(start + 1000)
        wal = self.cluster.wal(1, start, start + 1000)
        self.assertEqual([(wal, start + 1000, True)], self.sent)
        self.assertEqual(told + 1, len(self.committed))
        self.assertEqual(start + 1000, self.relay.flush_position)

    def test_sentToAll(self) -> None:
        """It is known whether all who follow have got it, but for those who can wait."""
        self.relay.subscribe(Subscriber(), patient=True)
        followers = [Subscriber(), Subscriber()]
        self.assertEqual([True], self.sent_to_all())
        for follower in followers:
            self.relay.subscribe(follower)
            self.assertEqual([False], self.sent_to_all())
            self.permit()
            self.assertEqual([True], self.sent_to_all())
        third = Subscriber()
        self.relay.subscribe(third)
        self.relay.subscribe(third)
        self.assertEqual([False], self.sent_to_all())
        self.relay.unsubscribe(third)
        self.relay.unsubscribe(third)
        self.assertEqual([True], self.sent_to_all())

    def sent_to_all(self) -> list[bool]:
        """Receive a little; return whether all who follow have got it."""
        told = len(self.committed)
        self.receive(self.position + 100)
        return [commit.sent for commit in self.committed[told:]]

    def test_notAllOfItTaken(self) -> None:
        """Who has taken a part of it waits for the rest."""
        self.relay.subscribe(Subscriber())
        self.permit()
        (permit,) = self.relay.permits._standing
        permit.send = lambda message: len(message) - 1
        self.assertEqual([False], self.sent_to_all())

    def test_aFlushThatFails(self) -> None:
        """What could not be made durable is not sent, and the flush position stays."""
        self.permit()
        start = self.position
        self.disk.failing["sync"] = [errno.EIO]
        self.receive(start + 1000)
        self.assertEqual(1, len(self.failed))
        self.assertEqual([], self.sent)
        self.assertEqual(start, self.relay.flush_position)

    def test_notIntoTheNextSegment(self) -> None:
        """What ends a segment or goes on behind it is in a file that readers do not know yet."""
        self.receive(3 * MIB - 100)
        for end in (3 * MIB, 3 * MIB + 100):
            self.permit()
            self.receive(end)
            self.assertEqual([], self.sent)
            self.assertEqual(end, self.relay.flush_position)

    def test_muchIsNotAtHand(self) -> None:
        """A large commit is the reactor's to send."""
        self.permit()
        self.receive(self.position + 100_000)
        self.assertEqual([], self.sent)

    def test_anotherTimeline(self) -> None:
        """A permit for another timeline is not used."""
        self.permit(2)
        self.receive(self.position + 1000)
        self.assertEqual([], self.sent)

    def again(self, *, spoilt: bool) -> None:
        """Receive again what is held of the second segment, from an upstream that has no more."""
        self.successResultOf(self.commits.close())
        self.commits = self.relay.keep_from(
            1, 2 * MIB, self.cluster.geometry, self.committed.append, self.failed.append
        )
        if spoilt:
            self.disk.failing["sync"] = [errno.EIO]
        self.commits.append(self.cluster.wal(1, 2 * MIB, self.position))
        self.commits.commit()

    def test_notWhileReadersHaveAnotherFile(self) -> None:
        """Whoever asks when the thread has flushed, and the reactor not heard, reads what was flushed."""
        opened = self.successResultOf(self.relay.open_segment(1, 2))
        self.again(spoilt=True)
        self.again(spoilt=False)  # into a copy
        read: list[bytes] = []

        def send(message: bytes) -> int:
            end, begin = self.relay.end_of(1).position, self.position
            segment = self.successResultOf(self.relay.open_segment(1, 2))
            read.append(os.pread(segment.descriptor, end - begin, begin - 2 * MIB))
            return len(message)

        permit = Permit(1, self.position, FAR, lambda newest: newest.data, float)
        permit.send = send
        self.relay.permits.add(permit)
        wal = self.cluster.wal(1, self.position, self.position + 1000)
        self.commits.append(wal)
        self.commits.commit()
        self.assertTrue(opened.retired)
        self.assertEqual([wal], read)

    def test_aCopyIsServedBeforeMoreComes(self) -> None:
        """Where the upstream is idle, nothing may tell of the file that has taken another's place."""
        self.again(spoilt=True)
        self.again(spoilt=False)
        segment = self.successResultOf(self.relay.open_segment(1, 2))
        size = self.position - 2 * MIB
        self.assertEqual(self.cluster.wal(1, 2 * MIB, self.position), os.pread(segment.descriptor, size, 0))
