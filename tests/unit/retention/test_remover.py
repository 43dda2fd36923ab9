"""What is removed from a relay's directory, in which order, and what a crash leaves of that."""

from __future__ import annotations

import errno

from retention_helpers import MIB, NAME, WAL, Relay, RetentionTestCase
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import DiskFull
from walsender.lsn import LSN
from walsender.retention import Limits
from walsender.retention.remover import BATCH, INTERVAL
from walsender.source import SegmentUnavailable
from walsender.source.removal import MAY_REMOVE_WAL

ALL = [1, 2, 3, 4, 5, 6, 7]
HERE = 11  # process id


class RemoverTests(RetentionTestCase):
    def test_nothingIsRemovedByDefault(self) -> None:
        """Without ``wal_keep_size`` all WAL stays, and slots keep theirs."""
        relay = self.relay(limits=Limits(slots=0))
        relay.slots.create("a", HERE, restart_lsn=LSN(MIB))
        relay.remover.start()
        relay.clock.advance(INTERVAL)
        self.assertEqual(ALL, relay.numbers)
        self.assertEqual({"a": MIB}, relay.slots.needs())

    def test_onlyTheNewestIsNeeded(self) -> None:
        """With nobody who needs any, the segment that holds the end stays, and the one before."""
        relay = self.relay()
        relay.remover.start()
        names = [name for name in relay.disk.names(WAL) if name.startswith("0")]
        self.assertEqual([NAME.format(1, 6), NAME.format(1, 7) + ".partial"], sorted(names))

    def test_theEndIsFoundAgain(self) -> None:
        """A record that began in the segment before the newest tells a restart where WAL ended."""
        relay = self.relay(segments=4.99)
        relay.cluster.write(20_000)
        relay.receive(relay.cluster.position)
        self.assertLess(6 * MIB, relay.cluster.position)
        relay.remover.start()
        self.assertEqual([5, 6], relay.numbers)
        relay.start()
        self.assertEqual(relay.cluster.position, relay.source.flush_position)

    def test_newSegment(self) -> None:
        """A new segment makes an old one superfluous at once; nobody has to wait for the next look."""
        relay = self.relay(limits=Limits(keep=2 * MIB))
        relay.remover.start()
        self.assertEqual([5, 6, 7], relay.numbers)
        relay.receive(8 * MIB + 100)
        self.assertEqual([6, 7, 8], relay.numbers)

    def test_standbyThatReads(self) -> None:
        """What a connected standby still reads stays until it has been sent."""
        relay = self.relay()
        relay.sent = LSN(3 * MIB + 5)
        relay.remover.start()
        self.assertEqual([3, 4, 5, 6, 7], relay.numbers)
        relay.sent = LSN(5 * MIB)
        relay.clock.advance(INTERVAL)
        self.assertEqual([5, 6, 7], relay.numbers)

    def test_slot(self) -> None:
        """A slot keeps its WAL; when it is past the limit it is lost, and its WAL goes."""
        relay = self.relay(limits=Limits(keep=0, slots=5 * MIB))
        relay.slots.create("a", HERE, restart_lsn=LSN(2 * MIB + 9))
        relay.remover.start()
        self.assertEqual([2, 3, 4, 5, 6, 7], relay.numbers)
        with capturedLogs() as logs:
            relay.receive(8 * MIB + 100)
        self.assertEqual([7, 8], relay.numbers)
        self.assertEqual({}, relay.slots.needs())
        slot = relay.slots.get("a")
        assert slot is not None
        self.assertEqual("wal_removed", slot.invalidation_reason)
        texts = [event["log_format"].split(":")[0] for event in logs]
        self.assertEqual(['invalidating obsolete replication slot "{name}"'], texts)

    def test_status(self) -> None:
        """A slot's status goes from reserved to lost, as on a PostgreSQL server; without WAL it has none."""
        relay = self.relay(limits=Limits(keep=MIB, slots=3 * MIB))
        for number in (6, 5, 3):
            relay.slots.create(f"s{number}", HERE, restart_lsn=LSN(number * MIB))
        relay.slots.create("none", HERE)
        before = relay.remover.availability()
        end = relay.source.flush_position
        expected = {
            "s6": ("reserved", 10 * MIB - end),
            "s5": ("extended", 9 * MIB - end),
            "s3": ("unreserved", 7 * MIB - end),
            "none": (None, None),
        }
        self.assertEqual(expected, before)
        self.assertLess(before["s3"].safe_wal_size or 0, 0)
        relay.remover.start()
        self.assertEqual(expected | {"s3": ("lost", None)}, relay.remover.availability())
        relay.slots.create("much", HERE, restart_lsn=LSN(MIB))
        relay.remover.reconfigure(Limits())
        self.assertEqual(("reserved", None), relay.remover.availability()["much"])

    def test_slotInUse(self) -> None:
        """Whose stream uses a slot that is lost is named in the log, and told."""
        relay = self.relay(limits=Limits(keep=0, slots=0))
        relay.slots.create("a", HERE, restart_lsn=LSN(2 * MIB))
        told: list[bool] = []
        relay.slots.acquire("a", HERE).invalidated = lambda: told.append(True)
        with capturedLogs() as logs:
            relay.remover.start()
        self.assertEqual([True], told)
        text = 'terminating process {pid} to release replication slot "{name}"'
        self.assertEqual(text, logs[0]["log_format"])

    def test_lossMustBeDurable(self) -> None:
        """As long as a slot's loss cannot be saved, its WAL stays."""
        relay = self.relay(limits=Limits(keep=0, slots=0))
        relay.slots.create("a", HERE, restart_lsn=LSN(2 * MIB))
        relay.disk.failing["rename"] = [errno.EIO] * 3
        relay.remover.start()
        self.assertEqual([2, 3, 4, 5, 6, 7], relay.numbers)
        for _ in range(4):
            relay.clock.advance(INTERVAL)
        self.assertEqual([6, 7], relay.numbers)

    def test_slotMadeMeanwhile(self) -> None:
        """A slot that is made while another's loss is saved keeps its WAL."""
        relay = self.relay(limits=Limits(keep=0, slots=4 * MIB))
        relay.slots.create("a", HERE, restart_lsn=LSN(2 * MIB))
        relay.threads.holding = True
        relay.remover.start()
        relay.threads.jobs.pop(0)()  # it is ours to remove
        relay.slots.create("t", HERE, temporary=True, restart_lsn=LSN(4 * MIB))
        relay.threads.finish()
        self.assertEqual([4, 5, 6, 7], relay.numbers)

    def test_unknownSlots(self) -> None:
        """While it is not known what all slots need nothing is removed, which is said once."""
        relay = self.relay()
        relay.disk.make_directory("/wal/walsender_state/replication_slots")
        relay.files.close(relay.disk.create("/wal/walsender_state/replication_slots/a.slot"))
        relay.start()
        with capturedLogs() as logs:
            relay.remover.start()
            relay.clock.advance(INTERVAL)
        self.assertEqual(ALL, relay.numbers)
        self.assertEqual(1, len(logs))
        self.assertIn("replication slots", logs[0]["complaint"])

    def test_notOurs(self) -> None:
        """From a directory that no relay began nothing is removed, and no slot loses anything."""
        relay = self.relay(limits=Limits(keep=0, slots=0))
        relay.slots.create("a", HERE, restart_lsn=LSN(2 * MIB))
        relay.files.remove(f"{WAL}/{MAY_REMOVE_WAL}")
        relay.start()  # which does not make it again: there is WAL
        with capturedLogs() as logs:
            relay.remover.start()
            relay.clock.advance(INTERVAL)
        self.assertEqual((ALL, {"a": 2 * MIB}), (relay.numbers, relay.slots.needs()))
        self.assertEqual(1, len(logs))
        self.assertIn('create the file "the file"', logs[0]["complaint"])
        self.assertIn("not begun by this relay", self.successResultOf(relay.remover.make_room()))
        relay.files.close(relay.disk.create(f"{WAL}/{MAY_REMOVE_WAL}"))
        relay.clock.advance(INTERVAL)
        self.assertEqual([6, 7], relay.numbers)

    def test_oldestFirst(self) -> None:
        """Files go in the order of WAL, and names for good."""
        relay = self.relay()
        done: list[str] = []
        relay.disk.changed = lambda operation, path: done.append(f"{operation} {path[-1]}")
        relay.remover.start()
        self.assertEqual([*(f"remove {number}" for number in range(1, 6)), "sync_directory l"], done)

    def test_batches(self) -> None:
        """Much WAL goes in parts, between which others have their turn on the disk."""
        relay = self.relay(segments=2 * BATCH + 1.5)
        relay.threads.holding = True
        relay.remover.start()
        jobs = 0
        while relay.threads.jobs:
            before = len(relay.numbers)
            relay.threads.jobs.pop(0)()
            self.assertLessEqual(before - len(relay.numbers), BATCH)
            jobs += 1
        self.assertGreaterEqual(jobs, 3)
        self.assertEqual(2, len(relay.numbers))

    def test_failedRemoval(self) -> None:
        """What could not be removed is said once, and tried again."""
        relay = self.relay()
        relay.disk.failing["remove"] = [errno.EACCES] * 2
        with capturedLogs() as logs:
            relay.remover.start()
            relay.clock.advance(INTERVAL)
        self.assertEqual(ALL, relay.numbers)
        self.assertEqual(
            ['could not remove WAL: could not remove old WAL from "pg_wal": Permission denied'],
            [event["complaint"] for event in logs],
        )
        relay.clock.advance(INTERVAL)
        self.assertEqual([6, 7], relay.numbers)

    def test_reconfigured(self) -> None:
        """New limits count at once."""
        relay = self.relay(limits=Limits())
        relay.remover.start()
        relay.remover.reconfigure(Limits(keep=3 * MIB))
        self.assertEqual([4, 5, 6, 7], relay.numbers)

    def test_stopped(self) -> None:
        """The end waits for what is being removed; nothing more is, and no timer is left."""
        relay = self.relay(segments=BATCH + 4.5)
        relay.threads.holding = True
        relay.remover.start()
        relay.threads.jobs.pop(0)()
        stopped = relay.remover.stop()
        self.assertNoResult(stopped)
        relay.threads.finish()
        self.successResultOf(stopped)
        self.assertEqual([], relay.clock.getDelayedCalls())
        self.assertEqual(5, len(relay.numbers))
        relay.remover.reconfigure(Limits(keep=0))
        self.assertEqual(0, self.successResultOf(relay.remover.look()))

    def test_stoppedBeforeRemoving(self) -> None:
        """What has only been thought of is not done any more."""
        relay = self.relay()
        relay.threads.holding = True
        relay.remover.start()
        stopped = relay.remover.stop()
        relay.threads.finish()
        self.successResultOf(stopped)
        self.assertEqual(ALL, relay.numbers)

    def test_makeRoom(self) -> None:
        """Who needs room hears that there is some, or who holds what is left."""
        relay = self.relay(limits=Limits(keep=0))
        relay.sent = LSN(3 * MIB)
        relay.remover.start()
        self.assertEqual(
            "WAL from 0/300000 on is kept because of a connected standby.",
            self.successResultOf(relay.remover.make_room()),
        )
        relay.sent = LSN(0)
        self.assertEqual("", self.successResultOf(relay.remover.make_room()))
        relay.slots.create("a", HERE, restart_lsn=LSN(7 * MIB))
        relay.receive(10 * MIB)
        relay.slots.acquire("a", HERE).advance(LSN(9 * MIB))
        self.assertEqual("", self.successResultOf(relay.remover.make_room()))
        self.assertEqual([8, 9], relay.numbers)
        relay.remover.reconfigure(Limits())
        self.assertEqual(
            'WAL is kept because of "wal_keep_size", which is -1.',
            self.successResultOf(relay.remover.make_room()),
        )


