"""`LibpqSession` over a scripted libpq: what must be asked when, and what may not be missed."""

from __future__ import annotations

from typing import Any

from descriptor_helpers import open_descriptors, watch_descriptors
from libpq_helpers import (
    COMMAND_OK,
    COPY_BOTH,
    COPY_DONE,
    COPY_IN,
    END,
    TUPLES,
    TURN,
    Connection,
    Receiver,
    Result,
    WatchingReactor,
    error,
)
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from walsender.upstream import ICopyReceiver, IUpstreamSession, UpstreamError
from walsender.upstream.libpq_session import LibpqSession
from walsender.upstream.shared_connection import SHARE

CLOSED_BY_SERVER = "server closed the connection unexpectedly"


class SessionTestCase(SynchronousTestCase):
    """A session over what a test has written down."""

    def begin(self, *reads: Any, encrypted: bool = False) -> None:
        """Make a session whose libpq reads *reads*."""
        self.descriptors = watch_descriptors(self)
        self.reactor = WatchingReactor()
        self.connection = Connection(*reads, encrypted=encrypted)
        self.session = LibpqSession(self.reactor, self.connection)
        self.receiver = Receiver()
        self.addCleanup(self.session.close)

    def stream(self, *reads: Any, encrypted: bool = False) -> list[Any]:
        """Begin to stream, and return the list of what the receiver will be told."""
        self.begin([COPY_BOTH], *reads, encrypted=encrypted)
        answer = self.session.start_streaming("START_REPLICATION 0/0", self.receiver)
        self.reactor.readable()
        if not encrypted:
            self.assertIs(self.successResultOf(answer), True)
            self.assertEqual(self.receiver.events, [])
        return self.receiver.events

    def usable(self) -> None:
        """Check that the session is at command level."""
        self.connection.reads.append([COMMAND_OK, END])
        answer = self.session.execute("X")
        self.reactor.readable()
        self.assertEqual(self.successResultOf(answer), [])

    def all_closed(self) -> None:
        """Check that nothing is left of the session."""
        self.assertTrue(self.connection.finished)
        left = (self.reactor.readers, self.reactor.writers, self.reactor.getDelayedCalls())
        self.assertEqual(left, ({}, {}, []))
        self.assertEqual(self.descriptors, open_descriptors())


