"""Who owns a slot, when it is saved, and what a session leaves behind."""

from __future__ import annotations

import errno

from slot_helpers import HERE, THERE, SlotsTestCase
from twisted.logger import LogLevel, capturedLogs

from walsender.errors import ConfigurationError, WalsenderError
from walsender.lsn import LSN
from walsender.replication_slots import ReplicationSlots, SlotState, encode_state
from walsender.replication_slots.saver import SAVE_DELAY


class CreateTests(SlotsTestCase):
    def test_durableFirst(self) -> None:
        """It is told when it is durable, and meanwhile the slot is its maker's."""
        self.holding = True
        created = self.slots.create("a", HERE, restart_lsn=LSN(5))
        self.assertNoResult(created)
        self.assertRefused("42710", 'replication slot "a" already exists', self.slots.create, "a", THERE)
        active = 'replication slot "a" is active for PID 11'
        self.assertRefused("55006", active, self.slots.acquire, "a", THERE)
        self.assertRefused("55006", active, self.slots.drop, "a", THERE)
        self.finish()
        self.successResultOf(created)
        self.assertEqual({"a": 5}, self.on_disk)
        self.slots.acquire("a", THERE)

    def test_nothingOnDiskBeforeTheFirst(self) -> None:
        """Temporary slots never touch the disk, and are their maker's until it drops them or ends."""
        self.successResultOf(self.slots.create("t", HERE, temporary=True))
        active = 'replication slot "t" is active for PID 11'
        self.assertRefused("55006", active, self.slots.acquire, "t", THERE)
        self.assertRefused("55006", active, self.slots.drop, "t", THERE)
        held = self.slots.acquire("t", HERE)
        held.advance(LSN(7))
        held.release()
        self.assertRefused("55006", active, self.slots.acquire, "t", THERE)
        self.successResultOf(self.slots.drop("t", HERE))
        self.clock.advance(SAVE_DELAY)
        self.assertEqual(([], 0), (self.disk.log, len(self.slots)))

    def test_limit(self) -> None:
        """Both kinds count; the error says which setting to change."""
        slots = self.make(2)
        slots.create("a", HERE)
        slots.create("t", HERE, temporary=True)
        for temporary in (False, True):
            error = self.assertRaises(WalsenderError, slots.create, "c", HERE, temporary=temporary)
            self.assertEqual(
                (
                    "53400",
                    "all replication slots are in use",
                    'Free one or increase "max_replication_slots".',
                ),
                (error.sqlstate, error.message, error.hint),
            )

    def test_inactiveSince(self) -> None:
        """From when it is made, found or let go of until somebody streams with it; not once it is lost."""
        self.clock.advance(5)
        self.slots.create("a", HERE, restart_lsn=LSN(5))
        self.slots.create("t", HERE, temporary=True)
        a, t = self.slots.get("a"), self.slots.get("t")
        assert a is not None
        assert t is not None
        self.assertEqual((5.0, 5.0), (a.inactive_since, t.inactive_since))
        self.clock.advance(1)
        held = self.slots.acquire("a", HERE), self.slots.acquire("t", HERE)
        self.assertEqual((None, None), (a.inactive_since, t.inactive_since))
        self.clock.advance(1)
        for one in held:
            one.release()
        self.assertEqual((7.0, 7.0), (a.inactive_since, t.inactive_since))
        self.successResultOf(self.slots.stop())
        self.clock.advance(1)
        again = self.make(2)
        again.load()
        (found,) = again
        self.assertEqual(("a", 8.0), (found.name, found.inactive_since))
        lost = again.acquire("a", HERE)
        again.invalidate({"a"})
        lost.release()
        self.assertIsNone(found.inactive_since)

    def test_tooManyOnDisk(self) -> None:
        """A start with more slots than the setting permits is refused: none is forgotten silently."""
        for name in "abc":
            self.slots.create(name, HERE)
        self.assertRaises(ConfigurationError, self.make(2).load)
        self.make(3).load()

    def test_badName(self) -> None:
        """The name is judged first."""
        self.assertRefused(
            "42602", 'replication slot name "../a" contains invalid character', self.slots.create, "../a", 1
        )
        self.assertRefused(
            "42939", 'replication slot name "x" is reserved', self.slots.create, "x", 1, reserved={"x"}
        )
        self.assertEqual([], self.disk.log)

    def test_noStorage(self) -> None:
        """Without a place there are no permanent slots, but temporary ones."""
        slots = ReplicationSlots(None, 100, self.clock, self.run_in_thread)
        self.assertRefused("55000", 'cannot create permanent replication slot "a" here', slots.create, "a", 1)
        self.successResultOf(slots.create("a", 1, temporary=True))
        self.successResultOf(slots.stop())

    def test_unusableStateDirectory(self) -> None:
        """A read-only archive gives a clear error, and the next try may find it writable."""
        self.disk.failing["mkdir"] = errno.EROFS
        with capturedLogs() as logs:
            self.assertRefused(
                "55000", 'cannot create permanent replication slot "a" here', self.slots.create, "a", HERE
            )
        self.assertEqual([LogLevel.error], [event["log_level"] for event in logs])
        self.assertEqual(0, len(self.slots))
        self.disk.failing.clear()
        self.successResultOf(self.slots.create("a", HERE))

    def test_failures(self) -> None:
        """A slot that could not be made durable is none, in memory and on disk; the name is free again."""
        self.slots.create("b", HERE)
        for operation in ("write", "sync", "rename", "sync_directory"):
            self.disk.failing[operation] = errno.ENOSPC
            self.assertRefused(
                "53100",
                'could not create replication slot "a": No space left on device',
                self.slots.create,
                "a",
                HERE,
            )
            self.disk.failing.clear()
            self.assertEqual({"b": 0}, self.on_disk)
            self.assertIsNone(self.slots.get("a"))

    def test_slotsOfAnotherProcess(self) -> None:
        """What another process has left since our start is found before our first slot is written."""
        self.slots.create("t", HERE, temporary=True)
        other = self.make()
        for name in "at":
            other.create(name, THERE, restart_lsn=LSN(9))
        self.assertRefused("42710", 'replication slot "a" already exists', self.slots.create, "a", HERE)
        self.assertEqual({"a": 9, "t": 9}, {slot.name: slot.restart_lsn for slot in self.slots})
        self.slots.let_go(HERE)
        self.assertEqual(2, len(self.slots))

    def test_damaged(self) -> None:
        """A damaged file is reported once and hides no other; creating the slot again replaces it."""
        self.disk.put("a.slot", b"junk")
        self.disk.put("b.slot", encode_state(SlotState("b", LSN(5))))
        with capturedLogs() as logs:
            self.slots.load()
        (event,) = logs
        self.assertEqual(LogLevel.error, event["log_level"])
        self.assertEqual("it is no replication slot file", event["reason"])
        self.assertEqual(["b"], [slot.name for slot in self.slots])
        self.successResultOf(self.slots.create("a", HERE))
        self.assertEqual({"a": 0, "b": 5}, self.on_disk)


