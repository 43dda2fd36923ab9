"""CancelRequest: who has the key of a walsender can end what it does, and nothing else."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING
from unittest import mock

from kernel_consumer_helpers import Peer
from protocol_helpers import (
    COPY_DONE,
    READY,
    Client,
    ProtocolTestCase,
    Server,
    error_response,
    kinds,
    parse,
    query,
    startup_packet,
)
from stream_helpers import END, StreamTestCase

from walsender.sender import WalSenderFactory
from walsender.sender.connection_log import LINES_A_MINUTE
from walsender.sender.states import MODERN, State
from walsender.wire.dialect import ModernDialect

if TYPE_CHECKING:
    from collections.abc import Callable

CANCELED = (
    error_response(S="ERROR", V="ERROR", C="57014", M="canceling statement due to user request") + READY
)


def key_data(greeting: bytes) -> tuple[int, bytes]:
    """Return process id and key of the BackendKeyData in *greeting*."""
    (body,) = (body for kind, body in parse(greeting) if kind == b"K")
    return struct.unpack(">i", body[:4])[0], body[4:]


def cancel_request(process_id: int, key: bytes) -> bytes:
    """Return a CancelRequest."""
    return struct.pack(">IIi", 12 + len(key), 80877102, process_id) + key


class CancelTestCase(StreamTestCase):
    """Clients whose keys are known."""

    def connect(self, server: Server, version: int = 0x00030000) -> tuple[Client, int, bytes]:
        """Return a greeted client, its process id and its key."""
        client = server.connect()
        return (client, *key_data(client.start(version=version)))  # type: ignore[arg-type]

    def cancel(self, server: Server, process_id: int, key: bytes) -> None:
        """Send a CancelRequest, which is closed without an answer."""
        canceller = server.connect()
        canceller.send(cancel_request(process_id, key))
        self.assertEqual(b"", canceller.receive())
        self.assertTrue(canceller.is_closed)
        self.assertLegal(MODERN, canceller.states)


class StreamTests(CancelTestCase):
    """A cancelled stream."""

    def test_streamEnds(self) -> None:
        """ERROR and ReadyForQuery come behind the message under way, and the session goes on."""
        for version, length in ((0x00030000, 4), (0x00030002, 32)):
            server = self.server()
            client, process_id, key = self.connect(server, version)
            self.assertEqual(length, len(key))
            client.send(query("START_REPLICATION 0/100000"))
            self.cancel(server, process_id, key)
            received = client.receive()
            self.assertTrue(received.endswith(CANCELED))
            self.assertLess(len(received), 3 * 0x20000)
            sent = sum(len(body) - 25 for kind, body in parse(received) if kind == b"d")
            self.assertWal(0x100000, 0x100000 + sent, received)
            self.assertCommand(client)

    def test_idleStreamEnds(self) -> None:
        """A stream that waits for WAL ends at once, and another may follow."""
        server = self.server()
        client, process_id, key = self.connect(server)
        for _ in range(2):
            client.send(query("START_REPLICATION 0/200000"))
            client.receive()
            self.cancel(server, process_id, key)
            self.assertEqual(CANCELED, client.receive())
            self.assertCommand(client)

    def test_behindOurCopyDone(self) -> None:
        """A client that does not answer the end of a timeline can be freed from it."""
        server = self.server()
        server.source.switch(2, 0x280010, END)
        client, process_id, key = self.connect(server)
        client.send(query("START_REPLICATION 0/280000 TIMELINE 1"))
        self.assertTrue(client.receive().endswith(COPY_DONE))
        self.cancel(server, process_id, key)
        self.assertEqual(CANCELED, client.receive())
        self.assertCommand(client)

    def kernel_peer(self) -> tuple[Peer, Server, int, bytes]:
        """Return a client amid a message that the kernel moves, its server, process id and key."""
        source = self.scripted_source(END)
        peer = Peer(source, ModernDialect(180000))
        self.addCleanup(peer.close)
        server = Server(source)
        server.factory = peer.factory
        peer.transport.deliver(startup_packet())
        process_id, key = key_data(peer.run())
        peer.transport.deliver(query("START_REPLICATION 0/100000"))
        peer.turn()
        peer.turn()
        return peer, server, process_id, key

    def test_sendfile(self) -> None:
        """The kernel moves the rest of the message before the error comes."""
        peer, server, process_id, key = self.kernel_peer()
        self.cancel(server, process_id, key)
        received = peer.run()
        self.assertEqual(b"WdEZ", kinds(received))
        self.assertTrue(received.endswith(CANCELED))
        self.assertWal(0x100000, 0x120000, received)

    def test_endIsOnItsWay(self) -> None:
        """A stream that the client has ended gets its results, though its last message is still under way."""
        peer, server, process_id, key = self.kernel_peer()
        peer.transport.deliver(COPY_DONE)
        self.cancel(server, process_id, key)
        self.assertEqual(b"WdcCCZ", kinds(peer.run()))


class NothingTests(CancelTestCase):
    """What a CancelRequest does not do."""

    def assertUntouched(
        self, spoil: Callable[[int, bytes], tuple[int, bytes]], version: int = 180000
    ) -> None:
        """Check that a request, made of the right one by *spoil*, does nothing."""
        server = self.server(version=version)
        client, process_id, key = self.connect(server, 0x00030002)
        client.send(query("START_REPLICATION 0/300000"))
        client.receive()
        self.cancel(server, *spoil(process_id, key))
        self.assertEqual(b"", client.receive())
        self.assertIs(State.STREAMING, client.states[-1])

    def test_wrongKey(self) -> None:
        """Each bit of the key counts, and its length."""
        self.assertUntouched(lambda pid, key: (pid, key[:-1] + bytes([key[-1] ^ 1])))
        self.assertUntouched(lambda pid, key: (pid, key[:4]))
        self.assertUntouched(lambda pid, key: (pid, key + b"\0"))

    def test_manyFromStrangers(self) -> None:
        """What anybody can ask for fills no log."""
        server = self.server()
        with mock.patch.object(WalSenderFactory, "_log") as log:
            for process_id in range(100):
                self.cancel(server, 1 << 20 | process_id, b"nobody's")
        self.assertEqual(LINES_A_MINUTE, log.info.call_count)

    def test_wrongProcess(self) -> None:
        """A key is good for its own session only."""
        self.assertUntouched(lambda pid, key: (pid + 1, key))

    def test_before10(self) -> None:
        """Walsenders ignored the signal until 9.6."""
        self.assertUntouched(lambda pid, key: (pid, key), version=90600)

    def test_idleSession(self) -> None:
        """Between commands there is nothing to cancel, and nothing is kept for later."""
        server = self.server()
        client, process_id, key = self.connect(server)
        self.cancel(server, process_id, key)
        self.assertEqual(b"", client.receive())
        self.assertCommand(client)

    def test_endingStream(self) -> None:
        """A stream that has ended, whose end the client has not read yet, is over."""
        server = self.server()
        client, process_id, key = self.connect(server)
        client.send(query("START_REPLICATION 0/300000"), COPY_DONE)
        self.cancel(server, process_id, key)
        received = client.receive()
        self.assertEqual(b"WdcCCZ", kinds(received))
        self.assertCommand(client)

    def test_noPlaceIsTaken(self) -> None:
        """A cancel request is read while every place is taken."""
        server = Server(self.scripted_source(END), max_wal_senders=1)
        client, process_id, key = self.connect(server)
        client.send(query("START_REPLICATION 0/300000"))
        client.receive()
        self.cancel(server, process_id, key)
        self.assertEqual(CANCELED, client.receive())


class KeyTests(ProtocolTestCase):
    """Process ids and keys."""

    def test_unique(self) -> None:
        """No two live sessions have a process id, or a key, in common."""
        server = Server(self.scripted_source(END))
        server.factory.slot_table._last_process_id = (1 << 31) - 3
        found = [key_data(server.connect().start()) for _ in range(9)]
        self.assertEqual(9, len({process_id for process_id, _ in found}))
        self.assertEqual(9, len({key for _, key in found}))
        self.assertTrue(all(0 < process_id < 1 << 31 for process_id, _ in found))
