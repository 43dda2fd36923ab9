"""How a stream of the first dialect ends: the client, the server, and WAL that cannot be read."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from first_dialect_wal import boundary_wal, content, long_wal, short_wal
from protocol_helpers import (
    COPY_0,
    COPY_OUT,
    TERMINATE,
    Client,
    error_response,
    message,
    query,
)

from walsender.sender.states import FIRST, State
from walsender.wal import REAL_FILES

if TYPE_CHECKING:
    from pathlib import Path

    from protocol_helpers import Server
from first_dialect_helpers import BEFORE_STREAM, StreamTestCase, header


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
        for number, sqlstate in ((errno.EACCES, "42501"), (errno.EIO, "58030"), (errno.EMFILE, "53000")):
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
