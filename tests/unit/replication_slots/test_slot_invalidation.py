"""Slots that lose their WAL, and from where on WAL must be kept for those that do not."""

from __future__ import annotations

import errno

from slot_helpers import HERE, THERE, SimulatedDisk, SlotsTestCase

from walsender.lsn import LSN
from walsender.replication_slots import WAL_REMOVED, HeldSlot, ReplicationSlots
from walsender.replication_slots.saver import SAVE_DELAY


class InvalidateTests(SlotsTestCase):
    def setUp(self) -> None:
        """Two slots with WAL, one of them in use."""
        super().setUp()
        for name in ("a", "b"):
            self.slots.create(name, HERE, restart_lsn=LSN(5))
        self.held = self.slots.acquire("a", HERE)

    @property
    def reasons_on_disk(self) -> dict[str, str]:
        """Why each slot is invalidated, as a new process would find it."""
        slots = self.make()
        slots.load()
        return {slot.name: slot.invalidation_reason for slot in slots}

    def test_durable(self) -> None:
        """It is told when it is on disk; until then the WAL must be kept."""
        self.holding = True
        done = self.slots.invalidate(["a"])
        self.assertEqual({"a": 5, "b": 5}, self.slots.needs())
        self.assertNoResult(done)
        self.finish()
        self.holding = False
        self.assertTrue(self.successResultOf(done))
        self.assertEqual({"b": 5}, self.slots.needs())
        self.assertEqual({"a": WAL_REMOVED, "b": ""}, self.reasons_on_disk)
        self.assertEqual({"a": 0, "b": 5}, self.on_disk)

    def test_streamIsTold(self) -> None:
        """Who streams with it is told at once; what it reports moves the slot no more."""
        told: list[HeldSlot] = []
        self.held.invalidated = lambda: told.append(self.held)
        self.slots.invalidate(["a", "b"])
        self.held.advance(LSN(9))
        self.clock.advance(SAVE_DELAY)
        self.assertEqual([self.held], told)
        self.assertEqual({"a": 0, "b": 0}, self.on_disk)
        self.held.release()
        self.assertEqual(WAL_REMOVED, self.slots.acquire("a", THERE).invalidation_reason)

    def test_failure(self) -> None:
        """What could not be made durable does not let the WAL go; it is tried again."""
        self.disk.failing["write"] = errno.ENOSPC
        self.assertFalse(self.successResultOf(self.slots.invalidate(["a"])))
        self.assertEqual({"a": 5, "b": 5}, self.slots.needs())
        self.disk.failing.clear()
        self.clock.advance(SAVE_DELAY)
        self.assertEqual({"b": 5}, self.slots.needs())
        self.assertEqual({"a": WAL_REMOVED, "b": ""}, self.reasons_on_disk)

    def test_duringSave(self) -> None:
        """A save that is under way does not make an invalidation look saved."""
        self.held.advance(LSN(7))
        self.holding = True
        self.clock.advance(SAVE_DELAY)
        done = self.slots.invalidate(["a"])
        self.jobs.pop(0)()
        self.assertNoResult(done)
        self.assertEqual(7, (self.slots.needs() or {})["a"])
        self.finish()
        self.holding = False
        self.assertTrue(self.successResultOf(done))
        self.assertEqual({"a": WAL_REMOVED, "b": ""}, self.reasons_on_disk)

    def test_neverSavedPosition(self) -> None:
        """A slot that had no WAL on disk is invalidated there all the same."""
        self.slots.create("c", HERE)
        self.slots.acquire("c", HERE).advance(LSN(8))
        self.assertTrue(self.successResultOf(self.slots.invalidate(["c"])))
        self.assertEqual(WAL_REMOVED, self.reasons_on_disk["c"])

    def test_temporary(self) -> None:
        """A temporary slot is invalidated in memory."""
        self.slots.create("t", HERE, temporary=True, restart_lsn=LSN(3))
        self.assertTrue(self.successResultOf(self.slots.invalidate(["t"])))
        self.assertEqual({"a": 5, "b": 5}, self.slots.needs())

    def test_busy(self) -> None:
        """A slot that is being dropped keeps its WAL until it is gone."""
        self.holding = True
        dropped = self.slots.drop("b", HERE)
        self.slots.invalidate(["b"])
        self.assertEqual({"a": 5, "b": 5}, self.slots.needs())
        self.finish()
        self.successResultOf(dropped)
        self.assertEqual({"a": 5}, self.slots.needs())

    def test_dropped(self) -> None:
        """An invalidated slot can be dropped, and made again."""
        self.slots.invalidate(["b"])
        self.successResultOf(self.slots.drop("b", HERE))
        self.successResultOf(self.slots.create("b", HERE, restart_lsn=LSN(9)))
        self.assertEqual({"a": "", "b": ""}, self.reasons_on_disk)


