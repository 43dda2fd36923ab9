"""Replication slots as clients see them: commands, streams, and what any ERROR takes away."""

from __future__ import annotations

from typing import Any

from protocol_helpers import (
    COPY_DONE,
    READY,
    TERMINATE,
    Client,
    ClockReactor,
    ProtocolTestCase,
    Server,
    copy_data,
    error_fields,
    kinds,
    message,
    parse,
    query,
    status,
)
from twisted.internet.threads import deferToThreadPool

from walsender.lsn import LSN
from walsender.replication_slots import REAL_SLOT_FILES, ReplicationSlots, SlotStorage
from walsender.wire import CancelRequest
from walsender.wire.dialect import ModernDialect

END = 0x300060  # where WAL ends; segments have 1 MiB

CREATED = message(b"C", b"CREATE_REPLICATION_SLOT\0")
NAME_HINT = (
    "Replication slot names may only contain lower case letters, numbers, and the underscore character."
)
DROPPED = message(b"C", b"DROP_REPLICATION_SLOT\0")


def row(answer: bytes) -> list[bytes | None]:
    """Return the columns of the one DataRow in *answer*."""
    (body,) = (body for kind, body in parse(answer) if kind == b"D")
    columns: list[bytes | None] = []
    at = 2
    while at < len(body):
        length = int.from_bytes(body[at : at + 4], "big", signed=True)
        columns.append(None if length < 0 else body[at + 4 : at + 4 + length])
        at += 4 + max(length, 0)
    return columns


class SlotTestCase(ProtocolTestCase):
    def setUp(self) -> None:
        """A server of version 18 with a state directory."""
        self.state = self.directory()
        self.server = self.make()

    def make(self, version: int = 180000, limit: int = 100, **options: Any) -> Server:
        """Return a server over the same state directory."""
        reactor = ClockReactor()

        def run_in_thread(function: Any, *arguments: Any) -> Any:
            return deferToThreadPool(
                reactor,  # type: ignore[arg-type]
                reactor.getThreadPool(),  # type: ignore[arg-type]
                function,
                *arguments,
            )

        storage = SlotStorage(REAL_SLOT_FILES, str(self.state))
        slots = ReplicationSlots(storage, limit, reactor, run_in_thread)
        source = self.scripted_source(END)
        return Server(source, ModernDialect(version), reactor=reactor, slots=slots, **options)

    def restart_lsn(self, name: str = "s") -> int:
        """Return where a slot needs WAL from."""
        slot = self.server.factory.slots.get(name)
        assert slot is not None
        return slot.restart_lsn

    def names(self) -> set[str]:
        """Return the names of all slots."""
        return {slot.name for slot in self.server.factory.slots}

    def streaming(self, slot: str = "s") -> Client:
        """Return a client that streams with *slot* and has received all."""
        client = self.server.started()
        client.send(query(f'START_REPLICATION SLOT "{slot}" 0/300000'))
        self.assertEqual(b"W", client.receive()[:1])
        return client

    def assertRefused(self, sqlstate: str, text: str, answer: bytes, hint: str | None = None) -> None:
        """Check an ERROR after which the session goes on."""
        self.assertEqual(b"EZ", kinds(answer))
        fields = error_fields(answer)
        self.assertEqual(
            ("ERROR", sqlstate, text, hint), (fields["S"], fields["C"], fields["M"], fields.get("H"))
        )