class ReaderTests(RetentionTestCase):
    def test_openSegment(self) -> None:
        """Who reads a segment keeps it; nobody else gets it, and the error names what is held."""
        relay = self.relay()
        segment = self.successResultOf(relay.source.open_segment(1, 3))
        relay.remover.start()
        content = relay.files.read(segment.descriptor, MIB, 0)
        self.assertEqual(relay.cluster.wal(1, 3 * MIB, 4 * MIB), content)
        del segment
        failure = self.failureResultOf(relay.source.open_segment(1, 3), SegmentUnavailable)
        self.assertEqual(6 * MIB, failure.value.earliest)

    def test_forgottenBeforeItIsGone(self) -> None:
        """From when a segment is to be removed, nobody is told that it is held."""
        relay = self.relay()
        relay.threads.holding = True
        relay.source.remove_before(4, 16)
        self.assertEqual(ALL, relay.numbers)
        directory = relay.source._directory
        self.assertEqual({1: (range(4, 8),)}, dict(directory.ranges))
        relay.threads.finish()
        self.assertEqual([4, 5, 6, 7], relay.numbers)

    def test_timelines(self) -> None:
        """Old timelines go with the WAL beside them; history files and newer timelines stay."""
        relay = self.relay(segments=3.5)
        geometry = relay.cluster.geometry
        relay.cluster.promote(0)
        relay.source.keep_history(2, relay.cluster.history_file(2) or b"")
        assert relay.commits is not None
        relay.commits.close()
        relay.commits = None
        start = geometry.segment_start(geometry.segment_number(relay.cluster.begin(2)))
        relay.receive(7 * MIB + 100, start, timeline=2)
        self.assertEqual(2, relay.source.timeline)
        relay.files.close(relay.disk.create(f"{WAL}/{NAME.format(3, 1)}"))
        relay.source._directory = relay.source._directory.with_segment(3, 1, partial=False)
        relay.remover.start()
        names = [name for name in relay.disk.names(WAL) if name.startswith("0")]
        self.assertEqual(
            ["00000002.history", NAME.format(2, 6), NAME.format(2, 7) + ".partial", NAME.format(3, 1)],
            sorted(names),
        )


