"""Commands of the modern dialect outside of a stream, byte for byte where clients read them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from protocol_helpers import (
    COPY_DONE,
    READY,
    TERMINATE,
    Client,
    ProtocolTestCase,
    Server,
    copy_data,
    error_fields,
    error_response,
    kinds,
    message,
    parse,
    query,
    status,
)

from walsender.sender.states import MODERN, State
from walsender.wire.dialect import ModernDialect

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = (25, -1)


def result(
    columns: Sequence[tuple[str, int, int]], row: Sequence[bytes | None], tag: str, typmod: int
) -> bytes:
    """Return RowDescription, DataRow and CommandComplete, as protocol.sgml describes them."""
    description = struct.pack(">h", len(columns))
    for name, oid, length in columns:
        description += name.encode() + b"\0" + struct.pack(">IhIhih", 0, 0, oid, length, typmod, 0)
    data = struct.pack(">h", len(row))
    for value in row:
        data += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
    return message(b"T", description) + message(b"D", data) + message(b"C", tag.encode() + b"\0")


class CommandTestCase(ProtocolTestCase):
    """Asks a server whose WAL ends at 0/3000060."""

    def server(self, version: int = 180000) -> Server:
        """Return a server."""
        return Server(self.scripted_source(0x3000060), ModernDialect(version))

    def client(self, version: int = 180000) -> Client:
        """Return a greeted client."""
        return self.server(version).started()


class ResultTests(CommandTestCase):
    """Results as each version gives them."""

    def test_identifySystem(self) -> None:
        """The timeline became 64 bits wide in 16, the position padded in 19; the database is NULL."""
        for version, (oid, length), position in (
            (140000, (23, 4), b"0/3000060"),
            (150000, (23, 4), b"0/3000060"),
            (160000, (20, 8), b"0/3000060"),
            (180000, (20, 8), b"0/3000060"),
            (190000, (20, 8), b"0/03000060"),
        ):
            expected = result(
                [
                    ("systemid", *TEXT),
                    ("timeline", oid, length),
                    ("xlogpos", *TEXT),
                    ("dbname", *TEXT),
                ],
                [b"7300000000000000001", b"1", position, None],
                "IDENTIFY_SYSTEM",
                -1,
            )
            self.assertEqual(expected + READY, self.client(version).ask("IDENTIFY_SYSTEM"), version)

    def test_identifySystemIsLive(self) -> None:
        """Position and timeline are those of the moment, and never beyond what a start accepts."""
        server = self.server()
        client = server.started()
        server.source.grow(0x3000100)
        self.assertIn(b"0/3000100", client.ask("IDENTIFY_SYSTEM"))
        server.source.switch(2, 0x3000100, 0x3000200)
        answer = client.ask("IDENTIFY_SYSTEM")
        self.assertIn(b"\0\0\0\x012\0\0\0\x090/3000200", answer)

    def test_identifySystemOf93(self) -> None:
        """9.3 has three columns, its own tag, and types without modifiers."""
        expected = result(
            [("systemid", *TEXT), ("timeline", 23, 4), ("xlogpos", *TEXT)],
            [b"7300000000000000001", b"1", b"0/3000060"],
            "SELECT",
            0,
        )
        self.assertEqual(expected + READY, self.client(90300).ask("IDENTIFY_SYSTEM"))

    def test_show(self) -> None:
        """The column has the setting's own name, sizes the units that clients read."""
        for asked, name, value in (
            ("wal_segment_size", "wal_segment_size", b"1MB"),
            ("WAL_SEGMENT_SIZE", "wal_segment_size", b"1MB"),
            ("data_directory_mode", "data_directory_mode", b"0700"),
            ("wal_block_size", "wal_block_size", b"8192"),
            ("server_version_num", "server_version_num", b"180000"),
            ("timezone", "TimeZone", b"UTC"),
            ("wal_sender_timeout", "wal_sender_timeout", b"1min"),
            ("transaction_read_only", "transaction_read_only", b"on"),
        ):
            expected = result([(name, *TEXT)], [value], "SHOW", -1)
            self.assertEqual(expected + READY, self.client().ask(f"SHOW {asked}"), asked)

    def test_showAnyBytes(self) -> None:
        """A value of bytes that are no text comes back byte for byte."""
        client = self.server().connect()
        pairs = b"user\0postgres\0replication\0true\0search_path\0\xff\xfe\0\0"
        client.send(struct.pack(">II", len(pairs) + 8, 0x00030000) + pairs)
        client.receive()
        expected = result([("search_path", *TEXT)], [b"\xff\xfe"], "SHOW", -1)
        self.assertEqual(expected + READY, client.ask("SHOW search_path"))

    def test_showAll(self) -> None:
        """All parameters come in rows of three columns."""
        messages = parse(self.client().ask("SHOW ALL"))
        self.assertEqual(b"T", messages[0][0])
        rows = [body for kind, body in messages if kind == b"D"]
        self.assertTrue(any(b"wal_segment_size" in row and b"1MB" in row for row in rows))
        self.assertEqual([b"C", b"Z"], [kind for kind, _ in messages[-2:]])

    def test_timelineHistory(self) -> None:
        """The file comes byte for byte, as text from 14 on and as bytea before."""
        content = b"1\t0/2000000\tno recovery \xff\x00target\n"
        for version, oid in ((130000, 17), (140000, 25), (180000, 25)):
            server = self.server(version)
            server.source.histories[2] = content
            expected = result(
                [("filename", *TEXT), ("content", oid, -1)],
                [b"00000002.history", content],
                "TIMELINE_HISTORY",
                -1,
            )
            self.assertEqual(expected + READY, server.started().ask("TIMELINE_HISTORY 2"), version)

    def test_readReplicationSlot(self) -> None:
        """A slot that does not exist is a row of NULLs."""
        expected = result(
            [("slot_type", *TEXT), ("restart_lsn", *TEXT), ("restart_tli", 20, 8)],
            [None, None, None],
            "READ_REPLICATION_SLOT",
            -1,
        )
        self.assertEqual(expected + READY, self.client().ask('READ_REPLICATION_SLOT "none"'))


