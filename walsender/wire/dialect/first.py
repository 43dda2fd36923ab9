"""The walsender as it first appeared in the 8.5 (later 9.0) development tree, in February 2010."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

from walsender.errors import TooManyConnections
from walsender.wire.backend import CopyOutResponse
from walsender.wire.dialect.base import MAX_SEND_SIZE, REPORTED_90
from walsender.wire.dialect.handshake import HandshakeDialect
from walsender.wire.first_dialect import parse_first_dialect_query

if TYPE_CHECKING:
    from walsender.lsn import LSN, Geometry
    from walsender.wire.statements import Command

ByteOrder = Literal["little", "big"]


class FirstDialect(HandshakeDialect):
    """
    The walsender of February 2010: CopyOut, no replies, no keepalives, every error fatal.

    :param byte_order: of the WAL's pages; message headers are in it, as the
        server that wrote them sent its own structures.

    Source: PostgreSQL, src/backend/replication/walsender.c as first committed for 8.5.
    """

    tells_lost_client = True

    def __init__(self, version: int, byte_order: ByteOrder) -> None:
        super().__init__(version)
        self._position = struct.Struct("<II" if byte_order == "little" else ">II")

    @property
    def reported_parameters(self) -> tuple[str, ...]:
        """As 9.0 reports them, whatever WAL is sent."""
        return REPORTED_90

    def too_many_connections(self, error: TooManyConnections) -> TooManyConnections:
        """See `Dialect`."""
        return TooManyConnections("sorry, too many standbys already")

    def parse_command(self, query: bytes) -> Command:
        """See `Dialect`."""
        return parse_first_dialect_query(query)

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
