"""One commit at a time, each of all that has come since the last."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import WalFileError
from walsender.timings import Stopwatch
from walsender.upstream import Commit, GroupCommit, UpstreamError
from walsender.upstream.group_commit import LARGE
from walsender.upstream.interfaces import Taken
from walsender.wal import CoveredFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure


class Writer:
    """
    A writer that notes what it gets.

    :ivar error: what a commit ends with.
    :ivar files: with which the next commits begin.
    :ivar sent: whether all who follow get them at once.
    :ivar meanwhile: called in the middle of each.
    """

    def __init__(self) -> None:
        self.commits: list[bytes] = []
        self.error: Exception | None = None
        self.files: list[CoveredFile] = []
        self.sent = False
        self.meanwhile: Callable[[], object] = bool
        self.closed = 0

    def commit(self, pieces: Sequence[bytes | memoryview], behind: int = 0) -> Commit:
        """See `SegmentWriter`."""
        self.meanwhile()
        if self.error is not None:
            raise self.error
        self.commits.append(b"".join(pieces))
        return Commit(sum(map(len, self.commits)), files=self.files, sent=self.sent)

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


class AttendingTestCase(GroupCommitTestCase):
    """
    Has a thread that waits for the upstream by itself.

    :ivar writes: whether it may write what comes.
    :ivar confirms: whether the upstream takes what it is told.
    """

    def setUp(self) -> None:
        """Have the thread wait."""
        super().setUp()
        self.writes = self.confirms = True
        self.confirmed: list[int] = []
        self.later: Callable[[], object] | None = None
        self.waiting: list[tuple[Deferred[Any], Callable[[], object]]] = []
        self.told: list[Callable[[], object]] = []
        self.recalled = 0
        self.commits = GroupCommit(
            self.writer, self.run_in_thread, self.committed, self.failures.append, attendant=self
        )
        self.session = Session(self.commits)
        self.await_()

    def await_(self) -> None:
        """Let the thread wait, if it may."""
        self.commits.attend(self.session, self)  # type: ignore[arg-type]

    def wal_of(self, messages: list[bytes]) -> list[bytes]:
        """See `IWalAtHand`."""
        return list(messages) if self.writes else []

    def confirm(self, position: int) -> bool:
        """See `IWalAtHand`."""
        self.confirmed.append(position)
        return self.confirms

    def attend(self, readable: object, function: Callable[..., object], *args: object) -> Deferred[Any]:
        """See `IAttendant`."""
        assert readable == self.session.readable
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, lambda: function(*args)))
        self.recalled = 0
        return done

    def tell(self, function: Callable[[], object]) -> None:
        """See `IAttendant`."""
        self.told.append(function)

    def tell_later(self, function: Callable[[], object]) -> None:
        """See `IAttendant`."""
        self.later = function

    def recall(self) -> None:
        """See `IAttendant`."""
        self.recalled += 1

    def comes(self, *messages: bytes) -> None:
        """Let something come, and the thread do its work; the reactor hears of it when it is to."""
        self.session.comes += messages
        done, work = self.waiting[-1]
        if (result := work()) is not None or self.recalled:
            self.waiting.pop()
            self.told.append(lambda: done.callback(result))

    def hear(self) -> None:
        """Have the reactor told."""
        while self.told:
            self.told.pop(0)()

    def hear_later(self) -> None:
        """Have the reactor told of what is settled."""
        assert self.later is not None
        self.later()


class AttendingTests(AttendingTestCase):
    """The thread waits for the upstream by itself."""

    def test_durableBeforeTheReactorHears(self) -> None:
        """The thread reads and commits; what it has read is delivered, and written once."""
        self.assertFalse(self.session.reads_here)
        self.comes(b"abc", b"de")
        self.assertEqual(([b"abcde"], [], []), (self.writer.commits, self.session.delivered, self.positions))
        self.hear()
        self.assertEqual(([b"abc", b"de"], [5]), (self.session.delivered, self.positions))
        self.assertEqual((0, [], [b"abcde"]), (self.commits.waiting, self.jobs, self.writer.commits))

    def test_atOnce(self) -> None:
        """The thread may have read and committed before it is known here that it waits."""
        self.waiting.pop()[0].callback(None)
        self.session.comes.append(b"abc")
        at_once: list[object] = []

        def attend(readable: object, function: Callable[..., object], *args: object) -> Deferred[Any]:
            at_once.append(function(*args))
            return Deferred()

        self.attend = attend  # type: ignore[method-assign]
        self.await_()
        self.assertEqual(([None], [b"abc"]), (at_once, self.writer.commits))
        self.hear()
        self.assertEqual([3], self.positions)

    def test_onAndOn(self) -> None:
        """It goes on by itself, whatever the reactor does; nobody else reads meanwhile."""
        for number in range(3):
            self.comes(b"abc")
            self.assertEqual((number + 1, []), (len(self.writer.commits), self.positions))
        self.hear()
        self.assertEqual(([3, 6, 9], [b"abc"] * 3), (self.positions, self.session.delivered))
        self.comes(b"de")
        self.hear()
        self.assertEqual(([3, 6, 9, 11], 0), (self.positions, self.commits.waiting))
        self.assertFalse(self.session.reads_here)

    def test_notFarAheadOfTheReactor(self) -> None:
        """A reactor that does not get to it is waited for, and then all is told in its order."""
        while self.waiting:
            self.comes(b"a")
        came = len(self.writer.commits)
        self.assertGreater(came, 10)
        self.hear()
        self.assertEqual((list(range(1, came + 1)), 0), (self.positions, self.commits.waiting))
        self.assertTrue(self.session.reads_here)

    def test_newFilesAreShownFirst(self) -> None:
        """Whoever reads must know of a new file before more comes into it."""
        self.writer.files = [CoveredFile("000000010000000000000001.partial", (1, 1))]
        self.comes(b"abc")
        self.assertEqual([], self.waiting)
        self.hear()
        self.assertEqual(([3], True), (self.positions, self.session.reads_here))
        self.await_()
        self.assertEqual(1, len(self.waiting))

    def test_aSlowDisk(self) -> None:
        """While the thread writes, what it has read is known, and more is read here: the next commit."""
        looked = []
        self.writer.meanwhile = lambda: looked.append(self.commits.look())
        self.comes(b"abc")
        self.writer.meanwhile = bool
        self.assertEqual([True], looked)
        self.assertEqual(
            ([b"abc"], 3, True), (self.session.delivered, self.commits.waiting, self.session.reads_here)
        )
        self.commits.append(b"de")
        self.commits.commit()
        self.assertFalse(self.commits.look())
        self.assertEqual([], self.jobs)
        self.hear()
        self.assertEqual(([3], 2), (self.positions, self.commits.waiting))
        self.run_one()
        self.assertEqual(([b"abc", b"de"], [3, 5]), (self.writer.commits, self.positions))

    def test_aSlowDiskBehindOthers(self) -> None:
        """What the thread has read before that is known first."""
        self.comes(b"abc")
        self.writer.meanwhile = self.commits.look
        self.comes(b"de")
        self.assertEqual(
            ([3], [b"abc", b"de"], 2), (self.positions, self.session.delivered, self.commits.waiting)
        )
        self.hear()
        self.assertEqual(([3, 5], 0), (self.positions, self.commits.waiting))

    def test_takesNothingMoreAfterALook(self) -> None:
        """A thread that has not heard yet that reading goes on here leaves alone what comes."""
        _, work = self.waiting[-1]
        self.writer.meanwhile = self.commits.look
        self.comes(b"abc")
        self.writer.meanwhile = bool
        self.session.comes.append(b"de")
        self.assertIsNotNone(work())
        self.assertEqual(([b"de"], [b"abc"]), (self.session.comes, self.writer.commits))

    def test_nothingToLookAt(self) -> None:
        """A thread that waits has read nothing."""
        self.assertFalse(self.commits.look())
        self.assertFalse(self.session.reads_here)

    def test_aLookAtWhatIsDurable(self) -> None:
        """What has been done, and not been heard of, is heard of; the thread goes on."""
        self.comes(b"abc")
        self.assertFalse(self.commits.look())
        self.assertEqual(([3], False), (self.positions, self.session.reads_here))
        self.hear()
        self.assertEqual(([3], [b"abc"]), (self.positions, self.session.delivered))

    def test_whatIsToBeLookedAtFirst(self) -> None:
        """What the thread must not commit comes here, and is committed by the usual way."""
        self.writes = False
        self.comes(b"abc")
        self.assertEqual([], self.writer.commits)
        self.hear()
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
        """It is told as any other, behind what has come and what was made durable before."""
        self.comes(b"abc")
        self.writer.error = WalFileError("could not write")
        self.comes(b"de")
        self.hear()
        self.assertEqual(
            ([b"abc", b"de"], 1, [3]), (self.session.delivered, len(self.failures), self.positions)
        )
        self.await_()
        self.assertEqual([], self.waiting)

    def test_closeMeanwhile(self) -> None:
        """Closing recalls the thread, and waits for it; what it has committed is told."""
        closed = []
        self.writer.meanwhile = lambda: closed.append(self.commits.close())
        self.comes(b"abc")
        self.assertEqual((1, []), (self.recalled, self.jobs))
        self.hear()
        self.assertEqual([3], self.positions)
        self.run_one()
        self.successResultOf(closed[0])
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


class SettledTests(AttendingTestCase):
    """What nobody waits for any more: all who follow have it, and the upstream knows."""

    def setUp(self) -> None:
        """Let all who follow get it at once."""
        super().setUp()
        self.writer.sent = True

    def more(self) -> None:
        """Let something come that is waited for, and something that is settled."""
        self.writer.sent = False
        self.comes(b"bc")
        self.writer.sent = True
        self.comes(b"def")

    def when_heard(self, function: Callable[[], object]) -> None:
        """Have *function* called when a commit is heard of, once."""
        functions = [function]

        def committed(commit: Commit) -> None:
            self.committed(commit)
            if functions:
                functions.pop()()

        self.commits._committed = committed

    def test_toldAtLeisure(self) -> None:
        """The reactor hears of the last of several, and of nothing that came with them."""
        for _ in range(100):
            self.comes(b"abc")
        self.assertEqual((list(range(3, 303, 3)), [], []), (self.confirmed, self.told, self.positions))
        self.hear_later()
        self.assertEqual(([300], [], 0), (self.positions, self.session.delivered, self.commits.waiting))
        self.assertEqual(1, len(self.waiting))
        self.hear_later()
        self.assertEqual([300], self.positions)

    def test_counted(self) -> None:
        """How long it took counts for each."""
        receive = Stopwatch()
        self.commits = GroupCommit(
            self.writer, self.run_in_thread, self.committed, self.failures.append, receive, self
        )
        self.session = Session(self.commits)
        self.await_()
        for _ in range(3):
            self.comes(b"abc")
        self.assertEqual(3, receive.histogram()[0][-1])

    def test_thenOneThatIsWaitedFor(self) -> None:
        """What is to be told at once is told behind what was settled before."""
        self.comes(b"abc")
        self.writer.sent = False
        self.comes(b"de")
        self.hear()
        self.assertEqual(([3, 5], [b"de"], [3]), (self.positions, self.session.delivered, self.confirmed))
        self.hear_later()
        self.assertEqual([3, 5], self.positions)

    def test_behindOneThatIsWaitedFor(self) -> None:
        """It is told behind what the reactor has not heard of yet, whichever tells."""
        for hear in (self.hear, self.hear_later):
            start = len(self.positions)
            begin = sum(map(len, self.writer.commits))
            self.writer.sent = False
            self.comes(b"abc")
            self.writer.sent = True
            self.comes(b"de")
            hear()
            self.assertEqual([begin + 3, begin + 5], self.positions[start:])
        self.assertEqual(([b"abc"] * 2, 0), (self.session.delivered, self.commits.waiting))

    def test_whileTheReactorHears(self) -> None:
        """What the thread does meanwhile keeps its order."""
        self.writer.sent = False
        self.comes(b"a")
        self.when_heard(self.more)
        self.hear()
        self.hear_later()
        self.assertEqual(([1, 3, 6], 0), (self.positions, self.commits.waiting))

    def test_theUpstreamDoesNotTakeIt(self) -> None:
        """Then the reactor goes on, and reads again: libpq may have read while it could not send."""
        self.confirms = False
        self.comes(b"abc")
        self.assertEqual([], self.waiting)
        self.hear()
        self.assertEqual(([3], [b"abc"]), (self.positions, self.session.delivered))
        self.assertTrue(self.session.reads_here)

    def test_behindTheLastThatIsThere(self) -> None:
        """What comes and is settled while the last that is there has been told of waits for its turn."""

        class There(deque[Any]):
            """Lets the thread go on when it is found empty."""

            def __len__(self) -> int:
                if not (length := super().__len__()) and go_on:
                    go_on.pop()()
                return length

        self.writer.sent = False
        self.comes(b"a")
        go_on: list[Callable[[], None]] = []
        self.commits._there = There(self.commits._there)
        go_on.append(self.more)
        self.hear()
        self.hear_later()
        self.assertEqual(([1, 3, 6], 0), (self.positions, self.commits.waiting))

    def test_settledWhileItIsLookedAt(self) -> None:
        """Who takes over hears of all that is settled, before what is read on."""
        self.comes(b"a")
        self.when_heard(self.more)
        self.commits.look()
        self.assertEqual([1, 3, 6], self.positions)

    def test_aSlowDisk(self) -> None:
        """What is looked at while it is written is told as any other, behind what was settled before."""
        self.comes(b"abc")
        self.writer.meanwhile = self.commits.look
        self.comes(b"de")
        self.assertEqual(([3], [b"de"], 2), (self.positions, self.session.delivered, self.commits.waiting))
        self.hear()
        self.assertEqual(([3, 5], 0), (self.positions, self.commits.waiting))
        self.assertTrue(self.session.reads_here)

    def test_aCommitThatFails(self) -> None:
        """What was settled before it is told."""
        self.comes(b"abc")
        self.writer.error = WalFileError("could not write")
        self.comes(b"de")
        self.hear()
        self.assertEqual(([3], 1), (self.positions, len(self.failures)))

    def test_recalled(self) -> None:
        """When reading goes on here, it is told."""
        self.comes(b"abc")
        done, _ = self.waiting.pop()
        done.callback(None)
        self.assertEqual(([3], True), (self.positions, self.session.reads_here))

    def test_saidBeside(self) -> None:
        """What the upstream says beside is to be heard, and not lost with what is settled."""
        take = self.session.take

        def take_more() -> Taken:
            taken = take()
            taken.said.append(("FATAL", UpstreamError("going down")))
            return taken

        self.session.take = take_more  # type: ignore[method-assign]
        self.comes(b"abc")
        self.hear()
        self.assertEqual([b"abc"], self.session.delivered)
