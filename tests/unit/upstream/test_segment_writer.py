"""What a segment writer leaves on disk, and when it says so."""

from __future__ import annotations

import contextlib
import errno

from hypothesis import example, given, settings
from hypothesis import strategies as st
from upstream_helpers import FIRST, KIB, SECOND, Relay, RelayTestCase, identity_of

from walsender.errors import DataCorrupted, DiskFull, WalFileError, WalsenderError
from walsender.simulate.cluster import SEGMENT_SIZE, Cluster
from walsender.simulate.disk import PowerLost
from walsender.testing.wal_maker import WalMaker
from walsender.wal import SyncFailed

MIB = SEGMENT_SIZE


def lengths_written(relay: Relay) -> list[int]:
    """Return a list of how much is written at a time from now on."""
    lengths: list[int] = []
    write = relay.files.write
    relay.files.write = lambda descriptor, pieces, offset: (  # type: ignore[method-assign]
        lengths.append(sum(map(len, pieces))) or write(descriptor, pieces, offset)
    )
    return lengths


class SegmentWriterTests(RelayTestCase):
    def test_aGrowingSegmentIsPartialAndHasItsFullSize(self) -> None:
        """What has come stands in NAME.partial, zeros up to the segment's size behind it."""
        relay = self.relay()
        commit = relay.commit(MIB + 20 * KIB, MIB + 50 * KIB)
        self.assertEqual(commit.position, MIB + 50 * KIB)
        self.assertEqual(relay.names(), [FIRST + ".partial"])
        wal = relay.cluster.wal(1, MIB, MIB + 50 * KIB)
        self.assertEqual(relay.content(FIRST + ".partial"), wal.ljust(MIB, b"\0"))

    def test_aSegmentThatIsToFollowIsReservedOnly(self) -> None:
        """For the rest of a segment that is known to come nothing is written; the file has its full size."""
        relay = self.relay()
        written = lengths_written(relay)
        relay.writer.commit([relay.wal(SEGMENT_SIZE + 8 * KIB)], SEGMENT_SIZE - 8 * KIB)
        self.assertEqual(written, [8 * KIB])
        self.assertEqual(len(relay.content(FIRST + ".partial")), SEGMENT_SIZE)
        self.assertEqual(relay.content(FIRST + ".partial")[8 * KIB :].strip(b"\0"), b"")

    def test_muchIsWrittenAShareAtATime(self) -> None:
        """However large a commit and its pieces are, the kernel gets little at once."""
        relay = self.relay()
        written = lengths_written(relay)
        pieces = [relay.wal(end) for end in (MIB + 200 * KIB, MIB + 250 * KIB, 2 * MIB - 8 * KIB)]
        relay.writer.commit(pieces, 8 * KIB)
        self.assertEqual(written, [256 * KIB, 256 * KIB, 256 * KIB, 248 * KIB])
        self.assertEqual(relay.content(FIRST + ".partial")[: -8 * KIB], b"".join(pieces))

    def test_aWholeSegmentGetsItsFinalName(self) -> None:
        """The segment's last byte renames it, and both names are told."""
        relay = self.relay()
        commit = relay.commit(2 * MIB)
        self.assertEqual([FIRST + ".partial", FIRST], [file.name for file in commit.files])
        self.assertEqual(relay.names(), [FIRST])
        self.assertEqual(relay.content(FIRST), relay.cluster.wal(1, MIB, 2 * MIB))

    def test_oneCommitMayFillSeveralSegments(self) -> None:
        """A commit that crosses segments names all files, each under its names in order."""
        relay = self.relay()
        commit = relay.commit(3 * MIB + 8 * KIB)
        third = "000000010000000000000003.partial"
        self.assertEqual(
            [file.name for file in commit.files],
            [FIRST + ".partial", FIRST, SECOND + ".partial", SECOND, third],
        )
        self.assertEqual(relay.names(), [FIRST, SECOND, third])

    def test_aSmallCommitKeepsItsWalAtHand(self) -> None:
        """What has come with a commit is told, if it is little and nothing else became durable with it."""
        relay = self.relay()
        commit = relay.commit(MIB + 20 * KIB, MIB + 50 * KIB)
        self.assertEqual(commit.newest, relay.cluster.wal(1, MIB, MIB + 50 * KIB))
        self.assertEqual(relay.commit(MIB + 150 * KIB).newest, b"")
        relay.writer.close()
        relay.new_writer()
        self.assertEqual(relay.commit(MIB + 100).newest, b"")

    def test_theIdentityIsTakenFromWhatComesFirst(self) -> None:
        """An empty directory becomes that of the cluster whose WAL comes."""
        relay = self.relay()
        commit = relay.commit(MIB + 100)
        self.assertEqual(commit.identity, identity_of(relay.cluster))

    def test_theFirstPieceMayBeShorterThanAHeader(self) -> None:
        """A long header that comes in many small pieces is read all the same."""
        relay = self.relay()
        commit = relay.commit(MIB + 1, MIB + 2, MIB + 30, MIB + 200)
        self.assertEqual(commit.identity, identity_of(relay.cluster))

    def test_anotherClustersWalIsRefused(self) -> None:
        """WAL of another system identifier does not reach a file."""
        relay = self.relay()
        other = WalMaker(segment_size=MIB, system_identifier=4711)
        other.record(30_000)
        relay.commit(2 * MIB)
        relay.new_writer()
        wal = bytes(other.image(1))
        error = self.assertRaises(DataCorrupted, relay.writer.commit, [wal])
        self.assertIn("different database system", error.message)
        self.assertEqual(relay.names(), [FIRST])

    def test_segmentsOfAnotherSizeAreRefused(self) -> None:
        """An old server does not say how large its segments are; what is cut otherwise is not written."""
        relay = self.relay()
        other = WalMaker(segment_size=4 * MIB)
        other.record(30_000)
        error = self.assertRaises(DataCorrupted, relay.writer.commit, [bytes(other.image(1))])
        self.assertIn("of another size", error.message)
        self.assertEqual(relay.names(), [])

    def test_whatIsHeldIsComparedAndNotWrittenAgain(self) -> None:
        """Receiving a segment again from its start writes nothing below what is held."""
        relay = self.relay()
        relay.commit(MIB + 300 * KIB)
        relay.writer.close()
        relay.new_writer()
        writes = relay.disk.counts["write"]
        commit = relay.commit(MIB + 100 * KIB)
        self.assertEqual(commit.position, MIB + 300 * KIB)
        self.assertEqual(relay.disk.counts["write"], writes)

    def test_whatIsHeldAndDiffersStopsReceiving(self) -> None:
        """WAL that is not what the directory has is an error, and the directory stays as it is."""
        relay = self.relay()
        relay.commit(MIB + 300 * KIB)
        relay.writer.close()
        before = relay.content(FIRST + ".partial")
        wal = bytearray(relay.cluster.wal(1, MIB, MIB + 400 * KIB))
        wal[200 * KIB] ^= 1
        relay.new_writer()
        error = self.assertRaises(DataCorrupted, relay.writer.commit, [bytes(wal)])
        self.assertIn(f'differs from file "pg_wal/{FIRST}.partial"', error.message)
        self.assertEqual(relay.content(FIRST + ".partial"), before)

    def test_aWholeSegmentIsComparedToItsEnd(self) -> None:
        """A file with a final name is never written to, even where nobody has validated it."""
        relay = self.relay()
        relay.commit(2 * MIB)
        relay.writer.close()
        wal = bytearray(relay.cluster.wal(1, MIB, 2 * MIB))
        wal[-1] ^= 1
        relay.new_writer(MIB, valid=MIB)
        self.assertRaises(DataCorrupted, relay.writer.commit, [bytes(wal)])

    def altered(self, relay: Relay, end: int) -> list[bytes]:
        """Return what comes next up to *end*, and is not what it ought to be."""
        wal = bytearray(relay.wal(end))
        wal[-1] ^= 1
        return [bytes(wal)]

    def test_aLittleIsComparedToo(self) -> None:
        """However little comes into the open file, below what is held it is compared."""
        relay = self.relay()
        relay.commit(MIB + 300 * KIB)
        relay.writer.close()
        relay.new_writer()
        relay.commit(MIB + 100 * KIB)
        self.assertRaises(DataCorrupted, relay.writer.commit, self.altered(relay, MIB + 108 * KIB))

    def test_aLittleOfAWholeSegmentIsComparedToo(self) -> None:
        """Likewise in a file with a final name, where nobody has validated it."""
        relay = self.relay()
        relay.commit(2 * MIB)
        relay.writer.close()
        relay.new_writer(MIB, valid=MIB)
        relay.commit(MIB + 100 * KIB)
        self.assertRaises(DataCorrupted, relay.writer.commit, self.altered(relay, MIB + 108 * KIB))

    def test_aLittleCompletesASegment(self) -> None:
        """The last few bytes of a segment give it its final name, as many do."""
        relay = self.relay()
        relay.commit(2 * MIB - 8 * KIB)
        self.assertEqual([FIRST + ".partial"], relay.names())
        relay.commit(2 * MIB)
        self.assertEqual([FIRST], relay.names())

    def test_whatStandsBehindTheValidWalIsKeptUntilItComesAgain(self) -> None:
        """The beginning of a record cannot be told from garbage, but somebody may have been promised it."""
        relay = self.relay()
        relay.commit(MIB + 64 * KIB)
        relay.writer.close()
        relay.position = MIB + 40 * KIB  # where the last whole record ends
        relay.new_writer()
        relay.commit(MIB + 41 * KIB)
        wal = relay.cluster.wal(1, MIB, MIB + 64 * KIB)
        self.assertEqual(relay.content(FIRST + ".partial"), wal.ljust(MIB, b"\0"))

    def test_garbageGivesWayToWhatComes(self) -> None:
        """Where valid WAL ended, what comes is written over whatever is there."""
        relay = self.relay()
        wal = relay.cluster.wal(1, MIB, MIB + 64 * KIB)
        relay.put(FIRST + ".partial", (wal + b"torn" * 4000).ljust(MIB, b"\0"))
        relay.position = MIB + 64 * KIB
        relay.new_writer()
        relay.commit(MIB + 80 * KIB)
        wal = relay.cluster.wal(1, MIB, MIB + 80 * KIB)
        self.assertEqual(relay.content(FIRST + ".partial"), wal.ljust(MIB, b"\0"))

    def test_aShortFileIsMadeWhole(self) -> None:
        """A file that a crash or another program has left too short gets its full size."""
        relay = self.relay()
        relay.put(FIRST + ".partial", b"")
        relay.commit(MIB + 8 * KIB)
        self.assertEqual(len(relay.content(FIRST + ".partial")), MIB)

    def test_aSegmentThatIsHeldInAnotherFormIsReceivedBesideIt(self) -> None:
        """What is held, but in no file of ours, has its name only when that holds as much again."""
        relay = self.relay()
        relay.put(FIRST + ".gz.partial", b"compressed")
        relay.new_writer(MIB, valid=MIB + 64 * KIB)
        relay.writer.commit([relay.wal(MIB + 32 * KIB)])
        self.assertNotIn(FIRST + ".partial", relay.names())
        relay.commit(MIB + 80 * KIB)
        wal = relay.cluster.wal(1, MIB, MIB + 80 * KIB)
        self.assertEqual(relay.content(FIRST + ".partial"), wal.ljust(MIB, b"\0"))


