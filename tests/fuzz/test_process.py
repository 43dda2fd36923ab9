"""
Sieges over real sockets, in the open and inside TLS, against a real process.

What the offenders of a siege say is recorded in memory and then said again to a twistd: its log, its
memory and its descriptors tell whether it minds.  A standby streams all the while.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from byte_script import ByteScript
from gate import HBA, USERS
from seeds import seeds
from siege import Siege

from walsender.lsn import LSN
from walsender.testing.certificates import Authority
from walsender.testing.processes import WalsenderProcess, wait_until, workspace
from walsender.testing.raw_client import RawClient
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS: Final = (1, 2)
SCRIPTS: Final = 40
SSL_REQUEST: Final = struct.pack("!II", 8, 80877103)


def recorded(seed: int) -> list[list[bytes]]:
    """Return what some two hundred clients say, piece by piece, each of them."""
    choose = random.Random(seed)
    known = [script for name, script in seeds().items() if name.startswith("siege/")]
    said: list[list[bytes]] = []
    for _ in range(SCRIPTS):
        script = bytearray(b"\0" + choose.choice(known)[1:] + choose.randbytes(100))
        for _ in range(choose.randrange(8)):
            script[choose.randrange(1, len(script))] = choose.randrange(256)
        ByteScript(bytes(script)).play(siege := Siege(180000))
        said += siege.said
    return said


def say(pieces: list[bytes], connection: socket.socket) -> None:
    """Say all of it, read what comes without waiting, and go."""
    connection.settimeout(0.001)
    for piece in pieces:
        with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
            connection.sendall(piece)
        with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
            connection.recv(65536)


class Standby(threading.Thread):
    """Streams, and takes note of what it has."""

    def __init__(self, server: WalsenderProcess, start: int) -> None:
        super().__init__(daemon=True)
        self.client = RawClient(server.host, server.port, user="standby").ready()
        self.client.send(b"Q", f"START_REPLICATION {LSN(start)}".encode() + b"\0")
        self.end = start
        self.is_cut_off = False

    def run(self) -> None:
        """Receive until the end."""
        with contextlib.suppress(OSError):
            while (message := self.client.read()) is not None:
                if message.body[:1] == b"w":
                    self.end += len(message.body) - 25
        self.is_cut_off = True


@pytest.fixture
def space() -> Iterator[Path]:
    """A directory."""
    with workspace() as path:
        yield path


def sockets(server: WalsenderProcess) -> int:
    """Return how many sockets the server has."""
    count = 0
    for path in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(path.readlink()).startswith("socket:")
    return count


def resident_mb(server: WalsenderProcess) -> float:
    """Return how much memory the server has."""
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@pytest.mark.parametrize("encrypted", [False, True], ids=["in the open", "inside TLS"])
def test_processHoldsOut(space: Path, *, encrypted: bool) -> None:
    """No traceback, no socket left, no growth of memory; the standby gets its WAL."""
    (space / "wal").mkdir()
    maker = WalMaker()
    maker.fill_to(maker.position + 3 * maker.segment_size, 4000)
    names = sorted(maker.files())
    (space / "wal" / names[0]).write_bytes(maker.files()[names[0]])
    (space / "hba").write_text(HBA)
    (space / "users").write_text(USERS)
    Authority(space).issue("localhost", "server")
    options = [
        *("--hba-file", str(space / "hba"), "--auth-file", str(space / "users")),
        *("--ssl", "on", "--ssl-cert-file", str(space / "server.crt")),
        *("--ssl-key-file", str(space / "server.key"), "--authentication-timeout", "1min"),
    ]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with WalsenderProcess(space / "wal", *options, log_file=space / "walsender.log") as server:
        standby = Standby(server, maker.segment_size)
        standby.start()
        wait_until(lambda: standby.end > maker.segment_size, 30, "the first WAL", logs=[server])
        before = sockets(server)
        memory = []
        for seed in SEEDS:
            for pieces in recorded(seed):
                connection = socket.create_connection((server.host, server.port), timeout=30)
                with contextlib.suppress(OSError), connection:
                    if encrypted:
                        connection.sendall(SSL_REQUEST)
                        assert connection.recv(1) == b"S"
                        with context.wrap_socket(connection) as inside:
                            say(pieces, inside)
                    else:
                        say(pieces, connection)
            memory.append(resident_mb(server))
        for name in names[1:]:
            (space / "wal" / f"{name}.new").write_bytes(maker.files()[name])
            (space / "wal" / f"{name}.new").rename(space / "wal" / name)
        wait_until(lambda: standby.end >= maker.records[-1].end, 30, "the WAL", logs=[server])
        wait_until(lambda: sockets(server) <= before, 30, "the end of all connections", logs=[server])
        assert not standby.is_cut_off
        assert memory[-1] - memory[0] < 20, memory
        log = server.log_text()
        assert "Traceback" not in log, log
        assert "internal error" not in log, log
        standby.client.socket.shutdown(socket.SHUT_RDWR)
        standby.join(10)
        standby.client.__exit__(None, None, None)
