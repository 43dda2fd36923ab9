"""
How fast clients catch up: walsender with both consumers against PostgreSQL 18's own.

    python -m benchmarks.catch_up [--clients 20] [--tls] [--copied]

Real WAL, made once by PostgreSQL; both serve the same files (hard links), from the page cache, to
the same clients, which discard what they get, copied or not.  With TLS it is PostgreSQL 15, Debian's: the
wheel's has none.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import SEGMENT, Measure, alternate, command_line, cpu_seconds, machine
from walsender.lsn import LSN
from walsender.testing.certificates import Authority
from walsender.testing.postgres import Cluster, PostgresInstallation
from walsender.testing.processes import WalsenderProcess, workspace

CLIENT = Path(__file__).with_name("discarding_client.py")

#: Keep all WAL, recycle none of it (a recycled file would change under its hard link), and checkpoint late.
SETTINGS = {
    "wal_keep_size": "1TB",
    "wal_recycle": "off",
    "max_wal_size": "1TB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "max_wal_senders": "100",
}
FILL = (
    "CREATE TABLE IF NOT EXISTS filler (id bigint, payload text); TRUNCATE filler;"
    " INSERT INTO filler SELECT g, repeat(md5(g::text), 1 + g % 12) FROM generate_series(1, 400000) AS g"
)
CONSUMERS = ("transport=--sendfile off", "sendfile=--sendfile on")


@dataclass
class Server:
    """One that serves the WAL."""

    name: str
    host: str
    port: int
    pid: int

    def run(
        self, start: LSN, size: int, clients: int, *, tls: bool = False, copied: bool = False
    ) -> tuple[float, ...]:
        """Let clients catch up once; return MB/s, CPU seconds per GB, and when the first of them was done."""
        before = cpu_seconds(self.pid)
        command = [
            sys.executable,
            str(CLIENT),
            self.host,
            *map(str, (self.port, start, size, clients, int(tls), int(copied))),
        ]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            line = client.stdout.readline()
            used = cpu_seconds(self.pid) - before
        if client.returncode != 0 or not line:
            raise SystemExit(f"{self.name}: the client failed")
        first, last = map(float, line.split())
        return size * clients / 1e6 / last, used / (size * clients / 1e9), first / last


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


def main() -> None:
    """Parse the command line, make WAL if there is none, run, report."""
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--clients", type=int, default=1, help="how many catch up at the same time (1)")
    parser.add_argument("--tls", action="store_true", help="encrypted, and copied as it has to be then")
    parser.add_argument(
        "--copied", action="store_true", help="the clients copy what they get, as real ones have to"
    )
    parser.add_argument("--directory", type=Path, help="keep the WAL here, and use what is there already")
    parser.add_argument(
        "--size", type=float, metavar="GB", help="WAL per client and run (2; of several: 0.25)"
    )
    parser.add_argument(
        "--walsender",
        action="append",
        metavar="NAME=OPTIONS",
        help=f"measure walsender with these options, instead of {' and '.join(map(repr, CONSUMERS))}",
    )
    options = parser.parse_args()
    clients = options.clients
    size = int((options.size or (2.0 if clients == 1 else 0.25)) * 1e9)
    rounds = options.rounds
    if options.quick:
        size, rounds = 16 << 20, 1
    installation = PostgresInstallation.system(15) if options.tls else PostgresInstallation.embedded(18)
    settings, contenders = dict(SETTINGS), options.walsender or CONSUMERS
    with ExitStack() as stack:
        logs = stack.enter_context(workspace())
        if options.directory:
            options.directory.mkdir(parents=True, exist_ok=True)
            installation.account.own(options.directory)
        directory = stack.enter_context(nullcontext(options.directory) if options.directory else workspace())
        if not (directory / "archive").exists():
            make_wal(installation, directory.absolute(), size)
        start, size = servable(directory / "archive", size)
        if options.tls:
            certificate, key = map(str, Authority(logs).issue("localhost"))
            installation.account.own(logs)
            settings |= {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key}
            tls = f"--ssl on --ssl-cert-file {certificate} --ssl-key-file {key}"
            contenders = [f"{each} {tls}" for each in options.walsender or ["TLS="]]
        # Not closed but abandoned: the data directory stays for the next run.
        postgres = Cluster(installation, directory / "data", name="postgres", settings=settings)
        stack.callback(postgres.abandon)
        postgres.start()
        servers = [
            Server(f"PostgreSQL {installation.version}", "127.0.0.1", postgres.port, postgres.server.pid)
        ]
        for number, named in enumerate(contenders):
            name, _, text = named.partition("=")
            process = WalsenderProcess(
                directory / "archive", *shlex.split(text), log_file=logs / f"{number}.log", timeout_s=60
            )
            stack.enter_context(process)
            servers.append(Server(f"walsender, {name}", process.host, process.port, process.pid))

        def turn(server: Server) -> tuple[float, ...]:
            warm(directory / "archive")
            return server.run(start, size, clients, tls=options.tls, copied=options.copied)

        measures = [Measure("MB/s"), Measure("CPU s/GB", 3), Measure("first client's time / last's", 2)]
        then = "copied" if options.copied else "discarded"
        print(f"{machine()}; {clients} client(s), {size / 1e9:.2f} GB each, from page cache, {then}")
        alternate(servers, rounds, measures[: 2 if clients == 1 else 3], turn)


if __name__ == "__main__":
    main()
