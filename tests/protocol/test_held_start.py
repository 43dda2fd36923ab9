"""A start a little ahead of the end of WAL is held; PostgreSQL's own error comes when that was in vain."""

from __future__ import annotations

from protocol_helpers import (
    COPY_0,
    COPY_BOTH,
    COPY_DONE,
    READY,
    Client,
    Server,
    error_response,
    keepalives,
    kinds,
    status,
    wal_messages,
)
from raw_dialect_helpers import REPLYING, VERSIONS
from stream_helpers import END, MIB, STREAM_END, StreamTestCase

from walsender.lsn import LSN
from walsender.sender.slot_table import CATCHUP, STREAMING
from walsender.sender.states import State
from walsender.testing.source import wal_bytes
from walsender.wire.dialect import dialect_of

AHEAD = 0x300100  # by 160 bytes


def ahead_of_flush(start: int, flush: int) -> bytes:
    """Return PostgreSQL's error."""
    return error_response(
        S="ERROR",
        V="ERROR",
        C="XX000",
        M=f"requested starting point {LSN(start)} is ahead of the WAL flush position of this server "
        f"{LSN(flush)}",
    )


class HeldStartTestCase(StreamTestCase):
    """Asks for WAL that is not there yet."""

    def held(self, start: int = AHEAD, **options: object) -> tuple[Server, Client]:
        """Return a server and a client that has got CopyBothResponse and nothing else."""
        server = Server(self.scripted_source(END), **options)
        client = server.streaming(start)
        self.assertEqual(COPY_BOTH, client.receive())
        return server, client


class WaitingTests(HeldStartTestCase):
    """While it lasts."""

    def test_walFromExactlyThere(self) -> None:
        """What lies before the start is not sent, what lies behind it at once."""
        server, client = self.held()
        server.source.grow(AHEAD - 8)
        self.assertEqual(b"", client.receive())
        server.source.grow(AHEAD + 16)
        ((start, end, data),) = wal_messages(client.receive())
        self.assertEqual((AHEAD, AHEAD + 16), (start, end))
        self.assertEqual(wal_bytes(AHEAD, AHEAD + 16), data)

    def test_limit(self) -> None:
        """One segment ahead is held, one byte more is refused at once, and the session goes on."""
        _, client = self.held(END + MIB)
        self.assertIs(State.STREAMING, client.states[-1])
        server = Server(self.scripted_source(END))
        client = server.streaming(END + MIB + 1)
        self.assertEqual(COPY_BOTH + ahead_of_flush(END + MIB + 1, END) + READY, client.receive())
        self.assertCommand(client)

    def test_state(self) -> None:
        """It is catching up until the position is reached, exactly or beyond."""
        for grown in (AHEAD, AHEAD + 100):
            server, client = self.held()
            self.assertEqual(CATCHUP, client.entry.state)
            self.assertTrue(client.protocol._stream.is_held)  # type: ignore[union-attr]
            server.source.grow(AHEAD - 1)
            client.receive()
            self.assertEqual(CATCHUP, client.entry.state)
            server.source.grow(grown)
            client.receive()
            self.assertEqual(STREAMING, client.entry.state)
            self.assertFalse(client.protocol._stream.is_held)  # type: ignore[union-attr]

    def test_keepalives(self) -> None:
        """The standby is asked for signs of life, and answered."""
        server, client = self.held()
        client.send(status(END, reply=True))
        self.assertEqual([(AHEAD, 0)], keepalives(client.receive()))
        server.reactor.advance(30)
        self.assertEqual([(AHEAD, 1)], keepalives(client.receive()))
        server.source.grow(AHEAD + 16)
        self.assertEqual(b"d", kinds(client.receive()))

    def test_noErrorOnceReached(self) -> None:
        """When the position has been reached, time does not matter any more."""
        for grown in (AHEAD, AHEAD + 16):
            server, client = self.held()
            server.source.grow(grown)
            client.receive()
            for _ in range(10):
                client.send(status(grown))
                server.reactor.advance(20)
                self.assertNotIn(b"E", kinds(client.receive()))

    def test_copyDone(self) -> None:
        """The client may end it as any stream, and nothing comes after it."""
        server, client = self.held()
        client.send(COPY_DONE)
        self.assertEqual(COPY_DONE + STREAM_END, client.receive())
        server.reactor.advance(100)
        self.assertEqual(b"", client.receive())
        self.assertCommand(client)
        self.assertEqual([], server.reactor.getDelayedCalls())

    def test_lostClient(self) -> None:
        """A client that goes leaves no timer behind."""
        server, client = self.held()
        client.transport.lose()
        self.assertEqual([], server.reactor.getDelayedCalls())
        self.assertEqual({}, server.source.subscribers)


