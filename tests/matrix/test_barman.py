"""
Barman's receive-wal: its WAL comes from walsender, its other questions go to a standby behind walsender.

Barman asks ordinary SQL before it streams, which a server of nothing but WAL has no answer to.
"""

from __future__ import annotations

import getpass
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from matrix_sources import WITH_CLIENTS

from walsender.testing.postgres import started
from walsender.testing.processes import ChildProcess, wait_until

if TYPE_CHECKING:
    from conftest import CommandArchive

    from walsender.testing.processes import WalsenderProcess

pytestmark = pytest.mark.parametrize("source", WITH_CLIENTS, indirect=True, ids=str)


def test_barman(archive: CommandArchive, server: WalsenderProcess, space: Path) -> None:
    """It creates its slot, receives all that the archive has, and goes on when it is started again."""
    with started(archive.follow(server, space / "standby")) as standby:
        standby.wait_for_replay(archive.end)
        streaming = space / "home" / "main" / "streaming"
        streaming.mkdir(parents=True)
        (space / "servers").mkdir()
        (space / "barman.conf").write_text(
            f"""
[barman]
barman_home = {space / "home"}
barman_user = {getpass.getuser()}
configuration_files_directory = {space / "servers"}
[main]
description = main
conninfo = {standby.conninfo(dbname="postgres")}
streaming_conninfo = {server.conninfo()}
backup_method = postgres
streaming_archiver = on
slot_name = barman
create_slot = auto
path_prefix = {archive.installation.bin_directory}
"""
        )
        first, *others = archive.segments()
        shutil.copy(first, streaming)  # it goes on behind this
        program = Path(sys.executable).with_name("barman")
        arguments = [program, "-c", space / "barman.conf", "receive-wal", "main"]
        with ChildProcess("barman", arguments, space / "barman.log") as barman:
            wait_until(
                lambda: barman.check_running() and all((streaming / path.name).exists() for path in others),
                60,
                "barman to receive all",
                logs=[barman, server],
            )
        assert "Replication slot 'barman' created" in barman.log_text()
        with ChildProcess("barman again", arguments, space / "barman.log") as barman:
            wait_until(
                lambda: barman.check_running() and "starting log streaming" in barman.log_text(),
                60,
                "barman to go on",
                logs=[barman, server],
            )
        for path in others:
            assert (streaming / path.name).read_bytes() == path.read_bytes()
