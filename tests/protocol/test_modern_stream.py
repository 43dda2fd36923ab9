"""The modern dialect's stream: what is sent, in which messages, and which starts are refused."""

from __future__ import annotations

from protocol_helpers import (
    COPY_BOTH,
    READY,
    error_fields,
    error_response,
    kinds,
    query,
    wal_messages,
)
from stream_helpers import END, MIB, StreamTestCase

from walsender.lsn import Geometry
from walsender.sender.slot_table import CATCHUP, STREAMING
from walsender.sender.states import State


class MessageTests(StreamTestCase):
    """What goes into one XLogData."""

    def test_bytes(self) -> None:
        """A message as it stands on the wire."""
        client = self.server().streaming(0x300058)
        expected = COPY_BOTH + bytes.fromhex(
            "64 00000025"  # CopyData, length
            "77"  # w
            "0000000000300058"  # start
            "0000000000300060"  # the server's end
            "00000000000f4240"  # one second after 2000-01-01
            "5800300000000000"  # WAL
        )
        self.assertEqual(expected, client.receive())
        self.assertEqual([State.COMMAND, State.STREAMING], client.states[-2:])

    def test_sizes(self) -> None:
        """As many pages as the consumer reads at a time, to the segment's end, then to the end of WAL."""
        client = self.server().streaming(0x200000)
        sizes = self.assertWal(0x200000, END, client.receive())
        self.assertEqual([0x1E000] * 8 + [0x10000, 0x60], [size for _, size in sizes])

    def test_neverTooLarge(self) -> None:
        """No message has more than 16 pages, nor ends off a page boundary but at the end of WAL."""
        for start in (0x1FFFF9, 0x200000, 0x2FFFFF, 0x123456):
            client = self.server().streaming(start)
            for begin, size in self.assertWal(start, END, client.receive()):
                self.assertLessEqual(size, 0x20000)
                if begin + size != END:
                    self.assertEqual(0, (begin + size) % 8192)

    def test_segmentEnd(self) -> None:
        """A message ends where its segment does."""
        client = self.server().streaming(0x2FE010)
        self.assertEqual(
            [(0x2FE010, 0x1FF0), (0x300000, 0x60)], self.assertWal(0x2FE010, END, client.receive())
        )

    def test_otherPageSize(self) -> None:
        """Pages are the WAL's own."""
        client = self.server(geometry=Geometry.contiguous(MIB, 65536)).streaming(0x200010)
        for begin, size in self.assertWal(0x200010, END, client.receive()):
            self.assertLessEqual(size, 16 * 65536)
            if begin + size != END:
                self.assertEqual(0, (begin + size) % 65536)

    def test_serversEnd(self) -> None:
        """Each message says how far WAL could be sent when it began."""
        server = self.server()
        client = server.streaming(0x300000)
        server.source.grow(0x300100)
        self.assertEqual([END, 0x300100], [end for _, end, _ in wal_messages(client.receive())])

    def test_growth(self) -> None:
        """What grows is sent at once, and the entry follows."""
        server = self.server()
        client = server.streaming(0x300000)
        self.assertEqual(CATCHUP, server.streaming(0x100000).entry.state)
        client.receive()
        self.assertEqual((STREAMING, END), (client.entry.state, client.entry.sent_lsn))
        for position in (END + 1, END + 8, 0x400000, 0x400018):
            before = client.entry.sent_lsn
            server.source.grow(position)
            self.assertWal(before, position, client.receive())
            self.assertEqual(position, client.entry.sent_lsn)

    def test_oneByte(self) -> None:
        """The shortest stream has one byte."""
        client = self.server().streaming(END - 1)
        self.assertEqual([(END - 1, 1)], self.assertWal(END - 1, END, client.receive()))

    def test_beyondFourGigabytes(self) -> None:
        """Positions have 64 bits."""
        start = 0x12_FFFF_FFF8
        client = self.server(start + 16).streaming(start)
        self.assertEqual(2, len(self.assertWal(start, start + 16, client.receive())))

    def test_startAtTheEnd(self) -> None:
        """A start at the end of WAL is answered and then waits."""
        server = self.server()
        client = server.streaming(END)
        self.assertEqual(COPY_BOTH, client.receive())
        self.assertEqual(STREAMING, client.entry.state)


class RefusedStartTests(StreamTestCase):
    """Starts that fail, before CopyBothResponse and behind it."""

    def refusal(self, message_text: str, **more: str) -> bytes:
        """Return an ErrorResponse without SQLSTATE of its own."""
        return error_response(S="ERROR", V="ERROR", C="XX000", M=message_text, **more)

    def test_unknownTimeline(self) -> None:
        """Refused before COPY."""
        server = self.server()
        client = server.streaming(0x200000, 4)
        text = "requested timeline 4 is not in this server's history"
        self.assertEqual(self.refusal(text) + READY, client.receive())
        self.assertCommand(client)

    def test_behindTheFork(self) -> None:
        """A start on a historic timeline behind its end is refused before COPY, with the fork."""
        server = self.server()
        server.source.switch(2, 0x280000, END)
        client = server.streaming(0x280001, 1)
        text = "requested starting point 0/280001 on timeline 1 is not in this server's history"
        detail = "This server's history forked from timeline 1 at 0/280000."
        self.assertEqual(self.refusal(text, D=detail) + READY, client.receive())
        self.assertCommand(client)

    def test_removedSegment(self) -> None:
        """A segment that is gone is refused behind CopyBothResponse, with the earliest position."""
        server = self.server()
        server.source.remove(1)
        client = server.streaming(0x100000)
        expected = error_response(
            S="ERROR",
            V="ERROR",
            C="58P01",
            M="requested WAL segment 000000010000000000000001 has already been removed",
            D="The earliest WAL position that is held here is 0/200000.",
        )
        self.assertEqual(COPY_BOTH + expected + READY, client.receive())
        self.assertCommand(client)
        client.send(query("START_REPLICATION 0/300000"))
        self.assertWal(0x300000, END, client.receive())

    def test_removedInMidStream(self) -> None:
        """A segment that vanishes before it is needed ends COPY at a message boundary."""
        server = self.server()
        server.source.remove(3)
        client = server.streaming(0x1FE000)
        received = client.receive()
        self.assertWal(0x1FE000, 0x300000, received)
        self.assertEqual("58P01", error_fields(received)["C"])
        self.assertEqual(READY, received[-6:])
        self.assertCommand(client)

    def test_unusableSegment(self) -> None:
        """Anything else that is wrong with a file is told as it is."""
        server = self.server()
        server.source.open_error = OSError(5, "Input/output error")
        client = server.streaming(0x100000)
        answer = client.receive()
        self.assertEqual(b"WEZ", kinds(answer))
        self.assertEqual("internal error", error_fields(answer)["M"])
        self.assertEqual(1, len(self.flushLoggedErrors(OSError)))
        self.assertCommand(client)

    def test_slotsAndLogical(self) -> None:
        """What is not served here is refused before COPY."""
        server = self.server()
        for text, sqlstate in (
            ('START_REPLICATION SLOT "x" 0/300000', "42704"),
            ('START_REPLICATION SLOT "x" LOGICAL 0/300000', "0A000"),
        ):
            answer = server.started().ask(text)
            self.assertEqual(b"EZ", kinds(answer))
            self.assertEqual(sqlstate, error_fields(answer)["C"])
