"""
``/events``: the server's state, again and again, to everybody who listens.

While somebody does, and only then, a picture is taken and put into words about once a second: one for
all.  What is sent is always the whole state, so that who cannot keep up misses some of it and
never more waits for him than one; who reads nothing for a while is dropped.

Source: HTML standard, section "Server-sent events".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from .answers import Answer, Page, start, text_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
    from twisted.python.failure import Failure
    from twisted.web.server import Request

MAX_LISTENERS: Final = 16
"""How many there may be at once; others of a `walsender.status.site.StatusSite` want something too."""

INTERVAL: Final = 1.0
"""Seconds between two events, at least."""

MAX_MISSED: Final = 30
"""How many events in a row a listener may miss because it has not read what came before."""

_STREAM: Final = Answer("text/event-stream", b"")
_PER_STANDBY: Final = 0.001  # seconds: thousands of standbys take milliseconds to look at
_BUSY: Final = text_answer("too many listeners", 503)


def frame(data: bytes) -> bytes:
    """Return *data*, which has no line ends, as one event."""
    assert b"\n" not in data, "each line would need a prefix"
    return b"data: %s\n\n" % data


@implementer(IPushProducer)
class _Listener:
    """
    One who listens.

    :param gone: is called when it does no longer.
    """

    def __init__(self, request: Request, gone: Callable[[_Listener], None]) -> None:
        self._request = request
        self._paused = False
        self._missed = 0
        start(request, _STREAM)
        request.notifyFinish().addErrback(lambda _: gone(self))
        request.registerProducer(self, True)
        # How long a browser waits before it comes again.
        request.write(b"retry: 2000\n\n")

    def tell(self, event: bytes) -> None:
        """Send an event, unless an earlier one has not been read yet."""
        if not self._paused:
            self._missed = 0
            self._request.write(event)
            return
        self._missed += 1
        if self._missed >= MAX_MISSED:
            # A close in good order would wait for what is not read.
            cast("ITCPTransport", self._request.transport).abortConnection()

    def pauseProducing(self) -> None:
        """What was sent has not been read."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It has."""
        self._paused = False

    def stopProducing(self) -> None:
        """The connection has ended, of which we are told otherwise."""


class Broadcast:
    """
    Tells all listeners.

    :param describe: makes the state, as bytes without line ends, and says how many standbys there are.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, describe: Callable[[], Deferred[tuple[bytes, int]]]) -> None:
        self._clock = clock
        self._describe = describe
        self._listeners: dict[_Listener, None] = {}
        self._latest = b""
        self._describing = False
        self._timer: IDelayedCall | None = None
        self._failing = False

    @property
    def is_full(self) -> bool:
        """Whether nobody else may listen."""
        return len(self._listeners) >= MAX_LISTENERS

    def add(self, request: Request) -> None:
        """Tell a client from now on; what was told last to others at once."""
        listener = _Listener(request, self._gone)
        self._listeners[listener] = None
        if self._latest:
            listener.tell(self._latest)
        elif self._timer is None:
            self._go_on()

    def _gone(self, listener: _Listener) -> None:
        del self._listeners[listener]
        if not self._listeners:
            self._latest = b""
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _go_on(self) -> None:
        self._timer = None
        if not self._describing:
            self._describing = True
            self._describe().addCallbacks(self._described, self._failed).addCallback(self._rest)

    def _described(self, found: tuple[bytes, int]) -> float:
        self._failing = False
        state, standbys = found
        event = frame(state)
        if self._listeners:
            self._latest = event
        for listener in list(self._listeners):
            listener.tell(event)
        return INTERVAL + _PER_STANDBY * standbys

    def _failed(self, failure: Failure) -> float:
        if not self._failing:  # once, not every second
            self._log.error(
                "could not describe the server to those who listen over HTTP: {kind}: {error}",
                kind=type(failure.value).__name__,
                error=failure.getErrorMessage(),
            )
        self._failing = True
        return INTERVAL

    def _rest(self, seconds: float) -> None:
        self._describing = False
        if self._listeners:
            self._timer = self._clock.callLater(seconds, self._go_on)


class EventsPage(Page):
    """The path of a `Broadcast`."""

    def __init__(self, path: str, broadcast: Broadcast) -> None:
        Page.__init__(self, path, lambda _: _BUSY if broadcast.is_full else _STREAM)
        self._broadcast = broadcast

    def render(self, request: Request) -> int:
        """Listen, if that is asked for and there is a place."""
        if request.method != b"GET" or self._broadcast.is_full:
            return Page.render(self, request)
        self._broadcast.add(request)
        return NOT_DONE_YET
