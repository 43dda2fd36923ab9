"""
Dialects: everything on the wire that depends on the server's era, one object per connection.

`ModernDialect` is the replication protocol from PostgreSQL 9.3 on, with what
later releases changed.  `FirstDialect` is the walsender as it first appeared in
the 8.5 (later 9.0) development tree in February 2010.  There is no
``if version`` outside this module and the command grammar.
"""

from __future__ import annotations

import errno
import os
import struct
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from walsender.errors import (
    DataCorrupted,
    InsufficientPrivilege,
    ProtocolViolation,
    TooManyConnections,
    WalFileError,
    WalFileMissing,
    WalsenderError,
    file_error,
)
from walsender.wire.backend import (
    CommandComplete,
    CopyBothResponse,
    CopyOutResponse,
    DataRow,
    ErrorResponse,
    Field,
    ParameterStatus,
    ReadyForQuery,
    RowDescription,
)
from walsender.wire.command import parse_command
from walsender.wire.first_dialect import HANDSHAKE_MESSAGES, parse_first_dialect_query
from walsender.wire.framing import (
    COMMAND_MESSAGES,
    COPY_MESSAGES,
    MessageRules,
)
from walsender.wire.frontend import CopyDone, FrontendMessage, Terminate
from walsender.wire.replication import NetworkLayout, StandbyMessage, to_pg_timestamp
from walsender.wire.startup import ReplicationMode, parse_first_replication_mode, parse_replication_mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from walsender.lsn import LSN, Geometry
    from walsender.wire.statements import Command

MAX_SEND_SIZE: Final = 16 * 8192
"""Most WAL, in bytes, in one message of the modern protocol."""

ByteOrder = Literal["little", "big"]

TEXT_OID: Final = 25
INT4_OID: Final = 23
INT8_OID: Final = 20
BYTEA_OID: Final = 17

# Parameters that a server reports by ParameterStatus: the first version of a
# set, then the set (guc_tables.c, GUC_REPORT).
_REPORTED_90: Final = (
    "application_name", "client_encoding", "DateStyle", "integer_datetimes", "IntervalStyle",
    "is_superuser", "server_encoding", "server_version", "session_authorization",
    "standard_conforming_strings", "TimeZone",
)  # fmt: skip
_REPORTED_SINCE: Final = (
    (140000, ("default_transaction_read_only", "in_hot_standby")),
    (160000, ("scram_iterations",)),
    (180000, ("search_path",)),
)


def result_set(fields: Sequence[Field], row: Sequence[bytes | None]) -> bytes:
    """Return the messages of a result of one row, without its CommandComplete."""
    return RowDescription(tuple(fields)).encode() + DataRow(tuple(row)).encode()


