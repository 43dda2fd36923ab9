"""What a standby says while it streams, and what is asked of it: reports, keepalives, timeouts."""

from __future__ import annotations

import struct

from protocol_helpers import (
    COPY_BOTH,
    COPY_DONE,
    Client,
    ProtocolTestCase,
    Server,
    copy_data,
    keepalives,
    kinds,
    parse,
    query,
    status,
)

from walsender.sender.states import State
from walsender.testing.memory import EPOCH
from walsender.wire.dialect import ModernDialect

END = 0x300060


class ReplyTestCase(ProtocolTestCase):
    """A standby that has everything."""

    def level(self, *, timeout: float = 60, **parameters: str) -> tuple[Server, Client]:
        """Return a server and a client that has received all WAL."""
        server = Server(self.scripted_source(END), ModernDialect(180000), wal_sender_timeout=timeout)
        client = server.streaming(END, **parameters)
        client.receive()
        return server, client


class StatusTests(ReplyTestCase):
    """Reports and their answers."""

    def test_reportIsKept(self) -> None:
        """All three positions and the standby's clock are shown."""
        _, client = self.level()
        client.send(copy_data(b"r" + struct.pack(">QQQqB", END, END - 8, END - 16, 1_500_000, 0)))
        entry = client.entry
        self.assertEqual((END, END - 8, END - 16), (entry.write_lsn, entry.flush_lsn, entry.replay_lsn))
        self.assertEqual(EPOCH + 1.5, entry.reply_time)
        self.assertEqual(b"", client.receive())

    def test_positionsMayGoBack(self) -> None:
        """The latest report counts, whatever it says."""
        _, client = self.level()
        client.send(status(END, END, END) + status(5, 4, 3))
        self.assertEqual((5, 4, 3), (client.entry.write_lsn, client.entry.flush_lsn, client.entry.replay_lsn))

    def test_replyRequested(self) -> None:
        """It is answered at once, by a keepalive that asks for nothing."""
        _, client = self.level()
        client.send(status(END, reply=True))
        expected = bytes.fromhex("64 00000016 6b 0000000000300060 00000000000f4240 00")
        self.assertEqual(expected, client.receive())

    def test_feedbackIsAccepted(self) -> None:
        """Hot standby feedback has no answer."""
        _, client = self.level()
        client.send(copy_data(b"h" + struct.pack(">qIIII", 0, 755, 0, 0, 0)))
        self.assertEqual(b"", client.receive())
        self.assertIs(State.STREAMING, client.states[-1])

    def test_entryAfterTheStream(self) -> None:
        """What was reported in a stream ends with it."""
        _, client = self.level()
        client.send(status(END, END, END) + COPY_DONE)
        client.receive()
        entry = client.entry
        self.assertEqual(
            (0, 0, 0, None), (entry.write_lsn, entry.flush_lsn, entry.replay_lsn, entry.reply_time)
        )

    def test_manyRequestsWhileNotReading(self) -> None:
        """A client that asks and does not read has at most one keepalive waiting."""
        server = Server(self.scripted_source(END), ModernDialect(180000))
        client = server.streaming(0x100000)
        self.assertGreater(client.transport.buffered, client.transport.high_water)
        before = client.transport.buffered
        for _ in range(1000):
            client.send(status(0, reply=True))
        self.assertEqual(before, client.transport.buffered)
        client.send(COPY_DONE)
        received = client.receive()
        self.assertLessEqual(len(keepalives(received)), 1)

    def test_questionIsNotLost(self) -> None:
        """A question that waits with an answer is one keepalive that asks."""
        server = Server(self.scripted_source(END), ModernDialect(180000), wal_sender_timeout=60)
        client = server.streaming(0x100000)
        server.reactor.pump([15] * 2)
        client.send(status(0, reply=True))
        received = client.receive()
        self.assertEqual([1], [asked for _, asked in keepalives(received)])

    def test_keepaliveBetweenMessages(self) -> None:
        """A keepalive that had to wait comes at the next message boundary."""
        server = Server(self.scripted_source(END), ModernDialect(180000))
        client = server.streaming(0x100000)
        client.transport.drain(1000)
        client.send(status(0, reply=True))
        messages = parse(client.receive())
        self.assertEqual([b"W", b"d", b"d"], [kind for kind, _ in messages[:3]])
        self.assertEqual([b"w", b"k", b"w"], [body[:1] for _, body in messages[1:4]])


