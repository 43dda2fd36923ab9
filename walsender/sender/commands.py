"""Answers to the commands of a walsender that is not streaming, each as the bytes of its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from walsender.errors import (
    ConfigurationLimitExceeded,
    FeatureNotSupported,
    StartPositionRefused,
    UndefinedObject,
    WalFileMissing,
)
from walsender.lsn import INVALID_LSN
from walsender.wal import TimelineHistory as History
from walsender.wire import (
    AlterReplicationSlot,
    BaseBackup,
    Command,
    CommandComplete,
    CreateReplicationSlot,
    DropReplicationSlot,
    IdentifySystem,
    ReadReplicationSlot,
    ResetParameter,
    SelectIsInRecovery,
    SelectSetConfig,
    SetParameter,
    Show,
    StartReplication,
    TimelineHistory,
    UploadManifest,
)
from walsender.wire.dialect import Dialect, ModernDialect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.defer import Deferred

    from walsender.lsn import LSN, Geometry
    from walsender.replication_slots import ReplicationSlots
    from walsender.sender.parameters import SessionParameters
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.source import IWalSource, TimelineEnd
    from walsender.wire import NoticeResponse

_NO_DATA_FILES: Final = (
    "This server holds WAL and no data files: take the base backup from the primary or a standby."
)
_NO_CATALOGS: Final = "Logical decoding needs the catalogs: connect to the primary or to a standby."


class CommandAnswers:
    """
    Answers commands for one connection.

    :param source: is *ready*.
    :param entry: the connection's; it is told of a new application name.
    :param write: takes what the client is sent before a command may still fail.
    """

    def __init__(
        self,
        source: IWalSource,
        dialect: Dialect,
        parameters: SessionParameters,
        slots: ReplicationSlots,
        entry: WalSenderEntry,
        write: Callable[[bytes], object],
    ) -> None:
        self._source = source
        self._dialect = dialect
        self._parameters = parameters
        self._slots = slots
        self._entry = entry
        self._write = write
        self._process_id = entry.process_id  # whose slots the session's are
        self._answers: Mapping[type, Callable[..., bytes | Deferred[bytes]]] = {
            IdentifySystem: self._identify_system,
            Show: self._show,
            TimelineHistory: self._timeline_history,
            ReadReplicationSlot: self._read_replication_slot,
            CreateReplicationSlot: self._create_replication_slot,
            DropReplicationSlot: self._drop_replication_slot,
            AlterReplicationSlot: self._alter_replication_slot,
            BaseBackup: self._no_base_backup,
            UploadManifest: self._no_base_backup,
            SetParameter: self._set_parameter,
            ResetParameter: self._reset_parameter,
            SelectSetConfig: self._select_set_config,
            SelectIsInRecovery: lambda _: self._modern.is_in_recovery(),
        }

    def answer(self, command: Command) -> bytes | Deferred[bytes]:
        """
        Return the answer to *command*, all but ReadyForQuery; a Deferred if it must wait for something.

        :raises walsender.errors.WalsenderError: it fails; a Deferred may too.
        """
        notices = b"".join(notice.encode() for notice in command.notices)
        answer = self._answers[type(command)](command)
        if isinstance(answer, bytes):
            return notices + answer
        return answer.addCallback(lambda content: notices + content)

    @property
    def _modern(self) -> ModernDialect:
        assert isinstance(self._dialect, ModernDialect), "no grammar before 9.3 has such a command"
        return self._dialect

    def _identify_system(self, _: IdentifySystem) -> bytes:
        source = self._source
        flush_lsn = source.geometry.lsn(source.flush_position)
        return self._dialect.identify_system(source.system_identifier, source.timeline, flush_lsn)

    def _show(self, command: Show) -> bytes:
        if command.name.lower() == "all":
            return self._modern.show_all(self._parameters.show_all())
        return self._modern.show(*self._parameters.show(command.name))

    def _set_parameter(self, command: SetParameter) -> bytes:
        return self._changing(lambda: self._parameters.set_list(command.name, command.values), "SET")

    def _reset_parameter(self, command: ResetParameter) -> bytes:
        return self._changing(lambda: self._parameters.reset(command.name), command.tag)

    def _select_set_config(self, command: SelectSetConfig) -> bytes:
        before = dict(self._parameters.reported)
        notice = self._parameters.set(command.name, command.value)
        _, value = self._parameters.show(command.name)
        if command.local:  # undone when the transaction ends, which is now
            self._parameters.restore(before)
        return self._changed(before, notice, self._modern.set_config(value))

    def _changing(self, change: Callable[[], NoticeResponse | None], tag: str) -> bytes:
        before = dict(self._parameters.reported)
        return self._changed(before, change(), CommandComplete(tag).encode())

    def _changed(self, before: Mapping[str, str], notice: NoticeResponse | None, answer: bytes) -> bytes:
        """Return the messages of an answer to a statement that may have changed parameters."""
        self._entry.application_name = self._parameters.application_name
        statuses = self._modern.parameters_changed(before, self._parameters.reported)
        told = b"" if notice is None else notice.encode()
        return told + (answer + statuses if self._modern.reports_last else statuses + answer)

    def _timeline_history(self, command: TimelineHistory) -> bytes:
        # PostgreSQL describes the row before it looks for the file.
        self._write(self._modern.timeline_history_fields())
        content = self._source.history_file(command.timeline)
        return self._modern.timeline_history(f"{command.timeline:08X}.history", content)

    def _read_replication_slot(self, command: ReadReplicationSlot) -> bytes:
        slot = self._slots.get(command.slot)
        if slot is None or not slot.restart_lsn:
            return self._modern.read_replication_slot(None, exists=slot is not None)
        restart = slot.restart_lsn, self._timeline_at(slot.restart_lsn)
        return self._modern.read_replication_slot(restart, exists=True)

    def _timeline_at(self, lsn: LSN) -> int:
        """Return which timeline of the current history has *lsn*."""
        source = self._source
        try:
            content = source.history_file(source.timeline)
        except WalFileMissing:
            return int(source.timeline)  # the first timeline has none
        return History.parse(source.timeline, content, source.geometry).timeline_at(lsn)

    def _create_replication_slot(self, command: CreateReplicationSlot) -> Deferred[bytes]:
        if command.plugin is not None:
            raise FeatureNotSupported(
                "logical replication slots are not supported by walsender", hint=_NO_CATALOGS
            )
        try:
            created = self._slots.create(
                command.slot,
                self._process_id,
                temporary=command.temporary,
                restart_lsn=reserved_from(self._source) if command.reserve_wal else INVALID_LSN,
                reserved=self._modern.reserved_slot_names,
            )
        except ConfigurationLimitExceeded as error:
            raise self._modern.slots_in_use(error) from None
        return created.addCallback(lambda _: self._modern.create_replication_slot(command.slot))

    def _drop_replication_slot(self, command: DropReplicationSlot) -> Deferred[bytes]:
        dropped = self._slots.drop(command.slot, self._process_id, wait=command.wait)
        return dropped.addCallback(lambda _: self._modern.drop_replication_slot())

    def _alter_replication_slot(self, command: AlterReplicationSlot) -> bytes:
        if self._slots.get(command.slot) is None:
            raise UndefinedObject(f'replication slot "{command.slot}" does not exist')
        raise FeatureNotSupported("cannot use ALTER_REPLICATION_SLOT with a physical replication slot")

    def _no_base_backup(self, _: BaseBackup | UploadManifest) -> bytes:
        raise FeatureNotSupported("walsender cannot take a base backup", hint=_NO_DATA_FILES)


def reserved_from(source: IWalSource) -> LSN:
    """
    Return from where a new slot reserves WAL: the start of the newest segment.

    A server takes the last checkpoint's redo pointer, since a base backup begins there; we have
    none, and a client begins at the start of a segment.
    """
    geometry: Geometry = source.geometry
    return geometry.lsn(geometry.segment_start(geometry.segment_number(source.flush_position)))


def check_physical(command: StartReplication) -> None:
    """
    Check that a START_REPLICATION asks for WAL itself.

    :raises walsender.errors.FeatureNotSupported: it wants it decoded.
    """
    if command.logical:
        raise FeatureNotSupported("logical replication is not supported by walsender", hint=_NO_CATALOGS)


def check_start(command: StartReplication, source: IWalSource) -> tuple[int, int, TimelineEnd]:
    """
    Return timeline, start position and that timeline's end for a START_REPLICATION that may begin.

    :raises walsender.errors.WalsenderError: it may not.

    Source: PostgreSQL, src/backend/replication/walsender.c, StartReplication.
    """
    timeline = source.timeline if command.timeline is None else command.timeline
    end = source.end_of(timeline)
    geometry = source.geometry
    if end.next_timeline is not None and geometry.position(command.start) > end.position:
        raise not_in_history(command.start, timeline, geometry.lsn(end.position))
    return timeline, geometry.position(command.start), end


def check_not_ahead(command: StartReplication, source: IWalSource, end: TimelineEnd) -> bool:
    """
    Check that the start is not far ahead of what may be sent; asked after the stream has been announced.

    PostgreSQL refuses whatever is ahead.  A standby that has read further from an archive than its upstream
    has received would then be turned away again and again, so by up to one segment it may be.

    :returns: whether it is ahead at all, and the stream must be held.
    :raises walsender.errors.StartPositionRefused: it is by more than a segment.
    """
    geometry = source.geometry
    ahead = geometry.position(command.start) - end.position if end.next_timeline is None else 0
    if ahead > geometry.segment_size:
        raise ahead_of_flush(command.start, geometry.lsn(end.position))
    return ahead > 0


def ahead_of_flush(start: LSN, flush_lsn: LSN) -> StartPositionRefused:
    """Return the error for a start behind what may be sent."""
    return StartPositionRefused(
        f"requested starting point {start} is ahead of the WAL flush position of this server {flush_lsn}"
    )


def not_in_history(start: LSN, timeline: int, switchpoint: LSN) -> StartPositionRefused:
    """Return the error for a start behind the point where *timeline* was left."""
    return StartPositionRefused(
        f"requested starting point {start} on timeline {timeline} is not in this server's history",
        detail=f"This server's history forked from timeline {timeline} at {switchpoint}.",
    )
