"""
The first walsender's stream, byte for byte, over WAL that is really of 9.0.

Expected headers are written down field by field: ``d``, Int32 length of all that
follows, ``w``, log id and offset as two 32-bit integers in the byte order of the
WAL's pages.  The WAL itself is what the maker of test WAL wrote.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from first_dialect_wal import LOG_FILE, SEGMENT, boundary_wal, content, long_wal, short_wal
from protocol_helpers import (
    COPY_0,
    COPY_OUT,
    TERMINATE,
    Client,
    ProtocolTestCase,
    error_response,
    message,
    query,
)

from walsender.sender.slot_table import STREAMING
from walsender.sender.states import FIRST, State
from walsender.testing.wal_maker import WalMaker
from walsender.wal import REAL_FILES

if TYPE_CHECKING:
    from pathlib import Path

    from protocol_helpers import Server

BEFORE_STREAM = [State.STARTUP, State.AUTHENTICATION, State.COMMAND]


def header(length: str, log_id_and_offset: str) -> bytes:
    """Return a header: CopyData's type, length, XLogData's type, position as it stands on the wire."""
    return b"d" + bytes.fromhex(length) + b"w" + bytes.fromhex(log_id_and_offset)


class StreamTestCase(ProtocolTestCase):
    """Streams from WAL in a real directory."""

    def stream(self, maker: WalMaker, start: str) -> tuple[Server, Client]:
        """Return a server of *maker*'s WAL and a client that has sent START_REPLICATION."""
        self.path = self.directory()
        server = self.first_server(maker, self.path)
        client = server.started()
        client.send(query(f"START_REPLICATION {start}"))
        return server, client

    def assertEnds(self, server: Server, client: Client, *states: State) -> None:
        """Check that the connection is closed and freed, and its way through the table."""
        self.assertTrue(client.is_closed)
        self.assertEqual(0, len(server.factory.slot_table))
        self.assertEqual(BEFORE_STREAM + list(states), client.states)
        self.assertLegal(FIRST, client.states)


