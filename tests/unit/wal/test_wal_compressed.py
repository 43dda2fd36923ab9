"""Compressed files, read as what is in them."""

from __future__ import annotations

import errno
import gzip
import os
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import DiskFull, WalFileError
from walsender.testing.compression import COMPRESS
from walsender.wal import REAL_FILES, CannotDecompress, DecompressingFiles, FileOperations, RealFiles

MIB = 1 << 20
CONTENT = b"".join(b"%d bottles of beer, " % number for number in range(100_000))
NOISE = os.urandom(4 * MIB)


class CountingFiles(RealFiles):
    """Real files, with a count of what is open and what was read."""

    def __init__(self) -> None:
        self.open_count = self.read_bytes = 0
        self.synced: list[int] = []

    def open(self, path: str) -> int:
        """See `FileOperations`."""
        self.open_count += 1
        return super().open(path)

    def close(self, descriptor: int) -> None:
        """See `FileOperations`."""
        self.open_count -= 1
        super().close(descriptor)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """See `FileOperations`."""
        data = super().read(descriptor, length, offset)
        self.read_bytes += len(data)
        return data

    def sync(self, descriptor: int) -> None:
        """See `FileOperations`."""
        self.synced.append(os.fstat(descriptor).st_ino)


class CompressedTestCase(SynchronousTestCase):
    """A directory, and files in it."""

    def setUp(self) -> None:
        """Make both."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name)
        self.real = CountingFiles()
        self.files = DecompressingFiles(self.real)

    def opened(self, name: str, data: bytes | None = None) -> int:
        """Return a descriptor of a file, which holds *data* if that is given."""
        if data is not None:
            with (self.path / name).open("r+b" if (self.path / name).exists() else "xb") as file:
                file.truncate(file.write(data))
        descriptor = self.files.open(str(self.path / name))
        self.addCleanup(self.files.close, descriptor)
        return descriptor

    def assertHolds(self, content: bytes, descriptor: int) -> None:
        """Assert that a file reads as *content*."""
        self.assertEqual(len(content), self.files.size(descriptor))
        self.assertTrue(content == self.files.read(descriptor, len(content) + 1, 0))

    def assertDamaged(self, descriptor: int, reason: str = "") -> None:
        """Assert that a file can neither be read nor be measured."""
        for _ in range(2):
            error = self.assertRaises(CannotDecompress, self.files.size, descriptor)
            self.assertIn(reason, error.message)
            self.assertRaises(CannotDecompress, self.files.read, descriptor, MIB, 0)


class ReadingTests(CompressedTestCase):
    """What is in a file."""

    def test_everyForm(self) -> None:
        """Each kind is read in pieces, to its end and not further, as often as one likes."""
        for form, compress in COMPRESS.items():
            descriptor = self.opened(f"x{form}", compress(CONTENT))
            self.assertEqual(CONTENT[10:20], self.files.read(descriptor, 10, 10))
            self.assertEqual(CONTENT[MIB:], self.files.read(descriptor, len(CONTENT), MIB))
            self.assertEqual(CONTENT[-5:], self.files.read(descriptor, 10, len(CONTENT) - 5))
            self.assertEqual(b"", self.files.read(descriptor, 10, len(CONTENT) + 5))
            self.assertHolds(CONTENT, descriptor)

    def test_descriptorHasTheContent(self) -> None:
        """Once it is measured, its descriptor may be read by anybody."""
        descriptor = self.opened("x.gz", gzip.compress(CONTENT))
        self.files.size(descriptor)
        self.assertTrue(os.pread(descriptor, len(CONTENT) + 1, 0) == CONTENT)

    def test_severalMembers(self) -> None:
        """A file may be a row of compressed files, as programs with several threads write it."""
        for form, compress in COMPRESS.items():
            data = compress(CONTENT[:MIB]) + compress(b"") + compress(CONTENT[MIB:])
            self.assertHolds(CONTENT, self.opened(f"x{form}", data))

    def test_plainFiles(self) -> None:
        """Files with other names are what they are."""
        self.assertHolds(b"x.gz", self.opened("x.gz.old", b"x.gz"))
        self.assertEqual(1, self.real.open_count)

    def test_identity(self) -> None:
        """The identity, and what is synced, is the compressed file's."""
        descriptor = self.opened("x.gz.partial", gzip.compress(b"x"))
        self.assertEqual(
            self.files.path_identity(str(self.path / "x.gz.partial")), self.files.identity(descriptor)
        )
        self.files.sync(descriptor)
        self.assertEqual([(self.path / "x.gz.partial").stat().st_ino], self.real.synced)

    def test_directoryOperations(self) -> None:
        """What concerns the directory is passed on."""
        self.opened("x.gz", b"")
        self.assertEqual(["x.gz"], self.files.list_directory(str(self.path)))
        self.files.sync_directory(str(self.path))
        self.assertRaises(FileNotFoundError, self.files.open, str(self.path / "y.gz"))

    def test_noOrdinaryFile(self) -> None:
        """A directory under a compressed file's name is the operating system's error, as any other."""
        (self.path / "x.gz").mkdir()
        self.assertRaises(IsADirectoryError, self.files.open, str(self.path / "x.gz"))


