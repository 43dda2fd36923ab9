"""With what a client is told the log has what it had asked for, as PostgreSQL's has."""

from __future__ import annotations

import json

from log_helpers import BAD, LogTestCase
from protocol_helpers import COPY_DONE, Client

from walsender.wire.extended import Bind, Describe, Execute, Parse

ASKED = "SELECT\n  nosuch"


class StatementTests(LogTestCase):
    """``STATEMENT`` lines."""

    def setUp(self) -> None:
        """Log nothing else."""
        super().setUp()
        self.log_only_errors()

    def said(self, client: Client, text: str) -> list[str]:
        """Return what is logged of a command or statement."""
        client.ask(text)
        return self.lines()

    def test_command(self) -> None:
        """A command of replication that fails is told whole; of one that cannot be read only the error."""
        client = self.server.started()
        self.assertEqual(
            [
                "ERROR:  requested timeline 7 is not in this server's history",
                "STATEMENT:  START_REPLICATION 0/100000 TIMELINE 7",
            ],
            [
                line
                for line in self.said(client, "START_REPLICATION 0/100000 TIMELINE 7")
                if not line.startswith("DETAIL")
            ],
        )
        for text in ("IDENTIFY_SYSTEM (", "nonsense"):
            self.assertEqual(1, len(self.said(client, text)), text)

    def test_laterErrors(self) -> None:
        """What has been answered is nobody's fault any more."""
        client = self.server.started()
        client.ask("IDENTIFY_SYSTEM")
        client.protocol.shut_down()
        self.assertEqual(["FATAL:  terminating connection due to administrator command"], self.lines())

    def test_stream(self) -> None:
        """A stream is a command that is not over; when it is, it is not named again."""
        client = self.server.streaming(0x100000)
        client.receive()
        self.lines()
        client.protocol.cancel()
        self.assertEqual(
            ["ERROR:  canceling statement due to user request", "STATEMENT:  START_REPLICATION 0/100000"],
            self.lines(),
        )
        client = self.server.streaming(0x100000)
        client.receive()
        client.send(COPY_DONE)
        self.lines()
        client.protocol.shut_down()
        self.assertEqual(["FATAL:  terminating connection due to administrator command"], self.lines())

    def test_console(self) -> None:
        """Of SQL the place is told too, and further lines begin with a tab."""
        client = self.server.console()
        self.assertEqual(
            [
                'ERROR:  column "nosuch" does not exist at character 10',
                "STATEMENT:  SELECT",
                "\t  nosuch",
            ],
            self.said(client, ASKED),
        )
        self.assertEqual([], self.said(client, "SELECT 1"))
        client.protocol.shut_down()
        self.assertEqual(["FATAL:  terminating connection due to administrator command"], self.lines())

    def test_extendedProtocol(self) -> None:
        """Of a prepared statement its text is told, whatever fails."""
        client = self.server.console()
        self.ask_extended(client, Parse("", "SELECT nosuch"))
        self.assertEqual("STATEMENT:  SELECT nosuch", self.lines()[-1])
        self.ask_extended(client, Parse("a", "SELECT 1 / $1"), Bind("", "a", (), (b"0",), ()), Execute("", 0))
        self.assertEqual(["ERROR:  division by zero", "STATEMENT:  SELECT 1 / $1"], self.lines())
        self.ask_extended(client, Bind("", "a", (), (b"x",), ()))
        self.assertEqual("STATEMENT:  SELECT 1 / $1", self.lines()[-1])
        self.ask_extended(client, Describe(False, "none"))
        self.assertEqual(['ERROR:  prepared statement "none" does not exist'], self.lines())

    def test_passwords(self) -> None:
        """What may have a password in it is not logged."""
        client = self.server.console()
        for text in (
            "ALTER ROLE a PASSWORD 'geheim'",
            "SET primary_conninfo = 'host=a Password=geheim'",
            "SELECT nosuch, 'postgresql://a:geheim@host/'",
        ):
            lines = self.said(client, text)
            self.assertTrue(lines[0].startswith("ERROR:  "))
            self.assertFalse([line for line in lines if "geheim" in line or "STATEMENT" in line], lines)

    def test_hostile(self) -> None:
        """Neither control characters nor length do any harm."""
        client = self.server.console()
        lines = self.said(client, f"SELECT '{BAD}{'x' * 10_000}', nosuch")
        statement = lines[-2:]
        self.assertEqual("STATEMENT:  SELECT 'a", statement[0])
        self.assertTrue(statement[1].startswith("\tFATAL:  b\\x1b[31mxxx"))
        self.assertTrue(statement[1].endswith("x..."))
        self.assertLess(len(statement[1]), 2100)

    def test_json(self) -> None:
        """In JSON it is one value, and the place another."""
        self.configure("jsonlog")
        client = self.server.console()
        (line,) = self.said(client, ASKED)
        found = json.loads(line)
        self.assertEqual((ASKED, 10), (found["statement"], found["cursor_position"]))
        self.assertEqual('column "nosuch" does not exist', found["message"])


