"""
Descriptors of a real process.

When there are too few: who is in streams on, and all is well when there are enough.  When there are many idle
clients: their reading rests, and they get what comes nevertheless.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from resting_helpers import seen_at_rest

from walsender.lsn import LSN
from walsender.testing.processes import WalsenderProcess, wait_until
from walsender.testing.raw_client import RawClient
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from collections.abc import Iterator

SEGMENT: Final = 1 << 20

_LIMITING: Final = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
os.execv(sys.argv[1], sys.argv[1:])
"""
LIMITED: Final = (sys.executable, "-c", _LIMITING)


@pytest.fixture(scope="module")
def maker() -> WalMaker:
    """Six segments."""
    maker = WalMaker()
    maker.fill_to(maker.position + 6 * SEGMENT, 4000)
    return maker


@pytest.fixture
def wal(maker: WalMaker, space: Path) -> Path:
    """A directory with the first two segments."""
    directory = space / "wal"
    directory.mkdir()
    add(maker, directory, 2)
    return directory


def add(maker: WalMaker, directory: Path, count: int) -> None:
    """Put the first segments into the directory."""
    for name in sorted(maker.files())[:count]:
        if not (directory / name).exists():
            (directory / f"{name}.new").write_bytes(maker.files()[name])
            (directory / f"{name}.new").rename(directory / name)


def start_streaming(server: WalsenderProcess, position: int) -> RawClient:
    """Return a client that has asked for WAL."""
    client = RawClient(server.host, server.port).ready()
    client.send(b"Q", f"START_REPLICATION {LSN(position)}".encode() + b"\0")
    return client


def receive(client: RawClient, position: int) -> None:
    """Receive until WAL up to *position* is there."""
    while True:
        message = client.read()
        assert message is not None, "cut off"
        assert message.kind != b"E", message.fields()
        if (
            message.body[:1] == b"w"
            and int.from_bytes(message.body[1:9]) + len(message.body) - 25 >= position
        ):
            return


def silent(server: WalsenderProcess, stack: contextlib.ExitStack, count: int) -> list[socket.socket]:
    """Return connections that say nothing, as many as can be had."""
    return [
        stack.enter_context(socket.create_connection((server.host, server.port), timeout=30))
        for _ in range(count)
    ]


def open_files(server: WalsenderProcess) -> set[int]:
    """Return which descriptors the server has."""
    return {int(path.name) for path in Path(f"/proc/{server.pid}/fd").iterdir()}


def take_all(server: WalsenderProcess) -> None:
    """Let the next descriptor that the server opens be one too many."""
    # Looks at the directory open and close files all the time: between two of them what is free is free.
    held = wait_until(
        lambda: seen_at_rest(server.pid, lambda: open_files(server)), 60, "a moment of rest", logs=[server]
    )
    set_limit(server, min(set(range(1000)) - held))


def set_limit(server: WalsenderProcess, soft: int) -> None:
    """Let the server have so many descriptors from now on."""
    hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """What a test opens."""
    with contextlib.ExitStack() as stack:
        yield stack


def test_floodCannotTakeThem(maker: WalMaker, wal: Path, space: Path, stack: contextlib.ExitStack) -> None:
    """
    Of a process that may open 120 files five hundred silent clients do not get the last ones.

    Not even when all of them are there in one moment, as they are for a process that stood still.
    """
    listen = "tcp:0:interface=127.0.0.1:backlog=600"
    log_file = space / "walsender.log"
    options = ("--max-wal-senders=4", "--log-min-messages=debug1")  # at which Twisted tells of EMFILE
    with WalsenderProcess(wal, *options, log_file=log_file, listen=listen, launcher=LIMITED) as server:
        client = stack.enter_context(start_streaming(server, SEGMENT))
        receive(client, 2 * SEGMENT)
        server.signal(signal.SIGSTOP)
        silent(server, stack, 500)
        server.signal(signal.SIGCONT)
        add(maker, wal, 6)
        receive(client, 6 * SEGMENT)
        newcomer = stack.enter_context(start_streaming(server, 2 * SEGMENT))
        receive(newcomer, 6 * SEGMENT)
        assert len(open_files(server)) < 64
        log = server.log_text()
        assert "more than 20 clients wait to be let in" in log  # 120 - 64 - 20 - 4 * 4
        assert "Too many open files" not in log
        assert "starting on" in log, "what Twisted says is not logged"
        assert "EMFILE" not in log
        assert "Traceback" not in log


def test_withoutAny(maker: WalMaker, wal: Path, space: Path, stack: contextlib.ExitStack) -> None:
    """
    Without any, newcomers are turned away, who needs another file is told 53000, who does not streams on.

    And all is well again as soon as there are some.
    """
    with WalsenderProcess(wal, log_file=space / "walsender.log") as server:
        idle = stack.enter_context(start_streaming(server, 3 * SEGMENT - 8192))
        behind = stack.enter_context(RawClient(server.host, server.port).ready())
        receive(idle, 3 * SEGMENT - 8191)
        take_all(server)
        turned_away = silent(server, stack, 3)
        assert [connection.recv(1) for connection in turned_away] == [b""] * 3
        behind.send(b"Q", f"START_REPLICATION {LSN(SEGMENT)}".encode() + b"\0")
        fields = behind.until(b"Z")[-2].fields()
        assert fields["C"] == "53000"
        assert "Too many open files" in fields["M"]
        assert idle.socket.fileno() >= 0
        add(maker, wal, 4)
        wait_until(lambda: "cannot follow" in server.log_text(), 60, "the complaint", logs=[server])
        set_limit(server, 1000)
        receive(idle, 4 * SEGMENT)
        behind.send(b"Q", f"START_REPLICATION {LSN(SEGMENT)}".encode() + b"\0")
        receive(behind, 4 * SEGMENT)
        newcomer = stack.enter_context(start_streaming(server, SEGMENT))
        receive(newcomer, 4 * SEGMENT)
        assert server.running()
        assert "internal error" not in server.log_text()


def epolls(server: WalsenderProcess) -> int:
    """Return how many epolls the server has open."""
    paths = (f"/proc/{server.pid}/fd/{number}" for number in open_files(server))
    targets = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            targets.append(Path(path).readlink().name)
    return targets.count("anon_inode:[eventpoll]")


def report(client: RawClient, position: int) -> None:
    """Say that everything before *position* is written, flushed and replayed."""
    client.send(b"d", struct.pack("!cQQQqB", b"r", position, position, position, 0, 0))


def test_manyIdle(maker: WalMaker, wal: Path, space: Path, stack: contextlib.ExitStack) -> None:
    """A hundred idle standbys rest, have all WAL that comes, rest again, and see the end in good order."""
    log = space / "walsender.log"
    with WalsenderProcess(wal, "--max-wal-senders=101", log_file=log) as server:
        clients = [stack.enter_context(start_streaming(server, 3 * SEGMENT - 8192)) for _ in range(101)]
        for segments in 2, 3:
            add(maker, wal, segments)
            for client in clients:
                receive(client, (segments + 1) * SEGMENT)
            wait_until(lambda: epolls(server) == 1, 60, "waking", logs=[server])

            def resting(position: int = (segments + 1) * SEGMENT) -> bool:
                for client in clients:
                    report(client, position)
                return epolls(server) == 2

            wait_until(resting, 60, "rest", logs=[server])
        clients.pop().socket.close()
        server.stop()
        for client in clients:
            assert client.until(b"C")[-1].body == b"COPY 0\0"
        assert "Traceback" not in log.read_text()