class ErrorTests(CommandTestCase):
    """Errors of commands: told, and the session goes on."""

    def test_errors(self) -> None:
        """Each command's error has its SQLSTATE and text, and ReadyForQuery behind it."""
        client = self.client()
        for text, sqlstate, complaint in (
            ("", "0A000", "cannot execute SQL commands in WAL sender for physical replication"),
            ("SELECT 1", "0A000", "cannot execute SQL commands in WAL sender for physical replication"),
            (
                "identify_system",
                "0A000",
                "cannot execute SQL commands in WAL sender for physical replication",
            ),
            ("IDENTIFY_SYSTEM;;", "42601", "syntax error"),
            ("START_REPLICATION 0", "42601", "syntax error"),
            ("START_REPLICATION 0/0 TIMELINE 0", "42601", "invalid timeline 0"),
            (
                "START_REPLICATION 0/0 TIMELINE 9",
                "XX000",
                "requested timeline 9 is not in this server's history",
            ),
            ('START_REPLICATION SLOT "s" 0/0', "42704", 'replication slot "s" does not exist'),
            ('DROP_REPLICATION_SLOT "s"', "42704", 'replication slot "s" does not exist'),
            ("SHOW nonsense", "42704", 'unrecognized configuration parameter "nonsense"'),
            ("BASE_BACKUP", "0A000", "walsender cannot take a base backup"),
            (
                "TIMELINE_HISTORY 7",
                "58P01",
                'could not open file "pg_wal/00000007.history": No such file or directory',
            ),
        ):
            answer = client.ask(text)
            fields = error_fields(answer)
            self.assertEqual(("ERROR", sqlstate, complaint), tuple(fields[letter] for letter in "SCM"), text)
            self.assertEqual(READY, answer[-6:])
        self.assertIs(State.COMMAND, client.states[-1])
        self.assertIn(b"IDENTIFY_SYSTEM", client.ask("IDENTIFY_SYSTEM"))

    def test_malformedQueries(self) -> None:
        """A text that does not end, or ends too early, is an error of that message only."""
        client = self.client()
        client.send(message(b"Q", b"IDENTIFY_SYSTEM"))
        expected = error_response(S="ERROR", V="ERROR", C="08P01", M="invalid string in message")
        self.assertEqual(expected + READY, client.receive())
        client.send(message(b"Q", b"IDENTIFY_SYSTEM\0x"))
        expected = error_response(S="ERROR", V="ERROR", C="08P01", M="invalid message format")
        self.assertEqual(expected + READY, client.receive())

    def test_extendedProtocol(self) -> None:
        """One error, then everything up to Sync is skipped, then ReadyForQuery."""
        client = self.client()
        client.send(
            message(b"P", b"\0SELECT 1\0\0\0") + message(b"B") + message(b"E") + query("IDENTIFY_SYSTEM")
        )
        expected = error_response(
            S="ERROR",
            V="ERROR",
            C="08P01",
            M="extended query protocol not supported in a replication connection",
        )
        self.assertEqual(expected, client.receive())
        client.send(message(b"S"))
        self.assertEqual(READY, client.receive())
        self.assertEqual(b"TDCZ", kinds(client.ask("IDENTIFY_SYSTEM")))

    def test_functionCall(self) -> None:
        """The fast path is refused, and the session goes on at once."""
        client = self.client()
        client.send(message(b"F", b"\0\0\0\0"))
        expected = error_response(
            S="ERROR",
            V="ERROR",
            C="08P01",
            M="fastpath function calls not supported in a replication connection",
        )
        self.assertEqual(expected + READY, client.receive())

    def test_unknownType(self) -> None:
        """A type that nobody knows is fatal, by its first byte."""
        client = self.client()
        client.send(b"y")
        expected = error_response(S="FATAL", V="FATAL", C="08P01", M="invalid frontend message type 121")
        self.assertEqual(expected, client.receive())
        self.assertTrue(client.is_closed)

    def test_badLengths(self) -> None:
        """An impossible length closes without a word."""
        for kind, length in ((b"Q", 3), (b"Q", -1), (b"S", 20000), (b"d", 1 << 20), (b"Q", 1 << 30)):
            client = self.client()
            client.send(kind + struct.pack(">i", length))
            self.assertEqual(b"", client.receive())
            self.assertTrue(client.is_closed)

    def test_bugCostsOneConnection(self) -> None:
        """What we did wrong is told as such, logged with its traceback, and leaves the session."""
        server = self.server()
        client, other = server.started(), server.started()
        server.source.histories = None
        answer = client.ask("TIMELINE_HISTORY 2")
        self.assertEqual(("XX000", "internal error"), tuple(error_fields(answer)[letter] for letter in "CM"))
        self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))
        self.assertEqual(b"TDCZ", kinds(other.ask("IDENTIFY_SYSTEM")))


