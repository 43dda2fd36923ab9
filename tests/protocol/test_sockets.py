"""
Both consumers and both dialects on real sockets: nothing is left behind, and memory does not grow.

Coroutine tests, because the real reactor is needed; they wait for events, never for time.
"""

from __future__ import annotations

import gc
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import pytest_twisted
from protocol_helpers import (
    COPY_0,
    COPY_BOTH,
    COPY_DONE,
    COPY_OUT,
    READY,
    TERMINATE,
    parse,
    query,
    startup_packet,
    status,
    wal_messages,
)
from twisted.internet import reactor  # noqa: TID253 (pytest-twisted has installed it)
from twisted.internet.task import deferLater

from walsender.auth import LocalAuthorizer
from walsender.lsn import Geometry
from walsender.sender import WalSenderFactory
from walsender.sender.sendfile_consumer import SendfileConsumer
from walsender.testing.source import ScriptedSource, wal_bytes
from walsender.wire.dialect import FirstDialect, ModernDialect
from walsender.work_threads import WorkThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from walsender.sender.page_cache import RunInThread

GIB = 1 << 30
SEGMENT = 16 << 20
LEVEL = SEGMENT + 0x300060

both_consumers = pytest.mark.parametrize("sendfile", [False, True], ids=["transport", "sendfile"])
PUMP = 2  # as true as any, and threads send besides
each_way = pytest.mark.parametrize("sendfile", [False, True, PUMP], ids=["transport", "sendfile", "pump"])
both_dialects = pytest.mark.parametrize("modern", [True, False], ids=["modern", "first"])


class AlwaysPumped(WalSenderFactory):
    """Takes each client for one of many who take much."""

    def _pump_for_many(self) -> RunInThread | None:
        return self._pump

    def consumer(self, transport: Any) -> Any:
        """See `WalSenderFactory`."""
        consumer = super().consumer(transport)
        assert isinstance(consumer, SendfileConsumer)
        consumer._worth_a_pump = True
        return consumer


class Listening:
    """A factory on a port of its own."""

    def __init__(self, *, sendfile: bool, modern: bool, position: int = LEVEL, sparse: bool = False) -> None:
        geometry = Geometry.contiguous(SEGMENT)
        self.source = ScriptedSource(position, geometry=geometry, sparse=sparse)
        dialect = ModernDialect(180000) if modern else FirstDialect(90000, "little")
        self.greeting_end = COPY_BOTH if modern else COPY_OUT
        self.pumps = WorkThreads(reactor, "pump", 2)
        self.pumps.start()
        made = (reactor, self.source, dialect, LocalAuthorizer())
        self.factory = WalSenderFactory(*made, sendfile=bool(sendfile))
        if sendfile == PUMP:
            self.factory = AlwaysPumped(*made, sendfile=True, pump=self.pumps.run)
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.sockets: list[socket.socket] = []

    @property
    def connections(self) -> set[Any]:
        """The protocols that are connected."""
        return self.factory._connections

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor go round until *condition* holds."""
        for _ in range(200_000):
            if condition():
                return
            await deferLater(reactor, 0, bool)
        raise AssertionError(f"never: {condition}")

    async def connect(self, start: int, *, receive_buffer: int = 0) -> socket.socket:
        """Return a socket on which a stream from *start* has been asked for, and nothing read behind."""
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", self.port.getHost().port))
        client.setblocking(False)
        self.sockets.append(client)
        client.sendall(startup_packet())
        greeting = await self.read(client, lambda data: data.endswith(READY))
        assert greeting.endswith(READY)
        client.sendall(query(f"START_REPLICATION {start >> 32:X}/{start & 0xFFFFFFFF:X}"))
        return client

    async def read(self, client: socket.socket, enough: Callable[[bytes], object]) -> bytes:
        """Read until *enough* says so or the stream ends."""
        data = bytearray()
        for _ in range(200_000):
            try:
                piece = client.recv(1 << 20)
            except BlockingIOError:
                await deferLater(reactor, 0, bool)
                continue
            if not piece:
                break
            data += piece
            if enough(data):
                break
        return bytes(data)

    def stalled(self) -> bool:
        """Whether every stream waits for its client, and only for it."""
        streams = [connection._stream for connection in self.connections]
        return bool(streams) and all(stream is not None and self.waits(stream) for stream in streams)

    @staticmethod
    def waits(stream: Any) -> bool:
        """Whether one stream does."""
        consumer = stream._consumer
        if isinstance(consumer, SendfileConsumer):
            return consumer._watching and bool(consumer._unsent()) and not consumer._warming
        return consumer._transport_full and not consumer._reading

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything."""
        for client in self.sockets:
            client.close()
        await self.port.stopListening()
        self.factory.abort()
        await self.factory.shut_down()
        self.pumps.stop()
        self.source.close()


