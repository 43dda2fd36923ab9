"""Streams that let the thread of the commits send to their sockets: before, meanwhile and after."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any, Final

from kernel_consumer_helpers import Peer
from protocol_helpers import COPY_DONE, keepalives, kinds, query, startup_packet, status, wal_messages
from stream_helpers import StreamTestCase

from walsender.sender.transport_consumer import TransportConsumer
from walsender.source import NewestWal, Permit
from walsender.source.permits import MOST, Permits
from walsender.testing.source import wal_bytes
from walsender.wire.dialect import ModernDialect

END: Final = 0x300060
LEVEL: Final = END + 8
DATA: Final = b"next WAL"
AFTER: Final = LEVEL + len(DATA)


class PermitTestCase(StreamTestCase):
    """A client that is level, and whose stream has given a permit."""

    def peer(self) -> Peer:
        """Return it."""
        source = self.scripted_source(END)
        source.permits = Permits()
        peer = Peer(source, ModernDialect(180000))
        self.addCleanup(peer.close)
        peer.transport.deliver(startup_packet())
        peer.run()
        peer.transport.deliver(query("START_REPLICATION 0/300060"))
        peer.run()
        source.grow(LEVEL)  # who has read nothing yet has no file open
        peer.run()
        self.assertEqual(1, len(self.standing(peer)))
        return peer

    @staticmethod
    def standing(peer: Peer) -> list[Permit]:
        """Return the permits that stand."""
        return list(peer.source.permits._standing)

    def entry(self, peer: Peer) -> Any:
        """Return the client's entry in the slot table."""
        (entry,) = peer.factory.slot_table
        return entry

    def fill(self, peer: Peer) -> None:
        """Leave no room in the socket, behind the stream's back."""
        try:
            while True:
                peer.protocol._stream._consumer._socket.send(bytes(64))
        except BlockingIOError:
            pass

    def drain(self, peer: Peer) -> None:
        """Take what `fill` has sent."""
        while data := peer.read():
            self.assertEqual(b"", data.strip(b"\0"))
        peer.received = b""


