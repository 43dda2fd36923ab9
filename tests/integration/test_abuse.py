"""
Three standbys stream while others flood the server: nobody who behaves is dropped, nothing is missing.

Seconds and few clients in the ordinary run; ``tox -e abuse`` has 2,000 that say nothing, 200 that say a
byte a second and 50 that send garbage, for a minute, and prints how long WAL took to reach the standbys.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from walsender.lsn import LSN
from walsender.testing.growth import percentile
from walsender.testing.processes import OURSELVES, WalsenderProcess, launch_command, wait_until
from walsender.testing.raw_client import RawClient
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL: Final = "WALSENDER_ABUSE_SECONDS" in os.environ
SECONDS: Final = float(os.environ.get("WALSENDER_ABUSE_SECONDS", "3"))
SILENT, SLOW, GARBAGE = (2000, 200, 50) if FULL else (300, 20, 5)

TICK_S: Final = 0.005
PIECE: Final = 16 << 10  # bytes of WAL in a tick: 3 MB in a second
_HEADER: Final = struct.Struct("!cQQq")


class GrowingDirectory(threading.Thread):
    """
    Writes WAL that was made before into the directory, piece by piece, as pg_receivewal does.

    :ivar written: time and position behind the last whole record, for each piece.
    """

    def __init__(self, maker: WalMaker, directory: Path, seconds: float) -> None:
        super().__init__(daemon=True)
        self._directory = directory
        self._files = maker.files()
        self._records = [record.end for record in maker.records]
        self._size = maker.segment_size
        self._start = maker.segment_size  # the first segment is there already
        self._seconds = seconds
        self.written: list[tuple[float, int]] = []

    def run(self) -> None:
        """Write for so many seconds."""
        began = due = time.monotonic()
        position = self._start + self._size
        for name in sorted(self._files)[1:]:
            content = self._files[name]
            with (self._directory / name).open("xb", buffering=0) as file:
                file.truncate(self._size)
                file.seek(0)
                for at in range(0, self._size, PIECE):
                    file.write(content[at : at + PIECE])
                    position += PIECE
                    whole = self._records[bisect.bisect_right(self._records, position) - 1]
                    self.written.append((time.monotonic(), whole))
                    due += TICK_S
                    time.sleep(max(0.0, due - time.monotonic()))
                    if due - began > self._seconds:
                        return


class Standby(threading.Thread):
    """
    Receives WAL, confirms it, and remembers when it came.

    :ivar received: time and position behind each message.
    """

    def __init__(self, port: int, start: int) -> None:
        super().__init__(daemon=True)
        self._client = RawClient("127.0.0.1", port).ready()
        self._client.send(b"Q", f"START_REPLICATION {LSN(start)} TIMELINE 1".encode() + b"\0")
        self._end = start
        self._content: dict[int, bytes] = {}
        self.received: list[tuple[float, int]] = []
        self.is_cut_off = False

    def run(self) -> None:
        """Receive until the connection ends."""
        try:
            while (message := self._client.read()) is not None:
                if message.kind == b"d":
                    self._take(message.body)
        except OSError:
            pass
        self.is_cut_off = True

    def _take(self, body: bytes) -> None:
        if body[:1] == b"w":
            start = _HEADER.unpack_from(body)[1]
            assert start == self._end, "there is a gap"
            self._end += len(body) - _HEADER.size
            self.received.append((time.monotonic(), self._end))
        self._client.send(b"d", struct.pack("!cQQQqB", b"r", self._end, self._end, self._end, 0, 0))

    @property
    def end(self) -> int:
        """Up to where it has WAL."""
        return self._end

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._client.socket.shutdown(socket.SHUT_RDWR)
        self.join(10)
        self._client.__exit__(None, None, None)


def delays(written: list[tuple[float, int]], received: list[tuple[float, int]]) -> Iterator[float]:
    """Return how long each piece took, in seconds."""
    at = 0
    for when, position in written:
        while received[at][1] < position:
            at += 1
        yield max(0.0, received[at][0] - when)


@pytest.fixture(scope="module")
def maker() -> WalMaker:
    """As much WAL as will be written, and a segment before it."""
    maker = WalMaker()
    pieces = int(SECONDS / TICK_S) + 2 * maker.segment_size // PIECE
    maker.fill_to(maker.position + maker.segment_size + pieces * PIECE, 4000)
    return maker


@pytest.mark.parametrize(
    ("options", "addresses"),
    [
        pytest.param([], 1, id="one address"),
        pytest.param([], 200, id="many addresses"),
        pytest.param(["--max-wal-senders=3000"], 1, id="all are held"),
    ],
)
def test_standbysStreamOn(maker: WalMaker, space: Path, options: list[str], addresses: int) -> None:
    """None is dropped, each has all WAL, newcomers come in, and afterwards nothing of the flood is left."""
    wal = space / "wal"
    wal.mkdir()
    first = min(maker.files())
    (wal / first).write_bytes(maker.files()[first])
    start = maker.segment_size
    with WalsenderProcess(wal, *options, log_file=space / "walsender.log") as server, ExitStack() as stack:
        standbys = [stack.enter_context(Standby(server.port, start)) for _ in range(3)]
        wait(lambda: all(standby.end == start + maker.segment_size for standby in standbys), server)
        before = sockets(server.pid)
        with flood(server.port, addresses) as flooding:
            growth = GrowingDirectory(maker, wal, SECONDS)
            growth.start()
            newcomers = driven_out = 0
            while growth.is_alive():
                # Where a flood has more addresses than there are places, it may be a newcomer's turn to go.
                try:
                    with RawClient("127.0.0.1", server.port) as client:
                        assert client.ready().query("IDENTIFY_SYSTEM")[-1].kind == b"Z"
                    newcomers += 1
                except ConnectionError:
                    driven_out += 1
                growth.join(0.2)
            memory, held = resident_mb(server.pid), len(sockets(server.pid))
            flooding.stdin.close()
            result = json.loads(flooding.stdout.read())
        end = growth.written[-1][1]
        wait(lambda: all(standby.end >= end for standby in standbys), server)
        took = sorted(delay for standby in standbys for delay in delays(growth.written, standby.received))
        wait(lambda: sockets(server.pid) == before, server)
        assert not any(standby.is_cut_off for standby in standbys)
        report(
            f"{options or 'default limits'}, from {addresses}: p50 {percentile(took, 50) * 1000:.1f} ms, "
            f"p99 {percentile(took, 99) * 1000:.1f} ms, most {took[-1] * 1000:.1f} ms of {len(took)} pieces; "
            f"{newcomers} newcomers, {driven_out} driven out; {memory} MB, {held} sockets; {result}"
        )
        assert "Traceback" not in server.log_text()
    assert result["tried"] > SILENT
    assert newcomers
    assert not driven_out or addresses > 1


def report(line: str) -> None:
    """Print what was measured; nothing asserts it."""
    sys.stderr.write(f"\n{line}\n")


def wait(condition: Any, server: WalsenderProcess) -> None:
    """Wait for *condition*."""
    wait_until(condition, 60, "the end", logs=[server])


def sockets(pid: int) -> list[str]:
    """Return which sockets a process has open."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(path.readlink()))
    return sorted(name for name in found if name.startswith("socket:"))


def resident_mb(pid: int) -> int:
    """Return how much memory a process has, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def flood(port: int, addresses: int) -> Any:
    """Start `flood.py`."""
    program = Path(__file__).with_name("flood.py")
    arguments = [sys.executable, str(program), str(port), str(SILENT), str(SLOW), str(GARBAGE)]
    return subprocess.Popen(
        launch_command([*arguments, f"--addresses={addresses}"], OURSELVES),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
