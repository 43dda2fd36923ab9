"""`DirectorySource`: what is served is what was validated, in a directory that others change meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

from source_helpers import FIRST, MIB, SECOND, SourceTestCase, some_wal

from walsender.source import SegmentUnavailable
from walsender.source.follower import ServerRunning
from walsender.testing.wal_maker import WalMaker
from walsender.wal import SyncFailed


class ValidatedFileTests(SourceTestCase):
    """The file that is sent from is the one in which the end was found."""

    def test_completedUnderTheFinalName(self) -> None:
        """WAL found in a new file under the final name is not read from the old ``.partial``."""
        maker = some_wal()
        source = self.source(maker, partial=True)
        before = source.flush_position
        maker.record(5000)
        (self.path / SECOND).write_bytes(bytes(maker.image(2)))
        self.wait(0.3)  # no new listing yet
        self.assertEqual(maker.position, source.flush_position)
        segment = self.successResultOf(source.open_segment(1, 2))
        data = os.pread(segment.descriptor, maker.position - before, before - segment.start)
        self.assertEqual(bytes(maker.image(2)[before % MIB : maker.position % MIB]), data)

    def test_copyUnderWayBesideThePartial(self) -> None:
        """A preallocated copy that has just begun does not take the place of the ``.partial``."""
        maker = some_wal()
        source = self.source(maker, partial=True)
        image = bytes(maker.image(2))
        (self.path / SECOND).write_bytes(image[:16384].ljust(MIB, b"\0"))
        self.wait(10)
        self.assertEqual(maker.position, source.flush_position)
        segment = self.successResultOf(source.open_segment(1, 2))
        self.assertEqual(image[: maker.position % MIB], os.pread(segment.descriptor, maker.position % MIB, 0))

    def test_olderSegmentBeingCopiedIn(self) -> None:
        """A segment that no look has validated is not there before its last page is."""
        maker = some_wal()
        maker.fill_to(maker.position + 70 * MIB, 20_000)
        source = self.source(maker)
        image = (self.path / FIRST).read_bytes()
        (self.path / FIRST).write_bytes(image[:500_000].ljust(MIB, b"\0"))
        error = self.failureResultOf(source.open_segment(1, 1), SegmentUnavailable).value
        self.assertEqual(errno.ENOENT, error.error.errno)
        (self.path / FIRST).write_bytes(image)
        self.successResultOf(source.open_segment(1, 1))

    def test_olderSegmentThatWasSwitched(self) -> None:
        """A segment whose rest is empty behind a switch is whole."""
        maker = WalMaker()
        maker.record(500)
        maker.switch()
        maker.fill_to(maker.position + 70 * MIB, 20_000)
        source = self.source(maker)
        self.successResultOf(source.open_segment(1, 1))

    def test_replacedWhileOpening(self) -> None:
        """What was opened on the result of one look is retired if the next has seen another file."""
        maker = some_wal()
        source = self.source(maker)
        self.threads.holding = True
        opening = source.open_segment(1, 2)
        (opened, job), self.threads.jobs = self.threads.jobs[0], []
        late = job()
        self.threads.holding = False
        shutil.copy(self.path / SECOND, self.path / "copy")
        (self.path / "copy").rename(self.path / SECOND)
        maker.record(500)
        (self.path / SECOND).write_bytes(bytes(maker.image(2)))
        self.wait(6)
        opened.callback(late)
        self.assertTrue(self.successResultOf(opening).retired)

    def test_renamedWhileOpen(self) -> None:
        """A segment that has lost its name, as a recycled one does, is retired at the next listing."""
        source = self.source(some_wal())
        segment = self.successResultOf(source.open_segment(1, 1))
        (self.path / FIRST).rename(self.path / "000000010000000000000009")
        self.wait(6)
        self.assertTrue(segment.retired)

    def test_partialCompletedWhileOpen(self) -> None:
        """A ``.partial`` that gets its final name stays what it was."""
        source = self.source(some_wal(), partial=True)
        segment = self.successResultOf(source.open_segment(1, 2))
        (self.path / f"{SECOND}.partial").rename(self.path / SECOND)
        self.wait(6)
        self.assertFalse(segment.retired)


class DirectoryTests(SourceTestCase):
    """What a directory must not become while it is served."""

    def test_anotherCluster(self) -> None:
        """WAL of another cluster in the same place is not taken over, and its predecessor stays announced."""
        maker = some_wal(system_identifier=1)
        source = self.source(maker)
        for name in (FIRST, SECOND):
            (self.path / name).unlink()
        some_wal(system_identifier=2).write(self.path)
        self.wait(12)
        self.assertEqual((1, maker.position), (source.system_identifier, source.flush_position))
        self.failureResultOf(source.open_segment(1, 1))

    def test_emptied(self) -> None:
        """An emptied (or unmounted) directory changes nothing that was announced."""
        maker = some_wal()
        source = self.source(maker)
        for name in (FIRST, SECOND):
            (self.path / name).unlink()
        self.wait(12)
        self.assertEqual(maker.position, source.flush_position)
        self.failureResultOf(source.open_segment(1, 1), SegmentUnavailable)
        maker.record(500)
        maker.write(self.path)
        self.wait(6)
        self.assertEqual(maker.position, source.flush_position)

    def test_lostHistory(self) -> None:
        """A current timeline without its history file is complained of, not silently no longer followed."""
        maker = some_wal()
        maker.fork()
        maker.record(500)
        source = self.source(maker)
        complaints: list[str] = []
        self.patch(source, "_complain", complaints.append)
        (self.path / "00000002.history").unlink()
        self.wait(6)
        self.assertEqual(2, source.timeline)
        self.assertTrue(any("00000002.history" in complaint for complaint in complaints))

    def test_historyIsDurable(self) -> None:
        """A history file is synced before its timeline is announced, once."""
        maker = some_wal()
        maker.fork()
        maker.record(500)
        source = self.source(maker)
        self.assertEqual(2, source.timeline)
        self.assertEqual(1, self.files.synced.count("00000002.history"))
        self.wait(12)
        self.assertEqual(1, self.files.synced.count("00000002.history"))

    def test_serverStarts(self) -> None:
        """A server that starts over its pg_wal stops us: nothing is opened, what is open is retired."""
        directory = self.path
        self.path = directory / "pg_wal"
        self.path.mkdir()
        source = self.source(some_wal())
        segment = self.successResultOf(source.open_segment(1, 1))
        child = subprocess.Popen(["sleep", "600"])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        pid_file = directory / "postmaster.pid"
        pid_file.write_text(f"{child.pid}\n{directory}\n")
        self.wait(6)
        self.assertTrue(segment.retired)
        self.failureResultOf(source.open_segment(1, 1), ServerRunning)
        pid_file.unlink()
        self.wait(6)
        self.successResultOf(source.open_segment(1, 1))


class SyncTests(SourceTestCase):
    """What a failed fsync means, and what only looks like one."""

    def test_failedInOpen(self) -> None:
        """An fsync that fails while opening is told, and the file is not trusted by later looks either."""
        maker = some_wal()
        source = self.source(maker)
        before = source.flush_position
        self.files.failures["sync", SECOND] = errno.EIO
        error = self.failureResultOf(source.open_segment(1, 2), SyncFailed).value
        self.assertEqual(f'could not fsync file "pg_wal/{SECOND}": Input/output error', error.message)
        self.files.failures.clear()
        self.failureResultOf(source.open_segment(1, 2), SyncFailed)
        maker.record(500)
        maker.write(self.path)
        self.wait(20)
        self.assertEqual(before, source.flush_position)

    def test_noDescriptors(self) -> None:
        """A file that could not even be opened for the fsync is tried again."""
        maker = some_wal()
        source = self.source(maker)
        before = source.flush_position
        maker.record(500)
        maker.write(self.path)
        self.files.failures["open", SECOND] = errno.EMFILE
        self.wait(1)
        self.assertEqual(before, source.flush_position)
        self.files.failures.clear()
        self.wait(1)
        self.assertEqual(maker.position, source.flush_position)
