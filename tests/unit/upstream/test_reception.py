"""What the upstream is told of a stream, and when."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import WalFileError
from walsender.lsn import Geometry
from walsender.upstream import Commit, GroupCommit, UpstreamError
from walsender.upstream.interfaces import Taken
from walsender.upstream.reception import MOST_WAITING, Reception

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 1 << 20


class Session:
    """A session that notes what is said, as (write, flush, reply requested), and whether it is paused."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, bool]] = []
        self.paused = False
        self.readable: int | None = None
        self.comes: list[bytes] = []
        self.description = ""

    def send(self, data: bytes) -> None:
        """See `IUpstreamSession`."""
        if data[:1] == b"r":
            write, flush, replay, _, reply = struct.unpack("!QQQqB", data[1:])
            assert replay == flush
            self.told.append((write, flush, bool(reply)))

    def attended(self, recall: Callable[[], None]) -> None:
        """See `IUpstreamSession`."""

    def take(self) -> Taken:
        """See `IUpstreamSession`."""
        taken, self.comes = Taken(self.comes), []
        return taken

    def confirm(self, data: bytes) -> bool:
        """See `IUpstreamSession`."""
        self.send(data)
        return True

    def pauseProducing(self) -> None:
        """See `IUpstreamSession`."""
        self.paused = True

    def resumeProducing(self) -> None:
        """See `IUpstreamSession`."""
        self.paused = False


class Writer:
    """A writer whose commits are what was written."""

    def __init__(self) -> None:
        self.position = MIB
        self.error: Exception | None = None
        self.sent = False

    def commit(self, pieces: Sequence[bytes | memoryview], behind: int = 0) -> Commit:
        """See `SegmentWriter`."""
        if self.error is not None:
            raise self.error
        self.position += sum(map(len, pieces))
        return Commit(self.position, sent=self.sent)

    def close(self) -> None:
        """See `SegmentWriter`."""


def new_reception(clock: Clock, session: Session) -> Reception:
    """Return a stream that has not begun, from the first segment on."""
    geometry = Geometry.contiguous(MIB)
    return Reception(clock, session, geometry, MIB, MIB, timeout=10, status_interval=1)  # type: ignore[arg-type]


class ReceptionTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin a stream at the first segment, over a disk that waits to be told."""
        self.clock = Clock()
        self.session = Session()
        self.writer = Writer()
        self.jobs: list[Callable[[], None]] = []
        self.reception = new_reception(self.clock, self.session)
        commits = GroupCommit(
            self.writer, self.run_in_thread, self.reception.committed, self.reception.commit_failed
        )
        self.reception.begin(commits)
        self.session.told.clear()
        self.addCleanup(self.reception.stop)

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Keep a job."""
        result: Deferred[Any] = Deferred()
        self.jobs.append(lambda: maybeDeferred(function, *arguments).chainDeferred(result))
        return result

    def wal(self, start: int, length: int) -> None:
        """Let WAL come, all that one read brings."""
        header = struct.pack("!cQQq", b"w", start, start + length, 0)
        self.reception.wal_message_received(header + bytes(length))
        self.reception.batch_received()

    def disk(self) -> None:
        """Let the disk do what waits."""
        while self.jobs:
            self.jobs.pop(0)()

    def test_whatHasComeIsNotFlushed(self) -> None:
        """Until the disk has it, the upstream does not hear of it, in no word."""
        self.wal(MIB, 100)
        self.clock.advance(1)
        self.assertEqual(self.session.told, [(MIB, MIB, False)])

    def test_aCommitIsToldAtOnce(self) -> None:
        """A primary may be waiting for it."""
        self.wal(MIB, 100)
        self.disk()
        self.assertEqual(self.session.told, [(MIB + 100, MIB + 100, False)])

    def test_aFailedCommitEndsTheStream(self) -> None:
        """What could not be kept is told to nobody."""
        self.writer.error = WalFileError("could not write")
        self.wal(MIB, 100)
        self.disk()
        self.failureResultOf(self.reception.ended, WalFileError)
        self.clock.advance(5)
        self.assertEqual(self.session.told, [])

    def test_whatComesAfterItWasGivenUpIsIgnored(self) -> None:
        """Who stops before the upstream has answered is sent WAL for as long as the last commit takes."""
        reception = new_reception(self.clock, self.session)
        reception.stop()
        self.reception = reception
        self.wal(MIB, 100)
        reception.session_lost(UpstreamError("gone"))
        self.assertEqual(self.session.told, [])
        self.assertNoResult(reception.ended)

    def test_flushedIsNeverAheadOfReceived(self) -> None:
        """What the directory has from before does not count until it has been compared."""
        reception = Reception(
            self.clock,
            self.session,  # type: ignore[arg-type]
            Geometry.contiguous(MIB),
            MIB,
            MIB + 500,
            timeout=10,
            status_interval=1,
        )
        reception.begin(GroupCommit(self.writer, self.run_in_thread, reception.committed, lambda _: None))
        self.addCleanup(reception.stop)
        self.assertEqual(self.session.told, [(MIB, MIB, True)])

    def test_aGapEndsTheStream(self) -> None:
        """WAL that does not follow on what came before is not kept."""
        self.wal(MIB + 8, 100)
        failure = self.failureResultOf(self.reception.ended, UpstreamError)
        self.assertIn("the upstream sent WAL at 0/100008, expected 0/100000", failure.getErrorMessage())
        self.assertEqual(self.jobs, [])

    def test_whatHadComeBeforeTheEndIsKept(self) -> None:
        """A lost connection ends the stream when the disk has all that came."""
        self.wal(MIB, 100)
        self.reception.session_lost(UpstreamError("gone"))
        self.assertNoResult(self.reception.ended)
        self.disk()
        self.failureResultOf(self.reception.ended, UpstreamError)
        self.assertEqual(self.writer.position, MIB + 100)

    def test_theEndOfATimelineIsHandedOn(self) -> None:
        """The rows that say which timeline follows are the result."""
        rows = [(b"2", b"0/100064")]
        self.reception.stream_ended(rows)
        self.assertEqual(self.successResultOf(self.reception.ended), rows)

    def test_aDiskThatIsBehindIsWaitedFor(self) -> None:
        """The upstream is read no further while too much waits, and again when half of it is done."""
        piece = 1 << 20
        position = MIB
        while not self.session.paused:
            self.wal(position, piece)
            position += piece
        self.assertGreater(position - MIB, MOST_WAITING)
        self.assertLessEqual(position - MIB, MOST_WAITING + piece)
        self.disk()
        self.assertFalse(self.session.paused)

    def test_aQuestionIsAnsweredAtOnce(self) -> None:
        """A keepalive that asks gets a status, one that does not gets none."""
        for asks in (0, 1):
            self.reception.wal_message_received(struct.pack("!cQqB", b"k", MIB, 0, asks))
            self.assertEqual(len(self.session.told), asks)

    def test_whatComesIsSeenWhileTheDiskIsSlow(self) -> None:
        """Once a second, whatever the settings: the thread that writes may be who should have read it."""
        looks: list[float] = []
        self.patch(GroupCommit, "look", lambda _: looks.append(self.clock.seconds()))
        self.clock.pump([0.5] * 6)
        self.assertEqual([1.0, 2.0, 3.0], looks)
        self.reception.stop()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_anUpstreamThatSpeaksIsNotLeft(self) -> None:
        """Whatever it says counts, and nobody has to ask it anything."""
        self.session.told.clear()
        for number in range(10):
            self.clock.advance(4.5)
            self.wal(MIB + 100 * number, 100)
            self.disk()
        self.assertNoResult(self.reception.ended)
        self.assertFalse(any(asked for _, _, asked in self.session.told))

    def test_aSilentUpstreamIsLeft(self) -> None:
        """It is asked at half of the timeout and left at the end of it."""
        self.clock.pump([0.5] * 20)
        self.assertIn((MIB, MIB, True), self.session.told)
        self.failureResultOf(self.reception.ended, UpstreamError)


