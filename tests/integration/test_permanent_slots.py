"""
Replication slots against real clients, and against kill -9.

The ordinary run kills ten times; ``tox -e soak`` (``WALSENDER_SOAK_SECONDS``) two hundred times.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import threading
from typing import TYPE_CHECKING, Final

import pytest
from twistd_helpers import make_wal, small_place

from walsender.lsn import LSN
from walsender.testing.archives import SEGMENT_SIZE
from walsender.testing.postgres import PgReceiveWal
from walsender.testing.processes import ProgramError, WalsenderProcess, wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from conftest import Serve, Server

    from walsender.testing.archives import Archive

NAMES: Final = ("a", "b", "c")
KILLS: Final = 200 if "WALSENDER_SOAK_SECONDS" in os.environ else 10


def ask(client: RawClient, text: str) -> list[str | None]:
    """Send a command; return the one row of its answer."""
    (found,) = (one for one in client.query(text) if one.kind == b"D")
    return found.values()


def connect(server: Server | WalsenderProcess) -> RawClient:
    """Return a client that may send commands."""
    return RawClient("127.0.0.1", server.port).ready()


def status(lsn: int) -> bytes:
    """Return the report of a standby that has written and flushed up to *lsn*."""
    return b"r" + struct.pack("!QQQqB", lsn, lsn, 0, 0, 0)


def test_pgReceivewal(archive: Archive, serve: Serve, space: Path) -> None:
    """It creates a slot, streams from the slot's position, and drops it; errors are what it expects."""
    server = serve(archive, "--state-directory", str(space / "state"))
    target = space / "target"

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return archive.installation.run(
            "pg_receivewal",
            *(f"--dbname={server.conninfo()}", "--slot=archive", "--no-loop", "--no-password", *options),
            check=False,
        )

    assert run("--create-slot").returncode == 0
    assert 'replication slot "archive" already exists' in run("--create-slot").stderr
    assert run("--create-slot", "--if-not-exists").returncode == 0
    first = archive.segments()[0]
    begin = LSN(int(first[8:16], 16) << 32 | int(first[16:], 16) * SEGMENT_SIZE)
    with connect(server) as client:
        assert ask(client, "READ_REPLICATION_SLOT archive") == ["physical", None, None]
        client.send(b"Q", f"START_REPLICATION SLOT archive {begin}\0".encode())
        client.until(b"W")
        client.send(b"d", status(begin))
        client.send(b"c")
        client.until(b"Z")
        assert ask(client, "READ_REPLICATION_SLOT archive") == ["physical", str(begin), "1"]

    # In an empty directory it begins where the slot does.
    options = ("--slot=archive", "--no-loop", "--synchronous")
    with (
        PgReceiveWal(archive.installation, target, server.conninfo(), *options) as receiver,
        connect(server) as client,
    ):
        at_end = ["physical", str(archive.end), "1"]
        wait_until(
            lambda: ask(client, "READ_REPLICATION_SLOT archive") == at_end, 60, "the slot", logs=[receiver]
        )
        assert "is active for PID" in run("--drop-slot").stderr
        receiver.stop()
    assert (target / first).read_bytes() == (archive.directory / first).read_bytes()
    assert run("--drop-slot").returncode == 0
    assert 'replication slot "archive" does not exist' in run("--drop-slot").stderr


