"""The server stops: at once, or after everything has arrived."""

from __future__ import annotations

from protocol_helpers import (
    COPY_0,
    COPY_DONE,
    READY,
    TERMINATE,
    Client,
    ProtocolTestCase,
    Server,
    copy_data,
    error_fields,
    error_response,
    keepalives,
    kinds,
    query,
    startup_packet,
    status,
    wal_messages,
)

from walsender.sender.slot_table import STOPPING
from walsender.sender.states import MODERN, State
from walsender.wire.dialect import ModernDialect

END = 0x300060

GOODBYE = error_response(
    S="FATAL", V="FATAL", C="57P01", M="terminating connection due to administrator command"
)


class ShutdownTestCase(ProtocolTestCase):
    """A server with WAL up to `END`."""

    def setUp(self) -> None:
        """Make it."""
        self.server = Server(self.scripted_source(END), ModernDialect(180000))

    def assertGone(self, client: Client, *states: State) -> None:
        """Check that nothing of the connection is left, and how it got there."""
        self.assertTrue(client.is_closed)
        self.assertEqual(0, len(self.server.factory.slot_table))
        self.assertEqual({}, self.server.source.subscribers)
        self.assertEqual([], self.server.reactor.getDelayedCalls())
        self.assertEqual(list(states), client.states[-len(states) :])
        self.assertLegal(MODERN, client.states[:-1])


class PromptTests(ShutdownTestCase):
    """End at the next message boundary."""

    def test_nobodyThere(self) -> None:
        """Without connections it is over at once."""
        self.successResultOf(self.server.factory.shut_down())

    def test_startedAgain(self) -> None:
        """Whoever opens a port of the factory again lets clients in again."""
        factory = self.server.factory
        factory.doStart()
        factory.shut_down()
        factory.doStop()
        self.assertTrue(factory.stopping)
        factory.doStart()
        self.assertFalse(factory.stopping)
        factory.doStop()

    def test_beforeStartup(self) -> None:
        """A connection that has said nothing yet is ended at once, even if a handshake is under way."""
        for drain in False, True:
            client = self.server.connect()
            client.send(startup_packet()[:5])
            gone = self.server.factory.shut_down(drain=drain)
            self.assertTrue(client.transport.aborted)
            self.assertEqual(b"", client.receive())
            self.assertGone(client, State.STARTUP, State.CLOSED)
            self.successResultOf(gone)

    def test_afterRefusal(self) -> None:
        """Nor is one waited for that has been refused and does not read why."""
        client = self.server.connect()
        client.send(startup_packet(database="other", replication="no"))
        self.assertFalse(client.transport.aborted)
        self.assertTrue(client.protocol.is_closed)
        self.server.factory.shut_down(drain=True)
        self.assertTrue(client.transport.aborted)

    def test_betweenCommands(self) -> None:
        """A connection that is not streaming gets FATAL 57P01."""
        client = self.server.started()
        gone = self.server.factory.shut_down()
        self.assertEqual(GOODBYE, client.receive())
        self.assertGone(client, State.COMMAND, State.CLOSED)
        self.successResultOf(gone)

    def test_levelStream(self) -> None:
        """A stream ends with COPY 0, without CopyDone and without ReadyForQuery."""
        client = self.server.streaming(END)
        client.receive()
        gone = self.server.factory.shut_down()
        self.assertEqual(STOPPING, client.entry.state)
        self.assertEqual(COPY_0, client.receive())
        self.assertGone(client, State.STREAMING, State.STOPPING, State.CLOSED)
        self.successResultOf(gone)

    def test_catchingUp(self) -> None:
        """The message under way is completed, the next is not begun."""
        client = self.server.streaming(0x100000)
        client.transport.drain(100)
        self.server.factory.shut_down()
        received = client.receive()
        self.assertEqual(b"WdC", kinds(received))
        self.assertEqual(COPY_0, received[-len(COPY_0) :])
        self.assertGone(client, State.STREAMING, State.STOPPING, State.CLOSED)

    def test_afterOurEnd(self) -> None:
        """While the client's CopyDone is awaited COPY 0 comes, too."""
        self.server.source.switch(2, END)
        client = self.server.streaming(END - 8, 1)
        client.receive()
        self.server.factory.shut_down()
        self.assertEqual(COPY_0, client.receive())
        self.assertGone(client, State.ENDING, State.STOPPING, State.CLOSED)

    def test_afterTheClientsEnd(self) -> None:
        """A stream that the client has just ended gets its results, and then FATAL."""
        client = self.server.streaming(0x100000)
        client.receive()
        client.send(COPY_DONE)
        self.server.factory.shut_down()
        received = client.receive()
        self.assertEqual(b"cCCZE", kinds(received))
        self.assertGone(client, State.COMMAND, State.CLOSED)

    def test_stalledClient(self) -> None:
        """A client that does not read has ten seconds for its last words."""
        client = self.server.streaming(0x100000)
        gone = self.server.factory.shut_down()
        self.server.reactor.advance(9.9)
        self.assertFalse(client.transport.aborted)
        self.server.reactor.advance(0.1)
        self.assertTrue(client.transport.aborted)
        self.assertNoResult(gone)
        client.receive()
        self.assertGone(client, State.CLOSED)
        self.successResultOf(gone)

    def test_abort(self) -> None:
        """What is left can be dropped at once."""
        clients = [self.server.connect(), self.server.started(), self.server.streaming(0x100000)]
        gone = self.server.factory.shut_down()
        self.server.factory.abort()
        for client in clients:
            self.assertTrue(client.transport.aborted)
            client.receive()
        self.assertGone(clients[-1], State.CLOSED)
        self.successResultOf(gone)

    def test_lateInput(self) -> None:
        """What a client says behind the end is not looked at."""
        client = self.server.streaming(END)
        client.receive()
        self.server.factory.shut_down()
        client.send(status(END) + COPY_DONE + query("IDENTIFY_SYSTEM") + TERMINATE)
        self.assertEqual(COPY_0, client.receive())

    def test_commandWithoutEnd(self) -> None:
        """Input that came before, but was not processed, is not processed any more."""
        client = self.server.started()
        client.send(query("SHOW ALL") * 200)
        self.server.factory.shut_down()
        received = client.receive()
        self.assertEqual(GOODBYE, received[-len(GOODBYE) :])
        self.assertLess(kinds(received).count(b"Z"), 200)


