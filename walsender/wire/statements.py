"""What a replication command says: one class per command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from walsender.wire.session_sql import SessionStatement

if TYPE_CHECKING:
    from walsender.lsn import LSN
    from walsender.wire.options import OptionValue
    from walsender.wire.reports import NoticeResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """
    Base of all commands.

    :cvar keyword: its first word.
    :ivar notices: what the client is told before the answer.
    """

    keyword: ClassVar[str]
    notices: tuple[NoticeResponse, ...] = ()


@dataclass(frozen=True, slots=True)
class IdentifySystem(_Statement):
    """``IDENTIFY_SYSTEM``."""

    keyword: ClassVar[str] = "IDENTIFY_SYSTEM"


@dataclass(frozen=True, slots=True)
class StartReplication(_Statement):
    """
    ``START_REPLICATION [SLOT slot] [PHYSICAL] X/X [TIMELINE n]``, or with ``LOGICAL``.

    :ivar start: where the stream shall begin.
    :ivar timeline: ``None``: the current one.
    :ivar options: of the output plugin, in order, with repetitions.
    """

    keyword: ClassVar[str] = "START_REPLICATION"
    start: LSN
    timeline: int | None = None
    slot: str | None = None
    logical: bool = False
    options: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class TimelineHistory(_Statement):
    """``TIMELINE_HISTORY n``."""

    keyword: ClassVar[str] = "TIMELINE_HISTORY"
    timeline: int


@dataclass(frozen=True, slots=True)
class Show(_Statement):
    """``SHOW name``; ``SHOW ALL`` has the name ``all``."""

    keyword: ClassVar[str] = "SHOW"
    name: str


@dataclass(frozen=True, slots=True)
class CreateReplicationSlot(_Statement):
    """
    ``CREATE_REPLICATION_SLOT slot [TEMPORARY] PHYSICAL | LOGICAL plugin``, with options.

    :ivar plugin: ``None``: the slot is physical.
    :ivar snapshot: ``export``, ``nothing`` or ``use``; ``None``: not said.
    """

    keyword: ClassVar[str] = "CREATE_REPLICATION_SLOT"
    slot: str
    temporary: bool = False
    plugin: str | None = None
    reserve_wal: bool = False
    snapshot: str | None = None
    two_phase: bool = False
    failover: bool = False


@dataclass(frozen=True, slots=True)
class DropReplicationSlot(_Statement):
    """``DROP_REPLICATION_SLOT slot [WAIT]``."""

    keyword: ClassVar[str] = "DROP_REPLICATION_SLOT"
    slot: str
    wait: bool = False


@dataclass(frozen=True, slots=True)
class ReadReplicationSlot(_Statement):
    """``READ_REPLICATION_SLOT slot``."""

    keyword: ClassVar[str] = "READ_REPLICATION_SLOT"
    slot: str


@dataclass(frozen=True, slots=True)
class AlterReplicationSlot(_Statement):
    """``ALTER_REPLICATION_SLOT slot (options)``; ``None``: not to be changed."""

    keyword: ClassVar[str] = "ALTER_REPLICATION_SLOT"
    slot: str
    failover: bool | None = None
    two_phase: bool | None = None


@dataclass(frozen=True, slots=True)
class BaseBackup(_Statement):
    """
    ``BASE_BACKUP [options]``.

    :ivar options: in order, by their names since 15, also if an older server's
        spelling was used (``FAST`` is ``checkpoint``, ``NOWAIT`` is ``wait``).
    """

    keyword: ClassVar[str] = "BASE_BACKUP"
    options: tuple[tuple[str, OptionValue], ...] = ()


@dataclass(frozen=True, slots=True)
class UploadManifest(_Statement):
    """``UPLOAD_MANIFEST``."""

    keyword: ClassVar[str] = "UPLOAD_MANIFEST"


Command: TypeAlias = (
    IdentifySystem
    | StartReplication
    | TimelineHistory
    | Show
    | CreateReplicationSlot
    | DropReplicationSlot
    | ReadReplicationSlot
    | AlterReplicationSlot
    | BaseBackup
    | UploadManifest
    | SessionStatement
)
