"""
`KernelConsumer` on a real pair of sockets, with a reactor that moves only when told to.

Whether a call would block is decided by the kernel, so the socket's buffer is
made small; everything else is as deterministic as with a transport in memory.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
from typing import Any
from unittest import mock

from descriptor_helpers import open_descriptors
from kernel_consumer_helpers import Peer, WritersReactor
from protocol_helpers import (
    COPY_0,
    COPY_BOTH,
    COPY_DONE,
    ProtocolTestCase,
    error_fields,
    keepalives,
    kinds,
    parse,
    query,
    startup_packet,
    status,
    wal_messages,
)
from zope.interface.verify import verifyClass

from walsender.sender.interfaces import IWalConsumer
from walsender.sender.kernel_consumer import KernelConsumer, is_bare_socket
from walsender.sender.states import State
from walsender.sender.transport_consumer import TransportConsumer
from walsender.testing.source import wal_bytes
from walsender.testing.transport import ThrottledTransport
from walsender.wire.dialect import Dialect, FirstDialect, ModernDialect

END = 0x300060


class KernelConsumerTestCase(ProtocolTestCase):
    """A stream through sendfile."""

    def peer(
        self, start: int | None, *, end: int = END, dialect: Dialect | None = None, cold: bool = False
    ) -> Peer:
        """Return a client that has asked for WAL, of which there is some up to *end*."""
        source = self.scripted_source(end)
        peer = Peer(source, dialect or ModernDialect(180000), cold=cold)
        self.addCleanup(peer.close)
        peer.transport.deliver(startup_packet())
        peer.run()
        if start is not None:
            peer.transport.deliver(query(f"START_REPLICATION {start >> 32:X}/{start:X}"))
        return peer

    def assertWal(self, start: int, end: int, received: bytes) -> None:
        """Check that *received* has exactly that WAL."""
        data = b"".join(data for _, _, data in wal_messages(received))
        self.assertEqual(end - start, len(data))
        self.assertTrue(data == wal_bytes(start, end))


class SendingTests(KernelConsumerTestCase):
    """Bytes in their order."""

    def test_interface(self) -> None:
        """Both consumers fulfil the contract."""
        verifyClass(IWalConsumer, KernelConsumer)
        verifyClass(IWalConsumer, TransportConsumer)

    def test_onlyBareSockets(self) -> None:
        """Anything that is not Twisted's own server transport is not bypassed."""
        self.assertFalse(is_bare_socket(ThrottledTransport(mock.Mock()), WritersReactor()))  # type: ignore[arg-type]

    def test_messages(self) -> None:
        """Messages have 16 pages, behind what the transport still had to send."""
        peer = self.peer(0x200000)
        received = peer.run()
        self.assertEqual(COPY_BOTH, received[: len(COPY_BOTH)])
        self.assertWal(0x200000, END, received)
        self.assertEqual([0x20000] * 8 + [0x60], [len(data) for _, _, data in wal_messages(received)])

    def test_fastClient(self) -> None:
        """A client that has taken 8 MiB in good time gets messages of a MiB."""
        peer = self.peer(0x100000, end=13 << 20)
        sizes = [len(data) for _, _, data in wal_messages(peer.run())]
        self.assertEqual([0x20000] * 64 + [0x100000] * 4, sizes)

    def test_slowClient(self) -> None:
        """A client that takes its time gets PostgreSQL's 128 KiB, also if it was fast before."""
        peer = self.peer(0x100000, end=10 << 20)
        peer.run()
        peer.reactor.advance(10)
        peer.source.grow(22 << 20)
        sizes = [len(data) for _, _, data in wal_messages(peer.run())]
        self.assertEqual((0x100000, 0x20000), (sizes[0], sizes[-1]))

    def test_noDescriptor(self) -> None:
        """A client for whom no descriptor is left is told, and its session goes on."""
        peer = self.peer(None)
        peer.transport.deliver(query("START_REPLICATION 0/200000"))
        failure = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        with mock.patch.object(socket.socket, "dup", side_effect=failure):
            received = peer.run()
        self.assertEqual(b"WEZ", kinds(received))
        fields = error_fields(received)
        self.assertEqual(("ERROR", "53000"), (fields["S"], fields["C"]))
        self.assertEqual("could not take over the connection: Too many open files", fields["M"])
        peer.transport.deliver(query("START_REPLICATION 0/2FFFF0"))
        self.assertWal(0x2FFFF0, END, peer.run())

    def test_noDescriptorForAnEndedStream(self) -> None:
        """A stream that has ended before its first byte needs none: the session goes on."""
        peer = self.peer(0x200000)
        peer.transport.deliver(COPY_DONE)
        with mock.patch.object(socket.socket, "dup", side_effect=OSError(errno.EMFILE, "no more")):
            self.assertEqual(b"WcCCZ", kinds(peer.run()))
        peer.transport.deliver(query("START_REPLICATION 0/2FFFF0"))
        self.assertWal(0x2FFFF0, END, peer.run())

    def test_nothingOvertakesTheTransport(self) -> None:
        """WAL waits until the transport has sent its last byte."""
        peer = self.peer(None)
        peer.transport.deliver(query("SHOW ALL") * 20 + query("START_REPLICATION 0/200000"))
        self.assertEqual([], peer.reactor.writers)
        received = peer.run()
        self.assertEqual(20, kinds(received).count(b"Z"))
        self.assertWal(0x200000, END, received)

    def test_tinyReads(self) -> None:
        """A client that reads a few bytes at a time gets the same."""
        peer = self.peer(0x2F0000)
        while not peer.received.endswith(wal_bytes(END - 16, END)):
            peer.turn()
            peer.read(977)
        self.assertWal(0x2F0000, END, peer.received)

    def test_backpressure(self) -> None:
        """A client that does not read has one message under way, and nobody waits in vain."""
        peer = self.peer(0x100000)
        for _ in range(100):
            peer.turn()
        (entry,) = peer.factory.slot_table
        self.assertLessEqual(entry.sent_lsn, 0x100000 + 2 * 0x20000)
        self.assertEqual(1, len(peer.reactor.writers))
        self.assertWal(0x100000, END, peer.run())

    def test_noWriterWhileLevel(self) -> None:
        """A stream with nothing to send asks for no wake-ups."""
        peer = self.peer(END)
        peer.run()
        self.assertEqual([], peer.reactor.writers)
        peer.source.grow(END + 8)
        self.assertWal(END, END + 8, peer.run())
        self.assertEqual([], peer.reactor.writers)

    def test_keepalive(self) -> None:
        """A keepalive of a level stream goes out at once."""
        peer = self.peer(END)
        peer.run()
        peer.transport.deliver(status(END, reply=True))
        self.assertEqual([(END, 0)], keepalives(peer.read()))

    def test_keepaliveBetweenMessages(self) -> None:
        """A keepalive comes before the message that is begun after it."""
        peer = self.peer(0x200000)
        peer.turn()
        peer.turn()
        peer.transport.deliver(status(0, reply=True))
        position = 0x200000
        for kind, body in parse(peer.run())[1:]:
            self.assertEqual(b"d", kind)
            if body[:1] == b"k":
                self.assertEqual(position, int.from_bytes(body[1:9], "big"))
            else:
                self.assertEqual(position, int.from_bytes(body[1:9], "big"))
                position += len(body) - 25

    def test_firstDialect(self) -> None:
        """Long messages of many reads go through it as well."""
        peer = self.peer(0x200000, dialect=FirstDialect(90000, "little"))
        received = peer.run()
        self.assertEqual(8 + 3 * 14 + 0x100060, len(received))


