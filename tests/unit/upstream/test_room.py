"""What happens where there is no room for WAL: all that is whole counts, nothing is torn, and it goes on."""

from __future__ import annotations

import errno
import os
import tempfile
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from upstream_helpers import FIRST, KIB, SECOND, WAL, Relay, RelayTestCase

from walsender.errors import DiskFull, WalFileError
from walsender.simulate.cluster import SEGMENT_SIZE as MIB
from walsender.upstream import Commit, GroupCommit, ReceiverSettings, Room, UpstreamError, WalReceiver
from walsender.upstream.room import RESERVE
from walsender.wal import REAL_FILES

if TYPE_CHECKING:
    from walsender.upstream import IUpstreamConnector, IWalKeeper

ON_DISK = 'there is no room for another WAL segment on the disk of "wal_directory"'
REACHED = 'there is no room for another WAL segment: "max_wal_directory_size" (3 MB) is reached'


class RoomTests(RelayTestCase):
    def test_disk(self) -> None:
        """A segment must fit on the disk, and leave what slots and histories need."""
        relay = self.relay()
        room = Room(relay.files, WAL)
        room.check(MIB)
        relay.disk.room = MIB + RESERVE
        room.check(MIB)
        relay.disk.room -= 1
        self.assertEqual(ON_DISK, self.assertRaises(DiskFull, room.check, MIB).message)

    def test_limit(self) -> None:
        """All segments count, of any timeline and in any form, and nothing else does."""
        relay = self.relay()
        relay.disk.changed = lambda *_: None  # these files are none of the cluster's
        room = Room(relay.files, WAL, 3 * MIB)
        for name in ("00000002.history", "walsender.lock", f"{FIRST}.00000028.backup", FIRST):
            relay.put(name, b"x")
        relay.put(f"0000000{SECOND[7:]}", b"x")
        room.check(MIB)
        relay.put(f"{SECOND[:7]}2{SECOND[8:]}.partial", b"x")
        self.assertEqual(REACHED, self.assertRaises(DiskFull, room.check, MIB).message)
        room.limit = 4 * MIB
        room.check(MIB)
        room.limit = 0
        self.assertRaises(DiskFull, room.check, MIB)
        room.check_disk(MIB)

    def test_realDisk(self) -> None:
        """The operating system is asked, and a directory that is gone is an error like others."""
        with tempfile.TemporaryDirectory() as path:
            status = os.statvfs(path)
            free = REAL_FILES.free_space(path)
            assert free is not None
            self.assertLessEqual(abs(free - status.f_bavail * status.f_frsize), 1 << 30)
            Room(REAL_FILES, path, 1 << 20).check(1 << 20)
        self.assertRaises(WalFileError, Room(REAL_FILES, path).check, MIB)


class WriterTests(RelayTestCase):
    def bounded(self, limit: int) -> Relay:
        """Return a relay with room for so many bytes of WAL."""
        relay = self.relay()
        relay.room = Room(relay.files, WAL, limit)
        relay.new_writer()
        return relay

    def test_wholeSegmentsCount(self) -> None:
        """What comes before the segment that has no room is whole, durable, and told of."""
        relay = self.bounded(MIB)
        commit = relay.commit(2 * MIB + 8 * KIB)
        self.assertEqual(2 * MIB, commit.position)
        assert commit.failure is not None
        self.assertEqual([FIRST], relay.names())

    def test_goesOn(self) -> None:
        """Where nothing fits an error is all there is; with room it goes on at the same place."""
        relay = self.bounded(MIB)
        relay.commit(2 * MIB + 8 * KIB)
        relay.new_writer()
        self.assertRaises(DiskFull, relay.commit, 2 * MIB + 8 * KIB)
        self.assertEqual([FIRST], relay.names())
        relay.room = None
        relay.new_writer()
        self.assertEqual(3 * MIB, relay.commit(3 * MIB).position)
        self.assertEqual([FIRST, SECOND], relay.names())
        self.assertEqual(relay.cluster.wal(1, 2 * MIB, 3 * MIB), relay.content(SECOND))

    def test_nothingIsLeftOfAHalfMadeFile(self) -> None:
        """A quota that ends in the middle of making a file leaves no file."""
        relay = self.relay()
        relay.commit(2 * MIB)
        relay.new_writer()
        relay.disk.failing["write"] = [errno.EDQUOT]
        self.assertRaises(DiskFull, relay.commit, 2 * MIB + 8 * KIB)
        self.assertEqual([FIRST], relay.names())

    def test_tellsBoth(self) -> None:
        """A commit of which the rest is not kept is told of, and then its failure; none follows."""
        relay = self.bounded(MIB)
        told: list[Commit | Failure] = []

        def run(function: Any, *arguments: Any) -> Deferred[Any]:
            return succeed(function(*arguments))

        commits = GroupCommit(relay.writer, run, told.append, told.append)
        commits.append(relay.wal(2 * MIB + 8 * KIB))
        commits.commit()
        commits.append(relay.wal(2 * MIB + 16 * KIB))
        commits.commit()
        commit, failure = told
        assert isinstance(commit, Commit)
        self.assertEqual(2 * MIB, commit.position)
        assert isinstance(failure, Failure)
        failure.trap(DiskFull)


