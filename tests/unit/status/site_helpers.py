"""What the tests of the HTTP server share: a server without a network, and its clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from status_helpers import Watched
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from walsender.status import make_site

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

LOCAL = IPv4Address("TCP", "127.0.0.1", 40000)


class Client:
    """One connection."""

    def __init__(self, site: Any, peer: IAddress = LOCAL, host: IAddress | None = None) -> None:
        self.protocol = site.buildProtocol(peer)
        self.transport = StringTransport(host)
        self.protocol.makeConnection(self.transport)

    def ask(
        self, path: str, method: str = "GET", body: bytes = b"", host: str = "x"
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the answer."""
        self.transport.clear()
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.protocol.dataReceived(
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n".encode() + body
        )
        return self.answer()

    def lose(self) -> None:
        """The connection has ended."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return what has come."""
        return parse_answer(self.transport.value())


def parse_answer(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


class SiteTestCase(SynchronousTestCase):
    """Gives a server and a client."""

    def setUp(self) -> None:
        """Connect."""
        self.watched = Watched()
        self.clock = Clock()
        self.stopping = False
        self.held: list[Deferred[Any]] | None = None
        self.site = make_site(self.clock, self.watched.view, self._in_thread, lambda: self.stopping)
        self.client = Client(self.site)

    def _in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        if self.held is None:
            return maybeDeferred(function, *arguments)
        waiting: Deferred[Any] = Deferred()
        self.held.append(waiting)
        return waiting.addCallback(lambda _: function(*arguments))

    def status(self, path: str) -> int:
        """Return the status of the answer."""
        return self.client.ask(path)[0]