class FailingDiskTests(RelayTestCase):
    def test_aFullDiskIsNamed(self) -> None:
        """No room for a segment is a `DiskFull`, and nothing is promised."""
        relay = self.relay()
        relay.disk.room = MIB // 2
        self.assertRaises(DiskFull, relay.commit, MIB + 8 * KIB)
        self.assertEqual(relay.position, MIB)

    def test_aFullDiskIsGoneOnWithWhenThereIsRoom(self) -> None:
        """What a full disk has left is made whole by the next writer."""
        relay = self.relay()
        relay.disk.room = MIB // 2
        with contextlib.suppress(DiskFull):
            relay.commit(MIB + 8 * KIB)
        relay.writer.close()
        relay.disk.room = None
        relay.new_writer()
        relay.commit(MIB + 8 * KIB)
        self.assertEqual(len(relay.content(FIRST + ".partial")), MIB)

    def test_aFileWhoseSyncHasFailedIsReplaced(self) -> None:
        """After a failed fsync the segment goes into a new file, which holds it all."""
        relay = self.relay()
        relay.commit(MIB + 100 * KIB)
        spoilt = relay.disk.file(f"/wal/{FIRST}.partial")
        relay.disk.failing["sync"] = [errno.EIO]
        self.assertRaises(SyncFailed, relay.commit, MIB + 200 * KIB)
        relay.writer.close()
        self.assertEqual(relay.position, MIB + 100 * KIB)
        relay.new_writer()
        relay.commit(MIB + 300 * KIB)
        self.assertIsNot(relay.disk.file(f"/wal/{FIRST}.partial"), spoilt)
        self.assertEqual(relay.names(), [FIRST + ".partial"])

    def test_aReplacementTakesThePlaceWhenItHoldsAsMuch(self) -> None:
        """As long as the new file holds less on disk than the old one, the old one keeps its name."""
        relay = self.relay()
        relay.commit(MIB + 100 * KIB)
        relay.disk.failing["sync"] = [errno.EIO]
        self.assertRaises(SyncFailed, relay.commit, MIB + 200 * KIB)
        relay.writer.close()
        spoilt = relay.disk.file(f"/wal/{FIRST}.partial")
        relay.new_writer()
        commit = relay.commit(MIB + 50 * KIB)
        self.assertEqual(commit.position, MIB + 100 * KIB)
        self.assertIs(relay.disk.file(f"/wal/{FIRST}.partial"), spoilt)
        relay.commit(MIB + 100 * KIB)
        self.assertIsNot(relay.disk.file(f"/wal/{FIRST}.partial"), spoilt)

    def test_aRenameThatFailsIsTriedAgainByTheNextWriter(self) -> None:
        """A segment that could not get its final name gets it when it is received again."""
        relay = self.relay()
        relay.disk.failing["rename"] = [errno.EIO]
        self.assertRaises(WalFileError, relay.commit, 2 * MIB)
        relay.writer.close()
        relay.new_writer()
        relay.commit(2 * MIB)
        self.assertEqual(relay.names(), [FIRST])

    def test_aDirectoryThatCannotBeSyncedPromisesNothing(self) -> None:
        """A failed sync of the directory fails the commit."""
        relay = self.relay()
        relay.disk.failing["sync_directory"] = [errno.EIO]
        error = self.assertRaises(WalFileError, relay.commit, MIB + KIB)
        self.assertIn('could not fsync file "pg_wal"', error.message)

    def test_aFileThatCannotBeMadeDurableLeavesNothing(self) -> None:
        """Receiving may begin elsewhere at the next try, and what is empty would stand for a segment."""
        relay = self.relay()
        relay.disk.failing["sync"] = [errno.EIO]
        with self.assertRaises(SyncFailed):
            relay.commit(MIB + 8 * KIB)
        self.assertEqual([], relay.names())

    def test_shortWritesAreGoneOnWith(self) -> None:
        """A disk that takes a part of each write gets the rest too."""
        relay = self.relay()
        relay.disk.short_writes = 0.9
        relay.commit(MIB + 100 * KIB, MIB + 101 * KIB, 2 * MIB + 30 * KIB)
        self.assertEqual(relay.content(FIRST), relay.cluster.wal(1, MIB, 2 * MIB))


