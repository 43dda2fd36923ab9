"""What a receiver asks an upstream for, and when it leaves it."""

from __future__ import annotations

from receiver_helpers import ReceiverTestCase, Upstream, cluster_with

from walsender.upstream import NotReceiving, ReceiverSettings, WalReceiver


class HistoryTests(ReceiverTestCase):
    def test_anAncestorsHistoryThatTheUpstreamLacksIsDoneWithout(self) -> None:
        """A primary that began as a copy of a later timeline has no files of earlier ones, and is relayed."""
        cluster = cluster_with(1.5)
        for _ in range(2):
            cluster.promote(0)
            cluster.write(30_000)
        upstream = Upstream(cluster)
        upstream.missing = {2}
        self.receive(upstream)
        self.assertEqual(self.held(), (3, cluster.position))
        self.assertIsNone(self.source.known_history(2))

    def test_anUpstreamThatIsRefusedLeavesNoHistory(self) -> None:
        """The history of a server that is not followed must not be in the way of the one that is."""
        ours, other = cluster_with(1.5), cluster_with(1.5)
        ours.promote(0)
        ours.write(30_000)
        self.receive(Upstream(ours))
        other.promote(3)
        other.write(30_000)
        other.promote(0)
        other.write(30_000)
        strange = Upstream(other)
        self.receive(strange)
        self.assertEqual(strange.started_at(), [])
        self.assertIsNone(self.source.known_history(3))
        self.assertEqual(self.held(), (2, ours.position))


class BranchTests(ReceiverTestCase):
    def test_aBranchThatWentOnWhereWeLeftItIsFollowed(self) -> None:
        """What an ancestor wrote after our timeline had left it is received once, and then its successor."""
        ours, other = cluster_with(1.2), cluster_with(3.2)
        ours.promote(2)
        ours.write(30_000)
        self.receive(Upstream(ours))
        other._maker._newest_timeline = 2  # whoever promotes it has seen our history
        other.promote(0)
        other.write(30_000)
        upstream = Upstream(other)
        self.receive(upstream)
        self.assertEqual([start.split()[-1] for start in upstream.started_at()], ["1", "3"])
        self.assertEqual(self.held(), (3, other.position))
        self.assertEqual(self.source.end_of(1).position, other.begin(3))
        number = self.source.geometry.segment_number(other.begin(3)) - 1
        segment = self.successResultOf(self.source.open_segment(1, number))
        self.assertEqual(segment.name, f"0000000100000000{number:08X}")

    def test_aBranchIsReceivedIntoADirectoryThatBeganOnOurs(self) -> None:
        """Nothing of the ancestor is here but what our timeline's first segment begins with."""
        ours, other = cluster_with(1.5), cluster_with(1.9)
        ours.promote(2)
        ours.write(30_000)
        self.receive(Upstream(ours))
        other._maker._newest_timeline = 2
        other.promote(0)
        other.write(30_000)
        self.receive(Upstream(other))
        self.assertEqual(self.held(), (3, other.position))


class AtHandTests(ReceiverTestCase):
    def test_whatHasJustBecomeDurableIsAtHand(self) -> None:
        """A little WAL that comes is kept for the standbys that are level; nothing is after the start."""
        cluster = cluster_with(1.5)
        upstream = Upstream(cluster)
        self.receiver(upstream)
        assert upstream.session is not None
        upstream.session.deliver()
        before = self.source.flush_position
        cluster.write(300)
        upstream.session.deliver()
        newest = self.source.newest
        assert newest is not None
        self.assertEqual((newest.timeline, newest.start, newest.end), (1, before, cluster.position))
        self.assertEqual(newest.data, cluster.wal(1, before, cluster.position))
        self.assertIsNone(self.new_source().newest)


class LeavingTests(ReceiverTestCase):
    def test_stopWhileACommitIsWaitedForIsHeard(self) -> None:
        """At the end of a timeline the receiver waits for the disk; told to stop then, it goes no further."""
        cluster = cluster_with(1.5)
        upstream = Upstream(cluster)
        receiver = self.receiver(upstream)
        assert upstream.session is not None
        upstream.session.deliver()
        cluster.promote(0)
        cluster.write(30_000)
        self.thread.hangs = True
        upstream.session.deliver()
        stopped = receiver.stop()
        self.thread.go_on()
        self.successResultOf(stopped)
        self.assertTrue(upstream.session.closed)

    def test_anotherUpstreamWhileACommitIsWaitedForIsGoneTo(self) -> None:
        """A reload at the end of a timeline leaves the old upstream as it does at any other time."""
        cluster = cluster_with(1.5)
        upstream, other = Upstream(cluster), Upstream(cluster)
        receiver = self.receiver(upstream)
        assert upstream.session is not None
        upstream.session.deliver()
        cluster.promote(0)
        cluster.write(30_000)
        self.thread.hangs = True
        upstream.session.deliver()
        receiver.reconfigure(other, ReceiverSettings(), None)
        self.thread.go_on()
        self.assertTrue(upstream.session.closed)
        self.assertEqual(other.started_at(), ["0/200000 TIMELINE 2"])