class Keeper:
    """The part of an `IWalKeeper` that is asked before there is a connection."""

    def __init__(self) -> None:
        self.full = True
        self.holder = "somebody needs it"
        self.asked = 0

    def check_room(self) -> Deferred[None]:
        """See `IWalKeeper`."""
        return fail(DiskFull("full")) if self.full else succeed(None)

    def make_room(self) -> Deferred[str]:
        """See `IWalKeeper`."""
        self.asked += 1
        return succeed(self.holder)


class Connector:
    """Counts, and finds nobody."""

    def __init__(self) -> None:
        self.tried = 0

    def connect(self) -> Deferred[Any]:
        """See `IUpstreamConnector`."""
        self.tried += 1
        return fail(UpstreamError("nobody is there"))


class ReceiverTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A receiver without room."""
        self.clock = Clock()
        self.keeper = Keeper()
        self.connector = Connector()
        self.receiver = WalReceiver(
            self.clock,
            cast("IUpstreamConnector", self.connector),
            cast("IWalKeeper", self.keeper),
            ReceiverSettings(retry_interval=5.0),
            jitter=lambda: 1.0,
        )

    def run_for(self, seconds: int) -> list[str]:
        """Let time pass; return what is logged."""
        with capturedLogs() as logs:
            for _ in range(seconds):
                self.clock.advance(1)
        return [event["error"] + event["more"] for event in logs]

    def test_saidOnce(self) -> None:
        """Without room nobody is connected to, which is said once, with who holds the WAL."""
        with capturedLogs() as logs:
            self.receiver.start()
        self.assertEqual(["full"], [event["error"] for event in logs])
        self.assertEqual(
            [(" (somebody needs it)", "somebody needs it", None)],
            [(event["more"], event["detail"], event["hint"]) for event in logs],
        )
        self.assertEqual([], self.run_for(60))
        self.assertEqual(0, self.connector.tried)
        self.assertGreater(self.keeper.asked, 5)

    def test_goesOnByItself(self) -> None:
        """When there is room, the next try finds it."""
        with capturedLogs():
            self.receiver.start()
        self.run_for(30)
        self.keeper.full = False
        self.assertEqual(["nobody is there"], self.run_for(6))
        self.assertGreater(self.connector.tried, 0)

    def test_roomWasMade(self) -> None:
        """If something could be removed, it goes on at once and nothing is said."""

        def make_room() -> Deferred[str]:
            self.keeper.full = False
            return succeed("")

        self.keeper.make_room = make_room  # type: ignore[method-assign]
        with capturedLogs() as logs:
            self.receiver.start()
        self.assertEqual(["nobody is there"], [event["error"] for event in logs])
        self.assertEqual(1, self.connector.tried)

    def test_stoppedWhileRoomIsMade(self) -> None:
        """The end does not wait for what is being removed."""
        making: Deferred[str] = Deferred()
        self.keeper.make_room = lambda: making  # type: ignore[method-assign]
        self.receiver.start()
        self.successResultOf(self.receiver.stop())
        self.assertEqual([], self.clock.getDelayedCalls())