class AdvanceTests(SlotsTestCase):
    def setUp(self) -> None:
        """One slot, held."""
        super().setUp()
        self.slots.create("a", HERE)
        self.held = self.slots.acquire("a", HERE)

    def test_forwardsAndBackwards(self) -> None:
        """Every reported position counts, lower ones too; 0 is none."""
        for reported, expected in ((9, 9), (5, 5), (0, 5), (7, 7)):
            self.held.advance(LSN(reported))
            slot = self.slots.get("a")
            assert slot is not None
            self.assertEqual(expected, slot.restart_lsn)

    def test_savedLater(self) -> None:
        """Many reports are one save; on disk is an older position, never a newer one."""
        self.disk.log.clear()
        for position in range(1, 100):
            self.held.advance(LSN(position))
        self.assertEqual([], self.disk.log)
        self.clock.advance(SAVE_DELAY)
        self.assertEqual(1, sum(line.startswith("rename") for line in self.disk.log))
        self.assertEqual({"a": 99}, self.on_disk)
        self.clock.advance(SAVE_DELAY)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_savedAtRelease(self) -> None:
        """When the stream is over the position is saved at once, and the claim is worth nothing any more."""
        self.held.advance(LSN(9))
        self.held.release()
        self.assertEqual({"a": 9}, self.on_disk)
        self.held.advance(LSN(10))
        again = self.slots.acquire("a", THERE)
        self.held.release()
        again.advance(LSN(11))
        self.assertRefused(
            "55006", 'replication slot "a" is active for PID 12', self.slots.acquire, "a", HERE
        )
        self.successResultOf(self.slots.stop())
        self.assertEqual({"a": 11}, self.on_disk)

    def test_manyReleasesOneSave(self) -> None:
        """A client that comes and goes while the disk is slow does not pile up saves."""
        self.holding = True
        held = self.held
        for position in range(1, 100):
            held.advance(LSN(position))
            held.release()
            held = self.slots.acquire("a", HERE)
        self.assertEqual(1, len(self.slots._disk.waiting))
        self.finish()
        self.holding = False
        self.assertEqual({"a": 99}, self.on_disk)

    def test_savedAtStop(self) -> None:
        """The end of the server saves everything, and leaves no timer."""
        self.held.advance(LSN(9))
        self.successResultOf(self.slots.stop())
        self.assertEqual(({"a": 9}, []), (self.on_disk, self.clock.getDelayedCalls()))

    def test_failedSave(self) -> None:
        """A save that fails is logged and tried again, into a new file."""
        self.held.advance(LSN(9))
        self.disk.failing["sync"] = errno.EIO
        with capturedLogs() as logs:
            self.clock.advance(SAVE_DELAY)
        self.assertEqual([LogLevel.error], [event["log_level"] for event in logs])
        self.disk.failing.clear()
        self.clock.advance(SAVE_DELAY)
        self.assertEqual({"a": 9}, self.on_disk)

    def test_advanceDuringSave(self) -> None:
        """What is reported while a save is under way is saved by the next one."""
        self.held.advance(LSN(9))
        self.holding = True
        self.clock.advance(SAVE_DELAY)
        self.held.advance(LSN(10))
        self.finish()
        self.holding = False
        self.assertEqual({"a": 9}, self.on_disk)
        self.clock.advance(SAVE_DELAY)
        self.assertEqual({"a": 10}, self.on_disk)


