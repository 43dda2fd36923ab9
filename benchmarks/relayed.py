"""
What benchmarks of latency share: a primary that commits row by row, and clients behind a relay and behind a
PostgreSQL cascading standby of it.  All three sync to disk.

Each of the two is stopped (SIGSTOP) while it is not its turn, so that it does not take the processor
away from the other.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import pq

from benchmarks.catch_up import SETTINGS as KEEP_ALL
from benchmarks.harness import SEGMENT, descendants
from benchmarks.standbys import Standby
from walsender.lsn import LSN
from walsender.testing.postgres import Cluster, PostgresInstallation
from walsender.testing.processes import WalsenderProcess, wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack
    from pathlib import Path

_PATIENCE = 2  # seconds
SYNCHRONOUS = "SELECT application_name FROM pg_stat_replication WHERE sync_state = 'sync'"
UPSTREAMS = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"


def start_streaming(port: int, start: LSN) -> RawClient:
    """Return a client that has asked for WAL and read nothing at all."""
    client = RawClient("127.0.0.1", port)
    client.send(b"Q", f"START_REPLICATION {start} TIMELINE 1\0".encode())
    return client


class Committer:
    """
    A session that commits one row at a time.

    :ivar returned_after: how many seconds the primary took to confirm the last commit.
    """

    returned_after = 0.0

    def __init__(self, primary: Cluster) -> None:
        self._connection = pq.PGconn.connect(primary.conninfo(dbname="postgres").encode())
        assert self._connection.status == pq.ConnStatus.OK, self._connection.error_message

    def _flush_lsn(self) -> int:
        value = self._connection.exec_(b"SELECT pg_current_wal_flush_lsn()").get_value(0, 0)
        return LSN.parse((value or b"").decode())

    def commit(self, server: Server) -> list[float]:
        """Commit one row; return after how many seconds it had arrived at each of the server's standbys."""
        standbys = server.standbys
        before = {standby: standby.position for standby in standbys.values()}
        arrivals: list[tuple[Standby, int, float]] = []
        end: int | None = None
        done = False
        server.poll.register(self._connection.socket, select.EPOLLIN)
        started = time.perf_counter()
        self._connection.send_query(b"INSERT INTO latency VALUES (1)")
        while end is None or any(standby.position < end for standby in before):
            events = server.poll.poll(_PATIENCE)
            if not events:
                # Seen of PostgreSQL's cascading standby, rarely: the commit is sent with what comes next.
                assert done, "the primary does not answer"
                assert time.perf_counter() - started < 10, f"{server.name} lets its standbys wait"
                self._connection.exec_(b"SELECT pg_log_standby_snapshot()")
            for descriptor, _ in events:
                standby = standbys.get(descriptor)
                if standby is not None:
                    standby.receive()
                    arrivals.append((standby, standby.position, time.perf_counter()))
                    continue
                self._connection.consume_input()
                while not self._connection.is_busy():
                    if self._connection.get_result() is None:
                        done = True
                        self.returned_after = time.perf_counter() - started
                        break
            if (
                end is None
                and done
                and all(standby.position > position for standby, position in before.items())
            ):
                # Not before all have something: asking would take the processor from those who work.
                end = self._flush_lsn()
        server.poll.unregister(self._connection.socket)
        taken: dict[Standby, float] = {}
        for standby, position, now in arrivals:
            if position >= end:
                taken.setdefault(standby, now - started)
        return list(taken.values())


@dataclass
class Server:
    """What stands between the primary and the standbys."""

    name: str
    port: int
    process: int
    wal: Path
    application_name: str

    def __post_init__(self) -> None:
        self.poll = select.epoll()
        self.standbys: dict[int, Standby] = {}

    def connect(self, count: int, start: LSN) -> None:
        """Let *count* standbys stream from here."""
        for _ in range(count):
            standby = Standby("127.0.0.1", self.port, start)
            self.standbys[standby.socket.fileno()] = standby
            self.poll.register(standby.socket, select.EPOLLIN)

    def wait_for(self, position: int) -> None:
        """Wait until all standbys have WAL up to *position*."""
        while any(each.position < position for each in self.standbys.values()):
            for descriptor, _ in self.poll.poll(10):
                self.standbys[descriptor].receive()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        for process in descendants(self.process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    @contextlib.contextmanager
    def turn(self, others: list[Server], primary: Cluster) -> Iterator[None]:
        """Have the machine for this one alone, level with the primary."""
        for other in others:
            other.signal(signal.SIGSTOP)
        try:
            self.wait_for(primary.flush_lsn())
            yield
        finally:
            for other in others:
                other.signal(signal.SIGCONT)
                other.wait_for(primary.flush_lsn())

    @contextlib.contextmanager
    def synchronous(self, primary: Cluster) -> Iterator[None]:
        """Have commits wait until this one has them on its disk."""
        _reload(primary, f"SET synchronous_standby_names = '{self.application_name}'")
        try:
            wait_until(lambda: primary.sql(SYNCHRONOUS) == self.application_name, 10, "a synchronous standby")
            yield
        finally:
            _reload(primary, "RESET synchronous_standby_names")


def _reload(primary: Cluster, change: str) -> None:
    primary.sql(f"ALTER SYSTEM {change}")
    primary.sql("SELECT pg_reload_conf()")


def servers_behind_a_primary(stack: ExitStack, space: Path, standbys: int) -> tuple[Cluster, list[Server]]:
    """Start a primary, and behind it a cascading standby and a relay that can serve so many standbys."""
    installation = PostgresInstallation.embedded(18)
    settings = {**KEEP_ALL, "bgwriter_lru_maxpages": "0", "max_wal_senders": str(standbys + 20)}
    settings["wal_sender_timeout"] = "0"  # the standbys here answer nothing
    primary = stack.enter_context(
        Cluster.create(installation, space / "primary", settings=settings, fsync=True)
    )
    primary.start()
    (space / "wal").mkdir()
    limits = ("--max-wal-senders", str(standbys + 20), "--wal-sender-timeout", "0")
    options = ("--primary-conninfo", primary.conninfo(), *limits)
    relay = stack.enter_context(WalsenderProcess(space / "wal", *options, log_file=space / "relay.log"))
    wait_until(lambda: primary.sql(UPSTREAMS) == "1", 30, "the relay", logs=[relay])
    backup = primary.base_backup(space / "backup")
    standby = Cluster.standby(
        installation,
        backup,
        space / "standby",
        primary_conninfo=primary.conninfo(),
        settings=settings,
        fsync=True,
    )
    stack.enter_context(standby)
    standby.start()
    primary.sql("CREATE TABLE latency (id int)")
    standby.wait_for_replay(primary.flush_lsn())
    return primary, [
        Server(
            "PostgreSQL, cascading", standby.port, standby.server.pid, space / "standby" / "pg_wal", "standby"
        ),
        Server("walsender, relay", relay.port, relay.pid, space / "wal", "walsender"),
    ]


def segment_start(lsn: LSN) -> LSN:
    """Return the start of the segment that holds *lsn*."""
    return LSN(lsn & -SEGMENT)