class SettledTests(SynchronousTestCase):
    """What the thread of the commits does by itself, before it is heard of here."""

    def setUp(self) -> None:
        """Begin a stream that the thread attends to."""
        self.clock = Clock()
        self.session = Session()
        self.session.readable = 7
        self.writer = Writer()
        self.writer.sent = True
        self.reception = new_reception(self.clock, self.session)
        self.later: Callable[[], object] = bool
        commits = GroupCommit(
            self.writer,
            maybeDeferred,
            self.reception.committed,
            self.reception.commit_failed,
            attendant=self,
        )
        self.reception.begin(commits)
        self.session.told.clear()
        self.addCleanup(self.reception.stop)

    def attend(self, readable: object, function: Callable[..., object], *args: object) -> Deferred[Any]:
        """See `IAttendant`."""
        self.thread = lambda: function(*args)
        return Deferred()

    def tell(self, function: Callable[[], object]) -> None:
        """See `IAttendant`."""
        raise AssertionError("nobody waits for it")

    def tell_later(self, function: Callable[[], object]) -> None:
        """See `IAttendant`."""
        self.later = function

    def recall(self) -> None:
        """See `IAttendant`."""

    def wal(self, start: int, length: int) -> None:
        """Let WAL come, of which the upstream has 1000 bytes more, and the thread do its work."""
        header = struct.pack("!cQQq", b"w", start, start + length + 1000, 5_000_000)
        self.session.comes.append(header + bytes(length))
        self.assertIsNone(self.thread())

    def test_confirmedAtOnceAndOnce(self) -> None:
        """The upstream hears of it from the thread, and not a second time."""
        self.wal(MIB, 100)
        self.assertEqual([(MIB + 100, MIB + 100, False)], self.session.told)
        self.later()
        self.assertEqual(1, len(self.session.told))

    def test_neverLessThanBefore(self) -> None:
        """What is said in the meantime is not behind what the thread has said."""
        self.wal(MIB, 100)
        self.clock.advance(1)
        self.assertEqual([(MIB + 100, MIB + 100, False)] * 2, self.session.told)

    def test_shown(self) -> None:
        """Where the stream is, is known when it has been heard of, with what the upstream has said last."""
        self.wal(MIB, 100)
        self.wal(MIB + 100, 50)
        self.clock.advance(3)
        self.later()
        status = self.reception.status(1, "")
        self.assertEqual((MIB + 150, MIB + 150), (status.written_lsn, status.flushed_lsn))
        self.assertEqual(MIB + 1150, status.upstream_end)
        self.assertEqual((946_684_805.0, 3.0), (status.sent_at, status.received_at))

    def test_aSignOfLife(self) -> None:
        """An upstream that sends all the time is not asked whether it lives."""
        self.session.told.clear()
        for second in range(20):
            self.wal(MIB + 100 * second, 100)
            self.clock.advance(1)
            self.later()
        self.assertNotIn(True, [reply for *_, reply in self.session.told])

    def test_heardOfJustInTime(self) -> None:
        """What has come and is not heard of yet is a sign of life as well."""
        self.clock.advance(5)
        self.assertIn(True, [reply for *_, reply in self.session.told])
        self.clock.advance(4.9)
        self.wal(MIB, 100)
        self.clock.advance(0.2)
        self.assertNoResult(self.reception.ended)
        self.assertEqual(MIB + 100, self.reception.status(1, "").flushed_lsn)
