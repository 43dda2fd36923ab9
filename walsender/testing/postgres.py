"""
Real PostgreSQL, for whoever needs one for a minute: tests, the demo, benchmarks, and users' own tests.

Synchronous and made of subprocesses; everything ends and is removed with the
context managers.  PostgreSQL refuses to run as root, so that under root every
program here runs as ``postgres`` or ``nobody`` (`Account.for_postgres`), in
directories that belong to that user (`walsender.testing.processes.workspace`).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from walsender.lsn import LSN
from walsender.testing.clients import PgBench, PgReceiveWal, PsqlSession
from walsender.testing.installation import PostgresInstallation, PostgresMissingError
from walsender.testing.processes import (
    ChildProcess,
    ProgramError,
    TimedOutError,
    conninfo,
    is_alive,
    wait_until,
)
from walsender.testing.server_versions import initdb_options, started_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "Cluster",
    "PgBench",
    "PgReceiveWal",
    "PostgresInstallation",
    "PostgresMissingError",
    "PsqlSession",
    "free_port",
    "started",
]

USER: Final = "postgres"

#: What a cluster runs with unless told otherwise: small, fast, chatty.
_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "replica",
    # A checkpoint must not remove what a receiver without a slot has yet to ask for.
    "wal_keep_size": "1GB",
    "hot_standby": "on",
    "max_wal_senders": "10",
    "max_connections": "30",
    "shared_buffers": "32MB",
    "wal_retrieve_retry_interval": "200ms",
    "log_line_prefix": "%m [%p] %b ",
    "log_replication_commands": "on",
    "jit": "off",
}

StopMode = str
_STOP_SIGNALS: Final[Mapping[StopMode, signal.Signals]] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_PORT: Final = 5500  # of those that are not known for anything
_PROCESSES: Final = 32
_given: Final[set[int]] = set()


def free_port() -> int:
    """
    Return a TCP port of 127.0.0.1 that nobody listens on, and that was not returned before.

    Between this answer and its use, and while a server is down, somebody else may ask the same question.  So
    it is taken below the range from which the kernel serves outgoing connections, and processes that were
    started one after the other, as those of a test run, have different ports.
    """
    ports = _ports()
    while True:
        port = random.choice(ports)  # noqa: S311 (no secret)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given or len(_given) >= len(ports) // 2:
                _given.add(port)
                return port


def _ports() -> range:
    """Return this process's ports."""
    first = 32768  # Linux' own default
    with contextlib.suppress(OSError):
        first = int(_OUTGOING.read_text().split()[0])
    if first < _FIRST_PORT * 2:  # all are used for outgoing connections
        first = 32768
    return range(max(_FIRST_PORT, first - 17000) + os.getpid() % _PROCESSES, first, _PROCESSES)


