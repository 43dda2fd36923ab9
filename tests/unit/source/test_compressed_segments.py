"""A directory source over compressed segments: alone, among plain ones, growing, damaged."""

from __future__ import annotations

import errno
import gc
import gzip
import os
import shutil
from typing import TYPE_CHECKING

from source_helpers import FIRST, MIB, SECOND, SourceTestCase, some_wal
from twisted.logger import globalLogPublisher

from walsender.source import DirectorySource, SegmentUnavailable
from walsender.testing.compression import COMPRESS, compress_file
from walsender.wal import CannotDecompress

if TYPE_CHECKING:
    from typing import Any

    from walsender.source import OpenSegment
    from walsender.testing.wal_maker import WalMaker


def long_wal(segments: int = 5) -> WalMaker:
    """Return a maker that has written some segments of one MiB and half of another."""
    maker = some_wal()
    maker.fill_to(maker.position + (segments - 1) * MIB, 20_000)
    return maker


class CompressedTestCase(SourceTestCase):
    """Short ways to fill and to read."""

    def name(self, number: int) -> str:
        """Return the name of a segment of timeline 1."""
        return f"{1:08X}{number:016X}"

    def opened(self, source: DirectorySource, number: int) -> OpenSegment:
        """Return an open segment."""
        return self.successResultOf(source.open_segment(1, number))

    def assertServed(self, maker: WalMaker, source: DirectorySource, first: int = 1) -> None:
        """Assert that all WAL, from the segment *first* on, is what was made."""
        self.assertEqual(maker.position, source.flush_position)
        for number in range(first, maker.last_number + 1):
            segment = self.opened(source, number)
            length = min(MIB, maker.position - segment.start)
            self.assertTrue(
                maker.image(number)[:length] == os.pread(segment.descriptor, length, 0), segment.name
            )

    def errors(self) -> list[str]:
        """Return what is logged as an error from now on."""
        errors: list[str] = []

        def observe(event: dict[str, Any]) -> None:
            if event["log_level"].name == "error":
                errors.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return errors


