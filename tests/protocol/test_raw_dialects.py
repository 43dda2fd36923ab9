"""
The streams of 9.0, 9.1 and 9.2, byte for byte, over WAL that is really of those versions.

Expected bytes are written down field by field from the structures that these servers sent: log id
and offset as two 32-bit integers, then a 64-bit time, in the byte order of the server's memory.
"""

from __future__ import annotations

from first_dialect_wal import LOG_FILE, content
from protocol_helpers import (
    COPY_0,
    TERMINATE,
    Client,
    Server,
    copy_data,
    error_response,
    message,
    query,
)
from raw_dialect_helpers import (
    END,
    NOW,
    REPLYING,
    VERSIONS,
    RawDialectTestCase,
    begun,
    boundary_wal,
    header,
    short_wal,
    status,
    two_segments,
)

from walsender.lsn import LSN, Geometry
from walsender.sender.slot_table import STREAMING
from walsender.sender.states import State
from walsender.wire.dialect import dialect_of


class SliceTests(RawDialectTestCase):
    """What goes into a message."""

    def test_allThereIs(self) -> None:
        """Start, end of WAL and time, then all WAL up to the end."""
        for version in VERSIONS:
            maker = short_wal(version)
            server, client = self.stream(maker, "0/1000000")
            expected = header("000075b5", "0000000000000001", "0000000098750001") + content(
                maker, 0x1000000, END
            )
            self.assertEqual(begun(version) + expected, client.receive(), version)
            self.assertEqual((END, STREAMING), (client.entry.sent_lsn, client.entry.state))
            self.assertEqual("streaming 0/1007598", server.factory.slot_table.activity())

    def test_bigEndianWal(self) -> None:
        """Positions and time have the byte order of the WAL's pages; the length never has."""
        for version in VERSIONS:
            maker = short_wal(version, "big")
            _, client = self.stream(maker, "0/1002000")
            expected = header(
                "000055b5", "0000000001002000", "0000000001007598", "00000000000f4240"
            ) + content(maker, 0x1002000, END)
            self.assertEqual(begun(version) + expected, client.receive(), version)

    def test_sixteenPages(self) -> None:
        """A message has at most 128 KiB, rounded down to a page boundary, and crosses segments."""
        for version in VERSIONS:
            maker = two_segments(version)
            self.assertEqual(0x2007598, maker.position)
            _, client = self.stream(maker, "0/1FCE010")
            expected = (
                # 128 KiB - 16: to 0/1FEE000
                header("0002000d", "0000000010e0fc01", "0000000098750002")
                + content(maker, 0x1FCE010, 0x1FEE000)
                # the rest is less: to the end, across the segment's end
                + header("000195b5", "0000000000e0fe01", "0000000098750002")
                + content(maker, 0x1FEE000, 0x2007598)
            )
            received = client.receive()
            self.assertEqual(len(begun(version) + expected), len(received))
            self.assertTrue(received == begun(version) + expected, version)

    def test_neverAcrossLogFiles(self) -> None:
        """The end of a log file ends the message, though more would fit; the next starts at offset 0."""
        for version in VERSIONS:
            maker = boundary_wal(version)
            self.assertEqual(LOG_FILE + 0x7598, maker.position)
            server, client = self.stream(maker, "0/FEFFE000")
            expected = (
                header("0000201d", "0000000000e0fffe", "0100000098750000")
                + content(maker, LOG_FILE - 0x2000, LOG_FILE)
                + header("000075b5", "0100000000000000", "0100000098750000")
                + content(maker, LOG_FILE, LOG_FILE + 0x7598)
            )
            self.assertEqual(begun(version) + expected, client.receive(), version)
            self.assertEqual("streaming 1/7598", server.factory.slot_table.activity())

    def test_startAtLogFileEnd(self) -> None:
        """A position at the end of a log file is the start of the next."""
        for version in VERSIONS:
            maker = boundary_wal(version)
            _, client = self.stream(maker, "0/FF000000")
            expected = header("000075b5", "0100000000000000", "0100000098750000") + content(
                maker, LOG_FILE, LOG_FILE + 0x7598
            )
            self.assertEqual(begun(version) + expected, client.receive(), version)

    def test_startAhead(self) -> None:
        """A start ahead of the end waits without limit, in however many keepalives."""
        for version in VERSIONS:
            server, client = self.stream(short_wal(version), "0/7000000", wal_sender_timeout=0)
            self.assertEqual(begun(version), client.receive())
            server.reactor.advance(3600)
            self.assertEqual(b"", client.receive())
            self.assertFalse(client.is_closed)

    def test_start0(self) -> None:
        """0/0 is a position as any other: the WAL there is gone."""
        for version in VERSIONS:
            server, client = self.stream(short_wal(version), "0/0")
            refusal = error_response(
                S="FATAL",
                C="58P01",
                M="requested WAL segment 000000010000000000000000 has already been removed",
                D="The earliest WAL position that is held here is 0/1000000.",
            )
            self.assertEqual(begun(version) + refusal, client.receive())
            self.assertEnds(server, client, State.STREAMING, State.CLOSED)

    def test_otherOpenErrors(self) -> None:
        """A file that is there and cannot be opened is named with its place in its log file."""
        for version in VERSIONS:
            dialect = dialect_of(version, "little")
            error = dialect.open_error(
                "000000010000000100000002",
                Geometry.skipping(),
                255 + 2,
                PermissionError(13, "Permission denied"),
                LSN(0),
            )
            self.assertEqual("42501", error.sqlstate)
            self.assertEqual(
                'could not open file "pg_xlog/000000010000000100000002" (log file 1, segment 2): '
                "Permission denied",
                error.message,
            )


