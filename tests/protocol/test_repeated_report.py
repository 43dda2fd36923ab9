"""What a stream has taken when the report of an idle standby comes again and is not taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

from protocol_helpers import Client, ProtocolTestCase, Server, copy_data, status

from walsender.lsn import LSN
from walsender.sender.idle_sockets import IdleSocket
from walsender.wire import RawLayout, StandbyStatusUpdate, from_pg_timestamp
from walsender.wire.dialect import Dialect, dialect_of

if TYPE_CHECKING:
    from walsender.sender.repeated_report import RepeatedReport

END = 0x300060
REPORT = status(END, END, END)
MINUTE = 60.0  # wal_sender_timeout


class RepeatedReportTests(ProtocolTestCase):
    """With a recorder in the place of the socket that rests."""

    def resting(self, start: int = END, dialect: Dialect | None = None) -> tuple[Server, Client]:
        """Return a server and a client that has been sent all and has reported nothing."""
        server = Server(self.scripted_source(END), dialect)
        self.idle = mock.create_autospec(IdleSocket, instance=True)
        server.factory.idle_socket = lambda *_: self.idle  # type: ignore[method-assign]
        client = server.streaming(start)
        client.receive()
        return server, client

    def rests(self, client: Client, report: bytes = REPORT) -> None:
        """Say twice what an idle standby says: the first time may be news."""
        client.send(report)
        client.send(report)

    def repetition(self) -> RepeatedReport | None:
        """Return what the socket has last been given to rest with."""
        result: RepeatedReport | None = self.idle.rest.call_args.args[0]
        return result

    def test_heard(self) -> None:
        """The same report at another time says that the client lives, and that time is shown."""
        server, client = self.resting()
        self.rests(client)
        repetition = self.repetition()
        assert repetition is not None
        for _ in range(3):
            server.reactor.advance(MINUTE / 3)
            again = REPORT[:-9] + (10**6).to_bytes(8) + REPORT[-1:]
            self.assertTrue(repetition.heard(again, server.reactor.seconds()))
        self.assertEqual(from_pg_timestamp(10**6), client.entry.reply_time)
        self.assertEqual(b"", client.receive())  # nobody asks whether it is there

    def test_anotherReport(self) -> None:
        """Anything else is not taken, and changes nothing."""
        server, client = self.resting()
        self.rests(client)
        repetition = self.repetition()
        assert repetition is not None
        client.entry.reply_time = None
        for other in (
            status(END, END, END, reply=True),
            status(END, END, END - 1),
            REPORT + b"d",
            REPORT[:-1],
        ):
            self.assertFalse(repetition.heard(other, server.reactor.seconds()))
        self.assertIsNone(client.entry.reply_time)

    def test_moreInput(self) -> None:
        """While a part of the next message is there nothing can be told by bytes."""
        _, client = self.resting()
        self.rests(client)
        client.send(REPORT + REPORT[:20])
        self.assertIsNone(self.repetition())
        client.send(REPORT[20:])
        self.assertIsNotNone(self.repetition())

    def test_heldStart(self) -> None:
        """What is reported before the start is reached counts only when it comes again."""
        _, client = self.resting(END + 1000)
        self.rests(client, status(END + 1000, END + 1000, END + 1000))
        self.assertIsNone(self.repetition())

    def test_olderLayouts(self) -> None:
        """Before 9.3 reports have other bytes."""
        _, client = self.resting(dialect=dialect_of(90200, "little"))
        end = LSN(END)
        self.rests(client, copy_data(RawLayout("little").encode(StandbyStatusUpdate(end, end, end, 0))))
        self.assertIsNone(self.repetition())

    def test_newWal(self) -> None:
        """When there is WAL the same report means something else."""
        server, client = self.resting()
        self.rests(client)
        self.idle.expect_another.reset_mock()
        server.source.grow(END + 100)
        self.idle.expect_another.assert_called()

    def test_drain(self) -> None:
        """Whoever is waited for is heard as ever."""
        server, client = self.resting()
        self.rests(client)
        self.idle.wake.reset_mock()
        server.factory.shut_down(drain=True)
        self.idle.wake.assert_called()
