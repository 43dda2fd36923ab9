"""What the tests of flow control share."""

from __future__ import annotations

from protocol_helpers import (
    Client,
    ProtocolTestCase,
    Server,
    wal_messages,
)

from walsender.testing.source import wal_bytes
from walsender.wire.dialect import FirstDialect, ModernDialect

END = 0x300060


MARK = 64 * 1024


READ = 120 * 1024


class FlowTestCase(ProtocolTestCase):
    """A server with two MiB of WAL."""

    def server(self, *, first: bool = False) -> Server:
        """Return a server of the modern or the first dialect."""
        dialect = FirstDialect(90000, "little") if first else ModernDialect(180000)
        return Server(self.scripted_source(END), dialect)

    def assertWal(self, start: int, end: int, received: bytes) -> None:
        """Check that *received* has exactly that WAL."""
        data = b"".join(data for _, _, data in wal_messages(received))
        self.assertEqual(end - start, len(data))
        self.assertTrue(data == wal_bytes(start, end))

    def assertFreed(self, server: Server, client: Client) -> None:
        """Check that the connection is closed and nothing of it is left."""
        client.receive()
        self.assertTrue(client.is_closed)
        self.assertEqual(0, len(server.factory.slot_table))
        self.assertEqual({}, server.source.subscribers)
        self.assertEqual([], server.reactor.getDelayedCalls())
        self.assertEqual(0, server.source.open_count)
