"""The modern dialect's stream: what is sent, in which messages, and how it ends."""

from __future__ import annotations

import struct

from protocol_helpers import (
    COPY_BOTH,
    COPY_DONE,
    READY,
    TERMINATE,
    Client,
    ProtocolTestCase,
    Server,
    copy_data,
    error_fields,
    error_response,
    kinds,
    message,
    parse,
    query,
    status,
    wal_messages,
)

from walsender.lsn import Geometry
from walsender.sender.slot_table import CATCHUP, STARTUP, STREAMING
from walsender.sender.states import MODERN, State
from walsender.testing.source import wal_bytes
from walsender.wire.dialect import ModernDialect

MIB = 1 << 20
END = 0x300060  # where the source's WAL ends at first

# CommandComplete, twice: with one, clients die
STREAM_END = (
    bytes.fromhex("43 00000014")
    + b"START_STREAMING\0"
    + bytes.fromhex("43 00000016")
    + b"START_REPLICATION\0"
) + READY


def next_timeline(timeline: bytes, start: bytes, typmod: bytes = b"\xff\xff\xff\xff") -> bytes:
    """Return the result that says where a historic timeline goes on."""
    description = (
        bytes.fromhex("0002")
        + b"next_tli\0"
        + bytes.fromhex("00000000 0000 00000014 0008")
        + typmod
        + bytes.fromhex("0000")
        + b"next_tli_startpos\0"
        + bytes.fromhex("00000000 0000 00000019 ffff")
        + typmod
        + bytes.fromhex("0000")
    )
    row = b"\0\2" + b"".join(struct.pack(">i", len(text)) + text for text in (timeline, start))
    return message(b"T", description) + message(b"D", row)


class StreamTestCase(ProtocolTestCase):
    """Streams from a source whose bytes tell their position."""

    def server(self, position: int = END, version: int = 180000, **options: object) -> Server:
        """Return a server."""
        return Server(self.scripted_source(position, **options), ModernDialect(version))

    def assertWal(self, start: int, end: int, received: bytes) -> list[tuple[int, int]]:
        """Check that the WAL in *received* is exactly that; return start and size of each message."""
        position = start
        sizes = []
        for begin, _, data in wal_messages(received):
            self.assertEqual(position, begin)
            self.assertTrue(data == wal_bytes(begin, begin + len(data)), f"wrong bytes at {begin:X}")
            sizes.append((begin, len(data)))
            position += len(data)
        self.assertEqual(end, position)
        return sizes

    def assertCommand(self, client: Client) -> None:
        """Check that the session goes on, as if there had been no stream."""
        self.assertIs(State.COMMAND, client.states[-1])
        self.assertEqual(b"TDCZ", kinds(client.ask("IDENTIFY_SYSTEM")))
        self.assertEqual((STARTUP, 0), (client.entry.state, client.entry.sent_lsn))
        self.assertLegal(MODERN, client.states)