class CommandTests(SessionTestCase):
    """One command and its answer."""

    def test_interfaces(self) -> None:
        """The session, and the doubles of these tests, are what they claim."""
        self.begin()
        verifyObject(IUpstreamSession, self.session)
        verifyObject(ICopyReceiver, self.receiver)
        (watch,) = self.reactor.readers.values()
        verifyObject(IReadWriteDescriptor, watch)

    def test_description(self) -> None:
        """It tells where it leads and what is there, and asks libpq never to wait."""
        self.begin()
        self.assertEqual(self.session.description, "host=primary port=5432")
        self.assertEqual((self.session.server_version, self.connection.nonblocking), (180004, 1))

    def test_rows(self) -> None:
        """A command gives its rows, in whatever pieces the answer comes."""
        self.begin([], [Result(TUPLES, [(b"1", None), (b"2", b"x")])], [COMMAND_OK], [END])
        answer = self.session.execute("IDENTIFY_SYSTEM")
        self.assertEqual(self.connection.sent, [b"IDENTIFY_SYSTEM"])
        for _ in range(3):
            self.reactor.readable()
            self.assertNoResult(answer)
        self.reactor.readable()
        self.assertEqual(self.successResultOf(answer), [(b"1", None), (b"2", b"x")])

    def test_errorLeavesTheSessionUsable(self) -> None:
        """An error of the server is that command's alone, and carries its SQLSTATE."""
        self.begin([error("slot is\nthere", "42710"), END], [COMMAND_OK, END])
        failure = self.failureResultOf(self._executed(), UpstreamError)
        self.assertEqual((failure.value.sqlstate, failure.value.message), ("42710", "slot is there"))
        self.assertEqual(self.successResultOf(self._executed()), [])

    def _executed(self) -> Any:
        answer = self.session.execute("CREATE_REPLICATION_SLOT")
        self.reactor.readable()
        return answer

    def test_commandFromTheAnswer(self) -> None:
        """Whoever gets an answer may send the next command at once."""
        self.begin([COMMAND_OK, END], [Result(TUPLES, [(b"2",)]), END])
        answer = self.session.execute("ONE").addCallback(lambda _: self.session.execute("TWO"))
        self.reactor.readable()
        self.reactor.readable()
        self.assertEqual(self.successResultOf(answer), [(b"2",)])

    def test_lostWhileWaiting(self) -> None:
        """A connection that fails fails the command, with libpq's one line."""
        self.begin(CLOSED_BY_SERVER)
        failure = self.failureResultOf(self._executed(), UpstreamError)
        self.assertEqual((failure.value.sqlstate, failure.value.message), ("", CLOSED_BY_SERVER))
        self.all_closed()

    def test_fatalWhileWaiting(self) -> None:
        """The server's own reason counts for more than that the connection failed."""
        self.begin([error("shutting down", "57P01", "FATAL")], CLOSED_BY_SERVER)
        answer = self._executed()
        self.reactor.readable()
        self.assertEqual(self.failureResultOf(answer, UpstreamError).value.sqlstate, "57P01")

    def test_lostAtCommandLevel(self) -> None:
        """A server that leaves while nothing is asked is found gone, and why, by the next command."""
        self.begin()
        last_words = error("terminating connection", "57P01", "FATAL")
        self.connection.reads += [
            [lambda: self.connection.notice_handler(last_words)],  # type: ignore[misc]
            CLOSED_BY_SERVER,
        ]
        self.reactor.readable()
        self.reactor.readable()
        self.all_closed()
        self.assertEqual(
            self.failureResultOf(self.session.execute("X"), UpstreamError).value.sqlstate, "57P01"
        )

    def test_cannotSend(self) -> None:
        """A command that cannot be sent fails, and not before its caller has the Deferred."""
        self.begin()
        self.connection.broken = "no connection to the server"
        answer = self.session.execute("X")
        self.assertNoResult(answer)
        self.reactor.turn()
        self.assertEqual(
            self.failureResultOf(answer, UpstreamError).value.message, "no connection to the server"
        )

    def test_cancel(self) -> None:
        """Whoever cancels a command ends the session, since its answer would be taken for the next one's."""
        self.begin()
        answer = self.session.execute("X")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.all_closed()

    def test_closedWhileWaiting(self) -> None:
        """Closing fails the command that is under way, once; nothing works afterwards, and nothing raises."""
        self.begin()
        answer = self.session.execute("X")
        for _ in range(2):
            self.session.close()
        self.failureResultOf(answer, UpstreamError)
        self.session.send(b"x")
        self.session.end_streaming()
        self.session.pauseProducing()
        self.session.resumeProducing()
        self.failureResultOf(self.session.execute("X"), UpstreamError)
        self.all_closed()

    def test_copyFromACommand(self) -> None:
        """A copy that nobody asked for ends the session, for nobody would read it."""
        self.begin([COPY_BOTH])
        self.failureResultOf(self._executed(), UpstreamError)
        self.all_closed()

    def test_notices(self) -> None:
        """What the server says beside is logged at the level that fits."""
        self.begin()
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for severity in ("WARNING", "NOTICE"):
            self.connection.notice_handler(error("beware", "01000", severity))  # type: ignore[misc]
        said = [(e["log_level"].name, str(e["said"])) for e in events if "said" in e]
        self.assertEqual(said, [("warn", "beware"), ("info", "beware")])

    def test_noDescriptorLeft(self) -> None:
        """A session that cannot be watched is none, and leaves the connection to its maker."""
        connection = Connection()
        connection._socket.close()
        with self.assertRaises(OSError):
            LibpqSession(WatchingReactor(), connection)
        self.assertFalse(connection.finished)
        connection.finish()


