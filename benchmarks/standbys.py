"""
What a thousand standbys and more cost one walsender.

    python -m benchmarks.standbys --standbys 5000
    python -m benchmarks.standbys --standbys 1000 --commits 2000

The first form connects standbys to an archive that does not grow, and measures what they cost while
nothing happens but a status message from each every ten seconds: CPU, memory, and how long a new
standby takes to be streaming.  The second adds a relay of a primary that commits 100 times a second,
and measures when each commit arrives at each standby, and whether all of it does.

The standbys are sockets of this process, whose own CPU time is not counted.  Each one checks that its WAL
comes without a gap.
"""

from __future__ import annotations

import resource
import select
import socket
import statistics
import struct
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import pq

from benchmarks.harness import command_line, machine, percentile
from walsender.lsn import LSN
from walsender.testing.postgres import Cluster, PostgresInstallation
from walsender.testing.processes import WalsenderProcess, wait_until, workspace
from walsender.testing.raw_client import RawClient, lets_in, startup_packet
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from collections.abc import Mapping

STATUS_INTERVAL = 10.0  # seconds, as wal_receiver_status_interval
COMMITS_PER_S = 100
XLOG_DATA = struct.Struct("!cQQq")
STATUS = struct.Struct("!cIcQQQqB")
EPOCH_2000 = 946684800


def status_update(position: int, *, ask: bool = False) -> bytes:
    """Return a standby's report that it has flushed and replayed everything before *position*."""
    now = int((time.time() - EPOCH_2000) * 1e6)
    return STATUS.pack(b"d", STATUS.size - 1, b"r", position, position, position, now, ask)


class Standby:
    """One connection that streams, reports, and looks only how far WAL has come."""

    __slots__ = ("_buffer", "position", "socket")

    def __init__(self, host: str, port: int, start: int) -> None:
        self._buffer = b""
        self.position = start
        self.socket = socket.create_connection((host, port), timeout=60)
        self.socket.sendall(startup_packet())
        self._read_to(b"Z\x00\x00\x00\x05I")
        query = f"START_REPLICATION PHYSICAL {LSN(start)} TIMELINE 1\0".encode()
        self.socket.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
        self._read_to(b"W\x00\x00\x00\x07\x00\x00\x00")
        self.socket.setblocking(False)

    def _read_to(self, end: bytes) -> None:
        answer = b""
        while end not in answer:
            piece = self.socket.recv(8192)
            if not piece:
                sys.exit(f"the server closed a connection: {answer!r}")
            answer += piece
        self._buffer = answer.rpartition(end)[2]

    def report(self, *, ask: bool = False) -> None:
        """Send a status message."""
        self.socket.send(status_update(self.position, ask=ask))

    def receive(self) -> bytes:
        """Take what has come; return the kinds of the messages, a byte each."""
        piece = self.socket.recv(1 << 20)
        if not piece:
            sys.exit("the server closed a stream")
        data = self._buffer + piece
        kinds, at, size = b"", 0, len(data)
        while size - at >= 6:
            end = at + 1 + int.from_bytes(data[at + 1 : at + 5])
            if end > size:
                break
            kind = data[at + 5 : at + 6]
            if kind == b"w":
                if int.from_bytes(data[at + 6 : at + 14]) != self.position:
                    sys.exit("a standby has received WAL with a gap")
                self.position += end - at - 5 - XLOG_DATA.size
            kinds += kind
            at = end
        self._buffer = data[at:]
        return kinds


