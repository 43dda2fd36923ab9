"""How events become lines: levels, prefixes, JSON."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from server_log_helpers import NOW, Kept, Somebody, logging_to
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from walsender.server_log.line_prefix import LinePrefix
from walsender.server_log.record import Record
from walsender.settings.log_settings import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable


class LogTestCase(SynchronousTestCase):
    """Times are in UTC."""

    def setUp(self) -> None:
        """Set the time zone."""
        self.addCleanup(self.zone, os.environ.get("TZ"))
        self.zone("UTC")

    def zone(self, name: str | None) -> None:
        """Set the time zone, or none."""
        os.environ.pop("TZ", None)
        if name is not None:
            os.environ["TZ"] = name
        time.tzset()

    def lines(self, tell: Callable[[Logger], object], **options: str) -> list[str]:
        """Return what is written of what *tell* logs."""
        place = Kept()
        logger, _ = logging_to(place, **options)
        tell(logger)
        return place.lines


class LevelTests(LogTestCase):
    """``log_min_messages``."""

    def test_ofTwisted(self) -> None:
        """Each of Twisted's levels has its own of PostgreSQL's; LOG is above ERROR."""

        def tell(log: Logger) -> None:
            for level in LogLevel.iterconstants():
                log.emit(level, "this")

        self.assertEqual(["LOG:  this", "WARNING:  this", "ERROR:  this", "FATAL:  this"], self.lines(tell))
        self.assertEqual(["LOG:  this", "FATAL:  this"], self.lines(tell, min_messages="log"))
        self.assertEqual("DEBUG1:  this", self.lines(tell, min_messages="debug1")[0])
        self.assertEqual([], self.lines(tell, min_messages="panic"))

    def test_eachLevelHidesThoseBelow(self) -> None:
        """A minimum lets itself through, and what is above it, in PostgreSQL's order."""

        def tell(log: Logger) -> None:
            for level in LEVELS:
                log.info("{severity}", severity=level.upper())

        for number, level in enumerate(LEVELS):
            with self.subTest(level):
                expected = [f"{one.upper()}:  {one.upper()}" for one in LEVELS[number:]]
                self.assertEqual(expected, self.lines(tell, min_messages=level))

    def test_statements(self) -> None:
        """``log_min_error_statement`` decides under which errors the statement stands."""

        def tell(log: Logger) -> None:
            for severity in ("ERROR", "FATAL"):
                log.error("no", severity=severity, statement="SELECT 1")

        statement = "STATEMENT:  SELECT 1"
        for level, expected in (
            ("error", ["ERROR:  no", statement, "FATAL:  no", statement]),
            ("log", ["ERROR:  no", "FATAL:  no", statement]),
            ("panic", ["ERROR:  no", "FATAL:  no"]),
        ):
            self.assertEqual(expected, self.lines(tell, min_error_statement=level))

    def test_whatTwistedSays(self) -> None:
        """Of its ports and factories Twisted tells who looks for mistakes; of what fails, everybody."""
        place = Kept()
        _, log = logging_to(place)
        twisted = Logger("twisted.internet", observer=LogPublisher(log))
        twisted.info("Starting factory")
        twisted.warn("Could not")
        log.configure(destination="stderr", line_prefix="", min_messages="debug1")
        twisted.info("Starting factory")
        self.assertEqual(["WARNING:  Could not", "DEBUG1:  Starting factory"], place.lines)

    def test_mistakes(self) -> None:
        """A failure that is survived is an ERROR; its traceback follows, and cannot be taken for messages."""
        failure = Failure(RuntimeError("one\nFATAL:  two"))
        first, *rest = self.lines(lambda log: log.failure("internal error", failure))
        self.assertEqual("ERROR:  internal error", first)
        self.assertTrue(rest[0].startswith("CONTEXT:  Traceback"))
        self.assertTrue(all(line.startswith("\t") for line in rest[1:]), rest)
        self.assertIn("\tFATAL:  two", rest)


class LineTests(LogTestCase):
    """Lines of text."""

    def test_detailAndHint(self) -> None:
        """They have lines of their own; who it is, and the level, are not said twice."""

        def tell(log: Logger) -> None:
            log.error(
                "{session} {severity}: {message}{more}",
                session=Somebody(),
                severity="FATAL",
                message="no",
                more=" (because)",
                detail="because",
                hint="try",
            )

        self.assertEqual(
            ["x FATAL:  no", "x DETAIL:  because", "x HINT:  try"], self.lines(tell, line_prefix="x ")
        )

    def test_moreOfNobody(self) -> None:
        """What is about no session has its detail and hint once, too."""

        def tell(log: Logger) -> None:
            log.error("{text}{more}", text="no", more=" (because try)", detail="because", hint="try")

        self.assertEqual(["ERROR:  no", "DETAIL:  because", "HINT:  try"], self.lines(tell, line_prefix=""))

    def test_controlCharacters(self) -> None:
        """Nothing that a client says can break a line, or turn into a message of its own."""
        bad = "a\nFATAL:  b\r\x1b[31m\x85\u2028\udcff"
        somebody = Somebody(user=bad, application_name=bad, database=bad)

        def tell(log: Logger) -> None:
            log.info("{session} {text}", session=somebody, text=bad, detail=bad, hint=bad)

        clean = r"a\x0aFATAL:  b\x0d\x1b[31m\x85\x2028\xff"
        lines = self.lines(tell, line_prefix="%u %d %a ")
        before = f"{clean} {clean} {clean} "
        self.assertEqual([f"{before}{kind}:  {clean}" for kind in ("LOG", "DETAIL", "HINT")], lines)
        (line,) = self.lines(tell, destination="jsonlog")
        self.assertTrue(line.isascii() and line.isprintable())
        self.assertEqual(bad, json.loads(line)["user"])

    def test_percentAndBraces(self) -> None:
        """What a client says is no format."""
        (line,) = self.lines(
            lambda log: log.info("{session} {text}", session=Somebody(user="%m{x}"), text="{y}%p"),
            line_prefix="%u ",
        )
        self.assertEqual("%m{x} LOG:  {y}%p", line)