class DropTests(SlotsTestCase):
    def setUp(self) -> None:
        """One slot."""
        super().setUp()
        self.slots.create("a", HERE)

    def test_durableFirst(self) -> None:
        """It is told when the file is gone for good; until then the name is taken."""
        self.holding = True
        dropped = self.slots.drop("a", HERE)
        self.assertNoResult(dropped)
        self.assertRefused("42710", 'replication slot "a" already exists', self.slots.create, "a", THERE)
        self.assertRefused("55006", 'replication slot "a" is active for PID 11', self.slots.drop, "a", THERE)
        self.finish()
        self.successResultOf(dropped)
        self.assertEqual(({}, 0), (self.on_disk, len(self.slots)))
        self.assertRefused("42704", 'replication slot "a" does not exist', self.slots.drop, "a", HERE)

    def test_failure(self) -> None:
        """A slot that may not be gone for good stays, and its file is written again."""
        self.disk.failing["sync_directory"] = errno.EIO
        self.assertRefused(
            "58030", 'could not drop replication slot "a": Input/output error', self.slots.drop, "a", HERE
        )
        self.disk.failing.clear()
        self.assertEqual(1, len(self.slots))
        self.clock.advance(SAVE_DELAY)
        self.assertEqual({"a": 0}, self.on_disk)
        self.successResultOf(self.slots.drop("a", THERE))

    def test_wait(self) -> None:
        """WAIT waits for the owner; who waits second finds nothing."""
        held = self.slots.acquire("a", HERE)
        first, second = (self.slots.drop("a", number, wait=True) for number in (THERE, THERE + 1))
        self.assertNoResult(first)
        held.release()
        self.successResultOf(first)
        self.assertEqual("42704", self.failureResultOf(second, WalsenderError).value.sqlstate)

    def test_waitForTheOneThatWasQuicker(self) -> None:
        """Who finds the slot taken again waits on."""
        held = self.slots.acquire("a", HERE)
        self.holding = True
        first, second = (self.slots.drop("a", number, wait=True) for number in (THERE, THERE + 1))
        held.release()
        self.disk.failing["remove"] = errno.EIO
        self.jobs.pop(0)()
        self.failureResultOf(first, WalsenderError)
        self.disk.failing.clear()
        self.assertNoResult(second)
        self.finish()
        self.successResultOf(second)

    def test_whoIsGoneWaitsNoMore(self) -> None:
        """A session that has ended drops nothing."""
        held = self.slots.acquire("a", HERE)
        waiting = self.slots.drop("a", THERE, wait=True)
        self.slots.let_go(THERE)
        held.release()
        self.assertNoResult(waiting)
        self.assertEqual({"a": 0}, self.on_disk)

    def test_waitForATemporarySlot(self) -> None:
        """A temporary slot ends with its session, and who waited for it finds it gone."""
        self.slots.create("t", HERE, temporary=True)
        waiting = self.slots.drop("t", THERE, wait=True)
        self.slots.let_go(HERE)
        self.assertEqual("42704", self.failureResultOf(waiting, WalsenderError).value.sqlstate)


class LetGoTests(SlotsTestCase):
    def test_sessionEnds(self) -> None:
        """Its temporary slots are gone, its permanent one is free and saved; nobody else's is touched."""
        self.slots.create("mine", HERE)
        self.slots.create("other", THERE)
        self.slots.create("t1", HERE, temporary=True)
        self.slots.create("t2", THERE, temporary=True)
        self.slots.acquire("mine", HERE).advance(LSN(9))
        self.slots.acquire("other", THERE)
        for _ in range(2):
            self.slots.let_go(HERE)
        self.assertEqual(
            {"mine": None, "other": THERE, "t2": THERE}, {slot.name: slot.owner for slot in self.slots}
        )
        self.assertEqual({"mine": 9, "other": 0}, self.on_disk)

    def test_sessionEndsWhileItCreates(self) -> None:
        """What it has begun is done to the end, and is then nobody's."""
        self.holding = True
        created = self.slots.create("a", HERE)
        self.slots.let_go(HERE)
        active = 'replication slot "a" is active for PID 11'
        self.assertRefused("55006", active, self.slots.acquire, "a", THERE)
        self.finish()
        self.successResultOf(created)
        self.slots.acquire("a", THERE)

    def test_startAgain(self) -> None:
        """After a stop the slots are read again."""
        self.slots.create("a", HERE, restart_lsn=LSN(5))
        self.successResultOf(self.slots.stop())
        self.assertEqual(0, len(self.slots))
        self.slots.load()
        self.assertEqual(["a"], [slot.name for slot in self.slots])
