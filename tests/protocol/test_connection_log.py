"""What the log says of connections: line by line, as PostgreSQL words it."""

from __future__ import annotations

import json

from log_helpers import BAD, LogTestCase
from protocol_helpers import LOCAL, TERMINATE, error_fields, query, startup_packet, status
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.logger import formatEvent

from walsender.auth import Authenticated, TlsInfo
from walsender.sender import Logged
from walsender.sender.connection_log import ConnectionLog


class ConnectionTests(LogTestCase):
    """``log_connections`` and ``log_disconnections``."""

    def test_standby(self) -> None:
        """From the first line to the last it has one number, and its names as soon as they are known."""
        client = self.server.connect()
        self.assertEqual(
            ["[1] [unknown]@127.0.0.1 [unknown] LOG:  connection received: host=127.0.0.1 port=40000"],
            self.lines(),
        )
        client.start(user="repl", application_name="s1")
        before = "[1] repl@127.0.0.1 [unknown] LOG:  "
        self.assertEqual(
            [
                f'{before}connection authenticated: user="repl" method=trust (/etc/pg_hba.conf:7)',
                f"{before}replication connection authorized: user=repl application_name=s1",
            ],
            self.lines(),
        )
        self.assertEqual(1, client.entry.process_id)
        self.server.reactor.advance(3725.5)
        client.send(TERMINATE)
        client.transport.lose()
        self.assertEqual(
            [
                (
                    "[1] repl@127.0.0.1 s1 LOG:  disconnection: session time: 1:02:05.500 "
                    "user=repl database= host=127.0.0.1 port=40000"
                )
            ],
            self.lines(),
        )

    def test_console(self) -> None:
        """A client that wants SQL has a database."""
        client = self.server.console(user="admin", application_name="psql")
        lines = self.lines()
        self.assertIn(
            "LOG:  connection authorized: user=admin database=walsender application_name=psql", lines[-1]
        )
        client.transport.lose()
        self.assertIn(" user=admin database=walsender host=127.0.0.1 port=40000", self.lines()[-1])

    def test_identity(self) -> None:
        """Who was asked who it is has an identity; of a built-in rule there is no line."""
        self.authorizer.how = Authenticated("peer", "root\n", "")
        self.server.started()
        self.assertIn(r'LOG:  connection authenticated: identity="root\x0a" method=peer', self.lines()[1])
        self.authorizer.how = None
        self.server.started()
        self.assertEqual(2, len(self.lines()))

    def test_addresses(self) -> None:
        """A unix socket has no port; a client of IPv4 on a socket of IPv6 has its own address."""
        self.server.connect(UNIXAddress("/run/x"))
        self.server.connect(IPv6Address("TCP", "::ffff:192.0.2.1", 5))
        self.assertEqual(
            [
                "[1] [unknown]@[local] [unknown] LOG:  connection received: host=[local]",
                "[2] [unknown]@192.0.2.1 [unknown] LOG:  connection received: host=192.0.2.1 port=5",
            ],
            self.lines(),
        )

    def test_tls(self) -> None:
        """How it is encrypted is said as PostgreSQL says it."""
        client = self.server.connect()
        log = ConnectionLog(client.transport, self.server.factory)
        log.user, log.database = "repl", ""
        self.lines()
        log.authorized("", TlsInfo(cipher="protocol=TLSv1.3, cipher=X, bits=256"))
        (line,) = self.lines()
        self.assertEqual(
            "replication connection authorized: user=repl SSL enabled (protocol=TLSv1.3, cipher=X, bits=256)",
            line.partition("LOG:  ")[2],
        )

    def test_eachWord(self) -> None:
        """Each word of ``log_connections`` has its line, and nothing has one by default."""
        for words, expected in (
            (("receipt",), ["received"]),
            (("authentication",), ["authenticated"]),
            (("authorization",), ["authorized"]),
            ((), []),
        ):
            self.server.factory.logged = Logged(words)
            client = self.server.started()
            client.transport.lose()
            found = [line.partition("connection ")[2].partition(":")[0] for line in self.lines()]
            self.assertEqual(expected, found)

    def test_disconnectionAlone(self) -> None:
        """``log_disconnections`` tells of who was in, and of nobody else."""
        self.server.factory.logged = Logged(disconnections=True)
        for client in (self.server.connect(), self.server.started()):
            client.transport.lose()
        (line,) = self.lines()
        self.assertIn("disconnection: session time: 0:00:00.000 user=postgres database= ", line)


