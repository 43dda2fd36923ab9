"""What the slot table says of a standby: catchup and streaming, lags, hot standby feedback."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kernel_consumer_helpers import Peer
from protocol_helpers import (
    COPY_DONE,
    Client,
    ProtocolTestCase,
    Server,
    copy_data,
    query,
    startup_packet,
    status,
)

from walsender.sender.slot_table import CATCHUP, STARTUP, STOPPING, STREAMING
from walsender.wire.dialect import ModernDialect, dialect_of

if TYPE_CHECKING:
    from walsender.testing.source import ScriptedSource

END = 0x300060


def feedback(xmin: int, epoch: int, catalog_xmin: int = 0, catalog_epoch: int = 0) -> bytes:
    """Return a CopyData with hot standby feedback as of 10 and later."""
    return copy_data(b"h" + struct.pack(">qIIII", 0, xmin, epoch, catalog_xmin, catalog_epoch))


class CatchupTests(ProtocolTestCase):
    """A standby is streaming when nothing is unsent and nothing waits in our buffers."""

    def connected(self, start: int) -> tuple[ScriptedSource, Client]:
        """Return a source, and a client that has asked for WAL and read nothing of the answer."""
        source = self.scripted_source(END)
        return source, Server(source).streaming(start)

    def test_levelFromTheStart(self) -> None:
        """Even a standby that lacks nothing is catching up until it has been told that the stream begins."""
        _, client = self.connected(END)
        self.assertEqual(CATCHUP, client.entry.state)
        client.receive()
        self.assertEqual(STREAMING, client.entry.state)

    def test_unreadWal(self) -> None:
        """All has been given to the transport, some of it is still there."""
        _, client = self.connected(END - 1000)
        self.assertEqual((END, CATCHUP), (client.entry.sent_lsn, client.entry.state))
        client.transport.drain(100)
        self.assertEqual(CATCHUP, client.entry.state)
        client.receive()
        self.assertEqual(STREAMING, client.entry.state)

    def test_fullBuffer(self) -> None:
        """It makes no difference whether the transport has been full."""
        _, client = self.connected(0x100000)
        self.assertGreater(client.transport.buffered, client.transport.high_water)
        self.assertEqual(CATCHUP, client.entry.state)
        client.receive()
        self.assertEqual((END, STREAMING), (client.entry.sent_lsn, client.entry.state))

    def test_growthMeanwhile(self) -> None:
        """What comes while the last of it is on its way must have gone as well, and is sent only then."""
        source, client = self.connected(END - 1000)
        source.grow(END + 1000)
        self.assertEqual(END, client.entry.sent_lsn)
        before = client.transport.buffered
        while client.entry.sent_lsn == END:
            self.assertEqual(CATCHUP, client.entry.state)
            client.transport.drain(200)
        self.assertGreater(before, 1000)
        self.assertEqual((END + 1000, CATCHUP), (client.entry.sent_lsn, client.entry.state))
        client.receive()
        self.assertEqual(STREAMING, client.entry.state)

    def test_backpressureIsKept(self) -> None:
        """After the change a full transport pauses the stream as before."""
        source, client = self.connected(END)
        client.receive()
        source.grow(END + (4 << 20))
        self.assertLess(client.transport.buffered, 256 << 10)
        client.receive()
        self.assertEqual(END + (4 << 20), client.entry.sent_lsn)

    def test_neverGoesBack(self) -> None:
        """A standby that falls behind again is streaming all the same; a new stream begins anew."""
        source, client = self.connected(END)
        client.receive()
        source.grow(END + (4 << 20))
        self.assertEqual(STREAMING, client.entry.state)
        client.receive()
        client.send(COPY_DONE)
        client.receive()
        self.assertEqual(STARTUP, client.entry.state)
        client.send(query("START_REPLICATION 0/300000"))
        self.assertEqual(CATCHUP, client.entry.state)

    def test_stopping(self) -> None:
        """A drain is shown, and the end of catching up does not hide it."""
        source = self.scripted_source(END)
        server = Server(source)
        client = server.streaming(0x100000)
        server.factory.shut_down(drain=True)
        self.assertEqual(STOPPING, client.entry.state)
        client.transport.drain_all()
        self.assertEqual((END, STOPPING), (client.entry.sent_lsn, client.entry.state))

    def test_endWhileTheLastIsOnItsWay(self) -> None:
        """The client may leave, or be lost, or the server stop, while its buffer is not empty yet."""
        for end in (
            lambda server, client: client.send(COPY_DONE),
            lambda server, client: client.transport.lose(),
            lambda server, client: server.factory.shut_down(),
            lambda server, client: server.factory.abort(),
        ):
            source = self.scripted_source(END)
            server = Server(source)
            client = server.streaming(END - 1000)
            end(server, client)
            client.receive()
            self.assertEqual({}, source.subscribers)

    def test_sendfile(self) -> None:
        """The kernel consumer knows by itself."""
        source = self.scripted_source(END)
        peer = Peer(source, ModernDialect(180000))
        self.addCleanup(peer.close)
        peer.transport.deliver(startup_packet())
        peer.run()
        peer.transport.deliver(query("START_REPLICATION 0/100000"))
        entry = peer.protocol.session.entry  # type: ignore[union-attr]
        self.assertEqual(CATCHUP, entry.state)
        peer.turn()
        self.assertEqual(CATCHUP, entry.state)
        peer.run()
        self.assertEqual((END, STREAMING), (entry.sent_lsn, entry.state))


class LagTests(ProtocolTestCase):
    """Lags in the table; how they are computed is tested with `walsender.sender.lag`."""

    def level(self) -> tuple[Server, Client]:
        """Return a server and a client that has all and has said so twice."""
        server = Server(self.scripted_source(END))
        client = server.streaming(END)
        client.receive()
        client.send(status(END, END, END) + status(END, END, END))
        return server, client

    def lags(self, client: Client) -> tuple[float | None, float | None, float | None]:
        """Return what is shown."""
        return client.entry.write_lag, client.entry.flush_lag, client.entry.replay_lag

    def test_fromGrowthToReply(self) -> None:
        """The time from when WAL may be sent to when the standby has written, flushed, replayed it."""
        server, client = self.level()
        self.assertEqual((None, None, None), self.lags(client))
        server.source.grow(END + 100)
        client.receive()
        server.reactor.advance(0.5)
        client.send(status(END + 100, END, END))
        self.assertEqual((0.5, 0.5, 0.5), self.lags(client))
        server.reactor.advance(0.25)
        client.send(status(END + 100, END + 100, END))
        self.assertEqual((0.5, 0.75, 0.75), self.lags(client))
        server.reactor.advance(1)
        client.send(status(END + 100, END + 100, END + 100))
        self.assertEqual((0.5, 0.75, 1.75), self.lags(client))

    def test_idle(self) -> None:
        """When nothing happens any more, nothing is shown."""
        server, client = self.level()
        server.source.grow(END + 100)
        server.reactor.advance(1)
        client.send(status(END + 100, END + 100, END + 100))
        self.assertEqual((1.0, 1.0, 1.0), self.lags(client))
        server.reactor.advance(10)
        client.send(status(END + 100, END + 100, END + 100))
        self.assertEqual((None, None, None), self.lags(client))

    def test_afterTheStream(self) -> None:
        """Lags end with the stream."""
        server, client = self.level()
        server.source.grow(END + 100)
        client.send(status(END + 100, END + 100, END + 100) + COPY_DONE)
        client.receive()
        self.assertEqual((None, None, None), self.lags(client))


class FeedbackTests(ProtocolTestCase):
    """What transactions a standby needs."""

    def streaming(self) -> Client:
        """Return a client that streams."""
        client = Server(self.scripted_source(END)).streaming(END)
        client.receive()
        return client

    def test_kept(self) -> None:
        """Both numbers with their epochs in the high half; the last word counts."""
        client = self.streaming()
        self.assertEqual((0, 0), (client.entry.xmin, client.entry.catalog_xmin))
        client.send(feedback(755, 0, 700, 0))
        self.assertEqual((755, 700), (client.entry.xmin, client.entry.catalog_xmin))
        client.send(feedback(3, 2, 0xFFFFFFFF, 1))
        self.assertEqual((0x200000003, 0x1FFFFFFFF), (client.entry.xmin, client.entry.catalog_xmin))

    def test_none(self) -> None:
        """0 takes it back, whatever the epoch says, and so do the numbers that are no transactions."""
        client = self.streaming()
        for number in (0, 1, 2):
            client.send(feedback(755, 0, 700, 0) + feedback(number, 7, number, 7))
            self.assertEqual((0, 0), (client.entry.xmin, client.entry.catalog_xmin))

    def test_outlivesTheStream(self) -> None:
        """It belongs to the connection: a standby between two timelines has not changed its mind."""
        client = self.streaming()
        client.send(feedback(755, 0) + COPY_DONE)
        client.receive()
        self.assertEqual(755, client.entry.xmin)

    def test_before10(self) -> None:
        """Without catalogs, and before 9.3 in the order and the byte order of that time."""
        for version, body in (
            (90600, struct.pack(">qII", 0, 755, 1)),
            (90100, struct.pack("<IIq", 755, 1, 0)),
        ):
            source = self.scripted_source(END)
            client = Server(source, dialect_of(version, "little")).streaming(END)
            client.receive()
            client.send(copy_data(b"h" + body))
            self.assertEqual((1 << 32 | 755, 0), (client.entry.xmin, client.entry.catalog_xmin))
