"""What every dialect before 9.3 has in common: one command starts the stream, and every error is the end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Final

from walsender.errors import (
    InsufficientPrivilege,
    ProtocolViolation,
    WalFileError,
    WalsenderError,
    file_error,
)
from walsender.wire.backend import CommandComplete, Field
from walsender.wire.dialect.base import INT4_OID, TEXT_OID, Dialect, result_set
from walsender.wire.first_dialect import HANDSHAKE_MESSAGES
from walsender.wire.framing import MessageRules
from walsender.wire.frontend import FrontendMessage, Terminate
from walsender.wire.startup import ReplicationMode, parse_first_replication_mode

if TYPE_CHECKING:
    from walsender.lsn import LSN, Geometry

_CLOSING_MESSAGES: Final = MessageRules({}, refusal="invalid standby closing message type {code}")


class HandshakeDialect(Dialect):
    """
    A walsender that shakes hands, streams, and is gone: there is no way back to commands.

    Source: PostgreSQL 9.0 to 9.2, src/backend/replication/walsender.c, WalSndHandshake; errors are
    fatal because nothing there would catch another kind.
    """

    copy_both: ClassVar[bool] = False
    reserves_before_authentication = False
    sends_key_data = False

    def severity(self, error: WalsenderError) -> str:
        """See `Dialect`."""
        return "FATAL"

    def replication_mode(self, value: str) -> ReplicationMode:
        """See `Dialect`."""
        return parse_first_replication_mode(value)

    def may_not_replicate(self) -> InsufficientPrivilege:
        """See `Dialect`."""
        return InsufficientPrivilege("must be superuser to start walsender")

    def message_rules(self, *, streaming: bool) -> MessageRules:
        """See `Dialect`: while streaming, nothing is read but Terminate."""
        return _CLOSING_MESSAGES if streaming else HANDSHAKE_MESSAGES

    def closes_at(self, type_byte: int | None, *, streaming: bool) -> bool:
        """See `Dialect`: while streaming, Terminate is known by its type byte."""
        return streaming and type_byte == Terminate.type_byte

    def unexpected_message(self, message: FrontendMessage) -> WalsenderError:
        """See `Dialect`."""
        return ProtocolViolation(f"invalid standby handshake message type {message.type_byte}")

    def identify_system(self, system_identifier: int, timeline: int, flush_lsn: LSN) -> bytes:
        """See `Dialect`: two columns, and no position yet."""
        return self._identity(system_identifier, timeline)

    def _identity(self, system_identifier: int, timeline: int, *more: tuple[str, bytes]) -> bytes:
        """
        Return the answer to IDENTIFY_SYSTEM.

        :param more: names and texts of further columns.
        """
        fields = [Field("systemid", TEXT_OID, -1, 0), Field("timeline", INT4_OID, 4, 0)]
        fields += [Field(name, TEXT_OID, -1, 0) for name, _ in more]
        row = [b"%d" % system_identifier, b"%d" % timeline, *(text for _, text in more)]
        return result_set(fields, row) + CommandComplete("SELECT").encode()

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