class Standbys:
    """Many of them, and their status messages in turns, evenly over the interval."""

    def __init__(self, host: str, port: int, start: int, count: int) -> None:
        self._epoll = select.epoll()
        self.all: dict[int, Standby] = {}
        for _ in range(count):
            standby = Standby(host, port, start)
            self.all[standby.socket.fileno()] = standby
            self._epoll.register(standby.socket, select.EPOLLIN)
        self._turns = list(self.all.values())
        self._begun = time.monotonic()
        self._reported = 0

    def turn(self, seconds: float) -> list[tuple[Standby, bytes]]:
        """Report for those whose turn it is, wait at most *seconds*, return who has received what."""
        due = int((time.monotonic() - self._begun) / STATUS_INTERVAL * len(self._turns))
        while self._reported < due:
            self._turns[self._reported % len(self._turns)].report()
            self._reported += 1
        events = self._epoll.poll(min(seconds, 0.002), len(self._turns) + 1)
        return [(standby, standby.receive()) for standby in (self.all[fd] for fd, _ in events)]

    def idle(self, seconds: float) -> None:
        """Let time pass."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.turn(left)


def thread_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process that live, more exactly than in ticks."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def memory_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() >> 10


def newcomer_ms(host: str, port: int, start: int) -> float:
    """Return how long a new standby takes from connecting to the first keepalive of its stream."""
    begun = time.perf_counter()
    standby = Standby(host, port, start)
    standby.report(ask=True)
    standby.socket.setblocking(True)
    while b"k" not in standby.receive():
        pass
    taken = time.perf_counter() - begun
    standby.socket.close()
    return taken * 1000


def measure_idle(space: Path, count: int, seconds: float, options: list[str]) -> None:
    """Connect *count* standbys to an archive that does not grow, and print what they cost."""
    maker = WalMaker()
    maker.fill_to(3 << 20)
    (space / "archive").mkdir()
    maker.write(space / "archive")
    limit = f"--max-wal-senders={count + 50}"
    with WalsenderProcess(space / "archive", limit, *options, log_file=space / "log") as server:
        with RawClient(server.host, server.port).ready() as client:
            row = next(message for message in client.query("IDENTIFY_SYSTEM") if message.kind == b"D")
        start = LSN.parse(row.values()[2] or "")
        newcomer_ms(server.host, server.port, start)  # imports and caches are not what is measured
        before = memory_kib(server.pid)
        begun = time.perf_counter()
        standbys = Standbys(server.host, server.port, start, count)
        connecting = time.perf_counter() - begun
        standbys.idle(min(2.1 * STATUS_INTERVAL, seconds))  # who says the same again is idle
        memory = memory_kib(server.pid) - before
        used = thread_seconds(server.pid)
        begun = time.monotonic()
        standbys.idle(seconds)
        cpu = (thread_seconds(server.pid) - used) / (time.monotonic() - begun)
        times = []
        for _ in range(50):
            times.append(newcomer_ms(server.host, server.port, start))
            standbys.idle(0.02)
        print_rows(
            f"{count} idle standbys, a status message from each every {STATUS_INTERVAL:g} s",
            {
                "all connected, one after the other, s": connecting,
                "CPU, % of one core": cpu * 100,
                "memory per standby, KiB": memory / count,
                "a new standby streams, ms after connecting (median of 50)": statistics.median(times),
                "at most": max(times),
            },
        )


def print_rows(title: str, rows: Mapping[str, float]) -> None:
    """Print what was measured as Markdown."""
    print(f"\n| {title} | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.1f} |" if value < 100 else f"| {name} | {value:.0f} |")


def measure_commits(
    installation: PostgresInstallation, space: Path, count: int, commits: int, options: list[str]
) -> None:
    """Connect *count* standbys to a relay of a primary that commits, and print when they have it."""
    settings = {"autovacuum": "off", "checkpoint_timeout": "1h", "bgwriter_lru_maxpages": "0"}
    with ExitStack() as stack:
        primary = stack.enter_context(Cluster.create(installation, space / "primary", settings=settings))
        primary.start()
        primary.sql("CREATE TABLE commits (id int)")
        (space / "wal").mkdir()
        limit = f"--max-wal-senders={count + 50}"
        upstream = f"--primary-conninfo={primary.conninfo()}"
        relay = stack.enter_context(
            WalsenderProcess(space / "wal", upstream, limit, *options, log_file=space / "relay.log")
        )
        connected = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        wait_until(lambda: primary.sql(connected) == "1", 30, "the relay", logs=[relay])
        primary.sql("SELECT pg_create_restore_point('something')")  # or it may write nothing for 15 seconds
        wait_until(lambda: lets_in(relay.host, relay.port), 30, "the relay to have WAL", logs=[relay])
        start = primary.flush_lsn()
        standbys = Standbys(relay.host, relay.port, start, count)
        standbys.idle(2)
        used = thread_seconds(relay.pid)
        delays = commit_and_watch(Committer(primary.conninfo(dbname="postgres"), commits), standbys)
        used = thread_seconds(relay.pid) - used
        print_rows(
            f"{count} streaming standbys, {COMMITS_PER_S} commits per second, {commits} in all",
            {f"arrival, p{percent}, ms": percentile(delays, percent) * 1000 for percent in (50, 90, 99)}
            | {
                "the last arrival, ms": max(delays) * 1000,
                "CPU, % of one core": used / commits * COMMITS_PER_S * 100,
                "arrivals, % of all": len(delays) / commits / count * 100,
            },
        )


class Committer:
    """A session that commits on time, and asks after each commit where its WAL ends."""

    def __init__(self, conninfo: str, commits: int) -> None:
        self._session = pq.PGconn.connect(conninfo.encode())
        self._begun = time.monotonic()
        self._commits = commits
        self._queries = [b"INSERT INTO commits VALUES (1)", b"SELECT pg_current_wal_flush_lsn()"]
        self._under_way = False
        self.sent: list[float] = []
        self.ends: list[int] = []

    @property
    def done(self) -> bool:
        """Whether all is committed."""
        return len(self.ends) == self._commits

    def turn(self) -> None:
        """Send the next query if it is time, take the answer if it is there."""
        now = time.monotonic()
        if self._under_way:
            self._session.consume_input()
            if self._session.is_busy():
                return
            while (result := self._session.get_result()) is not None:
                if result.ntuples:
                    self.ends.append(LSN.parse((result.get_value(0, 0) or b"").decode()))
            self._under_way = False
        if len(self.ends) < len(self.sent):
            self._send(self._queries[1])
        elif not self.done and now >= self._begun + len(self.sent) / COMMITS_PER_S:
            self.sent.append(now)
            self._send(self._queries[0])

    def _send(self, query: bytes) -> None:
        self._session.send_query(query)
        self._under_way = True


def commit_and_watch(committer: Committer, standbys: Standbys) -> list[float]:
    """Return for each commit and standby after how many seconds it had arrived."""
    everybody = list(standbys.all.values())
    arrivals: list[tuple[float, Standby, int]] = []  # when, at whom, up to where
    patience = time.monotonic() + 120
    while not committer.done or any(standby.position < committer.ends[-1] for standby in everybody):
        if time.monotonic() > patience:
            sys.exit("not all commits have arrived")
        committer.turn()
        for standby, kinds in standbys.turn(0.001):
            if b"w" in kinds:
                arrivals.append((time.monotonic(), standby, standby.position))
    arrived = dict.fromkeys(everybody, 0)
    delays: list[float] = []
    for at, standby, position in arrivals:
        number = arrived[standby]
        while number < len(committer.ends) and committer.ends[number] <= position:
            delays.append(at - committer.sent[number])
            number += 1
        arrived[standby] = number
    return delays


def main() -> None:
    """Parse the command line, run, report."""
    parser = command_line(__doc__, rounds=1)
    parser.add_argument("--standbys", type=int, default=1000, metavar="N", help="how many (1000)")
    parser.add_argument("--commits", type=int, default=0, metavar="N", help="so many commits instead of rest")
    parser.add_argument("--seconds", type=float, default=20, help="how long to rest (20)")
    parser.add_argument("--sendfile", choices=["on", "off"], default="on", help="as the setting")
    options = parser.parse_args()
    if options.quick:
        options.standbys, options.seconds, options.commits = 50, 1, min(options.commits, 20)
    print(machine())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    installation = PostgresInstallation.embedded(18)
    with workspace() as space:
        more = ["--sendfile", options.sendfile]
        for number in range(options.rounds):
            place = space / str(number)
            place.mkdir()
            installation.account.own(place)
            if options.commits:
                measure_commits(installation, place, options.standbys, options.commits, more)
            else:
                measure_idle(place, options.standbys, options.seconds, more)


if __name__ == "__main__":
    main()