def test_asPgBasebackup(archive: Archive, serve: Serve) -> None:
    """Its second connection: a temporary slot that reserves WAL, a stream with it; nothing is written."""
    server = serve(archive)
    with connect(server) as client, connect(server) as other:
        created = ask(client, 'CREATE_REPLICATION_SLOT "pg_basebackup_1" TEMPORARY PHYSICAL ( RESERVE_WAL)')
        assert created == ["pg_basebackup_1", "0/0", None, None]
        _, timeline, end, _ = ask(client, "IDENTIFY_SYSTEM")
        assert end is not None
        begin = LSN(LSN.parse(end) // SEGMENT_SIZE * SEGMENT_SIZE)
        assert ask(other, "READ_REPLICATION_SLOT pg_basebackup_1") == ["physical", str(begin), timeline]
        start = f'START_REPLICATION SLOT "pg_basebackup_1" {begin} TIMELINE {timeline}\0'.encode()
        client.send(b"Q", start)
        assert client.until(b"W", b"E")[-1].kind == b"W"
        other.send(b"Q", start)
        assert other.until(b"E", b"Z")[-1].fields()["C"] == "55006"
        other.until(b"Z")
        client.send(b"c")
        client.until(b"Z")
        client.query("mistake")
        assert ask(other, "READ_REPLICATION_SLOT pg_basebackup_1") == [None, None, None]
    assert not (archive.directory / "walsender_state").exists()


def test_oneWriter() -> None:
    """With a slot in the default state directory a second process is refused; stopping saves."""
    with small_place() as place:
        make_wal(place / "wal")
        with WalsenderProcess(place / "wal", log_file=place / "first.log") as first:
            assert not (place / "wal" / "walsender_state").exists()
            with (
                WalsenderProcess(place / "wal", log_file=place / "second.log") as second,
                connect(first) as client,
                connect(second) as other,
            ):
                assert ask(client, "CREATE_REPLICATION_SLOT s PHYSICAL")[0] == "s"
                refused, _ = other.query("CREATE_REPLICATION_SLOT t PHYSICAL")
                assert refused.fields()["C"] == "55000"
                assert ask(other, "CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL")[0] == "t"
                second.stop()
                assert f"is in use by process {first.pid}" in second.log_text()
            with pytest.raises(ProgramError, match=f"is in use by process {first.pid}"):
                WalsenderProcess(place / "wal", log_file=place / "third.log")
            with connect(first) as client:
                _, _, end, _ = ask(client, "IDENTIFY_SYSTEM")
                client.send(b"Q", f"START_REPLICATION SLOT s {end}\0".encode())
                client.until(b"W")
                client.send(b"d", status(77))
                client.send(b"c")
                client.until(b"Z")
            first.signal(signal.SIGTERM)
            assert first.wait() == 0
        with (
            WalsenderProcess(place / "wal", log_file=place / "fourth.log") as again,
            connect(again) as client,
        ):
            assert ask(client, "READ_REPLICATION_SLOT s") == ["physical", "0/4D", "1"]


def test_noStateDirectory() -> None:
    """Where it cannot be made, a permanent slot gets a clear error, a temporary one works."""
    with small_place() as place:
        make_wal(place / "wal")
        (place / "wal" / "walsender_state").write_text("in the way")
        with WalsenderProcess(place / "wal", log_file=place / "log") as server, connect(server) as client:
            answer = client.query("CREATE_REPLICATION_SLOT s PHYSICAL")
            assert answer[0].fields()["C"] == "55000"
            assert str(place) not in str(answer[0].fields())
            assert ask(client, "CREATE_REPLICATION_SLOT s TEMPORARY PHYSICAL")[0] == "s"
            assert "could not use state directory" in server.log_text()


class Killed(Exception):
    """The server is gone in the middle of a command."""


class Slots:
    """
    What may be on disk.

    :ivar possible: for each name the positions that its slot may have; ``None``: there may be no slot.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.possible: dict[str, set[int | None]] = {name: {None} for name in NAMES}
        self.changes = 0

    def check(self, client: RawClient) -> None:
        """After a restart each slot is as it was before or after what was done last."""
        for name in NAMES:
            kind, text, _ = ask(client, f"READ_REPLICATION_SLOT {name}")
            found = None if kind is None else LSN.parse(text or "0/0")
            assert found in self.possible[name], (name, found, self.possible[name])
            self.possible[name] = {found}

    def work(self, client: RawClient, start: LSN) -> None:
        """Create, advance and drop slots until the server is gone."""
        while True:
            name = self.chance.choice(NAMES)
            possible = self.possible[name]
            if None in possible:
                possible.add(0)
                self._finish(client, f"CREATE_REPLICATION_SLOT {name} PHYSICAL")
                possible.discard(None)
            elif self.chance.random() < 0.3:
                possible.add(None)
                self._finish(client, f"DROP_REPLICATION_SLOT {name}")
                self.possible[name] = {None}
            else:
                self._advance(client, name, start)
            self.changes += 1

    def _advance(self, client: RawClient, name: str, start: LSN) -> None:
        client.send(b"Q", f"START_REPLICATION SLOT {name} {start}\0".encode())
        for _ in range(self.chance.randrange(1, 4)):
            lsn = self.chance.randrange(1, 1 << 40)
            self.possible[name].add(lsn)
            client.send(b"d", status(lsn))
        client.send(b"c")
        answer = client.until(b"Z")
        if not answer or answer[-1].kind != b"Z":
            raise Killed
        assert all(message.kind != b"E" for message in answer)

    def _finish(self, client: RawClient, text: str) -> None:
        answer = client.query(text)
        if not answer or answer[-1].kind != b"Z":
            raise Killed
        assert answer[0].kind != b"E", answer[0].fields()


def kill_and_restart(place: Path, times: int, seed: int) -> int:
    """Do so many times: start, look, work, kill -9; return how many changes there were in all."""
    make_wal(place / "wal")
    slots = Slots(seed)
    for time in range(times + 1):
        log_file = place / f"walsender-{time}.log"
        with WalsenderProcess(place / "wal", log_file=log_file) as server:
            with connect(server) as client:
                slots.check(client)
                _, _, end, _ = ask(client, "IDENTIFY_SYSTEM")
                assert end is not None
                if time == times:
                    break
                killer = threading.Timer(slots.chance.uniform(0.0, 0.25), server.signal, [signal.SIGKILL])
                killer.start()
                try:
                    slots.work(client, LSN.parse(end))
                except (Killed, OSError):
                    pass
                finally:
                    killer.join()
            assert server.wait() == -signal.SIGKILL
            assert "damaged" not in server.log_text()
    return slots.changes


@pytest.mark.soak
def test_killed() -> None:
    """Whenever the process is killed, each slot has its old or its new state."""
    with small_place() as place:
        assert kill_and_restart(place, KILLS, seed=1)
