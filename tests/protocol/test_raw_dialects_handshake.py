"""The dialects of 9.0, 9.1 and 9.2 up to their streams, byte for byte."""

from __future__ import annotations

from protocol_helpers import (
    READY,
    TERMINATE,
    error_response,
    kinds,
    message,
    query,
)
from raw_dialect_helpers import REPLYING, VERSIONS, RawDialectTestCase, short_wal
from test_first_dialect_handshake import (
    AUTHENTICATION_OK,
    IDENTIFIED,
    PARAMETERS,
    NoReplication,
    RecordingLog,
)

from walsender.sender.connection_log import ConnectionLog
from walsender.sender.states import State

PARAMETERS_OF = {
    90000: PARAMETERS,
    90100: PARAMETERS.replace(b"\x14is_superuser\0on\0", b"\x15is_superuser\0off\0")
    .replace(b"9.0.0", b"9.1.0")
    .replace(b"\x24standard_conforming_strings\0off\0", b"\x23standard_conforming_strings\0on\0"),
}
PARAMETERS_OF[90200] = PARAMETERS_OF[90100].replace(b"9.1.0", b"9.2.0")

IDENTIFIED_WITH_POSITION = (
    # RowDescription: length, 3 fields; each name, table 0, attribute 0, type, length, typmod 0, format 0
    bytes.fromhex("54 00000056 0003")
    + b"systemid\0"
    + bytes.fromhex("00000000 0000 00000019 ffff 00000000 0000")
    + b"timeline\0"
    + bytes.fromhex("00000000 0000 00000017 0004 00000000 0000")
    + b"xlogpos\0"
    + bytes.fromhex("00000000 0000 00000019 ffff 00000000 0000")
    # DataRow: length, 3 columns; each length, text
    + bytes.fromhex("44 00000030 0003 00000014")
    + b"18364758544493064720"
    + bytes.fromhex("00000001")
    + b"1"
    + bytes.fromhex("00000009")
    + b"0/1007598"
    + bytes.fromhex("43 0000000b")
    + b"SELECT\0"
    + READY
)


class EntryTests(RawDialectTestCase):
    """From the start-up packet to the first ReadyForQuery."""

    def test_greeting(self) -> None:
        """AuthenticationOk, what that version reports, ReadyForQuery; no key."""
        for version in VERSIONS:
            client = self.server(short_wal(version)).connect()
            self.assertEqual(AUTHENTICATION_OK + PARAMETERS_OF[version] + READY, client.start(), version)

    def test_badReplicationValue(self) -> None:
        """It is a boolean; "database" came with 9.4."""
        for version in VERSIONS:
            client = self.server(short_wal(version)).connect()
            refusal = error_response(S="FATAL", C="22023", M='invalid value for boolean option "replication"')
            self.assertEqual(refusal, client.start(replication="database"), version)

    def test_notAllowedToReplicate(self) -> None:
        """The privilege is checked after the parameters; roles with REPLICATION came with 9.1."""
        for version in VERSIONS:
            client = self.server(short_wal(version), authorizer=NoReplication()).connect()
            who = "superuser" if version == 90000 else "superuser or replication role"
            refusal = error_response(S="FATAL", C="42501", M=f"must be {who} to start walsender")
            self.assertEqual(AUTHENTICATION_OK + PARAMETERS_OF[version] + refusal, client.start(), version)

    def test_tooManyStandbys(self) -> None:
        """Without a free entry the refusal comes in place of ReadyForQuery."""
        for version in VERSIONS:
            client = self.server(short_wal(version), max_wal_senders=0).connect()
            refusal = error_response(
                S="FATAL",
                C="53300",
                M="number of requested standby connections exceeds max_wal_senders (currently 0)",
            )
            self.assertEqual(AUTHENTICATION_OK + PARAMETERS_OF[version] + refusal, client.start(), version)


