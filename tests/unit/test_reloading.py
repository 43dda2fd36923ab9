"""What a reload changes, and what is said of it: PostgreSQL's rules and words."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ConfigurationError
from walsender.reloading import Configuration
from walsender.settings import Settings
from walsender.settings.description import describe

RELOADING = "received SIGHUP, reloading configuration files"
OTHERS = 'configuration file "FILE" contains errors; unaffected changes were applied'
NONE = 'configuration file "FILE" contains errors; no changes were applied'
RESTART = 'parameter "max_wal_senders" cannot be changed without restarting the server'


class ReloadTests(SynchronousTestCase):
    """`Configuration`, over a file."""

    def setUp(self) -> None:
        """Begin with an empty file."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.file = Path(directory.name, "walsender.conf")
        self.applied: list[Settings] = []
        self.now = 5.0
        self.begin()

    def begin(self, text: str = "", *options: tuple[str, str]) -> None:
        """Start with *text* in the file."""
        self.file.write_text(text)
        self.options = [("wal-directory", "/wal"), ("config-file", str(self.file)), *options]
        self.configuration = Configuration(
            Settings.load(self.options), lambda: self.now, lambda: Settings.load(self.options), self.apply
        )

    def apply(self, settings: Settings) -> None:
        """Take over *settings*; a certain command makes no sense."""
        if settings.restore_command == "nonsense":
            raise ConfigurationError("that is nonsense")
        self.applied.append(settings)

    def reload(self, text: str) -> list[str]:
        """Reload with *text* in the file, and return what is logged behind the first line."""
        self.file.write_text(text)
        self.now += 1
        with capturedLogs() as events:
            self.configuration.reload()
        first, *lines = (formatEvent(event).replace(str(self.file), "FILE") for event in events)
        self.assertEqual(RELOADING, first)
        return lines

    def test_nothingNew(self) -> None:
        """Nothing is said of what is as it was, but it has been read again."""
        self.assertEqual([], self.reload("sendfile = on"))
        self.assertEqual(6.0, self.configuration.read_at)

    def test_changed(self) -> None:
        """What can change does, and is told with its value as SHOW prints it."""
        lines = self.reload(
            "sendfile = off\nwal_sender_timeout = 90s\nlog_connections = 'receipt, authorization'"
        )
        self.assertEqual(
            [
                'parameter "wal_sender_timeout" changed to "90s"',
                'parameter "wal_sender_shutdown_timeout" changed to "90s"',
                'parameter "sendfile" changed to "off"',
                'parameter "log_connections" changed to "receipt, authorization"',
            ],
            [line.replace("90000ms", "90s") for line in lines],
        )
        (after,) = self.applied
        self.assertIs(after, self.configuration.settings)
        self.assertEqual((False, 90.0), (after.sendfile, after.wal_sender_timeout))

    def test_removed(self) -> None:
        """What stands in the file no more is back at its default."""
        self.begin("sendfile = off")
        lines = self.reload("")
        self.assertEqual(['parameter "sendfile" removed from configuration file, reset to default'], lines)
        self.assertTrue(self.configuration.settings.sendfile)

    def test_secrets(self) -> None:
        """The value of a connection string is not told, there may be a password in it."""
        self.begin("primary_conninfo = 'host=a'")
        lines = self.reload("primary_conninfo = 'host=b password=geheim'")
        self.assertEqual(['parameter "primary_conninfo" changed'], lines)

    def test_restart(self) -> None:
        """What needs a restart waits, is told at each reload, and shown; the rest changes."""
        for text in ("max_wal_senders = 5\nsendfile = off", "max_wal_senders = 5\nsendfile = on"):
            lines = self.reload(text)
            self.assertEqual(RESTART, lines[0])
            self.assertIn("sendfile", lines[1])
            self.assertEqual(OTHERS, lines[2])
            self.assertEqual(100, self.configuration.settings.max_wal_senders)
            self.assertEqual({"max_wal_senders"}, self.configuration.waiting)
            shown = describe(self.configuration.settings, self.configuration.waiting)
            self.assertEqual(["max_wal_senders"], [one.name for one in shown if one.pending_restart])
        self.assertEqual([], self.reload(""))
        self.assertEqual(frozenset(), self.configuration.waiting)

    def test_relayOrNot(self) -> None:
        """To become a relay, or none any more, needs a restart; another upstream does not."""
        lines = self.reload("primary_conninfo = 'host=a'")
        self.assertIn('"primary_conninfo" cannot be changed without', lines[0])
        self.assertEqual("", self.configuration.settings.primary_conninfo)

    def test_wrongValues(self) -> None:
        """Each is told with its place and leaves its setting as it is; the others change."""
        self.begin("wal_sender_timeout = 10s")
        lines = self.reload(
            "fsync = maybe\nwal_sender_timeout = soon\nsendfile = off\nauthentication_timeout = 1h\n"
        )
        self.assertEqual(
            [
                'parameter "sendfile" changed to "off"',
                'parameter "fsync" requires a Boolean value in file "FILE" line 1',
                'invalid value for parameter "wal_sender_timeout": "soon" in file "FILE" line 2',
                (
                    "3600 s is outside the valid range for parameter "
                    '"authentication_timeout" (1 s .. 600 s) in file "FILE" line 4'
                ),
                OTHERS,
            ],
            lines,
        )
        after = self.configuration.settings
        self.assertEqual(
            (10.0, 10.0, False), (after.wal_sender_timeout, after.wal_sender_shutdown_timeout, after.sendfile)
        )

    def test_wrongNames(self) -> None:
        """After a name that nobody knows nothing changes; all is told that is wrong."""
        lines = self.reload("sendfiel = off\nsendfile = off\nfoo = 1\nfsync = 7")
        self.assertEqual(
            [
                (
                    'unrecognized configuration parameter "sendfiel" in file "FILE" line 1. '
                    'Perhaps you meant "sendfile".'
                ),
                'unrecognized configuration parameter "foo" in file "FILE" line 3',
                'parameter "fsync" requires a Boolean value in file "FILE" line 4',
                NONE,
            ],
            lines,
        )
        self.assertEqual([], self.applied)

    def test_unreadable(self) -> None:
        """A line, or a whole file, that cannot be read changes nothing."""
        first, last = self.reload("sendfile = off\nfsync = on off\n")
        self.assertIn('syntax error in file "FILE" line 2, near token "off"', first)
        self.assertEqual(NONE, last)
        missing = self.reload("include '/missing/x'")[0]
        self.assertIn('could not open configuration file "/missing/x"', missing)
        self.assertTrue(self.configuration.settings.sendfile)

    def test_nonsense(self) -> None:
        """What makes no sense where it is to be applied changes nothing."""
        lines = self.reload("restore_command = nonsense\nsendfile = off")
        self.assertEqual(["that is nonsense", NONE], lines)
        self.assertTrue(self.configuration.settings.sendfile)

    def test_commandLineStays(self) -> None:
        """What the command line says stays, whatever the file says; but a wrong value there is told."""
        self.begin("", ("sendfile", "off"))
        self.assertEqual([], self.reload("sendfile = on"))
        self.assertIn("requires a Boolean value", self.reload("sendfile = onn")[0])
        self.assertFalse(self.configuration.settings.sendfile)

    def test_embedded(self) -> None:
        """Where nobody can read the configuration again, nothing changes."""
        configuration = Configuration(self.configuration.settings, lambda: 0, None, self.apply)
        configuration.reload()
        self.assertEqual([], self.applied)

    def test_severity(self) -> None:
        """All of it is at the level LOG, as in PostgreSQL."""
        self.file.write_text("fsync = maybe\nmax_wal_senders = 3")
        with capturedLogs() as events:
            self.configuration.reload()
        self.assertEqual({None, "LOG"}, {event.get("severity") for event in events})
        self.assertEqual(["info"], [event["log_level"].name for event in events if "severity" not in event])