class SentTests(PermitTestCase):
    """What the thread sends."""

    def test_sentBeforeTheReactorHears(self) -> None:
        """WAL is with the client when nobody but the thread has done anything, and once only."""
        peer = self.peer()
        peer.source.flush(DATA)
        self.assertEqual([(LEVEL, AFTER, DATA)], wal_messages(peer.read()))
        peer.source.grow(AFTER)
        self.assertEqual(AFTER, self.entry(peer).sent_lsn)
        peer.source.grow_at_hand(DATA)
        after = (AFTER, AFTER + len(DATA), DATA)
        self.assertEqual([(LEVEL, AFTER, DATA), after], wal_messages(peer.run()))

    def test_oneAfterTheOther(self) -> None:
        """Commits of which the reactor hears one by one."""
        peer = self.peer()
        for number in range(5):
            newest = peer.source.flush(DATA)
            self.assertEqual([(newest.start, newest.end, DATA)], wal_messages(peer.read()), number)
            peer.source.grow(newest.end)

    def test_onAndOn(self) -> None:
        """One permit is enough for commits of which the reactor does not hear; nothing comes twice."""
        peer = self.peer()
        (permit,) = self.standing(peer)
        for number in range(3):
            begin = LEVEL + number * len(DATA)
            permit.use(NewestWal(1, begin, DATA))
            self.assertEqual([(begin, begin + len(DATA), DATA)], wal_messages(peer.read()))
        end = LEVEL + 3 * len(DATA)
        for position in (AFTER, end):  # the reactor hears of them by and by
            peer.source.grow(position)
            self.assertEqual((b"", end), (peer.read(), self.entry(peer).sent_lsn))
        newest = peer.source.flush(DATA)
        self.assertEqual([(end, newest.end, DATA)], wal_messages(peer.read()))

    def test_notBehindARest(self) -> None:
        """While something that was begun is not sent, nothing comes behind it but from the reactor."""
        peer = self.peer()
        (permit,) = self.standing(peer)
        data = wal_bytes(LEVEL, LEVEL + (60 << 10))
        permit.use(NewestWal(1, LEVEL, data))
        begun = peer.read()
        self.assertLess(len(begun), len(data))
        permit.use(NewestWal(1, LEVEL + len(data), DATA))
        peer.source.grow(LEVEL + len(data))
        self.assertEqual([(LEVEL, LEVEL + len(data), data)], wal_messages(peer.run()))

    def test_wrongWalIsNotSent(self) -> None:
        """What is of another timeline, does not come next, or goes into the next file is left alone."""
        peer = self.peer()
        for newest in (
            NewestWal(2, LEVEL, DATA),
            NewestWal(1, LEVEL + 8, DATA),
            NewestWal(1, LEVEL - 8, DATA),
            NewestWal(1, LEVEL, bytes(1 << 20)),
        ):
            peer.source.permits.use(newest)
            self.assertEqual(b"", peer.read())
        self.assertEqual(1, len(self.standing(peer)))

    def test_aPart(self) -> None:
        """What the socket does not take at once comes behind it, before anything else."""
        peer = self.peer()
        data = wal_bytes(LEVEL, LEVEL + (60 << 10))
        peer.source.flush(data)
        self.assertLess(len(peer.read()), len(data))
        peer.source.grow(LEVEL + len(data))
        peer.protocol._stream._ask_for_reply()
        received = peer.run()
        self.assertEqual([(LEVEL, LEVEL + len(data), data)], wal_messages(received))
        self.assertEqual(b"dd", kinds(received))

    def test_noRoom(self) -> None:
        """A socket that takes nothing gets all of it from the reactor."""
        peer = self.peer()
        self.fill(peer)
        peer.source.flush(DATA)
        peer.source.grow(AFTER)
        self.drain(peer)
        self.assertEqual([(LEVEL, AFTER, DATA)], wal_messages(peer.run()))

    def test_brokenConnection(self) -> None:
        """A client that is gone is found to be gone by the reactor, and its entry is free."""
        peer = self.peer()
        peer.socket.close()
        peer.source.flush(DATA)
        self.assertFalse(peer.transport.aborted)
        peer.source.grow(AFTER)
        self.assertTrue(peer.transport.aborted)
        peer.transport.drain()
        self.assertEqual(0, len(peer.factory.slot_table))
        self.assertEqual([], self.standing(peer))

    def test_theReportComesFirst(self) -> None:
        """A client may report WAL before the reactor has heard of the commit: its lag is that of this WAL."""
        peer = self.peer()
        peer.source.flush(DATA)
        peer.reactor.advance(0.05)
        peer.transport.deliver(status(AFTER, AFTER, AFTER))
        entry = self.entry(peer)
        self.assertEqual((AFTER, AFTER), (entry.sent_lsn, entry.flush_lsn))
        self.assertAlmostEqual(0.05, entry.flush_lag)
        peer.source.grow(AFTER)
        peer.reactor.advance(10)
        peer.transport.deliver(status(AFTER, AFTER, AFTER))
        self.assertIsNone(entry.flush_lag)

    def test_atMostSoMany(self) -> None:
        """A thread that sends to all would keep the next commit waiting."""
        source = self.scripted_source(END)
        source.permits = Permits()
        for _ in range(MOST + 2):
            source.permits.add(Permit(1, LEVEL, AFTER, lambda newest: newest.data, float))
            if not source.permits.wanted:
                break
        self.assertEqual(MOST, len(source.permits._standing))


