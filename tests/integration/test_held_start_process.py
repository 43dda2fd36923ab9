"""A real process, an archive that grows, and a client that is a little ahead of it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from walsender.lsn import LSN
from walsender.testing.raw_client import Message, RawClient
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from pathlib import Path

    from walsender.testing.processes import WalsenderProcess

BEGUN = Message(b"W", struct.pack("!BH", 0, 0))


@pytest.fixture
def maker() -> WalMaker:
    """WAL of a few pages."""
    made = WalMaker()
    for _ in range(30):
        made.record(1000)
    return made


def test_walArrives(server: WalsenderProcess, maker: WalMaker, space: Path) -> None:
    """The start is held until the archive has grown past it, then WAL comes from exactly there."""
    before = maker.position
    maker.record(1000)
    start = maker.position
    for _ in range(30):
        maker.record(1000)
    with RawClient(server.host, server.port).ready() as client:
        client.send(b"Q", f"START_REPLICATION {LSN(start)} TIMELINE 1\0".encode())
        assert client.read() == BEGUN
        # Asked for a sign of life, the server answers, and has not got further.
        client.send(b"d", b"r" + struct.pack("!QQQqB", before, before, before, 0, 1))
        answer = client.read()
        assert answer is not None
        assert answer.body[:9] == b"k" + struct.pack("!Q", start)
        maker.write(space / "wal")
        received = b""
        while len(received) < maker.position - start:
            message = client.read()
            assert message is not None
            assert message.kind == b"d"
            assert message.body[:9] == b"w" + struct.pack("!Q", start + len(received))
            received += message.body[25:]
    segment = maker.image(1)
    assert received == segment[start % len(segment) : maker.position % len(segment)]


def test_walDoesNotArrive(server: WalsenderProcess, maker: WalMaker) -> None:
    """PostgreSQL's error comes inside COPY after wal_sender_timeout, and the session goes on."""
    start, end = LSN(maker.position + 8), LSN(maker.position)
    with RawClient(server.host, server.port, options="-c wal_sender_timeout=1s").ready() as client:
        client.send(b"Q", f"START_REPLICATION {start}\0".encode())
        assert client.read() == BEGUN
        for _ in range(20):
            client.socket.settimeout(30)
            message = client.read()
            assert message is not None
            if message.kind == b"E":
                break
            client.send(b"d", b"r" + struct.pack("!QQQqB", end, end, end, 0, 0))
        fields = message.fields()
        assert (fields["S"], fields["C"]) == ("ERROR", "XX000")
        assert fields["M"] == (
            f"requested starting point {start} is ahead of the WAL flush position of this server {end}"
        )
        assert client.read() == Message(b"Z", b"I")
        assert [message.kind for message in client.query("IDENTIFY_SYSTEM")] == [b"T", b"D", b"C", b"Z"]
