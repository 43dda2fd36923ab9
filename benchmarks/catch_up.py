"""
How fast one client catches up: walsender with both consumers against PostgreSQL 18's own.

    python -m benchmarks.catch_up

Real WAL, made once by PostgreSQL; both serve the same files (hard links), from the page cache, to
the same client, which discards.  Servers take turns within each round, and a ratio is made within a
round, so that a machine that speeds up or slows down moves both.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from walsender.lsn import LSN
from walsender.testing.postgres import Cluster, PostgresInstallation
from walsender.testing.processes import WalsenderProcess, workspace

SEGMENT = 16 << 20
CLIENT = Path(__file__).with_name("discarding_client.py")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

#: Keep all WAL, recycle none of it (a recycled file would change under its hard link), and checkpoint late.
SETTINGS = {
    "wal_keep_size": "1TB",
    "wal_recycle": "off",
    "max_wal_size": "1TB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}
FILL = (
    "CREATE TABLE IF NOT EXISTS filler (id bigint, payload text); TRUNCATE filler;"
    " INSERT INTO filler SELECT g, repeat(md5(g::text), 1 + g % 12) FROM generate_series(1, 400000) AS g"
)


@dataclass
class Contender:
    """One server, and what was measured of it."""

    name: str
    host: str
    port: int
    pid: int
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, start: LSN, size: int) -> None:
        """Let the client catch up once, and note MB/s and CPU seconds per GB."""
        before = cpu_seconds(self.pid)
        command = [sys.executable, str(CLIENT), self.host, str(self.port), str(start), str(size)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            line = client.stdout.readline()
            used = cpu_seconds(self.pid) - before
        if client.returncode != 0 or not line:
            raise SystemExit(f"{self.name}: the client failed")
        self.rates.append(size / 1e6 / float(line))
        self.cpu.append(used / (size / 1e9))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, of its children that live, and of those that it has reaped."""
    own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    total = sum(map(int, own)) / TICKS_PER_S
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            total += cpu_seconds(int(child))
    return total


def make_wal(installation: PostgresInstallation, directory: Path, size: int) -> None:
    """Fill *directory*/data with a cluster that has *size* bytes of WAL and some more."""
    print(f"making {size / 1e9:.1f} GB of WAL in {directory}", flush=True)
    with Cluster.create(installation, directory / "new", settings=SETTINGS) as primary:
        primary.start()
        begin = primary.flush_lsn()
        while primary.flush_lsn() - begin < size + 4 * SEGMENT:
            primary.sql(FILL)
        primary.sql("DROP TABLE filler; SELECT pg_switch_wal()")
        primary.stop()
        primary.data_directory.rename(directory / "data")
    archive = directory / "archive"
    archive.mkdir()
    for path in sorted((directory / "data" / "pg_wal").glob("0*")):
        os.link(path, archive / path.name)


def warm(archive: Path) -> None:
    """Read everything into the page cache: a machine may have taken back what nobody used for a while."""
    for path in archive.iterdir():
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def servable(archive: Path, size: int) -> tuple[LSN, int]:
    """Return the start of the WAL in *archive* and how much to fetch."""
    segments = sorted(path for path in archive.iterdir() if len(path.name) == 24)
    first = segments[0].name
    start = LSN(int(first[8:16], 16) << 32 | int(first[16:], 16) * SEGMENT)
    # The last segments are left out: nobody shall wait for an end that differs between the servers.
    available = (len(segments) - 3) * SEGMENT
    return start, min(size, available)


def report(contenders: list[Contender], size: int, version: str) -> None:
    """Print the table."""
    versions = f"Python {platform.python_version()}, Twisted {importlib.metadata.version('twisted')}"
    rounds = len(contenders[0].rates)
    print(f"\nPostgreSQL {version}, {versions}, {os.cpu_count()} cores")
    print(f"{size / 1e9:.2f} GB of WAL in page cache, one client that discards, {rounds} rounds\n")
    print(f"{'':24}{'MB/s':>7}  {'lowest to highest':>19}  {'ratio':>6}  {'CPU s/GB':>9}  {'ratio':>6}")
    yardstick = contenders[0]
    for each in contenders:
        rate = statistics.median(a / b for a, b in zip(each.rates, yardstick.rates, strict=True))
        cpu = statistics.median(a / b if b else 0 for a, b in zip(each.cpu, yardstick.cpu, strict=True))
        spread = f"{min(each.rates):.0f} to {max(each.rates):.0f}"
        print(
            f"{each.name:24}{statistics.median(each.rates):7.0f}  {spread:>19}  {rate:6.2f}"
            f"  {statistics.median(each.cpu):9.3f}  {cpu:6.2f}"
        )


def main() -> None:
    """Parse the command line, make WAL if there is none, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--directory", type=Path, help="keep the WAL here, and use what is there already")
    parser.add_argument("--size", type=float, default=2.0, metavar="GB", help="WAL to send per run (2)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each server runs (5)")
    parser.add_argument("--quick", action="store_true", help="0.25 GB and 3 rounds: does it work?")
    options = parser.parse_args()
    size = int((0.25 if options.quick else options.size) * 1e9)
    rounds = 3 if options.quick else options.rounds
    installation = PostgresInstallation.embedded(18)
    with ExitStack() as stack:
        logs = stack.enter_context(workspace())
        if options.directory:
            options.directory.mkdir(parents=True, exist_ok=True)
            installation.account.own(options.directory)
        directory = stack.enter_context(nullcontext(options.directory) if options.directory else workspace())
        if not (directory / "archive").exists():
            make_wal(installation, directory.absolute(), size)
        start, size = servable(directory / "archive", size)
        # Not closed but abandoned: the data directory stays for the next run.
        postgres = Cluster(installation, directory / "data", name="postgres", settings=SETTINGS)
        stack.callback(postgres.abandon)
        postgres.start()
        contenders = [Contender("PostgreSQL", "127.0.0.1", postgres.port, postgres.server.pid)]
        for name, sendfile in (("walsender, transport", "off"), ("walsender, sendfile", "on")):
            process = WalsenderProcess(
                directory / "archive", "--sendfile", sendfile, log_file=logs / f"{sendfile}.log"
            )
            stack.enter_context(process)
            contenders.append(Contender(name, process.host, process.port, process.pid))
        for number in range(rounds):
            for each in contenders:
                warm(directory / "archive")
                each.run(start, size)
            print(
                f"round {number + 1}: " + ", ".join(f"{c.name} {c.rates[-1]:.0f}" for c in contenders),
                flush=True,
            )
        report(contenders, size, installation.version)


if __name__ == "__main__":
    main()
