"""Pausing, resuming and stopping a stream: full transports and cold files."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING

from flow_helpers import END, MARK, READ, FlowTestCase
from protocol_helpers import (
    COPY_0,
    COPY_BOTH,
    COPY_DONE,
    TERMINATE,
    Client,
    Server,
    error_fields,
    keepalives,
    kinds,
    query,
    status,
)

from walsender.lsn import Geometry
from walsender.sender.states import State
from walsender.wire.dialect import FirstDialect, ModernDialect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from walsender.source import IWalSubscriber


class BackpressureTests(FlowTestCase):
    """A transport that is full."""

    def test_pauseInsideWriteStopsTheLoop(self) -> None:
        """What waits is at most the mark and one read."""
        client = self.server().streaming(0x100000)
        self.assertGreater(client.transport.buffered, MARK)
        self.assertLessEqual(client.transport.buffered, MARK + READ + 100)

    def test_manyShortStreams(self) -> None:
        """Streams that are started and ended without reading do not fill the transport one by one."""
        client = self.server().started()
        for _ in range(50):
            client.send(query("START_REPLICATION 0/100000") + COPY_DONE)
        self.assertLessEqual(client.transport.buffered, MARK + READ + 100)
        self.assertEqual(50, kinds(client.receive()).count(b"W"))

    def test_gigabyteOutstanding(self) -> None:
        """However much there is, what waits stays the same, in both dialects."""
        for dialect in (ModernDialect(180000), FirstDialect(90000, "little")):
            geometry = Geometry.contiguous(16 << 20)
            source = self.scripted_source((1 << 30) + END, geometry=geometry, sparse=True)
            server = Server(source, dialect)
            clients = [server.streaming(0x100000) for _ in range(8)]
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            before, _ = tracemalloc.get_traced_memory()
            for client in clients:
                for _ in range(50):
                    client.transport.drain(100_000)
                    client.transport.received.clear()
                    source.grow(source.flush_position + 8)
                self.assertLessEqual(client.transport.buffered, MARK + READ + 100)
            after, _ = tracemalloc.get_traced_memory()
            self.assertLess(after - before, 8 * (8 << 20))

    def test_resumeFillsAgain(self) -> None:
        """An empty transport is filled to the same mark, and not before it is empty."""
        client = self.server().streaming(0x100000)
        waiting = client.transport.buffered
        client.transport.drain(waiting - 1)
        self.assertEqual(1, client.transport.buffered)
        client.transport.drain(1)
        self.assertGreater(client.transport.buffered, MARK)
        self.assertLessEqual(client.transport.buffered, MARK + READ + 100)

    def test_everythingArrives(self) -> None:
        """However little is read at a time, all WAL arrives."""
        client = self.server().streaming(0x280000)
        received = bytearray()
        while client.transport.buffered:
            client.transport.drain(10007)
        received += client.receive()
        self.assertWal(0x280000, END, bytes(received))

    def test_growthWhilePaused(self) -> None:
        """Growth wakes nobody who is paused; it is sent when there is room."""
        server = self.server()
        client = server.streaming(0x200000)
        waiting = client.transport.buffered
        for position in range(END + 8, END + 80, 8):
            server.source.grow(position)
        self.assertEqual(waiting, client.transport.buffered)
        self.assertWal(0x200000, END + 72, client.receive())

    def test_lostWhilePaused(self) -> None:
        """A lost connection stops everything."""
        server = self.server()
        client = server.streaming(0x100000)
        client.transport.lose()
        server.source.grow(END + 8)
        self.assertFreed(server, client)

    def test_stoppedByAnotherWhoWasToldFirst(self) -> None:
        """A stream that ends while others are told of growth is told in vain."""
        server = self.server()
        ends: list[Client] = []

        class First:
            def wal_grew(self) -> None:
                ends[0].transport.lose()

        server.source.subscribe(First())
        ends.append(server.streaming(0x300000))
        ends[0].receive()
        server.source.timeline = 2
        server.source.grow(END + 8)
        self.assertIs(State.CLOSED, ends[0].states[-1])

    def test_sharedSegments(self) -> None:
        """Two standbys read the same files, each at its own pace."""
        server = self.server()
        slow, fast = server.streaming(0x200000), server.streaming(0x200000)
        self.assertWal(0x200000, END, fast.receive())
        fast.send(TERMINATE)
        fast.receive()
        self.assertWal(0x200000, END, slow.receive())
        server.source.grow(END + 8)
        self.assertWal(END, END + 8, slow.receive())

    def test_nextSegmentIsOpenedAhead(self) -> None:
        """The segment behind the one that is read is open before it is needed."""
        server = self.server()
        server.streaming(0x200000)
        self.assertEqual([2, 3], server.source.opened)


class PatienceTests(FlowTestCase):
    """Who has enough to send does not wait for what comes."""

    def test_whoIsBehindCanWait(self) -> None:
        """And when all has been sent, no longer."""
        server = self.server()
        client = server.streaming(0x100000)
        self.assertEqual([True], list(server.source.subscribers.values()))
        client.receive()
        self.assertEqual([False], list(server.source.subscribers.values()))
        server.source.grow(END + 4 * READ)
        self.assertEqual([True], list(server.source.subscribers.values()))

    def test_whatItHasNotHeardOf(self) -> None:
        """What has come meanwhile is sent all the same, at once."""
        server = self.server()
        client = server.streaming(0x100000)
        server.source.flush_position = END + 8
        self.assertWal(0x100000, END + 8, client.receive())

    def test_whatComesJustNow(self) -> None:
        """It is counted among those who wait, and asks then where WAL ends: nothing comes in between."""
        server = self.server()
        source, subscribe = server.source, server.source.subscribe
        client = server.streaming(0x100000)

        def commit_first(subscriber: IWalSubscriber, *, patient: bool = False) -> None:
            if not patient:
                source.flush_position = END + 8  # settled without us, who are not counted yet
            subscribe(subscriber, patient=patient)

        source.subscribe = commit_first  # type: ignore[method-assign]
        self.assertWal(0x100000, END + 8, client.receive())

    def test_lostWhileItSends(self) -> None:
        """Who is gone follows no more, although it has something left to send."""
        server = self.server()
        client = server.streaming(END)
        client.receive()
        write = client.transport.writeSequence

        def lose(data: Iterable[bytes]) -> None:
            write(data)
            client.transport.writeSequence = write  # type: ignore[method-assign]
            client.transport.lose()

        client.transport.writeSequence = lose  # type: ignore[method-assign]
        server.source.grow(END + 4 * READ)
        self.assertFreed(server, client)


class ColdTests(FlowTestCase):
    """WAL that is not in the page cache is read in the thread pool first."""

    def cold(self, start: int = 0x2FE000, *, end: int = 0x300000) -> tuple[Server, Client]:
        """Return a server and a client that waits for a cold read."""
        server = Server(self.scripted_source(end))
        server.factory.cold = True
        server.reactor.pool.holding = True
        client = server.streaming(start)
        self.assertEqual(COPY_BOTH, client.receive())
        self.assertEqual(1, server.reactor.pool.waiting)
        return server, client

    def test_nothingIsSentBefore(self) -> None:
        """The message comes when the range has been read."""
        server, client = self.cold()
        server.source.grow(0x300010)
        self.assertEqual(b"", client.receive())
        self.assertEqual(1, server.reactor.pool.waiting)
        server.reactor.pool.run()
        self.assertWal(0x2FE000, 0x300000, client.receive())
        server.reactor.pool.run()
        self.assertWal(0x300000, 0x300010, client.receive())

    def test_oneTripPerWindow(self) -> None:
        """A window of more than one message is warmed at a time."""
        server, client = self.cold(0x100000)
        trips = 0
        received = b""
        while server.reactor.pool.waiting:
            server.reactor.pool.run()
            trips += 1
            received += client.receive()
        self.assertWal(0x100000, 0x300000, received)
        self.assertEqual(2, trips)

    def test_reportMeanwhile(self) -> None:
        """An answer to the standby comes behind the message under way."""
        server, client = self.cold()
        client.send(status(0, reply=True))
        self.assertEqual(b"", client.receive())
        server.reactor.pool.run()
        received = client.receive()
        self.assertWal(0x2FE000, 0x300000, received)
        self.assertEqual([(0x300000, 0)], keepalives(received))

    def test_copyDoneMeanwhile(self) -> None:
        """The message under way is completed, then the stream ends."""
        server, client = self.cold()
        client.send(COPY_DONE + query("IDENTIFY_SYSTEM"))
        self.assertEqual(b"", client.receive())
        server.reactor.pool.run()
        received = client.receive()
        self.assertEqual(b"dcCCZTDCZ", kinds(received))
        self.assertWal(0x2FE000, 0x300000, received)

    def test_muchInputBehindTheEnd(self) -> None:
        """What comes behind CopyDone is kept up to a bound, and read on when the stream has ended."""
        server, client = self.cold()
        client.send(COPY_DONE, *[query("IDENTIFY_SYSTEM") * 1000] * 10)
        self.assertFalse(client.transport.reading)
        self.assertLess(client.protocol._input.pending, 128 * 1024)
        server.reactor.pool.run()
        self.assertEqual(10_001, kinds(client.receive()).count(b"Z"))

    def test_shutdownMeanwhile(self) -> None:
        """The message under way is completed, then COPY 0."""
        server, client = self.cold()
        server.factory.shut_down()
        server.reactor.pool.run()
        received = client.receive()
        self.assertEqual(b"dC", kinds(received))
        self.assertTrue(received.endswith(COPY_0))
        self.assertFreed(server, client)

    def test_drainMeanwhile(self) -> None:
        """A drain goes on behind the message under way."""
        server, client = self.cold()
        server.factory.shut_down(drain=True)
        server.reactor.pool.run()
        received = client.receive()
        self.assertEqual([(0x300000, 1)], keepalives(received))
        client.send(status(0x300000, 0x300000))
        self.assertEqual(COPY_0, client.receive())
        self.assertFreed(server, client)

    def test_terminateMeanwhile(self) -> None:
        """A client that leaves gets nothing more, and its file is closed when the read has ended."""
        server, client = self.cold()
        client.send(TERMINATE)
        self.assertEqual(b"", client.receive())
        server.reactor.pool.run()
        self.assertFreed(server, client)

    def test_lostMeanwhile(self) -> None:
        """The same of a connection that is lost."""
        server, client = self.cold()
        gc.disable()
        self.addCleanup(gc.enable)
        client.transport.lose()
        server.reactor.pool.run()
        self.assertFreed(server, client)

    def test_timeoutMeanwhile(self) -> None:
        """A read that takes too long ends with the standby's timeout, and nothing is written behind it."""
        server, client = self.cold()
        server.reactor.pump([15] * 4)
        self.assertTrue(client.transport.aborted)
        server.reactor.pool.run()
        self.assertFreed(server, client)

    def test_fullTransportMeanwhile(self) -> None:
        """A transport gets the message of a cold read, and then nothing until it is empty."""
        server, client = self.cold(0x280000)
        server.reactor.pool.run()
        self.assertLessEqual(client.transport.buffered, MARK + READ + 100)
        self.assertWal(0x280000, 0x300000, client.receive())

    def test_truncatedMeanwhile(self) -> None:
        """A file that became shorter before its message was begun is an error between messages."""
        server, client = self.cold()
        server.source.truncate(2, 0xFE800)
        server.reactor.pool.run()
        received = client.receive()
        self.assertEqual(b"EZ", kinds(received))
        self.assertEqual(
            (
                "XX001",
                "could not read from WAL segment 000000010000000000000002, offset 1040384: read 2048 of 8192",
            ),
            tuple(error_fields(received)[letter] for letter in "CM"),
        )

    def test_truncatedWithAnEndBehindIt(self) -> None:
        """If something was to follow the message, nothing can be said any more."""
        server, client = self.cold()
        client.send(COPY_DONE)
        server.source.truncate(2, 0)
        server.reactor.pool.run()
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.transport.aborted)
        self.assertFreed(server, client)
