"""Segments from an upstream that a script plays."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from walsender.errors import DataCorrupted, WalsenderError
from walsender.testing.wal_maker import WalMaker
from walsender.upstream import IUpstreamConnector, IUpstreamSession, UpstreamError, UpstreamFetcher
from walsender.upstream.segment_fetcher import IDLE
from walsender.wal import REAL_FILES, parse_identity

if TYPE_CHECKING:
    from walsender.upstream import ICopyReceiver, Row

MIB = 1 << 20
SEGMENT = "000000010000000000000002"
FOLLOWING = "000000010000000000000003"


@implementer(IUpstreamSession)
class Session:
    """
    One connection.

    :ivar refusal: how START_REPLICATION fails; ``None``: it does not.
    """

    server_version = 180000
    description = "a script"
    timeline = b"1"
    flush_lsn = b"0/5000000"

    def __init__(self, system_identifier: int, refusal: WalsenderError | None) -> None:
        self.system_identifier = system_identifier
        self.refusal = refusal
        self.commands: list[str] = []
        self.sent: list[bytes] = []
        self.closed = self.paused = False
        self.receiver: ICopyReceiver | None = None

    def execute(self, command: str) -> Deferred[list[Row]]:
        """See `IUpstreamSession`."""
        self.commands.append(command)
        return succeed([(b"%d" % self.system_identifier, self.timeline, self.flush_lsn, None)])

    def start_streaming(self, command: str, receiver: ICopyReceiver) -> Deferred[bool]:
        """See `IUpstreamSession`."""
        self.commands.append(command)
        if self.refusal is not None:
            return fail(self.refusal)
        self.receiver = receiver
        return succeed(True)

    def wal(self, start: int, data: bytes) -> None:
        """Let WAL come, if it can."""
        assert self.receiver is not None
        if not (self.closed or self.paused):
            self.receiver.wal_message_received(struct.pack(">cQQq", b"w", start, start, 0) + data)
            self.receiver.batch_received()

    def send(self, data: bytes) -> None:
        """See `IUpstreamSession`."""
        self.sent.append(data)

    def close(self) -> None:
        """See `IUpstreamSession`."""
        self.closed = True

    def end_streaming(self) -> None:
        """See `IUpstreamSession`."""

    def pauseProducing(self) -> None:
        """See `IUpstreamSession`."""
        self.paused = True

    def resumeProducing(self) -> None:
        """See `IUpstreamSession`."""
        self.paused = False

    def stopProducing(self) -> None:
        """See `IUpstreamSession`."""
        self.close()


class FetchTests(SynchronousTestCase):
    """What comes, and what becomes of it."""

    def setUp(self) -> None:
        """Make WAL, a place for it, and an upstream."""
        directory = tempfile.TemporaryDirectory(prefix="walsender-test-")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name)
        self.maker = WalMaker()
        self.maker.fill_to(5 * MIB, 20_000)
        self.image = bytes(self.maker.image(2))
        self.clock = Clock()
        self.sessions: list[Session] = []
        self.refusal: WalsenderError | None = None
        self.system_identifier = self.maker.system_identifier
        identity = parse_identity(SEGMENT, self.image[:64])
        test = self

        @implementer(IUpstreamConnector)
        class Connector:
            def connect(self) -> Deferred[IUpstreamSession]:
                test.sessions.append(Session(test.system_identifier, test.refusal))
                return succeed(test.sessions[-1])

        self.fetcher = UpstreamFetcher(
            self.clock,
            Connector(),
            maybeDeferred,
            REAL_FILES,
            lambda: identity,
            timeout=60,
            status_interval=10,
        )

    def fetch(self, name: str = SEGMENT) -> Deferred[bool]:
        """Ask for a segment."""
        return self.fetcher.fetch(name, str(self.path))

    def names(self) -> list[str]:
        """Return what is on disk."""
        return [path.name for path in self.path.iterdir()]

    def assertOver(self, session: Session) -> None:
        """Check that nothing is left of a fetch, when nobody has wanted anything for a while."""
        self.clock.advance(IDLE)
        self.assertTrue(session.closed)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_aSegmentThatIsBeingWrittenIsNotWaitedFor(self) -> None:
        """Nobody knows when it will be whole, and readers would wait for it whatever else comes."""
        self.assertFalse(self.successResultOf(self.fetch("000000010000000000000050")))
        (session,) = self.sessions
        self.assertEqual(["IDENTIFY_SYSTEM"], session.commands)
        self.assertOver(session)

    def test_wholeSegment(self) -> None:
        """What comes until its end is it, and what comes behind that is not looked at."""
        fetching = self.fetch()
        (session,) = self.sessions
        self.assertEqual(["IDENTIFY_SYSTEM", "START_REPLICATION 0/200000 TIMELINE 1"], session.commands)
        wal = self.image + bytes(self.maker.image(3))
        for offset in range(0, len(wal), 100_000):
            session.wal(2 * MIB + offset, wal[offset : offset + 100_000])
        self.assertIs(True, self.successResultOf(fetching))
        self.assertEqual([SEGMENT], self.names())
        self.assertEqual(self.image, (self.path / SEGMENT).read_bytes())
        self.assertOver(session)

    def test_reportsNothingFlushed(self) -> None:
        """A synchronous commit must not be held to be durable, or wait, because of this connection."""
        fetching = self.fetch()
        (session,) = self.sessions
        session.wal(2 * MIB, self.image[:-8192])
        self.clock.advance(10)
        session.wal(3 * MIB - 8192, self.image[-8192:])
        self.successResultOf(fetching)
        reports = [struct.unpack_from(">cQQQ", data) for data in session.sent]
        self.assertEqual({(b"r", 0, 0)}, {(kind, flush, replay) for kind, _, flush, replay in reports})
        self.assertIn(3 * MIB - 8192, [write for _, write, _, _ in reports])

    def test_removedThere(self) -> None:
        """58P01: the upstream does not have it either."""
        self.refusal = UpstreamError("requested WAL segment has already been removed", "58P01")
        self.assertIs(False, self.successResultOf(self.fetch()))
        self.assertOver(self.sessions[0])

    def test_removedWhileItComes(self) -> None:
        """The same inside the stream, where PostgreSQL says it."""
        fetching = self.fetch()
        (session,) = self.sessions
        session.wal(2 * MIB, self.image[:8192])
        assert session.receiver is not None
        session.receiver.session_lost(UpstreamError("requested WAL segment …", "58P01"))
        self.assertIs(False, self.successResultOf(fetching))
        self.assertNotIn(SEGMENT, self.names())
        self.assertOver(session)

    def test_lost(self) -> None:
        """Another error is told, and what has come has no final name."""
        fetching = self.fetch()
        (session,) = self.sessions
        session.wal(2 * MIB, self.image[:-8])
        assert session.receiver is not None
        session.receiver.session_lost(UpstreamError("server closed the connection unexpectedly"))
        self.failureResultOf(fetching, UpstreamError)
        self.assertNotIn(SEGMENT, self.names())
        self.assertOver(session)

    def test_timelineEndsInIt(self) -> None:
        """Half a segment is none; whoever wants it asks for the file of the timeline that follows."""
        fetching = self.fetch()
        (session,) = self.sessions
        session.wal(2 * MIB, self.image[:8192])
        assert session.receiver is not None
        session.receiver.stream_ended([(b"2", b"0/202000")])
        self.assertIs(False, self.successResultOf(fetching))
        self.assertNotIn(SEGMENT, self.names())

    def test_otherCluster(self) -> None:
        """Nothing is asked of a server that is none of ours."""
        self.system_identifier += 1
        self.failureResultOf(self.fetch(), DataCorrupted)
        self.assertEqual(["IDENTIFY_SYSTEM"], self.sessions[0].commands)
        self.assertOver(self.sessions[0])

    def test_silence(self) -> None:
        """An upstream that says nothing is given up."""
        fetching = self.fetch()
        for _ in range(7):
            self.clock.advance(10)
        self.failureResultOf(fetching, UpstreamError)
        self.assertOver(self.sessions[0])

    def test_oneStream(self) -> None:
        """Segments that follow each other come in one stream, whenever they are asked for."""
        first, second = self.fetch(), self.fetch(FOLLOWING)
        (session,) = self.sessions
        session.wal(2 * MIB, self.image)
        self.assertIs(True, self.successResultOf(first))
        session.wal(3 * MIB, bytes(self.maker.image(3)))
        self.assertIs(True, self.successResultOf(second))
        self.assertEqual(bytes(self.maker.image(3)), (self.path / FOLLOWING).read_bytes())
        self.assertTrue(session.paused)
        self.clock.advance(IDLE - 0.5)
        third = self.fetch("000000010000000000000004")
        session.wal(4 * MIB, bytes(self.maker.image(4)))
        self.assertIs(True, self.successResultOf(third))
        self.assertEqual(["IDENTIFY_SYSTEM", "START_REPLICATION 0/200000 TIMELINE 1"], session.commands)
        self.clock.advance(IDLE - 0.5)
        self.assertFalse(session.closed)
        self.assertEqual(1, len(self.sessions))
        self.assertOver(session)

    def first(self) -> Session:
        """Fetch a segment, and return the connection, which stays."""
        fetching = self.fetch()
        self.sessions[0].wal(2 * MIB, self.image)
        self.successResultOf(fetching)
        self.assertFalse(self.sessions[0].closed)
        return self.sessions[0]

    def assertComesAnew(self, session: Session, number: int = 3, *, lost: bool = False) -> None:
        """
        Check that a segment comes over another connection than *session*, which is closed, and whole.

        :param lost: it is found out to be when it is used.
        """
        fetching = self.fetch(f"0000000100000000{number:08X}")
        if lost:
            assert session.receiver is not None
            session.receiver.session_lost(UpstreamError("server closed the connection unexpectedly"))
        self.assertTrue(session.closed)
        self.assertEqual(2, len(self.sessions))
        image = bytes(self.maker.image(number))
        self.sessions[1].wal(number * MIB, image)
        self.assertIs(True, self.successResultOf(fetching))
        self.assertEqual(image, (self.path / f"0000000100000000{number:08X}").read_bytes())
        self.assertOver(self.sessions[1])

    def test_anotherPlace(self) -> None:
        """What stands in the stream is of no use for it."""
        self.assertComesAnew(self.first(), 4)

    def test_anotherTimeline(self) -> None:
        """The same place on another one is another place."""
        self.patch(Session, "timeline", b"3")
        session = self.first()
        fetching = self.fetch("000000020000000000000003")
        self.assertTrue(session.closed)
        fetching.cancel()
        self.failureResultOf(fetching, CancelledError)
        self.assertOver(self.sessions[1])

    def test_messageThatGoesOn(self) -> None:
        """What has come of the next segment with the end of the first is not missed."""
        fetching = self.fetch()
        self.sessions[0].wal(2 * MIB, self.image + bytes(self.maker.image(3)[:8192]))
        self.successResultOf(fetching)
        self.assertComesAnew(self.sessions[0])

    def test_closedThereMeanwhile(self) -> None:
        """That is found out when it is used again, and does no harm."""
        self.assertComesAnew(self.first(), lost=True)

    def test_knownToBeClosedThere(self) -> None:
        """Nobody waits for what cannot come."""
        session = self.first()
        assert session.receiver is not None
        session.receiver.session_lost(UpstreamError("server closed the connection unexpectedly"))
        self.fetch(FOLLOWING)
        self.assertEqual(2, len(self.sessions))
        self.assertTrue(session.closed)

    def test_whatWasBeingWrittenWhenItWasOpened(self) -> None:
        """Whether it is whole now has to be asked."""
        self.patch(Session, "flush_lsn", b"0/300000")
        session = self.first()
        self.patch(Session, "flush_lsn", b"0/400000")
        self.assertComesAnew(session)

    def test_theEndOfATimeline(self) -> None:
        """The connection is at command level again, and takes the next command."""
        self.fetch()
        (session,) = self.sessions
        assert session.receiver is not None
        session.receiver.stream_ended([(b"2", b"0/202000")])
        second = self.fetch(FOLLOWING)
        self.assertEqual("START_REPLICATION 0/300000 TIMELINE 1", session.commands[-1])
        session.wal(3 * MIB, bytes(self.maker.image(3)))
        self.assertIs(True, self.successResultOf(second))
        self.assertEqual(1, session.commands.count("IDENTIFY_SYSTEM"))
        self.assertOver(session)

    def test_stop(self) -> None:
        """What nobody uses is closed, and then nothing is kept, until it is started again."""
        session = self.first()
        self.fetcher.stop()
        self.assertTrue(session.closed)
        self.assertEqual([], self.clock.getDelayedCalls())
        fetching = self.fetch()
        self.sessions[1].wal(2 * MIB, self.image)
        self.successResultOf(fetching)
        self.assertTrue(self.sessions[1].closed)
        self.fetcher.start()
        fetching = self.fetch()
        self.sessions[2].wal(2 * MIB, self.image)
        self.successResultOf(fetching)
        self.assertFalse(self.sessions[2].closed)

    def test_cancelled(self) -> None:
        """The connection is closed, and the next in turn has its own."""
        first, second = self.fetch(), self.fetch(FOLLOWING)
        self.sessions[0].wal(2 * MIB, self.image[:8192])
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertTrue(self.sessions[0].closed)
        self.assertNotIn(SEGMENT, self.names())
        self.sessions[1].wal(3 * MIB, bytes(self.maker.image(3)))
        self.successResultOf(second)
        self.assertOver(self.sessions[1])

    def test_cancelledInTheQueue(self) -> None:
        """Who waits for its turn and is not wanted any more has none."""
        first, second = self.fetch(), self.fetch(FOLLOWING)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.sessions[0].wal(2 * MIB, self.image)
        self.successResultOf(first)
        self.assertEqual(1, len(self.sessions))