class PrefixTests(LogTestCase):
    """``log_line_prefix``."""

    def fill(self, prefix: str, session: Somebody | None = None, **fields: Any) -> str:
        """Return what stands before a line."""
        return LinePrefix(prefix).fill(Record(NOW, "LOG", "", session, **fields))

    def test_ofAClient(self) -> None:
        """All escapes, about a client."""
        for escape, expected in {
            "m": "2026-11-23 05:00:00.250 UTC",
            "t": "2026-11-23 05:00:00 UTC",
            "n": "1795410000.250",
            "p": "7",
            "u": "replicator",
            "d": "[unknown]",
            "a": "standby1",
            "h": "192.0.2.1",
            "r": "192.0.2.1(40112)",
            "b": "walsender",
            "c": "6b03c814.7",
            "s": "2026-11-23 04:59:00 UTC",
            "e": "58P01",
            "%": "%",
            "q": "",
            "z": "",
        }.items():
            self.assertEqual(f"<{expected}>", self.fill(f"<%{escape}>", Somebody(), sqlstate="58P01"), escape)

    def test_ofNobody(self) -> None:
        """Without a client its escapes give nothing, and nothing at all follows %q."""
        self.assertEqual(f"{os.getpid()} <> postmaster 00000 ", self.fill("%p <%u%d%a%h%r> %b %e %q%u@%h"))

    def test_unknownYet(self) -> None:
        """A client that has said nothing is somebody all the same; one at a unix socket has no port."""
        stranger = Somebody(user=None, database=None, application_name=None, host="[local]", port=-1)
        self.assertEqual("[unknown] [unknown] [unknown] [local]", self.fill("%u %d %a %r", stranger))

    def test_padding(self) -> None:
        """A width pads at the left, a negative one at the right; what is longer stays."""
        self.assertEqual("|  standby1|standby1  |standby1|", self.fill("|%10a|%-10a|%2a|", Somebody()))
        self.assertEqual("|          |", self.fill("|%10a|"))

    def test_timeZone(self) -> None:
        """Times are those of the machine, and say of which zone."""
        self.zone("ABC-2")
        self.assertEqual("2026-11-23 07:00:00.250 ABC", self.fill("%m"))

    def test_ends(self) -> None:
        """A percent sign at the end is nothing."""
        self.assertEqual("7 ", self.fill("%p %", Somebody()))


class JsonTests(LogTestCase):
    """``log_destination = jsonlog``."""

    def json(self, session: Somebody | None, **fields: Any) -> dict[str, Any]:
        """Return the one line that is written."""

        def tell(log: Logger) -> None:
            log.error("{session} text", session=session, log_time=NOW, **fields)

        (line,) = self.lines(tell, destination="jsonlog", line_prefix="%m nobody sees this")
        found: dict[str, Any] = json.loads(line)
        return found

    def test_ofAClient(self) -> None:
        """PostgreSQL's keys, in its order; what is not known is left out."""
        found = self.json(Somebody(), severity="FATAL", sqlstate="28000", detail="because", hint="try")
        del found["timestamp"]  # of now
        self.assertEqual(
            [
                ("user", "replicator"),
                ("pid", 7),
                ("remote_host", "192.0.2.1"),
                ("remote_port", 40112),
                ("session_id", "6b03c814.7"),
                ("session_start", "2026-11-23 04:59:00 UTC"),
                ("error_severity", "FATAL"),
                ("state_code", "28000"),
                ("message", "text"),
                ("detail", "because"),
                ("hint", "try"),
                ("application_name", "standby1"),
                ("backend_type", "walsender"),
            ],
            list(found.items()),
        )

    def test_ofSql(self) -> None:
        """A client that wants SQL has a database, one at a unix socket no port."""
        found = self.json(Somebody(database="walsender", host="[local]", port=-1))
        self.assertEqual("walsender", found["dbname"])
        self.assertNotIn("remote_port", found)

    def test_ofNobody(self) -> None:
        """What concerns no client is of the server itself."""
        (line,) = self.lines(lambda log: log.warn("text"), destination="jsonlog")
        found = json.loads(line)
        self.assertEqual(
            ["timestamp", "pid", "session_id", "error_severity", "message", "backend_type"], list(found)
        )
        self.assertEqual((os.getpid(), "postmaster"), (found["pid"], found["backend_type"]))
        self.assertRegex(found["timestamp"], r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC$")

    def test_mistake(self) -> None:
        """A traceback is one value in the one line."""
        failure = Failure(RuntimeError("oh"))
        (line,) = self.lines(lambda log: log.failure("internal error", failure), destination="jsonlog")
        found = json.loads(line)
        self.assertEqual(("internal error", "XX000"), (found["message"], found["state_code"]))
        self.assertIn("builtins.RuntimeError: oh", found["context"].splitlines()[-1])
