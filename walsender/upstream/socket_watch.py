"""The reactor's eye on libpq's socket."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorTime,
    IReadWriteDescriptor,
)
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure


class IUpstreamReactor(IReactorTime, IReactorFDSet, IReactorPluggableNameResolver):
    """What is needed of a reactor."""


@implementer(IReadWriteDescriptor)
class SocketWatch:
    """
    Calls *turn* whenever something has happened to a socket; what it was, libpq finds out.

    libpq closes its socket when it sees a connection fail, inside any call, and
    a reactor cannot forget a descriptor that is closed already: the next file
    of that number would never be watched.  So what the reactor gets is a
    duplicate, which is ours to close.  (The connection lives until that is closed too.)

    A hang-up, and that is what a refused connection attempt is, reaches a descriptor as
    `connectionLost`, after the reactor has let go of it.  It is one more reason to ask libpq, who may
    have another host to try.
    """

    def __init__(self, reactor: IUpstreamReactor, turn: Callable[[], None]) -> None:
        self._reactor = reactor
        self._turn = turn
        self._descriptor = -1
        self._reading = False
        self._writing = False

    def open(self, descriptor: int) -> None:
        """
        Watch this socket from now on instead of any other; `want` says what for.

        :raises OSError: there is no descriptor left for the duplicate.
        """
        self.close()
        self._descriptor = os.dup(descriptor)

    def want(self, *, read: bool, write: bool) -> None:
        """Say what to wait for: something to read, room to write."""
        if read != self._reading:
            self._reading = read
            (self._reactor.addReader if read else self._reactor.removeReader)(self)
        if write != self._writing:
            self._writing = write
            (self._reactor.addWriter if write else self._reactor.removeWriter)(self)

    def close(self) -> None:
        """Let go of the socket; harmless if there is none."""
        if self._descriptor >= 0:
            self.want(read=False, write=False)
            os.close(self._descriptor)
            self._descriptor = -1

    # IReadWriteDescriptor

    def fileno(self) -> int:
        """See `IFileDescriptor`."""
        return self._descriptor

    def doRead(self) -> None:
        """See `IReadDescriptor`."""
        self._turn()

    def doWrite(self) -> None:
        """See `IWriteDescriptor`."""
        self._turn()

    def connectionLost(self, reason: Failure) -> None:
        """See `IFileDescriptor`: the reactor has stopped watching."""
        self._reading = self._writing = False
        self._turn()

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "upstream"
