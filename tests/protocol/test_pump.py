"""The kernel consumer while threads send: what may happen before one is done."""

from __future__ import annotations

import gc
from unittest import mock

from descriptor_helpers import open_descriptors
from kernel_consumer_helpers import HeldThreads, Peer
from protocol_helpers import COPY_0, COPY_DONE, keepalives, kinds, query, startup_packet, status, wal_messages
from test_kernel_consumer import END, KernelConsumerTestCase

from walsender.sender.states import State
from walsender.wire.dialect import ModernDialect


class PumpTests(KernelConsumerTestCase):
    """One client whose WAL is sent by a thread that works when it is told to."""

    def setUp(self) -> None:
        """No thread has done anything."""
        super().setUp()
        self.threads = HeldThreads()

    def pumped(self, start: int, *, end: int = END, cold: bool = False) -> Peer:
        """Return a client for whom a thread has been asked to send WAL from *start*, and has not begun."""
        peer = Peer(self.scripted_source(end), ModernDialect(180000), cold=cold, threads=self.threads)
        self.addCleanup(peer.close)
        peer.transport.deliver(startup_packet())
        peer.run()
        peer.transport.deliver(query(f"START_REPLICATION 0/{start:X}"))
        peer.run()
        return peer

    def run_all(self, peer: Peer) -> bytes:
        """Let reactor and threads go on until nothing moves; return what the client gets."""
        received = b""
        while True:
            self.threads.work()
            more = peer.run()
            received += more
            if not (more or self.threads.jobs):
                return received

    def test_allArrives(self) -> None:
        """Every byte comes, in order, while the thread meets a socket that is full again and again."""
        peer = self.pumped(0x100000, end=14 << 20)
        self.assertEqual(1, len(self.threads.jobs))
        self.assertWal(0x100000, 14 << 20, self.run_all(peer))
        peer.source.grow((14 << 20) + 0x100)
        self.assertWal(14 << 20, (14 << 20) + 0x100, self.run_all(peer))

    def test_coldAmongWarm(self) -> None:
        """What has to be read from the disk comes in its place."""
        peer = self.pumped(0x100000, cold=True)
        self.assertWal(0x100000, END, self.run_all(peer))

    def test_nothingIsSentByTwo(self) -> None:
        """As long as a thread has it the reactor sends nothing, and does not wait for room."""
        peer = self.pumped(0x200000)
        peer.transport.deliver(status(0x200000, reply=True))
        peer.source.grow(END + 0x100)
        self.assertEqual(b"", peer.run())
        self.assertEqual([], peer.reactor.writers)
        received = self.run_all(peer)
        self.assertWal(0x200000, END + 0x100, received)
        self.assertEqual(1, len(keepalives(received)))

    def test_shutDown(self) -> None:
        """A shutdown waits for what the thread has, and ends behind a whole message."""
        peer = self.pumped(0x100000)
        peer.factory.shut_down()
        self.assertEqual(b"", peer.run())
        received = self.run_all(peer)
        self.assertEqual(COPY_0, received[-len(COPY_0) :])
        self.assertIn(b"d", kinds(received))
        self.assertTrue(peer.transport.disconnected)

    def test_copyDone(self) -> None:
        """The client's CopyDone is answered behind what the thread has."""
        peer = self.pumped(0x200000)
        peer.transport.deliver(COPY_DONE)
        self.assertEqual(b"", peer.run())
        received = self.run_all(peer)
        self.assertEqual(b"cCCZ", kinds(received)[-4:])
        messages = wal_messages(received)
        self.assertWal(0x200000, 0x200000 + sum(len(data) for _, _, data in messages), received)

    def test_level(self) -> None:
        """Level is a standby when the thread is done, not before."""
        peer = self.pumped(0x200000)
        (entry,) = peer.factory.slot_table
        self.assertEqual("catchup", entry.state)
        self.run_all(peer)
        self.assertEqual("streaming", entry.state)

    def test_endsMeanwhile(self) -> None:
        """However the connection ends, the thread sends nothing more, and all is closed when it is done."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        ends = {
            "abort": lambda peer: (peer.protocol.abort("test"), peer.transport.drain()),
            "loss": lambda peer: peer.transport.lose(),
            "peer's end": lambda peer: (peer.transport.deliver_eof(), peer.transport.drain()),
            "terminate": lambda peer: (peer.transport.deliver(b"X\0\0\0\4"), peer.transport.drain()),
        }
        for name, end in ends.items():
            before = open_descriptors()
            peer = self.pumped(0x100000)
            peer.read()
            end(peer)
            self.assertTrue(peer.transport.disconnected, name)
            self.threads.work()
            self.assertEqual(b"", peer.read(), name)
            self.assertEqual([], self.threads.jobs, name)
            self.assertEqual([], peer.reactor.writers, name)
            self.assertEqual(0, peer.source.open_count, name)
            self.assertEqual([], peer.reactor.getDelayedCalls(), name)
            peer.source.close()
            peer.close()
            self.assertLessEqual(open_descriptors(), before, name)

    def test_mistake(self) -> None:
        """What nobody has foreseen costs the connection, whichever thread meets it."""
        peer = self.pumped(0x100000)
        assert peer.protocol._stream is not None
        consumer = peer.protocol._stream._producer._consumer
        with mock.patch("os.splice", side_effect=ZeroDivisionError("planted")):
            self.threads.work()
        self.assertTrue(peer.transport.aborted)
        self.assertIsNone(consumer._socket)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_peerGone(self) -> None:
        """A thread that finds nobody at the other end has the connection ended, quietly."""
        peer = self.pumped(0x100000)
        peer.socket.close()
        logged: list[str] = []
        self.patch(peer.protocol.log, "ended", logged.append)
        self.threads.work()
        self.assertTrue(peer.transport.aborted)
        peer.transport.drain()
        self.assertIs(State.CLOSED, peer.states[-1])
        self.assertEqual([], logged)

    def test_truncatedFile(self) -> None:
        """A file that ends inside what a thread sends aborts the connection."""
        peer = self.pumped(0x100000)
        peer.source.truncate(1, 0x100)
        self.run_all(peer)
        self.assertTrue(peer.transport.aborted)
        self.assertEqual([], peer.reactor.writers)
