"""SET, RESET and SELECT set_config: what clients do to the parameters of a walsender."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol_helpers import (
    READY,
    Client,
    ProtocolTestCase,
    Server,
    error_fields,
    keepalives,
    kinds,
    message,
    parse,
)

from walsender.wire.dialect import ModernDialect

if TYPE_CHECKING:
    from collections.abc import Mapping

END = 0x300060
SET = message(b"C", b"SET\0")


def reported(name: str, value: str) -> bytes:
    """Return a ParameterStatus."""
    return message(b"S", f"{name}\0{value}\0".encode())


def cell(answer: bytes) -> str:
    """Return the one value in *answer*."""
    (row,) = (body for kind, body in parse(answer) if kind == b"D")
    return row[6:].decode()


class SessionTestCase(ProtocolTestCase):
    """A client of a server whose WAL ends somewhere."""

    def client(self, version: int = 180000, **parameters: str) -> Client:
        """Return a greeted client."""
        return Server(self.scripted_source(END), ModernDialect(version)).started(**parameters)


class SetTests(SessionTestCase):
    """Parameters that may be set."""

    def test_reportedWhenChanged(self) -> None:
        """What the greeting reports is reported again when it changes; from 14 on, after all else."""
        status = reported("DateStyle", "German, DMY")
        client = self.client()
        self.assertEqual(SET + status + READY, client.ask("SET datestyle TO 'german'"))
        self.assertEqual(SET + READY, client.ask("SET datestyle TO 'german'"))
        self.assertEqual(SET + READY, client.ask("SET statement_timeout = 0"))
        self.assertEqual(status + SET + READY, self.client(130000).ask("SET datestyle TO 'german'"))

    def test_applicationName(self) -> None:
        """A new application name is reported, known to the server, and cut if it is too long."""
        client = self.client()
        answer = client.ask("SET application_name = 'new one'")
        self.assertEqual(SET + reported("application_name", "new one") + READY, answer)
        self.assertEqual("new one", client.entry.application_name)
        answer = client.ask(f"SET application_name = '{'x' * 70}'")
        self.assertEqual(b"NCSZ", kinds(answer))
        self.assertEqual("x" * 63, client.entry.application_name)

    def test_walSenderTimeout(self) -> None:
        """The time that is set holds from the next stream on."""
        server = Server(self.scripted_source(END), ModernDialect(180000))
        client = server.started()
        self.assertEqual(SET + READY, client.ask("SET wal_sender_timeout = '4s'"))
        client.ask("START_REPLICATION 0/300000")
        server.reactor.advance(2)
        self.assertEqual([(END, 1)], keepalives(client.receive()))
        server.reactor.advance(2)
        self.assertTrue(client.transport.aborted)

    def test_shown(self) -> None:
        """A value is shown as PostgreSQL writes it, whichever way it was given."""
        client = self.client()
        for name, given, shown in (
            ("client_encoding", "'utf-8'", "UTF8"),
            ("client_encoding", "latin1", "LATIN1"),
            ("datestyle", "postgres, dmy", "Postgres, DMY"),
            ("datestyle", "'ISO, default'", "ISO, MDY"),
            ("extra_float_digits", "3", "3"),
            ("intervalstyle", "ISO_8601", "iso_8601"),
            ("search_path", "a, \"B c\", 'd'", 'a, "B c", d'),
            ("search_path", "''", '""'),
            ("standard_conforming_strings", "0", "off"),
            ("statement_timeout", "2000", "2s"),
            ("synchronous_commit", "1", "on"),
            ("synchronous_commit", "LOCAL", "local"),
            ("wal_sender_timeout", "'1.5s'", "1500ms"),
        ):
            self.assertEqual(b"C", kinds(client.ask(f"SET {name} TO {given}"))[:1], given)
            self.assertEqual(shown, cell(client.ask(f"SHOW {name}")), given)

    def test_reset(self) -> None:
        """RESET goes back to what the start-up packet asked for."""
        client = self.client(application_name="mine", options="-c wal_sender_timeout=5s")
        client.ask("SET application_name = other")
        client.ask("SET wal_sender_timeout = 0")
        answer = client.ask("RESET application_name")
        self.assertEqual(message(b"C", b"RESET\0") + reported("application_name", "mine") + READY, answer)
        client.ask("RESET ALL")
        self.assertEqual("5s", cell(client.ask("SHOW wal_sender_timeout")))
        self.assertEqual(SET + READY, client.ask("SET application_name TO DEFAULT"))

    def test_setConfig(self) -> None:
        """The function sets and returns; for the transaction only, it sets nothing that lasts."""
        client = self.client()
        answer = client.ask("SELECT pg_catalog.set_config('search_path', '', false)")
        self.assertEqual(b"TDCSZ", kinds(answer))
        self.assertIn(message(b"C", b"SELECT 1\0") + reported("search_path", "") + READY, answer)
        answer = client.ask("SELECT pg_catalog.set_config('search_path', 'x', true)")
        self.assertEqual((b"TDCZ", "x"), (kinds(answer), cell(answer)))
        self.assertEqual("", cell(client.ask("SHOW search_path")))

    def test_isInRecovery(self) -> None:
        """Who looks for a standby by this function finds one, as by in_hot_standby."""
        answer = self.client(130000).ask("SELECT pg_catalog.pg_is_in_recovery()")
        self.assertEqual((b"TDCZ", "t"), (kinds(answer), cell(answer)))
        self.assertEqual("on", cell(self.client().ask("SHOW in_hot_standby")))


UNKNOWN = "42704", 'unrecognized configuration parameter "nonsense"'


class RefusedTests(SessionTestCase):
    """What cannot be set; texts as seen on 18, with ``replication=database``."""

    REFUSALS: Mapping[str, tuple[str, str]] = {
        "SET nonsense = 1": UNKNOWN,
        "RESET nonsense": UNKNOWN,
        "SELECT set_config('nonsense', '', false)": UNKNOWN,
        "SET datestyle TO 'foo'": ("22023", 'invalid value for parameter "DateStyle": "foo"'),
        "SET datestyle TO 'ISO,SQL'": ("22023", 'invalid value for parameter "DateStyle": "ISO,SQL"'),
        "SET client_encoding TO nosuch": ("22023", 'invalid value for parameter "client_encoding": "nosuch"'),
        "SET wal_sender_timeout = '5 parsecs'": (
            "22023",
            'invalid value for parameter "wal_sender_timeout": "5 parsecs"',
        ),
        "SET wal_sender_timeout = -1": (
            "22023",
            '-1 ms is outside the valid range for parameter "wal_sender_timeout" (0 ms .. 2147483647 ms)',
        ),
        "SET extra_float_digits TO 1, 2": ("22023", "SET extra_float_digits takes only one argument"),
        "SET standard_conforming_strings = maybe": (
            "22023",
            'parameter "standard_conforming_strings" requires a Boolean value',
        ),
        "SET synchronous_commit = never": (
            "22023",
            'invalid value for parameter "synchronous_commit": "never"',
        ),
        "SET max_wal_senders = 3": (
            "55P02",
            'parameter "max_wal_senders" cannot be changed without restarting the server',
        ),
        "RESET wal_level": ("55P02", 'parameter "wal_level" cannot be changed without restarting the server'),
        "SET wal_keep_size = 3": ("55P02", 'parameter "wal_keep_size" cannot be changed now'),
        "SET server_version = '3'": ("55P02", 'parameter "server_version" cannot be changed'),
        "SHOW primary_conninfo": ("42501", 'permission denied to examine "primary_conninfo"'),
        "SHOW data_directory": ("42501", 'permission denied to examine "data_directory"'),
    }

    def test_refusals(self) -> None:
        """Each is an ERROR with PostgreSQL's text, nothing is changed, and the session goes on."""
        client = self.client()
        before = client.ask("SHOW ALL")
        for text, (sqlstate, complaint) in self.REFUSALS.items():
            answer = client.ask(text)
            self.assertEqual(b"EZ", kinds(answer), text)
            fields = error_fields(answer)
            self.assertEqual(("ERROR", sqlstate, complaint), tuple(fields[letter] for letter in "SCM"), text)
        self.assertEqual(before, client.ask("SHOW ALL"))

    def test_temporarySlotsEnd(self) -> None:
        """Such an error is an ERROR like any other."""
        client = self.client()
        client.ask("CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL")
        client.ask("SET datestyle = ISO")
        self.assertIn(b"physical", client.ask("READ_REPLICATION_SLOT t"))
        client.ask("SET nonsense = 1")
        self.assertNotIn(b"physical", client.ask("READ_REPLICATION_SLOT t"))