class CommandTests(SlotTestCase):
    def test_create(self) -> None:
        """The result has four text columns, and no position even with RESERVE_WAL."""
        for version, text, position in (
            (90400, 'CREATE_REPLICATION_SLOT "a" PHYSICAL', b"0/0"),
            (100000, 'CREATE_REPLICATION_SLOT "b" PHYSICAL RESERVE_WAL', b"0/0"),
            (180000, 'CREATE_REPLICATION_SLOT "c" PHYSICAL ( RESERVE_WAL)', b"0/0"),
            (190000, 'CREATE_REPLICATION_SLOT "d" TEMPORARY PHYSICAL ( RESERVE_WAL)', b"0/00000000"),
        ):
            answer = self.make(version).started().ask(text)
            self.assertEqual(b"TDCZ", kinds(answer))
            self.assertEqual([text.split('"')[1].encode(), position, None, None], row(answer))
            tag = CREATED if version >= 130000 else message(b"C", b"SELECT\0")
            self.assertTrue(answer.endswith(tag + READY))
            for column in (b"slot_name", b"consistent_point", b"snapshot_name", b"output_plugin"):
                self.assertIn(column + b"\0" + bytes.fromhex("00000000 0000 00000019 ffff"), answer)

    def test_createErrors(self) -> None:
        """Each has PostgreSQL's code, text and hint."""
        self.server = self.make(limit=2)
        client = self.server.started()
        client.ask("CREATE_REPLICATION_SLOT s PHYSICAL")
        for text, sqlstate, complaint, hint in (
            ("s PHYSICAL", "42710", 'replication slot "s" already exists', None),
            ('"s" TEMPORARY PHYSICAL', "42710", 'replication slot "s" already exists', None),
            ('"" PHYSICAL', "42601", None, None),
            (
                '"S-1" PHYSICAL',
                "42602",
                'replication slot name "S-1" contains invalid character',
                NAME_HINT,
            ),
            (
                "l LOGICAL test_decoding",
                "0A000",
                "logical replication slots are not supported by walsender",
                "Logical decoding needs the catalogs: connect to the primary or to a standby.",
            ),
        ):
            answer = client.ask(f"CREATE_REPLICATION_SLOT {text}")
            if complaint is None:
                self.assertEqual(b"EZ", kinds(answer))
                continue
            self.assertRefused(sqlstate, complaint, answer, hint)
        client.ask("CREATE_REPLICATION_SLOT t PHYSICAL")
        full = "all replication slots are in use"
        hint = 'Free one or increase "max_replication_slots".'
        self.assertRefused("53400", full, client.ask("CREATE_REPLICATION_SLOT u PHYSICAL"), hint)

    def test_errorsByVersion(self) -> None:
        """Settings in hints stand in quotes since 17; one name is reserved since 19."""
        for version, hint in (
            (160000, "Free one or increase max_replication_slots."),
            (170000, 'Free one or increase "max_replication_slots".'),
        ):
            answer = self.make(version, limit=0).started().ask("CREATE_REPLICATION_SLOT s PHYSICAL")
            self.assertRefused("53400", "all replication slots are in use", answer, hint)
        text = "CREATE_REPLICATION_SLOT pg_conflict_detection PHYSICAL"
        self.assertEqual(b"TDCZ", kinds(self.make(180000).started().ask(text)))
        self.assertRefused(
            "42939",
            'replication slot name "pg_conflict_detection" is reserved',
            self.make(190000).started().ask(text),
        )

    def test_createIsAnsweredWhenDurable(self) -> None:
        """Nothing is said, and nothing that comes meanwhile is done, before the disk has answered."""
        client = self.server.started()
        pool = self.server.reactor.pool
        pool.holding = True
        self.assertEqual(b"", client.ask("CREATE_REPLICATION_SLOT s PHYSICAL"))
        self.assertEqual(b"", client.ask("IDENTIFY_SYSTEM"))
        pool.run()  # the directory is looked at
        self.assertEqual(b"", client.receive())
        pool.run()  # the file is written
        self.assertEqual(b"TDCZTDCZ", kinds(client.receive()))

    def test_inputMeanwhileIsBounded(self) -> None:
        """A client that floods us while it waits is not read from, and is again afterwards."""
        client = self.server.started()
        self.server.reactor.pool.holding = True
        client.send(query("CREATE_REPLICATION_SLOT s PHYSICAL"))
        client.send(query("IDENTIFY_SYSTEM") * 4000)
        self.assertFalse(client.transport.reading)
        self.server.reactor.pool.holding = False
        self.server.reactor.pool.run()
        self.assertEqual(4001, kinds(client.receive()).count(b"Z"))
        self.assertTrue(client.transport.reading)

    def test_readingGoesOn(self) -> None:
        """Also if nothing that came meanwhile has an answer whose way out would resume it."""
        client = self.server.started()
        self.server.reactor.pool.holding = True
        client.send(query("CREATE_REPLICATION_SLOT s PHYSICAL"))
        client.send(message(b"H", b"") * 20_000)  # Flush
        self.assertFalse(client.transport.reading)
        self.server.reactor.pool.holding = False
        self.server.reactor.pool.run()
        self.assertTrue(client.transport.reading)

    def test_whoAskedIsGone(self) -> None:
        """The slot is made all the same, and nobody owns it."""
        client = self.server.started()
        self.server.reactor.pool.holding = True
        client.send(query("CREATE_REPLICATION_SLOT s PHYSICAL"))
        client.transport.lose()
        self.server.reactor.pool.holding = False
        self.server.reactor.pool.run()
        self.streaming()

    def test_drop(self) -> None:
        """No rows; then the slot does not exist."""
        client = self.server.started()
        client.ask("CREATE_REPLICATION_SLOT s PHYSICAL")
        self.assertEqual(DROPPED + READY, client.ask('DROP_REPLICATION_SLOT "s"'))
        absent = 'replication slot "s" does not exist'
        self.assertRefused("42704", absent, client.ask("DROP_REPLICATION_SLOT s"))
        self.assertRefused("42704", absent, client.ask("DROP_REPLICATION_SLOT s WAIT"))
        self.assertRefused("42704", absent, client.ask('START_REPLICATION SLOT "s" 0/300000'))
        self.assertRefused("42704", absent, client.ask("ALTER_REPLICATION_SLOT s (FAILOVER)"))

    def test_alter(self) -> None:
        """A physical slot has nothing that could be altered."""
        client = self.server.started()
        client.ask("CREATE_REPLICATION_SLOT s PHYSICAL")
        self.assertRefused(
            "0A000",
            "cannot use ALTER_REPLICATION_SLOT with a physical replication slot",
            client.ask("ALTER_REPLICATION_SLOT s (FAILOVER)"),
        )

    def test_read(self) -> None:
        """Without reserved WAL there is no position; with it, the timeline that has it in the history."""
        client = self.server.started()
        client.ask("CREATE_REPLICATION_SLOT s PHYSICAL")
        self.assertEqual([b"physical", None, None], row(client.ask("READ_REPLICATION_SLOT s")))
        client.ask("CREATE_REPLICATION_SLOT r PHYSICAL (RESERVE_WAL)")
        self.assertEqual([b"physical", b"0/300000", b"1"], row(client.ask("READ_REPLICATION_SLOT r")))
        source = self.server.source
        source.histories[2] = b"1\t0/300040\tno reason\n"
        source.switch(2, 0x300040, 0x400010)
        self.assertEqual([b"physical", b"0/300000", b"1"], row(client.ask("READ_REPLICATION_SLOT r")))
        client.ask("CREATE_REPLICATION_SLOT n PHYSICAL (RESERVE_WAL)")
        self.assertEqual([b"physical", b"0/400000", b"2"], row(client.ask("READ_REPLICATION_SLOT n")))

    def test_withoutStateDirectory(self) -> None:
        """A permanent slot gets a clear error, a temporary one works."""
        client = Server(self.scripted_source(END), ModernDialect(180000)).started()
        answer = client.ask("CREATE_REPLICATION_SLOT s PHYSICAL")
        self.assertEqual("55000", error_fields(answer)["C"])
        self.assertIn("state_directory", error_fields(answer)["H"])
        self.assertEqual(b"TDCZ", kinds(client.ask("CREATE_REPLICATION_SLOT s TEMPORARY PHYSICAL")))

    def test_internalError(self) -> None:
        """A mistake of ours costs the command, not the session."""

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        self.patch(SlotStorage, "save", fail)
        client = self.server.started()
        self.assertRefused("XX000", "internal error", client.ask("CREATE_REPLICATION_SLOT s PHYSICAL"))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual(set(), self.names())


