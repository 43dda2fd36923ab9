"""Conversations with the console, byte for byte but for what is said in words."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from console_helpers import SYNC, ConsoleServer, ConsoleTestCase, query, summary
from protocol_helpers import Server, copy_data, error_fields, kinds, message, parse
from twisted.internet.address import IPv4Address

from walsender.auth import LocalAuthorizer
from walsender.console.console import MAX_SESSIONS, Console
from walsender.console.phase import MAX_KEPT, MAX_PORTALS, MAX_PREPARED, MAX_PREPARED_TEXT, MAX_STATEMENT
from walsender.lsn import LSN
from walsender.settings.description import SettingDescription
from walsender.testing.raw_client import startup_packet
from walsender.upstream import NotReceiving, ReceiverStatus
from walsender.wire.dialect import ModernDialect
from walsender.wire.extended import Bind, Close, Describe, Execute, Parse

if TYPE_CHECKING:
    from walsender.auth import ConnectionRequest


class LookOnly(LocalAuthorizer):
    """Lets everybody look, and nobody act."""

    def may_administer(self, request: ConnectionRequest) -> bool:
        """See `IAuthorizer`."""
        return False


class StartupTests(ConsoleTestCase):
    """Coming in."""

    def test_greeting(self) -> None:
        """An ordinary session is greeted, and takes no place among the walsenders."""
        client = self.server.connect()
        answer = client.start(replication="false", database="walsender")
        self.assertEqual("ready I", summary(message(*parse(answer)[-1]))[0])
        statuses = [summary(message(kind, body))[0] for kind, body in parse(answer) if kind == b"S"]
        self.assertIn("server_encoding is UTF8", statuses)
        self.assertIn(b"K", kinds(answer))
        self.assertEqual(0, len(self.server.factory.slot_table))
        self.assertFalse(client.is_closed)

    def test_otherSessionsAreStillRefused(self) -> None:
        """Neither replication=database nor, without a console, SQL is served."""
        client = self.server.connect()
        answer = client.start(replication="database", database="walsender")
        self.assertEqual("0A000", error_fields(answer)["C"])
        plain = Server(self.scripted_source(0x300000), ModernDialect(180000)).connect()
        self.assertEqual("0A000", error_fields(plain.start(replication="false"))["C"])

    def test_tooMany(self) -> None:
        """There is a bound of sessions, and who goes makes room."""
        for _ in range(MAX_SESSIONS - 1):
            self.server.console()
        refused = self.server.connect()
        fields = error_fields(refused.start(replication="false"))
        self.assertEqual(("53300", "sorry, too many clients already"), (fields["C"], fields["M"]))
        self.client.transport.lose()
        self.assertEqual(
            ["columns ?column?", "row 1", "SELECT 1", "ready I"], self.ask("SELECT 1", self.server.console())
        )

    def test_shutdown(self) -> None:
        """When the server stops, the session ends with a word."""
        self.server.factory.shut_down()
        self.assertEqual("57P01", error_fields(self.client.receive())["C"])
        self.assertTrue(self.client.is_closed)


class SimpleTests(ConsoleTestCase):
    """The simple protocol."""

    def test_rows(self) -> None:
        """A query has columns, rows, a tag and the state."""
        self.assertEqual(
            ["columns a b", "row 1 | x", "row 2 | NULL", "SELECT 2", "ready I"],
            self.ask("SELECT * FROM (VALUES (1, 'x'), (2, NULL)) v(a, b)"),
        )

    def test_severalStatements(self) -> None:
        """They are answered one after the other, up to the first error."""
        self.assertEqual(
            ["columns ?column?", "row 1", "SELECT 1", "ERROR 22012 division by zero", "ready I"],
            self.ask("SELECT 1; SELECT 1/0; SELECT 2"),
        )

    def test_nothingIsDoneIfOneIsNoStatement(self) -> None:
        """All are read before the first is run."""
        self.assertEqual(
            ['ERROR 42601 syntax error at or near "nonsense" at 11', "ready I"],
            self.ask("SELECT 1; nonsense"),
        )

    def test_blank(self) -> None:
        """A blank text is answered as such."""
        for text in ("", " ; ; -- nothing"):
            self.assertEqual(["empty", "ready I"], self.ask(text))

    def test_tooLong(self) -> None:
        """A statement has a bound."""
        self.assertEqual(
            ["ERROR 54001 statement is too long", "ready I"], self.ask("SELECT " + " " * MAX_STATEMENT + "1")
        )

    def test_refusals(self) -> None:
        """What would change something is refused in PostgreSQL's words."""
        for text, answer in (
            ("INSERT INTO a VALUES (1)", "ERROR 25006 cannot execute INSERT in a read-only transaction"),
            (
                "create temp table a (b int)",
                "ERROR 25006 cannot execute CREATE TABLE in a read-only transaction",
            ),
            ("ALTER SYSTEM SET a = 1", "ERROR 25006 cannot execute ALTER SYSTEM in a read-only transaction"),
            ("VACUUM", "ERROR 25006 cannot execute VACUUM during recovery"),
            ("EXPLAIN SELECT 1", "ERROR 0A000 EXPLAIN is not supported by the console of walsender"),
            ("SET ROLE x", "ERROR 0A000 SET is not supported by the console of walsender"),
            ("SELECT * FROM pg_class", 'ERROR 42P01 relation "pg_class" does not exist at 15'),
            ("BEGIN READ WRITE", "ERROR 25006 cannot set transaction read-write mode during recovery"),
            ("SHOW nonsense", 'ERROR 42704 unrecognized configuration parameter "nonsense"'),
            ("SELECT pg_current_wal_lsn()", "ERROR 55000 recovery is in progress"),
            (
                "SELECT current_setting('nonsense')",
                'ERROR 42704 unrecognized configuration parameter "nonsense"',
            ),
        ):
            self.assertEqual([answer, "ready I"], self.ask(text), text)

    def test_functionCall(self) -> None:
        """The fast path is refused, and the session goes on."""
        self.client.send(message(b"F", b"x"))
        answer = summary(self.client.receive())
        self.assertEqual(
            ["ERROR 0A000 fastpath function calls are not supported by the console of walsender", "ready I"],
            answer,
        )


