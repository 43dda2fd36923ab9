"""
A relay that is killed at any moment takes back nothing that it has said.

The ordinary run kills a few times; ``tox -e crash`` (``WALSENDER_CRASHES``) a hundred times and more.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from proxy import Proxy
from recording_client import SEGMENT_SIZE, RecordingClient, held
from relay_helpers import (
    assert_same_segments,
    make_primary,
    make_relay,
    make_standby,
    wait_for_streaming,
)

from walsender.lsn import LSN
from walsender.testing.installation import PostgresInstallation
from walsender.testing.postgres import Cluster, PgBench, free_port
from walsender.testing.processes import WalsenderProcess, conninfo, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS: Final = int(os.environ.get("WALSENDER_CRASHES", "5"))
COMMITS: Final = 100 * KILLS
LIFE_S: Final = 0.4  # at most so long a relay lives once it has sent something


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Whatever a test starts ends with it."""
    with ExitStack() as made:
        yield made


class Relay:
    """A relay that can be killed and started again, on a port of its own."""

    def __init__(self, space: Path, upstream: str) -> None:
        self.wal = space / "wal"
        self.wal.mkdir()
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


@pytest.mark.soak
def test_killedRelay(space: Path, stack: ExitStack) -> None:
    """Whenever the relay is killed, its directory holds every byte that a client had got from it."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 -- shown when the test fails
    moments = random.Random(seed)
    primary = make_primary(stack, PostgresInstallation.embedded(18), space)
    PgBench.initialise(primary)
    relay = Relay(space, primary.conninfo())
    stack.callback(relay.close)
    process = relay.start()
    wait_until(lambda: list(relay.wal.glob("*.partial")), 30, "the first WAL", logs=[process])
    backup = primary.base_backup(space / "backup")
    standby = make_standby(stack, backup, space, relay.conninfo, primary)
    first = min(path.name for path in relay.wal.glob("00000001*"))
    client = RecordingClient(relay.port, int(first[16:24], 16) * SEGMENT_SIZE)
    client.start()
    stack.callback(client.stop)
    with PgBench(primary, "--client=4", "--rate=500") as load:
        for _ in range(KILLS):
            client.wait_for_data()
            time.sleep(moments.random() * LIFE_S)  # the moment of the crash, which may be any
            relay.kill()
            for start, data in client.take():
                assert held(relay.wal, start, len(data)) == data, f"{start:X} + {len(data)}, seed {seed}"
            process = relay.start()
        load.check_running()
    end = primary.flush_lsn()
    standby.wait_for_replay(end)
    assert standby.sql(PgBench.CONTENTS) == primary.sql(PgBench.CONTENTS)
    assert_same_segments(relay.wal, primary)


@pytest.mark.soak
def test_lostUpstream(space: Path, stack: ExitStack) -> None:
    """However the connection to the upstream breaks, and when that is killed, nothing is lost or doubled."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 -- shown when the test fails
    moments = random.Random(seed)
    primary = make_primary(stack, PostgresInstallation.embedded(18), space)
    primary.sql("CREATE TABLE written (id int)")
    proxy = stack.enter_context(Proxy(primary.port))
    upstream = conninfo(host="127.0.0.1", port=str(proxy.port), user="postgres")
    often = ("--wal-retrieve-retry-interval", "200ms", "--wal-receiver-timeout", "1s")
    relay = make_relay(stack, space, upstream, *often)
    wait_for_streaming(relay, primary)
    standby = make_standby(stack, primary.base_backup(space / "backup"), space, relay.conninfo(), primary)
    for number in range(KILLS):
        primary.sql(f"INSERT INTO written SELECT generate_series({number} * 1000 + 1, {number + 1} * 1000)")
        fault = moments.choice((proxy.stall, proxy.reset, proxy.truncate, primary.kill))
        fault()
        if fault == primary.kill:
            primary.start()
        primary.sql("INSERT INTO written VALUES (0)")
        proxy.heal()
        standby.wait_for_replay(primary.flush_lsn())
    written = "SELECT count(*), sum(id) FROM written"
    assert standby.sql(written) == primary.sql(written)
    assert_same_segments(space / "wal", primary)
    assert "Traceback" not in relay.log_text(), relay.log_text()


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


@pytest.mark.soak
def test_synchronousCommits(space: Path, stack: ExitStack) -> None:
    """With the relay as synchronous standby, whatever commit came back is in its directory after a crash."""
    installation = PostgresInstallation.embedded(18)
    primary = make_primary(stack, installation, space)
    primary.sql("CREATE TABLE committed (id int)")
    relay = Relay(space, primary.conninfo())
    stack.callback(relay.close)
    relay.start()
    state = "SELECT sync_state FROM pg_stat_replication"
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'walsender'")
    primary.sql("SELECT pg_reload_conf()")
    wait_until(lambda: primary.sql(state) == "sync", 30, "the relay to be synchronous", logs=[primary])
    committer = Committer(primary, COMMITS)
    committer.start()
    moments = random.Random()
    kills = 0
    while committer.is_alive():
        committer.wait_for_another()
        if kills % 2:  # and every other time right behind a commit
            committer.join(moments.random() * LIFE_S)  # the moment of the crash, which may be any
        relay.kill()
        kills += 1
        returned = set(committer.committed)
        assert returned <= transactions(installation, relay.wal, space / "copy")
        relay.start()
    committer.join()
    assert len(committer.committed) == COMMITS
    assert kills
