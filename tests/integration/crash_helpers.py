"""What the tests of crashes share: a relay to be killed, and commits that must not be lost with it."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final

import psycopg
from recording_client import SEGMENT_SIZE, RecordingClient, held
from relay_helpers import assert_same_segments, make_primary, make_standby

from walsender.lsn import LSN
from walsender.testing.installation import PostgresInstallation
from walsender.testing.postgres import PgBench, free_port
from walsender.testing.processes import WalsenderProcess, conninfo, wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

    from walsender.testing.postgres import Cluster


_LIFE_S: Final = 0.4  # at most so long a relay lives once it has sent something


class CrashingRelay:
    """
    A relay that can be killed and started again, on a port of its own.

    :param wal: its directory, made if it is not there.
    :param space: for its logs.
    """

    def __init__(self, wal: Path, space: Path, upstream: str) -> None:
        self.wal = wal
        wal.mkdir(exist_ok=True)
        self._space = space
        self._upstream = upstream
        self._process: WalsenderProcess | None = None
        self._lives = 0
        self.port = free_port()
        self.conninfo = conninfo(host="127.0.0.1", port=str(self.port), user="postgres")

    def start(self) -> WalsenderProcess:
        """Start it, for the first time or again."""
        self._lives += 1
        self._process = WalsenderProcess(
            self.wal,
            "--primary-conninfo",
            self._upstream,
            log_file=self._space / f"relay-{self._lives}.log",
            listen=f"tcp:{self.port}:interface=127.0.0.1",
        )
        return self._process

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.signal(signal.SIGKILL)
        assert self._process.wait() == -signal.SIGKILL
        assert "Traceback" not in self._process.log_text(), self._process.log_text()
        self._process.destroy()

    def close(self) -> None:
        """Let nothing of it remain."""
        if self._process is not None:
            self._process.destroy()


class Committer(threading.Thread):
    """Commits one row after another, and remembers which transactions came back."""

    def __init__(self, primary: Cluster, count: int) -> None:
        super().__init__(daemon=True)
        self._conninfo = primary.conninfo(dbname="postgres")
        self._count = count
        self.committed: list[int] = []

    def run(self) -> None:
        """Commit *count* times."""
        insert = "INSERT INTO committed VALUES (%s) RETURNING pg_current_xact_id()::text::bigint"
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            for number in range(self._count):
                row = connection.execute(insert, (number,)).fetchone()
                assert row is not None
                self.committed.append(row[0])

    def wait_for_another(self) -> None:
        """Wait until one more commit has come back, or there are no more."""
        before = len(self.committed)
        wait_until(lambda: len(self.committed) > before or not self.is_alive(), 60, "a commit")


def transactions(installation: PostgresInstallation, wal: Path, copy: Path) -> set[int]:
    """Return which transactions the WAL in *wal* says are committed, as ``pg_waldump`` reads it."""
    copy.mkdir()
    for path in wal.glob("00000001*"):
        shutil.copy(path, copy / path.name.removesuffix(".partial"))
    first = min(path.name for path in copy.iterdir())
    start = LSN(int(first[16:], 16) * SEGMENT_SIZE)
    dump = subprocess.run(
        [
            installation.program("pg_waldump"),
            *("--rmgr=Transaction", "--timeline=1", f"--path={copy}", f"--start={start}"),
        ],
        capture_output=True,
        text=True,
        check=False,  # it ends with an error where WAL ends
    )
    shutil.rmtree(copy)
    return {int(match[1]) for match in re.finditer(r"tx:\s+(\d+),.* COMMIT ", dump.stdout)}


def check_what_clients_have(
    space: Path, stack: ExitStack, wal: Path, crash: Callable[[CrashingRelay], None], times: int
) -> None:
    """
    Check that the relay's directory holds, after each crash, every byte that a client had got from it.

    Every slot that was answered for is there too, and in the end all are equal.

    :param crash: ends the relay.
    """
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 -- shown when the test fails
    moments = random.Random(seed)
    primary = make_primary(stack, PostgresInstallation.embedded(18), space)
    PgBench.initialise(primary)
    relay = CrashingRelay(wal, space, primary.conninfo())
    stack.callback(relay.close)
    process = relay.start()
    wait_until(lambda: list(wal.glob("*.partial")), 60, "the first WAL", logs=[process])
    standby = make_standby(stack, primary.base_backup(space / "backup"), space, relay.conninfo, primary)
    first = min(path.name for path in wal.glob("00000001*"))
    client = RecordingClient(relay.port, int(first[16:24], 16) * SEGMENT_SIZE)
    client.start()
    stack.callback(client.stop)
    with PgBench(primary, "--client=4", "--rate=500") as load:
        for number in range(times):
            client.wait_for_data()
            time.sleep(moments.random() * _LIFE_S)  # the moment of the crash, which may be any
            with RawClient("127.0.0.1", relay.port).ready() as administrator:
                if number > 0:
                    administrator.query(f"DROP_REPLICATION_SLOT slot_{number - 1}")
                answer = administrator.query(f"CREATE_REPLICATION_SLOT slot_{number} PHYSICAL")
            assert answer[0].kind == b"T", answer[0].fields()
            crash(relay)
            for start, data in client.take():
                assert held(wal, start, len(data)) == data, f"{start:X} + {len(data)}, seed {seed}"
            process = relay.start()
            found = re.findall(r'replication slot "(slot_\d+)" found', process.log_text())
            assert found == [f"slot_{number}"], f"{found}, seed {seed}"
        load.check_running()
    standby.wait_for_replay(primary.flush_lsn())
    assert standby.sql(PgBench.CONTENTS) == primary.sql(PgBench.CONTENTS)
    assert_same_segments(wal, primary)


def check_synchronous_commits(
    space: Path, stack: ExitStack, wal: Path, crash: Callable[[CrashingRelay], None], commits: int
) -> None:
    """
    Check that whatever commit came back is in the relay's directory after each crash.

    :param crash: ends the relay, which is the primary's synchronous standby.
    """
    installation = PostgresInstallation.embedded(18)
    primary = make_primary(stack, installation, space)
    primary.sql("CREATE TABLE committed (id int)")
    relay = CrashingRelay(wal, space, primary.conninfo())
    stack.callback(relay.close)
    relay.start()
    state = "SELECT sync_state FROM pg_stat_replication"
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'walsender'")
    primary.sql("SELECT pg_reload_conf()")
    wait_until(lambda: primary.sql(state) == "sync", 60, "the relay to be synchronous", logs=[primary])
    committer = Committer(primary, commits)
    committer.start()
    moments = random.Random()
    crashes = 0
    while committer.is_alive():
        committer.wait_for_another()
        if crashes % 2:  # and every other time right behind a commit
            committer.join(moments.random() * _LIFE_S)  # the moment of the crash, which may be any
        crash(relay)
        crashes += 1
        returned = set(committer.committed)
        assert returned <= transactions(installation, wal, space / "copy")
        relay.start()
    committer.join()
    assert len(committer.committed) == commits
    assert crashes
