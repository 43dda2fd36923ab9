"""
Hearing many idle standbys at once.

A standby that has everything says so every few seconds.  Of thousands there are hundreds of such reports a
second, and to wake up for each one costs several times what reading it does: after each sleep the
processor's caches hold other programs.  So the sockets of idle streams are not watched by the reactor but by
an epoll of ours, which is asked ten times a second.  (To have the reactor watch the epoll was tried:
each time that one epoll is added to another the kernel looks at all sockets in it.)

* Here is read only what is plainly input, and the socket rests on only if it is the last report once more,
  or the stream, given that input, says again that it may.  After anything else, and when the peer has
  closed, reset or half closed the connection, the socket is the reactor's again, which finds out by itself.
* The last report once more is told from other input by its bytes (`IRepetition`): most of what another
  report costs is fetching a connection's objects into the processor's caches, so it touches few.
* A socket is watched by one of the two, never by both.  It leaves ours when its stream ends, or by being
  closed before the stream knows, since its duplicate is closed earlier.  Were one left nevertheless, its
  events would make another transport look in vain, no more.
* Only reading rests, and only while no WAL flows: when some has been sent the reactor reads again, so that
  lags are exact.  Timeouts see a report by a tenth of a second later.
"""

from __future__ import annotations

import contextlib
import select
import socket
from typing import TYPE_CHECKING, Final, Protocol

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from walsender.sender.interfaces import IClientTransport

INTERVAL: Final = 0.1  # seconds

# More than a report takes.  Of more input than that the rest is the reactor's.
_READ_SIZE: Final = 256  # bytes


class IRepetition(Protocol):
    """Knows the last report, and takes it when it comes again."""

    def heard(self, data: bytes, now: float) -> bool:
        """If *data* is that report and no more, take it; return whether."""


class IdleSockets:
    """
    The sockets that rest.

    There is an epoll and a timer as long as there are any.

    :param worth_it: whether there are so many clients that one more should rest.
    """

    def __init__(self, clock: IReactorTime, worth_it: Callable[[], bool]) -> None:
        self._clock = clock
        self._worth_it = worth_it
        self._epoll: select.epoll | None = None
        self._resting: dict[int, IdleSocket] = {}
        self._next: IDelayedCall | None = None
        self._expecting: list[IdleSocket] = []

    def __len__(self) -> int:
        return len(self._resting)

    def add(self, descriptor: int, idle: IdleSocket) -> bool:
        """Watch *descriptor* for *idle*, unless that is not worth it or not possible; return whether."""
        if not self._worth_it():
            return False
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
                self._next = self._clock.callLater(INTERVAL, self._look)
            self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP)
        except OSError:  # no descriptor or no memory is left: the reactor can do it
            self._close_if_empty()
            return False
        self._resting[descriptor] = idle
        return True

    def remove(self, descriptor: int) -> None:
        """Watch *descriptor* no more."""
        del self._resting[descriptor]
        assert self._epoll is not None, "it was watched"
        with contextlib.suppress(OSError):  # it has been closed
            self._epoll.unregister(descriptor)
        self._close_if_empty()

    def wake_soon(self, idle: IdleSocket) -> None:
        """Wake *idle* in the next turn: in this one others are to be sent the same."""
        if not self._expecting:
            self._clock.callLater(0, self._wake_expecting)
        self._expecting.append(idle)

    def _wake_expecting(self) -> None:
        expecting, self._expecting = self._expecting, []
        for idle in expecting:
            idle.wake()

    def _close_if_empty(self) -> None:
        if self._resting or self._epoll is None:
            return
        self._epoll.close()
        self._epoll = None
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        """See what has happened on any of them."""
        self._next = self._clock.callLater(INTERVAL, self._look)
        assert self._epoll is not None, "closed together with the timer"
        now = self._clock.seconds()
        for descriptor, events in self._epoll.poll(0, len(self._resting)):
            if (idle := self._resting.get(descriptor)) is not None:  # it may have ended because of another
                if events == select.EPOLLIN:
                    idle.read(now)
                else:
                    idle.wake()


class IdleSocket:
    """
    The reading side of one stream's transport, which may rest.

    :param transport: of a bare socket, see `is_bare_socket`.
    :param received: is given input that is no repetition.
    """

    __slots__ = ("_all", "_descriptor", "_may_rest", "_received", "_repetition", "_socket", "_transport")

    _log = Logger()

    def __init__(
        self, transport: IClientTransport, received: Callable[[bytes], object], all_: IdleSockets
    ) -> None:
        self._transport = transport
        self._received = received
        self._all = all_
        self._socket: socket.socket | None = None
        self._descriptor = -1
        self._may_rest = False
        self._repetition: IRepetition | None = None

    def rest(self, repetition: IRepetition | None = None) -> None:
        """
        What has come is what an idle standby says, and no more than that is expected.

        :param repetition: takes it when it comes again, until anything else has come; ``None``: it is
            input as any other.
        """
        self._may_rest = True
        self._repetition = repetition
        if self._descriptor < 0:
            handle = self._transport.getHandle()
            assert isinstance(handle, socket.socket), "is_bare_socket() has looked"
            descriptor = handle.fileno()
            if self._all.add(descriptor, self):
                self._socket = handle
                self._descriptor = descriptor
                self._transport.pauseProducing()

    def read(self, now: float) -> None:
        """There is input."""
        assert self._socket is not None, "it rests"
        try:
            data = self._socket.recv(_READ_SIZE)
        except OSError:  # whatever it is, the reactor meets it too
            data = b""
        repetition = self._repetition
        if repetition is not None and repetition.heard(data, now):
            return
        self._may_rest = False
        self._repetition = None
        if data:
            try:
                self._received(data)
            except Exception:  # noqa: BLE001 (a mistake costs this connection only, as in the reactor)
                self._log.failure("reading from an idle client has failed")
                self._transport.abortConnection()
                return
        if not self._may_rest or len(data) == _READ_SIZE:
            self.wake()

    def expect_another(self) -> None:
        """What has come may mean something else when it comes again."""
        self._repetition = None

    def expect_input(self) -> None:
        """Something has been sent that will be answered."""
        if self._descriptor >= 0:
            self._all.wake_soon(self)

    def wake(self) -> None:
        """Have the reactor read again; harmless when repeated, and when the connection is lost."""
        descriptor, self._descriptor = self._descriptor, -1
        self._socket = self._repetition = None
        if descriptor >= 0:
            self._all.remove(descriptor)
            self._transport.resumeProducing()
