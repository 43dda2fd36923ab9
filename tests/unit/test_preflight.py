"""What is found out before the start."""

from __future__ import annotations

from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ConfigurationError
from walsender.preflight import endpoints
from walsender.settings import Settings


class BacklogTests(SynchronousTestCase):
    """How many clients may connect at the same time."""

    def backlog(self, endpoint: str, max_wal_senders: str) -> int:
        """Listen on *endpoint*; return for how many connections there is room."""
        settings = Settings.load(
            [("wal_directory", "/"), ("listen", endpoint), ("max_wal_senders", max_wal_senders)]
        )
        reactor = MemoryReactor()
        ((_, listening),) = endpoints(settings, reactor)
        listening.listen(Factory())
        servers = reactor.tcpServers or reactor.unixServers
        backlog: int = servers[0][2]
        return backlog

    def test_allAtOnce(self) -> None:
        """There is room for all clients at once, and as many more."""
        self.assertEqual(2000, self.backlog("tcp:5433:interface=127.0.0.1", "1000"))
        self.assertEqual(2000, self.backlog("unix:/tmp/s", "1000"))

    def test_few(self) -> None:
        """Never is there less than Twisted would give."""
        self.assertEqual(50, self.backlog("tcp:5433", "3"))

    def test_asGiven(self) -> None:
        """What the endpoint says itself is so."""
        self.assertEqual(7, self.backlog("tcp:5433:backlog=7", "1000"))


class SystemdTests(SynchronousTestCase):
    """Sockets that systemd passes."""

    def test_noSuchSocket(self) -> None:
        """An endpoint without its socket is refused in words that say whose fault it is."""
        for which in ("index=0", "name=wal"):
            listen = f"systemd:domain=INET:{which}"
            settings = Settings.load([("wal_directory", "/"), ("listen", listen)])
            error = self.assertRaises(ConfigurationError, endpoints, settings, MemoryReactor())
            self.assertIn(
                f'"{listen}" is no server endpoint (systemd has passed no such socket)', error.message
            )