# A server has at least a header behind the start of a segment, and what is left of a record.
CLUSTER_PIECES = st.lists(st.integers(48, 300 * KIB), min_size=1, max_size=12)
FAILURES = st.lists(
    st.tuples(
        st.sampled_from(["write", "sync", "rename", "sync_directory", "create", "remove", "none"]),
        st.sampled_from([errno.EIO, errno.ENOSPC]),
    ),
    max_size=10,
)


class DistrustTests(RelayTestCase):
    def test_aNewFileWithTheNumberOfAnOldOneIsTrusted(self) -> None:
        """What is remembered of a file that is gone does not hold for one that has got its inode."""
        relay = self.relay()
        relay.commit(MIB + 8 * KIB)
        number = relay.files.path_identity(f"/wal/{FIRST}.partial")
        relay.writer.close()
        relay.ledger.promised.clear()
        relay.disk.remove(f"/wal/{FIRST}.partial")
        relay.disk.sync_directory("/wal")
        relay.distrusted.add(number)
        relay.position = MIB
        relay.new_writer()
        relay.commit(MIB + 8 * KIB)
        self.assertEqual(relay.files.path_identity(f"/wal/{FIRST}.partial"), number)
        self.assertEqual(relay.distrusted, set())

    def test_aNewFileKeepsThePromisedBeginningOfARecord(self) -> None:
        """Behind the last whole record, where WAL ends after a crash, more has been promised."""
        relay = self.relay()
        relay.commit(MIB + 300 * KIB)
        relay.writer.close()
        relay.distrusted.add(relay.files.path_identity(f"/wal/{FIRST}.partial"))
        relay.new_writer(valid=MIB + 290 * KIB)
        commit = relay.writer.commit([relay.wal(MIB + 295 * KIB)])
        self.assertEqual(commit.position, MIB + 295 * KIB)
        self.assertEqual(
            relay.content(f"{FIRST}.partial")[: 300 * KIB], relay.cluster.wal(1, MIB, MIB + 300 * KIB)
        )


