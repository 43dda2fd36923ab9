"""
What a live standby suffers from its neighbours: one that does not read, and one that reads cold WAL.

    python -m benchmarks.neighbours

The time from commit to arrival, as `relay_latency` measures it, while the standby is alone; beside a client
that has asked for a gigabyte and has not read a byte of it; and beside one that reads that gigabyte, which
has been dropped from the page cache, as fast as it comes, again and again.  Beside it stands when the primary
had the commit on its own disk, which all three share here, and said so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.catch_up import CLIENT, FILL
from benchmarks.harness import Measure, alternate, bytes_read, command_line, machine, percentile
from benchmarks.relayed import (
    Committer,
    Server,
    segment_start,
    servers_behind_a_primary,
    start_streaming,
)
from walsender.testing.processes import workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from walsender.lsn import LSN

    # Called before each commit.
    Neighbour = Callable[[], None]

_SETTLING = (
    0.5  # seconds: a client takes half a core to start, and who gives way takes a moment to know of it
)


@contextmanager
def nobody() -> Iterator[Neighbour]:
    """Leave the standby alone."""
    yield lambda: None


@contextmanager
def stalled_client(port: int, start: LSN) -> Iterator[Neighbour]:
    """Ask for all there is and read nothing: the window is closed and stays so."""
    with start_streaming(port, start):
        yield lambda: None


@contextmanager
def cold_reader(port: int, wal: Path, start: LSN, end: LSN) -> Iterator[Neighbour]:
    """Keep a client reading what is not in the page cache."""
    command = [sys.executable, str(CLIENT), "127.0.0.1", str(port), str(start), str(end - start)]
    running: list[subprocess.Popen[bytes]] = []

    def keep_reading() -> None:
        if running and running[-1].poll() is None:
            return
        for path in wal.glob("0" * 7 + "*"):
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
        running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))

    yield keep_reading
    running[-1].kill()
    for process in running:
        process.wait()


@dataclass
class Situation:
    """One kind of neighbour."""

    name: str
    neighbour: Callable[[], AbstractContextManager[Neighbour]]


def main() -> None:
    """Parse the command line, make a backlog, run, report."""
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--commits", type=int, default=1500, help="commits per round (1500)")
    parser.add_argument(
        "--size", type=float, default=1.0, metavar="GB", help="what the neighbours ask for (1)"
    )
    options = parser.parse_args()
    rounds, commits, size = (1, 20, 0.0) if options.quick else (options.rounds, options.commits, options.size)
    with ExitStack() as stack:
        space = stack.enter_context(workspace())
        primary, servers = servers_behind_a_primary(stack, space, 1)
        start = segment_start(primary.flush_lsn())
        for server in servers:
            server.connect(1, start)  # now: PostgreSQL turns away whoever is ahead of it
        while primary.flush_lsn() - start <= size * 1e9:
            primary.sql(FILL)
        end = primary.flush_lsn()
        for server in servers:
            server.wait_for(end)
        os.sync()  # what is still to be written stays in the page cache
        committer = Committer(primary)

        def turn(server: Server, situation: Situation) -> tuple[float, ...]:
            others = [other for other in servers if other is not server]
            with server.turn(others, primary), situation.neighbour() as before_commit:
                settled = time.monotonic() + _SETTLING
                while time.monotonic() < settled:
                    before_commit()
                    committer.commit(server)
                times, returned = [], []
                read, began = bytes_read(server.process), time.monotonic()
                for _ in range(commits):
                    before_commit()
                    times += committer.commit(server)
                    returned.append(committer.returned_after)
                speed = (bytes_read(server.process) - read) / (time.monotonic() - began) / 1e6
            p50, p99 = (percentile(times, percent) * 1000 for percent in (50, 99))
            return p50, p99, percentile(returned, 99) * 1000, speed

        print(f"PostgreSQL {primary.installation.version}, {machine()}; {commits} commits")
        for server in servers:
            situations = [
                Situation(f"{server.name}: nobody", nobody),
                Situation("beside a stalled client", partial(stalled_client, server.port, start)),
                Situation("beside a cold reader", partial(cold_reader, server.port, server.wal, start, end)),
            ]
            measures = [
                Measure("p50, ms", 2),
                Measure("p99, ms", 2),
                Measure("primary's p99, ms", 2),
                Measure("MB/s from the disk"),
            ]
            alternate(situations, rounds, measures, partial(turn, server))
            print()


if __name__ == "__main__":
    main()
