"""One commit at a time, each of all that has come since the last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import WalFileError
from walsender.upstream import Commit, GroupCommit
from walsender.upstream.group_commit import LARGE
from walsender.upstream.interfaces import Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure


class Writer:
    """
    A writer that notes what it gets.

    :ivar error: what a commit ends with.
    """

    def __init__(self) -> None:
        self.commits: list[bytes] = []
        self.error: Exception | None = None
        self.closed = 0

    def commit(self, pieces: Sequence[bytes | memoryview], behind: int = 0) -> Commit:
        """See `SegmentWriter`."""
        if self.error is not None:
            raise self.error
        self.commits.append(b"".join(pieces))
        return Commit(sum(map(len, self.commits)))

    def close(self) -> None:
        """See `SegmentWriter`."""
        self.closed += 1


class GroupCommitTestCase(SynchronousTestCase):
    """Has a commit, over threads that do nothing until told."""

    def setUp(self) -> None:
        """Make one, over threads that do nothing until told."""
        self.writer = Writer()
        self.jobs: list[Callable[[], None]] = []
        self.positions: list[int] = []
        self.failures: list[Failure] = []
        self.commits = GroupCommit(self.writer, self.run_in_thread, self.committed, self.failures.append)

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Keep a job."""
        result: Deferred[Any] = Deferred()
        self.jobs.append(lambda: maybeDeferred(function, *arguments).chainDeferred(result))
        return result

    def committed(self, commit: Commit) -> None:
        """Note what is durable."""
        self.positions.append(commit.position)

    def run_one(self) -> None:
        """Let the thread do its next job."""
        self.jobs.pop(0)()


class GroupCommitTests(GroupCommitTestCase):
    """One after another."""

    def test_whatComesDuringACommitIsTheNextOne(self) -> None:
        """Pieces are gathered while the disk works, and written together."""
        for piece in (b"a", b"bc", b"d"):
            self.commits.append(piece)
            self.commits.commit()
        self.assertEqual(len(self.jobs), 1)
        self.run_one()
        self.run_one()
        self.assertEqual(self.writer.commits, [b"a", b"bcd"])
        self.assertEqual(self.positions, [1, 4])
        self.assertEqual(self.jobs, [])

    def test_farBehindLittleWaits(self) -> None:
        """While much is on its way, a commit waits until much has come, or no more is to be expected."""
        self.commits.append(b"abc")
        self.commits.commit(behind=LARGE)
        self.assertEqual(self.jobs, [])
        self.commits.append(bytes(LARGE))
        self.commits.commit(behind=LARGE)
        self.commits.append(b"de")
        self.run_one()
        self.assertEqual((self.positions, self.jobs), ([LARGE + 3], []))
        self.commits.commit(behind=LARGE - 1)
        self.run_one()
        self.assertEqual(self.positions, [LARGE + 3, LARGE + 5])

    def test_withoutPiecesThereIsNoCommit(self) -> None:
        """Nothing to write costs no sync."""
        self.commits.commit()
        self.assertEqual(self.jobs, [])

    def test_whatWaitsIsCounted(self) -> None:
        """Bytes count from their arrival until they are durable."""
        self.commits.append(b"abc")
        self.commits.commit()
        self.commits.append(b"de")
        self.assertEqual(self.commits.waiting, 5)
        self.run_one()
        self.assertEqual(self.commits.waiting, 2)

    def test_afterAFailureNothingMoreIsWritten(self) -> None:
        """A commit that fails is told, and is the last."""
        self.writer.error = WalFileError("could not write")
        self.commits.append(b"abc")
        self.commits.commit()
        self.commits.append(b"de")
        self.commits.commit()
        self.run_one()
        self.commits.commit()
        self.assertEqual([failure.type for failure in self.failures], [WalFileError])
        self.assertEqual(self.jobs, [])
        self.assertEqual(self.positions, [])

    def test_closingWaitsForTheCommitUnderWay(self) -> None:
        """The file is closed behind the last commit, in the same thread, and what waits is dropped."""
        self.commits.append(b"abc")
        self.commits.commit()
        self.commits.append(b"de")
        closed = self.commits.close()
        self.assertNoResult(closed)
        self.run_one()
        self.assertEqual(self.writer.closed, 0)
        self.run_one()
        self.successResultOf(closed)
        self.assertEqual((self.writer.commits, self.writer.closed), ([b"abc"], 1))

    def test_closingAfterAFailureClosesTheFile(self) -> None:
        """A writer that failed is closed too."""
        self.writer.error = WalFileError("could not write")
        self.commits.append(b"abc")
        self.commits.commit()
        self.run_one()
        closed = self.commits.close()
        self.run_one()
        self.successResultOf(closed)
        self.assertEqual(self.writer.closed, 1)


class Session:
    """A session from which another thread reads."""

    def __init__(self, commits: GroupCommit) -> None:
        self.commits = commits
        self.readable: int | None = 7
        self.comes: list[bytes] = []
        self.delivered: list[bytes] = []
        self.reads_here = True

    def attended(self, recall: Callable[[], None]) -> None:
        """See `IUpstreamSession`."""
        self.reads_here = False

    def take(self) -> Taken:
        """See `IUpstreamSession`."""
        taken, self.comes = Taken(self.comes), []
        return taken

    def deliver(self, taken: Taken) -> None:
        """See `IUpstreamSession`."""
        for message in taken.messages:
            self.delivered.append(message)
            self.commits.append(message)

    def released(self) -> None:
        """See `IUpstreamSession`."""
        self.reads_here = True


