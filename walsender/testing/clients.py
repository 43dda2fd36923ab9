"""The client programs that run beside a `walsender.testing.postgres.Cluster`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

from walsender.lsn import LSN
from walsender.testing.processes import ChildProcess, ProgramError, TimedOutError, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from walsender.testing.installation import PostgresInstallation
    from walsender.testing.postgres import Cluster


class PsqlSession(ChildProcess):
    """A ``psql`` that stays connected and answers one query after the other, in about a millisecond."""

    _END: Final = b"--- end of answer ---\n"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(
            f"psql to {cluster.name}",
            [cluster.installation.program("psql"), *cluster.psql_options()],
            cluster.data_directory.with_name(f"{cluster.data_directory.name}.psql.log"),
            account=cluster.installation.account,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def query(self, query: str, timeout_s: float = 60) -> str:
        """
        Return what psql prints for one query.

        :raises ProgramError: the query fails or the server is gone; the session is over then.
        """
        stdin, stdout = self.popen.stdin, self.popen.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(query.encode() + b";\n\\echo " + self._END.strip().join([b"'", b"'"]) + b"\n")
            stdin.flush()
        answer = b""
        deadline = time.monotonic() + timeout_s
        while not answer.endswith(self._END):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                raise TimedOutError(f"{self.name}: no answer within {timeout_s:g} s to {query}")
            piece = os.read(stdout.fileno(), 65536)
            if not piece:
                raise ProgramError(f"{self.name} ended at: {query}\n{self.log_tail()}")
            answer += piece
        return answer.removesuffix(self._END).decode().strip()

    def lsn(self, query: str) -> LSN:
        """Return one LSN; 0 for NULL."""
        return LSN.parse(self.query(query) or "0/0")


class PgReceiveWal(ChildProcess):
    """A ``pg_receivewal`` that writes what *source* (a connection string) streams into *directory*."""

    stop_signal = signal.SIGINT  # at which it ends the stream in order

    def __init__(
        self, installation: PostgresInstallation, directory: Path, source: str, *options: str
    ) -> None:
        directory.mkdir(exist_ok=True)
        installation.account.own(directory)
        super().__init__(
            "pg_receivewal",
            [
                installation.program("pg_receivewal"),
                *(f"--directory={directory}", f"--dbname={source}", "--no-password", "--verbose", *options),
            ],
            directory.with_name(f"{directory.name}.pg_receivewal.log"),
            account=installation.account,
        )

    def wait_for_start(self, timeout_s: float = 60) -> None:
        """
        Wait until it has chosen where it starts; WAL from there on will be in its directory.

        A base backup taken earlier may need WAL from before, since without a slot the start is wherever
        the source is by then.
        """
        wait_until(
            lambda: self.check_running() and "starting log streaming" in self.log_text(),
            timeout_s,
            "pg_receivewal to start streaming",
            logs=[self],
        )


class PgBench(ChildProcess):
    """A ``pgbench`` that writes to *cluster* with its standard transactions, for an hour unless stopped."""

    stop_signal = signal.SIGINT

    #: A query whose answer is the same exactly where all of pgbench's rows are.
    CONTENTS: Final = (
        "SELECT (SELECT md5(string_agg(a::text, ',' ORDER BY aid)) FROM pgbench_accounts AS a),"
        " (SELECT md5(string_agg(b::text, ',' ORDER BY bid)) FROM pgbench_branches AS b),"
        " (SELECT md5(string_agg(t::text, ',' ORDER BY tid)) FROM pgbench_tellers AS t),"
        " (SELECT md5(string_agg(h::text, ',' ORDER BY h::text)) FROM pgbench_history AS h)"
    )

    def __init__(self, cluster: Cluster, *options: str) -> None:
        self._cluster = cluster
        super().__init__(
            "pgbench",
            [
                cluster.installation.program("pgbench"),
                *("--no-vacuum", "--time=3600", *options),
                cluster.conninfo(dbname="postgres"),
            ],
            cluster.data_directory.with_name(f"{cluster.data_directory.name}.pgbench.log"),
            account=cluster.installation.account,
        )

    def stop(self, timeout_s: float = 60) -> None:
        """See `ChildProcess.stop`; what it has sent may still commit, and is waited for."""
        super().stop(timeout_s)
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'"
        wait_until(
            lambda: self._cluster.try_sql(sessions) in {"0", None},
            timeout_s,
            "the sessions of pgbench to end",
            logs=[self._cluster],
        )

    @staticmethod
    def initialise(cluster: Cluster, scale: int = 1) -> None:
        """Create pgbench's tables."""
        target = cluster.conninfo(dbname="postgres")
        cluster.installation.run("pgbench", "--initialize", "--quiet", f"--scale={scale}", target)
