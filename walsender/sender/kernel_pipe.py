"""
Moving bytes from a file to a socket within the kernel, for less than ``sendfile`` takes.

``sendfile`` is a splice into a pipe of 64 KiB and one out of it, over and over.  With a larger
pipe, and the two steps taken from here, the same pages go the same way in fewer and larger
steps, for about half of the CPU time (docs/performance.md).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Final

# What a pipe may have without privileges.
_PIPE_SIZE: Final = 1 << 20  # bytes

_DO_NOT_WAIT: Final = 0x02  # SPLICE_F_NONBLOCK, which Python has no name for


class _Pipe:
    def __init__(self) -> None:
        self.out = self.into = self._nowhere = -1
        self.out, self.into = os.pipe()
        self._nowhere = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(OSError):  # this user's pipes have many pages already: it is small, no more
            fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)

    def drop(self, count: int) -> None:
        while count:
            count -= os.splice(self.out, self._nowhere, count)

    def __del__(self) -> None:
        for descriptor in (self.out, self.into, self._nowhere):
            if descriptor >= 0:
                os.close(descriptor)


class KernelPipes:
    """
    Pipes for any number of files and sockets: between two calls all are empty.

    There are as many as there have been calls at the same time, from whatever threads.
    """

    def __init__(self) -> None:
        self._idle: list[_Pipe] = []

    def move(self, file: int, offset: int, count: int, socket: int) -> int:
        """
        Move at most *count* bytes from *offset* of *file* to the non-blocking *socket*, both descriptors.

        :returns: how many; fewer if the socket takes no more for now, or the file ends; 0 if it ends at
            *offset*.
        :raises OSError: of the file or the socket, and nothing was moved.
        """
        try:
            pipe = self._take()
        except OSError:  # no descriptor is left
            return os.sendfile(socket, file, offset, count)
        moved = 0
        try:
            while moved < count:
                filled = left = os.splice(file, pipe.into, min(count - moved, _PIPE_SIZE), offset + moved)
                if not filled:
                    break
                try:
                    while left:
                        left -= os.splice(pipe.out, socket, left, flags=_DO_NOT_WAIT)
                finally:
                    moved += filled - left
                    # What the socket did not take is still in the file, and somebody else is next.
                    pipe.drop(left)
        except OSError:
            if not moved:  # otherwise it will be met again
                raise
        finally:
            self._idle.append(pipe)
        return moved

    def _take(self) -> _Pipe:
        try:
            return self._idle.pop()
        except IndexError:
            return _Pipe()