class DrainTests(ShutdownTestCase):
    """Send everything, have it confirmed, then end."""

    def drained(self, start: int = END) -> Client:
        """Return a client whose server has begun to drain."""
        client = self.server.streaming(start)
        client.receive()
        self.gone = self.server.factory.shut_down(drain=True)
        return client

    def test_notStreaming(self) -> None:
        """A connection that is not streaming is not waited for."""
        client = self.server.started()
        self.server.factory.shut_down(drain=True)
        self.assertEqual(GOODBYE, client.receive())

    def test_whoHasBeenToldItsEnd(self) -> None:
        """A client that has been refused, and does not close, is not waited for."""
        client = self.server.streaming(END)
        client.receive()
        client.transport.peer_closes = False
        client.send(query("IDENTIFY_SYSTEM"))
        client.receive()
        self.assertFalse(client.is_closed)
        gone = self.server.factory.shut_down(drain=True)
        client.receive()
        self.assertTrue(client.is_closed)
        self.successResultOf(gone)

    def test_confirmedBefore(self) -> None:
        """A standby that has confirmed everything is let go at once."""
        client = self.server.streaming(END)
        client.send(status(END, END, END))
        self.server.factory.shut_down(drain=True)
        self.assertTrue(client.receive().endswith(COPY_0))
        self.assertGone(client, State.STREAMING, State.STOPPING, State.CLOSED)

    def test_askedAndConfirmed(self) -> None:
        """A standby that has not is asked, and let go when it has flushed."""
        client = self.drained()
        self.assertEqual([(END, 1)], keepalives(client.receive()))
        self.assertEqual(STOPPING, client.entry.state)
        client.send(status(END, END - 8))
        self.assertEqual(b"", client.receive())
        client.send(status(END, END))
        self.assertEqual(COPY_0, client.receive())
        self.assertGone(client, State.STREAMING, State.STOPPING, State.CLOSED)
        self.successResultOf(self.gone)

    def test_withoutFlushPosition(self) -> None:
        """A client that reports no flush position is judged by what it has written."""
        client = self.drained()
        client.receive()
        client.send(status(END - 8))
        self.assertEqual(b"", client.receive())
        client.send(status(END))
        self.assertEqual(COPY_0, client.receive())

    def test_everythingIsSentFirst(self) -> None:
        """WAL that is there when the drain begins is sent, what grows later is not."""
        client = self.server.streaming(0x100000)
        client.transport.drain(100)
        self.server.factory.shut_down(drain=True)
        self.server.source.grow(0x400000)
        received = client.receive()
        self.assertEqual(0x200060, sum(len(data) for _, _, data in wal_messages(received)))
        self.assertEqual([(END, 1)], keepalives(received))
        client.send(status(END, END))
        self.assertEqual(COPY_0, client.receive())

    def test_asksAreLimited(self) -> None:
        """A standby that answers and does not get there is asked ten times a second at most."""
        client = self.drained()
        self.assertEqual(1, len(keepalives(client.receive())))
        asked = 0
        for _ in range(1000):
            client.send(status(END, END - 8))
            self.server.reactor.advance(0.001)
            asked += len(keepalives(client.receive()))
        self.assertIn(asked, range(9, 11))

    def test_askedAgainWithoutItsHelp(self) -> None:
        """A standby that answered too early, and says nothing by itself, is asked again."""
        client = self.drained()
        client.receive()
        client.send(status(END, END - 8))
        self.server.reactor.advance(0.1)
        self.assertEqual([(END, 1)], keepalives(client.receive()))
        self.server.reactor.advance(1)
        self.assertEqual(b"", client.receive())

    def test_promptShutdownEndsTheWaiting(self) -> None:
        """A later shutdown without drain ends at the next message boundary."""
        client = self.drained()
        client.receive()
        self.server.factory.shut_down()
        self.assertEqual(COPY_0, client.receive())
        self.assertGone(client, State.STREAMING, State.STOPPING, State.CLOSED)

    def test_silentStandby(self) -> None:
        """A standby that says nothing is given up after wal_sender_timeout."""
        client = self.drained()
        self.server.reactor.pump([15] * 4)
        client.receive()
        self.assertGone(client, State.STOPPING, State.CLOSED)

    def test_copyDone(self) -> None:
        """A client that ends the stream itself gets its results, and then FATAL."""
        client = self.drained()
        client.receive()
        client.send(COPY_DONE)
        self.assertEqual(b"cCCZE", kinds(client.receive()))
        self.assertTrue(client.is_closed)

    def test_terminate(self) -> None:
        """A client that leaves is not waited for."""
        client = self.drained()
        client.send(TERMINATE)
        client.receive()
        self.assertGone(client, State.STOPPING, State.CLOSED)

    def test_malformedReport(self) -> None:
        """An error ends the connection: there is no further command to take."""
        client = self.drained()
        client.receive()
        client.send(copy_data(b"r"))
        received = client.receive()
        self.assertEqual("08P01", error_fields(received)["C"])
        self.assertNotIn(READY, received)
        self.assertGone(client, State.STOPPING, State.CLOSED)

    def test_missingSegment(self) -> None:
        """WAL that cannot be read ends the drain."""
        self.server.source.remove(3)
        client = self.server.streaming(0x1FE000)
        client.transport.drain(10)
        self.server.factory.shut_down(drain=True)
        received = client.receive()
        self.assertEqual("58P01", error_fields(received)["C"])
        self.assertGone(client, State.STOPPING, State.CLOSED)

    def test_historicTimeline(self) -> None:
        """A stream of a historic timeline is sent to its switch point, then ends with COPY 0."""
        self.server.source.switch(2, END)
        client = self.server.streaming(0x100000, 1)
        self.server.factory.shut_down(drain=True)
        received = client.receive()
        self.assertEqual(0x200060, sum(len(data) for _, _, data in wal_messages(received)))
        self.assertEqual(COPY_0, received[-len(COPY_0) :])
        self.assertTrue(client.is_closed)

    def test_stalledClient(self) -> None:
        """A client that does not read holds the drain up until it is given up."""
        client = self.server.streaming(0x100000)
        self.server.factory.shut_down(drain=True)
        self.server.reactor.pump([15] * 4)
        self.assertTrue(client.transport.aborted)