class RoomTests(RetentionTestCase):
    def test_nextSegment(self) -> None:
        """Room is needed for a segment that has not been made; for the rest of one there is room."""
        relay = self.relay(segments=2.5)
        relay.source.room.limit = 2 * MIB
        self.assertIsNone(self.successResultOf(relay.source.check_room()))
        relay.receive(4 * MIB)
        self.failureResultOf(relay.source.check_room(), DiskFull)
        relay.source.room.limit = 4 * MIB
        self.assertIsNone(self.successResultOf(relay.source.check_room()))

    def test_nothingYet(self) -> None:
        """Of an empty directory it is not known how large a segment is."""
        relay = Relay()
        self.addCleanup(relay.disk.close)
        relay.source.room.limit = 0
        self.assertIsNone(self.successResultOf(relay.source.check_room()))

    def test_roomIsMade(self) -> None:
        """What stands in the way of new WAL is removed, if nobody needs it."""
        relay = self.relay(limits=Limits(keep=2 * MIB))
        relay.source.remove_unneeded = relay.remover.make_room
        relay.sent = LSN(MIB)
        relay.remover.start()
        self.assertIn("a connected standby", self.successResultOf(relay.source.make_room()))
        relay.sent = LSN(0)
        self.assertEqual("", self.successResultOf(relay.source.make_room()))
        self.assertIn("wal_keep_size", self.successResultOf(relay.source.make_room()))