class MixTests(CompressedTestCase):
    """What is in compressed segments is served as if it stood in plain ones."""

    def test_everyMix(self) -> None:
        """Plain, gzip, lz4 and zstd, in any order, the newest one compressed or not."""
        for shift in range(4):
            maker = long_wal()
            maker.write(self.path)
            for number in range(1, maker.last_number + 1):
                form = ("", *COMPRESS)[(number + shift) % 4]
                if form:
                    compress_file(self.path / self.name(number), form)
            self.assertServed(maker, self.source())
            for path in self.path.iterdir():
                path.unlink()

    def test_everyEra(self) -> None:
        """WAL before 9.3 too."""
        maker = some_wal(version=90200)
        maker.write(self.path)
        for name in (FIRST, SECOND):
            compress_file(self.path / name, ".gz")
        self.assertServed(maker, self.source())

    def test_archive(self) -> None:
        """An archive ends with its last whole segment, which may end inside a record."""
        maker = long_wal()
        maker.record(MIB)
        maker.write(self.path)
        for number in range(1, maker.last_number):
            compress_file(self.path / self.name(number), ".zst")
        (self.path / self.name(maker.last_number)).unlink()
        self.assertEqual(maker.last_number * MIB, self.source().flush_position)

    def test_plainFirst(self) -> None:
        """A plain segment is read rather than a compressed one, and a whole one rather than a partial one."""
        source = self.source(some_wal())
        for form in COMPRESS:
            (self.path / f"{FIRST}{form}").write_bytes(b"not looked at")
        self.wait(5.2)
        self.assertEqual(FIRST, self.opened(source, 1).name)
        (self.path / FIRST).rename(self.path / f"{FIRST}.partial")
        (self.path / f"{FIRST}.gz").write_bytes(gzip.compress(bytes(some_wal().image(1))))
        self.wait(5.2)
        gc.collect()
        self.assertEqual(f"{FIRST}.gz", self.opened(source, 1).name)

    def test_beingUnpacked(self) -> None:
        """While a plain file is being written beside it, the compressed one serves."""
        for name, number in ((FIRST, 1), (SECOND, 2)):
            maker = some_wal()
            maker.write(self.path)
            compress_file(self.path / name, ".lz4")
            (self.path / name).write_bytes(bytes(maker.image(number)[: MIB // 4]))
            self.assertServed(maker, self.source())
            for path in self.path.iterdir():
                path.unlink()

    def test_compressedWhileServed(self) -> None:
        """A segment that is compressed or unpacked under way goes on being served, to old and new readers."""
        maker = long_wal()
        source = self.source(maker)
        reader = self.opened(source, maker.last_number - 1)
        for _ in range(2):
            for number in range(1, maker.last_number + 1):
                compress_file(self.path / self.name(number), ".gz")
            self.wait(5.2)
            self.assertTrue(reader.retired)
            self.assertServed(maker, source)
            maker.fill_to(maker.position + MIB, 20_000)
            for path in self.path.iterdir():
                path.unlink()
            maker.write(self.path)
            self.wait(5.2)
            self.assertServed(maker, source)

    def test_history(self) -> None:
        """A compressed history file tells the timeline, is served as it was, and is durable before that."""
        maker = some_wal()
        maker.fork()
        maker.record(500)
        maker.write(self.path)
        compress_file(self.path / "00000002.history", ".gz")
        source = self.source()
        self.assertEqual((2, maker.histories[2]), (source.timeline, source.history_file(2)))
        self.assertIn("00000002.history.gz", self.files.synced)
        (self.path / "00000002.history").write_bytes(b"")  # being unpacked
        self.wait(5.2)
        self.assertEqual((2, maker.histories[2]), (source.timeline, source.history_file(2)))

    def test_sharedAndSynced(self) -> None:
        """However many read it, a segment is expanded once; the compressed file is what is synced."""
        maker = long_wal()
        maker.write(self.path)
        compress_file(self.path / FIRST, ".gz")
        source = self.source()
        self.files.synced.clear()
        segments = [self.opened(source, 1) for _ in range(3)]
        self.assertEqual(1, len(set(map(id, segments))))
        self.assertEqual([f"{FIRST}.gz"], self.files.synced)
        content = os.fstat(segments[0].descriptor)
        self.assertEqual((MIB, 0), (content.st_size, content.st_nlink))

    def test_nothingIsKept(self) -> None:
        """When nobody reads any more, no more than two expanded segments stay open."""
        maker = long_wal(10)
        maker.write(self.path)
        for number in range(1, maker.last_number):
            compress_file(self.path / self.name(number), ".lz4")
        source = self.source()
        segments = [self.opened(source, number) for number in range(1, maker.last_number)]
        self.assertEqual(len(segments), len(self.files.open_names))
        segments.clear()
        self.wait()
        self.assertLessEqual(len(self.files.open_names), 2)


class GrowingTests(CompressedTestCase):
    """What a compressing pg_receivewal writes."""

    def test_partial(self) -> None:
        """Whatever of an unfinished segment is on disk, the end is that of a whole record that is in it."""
        maker = long_wal(2)
        records = {record.end for record in maker.records} | {maker.last_number * MIB}
        for form, compress in COMPRESS.items():
            maker.write(self.path)
            path = self.path / self.name(maker.last_number)
            data = compress(bytes(maker.image(maker.last_number)[: maker.position % MIB]))
            path.unlink()
            growing = path.with_name(f"{path.name}{form}.partial")
            growing.write_bytes(b"")
            source = self.source()
            positions = []
            for end in range(0, len(data) + 1000, 1000):
                growing.write_bytes(data[:end])
                self.wait()
                positions.append(source.flush_position)
                self.assertIn(positions[-1], records)
                if positions[-1] > maker.last_number * MIB:
                    segment = self.opened(source, maker.last_number)
                    length = positions[-1] - segment.start
                    expected = maker.image(maker.last_number)[:length]
                    self.assertTrue(expected == os.pread(segment.descriptor, length, 0))
                    self.assertFalse(segment.retired)
            self.assertEqual(sorted(positions), positions)
            self.assertEqual(maker.position, positions[-1])
            source.stop()
            growing.unlink()

    def test_final(self) -> None:
        """The final name, and the segment after it, are found without a new listing."""
        maker = long_wal(2)
        maker.write(self.path)
        last = self.path / self.name(maker.last_number)
        compress_file(last, ".gz").rename(f"{last}.gz.partial")
        source = self.source()
        reader = self.opened(source, maker.last_number)
        self.assertEqual(f"{last.name}.gz.partial", reader.name)
        del reader
        maker.fill_to(maker.position + MIB, 20_000)
        number = maker.last_number
        (self.path / f"{last.name}.gz.partial").write_bytes(gzip.compress(bytes(maker.image(number - 1))))
        (self.path / f"{last.name}.gz.partial").rename(f"{last}.gz")
        data = gzip.compress(bytes(maker.image(number)[: maker.position % MIB]))
        (self.path / f"{self.name(number)}.gz.partial").write_bytes(data)
        self.wait(0.4)
        self.assertServed(maker, source)
        self.assertEqual(f"{last.name}.gz", self.opened(source, number - 1).name)

    def test_compressionSwitchedOn(self) -> None:
        """Behind a plain partial segment that nobody writes any more, the compressed one goes on."""
        maker = some_wal()
        source = self.source(maker, partial=True)
        reader = self.opened(source, 2)
        before = source.flush_position
        maker.fill_to(maker.position + MIB, 20_000)
        data = gzip.compress(bytes(maker.image(2)))
        (self.path / f"{SECOND}.gz.partial").write_bytes(data[: len(data) // 2])
        self.wait(5.2)
        self.assertEqual(before, source.flush_position)
        (self.path / f"{SECOND}.gz.partial").write_bytes(data)
        (self.path / f"{SECOND}.gz.partial").rename(self.path / f"{SECOND}.gz")
        self.wait(5.2)
        self.assertEqual(3 * MIB, source.flush_position)
        self.assertTrue(reader.retired)
        del reader
        self.assertEqual(f"{SECOND}.gz", self.opened(source, 2).name)

    def test_writtenAnew(self) -> None:
        """While a restarted pg_receivewal writes a segment again, nothing is sent from a mixture."""
        maker = some_wal()
        maker.write(self.path)
        content = bytes(maker.image(2)[: maker.position % MIB])
        (self.path / SECOND).unlink()
        growing = self.path / f"{SECOND}.gz.partial"
        fast = gzip.compress(content, 1)
        growing.write_bytes(fast)
        source = self.source()
        self.assertServed(maker, source)
        # Another program's start, as it were: nothing is known of how the file was before.
        gc.collect()
        slow = gzip.compress(content, 9)
        with growing.open("r+b") as file:
            file.write(slow[:-2000])
        other = self.source()
        self.assertLess(other.flush_position, maker.position)
        growing.write_bytes(slow)
        self.wait(0.4)
        self.assertServed(maker, other)
        self.assertServed(maker, source)

    def test_mixture(self) -> None:
        """An unfinished segment that has lost what was announced of it is not opened until it is back."""
        maker = some_wal()
        maker.write(self.path)
        (self.path / SECOND).unlink()
        growing = self.path / f"{SECOND}.gz.partial"
        content = bytes(maker.image(2)[: maker.position % MIB])
        growing.write_bytes(gzip.compress(content))
        source = self.source()
        middle = len(content) // 2
        growing.write_bytes(gzip.compress(content[:middle] + bytes(20_000) + content[middle + 20_000 :]))
        self.wait(0.4)
        self.failureResultOf(source.open_segment(1, 2), SegmentUnavailable)
        self.assertEqual(maker.position, source.flush_position)
        growing.write_bytes(gzip.compress(content, 1))
        self.assertServed(maker, source)


class DamageTests(CompressedTestCase):
    """Compressed files that are not what they should be."""

    def damage(self, number: int, form: str = ".gz") -> None:
        """Spoil a compressed segment."""
        path = self.path / f"{self.name(number)}{form}"
        data = bytearray(path.read_bytes())
        data[1000:1100] = bytes(100)
        path.write_bytes(data)

    def end_before_the_last(self, maker: WalMaker) -> int:
        """Return where the last record ends that is whole without the newest segment."""
        return max(record.end for record in maker.records if record.end <= maker.last_number * MIB)

    def test_damaged(self) -> None:
        """Who needs it is told, each time, and everything else goes on; a copy mends it."""
        maker = long_wal()
        maker.write(self.path)
        compress_file(self.path / self.name(3), ".gz")
        shutil.copy(self.path / f"{self.name(3)}.gz", self.path / "good")
        self.damage(3)
        source = self.source()
        self.assertEqual(maker.position, source.flush_position)
        for _ in range(2):
            error = self.failureResultOf(source.open_segment(1, 3), CannotDecompress).value
            self.assertIn(f'could not decompress file "pg_wal/{self.name(3)}.gz": Error -3', str(error))
            self.assertEqual("XX001", error.sqlstate)
        gc.collect()
        self.assertLessEqual(len(self.files.open_names), 2)
        for number in (2, 4):
            self.opened(source, number)
        (self.path / "good").rename(self.path / f"{self.name(3)}.gz")
        self.assertServed(maker, source)

    def test_damagedNewest(self) -> None:
        """WAL ends before it, and the log says why, once."""
        errors = self.errors()
        maker = long_wal()
        maker.write(self.path)
        compress_file(self.path / self.name(maker.last_number), ".gz")
        compress_file(self.path / self.name(maker.last_number - 1), ".gz")
        self.damage(maker.last_number)
        source = self.source()
        self.wait(20)
        self.assertEqual(self.end_before_the_last(maker), source.flush_position)
        self.assertEqual(1, len(errors))
        self.assertIn(f"{self.name(maker.last_number)}.gz", errors[0])
        maker.write(self.path)
        self.wait(5.2)
        self.assertServed(maker, source)
        self.assertEqual(1, len(errors))

    def test_damagedNewestInTheMiddle(self) -> None:
        """Not even what comes out before the damage is taken: it may be wrong already."""
        maker = long_wal()
        maker.write(self.path)
        path = compress_file(self.path / self.name(maker.last_number), ".zst")
        data = path.read_bytes()
        half = len(data) // 2
        path.write_bytes(data[:half] + bytes(500) + data[half + 500 :])
        self.assertEqual(self.end_before_the_last(maker), self.source().flush_position)

    def test_anotherForm(self) -> None:
        """Where a damaged file is not the only one of a segment, another serves."""
        maker = long_wal()
        maker.write(self.path)
        shutil.copy(self.path / self.name(3), self.path / "copy")
        compress_file(self.path / self.name(3), ".gz")
        self.damage(3)
        (self.path / "copy").rename(self.path / self.name(3))
        compress_file(self.path / self.name(3), ".zst")
        source = self.source()
        self.assertEqual(f"{self.name(3)}.zst", self.opened(source, 3).name)

    def test_short(self) -> None:
        """One that is whole and holds less than a segment is as one that is missing."""
        maker = long_wal()
        maker.write(self.path)
        (self.path / self.name(3)).unlink()
        (self.path / f"{self.name(3)}.gz").write_bytes(gzip.compress(bytes(maker.image(3)[: MIB // 2])))
        error = self.failureResultOf(self.source().open_segment(1, 3), SegmentUnavailable).value
        self.assertEqual((errno.ENOENT, self.name(3)), (error.error.errno, error.name))

    def test_tooLong(self) -> None:
        """One that holds more than a segment is damaged."""
        maker = long_wal()
        maker.write(self.path)
        (self.path / self.name(3)).unlink()
        (self.path / f"{self.name(3)}.gz").write_bytes(gzip.compress(bytes(maker.image(3)) + bytes(64 * MIB)))
        error = self.failureResultOf(self.source().open_segment(1, 3), CannotDecompress).value
        self.assertIn(f"it holds more than {MIB} bytes", str(error))

    def test_failedSync(self) -> None:
        """A compressed file that could not be synced is not trusted."""
        maker = some_wal()
        maker.write(self.path)
        compress_file(self.path / FIRST, ".gz")
        source = self.source()
        self.files.failures["sync", f"{FIRST}.gz"] = errno.EIO
        for _ in range(2):
            failure = self.failureResultOf(source.open_segment(1, 1))
            self.assertIn(f"{FIRST}.gz", failure.getErrorMessage())
            self.files.failures.clear()