class ReplyTests(RawDialectTestCase):
    """What a standby of 9.1 or 9.2 says while it streams, and what it is told."""

    def level(self, version: int, **options: object) -> tuple[Server, Client]:
        """Return a server and a client that has all."""
        server, client = self.stream(short_wal(version), "0/1007598", **options)
        client.receive()
        return server, client

    def test_report(self) -> None:
        """Three positions and the time, in the server's byte order."""
        for version in REPLYING:
            _, client = self.level(version)
            client.send(status("0000000098750001", "0000000000700001", "0000000000600001"))
            entry = client.entry
            self.assertEqual(
                (END, 0x1007000, 0x1006000), (entry.write_lsn, entry.flush_lsn, entry.replay_lsn)
            )
            self.assertEqual(946684800.1, entry.reply_time)
            self.assertEqual(b"", client.receive())

    def test_reportOfLogFileEnd(self) -> None:
        """A position at the end of a log file is shown as the start of the next, which can be compared."""
        _, client = self.level(90100)
        client.send(status("00000000000000ff", "0000000000000000", "0100000000000000"))
        self.assertEqual(
            ("1/0", "0/0", "1/0"),
            (str(client.entry.write_lsn), str(client.entry.flush_lsn), str(client.entry.replay_lsn)),
        )

    def test_feedback(self) -> None:
        """Hot standby feedback, with its time last, has no answer."""
        for version in REPLYING:
            _, client = self.level(version)
            client.send(copy_data(b"h" + bytes.fromhex("f302000000000000" + NOW)))
            self.assertEqual(b"", client.receive())
            self.assertIs(State.STREAMING, client.states[-1])

    def test_shortReport(self) -> None:
        """A report that is cut off is fatal, as every error."""
        for version in REPLYING:
            server, client = self.level(version)
            client.send(copy_data(b"r" + bytes(31)))
            self.assertEqual(
                error_response(S="FATAL", C="08P01", M="insufficient data left in message"), client.receive()
            )
            self.assertEnds(server, client, State.STREAMING, State.CLOSED)

    def test_unknownReport(self) -> None:
        """An unknown tag ends the connection; the client is told nothing."""
        for version in REPLYING:
            server, client = self.level(version)
            client.send(copy_data(b"p"))
            self.assertEqual(b"", client.receive())
            self.assertEnds(server, client, State.STREAMING, State.CLOSED)

    def test_keepalive(self) -> None:
        """9.2 sends position and time at half of the timeout, 9.1 has no such message."""
        for version, expected in (
            # d, length, k, 0/1007598, 31 s
            (90200, bytes.fromhex("64 00000015 6b 00000000 98750001 c005d90100000000")),
            (90100, b""),
        ):
            server, client = self.level(version, wal_sender_timeout=60)
            server.reactor.advance(29.9)
            self.assertEqual(b"", client.receive())
            server.reactor.advance(0.1)
            self.assertEqual(expected, client.receive(), version)

    def test_silence(self) -> None:
        """A standby that is silent for the whole timeout is given up, and a report shows that it lives."""
        for version in REPLYING:
            server, client = self.level(version, wal_sender_timeout=60)
            server.reactor.pump([30, 29])
            client.send(status("0000000098750001", "0000000098750001", "0000000098750001"))
            server.reactor.pump([30, 29])
            self.assertFalse(client.is_closed)
            server.reactor.advance(1)
            self.assertTrue(client.transport.aborted)

    def test_silenceOf90(self) -> None:
        """A standby of 9.0 has nothing to say and is never given up."""
        server, client = self.level(90000, wal_sender_timeout=60)
        server.reactor.advance(100_000)
        self.assertEqual(b"", client.receive())
        self.assertFalse(client.is_closed)