class TimeoutTests(ReplyTestCase):
    """``wal_sender_timeout``."""

    def test_askedAtHalf(self) -> None:
        """After half of it without a word the standby is asked, once."""
        server, client = self.level(timeout=60)
        server.reactor.advance(29.9)
        self.assertEqual(b"", client.receive())
        server.reactor.advance(0.1)
        self.assertEqual([(END, 1)], keepalives(client.receive()))
        server.reactor.advance(29)
        self.assertEqual(b"", client.receive())

    def test_givenUpAtFull(self) -> None:
        """After all of it the connection is dropped without a word, and its place is free."""
        server, client = self.level(timeout=60)
        server.reactor.advance(30)
        client.receive()
        server.reactor.advance(29.9)
        self.assertFalse(client.transport.aborted)
        server.reactor.advance(0.1)
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.is_closed)
        self.assertEqual(0, len(server.factory.slot_table))
        self.assertEqual([], server.reactor.getDelayedCalls())

    def test_ourOwnStall(self) -> None:
        """Time in which we stood still ourselves does not end a connection: the standby is asked first."""
        server, client = self.level(timeout=60)
        server.reactor.advance(1000)
        self.assertEqual([(END, 1)], keepalives(client.receive()))
        client.send(status(END, END))
        server.reactor.advance(29)
        self.assertFalse(client.is_closed)

    def test_heldInputIsNoSignOfLife(self) -> None:
        """A client that ends its stream and reads nothing cannot stay by dribbling bytes."""
        server = Server(self.scripted_source(END), ModernDialect(180000))
        client = server.streaming(0x100000)
        client.send(COPY_DONE)
        for _ in range(20):
            server.reactor.advance(5)
            client.send(b"Q")
        client.receive()
        self.assertTrue(client.is_closed)

    def test_anythingResets(self) -> None:
        """Any input counts, not only a reply."""
        server, client = self.level(timeout=60)
        for sent in (status(END), copy_data(b"h" + bytes(24)), b"d"):
            server.reactor.pump([10] * 3)
            self.assertEqual([(END, 1)], keepalives(client.receive()), repr(sent))
            server.reactor.advance(25)
            client.send(sent)
            self.assertEqual(b"", client.receive())
        server.reactor.pump([10] * 3)
        self.assertEqual(1, len(keepalives(client.receive())))

    def test_askedAgainAfterAReply(self) -> None:
        """A standby that answers is asked every half timeout, for ever."""
        server, client = self.level(timeout=4)
        for _ in range(20):
            server.reactor.advance(2)
            self.assertEqual([(END, 1)], keepalives(client.receive()))
            client.send(status(END, END))
        self.assertFalse(client.transport.aborted)

    def test_sentWalDoesNotReset(self) -> None:
        """Time is measured from what is received, not from what is sent."""
        server, client = self.level(timeout=60)
        for step in range(1, 7):
            server.reactor.advance(10)
            server.source.grow(END + 8 * step)
            client.transport.drain()
        client.receive()
        self.assertTrue(client.is_closed)

    def test_off(self) -> None:
        """0 switches it off."""
        server, client = self.level(timeout=0)
        server.reactor.advance(1_000_000)
        self.assertEqual(b"", client.receive())
        self.assertFalse(client.is_closed)

    def test_perConnection(self) -> None:
        """A client may choose its own."""
        server, client = self.level(options="-c wal_sender_timeout=4s")
        server.reactor.advance(2)
        self.assertEqual([(END, 1)], keepalives(client.receive()))
        server.reactor.advance(2)
        client.receive()
        self.assertTrue(client.is_closed)
        server, client = self.level(timeout=4, options="-c wal_sender_timeout=0")
        server.reactor.advance(1000)
        self.assertFalse(client.transport.aborted)

    def test_stalledClient(self) -> None:
        """A client that neither reads nor writes is given up, with what waits for it."""
        server = Server(self.scripted_source(END), ModernDialect(180000), wal_sender_timeout=60)
        client = server.streaming(0x100000)
        server.reactor.pump([10] * 6)
        self.assertTrue(client.transport.aborted)
        self.assertEqual([COPY_BOTH[:0]], [client.receive()])
        self.assertEqual(0, len(server.factory.slot_table))

    def test_afterOurEnd(self) -> None:
        """While the client's CopyDone is awaited nothing is asked, but silence still ends it."""
        server = Server(self.scripted_source(END), ModernDialect(180000), wal_sender_timeout=60)
        server.source.switch(2, END)
        client = server.streaming(END - 8, 1)
        self.assertEqual(b"Wdc", kinds(client.receive()))
        server.reactor.advance(30)
        self.assertEqual(b"", client.receive())
        server.reactor.advance(30)
        client.receive()
        self.assertTrue(client.is_closed)

    def test_noTimeoutBetweenStreams(self) -> None:
        """It holds for streams only, and for the next one again."""
        server, client = self.level(timeout=60)
        client.send(COPY_DONE)
        client.receive()
        server.reactor.advance(1000)
        self.assertFalse(client.transport.aborted)
        client.send(query("START_REPLICATION 0/300060"))
        client.receive()
        server.reactor.advance(30)
        self.assertEqual(1, len(keepalives(client.receive())))
