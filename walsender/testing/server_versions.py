"""How servers before PostgreSQL 14 want to be told what later ones are told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from walsender.testing.installation import PostgresInstallation

#: Settings that stood in recovery.conf before 12.
_RECOVERY: Final = frozenset(
    {"primary_conninfo", "primary_slot_name", "recovery_target_timeline", "restore_command"}
)


def initdb_options(major: int, segment_size_mb: int) -> list[str]:
    """
    Return the options of ``initdb`` that not all versions have.

    :raises ValueError: the size of segments is one that *major* was not built with.
    """
    if major < 11 and segment_size_mb != 16:  # noqa: PLR2004 (PostgreSQL's default)
        raise ValueError(f"PostgreSQL {major} has segments of 16 MB only")
    options = [f"--wal-segsize={segment_size_mb}"] if major >= 11 else []  # noqa: PLR2004 (a version)
    return [*options, "--no-instructions"] if major >= 14 else options  # noqa: PLR2004 (a version)


def started_with(
    installation: PostgresInstallation, data_directory: Path, settings: Mapping[str, str]
) -> dict[str, str]:
    """
    Return *settings*, which are those of a current version, as the server that starts now knows them.

    Before 12, what concerns recovery goes to ``recovery.conf`` if there is a ``standby.signal``.
    """
    known = dict(settings)
    if installation.major < 13 and (size := known.pop("wal_keep_size", None)) is not None:  # noqa: PLR2004
        known["wal_keep_segments"] = {"1GB": "64", "0": "0"}[size]
    if installation.major < 11:  # noqa: PLR2004 (a version)
        known.pop("jit", None)
    if installation.major < 12:  # noqa: PLR2004 (a version)
        recovery = {name: known.pop(name) for name in _RECOVERY & known.keys()}
        if (data_directory / "standby.signal").exists():
            recovery = {"recovery_target_timeline": "latest", "standby_mode": "on", **recovery}
            quoted = {name: value.replace("'", "''") for name, value in recovery.items()}
            file = data_directory / "recovery.conf"
            file.write_text("".join(f"{name} = '{value}'\n" for name, value in quoted.items()))
            installation.account.own(file)
    return known