class StreamTests(SessionTestCase):
    """What is delivered, and when."""

    def test_allThatOneReadBrings(self) -> None:
        """One read brings many messages, and all are delivered, then the end of the batch."""
        events = self.stream([b"one", b"two", b"three"])
        self.reactor.readable()
        self.assertEqual(events, [b"one", b"two", b"three", "batch"])

    def test_withTheAnswer(self) -> None:
        """Messages that come with the answer are delivered without another read."""
        self.begin([COPY_BOTH, b"one"])
        answer = self.session.start_streaming("START_REPLICATION", self.receiver)
        answer.addCallback(self.receiver.events.append)
        self.reactor.readable()
        self.assertEqual(self.receiver.events, [True, b"one", "batch"])

    def test_encryptionHasABufferOfItsOwn(self) -> None:
        """Under TLS reading goes on until it is certain that TLS holds nothing back."""
        events = self.stream([], [b"one"], [], [], [b"two"], [], [], [], [b"three"], encrypted=True)
        self.assertEqual(events, [b"one", b"two", "batch"])
        self.reactor.readable()
        self.assertEqual(events[3:], [b"three", "batch"])

    def test_othersHaveTheirTurn(self) -> None:
        """A large read is delivered in shares, without waiting for the socket in between."""
        piece = bytes(SHARE // 2)
        events = self.stream([piece] * 5)
        self.reactor.readable()
        self.assertEqual(events, [piece, piece, "batch"])
        self.assertEqual(self.reactor.readers, {})
        self.reactor.turn()
        self.assertEqual(len(events), 6)
        self.reactor.turn()
        self.assertEqual(events[6:], [piece, "batch"])
        self.assertEqual(len(self.reactor.readers), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_pauseInsideAMessage(self) -> None:
        """A pause stops the delivery of what has been read, and the rest comes without another read."""
        events = self.stream([b"one", b"two"])
        self.receiver.on_message = lambda _: self.session.pauseProducing()
        self.reactor.readable()
        self.assertEqual((events, self.reactor.readers), ([b"one", "batch"], {}))
        self.reactor.advance(1)
        self.session.resumeProducing()
        self.assertEqual(events[2:], [])
        self.reactor.turn()
        self.assertEqual(events[2:], [b"two", "batch"])

    def test_pauseAndResumeInsideAMessage(self) -> None:
        """A pause that is taken back at once loses nothing and delivers nothing twice."""
        events = self.stream([b"one", b"two"], [b"three"])

        def hesitate(body: bytes) -> None:
            self.session.pauseProducing()
            self.session.resumeProducing()

        self.receiver.on_message = hesitate
        self.reactor.readable()
        self.reactor.pump([TURN, TURN])
        self.assertEqual([event for event in events if isinstance(event, bytes)], [b"one", b"two", b"three"])
        self.assertEqual(len(self.reactor.readers), 1)

    def test_pauseBeforeTheShareIsContinued(self) -> None:
        """A turn that was due finds the session paused, and delivers nothing."""
        piece = bytes(SHARE)
        events = self.stream([piece, b"two"])
        self.reactor.readable()
        self.session.pauseProducing()
        self.reactor.turn()
        self.assertEqual(events, [piece, "batch"])
        self.session.resumeProducing()
        self.reactor.turn()
        self.assertEqual(events[2:], [b"two", "batch"])

    def test_closeInsideAMessage(self) -> None:
        """A receiver that closes the session hears no more of it."""
        events = self.stream([b"one", b"two"])
        self.receiver.on_message = lambda _: self.session.stopProducing()
        self.reactor.readable()
        self.assertEqual(events, [b"one"])
        self.all_closed()

    def test_closeWhilePaused(self) -> None:
        """A paused session, with a turn due, closes without a trace."""
        self.stream([bytes(SHARE), b"two"])
        self.reactor.readable()
        self.session.close()
        self.all_closed()

    def test_receiverRaises(self) -> None:
        """A mistake of the receiver is logged and ends its session."""
        events = self.stream([b"one", b"two"])
        self.receiver.on_message = lambda _: 1 // 0
        self.reactor.readable()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(events, [b"one", "batch", ("lost", "", "internal error")])
        self.all_closed()

    def test_sending(self) -> None:
        """What does not fit into the socket is sent when there is room."""
        self.stream()
        self.connection.unsent = 2
        self.session.send(b"status")
        self.assertEqual(self.connection.sent[-1], (b"status",))
        self.reactor.writable()
        self.assertEqual(self.reactor.writers, {})

    def test_cannotSend(self) -> None:
        """A failure to send is told later, not inside the call, and once."""
        events = self.stream()
        self.connection.broken = "broken pipe"
        self.session.send(b"status")
        self.session.send(b"status")
        self.assertEqual(events, [])
        self.reactor.turn()
        self.assertEqual(events, [("lost", "", "broken pipe")])
        self.all_closed()


class StreamEndTests(SessionTestCase):
    """How a stream ends."""

    def test_serverEnds(self) -> None:
        """The server's CopyDone is answered, then comes where the next timeline begins."""
        rows = [(b"2", b"0/4000000")]
        events = self.stream([b"one", COPY_DONE, COPY_IN], [Result(TUPLES, rows), COMMAND_OK, END])
        self.reactor.readable()
        self.assertEqual((events, self.connection.sent[-1]), ([b"one", "batch"], COPY_DONE))
        self.reactor.readable()
        self.assertEqual(events[2:], [("ended", rows)])
        self.usable()

    def test_weEnd(self) -> None:
        """After our CopyDone what is under way is still delivered; we send nothing more."""
        events = self.stream([b"one"], [b"two", COPY_DONE, COMMAND_OK, END])
        self.session.end_streaming()
        self.session.end_streaming()
        self.session.send(b"status")
        self.reactor.readable()
        self.reactor.readable()
        self.assertEqual(events, [b"one", "batch", b"two", "batch", ("ended", [])])
        self.assertEqual(self.connection.sent[1:], [COPY_DONE])

    def test_nothingToStream(self) -> None:
        """A timeline that has no more WAL is told first to the receiver, then to whoever asked."""
        self.begin([Result(TUPLES, [(b"2", b"0/4")]), COMMAND_OK, END])
        answer = self.session.start_streaming("START_REPLICATION", self.receiver)
        answer.addCallback(self.receiver.events.append)
        self.reactor.readable()
        self.assertEqual(self.receiver.events, [("ended", [(b"2", b"0/4")]), False])

    def test_refused(self) -> None:
        """A refused start fails; the receiver hears nothing and the session is usable."""
        self.begin([error("removed", "58P01"), END])
        answer = self.session.start_streaming("START_REPLICATION", self.receiver)
        self.reactor.readable()
        self.assertEqual(self.failureResultOf(answer, UpstreamError).value.sqlstate, "58P01")
        self.assertEqual(self.receiver.events, [])
        self.usable()

    def test_errorInsideTheStream(self) -> None:
        """An error of the server ends stream and session, after what came before it."""
        events = self.stream([b"one", error("removed", "58P01"), END])
        self.reactor.readable()
        self.assertEqual(events, [b"one", "batch", ("lost", "58P01", "removed")])
        self.all_closed()

    def test_serverShutsDown(self) -> None:
        """CommandComplete without CopyDone is a server on its way down."""
        events = self.stream([COPY_DONE, COMMAND_OK, END])
        self.reactor.readable()
        self.assertEqual(events, [("lost", "", "the upstream has ended the stream")])
        self.all_closed()

    def test_dataBeforeTheFailure(self) -> None:
        """What has come before a connection failed is delivered first, in shares and around pauses."""
        piece = bytes(SHARE)
        events = self.stream([piece, piece, b"end"])
        self.connection.reads.append(CLOSED_BY_SERVER)
        self.reactor.readable()
        self.reactor.turn()
        self.session.pauseProducing()
        self.reactor.advance(1)
        self.assertEqual(events, [piece, "batch", piece, "batch"])
        self.session.resumeProducing()
        self.reactor.turn()
        self.assertEqual(events[4:], [b"end", "batch", ("lost", "", CLOSED_BY_SERVER)])
        self.all_closed()

    def test_hangUp(self) -> None:
        """What the reactor calls a lost connection is a reason to read, and libpq decides."""
        events = self.stream([b"one"], CLOSED_BY_SERVER)
        self.reactor.hang_up()
        self.assertEqual(events, [b"one", "batch"])
        self.reactor.readable()
        self.assertEqual(events[2:], [("lost", "", CLOSED_BY_SERVER)])

    def test_hangUpWhilePaused(self) -> None:
        """A paused session is told nothing, and finds out when it reads again."""
        events = self.stream([b"one"], CLOSED_BY_SERVER)
        self.connection.unsent = 3
        self.session.send(b"status")
        self.session.pauseProducing()
        self.reactor.hang_up()
        self.assertEqual(events, [])
        self.session.resumeProducing()
        self.reactor.turn()
        self.reactor.readable()
        self.assertEqual(events, [b"one", "batch", ("lost", "", CLOSED_BY_SERVER)])


class AttendedTests(SessionTestCase):
    """Another thread reads."""

    def attended(self, *reads: Any) -> list[Any]:
        """Begin a stream that another thread reads from; return what the receiver is told."""
        events = self.stream(*reads)
        self.assertIsNotNone(self.session.readable)
        self.recalled: list[int] = []
        self.session.attended(lambda: self.recalled.append(1))
        self.assertEqual({}, self.reactor.readers)
        return events

    @staticmethod
    def lost(events: list[Any]) -> str:
        """Return why the receiver was told that the connection is gone."""
        return str(events[-1][-1])

    def test_messages(self) -> None:
        """What is taken is delivered when that is asked for; the batch ends when reading goes on here."""
        events = self.attended([b"wa", b"wb"], [b"wc"])
        taken = self.session.take()
        self.assertEqual(([b"wa", b"wb"], False, None), (taken.messages, taken.ended, taken.failure))
        self.assertEqual([], events)
        self.session.deliver(taken)
        self.assertEqual([b"wa", b"wb"], events)
        self.session.released()
        self.assertEqual(b"wc", events[2])
        self.assertEqual(1, len(self.reactor.readers))

    def test_end(self) -> None:
        """The server's CopyDone is seen by the thread; what follows is read here."""
        events = self.attended([b"wa", COPY_DONE, COPY_IN, COMMAND_OK, END])
        taken = self.session.take()
        self.assertTrue(taken.ended)
        self.session.deliver(taken)
        self.session.released()
        self.assertEqual(b"wa", events[0])
        self.assertIsNone(self.session.readable)
        self.usable()

    def test_failure(self) -> None:
        """The connection fails while the thread reads: the receiver is told here, behind what came before."""
        events = self.attended(CLOSED_BY_SERVER)
        self.session.deliver(self.session.take())
        self.assertEqual([], events)
        self.session.released()
        self.assertEqual(CLOSED_BY_SERVER, self.lost(events))
        self.all_closed()

    def test_notice(self) -> None:
        """What the server says beside is heard here."""
        self.attended([b"wa"])
        read = self.connection.consume_input

        def consume_input() -> None:
            assert self.connection.notice_handler is not None
            self.connection.notice_handler(error("going down", "57P01", "FATAL"))
            read()

        self.connection.consume_input = consume_input  # type: ignore[method-assign]
        taken = self.session.take()
        self.assertIsNone(self.session._error)
        self.session.deliver(taken)
        assert self.session._error is not None
        self.assertEqual("going down", self.session._error.message)

    def test_closedMeanwhile(self) -> None:
        """Closing recalls the thread; it takes nothing more, and what it has taken goes nowhere."""
        events = self.attended([b"wa"], [b"wb"])
        taken = self.session.take()
        self.session.close()
        self.assertEqual([1], self.recalled)
        self.assertEqual([], self.session.take().messages)
        self.session.deliver(taken)
        self.session.released()
        self.assertEqual([], events)
        self.all_closed()

    def test_paused(self) -> None:
        """Pausing recalls the thread, and nothing is read before it is resumed."""
        events = self.attended([b"wa"])
        self.session.pauseProducing()
        self.assertEqual([1], self.recalled)
        self.assertIsNone(self.session.readable)
        self.assertEqual([], self.session.take().messages)
        self.session.released()
        self.assertEqual([], events)
        self.session.resumeProducing()
        self.reactor.turn()
        self.assertEqual(b"wa", events[0])

    def test_sendingFails(self) -> None:
        """A connection that fails while something is sent recalls the thread."""
        self.attended()
        self.connection.broken = CLOSED_BY_SERVER
        self.session.send(b"r")
        self.reactor.turn()
        self.assertEqual([1], self.recalled)
        self.session.released()
        self.assertEqual(CLOSED_BY_SERVER, self.lost(self.receiver.events))

    def test_noRoomToSend(self) -> None:
        """What libpq reads while it cannot send is read on here: nothing would wake the thread for it."""
        events = self.attended([b"wa"])
        flush = self.connection.flush

        def read_and_flush() -> int:
            self.connection.consume_input()
            return flush()

        self.connection.flush = read_and_flush  # type: ignore[method-assign]
        self.connection.unsent = 2
        self.session.send(b"r")
        self.assertEqual([1], self.recalled)
        self.session.released()
        self.assertEqual(b"wa", events[0])

    def sent(self) -> list[Any]:
        """Return what has been sent in the stream."""
        return self.connection.sent[-2:]

    def test_confirmed(self) -> None:
        """The thread may say how far it is; what does not go at once is sent on here."""
        self.attended()
        self.assertTrue(self.session.confirm(b"r1"))
        self.connection.unsent = 3
        self.assertFalse(self.session.confirm(b"r2"))
        self.assertEqual([(b"r1",), (b"r2",)], self.sent())
        self.assertEqual({}, self.reactor.writers)
        self.session.released()
        self.assertEqual(1, len(self.reactor.writers))
        self.reactor.writable()
        self.assertEqual({}, self.reactor.writers)

    def test_heardWhileConfirming(self) -> None:
        """What the server says beside, which libpq finds while it sends, is heard here."""
        self.attended()
        put = self.connection.put_copy_data

        def put_copy_data(data: bytes) -> int:
            assert self.connection.notice_handler is not None
            self.connection.notice_handler(error("going down", "57P01", "FATAL"))
            return put(data)

        self.connection.put_copy_data = put_copy_data  # type: ignore[method-assign]
        self.assertFalse(self.session.confirm(b"r"))
        self.assertIsNone(self.session._error)
        self.session.released()
        assert self.session._error is not None
        self.assertEqual("going down", self.session._error.message)

    def test_nothingToConfirmTo(self) -> None:
        """A stream that has ended, or a connection that is closed, or fails, takes nothing."""
        self.attended()
        self.session.end_streaming()
        self.assertFalse(self.session.confirm(b"r"))
        self.assertNotIn((b"r",), self.sent())
        self.session.close()
        self.assertFalse(self.session.confirm(b"r"))

    def test_confirmingFails(self) -> None:
        """The receiver hears why the connection is gone, once reading goes on here."""
        events = self.attended(CLOSED_BY_SERVER)
        self.connection.broken = CLOSED_BY_SERVER
        self.assertFalse(self.session.confirm(b"r"))
        self.assertEqual([], events)
        self.session.released()
        self.assertEqual(CLOSED_BY_SERVER, self.lost(events))

    def test_notBelowTls(self) -> None:
        """A message may be complete there before the socket is readable."""
        self.stream([], [], encrypted=True)
        self.reactor.readable()
        self.assertIsNone(self.session.readable)

    def test_notInTheMiddle(self) -> None:
        """Who is called for one message cannot give the next to another thread."""
        self.begin([COPY_BOTH, b"wa"])
        seen: list[int | None] = []
        answer = self.session.start_streaming("START_REPLICATION 0/0", self.receiver)
        answer.addCallback(lambda _: seen.append(self.session.readable))
        received = self.receiver.wal_message_received

        def message_received(body: bytes) -> None:
            seen.append(self.session.readable)
            received(body)

        self.receiver.wal_message_received = message_received  # type: ignore[method-assign]
        self.reactor.readable()
        self.assertEqual([None, None], seen)
        self.assertIsNotNone(self.session.readable)