class AtHandTests(KernelConsumerTestCase):
    """WAL that needs no file."""

    def test_levelStandbyGetsIt(self) -> None:
        """What is at hand needs no file; what was asked for before goes first."""
        peer = self.peer(END)
        peer.run()
        newest = peer.source.grow_at_hand(b"at hand!")
        self.assertEqual([(END, newest.end, b"at hand!")], wal_messages(peer.run()))

    def test_fullSocket(self) -> None:
        """What the socket does not take at once goes when it has room, whole, and WAL goes on behind it."""
        peer = self.peer(END)
        peer.run()
        data = wal_bytes(END, END + (48 << 10))
        for _ in range(8):
            peer.source.grow_at_hand(
                wal_bytes(peer.source.flush_position, peer.source.flush_position + len(data))
            )
        peer.source.newest = None
        peer.source.grow(peer.source.flush_position + 100)
        self.assertWal(END, END + 8 * len(data) + 100, peer.run())

    def test_keepaliveBehindIt(self) -> None:
        """A keepalive that is asked for while the socket is full comes behind the whole message."""
        peer = self.peer(END)
        peer.run()
        length = 60 << 10
        peer.source.grow_at_hand(wal_bytes(END, END + length))
        peer.source.grow_at_hand(wal_bytes(END + length, END + 2 * length))
        peer.protocol._stream._ask_for_reply()
        received = peer.run()
        self.assertWal(END, END + 2 * length, received)
        self.assertEqual(1, len(keepalives(received)))


