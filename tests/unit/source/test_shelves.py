"""Where fetched segments go, and what is left of those that go nowhere."""

from __future__ import annotations

import errno
import os
import threading
from functools import partial
from typing import Any

from fetching_helpers import FetchingTestCase, Provider
from twisted.internet.defer import Deferred, maybeDeferred

from walsender.errors import DiskFull
from walsender.source import Fetching, RelayShelf, RelaySource, SegmentUnavailable
from walsender.wal import REAL_FILES, RealFiles

NAME = "000000010000000000000003"


class RelayTests(FetchingTestCase):
    """A relay keeps what it has fetched."""

    def setUp(self) -> None:
        """Make a relay with the newer half of some WAL, and an archive with all of it."""
        super().setUp()
        self.maker = self.made()
        self.archive = Provider(self.maker.files())
        for name, content in self.maker.files(partial=True).items():
            if int(name[16:24], 16) >= self.HELD:
                (self.path / name).write_bytes(content)
        self.commits: list[str] = []
        self.files = REAL_FILES
        self.start()

    def run_commit(self, function: Any, *arguments: Any) -> Deferred[Any]:
        """Run what makes names."""
        self.commits.append(function.__name__)
        return maybeDeferred(function, *arguments)

    def check_room(self) -> None:
        """Say that there is none."""
        if self.full:
            raise DiskFull("there is no room")

    def start(self) -> None:
        """Begin, again."""
        self.full = False
        self.source = RelaySource(self.threads, self.run_commit, self.files, str(self.path))
        self.shelf = RelayShelf(
            self.threads, self.run_commit, self.files, str(self.path), self.source, self.check_room
        )
        self.source.fetching = Fetching(
            partial(self.clock.callLater, 0), self.shelf, self.source, [self.archive]
        )
        self.successResultOf(self.source.start())

    def names(self) -> list[str]:
        """Return the files in the directory that have a segment's name."""
        return sorted(path.name for path in self.path.iterdir() if len(path.name) == len(NAME))

    def test_kept(self) -> None:
        """It has its name, is held from now on, and after a restart too."""
        end = self.source.flush_position
        self.assertEqual(self.maker.image(3), self.content(self.source.open_segment(1, 3)))
        self.assertEqual(bytes(self.maker.image(3)), (self.path / NAME).read_bytes())
        self.assertIn("_give_name", self.commits)
        self.start()
        self.assertEqual(end, self.source.flush_position)
        self.archive.files.clear()
        self.assertEqual(self.maker.image(3), self.content(self.source.open_segment(1, 3)))

    def test_aNameThatIsNotDurable(self) -> None:
        """What a power failure may take away is not there for anybody, until it is fetched again."""

        class Files(RealFiles):
            def sync_directory(self, path: str) -> None:
                """Fail once a segment is there."""
                if f"{path}/{NAME}" == str(final) and final.exists() and failing:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))

        final = self.path / NAME
        failing = [True]
        self.files = Files()
        self.start()
        failure = self.failureResultOf(self.source.open_segment(1, 3), SegmentUnavailable)
        self.assertIn("Input/output error", failure.value.sought)
        self.failureResultOf(self.source.open_segment(1, 3), SegmentUnavailable)
        self.assertFalse(final.exists())
        failing.clear()
        self.clock.advance(3600)
        self.assertEqual(self.maker.image(3), self.content(self.source.open_segment(1, 3)))

    def test_aheadIsKept(self) -> None:
        """What is fetched ahead is held, too, and not fetched twice."""
        self.content(self.source.open_segment(1, 3))
        self.assertEqual([f"{NAME[:-1]}{number}" for number in range(3, 8)], self.names()[:5])
        self.content(self.source.open_segment(1, 4))
        self.assertEqual(5, len(self.archive.asked))

    def test_nothingIsFetchedOntoAFullDisk(self) -> None:
        """Nothing is fetched onto a disk that has no room for it, and whoever wants it is told why."""
        self.full = True
        failure = self.failureResultOf(self.source.open_segment(1, 3), SegmentUnavailable)
        self.assertIn("there is no room", str(vars(failure.value)))
        self.assertEqual([], self.archive.asked)

    def test_existingFileStays(self) -> None:
        """What has come meanwhile by another way is not replaced."""
        self.archive.holding = True
        opening = self.source.open_segment(1, 3)
        (self.path / NAME).write_bytes(bytes(self.maker.image(3)))
        before = (self.path / NAME).stat().st_ino
        self.archive.answer(NAME)
        self.assertEqual(self.maker.image(3), self.content(opening))
        self.assertEqual(before, (self.path / NAME).stat().st_ino)

    def test_damagedFile(self) -> None:
        """It gets no name."""
        self.archive.files[NAME] = bytes(1 << 20)
        self.failureResultOf(self.source.open_segment(1, 3), SegmentUnavailable)
        self.assertNotIn(NAME, self.names())
        self.assertEqual([], [path for path in (self.path / "walsender_fetch").rglob("*") if path.is_file()])

    def test_leftovers(self) -> None:
        """What a crash has left is removed."""
        left = self.path / "walsender_fetch" / "1"
        left.mkdir(parents=True)
        (left / NAME).write_bytes(b"half")
        (left / "of-some-tool").mkdir()
        self.successResultOf(self.shelf.close())
        self.assertFalse(left.parent.exists())

    def test_noRoom(self) -> None:
        """A disk without room is told of like any other reason."""

        def full() -> str:
            raise DiskFull("could not make a directory: No space left on device")

        self.patch(self.shelf._scratch, "begin", full)
        error = self.failureResultOf(self.source.open_segment(1, 3), SegmentUnavailable).value
        self.assertIn("the archive: could not make a directory: No space left on device", error.sought)

    def grow(self) -> None:
        """Let the last segment be whole in the archive, which here it is not, and WAL go on."""
        self.maker.fill_to(15 << 20, 20_000)
        self.archive.files.update(self.maker.files())

    def test_growingSegment(self) -> None:
        """A whole file takes the place of the beginning of it that was held, and is shown."""
        self.grow()
        self.source.restore = self.filling().restore
        self.assertTrue(self.successResultOf(self.source.fill(1, 12 << 20, 14 << 20)))
        self.assertEqual(14 << 20, self.source.flush_position)
        self.assertNotIn(f"{NAME[:-1]}C.partial", [path.name for path in self.path.iterdir()])
        self.assertEqual(self.maker.image(12), self.content(self.source.open_segment(1, 12)))
        self.start()
        self.assertEqual(14 << 20, self.source.flush_position)

    def test_growingSegmentThatDiffers(self) -> None:
        """What a standby may have is not replaced by something else, however good that is."""
        before = self.source.flush_position
        other = type(self.maker)()
        other.fill_to(13 << 20, 19_000)
        other.fill_to(15 << 20, 20_000)
        self.archive.files = other.files()
        self.source.restore = self.filling().restore
        self.assertFalse(self.successResultOf(self.source.fill(1, 12 << 20, 14 << 20)))
        self.assertEqual(before, self.source.flush_position)
        self.assertIn(f"{NAME[:-1]}C.partial", [path.name for path in self.path.iterdir()])

    def filling(self) -> Fetching:
        """Return what gets segments for the relay itself."""
        return Fetching(partial(self.clock.callLater, 0), self.shelf, self.source, [self.archive])

    def test_severalThreads(self) -> None:
        """Each fetch has a directory of its own, whoever begins at the same time."""
        for _ in range(20):
            together = threading.Barrier(8)
            made: list[str] = []

            def begin(together: threading.Barrier = together, made: list[str] = made) -> None:
                together.wait()
                made.append(self.shelf._scratch.begin())

            threads = [threading.Thread(target=begin) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(8, len(set(made)))
            self.shelf._scratch.clear()
