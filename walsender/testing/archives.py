"""
Archives of real WAL: what ``pg_receivewal`` leaves behind of a primary that is gone.

Small and varied on purpose: segments of 1 MB, records that cross pages and
segments, forced switches with their zeroed tails, checkpoints, and a last
segment that is still ``.partial``.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from walsender.lsn import INVALID_LSN, LSN
from walsender.testing.postgres import Cluster, PgReceiveWal, PostgresInstallation
from walsender.testing.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SEGMENT_SIZE: Final = 1 << 20

#: A query whose answer is the same exactly where all rows are.
CONTENTS: Final = (
    "SELECT count(*), md5(string_agg(id || ' ' || payload || ' ' || version, ',' ORDER BY id)) FROM contents"
)

_CREATE: Final = "CREATE TABLE contents (id int PRIMARY KEY, payload text NOT NULL, version int NOT NULL)"
_INSERT: Final = (
    "INSERT INTO contents SELECT g, repeat(md5(g::text), 2 + g % 5), 0"
    " FROM generate_series((SELECT coalesce(max(id), 0) + 1 FROM contents),"
    " (SELECT coalesce(max(id), 0) + 6000 FROM contents)) AS g"
)
_UPDATE: Final = "UPDATE contents SET version = version + 1 WHERE id % 3 = 0"
#: A record of two and a half segments.
_LONG_RECORD: Final = "SELECT pg_logical_emit_message(false, 'long', repeat('x', 2621440))"

_SETTINGS: Final[Mapping[str, str]] = {"autovacuum": "off"}


@dataclass(frozen=True, slots=True)
class Archive:
    """
    A directory of WAL whose primary has stopped.

    :ivar directory: the segments; belongs to PostgreSQL's account.
    :ivar backup: a base backup from which all of the archive can be replayed.
    :ivar data_directory: that of the primary, stopped in order.
    :ivar last_record: where the last record begins.
    :ivar end: where it ends.
    :ivar contents: the primary's last answer to `CONTENTS`.
    :ivar switchpoint: where timeline 2 begins, or 0 if there is none.
    """

    installation: PostgresInstallation
    directory: Path
    backup: Path
    data_directory: Path
    last_record: LSN
    end: LSN
    contents: str
    switchpoint: LSN = INVALID_LSN

    def segments(self, timeline: int = 1) -> list[str]:
        """Return the names of the segments of one timeline in order, a ``.partial`` one included."""
        names = (path.name for path in self.directory.iterdir())
        return sorted(name for name in names if name.startswith(f"{timeline:08X}") and "history" not in name)


def make_archive(installation: PostgresInstallation, directory: Path) -> Archive:
    """Make an archive of one timeline in the new directory *directory*."""
    directory.mkdir()
    installation.account.own(directory)
    primary = Cluster.create(
        installation, directory / "primary", segment_size_mb=SEGMENT_SIZE >> 20, settings=_SETTINGS
    )
    primary.start()
    try:
        with PgReceiveWal(installation, directory / "archive", primary.conninfo(), "--no-loop") as receiver:
            receiver.wait_for_start()
            backup = primary.base_backup(directory / "backup")
            for statement in (_CREATE, _INSERT, _UPDATE, "SELECT pg_switch_wal()", _INSERT, _LONG_RECORD):
                primary.sql(statement)
            for statement in ("CHECKPOINT", _UPDATE, "CREATE INDEX ON contents (payload)", _INSERT):
                primary.sql(statement)
            contents = primary.sql(CONTENTS)
            primary.stop()
            receiver.wait()
    finally:
        primary.abandon()
    archive = directory / "archive"
    last = installation.last_record(archive / max(path.name for path in archive.iterdir()))
    return Archive(installation, archive, backup, primary.data_directory, *last, contents)


def make_fork(before: Archive, directory: Path) -> Archive:
    """Make an archive of two timelines: that of *before*, whose primary is promoted and writes on."""
    installation = before.installation
    shutil.copytree(before.directory, directory / "archive")
    installation.account.own(directory)
    # A primary's own files, recovered as a standby's, end where they end: promotion makes timeline 2.
    settings = {**_SETTINGS, "restore_command": "false"}
    primary = Cluster.standby(
        installation,
        before.data_directory,
        directory / "primary",
        primary_conninfo="",
        name="promoted",
        settings=settings,
    )
    primary.start()
    try:
        wait_until(lambda: primary.try_sql("SELECT 1"), 30, "a hot standby", logs=[primary])
        primary.promote()
        with PgReceiveWal(installation, directory / "archive", primary.conninfo(), "--no-loop") as receiver:
            for statement in (_INSERT, "SELECT pg_switch_wal()", _UPDATE, _LONG_RECORD, _INSERT):
                primary.sql(statement)
            contents = primary.sql(CONTENTS)
            primary.stop()
            receiver.wait()
    finally:
        primary.abandon()
    archive = directory / "archive"
    history = (archive / "00000002.history").read_text().split()
    name = max(path.name for path in archive.iterdir() if "history" not in path.name)
    last_record, end = installation.last_record(archive / name)
    return replace(
        before,
        directory=archive,
        data_directory=primary.data_directory,
        last_record=last_record,
        end=end,
        contents=contents,
        switchpoint=LSN.parse(history[1]),
    )


def make_gap(before: Archive, directory: Path) -> tuple[Archive, str]:
    """Copy *before* without one segment from its middle, and return that segment's name too."""
    shutil.copytree(before.directory, directory / "archive")
    before.installation.account.own(directory)
    segments = before.segments()
    missing = segments[len(segments) // 2]
    (directory / "archive" / missing).unlink()
    return replace(before, directory=directory / "archive"), missing


def reference_server(archive: Archive, data_directory: Path) -> Cluster:
    """
    Return PostgreSQL's own walsender over the same WAL: the archive's primary once more, from a copy.

    For controls and comparisons: what it cannot pass is no fair test of ours.
    """
    shutil.copytree(archive.data_directory, data_directory, symlinks=True)
    # The primary had a last segment of its own in place of .partial, and the archive may have gaps.
    wanted = {path.name.removesuffix(".partial") for path in archive.directory.iterdir()}
    for path in (data_directory / "pg_wal").iterdir():
        if path.is_file() and path.name not in wanted:
            path.unlink()
    for path in archive.directory.iterdir():
        target = data_directory / "pg_wal" / path.name
        if path.suffix != ".partial" and not target.exists():
            shutil.copy(path, target)
    for signal_file in data_directory.glob("*.signal"):
        signal_file.unlink()
    archive.installation.account.own(data_directory)
    return Cluster(archive.installation, data_directory, name="reference", settings=_SETTINGS)