class ColdTests(KernelConsumerTestCase):
    """WAL that is not in the page cache."""

    def cold(self) -> Peer:
        """Return a client whose next read is being warmed, while its socket was full just before."""
        peer = self.peer(0x200000, cold=True)
        peer.reactor.pool.holding = True
        peer.run()
        self.assertEqual(1, peer.reactor.pool.waiting)
        return peer

    def test_nothingIsSentBefore(self) -> None:
        """The reactor does not touch a cold range, however often it goes round."""
        peer = self.peer(0x100000, cold=True)
        peer.turn()  # the first window is warm, the socket is full
        peer.reactor.pool.holding = True
        received = b""
        for _ in range(6):
            received += peer.run()
            if not peer.reactor.pool.waiting:
                break
            with mock.patch("os.splice", side_effect=AssertionError("cold")):
                peer.turn()
            self.assertEqual([], peer.reactor.writers)
            self.assertEqual(1, peer.reactor.pool.waiting)
            peer.reactor.pool.run()
        received += peer.run()
        self.assertWal(0x100000, END, received)

    def test_endMeanwhile(self) -> None:
        """CopyDone is answered behind the message that waits."""
        peer = self.cold()
        peer.transport.deliver(COPY_DONE)
        self.assertEqual(b"", peer.run())
        peer.reactor.pool.run()
        received = peer.run()
        self.assertEqual(b"dcCCZ", kinds(received))
        self.assertWal(0x200000, 0x220000, received)

    def test_lostMeanwhile(self) -> None:
        """A connection that is lost has its files closed when the read has ended."""
        peer = self.cold()
        gc.disable()
        self.addCleanup(gc.enable)
        peer.transport.lose()
        peer.reactor.pool.run()
        self.assertEqual(0, peer.source.open_count)
        self.assertEqual([], peer.reactor.writers)