class ShowTests(SessionTestCase):
    """Facts."""

    def test_facts(self) -> None:
        """What is shown is so."""
        server = Server(
            self.scripted_source(END), ModernDialect(180000), max_wal_senders=7, wal_sender_timeout=90
        )
        client = server.started(user="me")
        for name, value in (
            ("max_wal_senders", "7"),
            ("max_replication_slots", "100"),
            ("wal_sender_timeout", "90s"),
            ("wal_level", "replica"),
            ("hot_standby", "on"),
            ("wal_keep_size", "-1"),
            ("max_slot_wal_keep_size", "-1"),
            ("transaction_read_only", "on"),
            ("server_version", "18.0"),
            ("session_authorization", "me"),
        ):
            self.assertEqual(value, cell(client.ask(f"SHOW {name}")), name)

    def test_allWithoutSecrets(self) -> None:
        """SHOW ALL is sorted without regard to case, and leaves out what may not be shown."""
        rows = [body for kind, body in parse(self.client().ask("SHOW ALL")) if kind == b"D"]
        names = [row[6 : 6 + int.from_bytes(row[2:6], "big")].decode() for row in rows]
        self.assertEqual(sorted(names, key=str.lower), names)
        self.assertIn("wal_segment_size", names)
        self.assertNotIn("primary_conninfo", names)