def descriptors() -> set[str]:
    """Return what this process has open."""
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 (names are wanted)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Fail a test that leaves a delayed call."""
    before = set(map(id, reactor.getDelayedCalls()))
    yield
    gc.collect()
    left = [call for call in reactor.getDelayedCalls() if id(call) not in before]
    assert not left, f"delayed calls left behind: {left}"


@each_way
@both_dialects
@pytest_twisted.ensureDeferred
async def test_all_wal_arrives(sendfile: bool, modern: bool) -> None:
    """What the client gets is what the source has, whichever way it goes, and then COPY 0."""
    async with Listening(sendfile=sendfile, modern=modern) as server:
        client = await server.connect(SEGMENT - 0x20000)
        (connection,) = server.connections
        await server.until(lambda: connection._stream is not None)
        assert isinstance(connection._stream._consumer, SendfileConsumer) is bool(sendfile)
        size = LEVEL - SEGMENT + 0x20000
        overhead = 14 if not modern else 30
        data = await server.read(
            client, lambda data: len(data) > size + overhead and data.endswith(wal_bytes(LEVEL - 32, LEVEL))
        )
        gone = server.factory.shut_down()
        data += await server.read(client, lambda _: False)
        await gone
        assert data.startswith(server.greeting_end)
        assert data.endswith(COPY_0)
        if modern:
            messages = wal_messages(data)
            assert max(len(wal) for _, _, wal in messages) == (0x20000 if sendfile else 0x1E000)
            received = b"".join(wal for _, _, wal in messages)
        else:
            received = b"".join(body[9:] for kind, body in parse(data) if kind == b"d")
        assert received == wal_bytes(SEGMENT - 0x20000, LEVEL)


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


ENDS: dict[str, Callable[[Any, socket.socket], object]] = {
    "abort": lambda connection, _: connection.abort("test"),
    "reset": lambda _, client: _reset(client),
    "close": lambda _, client: client.close(),
    "half close": lambda _, client: client.shutdown(socket.SHUT_WR),
    "terminate": lambda _, client: client.send(TERMINATE),
    "violation": lambda _, client: client.send(query("IDENTIFY_SYSTEM")),
}


@each_way
@both_dialects
@pytest.mark.parametrize("end", list(ENDS))
@pytest_twisted.ensureDeferred
async def test_nothing_is_left_after(end: str, sendfile: bool, modern: bool) -> None:
    """A connection that ends in mid-frame leaves no descriptor, without the help of the garbage collector."""
    async with Listening(sendfile=sendfile, modern=modern, position=GIB, sparse=True) as server:
        gc.collect()
        before = descriptors()
        client = await server.connect(SEGMENT, receive_buffer=4096)
        await server.until(server.stalled)
        assert server.source.open_count
        gc.disable()
        try:
            ENDS[end](*server.connections, client)
            if end not in {"reset", "close", "abort"}:
                await server.read(client, lambda _: False)  # the end, and nothing behind it
            await server.until(lambda: not server.connections)
            await server.until(lambda: not server.source.open_count)
            client.close()
            server.sockets.clear()
            files = {str(file.fileno()) for file in server.source._files.values()}
            await server.until(lambda: descriptors() - before <= files)
        finally:
            gc.enable()
        assert not len(server.factory.slot_table)
        assert not server.source.subscribers


async def until_resting(server: Listening, *clients: socket.socket) -> None:
    """Have idle *clients* report until none of them is the reactor's."""
    server.factory._idle_sockets._worth_it = lambda: True
    for connection in server.connections:
        await server.until(lambda entry=connection.session.entry: entry.state == "streaming")
    for _ in range(3):
        for client in clients:
            client.send(status(*[server.source.flush_position] * 3))
        heard = [connection.session.entry for connection in server.connections]
        await server.until(lambda heard=heard: all(entry.reply_time for entry in heard))
        for entry in heard:
            entry.reply_time = None
    assert len(server.factory._idle_sockets) == len(clients)


RESTING_ENDS = ENDS | {
    "copy done": lambda _, client: client.send(COPY_DONE),
    "cancel": lambda connection, _: connection.cancel(),
    "shutdown": lambda connection, _: connection.shut_down(),
    "drain": lambda connection, _: connection.shut_down(drain=True),
}


@both_consumers
@pytest.mark.parametrize("end", list(RESTING_ENDS))
@pytest_twisted.ensureDeferred
async def test_endsWhileItRests(end: str, sendfile: bool) -> None:
    """A stream whose reading rests ends as any other, and leaves nothing."""
    async with Listening(sendfile=sendfile, modern=True) as server:
        before = descriptors()
        client = await server.connect(LEVEL)
        await until_resting(server, client)
        RESTING_ENDS[end](*server.connections, client)
        if end in {"copy done", "cancel"}:
            await server.read(client, lambda data: data.endswith(READY))
            assert not len(server.factory._idle_sockets)
            client.send(query("IDENTIFY_SYSTEM") + TERMINATE)
            answer = await server.read(client, lambda _: False)
            assert answer.startswith(b"T")
        elif end not in {"reset", "close", "abort"}:
            await server.read(client, lambda _: False)
        await server.until(lambda: not server.connections)
        client.close()
        server.sockets.clear()
        assert not len(server.factory._idle_sockets)
        await server.until(lambda: descriptors() <= before)
        assert not len(server.factory.slot_table)


