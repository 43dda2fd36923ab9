"""
The first walsender's stream, byte for byte, over WAL that is really of 9.0.

Expected headers are written down field by field: ``d``, Int32 length of all that
follows, ``w``, log id and offset as two 32-bit integers in the byte order of the
WAL's pages.  The WAL itself is what the maker of test WAL wrote.
"""

from __future__ import annotations

from first_dialect_helpers import BEFORE_STREAM, StreamTestCase, header
from first_dialect_wal import LOG_FILE, SEGMENT, boundary_wal, content, long_wal, short_wal
from protocol_helpers import (
    COPY_OUT,
)

from walsender.sender.slot_table import STREAMING
from walsender.sender.states import State
from walsender.testing.wal_maker import WalMaker


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