class MessageTests(StreamTestCase):
    """What goes into one XLogData."""

    def test_bytes(self) -> None:
        """A message as it stands on the wire."""
        client = self.server().streaming(0x300058)
        expected = COPY_BOTH + bytes.fromhex(
            "64 00000025"  # CopyData, length
            "77"  # w
            "0000000000300058"  # start
            "0000000000300060"  # the server's end
            "00000000000f4240"  # one second after 2000-01-01
            "5800300000000000"  # WAL
        )
        self.assertEqual(expected, client.receive())
        self.assertEqual([State.COMMAND, State.STREAMING], client.states[-2:])

    def test_sizes(self) -> None:
        """As many pages as the consumer reads at a time, to the segment's end, then to the end of WAL."""
        client = self.server().streaming(0x200000)
        sizes = self.assertWal(0x200000, END, client.receive())
        self.assertEqual([0x1E000] * 8 + [0x10000, 0x60], [size for _, size in sizes])

    def test_neverTooLarge(self) -> None:
        """No message has more than 16 pages, nor ends off a page boundary but at the end of WAL."""
        for start in (0x1FFFF9, 0x200000, 0x2FFFFF, 0x123456):
            client = self.server().streaming(start)
            for begin, size in self.assertWal(start, END, client.receive()):
                self.assertLessEqual(size, 0x20000)
                if begin + size != END:
                    self.assertEqual(0, (begin + size) % 8192)

    def test_segmentEnd(self) -> None:
        """A message ends where its segment does."""
        client = self.server().streaming(0x2FE010)
        self.assertEqual(
            [(0x2FE010, 0x1FF0), (0x300000, 0x60)], self.assertWal(0x2FE010, END, client.receive())
        )

    def test_otherPageSize(self) -> None:
        """Pages are the WAL's own."""
        client = self.server(geometry=Geometry.contiguous(MIB, 65536)).streaming(0x200010)
        for begin, size in self.assertWal(0x200010, END, client.receive()):
            self.assertLessEqual(size, 16 * 65536)
            if begin + size != END:
                self.assertEqual(0, (begin + size) % 65536)

    def test_serversEnd(self) -> None:
        """Each message says how far WAL could be sent when it began."""
        server = self.server()
        client = server.streaming(0x300000)
        server.source.grow(0x300100)
        self.assertEqual([END, 0x300100], [end for _, end, _ in wal_messages(client.receive())])

    def test_growth(self) -> None:
        """What grows is sent at once, and the entry follows."""
        server = self.server()
        client = server.streaming(0x300000)
        self.assertEqual(CATCHUP, server.streaming(0x100000).entry.state)
        client.receive()
        self.assertEqual((STREAMING, END), (client.entry.state, client.entry.sent_lsn))
        for position in (END + 1, END + 8, 0x400000, 0x400018):
            before = client.entry.sent_lsn
            server.source.grow(position)
            self.assertWal(before, position, client.receive())
            self.assertEqual(position, client.entry.sent_lsn)

    def test_oneByte(self) -> None:
        """The shortest stream has one byte."""
        client = self.server().streaming(END - 1)
        self.assertEqual([(END - 1, 1)], self.assertWal(END - 1, END, client.receive()))

    def test_beyondFourGigabytes(self) -> None:
        """Positions have 64 bits."""
        start = 0x12_FFFF_FFF8
        client = self.server(start + 16).streaming(start)
        self.assertEqual(2, len(self.assertWal(start, start + 16, client.receive())))

    def test_startAtTheEnd(self) -> None:
        """A start at the end of WAL is answered and then waits."""
        server = self.server()
        client = server.streaming(END)
        self.assertEqual(COPY_BOTH, client.receive())
        self.assertEqual(STREAMING, client.entry.state)


