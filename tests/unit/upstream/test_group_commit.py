"""One commit at a time, each of all that has come since the last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import WalFileError
from walsender.upstream import Commit, GroupCommit
from walsender.upstream.group_commit import LARGE

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


class GroupCommitTests(SynchronousTestCase):
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
