"""What one client is sent, with real sockets: in which packets the kernel may send it."""

from __future__ import annotations

import os
import socket
import tempfile
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from walsender.sender.kernel_pipe import KernelPipes
from walsender.sender.load import FileEnded, Load, Part
from walsender.source import OpenSegment, WalSlice
from walsender.wal import REAL_FILES

if TYPE_CHECKING:
    from collections.abc import Callable

KIB, MIB = 1 << 10, 1 << 20
HEADER = b"header"


class WatchedPipes(KernelPipes):
    """Calls somebody before a piece is moved."""

    def __init__(self, before: Callable[[], None]) -> None:
        super().__init__()
        self.before = before

    def move(self, file: int, offset: int, count: int, socket: int) -> int:
        """See `KernelPipes`."""
        self.before()
        return super().move(file, offset, count, socket)


def is_corked(client: socket.socket) -> bool:
    """Tell whether the kernel keeps what does not fill a packet."""
    return bool(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection, server's first."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        theirs = socket.create_connection(port.getsockname())
        ours, _ = port.accept()
    return ours, theirs


class CorkTests(SynchronousTestCase):
    """A file of a MiB, sent once or more to a client."""

    def setUp(self) -> None:
        """Nothing has been sent."""
        descriptor, path = tempfile.mkstemp(prefix="walsender-test-")
        os.unlink(path)  # noqa: PTH108 (a descriptor is all that is needed)
        os.truncate(descriptor, MIB)
        self.segment = OpenSegment(REAL_FILES, descriptor, "0" * 24, 0, MIB)
        self.ours, self.theirs = tcp_pair()
        for end in (self.ours, self.theirs):
            self.addCleanup(end.close)
        self.ours.setblocking(False)
        self.theirs.settimeout(60)
        self.seen: list[bool] = []
        self.pipes = WatchedPipes(lambda: self.seen.append(is_corked(self.ours)))

    def load(self, *lengths: int) -> Load:
        """Return messages with so many bytes of the file each, for a client of TCP."""
        load = Load()
        load.over_tcp = True
        load.parts += [Part(HEADER, WalSlice(self.segment, 0, length)) for length in lengths]
        return load

    def test_corkedMeanwhile(self) -> None:
        """Of large messages packets are filled, and of the last one nothing is kept."""
        sent = self.load(MIB, 300 * KIB)
        left = 2 * len(HEADER) + MIB + 300 * KIB
        while (error := sent.send(self.ours, self.pipes)) is not None:
            self.assertIsInstance(error, BlockingIOError)
            left -= len(self.theirs.recv(MIB))
        self.assertEqual({True}, set(self.seen))
        self.assertFalse(is_corked(self.ours))
        while left > 0:
            left -= len(self.theirs.recv(MIB))
        self.assertEqual(0, left)

    def test_smallMessages(self) -> None:
        """Of small ones the system is asked for nothing more than to send them."""
        self.assertIsNone(self.load(128 * KIB).send(self.ours, self.pipes))
        self.assertEqual([False], self.seen)

    def test_fullSocket(self) -> None:
        """A socket that takes no more is left as it was."""
        error = self.load(*[MIB] * 64).send(self.ours, self.pipes)
        self.assertIsInstance(error, BlockingIOError)
        self.assertFalse(is_corked(self.ours))

    def test_failure(self) -> None:
        """So is one after a file has failed: the client can be told why."""
        os.truncate(self.segment.descriptor, 0)
        self.assertIsInstance(self.load(MIB).send(self.ours, self.pipes), FileEnded)
        self.assertEqual([True], self.seen)
        self.assertFalse(is_corked(self.ours))

    def test_unixSocket(self) -> None:
        """A unix socket has no packets to fill."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            self.addCleanup(end.close)
            end.setblocking(False)
        load = self.load(MIB)
        load.over_tcp = False
        error = load.send(ours, KernelPipes())
        self.assertIsInstance(error, BlockingIOError)
        self.assertLess(len(HEADER), len(theirs.recv(MIB)))

    def test_lostSocket(self) -> None:
        """A socket that is no more fails as any other does."""
        self.ours.close()
        error = self.load(MIB).send(self.ours, self.pipes)
        self.assertIsInstance(error, OSError)
