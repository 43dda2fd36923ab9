"""
PostgreSQL 9.0, 9.1 and 9.2: messages are the server's structures as they stood in its memory.

Source: PostgreSQL 9.0 to 9.2, src/backend/replication/walsender.c, and
src/include/replication/walprotocol.h.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from walsender.errors import InsufficientPrivilege, WalFileError, WalFileMissing
from walsender.wire.backend import CopyBothResponse, CopyOutResponse
from walsender.wire.command import parse_command
from walsender.wire.dialect.base import MAX_SEND_SIZE
from walsender.wire.dialect.handshake import HandshakeDialect
from walsender.wire.first_dialect import HANDSHAKE_MESSAGES, parse_first_dialect_query
from walsender.wire.framing import MAX_STANDBY_DATA, MessageRules
from walsender.wire.replication import PrimaryKeepalive, RawLayout, StandbyMessage, to_pg_timestamp

if TYPE_CHECKING:
    from walsender.lsn import LSN, Geometry
    from walsender.wire.dialect.first import ByteOrder
    from walsender.wire.statements import Command

_PAGES_PER_MESSAGE: Final = 16

_STANDBY_MESSAGES: Final = MessageRules(
    {ord("d"): MAX_STANDBY_DATA}, refusal='invalid standby message type "{character}"'
)


def _copy_data(body: bytes, more: int = 0) -> bytes:
    """Return a CopyData with *body*, after which *more* bytes of it follow."""
    return b"d" + (4 + len(body) + more).to_bytes(4, "big") + body


class Dialect90(HandshakeDialect):
    """
    PostgreSQL 9.0: CopyOut, no replies and no keepalives.

    :param byte_order: of the WAL's pages, and so of the server that wrote it.
    """

    def __init__(self, version: int, byte_order: ByteOrder) -> None:
        super().__init__(version)
        self._layout = RawLayout(byte_order)

    def parse_command(self, query: bytes) -> Command:
        """See `Dialect`: still two string comparisons."""
        return parse_first_dialect_query(query)

    def start_response(self) -> bytes:
        """See `Dialect`."""
        return CopyOutResponse().encode()

    def message_end(self, start: int, end: int, geometry: Geometry, read_size: int = MAX_SEND_SIZE) -> int:
        """
        See `Dialect`: at most 16 pages, across segments but not across log files.

        Source: PostgreSQL 9.2, src/backend/replication/walsender.c, XLogSend.
        """
        log_file_end = (start // geometry.log_file_size + 1) * geometry.log_file_size
        limit = min(start + _PAGES_PER_MESSAGE * geometry.page_size, log_file_end)
        return end if end <= limit else geometry.page_start(limit)

    def wal_header(self, start: LSN, end: LSN, seconds: float, length: int) -> bytes:
        """See `Dialect`."""
        return _copy_data(self._layout.data_header(start, end, to_pg_timestamp(seconds)), length)

    def keepalive(self, sent: LSN, seconds: float, *, reply_requested: bool) -> bytes:
        """See `Dialect`: there are none before 9.2."""
        return b""

    def open_error(
        self, name: str, geometry: Geometry, segment_number: int, error: OSError, earliest: LSN
    ) -> WalFileError:
        """See `Dialect`.  As in later versions, the detail is ours."""
        if error.errno != errno.ENOENT:
            return super().open_error(name, geometry, segment_number, error, earliest)
        return WalFileMissing(
            f"requested WAL segment {name} has already been removed",
            detail=f"The earliest WAL position that is held here is {earliest}." if earliest else None,
        )


class Dialect91(Dialect90):
    """PostgreSQL 9.1: CopyBoth and a grammar; the standby reports, and is never asked to."""

    copy_both = True

    def may_not_replicate(self) -> InsufficientPrivilege:
        """See `Dialect`."""
        return InsufficientPrivilege("must be superuser or replication role to start walsender")

    def message_rules(self, *, streaming: bool) -> MessageRules:
        """See `Dialect`: CopyData and Terminate while streaming; there is no CopyDone."""
        return _STANDBY_MESSAGES if streaming else HANDSHAKE_MESSAGES

    def parse_command(self, query: bytes) -> Command:
        """See `Dialect`."""
        return parse_command(query, self.version)

    def identify_system(self, system_identifier: int, timeline: int, flush_lsn: LSN) -> bytes:
        """See `Dialect`: with the position up to which WAL may be sent."""
        return self._identity(system_identifier, timeline, ("xlogpos", str(flush_lsn).encode()))

    def start_response(self) -> bytes:
        """See `Dialect`."""
        return CopyBothResponse().encode()

    def decode_standby(self, data: bytes) -> StandbyMessage:
        """See `Dialect`."""
        return self._layout.decode_standby(data)


class Dialect92(Dialect91):
    """PostgreSQL 9.2: keepalives, which cannot ask for a reply."""

    def keepalive(self, sent: LSN, seconds: float, *, reply_requested: bool) -> bytes:
        """See `Dialect`."""
        return _copy_data(self._layout.encode(PrimaryKeepalive(sent, to_pg_timestamp(seconds))))