class StreamTests(SlotTestCase):
    def setUp(self) -> None:
        """One permanent slot."""
        super().setUp()
        self.server.started().ask("CREATE_REPLICATION_SLOT s PHYSICAL")

    def test_restartLsnFollowsFlush(self) -> None:
        """Every flush that is not 0, forwards and backwards."""
        client = self.streaming()
        self.assertEqual(0, self.restart_lsn())
        for flush, expected in ((0x300000, 0x300000), (END, END), (0x300000, 0x300000), (0, 0x300000)):
            client.send(status(END, flush, 0))
            self.assertEqual(expected, self.restart_lsn())

    def test_heldStartMovesNothing(self) -> None:
        """While its start is ahead of WAL, a standby's reports are not about WAL that is here."""
        client = self.server.started()
        client.send(query(f"START_REPLICATION SLOT s {LSN(END + 8)}"))
        client.send(status(END + 8, END + 8, 0))
        self.assertEqual(0, self.restart_lsn())
        self.server.source.grow(END + 16)
        client.send(status(END + 16, END + 16, 0))
        self.assertEqual(END + 16, self.restart_lsn())

    def test_oneOwner(self) -> None:
        """Others are told who has it, and it is free before the client knows that its stream is over."""
        first = self.streaming()
        active = f'replication slot "s" is active for PID {first.entry.process_id}'
        second = self.server.started()
        for text in ("START_REPLICATION SLOT s 0/300000", "DROP_REPLICATION_SLOT s"):
            self.assertRefused("55006", active, second.ask(text))
        first.send(COPY_DONE)
        self.assertEqual(b"W", second.ask("START_REPLICATION SLOT s 0/300000")[:1])

    def test_releasedAtEachEnd(self) -> None:
        """Terminate, a lost connection, an abort, an error and a shutdown all free the slot."""

        def end(how: str, client: Client) -> None:
            if how == "terminate":
                client.send(TERMINATE)
            elif how == "lost":
                client.transport.lose()
            elif how == "abort":
                client.protocol.abort("test")
            elif how == "error":
                client.send(copy_data(b"r"))
            elif how == "fatal":
                client.send(query("SELECT 1"))
            else:
                client.protocol.shut_down()

        for how in ("terminate", "lost", "abort", "error", "fatal", "shutdown"):
            client = self.streaming()
            client.send(status(END, END, 0))
            end(how, client)
            slot = self.server.factory.slots.get("s")
            assert slot is not None
            self.assertEqual((None, END), (slot.owner, slot.saved_lsn), how)

    def test_saved(self) -> None:
        """A new process finds what was reported when the stream ended."""
        client = self.streaming()
        client.send(status(END, END, 0) + COPY_DONE)
        slots = self.make().factory.slots
        slots.load()
        self.assertEqual([LSN(END)], [slot.restart_lsn for slot in slots])

    def test_startThatFails(self) -> None:
        """A refused start, before COPY or inside, leaves the slot free."""
        client = self.server.started()
        for text in ("SLOT s 0/300000 TIMELINE 7", "SLOT s 0/900000"):
            self.assertIn("E", kinds(client.ask(f"START_REPLICATION {text}")).decode())
            slot = self.server.factory.slots.get("s")
            assert slot is not None
            self.assertIsNone(slot.owner)

    def test_startAtTheEndOfATimeline(self) -> None:
        """Where nothing is left to stream the slot is free at once."""
        self.server.source.switch(2, 0x300040, 0x400010)
        client = self.server.started()
        answer = client.ask("START_REPLICATION SLOT s 0/300040 TIMELINE 1")
        self.assertEqual(b"TDCCZ", kinds(answer))
        self.streaming()

    def test_dropWait(self) -> None:
        """WAIT waits until the stream is over."""
        first = self.streaming()
        second = self.server.started()
        self.assertEqual(b"", second.ask("DROP_REPLICATION_SLOT s WAIT"))
        first.send(COPY_DONE)
        self.assertEqual(DROPPED + READY, second.receive())

    def test_cancelEndsTheWait(self) -> None:
        """A client that waits can be told to give up; the owner of the slot notices nothing."""
        first, second = self.streaming(), self.server.started()
        self.assertEqual(b"", second.ask("DROP_REPLICATION_SLOT s WAIT"))
        key = second.protocol.session.cancel_key  # type: ignore[union-attr]
        self.server.factory.cancel(CancelRequest(second.entry.process_id, key))
        self.assertRefused("57014", "canceling statement due to user request", second.receive())
        first.send(COPY_DONE)
        first.receive()
        self.assertEqual({"s"}, self.names())
        self.assertEqual(b"TDCZ", kinds(second.ask("IDENTIFY_SYSTEM")))

    def test_shutdownEndsTheWait(self) -> None:
        """A client that waits is told of the shutdown, and its slot stays."""
        self.streaming()
        second = self.server.started()
        second.send(query("DROP_REPLICATION_SLOT s WAIT"))
        self.server.factory.shut_down()
        self.assertEqual("57P01", error_fields(second.receive())["C"])
        self.assertEqual({"s"}, self.names())


