"""What is found out before the start."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ConfigurationError
from walsender.preflight import check_locks, check_pid_file, endpoints, http_endpoints
from walsender.settings import Settings
from walsender.tap import Options


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


class EndpointHintTests(SynchronousTestCase):
    """What is no endpoint, but nearly one."""

    def refusal(self, listen: str, http: str = "") -> str:
        """Return why it is refused."""
        settings = Settings.load([("wal_directory", "/"), ("listen", listen), ("http", http)])
        look = http_endpoints if http else endpoints
        return self.assertRaises(ConfigurationError, look, settings, MemoryReactor()).message

    def test_port(self) -> None:
        """Whoever gives a port, or an address with one, is told how to write it."""
        self.assertTrue(self.refusal("5433").endswith('. Perhaps you meant "tcp:5433".'))
        self.assertTrue(self.refusal("tcp:1", "9187").endswith('. Perhaps you meant "tcp:9187".'))
        meant = '. Perhaps you meant "tcp:5433:interface=127.0.0.1".'
        self.assertTrue(self.refusal("127.0.0.1:5433").endswith(meant))

    def test_somethingElse(self) -> None:
        """Of anything else nobody knows what was meant."""
        self.assertNotIn("Perhaps", self.refusal("udp:5433"))


class DirectoryTests(SynchronousTestCase):
    """Directories and files that are written to from the start."""

    def setUp(self) -> None:
        """Make a place."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.place = Path(directory.name)

    def test_relayWithoutDirectory(self) -> None:
        """A relay's missing directory is told by its own name, not by that of what is made in it."""
        wal = self.place / "wal"
        settings = Settings.load([("wal_directory", str(wal)), ("primary_conninfo", "host=x")])
        self.assertEqual(
            f'could not open WAL directory "{wal}": No such file or directory (parameter "wal_directory" '
            "from command line option --wal-directory). Create it; a relay fills an empty directory.",
            self.assertRaises(ConfigurationError, check_locks, settings).message,
        )
        wal.mkdir()
        check_locks(settings)

    def test_pidFile(self) -> None:
        """A pid file that twistd could not write is refused, with what to do."""
        allowed = True
        self.patch(os, "access", lambda *_: allowed)
        path = self.place / "twistd.pid"
        for one in ("", str(path), "/dev/null"):
            check_pid_file(one)
        hint = "Give twistd --pidfile=FILE before the word walsender, or --pidfile= for none."
        missing = self.place / "none" / "twistd.pid"
        self.assertEqual(
            f'could not write pid file "{missing}": No such file or directory. {hint}',
            self.assertRaises(ConfigurationError, check_pid_file, str(missing)).message,
        )
        allowed = False
        self.assertEqual(
            f'could not write pid file "{path}": Permission denied. {hint}',
            self.assertRaises(ConfigurationError, check_pid_file, str(path)).message,
        )


class OptionTests(SynchronousTestCase):
    """Options that there are not."""

    def test_unknown(self) -> None:
        """A misspelt option is answered with the right one; anything else is just refused."""
        for given, expected in {
            "--listne": 'walsender: option --listne not recognized. Perhaps you meant "--listen".',
            "--xyzzy": "walsender: option --xyzzy not recognized",
        }.items():
            refusal = self.assertRaises(SystemExit, Options().parseOptions, [given, "x"])
            self.assertEqual(expected, str(refusal))
