"""Segments that take long to open, vanish, shrink or are replaced under a stream."""

from __future__ import annotations

import errno
import gc
import os
from unittest import mock

from flow_helpers import END, READ, FlowTestCase
from protocol_helpers import (
    COPY_0,
    COPY_BOTH,
    COPY_DONE,
    Client,
    Server,
    error_fields,
    keepalives,
    kinds,
    status,
)

from walsender.sender.states import State
from walsender.testing.source import wal_bytes


class OpeningTests(FlowTestCase):
    """Files that take long to open."""

    def waiting(self) -> tuple[Server, Client]:
        """Return a server and a client that waits for its segment."""
        server = self.server()
        server.source.holding = True
        client = server.streaming(0x300000)
        self.assertEqual((COPY_BOTH, 1), (client.receive(), server.source.held))
        return server, client

    def test_released(self) -> None:
        """WAL flows when the file is open; growth meanwhile opens nothing twice."""
        server, client = self.waiting()
        server.source.grow(END + 8)
        self.assertEqual(1, server.source.held)
        server.source.release()
        self.assertWal(0x300000, END + 8, client.receive())

    def test_keepaliveMeanwhile(self) -> None:
        """A standby that asks is answered when the file is open, or cannot be opened."""
        server, client = self.waiting()
        client.send(status(0, reply=True))
        server.source.release()
        self.assertEqual([(0x300000, 0)], keepalives(client.receive()))

    def test_copyDoneMeanwhile(self) -> None:
        """Nothing is under way, so the stream ends at once."""
        server, client = self.waiting()
        client.send(COPY_DONE)
        self.assertEqual(b"cCCZ", kinds(client.receive()))
        server.source.release()
        self.assertEqual(b"", client.receive())
        self.assertEqual(0, server.source.open_count)

    def test_shutdownMeanwhile(self) -> None:
        """The same of the server's end."""
        server, client = self.waiting()
        server.factory.shut_down()
        self.assertEqual(COPY_0, client.receive())
        server.source.release()
        self.assertFreed(server, client)

    def test_lostMeanwhile(self) -> None:
        """A file that is open too late is closed again, without a garbage collection."""
        server, client = self.waiting()
        gc.disable()
        self.addCleanup(gc.enable)
        client.transport.lose()
        server.source.release()
        self.assertFreed(server, client)

    def test_failureTooLate(self) -> None:
        """A failure that nobody waits for any more is dropped."""
        server, client = self.waiting()
        client.transport.lose()
        server.source.release(OSError(5, "Input/output error"))
        self.assertFreed(server, client)

    def test_failure(self) -> None:
        """A failure ends COPY."""
        server, client = self.waiting()
        server.source.release(OSError(5, "Input/output error"))
        self.assertEqual(b"EZ", kinds(client.receive()))
        self.flushLoggedErrors(OSError)

    def test_secondSegmentOfAMessage(self) -> None:
        """A message that needs two files is begun when both are open."""
        server = self.server(first=True)
        server.source.holding = True
        client = server.streaming(0x2FE000)
        client.receive()
        self.assertEqual([2], server.source.opened)
        server.source.release()
        self.assertEqual(b"", client.receive())
        self.assertEqual([2, 3], server.source.opened)
        server.source.release()
        self.assertEqual(14 + 0x2060, len(client.receive()))


class SpoiltFileTests(FlowTestCase):
    """Files that change under a stream."""

    def begun(self) -> tuple[Server, Client]:
        """Return a server of the first dialect, whose messages have many reads, and a client inside one."""
        server = self.server(first=True)
        client = server.streaming(0x100000)
        client.transport.drain()
        self.assertGreater(client.protocol._stream._producer._message_end, 0x100000 + 2 * READ)
        return server, client

    def test_shorterInsideAMessage(self) -> None:
        """The connection is aborted: anything more would be taken for WAL."""
        server, client = self.begun()
        server.source.truncate(1, 0x50000)
        client.transport.drain()
        client.transport.drain()
        self.assertTrue(client.transport.aborted)
        self.assertFreed(server, client)

    def test_shorterBeforeAMessage(self) -> None:
        """Between messages the client is told."""
        server = self.server()
        server.source.truncate(3, 0)
        client = server.streaming(0x300000)
        server.source.truncate(3, 0)
        self.assertEqual(b"W", client.receive()[:1])
        server = self.server()
        client = server.streaming(0x300000)
        client.receive()
        server.source.truncate(3, 0x60)
        server.source.grow(END + 8)
        received = client.receive()
        text = "could not read from WAL segment 000000010000000000000003, offset 96: read 0 of 8"
        self.assertEqual(text, error_fields(received)["M"])
        self.assertIs(State.COMMAND, client.states[-1])

    def test_diskErrorBeforeAMessage(self) -> None:
        """Likewise, in the words of the system and with its code, when the disk fails."""
        server = self.server()
        client = server.streaming(0x300000)
        client.receive()
        with mock.patch("os.pread", side_effect=OSError(errno.EIO, os.strerror(errno.EIO))):
            server.source.grow(END + 8)
            received = client.receive()
        text = "could not read from WAL segment 000000010000000000000003, offset 96: Input/output error"
        fields = error_fields(received)
        self.assertEqual(("ERROR", "58030", text), (fields["S"], fields["C"], fields["M"]))
        self.assertIs(State.COMMAND, client.states[-1])

    def test_refusalInsideAMessage(self) -> None:
        """A client that breaks the protocol and does not read is given up ten seconds later."""
        server, client = self.begun()
        client.send(b"?")
        server.reactor.advance(9.9)
        self.assertFalse(client.transport.aborted)
        server.reactor.advance(0.2)
        self.assertTrue(client.transport.aborted)
        self.assertFreed(server, client)

    def test_retiredInsideAMessage(self) -> None:
        """A file whose name another one has taken is read to the message's end, then opened anew."""
        server, client = self.begun()
        server.source.retire(1)
        before = server.source.opened.count(1)
        received = client.receive()
        self.assertEqual(before + 1, server.source.opened.count(1))
        self.assertIs(State.STREAMING, client.states[-1])
        self.assertTrue(received.endswith(wal_bytes(END - 0x60, END)))

    def test_retiredWhileLevel(self) -> None:
        """A file that does not grow any more is not waited on."""
        server = self.server()
        client = server.streaming(0x300000)
        client.receive()
        server.source.retire(3)
        server.source.grow(END + 8)
        self.assertEqual([3, 3], server.source.opened)
        self.assertWal(END, END + 8, client.receive())

    def test_historyThatForgetsInsideAMessage(self) -> None:
        """An error that is found inside a message waits for the message's end."""
        server, client = self.begun()
        server.source.timeline = 2
        server.source.grow(END + 8)
        received = client.receive()
        text = b"requested timeline 1 is not in this server's history"
        self.assertIn(text, received)
        end_of_message = received.index(b"E\0\0\0")
        self.assertEqual(8 + 14 + 0x80000, end_of_message)
        self.assertTrue(client.is_closed)
