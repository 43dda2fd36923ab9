"""A real process with ``--protocol-dialect 8.5``, real WAL, and a client that knows nothing but sockets."""

from __future__ import annotations

import signal
import struct
from typing import TYPE_CHECKING

import pytest

from walsender.lsn import LSN
from walsender.testing.archives import SEGMENT_SIZE
from walsender.testing.processes import WalsenderProcess
from walsender.testing.raw_client import Message, RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from walsender.testing.archives import Archive

PAGE_SIZE = 8192
REPORTED_BY_9_0 = {
    "application_name", "client_encoding", "DateStyle", "integer_datetimes", "IntervalStyle",
    "is_superuser", "server_encoding", "server_version", "session_authorization",
    "standard_conforming_strings", "TimeZone",
}  # fmt: skip


@pytest.fixture(params=["on", "off"], ids=["sendfile", "transport"])
def server(request: pytest.FixtureRequest, archive: Archive, space: Path) -> Iterator[WalsenderProcess]:
    """Serve an archive in the first dialect, to one client at a time."""
    options = ("--protocol-dialect", "8.5", "--sendfile", request.param, "--max-wal-senders", "1")
    with WalsenderProcess(archive.directory, *options, log_file=space / "walsender.log") as process:
        yield process
        assert "Traceback" not in process.log_text(), process.log_text()


def connect(server: WalsenderProcess) -> RawClient:
    """Return a connection of which nothing has been read."""
    return RawClient(server.host, server.port)


def first_segment(archive: Archive) -> int:
    """Return the position of the archive's first byte."""
    name = archive.segments()[0]
    return int(name[8:16], 16) << 32 | int(name[16:], 16) * SEGMENT_SIZE


def test_greeting(server: WalsenderProcess) -> None:
    """AuthenticationOk, the parameters of 9.0, ReadyForQuery; no BackendKeyData."""
    with connect(server) as client:
        first, *parameters, last = client.until(b"Z")
    assert first == Message(b"R", struct.pack("!I", 0))
    assert {message.kind for message in parameters} == {b"S"}
    assert {message.body.split(b"\0")[0].decode() for message in parameters} == REPORTED_BY_9_0
    assert last == Message(b"Z", b"I")


def test_identifySystem(server: WalsenderProcess, archive: Archive) -> None:
    """Two columns, each described as the first walsender described them by hand."""
    with connect(server).ready() as client:
        row_description, data_row, complete, ready = client.query("IDENTIFY_SYSTEM")
    systemid = b"systemid\0" + struct.pack("!IhIhih", 0, 0, 25, -1, 0, 0)
    timeline = b"timeline\0" + struct.pack("!IhIhih", 0, 0, 23, 4, 0, 0)
    assert row_description == Message(b"T", struct.pack("!h", 2) + systemid + timeline)
    with (archive.directory / archive.segments()[0]).open("rb") as segment:
        identifier = struct.unpack_from("<Q", segment.read(40), 24)[0]
    assert data_row.values() == [str(identifier), "1"]
    assert complete == Message(b"C", b"SELECT\0")
    assert ready == Message(b"Z", b"I")


def test_stream(server: WalsenderProcess, archive: Archive) -> None:
    """The archive from its first byte, in messages of half a segment; SIGTERM ends it with COPY 0."""
    start = first_segment(archive)
    files = b"".join((archive.directory / name).read_bytes() for name in archive.segments())
    with connect(server).ready() as client:
        client.send(b"Q", f"START_REPLICATION {LSN(start)}\0".encode())
        assert client.read() == Message(b"H", struct.pack("!BH", 0, 0))
        position = start
        while position < archive.end:
            message = client.read()
            assert message is not None
            assert message.kind == b"d"
            # 'w', then log id and offset in the byte order of the WAL's pages.
            assert message.body[:9] == b"w" + struct.pack("<II", position >> 32, position & 0xFFFFFFFF)
            data = message.body[9:]
            assert data == files[position - start : position - start + len(data)]
            position += len(data)
            assert len(data) <= SEGMENT_SIZE // 2
            assert position % PAGE_SIZE == 0 or position == archive.end
        assert position == archive.end
        server.signal(signal.SIGTERM)
        assert client.until() == [Message(b"C", b"COPY 0\0")]
    assert server.wait() == 0


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        (b"Q", b"SELECT 1\0", "invalid standby query string: SELECT 1"),
        (b"Q", b"IDENTIFY_SYSTEM", "invalid string in message"),
        (b"Q", b"IDENTIFY_SYSTEM\0x", "invalid message format"),
        (b"S", b"", "invalid standby handshake message type 83"),
    ],
)
def test_fatalErrors(server: WalsenderProcess, kind: bytes, body: bytes, text: str) -> None:
    """No error is recoverable before the stream: FATAL 08P01, and the end."""
    with connect(server).ready() as client:
        client.send(kind, body)
        (error,) = client.until()
    fields = error.fields()
    assert (error.kind, fields["S"], fields["C"], fields["M"]) == (b"E", "FATAL", "08P01", text)


def test_secondStandby(server: WalsenderProcess) -> None:
    """A place is taken after the greeting, in place of ReadyForQuery."""
    with connect(server).ready(), connect(server) as second:
        *greeting, error = second.until()
    assert {message.kind for message in greeting} == {b"R", b"S"}
    fields = error.fields()
    assert (fields["S"], fields["C"]) == ("FATAL", "53300")
    assert fields["M"] == "sorry, too many standbys already"


def test_removedSegment(server: WalsenderProcess, archive: Archive) -> None:
    """WAL that is not there is FATAL 58P01, named as the first walsender named it."""
    number = first_segment(archive) // SEGMENT_SIZE - 1
    name = f"00000001{0:08X}{number:08X}"
    with connect(server).ready() as client:
        client.send(b"Q", f"START_REPLICATION {LSN(number * SEGMENT_SIZE)}\0".encode())
        response, error = client.until()
    assert response.kind == b"H"
    fields = error.fields()
    assert (fields["S"], fields["C"]) == ("FATAL", "58P01")
    assert fields["M"] == (
        f'could not open file "pg_xlog/{name}" (log file 0, segment {number}): No such file or directory'
    )


def test_inputWhileStreaming(server: WalsenderProcess, archive: Archive) -> None:
    """X ends the connection by its type byte; any other byte is told what it is."""
    for byte, answer in ((b"X", []), (b"d", ["invalid standby closing message type 100"])):
        with connect(server).ready() as client:
            client.send(b"Q", f"START_REPLICATION {LSN(archive.end)}\0".encode())
            assert client.read() == Message(b"H", struct.pack("!BH", 0, 0))
            client.socket.sendall(byte)
            assert [message.fields()["M"] for message in client.until()] == answer
