"""
The container file in etc/: its instructions against what there is.

No image is built: that would need a container engine.  What is checked is that all that is copied exists and
is not ignored, that the program understands the commands, and that the instructions agree with each other.
"""

from __future__ import annotations

import json
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from walsender.__main__ import parse
from walsender.settings import Settings
from walsender.tap import Options

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """Return names and arguments, lines that are continued put together."""
    text = re.sub(r"^#.*\n", "", (ROOT / "etc" / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def is_ignored(name: str) -> bool:
    """Return whether .dockerignore keeps *name*, in the root, out of the build."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and fnmatch(name, line.removeprefix("!")):
            ignored = not line.startswith("!")
    return ignored


class ContainerTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Read it, up to the second stage and from there on."""
        found = instructions()
        second = max(number for number, (name, _) in enumerate(found) if name == "FROM")
        self.build, self.image = found[:second], found[second:]

    def only(self, name: str) -> str:
        """Return the argument of the one instruction of a name in the image."""
        (argument,) = (rest for each, rest in self.image if each == name)
        return argument

    def entrypoint(self) -> list[str]:
        """Return the command of the image."""
        command: list[str] = json.loads(self.only("ENTRYPOINT"))
        return command

    def settings(self) -> Settings:
        """Return what the image's options mean."""
        command = self.entrypoint()
        options = Options()
        options.parseOptions(command[command.index("walsender") + 1 :])
        return Settings.load(options.given)

    def test_copied(self) -> None:
        """All that is copied is there and is not ignored; what the package is made of is copied."""
        copied = [name for each, rest in self.build if each == "COPY" for name in shlex.split(rest)[:-1]]
        self.assertEqual([], [name for name in copied if not (ROOT / name).exists() or is_ignored(name)])
        self.assertLessEqual({"setup.cfg", "pyproject.toml", "walsender", "twisted"}, set(copied))
        self.assertTrue(is_ignored("tests"))
        self.assertEqual("--from=build /opt/walsender /opt/walsender", self.only("COPY"))
        self.assertRegex(self.build[0][1], " AS build$")

    def test_extra(self) -> None:
        """What pip installs has the extras that it names."""
        (command,) = (rest for each, rest in self.build if each == "RUN")
        match = re.search(r"'\.\[(\w+)\]'", command)
        assert match is not None
        self.assertIn(f"\n{match[1]} =\n", (ROOT / "setup.cfg").read_text())

    def test_user(self) -> None:
        """It does not run as root, and the user's directory is made for that user before the volume is."""
        user = self.only("USER")
        names = [name for name, _ in self.image]
        self.assertNotIn(user, {"root", "0"})
        self.assertIn(f"--owner {user} --group {user} --mode 0700 {self.only('VOLUME')}", self.only("RUN"))
        self.assertLess(names.index("RUN"), names.index("VOLUME"))

    def test_command(self) -> None:
        """Twistd stays in the foreground, without pid file and log file; WAL is in the volume."""
        command = self.entrypoint()
        twistd = ServerOptions()
        twistd.parseOptions([*command[1 : command.index("walsender")], "walsender"])
        self.assertEqual((True, "", "-"), (twistd["nodaemon"], twistd["pidfile"], twistd["logfile"]))
        settings = self.settings()
        self.assertEqual(self.only("VOLUME"), settings.wal_directory)
        ports = [endpoint.removeprefix("tcp:") for endpoint in (*settings.listen, settings.http)]
        self.assertEqual(self.only("EXPOSE").split(), ports)

    def test_health(self) -> None:
        """The health check asks where the image listens; what stops it is the signal for an end in order."""
        command = json.loads(self.only("HEALTHCHECK").partition("CMD ")[2])
        self.assertEqual(["/opt/walsender/bin/python", "-m", "walsender"], command[:3])
        port = self.settings().http.removeprefix("tcp:")
        self.assertEqual(f"http://127.0.0.1:{port}/liveness", parse(command[3:]).url)
        self.assertEqual("SIGTERM", self.only("STOPSIGNAL"))
