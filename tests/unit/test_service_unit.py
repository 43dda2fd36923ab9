"""The unit for systemd in etc/: it starts what there is, and keeps what it promises."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from walsender.tap import Options

UNIT = Path(__file__).parents[2] / "etc" / "walsender.service"


class UnitTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Read it."""
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(UNIT.read_text())
        self.service = parser["Service"]

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
