"""WAL that the upstream no longer has when it is needed, and an archive does."""

from __future__ import annotations

from typing import Any

from receiver_helpers import ReceiverTestCase, Upstream, cluster_with
from twisted.internet.defer import Deferred, succeed
from twisted.logger import globalLogPublisher
from upstream_helpers import WAL

from walsender.lsn import LSN
from walsender.server_log.record import Record
from walsender.simulate.cluster import SEGMENT_SIZE
from walsender.upstream import UpstreamError


class FillingTests(ReceiverTestCase):
    """A relay that was away for so long that the upstream has removed what comes next."""

    def setUp(self) -> None:
        """Receive something, and be away."""
        super().setUp()
        self.upstream = Upstream(cluster_with(1.5))
        self.receive(self.upstream)
        self.held_before = self.held()
        while self.upstream.cluster.position < 7.5 * SEGMENT_SIZE:
            self.upstream.cluster.write(30_000)
        self.upstream.commands.clear()
        self.archived = range(8)
        self.restored: list[str] = []
        self.source.restore = self.restore

    def restore(self, name: str) -> Deferred[bool]:
        """Let the archive give a segment."""
        self.restored.append(name)
        number = int(name[16:], 16)
        if number not in self.archived:
            return succeed(False)
        content = self.upstream.cluster.wal(1, number * SEGMENT_SIZE, (number + 1) * SEGMENT_SIZE)
        descriptor = self.disk.create(f"{WAL}/{name}")
        self.disk.write(descriptor, content, 0)
        self.disk.close_descriptor(descriptor)
        return succeed(True)

    def lsn(self, number: int) -> str:
        """Return where a segment begins, as it is asked for."""
        return f"{LSN(number * SEGMENT_SIZE)} TIMELINE 1"

    def test_filled(self) -> None:
        """Segment after segment is restored, and shown; the upstream is gone back to at once."""
        self.upstream.oldest = 5 * SEGMENT_SIZE
        self.archived = range(6)
        receiver = self.receiver(self.upstream)
        self.assertEqual([self.lsn(2), self.lsn(6)], self.upstream.started_at())
        self.assertEqual((1, 6 * SEGMENT_SIZE), self.held())
        assert self.upstream.session is not None
        self.upstream.session.deliver()
        self.assertEqual((1, self.upstream.cluster.position), self.held())
        self.assertEqual(
            [f"{2 + step:024X}"[-8:] for step in range(5)], [name[16:] for name in self.restored]
        )
        self.successResultOf(receiver.stop())

    def test_notBeyondTheUpstreamsEnd(self) -> None:
        """An archive may have WAL that is none of this upstream's."""
        self.upstream.oldest = 5 * SEGMENT_SIZE
        self.upstream.sends = 5 * SEGMENT_SIZE + 100
        receiver = self.receiver(self.upstream)
        self.assertEqual((1, 5 * SEGMENT_SIZE), self.held())
        self.assertEqual("00000004", self.restored[-1][16:])
        self.successResultOf(receiver.stop())

    def test_notBeyondAFork(self) -> None:
        """Nor is what a timeline's last server wrote behind the place where the upstream left it."""
        fork = self.upstream.cluster.position
        self.upstream.cluster.promote(0)
        while self.upstream.cluster.position < 10.5 * SEGMENT_SIZE:
            self.upstream.cluster.write(30_000)
        self.archived = range(20)
        self.upstream.oldest = 9 * SEGMENT_SIZE
        receiver = self.receiver(self.upstream)
        self.assertEqual((1, fork // SEGMENT_SIZE * SEGMENT_SIZE), self.held())
        self.successResultOf(receiver.stop())

    def test_nobodyHasIt(self) -> None:
        """Nothing changes, and it is tried again later."""
        self.upstream.oldest = 5 * SEGMENT_SIZE
        self.archived = range(0)
        receiver = self.receiver(self.upstream)
        self.assertEqual(self.held_before, self.held())
        self.assertEqual([self.lsn(2)], self.upstream.started_at())
        self.clock.advance(5)
        self.assertEqual([self.lsn(2)] * 2, self.upstream.started_at())
        self.assertEqual(2, len(self.restored))
        self.successResultOf(receiver.stop())

    def test_notWhatNobodyHasMadeDurable(self) -> None:
        """A segment that somebody copies into the directory meanwhile is there at the next start only."""
        self.successResultOf(self.restore("000000010000000000000002"))
        self.upstream.oldest = 5 * SEGMENT_SIZE
        self.archived = range(0)
        receiver = self.receiver(self.upstream)
        self.assertEqual(self.held_before, self.held())
        self.successResultOf(receiver.stop())

    def test_keepalivesBeforeTheError(self) -> None:
        """PostgreSQL begins a stream with one before it finds that it has no WAL; that is logged once."""
        logged: list[Record] = []

        def observe(event: dict[str, Any]) -> None:
            logged.append(Record.of(event, "ERROR"))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.archived = range(0)
        receiver = self.receiver(self.upstream)
        for _ in range(3):
            session = self.upstream.session
            assert session is not None
            session.keepalive()
            assert session.receiver is not None
            session.receiver.session_lost(
                UpstreamError("requested WAL segment … has already been removed", "58P01")
            )
            self.clock.advance(5)
        (record,) = logged
        self.assertRegex(
            record.message,
            "^cannot receive WAL from the upstream: the upstream no longer has .* removed; trying again$",
        )
        hint = "Set restore_command, or copy the missing segments into wal_directory."
        self.assertEqual((None, hint), (record.detail, record.hint))
        self.successResultOf(receiver.stop())

    def test_stopWhileItIsRestored(self) -> None:
        """Whoever waits for an archive can be stopped."""
        self.upstream.oldest = 5 * SEGMENT_SIZE
        cancelled: list[str] = []
        self.source.restore = lambda name: Deferred(lambda _: cancelled.append(name))
        receiver = self.receiver(self.upstream)
        self.successResultOf(receiver.stop())
        self.assertEqual(1, len(cancelled))
        assert self.upstream.session is not None
        self.assertTrue(self.upstream.session.closed)


class HeldWholeTests(ReceiverTestCase):
    """A relay was restarted inside a record that two segments share."""

    def setUp(self) -> None:
        """Receive up to the middle of the record, and start again."""
        super().setUp()
        cluster = cluster_with(1.5)
        self.upstream = Upstream(cluster)
        self.receive(self.upstream)
        boundary = 3 * SEGMENT_SIZE
        while boundary - cluster.position > 40_000:
            cluster.write(30_000)
        cluster.write(boundary - cluster.position - 5000)
        self.begin = cluster.position
        cluster.write(30_000)
        self.upstream.sends = boundary + 8000
        self.receive(self.upstream)
        self.upstream.sends = None
        self.upstream.oldest = boundary  # where the slot is, or beyond
        self.upstream.commands.clear()
        self.new_source()

    def test_theNextSegmentIsAskedFor(self) -> None:
        """What is whole on disk is needed from nobody."""
        self.assertEqual((1, self.begin), self.held())
        self.receive(self.upstream)
        begins = [LSN(2 * SEGMENT_SIZE), LSN(3 * SEGMENT_SIZE)]
        self.assertEqual([f"{lsn} TIMELINE 1" for lsn in begins], self.upstream.started_at())
        self.assertEqual((1, self.upstream.cluster.position), self.held())

    def test_aSegmentThatIsNotWholeIsNot(self) -> None:
        """A page that is damaged behind the last whole record is seen."""
        file = self.disk.file(f"{WAL}/000000010000000000000002")
        descriptor = self.disk.open(f"{WAL}/000000010000000000000002")
        self.disk.write(descriptor, bytes(100), len(file.visible()) - 2 * 4096)
        self.disk.close_descriptor(descriptor)
        held = self.held()
        receiver = self.receiver(self.upstream)
        self.assertEqual(held, self.held())
        self.assertEqual([f"{LSN(2 * SEGMENT_SIZE)} TIMELINE 1"], self.upstream.started_at())
        self.successResultOf(receiver.stop())
