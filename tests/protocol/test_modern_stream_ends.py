"""How a modern stream ends: historic timelines, CopyDone, good-byes and violations."""

from __future__ import annotations

from protocol_helpers import (
    COPY_DONE,
    READY,
    TERMINATE,
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
from stream_helpers import END, STREAM_END, StreamTestCase, next_timeline

from walsender.sender.states import State


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
        self.assertEqual({}, server.source.subscribers)

    def test_endOfFileInsideCopy(self) -> None:
        """End of file ends the connection."""
        server = self.server()
        client = server.streaming(0x100000)
        client.transport.deliver_eof()
        client.receive()
        self.assertTrue(client.is_closed)
        self.assertEqual((0, {}), (len(server.factory.slot_table), server.source.subscribers))

    def test_reset(self) -> None:
        """A connection that is lost in mid-stream leaves nothing."""
        server = self.server()
        client = server.streaming(0x100000)
        client.transport.drain(100)
        client.transport.lose()
        self.assertEqual((0, {}), (len(server.factory.slot_table), server.source.subscribers))
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

    def test_untilTheClientHasHeard(self) -> None:
        """Behind a refusal what comes is dropped; the client closes, or it is cut off."""
        for closes in (True, False):
            server = self.server()
            client = server.streaming(END)
            client.receive()
            client.transport.peer_closes = False
            client.send(query("IDENTIFY_SYSTEM"))
            self.assertEqual(b"E", kinds(client.receive()))
            self.assertTrue(client.transport.half_closed)
            client.send(status(END), query("IDENTIFY_SYSTEM"), b"\0" * 100_000)
            self.assertEqual(b"", client.receive())
            self.assertFalse(client.is_closed)
            if closes:
                client.transport.deliver_eof()
            else:
                server.reactor.advance(9.9)
                self.assertFalse(client.transport.aborted)
                server.reactor.advance(0.1)
                self.assertTrue(client.transport.aborted)
            self.assertEqual(b"", client.receive())
            self.assertTrue(client.is_closed)
            self.assertEqual([], server.reactor.getDelayedCalls())

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