class InvalidatedTests(SlotTestCase):
    """A slot whose WAL was removed."""

    def lost(self, version: int = 180000) -> Client:
        """Return a client of a server that has a slot without its WAL."""
        self.server = self.make(version)
        client = self.server.started()
        client.ask("CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL")
        self.server.factory.slots.invalidate(["s"])
        return client

    def test_streamEnds(self) -> None:
        """Who streams with it is told in FATAL words, and the connection is closed."""
        self.server.started().ask("CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL)")
        client = self.streaming()
        self.server.factory.slots.invalidate(["s"])
        fields = error_fields(client.receive())
        self.assertEqual(
            ("FATAL", "57P01", "terminating connection due to administrator command"),
            (fields["S"], fields["C"], fields["M"]),
        )
        self.assertTrue(client.transport.disconnecting)
        slot = self.server.factory.slots.get("s")
        assert slot is not None
        self.assertEqual((None, "wal_removed"), (slot.owner, slot.invalidation_reason))

    def test_start(self) -> None:
        """From 18 on no stream begins with it, and the session goes on."""
        client = self.lost()
        answer = client.ask("START_REPLICATION SLOT s 0/300000")
        self.assertRefused("55000", 'can no longer access replication slot "s"', answer)
        detail = 'This replication slot has been invalidated due to "wal_removed".'
        self.assertEqual(detail, error_fields(answer)["D"])
        self.assertEqual(b"W", client.ask("START_REPLICATION 0/300000")[:1])

    def test_startBefore18(self) -> None:
        """Older servers take it without complaint; it protects nothing, and does not begin to."""
        client = self.lost(170000)
        self.assertEqual(b"W", client.ask("START_REPLICATION SLOT s 0/300000")[:1])
        client.send(status(END, END, 0))
        self.assertEqual({}, self.server.factory.slots.needs())

    def test_read(self) -> None:
        """It is there, and has no position."""
        for version in (150000, 180000):
            answer = self.lost(version).ask("READ_REPLICATION_SLOT s")
            self.assertEqual([b"physical", None, None], row(answer))
            self.server.started().ask("DROP_REPLICATION_SLOT s")


