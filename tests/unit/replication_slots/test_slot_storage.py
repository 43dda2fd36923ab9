"""The files of slots, on a disk that crashes at every operation, and on a real one."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from slot_helpers import STATE, Crash, SimulatedDisk
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ConfigurationError, InvalidName
from walsender.lsn import LSN
from walsender.replication_slots import REAL_SLOT_FILES, SlotState, SlotStorage, encode_state

A = SlotState("a", LSN(0x1000000))
B = SlotState("b", LSN(0x2000000))


def restart(disk: SimulatedDisk) -> dict[str, SlotState]:
    """Return what a new process finds after a crash; nothing may be damaged."""
    disk.crash()
    stored = SlotStorage(disk, STATE).open()
    assert not stored.damaged, stored.damaged
    return stored.states


class CrashTests(SynchronousTestCase):
    def check(self, action: str, seed: int) -> int:
        """Crash once at each operation of *action*; return how many it has."""
        new = SlotState("a", LSN(0x9000000))
        old_states = {"b": B} if action == "create" else {"a": A, "b": B}
        new_states = {"b": B} if action == "remove" else {"a": new, "b": B}
        for crash_at in range(100):
            disk = SimulatedDisk(seed)
            storage = SlotStorage(disk, STATE)
            storage.open()
            for state in old_states.values():
                storage.save(state)
            disk.operations, disk.crash_at = 0, crash_at
            try:
                storage.remove("a") if action == "remove" else storage.save(new)
            except Crash:
                self.assertIn(restart(disk), (old_states, new_states), (action, crash_at, seed))
            else:
                # It has returned, so what it did is there to stay.
                self.assertEqual(new_states, restart(disk), (action, seed))
                return crash_at
        raise AssertionError("it does not come to an end")

    def test_everyOperation(self) -> None:
        """Whenever a change is cut off, the slot has its old state or the new one, others theirs."""
        for action, operations in (("create", 4), ("advance", 4), ("remove", 2)):
            for seed in range(40):
                self.assertEqual(operations, self.check(action, seed), action)

    @given(st.integers(0, 1 << 32), st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
    def test_anyHistory(self, seed: int, names: list[str]) -> None:
        """Over many changes and crashes each slot always has the state before or after its last change."""
        chance = random.Random(seed)
        disk = SimulatedDisk(seed)
        known: dict[str, SlotState] = {}
        storage = SlotStorage(disk, STATE)
        storage.open()
        for step, name in enumerate(names):
            disk.operations, disk.crash_at = 0, chance.randrange(8)
            after = dict(known)
            try:
                if name in known and chance.random() < 0.3:
                    del after[name]
                    storage.remove(name)
                else:
                    after[name] = SlotState(name, LSN(step + 1))
                    storage.save(after[name])
                known = after
            except Crash:
                found = restart(disk)
                self.assertIn(found, (known, after))
                known = found
                storage = SlotStorage(disk, STATE)
                storage.open()

    def test_firstStart(self) -> None:
        """A crash while the directory is made leaves nothing that hinders the next start."""
        for crash_at in range(6):
            disk = SimulatedDisk(crash_at)
            disk.crash_at = crash_at
            with contextlib.suppress(Crash):
                SlotStorage(disk, STATE).open()
            self.assertEqual({}, restart(disk))

    def test_whatIsFoundIsSynced(self) -> None:
        """A state that was found by reading is durable before anybody hears of it."""
        disk = SimulatedDisk()
        storage = SlotStorage(disk, STATE)
        storage.open()
        disk.failing["sync_directory"] = errno.EIO
        self.assertRaises(OSError, storage.save, A)
        disk.failing.clear()
        self.assertEqual(
            {"a": A}, SlotStorage(disk, STATE).open().states
        )  # a second process, no crash between
        self.assertEqual({"a": A}, restart(disk))

    def test_whatSomebodyCopiedInIsSynced(self) -> None:
        """A file that was restored from elsewhere, by a program that does not sync, is durable too."""
        for seed in range(20):
            disk = SimulatedDisk(seed)
            SlotStorage(disk, STATE).open()
            disk.write(f"{STATE}/replication_slots/a.slot", encode_state(A))
            SlotStorage(disk, STATE).open()
            self.assertEqual({"a": A}, restart(disk))

    def test_aFileThatCannotBeSyncedIsWrittenAgain(self) -> None:
        """What was read is right, but its file is never trusted again: a new one takes its place."""
        disk = SimulatedDisk()
        storage = SlotStorage(disk, STATE)
        storage.open()
        disk.write(f"{STATE}/replication_slots/a.slot", encode_state(A))
        failures = [errno.EIO]
        sync = disk.sync

        def failing(path: str) -> None:
            if failures:
                raise OSError(failures.pop(), "Input/output error", path)
            sync(path)

        self.patch(disk, "sync", failing)
        self.assertEqual({"a": A}, SlotStorage(disk, STATE).open().states)
        self.assertEqual({"a": A}, restart(disk))

    def test_withoutAnySyncThereIsNoStart(self) -> None:
        """A slot that can be made durable in no way is not announced."""
        disk = SimulatedDisk()
        SlotStorage(disk, STATE).open()
        disk.write(f"{STATE}/replication_slots/a.slot", encode_state(A))
        disk.failing["sync"] = errno.EIO
        self.assertRaises(OSError, SlotStorage(disk, STATE).open)


class StorageTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A disk and a storage on it."""
        self.disk = SimulatedDisk()
        self.storage = SlotStorage(self.disk, STATE)

    def test_order(self) -> None:
        """Content is synced before it has its name, and the directory after."""
        self.storage.open()
        self.disk.log.clear()
        self.storage.save(A)
        slots = "/replication_slots"
        self.assertEqual(
            [
                f"write {slots}/a.slot.tmp",
                f"sync {slots}/a.slot.tmp",
                f"rename {slots}/a.slot",
                f"sync_directory {slots}",
            ],
            self.disk.log,
        )

    def test_nothingBeforeOpen(self) -> None:
        """To ask whether there are slots makes nothing."""
        self.assertFalse(self.storage.holds_slots())
        self.assertEqual({"list /replication_slots"}, set(self.disk.log))
        self.storage.open()
        self.assertFalse(self.storage.holds_slots())
        self.storage.save(A)
        self.assertTrue(self.storage.holds_slots())

    def test_damagedFilesAreRefused(self) -> None:
        """A damaged slot, and one under another's name, are reported and left; the others load."""
        self.disk.put("a.slot", encode_state(A))
        self.disk.put("b.slot", encode_state(A))
        self.disk.put("c.slot", b"x" * 10_000)
        self.disk.put("d.slot", encode_state(B)[:-1])
        self.disk.put("e.slot.tmp", b"half a")
        self.disk.put("notes.txt", b"somebody's")
        stored = self.storage.open()
        self.assertEqual({"a": A}, stored.states)
        slots = f"{STATE}/replication_slots"
        self.assertEqual(
            {
                f"{slots}/b.slot": 'it is the file of the slot "a"',
                f"{slots}/c.slot": "it is no replication slot file",
                f"{slots}/d.slot": "it is cut off or has something behind its end",
            },
            stored.damaged,
        )
        self.assertEqual(
            {"a.slot", "b.slot", "c.slot", "d.slot", "notes.txt"}, set(self.disk.files()), "what is kept"
        )

    def test_namesAreCheckedBeforePathsAreMade(self) -> None:
        """A name that leads elsewhere never reaches the disk."""
        self.storage.open()
        self.disk.log.clear()
        self.assertRaises(InvalidName, self.storage.save, SlotState("../a"))
        self.assertRaises(InvalidName, self.storage.remove, "../a")
        self.assertEqual([], self.disk.log)

    def test_prepareComesFirst(self) -> None:
        """Nothing is made in a directory that somebody else has."""

        def refuse() -> None:
            raise ConfigurationError("in use")

        self.assertRaises(ConfigurationError, SlotStorage(self.disk, STATE, refuse).open)
        self.assertEqual([], self.disk.log)

    def test_removeTwice(self) -> None:
        """A file that is gone already is no error."""
        self.storage.open()
        self.storage.save(A)
        self.storage.remove("a")
        self.storage.remove("a")
        self.assertEqual({}, self.disk.files())

    def test_theDirectoryAboveMayBeUnreadable(self) -> None:
        """Only the directory above may refuse to be synced."""
        plain = self.disk.sync_directory
        refused = {"/"}

        def sync_directory(path: str) -> None:
            if path in refused:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            plain(path)

        self.patch(self.disk, "sync_directory", sync_directory)
        self.storage.open()
        refused.add(STATE)
        self.assertRaises(PermissionError, self.storage.open)


class RealFilesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A real state directory."""
        directory = tempfile.TemporaryDirectory(prefix="walsender-test-")
        self.addCleanup(directory.cleanup)
        self.state = Path(directory.name)
        self.storage = SlotStorage(REAL_SLOT_FILES, directory.name)

    def test_roundTrip(self) -> None:
        """What is saved is there for the next process, for its owner alone; what is removed is gone."""
        self.assertFalse(self.storage.holds_slots())
        self.assertEqual({}, self.storage.open().states)
        self.storage.save(A)
        self.storage.save(SlotState("b"))
        self.storage.save(B)
        self.storage.remove("a")
        self.assertTrue(self.storage.holds_slots())
        self.assertEqual({"b": B}, SlotStorage(REAL_SLOT_FILES, str(self.state)).open().states)
        slots = self.state / "replication_slots"
        self.assertEqual(["b.slot"], [path.name for path in slots.iterdir()])
        self.assertEqual(
            (0o700, 0o600), (slots.stat().st_mode & 0o777, (slots / "b.slot").stat().st_mode & 0o777)
        )

    def test_leftoversAndPipes(self) -> None:
        """A file of a save that was cut off is replaced; a pipe is damaged and holds nobody up."""
        self.storage.open()
        slots = self.state / "replication_slots"
        (slots / "a.slot.tmp").write_bytes(b"x" * 5000)
        os.mkfifo(slots / "p.slot")
        (slots / "d.slot").mkdir()
        self.storage.save(A)
        stored = self.storage.open()
        self.assertEqual({"a": A}, stored.states)
        self.assertEqual({str(slots / "p.slot"), str(slots / "d.slot")}, set(stored.damaged))
