"""
How fast a backlog is received, to synced disk: a relay against PostgreSQL 18's pg_receivewal.

    python -m benchmarks.receiving

Both begin with an empty directory and the copy of one slot, which has kept the backlog, and take turns.
The time is from the moment when the slot is in use until the last byte of the backlog is on disk: for the
relay when it says so, for pg_receivewal (which syncs at each segment's end) when it has stopped at the end.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.catch_up import FILL, SETTINGS
from benchmarks.harness import Measure, alternate, command_line, cpu_seconds, machine
from walsender.lsn import LSN
from walsender.testing.postgres import Cluster, PgReceiveWal, PostgresInstallation
from walsender.testing.processes import WalsenderProcess, wait_until, workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from walsender.testing.postgres import PsqlSession

ACTIVE = "SELECT active FROM pg_replication_slots WHERE slot_name = '{}'"
FLUSHED = "SELECT coalesce(max(flush_lsn), '0/0') FROM pg_stat_replication"


def receive_by_relay(
    primary: Cluster, session: PsqlSession, space: Path, slot: str, end: LSN
) -> tuple[float, float]:
    """Return the seconds, and the CPU seconds, that a relay takes."""
    wal = space / slot
    wal.mkdir()
    upstream = ("--primary-conninfo", primary.conninfo(), "--primary-slot-name", slot)
    with WalsenderProcess(wal, *upstream, log_file=space / f"{slot}.log") as relay:
        wait_until(lambda: session.query(ACTIVE.format(slot)) == "t", 30, "the relay", interval_s=0.001)
        started = time.perf_counter()
        wait_until(lambda: session.lsn(FLUSHED) >= end, 600, "the end", logs=[relay], interval_s=0.005)
        result = time.perf_counter() - started, cpu_seconds(relay.pid)
    shutil.rmtree(wal)
    return result


def receive_by_client(
    primary: Cluster, session: PsqlSession, space: Path, slot: str, end: LSN
) -> tuple[float, float]:
    """Return the seconds, and the CPU seconds, that pg_receivewal takes."""
    wal = space / slot
    options = (f"--slot={slot}", f"--endpos={LSN(end - 8)}", "--no-loop")
    before = os.times()
    with PgReceiveWal(primary.installation, wal, primary.conninfo(), *options) as client:
        wait_until(lambda: session.query(ACTIVE.format(slot)) == "t", 30, "pg_receivewal", interval_s=0.001)
        started = time.perf_counter()
        assert client.wait(600) == 0, client.log_tail()
        seconds = time.perf_counter() - started
    after = os.times()
    shutil.rmtree(wal)
    return (
        seconds,
        after.children_user + after.children_system - before.children_user - before.children_system,
    )


@dataclass
class Receiver:
    """One that receives, and how."""

    name: str
    receive: Callable[[Cluster, PsqlSession, Path, str, LSN], tuple[float, float]]


def main() -> None:
    """Parse the command line, make a backlog, run, report."""
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--size", type=float, default=2.0, metavar="GB", help="the backlog (2)")
    options = parser.parse_args()
    rounds, wanted = (1, 0) if options.quick else (options.rounds, options.size * 1e9)
    installation = PostgresInstallation.embedded(18)
    with ExitStack() as stack:
        space = stack.enter_context(workspace())
        settings = {**SETTINGS, "max_replication_slots": "100"}
        primary = stack.enter_context(Cluster.create(installation, space / "primary", settings=settings))
        primary.start()
        primary.sql("SELECT pg_create_physical_replication_slot('backlog', true)")
        begin = primary.flush_lsn()
        primary.sql("CREATE TABLE first (id int)")
        while primary.flush_lsn() - begin < wanted:
            primary.sql(FILL)
        end = primary.flush_lsn()
        primary.sql("SELECT pg_switch_wal()")
        session = stack.enter_context(primary.session())
        slots = (f"run_{number}" for number in itertools.count())

        def turn(receiver: Receiver) -> tuple[float, float]:
            slot = next(slots)
            primary.sql(f"SELECT pg_copy_physical_replication_slot('backlog', '{slot}')")
            os.sync()  # what others have left to write is not this one's
            seconds, used = receiver.receive(primary, session, space, slot, end)
            wait_until(lambda: session.query(ACTIVE.format(slot)) == "f", 30, "the slot")
            primary.sql(f"SELECT pg_drop_replication_slot('{slot}')")
            return (end - begin) / 1e6 / seconds, used / (end - begin) * 1e9

        print(f"PostgreSQL {installation.version}, {machine()}; {(end - begin) / 1e9:.2f} GB of backlog")
        receivers = (
            Receiver("pg_receivewal", receive_by_client),
            Receiver("walsender, relay", receive_by_relay),
        )
        alternate(receivers, rounds, [Measure("MB/s"), Measure("CPU s/GB", 3)], turn)


if __name__ == "__main__":
    main()