class RefusedStartTests(StreamTestCase):
    """Starts that fail, before CopyBothResponse and behind it."""

    def refusal(self, message_text: str, **more: str) -> bytes:
        """Return an ErrorResponse without SQLSTATE of its own."""
        return error_response(S="ERROR", V="ERROR", C="XX000", M=message_text, **more)

    def test_unknownTimeline(self) -> None:
        """Refused before COPY."""
        server = self.server()
        client = server.streaming(0x200000, 4)
        text = "requested timeline 4 is not in this server's history"
        self.assertEqual(self.refusal(text) + READY, client.receive())
        self.assertCommand(client)

    def test_behindTheFork(self) -> None:
        """A start on a historic timeline behind its end is refused before COPY, with the fork."""
        server = self.server()
        server.source.switch(2, 0x280000, END)
        client = server.streaming(0x280001, 1)
        text = "requested starting point 0/280001 on timeline 1 is not in this server's history"
        detail = "This server's history forked from timeline 1 at 0/280000."
        self.assertEqual(self.refusal(text, D=detail) + READY, client.receive())
        self.assertCommand(client)

    def test_removedSegment(self) -> None:
        """A segment that is gone is refused behind CopyBothResponse, with the earliest position."""
        server = self.server()
        server.source.remove(1)
        client = server.streaming(0x100000)
        expected = error_response(
            S="ERROR",
            V="ERROR",
            C="58P01",
            M="requested WAL segment 000000010000000000000001 has already been removed",
            D="The earliest WAL position that is held here is 0/200000.",
        )
        self.assertEqual(COPY_BOTH + expected + READY, client.receive())
        self.assertCommand(client)
        client.send(query("START_REPLICATION 0/300000"))
        self.assertWal(0x300000, END, client.receive())

    def test_removedInMidStream(self) -> None:
        """A segment that vanishes before it is needed ends COPY at a message boundary."""
        server = self.server()
        server.source.remove(3)
        client = server.streaming(0x1FE000)
        received = client.receive()
        self.assertWal(0x1FE000, 0x300000, received)
        self.assertEqual("58P01", error_fields(received)["C"])
        self.assertEqual(READY, received[-6:])
        self.assertCommand(client)

    def test_unusableSegment(self) -> None:
        """Anything else that is wrong with a file is told as it is."""
        server = self.server()
        server.source.open_error = OSError(5, "Input/output error")
        client = server.streaming(0x100000)
        answer = client.receive()
        self.assertEqual(b"WEZ", kinds(answer))
        self.assertEqual("internal error", error_fields(answer)["M"])
        self.assertEqual(1, len(self.flushLoggedErrors(OSError)))
        self.assertCommand(client)

    def test_slotsAndLogical(self) -> None:
        """What is not served here is refused before COPY."""
        server = self.server()
        for text, sqlstate in (
            ('START_REPLICATION SLOT "x" 0/300000', "42704"),
            ('START_REPLICATION SLOT "x" LOGICAL 0/300000', "0A000"),
        ):
            answer = server.started().ask(text)
            self.assertEqual(b"EZ", kinds(answer))
            self.assertEqual(sqlstate, error_fields(answer)["C"])