class Dialect(ABC):
    """
    What one server era puts on the wire.

    :ivar version: of the server whose WAL is sent, as 90600 or 180000.
    :cvar copy_both: the standby may talk while WAL streams: replies, keepalives, CopyDone, more commands.
    :cvar reserves_before_authentication: a walsender place is taken first; otherwise last.
    :cvar sends_key_data: BackendKeyData is part of the greeting.
    """

    copy_both: ClassVar[bool]
    reserves_before_authentication: ClassVar[bool]
    sends_key_data: ClassVar[bool]

    def __init__(self, version: int) -> None:
        self.version = version

    @property
    def reported_parameters(self) -> tuple[str, ...]:
        """Names of the parameters that the greeting reports."""
        later = (names for since, names in _REPORTED_SINCE if self.version >= since)
        return _REPORTED_90 + tuple(name for names in later for name in names)

    def greeting(self, parameters: Mapping[str, str]) -> bytes:
        """Return the ParameterStatus messages for *parameters*, in the order of `reported_parameters`."""
        return b"".join(ParameterStatus(name, parameters[name]).encode() for name in self.reported_parameters)

    @abstractmethod
    def parse_command(self, query: bytes) -> Command:
        """
        Return the command in a Query message's text.

        :raises WalsenderError: it is none, worded as that era words it.
        """

    @abstractmethod
    def identify_system(self, system_identifier: int, timeline: int, flush_lsn: LSN) -> bytes:
        """Return the whole answer to IDENTIFY_SYSTEM but for ReadyForQuery."""

    @abstractmethod
    def start_response(self) -> bytes:
        """Return the message that begins the stream."""

    def sends_from(self, start: int) -> bool:
        """Return whether a stream from *start* ever sends anything."""
        return True

    @abstractmethod
    def message_end(self, start: int, end: int, geometry: Geometry, read_size: int = MAX_SEND_SIZE) -> int:
        """
        Return the position up to which one message from *start* reaches; at most *end*.

        :param read_size: bytes that are read and handed over at a time; a message that is one
            read spares a turn, where the dialect leaves the choice.

        A record must never be cut but at a page boundary: a standby that
        reads half a header from the stream blames the stream.
        """

    @abstractmethod
    def wal_header(self, start: LSN, end: LSN, seconds: float, length: int) -> bytes:
        """
        Return what goes before *length* bytes of WAL: CopyData's own header and the XLogData header.

        :param end: how far WAL could be sent now.
        :param seconds: the time, since 1970.
        """

    @abstractmethod
    def keepalive(self, sent: LSN, seconds: float, *, reply_requested: bool) -> bytes:
        """Return a whole keepalive message; empty where there are none."""

    @abstractmethod
    def open_error(
        self, name: str, geometry: Geometry, segment_number: int, error: OSError, earliest: LSN
    ) -> WalFileError:
        """
        Return the error for a segment file that cannot be opened.

        :param name: of the segment file.
        :param earliest: the lowest position that could be sent instead; 0 if none.
        """

    @abstractmethod
    def read_error(
        self, name: str, geometry: Geometry, position: int, length: int, wanted: int, error: OSError | None
    ) -> WalFileError:
        """
        Return the error for WAL that could not be read.

        :param name: of the segment file.
        :param position: of the first byte of the read.
        :param length: how many bytes could be read.
        :param error: ``None`` if the file ended there.
        """

    @abstractmethod
    def replication_mode(self, value: str) -> ReplicationMode:
        """
        Return what the start-up parameter ``replication=value`` asks for.

        :raises InvalidStartupParameter: nothing that there is.
        """

    @abstractmethod
    def may_not_replicate(self) -> InsufficientPrivilege:
        """Return the error for a user who may come in but not replicate."""

    @abstractmethod
    def message_rules(self, *, streaming: bool) -> MessageRules:
        """Return which messages are read, during a stream and outside."""

    def closes_at(self, type_byte: int | None, *, streaming: bool) -> bool:
        """Return whether this first byte of a message alone ends the connection quietly."""
        return False

    def unexpected_message(self, message: FrontendMessage) -> WalsenderError:
        """Return the error for a message that is well framed and not legal now."""
        return ProtocolViolation(f"invalid frontend message type {message.type_byte}")

    def error(self, error: WalsenderError, *, fatal: bool = False) -> bytes:
        """
        Return *error* as a message.

        :param fatal: it ends the connection, whatever its own severity is.
        """
        severity = "FATAL" if fatal else self.severity(error)
        return ErrorResponse.from_error(error, severity=severity).encode(
            unlocalized_severity=self.version >= 90600 and self.copy_both
        )

    def severity(self, error: WalsenderError) -> str:
        """Return what severity *error* has here; ``FATAL`` ends the connection."""
        return error.severity

    def too_many_connections(self, error: TooManyConnections) -> TooManyConnections:
        """Return *error* as this era words it."""
        return error

    @property
    def farewell(self) -> bytes:
        """What ends a stream when the server stops: no CopyDone, no ReadyForQuery."""
        return CommandComplete("COPY 0").encode()


_XLOG_DATA: Final = struct.Struct("!cicQQq")
_KEEPALIVE: Final = struct.Struct("!cicQqB")
_XLOG_DATA_OVERHEAD: Final = _XLOG_DATA.size - 1  # all but the type byte counts


