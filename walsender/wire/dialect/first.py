"""The walsender as it first appeared in the 8.5 (later 9.0) development tree, in February 2010."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final, Literal

from walsender.errors import (
    InsufficientPrivilege,
    ProtocolViolation,
    TooManyConnections,
    WalFileError,
    WalsenderError,
    file_error,
)
from walsender.wire.backend import CommandComplete, CopyOutResponse, Field
from walsender.wire.dialect.base import INT4_OID, MAX_SEND_SIZE, REPORTED_90, TEXT_OID, Dialect, result_set
from walsender.wire.first_dialect import HANDSHAKE_MESSAGES, parse_first_dialect_query
from walsender.wire.framing import MessageRules
from walsender.wire.frontend import FrontendMessage, Terminate
from walsender.wire.startup import ReplicationMode, parse_first_replication_mode

if TYPE_CHECKING:
    from walsender.lsn import LSN, Geometry
    from walsender.wire.statements import Command

ByteOrder = Literal["little", "big"]


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
        return REPORTED_90

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
