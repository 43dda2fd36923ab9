"""A real process over WAL of 9.0, 9.1 and 9.2 as it finds it, and a client that knows nothing but sockets."""

from __future__ import annotations

import signal
import struct
from typing import TYPE_CHECKING

import pytest

from walsender.testing.raw_client import Message, RawClient
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from walsender.testing.processes import WalsenderProcess

SEGMENT_SIZE = 16 << 20
LOG_FILE = 0xFF000000
HEADER = struct.Struct("<cIIIIq")


def halves(position: int) -> tuple[int, int]:
    """Return log id and offset of a position."""
    return divmod(position, LOG_FILE)


@pytest.fixture(params=[90000, 90100, 90200], ids=["9.0", "9.1", "9.2"])
def maker(request: pytest.FixtureRequest) -> WalMaker:
    """WAL of that version from the last segment of a log file to the first of the next."""
    made = WalMaker(request.param, segment_size=SEGMENT_SIZE, start=LOG_FILE - SEGMENT_SIZE)
    made.record(1000)
    made.switch()
    for _ in range(30):
        made.record(1000)
    return made


def test_stream(server: WalsenderProcess, maker: WalMaker) -> None:
    """All of it in messages of 16 pages, cut at the log file's end; SIGTERM ends it with COPY 0."""
    start = LOG_FILE - SEGMENT_SIZE
    files = b"".join(bytes(maker.image(number)) for number in (254, 255))
    with RawClient(server.host, server.port).ready() as client:
        client.send(b"Q", b"START_REPLICATION 0/FE000000\0")
        begun = b"H" if maker.version == 90000 else b"W"
        assert client.read() == Message(begun, struct.pack("!BH", 0, 0))
        position = start
        while position < maker.position:
            message = client.read()
            assert message is not None
            tag, *positions, _ = HEADER.unpack_from(message.body)
            data = message.body[HEADER.size :]
            assert (message.kind, tag) == (b"d", b"w")
            assert positions == [*halves(position), *halves(maker.position)]
            assert data == files[position - start : position - start + len(data)]
            position += len(data)
            assert len(data) == 16 * 8192 or position in {LOG_FILE, maker.position}
        assert position == maker.position
        server.signal(signal.SIGTERM)
        assert client.until() == [Message(b"C", b"COPY 0\0")]
    assert server.wait() == 0