class EndTests(HeldStartTestCase):
    """When it was in vain."""

    def wait(self, server: Server, client: Client, seconds: int) -> None:
        """Let time go by, with a standby that reports every ten seconds."""
        for _ in range(seconds // 10):
            client.send(status(END))
            server.reactor.advance(10)

    def test_expired(self) -> None:
        """After wal_sender_timeout: the error names the position of that moment, and the session goes on."""
        for timeout, seconds in ((60.0, 60), (20.0, 20), (0.0, 60)):
            server, client = self.held(wal_sender_timeout=timeout)
            server.source.grow(END + 8)
            self.wait(server, client, seconds - 10)
            self.assertNotIn(b"E", kinds(client.receive()))
            self.wait(server, client, 10)
            expected = ahead_of_flush(AHEAD, END + 8) + READY
            self.assertEqual(expected, client.receive()[-len(expected) :])
            self.assertCommand(client)

    def test_again(self) -> None:
        """After it the client may ask again, and is held again."""
        server, client = self.held()
        self.wait(server, client, 60)
        client.receive()
        self.assertEqual(COPY_BOTH, client.ask(f"START_REPLICATION {LSN(AHEAD)}"))
        server.source.grow(AHEAD + 16)
        self.assertEqual(1, len(wal_messages(client.receive())))

    def test_timelineLeftBelow(self) -> None:
        """The timeline was left before the start: that is said at once, and the session goes on."""
        server, client = self.held()
        server.source.switch(2, AHEAD - 8, AHEAD + 1000)
        refusal = error_response(
            S="ERROR",
            V="ERROR",
            C="XX000",
            M="requested starting point 0/300100 on timeline 1 is not in this server's history",
            D="This server's history forked from timeline 1 at 0/3000F8.",
        )
        self.assertEqual(refusal + READY, client.receive())
        self.assertCommand(client)
        server.reactor.advance(100)
        self.assertEqual(b"", client.receive())

    def test_timelineLeftThere(self) -> None:
        """The timeline was left at the start or behind it: the stream ends as it should."""
        for switchpoint, expected in ((AHEAD, b"c"), (AHEAD + 8, b"dc")):
            server, client = self.held()
            server.source.switch(2, switchpoint, AHEAD + 1000)
            self.assertEqual(expected, kinds(client.receive()))
            client.send(COPY_DONE)
            self.assertEqual(b"TDCCZ", kinds(client.receive()))
            self.assertCommand(client)

    def test_drain(self) -> None:
        """Nothing is outstanding, and nobody is waited for."""
        server, client = self.held()
        gone = server.factory.shut_down(drain=True)
        self.assertEqual(COPY_0, client.receive())
        self.assertTrue(client.is_closed)
        self.successResultOf(gone)
        self.assertEqual([], server.reactor.getDelayedCalls())

    def test_shutDown(self) -> None:
        """It ends as any stream."""
        server, client = self.held()
        server.factory.shut_down()
        self.assertEqual(COPY_0, client.receive())
        self.assertTrue(client.is_closed)


class OlderDialectTests(StreamTestCase):
    """Before 9.3 any start ahead waits, without limit."""

    def test_noLimit(self) -> None:
        """Neither distance nor time."""
        for version in VERSIONS:
            server = Server(self.scripted_source(END), dialect_of(version, "little"), wal_sender_timeout=0)
            client = server.streaming(END + 5 * MIB)
            self.assertEqual(1, len(kinds(client.receive())))
            server.reactor.advance(1000)
            self.assertEqual(b"", client.receive())
            server.source.grow(END + 5 * MIB + 8)
            self.assertEqual(b"d", kinds(client.receive()))

    def test_drain(self) -> None:
        """A drain does not wait for one that is ahead."""
        for version in REPLYING:
            server = Server(self.scripted_source(END), dialect_of(version, "little"))
            client = server.streaming(END + 8)
            client.receive()
            server.factory.shut_down(drain=True)
            self.assertEqual(COPY_0, client.receive())
            self.assertTrue(client.is_closed)
