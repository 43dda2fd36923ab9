"""Answers to the commands of a walsender that is not streaming, each as the bytes of its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from walsender.errors import FeatureNotSupported, StartPositionRefused, UndefinedObject
from walsender.wire import (
    AlterReplicationSlot,
    BaseBackup,
    Command,
    CreateReplicationSlot,
    DropReplicationSlot,
    IdentifySystem,
    ReadReplicationSlot,
    Show,
    StartReplication,
    TimelineHistory,
    UploadManifest,
)
from walsender.wire.dialect import Dialect, ModernDialect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from walsender.lsn import LSN
    from walsender.sender.parameters import SessionParameters
    from walsender.source import IWalSource, TimelineEnd

_NO_DATA_FILES: Final = (
    "This server holds WAL and no data files: take the base backup from the primary or a standby."
)


class CommandAnswers:
    """
    Answers commands for one connection.

    :param source: is *ready*.
    """

    def __init__(self, source: IWalSource, dialect: Dialect, parameters: SessionParameters) -> None:
        self._source = source
        self._dialect = dialect
        self._parameters = parameters
        self._answers: Mapping[type, Callable[..., bytes]] = {
            IdentifySystem: self._identify_system,
            Show: self._show,
            TimelineHistory: self._timeline_history,
            ReadReplicationSlot: self._read_replication_slot,
            CreateReplicationSlot: self._create_replication_slot,
            DropReplicationSlot: self._no_such_slot,
            AlterReplicationSlot: self._no_such_slot,
            BaseBackup: self._no_base_backup,
            UploadManifest: self._no_base_backup,
        }

    def answer(self, command: Command) -> bytes:
        """
        Return the answer to *command*, all but ReadyForQuery.

        :raises walsender.errors.WalsenderError: it fails.
        """
        notices = b"".join(notice.encode() for notice in command.notices)
        return notices + self._answers[type(command)](command)

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

    def _timeline_history(self, command: TimelineHistory) -> bytes:
        content = self._source.history_file(command.timeline)
        return self._modern.timeline_history(f"{command.timeline:08X}.history", content)

    def _read_replication_slot(self, _: ReadReplicationSlot) -> bytes:
        return self._modern.read_replication_slot()

    def _create_replication_slot(self, _: CreateReplicationSlot) -> bytes:
        raise FeatureNotSupported("replication slots are not supported by this version of walsender")

    def _no_such_slot(self, command: DropReplicationSlot | AlterReplicationSlot) -> bytes:
        raise UndefinedObject(f'replication slot "{command.slot}" does not exist')

    def _no_base_backup(self, _: BaseBackup | UploadManifest) -> bytes:
        raise FeatureNotSupported("walsender cannot take a base backup", hint=_NO_DATA_FILES)


def check_start(command: StartReplication, source: IWalSource) -> tuple[int, int, TimelineEnd]:
    """
    Return timeline, start position and that timeline's end for a START_REPLICATION that may begin.

    :raises walsender.errors.WalsenderError: it may not.

    Source: PostgreSQL, src/backend/replication/walsender.c, StartReplication.
    """
    if command.logical:
        raise FeatureNotSupported(
            "logical replication is not supported by walsender",
            hint="Logical decoding needs the catalogs: connect to the primary or to a standby.",
        )
    if command.slot is not None:
        raise UndefinedObject(f'replication slot "{command.slot}" does not exist')
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
