"""
What one client is to be sent next, and sending it: messages' beginnings, and pieces of files.

No Twisted, so that a thread may do it while the reactor does something else; whoever has a `Load`
at the moment has it alone.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from walsender.sender.kernel_pipe import KernelPipes
    from walsender.source import WalSlice


# How long a thread waits for room in a socket before it turns to another client: less than
# what a turn by way of the reactor costs, if the client is fast.
_PATIENCE: Final = 5  # milliseconds

# From so much in a message on, two more calls are nothing to what they spare.
_WORTH_A_CORK: Final = 256 << 10  # bytes


def _cork(client: socket.socket, on: bool) -> None:
    with contextlib.suppress(OSError):  # it spares packets, no more; a socket that is lost will say so itself
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)


class FileEnded(Exception):
    """A file has become shorter than what was promised of it."""


class Part:
    """
    A few bytes, then a piece of a file.

    :ivar prefix: what is left of the bytes.
    :ivar piece: ``None``: there is none.
    :ivar left: how much of the piece is left.
    """

    __slots__ = ("left", "piece", "prefix")

    def __init__(self, prefix: bytes, piece: WalSlice | None = None) -> None:
        self.prefix = prefix
        self.piece = piece
        self.left = 0 if piece is None else piece.length


class Load:
    """
    Parts for one client.

    :ivar parts: those that are left; the first has been begun.
    :ivar over_tcp: whether the client's socket is one of TCP.
    """

    __slots__ = ("over_tcp", "parts")

    def __init__(self) -> None:
        self.parts: deque[Part] = deque()
        self.over_tcp = False

    def pump(self, client: socket.socket, pipes: KernelPipes) -> Exception | None:
        """As `send`, in a thread, where one may wait a moment for room in the socket."""
        room = select.poll()
        room.register(client, select.POLLOUT)
        while isinstance(error := self.send(client, pipes), BlockingIOError):
            if not room.poll(_PATIENCE):
                return error
        return error

    def send(self, client: socket.socket, pipes: KernelPipes) -> Exception | None:
        """
        Send all that the socket takes.

        :returns: ``None``: all is sent.  `BlockingIOError`: the socket takes no more for now.  `FileEnded`,
            or another `OSError` of file or socket: nothing more can be sent.
        """
        if not (self.over_tcp and self.parts and self.parts[-1].left >= _WORTH_A_CORK):
            return self._send(client, pipes)
        # The end of each splice would have a packet of its own, for which a fast client may be woken.  Never
        # corked for longer than this call: the kernel keeps for 200 ms what does not fill a packet.
        _cork(client, True)
        try:
            return self._send(client, pipes)
        finally:
            _cork(client, False)

    def _send(self, client: socket.socket, pipes: KernelPipes) -> Exception | None:
        parts = self.parts
        try:
            while parts:
                part = parts[0]
                if part.prefix:
                    more = socket.MSG_MORE if part.left else 0
                    part.prefix = part.prefix[client.send(part.prefix, more) :]
                elif part.left:
                    assert part.piece is not None, "bytes are left of it"
                    piece = part.piece
                    offset = piece.offset + piece.length - part.left
                    sent = pipes.move(piece.segment.descriptor, offset, part.left, client.fileno())
                    if not sent:
                        return FileEnded()
                    part.left -= sent
                    if part.left:
                        return BlockingIOError()
                else:
                    parts.popleft()
        except InterruptedError:
            return self._send(client, pipes)
        except OSError as error:
            return error.with_traceback(None)  # which would keep files open
        return None