class TemporaryTests(SlotTestCase):
    def setUp(self) -> None:
        """A client with a temporary slot."""
        super().setUp()
        self.client = self.server.started()
        self.client.ask("CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL (RESERVE_WAL)")
        self.assertEqual(0x300000, self.restart_lsn("t"))

    def test_stream(self) -> None:
        """It can be streamed with, by its maker only, and stays its maker's afterwards."""
        other = self.server.started()
        active = f'replication slot "t" is active for PID {self.client.entry.process_id}'
        self.client.ask("START_REPLICATION SLOT t 0/300000")
        self.client.send(status(END, END, 0) + COPY_DONE)
        self.assertEqual(END, self.restart_lsn("t"))
        self.assertRefused("55006", active, other.ask("START_REPLICATION SLOT t 0/300000"))
        self.assertFalse((self.state / "replication_slots").exists())

    def test_endsWithAnyError(self) -> None:
        """A syntax error takes it away."""
        self.client.ask("IDENTIFY_SYSTEM")
        self.assertEqual({"t"}, self.names())
        self.client.ask("IDENTIFY_SYSTEM;;")
        self.assertEqual(set(), self.names())

    def test_endsWithAnErrorInsideCopy(self) -> None:
        """So does one that ends a stream, of whatever slot."""
        self.client.ask("START_REPLICATION 0/300000")
        self.client.send(copy_data(b"r"))
        self.assertEqual(b"EZ", kinds(self.client.receive())[-2:])
        self.assertEqual(set(), self.names())

    def test_endsWithTheConnection(self) -> None:
        """And the end of the connection."""
        self.client.send(TERMINATE)
        self.assertEqual(set(), self.names())
