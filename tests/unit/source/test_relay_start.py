"""What a relay does at its start with files that its disk may have spoilt."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

from source_helpers import FIRST, MIB, SECOND, SourceTestCase, Threads, put_durably

from walsender.simulate.cluster import Cluster
from walsender.simulate.disk import SimulatedDisk
from walsender.simulate.files import WalFiles
from walsender.source import SegmentUnavailable
from walsender.source.durable_files import DurableFiles
from walsender.source.relay import RelaySource
from walsender.testing.wal_maker import WalMaker
from walsender.wal import SyncFailed

if TYPE_CHECKING:
    from walsender.simulate.platter import File

WAL = "/wal"
THIRD = "000000010000000000000003.partial"


class _Reads(WalFiles):
    """
    Files of a disk.

    :ivar largest: how many bytes have been had at once, at most.
    """

    largest = 0

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """See `FileOperations`."""
        data = super().read(descriptor, length, offset)
        self.largest = max(self.largest, len(data))
        return data


class RelayStartTests(SourceTestCase):
    def setUp(self) -> None:
        """Make a disk that holds two segments and a half, all of it durable."""
        super().setUp()
        self.cluster = Cluster()
        while self.cluster.position < 3 * MIB + MIB // 2:
            self.cluster.write(20_000)
        self.disk = SimulatedDisk(random.Random(0))
        self.addCleanup(self.disk.close)
        self.disk.make_directory(WAL)
        self.disk.sync_directory("/")
        self.put(FIRST, self.cluster.wal(1, MIB, 2 * MIB))
        self.put(SECOND, self.cluster.wal(1, 2 * MIB, 3 * MIB))
        self.third = self.cluster.wal(1, 3 * MIB, self.cluster.position).ljust(MIB, b"\0")
        self.put(THIRD, self.third)
        self.relay = RelaySource(Threads(), Threads(), WalFiles(self.disk), WAL)

    def put(self, name: str, content: bytes) -> None:
        """Make a durable file."""
        put_durably(self.disk, WAL, name, content)

    def file(self, name: str) -> File:
        """Return a file."""
        return self.disk.file(f"{WAL}/{name}")

    def spoil(self, file: File) -> None:
        """Let a file's last half have been written and its sync have failed, before our time."""
        file.platter[MIB // 4 :] = bytes(len(file.platter) - MIB // 4)

    def test_whatOnlyTheKernelHasIsWrittenAgain(self) -> None:
        """After a sync that failed, and the end of who knew it, the next start brings the bytes to disk."""
        partial = self.file(THIRD)
        self.spoil(partial)
        self.successResultOf(self.relay.start())
        self.assertEqual(self.relay.flush_position, self.cluster.position)
        self.assertEqual(bytes(partial.platter), self.third)

    def test_aFileThatCannotBeSyncedIsCopied(self) -> None:
        """The first sync fails: a copy takes the file's place, and the relay starts."""
        partial = self.file(THIRD)
        self.spoil(partial)
        self.disk.failing["sync"] = [errno.EIO]
        self.successResultOf(self.relay.start())
        copy = self.file(THIRD)
        self.assertIsNot(copy, partial)
        self.assertEqual(bytes(copy.platter), self.third)

    def test_aFileThatMayNotBeWrittenToIsNamed(self) -> None:
        """It is another user's, perhaps, in a directory that is ours."""
        path = f"{WAL}/{THIRD}"

        def refuse(_files: WalFiles, path: str) -> int:
            raise PermissionError(errno.EACCES, "Permission denied", path)

        self.patch(WalFiles, "open_to_write", refuse)
        failure = self.failureResultOf(self.relay.start())
        self.assertEqual(f'could not use file "{path}": Permission denied', failure.getErrorMessage())

    def test_whenNothingCanBeSyncedItDoesNotStart(self) -> None:
        """Neither the file nor a copy: nothing is announced, and the next try may do better."""
        self.disk.failing["sync"] = [errno.EIO] * 2
        failure = self.failureResultOf(self.relay.start())
        self.assertIn("Input/output error", failure.getErrorMessage())
        self.assertFalse(self.relay.ready)
        self.successResultOf(self.relay.start())
        self.assertEqual(self.relay.flush_position, self.cluster.position)

    def test_aFileThatTheLookCannotSyncIsCopiedForTheNextOne(self) -> None:
        """A segment with its final name too does not stay distrusted for ever."""
        self.disk.remove(f"{WAL}/{THIRD}")
        second = self.file(SECOND)
        self.disk.failing["sync"] = [errno.EIO]
        self.failureResultOf(self.relay.start()).trap(SyncFailed)
        self.successResultOf(self.relay.start())
        self.assertIsNot(self.file(SECOND), second)
        self.assertEqual(self.file(SECOND).visible(), self.cluster.wal(1, 2 * MIB, 3 * MIB))

    def test_aFullDiskDoesNotKeepItFromServing(self) -> None:
        """What is written over itself needs no room."""
        self.disk.room = 0
        self.successResultOf(self.relay.start())
        self.assertEqual(self.relay.flush_position, self.cluster.position)

    def test_aSegmentThatCannotBeSyncedIsCopiedForTheNextReader(self) -> None:
        """Who opens it is refused, and comes back."""
        self.successResultOf(self.relay.start())
        first = self.file(FIRST)
        self.disk.failing["sync"] = [errno.EIO]
        self.failureResultOf(self.relay.open_segment(1, 1)).trap(SyncFailed, SegmentUnavailable)
        self.assertIsNot(self.file(FIRST), first)
        segment = self.successResultOf(self.relay.open_segment(1, 1))
        self.assertEqual(segment.name, FIRST)

    def test_aGrowingSegmentOfATimelineThatHasEndedIsCopiedToo(self) -> None:
        """Nobody writes to it any more, so that its copy may take its place."""
        self.promote(2)
        self.promote(3)
        name = "000000020000000000000003.partial"
        self.successResultOf(self.relay.start())
        partial = self.file(name)
        self.disk.failing["sync"] = [errno.EIO]
        self.failureResultOf(self.relay.open_segment(1, 3)).trap(SyncFailed)
        self.assertIsNot(self.file(name), partial)
        self.assertEqual(name, self.successResultOf(self.relay.open_segment(1, 3)).name)

    def test_aGrowingSegmentThatIsReceivedKeepsItsFile(self) -> None:
        """Its writer would go on writing to one that nobody finds."""
        self.promote(2)
        self.promote(3)
        name = "000000020000000000000003.partial"
        self.successResultOf(self.relay.start())
        partial = self.file(name)
        self.relay.keep_from(2, 3 * MIB, self.cluster.geometry, bool, bool)
        self.disk.failing["sync"] = [errno.EIO]
        self.failureResultOf(self.relay.open_segment(1, 3)).trap(SyncFailed)
        self.assertIs(self.file(name), partial)

    def test_whatWasLeftBehindOnTheTimelineThatIsReceivedIsCopied(self) -> None:
        """Receiving has gone on further on: nobody writes to a growing segment that it left."""
        self.promote(2)
        self.promote(3)
        name = "000000020000000000000003.partial"
        self.successResultOf(self.relay.start())
        partial = self.file(name)
        self.relay.keep_from(2, 4 * MIB, self.cluster.geometry, bool, bool)
        self.disk.failing["sync"] = [errno.EIO]
        self.failureResultOf(self.relay.open_segment(1, 3)).trap(SyncFailed)
        self.assertIsNot(self.file(name), partial)

    def promote(self, timeline: int) -> None:
        """Let another timeline begin in the third segment, and hold that too."""
        self.cluster.promote(0)
        self.cluster.write(1000)
        self.put(f"{timeline:08X}.history", self.cluster.history_file(timeline) or b"")
        self.put(f"{timeline:08X}{THIRD[8:]}", bytes(self.cluster.segment(timeline, 3)))

    def test_aNewFileIsNotTakenForOneThatWasNotTrusted(self) -> None:
        """A copy frees the number of the file whose sync has failed, and the next new file gets it."""
        self.successResultOf(self.relay.start())
        number = self.file(FIRST).number
        self.disk.failing["sync"] = [errno.EIO]
        self.failureResultOf(self.relay.open_segment(1, 1)).trap(SyncFailed)
        self.promote(2)  # to grow there
        self.disk.remove(f"{WAL}/000000020000000000000003.partial")
        commits = self.relay.keep_from(2, 3 * MIB, self.cluster.geometry, bool, bool)
        self.successResultOf(self.relay.keep_history(2, self.cluster.history_file(2) or b""))
        commits.append(self.cluster.wal(2, 3 * MIB, self.cluster.position))
        commits.commit()
        self.assertEqual(number, self.file("000000020000000000000003.partial").number)
        self.assertEqual("000000020000000000000003.partial", self.opened(2, 3))

    def test_aTimelineThatIsNotShownYetIsNotReadFrom(self) -> None:
        """Of the one that is shown there may be more than the new one has of it: behind the fork."""
        self.cluster.promote(3)
        self.cluster.write(1000)
        self.put("00000002.history", self.cluster.history_file(2) or b"")
        wal = bytes(self.cluster.segment(2, 3)[: MIB // 8])
        self.put("000000020000000000000003.partial", wal.ljust(MIB, b"\0"))
        self.successResultOf(self.relay.start())
        self.assertEqual(1, self.relay.timeline)
        self.assertEqual((THIRD[:24],), self.relay.segment_names(1, 3))
        self.assertEqual(THIRD, self.opened(1, 3))

    def test_whereReceivingCameToNothingNothingIsHeld(self) -> None:
        """What a crash has left there may be anything, and must not keep out what is fetched."""
        self.disk.remove(f"{WAL}/{SECOND}")
        self.put(f"{SECOND}.partial", self.cluster.wal(1, 2 * MIB, 2 * MIB + 100).ljust(MIB, b"\0"))
        self.successResultOf(self.relay.start())
        self.assertEqual(0, self.relay.held_of(SECOND))
        self.assertEqual(self.cluster.position - 3 * MIB, self.relay.held_of(THIRD[:24]))

    def opened(self, timeline: int, number: int) -> str:
        """Return the name of the file that a reader gets."""
        return self.successResultOf(self.relay.open_segment(timeline, number)).name

    def test_largeSegmentsAreNotReadIntoMemoryWhole(self) -> None:
        """They may have a gigabyte, and a relay needs next to no memory otherwise."""
        begun, failing, empty = bytes(4 * MIB - 7) + b"growing", b"x" * 4 * MIB, bytes(4 * MIB)
        names = [f"00000001000000000000000{number}.partial" for number in (5, 6, 7)]
        for name, content in zip(names, (begun, failing, empty), strict=True):
            self.put(name, content)
        self.spoil(self.file(names[0]))
        files = _Reads(self.disk)
        durable = DurableFiles(files, WAL, bool)
        durable.clear_up()
        durable.renew(files.path_identity(f"{WAL}/{names[1]}"))
        self.assertEqual([begun, failing], [bytes(self.file(name).platter) for name in names[:2]])
        self.assertNotIn(names[2], self.disk.names(WAL))
        self.assertLessEqual(files.largest, MIB)

    def test_anEmptyFileGoes(self) -> None:
        """A segment that was made, and of which nothing has come, is none."""
        self.put("000000010000000000000005.partial", bytes(MIB))
        self.successResultOf(self.relay.start())
        self.assertEqual([FIRST, SECOND, THIRD], sorted(self.disk.names(WAL)))

    def whole(self) -> WalMaker:
        """Let the third segment be whole, under its old name, its last record a switch to the next."""
        maker = WalMaker(system_identifier=self.cluster.system_identifier)
        maker.fill_to(3 * MIB - 40_000, 20_000)
        maker.fill_to(3 * MIB - 4000)
        maker.record(8000)  # it ends on the third segment's first page
        maker.fill_to(3 * MIB + 900_000, 20_000)
        maker.switch()
        for name in (FIRST, SECOND, THIRD):
            self.disk.remove(f"{WAL}/{name}")
            self.put(name, maker.files()[name.removesuffix(".partial")])
        return maker

    def test_aWholeSegmentGetsItsFinalName(self) -> None:
        """Renaming it failed once, and receiving goes on behind it; its content is durable before."""
        self.whole()
        partial = self.file(THIRD)
        self.spoil(partial)
        self.successResultOf(self.relay.start())
        self.assertEqual([FIRST, SECOND, THIRD[:24]], sorted(self.disk.names(WAL)))
        self.assertIs(partial, self.file(THIRD[:24]))
        self.assertEqual(bytes(partial.platter), partial.visible())
        self.assertEqual(4 * MIB, self.relay.flush_position)
        self.disk.lose_power()
        self.assertIn(THIRD[:24], self.disk.names(WAL))

    def test_aWholeSegmentThatCannotBeRenamedIsServed(self) -> None:
        """The relay starts, and the next start tries again."""
        self.whole()
        self.disk.failing["rename"] = [errno.EIO]
        self.successResultOf(self.relay.start())
        self.assertEqual(4 * MIB, self.relay.flush_position)
        self.assertEqual(THIRD, self.opened(1, 3))
        self.successResultOf(self.relay.start())
        self.assertEqual(THIRD[:24], self.opened(1, 3))

    def test_aWholeSegmentBehindWhichReceivingWentOn(self) -> None:
        """It was left behind long ago; what grows now goes on growing."""
        maker = self.whole()
        maker.record(1000)
        fourth = maker.name(4)
        self.put(f"{fourth}.partial", maker.files()[fourth])
        self.successResultOf(self.relay.start())
        self.assertEqual([FIRST, SECOND, THIRD[:24], f"{fourth}.partial"], sorted(self.disk.names(WAL)))

    def test_nothingIsReplaced(self) -> None:
        """A segment that has a file with its final name keeps that."""
        self.whole()
        self.put(THIRD[:24], self.file(THIRD).visible())
        whole = self.file(THIRD[:24])
        self.successResultOf(self.relay.start())
        self.assertIs(whole, self.file(THIRD[:24]))
        self.assertIn(THIRD, self.disk.names(WAL))

    def test_aSegmentThatIsNotWholeKeepsItsName(self) -> None:
        """It has a hole, in the rest of a record with which it begins too, or its last record goes on."""
        maker = self.whole()
        images = [(3, bytearray(maker.image(3))) for _ in range(2)]
        for hole, (_, image) in zip((512, 300_000), images, strict=True):
            image[hole : hole + 512] = bytes(512)
        for number, image in [*images, (2, maker.image(2))]:
            for name in self.disk.names(WAL):
                self.disk.remove(f"{WAL}/{name}")
            self.put(FIRST, bytes(maker.image(1)))
            if number == 3:
                self.put(SECOND, bytes(maker.image(2)))
            growing = f"{maker.name(number)}.partial"
            self.put(growing, bytes(image))
            self.successResultOf(self.relay.start())
            self.assertIn(growing, self.disk.names(WAL))
            self.assertLess(self.relay.flush_position, (number + 1) * MIB)

    def test_whatOthersHaveWrittenIsSeenAtTheNextStart(self) -> None:
        """Between a stop and a start in one process nothing that was known counts."""
        self.successResultOf(self.relay.start())
        self.disk.remove(f"{WAL}/{THIRD}")
        self.successResultOf(self.relay.start())
        self.assertEqual(3 * MIB, self.relay.flush_position)
        self.disk.remove(f"{WAL}/{FIRST}")
        self.disk.remove(f"{WAL}/{SECOND}")
        self.successResultOf(self.relay.start())
        self.assertFalse(self.relay.ready)

    def test_aFileThatIsReplacedMeanwhileIsLookedAtAgain(self) -> None:
        """A directory is not taken for empty because somebody replaces a file of it in this moment."""
        put, third = self.put, self.third

        class Replacing(WalFiles):
            opened = 0
            replace_at = -1

            def open(self, path: str) -> int:
                """Replace the newest file before it is opened for the last time: to be synced."""
                if path.endswith(THIRD):
                    self.opened += 1
                    if self.opened == self.replace_at:
                        self.remove(path)
                        put(THIRD, third)
                return super().open(path)

        undisturbed = Replacing(self.disk)
        self.successResultOf(RelaySource(Threads(), Threads(), undisturbed, WAL).start())
        files = Replacing(self.disk)
        files.replace_at = undisturbed.opened
        relay = RelaySource(Threads(), Threads(), files, WAL)
        self.successResultOf(relay.start())
        self.assertGreater(files.opened, files.replace_at)
        self.assertEqual(relay.held_position, self.cluster.position)

    def test_whatIsDurableIsNotSyncedAgainForEachReader(self) -> None:
        """A disk that fails does not take from readers what it has had for long."""
        self.successResultOf(self.relay.start())
        partial = self.file(THIRD)
        self.disk.failing["sync"] = [errno.EIO]
        self.successResultOf(self.relay.open_segment(1, 3))
        self.assertIs(self.file(THIRD), partial)

    def switched(self, *, beyond: bytes = b"", switch: bool = True, distrusted: bool = False) -> bool:
        """
        Receive a segment up to its last record, a switch, and not what is unused behind it.

        :param beyond: is written behind it and not flushed.
        :returns: whether the segment is all here.
        """
        maker = WalMaker(system_identifier=self.cluster.system_identifier)
        for name in self.disk.names(WAL):
            self.disk.remove(f"{WAL}/{name}")
        self.successResultOf(self.relay.start())
        maker.fill_to(MIB + MIB // 2, 20_000)
        end = maker.switch().end if switch else maker.position
        commits = self.relay.keep_from(1, MIB, self.cluster.geometry, bool, bool)
        commits.append(bytes(maker.image(1)[: end - MIB]))
        commits.commit()
        self.assertEqual(end, self.relay.flush_position)
        self.successResultOf(commits.close())
        if beyond:
            descriptor = self.disk.open(f"{WAL}/{FIRST}.partial")
            self.disk.write(descriptor, beyond, end - MIB + 100)
            self.disk.close_descriptor(descriptor)
        if distrusted:
            self.relay._distrusted.add(WalFiles(self.disk).path_identity(f"{WAL}/{FIRST}.partial"))
        return bool(self.successResultOf(self.relay.fill(1, MIB, 3 * MIB)))

    def test_theUnusedRestNeedNotCome(self) -> None:
        """The upstream has removed a segment while it sent what is behind its switch record."""
        self.assertTrue(self.switched())
        self.assertEqual(2 * MIB, self.relay.flush_position)
        self.assertEqual(FIRST, self.opened(1, 1))
        self.disk.lose_power()
        self.assertIn(FIRST, self.disk.names(WAL))

    def test_whatIsMissingOtherwiseMustCome(self) -> None:
        """Zeros end no segment, nor do bytes that nobody has flushed."""
        self.assertFalse(self.switched(switch=False))
        self.assertFalse(self.switched(beyond=b"x"))
        self.assertIn(f"{FIRST}.partial", self.disk.names(WAL))

    def test_aSegmentThatIsNotTrustedIsNotCompleted(self) -> None:
        """Its sync has failed, so that what is in it may never get to the disk."""
        self.assertTrue(self.switched())
        self.assertFalse(self.switched(distrusted=True))
