"""What the tests of modern streams share."""

from __future__ import annotations

import struct

from protocol_helpers import (
    READY,
    Client,
    ProtocolTestCase,
    Server,
    kinds,
    message,
    wal_messages,
)

from walsender.sender.slot_table import STARTUP
from walsender.sender.states import MODERN, State
from walsender.testing.source import wal_bytes
from walsender.wire.dialect import ModernDialect

MIB = 1 << 20


END = 0x300060  # where the source's WAL ends at first


# CommandComplete, twice: with one, clients die
STREAM_END = (
    bytes.fromhex("43 00000014")
    + b"START_STREAMING\0"
    + bytes.fromhex("43 00000016")
    + b"START_REPLICATION\0"
) + READY


def next_timeline(timeline: bytes, start: bytes, typmod: bytes = b"\xff\xff\xff\xff") -> bytes:
    """Return the result that says where a historic timeline goes on."""
    description = (
        bytes.fromhex("0002")
        + b"next_tli\0"
        + bytes.fromhex("00000000 0000 00000014 0008")
        + typmod
        + bytes.fromhex("0000")
        + b"next_tli_startpos\0"
        + bytes.fromhex("00000000 0000 00000019 ffff")
        + typmod
        + bytes.fromhex("0000")
    )
    row = b"\0\2" + b"".join(struct.pack(">i", len(text)) + text for text in (timeline, start))
    return message(b"T", description) + message(b"D", row)


class StreamTestCase(ProtocolTestCase):
    """Streams from a source whose bytes tell their position."""

    def server(self, position: int = END, version: int = 180000, **options: object) -> Server:
        """Return a server."""
        return Server(self.scripted_source(position, **options), ModernDialect(version))

    def assertWal(self, start: int, end: int, received: bytes) -> list[tuple[int, int]]:
        """Check that the WAL in *received* is exactly that; return start and size of each message."""
        position = start
        sizes = []
        for begin, _, data in wal_messages(received):
            self.assertEqual(position, begin)
            self.assertTrue(data == wal_bytes(begin, begin + len(data)), f"wrong bytes at {begin:X}")
            sizes.append((begin, len(data)))
            position += len(data)
        self.assertEqual(end, position)
        return sizes

    def assertCommand(self, client: Client) -> None:
        """Check that the session goes on, as if there had been no stream."""
        self.assertIs(State.COMMAND, client.states[-1])
        self.assertEqual(b"TDCZ", kinds(client.ask("IDENTIFY_SYSTEM")))
        self.assertEqual((STARTUP, 0), (client.entry.state, client.entry.sent_lsn))
        self.assertLegal(MODERN, client.states)
