"""
Both consumers, encrypted or not, and both dialects on real sockets.

Nothing is left behind, and memory does not grow.

Coroutine tests, because the real reactor is needed; they wait for events, never for time.
"""

from __future__ import annotations

import gc
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from descriptor_helpers import open_descriptors
from protocol_helpers import (
    COPY_0,
    COPY_BOTH,
    COPY_DONE,
    READY,
    TERMINATE,
    parse,
    query,
    status,
    wal_messages,
)
from socket_helpers import BY_KERNEL, GIB, LEVEL, SEGMENT, WAYS, Listening
from twisted.internet import reactor  # noqa: TID253 (pytest-twisted has installed it)
from twisted.internet.task import deferLater

from walsender.errors import AdminShutdown
from walsender.sender.kernel_consumer import KernelConsumer
from walsender.sender.states import State
from walsender.sender.tls_writer import TlsWriter
from walsender.testing.source import wal_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


some_ways = pytest.mark.parametrize("way", [way for way in WAYS if way != "pump"])
bare_ways = pytest.mark.parametrize("way", ["transport", "sendfile"])
each_way = pytest.mark.parametrize("way", WAYS)
both_dialects = pytest.mark.parametrize("modern", [True, False], ids=["modern", "first"])


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
async def test_all_wal_arrives(way: str, modern: bool) -> None:
    """What the client gets is what the source has, whichever way it goes, and then COPY 0."""
    async with Listening(way=way, modern=modern) as server:
        client = await server.connect(SEGMENT - 0x20000)
        (connection,) = server.connections
        await server.until(lambda: connection._stream is not None)
        assert isinstance(connection._stream._consumer, KernelConsumer) is (way in BY_KERNEL)
        if way == "tls":
            assert isinstance(connection._stream._consumer._transport, TlsWriter)
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
            assert max(len(wal) for _, _, wal in messages) == (0x20000 if way in BY_KERNEL else 0x1E000)
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
async def test_nothing_is_left_after(end: str, way: str, modern: bool) -> None:
    """A connection that ends in mid-frame leaves no descriptor, without the help of the garbage collector."""
    async with Listening(way=way, modern=modern, position=GIB, sparse=True) as server:
        gc.collect()
        before = open_descriptors()
        client = await server.connect(SEGMENT, receive_buffer=4096)
        await server.until(server.stalled)
        assert server.source.open_count
        gc.disable()
        try:
            ENDS[end](*server.connections, client)
            if end not in {"reset", "close", "abort"}:
                await server.read(client, lambda _: False)  # the end, and nothing behind it
                client.close()  # the server waits for it, lest its last words be lost on the way
            await server.until(lambda: not server.connections)
            await server.until(lambda: not server.source.open_count)
            client.close()
            server.sockets.clear()
            files = {str(file.fileno()) for file in server.source._files.values()}
            await server.until(lambda: open_descriptors() - before <= files)
        finally:
            gc.enable()
        assert not len(server.factory.slot_table)
        assert not server.source.subscribers


@each_way
@pytest_twisted.ensureDeferred
async def test_lastWordsArrive(way: str) -> None:
    """A client that reads late, and goes on reporting meanwhile, reads all that was said to it."""
    async with Listening(way=way) as server:
        client = await server.connect(LEVEL, receive_buffer=1 << 14)
        (connection,) = server.connections
        await server.until(lambda: connection.session.entry.state == "streaming")
        connection.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        server.source.grow(LEVEL + 0x10000)
        await server.until(lambda: connection.session.entry.sent_lsn == LEVEL + 0x10000)
        connection._stream.refuse(AdminShutdown("the reason"))
        await server.until(lambda: connection.state is State.CLOSED)
        for _ in range(10):
            client.send(status(LEVEL))
            await deferLater(reactor, 0, bool)
        data = await server.read(client, lambda _: False)
        assert b"the reason" in data
        assert wal_bytes(LEVEL + 0xFF00, LEVEL + 0x10000) in data
        client.close()
        await server.until(lambda: not server.connections)


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


@bare_ways
@pytest.mark.parametrize("end", list(RESTING_ENDS))
@pytest_twisted.ensureDeferred
async def test_endsWhileItRests(end: str, way: str) -> None:
    """A stream whose reading rests ends as any other, and leaves nothing."""
    async with Listening(way=way, modern=True) as server:
        before = open_descriptors()
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
        client.close()
        await server.until(lambda: not server.connections)
        server.sockets.clear()
        assert not len(server.factory._idle_sockets)
        await server.until(lambda: open_descriptors() <= before)
        assert not len(server.factory.slot_table)


@pytest_twisted.ensureDeferred
async def test_restsNotWhileItReplays() -> None:
    """Whose lag is still measured does not rest, though it says the same again."""
    async with Listening(way="sendfile") as server:
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
    async with Listening(way="sendfile") as server:
        client = await server.connect(LEVEL)
        await until_resting(server, client)
        server.source.switch(2, LEVEL)
        assert not len(server.factory._idle_sockets)
        client.send(COPY_DONE)
        data = await server.read(client, lambda data: data.endswith(READY))
        assert COPY_DONE in data


@bare_ways
@pytest_twisted.ensureDeferred
async def test_wakesForWal(way: str) -> None:
    """Streams whose reading rests get what comes, are the reactor's again at once, and rest again later."""
    async with Listening(way=way, modern=True) as server:
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


@some_ways
@both_dialects
@pytest_twisted.ensureDeferred
async def test_memory_of_clients_that_do_not_read(way: str, modern: bool) -> None:
    """Eight clients with a gigabyte outstanding each cost less than 8 MiB each."""
    clients = 8
    async with Listening(way=way, modern=modern, position=GIB + SEGMENT, sparse=True) as server:
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


@some_ways
@both_dialects
@pytest_twisted.ensureDeferred
async def test_becomesStreaming(*, way: str, modern: bool) -> None:
    """A standby that reads is soon streaming, whatever it lacked, and then gets what comes."""
    async with Listening(way=way, modern=modern) as server:
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