class AttendingTests(GroupCommitTestCase):
    """The thread waits for the upstream by itself."""

    def setUp(self) -> None:
        """Have the thread wait."""
        super().setUp()
        self.waiting: list[tuple[Deferred[Any], Callable[[], object]]] = []
        self.recalled = 0
        self.commits = GroupCommit(
            self.writer, self.run_in_thread, self.committed, self.failures.append, attendant=self
        )
        self.session = Session(self.commits)
        self.await_()

    def await_(self) -> None:
        """Let the thread wait, if it may."""
        self.commits.attend(self.session, list)  # type: ignore[arg-type]

    def attend(self, readable: object, function: Callable[..., object], *args: object) -> Deferred[Any]:
        """See `IAttendant`."""
        assert readable == self.session.readable
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, lambda: function(*args)))
        return done

    def recall(self) -> None:
        """See `IAttendant`."""
        self.recalled += 1

    def comes(self, *messages: bytes) -> Deferred[Any]:
        """Let something come, and the thread do its work; return what will tell the reactor."""
        self.session.comes += messages
        done, work = self.waiting.pop()
        result = work()
        told: Deferred[Any] = Deferred()
        told.addCallback(lambda _: result).chainDeferred(done)
        return told

    def test_durableBeforeTheReactorHears(self) -> None:
        """The thread reads and commits; what it has read is delivered, and written once."""
        self.assertFalse(self.session.reads_here)
        told = self.comes(b"abc", b"de")
        self.assertEqual(([b"abcde"], [], []), (self.writer.commits, self.session.delivered, self.positions))
        told.callback(None)
        self.assertEqual(([b"abc", b"de"], [5]), (self.session.delivered, self.positions))
        self.assertEqual((0, [], [b"abcde"]), (self.commits.waiting, self.jobs, self.writer.commits))
        self.assertTrue(self.session.reads_here)

    def test_onAndOn(self) -> None:
        """Whoever hears of a commit may have the thread wait again; nobody else reads meanwhile."""
        self.commits._committed = lambda commit: (self.committed(commit), self.await_())[0]
        for number in range(3):
            self.comes(b"abc").callback(None)
            self.assertEqual((number + 1, False), (len(self.positions), self.session.reads_here))

    def test_aSlowDisk(self) -> None:
        """While the thread writes, what it has read is known, and more is read here: the next commit."""
        told = self.comes(b"abc")
        self.assertTrue(self.commits.look())
        self.assertEqual(
            ([b"abc"], 3, True), (self.session.delivered, self.commits.waiting, self.session.reads_here)
        )
        self.commits.append(b"de")
        self.commits.commit()
        self.assertFalse(self.commits.look())
        self.assertEqual([], self.jobs)
        told.callback(None)
        self.assertEqual(([3], 2), (self.positions, self.commits.waiting))
        self.run_one()
        self.assertEqual(([b"abc", b"de"], [3, 5]), (self.writer.commits, self.positions))

    def test_nothingToLookAt(self) -> None:
        """A thread that waits has read nothing."""
        self.assertFalse(self.commits.look())
        self.assertFalse(self.session.reads_here)

    def test_whatIsToBeLookedAtFirst(self) -> None:
        """What the thread must not commit comes here, and is committed by the usual way."""
        self.commits.close()
        self.commits = GroupCommit(
            self.writer, self.run_in_thread, self.committed, self.failures.append, attendant=self
        )
        self.session = Session(self.commits)
        self.commits.attend(self.session, lambda _: [])  # type: ignore[arg-type]
        told = self.comes(b"abc")
        self.assertEqual([], self.writer.commits)
        told.callback(None)
        self.assertEqual(([b"abc"], True), (self.session.delivered, self.session.reads_here))
        self.run_one()
        self.assertEqual(([b"abc"], [3]), (self.writer.commits, self.positions))

    def test_recalled(self) -> None:
        """The thread has something else to do: reading goes on here."""
        done, _ = self.waiting.pop()
        done.callback(None)
        self.assertTrue(self.session.reads_here)
        self.assertEqual(([], []), (self.positions, self.failures))

    def test_aCommitThatFails(self) -> None:
        """It is told as any other, behind what has come."""
        self.writer.error = WalFileError("could not write")
        self.comes(b"abc").callback(None)
        self.assertEqual(([b"abc"], 1, []), (self.session.delivered, len(self.failures), self.positions))
        self.await_()
        self.assertEqual([], self.waiting)

    def test_closeMeanwhile(self) -> None:
        """Closing recalls the thread, and waits for it; what it has committed is told."""
        told = self.comes(b"abc")
        closed = self.commits.close()
        self.assertEqual((1, []), (self.recalled, self.jobs))
        told.callback(None)
        self.assertEqual([3], self.positions)
        self.run_one()
        self.successResultOf(closed)
        self.assertEqual(1, self.writer.closed)

    def test_notWhileThereIsSomethingToDo(self) -> None:
        """It does not wait while a commit runs, something waits for one, or the session says no."""
        done, _ = self.waiting.pop()
        done.callback(None)
        self.session.readable = None
        self.await_()
        self.session.readable = 7
        self.commits.append(b"abc")
        self.await_()
        self.commits.commit()
        self.await_()
        self.assertEqual([], self.waiting)
        self.run_one()
        self.await_()
        self.assertEqual(1, len(self.waiting))
