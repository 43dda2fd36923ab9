"""File operations on the real disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from walsender.wal import REAL_FILES, FileOperations, RealFiles


class RealFilesTests(SynchronousTestCase):
    """`RealFiles` does what `FileOperations` says."""

    def setUp(self) -> None:
        """Make a directory with one file."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = str(self.directory / "file")
        Path(self.path).write_bytes(b"0123456789")
        self.files: FileOperations = REAL_FILES

    def opened(self) -> int:
        """Return a descriptor on the file."""
        descriptor = self.files.open(self.path)
        self.addCleanup(self.files.close, descriptor)
        return descriptor

    def test_readsPiecesAndStopsAtTheEnd(self) -> None:
        """A read gives what there is from an offset on, and nothing behind the end."""
        descriptor = self.opened()
        self.assertEqual(b"345", self.files.read(descriptor, 3, 3))
        self.assertEqual(b"89", self.files.read(descriptor, 10, 8))
        self.assertEqual(b"", self.files.read(descriptor, 10, 10))
        self.assertEqual(10, self.files.size(descriptor))

    def test_shortReadsAreContinued(self) -> None:
        """What the system gives in pieces arrives whole."""
        descriptor = self.opened()
        real = os.pread
        with mock.patch("os.pread", lambda fd, length, offset: real(fd, min(length, 3), offset)):
            self.assertEqual(b"01234567", self.files.read(descriptor, 8, 0))
            self.assertEqual(b"6789", self.files.read(descriptor, 8, 6))

    def test_identityFollowsTheFileNotTheName(self) -> None:
        """A renamed file keeps its identity; a new one under the old name has another."""
        descriptor = self.opened()
        self.assertEqual(self.files.identity(descriptor), self.files.path_identity(self.path))
        Path(self.path).rename(self.directory / "renamed")
        Path(self.path).write_bytes(b"")
        self.assertEqual(
            self.files.identity(descriptor), self.files.path_identity(str(self.directory / "renamed"))
        )
        self.assertNotEqual(self.files.identity(descriptor), self.files.path_identity(self.path))

    def test_syncsReadOnlyDescriptorsAndDirectories(self) -> None:
        """Syncing needs no right to write."""
        descriptor = self.opened()
        synced = []
        with mock.patch("os.fsync", synced.append):
            self.files.sync(descriptor)
            self.files.sync_directory(str(self.directory))
        self.assertEqual((descriptor, 2), (synced[0], len(synced)))
        self.assertRaises(NotADirectoryError, self.files.sync_directory, self.path)

    def test_openingAPipeDoesNotWait(self) -> None:
        """A pipe named like a segment is opened at once, though nobody writes into it."""
        pipe = str(self.directory / "000000010000000000000001")
        os.mkfifo(pipe)
        self.files.close(self.files.open(pipe))

    def test_listsNames(self) -> None:
        """A listing has names, not paths."""
        self.assertEqual(["file"], self.files.list_directory(str(self.directory)))

    def test_newFilesAreTheirOwnersUnlessTheGroupMayReadThem(self) -> None:
        """The mode of what is made is the caller's choice; by default nobody else may read it."""
        for files, mode in (REAL_FILES, 0o600), (RealFiles(0o640), 0o640):
            path = self.directory / oct(mode)
            files.close(files.create(str(path)))
            self.assertEqual(path.stat().st_mode & 0o777, mode)
