"""The replication protocol from PostgreSQL 9.3 on, with what later releases changed."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from walsender.errors import (
    ConfigurationLimitExceeded,
    DataCorrupted,
    InsufficientPrivilege,
    WalFileError,
    WalFileMissing,
    WrongState,
    file_error,
)
from walsender.wire.backend import (
    CommandComplete,
    CopyBothResponse,
    DataRow,
    Field,
    ReadyForQuery,
    RowDescription,
)
from walsender.wire.body import encode_text
from walsender.wire.command import parse_command
from walsender.wire.dialect.base import INT4_OID, MAX_SEND_SIZE, TEXT_OID, Dialect, result_set
from walsender.wire.framing import COMMAND_MESSAGES, COPY_MESSAGES, MessageRules
from walsender.wire.frontend import CopyDone
from walsender.wire.replication import NetworkLayout, StandbyMessage, to_pg_timestamp
from walsender.wire.session_sql import parse_session_statement
from walsender.wire.startup import ReplicationMode, parse_replication_mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from walsender.lsn import LSN, Geometry
    from walsender.wire.statements import Command

BOOL_OID: Final = 16
INT8_OID: Final = 20
BYTEA_OID: Final = 17

_XLOG_DATA: Final = struct.Struct("!cicQQq")
_KEEPALIVE: Final = struct.Struct("!cicQqB")
_XLOG_DATA_OVERHEAD: Final = _XLOG_DATA.size - 1  # all but the type byte counts


class ModernDialect(Dialect):
    """PostgreSQL 9.3 and later."""

    copy_both = True
    waits_for_wal = False
    reports_lost_client = False
    reserves_before_authentication = True
    sends_key_data = True

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.cancels = version >= 100000
        self._typmod = -1 if version >= 100000 else 0
        self._layout = NetworkLayout(catalog_xmin=version >= 100000)
        self._lsn_format = "{:X}/{:08X}" if version >= 190000 else "{:X}/{:X}"

    def _text(self, name: str) -> Field:
        return Field(name, TEXT_OID, -1, self._typmod)

    def replication_mode(self, value: str) -> ReplicationMode:
        """See `Dialect`."""
        return parse_replication_mode(value)

    def may_not_replicate(self) -> InsufficientPrivilege:
        """See `Dialect`."""
        if self.version >= 160000:
            return InsufficientPrivilege(
                "permission denied to start WAL sender",
                detail="Only roles with the REPLICATION attribute may start a WAL sender process.",
            )
        return InsufficientPrivilege("must be superuser or replication role to start walsender")

    def message_rules(self, *, streaming: bool) -> MessageRules:
        """See `Dialect`."""
        return COPY_MESSAGES if streaming else COMMAND_MESSAGES

    def decode_standby(self, data: bytes) -> StandbyMessage:
        """See `Dialect`."""
        return self._layout.decode_standby(data)

    def lsn_text(self, lsn: int) -> bytes:
        """Return *lsn* as that server prints it; from 19 on the low half is padded."""
        return self._lsn_format.format(lsn >> 32, lsn & 0xFFFFFFFF).encode()

    def complete(self, tag: str) -> bytes:
        """Return CommandComplete; before 13 every replication command was a ``SELECT``."""
        return CommandComplete(tag if self.version >= 130000 else "SELECT").encode()

    def parse_command(self, query: bytes) -> Command:
        """See `Dialect`."""
        return parse_session_statement(query) or parse_command(query, self.version)

    def identify_system(self, system_identifier: int, timeline: int, flush_lsn: LSN) -> bytes:
        """See `Dialect`.  9.3 has three columns, later servers four; ``dbname`` is NULL, never empty."""
        wide = self.version >= 160000
        fields = [
            self._text("systemid"),
            Field("timeline", INT8_OID if wide else INT4_OID, 8 if wide else 4, self._typmod),
            self._text("xlogpos"),
            self._text("dbname"),
        ]
        row = [b"%d" % system_identifier, b"%d" % timeline, self.lsn_text(flush_lsn), None]
        columns = 4 if self.version >= 90400 else 3
        return result_set(fields[:columns], row[:columns]) + self.complete("IDENTIFY_SYSTEM")

    def show(self, name: str, value: str) -> bytes:
        """Return the answer to SHOW of one parameter."""
        return result_set([self._text(name)], [encode_text(value)]) + self.complete("SHOW")

    def show_all(self, rows: Sequence[tuple[str, str, str]]) -> bytes:
        """Return the answer to SHOW ALL: name, setting, description of each."""
        fields = tuple(self._text(name) for name in ("name", "setting", "description"))
        data = (DataRow(tuple(map(encode_text, row))).encode() for row in rows)
        return RowDescription(fields).encode() + b"".join(data) + self.complete("SHOW")

    @property
    def reports_last(self) -> bool:
        """Whether a changed parameter is reported when all else has been said; before 14, at once."""
        return self.version >= 140000

    def set_config(self, value: str) -> bytes:
        """Return the answer to a SELECT of set_config: the new value."""
        row = result_set([self._text("set_config")], [encode_text(value)])
        return row + CommandComplete("SELECT 1").encode()

    def is_in_recovery(self) -> bytes:
        """Return the answer to a SELECT of pg_is_in_recovery: like a standby, we write no WAL of our own."""
        field = Field("pg_is_in_recovery", BOOL_OID, 1, self._typmod)
        return result_set([field], [b"t"]) + CommandComplete("SELECT 1").encode()

    def timeline_history_fields(self) -> bytes:
        """Return how the answer to TIMELINE_HISTORY begins; it is sent even if no file is found then."""
        content_type = TEXT_OID if self.version >= 140000 else BYTEA_OID
        fields = (self._text("filename"), Field("content", content_type, -1, self._typmod))
        return RowDescription(fields).encode()

    def timeline_history(self, filename: str, content: bytes) -> bytes:
        """Return the rest of the answer to TIMELINE_HISTORY; the content goes out byte for byte."""
        return DataRow((filename.encode(), content)).encode() + self.complete("TIMELINE_HISTORY")

    def create_replication_slot(self, name: str) -> bytes:
        """
        Return the answer to CREATE_REPLICATION_SLOT of a physical slot.

        No position is told, not even with RESERVE_WAL.
        """
        names = ("slot_name", "consistent_point", "snapshot_name", "output_plugin")
        row = (name.encode(), self.lsn_text(0), None, None)
        return result_set([self._text(field) for field in names], row) + self.complete(
            "CREATE_REPLICATION_SLOT"
        )

    def drop_replication_slot(self) -> bytes:
        """Return the answer to DROP_REPLICATION_SLOT: no rows."""
        return self.complete("DROP_REPLICATION_SLOT")

    @property
    def reserved_slot_names(self) -> frozenset[str]:
        """Names of slots that only the server itself may make."""
        return frozenset({"pg_conflict_detection"} if self.version >= 190000 else ())

    def slots_in_use(self, error: ConfigurationLimitExceeded) -> ConfigurationLimitExceeded:
        """Return *error* as this version words it: settings stand in quotes since 17."""
        hint = error.hint if error.hint is None or self.version >= 170000 else error.hint.replace('"', "")
        return ConfigurationLimitExceeded(error.message, detail=error.detail, hint=hint)

    def read_replication_slot(self, restart: tuple[LSN, int] | None, *, exists: bool) -> bytes:
        """
        Return the answer to READ_REPLICATION_SLOT.

        :param restart: where WAL is needed from and which timeline that is on; ``None``: no WAL is reserved.
        :param exists: if there is no such slot, the row has three NULLs.
        """
        row: list[bytes | None] = [b"physical" if exists else None, None, None]
        if restart is not None:
            row[1:] = [self.lsn_text(restart[0]), b"%d" % restart[1]]
        fields = (
            self._text("slot_type"),
            self._text("restart_lsn"),
            Field("restart_tli", INT8_OID, 8, self._typmod),
        )
        return result_set(fields, row) + self.complete("READ_REPLICATION_SLOT")

    def invalidated_slot(self, name: str, reason: str) -> WrongState | None:
        """
        Return the error for a stream with a slot that has been invalidated; before 18 there is none.

        Source: PostgreSQL, src/backend/replication/slot.c, ReplicationSlotAcquire.
        """
        if self.version < 180000:
            return None
        return WrongState(
            f'can no longer access replication slot "{name}"',
            detail=f'This replication slot has been invalidated due to "{reason}".',
        )

    def start_response(self) -> bytes:
        """See `Dialect`."""
        return CopyBothResponse().encode()

    def stream_result(self, next_timeline: int | None, switchpoint: LSN) -> bytes:
        """
        Return what follows both CopyDones: where a historic timeline goes on, then two CommandCompletes.

        :param next_timeline: ``None`` if the streamed timeline is the current one.
        """
        result = b""
        if next_timeline is not None:
            length = 8 if self.version >= 100000 else -1
            fields = (Field("next_tli", INT8_OID, length, self._typmod), self._text("next_tli_startpos"))
            result = result_set(fields, (b"%d" % next_timeline, self.lsn_text(switchpoint)))
        started = CommandComplete("START_STREAMING").encode()
        return result + started + self.complete("START_REPLICATION") + ReadyForQuery().encode()

    @property
    def copy_done(self) -> bytes:
        """Our CopyDone."""
        return CopyDone().encode()

    def message_end(self, start: int, end: int, geometry: Geometry, read_size: int = MAX_SEND_SIZE) -> int:
        """
        See `Dialect`: one read, and never into the next segment's file.

        PostgreSQL's messages have 128 KiB at most, which is its sender's affair: the protocol
        has no such limit, and clients take a message as it comes.

        Source: PostgreSQL, src/backend/replication/walsender.c, XLogSendPhysical.
        """
        message_end = start + read_size
        if end > message_end:
            end = geometry.page_start(message_end)
        segment_end = (start // geometry.segment_size + 1) * geometry.segment_size
        return min(end, segment_end)

    def wal_header(self, start: LSN, end: LSN, seconds: float, length: int) -> bytes:
        """See `Dialect`."""
        return _XLOG_DATA.pack(b"d", _XLOG_DATA_OVERHEAD + length, b"w", start, end, to_pg_timestamp(seconds))

    def keepalive(self, sent: LSN, seconds: float, *, reply_requested: bool) -> bytes:
        """See `Dialect`."""
        return _KEEPALIVE.pack(
            b"d", _KEEPALIVE.size - 1, b"k", sent, to_pg_timestamp(seconds), reply_requested
        )

    def open_error(
        self, name: str, geometry: Geometry, segment_number: int, error: OSError, earliest: LSN
    ) -> WalFileError:
        """
        See `Dialect`.  The detail is ours: it spares the administrator a look into the directory.

        Source: PostgreSQL, src/backend/replication/walsender.c, WalSndSegmentOpen.
        """
        if error.errno != errno.ENOENT:
            return file_error(f'could not open file "pg_wal/{name}"', error)
        detail = f"The earliest WAL position that is held here is {self.lsn_text(earliest).decode()}."
        return WalFileMissing(
            f"requested WAL segment {name} has already been removed", detail=detail if earliest else None
        )

    def read_error(
        self, name: str, geometry: Geometry, position: int, length: int, wanted: int, error: OSError | None
    ) -> WalFileError:
        """
        See `Dialect`.

        Source: PostgreSQL, src/backend/access/transam/xlogutils.c, WALReadRaiseError.
        """
        offset = position % geometry.segment_size
        action = f"could not read from WAL segment {name}, offset {offset}"
        if error is None:
            return DataCorrupted(f"{action}: read {length} of {wanted}")
        return file_error(action, error)
