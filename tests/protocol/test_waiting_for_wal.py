"""A stream whose next segment takes long to be had: it is fetched from far away, say."""

from __future__ import annotations

import errno
import os

from protocol_helpers import COPY_BOTH, COPY_DONE, Client, Server, keepalives, kinds, status, wal_messages
from stream_helpers import MIB, STREAM_END, StreamTestCase

from walsender.sender.states import State
from walsender.source import SegmentUnavailable

START = MIB


class WaitingTests(StreamTestCase):
    """While it lasts."""

    def waiting(self) -> tuple[Server, Client]:
        """Return a server and a client that has got CopyBothResponse and waits for its first WAL."""
        server = self.server()
        server.source.holding = True
        client = server.streaming(START)
        self.assertEqual(COPY_BOTH, client.receive())
        self.assertEqual(1, server.source.held)
        return server, client

    def test_keepalives(self) -> None:
        """The standby is answered, and asked for signs of life; then WAL comes from where it asked for it."""
        server, client = self.waiting()
        client.send(status(START, reply=True))
        self.assertEqual([(START, 0)], keepalives(client.receive()))
        for _ in range(5):
            server.reactor.advance(30)
            self.assertEqual([(START, 1)], keepalives(client.receive()))
            client.send(status(START))
        server.source.holding = False
        server.source.release()
        self.assertEqual(START, wal_messages(client.receive())[0][0])

    def test_clientThatDoesNotRead(self) -> None:
        """At most one keepalive waits for it."""
        _, client = self.waiting()
        client.transport.producer.pauseProducing()
        for _ in range(3):
            client.send(status(START, reply=True))
        self.assertEqual(b"", client.receive())
        client.transport.producer.resumeProducing()
        self.assertEqual([(START, 0)], keepalives(client.receive()))

    def test_copyDone(self) -> None:
        """The client may end it, and nobody waits for the segment any more."""
        server, client = self.waiting()
        client.send(COPY_DONE)
        self.assertEqual(COPY_DONE + STREAM_END, client.receive())
        server.source.release()
        self.assertEqual(b"", client.receive())
        self.assertCommand(client)

    def test_inVain(self) -> None:
        """The error's detail says where it was looked for, before what there is instead."""
        server, client = self.waiting()
        missing = SegmentUnavailable(
            "000000010000000000000001", 1, OSError(errno.ENOENT, os.strerror(errno.ENOENT)), 2 * MIB
        )
        missing.sought = "It is nowhere."
        server.source.release(missing)
        answer = client.receive()
        self.assertEqual(b"EZ", kinds(answer))
        self.assertIn(b"C58P01\0", answer)
        self.assertIn(b"DIt is nowhere. The earliest WAL position that is held here is 0/200000.\0", answer)
        self.assertIs(State.COMMAND, client.states[-1])
