"""WAL that is at hand when it becomes durable: who gets it from memory, and who reads the file."""

from __future__ import annotations

from typing import Final

from protocol_helpers import Client, wal_messages
from stream_helpers import END, MIB, StreamTestCase

from walsender.source import NewestWal
from walsender.testing.source import wal_bytes

AT_HAND: Final = b"at hand!"  # what no file has, so that it is seen where bytes come from


class AtHandTests(StreamTestCase):
    def wal(self, client: Client) -> list[tuple[int, int, bytes]]:
        """Return what has come, as start, the server's end, WAL."""
        return wal_messages(client.receive())

    def test_levelStandbyGetsIt(self) -> None:
        """Whoever has all before it gets what is at hand, in one message, and is level again."""
        server = self.server()
        client = server.streaming(END)
        client.receive()
        end = server.source.grow_at_hand(AT_HAND).end
        self.assertEqual([(END, end, AT_HAND)], self.wal(client))
        self.assertEqual(end, client.entry.sent_lsn)
        server.source.newest = None
        server.source.grow(end + 8)
        self.assertEqual([(end, end + 8, wal_bytes(end, end + 8))], self.wal(client))

    def test_madeOnce(self) -> None:
        """All who are level get the same message."""
        server = self.server()
        clients = [server.streaming(END) for _ in range(3)]
        newest = server.source.grow_at_hand(AT_HAND)
        self.assertEqual([[(END, newest.end, AT_HAND)]] * 3, [self.wal(client) for client in clients])
        self.assertEqual(1, len(newest.messages))

    def test_whoIsBehindReadsTheFile(self) -> None:
        """One who lacks more than is at hand gets all from the file."""
        server = self.server()
        server.source.newest = NewestWal(1, END - 8, AT_HAND)
        client = server.streaming(END - 16)
        self.assertWal(END - 16, END, client.receive())

    def test_pausedStandbyGetsItAllLater(self) -> None:
        """A standby that cannot take what is at hand gets it from the file when there is more."""
        server = self.server()
        client = server.streaming(END)
        client.receive()
        client.transport.producer.pauseProducing()
        server.source.grow_at_hand(AT_HAND)
        server.source.grow_at_hand(AT_HAND)
        self.assertEqual([], self.wal(client))
        client.transport.producer.resumeProducing()
        self.assertWal(END, END + 2 * len(AT_HAND), client.receive())

    def test_anotherTimelinesIsNotSent(self) -> None:
        """What is at hand of another timeline is not this stream's, wherever it is."""
        server = self.server()
        client = server.streaming(END)
        client.receive()
        newest = NewestWal(2, END, AT_HAND)
        server.source.newest = newest
        server.source.grow(newest.end)
        self.assertWal(END, newest.end, client.receive())

    def test_segmentsEnd(self) -> None:
        """What goes into the next segment's file is sent in two messages, as ever."""
        server = self.server(4 * MIB - 4)
        client = server.streaming(4 * MIB - 4)
        client.receive()
        server.source.grow_at_hand(AT_HAND)
        self.assertEqual([4, 4], [len(data) for _, _, data in self.wal(client)])
