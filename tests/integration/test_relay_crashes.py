"""
A relay that is killed at any moment takes back nothing that it has said.

The ordinary run kills a few times; ``tox -e crash`` (``WALSENDER_CRASHES``) a hundred times and more.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Final

import pytest
from crash_helpers import CrashingRelay, check_synchronous_commits, check_what_clients_have
from proxy import Proxy
from relay_helpers import (
    assert_same_segments,
    make_primary,
    make_relay,
    make_standby,
    wait_for_streaming,
)

from walsender.testing.installation import PostgresInstallation
from walsender.testing.processes import conninfo

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

KILLS: Final = int(os.environ.get("WALSENDER_CRASHES", "5"))


@pytest.mark.soak
def test_killedRelay(space: Path, stack: ExitStack) -> None:
    """Whenever the relay is killed, its directory holds every byte that a client had got from it."""
    check_what_clients_have(space, stack, space / "wal", CrashingRelay.kill, KILLS)


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


@pytest.mark.soak
def test_synchronousCommits(space: Path, stack: ExitStack) -> None:
    """With the relay as synchronous standby, whatever commit came back is in its directory after a crash."""
    check_synchronous_commits(space, stack, space / "wal", CrashingRelay.kill, 100 * KILLS)
