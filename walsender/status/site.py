"""
The HTTP server: what is asked for, and how much of it.

There is no authentication, so nothing here is secret and nothing can be changed.  A client costs
little whatever it does: there are few connections, a request has no body and must come in time,
and one picture at a time is put into words, in a thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from walsender.errors import ConfigurationError

from .document import document
from .health import DEFAULT_LAG, Health, health, parse_lag, readiness
from .metrics import expose
from .picture import look

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IReactorTime, ITCPTransport
    from twisted.python.failure import Failure

    from walsender.console import ServerView

REQUEST_TIMEOUT: Final = 60
"""Seconds in which a request must have come, and in which an answer must have been read."""

_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered."""

    content_type: str
    body: bytes
    status: int = 200


def _json_answer(content: dict[str, Any], status: int = 200) -> Answer:
    return Answer(_JSON, json.dumps(content, indent=1).encode() + b"\n", status)


def _health_answer(found: Health) -> Answer:
    content: dict[str, Any] = {"ok": found.is_good}
    if found.reason:
        content["reason"] = found.reason
    if found.lag is not None:
        content["lag_bytes"] = found.lag
    return _json_answer(content, 200 if found.is_good else 503)


def _not_found(_: Request) -> Answer:
    return Answer(_TEXT, b"not found\n", 404)


def _not_allowed(_: Request) -> Answer:
    return Answer(_TEXT, b"only GET and HEAD\n", 405)


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

    def metrics(self, request: Request) -> Deferred[Answer]:
        accept = (request.getHeader(b"accept") or b"").decode("ascii", "replace")

        def scrape() -> Deferred[tuple[str, bytes]]:
            return self._run_in_thread(expose, look(self._view, self._now()), accept)

        return self._turn.run(scrape).addCallback(lambda found: Answer(*found))

    def status(self, request: Request) -> Deferred[Answer]:
        def describe() -> Deferred[Answer]:
            picture = look(self._view, self._now())
            return self._run_in_thread(lambda: _json_answer(document(picture)))

        return self._turn.run(describe)

    def liveness(self, request: Request) -> Answer:
        # Whoever reads this has had an answer from the reactor, and that is what was asked.
        return _health_answer(Health())

    def health(self, request: Request) -> Answer:
        return _health_answer(health(self._view, stopping=self._stopping()))

    def readiness(self, request: Request) -> Answer:
        given = request.args.get(b"lag")
        try:
            lag = parse_lag(given[-1].decode("ascii", "replace")) if given else DEFAULT_LAG
        except ConfigurationError as error:
            return Answer(_TEXT, f"{error.message}\n".encode(), 400)
        return _health_answer(readiness(self._view, lag, stopping=self._stopping()))


class _Page(Resource):
    """One path; only GET and HEAD."""

    _log = Logger()

    def __init__(self, path: str, answer: Callable[[Request], Any]) -> None:
        Resource.__init__(self)
        self._path = path
        self._answer = answer

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return what stands for all that is not there."""
        return _Page(self._path, _not_found)

    def render(self, request: Request) -> int:
        """Answer when the answer is there, if somebody is there then."""
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def write(answer: Answer) -> None:
            if gone:
                return
            # Bytes only: under -bb Twisted's headers take no texts beside them.
            request.setResponseCode(answer.status)
            request.setHeader(b"Content-Type", answer.content_type.encode())
            request.setHeader(b"Content-Length", b"%d" % len(answer.body))
            request.setHeader(b"Cache-Control", b"no-store")
            request.write(answer.body)
            request.finish()

        allowed = request.method in {b"GET", b"HEAD"}
        if not allowed:
            request.setHeader(b"Allow", b"GET, HEAD")
        answer = self._answer if allowed else _not_allowed
        answered: Deferred[Answer] = maybeDeferred(answer, request)
        answered.addErrback(self._failed).addCallback(write)
        return NOT_DONE_YET

    def _failed(self, failure: Failure) -> Answer:
        self._log.error(
            "could not answer {path} over HTTP: {kind}: {error}",
            path=self._path,
            kind=type(failure.value).__name__,
            error=failure.getErrorMessage(),
        )
        return Answer(_TEXT, b"internal error\n", 500)


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


class StatusSite(Site):
    """
    Serves the pages.

    :ivar connections: who is connected.
    :cvar max_connections: how many clients there may be at once; more are turned away.
    """

    max_connections: Final = 32
    protocol = _Channel  # type: ignore[assignment]
    requestFactory = _Request
    noisy = False

    def __init__(self, reactor: IReactorTime, root: Resource) -> None:
        Site.__init__(self, root, timeout=REQUEST_TIMEOUT, reactor=reactor)
        self.connections: set[_Channel] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return what serves a client; ``None``: there are too many."""
        if len(self.connections) >= self.max_connections:
            return None
        channel: _Channel = Site.buildProtocol(self, addr)
        self.connections.add(channel)
        return channel

    def left(self, channel: _Channel) -> None:
        """Forget a client."""
        self.connections.discard(channel)

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
    pages = _Pages(view, run_in_thread, reactor.seconds, stopping)
    root = _Page("/", _not_found)
    for name, answer in (
        ("metrics", pages.metrics),
        ("status.json", pages.status),
        ("liveness", pages.liveness),
        ("readiness", pages.readiness),
        ("health", pages.health),
    ):
        root.putChild(name.encode(), _Page(f"/{name}", answer))
    return StatusSite(reactor, root)