class ConversationTests(CommandTestCase):
    """Messages that follow each other."""

    def test_pipelinedQueries(self) -> None:
        """Each query gets its own answer, however the bytes are cut."""
        stream = query("IDENTIFY_SYSTEM") + query("nonsense") + query("SHOW wal_segment_size")
        whole = self.client()
        whole.send(stream)
        bytewise = self.client()
        bytewise.send(*(stream[i : i + 1] for i in range(len(stream))))
        answer = whole.receive()
        self.assertEqual(b"TDCZEZTDCZ", kinds(answer))
        self.assertEqual(answer, bytewise.receive())

    def test_syncAndFlush(self) -> None:
        """Sync alone is answered, Flush is not."""
        client = self.client()
        client.send(message(b"H"))
        self.assertEqual(b"", client.receive())
        client.send(message(b"S"))
        self.assertEqual(READY, client.receive())

    def test_lateCopyMessages(self) -> None:
        """Messages of a COPY that is over are ignored."""
        client = self.client()
        client.send(status(1) + copy_data(b"?") + COPY_DONE + message(b"f", b"why\0") + copy_data(b""))
        self.assertEqual(b"", client.receive())
        self.assertEqual(b"TDCZ", kinds(client.ask("IDENTIFY_SYSTEM")))

    def test_terminate(self) -> None:
        """X closes; a second one, and anything else behind it, is tolerated."""
        client = self.client()
        client.send(TERMINATE + TERMINATE, TERMINATE + query("IDENTIFY_SYSTEM"))
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.is_closed)
        self.assertLegal(MODERN, client.states)

    def test_endOfFile(self) -> None:
        """A client that goes away is let go without a word."""
        client = self.client()
        client.transport.deliver_eof()
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.is_closed)

    def test_clientThatDoesNotRead(self) -> None:
        """Who asks and does not read is read no further; it all comes when it reads again."""
        client = self.client()
        count = 300
        client.send(query("SHOW ALL") * count)
        self.assertFalse(client.transport.reading)
        self.assertLess(client.transport.buffered, 128 * 1024)
        client.send(query("IDENTIFY_SYSTEM"))
        self.assertLess(client.transport.buffered, 128 * 1024)
        answer = client.receive()
        self.assertEqual(count + 1, kinds(answer).count(b"Z"))
        self.assertTrue(client.transport.reading)

    def test_streamBehindAFullBuffer(self) -> None:
        """A stream that begins while answers wait still hears its standby."""
        server = self.server()
        client = server.started()
        client.receive()
        # Answers up to exactly the mark, so that CopyBothResponse goes beyond it.
        one = len(client.ask("SHOW wal_block_size"))
        client.protocol.transport.write(b"\0" * (client.transport.high_water - one))
        client.send(query("SHOW wal_block_size") + query("START_REPLICATION 0/3000060"))
        self.assertIs(State.STREAMING, client.states[-1])
        self.assertTrue(client.transport.reading)
        client.send(status(0x3000060))
        self.assertEqual(0x3000060, client.entry.write_lsn)
