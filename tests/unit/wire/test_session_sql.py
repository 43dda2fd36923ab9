"""Statements of SQL that are understood, and those that are not."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import CommandSyntaxError
from walsender.wire.command import parse_command
from walsender.wire.errors import NotACommand
from walsender.wire.session_sql import (
    ResetParameter,
    SelectIsInRecovery,
    SelectSetConfig,
    SetParameter,
    parse_session_statement,
)


class UnderstoodTests(SynchronousTestCase):
    """Each statement in the forms that clients send."""

    def test_set(self) -> None:
        """Quotes go, bare words are folded, and the name is left for whoever looks it up."""
        for text, name, values in (
            (b"SET datestyle TO 'ISO'", "datestyle", ("ISO",)),
            (b"SET DATESTYLE TO 'ISO'", "DATESTYLE", ("ISO",)),
            (b"set extra_float_digits = 3;", "extra_float_digits", ("3",)),
            (b"SET extra_float_digits=-3", "extra_float_digits", ("-3",)),
            (
                b"SET SESSION application_name = 'JDBC Driver'",
                "application_name",
                ("JDBC Driver",),
            ),
            (b"SET client_encoding TO UTF8 ;\n", "client_encoding", ("utf8",)),
            (b"SET a TO 'it''s'", "a", ("it's",)),
            (b"SET a TO'x'", "a", ("x",)),
            (b"SET a = ''", "a", ("",)),
            (b"SET search_path TO pg_catalog, \"A b\" ,'c,d'", "search_path", ("pg_catalog", "A b", "c,d")),
            (b"SET to TO to", "to", ("to",)),
            (b"SET a = '\xff'", "a", (b"\xff".decode("utf-8", "surrogateescape"),)),
        ):
            self.assertEqual(SetParameter(name, values), parse_session_statement(text), text)

    def test_reset(self) -> None:
        """RESET names a parameter or all; SET … TO DEFAULT is one."""
        for text, statement in (
            (b"RESET a", ResetParameter("a")),
            (b"reset ALL;", ResetParameter(None)),
            (b"SET a TO DEFAULT", ResetParameter("a", "SET")),
        ):
            self.assertEqual(statement, parse_session_statement(text), text)

    def test_select(self) -> None:
        """Two functions, with and without their schema."""
        for text, statement in (
            (
                b"SELECT pg_catalog.set_config('a', '', false);",
                SelectSetConfig("a", "", local=False),
            ),
            (b"select set_config('a','b''c','t')", SelectSetConfig("a", "b'c", local=True)),
            (b"SELECT pg_catalog.pg_is_in_recovery()", SelectIsInRecovery()),
            (b"SELECT pg_is_in_recovery ( ) ;", SelectIsInRecovery()),
        ):
            self.assertEqual(statement, parse_session_statement(text), text)


class RefusedTests(SynchronousTestCase):
    """Everything else."""

    def test_otherTexts(self) -> None:
        """What is close to a statement that is understood is none."""
        for text in (
            b"",
            b"SET",
            b"SET a",
            b"SET a TO",
            b"SET a TO 'x' 'y'",
            b"SET a TO 'x",
            b"SET a TO 'x',",
            b"SET a TO 'x'; SET b TO 'y'",
            b"SET aTO 'x'",
            b"SET a TOx",
            b"SET LOCAL a TO 'x'",
            b"SET TIME ZONE 'UTC'",
            b"SET my.own = 1",
            b"RESET",
            b"RESET a b",
            b"SELECT 1",
            b"SELECT set_config('a', 'b')",
            b"SELECT set_config('a', 'b', maybe)",
            b"SELECT other.pg_is_in_recovery()",
            b"SELECT pg_is_in_recovery(), 1",
            b"BEGIN",
            b"-- SET a = 1",
        ):
            self.assertIsNone(parse_session_statement(text), text)
            self.assertRaises(NotACommand, parse_command, text, 180000)
            self.assertRaises(CommandSyntaxError, parse_command, text, 90600)

    def test_longTexts(self) -> None:
        """A text as long as a command may be takes no more than linear time."""
        for text in (
            b"SET a TO " + b"'x'," * 250_000 + b"?",
            b"SET a TO '" + b"''" * 500_000,
            b"SET" + b" " * 1_000_000 + b"?",
            b"SET " + b"a" * 1_000_000,
            b"SELECT set_config('" + b"''" * 500_000,
        ):
            self.assertIsNone(parse_session_statement(text))