class EndTests(KernelConsumerTestCase):
    """The socket is handed back, or let go."""

    def test_shutDown(self) -> None:
        """COPY 0 comes behind the message under way."""
        peer = self.peer(0x100000)
        peer.turn()
        peer.turn()
        peer.factory.shut_down()
        received = peer.run()
        self.assertEqual(b"WdC", kinds(received))
        self.assertTrue(received.endswith(COPY_0))
        self.assertTrue(peer.transport.disconnected)

    def test_endBeforeTheTransportIsEmpty(self) -> None:
        """A stream that ends before its first byte ends behind what the transport had."""
        peer = self.peer(0x200000)
        peer.transport.deliver(COPY_DONE)
        self.assertEqual(b"WcCCZ", kinds(peer.run()))

    def test_commandsAfterwards(self) -> None:
        """The transport is the protocol's again after each stream."""
        peer = self.peer(0x2F0000)
        for _ in range(3):
            peer.run()
            peer.transport.deliver(COPY_DONE)
            self.assertEqual(b"cCCZ", kinds(peer.run()))
            peer.transport.deliver(query("IDENTIFY_SYSTEM") + query("START_REPLICATION 0/2F0000"))
        received = peer.run()
        self.assertEqual(b"TDCZWdd", kinds(received))

    def test_noDescriptorIsLeft(self) -> None:
        """Abort, loss, orderly end and hang-up in mid-frame close the duplicate and the files."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)

        def hang_up(peer: Peer) -> None:
            (writer,) = peer.reactor.writers
            writer.connectionLost(mock.Mock())
            peer.transport.drain()

        ends = {
            "abort": lambda peer: (peer.protocol.abort("test"), peer.transport.drain()),
            "loss": lambda peer: peer.transport.lose(),
            "peer's end": lambda peer: (peer.transport.deliver_eof(), peer.transport.drain()),
            "terminate": lambda peer: (peer.transport.deliver(b"X\0\0\0\4"), peer.transport.drain()),
            "hang-up": hang_up,
            "timeout": lambda peer: (peer.reactor.pump([15] * 4), peer.transport.drain()),
        }
        for name, end in ends.items():
            peer = self.peer(0x100000)
            before = open_descriptors()
            for _ in range(5):
                peer.turn()
            self.assertNotEqual(before, open_descriptors())
            end(peer)
            self.assertTrue(peer.transport.disconnected, name)
            self.assertEqual([], peer.reactor.writers, name)
            self.assertEqual(0, peer.source.open_count, name)
            self.assertEqual(0, len(peer.factory.slot_table), name)
            self.assertEqual([], peer.reactor.getDelayedCalls(), name)
            peer.source.close()
            self.assertLessEqual(open_descriptors(), before, name)

    def test_peerGone(self) -> None:
        """A socket that nobody reads any more ends the connection quietly."""
        peer = self.peer(0x100000)
        peer.turn()
        peer.socket.close()
        logged: list[str] = []
        self.patch(peer.protocol.log, "ended", logged.append)
        for _ in range(3):
            peer.turn()
        self.assertTrue(peer.transport.aborted)
        self.assertTrue(peer.transport.disconnected)
        self.assertIs(State.CLOSED, peer.states[-1])
        self.assertEqual([], logged)

    def test_mistake(self) -> None:
        """What nobody has foreseen ends its own connection, where half a message may be on its way."""
        peer = self.peer(0x200000)
        peer.run()
        told = mock.Mock()
        peer.source.subscribe(told)
        with mock.patch.object(ModernDialect, "wal_header", side_effect=ZeroDivisionError("planted")):
            peer.source.grow(END + 0x20)
        told.wal_grew.assert_called_once()
        self.assertEndedByMistake(peer)

    def test_mistakeAfterOpening(self) -> None:
        """The same, where the reactor has it from a thread."""
        peer = self.peer(None)
        peer.source.holding = True
        peer.transport.deliver(query("START_REPLICATION 0/200000"))
        peer.run()
        with mock.patch.object(ModernDialect, "wal_header", side_effect=ZeroDivisionError("planted")):
            peer.source.release()
        self.assertEndedByMistake(peer)

    def test_mistakeAfterReading(self) -> None:
        """The same, with what had to be read from the disk."""
        with mock.patch.object(KernelConsumer, "_warmed", side_effect=ZeroDivisionError("planted")):
            peer = self.peer(0x200000, cold=True)
            peer.run()
        self.assertEndedByMistake(peer)

    def assertEndedByMistake(self, peer: Peer) -> None:
        """Check that the connection has been aborted, and that the log has the mistake, once."""
        self.assertTrue(peer.transport.aborted)
        self.assertEqual([], peer.reactor.writers)
        gc.collect()  # what nobody has taken care of would be logged then
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_truncatedFile(self) -> None:
        """A file that ends inside a message aborts the connection."""
        peer = self.peer(0x100000)
        peer.turn()
        peer.turn()
        peer.source.truncate(1, 0x100)
        peer.run()
        self.assertTrue(peer.transport.aborted)
        self.assertEqual([], peer.reactor.writers)

    def test_readError(self) -> None:
        """So does a file that cannot be read."""
        peer = self.peer(0x100000)
        peer.turn()
        with mock.patch("os.splice", side_effect=OSError(errno.EIO, "Input/output error")):
            peer.run()
        self.assertTrue(peer.transport.aborted)

    def test_interruptedCall(self) -> None:
        """A call that a signal interrupts is repeated."""
        peer = self.peer(0x2F0000)
        real = os.splice
        with mock.patch("os.splice", iter_then(InterruptedError(), real)):
            self.assertWal(0x2F0000, END, peer.run())


def iter_then(error: Exception, function: Any) -> Any:
    """Return a function that raises *error* the first time and then does what *function* does."""
    raised = []

    def call(*arguments: Any, **options: Any) -> Any:
        if not raised:
            raised.append(error)
            raise error
        return function(*arguments, **options)

    return call