class TimelineTests(StreamTestCase):
    """Historic timelines."""

    def forked(self, switchpoint: int = 0x280010, version: int = 180000) -> Server:
        """Return a server whose timeline 1 ended at *switchpoint*."""
        server = self.server(version=version)
        server.source.switch(2, switchpoint, END)
        return server

    def test_toTheSwitchPoint(self) -> None:
        """WAL up to the switch point, CopyDone; behind the client's CopyDone where it goes on."""
        client = self.forked().streaming(0x200000, 1)
        received = client.receive()
        self.assertEqual(b"W", received[:1])
        self.assertEqual(COPY_DONE, received[-5:])
        self.assertWal(0x200000, 0x280010, received)
        self.assertEqual({0x280010}, {end for _, end, _ in wal_messages(received)})
        self.assertIs(State.ENDING, client.states[-1])
        client.send(COPY_DONE)
        self.assertEqual(next_timeline(b"2", b"0/280010") + STREAM_END, client.receive())
        self.assertEqual([State.STREAMING, State.ENDING, State.COMMAND], client.states[-3:])
        self.assertCommand(client)

    def test_oldResult(self) -> None:
        """Before 13 both tags are not the same, before 10 the types have no modifier."""
        client = self.forked(version=120000).streaming(0x280000, 1)
        client.receive()
        client.send(COPY_DONE)
        self.assertTrue(
            client.receive().endswith(
                bytes.fromhex("43 00000014")
                + b"START_STREAMING\0"
                + bytes.fromhex("43 0000000b")
                + b"SELECT\0"
                + READY
            )
        )

    def test_startAtTheSwitchPoint(self) -> None:
        """There is nothing to copy: the result comes without COPY."""
        client = self.forked().streaming(0x280010, 1)
        self.assertEqual(next_timeline(b"2", b"0/280010") + STREAM_END, client.receive())
        self.assertCommand(client)

    def test_newTimelineFromItsSegmentsStart(self) -> None:
        """A start before the beginning of a timeline is served."""
        client = self.forked().streaming(0x200000, 2)
        self.assertWal(0x200000, END, client.receive())

    def test_withoutTimeline(self) -> None:
        """Without a timeline the current one is meant."""
        client = self.forked().streaming(0x280020)
        self.assertWal(0x280020, END, client.receive())
        self.assertIs(State.STREAMING, client.states[-1])

    def test_switchDuringAStream(self) -> None:
        """A stream whose timeline becomes historic is finished to the switch point."""
        server = self.server()
        client = server.streaming(0x300000)
        client.receive()
        server.source.switch(2, END + 0x10, END + 0x100)
        received = client.receive()
        self.assertWal(END, END + 0x10, received)
        self.assertEqual(COPY_DONE, received[-5:])
        client.send(COPY_DONE)
        self.assertEqual(next_timeline(b"2", b"0/300070") + STREAM_END, client.receive())
        self.assertIn(b"0/300160", client.ask("IDENTIFY_SYSTEM"))
        client.send(query("START_REPLICATION 0/300000 TIMELINE 2"))
        self.assertWal(0x300000, END + 0x100, client.receive())

    def test_switchBelowWhatWasSent(self) -> None:
        """A switch point that lies below what was sent ends the stream, too."""
        server = self.server()
        client = server.streaming(0x300000)
        client.receive()
        server.source.switch(2, 0x300020, END + 0x100)
        self.assertEqual(COPY_DONE, client.receive())
        client.send(COPY_DONE)
        self.assertEqual(next_timeline(b"2", b"0/300020") + STREAM_END, client.receive())
        self.assertCommand(client)

    def test_forgottenTimeline(self) -> None:
        """A stream whose timeline is no more in the history ends with an error."""
        server = self.server()
        client = server.streaming(0x300000)
        client.receive()
        server.source.timeline = 3
        server.source.grow(END + 8)
        received = client.receive()
        self.assertEqual("requested timeline 1 is not in this server's history", error_fields(received)["M"])
        self.assertEqual(b"EZ", kinds(received))
        self.assertCommand(client)

    def test_copyDoneOnAForgottenTimeline(self) -> None:
        """A client that ends a stream whose timeline is gone gets the error in place of the result."""
        server = self.server()
        client = server.streaming(0x300000)
        client.receive()
        server.source.timeline = 3
        client.send(COPY_DONE)
        received = client.receive()
        self.assertEqual("requested timeline 1 is not in this server's history", error_fields(received)["M"])
        self.assertEqual(b"EZ", kinds(received))
        self.assertCommand(client)

    def test_copyDoneBeforeTheSwitchPoint(self) -> None:
        """A client that ends a historic stream early is told where it goes on all the same."""
        client = self.forked().streaming(0x200000, 1)
        client.transport.drain(10)
        client.send(COPY_DONE)
        received = client.receive()
        self.assertLess(len(received), 0x80010)
        self.assertTrue(received.endswith(COPY_DONE + next_timeline(b"2", b"0/280010") + STREAM_END))
        self.assertCommand(client)