class CommandTests(LogTestCase):
    """``log_replication_commands``."""

    def commands(self, text: str) -> list[str]:
        """Return what is logged of a command."""
        client = self.server.started()
        self.lines()
        client.ask(text)
        return [line.partition("LOG:  ")[2] for line in self.lines()]

    def test_command(self) -> None:
        """It is logged as it came; what is none is an error only."""
        for command in ("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM ;"):
            self.assertEqual([f"received replication command: {command}"], self.commands(command))
        self.assertEqual([""], self.commands("nonsense"))

    def test_longCommand(self) -> None:
        """A client cannot fill the disk with one command."""
        logged = self.commands("IDENTIFY_SYSTEM" + " " * 100_000 + ";")[0]
        self.assertTrue(logged.endswith(" ..."))
        self.assertEqual(len("received replication command: ") + 2003, len(logged))

    def test_off(self) -> None:
        """By default none is."""
        self.server.factory.logged = Logged()
        self.assertEqual([], self.commands("IDENTIFY_SYSTEM"))

    def test_nothingPerSlice(self) -> None:
        """However much WAL is sent and confirmed, nothing is logged of it, nor any event made."""
        client = self.server.streaming(0x100000)
        client.receive()
        self.assertIn("started streaming WAL at 0/100000", self.lines()[-1])
        self.events.clear()
        for end in range(0x310000, 0x400000, 0x10000):
            self.server.source.grow(end)
            client.receive()
            client.send(status(end))
        self.assertEqual([], self.events)


class ErrorTests(LogTestCase):
    """What clients are told."""

    def test_refused(self) -> None:
        """Who is refused is told the message; the log has why, in lines of their own, and the level."""
        client = self.server.connect()
        self.lines()
        fields = error_fields(client.start(user="mallory"))
        self.assertNotIn("D", fields)
        before = "[1] mallory@127.0.0.1 [unknown] "
        self.assertEqual(
            [f"{before}FATAL:  go away", f"{before}DETAIL:  she is known", f"{before}HINT:  far away"],
            self.lines(),
        )

    def test_hostileNames(self) -> None:
        """Neither a user's name nor an application's breaks a line."""
        self.configure(prefix="%u %a ")
        client = self.server.started(user=BAD, application_name=BAD)
        client.ask(BAD)
        client.transport.lose()
        lines = self.lines()
        self.assertTrue(all(line.isprintable() for line in lines), lines)
        self.assertFalse([line for line in lines if line.startswith("FATAL")])
        self.assertEqual(5, len(lines))

    def test_json(self) -> None:
        """In JSON an error has its SQLSTATE, and the client's kind and address."""
        self.configure("jsonlog")
        client = self.server.started(application_name="s1")
        self.lines()
        client.ask("BASE_BACKUP")
        found = [json.loads(line) for line in self.lines()][-1]
        self.assertEqual(
            ("ERROR", "walsender", "127.0.0.1", 40000, "s1", 1),
            tuple(
                found[name]
                for name in (
                    "error_severity",
                    "backend_type",
                    "remote_host",
                    "remote_port",
                    "application_name",
                    "pid",
                )
            ),
        )
        self.assertEqual(error_fields(client.ask("BASE_BACKUP"))["C"], found["state_code"])

    def test_otherObservers(self) -> None:
        """What an embedding program logs says who it is at the beginning of the line."""
        self.server.factory.logged = Logged()
        client = self.server.started(application_name="s1")
        client.ask("nonsense")
        (text,) = [
            formatEvent(event)
            for event in self.events
            if event.get("log_namespace", "").startswith("walsender")
        ]
        self.assertTrue(text.startswith(f"{LOCAL.host}:{LOCAL.port} postgres s1 ERROR: "), text)

    def test_strangers(self) -> None:
        """A stranger who says nonsense is somebody whose names nobody knows."""
        client = self.server.connect()
        self.lines()
        client.send(startup_packet(replication="sometimes"))
        self.assertTrue(self.lines()[0].startswith("[1] postgres@127.0.0.1 [unknown] FATAL:  "))
        client = self.server.connect()
        self.lines()
        client.send(query("x"))
        self.assertTrue(self.lines()[0].startswith("[2] [unknown]@127.0.0.1 [unknown] LOG:  "))
