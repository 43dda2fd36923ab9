"""
From commit to arrival: through a relay, and through a PostgreSQL 18 cascading standby.

    python -m benchmarks.relay_latency

One primary commits row by row; a client behind each of the two receives.  They take turns, round by
round: the one that does not measure is stopped (SIGSTOP), so that it does not take the processor away from
the other.  All three sync to disk.  The time is from sending the INSERT to the arrival of its commit record.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import select
import signal
import socket
import statistics
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import pq

from walsender.lsn import LSN
from walsender.testing.postgres import Cluster, PostgresInstallation
from walsender.testing.processes import WalsenderProcess, wait_until, workspace
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {"autovacuum": "off", "checkpoint_timeout": "1h", "bgwriter_lru_maxpages": "0"}
UPSTREAMS = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
XLOG_DATA = struct.Struct("!cQQq")


class Receiver:
    """A replication client that only looks how far WAL has come."""

    def __init__(self, port: int, start: LSN) -> None:
        self._client = RawClient("127.0.0.1", port)
        self._client.send(b"Q", f"START_REPLICATION {start} TIMELINE 1\0".encode())
        self.socket = self._client.socket
        self.socket.setblocking(False)
        self._buffer = b""
        self.position = 0

    def receive(self) -> None:
        """Take what has come."""
        with contextlib.suppress(BlockingIOError):
            while piece := self.socket.recv(1 << 20):
                self._buffer += piece
        while len(self._buffer) >= 5:
            length = 1 + struct.unpack_from("!I", self._buffer, 1)[0]
            if len(self._buffer) < length:
                break
            if self._buffer[5:6] == b"w":
                start = XLOG_DATA.unpack_from(self._buffer, 5)[1]
                self.position = max(self.position, start + length - 5 - XLOG_DATA.size)
            self._buffer = self._buffer[length:]

    def wait_for(self, position: int) -> None:
        """Wait until WAL has come up to *position*."""
        while self.position < position:
            select.select([self.socket], [], [], 1)
            self.receive()


@dataclass
class Contender:
    """What stands between the primary and the client."""

    name: str
    processes: list[int]
    receiver: Receiver
    rounds: list[list[float]] = field(default_factory=list)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


class Committer:
    """A session that commits one row at a time."""

    def __init__(self, primary: Cluster) -> None:
        self._connection = pq.PGconn.connect(primary.conninfo(dbname="postgres").encode())
        assert self._connection.status == pq.ConnStatus.OK, self._connection.error_message

    def flush_lsn(self) -> LSN:
        """Return how far the primary has flushed."""
        result = self._connection.exec_(b"SELECT pg_current_wal_flush_lsn()")
        value = result.get_value(0, 0)
        assert value is not None
        return LSN.parse(value.decode())

    def commit(self, receiver: Receiver) -> float:
        """Commit one row and return after how many seconds it has arrived at *receiver*."""
        started = time.perf_counter()
        self._connection.send_query(b"INSERT INTO latency VALUES (1)")
        before = receiver.position
        arrivals: list[tuple[int, float]] = []
        done = False
        end: int | None = None
        while end is None or receiver.position < end:
            readable, _, _ = select.select([receiver.socket, self._connection.socket], [], [], 10)
            now = time.perf_counter()
            if receiver.socket in readable:
                receiver.receive()
                arrivals.append((receiver.position, now))
            if not done and self._connection.socket in readable:
                self._connection.consume_input()
                if not self._connection.is_busy():
                    while self._connection.get_result() is not None:
                        pass
                    done = True
            if end is None and done and receiver.position > before:
                # Not before something has arrived: asking would take the processor from those who work.
                end = self.flush_lsn()
        return next(at for position, at in arrivals if position >= end) - started


def descendants(process: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield process
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from descendants(int(child))


def percentile(values: list[float], percent: int) -> float:
    """Return a percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def report(contenders: list[Contender], version: str) -> None:
    """Print the table; the first is the yardstick."""
    versions = f"Python {platform.python_version()}, Twisted {importlib.metadata.version('twisted')}"
    count = len(contenders[0].rounds[0])
    print(f"\nPostgreSQL {version}, {versions}, {os.cpu_count()} cores")
    print(
        f"{len(contenders[0].rounds)} rounds of {count} commits each; milliseconds, medians over the rounds\n"
    )
    print(f"{'':28}{'p50':>8}{'ratio':>8}{'p99':>8}{'ratio':>8}")
    for each in contenders:
        line = f"{each.name:28}"
        for percent in (50, 99):
            mine = [percentile(values, percent) for values in each.rounds]
            yardstick = [percentile(values, percent) for values in contenders[0].rounds]
            ratio = statistics.median(a / b for a, b in zip(mine, yardstick, strict=True))
            line += f"{statistics.median(mine) * 1000:8.3f}{ratio:8.2f}"
        print(line)


def main() -> None:
    """Parse the command line, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--rounds", type=int, default=9, help="how often each measures (9)")
    parser.add_argument("--commits", type=int, default=500, help="commits per round (500)")
    parser.add_argument("--socket", choices=["on", "off"], default="on", help=argparse.SUPPRESS)
    options = parser.parse_args()
    installation = PostgresInstallation.embedded(18)
    with ExitStack() as stack:
        space = stack.enter_context(workspace())
        primary = stack.enter_context(
            Cluster.create(installation, space / "primary", settings=SETTINGS, fsync=True)
        )
        primary.start()
        (space / "wal").mkdir()
        relay = stack.enter_context(
            WalsenderProcess(
                space / "wal", "--primary-conninfo", primary.conninfo(), log_file=space / "relay.log"
            )
        )
        wait_until(lambda: primary.sql(UPSTREAMS) == "1", 30, "the relay", logs=[relay])
        backup = primary.base_backup(space / "backup")
        standby = Cluster.standby(
            installation, backup, space / "standby", primary_conninfo=primary.conninfo(), fsync=True
        )
        stack.enter_context(standby)
        standby.start()
        primary.sql("CREATE TABLE latency (id int)")
        end = primary.flush_lsn()
        standby.wait_for_replay(end)
        start = LSN(end & -(16 << 20))
        contenders = []
        for name, port, process in (
            ("PostgreSQL, cascading", standby.port, standby.server.pid),
            ("walsender, relay", relay.port, relay.pid),
        ):
            receiver = Receiver(port, start)
            receiver.wait_for(end)
            contenders.append(Contender(name, list(descendants(process)), receiver))
        committer = Committer(primary)
        stack.callback(lambda: [each.signal(signal.SIGCONT) for each in contenders])
        for number in range(options.rounds):
            for each in contenders:
                (other,) = (one for one in contenders if one is not each)
                other.signal(signal.SIGSTOP)
                each.receiver.wait_for(committer.flush_lsn())
                for _ in range(20):
                    committer.commit(each.receiver)
                each.rounds.append([committer.commit(each.receiver) for _ in range(options.commits)])
                other.signal(signal.SIGCONT)
                other.receiver.wait_for(committer.flush_lsn())
            print(
                f"round {number + 1}: "
                + ", ".join(f"{c.name} {percentile(c.rounds[-1], 50) * 1000:.3f} ms" for c in contenders),
                flush=True,
            )
        report(contenders, installation.version)
        for each in contenders:
            each.receiver.socket.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