class ClientsEndTests(StreamTestCase):
    """The client ends the stream, or the connection."""

    def test_copyDone(self) -> None:
        """CopyDone is answered by ours and both CommandCompletes."""
        client = self.server().streaming(END)
        client.receive()
        client.send(COPY_DONE)
        self.assertEqual(COPY_DONE + STREAM_END, client.receive())
        self.assertEqual([State.STREAMING, State.COMMAND], client.states[-2:])
        self.assertCommand(client)

    def test_copyDoneWhileCatchingUp(self) -> None:
        """It ends the stream behind the message under way."""
        client = self.server().streaming(0x100000)
        client.send(COPY_DONE)
        received = client.receive()
        self.assertTrue(received.endswith(COPY_DONE + STREAM_END))
        self.assertWal(0x100000, 0x100000 + sum(len(data) for _, _, data in wal_messages(received)), received)
        self.assertLess(len(received), 0x40000)
        self.assertCommand(client)

    def test_commandBehindCopyDone(self) -> None:
        """What follows CopyDone is the next command."""
        client = self.server().streaming(END)
        client.receive()
        client.send(COPY_DONE + query("IDENTIFY_SYSTEM") + query("START_REPLICATION 0/300058"))
        received = client.receive()
        self.assertEqual(b"cCCZTDCZWd", kinds(received))

    def test_lateReports(self) -> None:
        """Reports that were on their way when the stream ended are ignored."""
        client = self.server().streaming(END)
        client.send(COPY_DONE + status(END) + copy_data(b"h"))
        self.assertEqual(b"WcCCZ", kinds(client.receive()))
        self.assertCommand(client)

    def test_terminateInsideCopy(self) -> None:
        """X without CopyDone is no error, and may come twice."""
        server = self.server()
        client = server.streaming(END)
        client.receive()
        client.send(TERMINATE + TERMINATE, TERMINATE)
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.is_closed)
        self.assertEqual([State.STREAMING, State.CLOSED], client.states[-2:])
        self.assertEqual(0, len(server.factory.slot_table))
        self.assertEqual([], server.source.subscribers)

    def test_endOfFileInsideCopy(self) -> None:
        """End of file ends the connection."""
        server = self.server()
        client = server.streaming(0x100000)
        client.transport.deliver_eof()
        client.receive()
        self.assertTrue(client.is_closed)
        self.assertEqual((0, []), (len(server.factory.slot_table), server.source.subscribers))

    def test_reset(self) -> None:
        """A connection that is lost in mid-stream leaves nothing."""
        server = self.server()
        client = server.streaming(0x100000)
        client.transport.drain(100)
        client.transport.lose()
        self.assertEqual((0, []), (len(server.factory.slot_table), server.source.subscribers))
        self.assertEqual([], server.reactor.getDelayedCalls())
        self.assertEqual(0, server.source.open_count)

    def test_messagesThatDoNotBelongHere(self) -> None:
        """Anything but d, c and X is fatal."""
        for kind in b"QSHfPy":
            client = self.server().streaming(END)
            client.receive()
            client.send(message(bytes((kind,)), b"\0\0"))
            text = f'invalid standby message type "{chr(kind)}"'
            expected = error_response(S="FATAL", V="FATAL", C="08P01", M=text)
            self.assertEqual(expected, client.receive())
            self.assertTrue(client.is_closed)

    def test_violationWhileCatchingUp(self) -> None:
        """The refusal comes behind a whole message."""
        client = self.server().streaming(0x100000)
        client.transport.drain(10)
        client.send(query("IDENTIFY_SYSTEM"))
        messages = parse(client.receive())
        self.assertEqual(b"E", messages[-1][0])
        self.assertTrue(client.is_closed)

    def test_malformedReports(self) -> None:
        """A report that is cut off is an ERROR that ends COPY, not the session."""
        for data, text in (
            (b"", "no data left in message"),
            (b"r\0\0", "insufficient data left in message"),
            (b"h", "insufficient data left in message"),
        ):
            client = self.server().streaming(END)
            client.receive()
            client.send(copy_data(data))
            expected = error_response(S="ERROR", V="ERROR", C="08P01", M=text)
            self.assertEqual(expected + READY, client.receive())
            self.assertEqual([State.STREAMING, State.COMMAND], client.states[-2:])
            self.assertCommand(client)

    def test_malformedReportAfterOurEnd(self) -> None:
        """It is an ERROR, too, while the client's CopyDone is awaited."""
        server = self.server()
        server.source.switch(2, END)
        client = server.streaming(END - 8, 1)
        client.receive()
        client.send(copy_data(b""))
        expected = error_response(S="ERROR", V="ERROR", C="08P01", M="no data left in message")
        self.assertEqual(expected + READY, client.receive())
        self.assertEqual([State.ENDING, State.COMMAND], client.states[-2:])
        self.assertCommand(client)

    def test_unknownReport(self) -> None:
        """A report that begins with no known tag closes without a word."""
        client = self.server().streaming(END)
        client.receive()
        client.send(copy_data(b"?"))
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.is_closed)
