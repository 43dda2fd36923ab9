"""
What the options of replication commands mean, and which exist.

PostgreSQL looks at options one by one in the order in which they are written,
after the whole command has been parsed; so is it done here, so that of two mistakes
the same one is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from walsender.errors import CommandSyntaxError, InvalidParameterValue
from walsender.wire.errors import UnrecognizedOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Option: TypeAlias = tuple[str, str | int | None]
"""An option as written: name in lower case; a word or string, a number, or nothing."""

OptionValue: TypeAlias = bool | int | str

_SIGN_BIT: Final = 1 << 31
_NEVER: Final = 1 << 30


def _boolean(option: Option) -> bool:
    """
    Return the Boolean that an option means; without a value, true.

    Source: PostgreSQL, src/backend/commands/define.c, defGetBoolean.
    """
    name, value = option
    match value:
        case None:
            return True
        case 0 | 1:
            return bool(value)
        case str() if value.lower() in {"true", "on"}:
            return True
        case str() if value.lower() in {"false", "off"}:
            return False
        case _:
            raise CommandSyntaxError(f"{name} requires a Boolean value")


def _text(option: Option) -> str:
    """
    Return the text of an option.

    Source: PostgreSQL, src/backend/commands/define.c, defGetString.
    """
    name, value = option
    if value is None:
        raise CommandSyntaxError(f"{name} requires a parameter")
    return value if isinstance(value, str) else str(_signed(value))


def _number(option: Option) -> int:
    """
    Return the number that an option has.

    Source: PostgreSQL, src/backend/commands/define.c, defGetInt64.
    """
    name, value = option
    if not isinstance(value, int):
        raise CommandSyntaxError(f"{name} requires a numeric value")
    return _signed(value)


def _signed(number: int) -> int:
    """Return what a uint32 becomes in the parser's int."""
    return (number ^ _SIGN_BIT) - _SIGN_BIT


@dataclass(slots=True)
class SlotOptions:
    """The options of CREATE_REPLICATION_SLOT; see `CreateReplicationSlot`."""

    reserve_wal: bool = False
    snapshot: str | None = None
    two_phase: bool = False
    failover: bool = False


_FAILOVER_SINCE: Final = 170000
_ALTER_TWO_PHASE_SINCE: Final = 180000


def slot_options(options: Iterable[Option], version: int, *, logical: bool) -> SlotOptions:
    """
    Return what the options of CREATE_REPLICATION_SLOT ask for.

    :raises CommandSyntaxError: an option is there twice or is for the other kind of
        slot, or has a value of the wrong type (42601).
    :raises InvalidParameterValue: no such way to treat the snapshot (22023).
    :raises UnrecognizedOption: no such option (XX000).

    Source: PostgreSQL, src/backend/replication/walsender.c, parseCreateReplSlotOptions.
    """
    for_logical = {"snapshot": True, "reserve_wal": False, "two_phase": True}
    if version >= _FAILOVER_SINCE:
        for_logical["failover"] = True
    wanted = SlotOptions()
    seen = set()
    for option in options:
        name = option[0]
        if name not in for_logical:
            raise UnrecognizedOption(f"unrecognized option: {name}")
        if name in seen or for_logical[name] is not logical:
            raise CommandSyntaxError("conflicting or redundant options")
        seen.add(name)
        if name == "snapshot":
            wanted.snapshot = _text(option)
            if wanted.snapshot not in {"export", "nothing", "use"}:
                raise InvalidParameterValue(
                    f'unrecognized value for CREATE_REPLICATION_SLOT option "snapshot": "{wanted.snapshot}"'
                )
        else:
            setattr(wanted, name, _boolean(option))
    return wanted


def slot_alterations(options: Iterable[Option], version: int) -> Mapping[str, bool]:
    """
    Return what the options of ALTER_REPLICATION_SLOT change, ``failover`` and ``two_phase``.

    :raises CommandSyntaxError: an option is there twice, or is not Boolean (42601).
    :raises UnrecognizedOption: no such option (XX000).

    Source: PostgreSQL, src/backend/replication/walsender.c, ParseAlterReplSlotOptions.
    """
    known = {"failover", "two_phase"} if version >= _ALTER_TWO_PHASE_SINCE else {"failover"}
    changes: dict[str, bool] = {}
    for option in options:
        name = option[0]
        if name not in known:
            raise UnrecognizedOption(f"unrecognized option: {name}")
        if name in changes:
            raise CommandSyntaxError("conflicting or redundant options")
        changes[name] = _boolean(option)
    return changes


# Name → how its value is read, first version that has it.
_BACKUP_OPTIONS: Final[Mapping[str, tuple[Callable[[Option], OptionValue], int]]] = {
    "label": (_text, 90100),
    "progress": (_boolean, 90100),
    "checkpoint": (_text, 90100),
    "wait": (_boolean, 90100),
    "wal": (_boolean, 90100),
    "max_rate": (_number, 90400),
    "tablespace_map": (_boolean, 90500),
    "verify_checksums": (_boolean, 110000),
    "manifest": (_text, 130000),
    "manifest_checksums": (_text, 130000),
    "compression": (_text, 150000),
    "compression_detail": (_text, 150000),
    "target": (_text, 150000),
    "target_detail": (_text, 150000),
    "incremental": (_boolean, 170000),
}
# What 14 and earlier wrote → the same since 15.
_OLD_BACKUP_OPTIONS: Final[Mapping[str, Option]] = {
    "fast": ("checkpoint", "fast"),
    "nowait": ("wait", 0),
    "noverify_checksums": ("verify_checksums", 0),
}
_NEW_BACKUP_OPTIONS_SINCE: Final = 150000


def backup_options(options: Iterable[Option], version: int) -> tuple[tuple[str, OptionValue], ...]:
    """
    Return the options of BASE_BACKUP, of the right types; ranges and words are for whoever runs it.

    :raises CommandSyntaxError: an option is unknown, there twice, or has a value of
        the wrong type (42601).

    Source: PostgreSQL, src/backend/backup/basebackup.c, parse_basebackup_options.
    """
    read: list[tuple[str, OptionValue]] = []
    seen = set()
    for written in options:
        option = written
        if version < _NEW_BACKUP_OPTIONS_SINCE:
            option = _OLD_BACKUP_OPTIONS.get(written[0], written)
        name = option[0]
        read_value, since = _BACKUP_OPTIONS.get(name, (_text, _NEVER))
        if version < since:
            raise CommandSyntaxError(f'unrecognized base backup option: "{name}"')
        if name in seen:
            raise CommandSyntaxError(f'duplicate option "{written[0]}"')
        seen.add(name)
        read.append((name, read_value(option)))
    return tuple(read)