class PromiseTests(RelayTestCase):
    """What is told as durable is durable: the ledger looks at the platter after each operation."""

    @given(
        pieces=CLUSTER_PIECES,
        failures=FAILURES,
        short_writes=st.sampled_from([0.0, 0.3]),
        seed=st.integers(0, 1 << 32),
    )
    @example(
        pieces=[48, 48, 48, 48, 216916, 307200],
        failures=[("create", errno.ENOSPC), ("rename", errno.EIO)],
        short_writes=0.0,
        seed=0,
    )
    @settings(max_examples=60, deadline=None)
    def test_errorsOfTheDiskNeverLeaveAPromiseBroken(
        self, pieces: list[int], failures: list[tuple[str, int]], short_writes: float, seed: int
    ) -> None:
        """Whatever fails, the position told is on disk; and when nothing fails any more, all is."""
        relay = Relay(seed=seed)
        relay.disk.short_writes = short_writes
        waiting = list(failures)
        for length in pieces * 2:
            if waiting:
                operation, number = waiting.pop()
                relay.disk.failing = {operation: [number]}
            try:
                commit = relay.commit(min(relay.cluster.position, relay.sent + length))
                if commit.failure is not None:  # of what came behind it
                    raise commit.failure
            except WalsenderError:
                relay.writer.close()
                relay.new_writer()
            if relay.sent == relay.cluster.position:
                break
        relay.disk.failing = {}
        if relay.sent < relay.cluster.position:
            relay.commit(relay.cluster.position)
        self.assertEqual(relay.position, relay.cluster.position)
        self.assertEqual(relay.content(FIRST), relay.cluster.wal(1, MIB, 2 * MIB))
        relay.writer.close()
        relay.disk.close()

    @given(operations=st.integers(0, 30), pieces=CLUSTER_PIECES, seed=st.integers(0, 1 << 32))
    @settings(max_examples=60, deadline=None)
    def test_aPowerFailureInsideACommitKeepsWhatWasPromised(
        self, operations: int, pieces: list[int], seed: int
    ) -> None:
        """After a power failure at any operation the platter has all that was promised before."""
        relay = Relay(seed=seed)
        relay.disk.power = operations
        try:
            for length in pieces:
                relay.commit(min(relay.cluster.position, relay.sent + length))
                if relay.sent == relay.cluster.position:
                    break
        except PowerLost:
            pass
        relay.disk.lose_power()
        relay.ledger.changed("")
        relay.writer.close()
        relay.disk.close()


