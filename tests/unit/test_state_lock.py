"""The lock on a state directory, and what is said when it cannot be had."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from descriptor_helpers import open_descriptors, watch_descriptors
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ConfigurationError
from walsender.state_lock import LOCK_NAME, StateLock


class StateLockTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a directory for each test."""
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.place = Path(temporary.name)
        self.state = str(self.place / "state")

    def complaint(self, directory: str) -> str:
        """Return what a check says, which is also what an attempt says."""
        checked = self.assertRaises(ConfigurationError, StateLock.check, directory).message
        self.assertEqual(self.assertRaises(ConfigurationError, StateLock.acquire, directory).message, checked)
        return checked

    def test_checkMakesNothing(self) -> None:
        """A check of a directory that could be made succeeds and makes nothing."""
        StateLock.check(self.state)
        self.assertEqual(list(self.place.iterdir()), [])

    def test_acquireMakesDirectoryAndFile(self) -> None:
        """Locking makes the directory, for us alone, and writes our process id."""
        lock = StateLock.acquire(self.state)
        self.addCleanup(lock.release)
        self.assertEqual(Path(self.state).stat().st_mode & 0o777, 0o700)
        self.assertEqual(Path(self.state, LOCK_NAME).read_text(), f"{os.getpid()}\n")

    def test_heldLockIsRefused(self) -> None:
        """While it is held, check and second lock are refused and name the holder, in one process as well."""
        lock = StateLock.acquire(self.state)
        self.addCleanup(lock.release)
        expected = f'state directory "{self.state}" is in use by process {os.getpid()}'
        self.assertEqual(self.complaint(self.state), expected)

    def test_holderWithoutNumber(self) -> None:
        """A holder that has not written its process id yet is another process."""
        lock = StateLock.acquire(self.state)
        self.addCleanup(lock.release)
        Path(self.state, LOCK_NAME).write_text("")
        self.assertEqual(
            self.complaint(self.state), f'state directory "{self.state}" is in use by another process'
        )

    def test_fullDiskHasRoomForALock(self) -> None:
        """A relay whose disk is full can be started again, to serve what it has."""

        def full(_descriptor: int, _data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(os, "write", full)
        lock = StateLock.acquire(self.state)
        self.addCleanup(lock.release)
        expected = f'state directory "{self.state}" is in use by another process'
        self.assertEqual(self.complaint(self.state), expected)

    def test_releasedLockIsFree(self) -> None:
        """After release the lock can be had again; a longer number from before leaves no digits."""
        StateLock.acquire(self.state).release()
        Path(self.state, LOCK_NAME).write_text("1234567890123\n")
        StateLock.check(self.state)
        StateLock.acquire(self.state).release()
        self.assertEqual(Path(self.state, LOCK_NAME).read_text(), f"{os.getpid()}\n")

    def test_refusalLeavesNothingOpen(self) -> None:
        """However often it is refused, no descriptor is left open."""
        lock = StateLock.acquire(self.state)
        self.addCleanup(lock.release)
        before = watch_descriptors(self)
        for _ in range(5):
            self.complaint(self.state)
        self.assertEqual(before, open_descriptors())

    def test_noParent(self) -> None:
        """Only the last part of the path is made."""
        missing = str(self.place / "a" / "b")
        self.assertEqual(
            self.complaint(missing), f'could not use state directory "{missing}": No such file or directory'
        )

    def test_fileInPlaceOfDirectory(self) -> None:
        """A file of that name, or of its parent's, is refused with the system's reason."""
        file = self.place / "file"
        file.write_text("")
        message = self.assertRaises(ConfigurationError, StateLock.check, str(file)).message
        self.assertEqual(message, f'could not use state directory "{file}": Not a directory')
        self.assertRaises(ConfigurationError, StateLock.acquire, str(file))
        self.assertEqual(
            self.complaint(str(file / "x")), f'could not use state directory "{file / "x"}": Not a directory'
        )

    def test_lockThatIsADirectory(self) -> None:
        """A lock file that cannot be one is refused with the system's reason."""
        Path(self.state, LOCK_NAME).mkdir(parents=True)
        self.assertEqual(
            self.complaint(self.state), f'could not use state directory "{self.state}": Is a directory'
        )