class NeedsTests(SlotsTestCase):
    def test_unsavedPosition(self) -> None:
        """While the disk has an older position, that one counts: it is what a crash leaves."""
        self.slots.create("a", HERE, restart_lsn=LSN(5))
        held = self.slots.acquire("a", HERE)
        held.advance(LSN(9))
        self.assertEqual({"a": 5}, self.slots.needs())
        self.clock.advance(SAVE_DELAY)
        self.assertEqual({"a": 9}, self.slots.needs())
        held.advance(LSN(4))
        self.assertEqual({"a": 4}, self.slots.needs())

    def test_failedSave(self) -> None:
        """After a save that failed the disk may have the old position or the new one."""
        self.slots.create("a", HERE, restart_lsn=LSN(5))
        held = self.slots.acquire("a", HERE)
        self.disk.failing["sync_directory"] = errno.EIO
        held.advance(LSN(3))
        self.clock.advance(SAVE_DELAY)
        held.advance(LSN(9))
        self.assertEqual({"a": 3}, self.slots.needs())
        self.disk.failing.clear()
        self.clock.advance(SAVE_DELAY)
        self.assertEqual({"a": 9}, self.slots.needs())

    def test_firstPosition(self) -> None:
        """A slot without WAL needs none; its first position counts once it may be on disk."""
        self.slots.create("a", HERE)
        self.assertEqual({}, self.slots.needs())
        held = self.slots.acquire("a", HERE)
        held.advance(LSN(5))
        self.holding = True
        self.clock.advance(SAVE_DELAY)
        held.advance(LSN(9))
        self.assertEqual({"a": 5}, self.slots.needs())

    def test_unknown(self) -> None:
        """Nothing is known before the slots are read, after the end, and while one is damaged."""
        self.assertIsNone(self.slots.needs())
        self.disk.put("a.slot", b"junk")
        self.slots.load()
        self.assertIsNone(self.slots.needs())
        self.slots.create("b", HERE, restart_lsn=LSN(5))
        self.assertIsNone(self.slots.needs())
        self.slots.create("a", HERE)
        self.assertEqual({"b": 5}, self.slots.needs())
        self.slots.stop()
        self.assertIsNone(self.slots.needs())

    def test_noStorage(self) -> None:
        """Where there is no storage, there are temporary slots and no others."""
        slots = ReplicationSlots(None, 100, self.clock, self.run_in_thread)
        slots.create("t", HERE, temporary=True, restart_lsn=LSN(7))
        self.assertEqual({"t": 7}, slots.needs())

    def test_crashAnywhere(self) -> None:
        """Whatever a crash leaves of a slot, its WAL was needed in the moment before."""
        for seed in range(300):
            self.disk = SimulatedDisk(seed)
            self.slots = self.make()
            self.slots.create("a", HERE, restart_lsn=LSN(50))
            held = self.slots.acquire("a", HERE)
            for step in range(seed % 7):
                held.advance(LSN(40 + (seed * 7 + step * 13) % 20))
                self.disk.failing = {"rename": errno.EIO} if (seed + step) % 3 == 0 else {}
                if (seed + step) % 5 == 0:
                    self.disk.failing = {"sync_directory": errno.EIO}
                self.clock.advance(SAVE_DELAY if step % 2 else 0)
            self.disk.failing = {}
            needed = (self.slots.needs() or {})["a"]
            self.disk.crash()
            self.assertLessEqual(needed, self.on_disk["a"], seed)
