"""
The HTTP server: what is asked for, and how much of it.

There is no authentication, so nothing here is secret and nothing can be changed.  A client costs
little whatever it does: there are few connections, a request has no body and must come in time,
and one picture at a time is put into words, in a thread.
"""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import Deferred, DeferredLock
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from walsender.clocks import time_of_day
from walsender.errors import ConfigurationError
from walsender.sender.peer import accept_few
from walsender.sender.waiting_room import WaitingRoom

from .answers import Answer, Page, json_answer, not_found, text_answer
from .document import document, outage
from .events import Broadcast, EventsPage
from .health import DEFAULT_LAG, Health, health, parse_lag, readiness
from .metrics import expose
from .page import MOST_ROWS, page_answer
from .picture import Picture, look

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IReactorTime, ITCPTransport
    from twisted.python.failure import Failure
    from twisted.web.resource import Resource

    from walsender.console import ServerView

REQUEST_TIMEOUT: Final = 60
"""Seconds in which a request must have come, and in which an answer must have been read."""


def _health_answer(found: Health) -> Answer:
    content: dict[str, Any] = {"ok": found.is_good}
    if found.reason:
        content["reason"] = found.reason
    if found.lag is not None:
        content["lag_bytes"] = found.lag
    if found.not_receiving is not None:
        content["not_receiving"] = outage(found)
    return json_answer(content, 200 if found.is_good else 503)


def _lag_asked_for(request: Request) -> int:
    """
    Return the bytes in ``?lag=``, or the default.

    :raises walsender.errors.ConfigurationError: it is no size.
    """
    given = request.args.get(b"lag")
    return parse_lag(given[-1].decode("ascii", "replace")) if given else DEFAULT_LAG


class _Pages:
    """Answers by path."""

    def __init__(
        self,
        view: ServerView,
        run_in_thread: Callable[..., Deferred[Any]],
        now: Callable[[], float],
        stopping: Callable[[], bool],
    ) -> None:
        self._view = view
        self._run_in_thread = run_in_thread
        self._now = now
        self._stopping = stopping
        # One at a time: they share one interpreter with those who stream, and never all its threads.
        self._turn = DeferredLock()

    def _look(self) -> Picture:
        return look(self._view, self._now(), stopping=self._stopping())

    def metrics(self, request: Request) -> Deferred[Answer]:
        accept = (request.getHeader(b"accept") or b"").decode("ascii", "replace")

        def scrape() -> Deferred[tuple[str, bytes]]:
            return self._run_in_thread(expose, self._look(), accept)

        return self._turn.run(scrape).addCallback(lambda found: Answer(*found))

    def status(self, request: Request) -> Deferred[Answer]:
        def describe() -> Deferred[Answer]:
            picture = self._look()
            return self._run_in_thread(lambda: json_answer(document(picture)))

        return self._turn.run(describe)

    def page(self, request: Request) -> Any:
        try:
            most_lag = _lag_asked_for(request)
        except ConfigurationError as error:
            return text_answer(error.message, 400)

        def draw() -> Deferred[Answer]:
            picture = self._look()
            return self._run_in_thread(lambda: page_answer(document(picture, MOST_ROWS), most_lag))

        return self._turn.run(draw)

    def event(self) -> Deferred[tuple[bytes, int]]:
        def describe() -> Deferred[tuple[bytes, int]]:
            picture = self._look()

            def in_words() -> tuple[bytes, int]:
                state = json.dumps(document(picture, MOST_ROWS), separators=(",", ":"))
                return state.encode(), len(picture.walsenders)

            return self._run_in_thread(in_words)

        return self._turn.run(describe)

    def liveness(self, request: Request) -> Answer:
        # Whoever reads this has had an answer from the reactor, and that is what was asked.
        return _health_answer(Health())

    def health(self, request: Request) -> Answer:
        return _health_answer(health(self._view, stopping=self._stopping()))

    def readiness(self, request: Request) -> Answer:
        try:
            lag = _lag_asked_for(request)
        except ConfigurationError as error:
            return text_answer(error.message, 400)
        return _health_answer(readiness(self._view, lag, stopping=self._stopping()))


