"""The units for systemd in etc/: they start what there is, and keep what they promise."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from walsender.tap import Options

ROOT = Path(__file__).parents[2]


def read_unit(name: str) -> configparser.ConfigParser:
    """Return a unit of ours."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((ROOT / "etc" / name).read_text())
    return parser


class UnitTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Read it."""
        self.service = read_unit("walsender.service")["Service"]

    def test_commandLine(self) -> None:
        """All options are known; twistd stays in the foreground, without a pid file."""
        program, *arguments = shlex.split(self.service["ExecStart"])
        self.assertEqual("twistd", Path(program).name)
        at = arguments.index("walsender")
        twistd = ServerOptions()
        twistd.parseOptions([*arguments[:at], "walsender"])
        self.assertTrue(twistd["nodaemon"])
        self.assertEqual("", twistd["pidfile"])
        plugin = Options()
        plugin.parseOptions(arguments[at + 1 :])
        self.assertEqual([("config-file", "/etc/walsender/walsender.conf")], plugin.given)

    def test_isBound(self) -> None:
        """It has no privilege, writes nowhere but into its own directory, and may open enough files."""
        wanted = {
            "NoNewPrivileges": "yes",
            "CapabilityBoundingSet": "",
            "ProtectSystem": "strict",
            "PrivateTmp": "yes",
        }
        self.assertEqual(wanted, {name: self.service[name] for name in wanted})
        self.assertNotIn(self.service["User"], {"", "root"})
        self.assertGreaterEqual(int(self.service["LimitNOFILE"]), 64 + 4 * 100 + 132)

    def test_isWatched(self) -> None:
        """It says itself when it is ready, which may take long, and that it is alive; a reload is SIGHUP."""
        wanted = {
            "Type": "notify",
            "TimeoutStartSec": "infinity",
            "Restart": "on-failure",
            "ExecReload": "/bin/kill -HUP $MAINPID",
        }
        self.assertEqual(wanted, {name: self.service[name] for name in wanted})
        self.assertGreaterEqual(int(self.service["WatchdogSec"]), 60)


class SocketTests(SynchronousTestCase):
    def test_endpoint(self) -> None:
        """The endpoint that the unit's comment gives, and the docs, names its socket."""
        section = read_unit("walsender.socket")["Socket"]
        self.assertEqual("127.0.0.1:5433", section["ListenStream"])
        endpoint = f"systemd:domain=INET:name={section['FileDescriptorName']}"
        for file in ("etc/walsender.socket", "docs/deploying.md"):
            self.assertIn(endpoint, (ROOT / file).read_text(), file)