class DelayTests(LogTestCase):
    """Streams that have to wait."""

    def setUp(self) -> None:
        """Log nothing else."""
        super().setUp()
        self.log_only_errors()

    def test_heldStart(self) -> None:
        """A start that is ahead is told once, and once that it has been reached."""
        client = self.server.streaming(0x300100)
        client.receive()
        self.assertEqual(
            [
                "LOG:  started streaming WAL at 0/300100 on timeline 1",
                "LOG:  waiting for WAL at 0/300100, which is ahead of the flush position 0/300000",
            ],
            self.lines(),
        )
        for end in (0x300080, 0x3000F8):
            self.server.source.grow(end)
            self.server.reactor.advance(1)
            self.assertEqual([], self.lines())
        for end in (0x300100, 0x300200):
            self.server.source.grow(end)
        self.assertEqual(["LOG:  streaming goes on at 0/300100"], self.lines())

    def test_heldInVain(self) -> None:
        """One that is never reached has its error in the log."""
        client = self.server.streaming(0x300100)
        client.receive()
        self.lines()
        self.server.reactor.advance(60)
        self.assertEqual(2, len(lines := self.lines()), lines)
        self.assertIn("is ahead of the WAL flush position of this server", lines[0])

    def test_fetching(self) -> None:
        """A segment that takes long is told of once, and once that it is there; of the next ones nothing."""
        source = self.server.source
        source.holding = True
        client = self.server.streaming(0x100000)
        client.receive()
        self.assertIn("started", self.lines()[0])
        self.server.reactor.advance(0.9)
        self.assertEqual([], self.lines())
        self.server.reactor.advance(0.1)
        self.server.reactor.advance(10)
        self.assertEqual(
            ["LOG:  waiting for WAL at 0/100000, which is still to be fetched or opened"], self.lines()
        )
        source.release()
        client.receive()
        self.assertEqual(["LOG:  streaming goes on at 0/100000"], self.lines())
        self.assertGreater(source.held, 0, "the next segment is waited for")
        self.server.reactor.advance(5)
        source.holding = False
        source.release()
        client.receive()
        self.assertEqual([], self.lines())

    def test_fetchingFast(self) -> None:
        """What is there within a second is not worth a line."""
        source = self.server.source
        source.holding = True
        client = self.server.streaming(0x100000)
        self.server.reactor.advance(0.9)
        source.holding = False
        source.release()
        client.receive()
        self.server.reactor.advance(10)
        self.assertEqual(["LOG:  started streaming WAL at 0/100000 on timeline 1"], self.lines())

    def test_gone(self) -> None:
        """Of who has left nothing is told any more."""
        self.server.source.holding = True
        client = self.server.streaming(0x100000)
        client.transport.lose()
        self.lines()
        self.server.reactor.advance(10)
        self.assertEqual([], self.lines())
