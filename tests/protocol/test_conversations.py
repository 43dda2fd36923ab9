"""
Any conversation at all: whatever a client, the source, the network and the server do, in any order.

Invariants:

* what the client gets is whole messages, unless the connection was aborted;
* the WAL in them is contiguous from the start that was asked for, and never beyond what
  the source had;
* when the connection is over nothing of it is left: no place, no subscription, no file,
  no timer; and nothing was logged as a mistake of ours.
"""

from __future__ import annotations

import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_consumer_helpers import Peer
from protocol_helpers import (
    COPY_DONE,
    TERMINATE,
    ProtocolTestCase,
    Server,
    copy_data,
    parse,
    query,
    startup_packet,
    status,
)

from walsender.lsn import LSN
from walsender.sender.states import State
from walsender.testing.source import wal_bytes
from walsender.wire.dialect import FirstDialect, ModernDialect

BEGIN, END = 0x1F0000, 0x210060


class Play:
    """
    One server, one client, and what can happen to them.

    :ivar highest: how far WAL has ever reached.
    :ivar is_spoilt: what arrives may not be what the source had.
    """

    def __init__(self, case: ProtocolTestCase, *, modern: bool) -> None:
        self.modern = modern
        self.source = case.scripted_source(END)
        self.dialect = ModernDialect(180000) if modern else FirstDialect(90000, "little")
        self.highest = END
        self.is_spoilt = False
        self._begin()

    def _begin(self) -> None:
        server = Server(self.source, self.dialect)
        self.factory, self.reactor = server.factory, server.reactor
        client = server.started()
        self.transport, self.protocol = client.transport, client.protocol

    def _send(self, *data: bytes) -> None:
        for piece in data:
            self.transport.deliver(piece)

    def _read(self, count: int | None = None) -> None:
        self.transport.drain(count)

    def _read_to_the_end(self) -> None:
        self.transport.drain_all()

    @property
    def _received(self) -> bytes:
        return bytes(self.transport.received)

    def _close(self) -> None:
        self.transport.lose()
        self.source.close()

    def start(self, offset: int) -> None:
        """The client asks for WAL."""
        self._send(query(f"START_REPLICATION {LSN(BEGIN + offset)}"))

    def start_historic(self, offset: int) -> None:
        """The client asks for WAL of the first timeline."""
        self._send(query(f"START_REPLICATION {LSN(BEGIN + offset)} TIMELINE 1"))

    def identify(self, _: int) -> None:
        """The client asks for something else."""
        self._send(query("IDENTIFY_SYSTEM"))

    def copy_done(self, _: int) -> None:
        """The client ends its half."""
        self._send(COPY_DONE)

    def report(self, offset: int) -> None:
        """The client reports, and wants an answer."""
        self._send(status(BEGIN + offset, BEGIN + offset, reply=bool(offset % 2)))

    def bad_report(self, _: int) -> None:
        """The client reports nonsense."""
        self._send(copy_data(b"r"))

    def half_a_message(self, offset: int) -> None:
        """Bytes arrive one by one."""
        self._send(*(bytes((byte,)) for byte in status(BEGIN + offset)))

    def read(self, offset: int) -> None:
        """The client reads some bytes."""
        self._read(offset)

    def read_all(self, _: int) -> None:
        """The client reads all that waits."""
        self._read()

    def grow(self, offset: int) -> None:
        """WAL grows."""
        self.source.grow(self.source.flush_position + offset % 70_000)
        self.highest = max(self.highest, self.source.flush_position)

    def fork(self, offset: int) -> None:
        """A new timeline begins at, or below, the end."""
        position = self.source.flush_position - offset % 5_000
        self.source.switch(self.source.timeline + 1, position, position + offset % 3_000)
        self.highest = max(self.highest, self.source.flush_position)

    def forget(self, _: int) -> None:
        """The current timeline is not the one that was streamed any more."""
        self.source.timeline += 1
        self.source.grow(self.source.flush_position)

    def retire(self, offset: int) -> None:
        """Another file takes the name of an open one."""
        self.source.retire(1 + offset % 3)

    def remove(self, offset: int) -> None:
        """A segment is gone."""
        self.source.remove(1 + offset % 3)

    def truncate(self, offset: int) -> None:
        """A segment becomes shorter."""
        self.source.truncate(1 + offset % 3, offset)

    def hold_files(self, _: int) -> None:
        """Opening takes long from now on."""
        self.source.holding = True

    def release_files(self, _: int) -> None:
        """What is being opened is open."""
        self.source.release()

    def refuse_files(self, _: int) -> None:
        """What is being opened cannot be opened."""
        self.source.release(FileNotFoundError(2, "No such file or directory"))

    def cool_down(self, _: int) -> None:
        """WAL leaves the page cache."""
        self.factory.cold = True
        self.reactor.pool.holding = True

    def warm_up(self, _: int) -> None:
        """What is being read from disk has been read."""
        self.reactor.pool.run()

    def pass_time(self, offset: int) -> None:
        """Time passes."""
        self.reactor.advance(offset % 40)

    def shut_down(self, _: int) -> None:
        """The server stops."""
        self.factory.shut_down()

    def drain(self, _: int) -> None:
        """The server stops when everything is confirmed."""
        self.factory.shut_down(drain=True)

    def end_of_file(self, _: int) -> None:
        """The client closes its half."""
        if not self.transport.disconnected:
            self.transport.deliver_eof()

    def terminate(self, _: int) -> None:
        """The client says good-bye."""
        self._send(TERMINATE)

    def reset(self, _: int) -> None:
        """The connection is lost."""
        self.transport.lose()