class SliceTests(StreamTestCase):
    """What goes into a message."""

    def test_allThereIs(self) -> None:
        """CopyOutResponse, then all WAL up to the end in one message, off a page boundary."""
        maker = short_wal()
        self.assertEqual(0x1007598, maker.position)
        server, client = self.stream(maker, "0/1000000")
        expected = header("000075a5", "00000000 00000001") + content(maker, 0x1000000, 0x1007598)
        self.assertEqual(COPY_OUT + expected, client.receive())
        self.assertEqual((0x1007598, STREAMING), (client.entry.sent_lsn, client.entry.state))
        self.assertEqual("streaming 0/1007598", server.factory.slot_table.activity())
        self.assertEqual([*BEFORE_STREAM, State.STREAMING], client.states)

    def test_fromExactlyThere(self) -> None:
        """The start may be anywhere."""
        maker = short_wal()
        _, client = self.stream(maker, "0/1007597")
        expected = header("0000000e", "00000000 97750001") + content(maker, 0x1007597, 0x1007598)
        self.assertEqual(COPY_OUT + expected, client.receive())

    def test_bigEndianWal(self) -> None:
        """The position has the byte order of the WAL's pages; the length never has."""
        maker = short_wal("big")
        _, client = self.stream(maker, "0/1002000")
        expected = header("000055a5", "00000000 01002000") + content(maker, 0x1002000, 0x1007598)
        self.assertEqual(COPY_OUT + expected, client.receive())

    def test_eightMegabytes(self) -> None:
        """A message has at most half a segment, rounded down to a page boundary, and crosses segments."""
        maker = long_wal()
        self.assertEqual(0x3007598, maker.position)
        _, client = self.stream(maker, "0/1000010")
        expected = (
            # 8 MB - 16: to 0/1800000
            header("007ffffd", "00000000 10000001")
            + content(maker, 0x1000010, 0x1800000)
            # 8 MB: to 0/2000000
            + header("0080000d", "00000000 00008001")
            + content(maker, 0x1800000, 0x2000000)
            + header("0080000d", "00000000 00000002")
            + content(maker, 0x2000000, 0x2800000)
            + header("0080000d", "00000000 00008002")
            + content(maker, 0x2800000, 0x3000000)
            # to the end, off a page boundary
            + header("000075a5", "00000000 00000003")
            + content(maker, 0x3000000, 0x3007598)
        )
        received = client.receive()
        self.assertEqual(len(COPY_OUT + expected), len(received))
        self.assertTrue(received == COPY_OUT + expected)

    def test_acrossSegments(self) -> None:
        """A message crosses a segment's end, and is cut off only by the end of WAL."""
        maker = long_wal()
        _, client = self.stream(maker, "0/2FFE000")
        # 0x2000 to the segment's end, 0x7598 behind it
        expected = header("000095a5", "00000000 00e0ff02") + content(maker, 0x2FFE000, 0x3007598)
        self.assertEqual(COPY_OUT + expected, client.receive())

    def test_acrossSegmentsCutAtAPage(self) -> None:
        """A message that crosses a segment's end has half a segment, too."""
        maker = long_wal()
        _, client = self.stream(maker, "0/1FFE000")
        expected = header("0080000d", "00000000 00e0ff01") + content(maker, 0x1FFE000, 0x27FE000)
        received = client.receive()
        self.assertTrue(received.startswith(COPY_OUT + expected))
        following = received[len(COPY_OUT + expected) :]
        self.assertEqual(header("0080000d", "00000000 00e07f02"), following[:14])

    def test_acrossLogFiles(self) -> None:
        """From FE of one log file to 0 of the next: end offset + 0xFF000000 - start offset bytes."""
        maker = boundary_wal()
        self.assertEqual(LOG_FILE + 0x7598, maker.position)
        server, client = self.stream(maker, "0/FEFFE000")
        # 1/7598: 0x7598 + 0xFF000000 - 0xFEFFE000 = 0x9598 bytes
        expected = header("000095a5", "00000000 00e0fffe") + content(
            maker, LOG_FILE - 0x2000, LOG_FILE + 0x7598
        )
        self.assertEqual(COPY_OUT + expected, client.receive())
        self.assertEqual("streaming 1/7598", server.factory.slot_table.activity())

    def test_startAtLogFileEnd(self) -> None:
        """A position at the end of a log file is the start of the next."""
        maker = boundary_wal()
        _, client = self.stream(maker, "0/FF000000")
        expected = header("000075a5", "01000000 00000000") + content(maker, LOG_FILE, LOG_FILE + 0x7598)
        self.assertEqual(COPY_OUT + expected, client.receive())

    def test_modernWal(self) -> None:
        """Over WAL of 9.3 and later the messages are the same, and segment FF exists."""
        maker = WalMaker(180000, segment_size=SEGMENT, start=0xFF000000)
        maker.record(1000)
        maker.switch()
        for _ in range(30):
            maker.record(1000)
        end = maker.position
        _, client = self.stream(maker, "0/FFFFE000")
        size = 0x2000 + end - (1 << 32)
        expected = (
            b"d" + (13 + size).to_bytes(4, "big") + b"w" + bytes.fromhex("00000000 00e0ffff")
        ) + content(maker, 0xFFFFE000, end)
        self.assertEqual(COPY_OUT + expected, client.receive())

    def test_position0Sends0(self) -> None:
        """Position 0/0 sends nothing, ever, and has no sent position."""
        server, client = self.stream(short_wal(), "0/0")
        self.assertEqual(COPY_OUT, client.receive())
        self.grow()
        server.reactor.advance(1)
        self.assertEqual(b"", client.receive())
        self.assertEqual(0, server.factory.slot_table.oldest_sent())

    def grow(self) -> int:
        """Let the directory get one more record; return where WAL ends then."""
        maker = WalMaker(90000, segment_size=SEGMENT, system_identifier=short_wal().system_identifier)
        for _ in range(31):
            maker.record(1000)
        maker.write(self.path)
        self.grown = maker
        return maker.position

    def test_growth(self) -> None:
        """What is new is sent at the latest after wal_sender_delay."""
        server, client = self.stream(short_wal(), "0/1000000")
        client.receive()
        end = self.grow()
        self.assertEqual(0x1007980, end)
        self.assertEqual(b"", client.receive())
        server.reactor.advance(0.2)
        expected = header("000003f5", "00000000 98750001") + content(self.grown, 0x1007598, end)
        self.assertEqual(expected, client.receive())
        self.assertEqual(end, client.entry.sent_lsn)

    def test_startAhead(self) -> None:
        """A start ahead of the end waits, and sends from exactly there."""
        server, client = self.stream(short_wal(), "0/1007600")
        self.assertEqual(COPY_OUT, client.receive())
        server.reactor.advance(3600)
        self.assertEqual(b"", client.receive())
        end = self.grow()
        server.reactor.advance(0.2)
        expected = header("0000038d", "00000000 00760001") + content(self.grown, 0x1007600, end)
        self.assertEqual(expected, client.receive())

    def test_slowClientGetsTheSameBytes(self) -> None:
        """A client that reads a little at a time changes nothing but the time it takes."""
        maker = short_wal()
        _, client = self.stream(maker, "0/1000000")
        expected = COPY_OUT + header("000075a5", "00000000 00000001") + content(maker, 0x1000000, 0x1007598)
        for _ in range(len(expected) // 1000 + 1):
            client.transport.drain(1000)
        self.assertEqual(expected, client.transport.received)


class EndTests(StreamTestCase):
    """How a stream ends."""

    def test_terminateByItsTypeByteAlone(self) -> None:
        """X ends the connection without its length, and quietly."""
        server, client = self.stream(short_wal(), "0/1007598")
        client.send(TERMINATE[:1])
        self.assertEqual(COPY_OUT, client.receive())
        self.assertEnds(server, client, State.STREAMING, State.CLOSED)

    def test_endOfFile(self) -> None:
        """End of file ends the connection; the client is told nothing."""
        server, client = self.stream(short_wal(), "0/1007598")
        client.transport.deliver_eof()
        self.assertEqual(COPY_OUT, client.receive())
        self.assertEnds(server, client, State.STREAMING, State.CLOSED)

    def test_anyOtherByte(self) -> None:
        """Any other byte is refused by its number, without waiting for the rest."""
        for code in b"Qdcr\x00":
            server, client = self.stream(short_wal(), "0/1007598")
            client.send(bytes((code,)))
            refusal = error_response(S="FATAL", C="08P01", M=f"invalid standby closing message type {code}")
            self.assertEqual(COPY_OUT + refusal, client.receive())
            self.assertEnds(server, client, State.STREAMING, State.CLOSED)

    def test_shutDown(self) -> None:
        """The server's end is COPY 0, and the connection is closed."""
        server, client = self.stream(short_wal(), "0/1007598")
        client.receive()
        server.factory.shut_down()
        self.assertEqual(COPY_0, client.receive())
        self.assertEnds(server, client, State.STREAMING, State.STOPPING, State.CLOSED)

    def test_shutDownEndsAtTheMessageBoundary(self) -> None:
        """The message under way is completed, the next is not begun."""
        maker = long_wal()
        server, client = self.stream(maker, "0/1000000")
        client.transport.drain(100)
        server.factory.shut_down()
        received = client.receive()
        expected = COPY_OUT + header("0080000d", "00000000 00000001") + content(maker, 0x1000000, 0x1800000)
        self.assertTrue(bytes(received) == expected + COPY_0)
        self.assertEnds(server, client, State.STREAMING, State.STOPPING, State.CLOSED)

    def test_drain(self) -> None:
        """A drain sends all there is when it begins, and then ends in the same way."""
        maker = long_wal()
        server, client = self.stream(maker, "0/1000000")
        client.transport.drain(100)
        gone = server.factory.shut_down(drain=True)
        self.assertNoResult(gone)
        received = client.receive()
        self.assertEqual(COPY_0, received[-len(COPY_0) :])
        self.assertEqual(len(COPY_OUT) + 5 * 14 + 0x2007598 + len(COPY_0), len(received))
        self.assertEnds(server, client, State.STREAMING, State.STOPPING, State.CLOSED)
        self.successResultOf(gone)

    def test_drainOfOneThatHasAll(self) -> None:
        """A drain of a level stream, one from 0/0 and one ahead ends at once."""
        for start in ("0/1007598", "0/0", "7/0"):
            server, client = self.stream(short_wal(), start)
            server.factory.shut_down(drain=True)
            self.assertEqual(COPY_OUT + COPY_0, client.receive(), start)
            self.assertEnds(server, client, State.STREAMING, State.STOPPING, State.CLOSED)

    def test_noTimeout(self) -> None:
        """A client that never says anything is never asked and never given up."""
        server, client = self.stream(short_wal(), "0/1007598")
        client.receive()
        server.reactor.advance(100_000)
        self.assertEqual(b"", client.receive())
        self.assertFalse(client.is_closed)

    def test_severalStandbys(self) -> None:
        """With more than one standby the activity tells their number and the lowest position."""
        server, _ = self.stream(short_wal(), "0/1002000")
        other = server.started()
        other.send(query("START_REPLICATION 0/0"))
        self.assertEqual("2 standbys, streaming 0/1007598", server.factory.slot_table.activity())


class SpoiltFiles:
    """Real files, of which some cannot be opened."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.spoilt = False

    def __getattr__(self, name: str) -> Any:
        return getattr(REAL_FILES, name)

    def open(self, path: str) -> int:
        """See `FileOperations`."""
        if self.spoilt:
            raise OSError(self.number, os.strerror(self.number), path)
        return REAL_FILES.open(path)


class ReadErrorTests(StreamTestCase):
    """WAL that cannot be read is fatal."""

    def assertFatal(self, server: Server, client: Client, sqlstate: str, text: str) -> None:
        """Check the refusal and the end."""
        self.assertEqual(COPY_OUT + error_response(S="FATAL", C=sqlstate, M=text), client.receive())
        self.assertEnds(server, client, State.STREAMING, State.CLOSED)

    def test_removedSegment(self) -> None:
        """A segment before the first is named with its place in its log file."""
        server, client = self.stream(long_wal(), "0/16")
        text = (
            'could not open file "pg_xlog/000000010000000000000000" (log file 0, segment 0): '
            "No such file or directory"
        )
        self.assertFatal(server, client, "58P01", text)

    def test_removedSegmentOfALaterLogFile(self) -> None:
        """The log file's number counts."""
        maker = boundary_wal()
        path = self.directory()
        maker.write(path)
        server = self.first_server(maker, path)
        (path / "000000010000000100000000").unlink()
        client = server.started()
        client.send(query("START_REPLICATION 1/2000"))
        text = (
            'could not open file "pg_xlog/000000010000000100000000" (log file 1, segment 0): '
            "No such file or directory"
        )
        self.assertFatal(server, client, "58P01", text)

    def test_openErrors(self) -> None:
        """The SQLSTATE follows the operating system's error."""
        for number, sqlstate in ((errno.EACCES, "42501"), (errno.EIO, "58030"), (errno.EMFILE, "58030")):
            server = self.first_server(short_wal())
            spoilt = server.source._follower._files = SpoiltFiles(number)
            spoilt.spoilt = True
            client = server.started()
            client.send(query("START_REPLICATION 0/1000000"))
            text = (
                'could not open file "pg_xlog/000000010000000000000001" (log file 0, segment 1): '
                f"{os.strerror(number)}"
            )
            self.assertFatal(server, client, sqlstate, text)

    def spoil(self, path: Path, size: int) -> None:
        """Make segment 1 shorter."""
        os.truncate(path / "000000010000000000000001", size)

    def test_readAtEndOfFile(self) -> None:
        """A file that has become shorter before a message: the read that failed is told."""
        server = self.first_server(short_wal(), self.directory())
        path = server.source._follower._path
        other = server.started()
        other.send(query("START_REPLICATION 0/1000000"))  # keeps the file open
        client = server.started()
        os.truncate(f"{path}/000000010000000000000001", 0x4000)
        client.send(query("START_REPLICATION 0/1004000"))
        text = "could not read from log file 0, segment 1, offset 16384, length 13720: Success"
        self.assertFatal_(client, text)

    def assertFatal_(self, client: Client, text: str) -> None:
        """Check the refusal and the end where others still stream."""
        self.assertEqual(COPY_OUT + error_response(S="FATAL", C="58030", M=text), client.receive())
        self.assertTrue(client.is_closed)
        self.assertEqual([*BEFORE_STREAM, State.STREAMING, State.CLOSED], client.states)

    def test_shorterInsideAMessage(self) -> None:
        """A message that cannot be completed ends without a word: anything more would be taken for WAL."""
        server = self.first_server(long_wal(), self.directory())
        path = server.source._follower._path
        client = server.started()
        client.send(query("START_REPLICATION 0/1000000"))
        client.transport.drain()
        os.truncate(f"{path}/000000010000000000000001", 0x100000)
        received = client.receive()
        self.assertTrue(client.is_closed)
        self.assertTrue(client.transport.aborted)
        self.assertNotIn(b"FATAL", received)
        self.assertLegal(FIRST, client.states)
        self.assertEqual(0, len(server.factory.slot_table))

    def test_goodByeWhileWalCannotBeRead(self) -> None:
        """A drain that meets a missing segment ends with the error."""
        maker = long_wal()
        path = self.directory()
        server = self.first_server(maker, path)
        client = server.started()
        client.send(query("START_REPLICATION 0/1FFE000"))
        client.transport.drain(10)
        (path / "000000010000000000000003").unlink()
        server.factory.shut_down(drain=True)
        received = client.receive()
        self.assertIn(b"(log file 0, segment 3): No such file", received)
        self.assertEnds(server, client, State.STREAMING, State.STOPPING, State.CLOSED)

    def test_unreadMessages(self) -> None:
        """What a client sends behind its last byte is not looked at."""
        server, client = self.stream(short_wal(), "0/1007598")
        client.send(b"X" + message(b"Q", b"x"))
        self.assertEqual(COPY_OUT, client.receive())
        self.assertEnds(server, client, State.STREAMING, State.CLOSED)
