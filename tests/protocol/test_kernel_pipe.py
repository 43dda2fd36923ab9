"""`KernelPipes` between a real file and real sockets."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from unittest import mock

from descriptor_helpers import open_descriptors, watch_descriptors
from twisted.trial.unittest import SynchronousTestCase

from walsender.sender.kernel_pipe import KernelPipes

CONTENT = os.urandom(3 << 20)


class KernelPipesTests(SynchronousTestCase):
    """Bytes of a file that arrive at a socket."""

    def setUp(self) -> None:
        """Make a file of 3 MiB and the pipes."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
        self.addCleanup(file.close)
        file.write(CONTENT)
        file.flush()
        self.file = file.fileno()
        self.before = watch_descriptors(self)
        self.pipes = KernelPipes()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return two ends of a connection that takes little, neither of which waits."""
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            self.addCleanup(end.close)
        return ends

    def read(self, end: socket.socket) -> bytes:
        """Return all that has arrived."""
        received = b""
        try:
            while piece := end.recv(1 << 20):
                received += piece
        except BlockingIOError:
            pass
        return received

    def test_twoSockets(self) -> None:
        """Each socket gets its own range, however little it takes at a time, in turns."""
        places = {self.pair(): (1000, 1_500_000), self.pair(): (700_001, 3 << 20)}
        received = dict.fromkeys(places, b"")
        ends = {pair: end for pair, (_, end) in places.items()}
        at = {pair: start for pair, (start, _) in places.items()}
        while any(at[pair] < ends[pair] for pair in places):
            for pair in places:
                if at[pair] < ends[pair]:
                    at[pair] += self.pipes.move(self.file, at[pair], ends[pair] - at[pair], pair[0].fileno())
                received[pair] += self.read(pair[1])
        for pair, (start, end) in places.items():
            self.assertTrue(received[pair] == CONTENT[start:end])

    def test_fullSocket(self) -> None:
        """A socket that takes nothing says so, and what it did not take is nowhere."""
        (ours, theirs), other = self.pair(), self.pair()
        taken = self.pipes.move(self.file, 0, 1 << 20, ours.fileno())
        self.assertLess(taken, 1 << 20)
        self.assertRaises(BlockingIOError, self.pipes.move, self.file, taken, 1, ours.fileno())
        self.assertEqual(10, self.pipes.move(self.file, 5, 10, other[0].fileno()))
        self.assertTrue(self.read(theirs) == CONTENT[:taken])
        self.assertEqual(CONTENT[5:15], self.read(other[1]))

    def test_endOfFile(self) -> None:
        """A file that ends gives what it has, and then nothing."""
        ours, theirs = self.pair()
        self.assertEqual(10, self.pipes.move(self.file, len(CONTENT) - 10, 4096, ours.fileno()))
        self.assertEqual(0, self.pipes.move(self.file, len(CONTENT), 4096, ours.fileno()))
        self.assertEqual(CONTENT[-10:], self.read(theirs))

    def test_brokenFile(self) -> None:
        """An error of the file is raised once nothing can be moved any more, and the pipe is still usable."""
        ours, theirs = self.pair()
        failure = OSError(errno.EIO, os.strerror(errno.EIO))
        with mock.patch("os.splice", side_effect=failure):
            self.assertRaises(OSError, self.pipes.move, self.file, 0, 100, ours.fileno())
        self.assertEqual(100, self.pipes.move(self.file, 0, 100, ours.fileno()))
        self.assertEqual(CONTENT[:100], self.read(theirs))

    def test_noDescriptors(self) -> None:
        """Without descriptors for a pipe it goes more slowly."""
        ours, theirs = self.pair()
        with mock.patch("os.pipe", side_effect=OSError(errno.EMFILE, os.strerror(errno.EMFILE))):
            self.assertEqual(100, self.pipes.move(self.file, 7, 100, ours.fileno()))
        self.assertEqual(CONTENT[7:107], self.read(theirs))

    def test_atTheSameTime(self) -> None:
        """A call inside a call, as from another thread, has a pipe of its own."""
        (ours, theirs), other = self.pair(), self.pair()
        real = os.splice
        inside = [other[0].fileno()]

        def splice(*arguments: int, **options: int) -> int:
            done = real(*arguments, **options)
            if inside:
                self.pipes.move(self.file, 500, 50, inside.pop())
            return done

        with mock.patch("os.splice", splice):
            self.pipes.move(self.file, 0, 100, ours.fileno())
        self.assertEqual((CONTENT[:100], CONTENT[500:550]), (self.read(theirs), self.read(other[1])))

    def test_oneAfterAnother(self) -> None:
        """Calls one after another share three descriptors, which are closed with the last who has them."""
        ours, _ = self.pair()
        before = open_descriptors()
        for _ in range(3):
            self.pipes.move(self.file, 0, 10, ours.fileno())
        self.assertEqual(3, len(open_descriptors() - before))
        del self.pipes
        self.assertEqual(before, open_descriptors())