class SilenceTests(ReceiverTestCase):
    def check_silence(self, command: str) -> None:
        """Check that an upstream which does not answer *command* is left, and tried again."""
        upstream = Upstream(cluster_with(1.5))
        upstream.silent = command
        self.receiver(upstream, timeout=60.0)
        first = upstream.session
        assert first is not None
        self.clock.advance(59)
        self.assertFalse(first.closed)
        self.clock.advance(1)
        self.assertTrue(first.closed)
        upstream.silent = "nothing"
        self.clock.advance(5)
        assert upstream.session is not None
        self.assertTrue(upstream.session.deliver())

    def test_anUpstreamThatDoesNotAnswerACommandIsLeft(self) -> None:
        """A network that is cut between two commands holds a relay up for wal_receiver_timeout, no longer."""
        self.check_silence("IDENTIFY_SYSTEM")

    def test_anUpstreamThatDoesNotBeginToStreamIsLeft(self) -> None:
        """Likewise behind START_REPLICATION."""
        self.check_silence("START_REPLICATION")


class OutageTests(ReceiverTestCase):
    def test_sinceWhenAndWhyNothingIsReceived(self) -> None:
        """It is from the start, or from the end of what lived, and the last error is told."""
        upstream = Upstream(cluster_with(1.5), version=90300)
        self.clock.advance(5)
        receiver = self.receiver(upstream)
        why = "the upstream is PostgreSQL 9: too old to be relayed"
        self.assertEqual(receiver.not_receiving, NotReceiving(5.0, why))
        upstream.version = 180000
        self.clock.advance(2)
        self.assertIsNone(receiver.not_receiving)
        assert upstream.session is not None
        self.assertTrue(upstream.session.deliver())
        self.clock.advance(60)
        assert upstream.session.receiver is not None
        upstream.oldest = upstream.end + 1
        upstream.session.receiver.stream_ended([])
        self.clock.advance(3)
        outage = receiver.not_receiving
        assert outage is not None
        self.assertEqual(outage.since, 67.0)
        self.assertIn("the upstream no longer has WAL", outage.error)
        self.assertIn("restore_command", outage.error)
        # A stream that is answered and ends at once is no end of it.
        upstream.oldest = 0
        self.clock.advance(3)
        self.assertIsNone(receiver.not_receiving)
        assert upstream.session.receiver is not None
        upstream.session.receiver.stream_ended([])
        self.assertEqual(receiver.not_receiving, NotReceiving(67.0, "replication terminated by the upstream"))


class ReportTests(ReceiverTestCase):
    def test_whatWaitsForTheDiskIsNotWritten(self) -> None:
        """WAL that only this process has is told of as neither flushed nor written."""
        upstream = Upstream(cluster_with(1.5))
        self.receiver(upstream)
        session = upstream.session
        assert session is not None
        self.thread.hangs = True
        session.deliver()
        self.clock.advance(10)
        start = session.statuses()[0].flush_lsn
        self.assertEqual({(said.write_lsn, said.flush_lsn) for said in session.statuses()}, {(start, start)})
        self.thread.go_on()
        last = session.statuses()[-1]
        self.assertEqual((last.write_lsn, last.flush_lsn, last.replay_lsn), (upstream.end,) * 3)

    def feedbacks(self, *needs: tuple[int, int] | None, interval: float = 10.0) -> list[tuple[int, int]]:
        """Return the feedback that is sent while the standbys need this, one interval after another."""
        upstream = Upstream(cluster_with(1.5))
        needed = iter(needs)
        receiver = WalReceiver(
            self.clock,
            upstream,
            self.source,
            ReceiverSettings(status_interval=interval, timeout=0.0),
            feedback=None if needs[0] is None else lambda: next(needed),
        )
        receiver.start()
        for _ in needs[1:]:
            self.clock.advance(interval)
        self.successResultOf(receiver.stop())
        assert upstream.session is not None
        return upstream.session.feedbacks()

    def test_feedbackGoesToTheUpstreamAndIsTakenBackOnce(self) -> None:
        """While standbys need something it is said each time; that nobody does any more, once."""
        needs = (700, 0), (701, 650), (0, 0), (0, 0), (702, 0)
        self.assertEqual(self.feedbacks(*needs), [(700, 0), (701, 650), (0, 0), (702, 0)])

    def test_feedbackOfAFormerConnectionIsTakenBack(self) -> None:
        """The upstream's slot may remember what a relay has said that was stopped, or told to say no more."""
        self.assertEqual(self.feedbacks((0, 0), (0, 0)), [(0, 0)])
        self.assertEqual(self.feedbacks(None, None), [(0, 0)])

    def test_feedbackThatIsNotKnownYet(self) -> None:
        """Nothing is taken back before it is known that nobody needs it; then it is."""
        self.assertEqual(self.feedbacks((7, 0), None, (0, 0), (0, 0)), [(7, 0), (0, 0)])

    def test_withoutAnIntervalNothingIsHeldBackForGood(self) -> None:
        """Where status is not sent regularly, feedback could not be taken back."""
        self.assertEqual(self.feedbacks((700, 0), interval=0.0), [(0, 0)])


class FirstWalTests(ReceiverTestCase):
    def test_aTimelineIsNotShownBeforeItsBeginning(self) -> None:
        """A relay that was stopped before its WAL reached to where the timeline begins has nothing yet."""
        cluster = cluster_with(1.9)
        cluster.promote(0)
        cluster.write(30_000)
        upstream = Upstream(cluster)
        upstream.sends = cluster.begin(2) - 500_000
        self.receive(upstream)
        self.assertFalse(self.source.ready)
        self.new_source()
        self.assertFalse(self.source.ready)
        upstream.sends = None
        self.receive(upstream)
        self.assertEqual(self.held(), (2, cluster.position))