@pytest_twisted.ensureDeferred
async def test_restsNotWhileItReplays() -> None:
    """Whose lag is still measured does not rest, though it says the same again."""
    async with Listening(sendfile=True, modern=True) as server:
        server.factory._idle_sockets._worth_it = lambda: True
        client = await server.connect(LEVEL - 1000)
        (connection,) = server.connections
        await server.until(lambda: connection.session.entry.state == "streaming")
        for _ in range(3):
            client.send(status(LEVEL, LEVEL, LEVEL - 1000))
            await server.until(lambda: connection.session.entry.reply_time)
            connection.session.entry.reply_time = None
        assert not len(server.factory._idle_sockets)


@pytest_twisted.ensureDeferred
async def test_wakesForTheNextTimeline() -> None:
    """A stream whose reading rests is the reactor's when its timeline ends."""
    async with Listening(sendfile=True, modern=True) as server:
        client = await server.connect(LEVEL)
        await until_resting(server, client)
        server.source.switch(2, LEVEL)
        assert not len(server.factory._idle_sockets)
        client.send(COPY_DONE)
        data = await server.read(client, lambda data: data.endswith(READY))
        assert COPY_DONE in data


@both_consumers
@pytest_twisted.ensureDeferred
async def test_wakesForWal(sendfile: bool) -> None:
    """Streams whose reading rests get what comes, are the reactor's again at once, and rest again later."""
    async with Listening(sendfile=sendfile, modern=True) as server:
        clients = [await server.connect(LEVEL) for _ in range(3)]
        await server.until(lambda: len(server.connections) == 3)
        await until_resting(server, *clients)
        for client in clients:
            await server.read(client, lambda data: data.endswith(COPY_BOTH))
        server.source.grow(LEVEL + 1000)
        for client in clients:
            data = await server.read(client, lambda data: len(data) > 1000)
            assert data.endswith(wal_bytes(LEVEL, LEVEL + 1000))
        await server.until(lambda: not len(server.factory._idle_sockets))
        clients[0].send(status(*[LEVEL + 1000] * 3))
        entries = [connection.session.entry for connection in server.connections]
        await server.until(lambda: any(entry.replay_lag is not None for entry in entries))
        await until_resting(server, *clients)


def resident() -> int:
    """Return the bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@both_consumers
@both_dialects
@pytest_twisted.ensureDeferred
async def test_memory_of_clients_that_do_not_read(sendfile: bool, modern: bool) -> None:
    """Eight clients with a gigabyte outstanding each cost less than 8 MiB each."""
    clients = 8
    async with Listening(sendfile=sendfile, modern=modern, position=GIB + SEGMENT, sparse=True) as server:
        # What the first stream brings into memory for all is no client's.
        await server.connect(SEGMENT)
        await server.until(lambda: len(server.connections) == 1 and server.stalled())
        gc.collect()
        before = resident()
        for _ in range(clients):
            await server.connect(SEGMENT)
        await server.until(lambda: len(server.connections) == clients + 1 and server.stalled())
        grown = resident() - before
        outstanding = [server.source.flush_position - entry.sent_lsn for entry in server.factory.slot_table]
        assert min(outstanding) > GIB - 64 * (1 << 20)
        assert grown < clients * 8 * (1 << 20), f"{grown / clients / (1 << 20):.2f} MiB per client"
        # And none of it was because nothing moved: growth is noticed, and still nothing piles up.
        server.source.grow(server.source.flush_position + 8)
        for _ in range(100):
            await deferLater(reactor, 0, bool)
        assert resident() - before < clients * 8 * (1 << 20)


@both_consumers
@both_dialects
@pytest_twisted.ensureDeferred
async def test_becomesStreaming(*, sendfile: bool, modern: bool) -> None:
    """A standby that reads is soon streaming, whatever it lacked, and then gets what comes."""
    async with Listening(sendfile=sendfile, modern=modern) as server:
        for start in (LEVEL, LEVEL - 1000, LEVEL - (1 << 20)):
            client = await server.connect(start)
            (connection,) = server.connections
            entry = connection.session.entry
            await server.until(lambda entry=entry: entry.state == "streaming")
            server.source.grow(server.source.flush_position + 1000)
            size = server.source.flush_position - start
            await server.read(client, lambda data, size=size: len(data) > size)
            client.close()
            await server.until(lambda: not server.connections)