class CostTests(CompressedTestCase):
    """What is open, read and written."""

    def test_expandedOnce(self) -> None:
        """Several readers, and one that comes soon after the last is gone, share one expansion."""
        first = self.opened("x.gz", gzip.compress(NOISE))
        self.assertHolds(NOISE, first)
        read = self.real.read_bytes
        second = self.files.open(str(self.path / "x.gz"))
        self.files.close(second)
        self.assertHolds(NOISE, self.opened("x.gz"))
        self.assertEqual(read, self.real.read_bytes)

    def test_notFurtherThanAsked(self) -> None:
        """A look at the beginning costs a beginning."""
        for form, compress in COMPRESS.items():
            before = self.real.read_bytes
            descriptor = self.opened(f"x{form}", compress(NOISE))
            self.files.read(descriptor, 64, 0)
            self.assertLess(self.real.read_bytes - before, MIB)
            self.assertLessEqual(os.fstat(descriptor).st_size, MIB)

    def test_closedInTime(self) -> None:
        """Of the files that nobody has open only the latest few are kept."""
        for number in range(10):
            (self.path / f"{number}.gz").write_bytes(gzip.compress(b"x"))
            self.files.close(self.files.open(str(self.path / f"{number}.gz")))
        self.files.close(self.files.open(str(self.path / "9.gz")))
        self.assertEqual(2, self.real.open_count)
        del self.files
        self.assertEqual(0, self.real.open_count)

    def test_nameless(self) -> None:
        """The content has no name that could be left behind; TMPDIR says where it is."""
        for place in (self.path / "tmp", self.path / "missing"):
            with mock.patch.dict(os.environ, TMPDIR=str(place)):
                (self.path / "tmp").mkdir(exist_ok=True)
                descriptor = self.opened(f"{place.name}.gz", gzip.compress(CONTENT))
                self.assertHolds(CONTENT, descriptor)
                self.assertEqual(0, os.fstat(descriptor).st_nlink)
                self.assertEqual([], list((self.path / "tmp").iterdir()))
        with mock.patch.dict(os.environ, TMPDIR=str(self.path / "tmp")):
            descriptor = self.opened("again.gz", gzip.compress(CONTENT))
            self.assertIn(str(self.path / "tmp"), str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def test_bomb(self) -> None:
        """A file that holds more than it may is refused before it has filled the disk."""
        for form, compress in COMPRESS.items():
            descriptor = self.opened(f"x{form}", compress(bytes(64 * MIB)))
            error = self.assertRaises(CannotDecompress, self.files.size, descriptor, MIB)
            self.assertEqual(
                f'could not decompress file "pg_wal/x{form}": it holds more than {MIB} bytes', error.message
            )
            self.assertLessEqual(os.fstat(descriptor).st_size, 2 * MIB)

    def test_noRoom(self) -> None:
        """A full disk is told as such, and what was read once is read again when there is room."""
        descriptor = self.opened("x.gz", gzip.compress(CONTENT))
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with mock.patch.object(os, "pwrite", side_effect=full):
            error = self.assertRaises(DiskFull, self.files.size, descriptor)
        self.assertEqual('could not decompress file "pg_wal/x.gz": No space left on device', error.message)
        self.assertHolds(CONTENT, descriptor)

    def test_noTemporaryFile(self) -> None:
        """Where none can be made that is no statement about the WAL file, which is let go of."""
        (self.path / "x.gz").write_bytes(b"")
        for number, kind in ((errno.ENOENT, WalFileError), (errno.ENOSPC, DiskFull)):
            refused = OSError(number, os.strerror(number))
            with mock.patch.object(tempfile, "TemporaryFile", side_effect=refused):
                error = self.assertRaises(WalFileError, self.files.open, str(self.path / "x.gz"))
            self.assertIs(kind, type(error))
        self.assertHolds(b"", self.opened("x.gz"))
        self.assertEqual(1, self.real.open_count)


class GrowthTests(CompressedTestCase):
    """Files that are being written."""

    def test_growing(self) -> None:
        """What can be had so far is had, from the beginning on, and it goes on where it was."""
        for form, compress in COMPRESS.items():
            name = f"x{form}.partial"
            data = compress(NOISE)
            sizes = [0]
            first = self.opened(name, b"")
            for end in (3, 10, 70_000, MIB, MIB, 2 * MIB + 7, len(data) - 1, len(data)):
                descriptor = self.opened(name, data[:end])
                sizes.append(self.files.size(descriptor))
                self.assertTrue(NOISE[: sizes[-1]] == self.files.read(descriptor, sizes[-1] + 1, 0))
            self.assertEqual(sorted(sizes), sizes)
            self.assertGreater(sizes[5], MIB // 2)
            self.assertEqual(len(NOISE), sizes[-1])
            self.assertTrue(os.pread(first, len(NOISE), 0) == NOISE)
        self.assertLess(self.real.read_bytes, 4 * len(NOISE))

    def test_renamed(self) -> None:
        """A file that gets its final name is the same one."""
        self.files.size(self.opened("x.gz.partial", gzip.compress(NOISE)))
        read = self.real.read_bytes
        (self.path / "x.gz.partial").rename(self.path / "x.gz")
        self.assertHolds(NOISE, self.opened("x.gz"))
        self.assertEqual(read, self.real.read_bytes)

    def test_writtenAnew(self) -> None:
        """A file that is written again from its beginning, and further, is what it is then."""
        for form, compress in COMPRESS.items():
            old, new = CONTENT[:MIB], CONTENT
            for kept in (0, 9):  # bytes missing: it had been finished, or not
                name = f"{kept}{form}.partial"
                data = compress(old)
                self.files.size(self.opened(name, data[: len(data) - kept]))
                self.assertHolds(new, self.opened(name, compress(new)))

    def test_otherBytesBefore(self) -> None:
        """What goes on as before and still does not fit together is looked at from the beginning, once."""
        data, other = gzip.compress(NOISE, 0), gzip.compress(b"other" + NOISE[5:], 0)
        self.files.size(self.opened("x.gz.partial", data[:MIB]))
        self.assertHolds(b"other" + NOISE[5:], self.opened("x.gz.partial", other))
        self.assertDamaged(self.opened("x.gz.partial", other + bytes(100)))
        self.assertHolds(NOISE, self.opened("x.gz.partial", data))

    def test_shorter(self) -> None:
        """A file that was truncated has less in it."""
        data = gzip.compress(NOISE)
        self.assertHolds(NOISE, self.opened("x.gz.partial", data))
        self.assertLess(self.files.size(self.opened("x.gz.partial", data[:MIB])), MIB + 4096)

    def test_anotherFile(self) -> None:
        """Another file of the same name is another file, while the old one is open."""
        old = self.opened("x.gz", gzip.compress(b"old"))
        (self.path / "new").write_bytes(gzip.compress(b"new"))
        (self.path / "new").rename(self.path / "x.gz")
        self.assertHolds(b"new", self.opened("x.gz"))
        self.assertHolds(b"old", old)


class DamageTests(CompressedTestCase):
    """Files that are not what their names say."""

    def test_damaged(self) -> None:
        """A file with a wrong byte in its middle has no content."""
        for form in (".gz", ".zst"):
            data = bytearray(COMPRESS[form](CONTENT))
            data[1000:1100] = bytes(100)
            self.assertDamaged(
                self.opened(f"x{form}", bytes(data)), f'could not decompress file "pg_wal/x{form}"'
            )

    def test_wrongSum(self) -> None:
        """Content that does not match its checksum is found out when it is measured."""
        data = bytearray(gzip.compress(CONTENT))
        data[-6] ^= 1
        self.assertDamaged(self.opened("x.gz", bytes(data)), "incorrect data check")

    def test_otherFormat(self) -> None:
        """The name does not make a format."""
        for form in COMPRESS:
            for other in ("", *COMPRESS):
                if other != form:
                    data = COMPRESS[other](CONTENT) if other else CONTENT
                    self.assertDamaged(self.opened(f"{other}x{form}", data))

    def test_garbageBehind(self) -> None:
        """What stands behind the end and is no further member is damage too."""
        self.assertDamaged(self.opened("x.gz", gzip.compress(CONTENT) + b"garbage"))

    def test_mended(self) -> None:
        """Damage is forgotten when the file has changed."""
        data = gzip.compress(CONTENT)
        self.assertDamaged(self.opened("x.gz", data[:1000] + bytes(1000)))
        self.assertHolds(CONTENT, self.opened("x.gz", data))

    @given(st.sampled_from(sorted(COMPRESS)), st.data())
    def test_anyBytes(self, form: str, data: st.DataObject) -> None:
        """Whatever is in a file, it has a content or is damaged."""
        good = COMPRESS[form](CONTENT[:1000])
        prefix = good[: data.draw(st.integers(0, len(good)))]
        content = prefix + data.draw(st.binary(max_size=100))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, f"x{form}")
            path.write_bytes(content)
            files: FileOperations = DecompressingFiles(REAL_FILES)
            descriptor = files.open(str(path))
            try:
                files.read(descriptor, 10_000, 0)
                self.assertLess(files.size(descriptor), MIB)
            except CannotDecompress:
                pass
            finally:
                files.close(descriptor)