class WithdrawnTests(PermitTestCase):
    """What comes between the permit and its use."""

    def assertUnused(self, peer: Peer, permit: Permit) -> None:
        """Check that nothing is sent by *permit* any more."""
        while peer.read():
            pass
        permit.use(NewestWal(1, LEVEL, DATA))
        self.assertEqual(b"", peer.read())

    def test_keepalive(self) -> None:
        """The reactor has something to say: there is a new permit behind it, and the old one is void."""
        peer = self.peer()
        (permit,) = self.standing(peer)
        peer.protocol._stream._ask_for_reply()
        self.assertEqual([(LEVEL, 1)], keepalives(peer.read()))
        self.assertUnused(peer, permit)
        peer.source.flush(DATA)
        self.assertEqual([(LEVEL, AFTER, DATA)], wal_messages(peer.read()))

    def test_keepaliveBehindWhatWasSent(self) -> None:
        """A keepalive after the thread has sent, before the reactor has heard of it, names that."""
        peer = self.peer()
        peer.source.flush(DATA)
        peer.protocol._stream._ask_for_reply()
        received = peer.run()
        self.assertEqual([(LEVEL, AFTER, DATA)], wal_messages(received))
        self.assertEqual([(AFTER, 1)], keepalives(received))

    def test_end(self) -> None:
        """CopyDone, an error and a shutdown come behind what has been sent, and no permit outlives them."""
        for end, said in (
            (lambda peer: peer.transport.deliver(COPY_DONE), b"dcCCZ"),
            (lambda peer: peer.protocol._stream._slot_invalidated(), b"dE"),
            (lambda peer: peer.protocol._stream.shut_down(), b"dC"),
        ):
            peer = self.peer()
            (permit,) = self.standing(peer)
            peer.source.flush(DATA)
            end(peer)
            received = peer.run()
            self.assertEqual(said, kinds(received))
            self.assertEqual([(LEVEL, AFTER, DATA)], wal_messages(received))
            self.assertEqual([], self.standing(peer))
            self.assertUnused(peer, permit)

    def test_endBefore(self) -> None:
        """What has ended before the flush is sent nothing of it."""
        for end in (
            lambda peer: peer.transport.deliver(COPY_DONE),
            lambda peer: peer.protocol._stream.shut_down(),
            lambda peer: peer.transport.lose(),
        ):
            peer = self.peer()
            (permit,) = self.standing(peer)
            end(peer)
            peer.run()
            self.assertEqual([], self.standing(peer))
            self.assertUnused(peer, permit)

    def test_drain(self) -> None:
        """A drain takes what has been sent for what is to be confirmed."""
        peer = self.peer()
        peer.source.flush(DATA)
        peer.protocol._stream.drain()
        peer.transport.deliver(status(LEVEL, LEVEL, LEVEL))
        self.assertNotIn(b"C", kinds(peer.run()))
        peer.transport.deliver(status(AFTER, AFTER, AFTER))
        self.assertIn(b"C", kinds(peer.run()))

    def test_anothersDescriptor(self) -> None:
        """A connection is closed and its number is another's: that gets nothing."""
        peer = self.peer()
        (permit,) = self.standing(peer)
        number = peer.protocol._stream._consumer.fileno()
        ours, other = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(other.close)
        peer.transport.lose()
        os.dup2(other.fileno(), number)
        self.addCleanup(os.close, number)
        ours.setblocking(False)
        permit.use(NewestWal(1, LEVEL, DATA))
        self.assertRaises(BlockingIOError, ours.recv, 100)

    def test_closingWaitsForTheThread(self) -> None:
        """A connection is not closed while the thread is inside its call."""
        peer = self.peer()
        (permit,) = self.standing(peer)
        begun, go_on = threading.Event(), threading.Event()
        consumer = peer.protocol._stream._consumer
        descriptors = []

        def send(data: bytes) -> int:
            begun.set()
            go_on.wait(30)
            descriptors.append(consumer.fileno())
            return len(data)

        permit.send = send
        thread = threading.Thread(target=permit.use, args=[NewestWal(1, LEVEL, DATA)])
        thread.start()
        self.assertTrue(begun.wait(30))
        closing = threading.Thread(target=consumer.close)
        closing.start()
        go_on.set()
        thread.join(30)
        closing.join(30)
        self.assertEqual(1, len(descriptors))
        self.assertNotEqual(-1, descriptors[0])

    def test_othersDoNotLend(self) -> None:
        """A stream through a transport gives no permit; nor does one with something left to send."""
        server = self.server()
        server.source.permits = Permits()
        client = server.streaming(END - 8)
        client.receive()
        self.assertIsInstance(client.protocol._stream._consumer, TransportConsumer)
        self.assertTrue(server.source.permits.wanted)
        self.assertEqual({}, server.source.permits._standing)
        peer = self.peer()
        self.fill(peer)
        peer.source.grow(AFTER)
        self.assertEqual([], self.standing(peer))
        self.drain(peer)
        peer.run()
        peer.source.grow(AFTER + 8)
        self.assertEqual(1, len(self.standing(peer)))