class EndTests(RawDialectTestCase):
    """How a stream ends."""

    def test_terminate(self) -> None:
        """X ends the connection quietly, by its type byte alone."""
        for version in VERSIONS:
            server, client = self.stream(short_wal(version), "0/1007598")
            client.send(TERMINATE[:1])
            self.assertEqual(begun(version), client.receive())
            self.assertEnds(server, client, State.STREAMING, State.CLOSED)

    def test_anyOtherByte(self) -> None:
        """Any other type is refused at once, CopyDone too: by its number in 9.0, by its character later."""
        for version in VERSIONS:
            for code in "cQf" if version > 90000 else "cQfd":
                server, client = self.stream(short_wal(version), "0/1007598")
                client.send(code.encode())
                text = (
                    f"invalid standby closing message type {ord(code)}"
                    if version == 90000
                    else f'invalid standby message type "{code}"'
                )
                refusal = error_response(S="FATAL", C="08P01", M=text)
                self.assertEqual(begun(version) + refusal, client.receive())
                self.assertEnds(server, client, State.STREAMING, State.CLOSED)

    def test_shutDown(self) -> None:
        """The server's end is COPY 0, and the connection is closed."""
        for version in VERSIONS:
            server, client = self.stream(short_wal(version), "0/1007598")
            client.receive()
            server.factory.shut_down()
            self.assertEqual(COPY_0, client.receive())
            self.assertEnds(server, client, State.STREAMING, State.STOPPING, State.CLOSED)

    def test_drainWithoutReplies(self) -> None:
        """9.0 is sent all there is; nobody could confirm it."""
        maker = short_wal(90000)
        server, client = self.stream(maker, "0/1000000")
        server.factory.shut_down(drain=True)
        self.assertEqual(COPY_0, client.receive()[-len(COPY_0) :])
        self.assertEnds(server, client, State.STREAMING, State.STOPPING, State.CLOSED)

    def test_drainWithReplies(self) -> None:
        """From 9.1 on the standby confirms that it has flushed all."""
        for version in REPLYING:
            server, client = self.stream(short_wal(version), "0/1000000")
            client.receive()
            server.factory.shut_down(drain=True)
            client.send(status("0000000098750001", "0000000000700001", "0000000000000000"))
            self.assertFalse(client.is_closed)
            client.send(status("0000000098750001", "0000000098750001", "0000000000000000"))
            self.assertEqual(COPY_0, client.receive()[-len(COPY_0) :])
            self.assertEnds(server, client, State.STREAMING, State.STOPPING, State.CLOSED)

    def test_anotherTimeline(self) -> None:
        """There are no words for another timeline: the stream ends as in a shutdown, at the switch."""
        for version in VERSIONS:
            source = self.scripted_source(
                0x1002000,
                geometry=Geometry.skipping(1 << 20),
                server_version=version,
            )
            server = Server(source, dialect_of(version, "little"))
            client = server.streaming(0x1001000)
            client.receive()
            source.switch(2, 0x1003000, 0x1004000)
            received = client.receive()
            self.assertEqual(29 + 1 + 0x1000 + len(COPY_0), len(received))
            self.assertEqual(COPY_0, received[-len(COPY_0) :])
            self.assertTrue(client.is_closed)

    def test_queryBehindTheStart(self) -> None:
        """What comes together with START_REPLICATION belongs to the stream already."""
        server = self.server(short_wal(90200))
        client = server.started()
        client.send(query("START_REPLICATION 0/1007598") + message(b"Q", b"IDENTIFY_SYSTEM\0"))
        refusal = error_response(S="FATAL", C="08P01", M='invalid standby message type "Q"')
        self.assertEqual(begun(90200) + refusal, client.receive())