class CrashTests(SynchronousTestCase):
    def crash(self, operations: int) -> tuple[bool, int]:
        """
        Lose the power after so many operations of a removal, and look what is left.

        :returns: whether it was lost before the end, and how many slots still had a claim.
        """
        relay = Relay(operations, Limits(keep=MIB, slots=3 * MIB))
        try:
            relay.receive(int(7.5 * MIB))
            relay.slots.create("a", HERE, restart_lsn=LSN(2 * MIB))
            relay.slots.create("b", HERE, restart_lsn=LSN(5 * MIB))
            held = relay.slots.acquire("b", HERE)
            relay.disk.power = operations
            relay.remover.start()
            held.advance(LSN(6 * MIB))
            relay.clock.advance(INTERVAL)
            relay.clock.advance(INTERVAL)
            crashed = relay.threads.dead
            relay.disk.lose_power()
            relay.start()
            needs = relay.slots.needs()
            assert needs is not None
            for name, lsn in needs.items():
                kept = [number for number in relay.numbers if number >= lsn // MIB]
                self.assertEqual(list(range(lsn // MIB, 8)), kept, f"{name} after {operations}")
            relay.remover.start()
            relay.clock.advance(INTERVAL)
            first = needs["b"] // MIB
            self.assertEqual(list(range(min(6, first), 8)), relay.numbers)
            return crashed, len(needs)
        finally:
            relay.disk.close()

    def test_crashAnywhere(self) -> None:
        """Whatever a crash in the middle of it leaves, a slot that is not invalidated has its WAL."""
        claims = []
        for operations in range(200):
            crashed, slots = self.crash(operations)
            if not crashed:
                break
            claims.append(slots)
        self.assertEqual({1, 2}, set(claims))
        self.assertGreater(len(claims), 12)
