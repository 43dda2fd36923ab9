"""Where valid WAL ends in the last segment, as real clients see it: not one byte further is served."""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from walsender.testing.archives import SEGMENT_SIZE, Archive
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Serve

    from walsender.lsn import LSN


def garbage(_segments: list[bytes], length: int) -> bytes:
    """Return bytes that mean nothing."""
    return os.urandom(length)


def zeros(_segments: list[bytes], length: int) -> bytes:
    """Return what a preallocated segment holds."""
    return bytes(length)


def recycled(segments: list[bytes], length: int) -> bytes:
    """Return what a recycled segment holds: older WAL, valid in its own place, at the same offsets."""
    return segments[0][SEGMENT_SIZE - length :]


@pytest.mark.parametrize("tail", [garbage, zeros, recycled], ids=lambda tail: tail.__name__)
@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
def test_servedToTheLastRecord(
    archive: Archive, serve: Serve, space: Path, tail: Callable[[list[bytes], int], bytes], *, torn: bool
) -> None:
    """Behind the last whole record anything may follow in the file, and nothing of it is served."""
    names = archive.segments()
    segments = [(archive.directory / name).read_bytes() for name in names]
    last_start = archive.end - archive.end % SEGMENT_SIZE
    end: LSN = archive.last_record if torn else archive.end
    # A torn record has its header and no more.
    keep = (archive.last_record + 24 if torn else archive.end) - last_start
    content = segments[-1][:keep] + tail(segments, SEGMENT_SIZE - keep)
    shutil.copytree(archive.directory, space / "archive")
    (space / "archive" / names[-1]).write_bytes(content)

    server = serve(replace(archive, directory=space / "archive"))
    with RawClient("127.0.0.1", server.port) as client:
        client.until(b"Z")
        row = next(message for message in client.query("IDENTIFY_SYSTEM") if message.kind == b"D")
        assert row.values()[2] == str(end)
        client.send(b"Q", f"START_REPLICATION {last_start >> 32:X}/{last_start & 0xFFFFFFFF:X}\0".encode())
        received, sent, asked = b"", 0, False
        while sent < end:
            message = client.read()
            assert message is not None, server.log_tail()
            if message.body[:1] == b"w":
                received += message.body[25:]
            elif message.body[:1] == b"k" and asked:
                sent = int.from_bytes(message.body[1:9], "big")
            if not asked and len(received) >= end - last_start:
                # Asked for a sign of life, a walsender says up to where it has sent.
                client.send(b"d", b"r" + struct.pack("!QQQqB", end, end, end, 0, 1))
                asked = True
        assert sent == end
    assert received == segments[-1][: end - last_start]
