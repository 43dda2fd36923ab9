"""Where the log goes: what twistd has been told, and what the place adds by itself."""

from __future__ import annotations

import io
import os
import signal
import sys
import syslog
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server_log_helpers import Kept, logging_to
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ConfigurationError
from walsender.server_log import ILogPlace, StreamPlace, place_for
from walsender.server_log.places import FilePlace
from walsender.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

LINES = ["one", "\ttwo"]


def nobody(*_: object) -> None:
    """Nobody may be called."""
    raise AssertionError


class TwistdTests(SynchronousTestCase):
    """Its options."""

    def setUp(self) -> None:
        """Let nobody have the signal that rotates."""
        before = signal.getsignal(signal.SIGUSR1)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def file_place(self, asked: Callable[..., object], **options: Any) -> ILogPlace:
        """Return a place that is a file."""
        place = place_for(options, asked)
        assert isinstance(place, FilePlace)
        self.addCleanup(place._file.close)
        return place

    def test_file(self) -> None:
        """``--logfile`` is appended to, and rotated at SIGUSR1."""
        file = self.directory / "log"
        file.write_text("before\n")
        asked: list[Any] = []
        place = self.file_place(asked.append, logfile=str(file))
        self.assertFalse(place.keeps_time)
        place.write("LOG", [*LINES, "\udcff"])
        self.assertEqual("before\none\n\ttwo\n\\udcff\n", file.read_text())
        signal.raise_signal(signal.SIGUSR1)
        (rotate,) = asked
        rotate()
        place.write("LOG", ["new"])
        self.assertEqual("new\n", file.read_text())
        self.assertIn("before", Path(f"{file}.1").read_text())

    def test_fileThatCannotBeOpened(self) -> None:
        """It is told in one line, and not by a traceback."""
        path = str(self.directory / "missing" / "log")
        error = self.assertRaises(ConfigurationError, place_for, {"logfile": path}, nobody)
        self.assertEqual(f'could not open log file "{path}": No such file or directory', error.message)

    def test_daemonsFile(self) -> None:
        """A daemon that is told nothing writes ``twistd.log`` where it was started."""
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.directory)
        self.file_place(nobody, nodaemon=0, logfile=None).write("LOG", LINES)
        self.assertEqual("one\n\ttwo\n", (self.directory / "twistd.log").read_text())

    def test_foreground(self) -> None:
        """``--nodaemon`` writes to standard output, with ``--logfile -`` too."""
        for options in ({"nodaemon": 1, "logfile": None}, {"nodaemon": 1, "logfile": "-"}):
            stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
            self.patch(sys, "stdout", stream)
            place = place_for(options, nobody)
            assert place is not None
            place.write("LOG", ["é", "\udcff"])
            self.assertEqual(b"\\xe9\n\\udcff\n", stream.buffer.getvalue())  # type: ignore[attr-defined]

    def test_leftToTwistd(self) -> None:
        """An observer that somebody has chosen stays; and what twistd refuses, it refuses."""
        for options in ({"logger": "a.b", "nodaemon": 1}, {"logfile": "-", "nodaemon": 0}):
            self.assertIsNone(place_for(options, nobody))

    def test_syslog(self) -> None:
        """``--syslog`` gives each line its priority, and notes the time by itself."""
        opened: list[Any] = []
        told: list[Any] = []
        self.patch(syslog, "openlog", lambda *arguments: opened.append(arguments))
        self.patch(syslog, "syslog", lambda *arguments: told.append(arguments))
        for prefix, name in (("twisted", "walsender"), ("relay", "relay")):
            place = place_for({"syslog": 1, "prefix": prefix, "logfile": "x"}, nobody)
            assert place is not None
            self.assertTrue(place.keeps_time)
            self.assertEqual((name, syslog.LOG_PID, syslog.LOG_DAEMON), opened.pop())
        for severity, priority in {
            "DEBUG1": syslog.LOG_DEBUG,
            "LOG": syslog.LOG_INFO,
            "WARNING": syslog.LOG_NOTICE,
            "ERROR": syslog.LOG_WARNING,
            "FATAL": syslog.LOG_ERR,
            "PANIC": syslog.LOG_CRIT,
        }.items():
            place.write(severity, LINES)
            self.assertEqual([(priority, "one"), (priority, "\ttwo")], told)
            told.clear()


class JournalTests(SynchronousTestCase):
    """systemd's journal, behind standard output."""

    def written(self, journal: bool) -> str:
        """Return what is written to a file that is the journal, or not."""
        with tempfile.TemporaryFile("w+") as file:
            status = os.fstat(file.fileno())
            device = status.st_dev if journal else status.st_dev + 1
            place = StreamPlace(file, f"{device}:{status.st_ino}")
            self.assertEqual(journal, place.keeps_time)
            place.write("ERROR", LINES)
            file.seek(0)
            return file.read()

    def test_priorities(self) -> None:
        """Each line begins with its priority."""
        self.assertEqual("<4>one\n<4>\ttwo\n", self.written(True))

    def test_somethingElse(self) -> None:
        """Where standard output has been redirected since, the journal's variable means nothing."""
        self.assertEqual("one\n\ttwo\n", self.written(False))

    def test_noSecondTime(self) -> None:
        """The usual prefix has no time where the place notes it; one that was asked for stays."""
        (usual,) = (one.default for one in SETTINGS if one.name == "log_line_prefix")
        assert usual is not None
        for keeps_time, asked_for, expected in (
            (False, False, r"^\d{4}-.* \[\d+\] LOG:  x$"),
            (True, False, r"^\[\d+\] LOG:  x$"),
            (True, True, r"^\d{4}-.* \[\d+\] LOG:  x$"),
        ):
            place = Kept(keeps_time)
            logger, log = logging_to(place)
            log.configure(
                destination="stderr", line_prefix=usual, min_messages="warning", asked_for=asked_for
            )
            logger.info("x")
            self.assertRegex(place.lines[0], expected)