class _Request(Request):
    """A request whose body nobody reads, so that it takes no memory and no disk."""

    def gotLength(self, length: int | None) -> None:
        """Expect nothing."""
        Request.gotLength(self, 0)

    def handleContentChunk(self, data: bytes) -> None:
        """Forget it."""


class _Channel(HTTPChannel):
    """A connection; a request has `REQUEST_TIMEOUT` from the first byte to the last, not between two."""

    site: StatusSite

    def connectionMade(self) -> None:
        """A client has connected."""
        accept_few(cast("ITCPTransport", self.transport))
        HTTPChannel.connectionMade(self)

    def resetTimeout(self) -> None:
        """Let the time run on whatever comes."""

    def timeoutConnection(self) -> None:
        """End a connection that is idle or slow, which is nothing to log."""
        self.drop()

    def drop(self) -> None:
        """End the connection at once."""
        cast("ITCPTransport", self.transport).abortConnection()

    def requestDone(self, request: Request) -> None:
        """Bound the time in which the answer is read, also when the connection ends with it."""
        HTTPChannel.setTimeout(self, REQUEST_TIMEOUT)
        HTTPChannel.requestDone(self, request)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Clean up."""
        HTTPChannel.connectionLost(self, reason)
        self.site.left(self)


def _is_meant_for_us(request: Request) -> bool:
    """
    Return whether a request over loopback names this machine, by its address or as ``localhost``.

    A page from anywhere, in a browser on this machine, could otherwise read all that is here: by a name of
    its own that leads to this address the second time that it is looked up ("DNS rebinding").
    """
    here = getattr(request.getHost(), "host", "")
    try:
        if not ipaddress.ip_address(here.partition("%")[0]).is_loopback:
            return True
    except ValueError:  # a unix socket
        return True
    name = request.getRequestHostname().decode("ascii", "replace").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


_NOT_HERE: Final = Page(
    "", lambda _: text_answer("over loopback this is localhost, or an address; see docs/monitoring.md", 421)
)


class StatusSite(Site):
    """
    Serves the pages.

    :ivar connections: who is connected.
    :cvar max_connections: how many clients there may be at once; of more, the oldest goes of those from the
        address that has most, so that nobody keeps probes out.
    """

    max_connections: Final = 32
    protocol = _Channel  # type: ignore[assignment]
    requestFactory = _Request
    noisy = False

    def __init__(self, reactor: IReactorTime, root: Resource) -> None:
        Site.__init__(self, root, timeout=REQUEST_TIMEOUT, reactor=reactor)
        self.connections: set[_Channel] = set()
        self._room: WaitingRoom[_Channel] = WaitingRoom(self.max_connections)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return what serves a client; ``None``: those who make room for it have not gone yet."""
        if len(self.connections) >= 2 * self.max_connections:
            return None
        channel: _Channel = Site.buildProtocol(self, addr)
        self.connections.add(channel)
        driven_out = self._room.enter(channel, cast("IAddress", addr))
        if driven_out is not None:
            driven_out.drop()
        return channel

    def left(self, channel: _Channel) -> None:
        """Forget a client."""
        self._room.leave(channel)
        self.connections.discard(channel)

    def getResourceFor(self, request: Request) -> Any:
        """Return what answers a request."""
        return Site.getResourceFor(self, request) if _is_meant_for_us(request) else _NOT_HERE

    def close(self) -> None:
        """Drop all clients."""
        for channel in list(self.connections):
            channel.drop()

    def log(self, request: object) -> None:
        """Say nothing: a line for each scrape would hide the others."""


def make_site(
    reactor: IReactorTime,
    view: ServerView,
    run_in_thread: Callable[..., Deferred[Any]],
    stopping: Callable[[], bool],
) -> StatusSite:
    """
    Return what serves a program's metrics and health.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    :param stopping: whether clients are turned away because the server ends.
    """
    pages = _Pages(view, run_in_thread, time_of_day(reactor), stopping)
    root = Page("/", not_found)
    for name, answer in (
        ("", pages.page),
        ("metrics", pages.metrics),
        ("status.json", pages.status),
        ("liveness", pages.liveness),
        ("readiness", pages.readiness),
        ("health", pages.health),
    ):
        root.putChild(name.encode(), Page(f"/{name}", answer))
    root.putChild(b"events", EventsPage("/events", Broadcast(reactor, pages.event)))
    return StatusSite(reactor, root)