class HandshakeTests(RawDialectTestCase):
    """Messages until replication starts: every error is fatal."""

    def assertFatal(self, version: int, sent: bytes, sqlstate: str, text: str, **more: str) -> None:
        """Check that *sent* is refused and ends the connection."""
        server = self.server(short_wal(version))
        client = server.started()
        client.send(sent)
        self.assertEqual(error_response(S="FATAL", C=sqlstate, M=text, **more), client.receive(), version)
        self.assertTrue(client.is_closed)
        self.assertEqual(0, len(server.factory.slot_table))
        self.assertIs(State.CLOSED, client.states[-1])

    def test_identifySystem(self) -> None:
        """Two columns in 9.0, then a third with the end of WAL."""
        for version in VERSIONS:
            client = self.server(short_wal(version)).started()
            expected = IDENTIFIED if version == 90000 else IDENTIFIED_WITH_POSITION
            self.assertEqual(expected, client.ask("IDENTIFY_SYSTEM"), version)
            self.assertEqual(expected, client.ask("IDENTIFY_SYSTEM"), version)

    def test_stringsOf90(self) -> None:
        """9.0 has no grammar: what is not the very string is refused."""
        for text in ("IDENTIFY_SYSTEM ", "identify_system", "IDENTIFY_SYSTEM;", "BASE_BACKUP"):
            self.assertFatal(90000, query(text), "08P01", f"invalid standby query string: {text}")

    def test_grammar(self) -> None:
        """From 9.1 on blanks and a semicolon are nothing to speak of."""
        for version in REPLYING:
            client = self.server(short_wal(version)).started()
            self.assertEqual(IDENTIFIED_WITH_POSITION, client.ask(" IDENTIFY_SYSTEM ;"))
            client.send(query("START_REPLICATION  0/1007598;"))
            self.assertEqual(b"W", kinds(client.receive()))

    def test_laterCommands(self) -> None:
        """What came with 9.3 and later is a syntax error."""
        for version in REPLYING:
            for text in (
                "START_REPLICATION 0/1000000 TIMELINE 1",
                "START_REPLICATION SLOT x 0/1000000",
                "TIMELINE_HISTORY 1",
                "SHOW wal_segment_size",
                "SELECT 1",
                "SET datestyle TO 'ISO'",
            ):
                self.assertFatal(version, query(text), "42601", "syntax error")

    def test_baseBackup(self) -> None:
        """It exists from 9.1 on, and there are no data files here."""
        for version in REPLYING:
            self.assertFatal(
                version,
                query("BASE_BACKUP LABEL 'x' FAST"),
                "0A000",
                "walsender cannot take a base backup",
                H="This server holds WAL and no data files: take the base backup from the primary "
                "or a standby.",
            )

    def test_otherMessages(self) -> None:
        """Any other type is named by its number."""
        for version in VERSIONS:
            for kind in b"dcPp\x00":
                self.assertFatal(
                    version,
                    message(bytes((kind,)), b"\0\0\0\0"),
                    "08P01",
                    f"invalid standby handshake message type {kind}",
                )

    def test_terminate(self) -> None:
        """X ends the connection quietly."""
        for version in VERSIONS:
            client = self.server(short_wal(version)).started()
            client.send(TERMINATE)
            self.assertEqual(b"", client.receive())
            self.assertTrue(client.is_closed)


class LostClientTests(RawDialectTestCase):
    """End of file between commands is logged, and nobody is told."""

    def ended(self, version: int, sent: bytes, *, end_of_file: bool = True) -> list[str]:
        """Return what is logged after *sent* and end of file."""
        server = self.server(short_wal(version))
        client = server.started()
        logged: list[str] = []
        self.patch(ConnectionLog, "_log", RecordingLog(logged))
        client.send(sent)
        if end_of_file:
            client.transport.deliver_eof()
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.is_closed)
        self.assertEqual(0, len(server.factory.slot_table))
        return logged

    def test_endOfFile(self) -> None:
        """What was cut off comes first in the log."""
        for version in VERSIONS:
            lost = "unexpected EOF on standby connection"
            self.assertEqual([lost], self.ended(version, b""))
            self.assertEqual(["unexpected EOF within message length word", lost], self.ended(version, b"Q\0"))
            self.assertEqual(
                ["incomplete message from client", lost],
                self.ended(version, query("IDENTIFY_SYSTEM")[:-1]),
            )

    def test_badLength(self) -> None:
        """An impossible length counts as end of file."""
        for version in VERSIONS:
            self.assertEqual(
                ["FATAL: invalid message length", "unexpected EOF on standby connection"],
                self.ended(version, b"Q\0\0\0\3", end_of_file=False),
            )