class ModernDialect(Dialect):
    """PostgreSQL 9.3 and later."""

    copy_both = True
    reserves_before_authentication = True
    sends_key_data = True

    def __init__(self, version: int) -> None:
        super().__init__(version)
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
        """
        Return what a standby reports in a CopyData.

        :raises InvalidMessage: it is cut off.
        :raises UnknownStandbyMessage: it begins with no known tag.
        """
        return self._layout.decode_standby(data)

    def lsn_text(self, lsn: int) -> bytes:
        """Return *lsn* as that server prints it; from 19 on the low half is padded."""
        return self._lsn_format.format(lsn >> 32, lsn & 0xFFFFFFFF).encode()

    def complete(self, tag: str) -> bytes:
        """Return CommandComplete; before 13 every replication command was a ``SELECT``."""
        return CommandComplete(tag if self.version >= 130000 else "SELECT").encode()

    def parse_command(self, query: bytes) -> Command:
        """See `Dialect`."""
        return parse_command(query, self.version)

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
        return result_set([self._text(name)], [value.encode()]) + self.complete("SHOW")

    def show_all(self, rows: Sequence[tuple[str, str, str]]) -> bytes:
        """Return the answer to SHOW ALL: name, setting, description of each."""
        fields = tuple(self._text(name) for name in ("name", "setting", "description"))
        data = (DataRow(tuple(column.encode() for column in row)).encode() for row in rows)
        return RowDescription(fields).encode() + b"".join(data) + self.complete("SHOW")

    def timeline_history(self, filename: str, content: bytes) -> bytes:
        """Return the answer to TIMELINE_HISTORY; the content goes out byte for byte."""
        content_type = TEXT_OID if self.version >= 140000 else BYTEA_OID
        fields = (self._text("filename"), Field("content", content_type, -1, self._typmod))
        return result_set(fields, (filename.encode(), content)) + self.complete("TIMELINE_HISTORY")

    def read_replication_slot(self) -> bytes:
        """Return the answer to READ_REPLICATION_SLOT of a slot that does not exist: three NULLs."""
        fields = (
            self._text("slot_type"),
            self._text("restart_lsn"),
            Field("restart_tli", INT8_OID, 8, self._typmod),
        )
        return result_set(fields, (None, None, None)) + self.complete("READ_REPLICATION_SLOT")

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
        See `Dialect`: at most one read, and never into the next segment's file.

        Source: PostgreSQL, src/backend/replication/walsender.c, XLogSendPhysical.
        """
        message_end = start + min(read_size, MAX_SEND_SIZE)
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


_CLOSING_MESSAGES: Final = MessageRules({}, refusal="invalid standby closing message type {code}")


class FirstDialect(Dialect):
    """
    The walsender of February 2010: CopyOut, no replies, no keepalives, every error fatal.

    :param byte_order: of the WAL's pages; message headers are in it, as the
        server that wrote them sent its own structures.

    Source: PostgreSQL, src/backend/replication/walsender.c as first committed for 8.5.
    """

    copy_both = False
    reserves_before_authentication = False
    sends_key_data = False

    def __init__(self, version: int, byte_order: ByteOrder) -> None:
        super().__init__(version)
        self._position = struct.Struct("<II" if byte_order == "little" else ">II")

    @property
    def reported_parameters(self) -> tuple[str, ...]:
        """As 9.0 reports them, whatever WAL is sent."""
        return _REPORTED_90

    def severity(self, error: WalsenderError) -> str:
        """See `Dialect`."""
        return "FATAL"

    def too_many_connections(self, error: TooManyConnections) -> TooManyConnections:
        """See `Dialect`."""
        return TooManyConnections("sorry, too many standbys already")

    def replication_mode(self, value: str) -> ReplicationMode:
        """See `Dialect`."""
        return parse_first_replication_mode(value)

    def may_not_replicate(self) -> InsufficientPrivilege:
        """See `Dialect`."""
        return InsufficientPrivilege("must be superuser to start walsender")

    def message_rules(self, *, streaming: bool) -> MessageRules:
        """See `Dialect`."""
        return _CLOSING_MESSAGES if streaming else HANDSHAKE_MESSAGES

    def closes_at(self, type_byte: int | None, *, streaming: bool) -> bool:
        """See `Dialect`: while streaming, Terminate is known by its type byte."""
        return streaming and type_byte == Terminate.type_byte

    def unexpected_message(self, message: FrontendMessage) -> WalsenderError:
        """See `Dialect`."""
        return ProtocolViolation(f"invalid standby handshake message type {message.type_byte}")

    def parse_command(self, query: bytes) -> Command:
        """See `Dialect`."""
        return parse_first_dialect_query(query)

    def identify_system(self, system_identifier: int, timeline: int, flush_lsn: LSN) -> bytes:
        """See `Dialect`: two columns, and no position yet."""
        fields = (Field("systemid", TEXT_OID, -1, 0), Field("timeline", INT4_OID, 4, 0))
        row = (b"%d" % system_identifier, b"%d" % timeline)
        return result_set(fields, row) + CommandComplete("SELECT").encode()

    def start_response(self) -> bytes:
        """See `Dialect`."""
        return CopyOutResponse().encode()

    def sends_from(self, start: int) -> bool:
        """See `Dialect`: 0/0 is no position, and nothing is before or behind it."""
        return start != 0

    def message_end(self, start: int, end: int, geometry: Geometry, read_size: int = MAX_SEND_SIZE) -> int:
        """See `Dialect`: at most half a segment, across segments and log files."""
        return min(end, geometry.page_start(start + geometry.segment_size // 2))

    def wal_header(self, start: LSN, end: LSN, seconds: float, length: int) -> bytes:
        """See `Dialect`: the start alone, as log id and offset."""
        copy_data = b"d" + (4 + 1 + 8 + length).to_bytes(4, "big")
        return copy_data + b"w" + self._position.pack(start >> 32, start & 0xFFFFFFFF)

    def keepalive(self, sent: LSN, seconds: float, *, reply_requested: bool) -> bytes:
        """See `Dialect`: there are none."""
        return b""

    def open_error(
        self, name: str, geometry: Geometry, segment_number: int, error: OSError, earliest: LSN
    ) -> WalFileError:
        """See `Dialect`."""
        log_file, segment = divmod(segment_number, geometry.segments_per_log_file)
        return file_error(
            f'could not open file "pg_xlog/{name}" (log file {log_file}, segment {segment})', error
        )

    def read_error(
        self, name: str, geometry: Geometry, position: int, length: int, wanted: int, error: OSError | None
    ) -> WalFileError:
        """See `Dialect`.  A file that ends early is reported as the read that failed."""
        log_file, segment = divmod(geometry.segment_number(position), geometry.segments_per_log_file)
        offset = position % geometry.segment_size
        place = f"log file {log_file}, segment {segment}, offset {offset}"
        reason = error if error is not None else OSError(0, os.strerror(0))
        return file_error(f"could not read from {place}, length {wanted}", reason)