class TransactionTests(ConsoleTestCase):
    """BEGIN and its end."""

    def test_states(self) -> None:
        """The state is told after each statement."""
        self.assertEqual(["BEGIN", "ready T"], self.ask("BEGIN"))
        self.assertEqual(["ERROR 22012 division by zero", "ready E"], self.ask("SELECT 1/0"))
        aborted = (
            "ERROR 25P02 current transaction is aborted, commands ignored until end of transaction block"
        )
        self.assertEqual([aborted, "ready E"], self.ask("SELECT 1"))
        self.assertEqual(["ROLLBACK", "ready I"], self.ask("COMMIT"))
        self.assertEqual(["START TRANSACTION", "ready T"], self.ask("START TRANSACTION READ ONLY"))
        self.assertEqual(["COMMIT", "ready I"], self.ask("END"))

    def test_warnings(self) -> None:
        """What makes no sense is done with a warning."""
        self.assertEqual(
            ["WARNING 25P01 there is no transaction in progress", "COMMIT", "ready I"], self.ask("COMMIT")
        )
        self.ask("BEGIN")
        self.assertEqual(
            ["WARNING 25001 there is already a transaction in progress", "BEGIN", "ready T"],
            self.ask("BEGIN"),
        )

    def test_savepoints(self) -> None:
        """A failed transaction goes on from a savepoint."""
        self.ask("BEGIN; SAVEPOINT a")
        self.ask("SELECT 1/0")
        self.assertEqual(["ROLLBACK", "ready T"], self.ask("ROLLBACK TO a"))
        self.assertEqual(["RELEASE", "ready T"], self.ask("RELEASE a"))
        self.assertEqual(['ERROR 3B001 savepoint "a" does not exist', "ready E"], self.ask("ROLLBACK TO a"))
        self.ask("ROLLBACK")
        self.assertEqual(
            ["ERROR 25P01 SAVEPOINT can only be used in transaction blocks", "ready I"],
            self.ask("SAVEPOINT a"),
        )

    def test_settingsGoWithTheTransaction(self) -> None:
        """SET is undone by ROLLBACK, SET LOCAL by any end; changes are reported."""
        self.ask("BEGIN")
        self.assertEqual(
            ["TimeZone is Asia/Tokyo", "SET", "ready T"],
            sorted_statuses(self.ask("SET timezone = 'Asia/Tokyo'")),
        )
        self.assertEqual(["TimeZone is UTC", "ROLLBACK", "ready I"], sorted_statuses(self.ask("ROLLBACK")))
        self.ask("BEGIN; SET LOCAL statement_timeout = 100")
        self.assertIn("row 100ms", self.ask("SHOW statement_timeout"))
        self.ask("COMMIT")
        self.assertIn("row 0", self.ask("SHOW statement_timeout"))

    def test_discard(self) -> None:
        """What a pool sends between its clients."""
        self.ask("SET application_name = 'x'")
        self.assertIn("DISCARD ALL", self.ask("DISCARD ALL"))
        self.assertIn("row ", self.ask("SHOW application_name"))
        for text in ("DEALLOCATE ALL", "CLOSE ALL", "UNLISTEN *", "RESET ALL"):
            self.assertEqual("ready I", self.ask(text)[-1])
        self.ask("BEGIN")
        self.assertEqual(
            ["ERROR 25001 DISCARD ALL cannot run inside a transaction block", "ready E"],
            self.ask("DISCARD ALL"),
        )