class KernelPlay(Play):
    """The same through the kernel."""

    def truncate(self, offset: int) -> None:
        """A segment becomes shorter; pages that are on their way already are zeroed by that."""
        super().truncate(offset)
        self.is_spoilt = True

    def _begin(self) -> None:
        self._peer = Peer(self.source, self.dialect)
        self.factory, self.reactor = self._peer.factory, self._peer.reactor
        self.transport, self.protocol = self._peer.transport, self._peer.protocol
        self._send(startup_packet())
        self._peer.run()
        self._all = b""

    def _read(self, count: int | None = None) -> None:
        self._peer.turn()
        if count != 0:
            self._peer.read(count or 1 << 20)

    def _read_to_the_end(self) -> None:
        self._all += self._peer.run()

    @property
    def _received(self) -> bytes:
        return self._all + self._peer.received

    def _close(self) -> None:
        self._peer.close()
        self.source.close()


ACTIONS = [name for name in vars(Play) if not name.startswith("_")]
# Most plays should last for a while.
RARE = {"shut_down", "drain", "end_of_file", "terminate", "reset", "truncate", "forget"}
OFTEN = {"start", "read", "read_all", "grow", "warm_up", "release_files", "report"}

actions = st.sampled_from(
    [name for name in ACTIONS for _ in range(1 if name in RARE else 6 if name in OFTEN else 3)]
)
plays = st.lists(st.tuples(actions, st.integers(0, END - BEGIN)), max_size=60)


class ConversationTests(ProtocolTestCase):
    """Random plays."""

    def play(self, play: Play, script: list[tuple[str, int]]) -> None:
        """Play it, end it, and check."""
        for name, offset in script:
            getattr(play, name)(offset)
        self.check_bytes(play, play._received, whole=False)
        # Now everything goes its way, and the client leaves.
        play.source.holding = False
        play.reactor.pool.holding = False
        for _ in range(4):
            play.source.release()
            play.reactor.pool.run()
            play._read_to_the_end()
        names = {name for name, _ in script}
        cut_off = {"reset"}
        if not play.modern or isinstance(play, KernelPlay):
            cut_off |= {"terminate", "end_of_file"}  # may come inside a message
        whole = not play.transport.aborted and names.isdisjoint(cut_off)
        self.check_bytes(play, play._received, whole=whole)
        play._close()
        self.flushLoggedErrors(FileNotFoundError)
        self.assertEqual([], self.flushLoggedErrors())
        self.assertEqual(0, len(play.factory.slot_table))
        self.assertEqual({}, play.source.subscribers)
        self.assertEqual([], play.reactor.getDelayedCalls())
        self.assertEqual([], getattr(play.reactor, "writers", []))
        self.assertEqual(0, play.source.open_count)
        self.assertIs(State.CLOSED, play.protocol.state)

    def check_bytes(self, play: Play, data: bytes, *, whole: bool) -> None:
        """Check what the client has got so far."""
        if not whole:
            data = data[: self.whole_length(data)]
        position: int | None = None
        for kind, body in parse(data):
            if kind in b"WH":
                position = None
            elif kind == b"d" and body[:1] == b"w":
                header = 25 if play.modern else 9
                if play.modern:
                    (start,) = struct.unpack(">Q", body[1:9])
                else:
                    log_id, offset = struct.unpack("<II", body[1:9])
                    start = log_id << 32 | offset
                wal = body[header:]
                if position is not None:
                    self.assertEqual(position, start)
                position = start + len(wal)
                self.assertLessEqual(position, play.highest)
                self.assertTrue(play.is_spoilt or wal == wal_bytes(start, position))
            elif kind == b"d":
                self.assertEqual(b"k", body[:1])
            else:
                self.assertIn(kind, b"TDCZcE")

    @staticmethod
    def whole_length(data: bytes) -> int:
        """Return how many bytes of *data* are whole messages."""
        at = 0
        while len(data) >= at + 5:
            (length,) = struct.unpack(">I", data[at + 1 : at + 5])
            if len(data) < at + 1 + length:
                break
            at += 1 + length
        return at

    @settings(deadline=None, max_examples=300)
    @given(plays)
    def test_modern(self, script: list[tuple[str, int]]) -> None:
        """The modern dialect through a transport."""
        self.play(Play(self, modern=True), script)

    @settings(deadline=None, max_examples=150)
    @given(plays)
    def test_first(self, script: list[tuple[str, int]]) -> None:
        """The first dialect through a transport."""
        self.play(Play(self, modern=False), script)

    @settings(deadline=None, max_examples=200)
    @given(plays)
    def test_modernThroughKernel(self, script: list[tuple[str, int]]) -> None:
        """The modern dialect moved by the kernel."""
        self.play(KernelPlay(self, modern=True), script)

    @settings(deadline=None, max_examples=100)
    @given(plays)
    @example([("cool_down", 0), ("start", 0)])
    def test_firstThroughKernel(self, script: list[tuple[str, int]]) -> None:
        """The first dialect moved by the kernel."""
        self.play(KernelPlay(self, modern=False), script)
