"""A client that keeps every byte of WAL that it is given, and comes back as often as it is cut off."""

from __future__ import annotations

import contextlib
import struct
import threading
from typing import TYPE_CHECKING, Final

from walsender.lsn import LSN
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from pathlib import Path

_HEADER: Final = struct.Struct("!cQQq")
_RETRY_S: Final = 0.05
SEGMENT_SIZE: Final = 1 << 20


class RecordingClient(threading.Thread):
    """
    Streams timeline 1 from a relay on *port*, from the start of the segment where it was cut off.

    :param start: where to begin, a segment's start.
    """

    def __init__(self, port: int, start: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._end = start
        self._got: list[tuple[int, bytes]] = []
        self._condition = threading.Condition()
        self._connected = False
        self._stopped = False

    def run(self) -> None:
        """Receive until stopped."""
        while not self._stopped:
            with contextlib.suppress(OSError, struct.error):
                self._stream()
            with self._condition:
                self._connected = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._stopped, _RETRY_S)

    def _stream(self) -> None:
        with RawClient("127.0.0.1", self._port) as client:
            client.send(
                b"Q", f"START_REPLICATION {LSN(self._end & -SEGMENT_SIZE)} TIMELINE 1".encode() + b"\0"
            )
            while not self._stopped and (message := client.read()) is not None:
                if message.kind != b"d":
                    continue
                if message.body[:1] == b"w":
                    start = _HEADER.unpack_from(message.body)[1]
                    data = message.body[_HEADER.size :]
                    with self._condition:
                        self._connected = True
                        self._got.append((start, data))
                        self._end = max(self._end, start + len(data))
                        self._condition.notify_all()
                elif message.body[-1:] == b"\1":
                    status = struct.pack("!cQQQqB", b"r", self._end, self._end, 0, 0, 0)
                    client.send(b"d", status)

    def wait_for_data(self, timeout_s: float = 60) -> None:
        """Wait until WAL has come since the last `take`."""
        with self._condition:
            assert self._condition.wait_for(lambda: self._got, timeout_s), "no WAL has come"

    def take(self, timeout_s: float = 60) -> list[tuple[int, bytes]]:
        """Wait until the server is gone, and return what came from it: positions and bytes."""
        with self._condition:
            assert self._condition.wait_for(lambda: not self._connected, timeout_s), "still connected"
            got, self._got = self._got, []
            return got

    def stop(self) -> None:
        """Receive no more."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()


def held(wal: Path, start: int, length: int) -> bytes:
    """Return what the files of timeline 1 in *wal* hold from *start* on; fewer bytes if they end before."""
    content = b""
    while length > 0:
        number, offset = divmod(start, SEGMENT_SIZE)
        name = wal / f"{1:08X}{number // 4096:08X}{number % 4096:08X}"
        path = name if name.exists() else name.with_name(name.name + ".partial")
        if not path.exists():
            break
        with path.open("rb") as file:
            file.seek(offset)
            piece = file.read(min(length, SEGMENT_SIZE - offset))
        if not piece:
            break
        content += piece
        start += len(piece)
        length -= len(piece)
    return content