class Cluster:
    """
    One data directory, and the server on it while that runs; ends and is removed with its context.

    :ivar data_directory: where it lies.
    :ivar port: TCP port on 127.0.0.1, fixed for the cluster's life; ``trust`` for everybody.
    :ivar settings: configuration parameters, given to each start on the command line.
    """

    def __init__(
        self,
        installation: PostgresInstallation,
        data_directory: Path,
        *,
        name: str,
        settings: Mapping[str, str] | None = None,
        fsync: bool = False,
    ) -> None:
        self.installation = installation
        self.data_directory = data_directory
        self.name = name
        self.port = free_port()
        self.settings: dict[str, str] = {
            **_SETTINGS,
            "port": str(self.port),
            "cluster_name": name,
            "fsync": "on" if fsync else "off",
            **(settings or {}),
        }
        self.log_file = data_directory.with_name(f"{data_directory.name}.log")
        #: Of its own and short: the path of a Unix socket ends at 107 bytes.  Exists while the server runs.
        self.socket_directory = Path(tempfile.gettempdir(), f"pg-{os.getpid()}-{self.port}")
        self._server: _Postmaster | None = None

    @classmethod
    def create(
        cls,
        installation: PostgresInstallation,
        data_directory: Path,
        *,
        name: str = "primary",
        segment_size_mb: int = 16,
        settings: Mapping[str, str] | None = None,
        fsync: bool = False,
    ) -> Cluster:
        """Run ``initdb``; the directory above *data_directory* belongs to PostgreSQL's account."""
        arguments = ["--pgdata", str(data_directory), "--auth=trust"]
        arguments += [f"--username={USER}", "--encoding=UTF8", "--locale=C"]
        arguments += initdb_options(installation.major, segment_size_mb)
        installation.run("initdb", *arguments, *([] if fsync else ["--no-sync"]))
        return cls(installation, data_directory, name=name, settings=settings, fsync=fsync)

    @classmethod
    def standby(
        cls,
        installation: PostgresInstallation,
        backup: Path,
        data_directory: Path,
        *,
        primary_conninfo: str,
        name: str = "standby",
        settings: Mapping[str, str] | None = None,
        fsync: bool = False,
    ) -> Cluster:
        """Make a standby that follows *primary_conninfo*, from a copy of the base backup *backup*."""
        shutil.copytree(backup, data_directory, symlinks=True)
        (data_directory / "standby.signal").touch()
        data_directory.chmod(0o700)
        installation.account.own(data_directory)
        following = {"primary_conninfo": primary_conninfo, **(settings or {})}
        return cls(installation, data_directory, name=name, settings=following, fsync=fsync)

    # The server's life.

    def start(self, timeout_s: float = 60) -> None:
        """Start the server and wait until it takes connections (or, a standby, until it recovers)."""
        assert self._server is None, "one server per data directory"
        self.socket_directory.mkdir()
        self.installation.account.own(self.socket_directory)
        self._server = server = _Postmaster(self)
        status = self.data_directory / "postmaster.pid"

        def ready() -> bool:
            server.check_running()
            with contextlib.suppress(FileNotFoundError):
                first, *others = status.read_text().splitlines() or [""]
                return first == str(server.pid) and not _UP.isdisjoint(line.strip() for line in others[-1:])
            return False

        wait_until(ready, timeout_s, f"{self.name} to start", logs=[self])

    @property
    def server(self) -> ChildProcess:
        """The running server's first process."""
        assert self._server is not None, f"{self.name} does not run"
        return self._server

    def stop(self, mode: StopMode = "fast", timeout_s: float = 60) -> None:
        """
        Shut down in the manner of ``pg_ctl stop -m`` (smart, fast, immediate).

        :raises TimedOutError: it has not ended after *timeout_s*; it runs on.
        """
        server = self.server
        server.signal(_STOP_SIGNALS[mode])
        server.wait(timeout_s)
        self._ended(server)

    def kill(self) -> None:
        """End all its processes at once, as a loss of power would (the page cache survives)."""
        server = self.server
        processes = [server.pid, *_children(server.pid)]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        server.wait()
        # Shared memory lives until the last backend is gone, and forbids a new start for so long.
        wait_until(lambda: not any(map(is_alive, processes)), 60, f"the processes of {self.name} to end")
        self._ended(server)

    def _ended(self, server: ChildProcess) -> None:
        server.destroy()
        shutil.rmtree(self.socket_directory, ignore_errors=True)
        self._server = None

    def promote(self, timeout_s: float = 60) -> None:
        """Make a standby a primary, on a new timeline, and wait for it."""
        directory = str(self.data_directory)
        self.installation.run("pg_ctl", "promote", "-w", f"-t{int(timeout_s)}", "-D", directory)
        # Before 12 this file is ours, not PostgreSQL's.
        (self.data_directory / "standby.signal").unlink(missing_ok=True)

    def abandon(self) -> None:
        """End the server, if it runs, without ado; what it wrote stays."""
        if self._server is not None:
            with contextlib.suppress(TimedOutError, ProgramError):
                self.stop("immediate", timeout_s=60)
        if self._server is not None:
            self.kill()

    def close(self) -> None:
        """End the server, if it runs, without ado and remove its files."""
        self.abandon()
        shutil.rmtree(self.data_directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def log_tail(self) -> str:
        """Return the last lines of the server's log, headed by its name."""
        if self._server is not None:
            return self._server.log_tail()
        with contextlib.suppress(FileNotFoundError):
            return "\n".join([f"--- {self.name} ---", *self.log_file.read_text().splitlines()[-25:]])
        return f"--- {self.name}: no log ---"

    # Talking to it.

    def conninfo(self, **more: str) -> str:
        """Return the libpq connection string for TCP, *more* parameters included."""
        return conninfo(host="127.0.0.1", port=str(self.port), user=USER, **more)

    def sql(self, query: str, *, timeout_s: float = 120) -> str:
        """
        Return what ``psql`` prints for *query*: unaligned, no headings.

        :raises ProgramError: any error.
        """
        return self.installation.run(
            "psql", *self.psql_options(), "-c", query, timeout_s=timeout_s
        ).stdout.strip()

    def try_sql(self, query: str) -> str | None:
        """Return as `sql`, or ``None`` if the server does not answer or refuses."""
        done = self.installation.run("psql", *self.psql_options(), "-c", query, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def session(self) -> PsqlSession:
        """Return a connection that stays open, for questions many times a second."""
        return PsqlSession(self)

    def psql_options(self) -> list[str]:
        """Return the options by which ``psql`` connects, and prints values without ornament."""
        target = conninfo(host=str(self.socket_directory), port=str(self.port), user=USER, dbname="postgres")
        return ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", target]

    def flush_lsn(self) -> LSN:
        """Return up to where a primary has flushed WAL."""
        return LSN.parse(self.sql("SELECT pg_current_wal_flush_lsn()"))

    def received_lsn(self) -> LSN:
        """Return up to where a standby has streamed and flushed WAL; 0 before, or while unreachable."""
        return LSN.parse(self.try_sql("SELECT coalesce(pg_last_wal_receive_lsn(), '0/0')") or "0/0")

    def replayed_lsn(self) -> LSN:
        """Return up to where a standby has replayed WAL; 0 while it is unreachable."""
        return LSN.parse(self.try_sql("SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')") or "0/0")

    def wait_for_replay(self, lsn: LSN, timeout_s: float = 60) -> None:
        """Wait until a standby has replayed all WAL before *lsn*."""
        what = f"{self.name} to replay up to {lsn}"
        wait_until(
            lambda: self.server.check_running() and self.replayed_lsn() >= lsn, timeout_s, what, logs=[self]
        )

    def base_backup(self, directory: Path, *arguments: str) -> Path:
        """Take a plain base backup without any WAL (whoever uses it streams that); return *directory*."""
        options = ["--pgdata", str(directory), "--wal-method=none", "--checkpoint=fast", "--no-sync"]
        self.installation.run("pg_basebackup", *options, "--dbname", self.conninfo(), *arguments)
        return directory


#: The last line of postmaster.pid once there is something to wait for no longer.
_UP: Final = frozenset({"ready", "standby"})


class _Postmaster(ChildProcess):
    stop_signal = signal.SIGINT
    death_signal = signal.SIGQUIT  # at which it ends its backends too

    def __init__(self, cluster: Cluster) -> None:
        settings = started_with(cluster.installation, cluster.data_directory, cluster.settings)
        parameters = [f"--{name}={value}" for name, value in settings.items()]
        parameters.append(f"--unix_socket_directories={cluster.socket_directory}")
        super().__init__(
            cluster.name,
            [cluster.installation.program("postgres"), "-D", cluster.data_directory, *parameters],
            cluster.log_file,
            account=cluster.installation.account,
        )


def _children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


@contextlib.contextmanager
def started(cluster: Cluster) -> Iterator[Cluster]:
    """Give *cluster* running, and close it at the end."""
    with cluster:
        cluster.start()
        yield cluster