class ClusterTests(RelayTestCase):
    def test_theLedgerSeesWhatIsNotSynced(self) -> None:
        """A promise about what was only written is a broken one."""
        relay = self.relay()
        relay.commit(MIB + 8 * KIB)
        relay.files.write(relay.writer._descriptor, [relay.wal(MIB + 9 * KIB)], 8 * KIB)
        error = self.assertRaises(AssertionError, relay.ledger.promise, 1, MIB, MIB + 9 * KIB, "somebody")
        self.assertIn("a power failure could take that away", str(error))

    def test_theLedgerSeesAFinalNameThatComesTooEarly(self) -> None:
        """A rename before the sync is noticed at the rename."""
        relay = self.relay()
        relay.commit(MIB + 8 * KIB)
        old, new = f"/wal/{FIRST}.partial", f"/wal/{FIRST}"
        error = self.assertRaises(AssertionError, relay.disk.rename, old, new)
        self.assertIn("without being whole and right", str(error))

    def test_aPromotionCutsTheOldTimeline(self) -> None:
        """The WAL that leads to a new timeline is the old one's up to where it was left."""
        cluster = Cluster()
        for _ in range(50):
            cluster.write(30_000)
        end = cluster.position
        cluster.promote(3)
        begin = cluster.begin(2)
        self.assertLess(begin, end)
        cluster.write(100)
        self.assertEqual(cluster.wal(2, MIB, begin), cluster.wal(1, MIB, begin))
        self.assertNotEqual(cluster.wal(2, begin, begin + 100), cluster.wal(1, begin, begin + 100))
