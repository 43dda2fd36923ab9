"""
The Patroni configuration of docs/howto/failover.md: a real Patroni makes a standby cluster behind a relay.

Run by ``tox -e docs-commands``.  What is changed of the configuration: ports and places, and that Patroni
keeps its state by itself (Raft) instead of in an etcd.
"""

from __future__ import annotations

import json
import re
import sys
import sysconfig
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import yaml
from documented_commands import DOCS
from relay_helpers import make_primary, make_relay, wait_for_streaming

from walsender.testing.installation import PostgresInstallation
from walsender.testing.postgres import free_port
from walsender.testing.processes import Account, ChildProcess, run_program, wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from walsender.testing.postgres import Cluster
    from walsender.testing.processes import WalsenderProcess

FILE: Final = re.compile(r"<!-- file: patroni\.yml -->\n```yaml\n(.*?)```\n", re.DOTALL)
_DEADLINE_S: Final = 120


def configuration(
    installation: PostgresInstallation, work: Path, primary: Cluster, relay: WalsenderProcess
) -> dict[str, Any]:
    """Return the page's, with what must be another here."""
    match = FILE.search((DOCS / "howto" / "failover.md").read_text())
    assert match is not None
    made: dict[str, Any] = yaml.safe_load(match[1])
    web, database, raft = (f"127.0.0.1:{free_port()}" for _ in range(3))
    del made["etcd3"]
    made["raft"] = {"self_addr": raft, "data_dir": str(work / "raft")}
    made["restapi"] = {"listen": web, "connect_address": web}
    dcs, postgresql = made["bootstrap"]["dcs"], made["postgresql"]
    dcs |= {"loop_wait": 1, "ttl": 20, "retry_timeout": 3}
    dcs["standby_cluster"] |= {"host": relay.host, "port": relay.port}
    postgresql |= {"listen": database, "connect_address": database, "pgpass": str(work / "pgpass")}
    postgresql |= {"data_dir": str(work / "data"), "bin_dir": str(installation.bin_directory)}
    postgresql["parameters"] = {"unix_socket_directories": str(work)}
    command = postgresql["from_first"]["command"]
    command = command.replace(
        "pg_basebackup -D data", f"{installation.program('pg_basebackup')} -D {work}/data"
    )
    command = command.replace("a.example port=5440", f"127.0.0.1 port={primary.port}")
    postgresql["from_first"]["command"] = command
    return made


def python_of(account: Account) -> list[str | Path]:
    """Return how *account* runs Python with what is installed here; root's own is not everybody's."""
    packages = sysconfig.get_path("purelib")
    version = f"python3.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}"):
        command = [python, "-c", f"import sys; sys.path.append({packages!r}); import patroni"]
        if run_program(command, account=account, check=False).returncode == 0:
            start = f"import sys; sys.path.append({packages!r}); from patroni.__main__ import main; main()"
            return [python, "-c", start]
    raise AssertionError(f"{account} can run no {version} with Patroni: run this as an ordinary user")


def test_standbyClusterBehindARelay(space: Path, stack: ExitStack) -> None:
    """Patroni makes a standby leader from a backup of the primary, which follows the relay by its slot."""
    installation = PostgresInstallation.embedded(18)
    primary = make_primary(stack, installation, space)
    primary.sql("CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'secret'")
    primary.sql("CREATE TABLE visits (number int)")
    relay = make_relay(stack, space, primary.conninfo())
    wait_for_streaming(relay, primary)
    with RawClient(relay.host, relay.port).ready() as client:
        assert client.query("CREATE_REPLICATION_SLOT second PHYSICAL RESERVE_WAL")[0].kind == b"T"

    work = space / "patroni"
    work.mkdir(mode=0o700)
    made = configuration(installation, work, primary, relay)
    (work / "patroni.yml").write_text(yaml.safe_dump(made))
    installation.account.own(work)
    patroni = stack.enter_context(
        ChildProcess(
            "patroni",
            [*python_of(installation.account), work / "patroni.yml"],
            space / "patroni.log",
            account=installation.account,
            environment={"HOME": str(work)},
        )
    )

    def replayed() -> int:
        """Return up to where the standby leader has replayed; 0 while there is none."""
        try:
            address = f"http://{made['restapi']['listen']}/standby-leader"
            with urllib.request.urlopen(address, timeout=30) as answer:
                return int(json.load(answer)["xlog"]["replayed_location"])
        except (urllib.error.URLError, OSError, KeyError):
            return 0

    wait_until(replayed, _DEADLINE_S, "a standby leader", logs=[patroni])
    primary.sql("INSERT INTO visits SELECT generate_series(1, 1000)")
    end = primary.flush_lsn()
    wait_until(lambda: replayed() >= end, _DEADLINE_S, "the standby leader to replay", logs=[patroni, relay])
    with urllib.request.urlopen(f"http://{made['restapi']['listen']}/patroni", timeout=30) as answer:
        assert json.load(answer)["role"] == "standby_leader"
    assert " second1 LOG:  started streaming WAL" in relay.log_text()
    assert primary.sql("SELECT application_name FROM pg_stat_replication") == "walsender"