def sorted_statuses(answer: list[str]) -> list[str]:
    """Return an answer with what is told of parameters first; PostgreSQL has changed the order over time."""
    return sorted(answer, key=lambda word: " is " not in word)


class ExtendedTests(ConsoleTestCase):
    """The extended protocol."""

    def test_wholeStatement(self) -> None:
        """Parse, describe, bind, execute."""
        self.assertEqual(
            [
                "parsed",
                "types 23",
                "columns ?column?",
                "bound",
                "columns ?column?",
                "row 4",
                "SELECT 1",
                "ready I",
            ],
            self.say(
                Parse("", "SELECT $1 + 1"),
                Describe(False, ""),
                Bind("", "", (), (b"3",)),
                Describe(True, ""),
                Execute(""),
            ),
        )

    def test_namedStatements(self) -> None:
        """They stay until they are closed."""
        self.say(Parse("a", "SELECT 1"))
        self.assertEqual(["bound", "row 1", "SELECT 1", "ready I"], self.say(Bind("", "a"), Execute("")))
        self.assertEqual(
            ['ERROR 42P05 prepared statement "a" already exists', "ready I"], self.say(Parse("a", "SELECT 2"))
        )
        self.assertEqual(["closed", "ready I"], self.say(Close(False, "a")))
        self.assertEqual(
            ['ERROR 26000 prepared statement "a" does not exist', "ready I"],
            self.say(Bind("", "a"), Execute("")),
        )
        self.say(Parse("b", "SELECT 1"))
        self.assertEqual(["DEALLOCATE", "ready I"], self.ask("DEALLOCATE b"))
        self.assertEqual(
            ['ERROR 26000 prepared statement "b" does not exist', "ready I"], self.ask("DEALLOCATE b")
        )

    def test_binary(self) -> None:
        """Numbers, truths and texts go both ways in binary."""
        values = (struct.pack(">i", 7), struct.pack(">q", -8), struct.pack(">d", 1.5), b"\1", b"x", None)
        types = (23, 20, 701, 16, 25, 23)
        self.client.send(
            Parse("", "SELECT $1, $2, $3, $4, $5, $6, '0/10'::pg_lsn", types).encode()
            + Bind("", "", (1,), values, (1,)).encode()
            + Execute("").encode()
            + SYNC
        )
        (row,) = (body for kind, body in parse(self.client.receive()) if kind == b"D")
        expected = [*values, struct.pack(">Q", 16)]
        encoded = b"".join(
            b"\xff" * 4 if one is None else struct.pack(">i", len(one)) + one for one in expected
        )
        self.assertEqual(struct.pack(">H", 7) + encoded, row)

    def test_noBinaryForm(self) -> None:
        """A type without one is refused clearly."""
        answer = self.say(Parse("", "SELECT '127.0.0.1'::inet"), Bind("", "", (), (), (1,)), Execute(""))
        self.assertEqual(
            ["parsed", "ERROR 0A000 binary results of type inet are not supported", "ready I"], answer
        )

    def test_rowLimit(self) -> None:
        """A portal gives as many rows as are asked for, and goes on where it was."""
        self.assertEqual(
            [
                *("parsed", "bound", "row 1", "row 2", "suspended", "row 3", "row 4", "suspended"),
                *("row 5", "SELECT 1", "ready I"),
            ],
            self.say(
                Parse("", "SELECT * FROM generate_series(1, 5)"),
                Bind("", ""),
                Execute("", 2),
                Execute("", 2),
                Execute("", 2),
            ),
        )

    def test_portalEndsWithTheTransaction(self) -> None:
        """Sync ends what is outside of a transaction block; inside, it stays."""
        self.say(Parse("a", "SELECT 1"), Bind("p", "a"))
        self.assertEqual(['ERROR 34000 portal "p" does not exist', "ready I"], self.say(Execute("p")))
        self.ask("BEGIN")
        self.say(Bind("p", "a"))
        self.assertEqual(["row 1", "SELECT 1", "ready T"], self.say(Execute("p")))

    def test_skipsToSync(self) -> None:
        """After an error nothing is answered until Sync."""
        answer = self.say(Parse("", "SELECT x"), Bind("", ""), Execute(""))
        self.assertEqual(['ERROR 42703 column "x" does not exist at 8', "ready I"], answer)
        self.assertEqual("ready I", self.ask("SELECT 1")[-1])

    def test_otherStatements(self) -> None:
        """What is no query has no columns, but SHOW has one."""
        self.assertEqual(
            ["parsed", "types ", "no data", "bound", "BEGIN", "ready T"],
            self.say(Parse("", "BEGIN"), Describe(False, ""), Bind("", ""), Execute("")),
        )
        self.assertEqual(
            ["parsed", "bound", "columns fsync", "row on", "SHOW", "ready T"][:3],
            self.say(Parse("", "SHOW fsync"), Bind("", ""), Describe(True, ""))[:3],
        )
        self.assertEqual(
            ["parsed", "types ", "no data", "bound", "empty", "ready T"],
            self.say(Parse("", ""), Describe(False, ""), Bind("", ""), Execute("")),
        )

    def test_badBinds(self) -> None:
        """Values and formats must fit the statement."""
        self.say(Parse("a", "SELECT $1::int, 2"))
        for bind, text in (
            (
                Bind("", "a"),
                'ERROR 08P01 bind message supplies 0 parameters, but prepared statement "a" requires 1',
            ),
            (
                Bind("", "a", (0, 0), (b"1",)),
                "ERROR 08P01 bind message has 2 parameter formats but 1 parameters",
            ),
            (Bind("", "a", (), (b"x",)), 'ERROR 22P02 invalid input syntax for type integer: "x"'),
            (Bind("", "a", (1,), (b"x",)), "ERROR 22P03 incorrect binary data format"),
            (
                Bind("", "a", (), (b"1",), (0, 0, 0)),
                "ERROR 08P01 bind message has 3 result formats but query has 2 columns",
            ),
            (Bind("", "a", (), (b"1",), (2,)), "ERROR 22023 unsupported format code: 2"),
        ):
            self.assertEqual([text, "ready I"], self.say(bind))

    def test_badParses(self) -> None:
        """One statement, of types that are known."""
        for parse_message, text in (
            (
                Parse("", "SELECT 1; SELECT 2"),
                "ERROR 42601 cannot insert multiple commands into a prepared statement",
            ),
            (Parse("", "SELECT $1", (600,)), "ERROR 0A000 parameters of type with OID 600 are not supported"),
            (Parse("", "SELECT " + " " * MAX_STATEMENT), "ERROR 54001 statement is too long"),
        ):
            self.assertEqual([text, "ready I"], self.say(parse_message))

    def test_bounds(self) -> None:
        """A session cannot keep any number of statements and portals."""
        self.client.send(b"".join(Parse(f"s{number}", "SELECT 1").encode() for number in range(MAX_PREPARED)))
        self.client.receive()
        full = "ERROR 53000 too many prepared statements or portals"
        self.assertEqual([full, "ready I"], self.say(Parse("more", "SELECT 1")))
        self.ask("BEGIN")
        binds = [Bind(f"p{number}", "s1") for number in range(MAX_PORTALS + 1)]
        self.assertEqual(["bound"] * MAX_PORTALS + [full, "ready E"], self.say(*binds))

    def test_boundsOfBytes(self) -> None:
        """Nor few statements that are long, or portals of which much has not been asked for."""
        full = "ERROR 53000 too many prepared statements or portals"
        long = "SELECT 1" + " " * (MAX_STATEMENT - 100)
        count = MAX_PREPARED_TEXT // len(long)
        self.client.send(b"".join(Parse(f"s{number}", long).encode() for number in range(count)))
        self.client.receive()
        self.assertEqual([full, "ready I"], self.say(Parse("more", long)))
        self.assertEqual(["closed", "parsed", "ready I"], self.say(Close(False, "s0"), Parse("more", long)))
        self.ask("DISCARD ALL")
        self.ask("BEGIN")
        self.say(Parse("s", "SELECT lpad('a', 900000) FROM generate_series(1, 8)"))
        size = 8 * 900_000
        for number in range(MAX_KEPT // size):
            answer = self.say(Bind(f"p{number}", "s"), Execute(f"p{number}", 1))
            self.assertEqual(["suspended", "ready T"], answer[-2:])
        self.assertEqual(["bound", full, "ready E"], self.say(Bind("p", "s"), Execute("p", 1)))
        self.ask("ROLLBACK")
        self.ask("BEGIN")
        for _ in range(3):  # what has gone out is not kept
            answer = self.say(Bind("p", "s"), Execute("p", 9), Execute("p", 1))
            self.assertEqual(["SELECT 0", "ready T"], answer[-2:])
            self.say(Close(True, "p"))

    def test_badSubtype(self) -> None:
        """A Describe of something that is neither ends the connection."""
        self.client.send(message(b"D", b"Xa\0"))
        self.assertEqual(["FATAL 08P01 invalid DESCRIBE message subtype 88"], summary(self.client.receive()))
        self.assertTrue(self.client.is_closed)


class RelationTests(ConsoleTestCase):
    """What is shown."""

    def test_standby(self) -> None:
        """A standby's entry in the slot table is its row."""
        standby = self.server.streaming(0x100000, application_name="one", user="repl")
        standby.receive()
        standby.send(copy_data(b"r" + struct.pack(">QQQqB", 0x300000, 0x200000, 0x100000, 1_000_000, 0)))
        text = (
            "SELECT usename, application_name, host(client_addr), client_port, state, sent_lsn, write_lsn,"
            " flush_lsn, replay_lsn, sync_state, sent_lsn - replay_lsn AS behind, reply_time"
            " FROM pg_stat_replication"
        )
        row = self.ask(text)[1]
        self.assertEqual(
            "row repl | one | 127.0.0.1 | 40000 | streaming | 0/300000 | 0/300000 | 0/200000 | 0/100000"
            " | async | 2097152 | 2000-01-01 00:00:01+00",
            row,
        )

    def test_slots(self) -> None:
        """Slots are made, shown and dropped by PostgreSQL's functions."""
        create = "SELECT pg_create_physical_replication_slot('a', true, true)"
        self.assertEqual("row (a,0/300000)", self.ask(create)[1])
        shown = "SELECT slot_name, slot_type, temporary, active, wal_status FROM pg_replication_slots"
        self.assertEqual("row a | physical | t | t | reserved", self.ask(shown)[1])
        self.assertIn('ERROR 42710 replication slot "a" already exists', self.ask(create))
        self.assertEqual("SELECT 0", self.ask(shown)[1], "an error ends temporary slots")
        self.ask("SELECT * FROM pg_create_physical_replication_slot('b', false, true)")
        self.assertEqual(
            ["columns pg_drop_replication_slot", "row ", "SELECT 1", "ready I"],
            self.ask("SELECT pg_drop_replication_slot('b')"),
        )
        self.assertIn(
            'ERROR 42704 replication slot "b" does not exist',
            self.ask("SELECT pg_drop_replication_slot('b')"),
        )

    def test_temporarySlotsGoWithTheSession(self) -> None:
        """As in PostgreSQL."""
        self.ask("SELECT pg_create_physical_replication_slot('a', true, true)")
        self.client.transport.lose()
        self.assertEqual(0, len(self.server.factory.slots))

    def test_positions(self) -> None:
        """The server is like a standby that has received what may be sent."""
        text = (
            "SELECT pg_is_in_recovery(), pg_current_wal_flush_lsn(), pg_last_wal_receive_lsn(),"
            " pg_last_wal_replay_lsn(), pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')"
        )
        self.assertEqual("row t | 0/300000 | 0/300000 | NULL | 3145728", self.ask(text)[1])

    def test_session(self) -> None:
        """What a session says of itself."""
        text = (
            "SELECT current_user, current_database(), host(inet_client_addr()), current_setting('timezone'),"
            " current_setting('nonsense', true), pg_backend_pid() = pid"
            " FROM pg_stat_activity WHERE query <> ''"
        )
        self.assertEqual("row postgres | walsender | 127.0.0.1 | UTC | NULL | t", self.ask(text)[1])

    def test_settings(self) -> None:
        """A session's own settings are shown, as it has set them."""
        answer = self.ask("SELECT set_config('application_name', 'x', false)")
        self.assertEqual(
            ["application_name is x", "columns set_config", "row x"], sorted_statuses(answer)[:3]
        )
        names = "('application_name', 'server_version_num')"
        text = f"SELECT setting, context FROM pg_settings WHERE name IN {names} ORDER BY 1"
        self.assertEqual(["row 180000 | internal", "row x | user"], self.ask(text)[1:3])


class ActionTests(ConsoleTestCase):
    """What the console can be told."""

    def test_reload(self) -> None:
        """pg_reload_conf reads the configuration again."""
        self.assertEqual("row t", self.ask("SELECT pg_reload_conf()")[1])
        self.assertEqual(1, self.server.reloads)

    def test_terminate(self) -> None:
        """pg_terminate_backend ends who is named, and nobody else."""
        one, two = self.server.streaming(0x100000), self.server.streaming(0x100000)
        one.receive(), two.receive()
        text = f"SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE pid = {one.entry.process_id}"
        self.assertEqual("row t", self.ask(text)[1])
        one.receive(), two.receive()
        self.assertTrue(one.is_closed)
        self.assertFalse(two.is_closed)
        self.assertEqual(
            [
                "WARNING 01000 PID 4711 is not a PostgreSQL backend process",
                "columns pg_terminate_backend",
                "row f",
            ],
            self.ask("SELECT pg_terminate_backend(4711)")[:3],
        )

    def test_terminateOneself(self) -> None:
        """A session may end itself."""
        answer = self.ask("SELECT pg_terminate_backend(pg_backend_pid())")
        self.assertEqual(["FATAL 57P01 terminating connection due to administrator command"], answer)
        self.assertTrue(self.client.is_closed)

    def test_whoMayNotAct(self) -> None:
        """Who may only look is refused, before anything is done."""
        server = ConsoleServer(self.scripted_source(0x300000), authorizer=LookOnly())
        client = server.console()
        for call in (
            "pg_reload_conf()",
            "pg_terminate_backend(1)",
            "pg_cancel_backend(1)",
            "pg_drop_replication_slot('a')",
            "pg_create_physical_replication_slot('a')",
        ):
            name = call.partition("(")[0]
            self.assertEqual(
                [f"ERROR 42501 permission denied for function {name}", "ready I"],
                self.ask(f"SELECT {call}", client),
            )
        self.assertEqual((0, 0), (server.reloads, len(server.factory.slots)))
        self.assertEqual(
            "SELECT 1", self.ask("SELECT set_config('application_name', 'x', false)", client)[-2]
        )

    def test_hiddenSettings(self) -> None:
        """Where files are and what may have a password in it, only who may act sees."""
        names = ("listen", "hba_file", "restore_command", "primary_conninfo")
        settings = tuple(
            SettingDescription(
                *(name, "x", "x", None, "", "", "sighup", "string", "file"), sourcefile="/etc/w", sourceline=1
            )
            for name in names
        )
        receiving = ReceiverStatus(1, LSN(1), LSN(1), LSN(1), None, None, LSN(1), "", "host=a port=5432")
        for authorizer, seen in ((LookOnly(), {"listen"}), (LocalAuthorizer(), set(names))):
            server = ConsoleServer(self.scripted_source(0x300000), authorizer=authorizer)
            console = server.factory.console
            assert isinstance(console, Console)
            console._view = replace(
                console._view,
                settings=lambda: settings,
                receiver=lambda: receiving,
                conninfo=lambda: "host=primary",
            )
            client = server.console()
            rows = self.ask("SELECT name FROM pg_settings", client)
            self.assertEqual(seen, {name for name in names if f"row {name}" in rows})
            shown = {name for name in names if "row x" in self.ask(f"SHOW {name}", client)}
            self.assertEqual(seen, shown)
            (source,) = set(self.ask("SELECT sourcefile FROM pg_settings WHERE name = 'listen'", client)[1:2])
            (conninfo,) = self.ask("SELECT conninfo FROM pg_stat_wal_receiver", client)[1:2]
            # Where it leads is in other columns anyway, and asked for here by postgres_exporter.
            looker = ["row NULL", "row host=a port=5432"]
            expected = looker if len(seen) == 1 else ["row /etc/w", "row host=primary"]
            self.assertEqual(expected, [source, conninfo])

    def test_upstream(self) -> None:
        """Whether a relay receives, and if not since when and why; a server of a directory has no row."""
        console = self.server.factory.console
        assert isinstance(console, Console)
        view = console._view
        receiving = ReceiverStatus(1, LSN(1), LSN(1), LSN(1), None, None, LSN(1), "", "")
        lost = "row f | 1970-01-01 00:01:30.5+00 | refused"
        for outage, receiver, rows in (
            (None, None, []),
            (NotReceiving(90.5, "refused"), None, [lost]),
            (None, receiving, ["row t | NULL | NULL"]),
        ):
            console._view = replace(
                view,
                not_receiving=lambda outage=outage: outage,
                receiver=lambda receiver=receiver: receiver,
            )
            answer = self.ask("SELECT * FROM walsender_upstream")
            self.assertEqual(rows, answer[1:-2])

    def test_setConfigWantsAName(self) -> None:
        """As in PostgreSQL."""
        answer = self.ask("SELECT set_config(NULL, 'x', false)")
        self.assertEqual(["ERROR 22004 SET requires parameter name", "ready I"], answer)

    def test_nullDoesNothing(self) -> None:
        """As with every strict function."""
        self.assertEqual("row NULL", self.ask("SELECT pg_terminate_backend(NULL)")[1])


class ThreadTests(ConsoleTestCase):
    """Statements run in threads, one at a time."""

    def test_nextMessagesWait(self) -> None:
        """While a statement runs nothing is answered, and the order stays."""
        self.server.reactor.pool.holding = True
        self.client.send(query("SELECT 1") + query("SELECT 2"))
        self.assertEqual(b"", self.client.receive())
        for _ in range(20):
            self.server.reactor.pool.run()
        self.assertEqual(
            [
                "columns ?column?",
                "row 1",
                "SELECT 1",
                "ready I",
                "columns ?column?",
                "row 2",
                "SELECT 1",
                "ready I",
            ],
            summary(self.client.receive()),
        )

    def test_othersWaitTheirTurn(self) -> None:
        """Two sessions never run two statements at once, and both are answered."""
        other = self.server.console()
        pool = self.server.reactor.pool
        pool.holding = True
        self.client.send(query("SELECT 1"))
        other.send(query("SELECT 2"))
        self.assertEqual(1, pool.waiting)
        for _ in range(20):
            pool.run()
        self.assertEqual("row 1", summary(self.client.receive())[1])
        self.assertEqual("row 2", summary(other.receive())[1])

    def test_goneMeanwhile(self) -> None:
        """Whoever has gone is not answered, and leaves nothing behind."""
        pool = self.server.reactor.pool
        pool.holding = True
        self.client.send(query("SELECT pg_reload_conf()"))
        self.client.transport.lose()
        for _ in range(20):
            pool.run()
        other = self.server.console()
        pool.holding = False
        self.assertEqual("row 1", self.ask("SELECT count(*) FROM pg_stat_activity", other)[1])

    def test_cancel(self) -> None:
        """A CancelRequest ends the statement, and the session goes on."""
        pool = self.server.reactor.pool
        pool.holding = True
        self.client.send(query("SELECT count(*) FROM generate_series(1, 100000)"))
        session: Any = self.client.protocol.session
        killer = self.server.connect()
        killer.send(
            struct.pack(">IIi", 12 + len(session.cancel_key), 80877102, session.entry.process_id)
            + session.cancel_key
        )
        for _ in range(20):
            pool.run()
        self.assertEqual(
            ["ERROR 57014 canceling statement due to user request", "ready I"], summary(self.client.receive())
        )

    def test_mistakeCostsOneStatement(self) -> None:
        """A mistake of ours is told as such, logged, and the session goes on."""
        good = self.server.factory.slot_table
        console: Any = self.server.factory.console
        console._view = replace(console._view, slot_table=None)
        answer = self.ask("SELECT 1")
        console._view = replace(console._view, slot_table=good)
        self.assertEqual(["ERROR XX000 internal error", "ready I"], answer)
        self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))
        self.assertEqual("row 1", self.ask("SELECT 1")[1])


class AddressTests(ConsoleTestCase):
    def test_strangers(self) -> None:
        """The console is for those whom the authorizer lets in."""
        client = self.server.connect(IPv4Address("TCP", "192.0.2.1", 4))
        client.send(startup_packet(replication="false", database="walsender"))
        answer = client.receive()
        self.assertEqual(b"E", kinds(answer))
        self.assertEqual("28000", error_fields(answer)["C"])
